"""SDKs of other families: their payloads become canonical events, answered in their own words."""

from __future__ import annotations

import base64
import gzip
import json
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.adapters import amplitude, customerio, mixpanel, posthog, snowplow
from services.gateway.adapters.base import Door, Incoming
from services.gateway.canonical import Canonical, Refused, record_of, rfc3339
from services.gateway.settings import Limits
from services.gateway.store import hash_of
from shared.events import model_of
from tests.unit.test_gateway_http import BASIC, KEY, SAMPLES, Kept, Rows, a_client
from tests.unit.test_gateway_segment import JSON, NOW

POSTHOG = Door("posthog", ("/batch",), posthog.open_capture, posthog.WORDS)


def read(door: Door, path: str, body: Any, method: str = "POST", **path_params: str) -> list[Canonical]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    events = door.open(Incoming(method, raw, path, path_params, {}, "")).read(NOW, Limits())
    for event in events:
        model_of(f"hune.{event.type}.v1").model_validate_json(record_of(event).value)
    return events


def test_posthog_capture_keeps_groups_and_drops_what_the_library_adds() -> None:
    (event,) = read(
        POSTHOG,
        "/batch/",
        {
            "api_key": KEY,
            "sent_at": "2026-06-02T10:00:00+00:00",
            "batch": [
                {
                    "uuid": "e1",
                    "event": "Report Exported",
                    "distinct_id": "u1",
                    "timestamp": "2026-06-02T09:59:50+00:00",
                    "properties": {"rows": 3, "$groups": {"company": "acct-1"}, "$lib": "x", "$ip": "203.0.113.9"},
                }
            ],
        },
    )
    assert (event.id, event.source, event.own_time) == ("e1", "posthog", "2026-06-02T09:59:50+00:00")
    assert rfc3339(event.occurred_at) == "2026-06-02T09:30:00Z"
    assert event.body == {
        "event": "Report Exported",
        "user_id": "u1",
        "timestamp": "2026-06-02T09:59:50+00:00",
        "groups": {"company": "acct-1"},
        "properties": {"rows": 3},
    }


def test_posthog_tells_people_groups_and_views() -> None:
    def one(event: str, **properties: Any) -> Canonical:
        message = {"event": event, "distinct_id": "u1", "uuid": "e", "properties": properties, "api_key": KEY}
        return read(POSTHOG, "/capture/", message)[0]

    assert one("$set", **{"$set": {"plan": "pro"}}).body == {"user_id": "u1", "traits": {"plan": "pro"}}
    assert one("$identify", **{"$anon_distinct_id": "a1"}).body["properties"] == {"previousId": "a1"}
    assert one("$create_alias", alias="a1").type == "user.identified"
    group = one("$groupidentify", **{"$group_type": "company", "$group_key": "acct-1", "$group_set": {"name": "Acme"}})
    assert (group.type, group.body["account_id"], group.body["name"]) == ("account.updated", "acct-1", "Acme")
    view = one("$pageview", **{"$pathname": "/reports"})
    assert (view.body["event"], view.body["feature"]) == ("page_viewed", "/reports")


def test_amplitude_events_carry_ms_and_groups() -> None:
    (event,) = read(
        amplitude.DOOR,
        "/2/httpapi",
        {
            "api_key": KEY,
            "events": [
                {
                    "event_type": "Report Exported",
                    "user_id": "u1",
                    "insert_id": "i1",
                    "time": 1780272000000,
                    "groups": {"company": "acct-1"},
                    "event_properties": {"rows": 3},
                    "ip": "203.0.113.9",
                }
            ],
        },
    )
    assert (event.id, event.own_time, rfc3339(event.occurred_at)) == ("i1", "2026-06-01T00:00:00Z", event.own_time)
    assert (event.body["groups"], event.body["properties"]) == ({"company": "acct-1"}, {"rows": 3})


def test_amplitude_identifies_users_and_groups() -> None:
    def one(**fields: Any) -> Canonical:
        return read(amplitude.DOOR, "/batch", {"api_key": KEY, "events": [{"user_id": "u1", **fields}]})[0]

    user = one(event_type="$identify", user_properties={"$set": {"plan": "pro"}, "$add": {"n": 1}, "title": "CEO"})
    assert user.body == {"user_id": "u1", "traits": {"plan": "pro", "title": "CEO"}}
    account = one(event_type="$groupidentify", groups={"company": "acct-1"}, group_properties={"$set": {"plan": "pro"}})
    assert (account.type, account.body["account_id"], account.body["plan"]) == ("account.updated", "acct-1", "pro")


def a_mixpanel_event(**fields: Any) -> dict[str, Any]:
    properties = {"token": KEY, "distinct_id": "u1", "$insert_id": "p1", "time": 1780272000, "company_id": "acct-1"}
    return {"event": "Report Exported", "properties": {**properties, **fields}}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([a_mixpanel_event()]).encode(),
        json.dumps(a_mixpanel_event()).encode(),
        urllib.parse.urlencode({"data": json.dumps([a_mixpanel_event()]), "verbose": 1}).encode(),
        urllib.parse.urlencode({"data": base64.b64encode(json.dumps(a_mixpanel_event()).encode())}).encode(),
        b"\n".join([json.dumps(a_mixpanel_event()).encode()] * 1) + b"\n",
    ],
    ids=["list", "one", "form", "form-base64", "line"],
)
def test_mixpanel_events_come_in_many_wrappings(body: bytes) -> None:
    (event,) = read(mixpanel.DOOR, "/track", body)
    assert (event.id, event.own_time, event.body["user_id"]) == ("p1", "2026-06-01T00:00:00Z", "u1")
    assert event.body["properties"] == {"company_id": "acct-1"}


def test_mixpanel_lines_are_events_and_what_stands_beside_the_name_counts_first() -> None:
    lines = [json.dumps({**a_mixpanel_event(), "$insert_id": f"m{n}", "time": 1780272001.5}) for n in range(3)]
    events = read(mixpanel.DOOR, "/import", "\n".join(lines).encode())
    assert [event.id for event in events] == ["m0", "m1", "m2"]
    assert events[0].own_time == "2026-06-01T00:00:01.500000Z"


def test_mixpanel_profiles_are_users_and_accounts() -> None:
    (user,) = read(mixpanel.DOOR, "/engage", [{"$token": KEY, "$distinct_id": "u1", "$set": {"plan": "pro"}}])
    assert (user.type, user.body) == ("user.identified", {"user_id": "u1", "traits": {"plan": "pro"}})
    group = {"$token": KEY, "$group_key": "company", "$group_id": "acct-1", "$set": {"plan": "pro"}}
    (account,) = read(mixpanel.DOOR, "/groups", [group])
    assert (account.type, account.body["account_id"], account.body["plan"]) == ("account.updated", "acct-1", "pro")


def snowplow_of(**fields: Any) -> Canonical:
    message = {"e": "se", "se_ac": "Report Exported", "se_ca": "exports", "uid": "u1", "eid": "e1", **fields}
    return read(snowplow.DOOR, "/com.snowplowanalytics.snowplow/tp2", {"schema": "x", "data": [message]})[0]


def test_snowplow_structured_events_keep_their_true_time() -> None:
    event = snowplow_of(ttm="1780272000000", dtm="1795360419310", stm="1795360419000", se_va="2.0", aid="web")
    assert (event.id, event.own_time, rfc3339(event.occurred_at)) == ("e1", "2026-06-01T00:00:00Z", event.own_time)
    assert (event.body["event"], event.body["feature"]) == ("Report Exported", "exports")
    assert event.body["properties"] == {"value": "2.0", "app_id": "web"}


def test_snowplow_device_times_are_corrected() -> None:
    event = snowplow_of(dtm="1780272000000", stm="1780272005000")
    assert rfc3339(event.occurred_at) == "2026-06-02T09:30:05Z"


def test_snowplow_self_describing_events_and_entities_are_read_plain_and_encoded() -> None:
    schema = {"schema": "iglu:com.acme/seat_invited/jsonschema/1-0-0", "data": {"role": "admin"}}
    entity = {"schema": "iglu:com.acme/account/jsonschema/1-0-0", "data": {"company_id": "acct-1"}}
    outer = json.dumps({"schema": "x", "data": schema})
    contexts = base64.urlsafe_b64encode(json.dumps({"schema": "x", "data": [entity]}).encode()).decode().rstrip("=")
    event = snowplow_of(e="ue", ue_pr=outer, cx=contexts)
    assert event.body["event"] == "seat_invited"
    assert event.body["properties"] == {"role": "admin", "company_id": "acct-1"}


def test_customerio_people_and_events() -> None:
    path = "/api/v1/customers/u1"
    event_door = customerio.DOORS[1]
    (event,) = read(event_door, f"{path}/events", {"name": "Exported", "data": {"company_id": "a"}}, id="u1")
    (again,) = read(event_door, f"{path}/events", {"name": "Exported", "data": {"company_id": "a"}}, id="u1")
    (other,) = read(event_door, f"{path}/events", {"name": "Exported", "data": {"company_id": "a"}}, id="u2")
    assert event.id == again.id != other.id
    (user,) = read(customerio.DOORS[0], path, {"plan": "pro", "company_id": "acct-1"}, "PUT", id="u1")
    assert (user.type, user.body["account_id"], user.body["traits"]["plan"]) == ("user.identified", "acct-1", "pro")
    (gone,) = read(customerio.DOORS[0], path, b"", "DELETE", id="u1")
    assert (gone.type, gone.body) == ("user.deactivated", {"user_id": "u1"})


FAMILIES: dict[str, tuple[Door, str, Callable[[Any], Any], dict[str, Any]]] = {
    "posthog": (POSTHOG, "/batch", lambda messages: {"api_key": KEY, "batch": messages}, {"event": "e"}),
    "amplitude": (amplitude.DOOR, "/2/httpapi", lambda messages: {"events": messages}, {"event_type": "e"}),
    "mixpanel": (mixpanel.DOOR, "/track", lambda messages: messages, {"event": "e"}),
    "engage": (mixpanel.DOOR, "/engage", lambda messages: messages, {"$distinct_id": "u"}),
    "groups": (mixpanel.DOOR, "/groups", lambda messages: messages, {"$group_key": "company", "$group_id": "a"}),
    "snowplow": (snowplow.DOOR, "/tp2", lambda messages: {"data": messages}, {"e": "se", "se_ac": "a"}),
}
NAMES = st.sampled_from(
    "event event_type distinct_id user_id properties $set $group_set time timestamp uuid insert_id $insert_id groups "
    "event_properties user_properties e uid eid dtm ttm stm ue_pr cx co se_ac se_ca token api_key $groups".split()
)
SPECIAL = st.sampled_from(
    ["$identify", "$set", "$groupidentify", "$pageview", "$create_alias", "ue", "pv", "u1", "1e9"]
)


@pytest.mark.parametrize("family", FAMILIES)
@given(
    st.lists(st.dictionaries(NAMES, JSON | SPECIAL | st.dictionaries(NAMES, JSON | SPECIAL), max_size=8), max_size=3)
)
def test_whatever_comes_is_either_refused_or_fits_the_contract(family: str, messages: list[dict[str, Any]]) -> None:
    door, path, wrap, least = FAMILIES[family]
    messages = [{**least, **message} for message in messages]
    try:
        events = read(door, path, wrap(messages))
    except Refused:
        return
    assert len(events) == len(messages)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest_asyncio.fixture
async def client(kept: Kept) -> AsyncIterator[httpx.AsyncClient]:
    rows = Rows()
    rows.rows.append({"name": "recorded", "hash": hash_of("WK_test_123"), "scopes": ["ingest"]})
    async with a_client(kept, rows) as client:
        yield client


async def test_each_family_is_answered_in_its_own_words(client: httpx.AsyncClient, kept: Kept) -> None:
    posthog_event = {"event": "E", "distinct_id": "u"}
    amplitude_event = {"event_type": "E", "user_id": "u"}
    answer = await client.post("/batch/", json={"api_key": KEY, "batch": [posthog_event]})
    assert (answer.status_code, answer.json()) == (200, {"status": 1})
    answer = await client.post("/batch", json={"api_key": KEY, "events": [amplitude_event] * 2})
    assert (answer.status_code, answer.json()["code"], answer.json()["events_ingested"]) == (200, 200, 2)
    answer = await client.post("/track", json=[a_mixpanel_event()])
    assert (answer.status_code, answer.text) == (200, "1")
    answer = await client.post("/track?verbose=1", json=[a_mixpanel_event()])
    assert answer.json() == {"status": 1, "error": None}
    answer = await client.post("/import?strict=1", json=[a_mixpanel_event()], auth=BASIC)
    assert answer.json() == {"code": 200, "num_records_imported": 1, "status": "OK"}
    payload = {"schema": "x", "data": [{"e": "se", "se_ac": "a", "uid": "u"}]}
    answer = await client.post(f"/k/{KEY}/com.snowplowanalytics.snowplow/tp2", json=payload)
    assert (answer.status_code, answer.text) == (200, "ok")
    answer = await client.put("/api/v1/customers/u1", json={"plan": "pro"}, auth=("site", KEY))
    assert (answer.status_code, answer.json()) == (200, {})
    assert len(kept.records) == 8


async def test_refusals_too_are_in_the_familys_words(client: httpx.AsyncClient, kept: Kept) -> None:
    answer = await client.post("/batch/", json={"api_key": KEY, "batch": [{"event": "E", "distinct_id": "u"}, {}]})
    assert (answer.status_code, answer.json()["type"]) == (400, "validation_error")
    assert "batch[1]" in answer.json()["detail"]
    answer = await client.post("/2/httpapi", json={"api_key": "hk_wrong", "events": []})
    assert (answer.status_code, answer.json()["code"]) == (401, 401)
    answer = await client.post("/track", json=[{**a_mixpanel_event(), "event": None}])
    assert (answer.status_code, answer.text) == (400, "0")
    answer = await client.post("/com.snowplowanalytics.snowplow/tp2", json={"data": []})
    assert answer.status_code == 401
    assert kept.records == []


RECORDED = ("posthog-python", "amplitude-python", "mixpanel-python", "snowplow-python", "customerio-python")


@pytest.mark.skipif(not SAMPLES.exists(), reason="recorded SDK requests are not here")
@pytest.mark.parametrize("name", RECORDED)
async def test_recorded_sdk_requests_are_taken(client: httpx.AsyncClient, kept: Kept, name: str) -> None:
    requests = json.loads((SAMPLES / "clients" / f"{name}.json").read_text())["requests"]
    for request in requests * 2:
        body = base64.b64decode(request["body_base64"])
        body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        headers = {k: v for k, v in request["headers"].items() if k.lower() not in ("host", "content-length")}
        prefix = "/k/WK_test_123" if name.startswith("snowplow") else ""
        answer = await client.request(request["method"], prefix + request["path"], content=body, headers=headers)
        assert answer.status_code == 200
    ids = {dict(record.headers)["ce_id"] for record in kept.records}
    users = {msgspec.json.decode(record.value)["user_id"] for record in kept.records}
    assert len(kept.records) == 2 * len(ids)
    assert len(ids) == (40 if not name.startswith("customerio") else len(requests))
    assert users <= {f"user-{n}" for n in range(40)}
