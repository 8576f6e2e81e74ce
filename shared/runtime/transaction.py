"""One transaction: lock, duplicates out, handler, refusals, outbox, offsets; all of it or nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from shared.db import Connection
from shared.observability import metrics
from shared.runtime import ownership, seen
from shared.runtime.api import Batch, Worker
from shared.runtime.failpoints import reach
from shared.runtime.ownership import After, Owned
from shared.runtime.unit import UnitOfWork
from shared.runtime.wire import ClockMark, Item, Outgoing, Own, Record, Refused, from_ms, pack, pack_headers

QUARANTINE = """
    insert into hune.quarantine as held (id, service, topic, partition, record_offset, key, value, headers,
                                         broker_time, reason, error)
    select $1 || ':' || topic || ':' || partition || ':' || record_offset, $1, topic, partition, record_offset,
           key, value, headers, broker_time, reason, error
      from unnest($2::text[], $3::int[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::timestamptz[],
                  $9::text[], $10::text[])
        as refused (topic, partition, record_offset, key, value, headers, broker_time, reason, error)
    on conflict (id) do update
       set reason = excluded.reason, error = excluded.error, state = 'held', attempts = held.attempts + 1
"""
SAVE_OUTBOX = """
    insert into hune.outbox (service, partition, last_seq, first_seq, records)
    select $1, * from unnest($2::int[], $3::bigint[], $4::bigint[], $5::bytea[])
"""
FORGET_PUBLISHED = """
    delete from hune.outbox o
     using unnest($2::int[], $3::bigint[]) as done (partition, published)
     where o.service = $1 and o.partition = done.partition and o.last_seq <= done.published
"""
APPLIED = "update hune.quarantine set state = 'applied' where id = any($1::text[]) and state = 'redrive'"


@dataclass(frozen=True, slots=True)
class Work:
    """Decoded records of some partitions, in order per partition; `redriven` names their quarantine rows."""

    items: Sequence[Item]
    owned: Sequence[Owned]
    redriven: Sequence[str] = ()
    ticks: int = 0
    """At most how many accounts a tick may move; 0: no tick."""
    passed: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """(topic, partition) → where the consumer stands behind records that are nobody's (transaction markers)."""

    def of(self, owned: dict[int, Owned]) -> Work:
        """What is left of it for those still ours."""
        still = [o for o in self.owned if owned.get(o.partition) is o]
        if len(still) == len(self.owned):
            return self
        ours = {o.partition for o in still}
        items = [item for item in self.items if item.record.partition in ours]
        return Work(items, still, self.redriven, self.ticks, self.passed)


class Attempt:
    """One try at a piece of work. Memory changes in `finish` alone, after COMMIT."""

    def __init__(self, worker: Worker, work: Work, partitions: int, database: int = 0) -> None:
        self.worker, self.work, self.partitions, self.database = worker, work, partitions, database
        self.version = max(o.version for o in work.owned) + 1
        self.after: dict[int, After] = {}
        self.moved = 0
        self._identified: list[tuple[list[Own], Any]] = []
        self._on_commit: Sequence[Callable[[], None]] = ()
        self._outbox: dict[int, tuple[int, list[Outgoing]]] = {}
        self._tally: Counter[str] = Counter()
        self._started = time.monotonic()

    async def run(self, db: Connection) -> None:
        """Everything between BEGIN and COMMIT.

        Raises Lost when a partition has another owner.
        """
        service, owned = self.worker.name, self.work.owned
        if self.work.items:
            reach("before_lock")
        now = await ownership.lock(db, service, owned)
        after = {o.partition: After.of(o) for o in owned}
        moved_on = self._move_offsets(after)
        unit = UnitOfWork(
            service,
            db,
            seq=self.version,
            clocks={o.partition: now if o.live else o.clock for o in owned},
            live=[o.partition for o in owned if o.live],
            partitions=self.partitions,
            database=self.database,
        )
        fresh = await self._without_duplicates(db, unit)
        if fresh:
            await self.worker.handle(Batch([own.signal for own in fresh]), unit)
        if self.work.ticks and self.worker.tick is not None:
            clocks = {o.partition: unit.clock(o.partition) or now for o in owned}
            self.moved = await self.worker.tick(clocks, self.work.ticks, unit)
            if self.moved:
                reach("inside_tick")
        for item in self.work.items:
            if type(item) is ClockMark:
                _move_clock(after[item.record.partition], item, self.partitions)
        refused = self._refusals(unit, fresh)
        self._count(after, unit, fresh, refused)
        self._on_commit = unit.on_commit
        if not (moved_on or self.moved or unit.outbox or self.work.items or refused):
            return
        await self._write(db, after, unit, refused)
        self.after = after

    def _move_offsets(self, after: dict[int, After]) -> bool:
        """Advance past this work's records and past markers, never past a record that was only fetched."""
        moved = False
        if not self.work.redriven:
            last = {(item.record.partition, item.record.topic): item.record.offset for item in self.work.items}
            for (partition, topic), offset in last.items():
                after[partition].offsets[topic] = offset + 1
        for (topic, partition), offset in self.work.passed.items():
            if partition in after and offset > after[partition].offsets.get(topic, 0):
                after[partition].offsets[topic] = offset
                moved = True
        for o in self.work.owned:
            if o.relay.position > o.published:
                after[o.partition].published = o.relay.position
                moved = True
        return moved

    async def _without_duplicates(self, db: Connection, unit: UnitOfWork) -> list[Own]:
        signals = [item for item in self.work.items if type(item) is Own]
        if not signals or not self.worker.dedupe:
            return signals
        by_partition: dict[int, list[Own]] = {}
        for own in signals:
            by_partition.setdefault(own.record.partition, []).append(own)
        asked = []
        for o in self.work.owned:
            owns = by_partition.get(o.partition)
            if owns:
                ids = [seen.identity(own.signal.source, own.signal.id, own.own_time) for own in owns]
                hashes = np.fromiter((hash for hash, _ in ids), np.uint64, len(ids))
                hours = np.fromiter((hour for _, hour in ids), np.int64, len(ids))
                if o.seen.days and (old := o.seen.too_old(hours, unit.clock(o.partition))).any():
                    known = ~old
                    unit.count(o.partition, "suppressed", int(old.sum()))
                    owns = [own for own, is_known in zip(owns, known.tolist(), strict=True) if is_known]
                    by_partition[o.partition], hashes, hours = owns, hashes[known], hours[known]
                self._identified.append((owns, hashes))
                asked.append((o.seen, hashes, hours))
        fresh: list[Own] = []
        masks = await seen.check_all(db, asked)
        for (partition, owns), mask in zip(by_partition.items(), self._in_order(by_partition, masks), strict=True):
            kept = [own for own, is_new in zip(owns, mask.tolist(), strict=True) if is_new]
            if len(kept) < len(owns):
                unit.count(partition, "duplicate", len(owns) - len(kept))
            fresh += kept
        return fresh

    def _in_order(self, by_partition: dict[int, list[Own]], masks: Sequence[Any]) -> list[Any]:
        """Masks come in the order of `work.owned`; give them in the order of `by_partition`."""
        asked = [o.partition for o in self.work.owned if o.partition in by_partition]
        of = dict(zip(asked, masks, strict=True))
        return [of[partition] for partition in by_partition]

    def _refusals(self, unit: UnitOfWork, fresh: Sequence[Own]) -> list[Refused]:
        refused = [item for item in self.work.items if type(item) is Refused] + unit.refused
        if unit.rejected:
            for own in fresh:
                why = unit.rejected.get(_place(own.record))
                if why is not None:
                    refused.append(Refused(own.record, *why))
        return refused

    def _count(
        self, after: dict[int, After], unit: UnitOfWork, fresh: Sequence[Own], refused: Sequence[Refused]
    ) -> None:
        if not self.work.redriven:
            read = Counter(item.record.partition for item in self.work.items if type(item) is not ClockMark)
            for partition, n in read.items():
                unit.count(partition, "read", n)
        else:
            for item in self.work.items:
                unit.count(item.record.partition, "quarantined", -1)
                if type(item) is ClockMark:
                    unit.count(item.record.partition, "read", -1)
        for refusal in refused:
            unit.count(refusal.record.partition, "quarantined")
        if self.worker.counts_applied:
            for partition, n in Counter(own.record.partition for own in fresh).items():
                unit.count(partition, "applied", n)
            for counts in unit.counts.values():
                not_applied = sum(n for outcome, n in counts.items() if outcome.startswith("ignored:"))
                counts["applied"] -= not_applied
            for refusal in refused:
                if _place(refusal.record) in unit.rejected:
                    unit.count(refusal.record.partition, "applied", -1)
        for partition, counts in unit.counts.items():
            self._tally.update(counts)
            for outcome, n in counts.items():
                if n:
                    after[partition].counts[outcome] += n

    async def _write(
        self, db: Connection, after: dict[int, After], unit: UnitOfWork, refused: Sequence[Refused]
    ) -> None:
        service = self.worker.name
        if refused:
            await db.execute(QUARANTINE, service, *_columns(refused))
        if self.work.redriven:
            again = {f"{service}:{r.record.topic}:{r.record.partition}:{r.record.offset}" for r in refused}
            await db.execute(APPLIED, [name for name in self.work.redriven if name not in again])
        if self.worker.dedupe and self.work.items:
            self._withdraw(unit)
            await seen.save_all(db, [o.seen for o in self.work.owned])
        if unit.outbox:
            rows = []
            for partition, records in sorted(unit.outbox.items()):
                first = after[partition].head + 1
                after[partition].head += len(records)
                self._outbox[partition] = (first, records)
                rows.append((partition, after[partition].head, first, pack(records)))
            await db.execute(SAVE_OUTBOX, service, *map(list, zip(*rows, strict=True)))
        published = [(p, a.published) for p, a in after.items() if a.published]
        if published:
            await db.execute(FORGET_PUBLISHED, service, *map(list, zip(*published, strict=True)))
        await ownership.save(db, service, self.version, after)

    def _withdraw(self, unit: UnitOfWork) -> None:
        """What the handler rejected was not applied: once redriven it must not pass for a repeat."""
        if not unit.rejected:
            return
        seen_of = {o.partition: o.seen for o in self.work.owned}
        for owns, hashes in self._identified:
            rejected = [place for place, own in enumerate(owns) if _place(own.record) in unit.rejected]
            seen_of[owns[0].record.partition].withdraw(hashes[rejected])

    def finish(self) -> None:
        """The transaction committed."""
        if self.after:
            if self.worker.dedupe:
                for o in self.work.owned:
                    o.seen.commit()
            for o in self.work.owned:
                self.after[o.partition].become(o, self.version)
            for partition, (first, records) in self._outbox.items():
                next(o for o in self.work.owned if o.partition == partition).relay.offer(first, records)
        for tell in self._on_commit:
            tell()
        metrics.count_outcomes(self.worker.name, self._tally)
        self._measure()

    def _measure(self) -> None:
        service, items = self.worker.name, self.work.items
        if self.moved:
            metrics.TICKED.labels(service).inc(self.moved)
        if items:
            metrics.BATCH_SECONDS.labels(service).observe(time.monotonic() - self._started)
            metrics.BATCH_RECORDS.labels(service).observe(len(items))
        if items and type(items[0]) is Own:
            metrics.EVENT_AGE.labels(service).observe(time.time() - items[0].signal.received_at.timestamp())

    def abort(self) -> None:
        """The transaction did not commit, or nobody knows: forget what it made us believe."""
        if self.worker.dedupe:
            for o in self.work.owned:
                o.seen.abort()


def _move_clock(after: After, mark: ClockMark, partitions: int) -> None:
    """Historical time moves to a run's end once every router partition has passed it on; life begins at once."""
    if mark.live:
        after.live = True
        return
    if mark.run is None or mark.at is None or not 0 <= mark.router_partition < partitions:
        return
    heard = after.marks.setdefault(mark.run, [])
    if mark.router_partition not in heard:
        heard.append(mark.router_partition)
    if len(heard) == partitions:
        del after.marks[mark.run]
        after.clock = mark.at if after.clock is None else max(after.clock, mark.at)


def _columns(refused: Sequence[Refused]) -> list[list[Any]]:
    rows = [
        (
            refusal.record.topic,
            refusal.record.partition,
            refusal.record.offset,
            refusal.record.key,
            refusal.record.value,
            pack_headers(refusal.record.headers),
            _time(refusal.record.timestamp),
            _plain(refusal.reason),
            _plain(refusal.error),
        )
        for refusal in refused
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _time(milliseconds: int) -> datetime:
    return from_ms(max(milliseconds, 0))


def _plain(text: str) -> str:
    """What PostgreSQL's text can hold, at a readable length."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\\u0000")[:2000]
