"""A lane: everything this process owns in one database, one transaction at a time.

The unit of ownership is the partition; the unit of work is a batch over the lane's partitions, so that
thin traffic on many partitions shares a transaction. While one batch commits the next is decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import asyncpg

from shared import db as database
from shared.errors import Poison
from shared.observability import metrics
from shared.runtime import ownership
from shared.runtime.api import Worker
from shared.runtime.failpoints import reach
from shared.runtime.ownership import Lost, Owned
from shared.runtime.transaction import Attempt, Work
from shared.runtime.wire import Item, Own, Record, Refused, unpack_headers

log = logging.getLogger(__name__)

MOST_IN_BATCH = 5_000
MOST_QUEUED = 2 * MOST_IN_BATCH
MOST_UNPUBLISHED = 100_000
DECODE_SLICE = 250
HOUSEKEEPING_S = 0.2
TICK_S = 1.0
MOST_IN_TICK, LEAST_IN_TICK = 1_000, 50
TICK_TURN_S = 0.25
"""A tick moves as many accounts as fit into this: so long may a live event wait for it."""
FAILURES_IN_A_ROW = 50  # records that the handler could not apply, with none that it could in between
REFUSALS_IN_A_ROW = 1_000
CIRCUIT_S = 10.0
COMPACT_BUCKETS = 64

LIST_REDRIVE = """
    select id, topic, partition, record_offset, key, value, headers, broker_time from hune.quarantine
     where service = $1 and partition = any($2::int[]) and state = 'redrive' order by refused_at limit 500
"""


class Lane:
    """Runs one worker over its partitions in one database."""

    def __init__(
        self, worker: Worker, pool: database.Pool, read: Callable[[Record], Item], partitions: int, number: int = 0
    ) -> None:
        self.worker, self.pool, self.partitions, self.number = worker, pool, partitions, number
        self.owned: dict[int, Owned] = {}
        self.last_progress = time.monotonic()
        self.halted = False
        self.on_lost: Callable[[Sequence[Owned]], None] = lambda gone: None
        self.position: Callable[[str, int], Awaitable[int | None]] | None = None
        self._read = read
        self._queued = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._applying: asyncio.Task[Attempt | None] | None = None
        self._ticked_at = 0.0
        self._tick_size = LEAST_IN_TICK
        self._kept_at = 0.0
        self._stopping = False
        self._stop = asyncio.Event()
        self._failures_in_a_row = 0
        self._refusals_in_a_row = 0

    # -- intake ---------------------------------------------------------------------------------

    def take_in(self, records: Sequence[Record]) -> None:
        """Queue fetched records of one topic and partition; those not ours now are fetched again later."""
        first = records[0]
        owned = self.owned.get(first.partition)
        if owned is None:
            return
        next_offset = owned.fetched.get(first.topic, owned.offsets.get(first.topic, 0))
        fresh = (
            [record for record in records if record.offset >= next_offset] if first.offset < next_offset else records
        )
        if not fresh:
            return
        owned.queue.extend(fresh)
        owned.fetched[first.topic] = fresh[-1].offset + 1
        self._queued += len(fresh)
        self._wake.set()
        if self._queued >= MOST_QUEUED:
            self._room.clear()

    async def room(self) -> None:
        """Wait until the queue may grow again."""
        await self._room.wait()

    def add(self, owned: Owned) -> None:
        self.owned[owned.partition] = owned
        self._wake.set()

    async def remove(self, partitions: Sequence[int], timeout: float) -> list[Owned]:
        """Stop working for these partitions; wait for the batch in hand, but not for ever."""
        gone = [self.owned.pop(partition) for partition in partitions if partition in self.owned]
        for owned in gone:
            self._queued -= len(owned.queue)
            owned.queue.clear()
        self._signal_room()
        if gone:
            try:
                await asyncio.wait_for(self._idle.wait(), timeout)
            except TimeoutError:
                log.warning("a batch is still in hand while its partitions go", extra={"worker": self.worker.name})
        return gone

    @property
    def is_busy(self) -> bool:
        """Whether it has records in hand, or for a reason of its own wants no more."""
        return bool(self._queued) or self._applying is not None or self.halted

    def stands_still(self, patience: float) -> bool:
        """Whether records wait and none has been applied for this many seconds."""
        waiting = self._queued > 0 or self._applying is not None
        return waiting and not self.halted and time.monotonic() - self.last_progress > patience

    def stop(self) -> None:
        self._stopping = True
        self._stop.set()
        self._wake.set()

    # -- the loop -------------------------------------------------------------------------------

    async def run(self) -> None:
        while not self._stopping:
            work = await self._next_work()
            if work is not None:
                await self._settle()
                self._idle.clear()
                self.last_progress = time.monotonic() if not self._queued else self.last_progress
                self._applying = asyncio.create_task(self._apply(work))
            if work is None or self._due():
                await self._settle()
                self._idle.clear()
                await self._keep_house(idle=work is None)
                self._idle.set()
        await self._settle()

    async def _settle(self) -> None:
        """Wait for the batch that is being applied."""
        task, self._applying = self._applying, None
        if task is not None:
            await task
        self._idle.set()

    async def _next_work(self) -> Work | None:
        """Decode what is queued, a slice at a time so that a running commit gets its turns."""
        if not self._queued:
            self._wake.clear()
            if self._applying is not None:
                await asyncio.wait(
                    [self._applying, asyncio.ensure_future(self._woken())], return_when="FIRST_COMPLETED"
                )
            else:
                await self._woken()
            if not self._queued:
                return None
        while any(owned.relay.behind > MOST_UNPUBLISHED for owned in self.owned.values()) and not self._stopping:
            await self._settle()
            await asyncio.sleep(0.05)
        items: list[Item] = []
        involved: dict[int, Owned] = {}
        for owned in sorted(self.owned.values(), key=lambda o: -len(o.queue)):
            if len(items) >= MOST_IN_BATCH or not owned.queue:
                break
            involved[owned.partition] = owned
            await self._decode(owned, items)
        await self._break_circuit()
        self._signal_room()
        if self._stopping:
            return None
        work = Work(items, list(involved.values())).of(self.owned)
        return work if work.owned else None

    async def _break_circuit(self) -> None:
        """Nothing that the router let through is readable any more: this is our fault, not the records'.

        Quarantining them all would only move the problem: stop, page, and let somebody bring a version that
        reads them. The router itself goes on, whatever others send it.
        """
        while self.worker.read is None and self._refusals_in_a_row >= REFUSALS_IN_A_ROW and not self._stopping:
            await self._wait_halted("nearly everything is unreadable: the worker waits")

    async def _wait_halted(self, why: str) -> None:
        """Not ready, and paging, for a while."""
        self.halted = True
        metrics.HALTED.labels(self.worker.name).set(1)
        log.critical(why, extra={"worker": self.worker.name})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), CIRCUIT_S)

    async def _woken(self) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), HOUSEKEEPING_S)
        except TimeoutError:
            return

    async def _decode(self, owned: Owned, items: list[Item]) -> None:
        read, queue = self._read, owned.queue
        while queue and len(items) < MOST_IN_BATCH:
            for _ in range(min(DECODE_SLICE, len(queue), MOST_IN_BATCH - len(items))):
                item = read(queue.popleft())
                self._queued -= 1
                items.append(item)
                if type(item) is Own:
                    self._refusals_in_a_row = 0
                elif type(item) is Refused:
                    self._refusals_in_a_row += 1
                else:
                    return
            if self._applying is not None:
                await asyncio.sleep(0)

    def _signal_room(self) -> None:
        if self._queued < MOST_QUEUED // 2:
            self._room.set()

    # -- one batch ------------------------------------------------------------------------------

    async def _apply(self, work: Work) -> Attempt | None:
        """Bring a batch to its end: committed, settled as committed, or no longer ours to apply (None)."""
        delay = 0.05
        while True:
            work = work.of(self.owned)
            if not work.owned or (self.halted and self._stopping):
                return None
            attempt = Attempt(self.worker, work, self.partitions, self.number)
            if await self._try(attempt):
                self.last_progress = time.monotonic()
                return attempt
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _try(self, attempt: Attempt) -> bool:
        """Try once; False asks for another try after a pause."""
        connected = closed = False
        try:
            async with self.pool.acquire() as connection:
                connected = True
                try:
                    async with connection.transaction():
                        await attempt.run(connection)
                        reach("before_commit")
                except BaseException:
                    closed = database.is_closed(connection)
                    raise
        except Lost as lost:
            attempt.abort()
            self._drop(lost.partitions)
            return False
        except Exception as error:
            attempt.abort()
            if closed or database.is_transient(error, connected):
                metrics.RETRIES.labels(self.worker.name).inc()
                log.warning("trying the batch again", extra={"worker": self.worker.name, "error": repr(error)})
                return await self._settle_unclear(attempt)
            return await self._bisect(attempt.work, error)
        reach("after_commit")
        attempt.finish()
        if any(type(item) is Own for item in attempt.work.items):
            self._works_again()
        return True

    async def _settle_unclear(self, attempt: Attempt) -> bool:
        """After a broken connection only the stored version tells whether COMMIT happened."""
        try:
            async with self.pool.acquire() as connection:
                stored = await ownership.standing(
                    connection, self.worker.name, [owned.partition for owned in attempt.work.owned]
                )
        except Exception as error:
            log.info("PostgreSQL does not answer yet", extra={"error": repr(error)})
            return False
        lost = [o.partition for o in attempt.work.owned if stored.get(o.partition, (-1, 0))[0] != o.epoch]
        if lost:
            self._drop(lost)
            return False
        committed = [stored[o.partition][1] == attempt.version for o in attempt.work.owned]
        if attempt.after and all(committed):
            attempt.finish()
            return True
        return False

    def _drop(self, partitions: Sequence[int]) -> None:
        metrics.CAS_REJECTIONS.labels(self.worker.name).inc(len(partitions))
        log.warning("partitions have another owner", extra={"worker": self.worker.name, "partitions": list(partitions)})
        gone = [self.owned.pop(partition) for partition in partitions if partition in self.owned]
        for owned in gone:
            self._queued -= len(owned.queue)
            owned.queue.clear()
        self._signal_room()
        self.on_lost(gone)

    def _works_again(self) -> None:
        self._failures_in_a_row = 0
        if self.halted:
            self.halted = False
            metrics.HALTED.labels(self.worker.name).set(0)
            log.warning("the worker goes on", extra={"worker": self.worker.name})

    async def _bisect(self, work: Work, error: Exception) -> bool:
        """Something in the batch cannot be applied: halve until it is alone, and put it aside.

        False asks for another try: nothing at all can be applied, which is hardly the records' fault.
        """
        if not work.items:
            raise error
        if len(work.items) > 1:
            middle = len(work.items) // 2
            for items in (work.items[:middle], work.items[middle:]):
                touched = {item.record.partition for item in items}
                await self._apply(Work(items, [o for o in work.owned if o.partition in touched], work.redriven))
                if self.halted and self._stopping:
                    break  # what comes after must not be applied without what comes before
            return True
        if not isinstance(error, Poison):
            if self._failures_in_a_row >= FAILURES_IN_A_ROW:
                log.error("a record cannot be applied", exc_info=error)
                await self._wait_halted("no record can be applied any more: the worker waits")
                return False
            self._failures_in_a_row += 1
        reason = str(error) if isinstance(error, Poison) else f"the {self.worker.name} worker could not apply it"
        log.error("a record goes to quarantine", extra={"worker": self.worker.name, "error": repr(error)})
        refused = Refused(work.items[0].record, reason, f"{type(error).__name__}: {error}")
        await self._apply(Work([refused], work.owned, work.redriven))
        return True

    # -- between batches ------------------------------------------------------------------------

    def _due(self) -> bool:
        return time.monotonic() - self._kept_at >= TICK_S

    async def _keep_house(self, idle: bool) -> None:
        """Ticks, redrive, publishing marks; when idle also the offsets behind transaction markers."""
        self._kept_at = time.monotonic()
        if not self.owned:
            return
        everything = list(self.owned.values())
        passed = await self._markers_passed(everything) if idle else {}
        unmarked = any(owned.published < owned.relay.position for owned in everything)
        if passed or unmarked:
            await self._apply(Work((), everything, passed=passed))
        if time.monotonic() - self._ticked_at >= TICK_S:
            self._ticked_at = time.monotonic()
            await self._redrive()
            await self._tick()
            if idle:
                await self._compact()

    async def _markers_passed(self, everything: Sequence[Owned]) -> dict[tuple[str, int], int]:
        """Where the consumer stands beyond the last record, past markers that are nobody's record.

        Only where every record that was fetched is applied: one that was given up (a revocation, the end of the
        process) is still to be read by somebody.
        """
        passed: dict[tuple[str, int], int] = {}
        if self.position is None:
            return passed
        reads = [topic.name for topic in self.worker.reads]
        before = {(topic, o.partition): await self.position(topic, o.partition) for o in everything for topic in reads}
        await asyncio.sleep(HOUSEKEEPING_S / 4)
        for owned in everything:
            if owned.queue:
                continue
            for topic in reads:
                where = (topic, owned.partition)
                stands = await self.position(*where)
                applied = owned.offsets.get(topic, 0)
                waits = bool(owned.queue) or owned.fetched.get(topic, 0) > applied
                if stands is not None and stands == before[where] and stands > applied and not waits:
                    passed[where] = stands
        return passed

    async def _tick(self) -> None:
        if self.worker.tick is None:
            return
        while not self._stopping:
            ready = [o for o in self.owned.values() if o.live or o.clock is not None or self.worker.ticks_before_clock]
            if not ready:
                return
            size, began = self._tick_size, time.monotonic()
            attempt = await self._apply(Work((), ready, ticks=size))
            if attempt is None or attempt.moved < size:
                return
            fits = int(size * TICK_TURN_S / max(time.monotonic() - began, 0.001))
            self._tick_size = max(LEAST_IN_TICK, min(MOST_IN_TICK, fits))
            if self._queued:
                return

    async def _redrive(self) -> None:
        """Read again what somebody asked to, through the same reader and handler."""
        try:
            async with self.pool.acquire() as connection:
                rows = await connection.fetch(LIST_REDRIVE, self.worker.name, list(self.owned))
        except Exception as error:
            log.info("redrive waits", extra={"error": repr(error)})
            return
        for row in rows:
            owned = self.owned.get(row["partition"])
            if owned is not None:
                await self._apply(Work([self._read(_record_of(row))], [owned], redriven=[row["id"]]))

    async def _compact(self) -> None:
        """One step of turning closed hours of seen ids into sorted chunks, and of dropping those kept long enough."""
        if self._queued or not self.worker.dedupe:
            return
        before, now = int(time.time()) // 3600 - 2, datetime.now(UTC)
        clocks = {partition: now if owned.live else owned.clock for partition, owned in self.owned.items()}
        ripe = [
            (owned, clocks[partition])
            for partition, owned in self.owned.items()
            if owned.seen.may_compact(before) or owned.seen.may_prune(clocks[partition])
        ]
        if not ripe:
            return
        try:
            async with self.pool.acquire() as connection:
                for owned, clock in ripe:
                    async with connection.transaction():
                        await ownership.lock(connection, self.worker.name, [owned])
                        if clock is not None and owned.seen.may_prune(clock):
                            await owned.seen.prune(connection, clock)
                        await owned.seen.compact(connection, before, COMPACT_BUCKETS)
                    if self._queued:
                        return
        except Exception as error:
            for owned in self.owned.values():
                owned.seen.abort()
            log.info("compaction waits", extra={"error": repr(error)})


def _record_of(row: asyncpg.Record) -> Record:
    return Record(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["record_offset"],
        timestamp=int(row["broker_time"].timestamp() * 1000),
        key=row["key"],
        value=row["value"],
        headers=unpack_headers(row["headers"]),
    )
