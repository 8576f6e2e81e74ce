"""What a customer and we have to do with each other: papers, tickets, answers, meetings, talk."""

from __future__ import annotations

import random
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from cli.company.calendars import ZONES
from cli.company.diary import Diary
from cli.company.population import FEATURES, HISTORY_DAYS, PLANS, Account, User, contact_name, slug, users
from cli.company.usage import level

NOTICE_DAYS = {"high": 90, "mid": 60, "low": 30}
TICKETS_A_MONTH = {"high": 0.7, "mid": 0.35, "low": 0.12}
SEVERITIES = {"p1": 2, "p2": 15, "p3": 55, "p4": 28}
SOLVED_WITHIN = {"p1": (0.1, 0.9), "p2": (0.3, 3.0), "p3": (0.3, 8.0), "p4": (1.0, 14.0)}
MOODS = {
    "steady": (62, 27, 11),
    "growing": (72, 24, 4),
    "new": (60, 32, 8),
    "fading": (25, 40, 35),
    "dropped": (20, 42, 38),
    "silent": (15, 50, 35),
    "churned": (10, 35, 55),
    "unhappy": (10, 35, 55),
}
MOOD_NAMES = ("promoter", "passive", "detractor")
TOUCH_EVERY = {"high": 16, "mid": 40}
MORNING, NOON, EVENING = 8 * 3600, 12 * 3600, 17 * 3600


@lru_cache(maxsize=1)
def words() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text(encoding="utf-8"))
    return loaded


def dealings(account: Account, diary: Diary, seed: int) -> None:
    """Everything but the use of the product."""
    rng = random.Random(f"{seed}/{account.id}/dealings")
    people = users(account, seed)
    _profile(account, diary, seed)
    _papers(account, diary, rng)
    _tickets(account, diary, rng, people)
    _answers(account, diary, rng, people)
    _wishes(account, diary, rng, people)
    if account.csm:
        _relations(account, diary, rng)
        _meetings(account, diary, rng)


def first_day(account: Account, diary: Diary) -> int:
    return max(0, diary.span.index(account.starts_ago))


def last_day(account: Account, diary: Diary) -> int:
    """The first day after the customer's time."""
    return diary.span.index(account.turn_ago) if account.course == "churned" else diary.span.days


def money(amount: float) -> str:
    return f"{amount:.2f}"


def _profile(account: Account, diary: Diary, seed: int) -> None:
    start = first_day(account, diary)
    fields: dict[str, Any] = {
        "name": account.name,
        "plan": PLANS["b2c" if account.model == "b2c" else account.tier],
        "business_model": account.model,
        "stage": "onboarding" if account.starts_ago < HISTORY_DAYS - 10 else "adoption",
        "country": account.country,
        "language": account.language,
        "timezone": ZONES[account.country],
        "seats": account.seats,
    }
    if account.model == "b2b":
        fields |= {"industry": account.industry, "domain": f"{account.id}.example"}
        fields["external_ids"] = {"crm": f"C-{account.id}"}
    if account.parent_id:
        fields["parent_id"] = account.parent_id
    diary.write(start, 3600, "account.updated", **fields)
    if fields["stage"] == "onboarding":
        diary.write(start + 60, 3600, "account.updated", stage="adoption")
    if account.course == "churned":
        diary.write(last_day(account, diary), 3600, "account.updated", stage="churned")
    for product in account.products:
        diary.write(start, 3700, "entitlement.changed", product=product, seats=account.seats,
                    features=list(FEATURES[product]))  # fmt: skip
    if account.csm:
        before = "julien.carpentier" if account.csm in ("hannah.pike", "tom.whitfield") else account.csm
        diary.write(start, 3800, "csm.changed", person_id=before)
        if before != account.csm:  # Julien's accounts were handed over
            diary.write(max(start + 1, diary.span.index(200)), 3900, "csm.changed", person_id=account.csm)
        for role in ("champion", "sponsor") if account.tier == "high" else ("champion",):
            contact = contact_id(account, seed, role)
            diary.write(start, 4000, "contact.changed", contact_id=contact, role=role, status="active")


def contact_id(account: Account, seed: int, role: str) -> str:
    return f"{slug(contact_name(account, seed, role)).replace('-', '.')}@{account.id}"


def _papers(account: Account, diary: Diary, rng: random.Random) -> None:
    """Contract, subscription and invoices, with what grew and shrank on the way."""
    start, end = first_day(account, diary), last_day(account, diary)
    mrr = account.arr / 12
    changes = dict(_changes(account, diary, rng))
    terms = _terms(account, diary) if account.tier != "low" else []
    monthly = account.tier == "low"
    billing_day = rng.randrange(30)
    for day in range(start, min(end, diary.span.days)):
        renewal = next((term for term in terms if max(term, start) == day), None)
        if day in changes or day == start:
            mrr *= 1 + changes.get(day, 0.0)
            diary.write(day, MORNING, "subscription.changed", mrr=money(mrr), currency="EUR", plan=account.tier,
                        seats=account.seats)  # fmt: skip
        if renewal is not None or (day in changes and terms):
            term = max(term for term in terms if term <= day)
            contract(account, diary, day, term, mrr)
        if (day - start) % (30 if monthly else 91) == billing_day:
            _invoice(account, diary, rng, day, mrr * (1 if monthly else 3))
    if account.course == "churned":
        reason = rng.choice(words()["churn"][account.words])
        gone = diary.date(end)
        diary.write(end - 45, NOON, "churn.notified", reason=reason, effective_on=gone.isoformat())
        diary.write(end, 60, "subscription.changed", mrr="0.00", currency="EUR")
        if terms:
            diary.write(end, 61, "contract.changed", contract_id=f"K-{account.id}", arr="0.00", currency="EUR",
                        auto_renew=False, ends_on=gone.isoformat(), notice_on=None)  # fmt: skip


def _terms(account: Account, diary: Diary) -> list[int]:
    """Days (before the span, too) on which yearly terms begin."""
    began = account.starts_ago if account.renews_ago is None else account.renews_ago + 365
    if account.starts_ago >= HISTORY_DAYS - 10 and account.renews_ago is None:  # an old customer: any day of the year
        began = HISTORY_DAYS + random.Random(account.id).randrange(1, 365)
    return [diary.span.index(ago) for ago in (began, began - 365, began - 730) if ago > 0]


def contract(account: Account, diary: Diary, day: int, term: int, mrr: float) -> None:
    """The terms of the year that runs from day `term`, as known on `day`."""
    starts = diary.date(term)
    ends = starts + timedelta(days=365)
    notice = ends - timedelta(days=NOTICE_DAYS[account.tier])
    diary.write(day, MORNING + 60, "contract.changed", contract_id=f"K-{account.id}", starts_on=starts.isoformat(),
                ends_on=ends.isoformat(), notice_on=notice.isoformat(), auto_renew=True, arr=money(mrr * 12),
                currency="EUR", seats=account.seats)  # fmt: skip


def _changes(account: Account, diary: Diary, rng: random.Random) -> list[tuple[int, float]]:
    """(day, share by which the revenue changes)"""
    if account.is_story or account.model == "b2c":
        return []
    early, late = first_day(account, diary) + 120, diary.span.days - 20
    days = sorted(rng.randrange(early, late) for _ in range(2)) if early < late else []
    if account.course == "growing":
        return [(day, rng.choice((0.1, 0.15, 0.2, 0.3))) for day in days]
    if account.course == "fading" and days and rng.random() < 0.3:
        return [(days[-1], -0.2)]
    if account.course == "steady" and days and rng.random() < 0.25:
        return [(days[0], rng.choice((0.05, 0.1, 0.2)))]
    return []


def _invoice(account: Account, diary: Diary, rng: random.Random, day: int, amount: float) -> None:
    invoice_id = f"F-{account.id}-{diary.date(day):%y%m%d}"
    invoice: dict[str, Any] = {"invoice_id": invoice_id, "amount": money(amount), "currency": "EUR"}
    troubled = account.course in ("dropped", "silent") and account.tier == "low" and diary.span.days - day < 35
    if rng.random() > (0.3 if troubled else 0.02):
        diary.write(day, 7 * 3600, "invoice.paid", **invoice)
        return
    diary.write(day, 7 * 3600, "invoice.failed", attempt=1, **invoice)
    if troubled or not diary.write(day + rng.randint(1, 6), 7 * 3600, "invoice.paid", **invoice):
        diary.write(day + 3, 7 * 3600, "invoice.failed", attempt=2, **invoice)


def _tickets(account: Account, diary: Diary, rng: random.Random, people: tuple[User, ...]) -> None:
    monthly = TICKETS_A_MONTH[account.tier] * (0.4 if account.model == "b2c" else 1)
    for day in range(first_day(account, diary), last_day(account, diary)):
        ago = diary.span.days - day
        lately_unhappy = account.course == "unhappy" and ago < 150
        rate = monthly * (3.0 if lately_unhappy else 1.0) * (level(account, ago) > 0.05)
        if rng.random() < rate / 30 and diary.date(day).weekday() < 5:
            ticket(account, diary, rng, day, rng.choice(people), slow=lately_unhappy)


def ticket(
    account: Account, diary: Diary, rng: random.Random, day: int, user: User, *,
    slow: bool = False, severity: str | None = None, stays_open: bool = False, second: float | None = None,
) -> None:  # fmt: skip
    """A ticket from its opening to its end, as far as it got."""
    severity = severity or rng.choices(list(SEVERITIES), list(SEVERITIES.values()))[0]
    product = rng.choice(account.products)
    said = rng.choice([text for text in words()["tickets"][account.words] if text["severity"] == severity])
    ticket_id = f"T-{account.id}-{diary.date(day):%y%m%d}-{rng.randrange(100):02}"
    who: dict[str, Any] = {"ticket_id": ticket_id, "user_id": user.id}
    opened = second if second is not None else MORNING + rng.randrange(8 * 3600)
    area: dict[str, Any] = {"severity": severity, "product_area": product, "language": account.words}
    name = product.capitalize()
    diary.write(day, opened, "ticket.opened", **who, subject=said["subject"].format(p=name), text=said["text"], **area)
    comments = words()["comments"][account.words]
    low, high = SOLVED_WITHIN[severity]
    takes = rng.uniform(low, high) * (4 if slow else 1)
    at = day + opened / 86_400
    for _ in range(rng.choice((0, 1, 1, 2))):
        at += takes / 4
        author = rng.choice(("agent", "customer"))
        _at(diary, at, "ticket.commented", **who, author=author, text=rng.choice(comments[author]))
    if stays_open:
        return
    solved = day + opened / 86_400 + takes
    _at(diary, solved, "ticket.solved", ticket_id=ticket_id)
    if rng.random() < (0.15 if slow else 0.03):
        _at(diary, solved + 0.5, "ticket.updated", **who, status="open", text=comments["customer"][0])
        _at(diary, solved + 3.5, "ticket.solved", ticket_id=ticket_id)
    if rng.random() < 0.3:
        mood = "bad" if rng.random() < (0.5 if slow else 0.12) else "good"
        score = rng.choice((1, 2, 3)) if mood == "bad" else rng.choice((4, 5, 5))
        _answer(account, diary, solved + 0.2, user, "csat", score, rng.choice(words()["csat"][account.words][mood]))
    elif rng.random() < 0.12:
        _answer(account, diary, solved + 0.2, user, "ces", rng.choice((2, 3) if slow else (4, 5, 6, 6, 7)), "")


def _at(diary: Diary, day: float, type_: str, **fields: Any) -> bool:
    return diary.write(day, 86_400 * (day % 1), type_, **fields)


def _answers(account: Account, diary: Diary, rng: random.Random, people: tuple[User, ...]) -> None:
    """An NPS question twice a year to some of the people, and what they said."""
    if account.is_story or account.course == "unused" or (account.model == "b2c" and rng.random() < 0.5):
        return
    phase = rng.randrange(182)
    for day in range(first_day(account, diary) + 25, last_day(account, diary)):
        if (day + phase) % 182:
            continue
        here = [user for user in people if diary.span.index(user.joins_ago) <= day]
        for user in rng.sample(here, min(len(here), 5)):
            survey = f"nps-{diary.date(day):%Y}-h{1 if diary.date(day).month < 7 else 2}"
            diary.write(day, 9 * 3600, "survey.sent", survey_id=survey, kind="nps", recipient_id=user.id)
            when = day + rng.uniform(0.4, 6)
            if level(account, diary.span.days - int(when)) > 0.05 and rng.random() < 0.5:
                nps(account, diary, rng, when, user, survey)


def nps(account: Account, diary: Diary, rng: random.Random, day: float, user: User, survey: str | None) -> None:
    turned = account.turn_ago and diary.span.days - int(day) > account.turn_ago + 120
    mood = rng.choices(MOOD_NAMES, MOODS["steady" if turned else account.course])[0]
    score = {"promoter": (9, 9, 10), "passive": (7, 8, 8), "detractor": (3, 4, 5, 6, 6)}[mood]
    said = rng.choice(words()["nps"][account.words][mood]).format(p=account.products[0].capitalize())
    chosen = rng.choice(score)
    _answer(account, diary, day, user, "nps", chosen, said, survey)
    if rng.random() < 0.012:  # a slip of the finger, put right the day after
        _at(diary, day + 1, "survey.corrected", answer_id=_answer_id(account, user, day), score=min(10, chosen + 1))


def _answer(account: Account, diary: Diary, day: float, user: User, kind: str, score: float, comment: str,
            survey: str | None = None) -> None:  # fmt: skip
    fields: dict[str, Any] = {"kind": kind, "score": score, "answer_id": _answer_id(account, user, day)}
    if survey:
        fields["survey_id"] = survey
    if comment:
        fields |= {"comment": comment, "language": account.words}
    _at(diary, _in_daylight(day), "survey.answered", user_id=user.id, **fields)


def _answer_id(account: Account, user: User, day: float) -> str:
    return f"A-{account.id}-{user.id}-{int(day)}"


def _in_daylight(day: float) -> float:
    """The same day between 7 and 19 o'clock."""
    return int(day) + (7 + 12 * (day % 1)) / 24


def _wishes(account: Account, diary: Diary, rng: random.Random, people: tuple[User, ...]) -> None:
    if account.model == "b2c" or rng.random() > {"high": 0.8, "mid": 0.45, "low": 0.15}[account.tier]:
        return
    known = words()["wishes"][account.words]
    for wish in rng.choices(known, [1 / (1 + rank) for rank in range(len(known))], k=rng.choice((1, 1, 2))):
        day = rng.randrange(first_day(account, diary), last_day(account, diary))
        diary.write(day, NOON + rng.randrange(3600), "feature.requested", user_id=rng.choice(people).id,
                    product_area=account.products[0], language=account.words, **wish)  # fmt: skip


def _relations(account: Account, diary: Diary, rng: random.Random) -> None:
    """Calls, notes, mails and the CSM's pulse."""
    every = TOUCH_EVERY[account.tier]
    start, end = first_day(account, diary), last_day(account, diary)
    diary.write(start + 14, NOON, "training.held", training_id=f"S-{account.id}")
    day = start + rng.randint(3, every)
    number = 0
    while day < end:
        number += 1
        while diary.date(day).weekday() >= 5:
            day += 1
        ago = diary.span.days - day
        good = level(account, ago) > 0.75 and account.course != "unhappy"
        answers = level(account, ago) > 0.05
        if answers:
            _touch(account, diary, rng, day, number, good)
        else:
            diary.write(day, MORNING + 900, "message.sent", message_id=f"M-{account.id}-{number}", channel="email",
                        person_id=account.csm)  # fmt: skip
        if account.tier == "high" and number % 2 == 0:
            pulse = "green" if good else ("amber" if answers else "red")
            diary.write(day, EVENING, "sentiment.logged", pulse=pulse, person_id=account.csm,
                        expires_on=(diary.date(day) + timedelta(days=60)).isoformat())  # fmt: skip
        day += max(4, round(rng.gauss(every, every / 4)))


def _touch(account: Account, diary: Diary, rng: random.Random, day: int, number: int, good: bool) -> None:
    """One contact that went both ways."""
    kind = rng.random()
    second = MORNING + rng.randrange(8 * 3600)
    if kind < 0.35:
        text = rng.choice(words()["calls"][account.words]["good" if good else "bad"])
        diary.write(day, second, "call.held", call_id=f"P-{account.id}-{number}", person_id=account.csm,
                    duration_s=rng.randint(600, 2700), text=text, language=account.words)  # fmt: skip
    elif kind < 0.6:
        diary.write(day, second, "touchpoint.logged", channel=rng.choice(("call", "visit", "chat")), two_way=True,
                    person_id=account.csm, note=rng.choice(words()["notes"][account.words]))  # fmt: skip
    else:
        mail: dict[str, Any] = {"channel": "email", "person_id": account.csm}
        diary.write(day, second, "message.sent", message_id=f"M-{account.id}-{number}", **mail)
        _at(diary, day + second / 86_400 + rng.uniform(0.05, 1.5), "message.received",
            message_id=f"M-{account.id}-{number}-re", **mail)  # fmt: skip


def _meetings(account: Account, diary: Diary, rng: random.Random) -> None:
    """A review each quarter (high) or half-year (mid): planned, and held, moved or missed."""
    if account.parent_id:
        return
    kind, months = ("qbr", 3) if account.tier == "high" else ("check_in", 6)
    end = last_day(account, diary)
    for begins in _periods(diary.span.first, diary.span.today, months):
        offset, chance = rng.randint(20, months * 30 - 12), rng.random()
        day = (begins - diary.span.first).days + offset
        while diary.date(day).weekday() >= 5:
            day -= 1
        known = day - 24
        if known < first_day(account, diary) + 30 or day > end + 60:
            continue
        _meeting(account, diary, rng, kind, day, known, chance, end)


def _meeting(account: Account, diary: Diary, rng: random.Random, kind: str, day: int, known: int, chance: float,
             end: int) -> None:  # fmt: skip
    who: dict[str, Any] = {"meeting_id": f"R-{account.id}-{diary.date(day):%y%m%d}", "kind": kind,
                           "person_id": account.csm}  # fmt: skip
    diary.write(known, NOON, "meeting.scheduled", scheduled_for=_moment(diary.date(day)), **who)
    if chance > 0.9:
        diary.write(day, 14 * 3600, "meeting.no_show", **who)
        return
    if chance > 0.8:
        moved = day + rng.randint(4, 12)
        diary.write(day - 2, NOON, "meeting.rescheduled", scheduled_for=_moment(diary.date(moved)), **who)
        day = moved
    present = level(account, diary.span.days - day) > 0.05 if day < diary.span.days else True
    if day < end and present:
        good = level(account, diary.span.days - day) > 0.75 and account.course != "unhappy"
        text = rng.choice(words()["calls"][account.words]["good" if good else "bad"])
        diary.write(day, 15 * 3600, "meeting.held", sponsor_attended=rng.random() < 0.6, text=text,
                    language=account.words, **who)  # fmt: skip


def _periods(first: date, last: date, months: int) -> list[date]:
    """The first days of the calendar quarters or half-years that touch the span."""
    year, month = first.year, (first.month - 1) // months * months + 1
    found = []
    while (begins := date(year, month, 1)) <= last:
        found.append(begins)
        year, month = (year + 1, 1) if month + months > 12 else (year, month + months)
    return found


def _moment(day: date) -> str:
    return f"{day.isoformat()}T14:00:00Z"
