"""What tools sent or gave that no adapter could read, read again with those of today and sent on as events."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from cli.support import Stores, control_url
from cli.vault import load_keys
from services.gateway.canonical import Record
from services.gateway.contacts import seal_all
from services.gateway.pollers import settings as pollers
from services.gateway.pollers import translate as polled
from services.gateway.webhooks.settings import Webhooks, load
from services.gateway.webhooks.translate import UNREAD_PREFIX, is_unread, reread
from shared import db
from shared.errors import Transient
from shared.kafka import producer_options
from shared.runtime.wire import unpack_headers
from shared.settings import config_dir
from shared.vault import store as vault
from shared.vault import withheld
from shared.vault.keys import Unreadable, fields
from shared.vault.sealing import Sealer

LIST = """
    select id, value, headers, broker_time from hune.quarantine
     where id = any($1::text[]) and state = 'held'
       and exists (select from unnest($2::text[]) as part where position(convert_to(part, 'UTF8') in headers) > 0)
     order by refused_at, id
"""
SENT = "update hune.quarantine set state = 'applied', attempts = attempts + 1 where id = $1 and state = 'held'"
STILL = "update hune.quarantine set error = $2, attempts = attempts + 1 where id = $1 and state = 'held'"


@dataclass(frozen=True, slots=True)
class Reread:
    """What became of one of them; `error` says why it still cannot be read."""

    id: str
    error: str | None


async def redrive(stores: Stores, database: db.Connection, ids: Sequence[str]) -> list[Reread]:
    """Read again those of the held records that are as a tool sent or gave them; the others are their service's.

    The events go to Kafka before the record is marked: stopped in between, they are sent again with the same ids.
    """
    rows = await database.fetch(LIST, list(ids), [UNREAD_PREFIX, polled.POLLED_PREFIX])
    webhooks = load(config_dir()) if rows else Webhooks()
    feeds = pollers.feeds_of(pollers.load(config_dir()), webhooks) if rows else []
    found = []
    async with AsyncExitStack() as stack:
        producer: AIOKafkaProducer | None = None
        for row in rows:
            headers = dict(unpack_headers(row["headers"]))
            records: list[Record] = []
            error: str | None = None
            try:
                body = await content_of(stores, row["value"] or b"")
                if polled.is_polled(headers):
                    records, error = polled.reread(headers, body, feeds)
                elif is_unread(headers):
                    records, error = reread(headers, body, row["broker_time"], webhooks)
                else:
                    continue
            except Unreadable as unreadable:
                error = str(unreadable)
            if error is None:
                producer = producer or await stack.enter_async_context(_producer(stores))
                await _send(producer, await _sealed(stores, records))
                await database.execute(SENT, row["id"])
            else:
                await database.execute(STILL, row["id"], error)
            found.append(Reread(row["id"], error))
    return found


async def content_of(stores: Stores, body: bytes) -> bytes:
    """What the record's body is or stands for.

    Raises Unreadable.
    """
    if not withheld.is_withheld(body):
        return body
    control = await db.connect(control_url(stores))
    try:
        return await withheld.opened(control, load_keys(stores.home), body)
    finally:
        await control.close()


async def _sealed(stores: Stores, records: list[Record]) -> list[Record]:
    """The records with references for what is personal, where there is a contact vault."""
    keys = load_keys(stores.home)
    if keys is None:
        return records
    sealed, found = seal_all(Sealer(keys, fields()), records)
    if found:
        control = await db.connect(control_url(stores))
        try:
            now = datetime.now(UTC)
            await vault.save(control, keys, [(contact, now) for contact in found])
        finally:
            await control.close()
    return sealed


def _producer(stores: Stores) -> AIOKafkaProducer:
    return AIOKafkaProducer(**producer_options(stores.bootstrap_servers))


async def _send(producer: AIOKafkaProducer, records: Sequence[Record]) -> None:
    try:
        for record in records:
            await producer.send_and_wait(record.topic, record.value, key=record.key, headers=record.headers)
    except KafkaError as error:
        raise Transient(f"Kafka did not take the events: {error}; give the command again") from error
