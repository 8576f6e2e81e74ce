"""What each polled tool's record becomes, what is dropped, and how its list is paged."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.canonical import Canonical, Refused, record_of
from services.gateway.pollers import chorus, hubspot, mixpanel, salesforce
from services.gateway.pollers.base import Feed, Step, Torn, reading_of
from services.gateway.pollers.chorus import ChorusFeed
from services.gateway.pollers.hubspot import HubspotFeed
from services.gateway.pollers.mixpanel import MixpanelFeed
from services.gateway.pollers.running import polled
from services.gateway.pollers.salesforce import SalesforceFeed
from services.gateway.pollers.settings import Pollers, feeds_of, load
from services.gateway.pollers.translate import identity, is_polled, records_of, reread
from services.gateway.webhooks.base import Unreadable
from services.gateway.webhooks.hubspot import HubspotOptions
from services.gateway.webhooks.salesforce import ObjectMap, SalesforceOptions
from services.gateway.webhooks.settings import Webhooks
from shared.errors import Misconfigured
from shared.events import model_of, wire_type_of
from tests.support import polled as made
from tests.support.polled import NOW, as_json
from tests.unit.test_webhook_adapters import JSON, ROOT, SAMPLES, altered, every_path, leaves
from tests.unit.test_webhook_http import as_read_by_the_router

ALL = list(made.RECORDS)
MODULES: dict[str, Any] = {"salesforce": salesforce, "hubspot": hubspot, "chorus": chorus, "mixpanel": mixpanel}


def feed_of(tool: str, name: str) -> Feed:
    pollers = Pollers.model_validate(
        {
            "salesforce": {"multi_currency": True, "fields": {"accounts": ["ARR__c"]}},
            "hubspot": {"properties": {"companies": ["annual_value"]}},
        }
    )
    webhooks = Webhooks.model_validate({"tools": {"hubspot": {"options": {"solved_stages": ["4"]}}}})
    return next(one for one in feeds_of(pollers, webhooks) if (one.tool, one.name) == (tool, name))


def events(tool: str, name: str, record: Any) -> list[Canonical]:
    return feed_of(tool, name).events(as_json(record))


def one(feed: Feed, record: Any) -> tuple[str, dict[str, Any]]:
    (event,) = feed.events(as_json(record))
    return event.type, event.body


def fits(found: list[Canonical]) -> None:
    for event in found:
        record = record_of(event)
        model_of(wire_type_of(event.type)).model_validate_json(record.value)
        assert b"\\u0000" not in record.value
        assert 0 < len(event.id) <= 256
        assert event.own_time
        assert event.key


# -- for every feed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("tool", "name"), ALL)
def test_every_record_fits_the_contract_and_is_one_thing(tool: str, name: str) -> None:
    found = [event for record in made.records(tool, name) for event in events(tool, name, record)]
    fits(found)
    assert len(found) >= len(made.records(tool, name))
    assert len({(event.source, event.id, event.own_time) for event in found}) == len(found)
    accounts = {json.dumps(e.body.get("external_ids") or e.body.get("account_id") or e.body.get("properties"))
                for e in found}  # fmt: skip
    assert len(accounts) >= 2


@pytest.mark.parametrize(("tool", "name"), ALL)
def test_the_same_record_read_again_has_the_same_identity(tool: str, name: str) -> None:
    feed = feed_of(tool, name)
    for record in made.records(tool, name):
        page = [records_of(feed, reading)[0] for _ in range(2) for reading in _readings(feed, [record])]
        assert [identity(one) for one in page[0]] == [identity(one) for one in page[1]]


def _readings(feed: Feed, records: list[Any]) -> Any:
    account = made.Account(feed.tool, {feed.name: records}, per_page=100)
    step: Step | None = feed.first(NOW - timedelta(days=2), NOW)
    found: list[Any] = []
    while step is not None:
        ask = feed.ask(step)
        page = feed.read(step, account.answer(ask.path, ask.query, ask.json), is_last=True)
        found += page.readings
        step = page.next
    return found


def outcome(feed: Feed, record: Any) -> Any:
    try:
        return [(e.type, e.id, e.own_time, e.occurred_at, e.body) for e in feed.events(as_json(record))]
    except (Unreadable, Refused) as found:
        return str(found)


UNTOLD = {
    ("salesforce", "tasks"): [made.salesforce_task(CallType="Internal")],
    ("chorus", "engagements"): [made.chorus(processing_state="processing")],
}


def emptied(record: Any, steps: tuple[Any, ...]) -> Any:
    record = deepcopy(record)
    holder = record
    for step in steps[:-1]:
        holder = holder[step]
    holder[steps[-1]] = None
    return record


@pytest.mark.parametrize(("tool", "name"), ALL)
def test_what_is_dropped_is_listed_and_all_else_is_carried(tool: str, name: str) -> None:
    feed, dropped = feed_of(tool, name), MODULES[tool].DROPPED[name]
    carried: set[str] = set()
    known: set[str] = set()
    for record in [*made.records(tool, name), *UNTOLD.get((tool, name), [])]:
        before = outcome(feed, record)
        for path, steps in leaves(record):
            known.add(path)
            others = (altered(record, steps, ahead=False), altered(record, steps, ahead=True), emptied(record, steps))
            if any(outcome(feed, other) != before for other in others):
                carried.add(path)
    always = [entry for entry in dropped if " " not in entry]
    sometimes = [entry.partition(" ")[0] for entry in dropped if " " in entry]

    def under(path: str, entries: list[str]) -> bool:
        return any(path == entry or path.startswith((f"{entry}.", f"{entry}[")) for entry in entries)

    assert sorted(path for path in carried if under(path, always)) == []
    assert sorted(path for path in known - carried if not under(path, [*always, *sometimes])) == []
    paths = {path for record in made.records(tool, name) for path in every_path(record)}
    assert [entry for entry in (*always, *sometimes) if entry not in paths] == []


@pytest.mark.parametrize(("tool", "name"), ALL)
def test_unknown_fields_change_nothing(tool: str, name: str) -> None:
    """But where what is asked for is told on, as traits or properties."""
    feed = feed_of(tool, name)
    for record in made.records(tool, name):
        more = deepcopy(record) | {"brand_new": {"a": [1]}}
        assert outcome(feed, more) == outcome(feed, record)


@st.composite
def spoilt(draw: st.DrawFn, tool: str, name: str) -> Any:
    record = deepcopy(draw(st.sampled_from(made.RECORDS[tool, name])))
    for _ in range(draw(st.integers(0, 5))):
        holder: Any = record
        while isinstance(holder, (dict, list)) and holder:
            key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else list(range(len(holder)))))
            if isinstance(holder[key], (dict, list)) and holder[key] and draw(st.integers(0, 4)):
                holder = holder[key]
                continue
            if draw(st.booleans()):
                del holder[key]
            else:
                holder[key] = draw(JSON)
            break
    record["unknown to us"] = draw(JSON)
    return record


@pytest.mark.parametrize(("tool", "name"), ALL)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_no_record_breaks_a_feed_and_nothing_is_lost(tool: str, name: str, data: st.DataObject) -> None:
    feed, record = feed_of(tool, name), data.draw(spoilt(tool, name))
    try:
        body = as_json(record)
    except UnicodeEncodeError:
        return
    found = outcome(feed, record)
    reading = reading_of(body, feed.events)
    assert reading.unread is None or not reading.unread.startswith("the adapter failed"), reading.unread
    kept, unread = records_of(feed, reading)
    assert (unread is not None) == any(is_polled(dict(one.headers)) for one in kept)
    assert len(kept) >= (isinstance(found, str) or len(found) > 0)


@pytest.mark.parametrize(("tool", "name"), ALL)
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b'{"records": 1}', b"<html>"])
def test_an_answer_that_is_none_is_torn(tool: str, name: str, body: bytes) -> None:
    feed = feed_of(tool, name)
    step = feed.first(NOW - timedelta(days=1), NOW)
    if feed.ask(step).is_lines and body in (b"", b"{}", b"[]", b"null", b'{"records": 1}'):
        return
    with pytest.raises(Torn):
        feed.read(step, body, is_last=True)


@pytest.mark.parametrize(("tool", "name"), ALL)
def test_an_unread_record_is_kept_as_it_came_and_read_again_after_a_fix(tool: str, name: str) -> None:
    feed = feed_of(tool, name)
    page = feed.read(*_broken(feed), is_last=True)
    (bad, good) = page.readings
    assert bad.unread
    assert good.unread is None
    (kept,), unread = records_of(feed, bad)
    headers: dict[str, bytes | None] = dict(kept.headers)
    assert is_polled(headers)
    assert f"hune.polled.{tool}.{name}.v1" in str(as_read_by_the_router(kept))
    assert headers["ce_reason"] == (unread or "").encode()
    records, error = reread(headers, kept.value, [feed])
    assert (records, bool(error)) == ([], True)
    mended, error = reread(headers, as_json(made.records(tool, name)[0]), [feed])
    assert error is None
    assert mended
    assert "no feed" in (reread(headers, b"{}", [])[1] or "")


def _broken(feed: Feed) -> tuple[Step, bytes]:
    step = feed.first(NOW - timedelta(days=1), NOW)
    good = made.records(feed.tool, feed.name)[0]
    if feed.tool == "mixpanel":
        return step, b'{"event": 7}\n' + as_json(good) + b"\n"
    pair = [{"oh": "dear"}, good]
    answers: dict[str, Any] = {
        "salesforce": {"totalSize": 2, "done": True, "records": pair},
        "hubspot": {"total": 2, "results": [{"id": "1"}, good]},
        "chorus": {"engagements": pair, "continuation_key": None},
    }
    if feed.name == "tasks":
        answers["salesforce"]["records"] = [{"IsClosed": True}, good]
    return step, as_json(answers[feed.tool])


@pytest.mark.parametrize(("tool", "name"), ALL)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 25), per_page=st.integers(1, 7), most=st.integers(7, 12))
def test_every_record_of_a_window_is_read_whatever_the_pages(
    tool: str, name: str, count: int, per_page: int, most: int
) -> None:
    feed = feed_of(tool, name)
    if isinstance(feed, HubspotFeed):
        feed = HubspotFeed(name, feed.options, feed.more_properties, most=most, per_page=per_page)
    rows = made.spread(tool, name, count)
    account = made.Account(tool, {name: rows}, per_page=per_page, most=most)
    until, reached, read = NOW + timedelta(seconds=1), NOW - timedelta(days=2), []
    step: Step | None = feed.first(reached, until)
    calls = 0
    while step is not None:
        ask = feed.ask(step)
        page = feed.read(step, account.answer(ask.path, ask.query, ask.json), is_last=True)
        read += [json.loads(one.body) for one in page.readings]
        assert all(one.unread is None for one in page.readings)
        if page.reached is not None:
            reached = max(reached, page.reached)
            before = {made.id_of(tool, row) for row in rows if made.time_of(tool, name, row) < reached}
            assert before <= {made.id_of(tool, row) for row in read}
        step, calls = page.next, calls + 1
        assert calls < 600
    assert {made.id_of(tool, row) for row in read} == {made.id_of(tool, row) for row in rows}
    assert reached == until


# -- salesforce --------------------------------------------------------------------------------------


def test_salesforce_asks_for_the_fields_of_the_map_in_the_order_of_the_change() -> None:
    feed = feed_of("salesforce", "accounts")
    ask = feed.ask(Step(NOW - timedelta(hours=1), NOW, NOW))
    assert ask.path == "/services/data/v61.0/query"
    assert ask.query["q"] == (
        "SELECT Id, SystemModstamp, Name, Industry, BillingCountry, CurrencyIsoCode, ARR__c FROM Account "
        "WHERE SystemModstamp >= 2026-05-04T09:00:00.000Z AND SystemModstamp < 2026-05-04T10:00:00.000Z "
        "ORDER BY SystemModstamp, Id"
    )
    assert "CurrencyIsoCode" not in SalesforceFeed("opportunities").fields


def test_salesforce_account_links_its_id_and_tells_the_rest_as_traits() -> None:
    (event,) = events("salesforce", "accounts", made.salesforce_account())
    assert event.body == {
        "timestamp": "2026-05-04T09:00:00Z", "external_ids": {"salesforce": "001A"}, "name": "Nine Ltd",
        "industry": "Retail", "country": "FR", "currency": "EUR", "traits": {"ARR__c": 120000.5},
    }  # fmt: skip
    assert (event.id, event.own_time) == ("Account:001A:2026-05-04T09:00:00Z", "2026-05-04T09:00:00Z")


def test_salesforce_amounts_are_exact_and_a_currency_that_is_not_told_is_not_invented() -> None:
    (event,) = events("salesforce", "opportunities", made.salesforce_opportunity())
    told = {name: event.body.get(name) for name in ("amount", "currency", "closes_on", "stage", "kind", "won")}
    assert told == {
        "amount": "72000.1", "currency": "USD", "closes_on": "2026-06-30", "stage": "Negotiation/Review",
        "kind": "renewal", "won": None,
    }  # fmt: skip
    assert event.body["external_ids"] == {"salesforce": "001A"}
    bare = made.salesforce_opportunity(account=None)
    del bare["CurrencyIsoCode"]
    _, body = one(SalesforceFeed("opportunities"), bare)
    assert "currency" not in body
    assert body["external_ids"] == {"salesforce_opportunity": "006A"}


def test_salesforce_maps_of_the_webhook_serve_the_poller_too() -> None:
    mapped = ObjectMap(event="account.updated", fields={"Name": "name", "Hune_Id__c": "account_id", "ARR__c": "arr"})
    feed = SalesforceFeed("accounts", SalesforceOptions(objects={"Account": mapped}))
    assert feed.fields == ("Id", "SystemModstamp", "Name", "Hune_Id__c", "ARR__c")
    _, body = one(feed, made.salesforce_account(Hune_Id__c="acct-9"))
    assert (body["account_id"], body["arr"], body["external_ids"]) == ("acct-9", "120000.5", {"salesforce": "001A"})


def test_salesforce_calls_are_held_once_however_often_the_task_is_edited() -> None:
    first = events("salesforce", "tasks", made.salesforce_task())
    later = events("salesforce", "tasks", made.salesforce_task(SystemModstamp="2026-06-01T00:00:00.000+0000"))
    assert first == later
    assert first[0].body == {
        "timestamp": "2026-05-04T09:30:00Z", "external_ids": {"salesforce": "001A"}, "call_id": "00TA",
        "person_id": "005A", "duration_s": 300, "attendees": ["003A"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "task",
    [
        made.salesforce_task(IsClosed=False),
        made.salesforce_task(CallType="Internal"),
        made.salesforce_task(CallDurationInSeconds=0),
        made.salesforce_task(kind="Task"),
        made.salesforce_task(kind="ListEmail"),
    ],
)
def test_salesforce_tasks_that_are_no_contact_tell_nothing(task: Any) -> None:
    assert events("salesforce", "tasks", task) == []


def test_salesforce_e_mail_goes_one_way() -> None:
    type, body = one(feed_of("salesforce", "tasks"), made.salesforce_task(kind="Email"))
    assert (type, body["channel"], body["two_way"], "duration_s" in body) == (
        "touchpoint.logged",
        "email",
        False,
        False,
    )


def test_salesforce_follows_only_its_own_query_locators() -> None:
    feed = feed_of("salesforce", "accounts")
    step = feed.first(NOW - timedelta(days=1), NOW)
    for elsewhere in (
        None,
        "https://evil.example/query/1",
        "/services/oauth2/token",
        "/services/data/v61.0/query/../x",
    ):
        page = as_json({"totalSize": 9, "done": False, "records": [], "nextRecordsUrl": elsewhere})
        with pytest.raises(Torn):
            feed.read(step, page, is_last=True)


def test_salesforce_limits_and_expired_locators_are_told_apart() -> None:
    feed = feed_of("salesforce", "accounts")
    assert feed.is_throttled(403, b'[{"errorCode":"REQUEST_LIMIT_EXCEEDED"}]')
    assert not feed.is_throttled(403, b'[{"errorCode":"INSUFFICIENT_ACCESS"}]')
    assert feed.is_stale(400, b'[{"errorCode":"INVALID_QUERY_LOCATOR"}]')
    assert not feed.is_stale(400, b'[{"errorCode":"INVALID_FIELD"}]')


# -- hubspot -----------------------------------------------------------------------------------------


def test_hubspot_searches_a_window_of_milliseconds_by_id() -> None:
    feed = HubspotFeed("deals")
    ask = feed.ask(feed.first(datetime(2026, 5, 4, 9, tzinfo=UTC), datetime(2026, 5, 4, 10, 0, 0, 500, tzinfo=UTC)))
    assert ask.path == "/crm/v3/objects/deals/search"
    assert ask.json["filterGroups"] == [
        {
            "filters": [
                {"propertyName": "hs_lastmodifieddate", "operator": "GTE", "value": "1777885200000"},
                {"propertyName": "hs_lastmodifieddate", "operator": "LT", "value": "1777888800001"},
            ]
        }
    ]
    assert ask.json["sorts"] == [{"propertyName": "hs_object_id", "direction": "ASCENDING"}]
    assert "hs_primary_associated_company" in ask.json["properties"]
    assert "lastmodifieddate" in json.dumps(HubspotFeed("contacts").ask(feed.first(NOW, NOW)).json)


def test_hubspot_company_tells_fields_and_what_else_was_asked_for() -> None:
    (event,) = events("hubspot", "companies", made.hubspot_company())
    assert event.body == {
        "timestamp": "2026-05-04T09:00:00.123000Z", "external_ids": {"hubspot": "501"}, "name": "Nine Ltd",
        "domain": "nine.example", "industry": "RETAIL", "country": "France", "stage": "customer",
        "traits": {"annual_value": "120000.5"},
    }  # fmt: skip
    _, body = one(feed_of("hubspot", "companies"), made.hubspot_company(name=None))
    assert "name" not in body


def test_hubspot_deal_is_of_its_company_and_won_by_its_stage() -> None:
    (event,) = events("hubspot", "deals", made.hubspot_deal())
    assert event.body == {
        "timestamp": "2026-05-04T09:00:00.123000Z", "external_ids": {"hubspot": "501"}, "opportunity_id": "601",
        "stage": "closedwon", "amount": "72000.10", "currency": "EUR", "closes_on": "2026-06-30", "kind": "renewal",
        "won": True,
    }  # fmt: skip
    _, body = one(feed_of("hubspot", "deals"), made.hubspot_deal(company=None, dealstage="closedlost"))
    assert (body["external_ids"], body["won"]) == ({"hubspot_deal": "601"}, False)


def test_hubspot_ticket_is_opened_and_solved_once() -> None:
    first = events("hubspot", "tickets", made.hubspot_ticket())
    later = made.hubspot_ticket()
    later["properties"]["hs_lastmodifieddate"] = "2026-05-05T09:00:00.000Z"
    second = events("hubspot", "tickets", later)
    assert [event.type for event in first] == ["ticket.opened", "ticket.updated", "ticket.solved"]
    assert first[0] == second[0]
    assert first[2] == second[2]
    assert first[1].id != second[1].id
    told = first[1].body
    assert (told["subject"], told["text"], told["severity"]) == ("Export fails", "The export fails", "p2")
    assert [event.type for event in events("hubspot", "tickets", made.RECORDS["hubspot", "tickets"][1])] == [
        "ticket.opened", "ticket.updated",
    ]  # fmt: skip


def test_hubspot_contact_has_its_role_where_a_property_tells_it() -> None:
    feed = HubspotFeed("contacts", HubspotOptions(contact_properties={"buying_role": "role", "jobtitle": "title"}))
    _, body = one(feed, made.hubspot_contact(buying_role="Champion"))
    told = (body["role"], body["title"], body["email"], body["external_ids"])
    assert told == ("champion", "Head of Ops", "ann@nine.example", {"hubspot": "501"})
    assert "role" not in one(feed, made.hubspot_contact(buying_role="juggler"))[1]


def test_hubspot_a_record_that_changes_while_its_window_is_read_hides_no_other() -> None:
    rows = made.spread("hubspot", "deals", 12)
    feed, account = HubspotFeed("deals", per_page=3), made.Account("hubspot", {"deals": rows}, per_page=3)
    step: Step | None = feed.first(NOW - timedelta(days=1), NOW)
    read: list[str] = []
    while step is not None:
        ask = feed.ask(step)
        page = feed.read(step, account.answer(ask.path, ask.query, ask.json), is_last=True)
        read += [json.loads(one.body)["id"] for one in page.readings]
        if account.lists["deals"] and len(read) in (3, 6):
            account.lists["deals"].pop(0)  # it has a later time now, and is in a later window
        step = page.next
    assert set(read) == {row["id"] for row in rows}


def test_hubspot_more_of_one_millisecond_than_a_search_gives_are_read_on_by_id() -> None:
    rows = [made.hubspot("deals", str(n), "2026-05-04T09:00:00.123Z", amount="1") for n in range(1, 48)]
    feed = HubspotFeed("deals", most=10, per_page=3)
    account = made.Account("hubspot", {"deals": rows}, per_page=3, most=10)
    step: Step | None = feed.first(NOW - timedelta(days=1), NOW)
    read: list[str] = []
    while step is not None:
        ask = feed.ask(step)
        page = feed.read(step, account.answer(ask.path, ask.query, ask.json), is_last=True)
        read += [json.loads(one.body)["id"] for one in page.readings]
        step = page.next
    assert sorted(read, key=int) == [row["id"] for row in rows]


# -- chorus ------------------------------------------------------------------------------------------


def test_chorus_names_the_account_of_the_crm() -> None:
    (event,) = events("chorus", "engagements", made.chorus())
    assert event.body == {
        "timestamp": "2026-05-04T09:00:00Z", "external_ids": {"salesforce": "001A"}, "call_id": "E1",
        "person_id": "110022", "duration_s": 1500, "language": "en", "attendees": ["chorus:2"],
    }  # fmt: skip
    assert (event.type, event.id) == ("call.held", "E1:salesforce:001A")
    (other,) = ChorusFeed(crm="hubspot").events(as_json(made.chorus(account_id=501)))
    assert other.body["external_ids"] == {"hubspot": "501"}


def test_chorus_without_a_crm_is_one_call_for_each_company_present() -> None:
    people = [{"person_id": n, "type": "cust", "email": f"a@{place}.example"} for n, place in enumerate(("x", "y"))]
    found = events("chorus", "engagements", made.chorus(account_id="", participants=people))
    assert [(event.id, event.body["email"]) for event in found] == [("E1:x.example", "a@x.example"),
                                                                   ("E1:y.example", "a@y.example")]  # fmt: skip


def test_chorus_what_nobody_came_to_was_not_held_and_what_is_not_processed_yet_waits() -> None:
    type, body = one(ChorusFeed(), made.chorus(no_show=True))
    assert (type, body["meeting_id"], "duration_s" in body) == ("meeting.no_show", "E1", False)
    assert events("chorus", "engagements", made.chorus(processing_state="processing")) == []
    with pytest.raises(Unreadable, match="seance"):
        events("chorus", "engagements", made.chorus(kind="seance"))


# -- mixpanel ----------------------------------------------------------------------------------------


def test_mixpanel_has_the_identity_of_the_events_api() -> None:
    (event,) = events("mixpanel", "events", made.mixpanel())
    assert (event.source, event.id, event.own_time) == ("mixpanel", "aa01", "2026-05-04T09:00:00Z")
    assert event.body == {
        "event": "Report Exported", "user_id": "user-14", "timestamp": "2026-05-04T09:00:00Z",
        "properties": {"company_id": "acct-4", "format": "csv"},
    }  # fmt: skip


def test_mixpanel_equal_lines_without_an_id_are_one_event() -> None:
    bare = made.mixpanel(None)
    assert events("mixpanel", "events", bare) == events("mixpanel", "events", deepcopy(bare))


def test_mixpanel_asks_day_by_day_and_is_at_a_days_end_when_the_day_is_read() -> None:
    feed = MixpanelFeed(project_id="42")
    step: Step | None = feed.first(datetime(2026, 5, 2, 15, tzinfo=UTC), NOW)
    asked, reached = [], []
    while step is not None:
        ask = feed.ask(step)
        asked.append((ask.query["from_date"], ask.query["to_date"], ask.query["project_id"], ask.is_lines))
        page = feed.read(step, b"", is_last=True)
        reached.append(page.reached)
        step = page.next
    assert asked == [(day, day, "42", True) for day in ("2026-05-02", "2026-05-03", "2026-05-04")]
    assert reached == [datetime(2026, 5, 3, tzinfo=UTC), datetime(2026, 5, 4, tzinfo=UTC), NOW]


def test_mixpanel_days_and_times_of_an_old_project_are_of_its_clock() -> None:
    feed = MixpanelFeed(timezone="America/New_York")
    step = feed.first(datetime(2026, 5, 4, 2, tzinfo=UTC), NOW)
    assert (feed.ask(step).query["from_date"], step.start) == ("2026-05-03", datetime(2026, 5, 3, 4, tzinfo=UTC))
    (event,) = feed.events(as_json(made.mixpanel()))
    assert (event.own_time, event.occurred_at) == ("2026-05-04T13:00:00Z", datetime(2026, 5, 4, 13, tzinfo=UTC))


def test_mixpanel_an_export_that_breaks_off_is_asked_for_again() -> None:
    feed, line = MixpanelFeed(), as_json(made.mixpanel())
    step = feed.first(NOW, NOW)
    for cut in (line + b"\n" + line[:40], line + b"\nterminated early", line + b"\nterminated early\n"):
        with pytest.raises(Torn):
            feed.read(step, cut, is_last=True)
    assert len(feed.read(step, line + b"\n" + line, is_last=True).readings) == 2


# -- settings ----------------------------------------------------------------------------------------


def test_the_shipped_file_says_what_the_defaults_are_and_asks_nobody() -> None:
    assert load(ROOT / "config") == Pollers()
    assert Pollers().enabled() == {}
    assert polled(ROOT / "config", Webhooks(), {}) == ()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("hubspot: {token: pat-na1-secret}", "names an environment variable"),
        ("hubspot: {feeds: [companies, dreams]}", "dreams"),
        ("hubspot: {properties: {companies: [A-b]}}", "A-b"),
        ("salesforce: {address: http://acme.example}", "https://"),
        ("salesforce: {fields: {accounts: ['Id FROM User']}}", "API name"),
        ("salesforce: {fields: {dreams: [A]}}", "dreams"),
        ("mixpanel: {timezone: Mars/Base}", "Mars/Base"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "pollers.yaml").write_text(text + "\n")
    with pytest.raises(Misconfigured, match=wrong):
        load(tmp_path)
    assert load(tmp_path / "none") == Pollers()


def test_an_enabled_tool_needs_its_address_and_secrets(tmp_path: Path) -> None:
    (tmp_path / "pollers.yaml").write_text("hubspot: {enabled: true}\n")
    with pytest.raises(Misconfigured, match="HUNE_POLL_HUBSPOT_TOKEN"):
        polled(tmp_path, Webhooks(), {})
    (tool,) = polled(tmp_path, Webhooks(), {"HUNE_POLL_HUBSPOT_TOKEN": "pat-1"})
    assert (tool.name, len(tool.feeds), "pat-1" in repr(tool)) == ("hubspot", 4, False)
    (tmp_path / "pollers.yaml").write_text("salesforce: {enabled: true}\n")
    with pytest.raises(Misconfigured, match="address"):
        polled(tmp_path, Webhooks(), {})


# -- documented samples ------------------------------------------------------------------------------


@pytest.mark.skipif(not SAMPLES.exists(), reason="documented samples are not here")
def test_every_sample_is_read() -> None:
    for name in ("v3-engagements", "v3-engagement-dialer"):
        body = (SAMPLES / "chorus" / f"{name}.json").read_bytes()
        page = ChorusFeed().read(ChorusFeed().first(NOW, NOW), body, is_last=True)
        assert [one.unread for one in page.readings] == [None]
        fits([event for one in page.readings for event in one.events])
    body = (SAMPLES / "mixpanel" / "raw-export.ndjson").read_bytes()
    page = MixpanelFeed().read(MixpanelFeed().first(NOW, NOW), body, is_last=True)
    assert [event.id for one in page.readings for event in one.events] == ["aa01", "aa02"]


def test_an_event_that_no_record_can_hold_leaves_its_length_and_hash() -> None:
    feed = MixpanelFeed()
    line = as_json(made.mixpanel(format="x" * 2_000_000))
    (kept,), unread = records_of(feed, feed.read(feed.first(NOW, NOW), line + b"\n", is_last=True).readings[0])
    assert "only its length" in dict(kept.headers)["ce_reason"].decode()
    assert unread
    assert msgspec.json.decode(kept.value)["bytes"] == len(line)
