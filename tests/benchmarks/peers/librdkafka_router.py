"""Routing exactly once with librdkafka: one transactional producer, the offsets in its transactions, 5,000 at a time.

The same reader and the same output records as the shipped router's, and nothing else: no identity, no parking, no
quarantine, no accounting, no PostgreSQL. Its fetching is set so that it never waits for itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from services.router.reader import RawEvent, raw_reader
from services.router.sending import headers_of, place_of
from services.router.settings import Routing
from shared import config
from shared.runtime.wire import Own, Record, short_name
from tests.benchmarks.peers.meter import Meter, options

MOST = 5_000


def main(given: dict[str, Any]) -> None:
    meter, partitions, outputs = Meter(given["events"], given["warm"]), given["partitions"], given["routes"]
    read = raw_reader(config.load(Path("config/routing.yaml"), Routing).model)
    consumer: Any = Consumer({
        "bootstrap.servers": given["bootstrap_servers"], "group.id": given["group"], "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "isolation.level": "read_committed", "queued.min.messages": 1_000_000,
        "queued.max.messages.kbytes": 262_144, "fetch.queue.backoff.ms": 2, "fetch.message.max.bytes": 4 << 20,
        "fetch.wait.max.ms": 20,
    })  # fmt: skip
    producer: Any = Producer({
        "bootstrap.servers": given["bootstrap_servers"], "transactional.id": given["group"], "acks": "all",
        "enable.idempotence": True, "linger.ms": 5, "queue.buffering.max.messages": 2_000_000, "batch.size": 1_000_000,
    })  # fmt: skip
    producer.init_transactions(60)
    consumer.assign([TopicPartition(given["topic"], number, 0) for number in range(partitions)])
    while True:
        messages = [message for message in consumer.consume(MOST, 0.2) if message.error() is None]
        if not messages:
            continue
        meter.begin()
        producer.begin_transaction()
        written = 0
        for message in messages:
            where = message.topic(), message.partition(), message.offset(), message.timestamp()[1]
            item = read(Record(*where, message.key(), message.value(), message.headers() or ()))
            assert isinstance(item, Own)
            event: RawEvent = item.signal  # type: ignore[assignment]
            assert event.account_id is not None
            key, to, subject = place_of(event.account_id, partitions)
            headers = [*headers_of(event), subject]
            for topic in outputs.get(short_name(event.wire_type), ()):
                producer.produce(topic, event.value, key, to, headers=headers)
                written += 1
        producer.poll(0)
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata()
        )
        producer.commit_transaction()
        meter.add(written, len(messages))


if __name__ == "__main__":
    main(options())
