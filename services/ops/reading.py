"""What the command line reads of ops: segments, capacity and touchpoints of the whole book."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from services.ops import segments, store, touch
from services.ops.capacity import Held, capacity
from services.ops.revenue import (
    Arr,
    ParentStatement,
    RateStatement,
    RevenueStatement,
    arr_at,
    group_arr,
    groups,
    parents_at,
    rates_at,
    root_of,
)
from services.ops.segments import Decision
from services.ops.settings import SegmentRules, load_segment_rules
from services.ops.touch import Touch
from shared.db import Connection
from shared.events.ops import Coverage
from shared.settings import config_dir
from shared.team import Assignment, Team, load_team, owner_at, written
from shared.times import instant


@dataclass(slots=True)
class Book:
    """Every account's facts up to T, from all databases: revenue and hierarchy are exact at T wherever they live."""

    accounts: list[str] = field(default_factory=list)
    revenue: dict[str, list[RevenueStatement]] = field(default_factory=dict)
    parents: set[ParentStatement] = field(default_factory=set)
    rates: set[RateStatement] = field(default_factory=set)
    decisions: dict[str, Decision] = field(default_factory=dict)
    since: dict[str, date] = field(default_factory=dict)
    assignments: dict[str, list[Assignment]] = field(default_factory=dict)
    touches: dict[str, list[Touch]] = field(default_factory=dict)
    traits: dict[str, dict[str, str | None]] = field(default_factory=dict)
    merges: dict[str, str] = field(default_factory=dict)

    def merged_into(self, account_id: str) -> list[str]:
        """The account and all that became it."""
        found = [account_id]
        for name in found:
            found += [gone for gone, became in self.merges.items() if became == name]
        return found


async def export_segments(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per account: its tier as decided by then, its own and its deciding ARR at T, its CSM and next contact."""
    rules, team = _config(options)
    book = await _load(dbs, as_of, rules, team)
    parents = parents_at(book.parents, as_of)
    rates = rates_at(book.rates, as_of, rules)
    everybody = {*book.accounts, *book.merges, *parents} | {parent for parent in parents.values() if parent}
    arrs = {name: arr_at(book.revenue.get(name, ()), as_of, rates, rules) for name in everybody}
    members = groups(everybody, parents)
    sums = {root: group_arr({name: arrs[name] for name in names}, rules) for root, names in members.items()}
    rows = []
    for account_id in book.accounts:
        root = root_of(account_id, parents)
        decision = book.decisions.get(account_id)
        coverage, csm = _cover(book, account_id, as_of, rules, team)
        names, deciding = book.merged_into(account_id), sums[root.account_id]
        own = group_arr({name: arrs[name] for name in names}, rules) if len(names) > 1 else arrs[account_id]
        rows.append(
            {
                "account_id": account_id,
                "tier": decision.tier if decision else None,
                "coverage": coverage,
                "arr": _money(own),
                "arr_source": own.source,
                "arr_reason": own.reason,
                "currency": rules.reporting_currency,
                "ultimate_parent_id": root.account_id,
                "deciding_arr": _money(deciding),
                "hierarchy_note": root.reason,
                "reason": decision.reason if decision else "no tier was decided by then",
                "effective_on": decision.effective_on.isoformat() if decision else None,
                "decided_at": instant(decision.decided_at) if decision else None,
                "csm": csm,
                "next_touch_due_on": _day(_next(book, account_id, as_of, rules).due_on),
            }
        )
    return rows


async def export_capacity(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per person, pool and the queue: accounts by tier and the load against the tiers' ratios."""
    rules, team = _config(options)
    book = await _load(dbs, as_of, rules, team)
    held = []
    for account_id in book.accounts:
        decision = book.decisions.get(account_id)
        coverage, _ = _cover(book, account_id, as_of, rules, team)
        # Load follows the paper: who stands in for two weeks does not own the account.
        assigned = owner_at(book.assignments.get(account_id, ()), "csm", as_of, team).assigned
        who = assigned or (_cover(book, account_id, as_of, rules, team)[1] if coverage == "pooled" else None)
        held.append(Held(account_id, decision.tier if decision else None, coverage, who))
    return capacity(held, team, rules, as_of)


async def export_touchpoints(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per account: the last two-way contact, and when the next is due."""
    rules, team = _config(options)
    book = await _load(dbs, as_of, rules, team)
    today = as_of.astimezone(rules.zone).date()
    rows = []
    for account_id in book.accounts:
        last = touch.latest(book.touches.get(account_id, ()), as_of, rules)
        due = _next(book, account_id, as_of, rules)
        decision = book.decisions.get(account_id)
        rows.append(
            {
                "account_id": account_id,
                "tier": decision.tier if decision else None,
                "csm": _cover(book, account_id, as_of, rules, team)[1],
                "last_two_way_at": instant(last.at) if last else None,
                "last_channel": last.channel if last else None,
                "last_person_id": last.person_id if last else None,
                "last_event_id": last.event_id if last else None,
                "next_due_on": _day(due.due_on),
                "days_late": max(0, (today - due.due_on).days) if due.due_on else None,
                "reason": due.reason,
            }
        )
    return rows


async def _load(dbs: Sequence[Connection], as_of: datetime, rules: SegmentRules, team: Team) -> Book:
    book = Book()
    for db in dbs:
        home = await store.list_home(db)
        book.accounts += home
        for one in await store.list_revenue(db, as_of):
            book.revenue.setdefault(one.account_id, []).append(one)
        book.merges |= await store.list_merges(db, as_of)
        book.parents.update(await store.list_parents(db, as_of))
        book.rates.update(await store.list_rates(db, as_of))
        book.decisions |= await store.list_decisions(db, as_of)
        book.since |= await store.list_first_days(db, as_of)
        book.assignments |= await store.list_assignments(db, as_of)
        book.touches |= await store.load_touches(db, dict.fromkeys(home, as_of), rules.reply_window_days)
        book.traits |= await store.load_traits(db, dict.fromkeys(home, as_of))
    # An account is in the book from the first thing that was known of it.
    known = {*book.revenue, *book.decisions, *book.assignments, *book.touches, *book.traits}
    known |= {name for one in book.parents for name in (one.account_id, one.parent_id) if name}
    book.accounts = sorted(known.intersection(book.accounts) - set(book.merges))
    for account_id, assignments in written(team).items():
        book.assignments.setdefault(account_id, []).extend(assignments)
    return book


def _cover(book: Book, account_id: str, at: datetime, rules: SegmentRules, team: Team) -> tuple[Coverage, str | None]:
    decision, traits = book.decisions.get(account_id), book.traits.get(account_id, {})
    return segments.cover(
        decision.tier if decision else None, book.assignments.get(account_id, []), at, team, rules,
        traits.get("language"), traits.get("product"),
    )  # fmt: skip


def _next(book: Book, account_id: str, at: datetime, rules: SegmentRules) -> touch.NextTouch:
    decision = book.decisions.get(account_id)
    last = touch.latest(book.touches.get(account_id, ()), at, rules)
    return touch.next_touch(last, rules.tier(decision.tier) if decision else None, book.since.get(account_id), rules)


def _money(arr: Arr) -> str | None:
    return None if arr.amount is None else format(arr.amount, "f")


def _day(day: date | None) -> str | None:
    return day.isoformat() if day else None


def _config(options: Mapping[str, Any]) -> tuple[SegmentRules, Team]:
    folder = config_dir()
    rules = options.get("rules") or load_segment_rules(folder).model
    return rules, options.get("team") or load_team(folder).model


EXPORTS = {"segments": export_segments, "capacity": export_capacity, "touchpoints": export_touchpoints}
