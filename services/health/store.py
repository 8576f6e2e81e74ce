"""Health's SQL: sets in, sets out; nothing here reads and rewrites a history."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from services.health.actions import Past
from services.health.domain import Change, Memory
from services.health.episodes import Episode
from services.health.facts import Facts, Key, Learnt, Mark, without_zeros
from services.health.families import Member
from services.health.scoring import Band
from services.health.tracking import Break
from services.health.usage import Events, from_bytes
from shared.db import Connection


@dataclass(frozen=True, slots=True)
class Account:
    """What every event of use needs to know of its account."""

    account_id: str
    partition: int
    timezone: str = "UTC"
    last_active_day: date | None = None
    next_due_at: datetime | None = None
    pending: bool = False
    assessed_at: datetime | None = None
    assessed_live: bool = False
    config_hash: str | None = None


LogRow = tuple[str, datetime, str, str, str, int, str, Mapping[str, Any]]
"""What became of an alert: (alert_id, told_at, cause, what, account_id, partition, rule, data)."""


@dataclass(frozen=True, slots=True)
class Child:
    """What a child brings, and everybody below it."""

    member: Member
    below: tuple[str, ...]


@dataclass(slots=True)
class Kin:
    """An account among its relatives: what it brings, what its children bring, what was told and sent up."""

    account_id: str
    partition: int
    own: Member
    parent_id: str | None = None
    children: dict[str, Child] = field(default_factory=dict)
    exact: float | None = None
    told_score: int | None = None
    told_exact: float | None = None
    told_band: Band | None = None
    pending: dict[str, float] = field(default_factory=dict)
    sent: str | None = None
    turn: int = 0
    stored: frozenset[str] = frozenset()
    """The children that the database has."""
    had_relatives: bool = False
    """Whether the database has it among relatives: then it keeps what it brings, though it may stand alone now."""


# Whose a fact of `t` was at a moment: a merged account's own until it became another, that one's from then on.
OF_THEN = """(t.merged_at is null or t.merged_at <= {at}) and not exists (
               select from health_api.merges_v1 m where m.merged_account_id = t.account_id and m.merged_at <= {at})"""

LOAD_ACCOUNTS = """
    select account_id, partition, timezone, last_active_day, next_due_at, pending, assessed_at,
           assessed_live, config_hash
      from health.accounts
     where account_id = any($1)
"""

DUE_ACCOUNTS = """
    select a.account_id, a.partition, a.timezone, a.last_active_day, a.next_due_at, a.pending, a.assessed_at,
           a.assessed_live, a.config_hash
      from unnest($1::int[], $2::timestamptz[]) as clock (partition, at)
      cross join lateral (
          select * from health.accounts
           where partition = clock.partition and next_due_at <= clock.at
           order by next_due_at
           limit $3
      ) a
     limit $3
"""

OUTDATED_ACCOUNTS = """
    select account_id, partition, timezone, last_active_day, next_due_at, pending, assessed_at, assessed_live,
           config_hash
      from health.accounts
     where account_id > $1 and partition = any($2::int[]) and config_hash <> $3
     order by account_id
     limit $4
"""

LOAD_MEMORIES = """
    select account_id, memory::text, tier,
           (select b.breaks::text from health.breaks b where b.partition = accounts.partition)
      from health.accounts
     where account_id = any($1) and (memory is not null or tier is not null)
"""

# Who was told of before is told of again at the next tick.
SAVE_TIERS = """
    insert into health.accounts (account_id, partition, tier, tier_at)
    select account_id, partition, tier, tier_at
      from unnest($1::text[], $2::int[], $3::text[], $4::timestamptz[]) as new (account_id, partition, tier, tier_at)
    on conflict (account_id) do update
        set tier = excluded.tier, tier_at = excluded.tier_at,
            next_due_at = case when accounts.assessed_at is null or accounts.tier is not distinct from excluded.tier
                               then accounts.next_due_at else 'epoch' end
      where accounts.tier_at is null or (accounts.tier_at, accounts.tier) < (excluded.tier_at, excluded.tier)
"""

LOAD_THINGS = """
    select account_id, kind, key, marks::text, until is null as open
      from health.things
     where account_id = any($1) and (until is null or until > $2 or key = any($3))
"""

LOAD_USAGE = """
    select a.account_id,
           (select string_agg(u.body, ''::bytea)
              from health.usage u
             where u.account_id = a.account_id
               and u.day >= least($2, (select max(m.day) from health.usage m where m.account_id = a.account_id))
           ) as body
      from unnest($1::text[]) as a (account_id)
"""

SAVE_WORDS = """
    insert into health.words (kind, hash, word)
    select * from unnest($1::text[], $2::bigint[], $3::text[])
    on conflict do nothing
    returning kind, hash
"""

SAVE_USERS = """
    insert into health.users (account_id, hash, partition, user_id)
    select * from unnest($1::text[], $2::bigint[], $3::int[], $4::text[])
    on conflict do nothing
    returning account_id, hash
"""

ERASE = (
    "update health.users set user_id = $3 where partition = $1 and user_id = $2",
    """
    update health.things set marks = (
           select jsonb_agg(
                      case when mark -> 3 ->> 'person' = $2
                           then jsonb_set(mark, '{3}', (mark -> 3) - 'quote' || jsonb_build_object('person', $3::text))
                           else mark end
                      order by n)
             from jsonb_array_elements(marks) with ordinality as said (mark, n))
     where partition = $1 and kind = 'answer'
       and marks @> jsonb_build_array(jsonb_build_array(jsonb_build_object('person', $2::text)))
    """,
    """
    update health.alerts
       set evidence = replace(case when evidence ->> 'user_id' = $2 then evidence - 'quote' else evidence end::text,
                              to_jsonb($2::text)::text, to_jsonb($3::text)::text)::jsonb
     where partition = $1 and position(to_jsonb($2::text)::text in evidence::text) > 0
    """,
    """
    update health.accounts
       set memory = replace(memory::text, to_jsonb($2::text)::text, to_jsonb($3::text)::text)::jsonb
     where partition = $1 and position(to_jsonb($2::text)::text in memory::text) > 0
    """,
)
"""Partition, user, alias. The hashes of users in the packed use stay: they are what counts people."""
LOAD_USERS = "select account_id, hash, user_id from health.users where account_id = any($1) and hash = any($2)"

SAVE_MARKS = """
    insert into health.things (account_id, kind, key, partition, marks)
    select account_id, kind, key, partition, marks::jsonb
      from unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[])
        as new (account_id, kind, key, partition, marks)
    on conflict (account_id, kind, key, merged_from)
        do update set marks = things.marks || excluded.marks, until = null
"""

SAVE_UNTIL = """
    update health.things t set until = new.until
      from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) as new (account_id, kind, key, until)
     where t.account_id = new.account_id and t.kind = new.kind and t.key = new.key
       and t.until is distinct from new.until
"""

SAVE_ACCOUNTS = """
    insert into health.accounts (account_id, partition, timezone, last_active_day, next_due_at, pending, assessed_at,
                                 assessed_live, config_hash, memory)
    select account_id, partition, timezone, last_active_day, next_due_at, pending, assessed_at, assessed_live,
           config_hash, memory::jsonb
      from unnest($1::text[], $2::int[], $3::text[], $4::date[], $5::timestamptz[], $6::bool[], $7::timestamptz[],
                  $8::bool[], $9::text[], $10::text[])
        as new (account_id, partition, timezone, last_active_day, next_due_at, pending, assessed_at, assessed_live,
                config_hash, memory)
    on conflict (account_id) do update
        set partition = excluded.partition, timezone = excluded.timezone, last_active_day = excluded.last_active_day,
            next_due_at = excluded.next_due_at, pending = excluded.pending, assessed_at = excluded.assessed_at,
            assessed_live = excluded.assessed_live, config_hash = excluded.config_hash,
            memory = coalesce(excluded.memory, accounts.memory)
"""

SAVE_ALERTS = """
    insert into health.alerts (alert_id, account_id, partition, rule, cause, kind, severity, title, why, next_step,
                               evidence, baseline, config_hash, opened_at, resolved_at)
    select alert_id, account_id, partition, rule, cause, kind, severity, title, why, next_step, evidence::jsonb,
           baseline, config_hash, opened_at, resolved_at
      from unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                  $9::text[], $10::text[], $11::text[], $12::bool[], $13::text[], $14::timestamptz[],
                  $15::timestamptz[])
        as new (alert_id, account_id, partition, rule, cause, kind, severity, title, why, next_step, evidence,
                baseline, config_hash, opened_at, resolved_at)
    on conflict (alert_id) do update set resolved_at = excluded.resolved_at
"""

SAVE_LOG = """
    insert into health.alert_log (alert_id, told_at, cause, what, account_id, partition, rule, data)
    select alert_id, told_at, cause, what, account_id, partition, rule, data::jsonb
      from unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[])
        as new (alert_id, told_at, cause, what, account_id, partition, rule, data)
    on conflict do nothing
"""

LOAD_PAST = """
    select alert_id, account_id, rule, title, resolved_at
      from health.alerts
     where alert_id = any($1) and resolved_at is not null
"""

SAVE_SCORES = """
    insert into health.scores (account_id, told_at, cause, partition, score, band, why, config_hash)
    select * from unnest($1::text[], $2::timestamptz[], $3::text[], $4::int[], $5::int[], $6::text[], $7::text[],
                         $8::text[])
    on conflict do nothing
"""

SAVE_RATES = """
    insert into health.rates (partition, currency, year, stated_at, event_id, rate)
    select * from unnest($1::int[], $2::text[], $3::int[], $4::timestamptz[], $5::text[], $6::numeric[])
    on conflict do nothing
"""

SAVE_MODEL = """
    insert into health.models (partition, config_hash, model_digest, model, since)
    values ($1, $2, $3, $4::text::jsonb, $5)
    on conflict do nothing
    returning partition
"""

LOAD_MODELS = "select distinct model_digest, model::text from health.models where model_digest = any($1)"

LOAD_KIN = """
    select account_id, partition, parent_id, own_points, own_band, own_arr, exact, told_score, told_exact, told_band,
           pending::text, sent, turn
      from health.families
     where account_id = any($1)
"""

LOAD_CHILDREN = """
    select parent_id, child_id, points, band, arr, below
      from health.children
     where parent_id = any($1)
"""

SAVE_KIN = """
    insert into health.families (account_id, partition, parent_id, own_points, own_band, own_arr, exact, told_score,
                                 told_exact, told_band, pending, sent, turn)
    select account_id, partition, parent_id, own_points, own_band, own_arr, exact, told_score, told_exact, told_band,
           pending::jsonb, sent, turn
      from unnest($1::text[], $2::int[], $3::text[], $4::float8[], $5::text[], $6::numeric[], $7::float8[], $8::int[],
                  $9::float8[], $10::text[], $11::text[], $12::text[], $13::int[])
        as new (account_id, partition, parent_id, own_points, own_band, own_arr, exact, told_score, told_exact,
                told_band, pending, sent, turn)
    on conflict (account_id) do update
        set parent_id = excluded.parent_id, own_points = excluded.own_points, own_band = excluded.own_band,
            own_arr = excluded.own_arr, exact = excluded.exact, told_score = excluded.told_score,
            told_exact = excluded.told_exact, told_band = excluded.told_band, pending = excluded.pending,
            sent = excluded.sent, turn = excluded.turn
"""

FORGET_CHILDREN = """
    delete from health.children c
     using unnest($1::text[], $2::text[]) as gone (parent_id, child_id)
     where c.parent_id = gone.parent_id and c.child_id = gone.child_id
"""

SAVE_CHILDREN = """
    insert into health.children (parent_id, child_id, partition, points, band, arr, below)
    select parent_id, child_id, partition, points, band, arr, array(select jsonb_array_elements_text(below::jsonb))
      from unnest($1::text[], $2::text[], $3::int[], $4::float8[], $5::text[], $6::numeric[], $7::text[])
        as new (parent_id, child_id, partition, points, band, arr, below)
    on conflict (parent_id, child_id) do update
        set points = excluded.points, band = excluded.band, arr = excluded.arr, below = excluded.below
"""

SAVE_GROWN = """
    insert into health.accounts (account_id, partition, next_due_at, pending)
    select account_id, partition, 'epoch', true from unnest($1::text[], $2::int[]) as new (account_id, partition)
    on conflict (account_id) do update set next_due_at = 'epoch', pending = true
"""

SAVE_SET_ASIDE = """
    insert into health.set_aside (account_id, partition, failed_at, reason)
    select * from unnest($1::text[], $2::int[], $3::timestamptz[], $4::text[])
    on conflict (account_id) do update
        set failed_at = excluded.failed_at, reason = excluded.reason, failures = set_aside.failures + 1
"""

LOAD_MERGES = "select merged_account_id, account_id from health.merges where merged_account_id = any($1)"

COMPACT_USAGE = """
    with many as (
        select account_id, day, merged_from from health.usage
         where account_id = any($1) and day >= $2 and day < $3
         group by account_id, day, merged_from having count(*) > 1
    ), gone as (
        delete from health.usage u using many
         where u.account_id = many.account_id and u.day = many.day and u.merged_from = many.merged_from
        returning u.account_id, u.day, u.partition, u.n, u.body, u.merged_from, u.merged_at
    )
    insert into health.usage (account_id, day, partition, n, body, merged_from, merged_at)
    select account_id, day, min(partition), sum(n)::int, string_agg(body, ''::bytea), merged_from, max(merged_at)
      from gone group by account_id, day, merged_from
"""

_read_memory = msgspec.json.Decoder(Memory).decode
read_breaks = msgspec.json.Decoder(tuple[Break, ...]).decode
_read_marks = msgspec.json.Decoder(tuple[Mark, ...]).decode


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def load_accounts(db: Connection, account_ids: Collection[str]) -> dict[str, Account]:
    rows = await db.fetch(LOAD_ACCOUNTS, list(account_ids))
    return {row[0]: Account(*row) for row in rows}


async def list_due(db: Connection, clocks: Mapping[int, datetime], limit: int) -> list[Account]:
    rows = await db.fetch(DUE_ACCOUNTS, list(clocks), list(clocks.values()), limit)
    return [Account(*row) for row in rows]


async def list_outdated(
    db: Connection, partitions: Collection[int], digest: str, after: str, limit: int
) -> list[Account]:
    """Accounts that were assessed under another configuration, in the order of their ids."""
    rows = await db.fetch(OUTDATED_ACCOUNTS, after, list(partitions), digest, limit)
    return [Account(*row) for row in rows]


async def load_memories(db: Connection, account_ids: Collection[str]) -> dict[str, Memory]:
    rows = await db.fetch(LOAD_MEMORIES, list(account_ids))
    return {
        account_id: replace(
            _read_memory(memory) if memory is not None else Memory(),
            tier=tier,
            breaks=read_breaks(breaks) if breaks else (),
        )
        for account_id, memory, tier, breaks in rows
    }


async def save_grown(db: Connection, accounts: Mapping[str, int]) -> None:
    """Have accounts looked at that got facts of others: by the next tick, waking nobody."""
    ordered = sorted(accounts.items())
    await db.execute(SAVE_GROWN, [name for name, _ in ordered], [partition for _, partition in ordered])


async def save_set_aside(db: Connection, rows: Sequence[tuple[str, int, datetime, str]]) -> None:
    """Note (account_id, partition, when, why) of accounts that could not be looked at."""
    await db.execute(SAVE_SET_ASIDE, *[list(column) for column in zip(*rows, strict=True)])


async def load_merges(db: Connection, account_ids: Collection[str]) -> dict[str, str]:
    """Those of these accounts that became others, and which."""
    return dict(await db.fetch(LOAD_MERGES, list(account_ids)))


async def save_tiers(db: Connection, tiers: Mapping[str, tuple[datetime, str, int]]) -> None:
    """Keep the newest tier of each account: (since when, tier, partition)."""
    ordered = sorted(tiers.items())
    await db.execute(
        SAVE_TIERS,
        [account_id for account_id, _ in ordered],
        [partition for _, (_, _, partition) in ordered],
        [tier for _, (_, tier, _) in ordered],
        [at for _, (at, _, _) in ordered],
    )


async def load_facts(
    db: Connection, account_ids: Collection[str], *, at: datetime, since: date, keys: Collection[str] = ()
) -> tuple[dict[str, Facts], dict[str, set[Key]]]:
    """What can matter at `at` or later, and things whose end is not settled yet.

    Use is loaded from the UTC day `since` on, or the last day with any; things named in `keys` always.
    """
    ids = list(account_ids)
    things: dict[str, dict[Key, tuple[Mark, ...]]] = {account_id: {} for account_id in ids}
    unsettled: dict[str, set[Key]] = {}
    for account_id, kind, key, marks, is_open in await db.fetch(LOAD_THINGS, ids, at, list(keys)):
        known = things[account_id]
        known[kind, key] = (*known.get((kind, key), ()), *_read_marks(marks))  # of merged accounts there are more
        if is_open:
            unsettled.setdefault(account_id, set()).add((kind, key))
    usage: dict[str, tuple[Events, ...]] = {
        account_id: (from_bytes(body),) for account_id, body in await db.fetch(LOAD_USAGE, ids, since) if body
    }
    return {
        account_id: Facts(account_id, things[account_id], usage.get(account_id, ())) for account_id in ids
    }, unsettled


async def save_usage(db: Connection, rows: Sequence[tuple[str, date, int, int, bytes]]) -> None:
    """Append packed use: (account_id, UTC day, partition, n, body)."""
    await db.copy_records_to_table(
        "usage", schema_name="health", records=rows, columns=["account_id", "day", "partition", "n", "body"]
    )


async def save_words(db: Connection, words: Iterable[tuple[str, int, str]]) -> set[tuple[str, int]]:
    """Write (kind, hash, word) and return those that were new."""
    ordered = sorted(words)  # one order for all transactions, so that none waits for another in a ring
    kinds, hashes, names = zip(*ordered, strict=True)
    rows = await db.fetch(
        SAVE_WORDS, kinds, [signed(value) for value in hashes], [without_zeros(name) for name in names]
    )
    return {(row[0], unsigned(row[1])) for row in rows}


async def save_users(db: Connection, users: Iterable[tuple[str, int, int, str]]) -> set[tuple[str, int]]:
    """Write (account_id, hash, partition, user_id) and return those that were new."""
    ordered = sorted(users)
    accounts, hashes, partitions, names = zip(*ordered, strict=True)
    rows = await db.fetch(
        SAVE_USERS, accounts, [signed(value) for value in hashes], partitions, [without_zeros(name) for name in names]
    )
    return {(row[0], unsigned(row[1])) for row in rows}


async def load_users(db: Connection, people: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    accounts, hashes = {account for account, _ in people}, {signed(value) for _, value in people}
    rows = await db.fetch(LOAD_USERS, list(accounts), list(hashes))
    return {(row[0], unsigned(row[1])): row[2] for row in rows}


async def save_marks(db: Connection, marks: Sequence[tuple[str, int, Learnt]]) -> None:
    """Append the marks of (account_id, partition, learnt)."""
    things: dict[tuple[str, str, str], tuple[int, list[Mark]]] = {}
    for account_id, partition, learnt in marks:
        things.setdefault((account_id, *learnt.key), (partition, []))[1].append(learnt.mark)
    ordered = sorted(things.items())
    await db.execute(
        SAVE_MARKS,
        *[[key[column] for key, _ in ordered] for column in range(3)],
        [partition for _, (partition, _) in ordered],
        [_text(said) for _, (_, said) in ordered],
    )


async def save_until(db: Connection, ends: Sequence[tuple[str, Key, datetime]]) -> None:
    await db.execute(
        SAVE_UNTIL,
        [account_id for account_id, _, _ in ends],
        [key[0] for _, key, _ in ends],
        [key[1] for _, key, _ in ends],
        [until for _, _, until in ends],
    )


async def save_accounts(db: Connection, accounts: Sequence[tuple[Account, Memory | None]]) -> None:
    """Write accounts; a memory of None stays as it is."""
    rows = [account for account, _ in accounts]
    await db.execute(
        SAVE_ACCOUNTS,
        [row.account_id for row in rows],
        [row.partition for row in rows],
        [row.timezone for row in rows],
        [row.last_active_day for row in rows],
        [row.next_due_at for row in rows],
        [row.pending for row in rows],
        [row.assessed_at for row in rows],
        [row.assessed_live for row in rows],
        [row.config_hash for row in rows],
        [None if memory is None else _text(memory) for _, memory in accounts],
    )


async def save_alerts(
    db: Connection, episodes: Sequence[tuple[str, int, Episode, datetime | None]], config_hash: str
) -> None:
    """Record (account_id, partition, episode, resolved_at)."""
    newest = {episode.alert_id: (account, partition, episode, end) for account, partition, episode, end in episodes}
    rows = [newest[alert_id] for alert_id in sorted(newest)]
    alerts = [episode for _, _, episode, _ in rows]
    await db.execute(
        SAVE_ALERTS,
        [alert.alert_id for alert in alerts],
        [account for account, _, _, _ in rows],
        [partition for _, partition, _, _ in rows],
        [alert.rule for alert in alerts],
        [alert.cause for alert in alerts],
        [alert.kind for alert in alerts],
        [alert.severity for alert in alerts],
        [alert.title for alert in alerts],
        [alert.why for alert in alerts],
        [alert.next_step for alert in alerts],
        [_text(alert.evidence) for alert in alerts],
        [alert.baseline for alert in alerts],
        [config_hash] * len(rows),
        [alert.opened_at for alert in alerts],
        [end for _, _, _, end in rows],
    )


async def save_log(db: Connection, rows: Sequence[LogRow]) -> None:
    """Record what became of alerts."""
    *head, said = zip(*rows, strict=True)
    await db.execute(SAVE_LOG, *[list(column) for column in head], [_text(data) for data in said])


async def load_past(db: Connection, alert_ids: Collection[str]) -> dict[str, Past]:
    """Those of these alerts that are over."""
    return {row["alert_id"]: Past(*row) for row in await db.fetch(LOAD_PAST, list(alert_ids))}


async def save_scores(db: Connection, told: Sequence[tuple[str, int, datetime, str, Change]], config_hash: str) -> None:
    """Record (account_id, partition, told_at, cause, change)."""
    await db.execute(
        SAVE_SCORES,
        [account for account, _, _, _, _ in told],
        [at for _, _, at, _, _ in told],
        [cause for _, _, _, cause, _ in told],
        [partition for _, partition, _, _, _ in told],
        [change.current.score for _, _, _, _, change in told],
        [change.current.band for _, _, _, _, change in told],
        [change.why for _, _, _, _, change in told],
        [config_hash] * len(told),
    )


async def save_model(
    db: Connection, partition: int, config_hash: str, model_digest: str, model: str, since: datetime
) -> bool:
    """Record what a partition scores by from now on; False when it was recorded before."""
    return await db.fetchrow(SAVE_MODEL, partition, config_hash, model_digest, model, since) is not None


async def load_models(db: Connection, digests: Collection[str]) -> dict[str, str]:
    """Models as JSON by their digest."""
    return dict(await db.fetch(LOAD_MODELS, list(digests)))


async def load_kin(db: Connection, places: Mapping[str, int]) -> dict[str, Kin]:
    """Accounts (with their partitions) among their relatives; new ones with what was told of them last."""
    ids = list(places)
    found: dict[str, Kin] = {}
    for row in await db.fetch(LOAD_KIN, ids):
        own = Member(row["account_id"], row["own_points"], row["own_band"], row["own_arr"])
        found[own.account_id] = Kin(
            own.account_id, row["partition"], own, row["parent_id"], {}, row["exact"], row["told_score"],
            row["told_exact"], row["told_band"], msgspec.json.decode(row["pending"]), row["sent"], row["turn"],
            had_relatives=True,
        )  # fmt: skip
    new = [account_id for account_id in ids if account_id not in found]
    memories = await load_memories(db, new) if new else {}
    for account_id in new:
        found[account_id] = Kin(account_id, places[account_id], member_of(account_id, memories.get(account_id)))
    children: dict[str, dict[str, Child]] = {}
    for parent_id, child_id, points, band, arr, below in await db.fetch(LOAD_CHILDREN, ids):
        member = Member(child_id, points, band, arr)
        children.setdefault(parent_id, {})[child_id] = Child(member, tuple(below))
    for parent_id, those in children.items():
        found[parent_id].children, found[parent_id].stored = those, frozenset(those)
    return found


def member_of(account_id: str, memory: Memory | None) -> Member:
    """What an account brings into a family: its score as it was told last."""
    if memory is None or memory.score is None:
        return Member(account_id, None, "unknown", None)
    arr = (memory.state or {}).get("arr")
    return Member(account_id, memory.score.shown, memory.score.band, None if arr is None else Decimal(arr))


async def save_kin(db: Connection, kin: Sequence[Kin]) -> None:
    rows = sorted(kin, key=lambda one: one.account_id)
    await db.execute(
        SAVE_KIN,
        [one.account_id for one in rows],
        [one.partition for one in rows],
        [one.parent_id for one in rows],
        [one.own.points for one in rows],
        [one.own.band for one in rows],
        [one.own.arr for one in rows],
        [one.exact for one in rows],
        [one.told_score for one in rows],
        [one.told_exact for one in rows],
        [one.told_band for one in rows],
        [_text(one.pending) for one in rows],
        [one.sent for one in rows],
        [one.turn for one in rows],
    )
    gone = [(one.account_id, child) for one in rows for child in sorted(one.stored - one.children.keys())]
    if gone:
        await db.execute(FORGET_CHILDREN, *[list(column) for column in zip(*gone, strict=True)])
    there = [(one, name, child) for one in rows for name, child in sorted(one.children.items())]
    if there:
        await db.execute(
            SAVE_CHILDREN,
            [one.account_id for one, _, _ in there],
            [name for _, name, _ in there],
            [one.partition for one, _, _ in there],
            [child.member.points for _, _, child in there],
            [child.member.band for _, _, child in there],
            [child.member.arr for _, _, child in there],
            [_text(child.below) for _, _, child in there],
        )


async def save_rates(db: Connection, rates: Sequence[tuple[int, str, int, datetime, str, Decimal]]) -> None:
    """Record (partition, currency, year, stated_at, event id, rate)."""
    await db.execute(SAVE_RATES, *[list(column) for column in zip(*sorted(rates), strict=True)])


async def compact_usage(db: Connection, account_ids: Collection[str], since: date, before: date) -> None:
    """Join the rows of closed days into one per account and day."""
    await db.execute(COMPACT_USAGE, list(account_ids), since, before)


def signed(value: int) -> int:
    """A 64-bit hash as PostgreSQL's bigint holds it."""
    return value - (1 << 64) if value >> 63 else value


def unsigned(value: int) -> int:
    return value + (1 << 64) if value < 0 else value
