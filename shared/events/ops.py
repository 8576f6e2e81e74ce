"""What ops decided: segments, assignments and due touches; and what its partitions tell each other."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import AwareDatetime

from shared.events.base import Event, Identifier, Money, ResultEvent

Coverage = Literal["named", "pooled", "automated", "queue"]
RevenueKind = Literal["contract", "subscription", "account"]


class AccountSegmented(ResultEvent, type="account.segmented"):
    """An account's tier (`segment`) or the way it is covered changed.

    `arr` is the ultimate parent's, which decides; `occurred_at` is the first instant it is in effect.
    """

    account_id: Identifier
    previous: str | None
    segment: str
    previous_coverage: Coverage | None
    coverage: Coverage
    ultimate_parent_id: Identifier
    arr: Money | None
    currency: str
    effective_on: date
    csm: Identifier | None
    reason: str
    baseline: bool = False


class AccountAssigned(ResultEvent, type="account.assigned"):
    """A person's request gave a role in an account to somebody; None leaves it to the queue."""

    account_id: Identifier
    role: str
    previous: Identifier | None
    person_id: Identifier | None
    reason: str


class TouchpointDue(ResultEvent, type="touchpoint.due"):
    """The cadence of the account's segment asks for a two-way contact; once per silence."""

    account_id: Identifier
    segment: str
    cadence_days: int
    due_on: date
    days_late: int
    last_two_way_at: AwareDatetime | None
    last_person_id: Identifier | None
    last_channel: str | None
    person_id: Identifier | None
    reason: str
    baseline: bool = False


class ParentStated(Event, type="ops.parent_stated"):
    """Internal: an account's parent from `stated_at` on; every partition learns of it."""

    parent_id: Identifier | None
    stated_at: AwareDatetime
    event_id: str


class RevenueStated(Event, type="ops.revenue_stated"):
    """Internal: what was said of a child's revenue, sent to its ultimate parent."""

    child_id: Identifier
    kind: RevenueKind
    ref: str
    stated_at: AwareDatetime
    event_id: str
    states_amount: bool
    amount: Money | None
    currency: str | None
    starts_on: date | None
    ends_on: date | None
    auto_renew: bool | None


class RateStated(Event, type="ops.rate_stated"):
    """Internal: a rate of a year, told to every partition."""

    currency: str
    year: int
    rate: Money
    stated_at: AwareDatetime
    event_id: str


class GroupSegmented(Event, type="ops.group_segmented"):
    """Internal: the ultimate parent's tier, told to each account below it."""

    root_id: Identifier
    tier: str
    arr: Money | None
    reason: str
    effective_on: date
    period: date
    cut_at: AwareDatetime
    decided_at: AwareDatetime
    revision: int
