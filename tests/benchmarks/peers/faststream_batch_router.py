"""Routing with FastStream's batches as documented: a list of models in, one `publish_batch` for each output topic.

At least once, and all records of a batch go to one partition whatever their key: faster, and not the same promise.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from faststream import FastStream
from faststream.kafka import KafkaBroker
from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue

from tests.benchmarks.peers.meter import Meter, options

given = options()
meter = Meter(given["events"])
routes: dict[str, list[str]] = given["routes"]
# By default a batch may take 16 KB, which 500 events exceed: FastStream would drop them and go on.
broker = KafkaBroker(given["bootstrap_servers"], logger=None, max_batch_size=1024 * 1024)
app = FastStream(broker, logger=None)


class RawEvent(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    account_id: str
    user_id: str | None = None
    timestamp: AwareDatetime
    context: dict[str, JsonValue] = {}


@broker.subscriber(given["topic"], batch=True, max_records=500, group_id=given["group"], auto_offset_reset="earliest")
async def route(events: list[RawEvent]) -> None:
    meter.begin()
    outputs: dict[str, list[RawEvent]] = defaultdict(list)
    for event in events:
        for topic in routes.get(event.type, []):
            outputs[topic].append(event)
    for topic, some in outputs.items():
        await broker.publish_batch(*some, topic=topic)
    meter.add(sum(len(some) for some in outputs.values()), len(events))


if __name__ == "__main__":
    asyncio.run(app.run())
