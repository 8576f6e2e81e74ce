"""Routing as FastStream's documentation shows it: one message, one model, one awaited publish per output record."""

from __future__ import annotations

import asyncio

from faststream import FastStream
from faststream.kafka import KafkaBroker
from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue

from tests.benchmarks.peers.meter import Meter, options

given = options()
meter = Meter(given["events"])
routes: dict[str, list[str]] = given["routes"]
broker = KafkaBroker(given["bootstrap_servers"], logger=None)
app = FastStream(broker, logger=None)


class RawEvent(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    account_id: str
    user_id: str | None = None
    timestamp: AwareDatetime
    context: dict[str, JsonValue] = {}


@broker.subscriber(given["topic"], group_id=given["group"], auto_offset_reset="earliest")  # type: ignore[untyped-decorator]
async def route(event: RawEvent) -> None:
    meter.begin()
    outputs = routes.get(event.type, [])
    for topic in outputs:
        await broker.publish(event, topic, key=event.account_id.encode())
    meter.add(len(outputs))


if __name__ == "__main__":
    asyncio.run(app.run())
