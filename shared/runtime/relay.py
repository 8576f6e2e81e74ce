"""The relay: what a partition's transactions put into the outbox reaches Kafka once, in order.

The position (seq of the last published record) is itself a record, written in the same Kafka transaction
to a compacted topic: it cannot expire as the offsets of an idle consumer group do, and one read of that
topic's tail tells a new owner where to go on.

A process publishes for all its partitions in one Kafka transaction at a time, under a transactional id of
its own. The id stands in the lock rows of its partitions before it publishes for them, so that whoever takes
one over can fence it; and it asks PostgreSQL what is still its own whenever it got its id back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

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
# A transaction costs the broker several milliseconds however little is in it: the busier the broker, the longer
# the rest and the more the next one carries.
REST_FACTOR = 1
SHORTEST_REST_S = 0.01
LONGEST_REST_S = 0.25
STOP_S = 10.0
FIRST_DELAY_S = 0.1
"""Before it starts over; twice as long each time."""

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
    """One partition's outbox on its way to Kafka: how far it is, and what comes next."""

    def __init__(self, partition: int, epoch: int, position: int, head: int, read_rows: ReadRows) -> None:
        self.partition, self.epoch, self.position, self.head = partition, epoch, position, head
        self.last_progress = time.monotonic()
        self.is_checked = False
        """Whether the partition was seen to be ours since the producer has its epoch."""
        self.wake: Callable[[], None] = lambda: None
        self._read_rows = read_rows
        self._hand: deque[tuple[int, int, list[Outgoing]]] = deque()  # (first seq, bytes, records)
        self._hand_bytes = 0

    def offer(self, first_seq: int, records: list[Outgoing]) -> None:
        """Hand over what was just committed; the table stays the truth if memory is short."""
        if not self.behind:
            self.last_progress = time.monotonic()
        self.head = first_seq + len(records) - 1
        size = sum(len(record.value) + 256 for record in records)
        if self._hand_bytes + size <= MOST_BYTES_IN_HAND:
            self._hand.append((first_seq, size, records))
            self._hand_bytes += size
        self.wake()

    @property
    def behind(self) -> int:
        return self.head - self.position

    @property
    def stuck_for(self) -> float:
        """Seconds since the last sign of life: a publication, or an attempt that Kafka itself refused."""
        return time.monotonic() - self.last_progress

    def starts_over(self, position: int | None) -> None:
        """Trust nothing that was known; go on where Kafka says that we are."""
        self.is_checked = False
        self._hand.clear()
        self._hand_bytes = 0
        if position is not None:
            self.position = position

    def published(self, position: int) -> None:
        self.position = position
        self.last_progress = time.monotonic()

    async def next_rows(self, most: int) -> Rows:
        """The rows that follow the position, from hand if they are there."""
        rows: Rows = []
        count, after = 0, self.position
        while self._hand and count < most:
            first, size, records = self._hand[0]
            if first > after + 1:
                break
            self._hand.popleft()
            self._hand_bytes -= size
            if first == after + 1:
                rows.append((first, records))
                count += len(records)
                after += len(records)
        rows = rows or await self._read_rows(self.position, most)
        if not rows:
            raise RuntimeError(f"outbox rows after {self.position} are gone, head is {self.head}")
        if rows[0][0] != self.position + 1:
            raise RuntimeError(f"outbox goes on at {rows[0][0]}, not at {self.position + 1}")
        return rows


class Publisher:
    """Publishes the outboxes of this process's partitions, one Kafka transaction at a time."""

    def __init__(
        self,
        service: str,
        bootstrap_servers: str,
        still_ours: Callable[[Sequence[Relay]], Awaitable[set[int]]],
    ) -> None:
        self.service = service
        self.installation = ""
        """Whose results these are; known once PostgreSQL has said so."""
        self.transactional_id = f"{topics.PREFIX}.relay.{service}.{uuid4().hex}"
        self._bootstrap_servers = bootstrap_servers
        self._still_ours = still_ours
        self._relays: dict[int, Relay] = {}
        self._producer: AIOKafkaProducer | None = None
        self._transaction = asyncio.Lock()
        self._opened_at: float | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def open_for(self) -> float:
        """Seconds since the transaction in hand began; 0 without one."""
        return 0.0 if self._opened_at is None else time.monotonic() - self._opened_at

    async def positions(self, partitions: Sequence[int]) -> dict[int, Position]:
        """How far these are on Kafka, read while nothing of ours is open; their former owners are fenced before."""
        async with self._transaction:
            if self._producer is None:
                await self._start_over()
            return await read_positions(self._bootstrap_servers, self.service, partitions)

    def add(self, relay: Relay) -> None:
        """Publish for a partition from now on; our transactional id stands in its lock row."""
        self._relays[relay.partition] = relay
        relay.wake = self._wake.set
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"relay {self.service}")
        self._wake.set()

    async def remove(self, relays: Collection[Relay]) -> None:
        """Publish no more for these; what is in hand for them is finished, but not waited for for ever."""
        gone = [relay for relay in relays if self._relays.get(relay.partition) is relay]
        for relay in gone:
            del self._relays[relay.partition]
        if gone:
            try:
                async with asyncio.timeout(STOP_S), self._transaction:
                    pass
            except TimeoutError:
                log.warning("a transaction is still open while its partitions go", extra={"service": self.service})

    async def stop(self) -> None:
        """Finish the transaction in hand, then let go."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=STOP_S)
            self._task.cancel()
        await self._close_producer()

    async def _run(self) -> None:
        delay = FIRST_DELAY_S
        while not self._stopping:
            await self._wake.wait()
            self._wake.clear()
            try:
                while not self._stopping and any(relay.behind for relay in self._relays.values()):
                    began = time.monotonic()
                    async with self._transaction:
                        self._opened_at = began
                        try:
                            if self._producer is None:
                                await self._start_over()
                            await self._check()
                            await self._publish()
                        finally:
                            self._opened_at = None
                    delay = FIRST_DELAY_S
                    took = time.monotonic() - began
                    await asyncio.sleep(min(max(SHORTEST_REST_S, REST_FACTOR * took), LONGEST_REST_S))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if self._stopping:
                    return
                log.warning("relay starts over", extra={"service": self.service, "error": repr(error)})
                metrics.RELAY_RESTARTS.labels(self.service).inc()
                await self._close_producer()
                for relay in self._relays.values():
                    relay.last_progress = time.monotonic()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
                self._wake.set()

    async def _start_over(self) -> None:
        """A producer that failed is dead in aiokafka: a new one ends what it had open."""
        producer, relays = _producer(self._bootstrap_servers, self.transactional_id), list(self._relays.values())
        try:
            await producer.start()
            found: dict[int, Position] = {}
            if relays:
                places = sorted(relay.partition for relay in relays)
                found = await read_positions(self._bootstrap_servers, self.service, places)
        except BaseException:
            await _stop(producer)
            raise
        self._producer = producer
        for relay in relays:
            relay.starts_over(found[relay.partition].seq if relay.partition in found else None)

    async def _check(self) -> None:
        """Leave what is not ours any more: who takes a partition over after this look fences the producer we have."""
        unchecked = [relay for relay in self._relays.values() if not relay.is_checked]
        if not unchecked:
            return
        ours = await self._still_ours(unchecked)
        for relay in unchecked:
            relay.is_checked = relay.partition in ours
            if not relay.is_checked and self._relays.get(relay.partition) is relay:
                del self._relays[relay.partition]

    async def _publish(self) -> None:
        """What waits, in one transaction; those that have waited longest come first."""
        ready = (relay for relay in self._relays.values() if relay.behind and relay.is_checked)
        waiting = sorted(ready, key=lambda relay: relay.last_progress)
        batches: dict[tuple[str, int], list[Any]] = {}
        ends: list[tuple[Relay, int]] = []
        producer, now_ms, count = self._producer, int(time.time() * 1000), 0
        assert producer is not None, "a producer was started"
        for relay in waiting:
            if count >= MOST_RECORDS:
                break
            rows = await relay.next_rows(MOST_RECORDS - count)
            for _, records in rows:
                for record in records:
                    _append(producer, batches, record, now_ms)
                count += len(records)
            last = rows[-1][0] + len(rows[-1][1]) - 1
            _append(producer, batches, self._position_record(relay.partition, last), now_ms)
            ends.append((relay, last))
        if not ends:
            return
        reach("before_publish")
        await producer.begin_transaction()
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
        metrics.RELAYED.labels(self.service).inc(count)
        for relay, last in ends:
            relay.published(last)

    def _position_record(self, partition: int, position: int) -> Outgoing:
        topic, key = topics.POSITIONS[self.service].name, f"{self.service}/{partition}".encode()
        headers = [(INSTALLATION, self.installation.encode())]
        return Outgoing(topic, partition, key, str(position).encode(), headers)

    async def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)


async def fence(bootstrap_servers: str, transactional_ids: Collection[str]) -> None:
    """End what these have open, and refuse what they still send."""

    async def end(transactional_id: str) -> None:
        producer = _producer(bootstrap_servers, transactional_id)
        try:
            await producer.start()
        finally:
            await _stop(producer)

    await asyncio.gather(*(end(transactional_id) for transactional_id in transactional_ids))


def _producer(bootstrap_servers: str, transactional_id: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        **producer_options(bootstrap_servers),
        transactional_id=transactional_id,
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
    )


async def _stop(producer: AIOKafkaProducer) -> None:
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
