"""Webhooks against real Kafka, PostgreSQL and router: found by links, one event however often sent, redriven once."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition

from cli import accounting, quarantine
from cli.settle import settle
from services.gateway.app import Gateway, make_app
from services.gateway.settings import GatewaySettings
from services.gateway.webhooks.base import Trust
from services.gateway.webhooks.tools import TOOLS
from shared import db
from shared.kafka import consumer_options
from shared.settings import Settings
from shared.topics import ROUTED
from shared.vault import keys as vault
from shared.vault import withheld
from tests.support import webhooks as made
from tests.support.stack import ROOT, TestStores, running_stores
from tests.support.webhooks import SECRET


@pytest.fixture(scope="module")
def stack() -> Iterator[TestStores]:
    with running_stores() as stores, pytest.MonkeyPatch.context() as patch:
        patch.setenv(vault.VARIABLE, vault.Keys.make().text)
        yield stores


@pytest_asyncio.fixture(scope="module")
async def door(stack: TestStores) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway here, and the router as a process of its own."""
    settings = Settings(
        kafka_bootstrap_servers=stack.bootstrap_servers,
        database_url=stack.database_url,
        database_urls=stack.database_urls,
        config_dir=ROOT / "config",
        partitions=stack.partitions,
    )
    router = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services", "router", cwd=ROOT, env=stack.env, stderr=asyncio.subprocess.DEVNULL
    )
    gateway = Gateway(settings, GatewaySettings())
    gateway.trusts["zendesk"] = Trust((SECRET,))
    app = make_app(gateway, worker=False)
    try:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                yield client
    finally:
        router.terminate()
        await router.wait()


def now() -> str:
    return datetime.now(UTC).isoformat()


async def deliver(door: httpx.AsyncClient, payload: Any) -> None:
    body = made.as_json(payload)
    async with asyncio.timeout(60):
        while True:
            answer = await door.post(
                "/webhooks/zendesk", content=body, headers=made.signed("zendesk", body, at=datetime.now(UTC))
            )
            if answer.status_code == 200:
                return
            assert answer.status_code == 503  # a broker that has just started may lead nothing yet
            await asyncio.sleep(0.2)


async def routed(stores: TestStores) -> set[tuple[str, str, str, str]]:
    """(type, account, id, own time) of all that health was sent."""
    consumer = AIOKafkaConsumer(**consumer_options(stores.bootstrap_servers))
    await consumer.start()
    try:
        parts = [TopicPartition(ROUTED["health"].name, n) for n in range(stores.partitions)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        found: set[Any] = set()
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    headers = dict(record.headers)
                    names = ("ce_type", "ce_subject", "ce_id", "ce_owntime")
                    found.add(tuple((headers.get(name) or b"").decode() for name in names))
        return {one for one in found if one[0] == "hune.ticket.opened.v1"}
    finally:
        await consumer.stop()


async def stored(stores: TestStores, id: str) -> bytes:
    connection = await db.connect(stores.database_url)
    try:
        value: bytes = await connection.fetchval("select value from hune.quarantine where id = $1", id)
        return value
    finally:
        await connection.close()


async def counted(stores: TestStores) -> dict[str, Any]:
    report = await settle(stores, timeout=60)
    assert report.settled, report
    found: dict[str, Any] = (await accounting.snapshot(stores))["accounting"]["router"]
    assert found["balanced"]
    return found


async def test_a_ticket_waits_for_its_link_and_stays_one_event_however_often_it_is_sent(
    stack: TestStores, door: httpx.AsyncClient
) -> None:
    ticket = {**made.zendesk_ticket(), "time": now()}
    for _ in range(3):
        await deliver(door, ticket)
    assert (await counted(stack))["parked"] == 3  # the router parks repeats too; workers drop them
    await deliver(door, {**made.zendesk_organisation(), "time": now()})
    for _ in range(60):
        if not (await counted(stack))["parked"]:
            break
        await asyncio.sleep(0.5)
    await deliver(door, ticket)
    await counted(stack)
    (told,) = await routed(stack)
    assert told[1:3] == ("acct-9", "01J0ZENDESKEVENT0000000001")


async def test_an_unread_delivery_is_redriven_after_a_fix(
    stack: TestStores, door: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = {**made.zendesk_ticket("ticket.teleported", id="78"), "time": now(), "id": "01J0ZENDESKEVENT0000000078"}
    before = await counted(stack)
    await deliver(door, strange)
    assert (await counted(stack))["quarantined"] == before["quarantined"] + 1
    (row,) = await quarantine.held(stack, "router")
    assert withheld.is_withheld(await stored(stack, row["id"]))
    (still,) = await quarantine.redrive(stack, [row["id"]])
    assert (still.state, "teleported" in still.reason) == ("held", True)
    assert "teleported" in quarantine.described(await quarantine.load(stack, row["id"]))

    read = TOOLS["zendesk"].events

    def mended(delivery: Any) -> Any:
        body = delivery.body.replace(b"ticket.teleported", b"ticket.created")
        return read(dataclasses.replace(delivery, body=body))

    monkeypatch.setitem(TOOLS, "zendesk", dataclasses.replace(TOOLS["zendesk"], events=mended))
    (applied,) = await quarantine.redrive(stack, service="router")
    assert (applied.id, applied.state) == (row["id"], "applied")
    after = await counted(stack)
    assert after["routed"] == before["routed"] + 1
    assert await quarantine.held(stack, "router") == []
