"""Polled tools against real Kafka and PostgreSQL: a gateway killed on the way, tools that page, throttle and fail."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from cli import poll, quarantine
from cli.settle import settle
from devstack import ports
from services.gateway.pollers.hubspot import HubspotFeed
from services.gateway.pollers.settings import feeds_of, load
from services.gateway.pollers.store import Cursors, list_polls, rewind
from services.gateway.pollers.translate import records_of
from services.gateway.webhooks.settings import Webhooks
from shared import db
from shared.kafka import consumer_options
from shared.topics import RAW_EVENTS
from tests.support import polled as made
from tests.support.lab import eventually
from tests.support.stack import ROOT, TestStores, running_stores

START = datetime.now(UTC).replace(microsecond=0)
FEEDS = (
    ("salesforce", "accounts"), ("salesforce", "tasks"), ("hubspot", "deals"), ("chorus", "engagements"),
    ("mixpanel", "events"),
)  # fmt: skip
CONFIG = """
salesforce: {{enabled: true, address: '{address}', feeds: [accounts, tasks], every_seconds: 1, since: {since}}}
hubspot: {{enabled: true, address: '{address}', feeds: [deals], every_seconds: 1, since: {since}}}
chorus: {{enabled: true, address: '{address}', every_seconds: 1, since: {since}}}
mixpanel: {{enabled: true, address: '{address}', every_seconds: 1, since: {since}, calls_per_hour: 100000}}
"""
SECRETS = {
    "HUNE_POLL_SALESFORCE_CLIENT_ID": "id",
    "HUNE_POLL_SALESFORCE_CLIENT_SECRET": "secret",
    "HUNE_POLL_HUBSPOT_TOKEN": "pat-1",
    "HUNE_POLL_CHORUS_TOKEN": "chorus-1",
    "HUNE_POLL_MIXPANEL_USERNAME": "user",
    "HUNE_POLL_MIXPANEL_SECRET": "secret",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[TestStores]:
    with running_stores() as stores:
        yield stores


class Tools:
    """All four tools behind one address; each begins with throttling, failing and breaking off."""

    def __init__(self) -> None:
        width = timedelta(hours=6)
        self.lists: dict[str, dict[str, list[Any]]] = {}
        for tool, feed in FEEDS:
            rows = made.spread(tool, feed, 23, until=START - timedelta(minutes=5), width=width)
            self.lists.setdefault(tool, {})[feed] = rows
        self.odd = self.lists["hubspot"]["deals"][7]
        self.odd["properties"]["hs_lastmodifieddate"] = "the day before"
        self.accounts = {tool: made.Account(tool, lists, per_page=4) for tool, lists in self.lists.items()}
        self.faults = {tool: ["throttle", "fine", "fail", "fine", "tear"] for tool in self.lists}
        self.calls: Counter[str] = Counter()
        self.tokens = 0
        self.slow = 0.05
        self.at_once: Counter[str] = Counter()
        self.most_at_once: Counter[str] = Counter()
        self.address = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, body = (
            request.path,
            await request.json() if request.can_read_body and "json" in request.content_type else None,
        )
        if path == "/services/oauth2/token":
            self.tokens += 1
            return web.json_response({"access_token": f"t{self.tokens}"})
        tool = {"services": "salesforce", "crm": "hubspot", "v3": "chorus", "api": "mixpanel"}[path.split("/")[1]]
        shown = request.headers["authorization"]
        if tool == "salesforce" and (shown != f"Bearer t{self.tokens}" or self.calls[tool] == 6):
            self.calls[tool] += self.calls[tool] == 6
            return web.json_response([{"errorCode": "INVALID_SESSION_ID"}], status=401)
        self.calls[tool] += 1
        fault = self.faults[tool].pop(0) if self.faults[tool] else "fine"
        if fault == "throttle":
            return web.Response(status=429, headers={"retry-after": "0"})
        if fault == "fail":
            return web.Response(status=503, headers={"retry-after": "0"})
        if tool == "salesforce" and "q" not in request.query:
            return web.Response(body=self.accounts[tool].answer(path, request.query, body))
        feed = f"{tool} {request.query.get('q', '').partition(' FROM ')[2].partition(' ')[0]}"
        self.at_once[feed] += 1
        self.most_at_once[feed] = max(self.most_at_once[feed], self.at_once[feed])
        await asyncio.sleep(self.slow)
        self.at_once[feed] -= 1
        answer = self.accounts[tool].answer(path, request.query, body)
        if fault == "tear":
            broken = web.StreamResponse(headers={"content-length": str(len(answer) + 10)})
            await broken.prepare(request)
            await broken.write(answer[: len(answer) // 2])
            assert request.transport is not None
            request.transport.close()
            return broken
        return web.Response(body=answer)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Tools]:
    tools, app = Tools(), web.Application()
    app.router.add_route("*", "/{path:.*}", tools.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    tools.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield tools
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def a_process(stack: TestStores, name: str, config: Path, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {**stack.env, **SECRETS, "HUNE_CONFIG_DIR": str(config), "HUNE_GATEWAY_PORT": str(ports.choose(1)[0])}
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services", name, cwd=ROOT, env=env, stderr=file, stdout=file
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def on_the_wire(stack: TestStores) -> list[ConsumerRecord[Any, Any]]:
    consumer = AIOKafkaConsumer(**consumer_options(stack.bootstrap_servers))
    await consumer.start()
    try:
        parts = [TopicPartition(RAW_EVENTS.name, n) for n in range(stack.partitions)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        found: list[Any] = []
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
        return found
    finally:
        await consumer.stop()


def identity(headers: Any) -> tuple[bytes, ...]:
    named = dict(headers)
    return tuple(named.get(name) or b"" for name in ("ce_source", "ce_id", "ce_owntime"))


def expected(config: Path, tools: Tools) -> set[tuple[bytes, ...]]:
    """What every record tells, read one by one."""
    found: set[tuple[bytes, ...]] = set()
    for feed in feeds_of(load(config), Webhooks()):
        account = made.Account(feed.tool, tools.lists[feed.tool], per_page=1000)
        step: Any = feed.first(START - timedelta(days=2), datetime.now(UTC))
        while step is not None:
            ask = feed.ask(step)
            page = feed.read(step, account.answer(ask.path, ask.query, ask.json), is_last=True)
            found |= {identity(one.headers) for reading in page.readings for one in records_of(feed, reading)[0]}
            step = page.next
    return found


@contextlib.asynccontextmanager
async def control(stack: TestStores) -> AsyncIterator[db.Connection]:
    connection = await db.connect(stack.database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_every_record_arrives_once_though_the_tools_fail_and_the_gateway_is_killed(
    stack: TestStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, log = tmp_path / "config", tmp_path / "log"
    config.mkdir()
    for path in (ROOT / "config").glob("*.yaml"):
        (config / path.name).write_text(path.read_text())
    async with serving() as tools, control(stack) as row:
        since = (START - timedelta(days=1)).date()
        (config / "pollers.yaml").write_text(CONFIG.format(address=tools.address, since=since))
        async with a_process(stack, "router", config, log):
            async with a_process(stack, "gateway", config, log) as gateway:
                await eventually(lambda: _calls(tools, 5), 60)
                gateway.kill()
                await gateway.wait()
            killed = {one["feed"]: one["position"] for one in await list_polls(row)}
            sent = {identity(one.headers) for one in await on_the_wire(stack)}
            for feed in feeds_of(load(config), Webhooks()):
                position = killed.get(feed.name)
                if position is not None:  # what the cursor has passed is on the wire
                    page = [one for one in tools.lists[feed.tool][feed.name]
                            if made.time_of(feed.tool, feed.name, one) < position]  # fmt: skip
                    told = [e for one in page for e in _told(feed, one)]
                    assert set(told) <= sent
            await row.execute("update gateway.polls set leased_until = now()")  # as if a minute had gone by
            tools.most_at_once.clear()
            async with a_process(stack, "gateway", config, log), a_process(stack, "gateway", config, log):
                await eventually(lambda: _whole(row), 60)
                assert set(tools.most_at_once.values()) == {1}
                wanted = expected(config, tools)
                assert {identity(one.headers) for one in await on_the_wire(stack)} == wanted
                rows = poll.report(load(config), await list_polls(row))
                assert {one["feed"] for one in rows} == {f"{tool}.{feed}" for tool, feed in FEEDS}
                assert {one["state"] for one in rows} <= {"waiting", "reading"}
            await _the_odd_one_is_redriven(stack, config, tools, monkeypatch)
    assert tools.tokens > 1
    assert all(not faults for faults in tools.faults.values())


def _told(feed: Any, row: Any) -> list[tuple[bytes, ...]]:
    if feed.tool == "salesforce":
        row = {name: value for name, value in row.items() if name in feed.fields}
    return [identity(one.headers) for reading in _readings(feed, row) for one in records_of(feed, reading)[0]]


def _readings(feed: Any, row: Any) -> Any:
    account = made.Account(feed.tool, {feed.name: [row]}, per_page=10)
    step = feed.first(START - timedelta(days=2), datetime.now(UTC))
    while step is not None:
        ask = feed.ask(step)
        page = feed.read(step, account.answer(ask.path, ask.query, ask.json), is_last=True)
        yield from page.readings
        step = page.next


async def _calls(tools: Tools, count: int) -> bool:
    return all(tools.calls[tool] >= count for tool in ("salesforce", "hubspot"))


async def _whole(row: db.Connection) -> bool:
    """Whether every feed has had two rounds without trouble."""
    rows = await list_polls(row)
    after = START + timedelta(seconds=1)
    return len(rows) == len(FEEDS) and all(
        one["succeeded_at"] is not None and one["error"] is None and one["position"] > after for one in rows
    )


async def _the_odd_one_is_redriven(
    stack: TestStores, config: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNE_CONFIG_DIR", str(config))
    assert (await settle(stack, timeout=60)).settled
    held = await quarantine.held(stack, "router")
    assert held
    assert b"the day before" in (await quarantine.load(stack, held[0]["id"]))["value"]
    read = HubspotFeed.events

    def mended(feed: HubspotFeed, body: bytes) -> Any:
        return read(feed, body.replace(b"the day before", b"2026-05-04T09:00:00Z"))

    monkeypatch.setattr(HubspotFeed, "events", mended)
    done = await quarantine.redrive(stack, service="router")
    assert {one.state for one in done} == {"applied"}
    assert await quarantine.held(stack, "router") == []
    ids = {identity(one.headers)[1] for one in await on_the_wire(stack)}
    assert f"deal:{tools.odd['id']}:2026-05-04T09:00:00Z".encode() in ids


async def test_of_several_processes_one_has_the_feed_until_its_lease_ends(stack: TestStores) -> None:
    async with control(stack) as row:
        await row.execute("delete from gateway.polls")
        one, other = Cursors(row, "one", 600.0), Cursors(row, "other", 600.0)
        assert await one.take("chorus", "engagements") is not None
        assert await other.take("chorus", "engagements") is None
        assert await one.renew("chorus", "engagements")
        assert await one.move("chorus", "engagements", START, 3, 1)
        assert not await other.move("chorus", "engagements", START + timedelta(days=1), 1, 0)
        await row.execute("update gateway.polls set leased_until = now()")
        taken = await other.take("chorus", "engagements")
        assert taken is not None
        assert taken.position == START
        assert not await one.renew("chorus", "engagements")
        assert not await one.move("chorus", "engagements", START + timedelta(days=1), 1, 0)
        assert await other.move("chorus", "engagements", START - timedelta(days=1), 0, 0)  # never backwards
        await other.fail("chorus", "engagements", 600.0, "HTTP 500")
        assert await other.take("chorus", "engagements") is None  # not before its time
        (found,) = await list_polls(row)
        told = {name: found[name] for name in ("position", "failures", "error", "records", "unread", "holder")}
        assert told == {
            "position": START, "failures": 1, "error": "HTTP 500", "records": 3, "unread": 1, "holder": None,
        }  # fmt: skip


async def test_a_feed_that_is_rewound_is_read_again_and_a_round_that_runs_moves_nothing(stack: TestStores) -> None:
    async with control(stack) as row:
        await row.execute("delete from gateway.polls")
        cursors, back = Cursors(row, "one"), START - timedelta(days=9)
        await cursors.take("chorus", "engagements")
        await cursors.move("chorus", "engagements", START, 1, 0)
        await rewind(row, "chorus", "engagements", back)
        assert not await cursors.renew("chorus", "engagements")
        assert not await cursors.move("chorus", "engagements", START, 1, 0)
        again = await cursors.take("chorus", "engagements")
        assert again is not None
        assert again.position == back
