"""The durable producer: `publish` returns once every record is on all in-sync replicas, or says that it is not.

Records of concurrent callers are collected per partition and sent as one batch, one in flight per partition: the
order of a key holds, and a call with 100 events costs a handful of futures. A store in front of Kafka (a spool)
would be another `Durable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from services.gateway.canonical import Record
from shared import topics
from shared.ids import partition_of
from shared.kafka import producer_options

log = logging.getLogger(__name__)

CHUNK_BYTES = 480 * 1024
STALLED_SECONDS = 60.0
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
TOPICS = (topics.RAW_EVENTS.name, topics.RAW_REQUESTS.name)


class NotDurable(Exception):
    """The records are not known to be kept. `certain`: none of them is or will be written."""

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.certain = certain


class Durable(Protocol):
    """What the door needs of whatever keeps records."""

    @property
    def ready(self) -> bool: ...

    @property
    def queued_bytes(self) -> int: ...

    async def publish(self, records: Sequence[Record]) -> None: ...


@lru_cache(maxsize=100_000)
def _partition(key: bytes, partitions: int) -> int:
    return partition_of(key, partitions)


class _Chunk:
    """Records of one partition that travel together; `handed` once the producer has them."""

    __slots__ = ("done", "handed", "parts", "size")

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.parts: list[list[Record]] = []
        self.size = 0
        self.handed = False
        self.done = done


class _Lane:
    """One partition's queue of chunks and the task that sends them one after the other."""

    __slots__ = ("chunks", "partition", "task", "topic")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.chunks: deque[_Chunk] = deque()
        self.task: asyncio.Task[None] | None = None

    def add(self, part: list[Record]) -> _Chunk:
        size = sum(record.size for record in part)
        last = self.chunks[-1] if self.chunks else None
        if last is None or last.handed or last.size + size > CHUNK_BYTES:
            last = _Chunk(asyncio.get_running_loop().create_future())
            self.chunks.append(last)
        last.parts.append(part)
        last.size += size
        return last


class Ingest:
    """Kafka behind `Durable`."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        ack_seconds: float,
        queue_bytes: int,
        make_producer: Callable[[], Any] | None = None,
    ) -> None:
        self._make = make_producer or (lambda: AIOKafkaProducer(**producer_options(bootstrap_servers)))
        self._ack_seconds, self._queue_bytes = ack_seconds, queue_bytes
        self._producer: Any | None = None
        self._partitions: dict[str, int] = {}
        self._connected = asyncio.Event()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._queued = 0
        self._stopping = False

    @property
    def ready(self) -> bool:
        return self._connected.is_set()

    @property
    def queued_bytes(self) -> int:
        return self._queued

    async def start(self) -> None:
        """Begin to connect; does not wait, so that the door can say 503 while Kafka is away."""
        self._spawn(self._connect())

    async def stop(self) -> None:
        """Finish what is queued as far as Kafka lets us within the time of an acknowledgement, then close."""
        self._stopping = True
        busy = {lane.task for lane in self._lanes.values() if lane.task is not None}
        if busy:
            await asyncio.wait(busy, timeout=self._ack_seconds)
        for task in (*busy, *self._tasks):
            task.cancel()
        await asyncio.gather(*busy, *self._tasks, return_exceptions=True)
        if self._producer is not None:
            await _close(self._producer)

    async def publish(self, records: Sequence[Record]) -> None:
        """Return when all records are acknowledged by all in-sync replicas.

        Raises NotDurable; the records' ids make it safe for the caller to send the same again.
        """
        if not records:
            return
        if self._queued >= self._queue_bytes:
            raise NotDurable("the queue to Kafka is full", certain=True)
        deadline = time.monotonic() + self._ack_seconds
        await self._wait_connected(deadline)
        entries = [(lane, part, lane.add(part)) for lane, part in self._split(records)]
        size = sum(record.size for record in records)
        self._queued += size
        try:
            for lane, _, _ in entries:
                self._wake(lane)
            await self._settle(entries, deadline)
        finally:
            self._queued -= size

    async def _wait_connected(self, deadline: float) -> None:
        if self._connected.is_set():
            return
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._connected.wait()
        except TimeoutError:
            raise NotDurable("Kafka cannot be reached", certain=True) from None

    def _split(self, records: Sequence[Record]) -> list[tuple[_Lane, list[Record]]]:
        parts: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            place = record.topic, _partition(record.key, self._partitions[record.topic])
            parts.setdefault(place, []).append(record)
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
        errors = [error for future in done if (error := future.exception()) is not None]
        if not late and not errors:
            return
        handed = False
        for _, part, chunk in entries:
            if chunk.done in late and not chunk.handed:
                chunk.parts.remove(part)
            else:
                handed = True
        reason = f"{type(errors[0]).__name__} from Kafka" if errors else "no acknowledgement from Kafka in time"
        raise NotDurable(reason, certain=not handed)

    def _wake(self, lane: _Lane) -> None:
        if lane.task is None:
            lane.task = asyncio.create_task(self._drain(lane))

    async def _drain(self, lane: _Lane) -> None:
        try:
            while lane.chunks:
                while (producer := self._producer) is None:
                    await self._connected.wait()
                if lane.chunks[0].parts:
                    await self._send(producer, lane, lane.chunks[0])
                lane.chunks.popleft()
        finally:
            lane.task = None

    async def _send(self, producer: Any, lane: _Lane, chunk: _Chunk) -> None:
        chunk.handed = True
        try:
            for builder in _batches(producer, chunk):
                async with asyncio.timeout(STALLED_SECONDS):
                    await (await producer.send_batch(builder, lane.topic, partition=lane.partition))
        except Exception as error:
            # aiokafka fails in many ways, some of them bare assertions. Whichever: a batch that failed may leave a
            # gap in the sequence, after which an idempotent producer sends nothing more.
            log.warning("producer failed; making a new one", extra={"error": type(error).__name__})
            self._discard(producer)
            _fail(chunk, error)
        else:
            if not chunk.done.done():
                chunk.done.set_result(None)

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
    for part in chunk.parts:
        for record in part:
            fields = {"timestamp": now, "key": record.key, "value": record.value, "headers": record.headers}
            if builders[-1].append(**fields) is None:
                builders.append(producer.create_batch())
                builders[-1].append(**fields)  # the first record of a batch is taken whatever its size
    return builders


def _fail(chunk: _Chunk, error: BaseException) -> None:
    if not chunk.done.done():
        chunk.done.set_exception(error)
        chunk.done.exception()


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
