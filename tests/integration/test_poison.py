"""What no client should send, amid good traffic: nothing is lost, neighbours are exact, nobody waits."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import click
import pytest
import pytest_asyncio

from cli import quarantine
from services.feedback import app as feedback
from services.router import app as router
from services.router.handlers import Router
from services.router.reader import RawEvent
from shared import topics
from tests.support.lab import (
    Hands,
    Headers,
    Ledger,
    a_ledger,
    a_pool,
    a_routed,
    account_in,
    counts_of,
    eventually,
    hands_on,
    header,
    running,
    settings_of,
    settled,
)
from tests.support.stack import ROOT, TestStores

pytestmark = pytest.mark.asyncio

P = 1
"""The partition that has to bear it all."""
WITHIN_S = 10.0
"""Generous: measured, it is a tenth of a second (two machines' cores may be busy with other things)."""

RAW, REQUESTS = topics.RAW_EVENTS, topics.RAW_REQUESTS


def plain(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def binary(type: str = "usage.tracked", version: str = "v1", **changes: bytes | str | None) -> Headers:
    """CloudEvents headers; None leaves one out."""
    whole: dict[str, bytes | str | None] = {
        "ce_specversion": "1.0",
        "ce_id": uuid.uuid4().hex,
        "ce_source": "lab",
        "ce_type": f"hune.{type}.{version}",
        "ce_time": datetime.now(UTC).isoformat(),
        **changes,
    }
    return [
        (name, value.encode() if isinstance(value, str) else value)
        for name, value in whole.items()
        if value is not None
    ]


def usage(account: str, **fields: Any) -> bytes:
    return plain(**({"id": uuid.uuid4().hex, "account_id": account, "user_id": "u"} | fields))


def structured(**fields: Any) -> bytes:
    whole = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "lab", "type": "hune.usage.tracked.v1"} | fields
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


CLOUDEVENTS = [("content-type", b"application/cloudevents+json")]
ACCOUNT = account_in(P, 4, "poison")
A = ACCOUNT.encode()
TYPED = b'{"account_id": "%s", ' % A
LATER = (datetime.now(UTC) + timedelta(days=2)).isoformat()

# kind → (value, headers, what the reason says)
REFUSED: dict[str, tuple[bytes | None, Headers, str]] = {
    "text that is not UTF-8": (b'{"id": "x", "account_id": "%s", "event": "\xff\xfe"}' % A, (), "not UTF-8"),
    "text in a property that is not UTF-8": (
        b'{"id": "x", "account_id": "%s", "properties": {"a": "\xc3\x28"}}' % A, (), "not UTF-8",
    ),
    "a header that is not UTF-8": (usage(ACCOUNT), binary(ce_id=b"\xff\xfe"), "not UTF-8"),
    "a run that is not UTF-8": (usage(ACCOUNT), binary(ce_mode="replay", ce_run=b"\xff"), "not UTF-8"),
    "a run of a megabyte": (usage(ACCOUNT), binary(ce_mode="replay", ce_run="r" * 1_000_000), "ce_run"),
    "no value": (None, (), "empty"),
    "no value under good headers": (None, binary(), "empty"),
    "nothing": (b"", (), "empty"),
    "blanks": (b"   ", (), "JSON"),
    "100,000 deep": (b'{"id": "x", "properties": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", (), "JSON"),
    "500 deep": (b'{"id": "x", "properties": ' + b"[" * 500 + b"]" * 500 + b"}", (), "JSON"),
    "100,000 deep and cut off": (b'{"id": "x", "properties": ' + b'{"a":' * 100_000, (), "JSON"),
    "NaN": (b'{"id": "x", "account_id": "%s", "properties": {"a": NaN}}' % A, (), "JSON"),
    "NaN in a typed event": (TYPED + b'"traits": {"a": NaN}}', binary("account.updated"), "JSON"),
    "Infinity in a typed event": (TYPED + b'"traits": {"a": Infinity}}', binary("account.updated"), "JSON"),
    "1e400 in a typed event": (TYPED + b'"traits": {"a": 1e400}}', binary("account.updated"), "type"),
    "1e400 as a score": (TYPED + b'"kind": "nps", "score": 1e400}', binary("survey.answered"), "type"),
    "5,000 digits": (TYPED + b'"traits": {"a": %s}}' % (b"9" * 5000), binary("account.updated"), "type"),
    "5,000 digits as the id": (b'{"id": %s, "account_id": "%s"}' % (b"9" * 5000, A), (), "type"),
    "half a surrogate pair": (b'{"id": "x", "account_id": "%s", "event": "\\ud800"}' % A, (), "JSON"),
    "half a surrogate pair in a property": (
        b'{"id": "x", "account_id": "%s", "properties": {"a": "\\udfff!"}}' % A, (), "JSON",
    ),
    "a NUL": (b'{"id": "x", "account_id": "%s", "event": "a\\u0000b"}' % A, (), "NUL"),
    "a NUL in a key": (b'{"id": "x", "account_id": "%s", "properties": {"\\u0000": 1}}' % A, (), "NUL"),
    "a NUL in a header": (usage(ACCOUNT), binary(ce_id="a\0b"), "NUL"),
    "a type per field that is wrong": (usage(ACCOUNT, user_id=7), (), "type"),
    "a list for an account": (usage(ACCOUNT, account_id=["a", "b"]), (), "type"),
    "an object for a type": (usage(ACCOUNT, type={"name": "usage"}), (), "type"),
    "a text where a number belongs": (TYPED + b'"seats": "many"}', binary("account.updated"), "type"),
    "no id": (plain(account_id=ACCOUNT, event="x"), (), "id is missing"),
    "an empty id": (usage(ACCOUNT, id=""), (), "id is missing"),
    "no id in binary mode": (usage(ACCOUNT), binary(ce_id=None), "ce_id"),
    "no type in binary mode": (usage(ACCOUNT), binary(ce_type=None), "ce_type"),
    "no source in binary mode": (usage(ACCOUNT), binary(ce_source=None), "ce_source"),
    "an empty account": (usage(""), (), "type"),
    "an id of 10,000 characters": (usage(ACCOUNT, id="x" * 10_000), (), "256"),
    "an account of 10,000 characters": (usage("x" * 10_000), (), "type"),
    "a user of 10,000 characters": (usage(ACCOUNT, user_id="x" * 10_000), (), "type"),
    "an unknown type": (usage(ACCOUNT, type="moon.landed"), (), "not known"),
    "a type without a name": (usage(ACCOUNT), binary(ce_type="usage.tracked"), "not known"),
    "an older version": (usage(ACCOUNT), binary(version="v0"), "known: hune.usage.tracked.v1"),
    "a newer version": (usage(ACCOUNT), binary(version="v2"), "known: hune.usage.tracked.v1"),
    "a version of nobody's": (usage(ACCOUNT), binary(version="vNext"), "known"),
    "a result": (
        TYPED + b'"occurred_at": "2026-01-01T00:00:00Z", "computed_at": "2026-01-01T00:00:00Z", "request_id": "r",'
        b' "demand": null, "reason": "no"}',
        binary("request.declined"),
        "is a result",
    ),
    "the future": (usage(ACCOUNT, timestamp=LATER), (), "24 hours"),
    "the future in binary mode": (usage(ACCOUNT), binary(ce_time=LATER), "24 hours"),
    "the year 200000": (usage(ACCOUNT, timestamp=6_249_223_000_000_000), (), "timestamp"),
    "the 30th of February": (usage(ACCOUNT, timestamp="2026-02-30T00:00:00Z"), (), "timestamp"),
    "the edge of time": (usage(ACCOUNT, timestamp="0001-01-01T00:00:00+14:00"), (), "timestamp"),
    "a time in words": (usage(ACCOUNT, timestamp="yesterday"), (), "timestamp"),
    "a time that is true": (usage(ACCOUNT, timestamp=True), (), "type"),
    "a time that is a list": (usage(ACCOUNT, timestamp=[2026, 1, 1]), (), "type"),
    "a time of a megabyte": (usage(ACCOUNT, originalTimestamp="9" * 1_000_000, timestamp=1), (), "own time"),
    "a negative MRR": (TYPED + b'"mrr": "-1"}', binary("subscription.changed"), "type"),
    "an MRR that is no number": (TYPED + b'"mrr": "NaN"}', binary("subscription.changed"), "type"),
    "a currency of nobody's": (TYPED + b'"mrr": "1", "currency": "euro"}', binary("subscription.changed"), "type"),
    "a kind of survey of nobody's": (TYPED + b'"kind": "pxs", "score": 3}', binary("survey.answered"), "type"),
    "a scale in words": (TYPED + b'"kind": "nps", "score": 3, "scale": "good"}', binary("survey.answered"), "type"),
    "structured mode without an id": (structured(id=None, data={"account_id": ACCOUNT}), CLOUDEVENTS, "type"),
    "structured mode with an empty id": (structured(id="", data={"account_id": ACCOUNT}), CLOUDEVENTS, "id"),
    "structured mode around a text": (structured(data="hello"), CLOUDEVENTS, "type"),
    "plain JSON called CloudEvents": (usage(ACCOUNT), CLOUDEVENTS, "type"),
    "XML": (b"<event><id>1</id></event>", [("content-type", b"application/xml")], "JSON"),
    "a form": (b"id=1&account_id=acme", [("content-type", b"application/x-www-form-urlencoded")], "JSON"),
    "an array": (b"[" + usage(ACCOUNT) + b"]", (), "type"),
    "a text": (b'"hello"', (), "type"),
    "a number": (b"42", (), "type"),
    "null": (b"null", (), "type"),
    "a byte order mark": (b"\xef\xbb\xbf" + usage(ACCOUNT), (), "JSON"),
    "UTF-16": (usage(ACCOUNT).decode().encode("utf-16"), (), "not UTF-8"),
    "gzip": (gzip.compress(usage(ACCOUNT)), (), "not UTF-8"),
    "Parquet": (b"PAR1\x15\x04\x15\x10PAR1", (), "JSON"),
    "two objects": (usage(ACCOUNT) + usage(ACCOUNT), (), "JSON"),
    "half an object": (usage(ACCOUNT)[:-10], (), "JSON"),
    "a megabyte in a typed field": (
        TYPED + b'"text": "%s"}' % (b"x" * 1_000_000), binary("feedback.given"), "type",
    ),
    "more than can be passed on": (usage(ACCOUNT, properties={"a": "x" * 2_070_000}), (), "can be passed on"),
    "a clock that begins life": (plain(id="c1", type="clock", live=True), (), "clock record"),
    "a clock without a run": (plain(id="c2", type="clock", at="2026-01-01T00:00:00Z"), (), "clock record"),
    "a clock of the future": (plain(id="c3", type="clock", run="r", at="2999-01-01T00:00:00Z"), (), "24 hours"),
    "a clock of garbage": (plain(id="c4", type="clock", run=[1], at="noon"), (), "type"),
    "garbage that asks": (b"\x00\x01\x02", binary("request.made"), "JSON"),
    "a request for a number": (plain(id="q1", type="request.made", demand=7), (), "type"),
}  # fmt: skip

# kind → (value, headers): odd, but readable
TAKEN: dict[str, tuple[bytes, Headers]] = {
    "a header without a value": (usage(ACCOUNT), [("x-trace", None)]),
    "headers of garbage only": (usage(ACCOUNT), [("\u0000", b"\xff\x00"), ("", b""), ("x" * 5_000, b"y" * 50_000)]),
    "a wrong content type": (usage(ACCOUNT), [("content-type", b"text/plain; charset=\xff")]),
    "duplicate keys": (b'{"id": "first", "account_id": "nobody", ' + usage(ACCOUNT)[1:], ()),
    "10,000 properties": (usage(ACCOUNT, properties={f"p{n}": n for n in range(10_000)}), ()),
    "a text of a megabyte": (usage(ACCOUNT, properties={"a": "x" * 1_000_000}), ()),
    "integers beyond 64 bits": (usage(ACCOUNT, properties={"a": 2**63, "b": 2**64, "c": -(2**70)}), ()),
    "a backslash before u0000": (usage(ACCOUNT, properties={"a": "\\u0000"}), ()),
    "the year 1": (usage(ACCOUNT, timestamp="0001-01-01T00:00:00Z"), ()),
    "seconds since 1970": (usage(ACCOUNT, timestamp=1_700_000_000), ()),
    "unknown fields": (usage(ACCOUNT, nobody_knows={"this": ["field"]}), ()),
    "an id that is a number": (usage(ACCOUNT, id=uuid.uuid4().int % 10**15), ()),
    "text of every script": (usage(ACCOUNT, event="évén→𝕏‮\u200b"), ()),
}


@dataclass
class Line:
    """Router and a worker behind it, both running."""

    pool: asyncpg.Pool
    hands: Hands
    ledger: Ledger
    stack: TestStores

    async def settled(self) -> None:
        n = self.stack.partitions
        await settled(self.pool, self.hands, "router", [RAW, REQUESTS], n)
        await self.ledger.settled(self.hands)

    async def good(self) -> str:
        id = f"good-{uuid.uuid4().hex}"
        await self.hands.send(RAW, P, usage(ACCOUNT, id=id))
        return id

    async def amid_good(self, send: Callable[[], Awaitable[int]]) -> tuple[int, list[str], float]:
        """Send one odd record between two good ones: its offset, their ids, and how long the second one took."""
        first = await self.good()
        offset = await send()
        began = time.monotonic()
        second = await self.good()
        await eventually(lambda: self.ledger.has(second))
        return offset, [first, second], time.monotonic() - began

    async def held(self, offset: int, topic: Any = RAW, service: str = "router") -> asyncpg.Record:
        id = f"{service}:{topic}:{P}:{offset}"
        return await eventually(lambda: self.pool.fetchrow("select * from hune.quarantine where id = $1", id))


@pytest_asyncio.fixture(scope="module")
async def line(stack: TestStores) -> AsyncIterator[Line]:
    assert stack.partitions == 4
    async with a_pool(stack) as pool, hands_on(stack) as hands:
        async with a_ledger(stack, pool, reads=topics.ROUTED["health"]) as ledger:
            async with running(router.build(settings_of(stack)), settings_of(stack)), ledger.running():
                whole = Line(pool, hands, ledger, stack)
                await whole.settled()
                yield whole


async def test_eighty_kinds_of_poison_amid_good_traffic(line: Line) -> None:
    before, held = await counts_of(line.pool, "router"), await line.ledger.quarantined()
    good: list[str] = []
    slowest: list[tuple[float, str]] = []
    for kind, (value, headers, reason) in REFUSED.items():
        offset, ids, took = await line.amid_good(partial(line.hands.send, RAW, P, value, headers))
        good += ids
        slowest.append((took, kind))
        row = await line.held(offset)
        assert reason in f"{row['reason']} {row['error']}", f"{kind}: {row['reason']} ({row['error']})"
        assert row["value"] == value, f"{kind}: the bytes are not what was sent"
    assert len(REFUSED) >= 80
    assert max(slowest)[0] < WITHIN_S, f"the next good record waited: {max(slowest)}"
    print(f"slowest next good record: {max(slowest)[0]:.3f} s, {max(slowest)[1]}")
    await line.settled()
    mine = set(good)
    assert [id for id in await line.ledger.ids() if id in mine] == good, "neighbours in order, each once"
    after = await counts_of(line.pool, "router")
    change = {name: after[name] - before[name] for name in after if after[name] != before[name] and ":" not in name}
    assert change == {"read": 3 * len(REFUSED), "routed": len(good), "quarantined": len(REFUSED)}
    assert await line.ledger.quarantined() == held, "what the router let through, workers can read"


async def test_what_is_odd_but_readable_is_applied(line: Line) -> None:
    held = await line.ledger.quarantined()
    for kind, (value, headers) in TAKEN.items():
        before = len(await line.ledger.ids())
        await line.amid_good(partial(line.hands.send, RAW, P, value, headers))
        assert len(await line.ledger.ids()) == before + 3, kind
    assert await line.ledger.quarantined() == held


async def test_a_header_key_that_is_no_text_takes_no_neighbour_along(line: Line) -> None:
    """aiokafka raises over it: neighbours that the same fetch took, also of other partitions, must not be lost."""
    elsewhere = account_in(3, 4, "elsewhere")
    others = []
    for n in range(20):
        others.append(f"other-{uuid.uuid4().hex}")
        await line.hands.send(RAW, 3, usage(elsewhere, id=others[-1]))
        if n % 4 == 0:
            odd = usage(ACCOUNT, id=f"odd-{uuid.uuid4().hex}")
            send = partial(line.hands.send_patched, RAW, P, odd, [("XXXX", b"1")], b"XXXX", b"\xff\xfe\x80\x00")
            _, _, took = await line.amid_good(send)
            assert took < WITHIN_S
            await eventually(partial(line.ledger.has, json.loads(odd)["id"]))
    await line.settled()
    ids = await line.ledger.ids()
    assert [id for id in ids if id in set(others)] == others


async def test_a_header_key_that_is_no_text_reaches_quarantine_readable(line: Line) -> None:
    offset, _, _ = await line.amid_good(
        lambda: line.hands.send_patched(RAW, P, b"{", [("XXXX", b"1")], b"XXXX", b"a\xff\xfeb")
    )
    row = await line.held(offset)
    assert quarantine.as_json(dict(row))["headers"] == [["a\\xff\\xfeb", "1"]]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_whatever_producers_compress_with_is_read(line: Line, codec: str) -> None:
    id = f"{codec}-{uuid.uuid4().hex}"
    await line.amid_good(
        lambda: line.hands.send_compressed(RAW, P, codec, usage(ACCOUNT, id=id, properties={"a": "x" * 2000}))
    )
    assert await line.ledger.has(id)


async def test_odd_requests_are_answered_or_held_and_hold_nobody_up(line: Line) -> None:
    since = await line.hands.ends(topics.RESULTS["router"], 4)
    cases: dict[str, tuple[bytes, str]] = {
        "unknown demand": (plain(id="", demand="moon.phase", account_id=ACCOUNT), "request.declined"),
        "unknown account": (plain(id="", demand="health.score", account_id="nobody-at-all"), "request.unclear"),
        "neither demand nor text": (plain(id="", account_id=ACCOUNT), "request.declined"),
        "gibberish": (plain(id="", text="¿¿ zzz \u202e xyzzy"), "request.unclear"),
    }
    expected = {}
    for kind, (body, answer) in cases.items():
        id = f"{kind}-{uuid.uuid4().hex}"
        await line.hands.send(REQUESTS, P, json.dumps(json.loads(body) | {"id": id}).encode())
        expected[id] = f"hune.{answer}.v1"
    for value in (b"[]", b'{"id": "r", "parameters": [1]}', b'{"id": "r", "text": "%s"}' % (b"x" * 30_000)):
        offset = await line.hands.send(REQUESTS, P, value)
        assert "type" in (await line.held(offset, REQUESTS))["reason"]
    await line.settled()
    answers = {
        header(record, "ce_correlationid"): header(record, "ce_type")
        for record in await line.hands.read(topics.RESULTS["router"], 4, since)
    }
    assert answers == expected


async def test_garbage_on_a_routed_topic_stops_no_worker(line: Line) -> None:
    """Only the router should write there; whoever else does reaches quarantine and nothing else."""
    topic = topics.ROUTED["health"]
    value, headers = a_routed(ACCOUNT)

    def but(name: str, content: bytes | None) -> Headers:
        return [(n, content if n == name else v) for n, v in headers]

    cases: dict[str, tuple[bytes | None, Headers]] = {
        "no headers": (value, ()),
        "no value": (None, headers),
        "empty": (b"", headers),
        "garbage": (b"\x00\xff", headers),
        "null id": (value, but("ce_id", None)),
        "null type": (value, but("ce_type", None)),
        "null subject": (value, but("ce_subject", None)),
        "null time": (value, but("ce_time", None)),
        "id that is no text": (value, but("ce_id", b"\xff")),
        "time in words": (value, but("ce_time", b"noon")),
        "the edge of time": (value, but("ce_time", b"0001-01-01T00:00:00+14:00")),
        "unknown type": (value, but("ce_type", b"hune.moon.landed.v1")),
        "receipt in words": (value, [*headers, ("ce_recordedtime", b"noon")]),
        "receipt beyond time": (value, [*headers, ("ce_recordedtime", b"9" * 30)]),
        "confidence in words": (value, [*headers, ("ce_confidence", b"very")]),
        "a NUL in the id": (value, but("ce_id", b"a\0b")),
        "a clock of a stranger": (b'{"live": true}', but("ce_type", b"hune.clock.v1")),
        "somebody else's account": (value, but("ce_subject", account_in(2, 4).encode())),
    }
    before = await line.ledger.counts()
    for kind, (body, with_headers) in cases.items():
        offset = await line.hands.send(topic, P, body, with_headers)
        began = time.monotonic()
        next_one = await line.good()
        await eventually(partial(line.ledger.has, next_one))
        assert time.monotonic() - began < WITHIN_S, kind
        if kind != "somebody else's account":  # readable: what to make of it is the worker's business
            row = await line.held(offset, topic, line.ledger.name)
            assert row["reason"], kind
            assert row["value"] == body, kind
    await line.settled()
    after = await line.ledger.counts()
    assert after["quarantined"] - before["quarantined"] == len(cases) - 1
    assert after["read"] == after["applied"] + after["quarantined"] + after["duplicate"]


async def test_quarantine_names_the_reason_and_redrive_applies_once(line: Line) -> None:
    """A record becomes readable when what refused it is mended: here, a worker learns a scale of surveys."""
    id = f"survey-{uuid.uuid4().hex}"
    body = TYPED + b'"kind": "csat", "score": 4, "scale": "1-7"}'
    await line.hands.send(RAW, P, body, binary("survey.answered", ce_id=id))
    service = line.ledger.name
    row = await eventually(
        lambda: line.pool.fetchrow(
            "select * from hune.quarantine where service = $1 and position($2::bytea in headers) > 0",
            service,
            id.encode(),
        )
    )
    said = await asyncio.to_thread(hune, line.stack, "quarantine", "show", row["id"])
    assert "scale 1-7 is not known" in said
    assert id in said
    assert '"scale": "1-7"' in said
    assert row["id"] in [held["id"] for held in await quarantine.held(line.stack, service)]

    (outcome,) = await quarantine.redrive(line.stack, [row["id"]], timeout=30)
    assert (outcome.state, outcome.reason) == ("held", "scale 1-7 is not known")
    line.ledger.scales.add("1-7")
    (outcome,) = await quarantine.redrive(line.stack, [row["id"]], timeout=30)
    assert outcome.state == "applied"
    with pytest.raises(click.BadParameter, match="has been applied already"):
        await quarantine.redrive(line.stack, [row["id"]])
    await line.pool.execute("update hune.quarantine set state = 'redrive' where id = $1", row["id"])  # by force
    await line.settled()
    assert (await line.ledger.ids()).count(id) == 1
    counts = await line.ledger.counts()
    assert counts["read"] == counts["applied"] + counts["quarantined"] + counts["duplicate"]


async def test_what_the_router_refused_is_redriven_in_its_place_once(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mended by a newer version, which no longer stumbles over it."""
    id = f"later-{uuid.uuid4().hex}"
    copy = Router._copy

    def stumble(self: Router, event: RawEvent, *others: Any) -> None:
        if event.id == id:
            raise ArithmeticError("a mistake of this version")
        copy(self, event, *others)

    with monkeypatch.context() as older:
        older.setattr(Router, "_copy", stumble)
        offset, _, _ = await line.amid_good(partial(line.hands.send, RAW, P, usage(ACCOUNT, id=id)))
        row = await line.held(offset)
        assert row["error"] == "ArithmeticError: a mistake of this version"
    for _ in range(2):
        await line.pool.execute("update hune.quarantine set state = 'redrive' where id = $1", row["id"])
        await line.settled()
    assert (await line.ledger.ids()).count(id) == 1
    counts = await counts_of(line.pool, "router")
    outcomes = ("routed", "parked", "quarantined", "excluded", "unclear", "unrouted")
    assert counts["read"] == sum(counts[outcome] for outcome in outcomes)


async def test_a_survey_answer_out_of_its_scale_is_held_by_feedback(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in line.stack.env.items():
        monkeypatch.setenv(name, value)
    async with running(feedback.build(), settings_of(line.stack)):
        good, bad = f"s-{uuid.uuid4().hex}", f"s-{uuid.uuid4().hex}"
        await line.hands.send(RAW, P, TYPED + b'"kind": "nps", "score": 11}', binary("survey.answered", ce_id=bad))
        await line.hands.send(RAW, P, TYPED + b'"kind": "nps", "score": 9}', binary("survey.answered", ce_id=good))
        await line.settled()
        await settled(line.pool, line.hands, "feedback", [topics.ROUTED["feedback"]], 4)
        held = await line.pool.fetch("select * from hune.quarantine where service = 'feedback'")
        mine = [row for row in held if bad.encode() in row["headers"]]
        assert len(mine) == 1
        assert "11" in f"{mine[0]['reason']} {mine[0]['error']}"
        assert not [row for row in held if good.encode() in row["headers"]]


def hune(stack: TestStores, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cli", *arguments], cwd=ROOT, env=stack.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
