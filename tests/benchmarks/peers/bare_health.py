"""A health worker without a framework: a plain loop, prepared statements, one transaction per event, an id table.

Its position is a row of the same transaction, so nothing is committed to Kafka; results wait in an outbox table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.benchmarks.peers import state
from tests.benchmarks.peers.meter import Meter, options


async def main(given: dict[str, Any]) -> None:
    meter = Meter(given["events"])
    db = await asyncpg.connect(given["database_url"])
    await db.execute(state.TABLES)
    consumer = AIOKafkaConsumer(bootstrap_servers=given["bootstrap_servers"], enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(given["topic"], partition) for partition in range(given["partitions"])])
    await consumer.seek_to_beginning()
    fetch = await _prepared(db)
    while True:
        for tp, records in (await consumer.getmany(timeout_ms=200, max_records=2000)).items():
            for record in records:
                meter.begin()
                event = state.read(record.value)
                async with db.transaction():
                    await fetch(state.SAVE_OFFSET, tp.partition, record.offset + 1)
                    result = await state.apply(fetch, event)
                    if result is not None and event.type != "usage.tracked":
                        await fetch(state.SAVE_RESULT, event.account_id, state.write(result))
                meter.add(0)


async def _prepared(db: asyncpg.Connection) -> Callable[..., Awaitable[Any]]:
    statements = {query: await db.prepare(query) for query in state.STATEMENTS}

    async def fetch(query: str, *arguments: Any) -> Any:
        return await statements[query].fetchval(*arguments)

    return fetch


if __name__ == "__main__":
    asyncio.run(main(options()))
