"""`publish` returns when Kafka has it, and otherwise says what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiokafka.errors import KafkaConnectionError, OutOfOrderSequenceNumber

from services.gateway.canonical import Record
from services.gateway.ingest import CHUNK_BYTES, Ingest, NotDurable
from services.gateway.limiter import TokenBuckets
from shared.ids import partition_of

TOPIC, PARTITIONS = "cs.raw.events.v1", 3


class Builder:
    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def append(self, *, timestamp: int, key: bytes, value: bytes, headers: Any) -> object:
        self.keys.append(key)
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


def test_a_bucket_refills_with_time_and_is_never_fuller_than_its_burst() -> None:
    buckets = TokenBuckets(rate=10, burst=20)
    assert buckets.take("a", 20, now=0) == 0
    assert buckets.take("a", 15, now=0) == 2
    assert buckets.take("b", 20, now=0) == 0
    assert buckets.take("a", 15, now=1.5) == 0
    assert buckets.take("a", 21, now=1_000) > 0
    assert buckets.take("a", 20, now=1_000) == 0
