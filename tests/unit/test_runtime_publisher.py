"""Whoever owns a partition when: each record of its outbox is on Kafka once, in order.

Kafka and PostgreSQL are stood in for by the few rules that the protocol rests on: an id that starts again ends what
it had open and refuses its former self, and a lock row has one epoch. Who takes what over, and where everybody is
held up meanwhile, is chance.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.errors import KafkaError, ProducerFenced
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.runtime import relay as relays
from shared.runtime.relay import Position, Publisher, Relay, Rows, fence
from shared.runtime.wire import Outgoing

PARTITIONS = (0, 1, 2)
RESULT = "results"


@dataclass
class Kafka:
    """Transactional ids with their epochs, and what was committed."""

    chance: random.Random
    epochs: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    open: dict[str, list[tuple[str, int, bytes]]] = field(default_factory=dict)
    log: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    positions: dict[int, Position] = field(default_factory=dict)
    fenced: int = 0

    async def pause(self) -> None:
        for _ in range(self.chance.randrange(6)):
            await asyncio.sleep(0)

    def commit(self, transactional_id: str) -> None:
        for topic, partition, value in self.open.pop(transactional_id, []):
            if topic == RESULT:
                self.log[partition].append(int(value))
            else:
                self.positions[partition] = Position(int(value), None)


@dataclass
class Builder:
    values: list[bytes] = field(default_factory=list)

    def append(self, *, timestamp: int, key: bytes, value: bytes, headers: Any) -> object:
        self.values.append(value)
        return self

    def close(self) -> None: ...


class Producer:
    def __init__(self, kafka: Kafka, transactional_id: str) -> None:
        self.kafka, self.id, self.epoch = kafka, transactional_id, 0

    async def start(self) -> None:
        await self.kafka.pause()
        self.kafka.epochs[self.id] += 1
        self.epoch = self.kafka.epochs[self.id]
        self.kafka.open.pop(self.id, None)
        await self.kafka.pause()

    async def stop(self) -> None:
        await self.kafka.pause()

    def create_batch(self) -> Builder:
        return Builder()

    async def begin_transaction(self) -> None:
        self._check()
        self.kafka.open[self.id] = []

    async def send_batch(self, builder: Builder, topic: str, *, partition: int) -> Any:
        await self.kafka.pause()
        self._check()
        self.kafka.open[self.id] += [(topic, partition, value) for value in builder.values]
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def commit_transaction(self) -> None:
        await self.kafka.pause()
        self._check()
        if self.kafka.chance.random() < 0.1:
            raise KafkaError("the question was lost; the transaction is open")
        self.kafka.commit(self.id)
        await self.kafka.pause()
        if self.kafka.chance.random() < 0.1:
            raise KafkaError("the answer was lost; the transaction is committed")

    def _check(self) -> None:
        if self.kafka.epochs[self.id] != self.epoch:
            self.kafka.fenced += 1
            raise ProducerFenced


@dataclass
class Row:
    epoch: int = 0
    relays: list[str] = field(default_factory=list)
    outbox: list[Outgoing] = field(default_factory=list)


class Process:
    def __init__(self, kafka: Kafka, rows: dict[int, Row]) -> None:
        self.kafka, self.rows, self.owned = kafka, rows, dict[int, Relay]()
        self.publisher = Publisher("health", "", self.still_ours)

    async def still_ours(self, some: Sequence[Relay]) -> set[int]:
        await self.kafka.pause()
        found = {relay.partition for relay in some if self.rows[relay.partition].epoch == relay.epoch}
        await self.kafka.pause()
        return found

    async def take_over(self, partition: int, *, dies: bool) -> None:
        """As the runtime does; one that `dies` has written that it is the owner, and no more."""
        row, mine = self.rows[partition], self.publisher.transactional_id
        row.epoch += 1
        row.relays = [other for other in row.relays if other != mine] + [mine]
        epoch, head, former = row.epoch, len(row.outbox), set(row.relays) - {mine}
        if dies:
            return
        await fence("", former)
        found = await self.publisher.positions([partition])
        if row.epoch == epoch:
            row.relays = [mine]

        async def read_rows(after: int, most: int) -> Rows:
            await self.kafka.pause()
            return [(after + 1, row.outbox[after : after + most])] if after < len(row.outbox) else []

        relay = Relay(partition, epoch, found.get(partition, Position(0, None)).seq, head, read_rows)
        self.publisher.add(relay)
        self.owned[partition] = relay

    async def give_up(self, partition: int) -> None:
        if relay := self.owned.pop(partition, None):
            await self.publisher.remove([relay])

    async def write(self, partition: int) -> None:
        """A transaction of the worker; a former owner's is refused."""
        relay, row = self.owned.get(partition), self.rows[partition]
        await self.kafka.pause()
        if relay is None or row.epoch != relay.epoch:
            return
        first = len(row.outbox) + 1
        records = [Outgoing(RESULT, partition, b"", b"%d" % n, []) for n in range(first, first + 3)]
        row.outbox += records
        relay.offer(first, records)


async def a_life(seed: int, monkeypatch: pytest.MonkeyPatch) -> Kafka:
    chance = random.Random(seed)
    kafka, rows = Kafka(chance), {partition: Row() for partition in PARTITIONS}
    monkeypatch.setattr(relays, "_producer", lambda servers, transactional_id: Producer(kafka, transactional_id))

    async def read_positions(servers: str, service: str, partitions: Collection[int]) -> dict[int, Position]:
        await kafka.pause()
        found = {partition: kafka.positions[partition] for partition in partitions if partition in kafka.positions}
        await kafka.pause()
        return found

    monkeypatch.setattr(relays, "read_positions", read_positions)
    processes = [Process(kafka, rows) for _ in range(3)]
    busy = []
    for _ in range(30):
        process, partition = chance.choice(processes), chance.choice(PARTITIONS)
        match chance.randrange(8):
            case 0 | 1:
                await process.give_up(partition)
                busy.append(asyncio.create_task(process.take_over(partition, dies=chance.random() < 0.2)))
            case 2:
                busy.append(asyncio.create_task(process.give_up(partition)))
            case _:
                await process.write(partition)
        await kafka.pause()
    await asyncio.gather(*busy)
    last = processes[0]
    for partition in PARTITIONS:
        await last.give_up(partition)
        await last.take_over(partition, dies=False)
        await last.write(partition)
    async with asyncio.timeout(10):
        while any(relay.behind for relay in last.owned.values()):  # noqa: ASYNC110
            await asyncio.sleep(0)
    for process in processes:
        await process.publisher.stop()
    for partition, row in rows.items():
        assert kafka.log[partition] == list(range(1, len(row.outbox) + 1)), f"partition {partition}"
    return kafka


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHORTEST_REST_S", "LONGEST_REST_S", "FIRST_DELAY_S"):
        monkeypatch.setattr(relays, name, 0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whoever_owns_a_partition_each_record_is_published_once_and_in_order(seed: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(a_life(seed, monkeypatch))


def test_former_owners_do_get_in_the_way() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert sum(asyncio.run(a_life(seed, monkeypatch)).fenced for seed in range(20)) > 5
