"""What must come out, told a second time: a plain fold over raw records that shares no code with the product.

It knows the wire (CloudEvents or plain JSON in Kafka records), what makes two records the same event, whose
event it is, and how each figure is counted; the configuration as shipped. Times are microseconds since 1970.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400_000_000
FUTURE = DAY
OWN_SOURCE = "hune"
REQUEST, CLOCK = "request.made", "clock"
DOMAINS = ("health", "feedback", "qbr", "ops", "voc")

# Which domains hear of which event.
ROUTES: Mapping[str, str] = {
    "usage.tracked": "health qbr",
    "user.identified": "health",
    "account.updated": "health feedback qbr ops voc",
    "csm.changed": "health qbr ops",
    "ticket.opened": "health qbr voc",
    "ticket.updated": "health qbr voc",
    "ticket.solved": "health qbr",
    "survey.answered": "health feedback qbr voc",
    "survey.corrected": "health feedback qbr voc",
    "survey.retracted": "health feedback qbr voc",
    "subscription.changed": "health qbr ops voc",
    "invoice.paid": "health",
    "invoice.failed": "health ops",
    "contact.changed": "health ops",
    "meeting.held": "health qbr ops voc",
    "call.held": "health qbr ops voc",
    "touchpoint.logged": "health qbr ops voc",
    "feedback.given": "voc",
    "feature.requested": "voc",
}
# What makes an account known to health, besides use of the product.
KEPT_BY_HEALTH = frozenset(
    """account.updated csm.changed ticket.opened ticket.updated ticket.solved survey.answered survey.corrected
    survey.retracted subscription.changed invoice.paid invoice.failed contact.changed meeting.held call.held""".split()
)


@dataclass(frozen=True, slots=True)
class Raw:
    """A record of a raw topic as it lies there."""

    topic: str
    partition: int
    offset: int
    received: int
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One occurrence in the log, read; `own` is the client's time, None when it gave none."""

    type: str
    source: str
    id: str
    own: int | None
    at: int
    received: int
    account: str | None
    user: str | None
    data: Mapping[str, Any]

    @property
    def identity(self) -> tuple[str, str, int | None]:
        return self.source, self.id, self.own

    @property
    def order(self) -> tuple[int, str]:
        return self.at, self.id


def micros(moment: datetime) -> int:
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def when(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def text_of(us: int | None) -> str | None:
    return None if us is None else when(us).isoformat().replace("+00:00", "Z")


def instant(text: str) -> int:
    """RFC 3339, or seconds or milliseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        number = float(text)
        return round(number * 1000) if abs(number) >= 1e11 else round(number * 1_000_000)
    return micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def read(raw: Raw) -> Event | None:
    """One record; None when nobody can read it."""
    try:
        body = json.loads(raw.value)
        headers = {name: value.decode() for name, value in raw.headers.items() if value is not None}
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    if "ce_id" in headers:
        type_, id_, source = headers["ce_type"], headers["ce_id"], headers["ce_source"]
        time = headers.get("ce_time")
        own = headers.get("ce_owntime", time)
    elif "specversion" in body:
        type_, id_, source = body["type"], body["id"], body["source"]
        own = time = body.get("time")
        body = body.get("data", {})
    else:
        default = REQUEST if "requests" in raw.topic else "usage.tracked"
        type_, source = body.get("type", default), OWN_SOURCE
        found = body.get("id", body.get("event_id", body.get("messageId")))
        if found is None:
            return None
        id_ = str(found)
        stated = body.get("originalTimestamp", body.get("timestamp"))
        own, time = stated, body.get("timestamp")
    if type_.startswith("hune."):
        type_ = type_.removeprefix("hune.").rpartition(".v")[0]
    try:
        at = raw.received if time is None else instant(str(time))
        known = None if own is None else instant(str(own))
    except ValueError:
        return None
    if at > raw.received + FUTURE:
        return None
    return Event(type_, source, id_, known, at, raw.received, _named(body), body.get("user_id"), body)


def _named(body: Mapping[str, Any]) -> str | None:
    """The account that the event names itself."""
    if body.get("account_id"):
        return str(body["account_id"])
    for path in (("context", "groupId"), ("groups", "company"), ("properties", "company_id")):
        inner = body.get(path[0])
        if isinstance(inner, dict) and inner.get(path[1]):
            return str(inner[path[1]])
    return None


@dataclass
class Book:
    """Everything that was accepted, in the order of the log, and whose it is."""

    events: list[Event] = field(default_factory=list)
    requests: dict[str, Event] = field(default_factory=dict)
    unreadable: int = 0
    records: int = 0
    members: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    links: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, log: Iterable[Raw]) -> Book:
        book = cls()
        for raw in sorted(log, key=lambda raw: (raw.received, raw.topic, raw.partition, raw.offset)):
            book._take(raw)
        return book

    def _take(self, raw: Raw) -> None:
        event = read(raw)
        if event is not None and event.type == CLOCK:
            return
        self.records += 1
        if event is None:
            self.unreadable += 1
        elif event.type == REQUEST:
            self.requests.setdefault(event.id, event)
        else:
            self.events.append(event)
            if event.account and event.user:
                self.members[event.user].add(event.account)
            if event.account and event.type == "account.updated":
                for namespace, name in (event.data.get("external_ids") or {}).items():
                    self.links[namespace, name] = event.account

    def account_of(self, event: Event) -> str | None:
        """Named, else the user's account, else by a link; None waits for ever."""
        if event.account:
            return event.account
        accounts = self.members.get(event.user or "", set())
        assert len(accounts) < 2, f"the mix is not to have users of several accounts: {event.user}"
        if accounts:
            return next(iter(accounts))
        for namespace, name in sorted((event.data.get("external_ids") or {}).items()):
            if (namespace, name) in self.links:
                return self.links[namespace, name]
        return None

    def parked(self) -> int:
        return sum(self.account_of(event) is None for event in self.events)

    def routed(self, domain: str) -> Counter[tuple[str, str, str, int | None]]:
        """How often each (account, source, id, own time) must be in a domain's topic, repeats included."""
        found: Counter[tuple[str, str, str, int | None]] = Counter()
        for event in self.events:
            account = self.account_of(event)
            if account is not None and domain in ROUTES[event.type].split():
                found[account, *event.identity] += 1
        return found

    def facts(self, at: int | None = None) -> dict[str, list[Event]]:
        """Account → its events, each once: the first of its identity in the log; up to T when given."""
        seen: set[tuple[str, str, int | None]] = set()
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            account = self.account_of(event)
            if account is None or event.identity in seen:
                continue
            seen.add(event.identity)
            if at is None or event.at <= at:
                found[account].append(event)
        return dict(found)


# -- use of the product --------------------------------------------------------------------------


def usage(book: Book, at: int) -> list[dict[str, Any]]:
    rows = []
    for account, events in sorted(book.facts(at).items()):
        used = [event for event in events if event.type == "usage.tracked"]
        if not used:
            continue
        times = [event.at for event in used]
        rows.append(
            {
                "account_id": account,
                "events": len(used),
                "users": len({event.user for event in used if event.user}),
                "features": len({event.data["feature"] for event in used if event.data.get("feature")}),
                "first_seen_at": text_of(min(times)),
                "last_seen_at": text_of(max(times)),
                "events_last_30d": sum(at - 30 * DAY < time <= at for time in times),
                "events_prev_90d": sum(at - 120 * DAY < time <= at - 30 * DAY for time in times),
            }
        )
    return rows


def usage_by_month(book: Book, at: int) -> list[dict[str, Any]]:
    used = [
        (when(event.at).date(), event.user)
        for events in book.facts(at).values()
        for event in events
        if event.type == "usage.tracked"
    ]
    if not used:
        return []
    today, month = when(at).date(), min(day for day, _ in used).replace(day=1)
    rows = []
    while month <= today:
        following = (month + timedelta(days=32)).replace(day=1)
        days = (min(following, today + timedelta(days=1)) - month).days
        pairs = {(day, user) for day, user in used if user and month <= day < following}
        mau, mean = len({user for _, user in pairs}), len(pairs) / days
        rows.append(
            {
                "month": f"{month:%Y-%m}",
                "mau": mau,
                "mean_dau": round(mean, 6),
                "dau_mau": round(mean / mau, 6) if mau else None,
            }
        )
        month = following
    return rows


# -- answers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    id: str
    account: str
    user: str | None
    kind: str
    score: int
    at: int
    comment: str | None


def answers(account: str, events: Iterable[Event]) -> list[Answer]:
    """The answers that stand: corrected by later corrections, gone when retracted."""
    said: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.type.startswith("survey."):
            said[event.data.get("answer_id") or event.id].append(event)
    found = []
    for name, group in sorted(said.items()):
        given = [event for event in group if event.type == "survey.answered"]
        if not given or any(event.type == "survey.retracted" for event in group):
            continue
        first = max(given, key=lambda event: event.order)
        score, comment = first.data["score"], first.data.get("comment")
        for event in sorted(group, key=lambda event: event.order):
            if event.type == "survey.corrected":
                score = event.data["score"] if event.data.get("score") is not None else score
                comment = event.data["comment"] if event.data.get("comment") is not None else comment
        found.append(Answer(name, account, first.user, first.data["kind"], int(score), first.at, comment))
    return found


def latest_of_each(given: Iterable[Answer]) -> list[Answer]:
    """One answer per person and kind; one without a person counts by itself."""
    kept: dict[tuple[str, ...], Answer] = {}
    for answer in given:
        voice = (answer.user,) if answer.user else ("", answer.id)
        key = (answer.account, answer.kind, *voice)
        if key not in kept or (kept[key].at, kept[key].id) < (answer.at, answer.id):
            kept[key] = answer
    return list(kept.values())


def nps(scores: Sequence[int]) -> dict[str, Any]:
    """Promoters from 9, passives from 7; adjusted Wald with three more answers."""
    n, up, down = len(scores), sum(score >= 9 for score in scores), sum(score <= 6 for score in scores)
    weight = n + 3
    p, d = (up + 0.75) / weight, (down + 0.75) / weight
    margin = 1.96 * math.sqrt((p + d - (p - d) ** 2) / weight)
    return {
        "kind": "nps",
        "n": n,
        "nps": round(100 * (up - down) / n, 6),
        "low": round(max(-100.0, 100 * (p - d - margin)), 6),
        "high": round(min(100.0, 100 * (p - d + margin)), 6),
        "promoters": up,
        "passives": n - up - down,
        "detractors": down,
    }


def nps_overall(book: Book, at: int) -> dict[str, Any] | None:
    given = [one for account, events in book.facts(at).items() for one in answers(account, events)]
    scores = [one.score for one in latest_of_each(given) if one.kind == "nps"]
    return {"scope": "all", **nps(scores)} if scores else None


def nps_by_account(book: Book, at: int) -> dict[str, dict[str, Any]]:
    found = {}
    for account, events in book.facts(at).items():
        scores = [one.score for one in latest_of_each(answers(account, events)) if one.kind == "nps"]
        if scores:
            found[account] = nps(scores)
    return found


# -- tickets, owners, money ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ticket:
    id: str
    severity: str
    is_open: bool
    opened_at: int
    last_at: int


def tickets(events: Iterable[Event]) -> list[Ticket]:
    said: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.type.startswith("ticket."):
            said[event.data["ticket_id"]].append(event)
    return [_ticket(name, group) for name, group in sorted(said.items())]


def _ticket(name: str, group: Sequence[Event]) -> Ticket:
    severity, is_open = "p3", True
    ordered = sorted(group, key=lambda event: event.order)
    for event in ordered:
        severity = event.data.get("severity") or severity
        status = event.data.get("status")
        if event.type == "ticket.solved" or status in ("solved", "closed"):
            is_open = False
        elif event.type == "ticket.opened" or status in ("open", "pending"):
            is_open = True
    return Ticket(name, severity, is_open, ordered[0].at, ordered[-1].at)


def latest(events: Iterable[Event], type_: str, name: str) -> Any:
    said = [event for event in events if event.type == type_ and name in event.data]
    return max(said, key=lambda event: event.order).data[name] if said else None


def owner(events: Iterable[Event]) -> str | None:
    person: str | None = latest(events, "csm.changed", "person_id")
    return person


def arr(events: Iterable[Event]) -> Decimal | None:
    """Twelve times the monthly revenue that each subscription states last."""
    said: dict[str, Event] = {}
    for event in sorted(events, key=lambda event: event.order):
        if event.type == "subscription.changed":
            said[event.data.get("subscription_id") or ""] = event
    return 12 * sum((Decimal(event.data["mrr"]) for event in said.values()), Decimal(0)) if said else None


def accounts(book: Book, at: int) -> list[dict[str, Any]]:
    rows = []
    for account, events in sorted(book.facts(at).items()):
        times = [event.at for event in events if _known_to_health(event)]
        if not times:
            continue
        money = arr(events)
        rows.append(
            {
                "account_id": account,
                "name": latest(events, "account.updated", "name"),
                "owner": owner(events),
                "arr": None if money is None else format(money, "f"),
                "open_tickets": sum(ticket.is_open for ticket in tickets(events)),
                "last_seen_at": text_of(max(times)),
            }
        )
    return rows


def _known_to_health(event: Event) -> bool:
    if event.type == "touchpoint.logged":
        return bool(event.data["two_way"])
    return event.type == "usage.tracked" or event.type in KEPT_BY_HEALTH


def segments(book: Book, at: int) -> dict[str, dict[str, Any]]:
    """Tier by the ultimate parent's ARR, to which children's adds: over 50,000 high, from 5,000 mid, else low."""
    facts = book.facts(at)
    parents = {name: latest(events, "account.updated", "parent_id") for name, events in facts.items()}
    own = {name: arr(events) for name, events in facts.items()}
    told = {"account.updated", "subscription.changed", "csm.changed", "meeting.held", "call.held"}
    rows = {}
    for name, events in facts.items():
        root = _root(name, parents)
        has_children = any(_root(one, parents) == name and own.get(one) is not None for one in facts)
        if not has_children and not any(_concerns_ops(event, told) for event in events):
            continue
        amounts = [own[one] for one in facts if _root(one, parents) == root and own.get(one) is not None]
        total = sum((amount for amount in amounts if amount is not None), Decimal(0)) if amounts else None
        rows[name] = {
            "account_id": name,
            "tier": None if total is None else "high" if total > 50_000 else "mid" if total >= 5_000 else "low",
            "arr": own[name],
            "deciding_arr": total,
            "ultimate_parent_id": root,
            "csm": owner(events),
        }
    return rows


def _concerns_ops(event: Event, told: set[str]) -> bool:
    if event.type == "touchpoint.logged":
        return bool(event.data["two_way"])
    if event.type == "account.updated":
        return bool({"arr", "currency", "parent_id", "language", "product"} & set(event.data))
    return event.type in told


def _root(name: str, parents: Mapping[str, Any]) -> str:
    while parents.get(name):
        name = parents[name]
    return name


def _goes_both_ways(event: Event) -> bool:
    if event.type == "touchpoint.logged":
        return bool(event.data["two_way"])
    return event.type in ("meeting.held", "call.held")


def last_contact(book: Book, at: int) -> dict[str, str | None]:
    """Account → the last contact that went both ways."""
    found: dict[str, str | None] = {}
    for account, events in book.facts(at).items():
        times = [event.at for event in events if _goes_both_ways(event)]
        if times:
            found[account] = text_of(max(times))
    return found


def reviewed(book: Book, at: int) -> dict[str, dict[str, int]]:
    """What a review pack counts from the first instant of T's quarter up to T."""
    today = when(at).date()
    start = micros(datetime(today.year, 3 * ((today.month - 1) // 3) + 1, 1, tzinfo=UTC))
    found = {}
    for account, events in book.facts(at).items():
        here = [event for event in events if event.at >= start]
        used = [event for event in here if event.type == "usage.tracked"]
        found[account] = {
            "events": len(used),
            "users": len({event.user for event in used if event.user}),
            "opened": sum(event.type == "ticket.opened" for event in here),
            "open": sum(ticket.is_open for ticket in tickets(events)),
            "contacts": sum(_goes_both_ways(event) for event in here),
        }
    return found


# -- words ---------------------------------------------------------------------------------------


def comments(book: Book, at: int) -> dict[tuple[str, str], str]:
    """(account, item) → the words that stand."""
    found: dict[tuple[str, str], str] = {}
    for account, events in book.facts(at).items():
        for answer in answers(account, events):
            if answer.comment and answer.comment.strip():
                found[account, f"survey:{answer.id}"] = answer.comment
        for event in sorted(events, key=lambda event: event.order):
            said = _said(event)
            if said and said[1].strip():
                found[account, said[0]] = said[1]
    return found


def _said(event: Event) -> tuple[str, str] | None:
    data = event.data

    def joined(*parts: str | None) -> str:
        return "\n".join(part.strip() for part in parts if part and part.strip())

    match event.type:
        case "ticket.opened":
            return f"ticket:{data['ticket_id']}", joined(data.get("subject"), data.get("text"))
        case "feedback.given":
            return f"feedback:{data.get('feedback_id') or event.id}", data["text"]
        case "feature.requested":
            return f"request:{event.id}", joined(data["title"], data.get("text"))
        case "touchpoint.logged":
            return f"touchpoint:{data.get('touchpoint_id') or event.id}", data.get("note") or ""
        case "call.held":
            return f"call:{data['call_id']}", data.get("text") or ""
        case "meeting.held":
            return f"meeting:{data['meeting_id']}", data.get("text") or ""
    return None


def themes(book: Book, at: int, labels: Mapping[str, Iterable[str]]) -> Counter[str]:
    """How many comments name each theme, given what each wording is about; those of no theme apart."""
    found: Counter[str] = Counter()
    for words in comments(book, at).values():
        found.update(labels[words] or ["(unlabelled)"])
    return found


def wishes(book: Book, at: int) -> dict[str, dict[str, int]]:
    """Title → accounts that ask for it and how often they did."""
    asked: dict[str, list[str]] = defaultdict(list)
    for account, events in book.facts(at).items():
        for event in events:
            if event.type == "feature.requested":
                asked[event.data["title"].strip()].append(account)
    return {title: {"accounts": len(set(names)), "votes": len(names)} for title, names in asked.items()}


# -- alerts: the rule, folded over the routed log in its order -----------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """An episode opened or resolved, and by which event."""

    account: str
    rule: str
    cause: str
    what: str
    event_id: str


def is_old(event: Event) -> bool:
    """Too old at its receipt to wake anybody."""
    return event.received - event.at > DAY


def episodes(log: Sequence[tuple[str, Event]]) -> list[Step]:
    """What `p1_open` and `detractor` say while (account, event) come in this order; repeats say nothing.

    Only of tickets and people of whom nothing old is known: with that a service catches up at a time of its own.
    """
    old = touched_by_old(log)
    return [step for step in _fold(log)[0] if (step.account, step.cause) not in old]


def flapping(log: Sequence[tuple[str, Event]]) -> set[tuple[str, str, str]]:
    """(account, rule, cause) that hold at the end and were told of twice within 31 days: nobody hears of a third."""
    return _fold(log)[1]


def _fold(log: Sequence[tuple[str, Event]]) -> tuple[list[Step], set[tuple[str, str, str]]]:
    seen: set[tuple[str, str, int | None]] = set()
    known: dict[str, list[Event]] = defaultdict(list)
    told: dict[str, set[tuple[str, str]]] = defaultdict(set)
    openings: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    silent: dict[str, set[tuple[str, str]]] = defaultdict(set)
    steps = []
    for account, event in log:
        if event.identity in seen:
            continue
        seen.add(event.identity)
        if not event.type.startswith(("ticket.", "survey.")):
            continue
        known[account].append(event)
        now = alarms(account, known[account], event.received)
        for rule, cause in sorted(told[account] - now):
            steps.append(Step(account, rule, cause, "resolved", event.id))
        told[account] &= now
        silent[account] = set()
        for rule, cause in sorted(now - told[account]):
            lately = openings[account, rule, cause]
            if sum(at > event.received - 31 * DAY for at in lately) >= 2:
                silent[account].add((rule, cause))
                continue
            lately.append(event.received)
            told[account].add((rule, cause))
            steps.append(Step(account, rule, cause, "opened", event.id))
    return steps, {(account, rule, cause) for account, some in silent.items() for rule, cause in some}


def touched_by_old(log: Iterable[tuple[str, Event]]) -> set[tuple[str, str]]:
    """(account, ticket or answer) that something old was said of, or of whose person."""
    by_person: dict[tuple[str, str], set[str]] = defaultdict(set)
    old: set[tuple[str, str]] = set()
    old_people: set[tuple[str, str]] = set()
    for account, event in log:
        thing = event.data.get("ticket_id") or event.data.get("answer_id") or event.id
        if event.type == "survey.answered" and event.user:
            by_person[account, event.user].add(thing)
            if is_old(event):
                old_people.add((account, event.user))
        if is_old(event):
            old.add((account, thing))
    return old | {(account, thing) for account, user in old_people for thing in by_person[account, user]}


def alarms(account: str, events: Sequence[Event], at: int) -> set[tuple[str, str]]:
    """(rule, cause) of what holds: open P1 tickets, and people whose latest NPS answer of 30 days is 6 or less."""
    found = {("p1_open", ticket.id) for ticket in tickets(events) if ticket.is_open and ticket.severity == "p1"}
    for answer in latest_of_each(answers(account, events)):
        if answer.kind == "nps" and answer.score <= 6 and answer.at > at - 30 * DAY:
            found.add(("detractor", answer.id))
    return found


def open_alarms(book: Book, at: int) -> set[tuple[str, str, str]]:
    return {
        (account, rule, cause)
        for account, events in book.facts(at).items()
        for rule, cause in alarms(account, events, at)
    }
