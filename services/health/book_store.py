"""SQL of what is counted over the whole book."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime

import msgspec

from services.health.domain import Memory
from services.health.store import signed, unsigned
from services.health.tracking import Break, Day
from services.health.usage import Events, from_bytes
from shared.db import Connection

Heard = tuple[int, str, bool, date]
"""Partition, source, whether it is use, UTC day."""
Masks = tuple[int, int]
"""Bits of hours, and of those in which something came live."""

SAVE_HEARD = """
    insert into health.heard (partition, source, used, day, hours, live)
    select * from unnest($1::int[], $2::text[], $3::bool[], $4::date[], $5::int[], $6::int[])
    on conflict (partition, source, used, day) do update
        set hours = heard.hours | excluded.hours, live = heard.live | excluded.live
     where heard.hours | excluded.hours <> heard.hours or heard.live | excluded.live <> heard.live
"""
UNCOUNT = """
    delete from health.counted c
     using unnest($1::int[], $2::date[]) as late (partition, day)
     where c.partition = late.partition and c.day = late.day
"""
TOLD = "select partition, until from health.counts_told where partition = any($1)"
COUNTED = "select day from health.counted where partition = $1 and day >= $2"
# Of merged accounts what was theirs counts there, so a merge changes no day that was.
USE = """
    select u.body
      from health.accounts a
      cross join lateral (
          select string_agg(body, ''::bytea) as body from health.usage
           where account_id = a.account_id and day >= $2 and day < $3 and merged_from = ''
      ) u
     where a.partition = $1 and u.body is not null
"""
WORDS = "select hash, word from health.words where kind = 'feature' and hash = any($1)"
SAVE_COUNTED = """
    insert into health.counted (partition, day, active, features)
    select $1, day, active, features::jsonb
      from unnest($2::date[], $3::int[], $4::text[]) as new (day, active, features)
    on conflict (partition, day) do update set active = excluded.active, features = excluded.features
"""
NEW_HOURS = """
    update health.heard set told = hours, told_live = live
     where partition = $1 and day >= $2 and (told <> hours or told_live <> live)
    returning source, used, day, hours, live
"""
SAVE_TOLD = """
    insert into health.counts_told (partition, until) values ($1, $2)
    on conflict (partition) do update set until = excluded.until
"""
SAVE_DAYS = """
    insert into health.part_days (origin, day, partition, active, features)
    select origin, day, $5, active, features::jsonb
      from unnest($1::int[], $2::date[], $3::int[], $4::text[]) as new (origin, day, active, features)
    on conflict (origin, day) do update set active = excluded.active, features = excluded.features
"""
SAVE_HOURS = """
    insert into health.part_hours (origin, source, used, day, partition, hours, live)
    select origin, source, used, day, $7, hours, live
      from unnest($1::int[], $2::text[], $3::bool[], $4::date[], $5::int[], $6::int[])
        as new (origin, source, used, day, hours, live)
    on conflict (origin, source, used, day) do update
        set hours = part_hours.hours | excluded.hours, live = part_hours.live | excluded.live
"""
SAVE_PART = """
    insert into health.parts (origin, partition, until) values ($1, $2, $3)
    on conflict (origin) do update set until = excluded.until
"""
STANDING = """
    select (select count(*) from health.parts where partition = $1) as parts,
           (select min(until) from health.parts where partition = $1) as until,
           b.judged_until, b.judged_live, b.memory::text
      from (select 1) as one left join health.book b on b.partition = $1
"""
DAYS = "select day, active, features::text from health.part_days where partition = $1 and day >= $2"
HOURS = """
    select source, used, day, bit_or(hours), bit_or(live) from health.part_hours
     where partition = $1 and day >= $2
     group by source, used, day
"""
SAVE_BOOK = """
    insert into health.book (partition, memory, judged_until, judged_live) values ($1, $2::text::jsonb, $3, $4)
    on conflict (partition) do update
        set memory = excluded.memory, judged_until = excluded.judged_until, judged_live = excluded.judged_live
"""
LOAD_BOOK = "select memory::text from health.book where partition = $1"
SAVE_MEMORY = "update health.book set memory = $2::text::jsonb where partition = $1"
SAVE_BREAKS = """
    insert into health.breaks (partition, told_at, breaks) values ($1, $2, $3::text::jsonb)
    on conflict (partition) do update set told_at = excluded.told_at, breaks = excluded.breaks
"""
# Whoever used anything in the weeks before a break that is news is looked at anew, and nobody is woken for it.
LOOK_ANEW = """
    update health.accounts set pending = true, next_due_at = 'epoch'
     where partition = $1 and assessed_at is not null and last_active_day >= $2
"""
FORGET = (
    "delete from health.part_days where partition = $1 and day < $2",
    "delete from health.part_hours where partition = $1 and day < $2",
)
FORGET_COUNTS = "delete from health.counted where partition = $1 and day < $2"

_read_memory = msgspec.json.Decoder(Memory).decode
_read_features = msgspec.json.Decoder(dict[str, int]).decode


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def save_heard(db: Connection, hours: Mapping[Heard, Masks]) -> None:
    rows = sorted(hours.items())
    keys = [[key[column] for key, _ in rows] for column in range(4)]
    await db.execute(SAVE_HEARD, *keys, [mask for _, (mask, _) in rows], [live for _, (_, live) in rows])


async def uncount(db: Connection, late: Collection[tuple[int, date]]) -> None:
    """Days of which more became known are to be counted again."""
    rows = sorted(late)
    await db.execute(UNCOUNT, [partition for partition, _ in rows], [day for _, day in rows])


async def load_told(db: Connection, partitions: Collection[int]) -> dict[int, datetime]:
    return dict(await db.fetch(TOLD, list(partitions)))


async def load_counted(db: Connection, partition: int, since: date) -> set[date]:
    return {row[0] for row in await db.fetch(COUNTED, partition, since)}


async def load_use(db: Connection, partition: int, since: date, before: date) -> list[Events]:
    """Each account's use of some days."""
    return [from_bytes(row[0]) for row in await db.fetch(USE, partition, since, before)]


async def load_words(db: Connection, hashes: Collection[int]) -> dict[int, str]:
    if not hashes:
        return {}
    return {unsigned(row[0]): row[1] for row in await db.fetch(WORDS, [signed(one) for one in sorted(hashes)])}


async def save_counted(db: Connection, partition: int, days: Sequence[tuple[date, int, Mapping[str, int]]]) -> None:
    """What was counted of days, true until more of their use comes."""
    await db.execute(SAVE_COUNTED, partition, [day for day, _, _ in days], [active for _, active, _ in days],
                     [_text(features) for _, _, features in days])  # fmt: skip


async def take_hours(db: Connection, partition: int, since: date) -> list[tuple[str, bool, date, int, int]]:
    """Hours that were not told yet: told from now on."""
    return [tuple(row) for row in await db.fetch(NEW_HOURS, partition, since)]


async def save_told(db: Connection, partition: int, until: datetime, oldest: date) -> None:
    await db.execute(SAVE_TOLD, partition, until)
    await db.execute(FORGET_COUNTS, partition, oldest)


async def save_parts(
    db: Connection,
    partition: int,
    days: Sequence[tuple[int, date, int, Mapping[str, int]]],
    hours: Sequence[tuple[int, str, bool, date, Masks]],
    until: Mapping[int, datetime],
) -> None:
    """What partitions (origin first) counted, the newest last."""
    newest = {(origin, day): (active, features) for origin, day, active, features in days}
    if newest:
        await db.execute(
            SAVE_DAYS,
            [origin for origin, _ in newest],
            [day for _, day in newest],
            [active for active, _ in newest.values()],
            [_text(features) for _, features in newest.values()],
            partition,
        )
    masks: dict[tuple[int, str, bool, date], Masks] = {}
    for origin, source, used, day, (mask, live) in hours:
        known, lived = masks.get((origin, source, used, day), (0, 0))
        masks[origin, source, used, day] = known | mask, lived | live
    if masks:
        columns: list[list[object]] = [[key[column] for key in masks] for column in range(4)]
        columns += [[mask for mask, _ in masks.values()], [live for _, live in masks.values()]]
        await db.execute(SAVE_HOURS, *columns, partition)
    for origin, at in sorted(until.items()):
        await db.execute(SAVE_PART, origin, partition, at)


async def load_standing(db: Connection, partition: int) -> tuple[int, datetime | None, datetime | None, bool, Memory]:
    """How many parts told, up to when all did, up to when the book was judged, whether live, and its memory."""
    row = await db.fetchrow(STANDING, partition)
    assert row is not None, "a query without a table always has a row"
    memory = _read_memory(row["memory"]) if row["memory"] else Memory()
    return row["parts"], row["until"], row["judged_until"], bool(row["judged_live"]), memory


async def load_days(db: Connection, partition: int, since: date) -> dict[date, Day]:
    found: dict[date, Day] = {}
    for day, active, features in await db.fetch(DAYS, partition, since):
        found.setdefault(day, Day()).add(active, _read_features(features))
    return found


async def load_hours(
    db: Connection, partition: int, since: date
) -> dict[tuple[str, bool], list[tuple[date, int, int]]]:
    found: dict[tuple[str, bool], list[tuple[date, int, int]]] = {}
    for source, used, day, mask, live in await db.fetch(HOURS, partition, since):
        found.setdefault((source, used), []).append((day, mask, live))
    return found


async def save_book(db: Connection, partition: int, memory: Memory, until: datetime, *, live: bool) -> None:
    await db.execute(SAVE_BOOK, partition, _text(memory), until, live)


async def load_memory(db: Connection, partition: int) -> Memory:
    text = await db.fetchval(LOAD_BOOK, partition)
    return _read_memory(text) if text else Memory()


async def save_memory(db: Connection, partition: int, memory: Memory) -> None:
    await db.execute(SAVE_MEMORY, partition, _text(memory))


async def forget(db: Connection, partition: int, before: date) -> None:
    for statement in FORGET:
        await db.execute(statement, partition, before)


async def save_breaks(
    db: Connection, told: Iterable[tuple[int, datetime, tuple[Break, ...]]], since: date | None
) -> None:
    """What partitions were told; accounts in use since then are looked at anew."""
    for partition, at, breaks in told:
        await db.execute(SAVE_BREAKS, partition, at, _text(breaks))
        if since is not None:
            await db.execute(LOOK_ANEW, partition, since)
