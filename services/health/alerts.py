"""Which episodes a picture of an account opens, and which of the open ones are over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from services.health import phrases, scoring, wording
from services.health.facts import Answer, Contact, Invoice, Picture, Ticket
from services.health.rules import (
    AnyRule,
    Detractor,
    LicenceFull,
    NewPeople,
    NoticeNear,
    PaymentFailed,
    Promoter,
    RevenueDisagrees,
    ScoreBelow,
    ScoreDrop,
    ScoreUnknown,
    Severity,
    Silent,
    SourceSilent,
    SponsorLeft,
    TicketOpen,
    TicketStorm,
    TrackingBreak,
    UsageDip,
    UsageGrowth,
)
from services.health.scoring import Band, Score
from services.health.settings import Language, Model
from services.health.standstill import Held
from services.health.usage import DAY_US, micros, midnight, midnights, moment

MOST_STOPPED = 5


@dataclass(frozen=True, slots=True)
class Words:
    """What is told of an episode when it opens; `people` are hashes of users."""

    title: str
    why: str
    evidence: Mapping[str, Any]
    people: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """An episode that holds: `cause` tells two episodes of one rule apart.

    `enters` tells whether it may open; else it only keeps an open one open. `tell` words it, for the few that are told.
    """

    rule: str
    cause: str
    enters: bool
    tell: Callable[[], Words]
    severity: Severity | None = None
    """More than the rule's, where it has grown so."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a rule may look at: the picture, the score, the band as it is shown, and the whole-point scores shown lately
    (day, score)."""

    now: Picture
    score: Score
    band: Band
    shown: Sequence[tuple[date, int]]
    had_score: bool
    green_since: datetime | None
    """Since when its band is green; null: it is not."""
    model: Model
    language: Language
    held: tuple[Held, ...] = ()
    """Where data broke on the way: rules look at use as it then reads."""


def findings(name: str, rule: AnyRule, at: Situation) -> Iterable[Finding]:
    """What of a rule holds in a situation."""
    if at.held and (reading := _BY_USE.get(type(rule))) is not None:
        read = partial(reading, rule)
        at = next((replace(at, now=one.then) for one in at.held if one.concerns(read, _same)), at)
    return _FINDERS[type(rule)](name, rule, at)


def _same(one: float | None, other: float | None) -> bool:
    """Whether two readings differ by less than a twentieth."""
    return one == other if not one or not other else abs(one - other) < 0.05 * max(abs(one), abs(other))


def _told(when: str, at: Situation, *, evidence: Mapping[str, Any], people: Sequence[int] = (),
          **words: object) -> Words:  # fmt: skip
    text = phrases.text if phrases.has(f"{when}.title") else wording.text
    title = text(f"{when}.title", at.language, **words)
    why = text(f"{when}.why", at.language, **words)
    return Words(title, why, evidence, tuple(people))


def _of_unknown(name: str, rule: ScoreUnknown, at: Situation) -> Iterator[Finding]:
    def tell() -> Words:
        return _told(
            "score_unknown", at, evidence={"coverage": round(at.score.coverage, 6)},
            coverage=wording.percent(at.score.coverage, at.language),
            missing=wording.missing(at.score.parts, at.model, at.language),
        )  # fmt: skip

    if at.score.score is None:
        yield Finding(name, "", at.had_score, tell)


def _of_score(name: str, rule: ScoreBelow, at: Situation) -> Iterator[Finding]:
    score = at.score.score

    def tell() -> Words:
        return _told(
            "score_below", at, evidence={"score": score, "enter": rule.enter, "leave": rule.leave},
            score=score, parts=wording.weakest(at.score.parts, at.model, at.language),
        )  # fmt: skip

    if score is None:  # an open episode waits until there is a score again
        yield Finding(name, "", False, tell)
    elif score < rule.leave:
        worse = rule.worse.severity if rule.worse and score <= rule.worse.at else None
        yield Finding(name, "", score < rule.enter, tell, worse)


def _of_drop(name: str, rule: ScoreDrop, at: Situation) -> Iterator[Finding]:
    score = at.score.computed
    if score is None:
        return
    since = at.now.today - timedelta(days=rule.days)
    high = max((shown for day, shown in at.shown if day >= since), default=score)

    def tell() -> Words:
        return _told(
            "score_drop", at, evidence={"score": score, "highest": high, "days": rule.days}, by=high - score,
            high=high, days=rule.days, score=score, parts=wording.weakest(at.score.parts, at.model, at.language),
        )  # fmt: skip

    if high - score >= rule.points / 2:
        worse = rule.worse.severity if rule.worse and high - score >= rule.worse.at else None
        yield Finding(name, "", high - score >= rule.points, tell, worse)


def _of_tickets(name: str, rule: TicketOpen, at: Situation) -> Iterator[Finding]:
    def tell(ticket: Ticket) -> Words:
        evidence = {"ticket_id": ticket.id, "severity": ticket.severity, "opened_at": _utc(ticket.opened_at),
                    "subject": ticket.subject}  # fmt: skip
        return _told("ticket_open", at, evidence=evidence, ticket=ticket.id, severity=ticket.severity.upper(),
                     subject=ticket.subject or ticket.id,
                     since=f"{moment(ticket.opened_at):%Y-%m-%d %H:%M}")  # fmt: skip

    for ticket in at.now.tickets:
        if ticket.is_open and ticket.severity in rule.severities:
            yield Finding(name, ticket.id, True, partial(tell, ticket))


def _of_storm(name: str, rule: TicketStorm, at: Situation) -> Iterator[Finding]:
    after = micros(at.now.at) - rule.days * DAY_US
    recent = [ticket for ticket in at.now.tickets if ticket.opened_at > after]

    def tell() -> Words:
        listed: dict[str, Any] = {"tickets": [ticket.id for ticket in recent][:20], "days": rule.days}
        return _told("ticket_storm", at, evidence=listed, n=len(recent), days=rule.days,
                     open=sum(ticket.is_open for ticket in recent))  # fmt: skip

    if len(recent) >= rule.leave:
        worse = rule.worse.severity if rule.worse and len(recent) >= rule.worse.at else None
        yield Finding(name, "", len(recent) >= rule.tickets, tell, worse)


def _of_answers(name: str, rule: Detractor | Promoter, at: Situation) -> Iterator[Finding]:
    after = micros(at.now.at) - rule.days * DAY_US
    detracts = rule.when == "detractor"

    def tell(answer: Answer) -> Words:
        evidence = {"answer_id": answer.id, "score": answer.score, "user_id": answer.person, "quote": answer.quote,
                    "answered_at": _utc(answer.at)}  # fmt: skip
        return _told(rule.when, at, evidence=evidence, score=wording.number(answer.score, at.language),
                     day=_day(at, answer.at), quote=f": “{answer.quote}”" if answer.quote else "")  # fmt: skip

    if isinstance(rule, Promoter) and rule.green_days:
        long_ago = at.now.at - timedelta(days=rule.green_days)
        green = at.green_since is not None and at.green_since <= long_ago
    else:
        green = True
    for answer in at.now.latest_answers("nps"):
        holds = answer.score <= rule.score if detracts else answer.score >= rule.score
        if holds and answer.at > after:
            yield Finding(name, answer.id, green, partial(tell, answer))


def _of_trend(name: str, rule: UsageDip | UsageGrowth, at: Situation) -> Iterator[Finding]:
    ratio, _ = scoring.usual(at.now, rule.trend)
    if ratio is None:
        return
    dips, trend = rule.when == "usage_dip", rule.trend
    if not (ratio < rule.leave if dips else ratio > rule.leave):
        return
    newest, baseline = scoring.levels(at.now, trend)
    if baseline < trend.floor:
        return

    def tell() -> Words:
        gone = at.now.usage.stopped(at.now.zone, at.now.today, trend.window_days, 1 + trend.baseline_windows)
        people = gone if dips else []
        evidence = {"ratio": round(ratio, 6), "now": newest, "usual": round(baseline, 6),
                    "window_days": trend.window_days, "people_stopped": len(people)}  # fmt: skip
        return _told(rule.when, at, evidence=evidence, people=people[:MOST_STOPPED],
                     of=wording.text(f"of.{trend.of}", at.language), ratio=wording.percent(ratio, at.language),
                     n=newest, days=trend.window_days, baseline=wording.number(baseline, at.language),
                     stopped=wording.text("stopped", at.language, n=len(people)) if people else "")  # fmt: skip

    enters = newest > 0 and ratio < rule.enter if dips else ratio > rule.enter  # no use at all is another rule's
    worse = rule.worse.severity if isinstance(rule, UsageDip) and rule.worse and ratio <= rule.worse.at else None
    yield Finding(name, "", enters, tell, worse)


def _of_new_people(name: str, rule: NewPeople, at: Situation) -> Iterator[Finding]:
    now = at.now
    new, before = now.usage.remember(
        ("new_people", now.zone.key, now.today, rule.days, rule.before_days),
        midnight(now.zone, now.today),
        lambda: _new_people(now, rule),
    )
    if before < rule.before or len(new) < rule.people / 2:
        return

    def tell() -> Words:
        evidence = {"people_new": len(new), "people_before": before, "days": rule.days}
        return _told("new_people", at, evidence=evidence, people=new[:MOST_STOPPED], n=len(new), before=before,
                     days=rule.days)  # fmt: skip

    yield Finding(name, "", len(new) >= rule.people, tell)


def _new_people(now: Picture, rule: NewPeople) -> tuple[list[int], int]:
    """Who is new, and how many there were before."""
    bounds = midnights(now.zone, now.today, rule.days + rule.before_days)
    first, since, today = int(bounds[0]) - 1, int(bounds[rule.before_days]) - 1, int(bounds[-2]) - 1
    known = set(now.usage.between(first, since)["user"].tolist()) - {0}
    recent = set(now.usage.between(since, today)["user"].tolist()) - {0}
    return sorted(recent - known), len(known)


def _of_silence(name: str, rule: Silent, at: Situation) -> Iterator[Finding]:
    last = at.now.usage.last_at
    if last is None:
        return
    since = micros(at.now.at) - last

    def tell() -> Words:
        users = at.now.usage.between(last - rule.before_days * DAY_US, last)["user"].tolist()
        people = sorted({user for user in users if user})
        evidence = {"last_seen_at": _utc(last), "days": since // DAY_US, "people_stopped": len(people)}
        return _told("silent", at, evidence=evidence, people=people[:MOST_STOPPED], n=since // DAY_US,
                     day=_day(at, last))  # fmt: skip

    if since >= rule.days * DAY_US:
        yield Finding(name, "", since < (rule.days + rule.before_days) * DAY_US, tell)


def _of_invoices(name: str, rule: PaymentFailed, at: Situation) -> Iterator[Finding]:
    def tell(invoice: Invoice, failed_at: int) -> Words:
        evidence = {"invoice_id": invoice.id, "amount": invoice.amount, "currency": invoice.currency,
                    "failed_at": _utc(failed_at)}  # fmt: skip
        amount = f" ({invoice.amount} {invoice.currency or ''})".replace(" )", ")") if invoice.amount else ""
        return _told("payment_failed", at, evidence=evidence, invoice=invoice.id, amount=amount,
                     day=_day(at, failed_at))  # fmt: skip

    for invoice in at.now.invoices:
        if invoice.is_unpaid and invoice.failed_at is not None:
            yield Finding(name, invoice.id, True, partial(tell, invoice, invoice.failed_at))


def _of_contacts(name: str, rule: SponsorLeft, at: Situation) -> Iterator[Finding]:
    after = micros(at.now.at) - rule.days * DAY_US
    people = [contact for contact in at.now.contacts if contact.role in ("champion", "sponsor")]
    remain = sum(contact.left_at is None for contact in people)

    def tell(contact: Contact, left_at: int) -> Words:
        evidence = {"contact_id": contact.id, "role": contact.role, "left_at": _utc(left_at), "remaining": remain}
        return _told("sponsor_left", at, evidence=evidence, contact=contact.id, role=contact.role,
                     day=_day(at, left_at), n=remain)  # fmt: skip

    for contact in people:
        if contact.left_at is not None and contact.left_at > after:
            yield Finding(name, contact.id, True, partial(tell, contact, contact.left_at))


def _of_notice(name: str, rule: NoticeNear, at: Situation) -> Iterator[Finding]:
    deadline = None if at.band == "green" else at.now.deadline
    if deadline is None:
        return
    days = (deadline - at.now.today).days

    def tell() -> Words:
        evidence = {"deadline": deadline.isoformat(), "days_left": days, "score": at.score.score, "band": at.band}
        score = wording.text("missing", at.language) if at.score.score is None else at.score.score
        return _told("notice_near", at, evidence=evidence, n=days, day=deadline.isoformat(), score=score,
                     parts=wording.weakest(at.score.parts, at.model, at.language))  # fmt: skip

    if days <= rule.days:
        worse = rule.worse.severity if rule.worse and days <= rule.worse.at else None
        yield Finding(name, deadline.isoformat(), True, tell, worse)


def _of_licences(name: str, rule: LicenceFull, at: Situation) -> Iterator[Finding]:
    now, seats = at.now, at.now.seats
    if not seats or now.usage.last_at is None:
        return
    users = now.usage.windows(now.zone, now.today, "users", rule.days, 1)[0]
    share = users / seats

    def tell() -> Words:
        evidence = {"users": users, "seats": seats, "share": round(share, 6), "days": rule.days}
        return _told("licence_full", at, evidence=evidence, share=wording.percent(share, at.language), n=users,
                     seats=seats, days=rule.days)  # fmt: skip

    if share > rule.leave:
        worse = rule.worse.severity if rule.worse and share >= rule.worse.at else None
        yield Finding(name, "", share > rule.enter, tell, worse)


def _of_revenue(name: str, rule: RevenueDisagrees, at: Situation) -> Iterator[Finding]:
    if at.band not in ("green", "red"):
        return
    now = at.now
    before, then = now.mrr(midnight(now.zone, now.today - timedelta(days=rule.days)))
    mrr, currencies = now.mrr(micros(now.at))
    if not before or mrr is None or len(currencies | then) > 1:
        return
    change = mrr / before - 1
    what = "falls" if at.band == "green" else "grows"

    def tell() -> Words:
        evidence = {"mrr": format(mrr, "f"), "mrr_before": format(before, "f"), "change": round(float(change), 6),
                    "days": rule.days, "score": at.score.score, "band": at.band}  # fmt: skip
        return _told(f"revenue_disagrees.{what}", at, evidence=evidence, days=rule.days, score=at.score.score,
                     by=wording.percent(float(abs(change)), at.language), mrr=format(mrr, "f"),
                     before=format(before, "f"))  # fmt: skip

    if change <= -Decimal(str(rule.fall)) if at.band == "green" else change >= Decimal(str(rule.growth)):
        yield Finding(name, what, True, tell)


def _of_nobody(name: str, rule: TrackingBreak | SourceSilent, at: Situation) -> Iterator[Finding]:
    """What concerns the whole book is found over the whole book."""
    return iter(())


# By exact type: every check against pydantic's metaclass would cost more than most rules do.
_FINDERS: dict[type[AnyRule], Callable[[str, Any, Situation], Iterator[Finding]]] = {
    ScoreBelow: _of_score,
    ScoreDrop: _of_drop,
    ScoreUnknown: _of_unknown,
    TicketOpen: _of_tickets,
    TicketStorm: _of_storm,
    Detractor: _of_answers,
    Promoter: _of_answers,
    UsageDip: _of_trend,
    UsageGrowth: _of_trend,
    NewPeople: _of_new_people,
    Silent: _of_silence,
    PaymentFailed: _of_invoices,
    SponsorLeft: _of_contacts,
    NoticeNear: _of_notice,
    LicenceFull: _of_licences,
    RevenueDisagrees: _of_revenue,
    TrackingBreak: _of_nobody,
    SourceSilent: _of_nobody,
}
# What a rule sees of use, as one figure.
_BY_USE: dict[type[AnyRule], Callable[[Any, Picture], float | None]] = {
    UsageDip: lambda rule, now: scoring.usual(now, rule.trend)[0],
    UsageGrowth: lambda rule, now: scoring.usual(now, rule.trend)[0],
    NewPeople: lambda rule, now: float(sum(now.usage.windows(now.zone, now.today, "users", rule.days, 1))),
    LicenceFull: lambda rule, now: float(sum(now.usage.windows(now.zone, now.today, "users", rule.days, 1))),
    Silent: lambda rule, now: None if now.usage.last_at is None else float(now.usage.last_at // DAY_US),
}


def _utc(us: int) -> str:
    return moment(us).isoformat().replace("+00:00", "Z")


def _day(at: Situation, us: int) -> str:
    return at.now.day_of(us).isoformat()
