"""Deliveries of webhooks that no adapter could read, read again with those of today and sent on as events."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from cli.support import Stores
from services.gateway.canonical import Record
from services.gateway.webhooks.settings import Webhooks, load
from services.gateway.webhooks.translate import UNREAD_PREFIX, is_unread, reread
from shared import db
from shared.errors import Transient
from shared.kafka import producer_options
from shared.runtime.wire import unpack_headers
from shared.settings import config_dir

LIST = """
    select id, value, headers, broker_time from hune.quarantine
     where id = any($1::text[]) and state = 'held' and position(convert_to($2, 'UTF8') in headers) > 0
     order by refused_at, id
"""
SENT = "update hune.quarantine set state = 'applied', attempts = attempts + 1 where id = $1 and state = 'held'"
STILL = "update hune.quarantine set error = $2, attempts = attempts + 1 where id = $1 and state = 'held'"


@dataclass(frozen=True, slots=True)
class Reread:
    """What became of one delivery; `error` says why it still cannot be read."""

    id: str
    error: str | None


async def redrive(stores: Stores, database: db.Connection, ids: Sequence[str]) -> list[Reread]:
    """Read again those of the held records that are deliveries; the others are their service's to read.

    The events go to Kafka before the record is marked: stopped in between, they are sent again with the same ids.
    """
    rows = await database.fetch(LIST, list(ids), UNREAD_PREFIX)
    webhooks = load(config_dir()) if rows else Webhooks()
    found = []
    async with AsyncExitStack() as stack:
        producer: AIOKafkaProducer | None = None
        for row in rows:
            headers = dict(unpack_headers(row["headers"]))
            if not is_unread(headers):
                continue
            records, error = reread(headers, row["value"] or b"", row["broker_time"], webhooks)
            if error is None:
                producer = producer or await stack.enter_async_context(_producer(stores))
                await _send(producer, records)
                await database.execute(SENT, row["id"])
            else:
                await database.execute(STILL, row["id"], error)
            found.append(Reread(row["id"], error))
    return found


def _producer(stores: Stores) -> AIOKafkaProducer:
    return AIOKafkaProducer(**producer_options(stores.bootstrap_servers))


async def _send(producer: AIOKafkaProducer, records: Sequence[Record]) -> None:
    try:
        for record in records:
            await producer.send_and_wait(record.topic, record.value, key=record.key, headers=record.headers)
    except KafkaError as error:
        raise Transient(f"Kafka did not take the events: {error}; give the command again") from error
