"""When we last really spoke with an account, and when the next time is due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from services.ops.settings import SegmentRules, Tier

DIRECT = frozenset({"touchpoint", "meeting", "call"})


@dataclass(frozen=True, slots=True)
class Touch:
    """A contact: `touchpoint`, `meeting`, `call` (both ways by themselves), or a message `sent` or `received`."""

    account_id: str
    kind: str
    ref: str
    at: datetime
    event_id: str
    channel: str
    person_id: str | None = None
    contact_id: str | None = None


@dataclass(frozen=True, slots=True)
class NextTouch:
    """`due_on` None with the reason why nothing is due."""

    due_on: date | None
    reason: str


def two_way(touches: Iterable[Touch], rules: SegmentRules) -> list[Touch]:
    """What went both ways, oldest first: talks, and messages that answer one of ours.

    A message answers when ours to the same contact (or to one of them unnamed) went before it within the reply window.
    The same meeting told twice counts once, at its earlier time.
    """
    ordered = sorted(touches, key=lambda touch: (touch.at, touch.event_id))
    window = timedelta(days=rules.reply_window_days)
    sent = [touch for touch in ordered if touch.kind == "sent"]
    counted: dict[tuple[str, str], Touch] = {}
    for touch in ordered:
        if touch.kind in DIRECT or (touch.kind == "received" and any(_answers(touch, ours, window) for ours in sent)):
            counted.setdefault((touch.kind, touch.ref), touch)
    return list(counted.values())


def next_touch(last: Touch | None, tier: Tier | None, since: date | None, rules: SegmentRules) -> NextTouch:
    """The last two-way contact plus the tier's cadence; without any, the day the account got its tier counts."""
    if tier is None:
        return NextTouch(None, "the account has no tier yet, so no cadence")
    if tier.cadence_days is None:
        return NextTouch(None, f"{tier.name} is automation first: a person only on alert")
    cadence = timedelta(days=tier.cadence_days)
    if last is not None:
        day = last.at.astimezone(rules.zone).date()
        return NextTouch(day + cadence, f"{tier.cadence_days} days after the last two-way contact on {day}")
    if since is None:
        return NextTouch(None, "neither a two-way contact nor the day of its tier is known")
    return NextTouch(since + cadence, f"{tier.cadence_days} days after {since}; no two-way contact is known")


def latest(touches: Sequence[Touch], at: datetime, rules: SegmentRules) -> Touch | None:
    """The last two-way contact at a moment."""
    counted = two_way((touch for touch in touches if touch.at <= at), rules)
    return max(counted, key=lambda touch: (touch.at, touch.event_id), default=None)


def _answers(received: Touch, ours: Touch, window: timedelta) -> bool:
    if not ours.at < received.at <= ours.at + window:
        return False
    return received.contact_id is None or ours.contact_id is None or received.contact_id == ours.contact_id
