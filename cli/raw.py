"""Writing to the raw topics: batches per partition, all acknowledged, and the clock at the end of a run."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from shared import ids, topics
from shared.access import refuse_wrong_access
from shared.errors import Misconfigured, Transient
from shared.events.inputs import ClockSet
from shared.kafka import MAX_RECORD_BYTES, producer_options
from shared.runtime.wire import Headers, event_headers
from shared.topics import Topic

SOURCE = "hune"
LONGEST_VALUE = MAX_RECORD_BYTES - 64 * 1024  # leaves room for the key, the headers and the batch around them


@dataclass(frozen=True, slots=True)
class Run:
    """Records of history that belong together; their end moves the clock."""

    id: str

    @property
    def headers(self) -> Headers:
        return [("ce_mode", b"replay"), ("ce_run", self.id.encode())]


class RawWriter:
    """Collects records per partition; `flush` sends them and waits until Kafka has them all."""

    def __init__(self, producer: Any, partitions: int) -> None:
        self._producer = producer
        self._partitions = partitions
        self._full: dict[tuple[str, int], list[Any]] = defaultdict(list)
        self._open: dict[tuple[str, int], Any] = {}
        self._partition_of = lru_cache(maxsize=262_144)(self._hash)

    def _hash(self, key: bytes) -> int:
        return ids.partition_of(key, self._partitions)

    def add(self, topic: Topic, key: bytes | None, value: bytes, headers: Headers) -> None:
        """Put a record where its key belongs; one without a key where its value's hash says."""
        place = self._partition_of(key) if key is not None else self._hash(value)
        self.add_to(topic, place, key, value, headers)

    def add_to(self, topic: Topic, partition: int, key: bytes | None, value: bytes, headers: Headers) -> None:
        place = topic.name, partition
        batch = self._open.get(place)
        if batch is None:
            batch = self._open[place] = self._producer.create_batch()
        if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
            self._full[place].append(batch)
            batch = self._open[place] = self._producer.create_batch()
            batch.append(key=key, value=value, timestamp=None, headers=headers)

    async def flush(self) -> None:
        """Send what was added.

        Raises Transient when Kafka did not take all of it.
        """
        for place, batch in self._open.items():
            self._full[place].append(batch)
        waiting, self._full, self._open = self._full, defaultdict(list), {}
        try:
            await asyncio.gather(*(self._send(topic, p, batches) for (topic, p), batches in waiting.items()))
        except KafkaError as error:
            raise Transient(
                f"Kafka did not take the records: {error!r}; the same command goes on from there"
            ) from error

    async def _send(self, topic: str, partition: int, batches: list[Any]) -> None:
        for batch in batches:
            await (await self._producer.send_batch(batch, topic, partition=partition))

    async def end_run(self, run: Run, at: datetime) -> None:
        """Tell every partition that the run is over and how far it brought time."""
        clock = ClockSet(run=run.id, at=at)
        value = clock.model_dump_json(exclude_unset=True).encode()
        for partition in range(self._partitions):
            # An id per partition: a service counts the marks it has from each of them.
            identity = ids.derived_id("clock", run.id, partition)
            headers = event_headers(clock, id=identity, source=SOURCE, subject=run.id, time=at, extra=run.headers)
            self.add_to(topics.RAW_EVENTS, partition, None, value, headers)
        await self.flush()


@asynccontextmanager
async def open_writer(bootstrap_servers: str, partitions: int) -> AsyncIterator[RawWriter]:
    """Connect to Kafka and see that the raw topics are there.

    Raises Misconfigured when they are missing or have another number of partitions.
    """
    producer = AIOKafkaProducer(**producer_options(bootstrap_servers))
    try:
        await producer.start()
    except KafkaError as error:
        await producer.stop()
        await refuse_wrong_access(bootstrap_servers)
        raise Transient(f"Kafka does not answer at {bootstrap_servers}: {error}") from error
    try:
        cluster = await producer.client.fetch_all_metadata()
        for topic in (topics.RAW_EVENTS, topics.RAW_REQUESTS):
            _check(topic, cluster.partitions_for_topic(topic.name), partitions)
        yield RawWriter(producer, partitions)
    finally:
        await producer.stop()


def _check(topic: Topic, found: set[int] | None, partitions: int) -> None:
    if not found:
        raise Misconfigured(f"Kafka has no topic {topic.name}; `hune topics apply` makes it")
    if len(found) != partitions:
        raise Misconfigured(
            f"topic {topic.name} has {len(found)} partitions, this installation {partitions}: "
            "this Kafka belongs to another installation"
        )
