"""The SQL of recommendations: what accounts use of what they have, how many others do, and what was recommended."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime

import msgspec

from services.health.guidance import Counted, Ended, Peers, Recommendation
from shared.db import Connection

Segments = Mapping[str, Mapping[str, Peers]]
"""By segment ('': none) and feature."""
Row = tuple[str, int, Recommendation, datetime | None, Ended | None]
"""Account, partition, what was recommended, when it ended and how."""

LOAD_FEATURES = "select account_id, segment, band, entitled, used from health.features where account_id = any($1)"
SAVE_FEATURES = """
    insert into health.features (account_id, partition, segment, band, entitled, used)
    select account_id, partition, segment, band, array(select jsonb_array_elements_text(entitled::jsonb)),
           array(select jsonb_array_elements_text(used::jsonb))
      from unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[])
        as new (account_id, partition, segment, band, entitled, used)
    on conflict (account_id) do update
        set partition = excluded.partition, segment = excluded.segment, band = excluded.band,
            entitled = excluded.entitled, used = excluded.used
"""
FORGET_FEATURES = "delete from health.features where account_id = any($1)"
COUNT_FEATURES = """
    select f.segment, feature, count(*)::int as entitled,
           count(*) filter (where feature = any(f.used))::int as using
      from health.features f cross join lateral unnest(f.entitled) as feature
     where f.partition = $1 and f.band = 'green'
     group by 1, 2
     order by 3 desc, 1, 2
"""
DUE_TO_COUNT = """
    select c.partition
      from unnest($1::int[], $2::timestamptz[]) as p (partition, clock)
      join health.feature_counting c on c.partition = p.partition
     where c.next_due_at <= p.clock or c.window_days is distinct from $3
     order by c.partition
"""
START_COUNTING = """
    insert into health.feature_counting (partition, next_due_at)
    select partition, 'epoch' from unnest($1::int[]) as partition
    on conflict do nothing
"""
SAVE_TOLD = """
    update health.feature_counting set next_due_at = $2, day = $3, window_days = $4 where partition = $1
"""
STOP_COUNTING = "delete from health.feature_counting where partition = any($1)"
SAVE_COUNTS = """
    insert into health.feature_counts (partition, day, window_days, of_partition, partitions, segments)
    select partition, day, window_days, of_partition, partitions, segments::jsonb
      from unnest($1::int[], $2::date[], $3::int[], $4::int[], $5::int[], $6::text[])
        as new (partition, day, window_days, of_partition, partitions, segments)
    on conflict do nothing
    returning partition, day
"""
COMPLETE_DAYS = """
    select partition, day
      from health.feature_counts
     where partition = any($1::int[]) and window_days = $2
     group by partition, day having count(*) = max(partitions)
     order by partition, day desc
"""
LOAD_COUNTS = """
    select segments::text from health.feature_counts where partition = $1 and window_days = $2 and day = $3
"""
FORGET_COUNTS = "delete from health.feature_counts where partition = $1 and day < $2"
WAKE = """
    update health.accounts a set next_due_at = 'epoch'
      from health.features f
     where f.account_id = a.account_id and f.partition = $1 and a.assessed_at is not null
       and a.next_due_at is not null
"""
SAVE_RECOMMENDATIONS = """
    insert into health.recommendations (recommendation_id, account_id, partition, feature, segment, peers, peers_using,
                                        share_low, unused_days, why, next_step, baseline, config_hash, made_at,
                                        ended_at, became, reason, ended_by, note)
    select * from unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::int[], $7::int[], $8::float8[],
                         $9::int[], $10::text[], $11::text[], $12::bool[], $13::text[], $14::timestamptz[],
                         $15::timestamptz[], $16::text[], $17::text[], $18::text[], $19::text[])
    on conflict (recommendation_id) do update
        set ended_at = excluded.ended_at, became = excluded.became, reason = excluded.reason,
            ended_by = excluded.ended_by, note = excluded.note
"""
ERASE = ("update health.recommendations set ended_by = $3 where partition = $1 and ended_by = $2",)
"""Partition, user, alias."""

_read_segments = msgspec.json.Decoder(dict[str, dict[str, Peers]]).decode


async def load_features(db: Connection, account_ids: Collection[str]) -> dict[str, Counted]:
    """Accounts as they were counted last."""
    rows = await db.fetch(LOAD_FEATURES, list(account_ids))
    return {row[0]: Counted(row[1], row[2], tuple(row[3]), tuple(row[4])) for row in rows}


async def save_features(db: Connection, rows: Sequence[tuple[str, int, Counted]]) -> None:
    """Record (account_id, partition, as it is counted)."""
    ordered = sorted(rows, key=lambda row: row[0])
    await db.execute(
        SAVE_FEATURES,
        [name for name, _, _ in ordered],
        [partition for _, partition, _ in ordered],
        [one.segment for _, _, one in ordered],
        [one.band for _, _, one in ordered],
        [_text(one.entitled) for _, _, one in ordered],
        [_text(one.used) for _, _, one in ordered],
    )


async def forget_features(db: Connection, account_ids: Collection[str]) -> None:
    await db.execute(FORGET_FEATURES, list(account_ids))


async def count_features(db: Connection, partition: int) -> list[tuple[str, str, Peers]]:
    """What the green accounts of a partition have and use: (segment, feature, counts), the most common first."""
    rows = await db.fetch(COUNT_FEATURES, partition)
    return [(segment, feature, Peers(entitled, using)) for segment, feature, entitled, using in rows]


async def list_counting(db: Connection, clocks: Mapping[int, datetime], window_days: int) -> list[int]:
    """Partitions whose time has come to count, or that counted another window."""
    return [row[0] for row in await db.fetch(DUE_TO_COUNT, list(clocks), list(clocks.values()), window_days)]


async def start_counting(db: Connection, partitions: Collection[int]) -> None:
    """Have partitions count that have not yet."""
    await db.execute(START_COUNTING, sorted(partitions))


async def save_told(db: Connection, partition: int, day: date, window_days: int, next_due_at: datetime) -> None:
    """Note that a partition has told its counts of a day, and when it does so next."""
    await db.execute(SAVE_TOLD, partition, next_due_at, day, window_days)


async def stop_counting(db: Connection, partitions: Collection[int]) -> None:
    await db.execute(STOP_COUNTING, list(partitions))


async def save_counts(
    db: Connection, rows: Sequence[tuple[int, date, int, int, int, Segments]]
) -> set[tuple[int, date]]:
    """Keep (partition, day, window, whose, of how many, counts); the (partition, day) that got something new."""
    *head, segments = zip(*rows, strict=True)
    found = await db.fetch(SAVE_COUNTS, *[list(column) for column in head], [_text(one) for one in segments])
    return {(row[0], row[1]) for row in found}


async def complete_days(db: Connection, partitions: Collection[int], window_days: int) -> dict[int, list[date]]:
    """Days of which each of these partitions has heard all, the newest first."""
    found: dict[int, list[date]] = {}
    for partition, day in await db.fetch(COMPLETE_DAYS, list(partitions), window_days):
        found.setdefault(partition, []).append(day)
    return found


async def load_counts(db: Connection, partition: int, window_days: int, day: date) -> Segments:
    """What all partitions counted, added up."""
    found: dict[str, dict[str, Peers]] = {}
    for (text,) in await db.fetch(LOAD_COUNTS, partition, window_days, day):
        for segment, features in _read_segments(text).items():
            known = found.setdefault(segment, {})
            for feature, more in features.items():
                of = known.get(feature, Peers(0, 0))
                known[feature] = Peers(of.entitled + more.entitled, of.using + more.using)
    return found


async def forget_counts(db: Connection, partition: int, before: date) -> None:
    await db.execute(FORGET_COUNTS, partition, before)


async def wake(db: Connection, partition: int) -> None:
    """Have the accounts looked at that were looked at before anything was counted."""
    await db.execute(WAKE, partition)


async def save_recommendations(db: Connection, rows: Sequence[Row], config_hash: str) -> None:
    """Record what was recommended, and what became of it."""
    newest = {one.recommendation_id: (account, partition, one, at, end) for account, partition, one, at, end in rows}
    ordered = [newest[name] for name in sorted(newest)]
    known, ends = [row[2] for row in ordered], [row[4] for row in ordered]
    await db.execute(
        SAVE_RECOMMENDATIONS,
        [one.recommendation_id for one in known],
        [row[0] for row in ordered],
        [row[1] for row in ordered],
        [one.feature for one in known],
        [one.segment for one in known],
        [one.peers.entitled for one in known],
        [one.peers.using for one in known],
        [one.peers.share_low for one in known],
        [one.unused_days for one in known],
        [one.why for one in known],
        [one.next_step for one in known],
        [one.baseline for one in known],
        [config_hash] * len(ordered),
        [one.made_at for one in known],
        [row[3] for row in ordered],
        [end and end.became for end in ends],
        [end and end.reason for end in ends],
        [end and end.by for end in ends],
        [end and end.note for end in ends],
    )


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
