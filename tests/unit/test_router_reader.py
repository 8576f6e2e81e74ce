"""Raw records as they come: three ways to write the same event, and one identity."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from services.router.reader import LARGEST, RawEvent, moment, raw_reader
from services.router.settings import Routing
from shared import config, topics
from shared.errors import Poison
from shared.runtime.fetching import UNREADABLE
from shared.runtime.identity import identity
from shared.runtime.wire import Item, Own, Refused
from tests.support.stack import ROOT

ROUTING = config.load(ROOT / "config/routing.yaml", Routing).model
READ = raw_reader(ROUTING)
RECEIVED = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000)
AT = "2026-05-31T10:00:00Z"


def record(value: bytes | None, headers: Any = (), topic: str = topics.RAW_EVENTS.name) -> Any:
    return ConsumerRecord(topic, 0, 7, RECEIVED, 1, b"k", value, None, 1, len(value or b""), tuple(headers))


def read(value: Any, headers: Any = (), topic: str = topics.RAW_EVENTS.name) -> RawEvent:
    item = READ(record(value if isinstance(value, bytes) else json.dumps(value).encode(), headers, topic))
    assert isinstance(item, Own), item
    event: Any = item.signal
    assert isinstance(event, RawEvent)
    return event


def refused(value: Any, headers: Any = ()) -> str:
    item = READ(record(value if isinstance(value, bytes) else json.dumps(value).encode(), headers))
    assert isinstance(item, Refused), item
    return f"{item.reason}: {item.error}"


def binary(**attributes: str) -> list[tuple[str, bytes]]:
    whole = {"id": "e1", "source": "hune", "type": "hune.usage.tracked.v1", "time": AT} | attributes
    return [(f"ce_{name}", value.encode()) for name, value in whole.items()]


def test_the_three_ways_to_write_an_event_give_it_the_same_identity() -> None:
    data = {"account_id": "acme", "user_id": "u1", "event": "opened"}
    plain = read({"id": "e1", "timestamp": AT} | data)
    in_headers = read(data, binary())
    enveloped = {"specversion": "1.0", "id": "e1", "source": "hune", "type": "hune.usage.tracked.v1", "time": AT}
    structured = read(enveloped | {"data": data}, [("content-type", b"application/cloudevents+json")])
    undeclared = read(enveloped | {"data": data})
    events = (plain, in_headers, structured, undeclared)
    assert len({identity(e.source, e.id, e.own_time) for e in events}) == 1
    assert {(e.account_id, e.user_id, e.type, e.occurred_at) for e in events} == {
        ("acme", "u1", "usage.tracked", datetime(2026, 5, 31, 10, tzinfo=UTC))
    }


def test_bytes_are_kept_as_they_came() -> None:
    odd = b'{ "id":"e1" ,"account_id":"acme", "unknown":{"kept": [1,2 ]}}'
    assert read(odd).value == odd


@pytest.mark.parametrize("name", ["id", "event_id", "messageId"])
def test_an_id_goes_by_three_names(name: str) -> None:
    assert read({name: "m-1", "account_id": "acme"}).id == "m-1"


def test_the_clients_original_time_is_the_events_own_and_the_corrected_one_its_place() -> None:
    event = read({"id": "e", "account_id": "a", "originalTimestamp": "2026-05-31T09:00:00Z", "timestamp": AT})
    assert event.own_time == "2026-05-31T09:00:00Z"
    assert event.occurred_at == datetime(2026, 5, 31, 10, tzinfo=UTC)
    event = read({"account_id": "a"}, binary(owntime="2026-05-31T09:00:00Z"))
    assert event.own_time == "2026-05-31T09:00:00Z"


def test_without_a_time_an_event_happened_when_the_broker_got_it_and_has_no_time_of_its_own() -> None:
    event = read({"id": "e", "account_id": "a", "received_at": "2020-01-01T00:00:00Z"})
    assert event.own_time is None
    assert event.occurred_at.timestamp() * 1000 == RECEIVED


def test_the_first_account_path_that_is_filled_in_wins() -> None:
    whole: dict[str, Any] = {
        "id": "e", "context": {"groupId": "by-context"}, "groups": {"company": "by-groups"},
        "$groups": {"company": "by-dollar"}, "properties": {"company_id": "by-company", "account_id": "by-property"},
    }  # fmt: skip
    order = [
        ("account_id", "named"), ("context", "by-context"), ("groups", "by-groups"), ("$groups", "by-dollar"),
        ("properties", "by-company"),
    ]  # fmt: skip
    body = {"account_id": "named"} | whole
    for name, expected in order:
        assert read(body).account_id == expected
        del body[name]
    assert read(body).account_id is None
    assert read({"id": "e", "properties": {"company_id": None, "account_id": 7}}).account_id == "7"
    assert read({"id": "e", "properties": {"company_id": True, "account_id": "x" * 300}}).account_id is None


def test_a_record_on_the_requests_topic_asks() -> None:
    event = read({"id": "r", "demand": "health.score", "account_id": "acme"}, topic=topics.RAW_REQUESTS.name)
    assert event.type == "request.made"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-05-31T10:00:00Z", datetime(2026, 5, 31, 10, tzinfo=UTC)),
        ("2026-05-31T12:00:00+02:00", datetime(2026, 5, 31, 10, tzinfo=UTC)),
        ("2026-05-31T10:00:00", datetime(2026, 5, 31, 10, tzinfo=UTC)),
        ("2026-05-31", datetime(2026, 5, 31, tzinfo=UTC)),
        ("1780221600", datetime(2026, 5, 31, 10, tzinfo=UTC)),
        ("1780221600000", datetime(2026, 5, 31, 10, tzinfo=UTC)),
        ("1780221600.5", datetime(2026, 5, 31, 10, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_clients_write_them(text: str, at: datetime) -> None:
    assert moment(text) == at


@given(st.text(max_size=40) | st.floats().map(str) | st.integers().map(str))
def test_a_time_is_read_or_refused(text: str) -> None:
    with suppress(Poison):
        assert moment(text).tzinfo is not None


def test_a_batch_that_could_not_be_unpacked_says_so() -> None:
    assert "cannot be unpacked (zstd" in refused(b"\x00\x01", [(UNREADABLE, b"zstd is missing")])


def test_what_no_kafka_topic_of_ours_could_hold_is_refused_at_the_door() -> None:
    assert "can be passed on" in refused(b'{"id": "e", "properties": "%s"}' % (b"x" * LARGEST))


def test_the_end_of_a_run_is_a_clock_record_and_life_is_for_the_router_to_begin() -> None:
    ended = {"id": "c", "type": "clock", "run": "r1", "at": AT}
    assert read(ended).type == "clock"
    assert "clock record" in refused(ended | {"live": True})
    assert "clock record" in refused({"id": "c", "type": "clock", "run": "r1"})
    assert "24 hours" in refused(ended | {"at": "2026-06-02T00:00:01Z"})


def test_a_record_of_a_run_carries_the_run() -> None:
    headers = [*binary(), ("ce_mode", b"replay"), ("ce_run", b"run-1")]
    event = read({"account_id": "a"}, headers)
    assert (event.mode, event.run) == (b"replay", b"run-1")


@given(st.binary(max_size=200), st.lists(st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=20))))
def test_no_bytes_make_the_reader_raise(value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    item: Item = READ(record(value, headers))
    assert isinstance(item, Own | Refused)


_json: Any = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_names = ["id", "type", "account_id", "user_id", "timestamp", "properties", "event", "specversion", "data", "source"]


@given(st.dictionaries(st.sampled_from(_names), _json, max_size=8), st.sampled_from(sorted(ROUTING.events)))
def test_no_json_makes_the_reader_raise(body: dict[str, Any], type: str) -> None:
    for value in (body, {"id": "e", "type": type} | body):
        assert isinstance(READ(record(json.dumps(value).encode())), Own | Refused)
