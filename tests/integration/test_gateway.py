"""The gateway against real Kafka and PostgreSQL: what was answered 2xx is on the topic, once per id."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil  # type: ignore[import-untyped]
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from devstack.ports import choose
from services.gateway import keys
from services.gateway.app import Gateway, make_app
from services.gateway.reading import export_requests
from services.gateway.settings import GatewaySettings
from services.gateway.spool import bytes_waiting
from shared import db, topics
from shared.events.results import (
    AccountState,
    HealthScoreChanged,
    RequestAnswered,
    RequestUnclear,
    Score,
    ShareOfChange,
)
from shared.ids import partition_of
from shared.kafka import consumer_options, producer_options
from shared.runtime.wire import event_headers
from shared.settings import Settings
from tests.support.stack import TestStores

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).parents[2]
KNOBS = GatewaySettings()
OUTAGE_SECONDS = 3600 if os.environ.get("HUNE_CHAOS_TIER") == "release" else 60
EVENTS_A_SECOND = 200


@dataclass
class Door:
    """A gateway to talk to, with a key of its own."""

    settings: Settings
    key: str
    gateway: Gateway
    client: httpx.AsyncClient


@pytest_asyncio.fixture
async def settings(stack: TestStores) -> Settings:
    return Settings(
        kafka_bootstrap_servers=stack.bootstrap_servers,
        database_url=stack.database_url,
        database_urls=stack.database_urls,
        config_dir=ROOT / "config",
        partitions=stack.partitions,
    )


async def a_key(settings: Settings) -> str:
    connection = await db.connect(settings.database_url)
    try:
        return await keys.create_key(connection, f"test-{uuid.uuid4()}")
    finally:
        await connection.close()


@asynccontextmanager
async def a_door(settings: Settings, knobs: GatewaySettings = KNOBS, worker: bool = False) -> Any:
    gateway = Gateway(settings, knobs)
    app = make_app(gateway, worker=worker)
    key = await a_key(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", auth=(key, "")) as client:
            await until(lambda: gateway.not_ready() is None)
            await until_taken(client, a_batch(some_ids(40), users=40))  # a broker just started may lead nothing yet
            yield Door(settings, key, gateway, client)


@pytest_asyncio.fixture
async def door(settings: Settings) -> AsyncIterator[Door]:
    async with a_door(settings) as door:
        yield door


async def until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


async def until_taken(client: httpx.AsyncClient, batch: dict[str, Any]) -> None:
    """Send the same batch until it is answered 200, as SDKs do."""
    deadline = time.monotonic() + 30
    while (answer := await client.post("/v1/batch", json=batch)).status_code != 200:
        assert answer.status_code == 503
        assert time.monotonic() < deadline, "never taken"
        await asyncio.sleep(0.1)


async def records_of(settings: Settings, topic: str, ids: set[str]) -> list[ConsumerRecord]:
    """All records of the topic, up to its end now, whose id is among `ids`."""
    consumer = AIOKafkaConsumer(**consumer_options(settings.kafka_bootstrap_servers))
    await consumer.start()
    try:
        tps = [TopicPartition(topic, partition) for partition in range(settings.partitions)]
        ends = await consumer.end_offsets(tps)
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        found: list[ConsumerRecord] = []
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [r for r in records if dict(r.headers)["ce_id"].decode() in ids]
        return found
    finally:
        await consumer.stop()


def a_batch(ids: Sequence[str], users: int = 7) -> dict[str, Any]:
    messages = [
        {
            "type": "track",
            "messageId": id,
            "userId": f"user-{n % users}",
            "event": "Report Exported",
            "timestamp": "2026-06-01T00:00:00.000Z",
            "properties": {"n": n},
        }
        for n, id in enumerate(ids)
    ]
    return {"batch": messages}


def some_ids(n: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(n)]


async def test_what_is_answered_200_is_on_the_topic_keyed_by_user_and_in_order(door: Door) -> None:
    ids = some_ids(100)
    answer = await door.client.post("/v1/batch", json=a_batch(ids))
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    records = await records_of(door.settings, topics.RAW_EVENTS.name, set(ids))
    assert sorted(dict(r.headers)["ce_id"].decode() for r in records) == sorted(ids)
    for record in records:
        assert record.partition == partition_of(record.key, door.settings.partitions)
        assert dict(record.headers)["ce_owntime"] == b"2026-06-01T00:00:00.000Z"
    for user in range(7):
        mine = [msgspec.json.decode(r.value)["properties"]["n"] for r in records if r.key == f"user-{user}".encode()]
        assert mine == sorted(mine)
        assert len(mine) >= 14


async def test_a_key_is_hashed_listed_and_dead_soon_after_it_is_revoked(door: Door) -> None:
    connection = await db.connect(door.settings.database_url)
    try:
        listed = {row["name"]: row for row in await keys.list_keys(connection)}
        assert door.key not in str(listed)
        assert "hash" not in next(iter(listed.values()))
        name = f"doomed-{uuid.uuid4()}"
        doomed = await keys.create_key(connection, name)
        assert (await door.client.post("/v1/batch", json=a_batch(some_ids(1)), auth=(doomed, ""))).status_code == 200
        assert await keys.revoke_key(connection, name)
        assert not await keys.revoke_key(connection, name)
        await asyncio.sleep(2)
        assert (await door.client.post("/v1/batch", json=a_batch(some_ids(1)), auth=(doomed, ""))).status_code == 401
        with pytest.raises(Exception, match="exists or existed"):
            await keys.create_key(connection, name)
    finally:
        await connection.close()


async def publish_result(settings: Settings, event: Any, key: str, topic: str = topics.RESULTS["health"].name) -> None:
    producer = AIOKafkaProducer(**producer_options(settings.kafka_bootstrap_servers))
    await producer.start()
    try:
        headers = event_headers(event, id=str(uuid.uuid4()), source="hune.health", subject=key, time=NOW)
        partition = partition_of(key.encode(), settings.partitions)
        await producer.send_and_wait(
            topic, event.model_dump_json().encode(), key=key.encode(), partition=partition, headers=headers
        )
    finally:
        await producer.stop()


NOW = datetime(2026, 6, 2, 9, 30, tzinfo=UTC)
STAMPS = {"occurred_at": NOW, "computed_at": NOW}


async def test_a_request_is_known_from_the_202_on_and_waits_for_its_first_answer(settings: Settings) -> None:
    async with a_door(settings, worker=True) as door:
        asked = {"demand": "health.score", "account_id": "acct-1", "parameters": {"days": 7}}
        made = await door.client.post("/v1/requests", json=asked)
        assert made.status_code == 202
        id = made.json()["id"]
        pending = (await door.client.get(f"/v1/requests/{id}")).json()
        assert (pending["status"], pending["demand"], pending["account_id"]) == ("pending", "health.score", "acct-1")
        (record,) = await records_of(settings, topics.RAW_REQUESTS.name, {id})
        assert (record.key, msgspec.json.decode(record.value)) == (b"acct-1", asked)
        assert dict(record.headers)["ce_type"] == b"hune.request.made.v1"

        wait = asyncio.create_task(door.client.get(f"/v1/requests/{id}?wait=20", timeout=30))
        answer = RequestAnswered(
            account_id="acct-1", request_id=id, demand="health.score", as_of=NOW, answer={"score": 71}, **STAMPS
        )
        await publish_result(settings, answer, "acct-1")
        told = (await wait).json()
        assert (told["status"], told["answer"], told["as_of"]) == ("answered", {"score": 71}, "2026-06-02T09:30:00Z")

        late = RequestUnclear(account_id=None, request_id=id, confidence=0.2, reason="late", **STAMPS)
        other = str(uuid.uuid4())
        marker = RequestUnclear(
            account_id=None, request_id=other, confidence=0.4, reason="two fit", candidates=("a", "b"), **STAMPS
        )
        await publish_result(settings, late, "acct-1")
        await publish_result(settings, marker, "acct-1")
        await until_known(door, other)
        assert (await door.client.get(f"/v1/requests/{id}")).json()["status"] == "answered"
        unclear = (await door.client.get(f"/v1/requests/{other}")).json()
        assert (unclear["status"], unclear["confidence"], unclear["candidates"]) == ("unclear", 0.4, ["a", "b"])
        asleep = (await door.client.post("/v1/requests", json=asked)).json()["id"]
        rows = {row["id"]: row for row in await exported(settings)}
        assert [rows[each]["status"] for each in (id, other, asleep)] == ["answered", "unclear", "pending"]
        assert (rows[id]["account_id"], rows[id]["demand"]) == ("acct-1", "health.score")


async def test_how_an_account_stands_is_told_to_a_key_that_may_read_it(settings: Settings) -> None:
    id = f"acct-{uuid.uuid4()}"
    async with a_door(settings, worker=True) as door:
        connection = await db.connect(settings.database_url)
        key = await keys.create_key(connection, f"reader-{uuid.uuid4()}", [keys.ACCOUNTS])
        await connection.close()
        path, reader = f"/v1/accounts/{id}", (key, "")
        assert (await door.client.get(path)).status_code == 403
        assert (await door.client.get(path, auth=reader)).status_code == 404
        score = Score(score=38, band="red", exact=38.2, coverage=0.8, parts=())
        moved = HealthScoreChanged(
            account_id=id, previous=None, current=score, why="usage fell by half", **STAMPS,
            shares=(ShareOfChange(cause="usage", points=-20.0),),
        )  # fmt: skip
        for points in (55, 38):
            state = AccountState(
                account_id=id, name="Acme", score=points, band="red", segment="mid", stage=None, owner="ines",
                arr="48000", notice_on=None, as_of=NOW,
            )  # fmt: skip
            await publish_result(settings, state, id, topics.STATE_ACCOUNTS.name)
        await publish_result(settings, moved, id)
        deadline = time.monotonic() + 20
        answer: dict[str, Any] = {}
        while answer.get("score") != 38 or answer.get("reason") is None:
            assert time.monotonic() < deadline, "never told"
            await asyncio.sleep(0.05)
            answer = (await door.client.get(path, auth=reader)).json()
    assert (answer["score"], answer["owner"], answer["stage"], answer["arr"]) == (38, "ines", None, "48000")
    assert answer["reason"] == {
        "why": "usage fell by half", "at": "2026-06-02T09:30:00Z", "shares": [{"cause": "usage", "points": -20.0}],
    }  # fmt: skip


async def exported(settings: Settings) -> list[dict[str, Any]]:
    connection = await db.connect(settings.database_url)
    try:
        return await export_requests([connection], datetime(2024, 1, 1, tzinfo=UTC), {})
    finally:
        await connection.close()


async def until_known(door: Door, id: str) -> None:
    deadline = time.monotonic() + 20
    while (await door.client.get(f"/v1/requests/{id}")).status_code == 404:
        assert time.monotonic() < deadline, "the answer was never read"
        await asyncio.sleep(0.05)


async def test_a_request_sent_again_is_one_request_and_another_under_its_id_is_refused(door: Door) -> None:
    asked = {"id": str(uuid.uuid4()), "text": "How is Acme doing?"}
    for _ in range(2):
        answer = await door.client.post("/v1/requests/", json=asked)
        assert (answer.status_code, answer.json()) == (202, {"id": asked["id"]})
    assert len(await records_of(door.settings, topics.RAW_REQUESTS.name, {asked["id"]})) == 1
    assert (await door.client.post("/v1/requests", json={**asked, "text": "Other"})).status_code == 409
    assert (await door.client.get("/v1/requests/nobody-asked")).status_code == 404
    assert (await door.client.get(f"/v1/requests/{asked['id']}?wait=31")).status_code == 400
    started = time.monotonic()
    pending = await door.client.get(f"/v1/requests/{asked['id']}?wait=0.5")
    assert pending.json()["status"] == "pending"
    assert 0.4 < time.monotonic() - started < 3


async def test_while_kafka_stands_still_nothing_is_confirmed_and_later_all_is_as_before(
    settings: Settings, stack: TestStores
) -> None:
    kafka = stack.stack.kafka
    if kafka is None or kafka.pid is None:
        pytest.skip("Kafka is not ours to stop")
    async with a_door(settings, GatewaySettings(ack_seconds=1)) as door:
        before, during, after = some_ids(10), some_ids(10), some_ids(10)
        assert (await door.client.post("/v1/batch", json=a_batch(before))).status_code == 200
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            await until(lambda: psutil.Process(kafka.pid).status() == psutil.STATUS_STOPPED)
            answer = await door.client.post("/v1/batch", json=a_batch(during))
            request = await door.client.post("/v1/requests", json={"demand": "health.score"})
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert request.status_code == 503
        await until_taken(door.client, a_batch(during))
        assert (await door.client.post("/v1/batch", json=a_batch(after))).status_code == 200
        records = await records_of(settings, topics.RAW_EVENTS.name, {*before, *during, *after})
        assert {dict(r.headers)["ce_id"].decode() for r in records} == {*before, *during, *after}


@asynccontextmanager
async def a_process(settings: Settings, stack: TestStores, **more: str) -> Any:
    """The gateway as its own process, ready; killed at the end if it still runs."""
    door, probes = choose(2)
    env = stack.env | {"HUNE_GATEWAY_PORT": str(door), "HUNE_PROBES_PORT": str(probes)} | more
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services", "gateway", cwd=ROOT, env=env)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{door}", auth=(await a_key(settings), ""), timeout=20
        ) as client:
            deadline = time.monotonic() + 60
            while True:
                assert process.returncode is None, "the gateway ended"
                assert time.monotonic() < deadline, "the gateway did not get ready"
                try:
                    if (await client.get(f"http://127.0.0.1:{probes}/readyz")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["drain", "kill"])
async def test_whatever_ends_the_process_what_it_confirmed_is_kept(
    settings: Settings, stack: TestStores, how: int
) -> None:
    confirmed: list[str] = []
    ended = asyncio.Event()

    async def send(client: httpx.AsyncClient) -> None:
        while not ended.is_set():
            ids = some_ids(20)
            try:
                answer = await client.post("/v1/batch", json=a_batch(ids))
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                confirmed.extend(ids)
            else:
                assert answer.status_code == 503

    async with a_process(settings, stack) as (process, client):
        senders = [asyncio.create_task(send(client)) for _ in range(4)]
        await until(lambda: len(confirmed) >= 400)
        process.send_signal(how)
        code = await asyncio.wait_for(process.wait(), 30)
        ended.set()
        await asyncio.gather(*senders)
    assert code == (0 if how == signal.SIGTERM else -signal.SIGKILL)
    records = await records_of(settings, topics.RAW_EVENTS.name, set(confirmed))
    kept = [dict(r.headers)["ce_id"].decode() for r in records]
    assert sorted(kept) == sorted(confirmed)


async def test_while_kafka_is_away_all_is_confirmed_and_kept_in_order_also_over_a_kill(
    settings: Settings, stack: TestStores, tmp_path: Path
) -> None:
    kafka = stack.stack.kafka
    if kafka is None or kafka.pid is None:
        pytest.skip("Kafka is not ours to stop")
    users = [f"spool-{uuid.uuid4()}" for _ in range(4)]
    confirmed: dict[str, list[str]] = {user: [] for user in users}
    spool = {"HUNE_GATEWAY_SPOOL_DIR": str(tmp_path), "HUNE_GATEWAY_SPOOL_SECONDS": "1"}

    async def send(client: httpx.AsyncClient, until_there_are: int) -> None:
        await asyncio.gather(*[send_one(client, user, until_there_are) for user in users])

    async def send_one(client: httpx.AsyncClient, user: str, until_there_are: int) -> None:
        while len(confirmed[user]) < until_there_are:
            ids = some_ids(10)
            messages = [{"type": "track", "messageId": id, "userId": user, "event": "Click"} for id in ids]
            answer = await client.post("/v1/batch", json={"batch": messages})
            assert answer.status_code == 200
            confirmed[user] += ids

    async with a_process(settings, stack, **spool) as (process, client):
        await until_taken(client, a_batch(some_ids(40), users=40))
        await send(client, 50)
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            await until(lambda: psutil.Process(kafka.pid).status() == psutil.STATUS_STOPPED)
            await send(client, 200)
            assert bytes_waiting(tmp_path) > 0
            process.kill()
            await process.wait()
            async with a_process(settings, stack, **spool) as (_, second):
                await send(second, 250)
                os.kill(kafka.pid, signal.SIGCONT)
                await send(second, 300)
                await until(lambda: bytes_waiting(tmp_path) == 0, 60)
                await send(second, 350)
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
    wanted = {id for ids in confirmed.values() for id in ids}
    records = await records_of(settings, topics.RAW_EVENTS.name, wanted)
    for user in users:
        mine = [dict(r.headers)["ce_id"].decode() for r in records if r.key == user.encode()]
        assert list(dict.fromkeys(mine)) == confirmed[user]


async def test_an_outage_at_200_events_a_second_refuses_loses_and_reorders_nothing(
    settings: Settings, stack: TestStores, tmp_path: Path
) -> None:
    """Kafka stands still for a minute, in the release tier for an hour."""
    kafka = stack.stack.kafka
    if kafka is None or kafka.pid is None:
        pytest.skip("Kafka is not ours to stop")
    users = [f"outage-{uuid.uuid4()}" for _ in range(5)]
    confirmed: dict[str, list[str]] = {user: [] for user in users}
    pace = EVENTS_A_SECOND // len(users) // 2  # two calls a second and user

    async def send(client: httpx.AsyncClient, user: str, calls: int) -> None:
        began = time.monotonic()
        for call in range(calls):
            await asyncio.sleep(max(0.0, began + call / 2 - time.monotonic()))
            ids = some_ids(pace)
            messages = [{"type": "track", "messageId": id, "userId": user, "event": "Click"} for id in ids]
            answer = await client.post("/v1/batch", json={"batch": messages})
            assert answer.status_code == 200
            confirmed[user] += ids

    spool = {"HUNE_GATEWAY_SPOOL_DIR": str(tmp_path), "HUNE_GATEWAY_SPOOL_SECONDS": "1"}
    async with a_process(settings, stack, **spool) as (_, client):
        await until_taken(client, a_batch(some_ids(40), users=40))
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            await asyncio.gather(*[send(client, user, 2 * OUTAGE_SECONDS) for user in users])
            assert bytes_waiting(tmp_path) > 0
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        await asyncio.gather(*[send(client, user, 4) for user in users])
        await until(lambda: bytes_waiting(tmp_path) == 0, 60 + OUTAGE_SECONDS)
        await asyncio.gather(*[send(client, user, 2) for user in users])
    assert sum(map(len, confirmed.values())) == EVENTS_A_SECOND * (OUTAGE_SECONDS + 3)
    kept = await records_of(settings, topics.RAW_EVENTS.name, {id for ids in confirmed.values() for id in ids})
    found: dict[bytes | None, dict[str, None]] = {}
    for record in kept:
        found.setdefault(record.key, {})[dict(record.headers)["ce_id"].decode()] = None
    for user in users:
        assert list(found[user.encode()]) == confirmed[user]
