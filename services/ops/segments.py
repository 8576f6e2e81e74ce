"""Which tier an account is in: a decision, taken at quarter starts, with hysteresis, recorded when made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Literal

from services.ops.revenue import Arr
from services.ops.settings import SegmentRules
from shared.events.ops import Coverage
from shared.team import Assignment, Team, owner_at, pool_for

Kind = Literal["first", "quarter", "restated", "approved", "group", "coverage"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of an account's history; the last one stands.

    `period` is the first day of the quarter it was taken for, `cut_at` the moment whose ARR it rests on.
    """

    tier: str
    coverage: Coverage
    arr: Decimal | None
    reason: str
    effective_on: date
    period: date
    cut_at: datetime
    decided_at: datetime
    kind: Kind
    root_id: str
    revision: int


def quarter_start(at: datetime, rules: SegmentRules) -> datetime:
    local = at.astimezone(rules.zone)
    return datetime(local.year, 3 * ((local.month - 1) // 3) + 1, 1, tzinfo=rules.zone)


def next_quarter_start(at: datetime, rules: SegmentRules) -> datetime:
    start = quarter_start(at, rules)
    month = start.month + 3
    return datetime(start.year + month // 13, (month - 1) % 12 + 1, 1, tzinfo=rules.zone)


def first_instant(day: date, rules: SegmentRules) -> datetime:
    return datetime.combine(day, time(), rules.zone)


def tier_for(arr: Arr, before: str | None, rules: SegmentRules) -> tuple[str | None, str]:
    """The tier for a revenue and why: upwards at once, downwards only clearly below the threshold."""
    if arr.amount is None:
        return before, f"{arr.reason}; {'the tier stays' if before else 'no tier'}"
    plain = next(tier for tier in rules.tiers if tier.takes(arr.amount))
    held = rules.tier(before)
    said = f"ARR {_money(arr.amount, rules)} ({arr.reason})"
    if held is not None and plain.threshold < held.threshold:
        floor = held.threshold * (1 - rules.hysteresis)
        if arr.amount >= floor:
            return held.name, f"{said} is less than {rules.hysteresis:.0%} under {_money(held.threshold, rules)}: kept"
    above = "over" if plain.arr_over is not None else "at least"
    return plain.name, f"{said} is {above} {_money(plain.threshold, rules)}"


def cut_for(history: Sequence[Decision], at: datetime, rules: SegmentRules) -> datetime:
    """The moment whose ARR decides now: the quarter's start, or for an account without a tier this instant."""
    if not history:
        return at
    period = quarter_start(at, rules)
    standing = _last_of_period(history, period.date())
    return standing.cut_at if standing is not None else period


def decide(
    history: Sequence[Decision], arr: Arr, at: datetime, root_id: str, coverage: Coverage, rules: SegmentRules
) -> Decision | None:
    """What to record now, with the ARR at `cut_for`: the first tier, the quarter's, or what late events change in it.

    None when there is nothing to say. A tier that a person approved stands until the next quarter.
    """
    period = quarter_start(at, rules).date()
    cut = cut_for(history, at, rules)
    revision = history[-1].revision + 1 if history else 1
    if not history:
        tier, reason = tier_for(arr, None, rules)
        if tier is None:
            return None
        today = at.astimezone(rules.zone).date()
        return Decision(tier, coverage, arr.amount, reason, today, period, cut, at, "first", root_id, revision)
    last = history[-1]
    standing = _last_of_period(history, period)
    if standing is None:
        tier, reason = tier_for(arr, last.tier, rules)
        return Decision(
            tier or last.tier, coverage, arr.amount, reason, period, period, cut, at, "quarter", root_id, revision
        )
    if standing.kind in ("approved", "group"):
        return None
    before = next((one.tier for one in reversed(history) if one.period < period), None)
    tier, reason = tier_for(arr, before, rules)
    if tier is None or tier == last.tier:
        return None
    return replace(
        last, tier=tier, coverage=coverage, arr=arr.amount, reason=f"{reason}; later news of before",
        cut_at=cut, decided_at=at, kind="restated", root_id=root_id, revision=revision,
    )  # fmt: skip


def adopt(history: Sequence[Decision], given: Decision, coverage: Coverage) -> Decision | None:
    """An account below a parent takes the parent's tier once a quarter, and what the parent restates in it.

    An account that was decided otherwise this quarter (alone, by another parent, by a person) waits for the next.
    """
    taken = replace(given, kind="group", coverage=coverage, revision=history[-1].revision + 1 if history else 1)
    if not history:
        return taken
    if given.period < history[-1].period:
        return None
    standing = _last_of_period(history, given.period)
    if standing is None:
        return taken
    if standing.kind != "group" or standing.root_id != given.root_id or given.decided_at < standing.decided_at:
        return None
    return taken if given.tier != standing.tier else None


def cover(
    tier: str | None,
    assignments: Sequence[Assignment],
    at: datetime,
    team: Team,
    rules: SegmentRules,
    language: str | None = None,
    product: str | None = None,
) -> tuple[Coverage, str | None]:
    """How an account is covered and by whom: its own person, a pool, automation, or the queue of nobody's."""
    owner = owner_at(assignments, "csm", at, team)
    if owner.assigned is not None and team.pool(owner.assigned) is None:
        return "named", owner.acting
    if owner.assigned is not None:
        return "pooled", owner.assigned
    of = rules.tier(tier)
    pool = pool_for(team, tier, at, language, product) if tier is not None else None
    if pool is not None:
        return "pooled", pool.id
    return ("automated" if of is not None and of.coverage == "automated" else "queue"), None


def _last_of_period(history: Sequence[Decision], period: date) -> Decision | None:
    """The decision that set the period's tier; a change of coverage alone sets none."""
    held = [one for one in history if one.period == period and one.kind != "coverage"]
    return held[-1] if held else None


def _money(amount: Decimal, rules: SegmentRules) -> str:
    whole = amount == amount.to_integral_value()
    text = f"{amount:,.0f}" if whole else f"{amount:,.2f}"
    return f"{text.replace(',', ' ')} {rules.reporting_currency}"
