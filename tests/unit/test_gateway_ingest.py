"""`publish` returns when Kafka has it, and otherwise says what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka.errors import KafkaConnectionError, OutOfOrderSequenceNumber

from services.gateway.canonical import Record
from services.gateway.ingest import CHUNK_BYTES, Ingest
from services.gateway.limiter import TokenBuckets
from services.gateway.spool import NotDurable, Spool, bytes_waiting
from shared.ids import partition_of

TOPIC, PARTITIONS = "cs.raw.events.v1", 3


class Builder:
    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.records: list[tuple[bytes, bytes]] = []

    def append(self, *, timestamp: int, key: bytes, value: bytes, headers: Any) -> object:
        self.keys.append(key)
        self.records.append((key, value))
        return object()


class Broker:
    """What the producers of a test share: whether they may start, and what arrived."""

    def __init__(self) -> None:
        self.up = True
        self.acking = asyncio.Event()
        self.acking.set()
        self.error: Exception | None = None
        self.made = 0
        self.batches: list[tuple[int, list[bytes]]] = []
        self.records: list[tuple[bytes, bytes]] = []

    def values(self, key: bytes) -> list[bytes]:
        return [value for each, value in self.records if each == key]

    def make(self) -> Producer:
        self.made += 1
        return Producer(self)


class Producer:
    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.stopped = False

    async def start(self) -> None:
        if not self.broker.up:
            raise KafkaConnectionError

    async def stop(self) -> None:
        self.stopped = True

    async def partitions_for(self, topic: str) -> set[int]:
        return set(range(PARTITIONS))

    def create_batch(self) -> Builder:
        return Builder()

    async def send_batch(self, builder: Builder, topic: str, *, partition: int) -> asyncio.Future[None]:
        async def deliver() -> None:
            await self.broker.acking.wait()
            if self.broker.error is not None:
                error, self.broker.error = self.broker.error, None
                raise error
            self.broker.batches.append((partition, builder.keys))
            self.broker.records += builder.records

        return asyncio.ensure_future(deliver())


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest_asyncio.fixture
async def ingest(broker: Broker) -> AsyncIterator[Ingest]:
    ingest = Ingest("nowhere:9092", ack_seconds=0.1, queue_bytes=2_000_000, make_producer=broker.make)
    await ingest.start()
    yield ingest
    await ingest.stop()


def a_record(key: str, size: int = 10) -> Record:
    return Record(TOPIC, key.encode(), b"x" * size, [])


async def test_records_go_to_the_partition_of_their_key_in_the_order_given(ingest: Ingest, broker: Broker) -> None:
    await ingest.publish([a_record(f"u{n % 7}") for n in range(70)])
    assert sum(len(keys) for _, keys in broker.batches) == 70
    assert len(broker.batches) <= PARTITIONS
    for partition, keys in broker.batches:
        assert {partition_of(key, PARTITIONS) for key in keys} == {partition}


async def test_callers_who_wait_together_share_batches(ingest: Ingest, broker: Broker) -> None:
    broker.acking.clear()
    calls = [asyncio.create_task(ingest.publish([a_record("same")])) for _ in range(50)]
    await asyncio.sleep(0.02)
    broker.acking.set()
    await asyncio.gather(*calls)
    assert sum(len(keys) for _, keys in broker.batches) == 50
    assert len(broker.batches) <= 2


async def test_one_caller_cannot_make_a_batch_larger_than_kafka_takes(ingest: Ingest, broker: Broker) -> None:
    broker.acking.clear()
    calls = [asyncio.create_task(ingest.publish([a_record("same", CHUNK_BYTES // 2)])) for _ in range(3)]
    await asyncio.sleep(0.02)
    broker.acking.set()
    await asyncio.gather(*calls)
    assert all(len(keys) == 1 for _, keys in broker.batches)


async def test_kafka_out_of_reach_is_certain_and_ends_in_time(broker: Broker) -> None:
    broker.up = False
    ingest = Ingest("nowhere:9092", ack_seconds=0.05, queue_bytes=1_000, make_producer=broker.make)
    await ingest.start()
    with pytest.raises(NotDurable) as caught:
        await ingest.publish([a_record("u")])
    assert caught.value.certain
    assert not ingest.ready
    broker.up = True
    await asyncio.sleep(0.3)
    await ingest.publish([a_record("u")])
    assert len(broker.batches) == 1
    await ingest.stop()


async def test_what_the_producer_holds_is_uncertain_and_what_it_never_got_is_withdrawn(
    ingest: Ingest, broker: Broker
) -> None:
    broker.acking.clear()
    first = asyncio.create_task(ingest.publish([a_record("same")]))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(ingest.publish([a_record("same")]))
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [isinstance(result, NotDurable) and result.certain for result in results] == [False, True]
    broker.acking.set()
    await ingest.publish([a_record("same")])
    assert sum(len(keys) for _, keys in broker.batches) == 2


async def test_a_producer_that_fails_is_replaced(ingest: Ingest, broker: Broker) -> None:
    broker.error = OutOfOrderSequenceNumber()
    with pytest.raises(NotDurable) as caught:
        await ingest.publish([a_record("u")])
    assert not caught.value.certain
    await ingest.publish([a_record("u")])
    assert broker.made == 2
    assert len(broker.batches) == 1


async def test_a_full_queue_refuses_at_once(ingest: Ingest, broker: Broker) -> None:
    broker.acking.clear()
    first = asyncio.create_task(ingest.publish([a_record("u", 2_000_000)]))
    await asyncio.sleep(0.02)
    with pytest.raises(NotDurable, match="full"):
        await ingest.publish([a_record("u")])
    with pytest.raises(NotDurable):
        await first
    assert ingest.queued_bytes == 0


async def test_stopping_lets_what_is_queued_arrive(broker: Broker) -> None:
    ingest = Ingest("nowhere:9092", ack_seconds=0.5, queue_bytes=1_000_000, make_producer=broker.make)
    await ingest.start()
    broker.acking.clear()
    call = asyncio.create_task(ingest.publish([a_record("u")]))
    await asyncio.sleep(0.02)
    asyncio.get_running_loop().call_later(0.05, broker.acking.set)
    await ingest.stop()
    await call
    assert len(broker.batches) == 1


@asynccontextmanager
async def spooling(broker: Broker, folder: Path, quota: int = 1_000_000) -> AsyncIterator[Ingest]:
    spool = Spool(folder, quota=quota)
    ingest = Ingest("nowhere:9092", ack_seconds=0.1, queue_bytes=2_000_000, make_producer=broker.make, spool=spool)
    await ingest.start()
    yield ingest
    await ingest.stop()


async def until_direct(ingest: Ingest) -> None:
    for _ in range(2_000):
        if not ingest.spooling:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the spool was never emptied")


def firsts(values: list[bytes]) -> list[bytes]:
    """What a reader keeps who drops repetitions."""
    return list(dict.fromkeys(values))


async def test_while_kafka_is_away_the_spool_answers_and_afterwards_kafka_has_all_in_order(
    broker: Broker, tmp_path: Path
) -> None:
    broker.up = False
    async with spooling(broker, tmp_path) as ingest:
        for n in range(20):
            await ingest.publish([a_record("same", n + 1)])
        assert ingest.spooling
        assert ingest.ready
        broker.up = True
        await until_direct(ingest)
        await ingest.publish([a_record("same", 21)])
        assert [len(value) for value in broker.values(b"same")] == list(range(1, 22))
        assert bytes_waiting(tmp_path) == 0


async def test_what_waits_when_kafka_stops_answering_goes_to_the_spool_in_its_order(
    broker: Broker, tmp_path: Path
) -> None:
    async with spooling(broker, tmp_path) as ingest:
        await ingest.publish([a_record("same", 1)])
        broker.acking.clear()
        calls = []
        for n in range(2, 12):
            calls.append(asyncio.create_task(ingest.publish([a_record("same", n)])))
            await asyncio.sleep(0.001)
        await asyncio.gather(*calls)
        await ingest.publish([a_record("same", 12)])
        broker.acking.set()
        await until_direct(ingest)
        await ingest.publish([a_record("same", 13)])
        assert [len(value) for value in firsts(broker.values(b"same"))] == list(range(1, 14))


async def test_a_producer_that_fails_is_no_refusal_when_there_is_a_spool(broker: Broker, tmp_path: Path) -> None:
    async with spooling(broker, tmp_path) as ingest:
        for n in range(1, 8):
            broker.error = OutOfOrderSequenceNumber() if n % 3 else None
            await ingest.publish([a_record("same", n), a_record("other", n)])
        broker.error = None
        await until_direct(ingest)
        for key in (b"same", b"other"):
            assert [len(value) for value in firsts(broker.values(key))] == list(range(1, 8))


async def test_a_failure_while_the_spool_is_sent_lets_nothing_overtake(broker: Broker, tmp_path: Path) -> None:
    broker.up = False
    async with spooling(broker, tmp_path) as ingest:
        for n in range(1, 4):
            await ingest.publish([a_record("same", CHUNK_BYTES // 2 + n)])
        broker.error, broker.up = OutOfOrderSequenceNumber(), True
        await until_direct(ingest)
        assert [len(v) - CHUNK_BYTES // 2 for v in firsts(broker.values(b"same"))] == [1, 2, 3]


async def test_the_next_process_sends_what_the_last_one_kept(broker: Broker, tmp_path: Path) -> None:
    broker.up = False
    async with spooling(broker, tmp_path) as ingest:
        await ingest.publish([a_record("same", 1)])
    assert bytes_waiting(tmp_path) > 0
    broker.up = True
    async with spooling(broker, tmp_path) as ingest:
        await ingest.publish([a_record("same", 2)])
        await until_direct(ingest)
    assert [len(value) for value in broker.values(b"same")] == [1, 2]


async def test_a_full_spool_refuses_for_certain_and_is_not_ready(broker: Broker, tmp_path: Path) -> None:
    broker.up = False
    async with spooling(broker, tmp_path, quota=1_000) as ingest:
        await ingest.publish([a_record("u", 500)])
        with pytest.raises(NotDurable, match="full") as caught:
            await ingest.publish([a_record("u", 500)])
        assert caught.value.certain
        broker.up = True
        await until_direct(ingest)
        await ingest.publish([a_record("u", 500)])
        assert len(broker.values(b"u")) == 2


async def test_stopping_while_kafka_stands_still_leaves_it_in_the_spool(broker: Broker, tmp_path: Path) -> None:
    broker.acking.clear()
    async with spooling(broker, tmp_path) as ingest:
        call = asyncio.create_task(ingest.publish([a_record("u")]))
        await asyncio.sleep(0.01)
        await ingest.stop()
        await call
    assert bytes_waiting(tmp_path) > 0


def test_a_bucket_refills_with_time_and_is_never_fuller_than_its_burst() -> None:
    buckets = TokenBuckets(rate=10, burst=20)
    assert buckets.take("a", 20, now=0) == 0
    assert buckets.take("a", 15, now=0) == 2
    assert buckets.take("b", 20, now=0) == 0
    assert buckets.take("a", 15, now=1.5) == 0
    assert buckets.take("a", 21, now=1_000) > 0
    assert buckets.take("a", 20, now=1_000) == 0
