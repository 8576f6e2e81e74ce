"""Whatever is posted to a door is read or refused: nothing else is raised, nothing is lost, doubled or unsendable."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.adapters.base import Door, Incoming
from services.gateway.canonical import Record, Refused
from services.gateway.doors import DOORS
from services.gateway.requests import read_request
from services.gateway.settings import Limits
from services.router.reader import raw_reader
from services.router.settings import Routing
from shared import config
from shared.runtime.wire import Own
from shared.runtime.wire import Record as Wire
from shared.runtime.wire import Refused as Unreadable
from tests.support.repository import ROOT

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOW = datetime(2026, 6, 2, 9, 30, 10, tzinfo=UTC)
TIME, ID = "2026-06-01T00:00:00.000Z", "0190f3a0-0000-7000-8000-00000000000"
TRACK = {"type": "track", "messageId": "m", "userId": "u1", "event": "E", "timestamp": TIME, "properties": {"a": 1}}
CALLS: dict[str, Any] = {
    "/v1/batch": {
        "batch": [
            {**TRACK, "messageId": "m1"},
            {"type": "identify", "messageId": "m2", "userId": "u2", "traits": {"company": {"id": "c"}}, "context": {}},
            {"type": "group", "messageId": "m3", "userId": "u3", "groupId": "g", "traits": {"arr": 5, "seats": 3}},
            {"type": "alias", "messageId": "m4", "userId": "u4", "previousId": "p"},
            {"type": "page", "messageId": "m5", "userId": "u5", "name": "Home", "properties": {"path": "/"}},
        ],
        "sentAt": TIME,
        "context": {"library": {"name": "x"}},
    },
    "/v1/track": TRACK,
    "/batch": {
        "api_key": "k",
        "batch": [
            {"event": "$pageview", "distinct_id": "u", "uuid": ID + "1", "timestamp": TIME, "properties": {}},
            {"event": "$identify", "distinct_id": "u", "uuid": ID + "2", "$set": {"a": 1}, "properties": {}},
            {"event": "$groupidentify", "distinct_id": "u", "uuid": ID + "3",
             "properties": {"$group_type": "company", "$group_key": "c", "$group_set": {"name": "C"}}},
        ],
    },
    "/2/httpapi": {
        "api_key": "k",
        "events": [{"user_id": "u", "event_type": "E", "insert_id": "i1", "time": 1780000000000, "groups": {"a": "b"}}],
    },
    "/track": [{"event": "E", "properties": {"token": "k", "distinct_id": "u", "$insert_id": "i", "time": 1780000000}}],
    "/engage": [{"$token": "k", "$distinct_id": "u", "$set": {"a": 1}, "$time": 1780000000}],
    "/com.snowplowanalytics.snowplow/tp2": {
        "schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4",
        "data": [{"e": "pv", "eid": ID + "4", "uid": "u", "dtm": "1780000000000", "stm": "1780000000001", "url": "/"}],
    },
    "/api/v1/customers/u1": {"email": "a@b.example", "created_at": 1780000000},
    "/api/v1/customers/u1/events": {"name": "E", "data": {"a": 1}, "id": "01A", "timestamp": 1780000000},
}  # fmt: skip
WITHOUT_ID = ("/api/v1/customers/u1",)
"""Customer.io's update of a person: the same sent twice says the same twice."""
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["x" * 300, "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
READ = raw_reader(config.load(ROOT / "config/routing.yaml", Routing).model)


def door_of(path: str) -> tuple[Door, dict[str, str]]:
    for door in DOORS:
        for stem in door.paths:
            parts, given_parts = stem.strip("/").split("/"), path.strip("/").split("/")
            pairs = list(zip(parts, given_parts, strict=False))
            if len(parts) == len(given_parts) and all(a == b or a.startswith("{") for a, b in pairs):
                return door, {a.strip("{}"): b for a, b in pairs if a.startswith("{")}
    raise AssertionError(f"no door at {path}")


def read(path: str, body: bytes, content_type: str = "application/json") -> list[Record] | Refused:
    """What the door makes of it: any other exception would be a 503 for ever."""
    door, found = door_of(path)
    try:
        opened = door.open(Incoming("PUT" if path.endswith("u1") else "POST", body, path, found, {}, content_type))
        return opened.records(NOW, Limits())
    except Refused as refused:
        return refused


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def identities(records: list[Record]) -> list[tuple[bytes | None, ...]]:
    return [
        tuple(dict(record.headers).get(name) for name in ("ce_source", "ce_id", "ce_owntime")) for record in records
    ]


@pytest.mark.parametrize("path", CALLS)
def test_a_good_call_is_read_whole_and_the_same_again(path: str) -> None:
    body = json.dumps(CALLS[path]).encode()
    first, second = read(path, body), read(path, body)
    assert isinstance(first, list)
    assert isinstance(second, list)
    messages = next((value for value in CALLS[path].values() if isinstance(value, list)), [None]) if isinstance(
        CALLS[path], dict) else CALLS[path]  # fmt: skip
    memberships = sum(isinstance(one, dict) and one.get("type") == "group" for one in messages)
    assert len(first) == len(messages) + memberships
    if path not in WITHOUT_ID:
        assert identities(first) == identities(second)
    assert len(set(identities(first))) == len(first)


@pytest.mark.parametrize("path", CALLS)
@settings(CALM, max_examples=60)
@given(st.integers(0, 2**32), st.lists(JUNK, min_size=1, max_size=3))
def test_a_spoilt_call_is_read_or_refused_and_what_is_read_the_router_reads_too(
    path: str, seed: int, junk: list[Any]
) -> None:
    call, dice = copy.deepcopy(CALLS[path]), random.Random(seed)
    for value in junk:
        container, key = dice.choice(places(call) or [([call], 0)])
        if dice.random() < 0.2 and isinstance(container, dict):
            del container[key]
        else:
            container[key] = value
        if not places(call):
            break
    found = read(path, json.dumps(call).encode("utf-8", "surrogatepass"))
    if isinstance(found, Refused):
        assert 400 <= found.status < 500
        return
    for n, record in enumerate(found):
        assert record.key
        item = READ(Wire(record.topic, 0, n, int(NOW.timestamp() * 1000), record.key, record.value, record.headers))
        # What cannot be kept (a NUL, a time too far ahead) goes to quarantine and says why.
        assert isinstance(item, Own) or (isinstance(item, Unreadable) and item.reason)


@pytest.mark.parametrize("path", CALLS)
@CALM
@given(st.binary(max_size=200) | JUNK.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(path: str, body: bytes) -> None:
    for content_type, sent in (("application/json", body), ("application/x-www-form-urlencoded", body),
                               ("application/x-www-form-urlencoded", urlencode({"data": body}).encode())):  # fmt: skip
        found = read(path, sent, content_type)
        assert isinstance(found, list) or 400 <= found.status < 500


@CALM
@given(st.binary(max_size=200) | JUNK.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_requests_of_any_kind_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(Refused):
        read_request(body, NOW)
