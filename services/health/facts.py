"""What is known of an account: marks that events left, folded into a picture of any moment.

A mark keeps its event's own time and id; marks of one thing (a ticket, an answer, an invoice) are a set,
read in the order of (time, id). So order, batches and repeats of arrival never matter, and the picture
of any T is the fold of the marks up to T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from services.health.tracking import Break
from services.health.usage import DAY_US, UTC_ZONE, Events, Usage, joined, micros, moment

if TYPE_CHECKING:
    from services.health.peers import Peers

QUOTE = 280
Key = tuple[str, str]
"""What a mark is about: kind and the kind's own id."""
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_ZONES = frozenset(available_timezones())


class Mark(NamedTuple):
    """What one event says of one thing."""

    at: int
    id: str
    verb: str
    data: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Learnt:
    """A mark to keep."""

    key: Key
    mark: Mark


@dataclass(frozen=True, slots=True)
class Ignore:
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """The event says something that cannot be."""

    reason: str
    error: str = ""


VOICE = "voice_item.recorded"
SCALES = {"nps": (0.0, 10.0), "csat": (1.0, 5.0), "ces": (1.0, 7.0)}
PROFILE_FIELDS = (
    "name", "parent_id", "plan", "product", "stage", "timezone", "seats", "arr", "currency", "language"
)  # fmt: skip


def learn(type_: str, data: Any, event_id: str, occurred_at: datetime) -> Learnt | Ignore | Reject:
    """What an event other than use of the product leaves behind."""
    at, day = micros(occurred_at), f"{occurred_at.astimezone(UTC):%Y-%m-%d}"

    def mark(kind: str, key: str | None, verb: str, **said: Any) -> Learnt:
        data = {name: without_zeros(value) for name, value in said.items() if value is not None}
        return Learnt((kind, without_zeros(key or "")), Mark(at, event_id, verb, data))

    match type_:
        case "account.updated":
            return _profile(data, mark)
        case "ticket.opened" | "ticket.updated" | "ticket.commented" | "ticket.solved":
            verb = type_.removeprefix("ticket.")
            status, author = getattr(data, "status", None), getattr(data, "author", None)
            subject = data.subject[:QUOTE] if data.subject else None
            return mark("ticket", data.ticket_id, verb, severity=data.severity, status=status, author=author,
                        subject=subject)  # fmt: skip
        case "survey.answered":
            low, high = scale_of(data.kind, data.scale)
            if not low < high:
                return Reject(f"scale {data.scale} has no room: write it as low-high, such as 1-5")
            if not low <= data.score <= high:
                return Reject(f"score {data.score:g} is outside the scale {low:g}-{high:g}")
            quote = data.comment[:QUOTE] if data.comment else None
            return mark("answer", data.answer_id or event_id, "answered", survey=data.kind, score=data.score,
                        scale=data.scale, person=data.user_id, quote=quote)  # fmt: skip
        case "survey.corrected":
            return mark("answer", data.answer_id, "corrected", score=data.score)
        case "survey.retracted":
            return mark("answer", data.answer_id, "retracted")
        case "invoice.failed" | "invoice.paid":
            amount = None if data.amount is None else str(data.amount)
            return mark("invoice", data.invoice_id, type_.removeprefix("invoice."), amount=amount,
                        currency=data.currency)  # fmt: skip
        case "contact.changed":
            return mark("contact", data.contact_id, "changed", role=data.role, status=data.status)
        case "csm.changed":
            return mark("owner", data.role, "changed", person=data.person_id)
        case "contract.changed":
            arr = None if data.arr is None else str(data.arr)
            notice = None if data.notice_on is None else data.notice_on.isoformat()
            ends = None if data.ends_on is None else data.ends_on.isoformat()
            starts = None if data.starts_on is None else data.starts_on.isoformat()
            return mark("contract", data.contract_id, "changed", arr=arr, notice_on=notice, ends_on=ends,
                        starts_on=starts)  # fmt: skip
        case "entitlement.changed":
            features = None if data.features is None else [without_zeros(name) for name in data.features]
            return mark("entitlement", data.product, "changed", features=features, seats=data.seats)
        case "subscription.changed":
            if not is_sane(data.mrr):
                return Reject(f"mrr {data.mrr} is no amount: {SANE}")
            return mark("subscription", data.subscription_id, "changed", mrr=str(data.mrr), currency=data.currency,
                        product=data.product, plan=data.plan, seats=data.seats)  # fmt: skip
        case "churn.notified":
            effective = None if data.effective_on is None else data.effective_on.isoformat()
            return mark("notice", data.contract_id, "given", effective_on=effective)
        case "voice_item.recorded":
            said_at = micros(data.said_at)
            if data.change == "retracted":
                return mark("voice", data.item_id, "retracted", revision=data.revision)
            return mark("voice", data.item_id, "read", revision=data.revision, said_at=said_at, source=data.source,
                        sentiment=data.sentiment)  # fmt: skip
        case "outcome.verified":
            return mark("outcome", day, "verified")
        case "touchpoint.logged":
            if not data.two_way:
                return Ignore("a contact in one direction")
            return mark("touch", day, "touched", by=data.person_id, via=data.channel)
        case "meeting.held" | "call.held":
            return mark("touch", day, "touched", by=data.person_id, via=type_.partition(".")[0])
        case "message.received":
            if data.bulk:
                return Ignore("a bulk message")
            return mark("touch", day, "touched", by=data.person_id, via=data.channel)
        case _:
            return Ignore("of no consequence for health")


SANE = "at most 15 digits before the point and 28 after it"


def is_sane(amount: Decimal) -> bool:
    """Whether sums of such amounts stay exact and readable."""
    exponent = amount.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -28 and (not amount or amount.adjusted() < 15)


def without_zeros(value: Any) -> Any:
    """Text without the zero character, which PostgreSQL cannot hold."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


def _profile(data: Any, mark: Any) -> Learnt | Reject:
    said = {name: without_zeros(getattr(data, name)) for name in PROFILE_FIELDS if name in data.model_fields_set}
    if isinstance(said.get("arr"), Decimal):
        said["arr"] = format(said["arr"], "f")
    zone = said.get("timezone")
    if zone is not None and zone not in _ZONES:
        return Reject(f"timezone {zone!r} is not an IANA name; try Europe/Paris")
    segment = data.traits.get("segment")
    if isinstance(segment, str):
        said["segment"] = without_zeros(segment)
    learnt: Learnt = mark("profile", "", "updated")
    return Learnt(learnt.key, learnt.mark._replace(data=said))


def scale_of(survey: str, scale: str | None) -> tuple[float, float]:
    if scale is None:
        return SCALES[survey]
    low, _, high = scale.partition("-")
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Ticket:
    id: str
    severity: str
    opened_at: int
    solved_at: int | None
    reopened_at: tuple[int, ...]
    last_at: int
    subject: str | None

    @property
    def is_open(self) -> bool:
        return self.solved_at is None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it reads now; `score` on 0 to 10 (NPS), 0 to 100 (CSAT) or 1 to 7 (CES)."""

    id: str
    survey: str
    person: str
    score: float
    at: int
    quote: str | None


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment as voice read it last; `sentiment` from -1 to 1, none where its language has no lexicon."""

    id: str
    source: str
    said_at: int
    sentiment: float | None


@dataclass(frozen=True, slots=True)
class Invoice:
    id: str
    failed_at: int | None
    paid_at: int | None
    amount: str | None
    currency: str | None

    @property
    def is_unpaid(self) -> bool:
        return self.failed_at is not None and (self.paid_at is None or self.paid_at < self.failed_at)


@dataclass(frozen=True, slots=True)
class Contact:
    id: str
    role: str
    left_at: int | None


@dataclass(frozen=True, slots=True)
class Profile:
    name: str | None = None
    segment: str | None = None
    stage: str | None = None
    plan: str | None = None
    parent_id: str | None = None
    product: str | None = None
    owner: str | None = None
    arr: Decimal | None = None
    notice_on: date | None = None
    timezone: str = "UTC"
    seats: int | None = None


class Fold(NamedTuple):
    """A thing's marks, the past ones in order of time, and what they make of it."""

    marks: tuple[Mark, ...]
    newest: int
    past: list[Mark]
    made: Any


@dataclass(slots=True)
class Looked:
    """What was worked out when an account was looked at: true for as long as its facts are the same."""

    usage: Usage | None = None
    parts: int = 0
    """How many parts of the facts' use are in it."""
    folds: dict[Key, Fold] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """All marks and events of use of one account, whenever they arrived."""

    account_id: str
    things: Mapping[Key, tuple[Mark, ...]]
    usage: tuple[Events, ...] = ()
    looked: Looked = field(default_factory=lambda: Looked(), compare=False, repr=False)
    peers: Peers | None = field(default=None, compare=False, repr=False)
    """Who knows of other accounts, where a measure is ranked among them."""
    breaks: tuple[Break, ...] = ()
    """Days on which use did not arrive, over the whole book."""

    def with_mark(self, learnt: Learnt) -> Facts:
        marks = self.things.get(learnt.key, ())
        if any(known.id == learnt.mark.id and known.verb == learnt.mark.verb for known in marks):
            return self
        things = {**self.things, learnt.key: (*marks, learnt.mark)}
        return Facts(self.account_id, things, self.usage, self.looked, self.peers, self.breaks)

    def with_usage(self, events: Events) -> Facts:
        before = self.looked
        looked = Looked(before.usage, before.parts, before.folds)
        return Facts(self.account_id, self.things, (*self.usage, events), looked, self.peers, self.breaks)

    def under(self, breaks: tuple[Break, ...]) -> Facts:
        """The same facts where data is known to have broken on the way."""
        return replace(self, breaks=breaks) if breaks else self

    def usage_until(self, at: datetime) -> Usage:
        looked, parts = self.looked, len(self.usage)
        usage = looked.usage
        if usage is not None and looked.parts < parts:
            usage = usage.extended(joined(self.usage[looked.parts :]), at)
        if usage is None or not usage.holds_at(micros(at)):
            usage = Usage.until(self.usage, at)
        looked.usage, looked.parts = usage, parts
        return usage

    def fold(self, where: Key, until: int) -> Fold | None:
        """A thing by its marks up to a moment; None when there are none."""
        marks = self.things[where]
        known = self.looked.folds.get(where)
        if known is not None and known.marks is marks and known.newest <= until:
            return known
        past = [mark for mark in marks if mark.at <= until]
        if not past:
            return None
        past.sort(key=_by_time)
        make = _FOLDERS.get(where[0])
        fold = Fold(marks, past[-1].at, past, make(where[1], past) if make else None)
        if len(past) == len(marks):
            self.looked.folds[where] = fold
        return fold


@dataclass(frozen=True, slots=True)
class Picture:
    """An account at one moment."""

    account_id: str
    at: datetime
    zone: ZoneInfo
    today: date
    profile: Profile
    usage: Usage
    tickets: tuple[Ticket, ...]
    answers: tuple[Answer, ...]
    invoices: tuple[Invoice, ...]
    contacts: tuple[Contact, ...]
    last_touch_at: int | None
    last_outcome_at: int | None
    latest_at: int | None
    """The newest fact, whatever its kind; but for what voice told, which is no news of the customer."""
    coming_at: int | None
    """The first fact known already whose own time is still to come."""
    _seen: Mapping[str, list[tuple[str, Fold]]] = field(default_factory=dict, compare=False, repr=False)
    _newest: dict[str, list[Answer]] = field(default_factory=dict, compare=False, repr=False)

    def age_days(self, us: int) -> int:
        """Whole local days from a moment to today."""
        if self.zone is UTC_ZONE:
            return self.today.toordinal() - _EPOCH_DAY - us // DAY_US
        return (self.today - self.day_of(us)).days

    def day_of(self, us: int) -> date:
        return moment(us).astimezone(self.zone).date()

    def latest_answers(self, survey: str) -> list[Answer]:
        """The newest answer of each person."""
        found = self._newest.get(survey)
        if found is None:
            newest: dict[str, Answer] = {}
            for answer in sorted((a for a in self.answers if a.survey == survey), key=lambda a: (a.at, a.id)):
                newest[answer.person] = answer
            found = self._newest[survey] = list(newest.values())
        return found

    @property
    def comments(self) -> tuple[Comment, ...]:
        return _made(self._seen, "voice")

    @property
    def heard_at(self) -> int | None:
        """The newest of what voice told."""
        return max((fold.newest for _, fold in self._seen.get("voice", ())), default=None)

    def _marks(self, kind: str) -> list[tuple[str, list[Mark]]]:
        return [(key, fold.past) for key, fold in self._seen.get(kind, ())]

    @property
    def entitled_features(self) -> frozenset[str]:
        """The features of all entitlements that have not ended."""
        return frozenset(
            name
            for _, marks in self._marks("entitlement")
            if _latest(marks, "seats") != 0
            for name in _latest(marks, "features") or ()
        )

    @property
    def seats(self) -> int | None:
        """Seats of the entitlements, else of the running subscriptions, else as the profile says."""
        for stated in (
            [_latest(marks, "seats") for _, marks in self._marks("entitlement")],
            [_latest(marks, "seats") for _, marks in self._marks("subscription") if _is_running(marks)],
        ):
            known: list[int] = [seats for seats in stated if seats is not None]
            if known:
                return sum(known)
        return self.profile.seats

    @property
    def products(self) -> frozenset[str]:
        """What the account has: by its profile, its entitlements and its running subscriptions."""
        found = {key for key, marks in self._marks("entitlement") if _latest(marks, "seats") != 0}
        found |= {_latest(marks, "product") for _, marks in self._marks("subscription") if _is_running(marks)}
        return frozenset(name for name in (*found, self.profile.product) if name)

    @property
    def deadline(self) -> date | None:
        """The first day ahead on which a contract's notice is due, or, that being over, its term ends."""
        found = []
        for _, marks in self._marks("contract"):
            for name in ("notice_on", "ends_on"):
                said = _latest(marks, name)
                if said and (day := date.fromisoformat(said)) >= self.today:
                    found.append(day)
                    break
        return min(found, default=None)

    def mrr(self, until: int) -> tuple[Decimal | None, frozenset[str]]:
        """Monthly recurring revenue just at a moment, and its currencies; None before the first subscription."""
        total, currencies = None, set()
        for _, marks in self._marks("subscription"):
            past = [mark for mark in marks if mark.at <= until]
            if past:
                mrr = Decimal(past[-1].data["mrr"])
                total = mrr if total is None else total + mrr
                if mrr and (currency := _latest(past, "currency")):
                    currencies.add(currency)
        return total, frozenset(currencies)

    @property
    def mrr_said_at(self) -> datetime | None:
        times = [fold.newest for _, fold in self._seen.get("subscription", ())]
        return moment(max(times)) if times else None


def picture(facts: Facts, at: datetime) -> Picture:
    """The account as it was at T, by everything that is known by now."""
    until = micros(at)
    seen: dict[str, list[tuple[str, Fold]]] = {}
    latest, coming = -1, []
    for where, marks in facts.things.items():
        fold = facts.fold(where, until)
        if fold is not None:
            seen.setdefault(where[0], []).append((where[1], fold))
            if where[0] != "voice":
                latest = max(latest, fold.newest)
        if fold is None or len(fold.past) < len(marks):
            coming += [mark.at for mark in marks if mark.at > until]
    usage = facts.usage_until(at)
    latest = max(latest, usage.last_at or -1)
    if usage.next_at is not None:
        coming.append(usage.next_at)
    profile = _fold_profile(seen)
    zone = UTC_ZONE if profile.timezone == "UTC" else ZoneInfo(profile.timezone)
    return Picture(
        account_id=facts.account_id,
        at=at,
        zone=zone,
        today=at.astimezone(zone).date(),
        profile=profile,
        usage=usage,
        tickets=_made(seen, "ticket"),
        answers=_made(seen, "answer"),
        invoices=_made(seen, "invoice"),
        contacts=_made(seen, "contact"),
        last_touch_at=max((fold.newest for _, fold in seen.get("touch", ())), default=None),
        last_outcome_at=max((fold.newest for _, fold in seen.get("outcome", ())), default=None),
        latest_at=latest if latest >= 0 else None,
        coming_at=min(coming, default=None),
        _seen=seen,
    )


def _made(seen: Mapping[str, list[tuple[str, Fold]]], kind: str) -> tuple[Any, ...]:
    """The things of a kind, in the order of their ids."""
    return tuple(fold.made for _, fold in sorted(seen.get(kind, ()), key=_by_id) if fold.made is not None)


_by_id = itemgetter(0)
_by_time = itemgetter(0, 1)  # a mark's time and id


def _latest(marks: Iterable[Mark], name: str) -> Any:
    """The newest value said; an explicit null clears it."""
    value = None
    for mark in marks:
        if name in mark.data:
            value = mark.data[name]
    return value


def _is_running(marks: list[Mark]) -> bool:
    return bool(Decimal(marks[-1].data["mrr"]))


def _fold_profile(seen: Mapping[str, list[tuple[str, Fold]]]) -> Profile:
    said: dict[str, Any] = {}
    for _, fold in seen.get("profile", ()):
        for mark in fold.past:
            said.update(mark.data)
    contracts = [fold.past for _, fold in seen.get("contract", ())]
    subscriptions = [fold.past for _, fold in seen.get("subscription", ())]
    owner = next((_latest(fold.past[-1:], "person") for role, fold in seen.get("owner", ()) if role == "csm"), None)
    notices = [day for marks in contracts if (day := _latest(marks, "notice_on"))]
    return Profile(
        name=said.get("name"),
        segment=said.get("segment"),
        stage=said.get("stage"),
        plan=said.get("plan"),
        parent_id=said.get("parent_id"),
        product=said.get("product"),
        owner=owner,
        arr=_arr(said.get("arr"), contracts, subscriptions),
        notice_on=date.fromisoformat(min(notices)) if notices else None,
        timezone=said.get("timezone") or "UTC",
        seats=said.get("seats"),
    )


def _arr(crm: Any, contracts: list[list[Mark]], subscriptions: list[list[Mark]]) -> Decimal | None:
    """The CRM's word first, else the contracts', else twelve times the subscriptions' MRR."""
    if crm is not None:
        return Decimal(crm)
    amounts = [Decimal(amount) for marks in contracts if (amount := _latest(marks, "arr")) is not None]
    if amounts:
        return sum(amounts, Decimal(0))
    monthly = [Decimal(marks[-1].data["mrr"]) for marks in subscriptions]
    return 12 * sum(monthly, Decimal(0)) if monthly else None


def _fold_ticket(key: str, marks: list[Mark]) -> Ticket:
    solved_at: int | None = None
    reopened: list[int] = []
    for mark in marks:
        status = mark.data.get("status")
        if mark.verb == "solved" or status in ("solved", "closed"):
            solved_at = mark.at if solved_at is None else solved_at
        elif solved_at is not None and (mark.verb == "opened" or status in ("open", "pending")):
            reopened.append(mark.at)
            solved_at = None
    opened = next((mark.at for mark in marks if mark.verb == "opened"), marks[0].at)
    return Ticket(
        id=key,
        severity=_latest(marks, "severity") or "p3",
        opened_at=min(opened, marks[0].at),
        solved_at=solved_at,
        reopened_at=tuple(reopened),
        last_at=marks[-1].at,
        subject=_latest(marks, "subject"),
    )


def _fold_answer(key: str, marks: list[Mark]) -> Answer | None:
    given = next((mark for mark in reversed(marks) if mark.verb == "answered"), None)
    if given is None or any(mark.verb == "retracted" for mark in marks):
        return None
    survey, scale = given.data["survey"], given.data.get("scale")
    low, high = scale_of(survey, scale)
    score = given.data["score"]
    for mark in marks:
        said = mark.data.get("score")
        if mark.verb == "corrected" and mark.at >= given.at and said is not None and low <= said <= high:
            score = said
    return Answer(
        id=key,
        survey=survey,
        person=given.data.get("person") or key,
        score=_on_common_scale(survey, score, scale),
        at=given.at,
        quote=given.data.get("quote"),
    )


def _on_common_scale(survey: str, score: float, scale: str | None) -> float:
    low, high = scale_of(survey, scale)
    share = (score - low) / (high - low)
    if survey == "nps":
        return share * 10
    return share * 100 if survey == "csat" else 1 + share * 6


def _fold_comment(key: str, marks: list[Mark]) -> Comment | None:
    """By the newest that voice told; of what one event caused, by what it told last."""
    last = max(marks, key=lambda mark: (mark.at, mark.data.get("revision", 0), mark.id))
    if last.verb == "retracted":
        return None
    return Comment(key, last.data["source"], last.data["said_at"], last.data.get("sentiment"))


def _fold_invoice(key: str, marks: list[Mark]) -> Invoice:
    return Invoice(
        id=key,
        failed_at=max((mark.at for mark in marks if mark.verb == "failed"), default=None),
        paid_at=max((mark.at for mark in marks if mark.verb == "paid"), default=None),
        amount=_latest(marks, "amount"),
        currency=_latest(marks, "currency"),
    )


def _fold_contact(key: str, marks: list[Mark]) -> Contact:
    left_at = None
    for mark in marks:
        status = mark.data.get("status")
        if status == "left":
            left_at = mark.at if left_at is None else left_at
        elif status == "active":
            left_at = None
    return Contact(key, _latest(marks, "role") or "other", left_at)


_FOLDERS: dict[str, Callable[[str, list[Mark]], Any]] = {
    "ticket": _fold_ticket,
    "answer": _fold_answer,
    "voice": _fold_comment,
    "invoice": _fold_invoice,
    "contact": _fold_contact,
}


def relevant_until(known: Facts, horizon: timedelta) -> dict[Key, datetime]:
    """When things stop mattering to any score or alert from here on; those that cannot be told are left out."""
    found: dict[Key, datetime] = {}
    touched = max((mark.at for key, marks in known.things.items() if key[0] == "touch" for mark in marks), default=0)
    for key, marks in known.things.items():
        newest = max(mark.at for mark in marks)
        if key[0] == "touch":  # only the latest is ever looked at
            found[key] = moment(newest) + horizon if newest == touched else moment(touched)
        elif key[0] in ("answer", "outcome", "voice") or (key[0] in ("invoice", "ticket") and _is_done(key, marks)):
            found[key] = moment(newest) + horizon
    return found


def _is_done(key: Key, marks: Iterable[Mark]) -> bool:
    past = sorted(marks, key=lambda mark: (mark.at, mark.id))
    return not (_fold_invoice(key[1], past).is_unpaid if key[0] == "invoice" else _fold_ticket(key[1], past).is_open)
