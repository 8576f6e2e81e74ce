"""The relay: what a partition's transactions put into the outbox reaches Kafka once, in order.

The position (seq of the last published record) is itself a record, written in the same Kafka transaction
to a compacted topic: it cannot expire as the offsets of an idle consumer group do, and one read of that
topic's tail tells a new owner where to go on. A fixed transactional id per (service, partition) fences
the former owner.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from shared import topics
from shared.kafka import consumer_options, producer_options
from shared.observability import metrics
from shared.runtime.failpoints import reach
from shared.runtime.wire import Outgoing

log = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS = 30_000
MOST_RECORDS = 20_000
MOST_BYTES_IN_HAND = 8 * 1024 * 1024
TAIL = 64
# A transaction costs the broker several milliseconds however little is in it, and every partition has its own: the
# busier the broker, the longer they rest and the more each carries.
REST_FACTOR = 3
LONGEST_REST_S = 0.25

INSTALLATION = "hune-installation"
"""Header of a position: the installation whose results these are."""


class Position(NamedTuple):
    """How far a partition's outbox is on Kafka, and whose it is (None: told by a version that did not say)."""

    seq: int
    installation: str | None


Rows = list[tuple[int, list[Outgoing]]]
"""Outbox rows in order: (seq of the first record, the records)."""
ReadRows = Callable[[int, int], Awaitable[Rows]]
"""(after which seq, at most how many records) → rows; from the table."""


class Relay:
    """Publishes one partition's outbox; owned by whoever owns the partition."""

    def __init__(
        self,
        service: str,
        partition: int,
        installation: str,
        bootstrap_servers: str,
        read_rows: ReadRows,
        interval: float,
    ) -> None:
        self.service, self.partition, self.installation = service, partition, installation
        self.position = 0
        self.head = 0
        self.last_progress = time.monotonic()
        self._bootstrap_servers = bootstrap_servers
        self._read_rows = read_rows
        self._interval = interval
        self._producer: AIOKafkaProducer | None = None
        self._hand: deque[tuple[int, int, list[Outgoing]]] = deque()  # (first seq, bytes, records)
        self._hand_bytes = 0
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def key(self) -> bytes:
        return f"{self.service}/{self.partition}".encode()

    async def fence(self) -> None:
        """Start the producer: an open transaction of a former owner is aborted, its next one refused."""
        await self._close_producer()
        producer = AIOKafkaProducer(
            **producer_options(self._bootstrap_servers),
            transactional_id=f"{topics.PREFIX}.relay.{self.service}.{self.partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )
        await producer.start()
        self._producer = producer

    def begin(self, position: int, head: int) -> None:
        """Go on after `position`; `head` is the newest seq in the outbox."""
        self.position, self.head = position, head
        self._task = asyncio.create_task(self._run(), name=f"relay {self.service}/{self.partition}")
        self._wake.set()

    def offer(self, first_seq: int, records: list[Outgoing]) -> None:
        """Hand over what was just committed; the table stays the truth if memory is short."""
        if not self.behind:
            self.last_progress = time.monotonic()
        self.head = first_seq + len(records) - 1
        size = sum(len(record.value) + 256 for record in records)
        if self._hand_bytes + size <= MOST_BYTES_IN_HAND:
            self._hand.append((first_seq, size, records))
            self._hand_bytes += size
        self._wake.set()

    @property
    def behind(self) -> int:
        return self.head - self.position

    @property
    def stuck_for(self) -> float:
        """Seconds since the last sign of life: a publication, or an attempt that Kafka itself refused."""
        return time.monotonic() - self.last_progress

    async def stop(self) -> None:
        """Finish the transaction in hand, then let go."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=10)
            self._task.cancel()
        await self._close_producer()

    async def _run(self) -> None:
        delay = 0.1
        while not self._stopping:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self.behind and not self._stopping:
                    began = time.monotonic()
                    await self._publish(await self._next_rows())
                    delay = 0.1
                    took = time.monotonic() - began
                    await asyncio.sleep(min(max(self._interval, REST_FACTOR * took), LONGEST_REST_S))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if self._stopping:
                    return
                log.warning(
                    "relay starts over",
                    extra={"service": self.service, "partition": self.partition, "error": repr(error)},
                )
                self.last_progress = time.monotonic()
                metrics.RELAY_RESTARTS.labels(self.service).inc()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
                await self._start_over()
                self._wake.set()

    async def _start_over(self) -> None:
        """A producer that failed is dead in aiokafka: fence it with a new one and read how far it came."""
        self._hand.clear()
        self._hand_bytes = 0
        try:
            await self.fence()
            found = await read_positions(self._bootstrap_servers, self.service, [self.partition])
            if self.partition in found:
                self.position = found[self.partition].seq
        except Exception as error:
            log.warning("relay could not start over", extra={"partition": self.partition, "error": repr(error)})
            await self._close_producer()

    async def _next_rows(self) -> Rows:
        rows: Rows = []
        count, after = 0, self.position
        while self._hand and count < MOST_RECORDS:
            first, size, records = self._hand[0]
            if first > after + 1:
                break
            self._hand.popleft()
            self._hand_bytes -= size
            if first == after + 1:
                rows.append((first, records))
                count += len(records)
                after += len(records)
        return rows or await self._read_rows(self.position, MOST_RECORDS)

    async def _publish(self, rows: Rows) -> None:
        if not rows:
            raise RuntimeError(f"outbox rows after {self.position} are gone, head is {self.head}")
        if rows[0][0] != self.position + 1:
            raise RuntimeError(f"outbox goes on at {rows[0][0]}, not at {self.position + 1}")
        producer = self._producer
        if producer is None:
            raise RuntimeError("no producer")
        last = rows[-1][0] + len(rows[-1][1]) - 1
        reach("before_publish")
        await producer.begin_transaction()
        batches: dict[tuple[str, int], list[Any]] = {}
        now_ms = int(time.time() * 1000)
        for _, records in rows:
            for record in records:
                _append(producer, batches, record, now_ms)
        _append(producer, batches, self._position_record(last), now_ms)
        sent = []
        for (topic, partition), builders in batches.items():
            for builder in builders:
                builder.close()
                sent.append(await producer.send_batch(builder, topic, partition=partition))
        await asyncio.gather(*sent)
        reach("before_kafka_commit")
        reach("between_stores")
        await producer.commit_transaction()
        reach("after_kafka_commit")
        metrics.RELAYED.labels(self.service).inc(last - self.position)
        self.position = last
        self.last_progress = time.monotonic()

    def _position_record(self, position: int) -> Outgoing:
        topic = topics.POSITIONS[self.service].name
        headers = [(INSTALLATION, self.installation.encode())]
        return Outgoing(topic, self.partition, self.key, str(position).encode(), headers)

    async def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            await asyncio.wait_for(producer.stop(), 5)
        except Exception as error:
            log.info("producer did not stop cleanly", extra={"error": repr(error)})


def _append(
    producer: AIOKafkaProducer, batches: dict[tuple[str, int], list[Any]], record: Outgoing, now_ms: int
) -> None:
    for topic in (record.topic, *record.also) if record.also else (record.topic,):
        builders = batches.get((topic, record.partition))
        if builders is None:
            builders = batches[topic, record.partition] = [producer.create_batch()]
        add = builders[-1].append
        if add(timestamp=now_ms, key=record.key, value=record.value, headers=record.headers) is None:
            builders.append(producer.create_batch())
            builders[-1].append(timestamp=now_ms, key=record.key, value=record.value, headers=record.headers)


async def read_positions(bootstrap_servers: str, service: str, partitions: Sequence[int]) -> dict[int, Position]:
    """Partition → the last published record, from the tail of the positions topic.

    Call it after fencing: then nothing of ours is open, and what is committed is all there will be.
    """
    consumer = AIOKafkaConsumer(**consumer_options(bootstrap_servers))
    await consumer.start()
    try:
        where = [TopicPartition(topics.POSITIONS[service].name, partition) for partition in partitions]
        consumer.assign(where)
        starts, ends = await consumer.beginning_offsets(where), await consumer.end_offsets(where)
        found: dict[int, Position] = {}
        tail = TAIL
        while True:
            missing = [tp for tp in where if tp.partition not in found and starts[tp] < ends[tp]]
            if not missing:
                return found
            for tp in missing:
                consumer.seek(tp, max(starts[tp], ends[tp] - tail))
            await _read_to(consumer, missing, ends, found)
            if all(ends[tp] - tail <= starts[tp] for tp in missing):
                return found
            tail *= 8
    finally:
        await consumer.stop()


async def _read_to(
    consumer: AIOKafkaConsumer,
    where: Sequence[TopicPartition],
    ends: dict[TopicPartition, int],
    found: dict[int, Position],
) -> None:
    while any([await consumer.position(tp) < ends[tp] for tp in where]):
        for tp, records in (await consumer.getmany(*where, timeout_ms=200)).items():
            for record in records:
                whose = dict(record.headers).get(INSTALLATION)
                found[tp.partition] = Position(int(record.value), whose.decode() if whose else None)
