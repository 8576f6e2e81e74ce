"""What each tool's payload becomes: the mapping, what is dropped, and that no payload breaks an adapter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.canonical import Canonical, record_of
from services.gateway.webhooks import NAMES
from services.gateway.webhooks.asknicely import AskNicelyOptions
from services.gateway.webhooks.base import Delivery, Options, Unreadable
from services.gateway.webhooks.delighted import DelightedOptions
from services.gateway.webhooks.hubspot import HubspotOptions
from services.gateway.webhooks.intercom import IntercomOptions
from services.gateway.webhooks.salesforce import ObjectMap, SalesforceOptions
from services.gateway.webhooks.settings import Webhooks, load
from services.gateway.webhooks.text import MAX_TEXT, html_text, plain_text
from services.gateway.webhooks.tools import TOOLS
from services.gateway.webhooks.translate import read
from shared.errors import Misconfigured
from shared.events import model_of, wire_type_of
from tests.support import webhooks as made
from tests.support.webhooks import NOW, a_delivery, as_json

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT.parent / "shared" / "samples"


def events(tool: str, payload: Any, options: Options | None = None) -> list[Canonical]:
    body = payload if isinstance(payload, bytes) else made.encoder(tool)(payload)
    return TOOLS[tool].events(a_delivery(body, options))


def one(tool: str, payload: Any, options: Options | None = None) -> tuple[str, dict[str, Any]]:
    (event,) = events(tool, payload, options)
    return event.type, event.body


def unread(tool: str, payload: Any, options: Options | None = None) -> Unreadable:
    with pytest.raises(Unreadable) as found:
        events(tool, payload, options)
    return found.value


def fits(found: list[Canonical]) -> None:
    for event in found:
        record = record_of(event)
        model_of(wire_type_of(event.type)).model_validate_json(record.value)
        assert b"\\u0000" not in record.value
        assert 0 < len(event.id) <= 256
        assert event.key


# -- for every tool ----------------------------------------------------------------------------------

KINDS = [(tool, n) for tool in NAMES for n in range(len(made.PAYLOADS[tool]))]


@pytest.mark.parametrize(("tool", "n"), KINDS)
def test_every_kind_of_payload_fits_the_contract(tool: str, n: int) -> None:
    found = events(tool, made.payloads(tool)[n])
    fits(found)
    assert len({(event.source, event.id, event.own_time) for event in found}) == len(found)


@pytest.mark.parametrize(("tool", "n"), KINDS)
def test_a_redelivery_has_the_same_ids_and_own_times(tool: str, n: int) -> None:
    """Whenever it arrives, and whatever the sender counts up in it."""
    payload = made.payloads(tool)[n]
    again = deepcopy(payload)
    if tool == "hubspot":
        for entry in again:
            entry["attemptNumber"] += 1
    if tool == "intercom":
        again |= {"delivery_attempts": 5, "delivery_status": "retry", "delivered_at": 1777889999}
    if tool == "stripe":
        again["pending_webhooks"] = 0
    body, later = made.encoder(tool)(again), NOW + timedelta(hours=5)
    first, second = events(tool, payload), TOOLS[tool].events(Delivery(body, {"x-retry": "1"}, later))
    told = [(event.source, event.id, event.own_time, event.type, event.key, event.body) for event in first]
    assert told == [(event.source, event.id, event.own_time, event.type, event.key, event.body) for event in second]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(path as DROPPED writes it, steps) of every value that holds no other; empty lists and objects tell nothing."""

    def walk(value: Any, path: str, steps: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, f"{path}.{name}" if path else name, (*steps, name))
        elif isinstance(value, list):
            for n, inner in enumerate(value):
                yield from walk(inner, f"{path}[]", (*steps, n))
        else:
            yield path, steps

    return walk(value, path, ())


def altered(payload: Any, steps: tuple[Any, ...], *, ahead: bool) -> Any:
    payload = deepcopy(payload)
    holder = payload
    for step in steps[:-1]:
        holder = holder[step]
    value = holder[steps[-1]]
    if isinstance(value, bool):
        value = not value
    elif isinstance(value, (int, float)):
        value += 1_000_003  # of seconds, more than a day
    else:
        value = "zz9" if value is None else f"x{value}" if ahead else f"{value}9"
    holder[steps[-1]] = value
    return payload


def outcome(tool: str, payload: Any) -> Any:
    try:
        return [(e.type, e.id, e.own_time, e.occurred_at, e.body) for e in events(tool, payload)]
    except Unreadable as found:
        return str(found)


def is_dropped(tool: str, path: str) -> bool:
    return any(path == entry or path.startswith((f"{entry}.", f"{entry}[")) for entry in TOOLS[tool].dropped)


@pytest.mark.parametrize("tool", NAMES)
def test_what_is_dropped_is_listed_and_all_else_is_carried(tool: str) -> None:
    """Change one field at a time: a listed one changes no event of any payload, every other one does in some."""
    carried: set[str] = set()
    known: set[str] = set()
    for payload in made.payloads(tool):
        before = outcome(tool, payload)
        for path, steps in leaves(payload):
            known.add(path)
            if any(outcome(tool, altered(payload, steps, ahead=ahead)) != before for ahead in (False, True)):
                carried.add(path)
    assert sorted(path for path in carried if is_dropped(tool, path)) == []
    sometimes = {entry.partition(" ")[0] for entry in TOOLS[tool].dropped if " " in entry}
    untold = sorted(path for path in known - carried if not is_dropped(tool, path))
    holders = {holder for payload in made.payloads(tool) for holder in every_path(payload)} - known
    holders |= {path for path in known if any(other.startswith(f"{path}.") for other in known)}
    assert [path for path in untold if path not in holders and not path.startswith(tuple(sometimes))] == []


@pytest.mark.parametrize("tool", NAMES)
def test_no_entry_of_the_list_is_about_a_field_that_the_payloads_lack(tool: str) -> None:
    paths = [path for payload in made.payloads(tool) for path in every_path(payload)]
    listed = [entry for entry in TOOLS[tool].dropped if " " not in entry and not entry.startswith("notifications.")]
    assert [entry for entry in listed if entry not in paths] == []


def every_path(value: Any, path: str = "") -> Iterator[str]:
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from every_path(inner, f"{path}.{name}" if path else name)
    if isinstance(value, list):
        for inner in value:
            yield from every_path(inner, f"{path}[]")


@pytest.mark.parametrize("tool", NAMES)
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"\xff\xfe", b"<x/>", b"payload=%7B"])
def test_a_payload_of_unknown_shape_is_unreadable(tool: str, body: bytes) -> None:
    reading = read(TOOLS[tool], a_delivery(body))
    assert reading.events == ()
    assert reading.unread


# -- generated payloads ------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(
        ["", "0", "2026-05-04T09:00:00Z", "\x00", "x" * 300, "<p>a</p>", "1e400", "nan", "Ω@é.fr", "9" * 30]
    ),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def spoilt(draw: st.DrawFn, tool: str) -> Any:
    """A payload of the tool with some fields missing, some of odd values, and unknown ones beside."""
    payload = deepcopy(draw(st.sampled_from(made.PAYLOADS[tool])))
    for _ in range(draw(st.integers(0, 5))):
        holder: Any = payload
        while True:
            names = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not names:
                break
            name = draw(st.sampled_from(names))
            if isinstance(holder[name], (dict, list)) and holder[name] and draw(st.integers(0, 4)):
                holder = holder[name]
                continue
            if draw(st.booleans()):
                del holder[name]
            else:
                holder[name] = draw(JSON)
            break
    if isinstance(payload, dict):
        payload["unknown to us"] = draw(JSON)
    return payload


@pytest.mark.parametrize("tool", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_no_payload_breaks_an_adapter_and_whatever_is_read_fits(tool: str, data: st.DataObject) -> None:
    payload = data.draw(spoilt(tool))
    try:
        body = made.encoder(tool)(payload)
    except UnicodeEncodeError:
        return
    delivery = a_delivery(body)
    try:
        found = TOOLS[tool].events(delivery)
    except Unreadable as unreadable:
        found = list(unreadable.read)
    fits(found)
    reading = read(TOOLS[tool], delivery)
    assert list(reading.events) == found
    assert read(TOOLS[tool], replace(delivery, received_at=NOW + timedelta(days=1))).unread == reading.unread


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=200))
def test_no_bytes_break_any_adapter(body: bytes) -> None:
    for tool in TOOLS.values():
        reading = read(tool, a_delivery(body))
        assert reading.unread is None or not reading.unread.startswith("the adapter failed")


@pytest.mark.parametrize("tool", NAMES)
def test_unknown_fields_change_nothing(tool: str) -> None:
    """But where all fields are told on, as traits or properties."""
    for payload in made.payloads(tool):
        more = deepcopy(payload)
        for holder in more if isinstance(more, list) else [more]:
            holder["brand_new"] = {"a": [1]}
        assert outcome(tool, more) == outcome(tool, payload)


# -- zendesk -----------------------------------------------------------------------------------------


def test_zendesk_ticket_opened_tells_who_what_and_how_bad() -> None:
    (event,) = events("zendesk", made.zendesk_ticket())
    assert (event.type, event.id) == ("ticket.opened", "01J0ZENDESKEVENT0000000001")
    assert event.own_time == "2026-05-04T09:30:00.123456Z"
    assert event.body == {
        "user_id": "zendesk:601", "timestamp": event.own_time, "external_ids": {"zendesk": "501"}, "ticket_id": "77",
        "severity": "p1", "subject": "Export fails", "text": "The export fails & stops",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("current", "type", "status"),
    [
        ("SOLVED", "ticket.solved", None),
        ("CLOSED", "ticket.updated", "closed"),
        ("open", "ticket.updated", "open"),
        ("NEW", "ticket.updated", "open"),
        ("PENDING", "ticket.updated", "pending"),
        ("HOLD", "ticket.updated", "pending"),
    ],
)
def test_zendesk_statuses(current: str, type: str, status: str | None) -> None:
    told, body = one("zendesk", made.zendesk_ticket("ticket.status_changed", {"current": current}))
    assert (told, body.get("status")) == (type, status)


def test_zendesk_without_a_priority_tells_no_severity() -> None:
    assert "severity" not in one("zendesk", made.zendesk_ticket(priority=None))[1]


def test_zendesk_internal_notes_stay_inside() -> None:
    assert events("zendesk", made.zendesk_comment(is_public=False)) == []
    _, body = one("zendesk", made.zendesk_comment(author={"is_staff": True}))
    assert body["author"] == "agent"


def test_zendesk_links_the_organisation_to_our_account() -> None:
    type, body = one("zendesk", made.zendesk_organisation())
    assert (type, body["account_id"], body["external_ids"]) == ("account.updated", "acct-9", {"zendesk": "501"})


def test_zendesk_rating_is_csat_of_two_points() -> None:
    type, body = one("zendesk", made.zendesk_rating("bad"))
    assert (type, body["score"], body["scale"], body["answer_id"]) == ("survey.answered", 0, "0-1", "3001")
    assert one("zendesk", made.zendesk_rating("offered"))[0] == "survey.sent"
    assert events("zendesk", made.zendesk_rating("unoffered")) == []


def test_zendesk_types_without_use_tell_nothing_and_unknown_ones_wait() -> None:
    assert events("zendesk", made.zendesk_ticket("ticket.tags_changed")) == []
    assert "ticket.exploded" in str(unread("zendesk", made.zendesk_ticket("ticket.exploded")))


# -- intercom ----------------------------------------------------------------------------------------


def test_intercom_conversation_is_a_ticket_without_html() -> None:
    (event,) = events("intercom", made.INTERCOM[0])
    assert (event.type, event.own_time) == ("ticket.opened", "2026-05-04T09:58:20Z")
    assert event.body["text"] == "Can we have two more seats?\nThanks"
    assert (event.body["user_id"], event.body["external_ids"]) == ("u-1", {"intercom": "c-9"})


def test_intercom_replies_say_who_and_what() -> None:
    _, body = one("intercom", made.intercom("conversation.admin.replied", made.intercom_conversation()))
    assert (body["author"], body["text"], body["timestamp"]) == ("agent", "Soon?", "2026-05-04T09:59:20Z")


def test_intercom_rating() -> None:
    type, body = one("intercom", made.intercom("conversation.rating.added", made.intercom_rating()))
    told = (type, body["kind"], body["score"], body["scale"], body["comment"])
    assert told == ("survey.answered", "csat", 4.0, "1-5", "Fine")


def test_intercom_contact_of_two_companies_is_two_events() -> None:
    found = events("intercom", made.intercom("contact.user.created", made.intercom_contact()))
    assert [(event.body.get("account_id"), event.body["external_ids"]) for event in found] == [
        ("acct-9", {"intercom": "co1"}),
        (None, {"intercom": "co2"}),
    ]
    assert {event.body["user_id"] for event in found} == {"intercom:6f00"}


def test_intercom_company_links_both_of_its_ids() -> None:
    found = events("intercom", made.intercom("company.created", made.intercom_company()))
    assert [event.body["external_ids"] for event in found] == [{"intercom": "co1"}, {"intercom": "acct-9"}]
    assert all(event.body["account_id"] == "acct-9" for event in found)


def test_intercom_attributes_can_be_chosen() -> None:
    talk = made.intercom_conversation(custom_attributes={"org": "c-1", "acct": "acct-1"})
    options = IntercomOptions(company_attribute="org", account_attribute="acct")
    _, body = one("intercom", made.intercom("conversation.user.created", talk), options)
    assert (body["account_id"], body["external_ids"]) == ("acct-1", {"intercom": "c-1"})


# -- hubspot -----------------------------------------------------------------------------------------


def test_hubspot_two_companies_in_one_call_are_two_events() -> None:
    found = events("hubspot", made.HUBSPOT[0])
    assert [event.body["external_ids"] for event in found] == [{"hubspot": "12345"}, {"hubspot": "99"}]
    assert found[0].body["name"] == "Nine"
    assert found[1].body["traits"] == {"tier": "A"}
    assert {event.own_time for event in found} == {"2026-05-04T10:00:00.123000Z"}
    assert len({event.id for event in found}) == 2


def test_hubspot_deal_amounts_stay_exact_and_a_won_stage_says_so() -> None:
    stage, amount = events("hubspot", made.HUBSPOT[2])
    assert (stage.body["stage"], stage.body["won"]) == ("closedwon", True)
    assert amount.body["amount"] == "48000.10"
    assert "won" not in one("hubspot", [made.hubspot("deal.propertyChange", "dealstage", "sent")])[1]
    assert one("hubspot", made.HUBSPOT[3])[1]["closes_on"] == "2026-05-04"


def test_hubspot_an_emptied_property_clears_the_field() -> None:
    assert one("hubspot", made.HUBSPOT[1])[1]["industry"] is None


def test_hubspot_properties_are_mapped_by_the_configuration() -> None:
    options = HubspotOptions(company_properties={"our_id": "account_id", "arr__c": "arr", "seats": "seats"})
    told = [
        made.hubspot("company.propertyChange", "our_id", "acct-9"),
        made.hubspot("company.propertyChange", "arr__c", "1200.50", eventId=101),
        made.hubspot("company.propertyChange", "seats", "many", eventId=102),
    ]
    linked, money, odd = events("hubspot", told, options)
    assert (linked.body["account_id"], linked.body["external_ids"]) == ("acct-9", {"hubspot": "12345"})
    assert money.body["arr"] == "1200.50"
    assert odd.body["traits"] == {"seats": "many"}
    with pytest.raises(ValueError, match="mrr"):
        HubspotOptions(company_properties={"x": "mrr"})


def test_hubspot_reads_what_it_knows_beside_what_it_does_not() -> None:
    found = unread("hubspot", [*made.HUBSPOT[0], made.hubspot("galaxy.propertyChange", "a", "b")])
    assert "galaxy.propertyChange" in str(found)
    assert [event.type for event in found.read] == ["account.updated", "account.updated"]


# -- salesforce --------------------------------------------------------------------------------------


def test_salesforce_outbound_message_of_two_accounts_is_two_events() -> None:
    second = made.salesforce_opportunity(Id="006B", AccountId="001B", IsClosed="true", IsWon="false", Amount=None)
    body = made.salesforce_xml(made.salesforce_opportunity(), second)
    first, other = events("salesforce", body)
    assert first.body == {
        "timestamp": "2026-05-04T09:00:00Z", "external_ids": {"salesforce": "001000000000001AAA"},
        "stage": "Negotiation", "amount": "72000.10", "closes_on": "2026-09-30", "kind": "renewal",
        "opportunity_id": "006000000000001AAA",
    }  # fmt: skip
    assert (first.id, first.own_time) == ("04l000000000000", "2026-05-04T09:00:00Z")
    assert (other.body["external_ids"], other.body["won"], other.body.get("amount")) == (
        {"salesforce": "001B"},
        False,
        None,
    )


def test_salesforce_session_ids_go_nowhere() -> None:
    body = made.salesforce_xml(made.salesforce_opportunity()).replace(
        b'<SessionId xsi:nil="true"/>', b"<SessionId>00Dsecret</SessionId>"
    )
    assert b"00Dsecret" not in msgspec.json.encode([event.body for event in events("salesforce", body)])


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE x [<!ENTITY a "b">]>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://evil.example/x"> %p;]>',
        '<!DOCTYPE x [<!ENTITY a "' + "b" * 50 + '"><!ENTITY c "' + "&a;" * 50 + '">]>',
    ],
)
def test_salesforce_xml_with_a_document_type_is_refused(doctype: str) -> None:
    body = made.salesforce_xml(made.salesforce_opportunity())
    spiked = body.replace(b"?>", b"?>" + doctype.encode(), 1)
    assert "document type" in str(unread("salesforce", spiked))
    deep = b"<a>" * 40 + b"</a>" * 40
    assert "deep" in str(unread("salesforce", deep))


def test_salesforce_change_event_of_two_records_is_two_events() -> None:
    first, second = events("salesforce", made.SALESFORCE[1])
    assert [event.body["external_ids"] for event in (first, second)] == [{"salesforce": "001A"}, {"salesforce": "001B"}]
    assert (first.id, second.id) == ("tk-1:2:001A", "tk-1:2:001B")
    assert first.own_time == "2026-05-04T10:00:00Z"
    assert (first.body["name"], first.body["traits"]) == ("Nine", {"Tier__c": "A"})


def test_salesforce_amounts_are_as_written() -> None:
    body = as_json(made.salesforce_change(Amount=1)).replace(b'"Amount": 1', b'"Amount": 1234567890123456.78')
    assert events("salesforce", body)[0].body["amount"] == "1234567890123456.78"


def test_salesforce_without_an_account_waits_for_a_link_of_its_own() -> None:
    _, body = one("salesforce", made.salesforce_change(StageName="New"))
    assert body["external_ids"] == {"salesforce_opportunity": "006000000000001AAA"}


def test_salesforce_gaps_are_not_passed_over() -> None:
    found = unread("salesforce", made.salesforce_change(header={"changeType": "GAP_UPDATE"}))
    assert "read these records again" in str(found)
    assert events("salesforce", made.salesforce_change(header={"changeType": "DELETE"})) == []


def test_salesforce_cases_open_change_and_are_solved() -> None:
    case = {"AccountId": "001A", "Subject": "Down", "Priority": "Critical"}
    new = made.salesforce_change("Case", {"changeType": "CREATE", "recordIds": ["500A"]}, **case)
    assert one("salesforce", new)[0] == "ticket.opened"
    assert one("salesforce", new)[1]["severity"] == "p1"
    working = made.salesforce_change("Case", {"recordIds": ["500A"]}, Status="Working", **case)
    assert one("salesforce", working)[1]["status"] == "open"
    closed = made.salesforce_change("Case", {"recordIds": ["500A"]}, Status="Closed", **case)
    assert one("salesforce", closed)[0] == "ticket.solved"


def test_salesforce_platform_events_by_default_and_by_configuration() -> None:
    type, body = one("salesforce", made.salesforce_event())
    assert (type, body["external_ids"]) == ("account.updated", {"salesforce": "001000000000001AAA"})
    assert body["traits"] == {"Risk__c": "High", "ARR__c": 96000.5}
    fields = {"Account_Id__c": "salesforce", "Ends__c": "ends_on", "ARR__c": "arr"}
    options = SalesforceOptions(objects={"Renewal_Risk__e": ObjectMap(event="contract.changed", fields=fields)})
    type, body = one("salesforce", made.salesforce_event(Ends__c="2026-12-31"), options)
    assert (type, body["ends_on"], body["arr"]) == ("contract.changed", "2026-12-31", "96000.5")
    assert body["external_ids"] == {"salesforce": "001000000000001AAA"}
    assert "no account" in str(unread("salesforce", made.salesforce_event(Account_Id__c=None)))
    assert "Rocket__c" in str(unread("salesforce", made.salesforce_change("Rocket__c")))


def test_salesforce_relays_may_send_lists_lines_or_what_is_inside() -> None:
    whole, event = made.salesforce_change(StageName="A"), made.salesforce_event()
    told = [(e.id, e.body) for payload in (whole, event) for e in events("salesforce", payload)]
    assert [(e.id, e.body) for e in events("salesforce", [whole, event])] == told
    assert [(e.id, e.body) for e in events("salesforce", as_json(whole) + b"\n" + as_json(event) + b"\n")] == told
    assert [(e.id, e.body) for e in events("salesforce", [whole["data"], event["data"]])] == told
    assert [(e.id, e.body) for e in events("salesforce", whole["data"]["payload"])] == told[:1]


# -- mixpanel, amplitude -----------------------------------------------------------------------------


def test_mixpanel_members_of_two_accounts_are_two_events() -> None:
    ann, bob = events("mixpanel", made.mixpanel())
    assert (ann.body["account_id"], bob.body["account_id"]) == ("acct-9", "acct-10")
    assert ann.body["traits"] == {"first_name": "Ann", "mixpanel_cohort:8": {"name": "Power users", "member": True}}
    assert (ann.own_time, ann.id == bob.id) == (None, False)
    left = events("mixpanel", made.mixpanel("remove_members"))
    assert [event.body["traits"] for event in left] == [
        {"mixpanel_cohort:8": {"name": "Power users", "member": False}}
    ] * 2
    assert {event.id for event in left}.isdisjoint({ann.id, bob.id})


def test_mixpanel_a_member_without_an_id_waits_and_the_others_go_on() -> None:
    found = unread("mixpanel", made.mixpanel("members", {"email": "x@y.example"}, {"mixpanel_distinct_id": "u-3"}))
    assert [event.body["user_id"] for event in found.read] == ["u-3"]


def test_mixpanel_answers_in_its_own_words() -> None:
    tool = TOOLS["mixpanel"]
    body = as_json(made.mixpanel("add_members"))
    assert json.loads(tool.accepted(a_delivery(body)).body) == {"action": "add_members", "status": "success"}
    refused = json.loads(tool.refused(body, 401, "no").body)
    assert (refused["action"], refused["status"], refused["error"]["code"]) == ("add_members", "failure", 401)
    assert json.loads(tool.refused(b"nonsense", 401, "no").body)["status"] == "failure"


def test_amplitude_event_of_two_accounts_is_two_events() -> None:
    first, second = events("amplitude", made.amplitude())
    assert [event.body["groups"] for event in (first, second)] == [{"company": "acct-10"}, {"company": "acct-9"}]
    assert (first.id, first.own_time) == ("ins-1", "2026-05-04T09:00:00.250000Z")
    assert second.id not in ("ins-1", first.id)


def test_amplitude_has_one_identity_by_the_sdk_and_by_the_webhook() -> None:
    from services.gateway.adapters import amplitude
    from services.gateway.canonical import MissingIds

    (hooked,) = events("amplitude", made.amplitude(groups={"company": ["acct-9"]}))
    sent = {"event_type": "Report Exported", "user_id": "u-1", "insert_id": "ins-1", "time": 1777885200250}
    called = amplitude.event_of(sent, NOW, MissingIds())
    assert (called.source, called.id, called.own_time) == (hooked.source, hooked.id, hooked.own_time)


def test_amplitude_cohort_says_who_is_in() -> None:
    found = events("amplitude", made.amplitude_cohort(in_cohort=False))
    assert [event.body["user_id"] for event in found] == ["u-1", "u-2"]
    assert found[0].body["traits"] == {"amplitude_cohort:co1": {"name": "Activated", "member": False}}
    assert found[0].own_time == "2026-05-04T10:00:00Z"


# -- surveys -----------------------------------------------------------------------------------------


def test_delighted_keeps_a_score_of_nought() -> None:
    type, body = one("delighted", made.delighted())
    told = (type, body["kind"], body["score"], body["scale"], body["answer_id"], body["account_id"])
    assert told == ("survey.answered", "nps", 0.0, "0-10", "701", "acct-9")
    assert "comment" not in body


def test_delighted_an_update_corrects_the_answer() -> None:
    (event,) = events("delighted", made.DELIGHTED[1])
    assert (event.type, event.body["answer_id"], event.body["comment"]) == ("survey.corrected", "701", "Easy setup")
    assert event.own_time == "2026-05-04T10:01:40Z"


def test_delighted_scales_and_people_are_configured_and_other_surveys_wait() -> None:
    _, body = one("delighted", made.delighted(survey_type="ces", score=5), DelightedOptions(scales={"ces": "1-7"}))
    assert (body["kind"], body["scale"]) == ("ces", "1-7")
    assert "scale" not in one("delighted", made.delighted(survey_type="ces", score=5))[1]
    options = DelightedOptions(user_property="uid")
    _, body = one("delighted", made.delighted(person_properties={"uid": "u-1"}), options)
    assert (body["user_id"], "account_id" in body) == ("u-1", False)
    assert "thumbs" in str(unread("delighted", made.delighted(survey_type="thumbs")))


def test_asknicely_first_count_answers_and_later_ones_correct() -> None:
    first, second = (event for payload in made.ASKNICELY for event in events("asknicely", payload))
    assert (first.type, first.id, first.body["score"]) == ("survey.answered", "900:1", 0.0)
    assert (second.type, second.id, second.body["comment"]) == ("survey.corrected", "900:2", "Mobile needs work")
    assert (first.own_time, second.own_time) == ("2026-05-04T10:00:00Z", "2026-05-04T10:01:40Z")
    _, body = one("asknicely", made.asknicely("1", score="4"), AskNicelyOptions(kind="csat", scale="1-5"))
    assert (body["kind"], body["scale"]) == ("csat", "1-5")


# -- customerio, gong --------------------------------------------------------------------------------


def test_customerio_messages_are_bulk_and_name_our_user() -> None:
    (event,) = events("customerio", made.customerio())
    told = (event.type, event.id, event.own_time, event.body["user_id"], event.body["channel"], event.body["bulk"])
    assert told == ("message.opened", "ev-1", "2026-05-04T10:00:00Z", "u-1", "email", True)
    assert one("customerio", made.CUSTOMERIO[1])[1]["user_id"] == "customerio:a3"
    assert "channel" not in one("customerio", made.customerio("push", "sent"))[1]


def test_customerio_what_says_nothing_is_taken_and_what_is_new_waits() -> None:
    assert events("customerio", made.customerio("email", "bounced")) == []
    assert "teleported" in str(unread("customerio", made.customerio("email", "teleported")))


def test_gong_names_the_account_of_the_crm() -> None:
    (event,) = events("gong", made.gong())
    assert event.body == {
        "timestamp": "2026-05-04T09:00:00Z", "external_ids": {"salesforce": "001A"}, "call_id": "5500",
        "person_id": "774", "duration_s": 1805, "language": "fr", "attendees": ["003A", "p3"],
    }  # fmt: skip
    assert (event.id, event.own_time) == ("5500:salesforce:001A", "2026-05-04T09:00:00Z")


def test_gong_without_a_crm_is_one_call_for_each_company_present() -> None:
    found = events("gong", made.gong(context=[]))
    assert [event.body["email"] for event in found] == ["ann@nine.example", "bob@ten.example"]
    assert [event.id for event in found] == ["5500:nine.example", "5500:ten.example"]


def test_gong_tests_and_internal_calls_tell_nothing() -> None:
    assert events("gong", made.gong(test=True)) == []
    assert events("gong", made.gong(scope="Internal")) == []


# -- stripe ------------------------------------------------------------------------------------------


def mrr(*items: Any, **more: Any) -> tuple[str | None, str | None]:
    found = events("stripe", stripe_created(*items, **more))
    told = [event.body for event in found if event.type == "subscription.changed"]
    return (told[0]["mrr"], told[0].get("currency")) if told else (None, None)


def stripe_created(*items: Any, **more: Any) -> Any:
    return made.stripe("customer.subscription.created", made.stripe_subscription(*items, **more))


@pytest.mark.parametrize(
    ("item", "currency", "expected"),
    [
        (made.stripe_item("4900", 20), "usd", "980.00"),
        (made.stripe_item("120000", 1, "year"), "eur", "100.00"),
        (made.stripe_item("100000", 1, "year"), "eur", "83.333333"),
        (made.stripe_item("10000", 1, "month", interval_count=3), "eur", "33.333333"),
        (made.stripe_item("1200", 1, "week"), "usd", "52.00"),
        (made.stripe_item("120", 1, "day"), "usd", "36.50"),
        (made.stripe_item("0.5", 3), "usd", "0.015"),
        (made.stripe_item("5000", 2), "jpy", "10000"),
        (made.stripe_item("100", 1, "year"), "jpy", "8.333333"),
        (made.stripe_item("5120", 1), "kwd", "5.120"),
        (made.stripe_item("500", 1), "isk", "5.00"),
        (made.stripe_item("500", 1), "ugx", "5.00"),
    ],
)
def test_stripe_mrr_is_exact_in_every_currency(item: Any, currency: str, expected: str) -> None:
    assert mrr(item, currency=currency) == (expected, currency.upper())


def test_stripe_mrr_sums_items_and_leaves_metered_use_out() -> None:
    metered = made.stripe_item("1", 1, usage_type="metered")
    assert mrr(made.stripe_item("1000", 2), made.stripe_item("1200", 1, "year"), metered)[0] == "21.00"
    assert mrr(metered) == (None, None)


@pytest.mark.parametrize(
    ("status", "expected"), [("past_due", "980.00"), ("trialing", "0"), ("unpaid", "0"), ("paused", "0")]
)
def test_stripe_only_paying_subscriptions_count(status: str, expected: str) -> None:
    assert mrr(status=status)[0] == expected


def test_stripe_what_is_not_told_is_not_guessed() -> None:
    tiered = made.stripe_item(None, unit_amount=None)
    assert "tiered" in str(unread("stripe", stripe_created(tiered)))
    many = made.stripe_subscription()
    many["items"]["has_more"] = True
    assert "all items" in str(unread("stripe", made.stripe("customer.subscription.created", many)))
    assert "cryogenic" in str(unread("stripe", stripe_created(status="cryogenic")))


def test_stripe_older_versions_name_plan_and_expanded_customers() -> None:
    item = {
        "id": "si",
        "quantity": 2,
        "plan": {"id": "p", "amount": 500, "interval": "month", "usage_type": "licensed"},
    }
    (link, change) = events("stripe", stripe_created(item, customer={"id": "cus_7"}))
    assert (change.body["mrr"], change.body["plan"], link.body["external_ids"]) == ("10.00", "p", {"stripe": "cus_7"})


def test_stripe_notice_is_told_once_with_its_reason() -> None:
    found = events("stripe", made.STRIPE[2])
    notice = next(event for event in found if event.type == "churn.notified")
    told = (notice.id, notice.body["reason"], notice.body["effective_on"], notice.body["contract_id"])
    assert told == ("evt_1:notice", "too_expensive", "2026-05-28", "sub_1")
    already = made.stripe("customer.subscription.updated", made.stripe_subscription(cancel_at_period_end=True), {})
    assert [event.type for event in events("stripe", already)] == ["account.updated", "subscription.changed"]


def test_stripe_deleted_ends_the_revenue() -> None:
    change = events("stripe", made.STRIPE[5])[1]
    assert (change.type, change.body["mrr"], change.body["currency"]) == ("subscription.changed", "0", "USD")


def test_stripe_invoices_and_the_link_of_the_metadata() -> None:
    link, failed = events("stripe", made.STRIPE[7])
    assert (link.type, link.body["account_id"], link.body["external_ids"]) == (
        "account.updated", "acct-9", {"stripe": "cus_9"},
    )  # fmt: skip
    assert (failed.type, failed.body["amount"], failed.body["currency"], failed.body["attempt"]) == (
        "invoice.failed", "980.00", "USD", 2,
    )  # fmt: skip
    unnamed = made.stripe("invoice.paid", made.stripe_invoice(parent=None))
    assert [event.type for event in events("stripe", unnamed)] == ["invoice.paid"]


def test_stripe_types_without_use_tell_nothing_and_unknown_ones_wait() -> None:
    assert events("stripe", made.stripe("payment_intent.succeeded", {})) == []
    assert "customer.levitated" in str(unread("stripe", made.stripe("customer.levitated", {})))


# -- segment, slack ----------------------------------------------------------------------------------


def test_segment_calls_have_the_identity_of_the_api() -> None:
    (event,) = events("segment", made.segment())
    assert (event.source, event.id, event.own_time) == ("hune", "m-track", "2026-05-04T09:00:00.000Z")
    assert (event.type, event.body["event"], event.body["context"]["groupId"]) == (
        "usage.tracked", "Report Exported", "acct-9",
    )  # fmt: skip
    lots = [
        made.segment(),
        made.segment("group", groupId="acct-1"),
        made.segment("group", groupId="acct-2", messageId="g2"),
    ]
    accounts = [e.body["account_id"] for e in events("segment", lots) if e.type == "account.updated"]
    assert accounts == ["acct-1", "acct-2"]


def test_slack_buttons_are_requests() -> None:
    (event,) = events("slack", made.slack())
    assert (event.type, event.own_time, event.key) == ("request.made", "2026-05-04T10:00:00.123456Z", event.id)
    assert event.body == {
        "user_id": "slack:U1", "timestamp": event.own_time, "demand": "alert.acknowledge",
        "parameters": {
            "alert_id": "alert-1", "slack_user_id": "U1", "slack_channel_id": "C1",
            "slack_message_ts": "1777888700.000200",
        },
    }  # fmt: skip


def test_slack_buttons_may_carry_an_object_that_names_the_account() -> None:
    value = json.dumps({"account_id": "acct-9", "alert_id": "a1", "until": "2026-06-01"})
    button = {"action_id": "alert.snooze", "action_ts": "1777888800.1", "value": value}
    (event,) = events("slack", made.slack(button))
    assert (event.key, event.body["account_id"]) == ("acct-9", "acct-9")
    assert event.body["parameters"]["until"] == "2026-06-01"
    assert "account_id" not in event.body["parameters"]


def test_slack_presses_are_told_apart_and_a_repeat_is_not() -> None:
    first, again = events("slack", made.slack())[0], events("slack", made.slack())[0]
    other = events("slack", made.slack(user={"id": "U2"}))[0]
    assert first.id == again.id != other.id


def test_slack_commands_are_requests_in_words() -> None:
    form = b"token=t&team_id=T1&channel_id=C1&user_id=U1&user_name=x&command=%2Fhealth&text=acct-2&trigger_id=1.2.3"
    (event,) = events("slack", form)
    assert (event.body["text"], event.own_time) == ("health acct-2", None)
    assert "token" not in event.body["parameters"]


def test_slack_what_stands_for_no_request_waits() -> None:
    assert "launch" in str(unread("slack", made.slack({"action_id": "launch", "action_ts": "1777888800.1"})))
    several = {"action_id": "task.complete", "action_ts": "1777888801.1", "selected_options": [{"value": "a"}]}
    assert "several" in str(unread("slack", made.slack(several)))
    assert "view_submission" in str(unread("slack", made.as_form({"type": "view_submission"})))


# -- text and settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two</p>", "One\n\nTwo"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<ul><li>x</li><li>y</li></ul>", "x\n\ny"),
        ("Tom &amp; Jerry&nbsp;<b>now</b>", "Tom & Jerry now"),
        ("<style>p{color:red}</style><p>Hi</p><script>x()</script>", "Hi"),
        ("<p>un<b>closed", "unclosed"),
        ("a < b and c > d", "a < b and c > d"),
        ("<3 love &amp; peace", "<3 love &amp; peace"),
        ("I typed <Enter> twice", "I typed <Enter> twice"),
        ("<p>nul\x00l</p>", "null"),
        ("  ", None),
        ("<p> </p>", None),
        (None, None),
        (7, None),
    ],
)
def test_html_becomes_text_and_text_stays(html: object, text: str | None) -> None:
    assert plain_text(html) == text


def test_a_field_of_html_is_unescaped_even_without_tags() -> None:
    assert html_text("Tom &amp; Jerry") == "Tom & Jerry"


@given(st.text(max_size=300))
def test_text_always_fits_the_contract(text: str) -> None:
    for words in (plain_text(text * 100), html_text(f"<p>{text * 100}")):
        assert words is None or (0 < len(words) <= MAX_TEXT and "\x00" not in words)


def test_the_shipped_file_says_what_the_defaults_are() -> None:
    assert load(ROOT / "config") == Webhooks()
    assert not re.search(r"secret: *\S|whsec_", (ROOT / "config" / "webhooks.yaml").read_text())


def test_a_wrong_file_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "webhooks.yaml").write_text("tools:\n  hubspot:\n    options: {company_properties: {a: nowhere}}\n")
    with pytest.raises(Misconfigured, match=r"webhooks.yaml:3.*nowhere"):
        load(tmp_path)
    assert load(tmp_path / "none") == Webhooks()


# -- recorded and documented samples -----------------------------------------------------------------

NOT_WEBHOOKS = {"http-v2-batch", "track-sdk.form", "import-batch", "raw-export", "chat-postMessage", "webhook-send"}


def samples() -> list[tuple[str, Path]]:
    return [
        (tool, path)
        for tool in NAMES
        if tool != "segment" and (SAMPLES / tool).is_dir()
        for path in sorted((SAMPLES / tool).iterdir())
        if path.stem not in NOT_WEBHOOKS and path.name != "interactive-block-actions.json"
    ]


@pytest.mark.skipif(not SAMPLES.exists(), reason="documented samples are not here")
def test_there_are_samples_of_every_tool() -> None:
    assert {tool for tool, _ in samples()} == set(NAMES) - {"segment"}


@pytest.mark.parametrize(("tool", "path"), samples(), ids=lambda value: getattr(value, "stem", value))
def test_every_sample_is_read_and_nothing_of_it_is_invented(tool: str, path: Path) -> None:
    body = path.read_bytes()
    found = events(tool, body)
    fits(found)
    assert found or path.stem == "call-webhook-test"
    ours = {"csat", "nps", "0-10", "1-5", "0-1", "bulk", "USD", "en"}
    text = " ".join((body.decode(), html_text(body.decode()) or "")).lower().replace("%3a", ":")
    for event in found:
        for name in ("ticket_id", "answer_id", "opportunity_id", "invoice_id", "call_id", "subject", "comment", "text"):
            told = event.body.get(name)
            if isinstance(told, str) and told not in ours and event.type != "request.made":
                assert told.removeprefix("conversation:").lower() in text, (name, told)


@pytest.mark.skipif(not SAMPLES.exists(), reason="documented samples are not here")
def test_amounts_of_the_samples() -> None:
    body = (SAMPLES / "stripe" / "customer-subscription-updated.json").read_bytes()
    change = next(event for event in events("stripe", body) if event.type == "subscription.changed")
    assert Decimal(change.body["mrr"]) == 980
    assert (change.body["currency"], change.body["seats"]) == ("USD", 20)
