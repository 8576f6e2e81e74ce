"""A health worker as FastStream's documentation shows it: one message, one transaction, one result, one ack."""

from __future__ import annotations

import asyncio

import asyncpg
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker

from tests.benchmarks.peers import state
from tests.benchmarks.peers.meter import Meter, options

given = options()
meter = Meter(given["events"])
broker = KafkaBroker(given["bootstrap_servers"], logger=None)
app = FastStream(broker, logger=None)
pools: list[asyncpg.Pool] = []


@app.on_startup
async def connect() -> None:
    pools.append(await asyncpg.create_pool(given["database_url"], min_size=1, max_size=2))
    await pools[0].execute(state.TABLES)


@broker.subscriber(given["topic"], group_id=given["group"], auto_offset_reset="earliest", ack_policy=AckPolicy.ACK)  # type: ignore[untyped-decorator]
async def apply(event: state.Event) -> None:
    meter.begin()
    async with pools[0].acquire() as db, db.transaction():
        result = await state.apply(db.fetchval, event)
    if result is not None:
        await broker.publish(result, given["results"], key=event.account_id.encode())
    meter.add(0 if result is None else 1)


if __name__ == "__main__":
    asyncio.run(app.run())
