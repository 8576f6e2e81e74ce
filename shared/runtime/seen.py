"""Exact detection of duplicates: the ids already applied, in PostgreSQL, the busy ones in memory too.

An id is an 8-byte hash (`identity`) in a bucket by the UTC hour of the event's own time, so that a re-send is
looked for where the first one went; one hash is always of one hour. Each batch appends one row of packed ids per
bucket; once the hour is over `Seen.compact` turns those rows into sorted chunks. A day has 25 buckets: its hours,
and one for ids that came too few at a time to be worth a row per hour (late, shuffled or sparse events). An id is
looked for in both of its buckets and is in one of them at most.

Use: `check_all`, `save_all`, COMMIT, `Seen.commit`; or `Seen.abort` after anything else. Memory changes after a
COMMIT only: were it changed before and the transaction rolled back, the retry would take every event for a repeat.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shared.runtime.identity import UNDATED, identity

if TYPE_CHECKING:
    from shared.db import Connection

__all__ = ["UNDATED", "Seen", "check_all", "identity", "save_all"]

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SLOTS = 25
SCATTERED = SLOTS - 1
FEW = 16  # ids of an hour in one batch
SCATTER_FROM = 4  # hours of a day with few ids: as many rows would become one
WHOLE = 4096  # a bucket up to this size is loaded rather than searched by chunk
ASKED_OFTEN = 16
CHUNK = 1024
MOST_DAYS = 2048
_BUCKET_COST = 64  # what a resident bucket takes besides its ids, in ids
_GROWTH = 4
_LOWEST = -(2**63)
_PLACE = SLOTS << 32

SPANS = """
    select p.partition,
           least((select min(bucket) from hune.seen s where s.service = $1 and s.partition = p.partition),
                 (select min(bucket) from hune.seen_cold c where c.service = $1 and c.partition = p.partition)),
           greatest((select max(bucket) from hune.seen s where s.service = $1 and s.partition = p.partition),
                    (select max(bucket) from hune.seen_cold c where c.service = $1 and c.partition = p.partition))
      from unnest($2::int[]) as p (partition)
"""
DAYS = """
    select d.partition, b.bucket, sum(b.fresh)::bigint, sum(b.cold)::bigint
      from unnest($2::int[], $3::int[]) as d (partition, first)
     cross join lateral (
           select bucket, length(ids) / 8 as fresh, 0 as cold from hune.seen
            where service = $1 and partition = d.partition and bucket between d.first and d.first + 24
           union all
           select bucket, 0, length(ids) / 8 from hune.seen_cold
            where service = $1 and partition = d.partition and bucket between d.first and d.first + 24
           ) as b
     group by 1, 2
"""
# One statement, so one snapshot: compaction may move ids from the one table to the other meanwhile.
LOAD = """
    select w.nth, s.ids
      from unnest($2::int[], $3::int[]) with ordinality as w (partition, bucket, nth)
     cross join lateral (
           select ids from hune.seen where service = $1 and partition = w.partition and bucket = w.bucket offset 0
           ) as s
    union all
    select w.nth, c.ids
      from unnest($2::int[], $3::int[], $4::boolean[]) with ordinality as w (partition, bucket, whole, nth)
     cross join lateral (
           select ids from hune.seen_cold
            where service = $1 and partition = w.partition and bucket = w.bucket offset 0
           ) as c
     where w.whole
    union all
    select q.nth, c.ids
      from unnest($5::int[], $6::int[], $7::bigint[], $8::bigint[]) as q (partition, bucket, id, nth)
     cross join lateral (
           select ids from hune.seen_cold
            where service = $1 and partition = q.partition and bucket = q.bucket and lo <= q.id
            order by lo desc limit 1
           ) as c
"""
LOOK_UP_UNDATED = """
    select a.partition, a.id
      from unnest($2::int[], $3::bigint[]) as a (partition, id)
      join hune.seen_undated u on u.service = $1 and u.partition = a.partition and u.id = a.id
"""
SAVE = """
    insert into hune.seen (service, partition, bucket, ids)
    select $1, * from unnest($2::int[], $3::int[], $4::bytea[])
"""
SAVE_UNDATED = """
    insert into hune.seen_undated (service, partition, id)
    select $1, * from unnest($2::int[], $3::bigint[])
"""
LIST_LOOSE = "select distinct bucket from hune.seen where service = $1 and partition = $2"
LIST_WORTH_PACKING = """
    select s.bucket
      from (select bucket, count(*) as rows, sum(length(ids)) as size from hune.seen
             where service = $1 and partition = $2 and bucket = any($3::int[]) group by bucket) as s
      left join (select bucket, sum(length(ids)) as size from hune.seen_cold
                  where service = $1 and partition = $2 and bucket = any($3::int[]) group by bucket) as c
        on c.bucket = s.bucket
     where (s.rows >= 4 or s.size > 8 * $4::int) and (s.size * 8 >= coalesce(c.size, 0) or s.rows >= 64)
"""
PRUNE = """
    with fresh as (delete from hune.seen where service = $1 and partition = $2 and bucket < $3),
         cold as (delete from hune.seen_cold where service = $1 and partition = $2 and bucket < $3)
    select
"""
TAKE_OUT = """
    with fresh as (delete from hune.seen
                    where service = $1 and partition = $2 and bucket = any($3::int[]) returning bucket, ids),
         cold as (delete from hune.seen_cold
                   where service = $1 and partition = $2 and bucket = any($3::int[]) returning bucket, ids)
    select bucket, ids from fresh union all select bucket, ids from cold
"""
PACK = """
    insert into hune.seen_cold (service, partition, bucket, lo, ids)
    select $1, $2, * from unnest($3::int[], $4::bigint[], $5::bytea[])
"""


class Seen:
    """What the owner of one (service, partition) has applied; make a new one with each assignment.

    `capacity` is how many ids may stay in memory, at 8 to 16 bytes each. The busiest bucket of the last batch
    stays even if it alone is larger: without it every batch would read it again. After `days` (0: never) ids may be
    dropped: what is older then cannot be told from a repeat.
    """

    def __init__(self, service: str, partition: int, capacity: int, days: int = 0) -> None:
        self.service, self.partition, self.capacity, self.days = service, partition, capacity, days
        self._pruned_to = 0
        self.abort()

    def abort(self) -> None:
        """The transaction was rolled back, or nobody knows: forget everything, PostgreSQL tells it again."""
        self._resident: dict[int, list[Ids]] = {}  # bucket → sorted runs; the one asked for least recently is first
        self._weight = 0
        self._days: dict[int, _Day] = {}
        self._span: tuple[int, int] | None = None  # first and last day with anything stored, once known
        self._loose: set[int] | None = None  # buckets with rows that may be worth packing
        self._staged: list[tuple[int, Ids]] = []
        self._undated = _NONE
        self._checked = self._saved = False

    def commit(self) -> None:
        """The transaction of the last `check_all` and `save_all` has committed. After `abort`: nothing to do."""
        if self._checked and not self._saved:
            raise RuntimeError(f"{self.service} {self.partition}: save_all was not called before the commit")
        for bucket, ids in sorted(self._staged, key=lambda row: len(row[1])):
            self._learn(bucket, ids)
        self._staged = []
        self._undated = _NONE
        self._checked = self._saved = False
        self._shrink()

    def withdraw(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Between check and save: these were refused rather than applied, so they may come again."""
        refused = hashes.view(np.int64)
        kept = ((bucket, ids[~np.isin(ids, refused)]) for bucket, ids in self._staged)
        self._staged = [(bucket, ids) for bucket, ids in kept if len(ids)]
        self._undated = self._undated[~np.isin(self._undated, refused)]

    @property
    def resident(self) -> int:
        """How much of the capacity is used, in ids."""
        return self._weight

    def too_old(self, hours: Ids, clock: datetime | None) -> Mask:
        """Which of these hours (since 1970, or UNDATED) lie so far back that their ids may be gone."""
        first = _day_of(clock) - self.days if self.days and clock else 0
        old: Mask = (hours != UNDATED) & (hours < first * 24)
        return old

    def may_prune(self, clock: datetime | None) -> bool:
        return bool(self.days and clock) and self._oldest(clock) > self._pruned_to

    async def prune(self, db: Connection, clock: datetime) -> None:
        """Drop what `too_old` keeps nobody from asking for any more, in a transaction that holds the lock row."""
        await db.execute(PRUNE, self.service, self.partition, self._oldest(clock) * SLOTS)
        self.abort()
        self._pruned_to = self._oldest(clock)

    def _oldest(self, clock: datetime | None) -> int:
        """The first day that is kept: one more than is promised, for clocks that do not agree."""
        return _day_of(clock) - self.days - 1 if clock else 0

    def may_compact(self, before_hour: int) -> bool:
        """Whether `compact` could find something to do: ask before opening a transaction for it."""
        return self._loose is None or any(_ends_at(bucket) <= before_hour for bucket in self._loose)

    async def compact(self, db: Connection, before_hour: int, limit: int) -> int:
        """Turn the rows of at most `limit` buckets that ended before an hour into sorted chunks, where it pays.

        Runs in a transaction of its own that holds the partition's lock row; after its failure call `abort`.
        Returns how many buckets it looked at: 0 when there is nothing left to do.
        """
        if self._loose is None:
            self._loose = {row["bucket"] for row in await db.fetch(LIST_LOOSE, self.service, self.partition)}
        closed = heapq.nsmallest(limit, (bucket for bucket in self._loose if _ends_at(bucket) <= before_hour))
        if not closed:
            return 0
        self._loose.difference_update(closed)
        rows = await db.fetch(LIST_WORTH_PACKING, self.service, self.partition, closed, CHUNK)
        if rows:
            await self._pack(db, [row["bucket"] for row in rows])
        return len(closed)

    async def _pack(self, db: Connection, buckets: list[int]) -> None:
        parts: dict[int, list[bytes]] = {}
        for bucket, ids in await db.fetch(TAKE_OUT, self.service, self.partition, buckets):
            parts.setdefault(bucket, []).append(ids)
        rows: list[tuple[int, int, bytes]] = []
        for bucket, packed in parts.items():
            ids = _unpack(packed)
            for start in range(0, len(ids), CHUNK):
                rows.append((bucket, int(ids[start]) if start else _LOWEST, _bytes(ids[start : start + CHUNK])))
            day = self._days.get(bucket // SLOTS)
            if day is not None:
                day.fresh[bucket % SLOTS], day.cold[bucket % SLOTS] = 0, len(ids)
        await db.execute(PACK, self.service, self.partition, *_columns(rows, 3))

    def _learn(self, bucket: int, ids: Ids) -> None:
        """Add ids that are stored now; a bucket that held none before is known completely."""
        number, slot = divmod(bucket, SLOTS)
        day = self._days.get(number)
        if day is None:
            day = self._days[number] = _Day()
        runs = self._resident.pop(bucket, None)
        if runs is not None:
            self._weight += len(ids)
            self._resident[bucket] = _with_run(runs, ids)
        elif not day.holds(slot):
            self._weight += len(ids) + _BUCKET_COST
            self._resident[bucket] = [ids]
        day.fresh[slot] += len(ids)
        first, last = self._span or _NOTHING
        self._span = (min(first, number), max(last, number)) if first <= last else (number, number)
        if self._loose is not None:
            self._loose.add(bucket)

    def _shrink(self) -> None:
        while self._weight > self.capacity and len(self._resident) > 1:
            runs = self._resident.pop(next(iter(self._resident)))
            self._weight -= _BUCKET_COST + sum(map(len, runs))
        while len(self._days) > MOST_DAYS:
            del self._days[next(iter(self._days))]


async def check_all(
    db: Connection, items: Iterable[tuple[Seen, npt.NDArray[np.uint64], npt.NDArray[np.int64]]]
) -> list[Mask]:
    """Which events of a batch are there for the first time, per partition, in the order given.

    Each item is a partition with its events' hashes and hours as `identity` gives them, all of one service. No
    query when everything asked for is in memory; else one or two for all partitions together. Runs in the open
    transaction.
    """
    batch = _Batch(list(items))
    await _learn_spans(db, batch)
    await _learn_days(db, batch)
    await _load(db, batch)
    await _look_up_undated(db, batch)
    return batch.answer()


async def save_all(db: Connection, seens: Iterable[Seen]) -> None:
    """Write what the last check found new: one statement, a second one if some have no time."""
    seens = list(seens)
    rows = [(seen.partition, bucket, _bytes(ids)) for seen in seens for bucket, ids in seen._staged]
    if rows:
        await db.execute(SAVE, seens[0].service, *_columns(rows, 3))
    undated = [(seen.partition, number) for seen in seens for number in seen._undated.tolist()]
    if undated:
        await db.execute(SAVE_UNDATED, seens[0].service, *_columns(undated, 2))
    for seen in seens:
        seen._saved = True


_NOTHING = (0, -1)
_NONE: Ids = np.empty(0, np.int64)
_FIRST: Ids = np.zeros(1, np.int64)


class _Day:
    """How many ids PostgreSQL holds in each bucket of a day, as loose rows and as chunks."""

    __slots__ = ("cold", "fresh")

    def __init__(self) -> None:
        self.fresh, self.cold = array("q", bytes(8 * SLOTS)), array("q", bytes(8 * SLOTS))

    def holds(self, slot: int) -> int:
        return self.fresh[slot] + self.cold[slot]


_EMPTY = _Day()


@dataclass(slots=True)
class _Question:
    """Are ids[start:stop] in this bucket? `runs` is where to look."""

    seen: Seen
    bucket: int
    start: int
    stop: int
    runs: list[Ids] = field(default_factory=list)
    whole: bool = True


class _Batch:
    """All events of a check, sorted by partition, bucket, id and arrival.

    A key is a partition's place in the batch and a bucket in one number; key // SLOTS is place and day. Its days
    are counted from 1: what has no time is of day 0.
    """

    def __init__(self, items: list[tuple[Seen, npt.NDArray[np.uint64], npt.NDArray[np.int64]]]) -> None:
        self.seens = [seen for seen, _, _ in items]
        for seen in self.seens:
            if seen._checked:
                raise RuntimeError(f"{seen.service} {seen.partition}: checked again before commit or abort")
            seen._checked = True
        self.service = self.seens[0].service if self.seens else ""
        if any(seen.service != self.service for seen in self.seens):
            raise ValueError(f"one batch is of one service, not of {sorted({seen.service for seen in self.seens})}")
        self.sizes = [len(hashes) for _, hashes, _ in items]
        ids = np.concatenate([hashes for _, hashes, _ in items]).view(np.int64) if items else _NONE
        hours = np.concatenate([hours for _, _, hours in items]) if items else _NONE
        places = np.repeat(np.arange(len(items)) * _PLACE, self.sizes)
        keys = places + hours + hours // 24 + SLOTS
        self.order = np.lexsort((ids, keys))
        self.ids, self.keys = ids[self.order], keys[self.order]
        self.known = np.zeros(len(ids), np.bool_)
        self.known[1:] = (self.ids[1:] == self.ids[:-1]) & (self.keys[1:] == self.keys[:-1])
        self.hours = _groups(self.keys)
        self.days = [
            (self.seens[key >> 32], (key & 0xFFFFFFFF) - 1, start, stop)
            for key, start, stop in _groups(self.keys // SLOTS)
        ]
        self.undated = [(seen, start, stop) for seen, day, start, stop in self.days if day < 0]

    def unknown_days(self) -> list[tuple[Seen, int]]:
        """Days of which it is not known what is stored; outside of the span nothing is."""
        unknown = []
        for seen, day, _, _ in self.days:
            if day not in seen._days:
                first, last = seen._span or _NOTHING
                if first <= day <= last:
                    unknown.append((seen, day))
        return unknown

    def questions(self) -> list[_Question]:
        """What to ask: only buckets that hold something are worth it."""
        found = []
        for seen, number, start, stop in self.days:
            day = seen._days.pop(number, None)
            if day is not None:
                seen._days[number] = day
                if day.holds(SCATTERED):
                    found.append(_Question(seen, number * SLOTS + SCATTERED, start, stop))
        for key, start, stop in self.hours:
            seen, bucket = self.seens[key // _PLACE], key % _PLACE - SLOTS
            day = seen._days.get(bucket // SLOTS)
            if day is not None and day.holds(bucket % SLOTS):
                found.append(_Question(seen, bucket, start, stop))
        return found

    def look(self, question: _Question) -> None:
        start, stop = question.start, question.stop
        asked = self.ids[start:stop]
        for run in question.runs:
            self.known[start:stop] |= run.take(run.searchsorted(asked), mode="clip") == asked

    def answer(self) -> list[Mask]:
        """True for those seen for the first time, in the order of arrival; stages them."""
        new = ~self.known
        self._stage(self.ids[new], self.keys[new])
        first: Mask = np.empty(len(new), np.bool_)
        first[self.order] = new
        return np.split(first, np.cumsum(self.sizes[:-1])) if self.sizes else []

    def _stage(self, ids: Ids, keys: Ids) -> None:
        """Note what is new by the bucket where it will be."""
        if not len(ids):
            return
        keys = self._scatter(keys)
        order = np.lexsort((ids, keys))
        ids = ids[order]
        for key, start, stop in _groups(keys[order]):
            seen, bucket = self.seens[key // _PLACE], key % _PLACE - SLOTS
            part = ids[start:stop].copy()
            if bucket < 0:
                seen._undated = part
            else:
                seen._staged.append((bucket, part))

    def _scatter(self, keys: Ids) -> Ids:
        """Send the ids of hours that have few to the day's last bucket, where that saves rows and not much reading."""
        starts = _starts(keys)
        sizes = np.diff(starts, append=len(keys))
        groups = keys[starts]
        days = groups // SLOTS
        few = (sizes < FEW) & (days & 0xFFFFFFFF > 0)
        day_starts = _starts(days)
        hours = np.repeat(np.add.reduceat(few.astype(np.int64), day_starts), np.diff(day_starts, append=len(days)))
        shared = few & (hours >= SCATTER_FROM)
        for nth in np.flatnonzero(few & ~shared).tolist():
            key = int(groups[nth])
            number, slot = divmod(key % _PLACE - SLOTS, SLOTS)
            day = self.seens[key // _PLACE]._days.get(number, _EMPTY)
            shared[nth] = day.holds(slot) == 0 and day.holds(SCATTERED) < WHOLE
        return np.repeat(np.where(shared, days * SLOTS + SCATTERED, groups), sizes)


async def _learn_spans(db: Connection, batch: _Batch) -> None:
    unknown = [seen for seen in batch.seens if seen._span is None]
    if not unknown or not batch.days:
        return
    rows = await db.fetch(SPANS, batch.service, [seen.partition for seen in unknown])
    spans = {partition: (first, last) for partition, first, last in rows}
    for seen in unknown:
        first, last = spans[seen.partition]
        seen._span = _NOTHING if first is None else (first // SLOTS, last // SLOTS)


async def _learn_days(db: Connection, batch: _Batch) -> None:
    unknown = batch.unknown_days()
    if not unknown:
        return
    rows = await db.fetch(
        DAYS, batch.service, [seen.partition for seen, _ in unknown], [day * SLOTS for _, day in unknown]
    )
    days = {(seen.partition, day): _Day() for seen, day in unknown}
    for partition, bucket, fresh, cold in rows:
        number, slot = divmod(bucket, SLOTS)
        day = days[partition, number]
        day.fresh[slot], day.cold[slot] = fresh, cold
    for seen, number in unknown:
        seen._days[number] = days[seen.partition, number]


async def _load(db: Connection, batch: _Batch) -> None:
    """Answer from memory, and the rest from one query: buckets as a whole or just the chunks that could hold an id."""
    questions = batch.questions()
    missing = []
    for question in questions:
        runs = question.seen._resident.get(question.bucket)
        if runs is None:
            question.whole = _comes_whole(question)
            missing.append(question)
        else:
            question.runs = runs
    if missing:
        await _fetch_runs(db, batch, missing)
    for question in sorted(questions, key=_asked):
        batch.look(question)
        resident = question.seen._resident
        runs = resident.pop(question.bucket, None)
        if runs is not None:
            resident[question.bucket] = runs


async def _fetch_runs(db: Connection, batch: _Batch, missing: list[_Question]) -> None:
    chunks = [
        (question.seen.partition, question.bucket, number, nth)
        for nth, question in enumerate(missing, 1)
        if not question.whole
        for number in batch.ids[question.start : question.stop].tolist()
    ]
    rows = await db.fetch(
        LOAD,
        batch.service,
        [question.seen.partition for question in missing],
        [question.bucket for question in missing],
        [question.whole for question in missing],
        *_columns(chunks, 4),
    )
    packed: dict[int, list[bytes]] = {}
    for nth, ids in rows:
        packed.setdefault(nth, []).append(ids)
    for nth, found in packed.items():
        question = missing[nth - 1]
        question.runs = [_unpack(found)]
        if question.whole:
            question.seen._resident[question.bucket] = question.runs
            question.seen._weight += len(question.runs[0]) + _BUCKET_COST


def _comes_whole(question: _Question) -> bool:
    """Loose rows have no order to search in, small buckets and busy ones are worth having."""
    seen, (number, slot) = question.seen, divmod(question.bucket, SLOTS)
    fresh, size = seen._days[number].fresh[slot], seen._days[number].holds(slot)
    if size <= WHOLE or fresh > WHOLE:
        return True
    return _asked(question) >= ASKED_OFTEN and (size <= seen.capacity // 2 or size <= _asked(question) * CHUNK)


async def _look_up_undated(db: Connection, batch: _Batch) -> None:
    asked = [
        (seen.partition, number) for seen, start, stop in batch.undated for number in batch.ids[start:stop].tolist()
    ]
    if not asked:
        return
    found: dict[int, list[int]] = {}
    for partition, number in await db.fetch(LOOK_UP_UNDATED, batch.service, *_columns(asked, 2)):
        found.setdefault(partition, []).append(number)
    for seen, start, stop in batch.undated:
        if seen.partition in found:
            batch.known[start:stop] |= np.isin(batch.ids[start:stop], found[seen.partition])


def _asked(question: _Question) -> int:
    return question.stop - question.start


def _starts(keys: Ids) -> Ids:
    """Where each stretch of equal keys begins."""
    return np.concatenate((_FIRST, np.flatnonzero(keys[1:] != keys[:-1]) + 1))


def _groups(keys: Ids, offset: int = 0) -> list[tuple[int, int, int]]:
    """(key, start, stop) of each stretch of equal keys."""
    if not len(keys):
        return []
    starts = _starts(keys)
    bounds = [*(starts + offset).tolist(), len(keys) + offset]
    return list(zip(keys[starts].tolist(), bounds, bounds[1:], strict=False))


def _with_run(runs: list[Ids], ids: Ids) -> list[Ids]:
    """Sorted runs, each several times as long as the next."""
    runs = [*runs, ids]
    while len(runs) > 1 and len(runs[-2]) < _GROWTH * len(runs[-1]):
        runs[-2:] = [np.sort(np.concatenate(runs[-2:]), kind="stable")]
    return runs


def _columns(rows: Sequence[tuple[object, ...]], width: int) -> list[list[object]]:
    return [[row[column] for row in rows] for column in range(width)]


def _day_of(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) // 86_400


def _ends_at(bucket: int) -> int:
    """The first hour after a bucket."""
    day, slot = divmod(bucket, SLOTS)
    return day * 24 + (24 if slot == SCATTERED else slot + 1)


def _bytes(ids: Ids) -> bytes:
    return ids.astype("<i8", copy=False).tobytes()


def _unpack(packed: Iterable[bytes]) -> Ids:
    return np.sort(np.frombuffer(b"".join(packed), "<i8").astype(np.int64, copy=False))
