"""The quick way through a batch gives the very records of the long way, and refuses the same with the same words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway import segment
from services.gateway.canonical import Record, Refused, record_of
from services.gateway.contacts import Contacts
from services.gateway.settings import Limits
from shared.vault.keys import Keys

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOW = datetime(2026, 6, 2, 9, 30, 10, 123456, tzinfo=UTC)
SMALL = Limits(event_bytes=600, batch_bytes=5_000, batch_events=6, depth=5, keys=24)
TEXTS = st.sampled_from(["", "u1", "é\u2028\U0001f600", "x" * 256, "x" * 257, "NaN", "2026-06-01T00:00:00Z"])
TIMES = st.sampled_from(
    ["2026-06-01T00:00:00.123Z", "2026-06-01T02:00:00+02:00", "2026-06-01", "2026-06-01T00:00:00",
     "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+02:00",
     "9999-12-31T23:59:59-02:00", "soon", "", 1780000000, 1780000000123.5, None, True]
)  # fmt: skip
PLAIN = TEXTS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "groupId": PLAIN, "library": VALUES, "app": VALUES, "locale": PLAIN, "timezone": PLAIN, "ip": TEXTS,
        "groups": VALUES | st.just({"company": "a"}),
    },
)  # fmt: skip
PROPERTIES = st.dictionaries(
    st.sampled_from(["feature", "product", "company_id", "rows", "deep", "email", "ip", "firstName", "$name", "name"]),
    VALUES | st.sampled_from(["ada@acme.example", "203.0.113.9", [{"phone": "020 7946 0958"}]]),
    max_size=4,
)
TRACKS = st.fixed_dictionaries(
    {"type": st.just("track"), "messageId": TEXTS | st.just("m1"), "event": TEXTS | st.just("Report Exported")},
    optional={
        "userId": PLAIN | st.just("u1"),
        "anonymousId": PLAIN,
        "properties": PROPERTIES | VALUES,
        "context": CONTEXTS | VALUES,
        "groups": VALUES | st.just({"company": "acct-1"}),
        "timestamp": TIMES,
        "originalTimestamp": TIMES,
        "sentAt": TIMES,
        "account_id": PLAIN,
        "integrations": VALUES,
    },
)
ORDINARY = st.builds(
    lambda id, user, properties, context, at: {
        "type": "track", "messageId": id, "userId": user, "event": "E", "properties": properties, "context": context,
        "timestamp": at, "anonymousId": None, "integrations": {},
    },
    st.uuids().map(str), st.sampled_from(["u1", "ada@acme.example"]), PROPERTIES, CONTEXTS,
    st.just("2026-06-01T00:00:00.123Z"),
)  # fmt: skip
OTHERS = st.sampled_from(
    [{"type": "identify", "userId": "u1", "traits": {"name": "A"}}, {"type": "group", "groupId": "a", "userId": "u1"},
     {"type": "nonsense"}, {"event": "E"}, 7, None, {"type": "track", "userId": "u1", "event": "E"}]
)  # fmt: skip
BATCHES = st.fixed_dictionaries(
    {"batch": st.lists(ORDINARY | TRACKS | OTHERS, max_size=7)},
    optional={"sentAt": TIMES, "context": CONTEXTS, "writeKey": TEXTS},
)


def bare(record: Record) -> Record:
    """As Kafka will hold it."""
    return Record(record.topic, record.key, record.value, record.headers)


def outcome(read: Any, body: bytes, limits: Limits) -> list[Record] | tuple[str, int, int | None]:
    try:
        return [bare(record) for record in read(segment.open_envelope("batch", body), NOW, limits)]
    except Refused as refused:
        return refused.reason, refused.status, refused.index


def sealing(read: Any) -> Any:
    """The same, with references for what is personal."""
    vault: Any = Contacts(Keys(b"r" * 32, (b"w" * 32,)), cast("Any", None), None)
    return lambda envelope, at, limits: vault.seal(list(read(envelope, at, limits)))[0]


def the_long_way(envelope: segment.Envelope, at: datetime, limits: Limits) -> list[Record]:
    return [record_of(event) for event in segment.read_events(envelope, at, limits)]


@settings(CALM, max_examples=200)
@given(BATCHES, st.sampled_from([Limits(), SMALL]))
def test_both_ways_give_the_same_records_or_the_same_refusal(batch: dict[str, Any], limits: Limits) -> None:
    body = json.dumps(batch).encode()
    assert outcome(segment.read_records, body, limits) == outcome(the_long_way, body, limits)
    assert outcome(sealing(segment.read_records), body, limits) == outcome(sealing(the_long_way), body, limits)


@CALM
@given(ORDINARY)
def test_an_ordinary_call_takes_the_quick_way(message: dict[str, Any]) -> None:
    context = message["context"]
    if any(value != value for value in message["properties"].values() if isinstance(value, float)):
        return
    if "groups" in context:
        del context["groups"]
    text = json.dumps(message).encode()
    assert b"NaN" in text or b"Infinity" in text or segment.quick_record(text, segment.NO_SKEW, Limits()) is not None
