"""The other way to route exactly once: a transactional producer per input partition, offsets in its transactions.

The same reader and the same output records as the shipped router's, and nothing else: no identity, no parking, no
quarantine, no accounting, no PostgreSQL. What a router of that kind would have to add only makes it slower.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from services.router.reader import RawEvent, raw_reader
from services.router.sending import headers_of, place_of
from services.router.settings import Routing
from shared import config
from shared.kafka import consumer_options, producer_options
from shared.runtime import fetching
from shared.runtime.wire import Own, Record, short_name
from tests.benchmarks.peers.meter import Meter, options

MOST = 5_000


class Partition:
    """Routes one input partition: the next batch is parsed while a transaction commits."""

    def __init__(self, given: dict[str, Any], tp: TopicPartition, meter: Meter, routing: Routing) -> None:
        self.given, self.tp, self.meter = given, tp, meter
        self.read = raw_reader(routing)
        self.outputs: dict[str, list[str]] = given["routes"]
        self.producer = AIOKafkaProducer(
            **producer_options(given["bootstrap_servers"]),
            transactional_id=f"{given['group']}.{tp.partition}",
        )
        self.running: asyncio.Task[None] | None = None

    async def route(self, records: list[Record]) -> None:
        self.meter.begin()
        batches: dict[tuple[str, int], Any] = {}
        written = 0
        for record in records:
            item = self.read(record)
            assert isinstance(item, Own)
            event: RawEvent = item.signal  # type: ignore[assignment]
            assert event.account_id is not None
            key, to, subject = place_of(event.account_id, self.given["partitions"])
            headers = [*headers_of(event), subject]
            for topic in self.outputs.get(short_name(event.wire_type), ()):
                batch = batches.get((topic, to))
                if batch is None:
                    batch = batches[topic, to] = self.producer.create_batch()
                assert batch.append(timestamp=None, key=key, value=event.value, headers=headers) is not None
                written += 1
        if self.running is not None:
            await self.running
        self.running = asyncio.create_task(self.commit(batches, records[-1].offset + 1, len(records), written))

    async def commit(self, batches: dict[tuple[str, int], Any], offset: int, events: int, written: int) -> None:
        async with self.producer.transaction():
            sent = [
                await self.producer.send_batch(batch, topic, partition=to) for (topic, to), batch in batches.items()
            ]
            await asyncio.gather(*sent)
            await self.producer.send_offsets_to_transaction({self.tp: offset}, self.given["group"])
        self.meter.add(written, events)


async def main(given: dict[str, Any]) -> None:
    fetching.install()
    routing = config.load(Path("config/routing.yaml"), Routing).model
    meter = Meter(given["events"])
    tps = [TopicPartition(given["topic"], number) for number in range(given["partitions"])]
    partitions = {tp: Partition(given, tp, meter, routing) for tp in tps}
    await asyncio.gather(*(partition.producer.start() for partition in partitions.values()))
    consumer = AIOKafkaConsumer(**consumer_options(given["bootstrap_servers"]), fetch_max_bytes=8 * 1024 * 1024)
    await consumer.start()
    consumer.assign(tps)
    await consumer.seek_to_beginning()
    while True:
        for tp, records in (await consumer.getmany(timeout_ms=200, max_records=MOST)).items():
            await partitions[tp].route(records)


if __name__ == "__main__":
    asyncio.run(main(options()))
