"""Ops' SQL. Facts are append-only and loaded up to a moment; decisions stand as they were made."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

from services.ops.revenue import ParentStatement, RateStatement, RevenueStatement
from services.ops.segments import Decision
from services.ops.touch import Touch
from shared.db import Connection
from shared.team import Assignment

ERASE = ("update ops.touches set contact_id = $3 where partition = $1 and contact_id = $2",)
"""Partition, user, alias."""
SAVE_REVENUE = """
    insert into ops.revenue (partition, account_id, kind, ref, occurred_at, event_id, states_amount, amount, currency,
                             starts_on, ends_on, auto_renew, home)
    select * from unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::bool[],
                         $8::numeric[], $9::text[], $10::date[], $11::date[], $12::bool[], $13::bool[])
    on conflict (partition, account_id, kind, ref, occurred_at, event_id)
    do update set home = ops.revenue.home or excluded.home
"""
SAVE_PARENTS = """
    insert into ops.parents (partition, account_id, parent_id, occurred_at, event_id)
    select * from unnest($1::int[], $2::text[], $3::text[], $4::timestamptz[], $5::text[])
    on conflict do nothing
"""
SAVE_RATES = """
    insert into ops.rates (partition, currency, year, rate, occurred_at, event_id)
    select * from unnest($1::int[], $2::text[], $3::int[], $4::numeric[], $5::timestamptz[], $6::text[])
    on conflict do nothing
"""
SAVE_ASSIGNMENTS = """
    insert into ops.assignments (account_id, role, person_id, occurred_at, event_id, partition)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::int[])
    on conflict do nothing
"""
SAVE_TOUCHES = """
    insert into ops.touches (account_id, kind, ref, occurred_at, event_id, channel, person_id, contact_id, partition)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
                         $8::text[], $9::int[])
    on conflict do nothing
"""
SAVE_TRAITS = """
    insert into ops.traits (account_id, name, value, occurred_at, event_id, partition)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::int[])
    on conflict do nothing
"""
SAVE_AWAKE = """
    insert into ops.accounts (account_id, partition, next_due_at)
    select account_id, partition, '-infinity' from unnest($1::text[], $2::int[]) as woken (account_id, partition)
    on conflict (account_id) do update set next_due_at = '-infinity'
"""
WAKE_KNOWN = """
    update ops.accounts set next_due_at = '-infinity'
     where (partition, account_id) in (select * from unnest($1::int[], $2::text[]))
"""
WAKE_ALL = "update ops.accounts set next_due_at = '-infinity' where partition = any($1)"
SAVE_ROOTS = """
    update ops.accounts set root_id = new.root_id
      from unnest($1::text[], $2::text[]) as new (account_id, root_id)
     where accounts.account_id = new.account_id
"""
SAVE_ACCOUNTS = """
    update ops.accounts
       set next_due_at = new.next_due_at, root_id = new.root_id, reminded_on = new.reminded_on, emitted = new.emitted,
           members = new.members::jsonb
      from unnest($1::text[], $2::timestamptz[], $3::text[], $4::date[], $5::int[], $6::text[])
           as new (account_id, next_due_at, root_id, reminded_on, emitted, members)
     where accounts.account_id = new.account_id
"""
SAVE_DECISIONS = """
    insert into ops.decisions (account_id, revision, tier, coverage, arr, reason, effective_on, period, cut_at,
                               decided_at, kind, root_id, partition)
    select * from unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::numeric[], $6::text[], $7::date[],
                         $8::date[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::text[], $13::int[])
"""
LIST_DUE = """
    select account_id, partition, root_id, members, reminded_on, emitted
      from ops.accounts join unnest($1::int[], $2::timestamptz[]) as clocks (at_partition, clock)
           on partition = at_partition and next_due_at <= clock
     where not exists (select from ops.merges where merged_account_id = accounts.account_id)
     order by next_due_at, account_id limit $3
     for update of accounts
"""
LOAD_ACCOUNTS = """
    select account_id, partition, root_id, members, reminded_on, emitted
      from ops.accounts where (partition, account_id) in (select * from unnest($1::int[], $2::text[]))
     order by account_id for update
"""
PARENT = "partition, account_id, parent_id, occurred_at, event_id"
LOAD_UP = f"""
    select {PARENT} from ops.parents where (partition, account_id) in (select * from unnest($1::int[], $2::text[]))
"""
LOAD_DOWN = f"""
    select {PARENT} from ops.parents
     where (partition, account_id) in (
           select partition, account_id from ops.parents
            where (partition, parent_id) in (select * from unnest($1::int[], $2::text[])))
"""
LOAD_REVENUE = """
    select partition, account_id, kind, ref, occurred_at as at, event_id, states_amount, amount, currency, starts_on,
           ends_on, auto_renew
      from ops.revenue where (partition, account_id) in (select * from unnest($1::int[], $2::text[]))
"""
LOAD_RATES = """
    select partition, currency, year, rate, occurred_at as at, event_id from ops.rates where partition = any($1)
"""
LOAD_DECISIONS = """
    select account_id, revision, tier, coverage, arr, reason, effective_on, period, cut_at, decided_at, kind, root_id
      from ops.decisions where account_id = any($1) order by account_id, revision
"""
LOAD_ASSIGNMENTS = """
    select account_id, role, person_id, occurred_at as at, event_id from ops.assignments where account_id = any($1)
"""
LOAD_TRAITS = """
    select account_id, name, value
      from ops.traits join unnest($1::text[], $2::timestamptz[]) as asked (account_id, at) using (account_id)
     where occurred_at <= at and (merged_at is null or merged_at <= at) order by occurred_at, event_id
"""
# Only what can matter for the last two-way contact: from a reply's window before the last talk on.
LOAD_TOUCHES = """
    with asked as (
        select account_id, at, (select max(direct.occurred_at) from ops.touches direct
                                 where direct.account_id = asked.account_id and direct.occurred_at <= asked.at
                                   and (direct.merged_at is null or direct.merged_at <= asked.at)
                                   and direct.kind in ('touchpoint', 'meeting', 'call')) as talked_at
          from unnest($1::text[], $2::timestamptz[]) as asked (account_id, at))
    select t.account_id, t.kind, t.ref, t.occurred_at as at, t.event_id, t.channel, t.person_id, t.contact_id
      from asked join ops.touches t on t.account_id = asked.account_id
       and (t.merged_at is null or t.merged_at <= asked.at)
       and t.occurred_at <= asked.at and t.occurred_at >= coalesce(asked.talked_at - $3::interval, '-infinity')
"""
LOAD_ALL_TOUCHES = """
    select account_id, kind, ref, occurred_at as at, event_id, channel, person_id, contact_id
      from ops.touches where account_id = any($1) and occurred_at <= $2 and (merged_at is null or merged_at <= $2)
"""
LIST_HOME = "select account_id from ops.accounts order by account_id"
LIST_REVENUE = """
    select account_id, kind, ref, occurred_at as at, event_id, states_amount, amount, currency, starts_on, ends_on,
           auto_renew
      from ops.revenue where home and occurred_at <= $1
"""
LIST_PARENTS = """
    select distinct account_id, parent_id, occurred_at as at, event_id from ops.parents where occurred_at <= $1
"""
LIST_RATES = """
    select distinct currency, year, rate, occurred_at as at, event_id from ops.rates where occurred_at <= $1
"""
LIST_DECISIONS = """
    select distinct on (account_id)
           account_id, revision, tier, coverage, arr, reason, effective_on, period, cut_at, decided_at, kind, root_id
      from ops.decisions where decided_at <= $1 order by account_id, revision desc
"""
LIST_FIRST_DAYS = """
    select account_id, min(effective_on) as since from ops.decisions where decided_at <= $1 group by account_id
"""
LIST_ASSIGNMENTS = """
    select account_id, role, person_id, occurred_at as at, event_id from ops.assignments
     where occurred_at <= $1 and (merged_at is null or merged_at <= $1)
"""
LIST_MERGES = "select merged_account_id, account_id from ops.merges where merged_at <= $1"

T = TypeVar("T", Assignment, Touch)
Place = tuple[int, str]
"""Where and whom: (partition, account id)."""


@dataclass(slots=True)
class Account:
    """An account's row: what is due, whom it answers to and whom it told."""

    account_id: str
    partition: int
    root_id: str | None = None
    members: list[str] = field(default_factory=list)
    reminded_on: date | None = None
    emitted: int = 0
    next_due_at: datetime | None = None


@dataclass(slots=True)
class Family:
    """Parent statements by partition, as far as they can touch the accounts asked about."""

    statements: dict[int, dict[tuple[str, datetime, str], ParentStatement]] = field(default_factory=dict)

    def of(self, partition: int) -> list[ParentStatement]:
        return list(self.statements.get(partition, {}).values())

    def accounts(self, partition: int) -> set[str]:
        rows = self.of(partition)
        return {one.account_id for one in rows} | {one.parent_id for one in rows if one.parent_id}


async def save_revenue(db: Connection, rows: Iterable[tuple[int, RevenueStatement, bool]]) -> None:
    """(partition, statement, home); the same statement twice is one row."""
    unique: dict[tuple[Any, ...], tuple[int, RevenueStatement, bool]] = {}
    for partition, one, home in rows:
        key = (partition, one.account_id, one.kind, one.ref, one.at, one.event_id)
        unique[key] = (partition, one, home or (key in unique and unique[key][2]))
    values = [
        (p, one.account_id, one.kind, one.ref, one.at, one.event_id, one.states_amount, one.amount, one.currency,
         one.starts_on, one.ends_on, one.auto_renew, home)
        for p, one, home in unique.values()
    ]  # fmt: skip
    await _execute(db, SAVE_REVENUE, values)


async def save_parents(db: Connection, rows: Iterable[tuple[int, ParentStatement]]) -> None:
    values = [(p, one.account_id, one.parent_id, one.at, one.event_id) for p, one in rows]
    await _execute(db, SAVE_PARENTS, values)


async def save_rates(db: Connection, rows: Iterable[tuple[int, RateStatement]]) -> None:
    await _execute(db, SAVE_RATES, [(p, one.currency, one.year, one.rate, one.at, one.event_id) for p, one in rows])


async def save_assignments(db: Connection, rows: Iterable[tuple[int, Assignment]]) -> None:
    values = [(one.account_id, one.role, one.person_id, one.at, one.event_id, p) for p, one in rows]
    await _execute(db, SAVE_ASSIGNMENTS, values)


async def save_touches(db: Connection, rows: Iterable[tuple[int, Touch]]) -> None:
    values = [
        (one.account_id, one.kind, one.ref, one.at, one.event_id, one.channel, one.person_id, one.contact_id, p)
        for p, one in rows
    ]
    await _execute(db, SAVE_TOUCHES, values)


async def save_traits(db: Connection, rows: Sequence[tuple[str, str, str | None, datetime, str, int]]) -> None:
    await _execute(db, SAVE_TRAITS, rows)


async def save_awake(db: Connection, places: Collection[Place]) -> None:
    """Make accounts known and due at the next tick."""
    await _execute(db, SAVE_AWAKE, [(account_id, partition) for partition, account_id in sorted(places)])


async def wake_known(db: Connection, places: Collection[Place]) -> None:
    """Make those of the accounts due that live in the partition named with them."""
    await _execute(db, WAKE_KNOWN, sorted(places))


async def wake_all(db: Connection, partitions: Collection[int]) -> None:
    await db.execute(WAKE_ALL, list(partitions))


async def save_roots(db: Connection, roots: Mapping[str, str]) -> None:
    await _execute(db, SAVE_ROOTS, sorted(roots.items()))


async def save_accounts(db: Connection, accounts: Iterable[Account]) -> None:
    # asyncpg takes nested lists for arrays of more dimensions, so the members travel as JSON text.
    values = [
        (a.account_id, a.next_due_at, a.root_id, a.reminded_on, a.emitted, json.dumps(sorted(a.members)))
        for a in accounts
    ]
    await _execute(db, SAVE_ACCOUNTS, values)


async def save_decisions(db: Connection, rows: Sequence[tuple[int, str, Decision]]) -> None:
    values = [
        (account_id, one.revision, one.tier, one.coverage, one.arr, one.reason, one.effective_on, one.period,
         one.cut_at, one.decided_at, one.kind, one.root_id, partition)
        for partition, account_id, one in rows
    ]  # fmt: skip
    await _execute(db, SAVE_DECISIONS, values)


async def list_due(db: Connection, clocks: Mapping[int, datetime], limit: int) -> dict[str, Account]:
    rows = await db.fetch(LIST_DUE, list(clocks), list(clocks.values()), limit)
    return {row["account_id"]: Account(**row) for row in rows}


async def load_accounts(db: Connection, places: Collection[Place]) -> dict[str, Account]:
    """Those of the accounts that live in the partition named with them."""
    rows = await db.fetch(LOAD_ACCOUNTS, *_columns(sorted(places))) if places else []
    return {row["account_id"]: Account(**row) for row in rows}


async def load_family(db: Connection, places: Iterable[Place]) -> Family:
    """Every parent statement that can decide who is above or below the given accounts, at any time.

    One pair of queries per level of the hierarchy; accounts without relatives cost one pair.
    """
    family = Family()
    seen: set[Place] = set()
    asked = set(places)
    while asked:
        seen |= asked
        arrays = _columns(sorted(asked))
        rows = [*await db.fetch(LOAD_UP, *arrays), *await db.fetch(LOAD_DOWN, *arrays)]
        asked = set()
        for row in rows:
            one = ParentStatement(row["account_id"], row["parent_id"], row["occurred_at"], row["event_id"])
            key = (one.account_id, one.at, one.event_id)
            family.statements.setdefault(row["partition"], {})[key] = one
            asked |= {(row["partition"], name) for name in (one.account_id, one.parent_id) if name}
        asked -= seen
    return family


async def load_revenue(db: Connection, places: Iterable[Place]) -> dict[Place, list[RevenueStatement]]:
    found: dict[Place, list[RevenueStatement]] = {}
    for row in await db.fetch(LOAD_REVENUE, *_columns(sorted(set(places)))):
        values = dict(row)
        partition = values.pop("partition")
        one = RevenueStatement(**values)
        found.setdefault((partition, one.account_id), []).append(one)
    return found


async def load_rates(db: Connection, partitions: Collection[int]) -> dict[int, list[RateStatement]]:
    found: dict[int, list[RateStatement]] = {}
    for row in await db.fetch(LOAD_RATES, list(partitions)):
        values = dict(row)
        found.setdefault(values.pop("partition"), []).append(RateStatement(**values))
    return found


async def load_decisions(db: Connection, account_ids: Collection[str]) -> dict[str, list[Decision]]:
    return _histories(await db.fetch(LOAD_DECISIONS, list(account_ids)))


async def load_assignments(db: Connection, account_ids: Collection[str]) -> dict[str, list[Assignment]]:
    return _by_account(Assignment(**row) for row in await db.fetch(LOAD_ASSIGNMENTS, list(account_ids)))


async def load_traits(db: Connection, at: Mapping[str, datetime]) -> dict[str, dict[str, str | None]]:
    """The language and product of each account at a moment."""
    found: dict[str, dict[str, str | None]] = {}
    for row in await db.fetch(LOAD_TRAITS, list(at), list(at.values())):
        found.setdefault(row["account_id"], {})[row["name"]] = row["value"]
    return found


async def load_touches(db: Connection, at: Mapping[str, datetime], reply_window_days: int) -> dict[str, list[Touch]]:
    """What the last two-way contact of each account up to a moment can depend on."""
    window = timedelta(days=reply_window_days)
    rows = await db.fetch(LOAD_TOUCHES, list(at), list(at.values()), window)
    return _by_account(Touch(**row) for row in rows)


async def load_all_touches(db: Connection, account_ids: Collection[str], at: datetime) -> dict[str, list[Touch]]:
    return _by_account(Touch(**row) for row in await db.fetch(LOAD_ALL_TOUCHES, list(account_ids), at))


async def list_home(db: Connection) -> list[str]:
    return [row["account_id"] for row in await db.fetch(LIST_HOME)]


async def list_revenue(db: Connection, at: datetime) -> list[RevenueStatement]:
    return [RevenueStatement(**row) for row in await db.fetch(LIST_REVENUE, at)]


async def list_parents(db: Connection, at: datetime) -> list[ParentStatement]:
    return [ParentStatement(**row) for row in await db.fetch(LIST_PARENTS, at)]


async def list_rates(db: Connection, at: datetime) -> list[RateStatement]:
    return [RateStatement(**row) for row in await db.fetch(LIST_RATES, at)]


async def list_decisions(db: Connection, at: datetime) -> dict[str, Decision]:
    """The decision that stood at a moment."""
    return {account_id: held[-1] for account_id, held in _histories(await db.fetch(LIST_DECISIONS, at)).items()}


async def list_first_days(db: Connection, at: datetime) -> dict[str, date]:
    return {row["account_id"]: row["since"] for row in await db.fetch(LIST_FIRST_DAYS, at)}


async def list_assignments(db: Connection, at: datetime) -> dict[str, list[Assignment]]:
    return _by_account(Assignment(**row) for row in await db.fetch(LIST_ASSIGNMENTS, at))


async def list_merges(db: Connection, at: datetime) -> dict[str, str]:
    """What merged accounts have become by then."""
    return {row["merged_account_id"]: row["account_id"] for row in await db.fetch(LIST_MERGES, at)}


def _histories(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Decision]]:
    found: dict[str, list[Decision]] = {}
    for row in rows:
        values = dict(row)
        found.setdefault(values.pop("account_id"), []).append(Decision(**values))
    return found


def _by_account(ones: Iterable[T]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for one in ones:
        found.setdefault(one.account_id, []).append(one)
    return found


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def _execute(db: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        await db.execute(statement, *_columns(rows))
