"""The router's SQL: identity, choices and what waits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from services.router.domain import IdentityBook, Link, Membership
from services.router.merges import Merge
from services.router.reader import RawEvent
from shared.db import Connection
from shared.runtime.wire import pack_headers

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
OVERLAP = timedelta(seconds=30)
"""So much is read again of what others changed: their transactions may commit later than ours that began after."""

LOAD_MEMBERSHIPS = """
    select user_id, account_id, valid_from, valid_to from router.memberships where user_id = any($1::text[])
"""
LOAD_LINKS = """
    select l.namespace, l.external_id, l.account_id, l.valid_from
      from router.links l
      join unnest($1::text[], $2::text[]) as asked (namespace, external_id) using (namespace, external_id)
"""
SAVE_MEMBERSHIPS = """
    insert into router.memberships (user_id, account_id, valid_from, valid_to)
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
    on conflict (user_id, account_id) do update
       set valid_from = excluded.valid_from, valid_to = excluded.valid_to, asserted_at = clock_timestamp()
"""
SAVE_LINKS = """
    insert into router.links (namespace, external_id, account_id, valid_from)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
    on conflict do nothing
"""
SAVE_ACCOUNTS = """
    insert into router.accounts as known (account_id, name)
    select * from unnest($1::text[], $2::text[])
    on conflict (account_id) do update
       set name = excluded.name, changed_at = clock_timestamp()
     where excluded.name is not null and excluded.name is distinct from known.name
"""
LOAD_CHOICES = "select event_hash, account_id from router.choices where event_hash = any($1::bigint[])"
SAVE_CHOICES = """
    insert into router.choices (event_hash, account_id)
    select * from unnest($1::bigint[], $2::text[]) on conflict do nothing
"""
LOAD_REQUESTS = """
    select event_hash, demand, account_id, confidence from router.requests where event_hash = any($1::bigint[])
"""
SAVE_REQUESTS = """
    insert into router.requests (event_hash, demand, account_id, confidence)
    select * from unnest($1::bigint[], $2::text[], $3::text[], $4::float8[]) on conflict do nothing
"""
LIST_PARKED = """
    select partition, seq, entity, topic, record_offset, value, headers, broker_time
      from router.parked
     where (partition, entity) in (select * from unnest($1::int[], $2::text[]))
     order by seq
"""
SAVE_PARKED = """
    insert into router.parked (partition, entity, topic, record_offset, value, headers, broker_time, reason,
                               waits_for)
    select partition, entity, topic, record_offset, value, headers, broker_time, reason,
           string_to_array(waits_for, E'\\x01')
      from unnest($1::int[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[], $7::timestamptz[],
                  $8::text[], $9::text[])
        with ordinality as p (partition, entity, topic, record_offset, value, headers, broker_time, reason,
                              waits_for, n)
     order by n
"""
RELEASE = """
    delete from router.parked where (partition, seq) in (select * from unnest($1::int[], $2::bigint[]))
"""
LIST_ARRIVED = """
    select distinct p.partition, p.entity
      from router.parked p
     cross join unnest(p.waits_for) as w
     where p.partition = any($1::int[])
       and (p.partition, p.entity) > ($4::int, $5::text)
       and (exists (select from router.memberships m
                     where w = 'user:' || m.user_id and m.user_id = substr(w, 6)
                       and m.asserted_at > $2)
         or exists (select from router.links l
                     where l.namespace = split_part(w, ':', 1) and l.external_id = substr(w, strpos(w, ':') + 1)
                       and l.asserted_at > $2))
     order by p.partition, p.entity
     limit $3
"""
LIST_EXPIRED = """
    select partition, seq, entity, topic, record_offset, value, headers, broker_time, reason
      from router.parked where partition = any($1::int[]) and parked_at < $2 order by parked_at limit $3
"""
BEGIN_LIFE = "update hune.installation set live_since = now() where live_since is null returning live_since"
IS_LIVE = "select live_since is not null from hune.installation"
LIST_ACCOUNTS = """
    select account_id, name, changed_at from router.accounts
     where changed_at > $1 order by changed_at limit 50000
"""
# Whoever decides about a merge sees every merge there is: one at a time, until COMMIT.
LOCK_MERGES = "select pg_advisory_xact_lock(hashtext('hune.router.merges'))"
LIST_MERGES = "select merged_account_id, account_id, valid_from, known_at, seq from router.merges where seq > $1"
SAVE_MERGES = """
    insert into router.merges (merged_account_id, account_id, valid_from, known_at)
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
"""
# Whoever waits for one of the merged account's users or external ids is looked at again.
TOUCH_MEMBERSHIPS = "update router.memberships set asserted_at = clock_timestamp() where account_id = any($1::text[])"
TOUCH_LINKS = "update router.links set asserted_at = clock_timestamp() where account_id = any($1::text[])"
KNOWS_ACCOUNT = "select account_id from router.accounts where account_id = any($1::text[])"


@dataclass(frozen=True, slots=True)
class Understood:
    """What a request was decided to be; without a demand it was answered here."""

    demand: str | None
    account_id: str | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Parked:
    partition: int
    seq: int
    entity: str
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToPark:
    event: RawEvent
    headers: Sequence[tuple[str, bytes]]
    entity: str
    reason: str
    waits_for: Sequence[str]


async def load_identity(db: Connection, users: Collection[str], external: Collection[tuple[str, str]]) -> IdentityBook:
    book = IdentityBook()
    if users:
        for row in await db.fetch(LOAD_MEMBERSHIPS, list(users)):
            book.memberships.setdefault(row["user_id"], {})[row["account_id"]] = Membership(
                row["account_id"], row["valid_from"], row["valid_to"]
            )
    if external:
        asked = sorted(external)
        for row in await db.fetch(LOAD_LINKS, [ns for ns, _ in asked], [value for _, value in asked]):
            book.links.setdefault((row["namespace"], row["external_id"]), []).append(
                Link(row["account_id"], row["valid_from"])
            )
    return book


async def save_memberships(db: Connection, rows: Mapping[tuple[str, str], Membership]) -> None:
    if rows:
        ordered = sorted(rows)
        await db.execute(
            SAVE_MEMBERSHIPS,
            [user for user, _ in ordered],
            [account for _, account in ordered],
            [rows[key].valid_from for key in ordered],
            [rows[key].valid_to for key in ordered],
        )


async def save_links(db: Connection, rows: Sequence[tuple[str, str, str | None, datetime]]) -> None:
    if rows:
        ordered = sorted(rows, key=lambda row: (row[0], row[1], row[3]))
        await db.execute(SAVE_LINKS, *map(list, zip(*ordered, strict=True)))


async def list_merges(db: Connection, after: int) -> tuple[dict[str, Merge], int]:
    """The merges decided after the one of that number, and the number of the last one."""
    rows = await db.fetch(LIST_MERGES, after)
    found = {row["merged_account_id"]: Merge(row["account_id"], row["valid_from"], row["known_at"]) for row in rows}
    return found, max((row["seq"] for row in rows), default=after)


async def save_merges(db: Connection, merges: Mapping[str, Merge]) -> None:
    if merges:
        ordered = sorted(merges)
        await db.execute(
            SAVE_MERGES,
            ordered,
            [merges[merged].account_id for merged in ordered],
            [merges[merged].valid_from for merged in ordered],
            [merges[merged].known_at for merged in ordered],
        )
        await db.execute(TOUCH_MEMBERSHIPS, ordered)
        await db.execute(TOUCH_LINKS, ordered)


async def save_accounts(db: Connection, names: Mapping[str, str | None]) -> None:
    if names:
        ordered = sorted(names)
        await db.execute(SAVE_ACCOUNTS, ordered, [names[account] for account in ordered])


async def load_choices(db: Connection, hashes: Sequence[int]) -> dict[int, str]:
    rows = await db.fetch(LOAD_CHOICES, hashes)
    return {row["event_hash"]: row["account_id"] for row in rows}


async def save_choices(db: Connection, choices: Mapping[int, str]) -> None:
    if choices:
        ordered = sorted(choices)
        await db.execute(SAVE_CHOICES, ordered, [choices[key] for key in ordered])


async def load_requests(db: Connection, hashes: Sequence[int]) -> dict[int, Understood]:
    rows = await db.fetch(LOAD_REQUESTS, hashes)
    return {row["event_hash"]: Understood(row["demand"], row["account_id"], row["confidence"]) for row in rows}


async def save_requests(db: Connection, understood: Mapping[int, Understood]) -> None:
    if understood:
        ordered = sorted(understood.items())
        await db.execute(
            SAVE_REQUESTS,
            [hashed for hashed, _ in ordered],
            [what.demand for _, what in ordered],
            [what.account_id for _, what in ordered],
            [what.confidence for _, what in ordered],
        )


async def list_parked(db: Connection, entities: Collection[tuple[int, str]]) -> list[Parked]:
    """What waits for these (partition, entity), in the order it came."""
    asked = sorted(entities)
    rows = await db.fetch(LIST_PARKED, [partition for partition, _ in asked], [entity for _, entity in asked])
    return [Parked(row["partition"], row["seq"], row["entity"], row) for row in rows]


async def save_parked(db: Connection, parked: Sequence[ToPark]) -> None:
    if parked:
        rows = [
            (
                p.event.partition,
                p.entity,
                p.event.topic,
                p.event.offset,
                p.event.value,
                pack_headers(p.headers),
                p.event.received_at,
                p.reason,
                "\x01".join(p.waits_for),
            )
            for p in parked
        ]
        await db.execute(SAVE_PARKED, *map(list, zip(*rows, strict=True)))


async def release(db: Connection, parked: Sequence[Parked]) -> None:
    if parked:
        await db.execute(RELEASE, [p.partition for p in parked], [p.seq for p in parked])


async def list_expired(db: Connection, partitions: Sequence[int], since: datetime, limit: int) -> list[Parked]:
    """What has waited since before, the longest first."""
    rows = await db.fetch(LIST_EXPIRED, list(partitions), since, limit)
    return [Parked(row["partition"], row["seq"], row["entity"], row) for row in rows]


async def list_arrived(
    db: Connection, partitions: Sequence[int], since: datetime, after: tuple[int, str], limit: int
) -> list[tuple[int, str]]:
    """(partition, entity) whose account may have become known by a link asserted since; in order, after one."""
    rows = await db.fetch(LIST_ARRIVED, list(partitions), since, limit, *after)
    return [(row["partition"], row["entity"]) for row in rows]
