"""What calls for a message to a customer, who gets it, what is asked of the tools and how their answers are read."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from services.notify import outreach
from services.notify.app import NEEDED
from services.notify.episodes import Account
from services.notify.handlers import decoders
from services.notify.outreach import Address, Chosen, Contact, Declined, Message, Person
from services.notify.settings import Notify, Outreach, When
from services.notify.sinks import Outcome
from services.notify.writeback import Answer
from shared.events import known_types

AT = datetime(2026, 11, 22, 9, tzinfo=UTC)
ID = "0f0c6c9e-3d0b-5b0a-9d5e-7a1c0de4b0a7"
INTERCOM = {"tool": "intercom", "send": "in_app", "admin_id": "394051", "body": "Hello {account}"}
EVENT = {"tool": "customerio", "send": "event", "template": "hune_check_in"}
IN_APP = {"tool": "customerio", "send": "in_app", "template": "7"}


def rules(kind: dict[str, Any] = INTERCOM, **given: Any) -> Outreach:
    when = {"event": "touchpoint.due"}
    return Outreach.model_validate({"secret": "KEY", "when": when, "url": "https://tool.example.com"} | kind | given)


def when(event: str = "touchpoint.due", **given: Any) -> When:
    return When.model_validate({"event": event} | given)


def an_account(**given: Any) -> Account:
    return Account("acme", **({"name": "Acme", "coverage_model": "automated", "segment": "low"} | given))


def an_alert(**given: Any) -> SimpleNamespace:
    return SimpleNamespace(**({"kind": "risk", "rule": "gone_silent", "severity": "high", "baseline": False} | given))


def segmented(coverage: str, before: str | None, **given: Any) -> SimpleNamespace:
    told = {"coverage": coverage, "previous_coverage": before, "segment": "low", "previous": "low", "baseline": False}
    return SimpleNamespace(**(told | given))


def a_message(to: Address | None = None, **given: Any) -> Message:
    said: dict[str, Any] = {"facts": {"account": "Acme"}, "subject": "Hi", "body": "Hello Acme"}
    return Message(ID, AT, to or Address("u-1"), **(said | given))


def answered(status: int, body: Any = None, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode())


def test_a_touchpoint_calls_only_where_automation_covers_the_account() -> None:
    due = SimpleNamespace(baseline=False, due_on=date(2026, 11, 22))
    assert outreach.calls(when(), "touchpoint.due", due, an_account())
    assert not outreach.calls(when(), "touchpoint.due", due, an_account(coverage_model="named"))
    assert not outreach.calls(when(), "touchpoint.due", due, an_account(coverage_model=None)), "nothing is assumed"
    assert not outreach.calls(when(segments=["mid"]), "touchpoint.due", due, an_account())
    assert not outreach.calls(when("alert.opened"), "touchpoint.due", due, an_account())


def test_an_alert_calls_by_its_rule_kind_and_severity_and_never_as_a_baseline() -> None:
    asked = when("alert.opened", rules=["gone_silent"], kinds=["risk"], severity_from="high")
    assert outreach.calls(asked, "alert.opened", an_alert(), an_account())
    for other in ({"rule": "band_red"}, {"kind": "data"}, {"severity": "medium"}, {"baseline": True}):
        assert not outreach.calls(asked, "alert.opened", an_alert(**other), an_account())


def test_an_account_is_welcomed_once_when_automation_begins_to_cover_it() -> None:
    asked = when("account.segmented")
    unknown = an_account(coverage_model=None)
    assert outreach.calls(asked, "account.segmented", segmented("automated", "named"), unknown)
    assert outreach.calls(asked, "account.segmented", segmented("automated", None, previous=None), unknown)
    assert not outreach.calls(asked, "account.segmented", segmented("automated", "automated"), unknown)
    assert not outreach.calls(asked, "account.segmented", segmented("named", "automated"), unknown)


def test_the_first_role_that_the_tool_can_know_gets_it() -> None:
    people = [
        Person("u-2", "admin"), Person("hubspot:9", "champion"), Person("u-1", "champion", left=True),
        Person("u-0", "billing"),
    ]  # fmt: skip
    assert outreach.chosen(people, rules(), AT) == Chosen(people[0], Address("u-2"))


@pytest.mark.parametrize(
    ("person", "why"),
    [
        (None, "nobody of the account is known as champion, admin, sponsor, user"),
        (Person("u-1", "other"), "nobody of the account is known as"),
        (Person("u-1", "champion", left=True), "champion has left"),
        (Person("u-1", "champion", hushed=True), "champion asked not to be written to"),
        (Person("hubspot:9", "champion"), "is known by hubspot's number alone"),
        (Person("hv_" + "a" * 26 + "@acme.com", "champion"), "by an address alone, which only the contact vault has"),
        (Person("u-1", "champion", sent_at=AT - timedelta(days=29)), "was written to less than 30 days ago"),
    ],
)
def test_why_nobody_gets_it_is_said(person: Person | None, why: str) -> None:
    found = outreach.chosen([person] if person else [], rules(), AT)
    assert isinstance(found, str)
    assert why in found


def test_a_number_of_a_tool_is_only_that_tools() -> None:
    assert outreach.own_id("hubspot", "42") == "hubspot:42"
    assert outreach.own_id("hune", "42") == "42"
    assert outreach.address_of(Person("intercom:5f", "user"), "intercom") == Address("5f", own=True)
    assert isinstance(outreach.address_of(Person("intercom:5f", "user"), "customerio"), str)
    assert outreach.address_of(Person("hubspot:42", "user", user_id="u-7"), "customerio") == Address("u-7")


def test_what_a_customer_typed_is_text_in_html_and_one_line_in_a_subject() -> None:
    kind = INTERCOM | {"send": "email", "subject": "News for {account}", "body": "<b>{account}</b> {{x}}"}
    name = "<script>x</script>\r\nBcc: all@example.com {due_on}"
    found = outreach.written(rules(kind), {}, an_account(name=name))
    assert found == (
        "News for <script>x</script> Bcc: all@example.com {due_on}",
        "<b>&lt;script&gt;x&lt;/script&gt; Bcc: all@example.com {due_on}</b> {x}",
    )


def test_a_text_that_names_what_is_not_known_is_not_sent() -> None:
    assert outreach.written(rules(), {}, an_account(name=None)) == outreach.NO_NAME
    late = outreach.written(rules(body="Since {due_on}"), {"event": "alert.opened"}, an_account())
    assert late == "its text names {due_on}, which alert.opened does not tell"


def found(*people: dict[str, Any]) -> Answer:
    return answered(200, {"type": "list", "data": [{"id": "5f", "external_id": "u-1"} | one for one in people]})


def test_intercom_is_asked_for_the_contact_and_then_gets_the_message() -> None:
    way = outreach.way_of(rules())
    asking = way.ask(a_message(), "TOKEN")
    assert asking is not None
    assert (asking.method, asking.url) == ("POST", "https://tool.example.com/contacts/search")
    assert json.loads(asking.body) == {"query": {"field": "external_id", "operator": "=", "value": "u-1"}}
    contact = way.asked(found({"role": "user", "unsubscribed_from_emails": True}), a_message(), 0)
    assert contact == Contact("5f", "user"), "an in-app message is no e-mail"
    call = way.call(a_message(), Contact("5f", "user"), "TOKEN")
    assert (call.method, call.url) == ("POST", "https://tool.example.com/messages")
    assert json.loads(call.body) == {
        "message_type": "inapp", "body": "Hello Acme", "from": {"type": "admin", "id": "394051"},
        "to": {"type": "user", "id": "5f"},
    }  # fmt: skip
    assert call.headers["intercom-version"] == "2.11"
    assert "TOKEN" not in json.dumps([asking.shown(), call.shown()])


def test_intercoms_own_number_of_a_person_is_looked_up_as_such() -> None:
    way, mine = outreach.way_of(rules()), a_message(Address("5f/..", own=True))
    asking = way.ask(mine, "TOKEN")
    assert asking is not None
    assert (asking.method, asking.url, asking.body) == ("GET", "https://tool.example.com/contacts/5f%2F..", b"")
    assert asking.shown()["body"] is None
    assert way.asked(answered(200, {"id": "5f/..", "role": "lead"}), mine, 0) == Contact("5f/..", "lead")
    assert way.asked(answered(200, {"id": "another"}), mine, 0) == outreach.NOBODY


def test_who_is_not_surely_meant_gets_nothing() -> None:
    way = outreach.way_of(rules())
    nobody = [found(), found({"external_id": "U-1"}), found({}, {"id": "6a"}), answered(200, []), answered(200, None)]
    nobody += [answered(404), answered(410)]
    assert [way.asked(answer, a_message(), 0) for answer in nobody] == [outreach.NOBODY] * len(nobody)


@pytest.mark.parametrize("flag", ["unsubscribed_from_emails", "has_hard_bounced", "marked_email_as_spam"])
def test_intercom_mails_nobody_who_does_not_want_it(flag: str) -> None:
    way = outreach.way_of(rules(INTERCOM | {"send": "email", "subject": "Hi"}))
    assert way.asked(found({flag: True}), a_message(), 0) == Declined(f"Intercom says {flag}")
    assert way.asked(found({flag: False}), a_message(), 0) == Contact("5f", "user")
    said = json.loads(way.call(a_message(), Contact("5f", "lead"), "T").body)
    assert (said["message_type"], said["subject"], said["template"]) == ("email", "Hi", "plain")
    assert said["to"] == {"type": "lead", "id": "5f"}


@pytest.mark.parametrize(("status", "what"), [(500, "refused"), (429, "refused"), (401, "refused"), (400, "failed")])
def test_nothing_is_unclear_while_intercom_is_only_asked(status: int, what: str) -> None:
    outcome = outreach.way_of(rules()).asked(answered(status), a_message(), 0)
    assert isinstance(outcome, Outcome)
    assert outcome.what == what


@pytest.mark.parametrize(
    ("status", "what"),
    [(200, "sent"), (202, "sent"), (429, "refused"), (404, "refused"), (403, "refused"), (503, "unclear"),
     (500, "unclear"), (400, "failed"), (422, "failed")],
)  # fmt: skip
def test_what_intercoms_answer_means(status: int, what: str) -> None:
    assert outreach.way_of(rules()).read(answered(status, {}), 0).what == what


def test_a_503_that_says_when_to_come_again_was_not_taken() -> None:
    outcome = outreach.way_of(rules(IN_APP)).read(answered(503, {}, retry_after="7"), 0)
    assert (outcome.what, outcome.after) == ("refused", 7)


def test_customerio_gets_an_event_whose_id_is_the_same_for_the_same_message() -> None:
    way = outreach.way_of(rules(EVENT))
    first, again = (way.call(a_message(), None, "site:key") for _ in range(2))
    assert first.body == again.body
    assert (first.method, first.url) == ("POST", "https://tool.example.com/api/v2/entity")
    assert first.headers["authorization"] == "Basic c2l0ZTprZXk="
    body = json.loads(first.body)
    assert body == {
        "type": "person", "action": "event", "identifiers": {"id": "u-1"}, "name": "hune_check_in", "id": body["id"],
        "timestamp": int(AT.timestamp()), "attributes": {"account": "Acme"},
    }  # fmt: skip
    own = json.loads(way.call(a_message(Address("c1", own=True)), None, "site:key").body)
    assert own["identifiers"] == {"cio_id": "c1"}
    assert way.repeatable


def test_a_ulid_is_one() -> None:
    first, other = outreach.ulid(AT, ID), outreach.ulid(AT, ID.replace("0f0c", "0f0d").replace("b0a7", "b0a8"))
    assert len(first) == len(other) == 26
    assert set(first) <= set(outreach.BASE32)
    assert first[:10] == other[:10] != outreach.ulid(AT + timedelta(milliseconds=1), ID)[:10]
    assert first != other
    assert first[0] in "01234567"


def test_customerios_in_app_message_needs_no_address() -> None:
    way = outreach.way_of(rules(IN_APP))
    call = way.call(a_message(), None, "APPKEY")
    assert (call.method, call.url) == ("POST", "https://tool.example.com/v1/send/in_app")
    assert call.headers["authorization"] == "Bearer APPKEY"
    assert json.loads(call.body) == {
        "transactional_message_id": 7, "identifiers": {"id": "u-1"}, "message_data": {"account": "Acme"},
    }  # fmt: skip
    assert way.read(answered(200, {"delivery_id": "D1"}), 0) == Outcome("sent", ts="D1")
    assert not way.repeatable


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (INTERCOM | {"body": None}, "intercom with send: in_app needs body"),
        (INTERCOM | {"send": "email"}, "intercom with send: email needs subject"),
        (INTERCOM | {"template": "x"}, "template: not used by intercom with send: in_app"),
        (INTERCOM | {"send": "event"}, "Intercom takes in_app and email"),
        (EVENT | {"send": "email"}, "addresses are in the contact vault alone; take event"),
        (EVENT | {"template": None}, "customerio with send: event needs template"),
        (INTERCOM | {"body": "Hi {name}"}, "{name} is nothing that a message can name; there are {account}, {due_on}"),
        (INTERCOM | {"body": "{account.__class__}"}, "is nothing that a message can name"),
        (INTERCOM | {"body": "{account!r}"}, "is nothing that a message can name"),
        (INTERCOM | {"body": "a } b"}, "a brace that is to be read is written twice"),
        (INTERCOM | {"when": {"event": "touchpoint.due", "rules": ["x"]}}, "touchpoint.due has none"),
    ],
)
def test_a_mistake_in_the_file_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        rules(given)
    assert message in str(caught.value)


def test_nothing_is_sent_to_customers_as_shipped() -> None:
    assert Notify().outreach == {}


def test_a_contact_is_read_off_the_record_whatever_else_it_holds() -> None:
    read = decoders(known_types(), NEEDED)["hune.contact.changed.v1"]
    found = read(b'{"account_id":"acme","contact_id":"u-1","role":"champion","title":"CTO","of_later":1}')
    assert (found.contact_id, found.role, found.status, found.user_id) == ("u-1", "champion", None, None)
