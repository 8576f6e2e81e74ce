"""Segment's calls become canonical events that the contract accepts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import segment
from services.gateway.canonical import Canonical, Refused, record_of, rfc3339
from services.gateway.settings import Limits
from shared.events import model_of

NOW = datetime(2026, 6, 2, 9, 30, 10, tzinfo=UTC)
LIMITS = Limits()


def read(call: str, message: Any, limits: Limits = LIMITS) -> list[Canonical]:
    return segment.read_events(segment.open_envelope(call, json.dumps(message).encode()), NOW, limits)


def batch(*messages: dict[str, Any], **more: Any) -> list[Canonical]:
    return read("batch", {"batch": list(messages), **more})


def a_track(**fields: Any) -> dict[str, Any]:
    return {"type": "track", "messageId": "m1", "userId": "u1", "event": "Report Exported", **fields}


def refusal(call: str, message: Any, limits: Limits = LIMITS) -> Refused:
    with pytest.raises(Refused) as caught:
        read(call, message, limits)
    return caught.value


def fits_contract(event: Canonical) -> None:
    model_of(f"hune.{event.type}.v1").model_validate_json(record_of(event).value)


def test_track_keeps_what_finds_the_account_and_drops_what_identifies_a_device() -> None:
    (event,) = batch(
        a_track(
            properties={"feature": "exports", "product": "reports", "rows": 3},
            context={"groupId": "acct-2", "ip": "203.0.113.9", "userAgent": "x", "groups": {"company": "acct-2"}},
            timestamp="2026-06-02T09:30:00.000Z",
        )
    )
    assert (event.type, event.id, event.source, event.key) == ("usage.tracked", "m1", "hune", "u1")
    assert event.body == {
        "event": "Report Exported",
        "feature": "exports",
        "product": "reports",
        "user_id": "u1",
        "timestamp": "2026-06-02T09:30:00.000Z",
        "properties": {"feature": "exports", "product": "reports", "rows": 3},
        "groups": {"company": "acct-2"},
        "context": {"groupId": "acct-2"},
    }
    fits_contract(event)


@pytest.mark.parametrize(("kind", "name"), [("page", "page_viewed"), ("screen", "screen_viewed")])
def test_a_view_is_usage_of_what_was_viewed(kind: str, name: str) -> None:
    (event,) = batch({"type": kind, "messageId": "m", "userId": "u1", "name": "Usage", "category": "Reports"})
    assert (event.type, event.body["event"], event.body["feature"]) == ("usage.tracked", name, "Usage")
    assert event.body["properties"] == {"category": "Reports"}
    fits_contract(event)


def test_identify_tells_the_account_by_its_company_before_the_current_group() -> None:
    (event,) = batch(
        {
            "type": "identify",
            "messageId": "m",
            "userId": "u1",
            "anonymousId": "a1",
            "traits": {"company": {"id": "acct-1"}, "title": "Head"},
            "context": {"groupId": "acct-9"},
        }
    )
    assert (event.type, event.body["account_id"], event.body["user_id"]) == ("user.identified", "acct-1", "u1")
    assert event.body["properties"] == {"anonymousId": "a1"}
    fits_contract(event)


def test_group_updates_the_account_and_links_the_member() -> None:
    account, member = batch(
        {
            "type": "group",
            "messageId": "m",
            "userId": "u1",
            "groupId": "acct-1",
            "traits": {"name": "Acme", "plan": "pro", "industry": None, "seats": 12, "employees": 480, "arr": 9_999.5},
        }
    )
    assert (account.type, account.id, account.key) == ("account.updated", "m", "u1")
    assert {name: account.body[name] for name in ("account_id", "name", "plan", "industry", "seats", "arr")} == {
        "account_id": "acct-1",
        "name": "Acme",
        "plan": "pro",
        "industry": None,
        "seats": 12,
        "arr": "9999.5",
    }
    assert "employees" not in account.body
    assert account.body["traits"]["employees"] == 480
    assert (member.type, member.body) == ("user.identified", {"account_id": "acct-1", "user_id": "u1"})
    assert member.id not in (account.id, "")
    assert member.own_time == account.own_time
    fits_contract(account)
    fits_contract(member)


def test_group_without_a_user_is_keyed_by_the_account_and_links_nobody() -> None:
    (event,) = batch({"type": "group", "messageId": "m", "groupId": "acct-1", "traits": {"plan": 7, "seats": -1}})
    assert (event.key, "plan" in event.body, "seats" in event.body) == ("acct-1", False, False)
    fits_contract(event)


def test_alias_names_who_the_user_was() -> None:
    (event,) = batch({"type": "alias", "messageId": "m", "userId": "u1", "previousId": "anon-7"})
    assert event.body == {"user_id": "u1", "properties": {"previousId": "anon-7"}}
    fits_contract(event)


def test_the_clients_clock_is_corrected_but_the_own_time_stays_as_sent() -> None:
    (event,) = batch(a_track(timestamp="2026-06-02T11:00:00.000+00:00"), sentAt="2026-06-02T11:00:05Z")
    assert event.occurred_at == NOW - timedelta(seconds=5)
    assert event.own_time == "2026-06-02T11:00:00.000+00:00"


def test_a_stated_time_beside_the_original_one_stands() -> None:
    (event,) = batch(
        a_track(timestamp="2026-06-01T00:00:00.000Z", originalTimestamp="2026-06-02T08:00:00.000Z"),
        sentAt="2026-06-02T08:00:00.000Z",
    )
    assert rfc3339(event.occurred_at) == "2026-06-01T00:00:00Z"
    assert event.own_time == "2026-06-02T08:00:00.000Z"


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"])
def test_a_time_outside_of_what_utc_can_name_is_refused(at: str) -> None:
    assert "timestamp cannot be read as a time" in refusal("track", a_track(timestamp=at)).reason


def test_without_a_time_it_happened_at_receipt_and_has_no_own_time() -> None:
    (event,) = batch(a_track())
    assert (event.occurred_at, event.own_time) == (NOW, None)
    assert not {"ce_time", "ce_owntime"} & set(dict(record_of(event).headers))


def test_an_unreadable_sent_at_corrects_nothing() -> None:
    (event,) = batch(a_track(timestamp="2026-06-01T00:00:00Z"), sentAt="yesterday")
    assert rfc3339(event.occurred_at) == "2026-06-01T00:00:00Z"


@given(st.datetimes(), st.datetimes())
def test_no_pair_of_times_breaks_the_correction(at: datetime, sent: datetime) -> None:
    (event,) = batch(a_track(timestamp=at.isoformat()), sentAt=sent.isoformat())
    assert event.own_time == at.isoformat()


def test_headers_are_cloudevents_in_binary_mode() -> None:
    (event,) = batch(a_track(timestamp="2026-06-01T00:00:00+00:00", originalTimestamp="2026-06-01T00:00:00+00:00"))
    record = record_of(event)
    assert (record.topic, record.key) == ("cs.raw.events.v1", b"u1")
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"m1",
        "ce_source": b"hune",
        "ce_type": b"hune.usage.tracked.v1",
        "ce_time": b"2026-06-01T00:00:00Z",
        "ce_owntime": b"2026-06-01T00:00:00+00:00",
        "content-type": b"application/json",
    }


def test_messages_without_an_id_get_the_same_ids_when_the_batch_is_sent_again() -> None:
    click = {"type": "track", "userId": "u1", "event": "Click", "timestamp": "2026-06-01T00:00:00Z"}
    first = batch(click, click, {**click, "event": "Other"}, sentAt="2026-06-02T09:30:00Z")
    again = batch(click, click, {**click, "event": "Other"}, sentAt="2026-06-02T09:31:00Z")
    assert [event.id for event in first] == [event.id for event in again]
    assert len({event.id for event in first}) == 3


def test_the_context_of_the_batch_is_that_of_its_messages_unless_they_say_otherwise() -> None:
    one, two = batch(
        a_track(), a_track(messageId="m2", context={"groupId": "acct-2"}), context={"groupId": "acct-1", "locale": "fr"}
    )
    assert one.body["context"] == {"groupId": "acct-1", "locale": "fr"}
    assert two.body["context"] == {"groupId": "acct-2", "locale": "fr"}


def test_a_single_call_takes_its_kind_from_the_path() -> None:
    (event,) = read("track", {"userId": 7, "event": "Click", "writeKey": "hk_x", "properties": [], "type": "page"})
    assert (event.body["user_id"], event.body["event"]) == ("7", "Click")


def test_an_anonymous_visitor_is_a_user_and_null_is_nobody() -> None:
    (event,) = batch(a_track(userId=None, anonymousId="a1"))
    assert event.body["user_id"] == "a1"
    assert "userId" in refusal("track", a_track(userId=None, anonymousId="")).reason


def test_an_event_of_an_account_needs_no_user() -> None:
    (event,) = batch(a_track(userId=None, properties={"company_id": "acct-1"}))
    assert (event.key, "user_id" in event.body) == ("acct-1", False)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"type": "trak"}, "type is missing or unknown"),
        ({"type": "track", "userId": "u"}, "event is missing"),
        ({"type": "group", "userId": "u"}, "groupId is missing"),
        ({"type": "alias", "userId": "u"}, "previousId is missing"),
        (a_track(userId={"a": 1}), "userId is an object"),
        (a_track(userId="x" * 257), "userId has 257 characters"),
        (a_track(properties="no"), "properties is a string"),
        (a_track(timestamp="soon"), "timestamp cannot be read as a time"),
        (a_track(timestamp=True), "timestamp cannot be read as a time"),
        ([], "shape"),
        (7, "shape"),
    ],
)
def test_a_refusal_names_the_message_and_the_fix(message: Any, says: str) -> None:
    refused = refusal("batch", {"batch": [a_track(), message]})
    assert (refused.status, refused.index) == (400, 1)
    assert says in refused.reason


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"[]", b"{}", b'{"batch": {}}', b"\xff{}", b"[" * 100_000])
def test_what_is_no_batch_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        segment.read_events(segment.open_envelope("batch", body), NOW, LIMITS)
    assert caught.value.status == 400


def test_json_that_only_sdks_write_is_understood() -> None:
    body = b'{"batch": [{"type": "track", "userId": "u", "event": "E", "properties": {"a": NaN, "b": "x\\ud800"}}]}'
    (event,) = segment.read_events(segment.open_envelope("batch", body), NOW, LIMITS)
    assert event.body["properties"] == {"a": None, "b": "x?"}


def test_an_event_over_32_kib_is_refused_with_its_index() -> None:
    big = a_track(properties={"text": "x" * 32_768})
    refused = refusal("batch", {"batch": [a_track(), big]})
    assert (refused.status, refused.index) == (413, 1)
    assert len(batch(a_track(properties={"text": "x" * 32_000}))) == 1


def test_a_batch_over_500_kib_is_refused_where_it_exceeds_unless_rudderstack_sent_it() -> None:
    messages = [a_track(messageId=str(n), properties={"text": "x" * 10_000}) for n in range(60)]
    refused = refusal("batch", {"batch": messages})
    assert refused.status == 413
    assert refused.index is not None
    assert 48 < refused.index < 52
    assert len(batch(*[{**message, "channel": "server"} for message in messages])) == 60


def test_too_many_messages_too_deep_or_too_many_keys_are_refused() -> None:
    few = Limits(batch_events=2, depth=4, keys=20)
    assert refusal("batch", {"batch": [a_track()] * 3}, few).index == 2
    deep: dict[str, Any] = {}
    for _ in range(5):
        deep = {"a": deep}
    assert "deep" in refusal("track", a_track(properties=deep), few).reason
    assert "keys" in refusal("track", a_track(properties={str(n): n for n in range(30)}), few).reason
    many_short = a_track(properties={"list": [{}] * 10})
    assert len(read("track", many_short, few)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (*segment.Message.__struct_fields__, "integrations")


@given(
    st.lists(
        st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(segment.CALLS), max_size=8)
        | st.builds(lambda kind, rest: {**rest, "type": kind}, st.sampled_from(segment.CALLS), st.dictionaries(
            st.sampled_from(FIELDS), JSON | st.just("2026-06-01T00:00:00Z"), max_size=8)),
        max_size=4,
    )
)  # fmt: skip
def test_whatever_comes_is_either_refused_or_fits_the_contract(messages: list[dict[str, Any]]) -> None:
    fault: int | None = None
    events: list[Canonical] = []
    try:
        events = batch(*messages)
    except Refused as refused:
        fault = refused.index
    assert events or fault is not None or not messages
    assert fault is None or fault < len(messages)
    for event in events:
        fits_contract(event)
