"""When a review is due, when it counts as held or missed, and how many were held. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from services.qbr.periods import Period, before, period_of
from services.qbr.settings import Policy
from shared.ids import derived_id
from shared.times import instant, read_instant

Status = Literal["scheduled", "prepared", "held", "missed"]
What = Literal["scheduled", "rescheduled", "prepared", "held", "missed"]
Why = Literal["moved", "cancelled", "no_show"]
OPEN = ("scheduled", "prepared")
MEETINGS = ("qbr", "ebr", "check_in")


@dataclass(frozen=True, slots=True)
class Said:
    """One event about a meeting."""

    meeting_id: str
    what: str
    kind: str
    at: datetime
    event_id: str
    scheduled_for: datetime | None = None
    sponsor_attended: bool | None = None


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where a meeting stands: a fold over what was said of it, in the order of its own times."""

    meeting_id: str
    kind: str
    state: Literal["scheduled", "cancelled", "no_show", "held"]
    scheduled_for: datetime | None
    held_at: datetime | None
    sponsor_attended: bool | None

    @property
    def anchor(self) -> datetime | None:
        return self.held_at or self.scheduled_for


def meetings_of(said: Iterable[Said], at: datetime) -> list[Meeting]:
    """The meetings known at a time; once held a meeting stays held."""
    groups: dict[str, list[Said]] = {}
    for one in sorted(said, key=lambda one: (one.at, one.event_id)):
        if one.at <= at:
            groups.setdefault(one.meeting_id, []).append(one)
    return [_meeting(name, group) for name, group in sorted(groups.items())]


def _meeting(name: str, group: Sequence[Said]) -> Meeting:
    meeting = Meeting(name, group[-1].kind, "scheduled", None, None, None)
    for one in group:
        if one.what == "held":
            meeting = replace(meeting, state="held", held_at=one.at, sponsor_attended=one.sponsor_attended)
        elif meeting.state != "held" and one.what == "cancelled":
            meeting = replace(meeting, state="cancelled", scheduled_for=None)
        elif meeting.state != "held" and one.what == "no_show":
            meeting = replace(meeting, state="no_show", scheduled_for=None)
        elif meeting.state != "held":
            meeting = replace(meeting, state="scheduled", scheduled_for=one.scheduled_for or meeting.scheduled_for)
    return meeting


@dataclass(frozen=True, slots=True)
class Review:
    """One review of one account. `due_at` moves only to a later date that was agreed."""

    review_id: str
    account_id: str
    kind: str
    period: str
    starts_at: datetime
    ends_at: datetime
    due_at: datetime
    status: Status = "scheduled"
    planned: bool = True
    scheduled_for: datetime | None = None
    meeting_id: str | None = None
    held_at: datetime | None = None
    prepared_at: datetime | None = None
    sponsor_attended: bool | None = None
    rescheduled: int = 0
    no_shows: int = 0

    def row(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: instant(value) if isinstance(value, datetime) else value for key, value in asdict(self).items()}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Review:
        known: dict[str, Any] = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        times = {name for name in known if name.endswith("_at") or name == "scheduled_for"}
        return cls(**(known | {name: read_instant(known[name]) for name in times if known[name]}))


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of a review, and how it stands after that."""

    what: What
    review: Review
    previous_for: datetime | None = None
    reason: Why = "moved"


@dataclass(frozen=True, slots=True)
class Account:
    """What decides an account's reviews."""

    account_id: str
    segments: Sequence[tuple[datetime, str, str | None]]
    meetings: Sequence[Said]
    reviews: Sequence[Review]


def covered(review: Review, at: datetime, zone: ZoneInfo) -> Period:
    """What a pack prepared now is about: the period that is running, in its first half the one before."""
    running = period_of(at, "quarter" if "Q" in review.period else "half_year", zone)
    half = running.starts_at + (running.ends_at - running.starts_at) / 2
    return running if at >= half else before(running, zone)


def segment_at(history: Iterable[tuple[datetime, str, str | None]], at: datetime) -> str | None:
    """The segment in force: of (effective, event id, segment) the latest not after `at`."""
    known = [entry for entry in history if entry[0] <= at]
    return max(known, key=lambda entry: entry[:2])[2] if known else None


def decide(account: Account, at: datetime, policy: Policy) -> list[Decision]:
    """What is to be decided now: a review for the current period, what meetings did to it, what time did to it."""
    ledger = Ledger({review.review_id: review for review in account.reviews}, [])
    _plan(ledger, account, at, policy)
    for meeting in meetings_of(account.meetings, at):
        if meeting.kind in MEETINGS:
            _follow(ledger, meeting, account.account_id, policy)
    for review in list(ledger.reviews.values()):
        _pass_time(ledger, review, at, policy)
    return ledger.decisions


def next_due(account: Account, reviews: Iterable[Review], at: datetime, policy: Policy) -> datetime | None:
    """When the account is to be looked at again, after `at`."""
    times = [entry[0] for entry in account.segments]
    times += [one.at for one in account.meetings]
    cadence = policy.cadence.get(segment_at(account.segments, at) or "")
    if cadence is not None:
        times.append(period_of(at, cadence.every, policy.zone).ends_at)
    for review in reviews:
        if review.status in OPEN:
            times += [prepare_at(review, policy), miss_at(review, policy)]
    return min((time for time in times if time > at), default=None)


@dataclass(slots=True)
class Ledger:
    """Reviews as they stand, and what was decided on the way."""

    reviews: dict[str, Review]
    decisions: list[Decision]

    def record(self, what: What, review: Review, previous_for: datetime | None = None, reason: Why = "moved") -> None:
        self.reviews[review.review_id] = review
        self.decisions.append(Decision(what, review, previous_for, reason))


def prepare_at(review: Review, policy: Policy) -> datetime:
    return (review.scheduled_for or review.due_at) - timedelta(days=policy.prepare_days)


def miss_at(review: Review, policy: Policy) -> datetime:
    return review.due_at + timedelta(days=policy.grace_days)


def _plan(ledger: Ledger, account: Account, at: datetime, policy: Policy) -> None:
    """One review per period of the segment's cadence, unless one that is still open falls due within it."""
    cadence = policy.cadence.get(segment_at(account.segments, at) or "")
    if cadence is None:
        return
    period = period_of(at, cadence.every, policy.zone)
    planned = [review for review in ledger.reviews.values() if review.planned]
    if any((review.kind, review.period) == (cadence.kind, period.name) for review in planned):
        return
    if any(review.status in OPEN and period.starts_at < review.due_at <= period.ends_at for review in planned):
        return
    ledger.record("scheduled", new_review(account.account_id, cadence.kind, period))


def new_review(account_id: str, kind: str, period: Period, planned: bool = True, about: str | None = None) -> Review:
    return Review(
        review_id=derived_id("qbr", account_id, kind, about or period.name),
        account_id=account_id,
        kind=kind,
        period=period.name,
        starts_at=period.starts_at,
        ends_at=period.ends_at,
        due_at=period.ends_at,
        planned=planned,
    )


def _follow(ledger: Ledger, meeting: Meeting, account_id: str, policy: Policy) -> None:
    review = _review_of(ledger, meeting, policy)
    if review is None:
        if meeting.state == "held" and meeting.held_at is not None:
            period = period_of(meeting.held_at, "quarter", policy.zone)
            unplanned = new_review(account_id, meeting.kind, period, planned=False, about=meeting.meeting_id)
            if unplanned.review_id not in ledger.reviews:
                _hold(ledger, replace(unplanned, meeting_id=meeting.meeting_id), meeting)
        return
    if review.status == "held":
        return
    if meeting.state == "held":
        _hold(ledger, replace(review, meeting_id=meeting.meeting_id), meeting)
    elif review.status in OPEN:
        _redate(ledger, review, meeting)


def _review_of(ledger: Ledger, meeting: Meeting, policy: Policy) -> Review | None:
    """The review a meeting belongs to: linked before, else the first due whose time it falls into.

    A missed review is held after all when it turns out that its meeting took place in time.
    """
    for review in ledger.reviews.values():
        if review.meeting_id == meeting.meeting_id:
            return review
    anchor = meeting.anchor
    if anchor is None:
        return None
    free = [
        review
        for review in ledger.reviews.values()
        if review.meeting_id is None
        and (review.status in OPEN or (review.status == "missed" and meeting.state == "held"))
        and meeting.kind in policy.counts(review.kind)
        and review.starts_at <= anchor < miss_at(review, policy)
    ]
    return min(free, key=lambda review: (review.due_at, review.review_id), default=None)


def _hold(ledger: Ledger, review: Review, meeting: Meeting) -> None:
    held = replace(review, status="held", held_at=meeting.held_at, sponsor_attended=meeting.sponsor_attended)
    ledger.record("held", held)


def _redate(ledger: Ledger, review: Review, meeting: Meeting) -> None:
    dated = review.scheduled_for is not None
    if meeting.state == "no_show" and dated:
        _move(ledger, replace(review, no_shows=review.no_shows + 1), meeting.meeting_id, None, "no_show")
    elif meeting.state == "cancelled" and dated:
        _move(ledger, review, meeting.meeting_id, None, "cancelled")
    elif meeting.state == "scheduled" and meeting.scheduled_for not in (None, review.scheduled_for):
        _move(ledger, review, meeting.meeting_id, meeting.scheduled_for, "moved")


def _move(ledger: Ledger, review: Review, meeting_id: str | None, to: datetime | None, reason: Why) -> None:
    """A first date schedules; another one reschedules. A date that fell through leaves the review open."""
    due_at = max(review.due_at, to) if to else review.due_at
    fell_through = to is None and reason != "moved"
    moved = replace(
        review, scheduled_for=to, due_at=due_at, meeting_id=None if fell_through else meeting_id or review.meeting_id
    )
    if review.scheduled_for is None and review.rescheduled == 0 and to is not None:
        ledger.record("scheduled", moved)
    else:
        moved = replace(moved, rescheduled=review.rescheduled + 1)
        ledger.record("rescheduled", moved, review.scheduled_for, reason)


def _pass_time(ledger: Ledger, review: Review, at: datetime, policy: Policy) -> None:
    if review.status not in OPEN:
        return
    if at >= miss_at(review, policy):
        ledger.record("missed", replace(review, status="missed"))
    elif review.status == "scheduled" and at >= prepare_at(review, policy):
        ledger.record("prepared", replace(review, status="prepared", prepared_at=at))


class NotPossible(Exception):
    """What a person asked for cannot be done; the text says why and what can."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A person's action on a review: the one named, else the account's next due, else a new one of `kind`."""

    request_id: str
    review_id: str | None = None
    kind: str | None = None
    on: datetime | None = None
    sponsor_attended: bool | None = None


def schedule(account: Account, wish: Wish, at: datetime, policy: Policy) -> Decision:
    """Agree a date. Raises NotPossible."""
    if wish.on is None:
        raise NotPossible(
            "parameter scheduled_for is missing; give the time of the review, such as 2026-09-15T14:00:00Z"
        )
    if wish.on < at:
        raise NotPossible(f"scheduled_for {instant(wish.on)} is over; use review.hold for a review that took place")
    review = _target(account, wish, wish.on, policy, OPEN)
    if wish.on == review.scheduled_for:
        raise NotPossible(f"the review is scheduled for {instant(wish.on)} already")
    ledger = Ledger({}, [])
    _move(ledger, review, None, wish.on, "moved")
    return ledger.decisions[0]


def hold(account: Account, wish: Wish, at: datetime, policy: Policy) -> Decision:
    """Note that a review took place. Raises NotPossible."""
    held_at = wish.on or at
    if held_at > at:
        raise NotPossible(f"held_at {instant(held_at)} is still to come; use review.schedule")
    review = _target(account, wish, held_at, policy, (*OPEN, "missed"))
    held = replace(review, status="held", held_at=held_at, sponsor_attended=wish.sponsor_attended)
    return Decision("held", held)


def _target(account: Account, wish: Wish, on: datetime, policy: Policy, states: Sequence[str]) -> Review:
    if wish.review_id is not None:
        named = next((review for review in account.reviews if review.review_id == wish.review_id), None)
        if named is None:
            raise NotPossible(f"review {wish.review_id!r} is not one of account {account.account_id!r}")
        if named.status not in states:
            raise NotPossible(
                f"review {wish.review_id!r} is {named.status}; it takes one that is {' or '.join(states)}"
            )
        return named
    fitting = [review for review in account.reviews if review.status in OPEN and wish.kind in (None, review.kind)]
    if fitting:
        return min(fitting, key=lambda review: (review.due_at, review.review_id))
    cadence = policy.cadence.get(segment_at(account.segments, on) or "")
    kind = wish.kind or (cadence.kind if cadence else "qbr")
    period = period_of(on, "quarter", policy.zone)
    return new_review(account.account_id, kind, period, planned=False, about=wish.request_id)


@dataclass(frozen=True, slots=True)
class Completion:
    """Planned reviews due in a quarter: a review moved by agreement is due in the quarter of its new date."""

    due: int
    held: int
    missed: int
    open: int
    rescheduled: int

    @property
    def rate(self) -> float | None:
        return None if self.due == 0 else round(100 * self.held / self.due, 6)

    def row(self, target: float) -> dict[str, Any]:
        row: dict[str, Any] = {"rate": self.rate, "due": self.due, "held": self.held, "missed": self.missed}
        row |= {"open": self.open, "rescheduled": self.rescheduled, "target": target}
        return row | ({} if self.due else {"reason": "no review was due"})


def completion(reviews: Iterable[Review], quarter: Period) -> Completion:
    due = [one for one in reviews if one.planned and quarter.starts_at < one.due_at <= quarter.ends_at]
    return Completion(
        due=len(due),
        held=sum(one.status == "held" for one in due),
        missed=sum(one.status == "missed" for one in due),
        open=sum(one.status in OPEN for one in due),
        rescheduled=sum(one.rescheduled > 0 for one in due),
    )
