"""`POST /webhooks/{tool}`: the tool's own answer once Kafka has it, nothing kept without a proof."""

from __future__ import annotations

import dataclasses
import gzip
import json
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
import pytest_asyncio
from aiokafka import ConsumerRecord

from services.gateway import keys
from services.gateway.app import Gateway, make_app
from services.gateway.canonical import Record
from services.gateway.keys import KeyRing
from services.gateway.settings import GatewaySettings, Limits
from services.gateway.spool import NotDurable
from services.gateway.store import hash_of
from services.gateway.webhooks import NAMES
from services.gateway.webhooks.base import Trust
from services.gateway.webhooks.settings import Webhooks
from services.gateway.webhooks.tools import TOOLS
from services.gateway.webhooks.translate import is_unread, reread
from services.router.reader import raw_reader
from services.router.settings import Routing
from shared import config
from shared.errors import Misconfigured
from shared.runtime.wire import Own, Refused
from shared.topics import RAW_EVENTS, RAW_REQUESTS
from tests.support import webhooks as made
from tests.support.webhooks import PUBLIC_URL, SECRET, TOKEN
from tests.unit.test_gateway_http import KNOBS, NOWHERE, Kept, Rows

JSON_OK = b'{"success": true}'


def a_gateway(kept: Kept, knobs: GatewaySettings = KNOBS) -> Gateway:
    gateway = Gateway(NOWHERE, knobs, ingest=kept)
    rows = Rows()
    rows.rows.append({"name": "hook", "hash": hash_of("hk_hook"), "scopes": ["webhook:asknicely"]})
    gateway.keys = KeyRing(rows.load)
    gateway.webhooks = Webhooks(public_url=PUBLIC_URL)
    gateway.trusts = {name: Trust((SECRET,), (TOKEN,), options=gateway.webhooks.of(name).options) for name in NAMES}
    return gateway


def a_client(gateway: Gateway) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(make_app(gateway, worker=False), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def gateway(kept: Kept) -> Gateway:
    return a_gateway(kept)


@pytest_asyncio.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with a_client(gateway) as client:
        yield client


async def deliver(client: httpx.AsyncClient, tool: str, body: bytes, path: str = "", **headers: str) -> httpx.Response:
    signed = made.signed(tool, body, at=datetime.now(UTC))
    return await client.post(path or f"/webhooks/{tool}", content=body, headers={**signed, **headers})


def a_body(tool: str) -> bytes:
    return made.encoder(tool)(made.payloads(tool)[0])


def headers_of(record: Record) -> dict[str, bytes]:
    return dict(record.headers)


@pytest.mark.parametrize("tool", NAMES)
async def test_every_tool_gets_its_own_answer_once_kafka_has_it(
    client: httpx.AsyncClient, kept: Kept, tool: str
) -> None:
    answer = await deliver(client, tool, a_body(tool))
    assert answer.status_code == 200
    expected = {"slack": b"", "mixpanel": b'{"action":"members","status":"success"}'}
    assert answer.content == expected.get(tool, JSON_OK)
    assert kept.records
    topic = RAW_REQUESTS.name if tool == "slack" else RAW_EVENTS.name
    assert {record.topic for record in kept.records} == {topic}
    assert not any(is_unread(headers_of(record)) for record in kept.records)


@pytest.mark.parametrize("tool", NAMES)
async def test_a_bad_proof_is_401_and_keeps_nothing(client: httpx.AsyncClient, kept: Kept, tool: str) -> None:
    body = a_body(tool)
    for headers in ({}, made.signed(tool, body, "guessed"), made.signed(tool, body + b" ", at=datetime.now(UTC))):
        if headers.get("x-webhook-token") == SECRET:
            continue  # a static token says nothing of the body
        answer = await client.post(f"/webhooks/{tool}", content=body, headers=headers)
        assert answer.status_code == 401
        assert SECRET not in answer.text
    assert kept.records == []


@pytest.mark.parametrize("tool", NAMES)
async def test_what_cannot_be_read_is_accepted_and_waits_with_its_reason(
    client: httpx.AsyncClient, kept: Kept, tool: str
) -> None:
    body = b'{"shape": "of tomorrow", "n": 1}'
    answer = await deliver(client, tool, body)
    assert answer.status_code == 200
    (record,) = kept.records
    headers = headers_of(record)
    assert (record.topic, record.value) == (RAW_EVENTS.name, body)
    assert headers["ce_type"] == f"hune.webhook.{tool}.v1".encode()
    assert headers["ce_reason"]
    await deliver(client, tool, body)
    assert headers_of(kept.records[1])["ce_id"] == headers["ce_id"]


async def test_what_can_be_read_goes_on_beside_what_cannot(client: httpx.AsyncClient, kept: Kept) -> None:
    body = made.as_json([*made.HUBSPOT[0], made.hubspot("galaxy.propertyChange", "a", "b")])
    assert (await deliver(client, "hubspot", body)).status_code == 200
    assert [headers_of(record)["ce_type"].decode() for record in kept.records] == [
        "hune.account.updated.v1", "hune.account.updated.v1", "hune.webhook.hubspot.v1",
    ]  # fmt: skip
    assert kept.records[2].value == body


async def test_what_tells_nothing_is_accepted_and_kept_nowhere(client: httpx.AsyncClient, kept: Kept) -> None:
    body = made.as_json(made.zendesk_ticket("ticket.tags_changed"))
    assert (await deliver(client, "zendesk", body)).content == JSON_OK
    assert kept.records == []


@pytest.mark.parametrize("path", ["/webhooks/nobody", "/webhooks/Zendesk", "/webhooks/zendesk.json", "/webhooks/"])
async def test_an_unknown_tool_is_404(client: httpx.AsyncClient, kept: Kept, path: str) -> None:
    assert (await client.post(path, content=b"{}")).status_code == 404
    assert kept.records == []


async def test_a_tool_that_is_off_or_has_no_secret_is_404(kept: Kept, gateway: Gateway) -> None:
    gateway.trusts.pop("stripe")
    gateway.trusts["zendesk"] = Trust()
    async with a_client(gateway) as client:
        for tool in ("stripe", "zendesk"):
            assert (await deliver(client, tool, a_body(tool))).status_code == 404
    assert kept.records == []


async def test_other_methods_are_405(client: httpx.AsyncClient) -> None:
    assert (await client.get("/webhooks/zendesk")).status_code == 405


async def test_salesforce_is_acknowledged_only_when_kafka_has_it(client: httpx.AsyncClient, kept: Kept) -> None:
    body, path = made.salesforce_xml(made.salesforce_opportunity()), f"/webhooks/salesforce/{TOKEN}"
    answer = await client.post(path, content=body, headers={"content-type": "text/xml; charset=UTF-8"})
    assert answer.headers["content-type"].startswith("text/xml")
    assert b"<Ack>true</Ack>" in answer.content
    assert b"http://soap.sforce.com/2005/09/outbound" in answer.content
    kept.failing = NotDurable("Kafka is away", certain=True)
    answer = await client.post(path, content=body)
    assert (answer.status_code, b"<Ack>false</Ack>" in answer.content) == (503, True)
    answer = await client.post(f"/webhooks/salesforce/{TOKEN}x", content=body)
    assert (answer.status_code, b"<Ack>false</Ack>" in answer.content) == (401, True)


@pytest.mark.parametrize("tool", NAMES)
async def test_without_kafka_it_is_503_and_when_to_come_back(client: httpx.AsyncClient, kept: Kept, tool: str) -> None:
    kept.failing = NotDurable("no acknowledgement from Kafka in time", certain=False)
    answer = await deliver(client, tool, a_body(tool))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("tool", [name for name in NAMES if TOOLS[name].takes_token])
async def test_a_token_in_the_path_or_gongs_key_in_the_query(client: httpx.AsyncClient, kept: Kept, tool: str) -> None:
    body = a_body(tool)
    assert (await client.post(f"/webhooks/{tool}/{TOKEN}", content=body)).status_code == 200
    assert (await client.post(f"/webhooks/{tool}?key={quote(TOKEN)}", content=body)).status_code == 200
    assert (await client.post(f"/webhooks/{tool}/{TOKEN[:-1]}", content=body)).status_code == 401


async def test_a_key_made_for_one_tool_is_a_token_of_that_tool_only(client: httpx.AsyncClient, kept: Kept) -> None:
    body = a_body("asknicely")
    assert (await client.post("/webhooks/asknicely/hk_hook", content=body)).status_code == 200
    assert (await client.post("/webhooks/mixpanel/hk_hook", content=a_body("mixpanel"))).status_code == 403
    assert (await client.post("/webhooks/asknicely/hk_test", content=body)).status_code == 403
    assert (await client.post("/webhooks/asknicely/hk_none", content=body)).status_code == 401
    assert (await client.post("/v1/batch", json={"batch": []}, auth=("hk_hook", ""))).status_code == 403
    assert len(kept.records) == 1


async def test_scopes_of_webhooks_can_be_made_and_others_cannot() -> None:
    class NoDatabase:
        async def fetchrow(self, *_: Any) -> None: ...

        async def execute(self, *_: Any) -> str:
            return "INSERT 0 1"

        async def fetchval(self, *_: Any) -> bool:
            return True

    with pytest.raises(Misconfigured, match="webhook:TOOL"):
        await keys.create_key(NoDatabase(), "x", ["webhook:nobody"])
    assert "webhook:zendesk" in keys.WEBHOOK_SCOPES


async def test_gzip_and_too_large_and_too_many(kept: Kept) -> None:
    limits = Limits(body_bytes=4096)
    async with a_client(a_gateway(kept, dataclasses.replace(KNOBS, limits=limits, rate=1, burst=2_500))) as client:
        body = a_body("mixpanel")
        packed = await client.post(
            "/webhooks/mixpanel",
            content=gzip.compress(body),
            headers={"content-encoding": "gzip", "x-webhook-token": SECRET},
        )
        assert packed.status_code == 200
        answer = await deliver(client, "mixpanel", b" " * 5000)
        assert (answer.status_code, answer.json()["status"]) == (413, "failure")
        statuses = [(await deliver(client, "mixpanel", body)).status_code for _ in range(3)]
        assert statuses == [200, 200, 200]
        crowd = made.mixpanel("members", *({"mixpanel_distinct_id": f"u{n}"} for n in range(40)))
        while (answer := await deliver(client, "mixpanel", made.as_json(crowd))).status_code == 200:
            pass
        assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (429, True)
        assert (await deliver(client, "zendesk", a_body("zendesk"))).status_code == 200


async def test_an_adapter_that_fails_keeps_the_delivery(
    kept: Kept, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> Any:
        raise KeyError("ann@nine.example")

    monkeypatch.setitem(TOOLS, "asknicely", dataclasses.replace(TOOLS["asknicely"], events=fail))
    async with a_client(gateway) as client:
        assert (await deliver(client, "asknicely", a_body("asknicely"))).status_code == 200
    assert is_unread(headers_of(kept.records[0]))
    assert "ann@nine.example" not in caplog.text


async def test_what_an_adapter_makes_against_the_contract_is_kept_unread(
    kept: Kept, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(delivery: Any) -> Any:
        return [msgspec.structs.replace(event, body={"ticket_id": ""}) for event in TOOLS["zendesk"].events(delivery)]

    monkeypatch.setitem(TOOLS, "asknicely", dataclasses.replace(TOOLS["asknicely"], events=odd))
    async with a_client(gateway) as client:
        assert (await deliver(client, "asknicely", a_body("zendesk"))).status_code == 200
    assert b"ticket_id" in headers_of(kept.records[0])["ce_reason"]


async def test_no_token_is_ever_logged(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setitem(TOOLS, "asknicely", dataclasses.replace(TOOLS["asknicely"], accepted=fail))
    with caplog.at_level(logging.DEBUG):
        async with a_client(gateway) as client:
            assert (await client.post(f"/webhooks/asknicely/{TOKEN}", content=a_body("asknicely"))).status_code == 503
    ours = [record for record in caplog.records if record.name.startswith("services")]
    assert any(getattr(record, "path", "") == "/webhooks/asknicely/{token}" for record in ours)
    assert all(TOKEN not in str(record.__dict__) for record in ours)


async def test_slack_answers_well_within_three_seconds(client: httpx.AsyncClient, kept: Kept) -> None:
    started = time.perf_counter()
    await deliver(client, "slack", a_body("slack"))
    assert time.perf_counter() - started < 1
    assert json.loads(kept.records[0].value)["demand"] == "alert.acknowledge"


# -- quarantine and redrive --------------------------------------------------------------------------

ROUTING = config.load(NOWHERE.config_dir / "routing.yaml", Routing).model


def as_read_by_the_router(record: Record) -> Own | Refused:
    found = raw_reader(ROUTING)(
        ConsumerRecord(
            record.topic, 0, 7, int(time.time() * 1000), 1, record.key, record.value, None, len(record.key),
            len(record.value), tuple(record.headers),
        )
    )  # fmt: skip
    assert isinstance(found, Own | Refused)
    return found


@pytest.mark.parametrize("tool", NAMES)
async def test_the_router_takes_what_is_read_and_refuses_what_is_not(
    client: httpx.AsyncClient, kept: Kept, tool: str
) -> None:
    for payload in made.payloads(tool):
        await deliver(client, tool, made.encoder(tool)(payload))
    assert [as_read_by_the_router(record) for record in kept.records if not is_unread(headers_of(record))]
    assert all(isinstance(as_read_by_the_router(record), Own) for record in kept.records)
    for body in (b'{"shape": "of tomorrow"}', b"\xff\x00 not a thing", b""):
        await deliver(client, tool, body)
        refused = as_read_by_the_router(kept.records[-1])
        assert isinstance(refused, Refused)
        if body.startswith(b"{"):
            assert f"hune.webhook.{tool}.v1" in refused.reason


async def test_an_unread_delivery_is_read_by_tomorrows_adapter(
    client: httpx.AsyncClient, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = made.as_json(made.zendesk_ticket("ticket.teleported"))
    await deliver(client, "zendesk", body)
    record = kept.records[0]
    headers: dict[str, bytes | None] = dict(record.headers)
    records, why = reread(headers, record.value, made.NOW, Webhooks())
    assert (records, "teleported" in str(why)) == ([], True)

    def mended(delivery: Any) -> Any:
        known = delivery.body.replace(b"ticket.teleported", b"ticket.created")
        return TOOLS["zendesk"].events(dataclasses.replace(delivery, body=known))

    now = dict(TOOLS)
    now["zendesk"] = dataclasses.replace(TOOLS["zendesk"], events=mended)
    monkeypatch.setattr("services.gateway.webhooks.translate.TOOLS", now)
    records, why = reread(headers, record.value, made.NOW, Webhooks())
    again, _ = reread(headers, record.value, made.NOW, Webhooks())
    assert why is None
    assert [headers_of(found)["ce_type"] for found in records] == [b"hune.ticket.opened.v1"]
    assert [(found.key, found.value, found.headers) for found in records] == [
        (found.key, found.value, found.headers) for found in again
    ]


async def test_what_was_read_before_is_the_same_event_when_read_again(client: httpx.AsyncClient, kept: Kept) -> None:
    """A list of which one entry could not be read: once it can, the others are repeats."""
    body = made.as_json([*made.HUBSPOT[0], made.hubspot("galaxy.propertyChange", "a", "b", eventId=9)])
    await deliver(client, "hubspot", body)
    first = {(headers_of(r)["ce_id"], headers_of(r)["ce_owntime"]) for r in kept.records[:2]}
    whole, why = reread(dict(kept.records[2].headers), made.as_json(made.HUBSPOT[0]), made.NOW, Webhooks())
    assert why is None
    assert {(headers_of(r)["ce_id"], headers_of(r)["ce_owntime"]) for r in whole} == first
