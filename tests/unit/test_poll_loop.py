"""The loop of all feeds: whatever fails or is killed, every record is on the wire and the cursor never ahead of it."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.canonical import Record
from services.gateway.pollers.base import Ask, Feed, Stale, Trouble
from services.gateway.pollers.chorus import ChorusFeed
from services.gateway.pollers.http import PART_BYTES, Pacer, Vendor, retry_after
from services.gateway.pollers.hubspot import HubspotFeed
from services.gateway.pollers.loop import BACKOFF, WAITS, Memory, Plan, Poller
from services.gateway.pollers.mixpanel import MixpanelFeed
from services.gateway.pollers.salesforce import SalesforceFeed
from services.gateway.pollers.settings import ChorusPoll, HubspotPoll, MixpanelPoll, SalesforcePoll, Secrets
from services.gateway.pollers.store import Cursor
from services.gateway.pollers.translate import identity, is_polled, records_of
from services.gateway.spool import NotDurable
from tests.support import polled as made
from tests.support.polled import NOW, as_json

PLAN = Plan(every=60.0, overlap=timedelta(minutes=15), since=NOW - timedelta(days=1))
FEEDS: list[Feed] = [
    SalesforceFeed("accounts"),
    HubspotFeed("deals", most=10, per_page=3),
    ChorusFeed(),
    MixpanelFeed(),
]


class Killed(BaseException):
    """The process is gone in the middle of it."""


@dataclass
class Row:
    """The cursor's row, which outlives the process."""

    now: datetime = NOW
    position: datetime | None = None
    holder: str | None = None
    failures: int = 0
    error: str | None = None
    again_in: float | None = None
    records: int = 0
    unread: int = 0


@dataclass
class World:
    """A tool's account, the wire, the row, and what goes wrong: one entry is taken at every step that can."""

    account: made.Account
    row: Row = field(default_factory=Row)
    wire: list[Record] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    holder: str = "we"
    lease_seconds: float = 60.0
    delivered: Callable[[datetime], None] = lambda position: None

    def _next(self) -> str:
        return self.trouble.pop(0) if self.trouble else "fine"

    # the API

    async def call(self, feed: Feed, ask: Ask) -> AsyncGenerator[tuple[bytes, bool], None]:
        match self._next():
            case "kill":
                raise Killed
            case "throttle":
                raise Trouble("throttled", "too many calls", 2.0)
            case "hold":
                raise Trouble("throttled", "too many calls", 3600.0)
            case "fail":
                raise Trouble("failed", "HTTP 500")
            case "refuse":
                raise Trouble("refused", "HTTP 400: no such column")
            case "stale":
                raise Stale
            case "tear":
                body = self.account.answer(ask.path, ask.query, ask.json)
                yield body[:-20] or b"{", True  # never between two lines: that the connection tells
                return
            case "cut" if ask.is_lines:
                body = self.account.answer(ask.path, ask.query, ask.json)
                yield body[: body.rfind(b"\n", 0, len(body) // 2) + 1], False
                raise Trouble("failed", "no whole answer")
        yield self.account.answer(ask.path, ask.query, ask.json), True

    # the rows

    async def take(self, tool: str, feed: str) -> Cursor | None:
        if self._next() == "kill":
            raise Killed
        self.row.holder = self.holder
        return Cursor(self.row.position, self.row.failures, self.row.now)

    async def renew(self, tool: str, feed: str) -> bool:
        return True

    async def move(self, tool: str, feed: str, position: datetime | None, records: int, unread: int) -> bool:
        what = self._next()
        if what == "kill":
            raise Killed
        if self.row.holder != self.holder or what == "lose":
            return False
        if position is not None:
            self.row.position = max(self.row.position or position, position)
            self.delivered(self.row.position)
        self.row.records, self.row.unread = self.row.records + records, self.row.unread + unread
        if what == "kill after":
            raise Killed
        return True

    async def succeed(self, tool: str, feed: str, again_in: float) -> None:
        self.row.failures, self.row.error, self.row.again_in, self.row.holder = 0, None, again_in, None

    async def fail(self, tool: str, feed: str, again_in: float, error: str) -> None:
        self.row.failures, self.row.error, self.row.again_in = self.row.failures + 1, error, again_in
        self.row.holder = None

    async def release(self, tool: str, feed: str) -> None:
        self.row.holder = None

    async def position(self, tool: str, feed: str) -> datetime | None:
        return self.row.position

    # the wire

    async def publish(self, records: Sequence[Record]) -> None:
        match self._next():
            case "kill":
                raise Killed
            case "full":
                raise NotDurable("Kafka is away and the spool is full", certain=True)
            case "unsure":
                self.wire += records
                raise NotDurable("no acknowledgement", certain=False)
            case "kill after":
                self.wire += records
                raise Killed
        self.wire += records

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def a_poller(feed: Feed, world: World, plan: Plan = PLAN) -> Poller:
    return Poller(feed, world, world, world.publish, plan, sleep=world.sleep, spread=lambda: 1.0)


async def until_it_succeeds(feed: Feed, world: World) -> int:
    """Rounds, each killed process followed by a new one, until one of them is whole; gives how many rounds."""
    poller, rounds = a_poller(feed, world), 0
    while True:
        rounds += 1
        assert rounds < 100
        try:
            await poller.once()
        except Killed:
            poller = a_poller(feed, world)
            continue
        if world.row.error is None and world.row.holder is None:
            return rounds


def identities(records: Sequence[Record]) -> set[bytes]:
    return {identity(one) for one in records}


def expected(feed: Feed, rows: Sequence[Any]) -> set[bytes]:
    return set().union(*(_of_row(feed.tool, as_json(row)) for row in rows))


@functools.cache
def _of_row(tool: str, row: bytes) -> set[bytes]:
    feed, asked = next(one for one in FEEDS if one.tool == tool), json.loads(row)
    if isinstance(feed, SalesforceFeed):
        asked = {name: value for name, value in asked.items() if name in feed.fields}
    (reading,) = feed.read(*_page(feed, asked), is_last=True).readings
    return identities(records_of(feed, reading)[0])


def _page(feed: Feed, row: Any) -> tuple[Any, bytes]:
    answers = {
        "salesforce": {"totalSize": 1, "done": True, "records": [row]},
        "hubspot": {"total": 1, "results": [row]},
        "chorus": {"engagements": [row]},
    }
    body = as_json(row) + b"\n" if feed.tool == "mixpanel" else as_json(answers[feed.tool])
    return feed.first(NOW - timedelta(hours=1), NOW), body


TROUBLES = st.lists(
    st.sampled_from(
        [
            "fine",
            "fine",
            "fine",
            "kill",
            "kill after",
            "throttle",
            "hold",
            "fail",
            "refuse",
            "stale",
            "tear",
            "cut",
            "full",
            "unsure",
            "lose",
        ]
    ),
    max_size=25,
)


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.tool)
@settings(max_examples=30, deadline=None)
@given(trouble=TROUBLES, again=TROUBLES, count=st.integers(0, 16))
def test_whatever_fails_every_record_is_on_the_wire_and_the_cursor_never_ahead_of_it(
    feed: Feed, trouble: list[str], again: list[str], count: int
) -> None:
    rows = made.spread(feed.tool, feed.name, count, until=NOW - timedelta(minutes=2))
    world = World(made.Account(feed.tool, {feed.name: rows}, most=10))
    late = made.spread(feed.tool, feed.name, count + 4, until=NOW - timedelta(minutes=5), width=timedelta(0))[-1:]

    def delivered(position: datetime) -> None:
        before = [row for row in rows if made.time_of(feed.tool, feed.name, row) < position]
        assert expected(feed, before) <= identities(world.wire)
        assert position <= world.row.now

    world.delivered = delivered

    async def live() -> None:
        world.trouble = list(trouble)
        await until_it_succeeds(feed, world)
        assert identities(world.wire) == expected(feed, rows)
        assert world.row.position == NOW - feed.settle
        later = made.spread(feed.tool, feed.name, count + 3, until=NOW + timedelta(minutes=20), width=timedelta(0))
        rows.extend(later[count:])
        world.account.lists[feed.name] = [*rows, *late]  # the tool shows it only now, though it is older
        world.row.now, world.trouble = NOW + timedelta(hours=1), list(again)
        await until_it_succeeds(feed, world)
        assert identities(world.wire) == expected(feed, [*rows, *late])
        assert world.row.position == NOW + timedelta(hours=1) - feed.settle

    asyncio.run(live())


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.tool)
async def test_the_overlap_is_read_again_and_not_sent_again(feed: Feed) -> None:
    rows = made.spread(feed.tool, feed.name, 5, until=NOW - timedelta(minutes=1), width=timedelta(minutes=10))
    world = World(made.Account(feed.tool, {feed.name: rows}))
    poller = a_poller(feed, world)
    await poller.once()
    sent = len(world.wire)
    world.row.now += timedelta(minutes=1)
    await poller.once()
    assert len(world.wire) == sent
    another = a_poller(feed, world)  # it knows nothing of what was sent, so it sends the overlap again
    await another.once()
    assert len(world.wire) == 2 * sent
    assert identities(world.wire) == expected(feed, rows)


async def test_a_record_that_nobody_understands_waits_with_its_reason_and_stops_no_other() -> None:
    rows = made.spread("hubspot", "deals", 5, until=NOW - timedelta(minutes=1))
    rows[2]["properties"]["hs_lastmodifieddate"] = "the day before"
    world = World(made.Account("hubspot", {"deals": rows}))
    await a_poller(HubspotFeed("deals"), world).once()
    (odd,) = [one for one in world.wire if is_polled(dict(one.headers))]
    assert json.loads(odd.value)["id"] == rows[2]["id"]
    assert b"cannot be read as a time" in dict(odd.headers)["ce_reason"]
    assert (len(world.wire), world.row.records, world.row.unread) == (5, 5, 1)
    assert world.row.position == NOW - HubspotFeed.settle


async def test_a_call_is_tried_again_after_the_time_that_the_tool_names() -> None:
    world = World(made.Account("chorus", {"engagements": []}), trouble=["fine", "throttle", "fail", "tear"])
    await a_poller(ChorusFeed(), world).once()
    assert world.slept == [2.0, WAITS[1], WAITS[2]]
    assert world.row.error is None


async def test_a_round_that_fails_says_why_and_comes_again_later_and_later() -> None:
    world = World(made.Account("chorus", {"engagements": []}))
    poller = a_poller(ChorusFeed(), world)
    for longest in (*BACKOFF, BACKOFF[-1]):
        world.trouble = ["fine", "refuse"]
        await poller.once()
        assert (world.row.error, world.row.again_in) == ("HTTP 400: no such column", longest)
    world.trouble = ["fine", "hold"]
    await poller.once()
    assert world.row.again_in == 3600.0
    assert (world.slept, world.row.position) == ([], None)
    await poller.once()
    assert (world.row.error, world.row.failures, world.row.again_in) == (None, 0, PLAN.every)


async def test_who_has_lost_the_feed_stops_and_moves_nothing() -> None:
    rows = made.spread("salesforce", "accounts", 9)
    world = World(made.Account("salesforce", {"accounts": rows}), trouble=["fine", "fine", "fine", "lose"])
    await a_poller(SalesforceFeed("accounts"), world).once()
    assert (world.row.position, len(world.wire)) == (None, 3)


async def test_who_is_told_to_stop_lets_the_feed_go() -> None:
    world = World(made.Account("chorus", {"engagements": []}), trouble=["fine", "fail"])
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    world.sleep = sleep  # type: ignore[method-assign]
    task = asyncio.create_task(a_poller(ChorusFeed(), world).run())
    await asyncio.wait_for(asleep.wait(), 30)
    assert world.row.holder == "we"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.row.holder is None


async def test_what_the_database_makes_fail_ends_no_poller() -> None:
    world, tries = World(made.Account("chorus", {"engagements": []})), 0

    async def take(tool: str, feed: str) -> Cursor | None:
        nonlocal tries
        tries += 1
        raise ConnectionResetError

    async def sleep(seconds: float) -> None:
        if tries == 3:
            raise asyncio.CancelledError

    world.take, world.sleep = take, sleep  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await a_poller(ChorusFeed(), world).run()
    assert tries == 3


def test_the_memory_forgets_the_oldest_first() -> None:
    memory = Memory(3)
    memory.add([b"a", b"b", b"c", b"d"])
    assert [key in memory for key in (b"a", b"b", b"c", b"d")] == [False, True, True, True]


# -- the API over HTTP -------------------------------------------------------------------------------


@dataclass
class Seen:
    calls: list[tuple[str, str, str | None, str]] = field(default_factory=list)


async def a_server(answers: Sequence[Any], seen: Seen) -> tuple[web.AppRunner, str]:
    """Answers one call after the other; an entry is (status, headers, body) or a handler."""
    left = list(answers)

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.text()
        seen.calls.append((request.method, request.path_qs, request.headers.get("authorization"), body))
        what = left.pop(0)
        if callable(what):
            found: web.StreamResponse = await what(request)
            return found
        status, headers, body = what
        return web.Response(status=status, headers=headers, body=body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def ask(vendor: Vendor, feed: Feed, ask: Ask) -> list[tuple[bytes, bool]]:
    async with aclosing(vendor.call(feed, ask)) as parts:
        return [part async for part in parts]


HUB, SECRETS = HubspotFeed("deals"), Secrets(token="pat-1")


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "after"),
    [
        (429, {"retry-after": "7"}, b"", "throttled", 7.0),
        (429, {}, b"", "throttled", None),
        (503, {"retry-after": "9"}, b"", "failed", 9.0),
        (500, {}, b"oops", "failed", None),
        (400, {}, b'{"category": "VALIDATION_ERROR", "message": "no such property"}', "refused", None),
        (401, {}, b"", "refused", None),
        (302, {"location": "https://evil.example/"}, b"", "refused", None),
    ],
)
async def test_what_a_status_means(status: int, headers: Any, body: bytes, kind: str, after: float | None) -> None:
    seen = Seen()
    runner, address = await a_server([(status, headers, body)], seen)
    vendor = Vendor(HubspotPoll(address=address), SECRETS)
    try:
        with pytest.raises(Trouble) as found:
            await ask(vendor, HUB, Ask("/crm/v3/objects/deals/search", json={"limit": 1}))
    finally:
        await vendor.close()
        await runner.cleanup()
    assert (found.value.kind, found.value.after) == (kind, after)
    assert len(seen.calls) == 1
    assert "pat-1" not in str(found.value)
    assert status != 400 or "no such property" in str(found.value)


async def test_each_tool_is_shown_its_secret_in_its_own_way() -> None:
    seen = Seen()
    runner, address = await a_server([(200, {}, b"{}")] * 3, seen)
    vendors = [
        (Vendor(HubspotPoll(address=address), SECRETS), HUB, Ask("/a", json={})),
        (Vendor(ChorusPoll(address=address), SECRETS), ChorusFeed(), Ask("/b", {"min_date": "2026-05-04T09:00:00Z"})),
        (Vendor(MixpanelPoll(address=address), Secrets(client_id="u", client_secret="s")), MixpanelFeed(), Ask("/c")),
    ]
    for vendor, feed, what in vendors:
        assert await ask(vendor, feed, what) == [(b"{}", True)]
        await vendor.close()
    await runner.cleanup()
    assert [(method, path, shown) for method, path, shown, _ in seen.calls] == [
        ("POST", "/a", "Bearer pat-1"),
        ("GET", "/b?min_date=2026-05-04T09%3A00%3A00Z", "pat-1"),
        ("GET", "/c", "Basic dTpz"),
    ]


async def test_a_token_that_is_refused_is_asked_for_anew_once() -> None:
    token: Any = (200, {}, b'{"access_token": "first"}')
    again: Any = (200, {}, b'{"access_token": "second"}')
    expired: Any = (401, {}, b'[{"errorCode": "INVALID_SESSION_ID"}]')
    seen = Seen()
    runner, address = await a_server([token, (200, {}, b"{}"), expired, again, (200, {}, b"{}")], seen)
    secrets = Secrets(client_id="id", client_secret="secret", refresh_token="refresh")
    vendor, feed = Vendor(SalesforcePoll(address=address), secrets), SalesforceFeed("accounts")
    for _ in range(2):
        assert await ask(vendor, feed, Ask("/services/data/v61.0/query", {"q": "SELECT Id"})) == [(b"{}", True)]
    await vendor.close()
    await runner.cleanup()
    shown = [(path.partition("?")[0], shown) for _, path, shown, _ in seen.calls]
    query, oauth = "/services/data/v61.0/query", "/services/oauth2/token"
    assert shown == [(oauth, None), (query, "Bearer first"), (query, "Bearer first"), (oauth, None),
                     (query, "Bearer second")]  # fmt: skip
    assert "grant_type=refresh_token" in seen.calls[0][3]


async def test_a_client_whose_secret_is_refused_is_told_so_without_it() -> None:
    runner, address = await a_server([(400, {}, b'{"error": "invalid_client"}')], Seen())
    vendor = Vendor(SalesforcePoll(address=address), Secrets(client_id="id", client_secret="hush"))
    with pytest.raises(Trouble, match="the token was refused: invalid_client") as found:
        await ask(vendor, SalesforceFeed("accounts"), Ask("/x"))
    await vendor.close()
    await runner.cleanup()
    assert (found.value.kind, "hush" in str(found.value)) == ("refused", False)


async def test_a_forgotten_place_and_a_spent_limit_are_told_apart_from_a_refusal() -> None:
    token: Any = (200, {}, b'{"access_token": "t"}')
    gone: Any = (400, {}, b'[{"errorCode": "INVALID_QUERY_LOCATOR"}]')
    spent: Any = (403, {}, b'[{"errorCode": "REQUEST_LIMIT_EXCEEDED"}]')
    runner, address = await a_server([token, gone, spent], Seen())
    vendor, feed = Vendor(SalesforcePoll(address=address), Secrets(client_id="i", client_secret="s")), FEEDS[0]
    with pytest.raises(Stale):
        await ask(vendor, feed, Ask("/x"))
    with pytest.raises(Trouble) as found:
        await ask(vendor, feed, Ask("/x"))
    await vendor.close()
    await runner.cleanup()
    assert found.value.kind == "throttled"


async def test_an_answer_of_lines_comes_in_parts_of_whole_lines_and_one_that_breaks_off_is_known() -> None:
    lines = b"".join(as_json(made.mixpanel(f"i{n}")) + b"\n" for n in range(4000))
    assert len(lines) > 3 * PART_BYTES

    async def breaks(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(lines[:-70])
        assert request.transport is not None
        request.transport.close()
        return answer

    runner, address = await a_server([(200, {}, lines), breaks], Seen())
    vendor = Vendor(MixpanelPoll(address=address), Secrets(client_id="u", client_secret="s"))
    parts = await ask(vendor, MixpanelFeed(), Ask("/api/2.0/export", is_lines=True))
    assert b"".join(body for body, _ in parts) == lines
    assert len(parts) > 2
    assert [is_last for _, is_last in parts] == [False] * (len(parts) - 1) + [True]
    assert all(body.endswith(b"\n") for body, is_last in parts if not is_last)
    with pytest.raises(Trouble, match="no whole answer"):
        await ask(vendor, MixpanelFeed(), Ask("/api/2.0/export", is_lines=True))
    await vendor.close()
    await runner.cleanup()


async def test_nobody_there_is_a_trouble_like_any_other() -> None:
    vendor = Vendor(HubspotPoll(address="http://127.0.0.1:1"), SECRETS)
    with pytest.raises(Trouble) as found:
        await ask(vendor, HUB, Ask("/x"))
    await vendor.close()
    assert found.value.kind == "failed"


async def test_calls_keep_to_so_many_an_hour_and_to_what_the_tool_asks() -> None:
    clock, slept = [100.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    pacer = Pacer(2, lambda: clock[0], sleep)
    await pacer.turn()
    clock[0] += 600
    await pacer.turn()
    assert slept == []
    await pacer.turn()
    assert slept == [3000.0]
    pacer.hold(42.0)
    clock[0] += 3600
    pacer.hold(42.0)
    await pacer.turn()
    assert slept == [3000.0, 42.0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Mon, 04 May 2026 10:01:00 GMT", 60.0),
        ("soon", None),
        (None, None),
        ("999999999", 6 * 3600.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, datetime(2026, 5, 4, 10, tzinfo=UTC)) == seconds
