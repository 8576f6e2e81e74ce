"""The durable producer: `publish` returns once every record is on all in-sync replicas or in the spool.

Records of concurrent callers are collected per partition and sent as one batch, one in flight per partition: the
order of a key holds, and a call with 100 events costs a handful of futures.

With a spool, records that Kafka does not acknowledge in time are *diverted*: all that is unacknowledged, in order, and
from then on everything new behind it, until the spool has been sent to Kafka and is empty. So the order of a key holds
over an outage, too; what had reached Kafka after all is there twice, with the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from services.gateway import metrics
from services.gateway.canonical import Record
from services.gateway.spool import NotDurable, Segment, Spool
from shared import topics
from shared.ids import partition_of
from shared.kafka import producer_options

log = logging.getLogger(__name__)

CHUNK_BYTES = 480 * 1024
STALLED_SECONDS = 60.0
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
WAVE = 2_000
RECORD_OVERHEAD = 300
SHORTLY_SECONDS = 0.01
TOPICS = (topics.RAW_EVENTS.name, topics.RAW_REQUESTS.name)


class Durable(Protocol):
    """What the door needs of whatever keeps records."""

    @property
    def ready(self) -> bool: ...

    @property
    def spooling(self) -> bool: ...

    @property
    def queued_bytes(self) -> int: ...

    async def publish(self, records: Sequence[Record]) -> None: ...


@lru_cache(maxsize=100_000)
def _partition(key: bytes, partitions: int) -> int:
    return partition_of(key, partitions)


class _Chunk:
    """Records of one partition that travel together; `handed` once the producer has them, `spooled` once the spool."""

    __slots__ = ("done", "handed", "parts", "size", "spooled")

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.parts: list[list[Record]] = []
        self.size = 0
        self.handed = self.spooled = False
        self.done = done

    def succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()


class _Lane:
    """One partition's queue of chunks and the task that sends them one after the other."""

    __slots__ = ("chunks", "partition", "task", "topic")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.chunks: deque[_Chunk] = deque()
        self.task: asyncio.Task[None] | None = None

    def add(self, part: list[Record]) -> _Chunk:
        size = sum([len(record.value) for record in part]) + RECORD_OVERHEAD * len(part)
        last = self.chunks[-1] if self.chunks else None
        if last is None or last.handed or last.size + size > CHUNK_BYTES:
            last = _Chunk(asyncio.get_running_loop().create_future())
            self.chunks.append(last)
        last.parts.append(part)
        last.size += size
        return last

    def withdraw(self) -> list[_Chunk]:
        """All that is not acknowledged, in order; only what the producer has stays."""
        chunks = list(self.chunks)
        self.chunks = deque(chunk for chunk in chunks if chunk.handed)
        return chunks


class Ingest:
    """Kafka behind `Durable`; with a spool beside it if there is one.

    `ack_seconds` is how long Kafka may take: after that the records are refused, or go to the spool.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        ack_seconds: float,
        queue_bytes: int,
        spool: Spool | None = None,
        make_producer: Callable[[], Any] | None = None,
    ) -> None:
        self._make = make_producer or (lambda: AIOKafkaProducer(**producer_options(bootstrap_servers)))
        self._ack_seconds, self._queue_bytes = ack_seconds, queue_bytes
        self._spool, self._spooling = spool, False
        self._producer: Any | None = None
        self._partitions: dict[str, int] = {}
        self._connected = asyncio.Event()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._queued = 0
        self._stopping = False

    @property
    def ready(self) -> bool:
        return self._connected.is_set() or (self._spool is not None and not self._spool.is_full)

    @property
    def spooling(self) -> bool:
        """Whether what comes in now goes to the spool."""
        return self._spool is not None and (self._spooling or not self._connected.is_set())

    @property
    def queued_bytes(self) -> int:
        return self._queued

    async def start(self) -> None:
        """Begin to connect; does not wait, so that the door can answer while Kafka is away.

        Raises Misconfigured when the spool cannot be used.
        """
        if self._spool is not None:
            self._spool.open()
            if not self._spool.is_empty:
                self._spooling = True
                self._spawn(self._replay(self._spool))
        self._spawn(self._connect())

    async def stop(self) -> None:
        """Finish what is queued, in the spool what Kafka does not take within the time of an acknowledgement."""
        self._stopping = True
        busy = {lane.task for lane in self._lanes.values() if lane.task is not None}
        if busy and not self._spooling:
            _, late = await asyncio.wait(busy, timeout=self._ack_seconds)
            if late and self._spool is not None:
                self._divert("the gateway stops")
        if self._spool is not None:
            await self._spool.flushed()
        for task in (*busy, *self._tasks):
            task.cancel()
        await asyncio.gather(*busy, *self._tasks, return_exceptions=True)
        if self._spool is not None:
            await self._spool.close()
        if self._producer is not None:
            await _close(self._producer)

    async def publish(self, records: Sequence[Record]) -> None:
        """Return when all records are acknowledged by all in-sync replicas, or in the spool.

        Raises NotDurable; the records' ids make it safe for the caller to send the same again.
        """
        if not records:
            return
        if self._queued >= self._queue_bytes:
            raise NotDurable("the queue to Kafka is full", certain=True)
        size = sum([len(record.value) for record in records]) + RECORD_OVERHEAD * len(records)
        self._queued += size
        try:
            await self._publish(records, time.monotonic() + self._ack_seconds)
        finally:
            self._queued -= size

    async def _publish(self, records: Sequence[Record], deadline: float) -> None:
        if not self._spooling:
            try:
                await self._wait_connected(deadline)
            except NotDurable as away:
                if self._spool is None:
                    raise
                self._divert(str(away))
        if self._spooling and self._spool is not None:
            await asyncio.shield(self._spool.append(records))
            return
        entries = [(lane, part, lane.add(part)) for lane, part in self._split(records)]
        for lane, _, _ in entries:
            self._wake(lane)
        await self._settle(entries, deadline)

    async def _wait_connected(self, deadline: float) -> None:
        if self._connected.is_set():
            return
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._connected.wait()
        except TimeoutError:
            raise NotDurable("Kafka cannot be reached", certain=True) from None

    def _split(self, records: Sequence[Record]) -> list[tuple[_Lane, list[Record]]]:
        parts: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
        counts = self._partitions
        for record in records:
            topic = record.topic
            parts[topic, _partition(record.key, counts[topic])].append(record)
        split = []
        for place, part in parts.items():
            lane = self._lanes.get(place)
            if lane is None:
                lane = self._lanes[place] = _Lane(*place)
            split.append((lane, part))
        return split

    async def _settle(self, entries: list[tuple[_Lane, list[Record], _Chunk]], deadline: float) -> None:
        futures = {chunk.done for _, _, chunk in entries}
        done, late = await asyncio.wait(futures, timeout=max(0.0, deadline - time.monotonic()))
        if late and self._spool is not None:
            self._divert("no acknowledgement from Kafka in time")
            done, late = await asyncio.wait(futures)
        errors = [error for future in done if (error := future.exception()) is not None]
        if not late and not errors:
            return
        handed = False
        for _, part, chunk in entries:
            if chunk.done in late and not chunk.handed:
                chunk.parts.remove(part)
            else:
                handed = handed or chunk.handed
        if not errors:
            reason = "no acknowledgement from Kafka in time"
        else:
            reason = str(errors[0]) if isinstance(errors[0], NotDurable) else f"{type(errors[0]).__name__} from Kafka"
        raise NotDurable(reason, certain=not handed)

    def _divert(self, reason: str) -> None:
        """From here on everything goes to the spool, first what waits for Kafka, in its order."""
        if self._spooling or self._spool is None:
            return
        self._spooling = True
        log.warning("Kafka does not take records; the spool does", extra={"reason": reason})
        for lane in self._lanes.values():
            for chunk in lane.withdraw():
                _spool(self._spool, chunk)
        self._spawn(self._replay(self._spool))

    async def _replay(self, spool: Spool) -> None:
        """Send what is in the spool, then open the direct way again."""
        while True:
            await self._connected.wait()
            if spool.is_empty:
                self._spooling = False  # nothing awaited since the look: nobody can have come in between
                log.info("the spool is on Kafka and empty")
                return
            segment = await spool.oldest()
            if segment is None:
                await asyncio.sleep(SHORTLY_SECONDS)
                continue
            await self._replay_segment(spool, segment)

    async def _replay_segment(self, spool: Spool, segment: Segment) -> None:
        records = await spool.read(segment)
        for start in range(0, len(records), WAVE):
            wave, attempt = records[start : start + WAVE], 0
            while not await self._deliver(wave):
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
            metrics.REPLAYED.inc(len(wave))
        spool.drop(segment)

    async def _deliver(self, records: Sequence[Record]) -> bool:
        """Send records of the spool; False if any of them must be sent again, after which all are."""
        await self._connected.wait()
        entries = [(lane, lane.add(part)) for lane, part in self._split(records)]
        for lane, _ in entries:
            self._wake(lane)
        done, _ = await asyncio.wait({chunk.done for _, chunk in entries})
        return all(future.exception() is None for future in done)

    def _wake(self, lane: _Lane) -> None:
        if lane.task is None:
            lane.task = asyncio.create_task(self._drain(lane))

    async def _drain(self, lane: _Lane) -> None:
        try:
            while lane.chunks:
                producer = self._producer
                if producer is None:
                    await self._connected.wait()
                    continue
                chunk = lane.chunks[0]
                if chunk.parts:
                    await self._send(producer, lane, chunk)
                if lane.chunks and lane.chunks[0] is chunk:
                    lane.chunks.popleft()
        finally:
            lane.task = None

    async def _send(self, producer: Any, lane: _Lane, chunk: _Chunk) -> None:
        chunk.handed = True
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                for builder in _batches(producer, chunk):
                    await (await producer.send_batch(builder, lane.topic, partition=lane.partition))
        except Exception as error:
            # aiokafka fails in many ways, some of them bare assertions. Whichever: a batch that failed may leave a
            # gap in the sequence, after which an idempotent producer sends nothing more.
            log.warning("producer failed; making a new one", extra={"error": type(error).__name__})
            self._discard(producer)
            self._failed(lane, chunk, error)
        else:
            chunk.succeed()

    def _failed(self, lane: _Lane, chunk: _Chunk, error: Exception) -> None:
        if chunk.spooled:
            return
        if self._spool is None:
            chunk.fail(error)
        elif not self._spooling:
            self._divert(f"{type(error).__name__} from Kafka")
        else:
            for replayed in lane.withdraw():  # none may overtake the one that failed
                replayed.fail(error)

    def _discard(self, producer: Any) -> None:
        if self._producer is not producer:
            return
        self._producer = None
        self._connected.clear()
        self._spawn(_close(producer))
        if not self._stopping:
            self._spawn(self._connect())

    async def _connect(self) -> None:
        attempt = 0
        while True:
            producer = self._make()
            try:
                await producer.start()
                for topic in TOPICS:
                    self._partitions[topic] = len(await producer.partitions_for(topic))
            except (KafkaError, OSError, TimeoutError) as error:
                if attempt == 0:
                    log.warning("Kafka cannot be reached; trying on", extra={"error": type(error).__name__})
                await _close(producer)
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
            except BaseException:
                await _close(producer)
                raise
            else:
                self._producer = producer
                self._connected.set()
                return

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _batches(producer: Any, chunk: _Chunk) -> list[Any]:
    """The chunk as batches that the producer takes; in practice one."""
    builders = [producer.create_batch()]
    now = int(time.time() * 1000)
    append = builders[-1].append
    for part in chunk.parts:
        for record in part:
            if append(timestamp=now, key=record.key, value=record.value, headers=record.headers) is None:
                builders.append(producer.create_batch())
                append = builders[-1].append  # the first record of a batch is taken whatever its size
                append(timestamp=now, key=record.key, value=record.value, headers=record.headers)
    return builders


def _spool(spool: Spool, chunk: _Chunk) -> None:
    """Give a chunk to the spool; whoever waits for it is answered by the fsync, or by Kafka if that is earlier."""

    def answer(kept: asyncio.Future[None]) -> None:
        error = kept.exception()
        if error is None:
            chunk.succeed()
        else:
            chunk.fail(error)

    chunk.spooled = True
    try:
        spool.append([record for part in chunk.parts for record in part]).add_done_callback(answer)
    except NotDurable as full:
        chunk.fail(full)


async def _close(producer: Any) -> None:
    """Stop the producer; one that hangs on an unreachable broker is cut off."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(2):
            await producer.stop()
        return
    # aiokafka's stop() waits for its sender, which never ends while the broker is away.
    sender = getattr(getattr(producer, "_sender", None), "sender_task", None)
    if sender is not None:
        sender.cancel()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(2):
            await producer.client.close()
