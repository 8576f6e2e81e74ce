"""The door answers in the exact words and codes that SDKs act upon."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn
from uvicorn.server import ServerState

from services.gateway import doors, segment
from services.gateway.app import Gateway, impatient, make_app
from services.gateway.canonical import Record
from services.gateway.keys import KeyRing
from services.gateway.openapi import document
from services.gateway.settings import GatewaySettings, Limits
from services.gateway.spool import NotDurable
from services.gateway.store import hash_of
from shared.errors import Misconfigured
from shared.settings import Settings

KEY = "hk_test"
BASIC = (KEY, "")
KNOBS = GatewaySettings()
NOWHERE = Settings(
    kafka_bootstrap_servers="127.0.0.1:1",
    database_url="postgresql://127.0.0.1:1/none",
    database_urls=("postgresql://127.0.0.1:1/none",),
    config_dir=Path("config"),
)


class Kept:
    """Keeps records in memory, or fails as told."""

    ready, spooling, queued_bytes = True, False, 0

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.failing: NotDurable | None = None
        self.gate: asyncio.Event | None = None

    async def publish(self, records: Sequence[Record]) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        self.records += records


class Rows:
    """The keys' table."""

    def __init__(self) -> None:
        self.rows = [
            {"name": "app", "hash": hash_of(KEY), "scopes": ["ingest", "requests"]},
            {"name": "asker", "hash": hash_of("hk_asker"), "scopes": ["requests"]},
            {"name": "officer", "hash": hash_of("hk_officer"), "scopes": ["privacy"]},
        ]
        self.down = False

    async def load(self) -> Sequence[Any]:
        if self.down:
            raise ConnectionRefusedError
        return list(self.rows)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def rows() -> Rows:
    return Rows()


def a_client(kept: Kept, rows: Rows, knobs: GatewaySettings = KNOBS) -> httpx.AsyncClient:
    gateway = Gateway(NOWHERE, knobs, ingest=kept)
    gateway.keys = KeyRing(rows.load)
    transport = httpx.ASGITransport(make_app(gateway, worker=False), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


@pytest_asyncio.fixture
async def client(kept: Kept, rows: Rows) -> AsyncIterator[httpx.AsyncClient]:
    async with a_client(kept, rows) as client:
        yield client


def a_batch(n: int = 2, **more: Any) -> dict[str, Any]:
    messages = [{"type": "track", "messageId": f"m{i}", "userId": f"u{i}", "event": "Click"} for i in range(n)]
    return {"batch": messages, **more}


CALLS = {
    "track": {"userId": "u", "event": "E"},
    "identify": {"userId": "u"},
    "group": {"groupId": "a"},
    "page": {"userId": "u"},
    "screen": {"userId": "u"},
    "alias": {"userId": "u", "previousId": "p"},
    "batch": a_batch(),
    "import": a_batch(),
}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("call", CALLS)
async def test_every_call_answers_exactly_200_success(
    client: httpx.AsyncClient, kept: Kept, call: str, slash: str
) -> None:
    answer = await client.post(f"/v1/{call}{slash}", json=CALLS[call], auth=BASIC)
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert len(kept.records) == (2 if call in segment.BATCHES else 1)


async def test_the_key_may_be_in_the_body(client: httpx.AsyncClient, kept: Kept) -> None:
    assert (await client.post("/v1/batch", json=a_batch(writeKey=KEY))).status_code == 200
    assert (await client.post("/v1/track", json={**CALLS["track"], "writeKey": KEY})).status_code == 200
    assert all(KEY.encode() not in record.value for record in kept.records)


@pytest.mark.parametrize("sent", [{}, {"auth": ("hk_other", "")}, {"headers": {"authorization": "Basic %%%"}}])
async def test_no_key_or_a_wrong_one_is_401_and_keeps_nothing(client: httpx.AsyncClient, kept: Kept, sent: Any) -> None:
    answer = await client.post("/v1/batch", json=a_batch(), **sent)
    assert answer.status_code == 401
    assert "key" in answer.json()["error"]
    assert kept.records == []


async def test_a_key_without_the_scope_is_403(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/batch", json=a_batch(), auth=("hk_asker", ""))).status_code == 403


@pytest.mark.parametrize(
    "compress", [gzip.compress, lambda b: zlib.compress(b), lambda b: gzip.compress(b[:50]) + gzip.compress(b[50:])]
)
async def test_compressed_bodies_are_read(client: httpx.AsyncClient, kept: Kept, compress: Any) -> None:
    body = compress(json.dumps(a_batch(5)).encode())
    answer = await client.post("/v1/batch", content=body, headers={"content-encoding": "gzip"}, auth=BASIC)
    assert answer.status_code == 200
    assert len(kept.records) == 5


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"not gzip", "gzip", 400),
        (gzip.compress(json.dumps(a_batch()).encode())[:-9], "gzip", 400),
        (gzip.compress(b" " * 10_000_000), "gzip", 413),
        (b" " * 6_000_000, "", 413),
        (b"{}", "br", 415),
        (b"", "", 400),
    ],
)
async def test_bodies_that_cannot_be_read_say_why(
    client: httpx.AsyncClient, kept: Kept, body: bytes, encoding: str, status: int
) -> None:
    headers = {"content-encoding": encoding} if encoding else {}
    answer = await client.post("/v1/batch", content=body, headers=headers, auth=BASIC)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert kept.records == []


async def test_one_bad_message_refuses_the_batch_and_is_named(client: httpx.AsyncClient, kept: Kept) -> None:
    batch = a_batch(3)
    del batch["batch"][1]["event"]
    answer = await client.post("/v1/batch", json=batch, auth=BASIC)
    assert (answer.status_code, answer.json()["index"]) == (400, 1)
    assert kept.records == []


async def test_what_is_not_durable_is_503_with_a_time_to_come_back(client: httpx.AsyncClient, kept: Kept) -> None:
    kept.failing = NotDurable("no acknowledgement from Kafka in time", certain=False)
    answer = await client.post("/v1/batch", json=a_batch(), auth=BASIC)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def test_a_key_that_sends_too_much_is_429_and_others_are_not(kept: Kept, rows: Rows) -> None:
    rows.rows.append({"name": "other", "hash": hash_of("hk_other"), "scopes": ["ingest"]})
    knobs = GatewaySettings(rate=10, burst=25, limits=Limits(batch_events=25))
    async with a_client(kept, rows, knobs) as client:
        assert (await client.post("/v1/batch", json=a_batch(20), auth=BASIC)).status_code == 200
        answer = await client.post("/v1/batch", json=a_batch(20), auth=BASIC)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert (await client.post("/v1/batch", json=a_batch(20), auth=("hk_other", ""))).status_code == 200


async def test_one_key_cannot_take_every_place(kept: Kept, rows: Rows) -> None:
    rows.rows.append({"name": "other", "hash": hash_of("hk_other"), "scopes": ["ingest"]})
    kept.gate = asyncio.Event()
    async with a_client(kept, rows, GatewaySettings(in_flight=3, in_flight_per_key=2)) as client:
        waiting = [asyncio.create_task(client.post("/v1/batch", json=a_batch(), auth=BASIC)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (await client.post("/v1/batch", json=a_batch(), auth=BASIC)).status_code == 429
        third = asyncio.create_task(client.post("/v1/batch", json=a_batch(), auth=("hk_other", "")))
        await asyncio.sleep(0.05)
        full = await client.post("/v1/batch", json=a_batch(), auth=("hk_other", ""))
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        kept.gate.set()
        assert [(await call).status_code for call in (*waiting, third)] == [200, 200, 200]


async def test_known_keys_go_on_working_while_the_database_is_down(client: httpx.AsyncClient, rows: Rows) -> None:
    assert (await client.post("/v1/batch", json=a_batch(), auth=BASIC)).status_code == 200
    rows.down = True
    assert (await client.post("/v1/batch", json=a_batch(), auth=("hk_new", ""))).status_code == 503
    assert (await client.post("/v1/batch", json=a_batch(), auth=BASIC)).status_code == 200


async def test_a_new_key_works_at_once_and_a_revoked_one_stops_with_the_next_reading(rows: Rows) -> None:
    ring = KeyRing(rows.load)
    assert await ring.check("hk_new") is None
    rows.rows.append({"name": "new", "hash": hash_of("hk_new"), "scopes": ["ingest"]})
    assert (found := await ring.check("hk_new")) is not None
    assert found.name == "new"
    rows.rows.pop()
    await ring.refresh()
    assert await ring.check("hk_new") is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "demand and text are missing"),
        ([], "not a JSON object"),
        ({"text": "  "}, "demand and text are missing"),
        ({"demand": 7}, "demand"),
        ({"demand": "health.score", "account_id": ""}, "account_id"),
        ({"demand": "health.score", "id": ""}, "id takes"),
        ({"demand": "health.score", "parameters": []}, "parameters"),
    ],
)
async def test_a_request_that_cannot_be_read_names_the_field(client: httpx.AsyncClient, body: Any, says: str) -> None:
    answer = await client.post("/v1/requests", json=body, auth=BASIC)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


async def test_requests_while_the_database_is_down_are_503(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/requests", json={"demand": "health.score"}, auth=BASIC)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def test_wrong_paths_and_methods_answer_json(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/track")).status_code == 405
    assert (await client.post("/v1/nothing")).json()["success"] is False


async def test_probes_tell_whether_to_send_traffic(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/readyz")).status_code == 503
    await client.post("/v1/batch", json=a_batch(), auth=BASIC)
    assert (await client.get("/readyz")).status_code == 200
    assert "hune_gateway_requests_total" in (await client.get("/metrics")).text


async def test_openapi_names_exactly_the_paths_there_are(client: httpx.AsyncClient) -> None:
    described = set((await client.get("/openapi.json")).json()["paths"])
    served = set(doors.SEGMENT.paths)
    webhooks = {"/webhooks/{tool}", "/webhooks/{tool}/{token}"}
    others = {"/v1/requests", "/v1/requests/{id}", "/v1/accounts/{id}", "/v1/regulations", "/v2/regulations"}
    assert described == served | webhooks | others
    assert document()["openapi"].startswith("3.1")


def test_knobs_are_read_from_the_environment_and_named_when_wrong() -> None:
    knobs = GatewaySettings.from_env({"HUNE_GATEWAY_RATE": "7", "HUNE_GATEWAY_MAX_BATCH_BYTES": "9"})
    assert (knobs.rate, knobs.limits.batch_bytes) == (7, 9)
    with pytest.raises(Misconfigured, match="HUNE_GATEWAY_RATE"):
        GatewaySettings.from_env({"HUNE_GATEWAY_RATE": "fast"})
    with pytest.raises(Misconfigured, match="HUNE_GATEWAY_BURST"):
        GatewaySettings.from_env({"HUNE_GATEWAY_BURST": "1"})


SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
RECORDED = [
    SAMPLES / "clients" / f"{name}.json"
    for name in ("segment-python-mixed", "segment-node", "rudder-python-gzip", "rudder-node", "retry-segment-python")
]


@pytest.mark.skipif(not SAMPLES.exists(), reason="recorded SDK requests are not here")
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
async def test_recorded_sdk_requests_are_taken(kept: Kept, rows: Rows, path: Path) -> None:
    rows.rows.append({"name": "recorded", "hash": hash_of("WK_test_123"), "scopes": ["ingest"]})
    events = 0
    async with a_client(kept, rows) as client:
        for request in json.loads(path.read_bytes())["requests"]:  # noqa: ASYNC240
            body = base64.b64decode(request["body_base64"])
            headers = {k: v for k, v in request["headers"].items() if k.lower() not in ("host", "content-length")}
            answer = await client.request(request["method"], request["path"], content=body, headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"success": True})
            plain = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
            messages = json.loads(plain)["batch"]
            events += len(messages) + sum(m["type"] == "group" and bool(m.get("userId")) for m in messages)
    assert len(kept.records) == events > 0


@pytest.mark.skipif(not SAMPLES.exists(), reason="recorded SDK requests are not here")
@pytest.mark.parametrize("name", ["batch-python", "batch-node"])
async def test_recorded_batches_of_every_call_are_taken(kept: Kept, rows: Rows, name: str) -> None:
    rows.rows.append({"name": "recorded", "hash": hash_of("WK_test_123"), "scopes": ["ingest"]})
    async with a_client(kept, rows) as client:
        body = (SAMPLES / "segment" / f"{name}.json").read_bytes()
        answer = await client.post("/v1/batch", content=body, auth=("WK_test_123", ""))
    assert answer.status_code == 200
    types = {dict(record.headers)["ce_type"] for record in kept.records}
    assert b"hune.usage.tracked.v1" in types


async def test_a_caller_who_never_ends_the_head_of_a_request_is_cut_off(kept: Kept, rows: Rows) -> None:
    gateway = Gateway(NOWHERE, KNOBS, ingest=kept)
    protocol = impatient(0.05)
    config = uvicorn.Config(make_app(gateway, worker=False), http=protocol, log_config=None, lifespan="off")
    state, loop = ServerState(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(b"POST /v1/track HTTP/1.1\r\nHost:")
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
    finally:
        server.close()


async def test_a_batch_of_rudderstack_may_be_larger_than_one_of_segment(client: httpx.AsyncClient) -> None:
    properties = {"text": "x" * 30_000}
    batch = a_batch(20)
    for message in batch["batch"]:
        message["properties"] = properties
    refused = await client.post("/v1/batch", json=batch, auth=BASIC)
    assert (refused.status_code, refused.json()["index"]) == (413, 17)
    for message in batch["batch"]:
        message["channel"] = "server"
    assert (await client.post("/v1/batch", json=batch, auth=BASIC)).status_code == 200
    refused = await client.post("/v1/batch", json={"batch": batch["batch"] * 7}, auth=BASIC)
    assert (refused.status_code, refused.json()["index"]) == (413, 139)


async def test_a_suppressed_person_s_events_are_answered_200_and_not_kept(kept: Kept, rows: Rows) -> None:
    gateway = Gateway(NOWHERE, KNOBS, ingest=kept)
    gateway.keys = KeyRing(rows.load)
    gateway.gone = frozenset([hashlib.sha256(b"u1").digest()])
    transport = httpx.ASGITransport(make_app(gateway, worker=False), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.post("/v1/batch", json=a_batch(3), auth=BASIC)).status_code == 200
        assert [record.key for record in kept.records] == [b"u0", b"u2"]
        again = {"regulationType": "UNSUPPRESS", "subjectIds": ["u1"]}
        assert (await client.post("/v1/regulations", json=again, auth=("hk_officer", ""))).status_code == 200
    assert [record.key for record in kept.records[2:]] == [b"u1"]


@pytest.mark.parametrize(
    ("body", "regulation"),
    [
        ({"regulationType": "SUPPRESS_WITH_DELETE", "subjectType": "USER_ID", "subjectIds": ["u1", "u2", "u1"]},
         "suppress_with_delete"),
        ({"regulationType": "DELETE_ONLY", "subjectIds": ["u1", "u2"]}, "delete"),
        ({"regulationType": "suppress", "users": [{"userId": "u1"}, {"userId": "u2"}]}, "suppress"),
    ],
)  # fmt: skip
async def test_regulations_of_segment_and_rudderstack_become_requests(
    client: httpx.AsyncClient, kept: Kept, body: dict[str, Any], regulation: str
) -> None:
    answer = await client.post("/v1/regulations", json=body, auth=("hk_officer", ""))
    assert answer.status_code == 200
    assert len(answer.json()["ids"]) == 2
    assert [json.loads(record.value) for record in kept.records] == [
        {"user_id": user, "regulation": regulation} for user in ("u1", "u2")
    ]


@pytest.mark.parametrize(
    ("body", "auth", "status"),
    [
        ({"regulationType": "DELETE_ONLY", "subjectIds": ["u"]}, BASIC, 403),
        ({"regulationType": "forget", "subjectIds": ["u"]}, ("hk_officer", ""), 400),
        ({"regulationType": "DELETE_ONLY", "subjectIds": []}, ("hk_officer", ""), 400),
        ({"regulationType": "DELETE_ONLY", "subjectIds": ["u", ""]}, ("hk_officer", ""), 400),
        ({"regulationType": "DELETE_ONLY", "users": ["u"]}, ("hk_officer", ""), 400),
        ({"regulationType": "DELETE_ONLY", "subjectType": "OBJECT_ID", "subjectIds": ["u"]}, ("hk_officer", ""), 400),
        ([], ("hk_officer", ""), 400),
    ],
)
async def test_a_regulation_that_cannot_be_meant_is_refused(
    client: httpx.AsyncClient, kept: Kept, body: Any, auth: tuple[str, str], status: int
) -> None:
    assert (await client.post("/v1/regulations", json=body, auth=auth)).status_code == status
    assert kept.records == []
