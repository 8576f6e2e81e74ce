"""Alerts as they are told, read from their topic like any consumer of it would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer

from shared import topics
from shared.events.base import wire_type_of
from shared.kafka import consumer_options

STATES = {wire_type_of("alert.opened"): "open", wire_type_of("alert.resolved"): "resolved"}
_read = msgspec.json.Decoder().decode


async def alerts_from_now(bootstrap_servers: str) -> AsyncIterator[Mapping[str, Any]]:
    """Each alert that opens or ends from now on, as a row of `hune export alerts` has it; never a baseline."""
    consumer = AIOKafkaConsumer(
        topics.ALERTS.name, **consumer_options(bootstrap_servers) | {"auto_offset_reset": "latest"}
    )
    await consumer.start()
    try:
        await consumer.seek_to_end()
        async for record in consumer:
            row = row_of({key: value.decode() for key, value in record.headers}.get("ce_type", ""), record.value)
            if row is not None:
                yield row
    finally:
        await consumer.stop()


def row_of(wire_type: str, body: bytes) -> Mapping[str, Any] | None:
    """What to show of a record of the alerts' topic; None for what a first import found."""
    state = STATES.get(wire_type)
    alert: dict[str, Any] = _read(body)
    if state is None or alert.get("baseline"):
        return None
    return {"opened_at": alert["occurred_at"], "evidence": {}, "next_step": None, **alert, "state": state}
