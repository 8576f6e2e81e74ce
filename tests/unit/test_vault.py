"""What is personal in an event becomes a reference, the same for the same person; the rest stays as it was."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.domain import email_domain
from services.router.settings import Exclusions
from shared.errors import Misconfigured
from shared.vault import keys as vault
from shared.vault.keys import Keys, Unreadable
from shared.vault.sealing import _KIND_OF, REFERENCE, Contact, Sealer, replaced, tokens_in

KEYS = Keys(b"r" * 32, (b"w" * 32,))
ADA, DOMAIN = "Ada.Lovelace@Acme.example", "acme.example"
TRACK, IDENTIFY, GROUP = "usage.tracked", "user.identified", "account.updated"


def sealed(type: str, body: dict[str, Any], **more: Any) -> tuple[dict[str, Any], list[Contact]]:
    contacts: list[Contact] = []
    return Sealer(KEYS, **more).seal(type, body, contacts), contacts


def test_an_address_has_one_reference_whatever_its_case_and_keeps_its_domain() -> None:
    sealer = Sealer(KEYS)
    reference = sealer.reference(ADA)
    assert REFERENCE.fullmatch(reference)
    assert sealer.reference(ADA.lower()) == reference != sealer.reference("bob@acme.example")
    assert email_domain(reference) == DOMAIN
    assert sealer.reference(reference) == reference
    assert Sealer(Keys(b"R" * 32, (b"w" * 32,))).reference(ADA) != reference


@pytest.mark.parametrize(
    "text", ["acct-1", "", "a@b", "see ada@acme.example", "@acme.example", "a b@acme.example", "é"]
)
def test_what_is_no_address_stays(text: str) -> None:
    assert Sealer(KEYS).reference(text) == text


def test_of_a_user_all_that_is_personal_goes_and_nothing_else() -> None:
    traits = {
        "name": "Ada Lovelace", "email": ADA, "phone": "+44 20 7946 0958", "plan": "pro", "seats": 5, "$name": "Ada L.",
        "first_name": "Ada", "company": {"id": "acct-1", "name": "Acme"}, "admin": True, "IP": "203.0.113.9",
    }  # fmt: skip
    body, contacts = sealed(IDENTIFY, {"user_id": "u1", "traits": traits, "timestamp": "2026-06-01T00:00:00Z"})
    stays = {"plan": "pro", "seats": 5, "company": {"id": "acct-1", "name": "Acme"}, "admin": True}
    assert {name: body["traits"][name] for name in stays} == stays
    assert all(REFERENCE.fullmatch(value) for name, value in body["traits"].items() if name not in stays)
    assert {contact.person for contact in contacts} == {"u1"}
    values = {contact.token: contact.value for contact in contacts}
    assert replaced(body["traits"], values, "gone") == traits
    assert tokens_in(body) == set(values)


def test_a_company_keeps_its_name_and_a_feature_its_name() -> None:
    body = {"account_id": "acct-1", "name": "Acme", "traits": {"name": "Acme", "email": "billing@acme.example"}}
    found, contacts = sealed(GROUP, body)
    assert (found["name"], found["traits"]["name"]) == ("Acme", "Acme")
    assert [contact.value for contact in contacts] == ["billing@acme.example"]
    properties = {"name": "Reports", "feature_name": "Export", "mobile": True, "ip": "1", "phone": "iOS", "mail": 0}
    body = {"user_id": "u1", "event": "x", "properties": properties, "context": {"library": {"name": "python"}}}
    assert sealed(TRACK, body) == (body, [])


def test_a_user_id_that_is_an_address_is_its_reference_everywhere() -> None:
    body, contacts = sealed(IDENTIFY, {"user_id": ADA, "properties": {"previousId": ADA}, "traits": {"name": "Ada"}})
    assert body["user_id"] == body["properties"]["previousId"] == Sealer(KEYS).reference(ADA)
    assert {contact.person for contact in contacts} == {body["user_id"]}


def test_names_and_numbers_of_two_persons_cannot_be_joined() -> None:
    one, _ = sealed(IDENTIFY, {"user_id": "u1", "traits": {"name": "Ada", "email": ADA}})
    two, _ = sealed(IDENTIFY, {"user_id": "u2", "traits": {"name": "Ada", "email": ADA}})
    assert one["traits"]["name"] != two["traits"]["name"]
    assert one["traits"]["email"] == two["traits"]["email"]


def test_staff_texts_and_who_asks_stay() -> None:
    body = {"ticket_id": "1", "text": ADA, "person_id": "lea@vendor.example", "comment": "write to " + ADA}
    assert sealed("ticket.opened", body) == (body, [])
    asked = {
        "demand": "alert.acknowledge",
        "parameters": {"person": "lea@vendor.example"},
        "user_id": "lea@vendor.example",
    }
    assert sealed("request.made", asked) == (asked, [])
    about, contacts = sealed("request.made", {**asked, "account_id": ADA, "parameters": {"contact_id": ADA}})
    assert about["account_id"] == about["parameters"]["contact_id"] == Sealer(KEYS).reference(ADA)
    assert len(contacts) == 2


def test_who_asks_to_be_forgotten_is_not_told_anew() -> None:
    found = Sealer(KEYS).seal_record("privacy.requested", ADA.encode(), json.dumps({"user_id": ADA}).encode())
    assert found is not None
    assert (found.contacts, found.key) == ([], Sealer(KEYS).reference(ADA).encode())


def test_further_fields_can_be_named() -> None:
    body, contacts = sealed(TRACK, {"user_id": "u1", "properties": {"Tax-ID": "12 345"}}, fields=("tax_id",))
    assert [(contact.kind, contact.value) for contact in contacts] == [("other", "12 345")]
    assert Sealer(KEYS, ("tax_id",)).may_hold(b'{"properties":{"tax_id":"12"}}')
    assert body["properties"]["Tax-ID"] == contacts[0].token


SPELT = st.sampled_from(sorted(name for name, kind in _KIND_OF.items()))
VALUES = {"email": ADA, "phone": "+44 20 7946 0958", "ip": "203.0.113.9", "name": "Ada Lovelace"}


@given(SPELT, st.booleans())
def test_the_quick_look_overlooks_no_name(name: str, upper: bool) -> None:
    field = name.upper() if upper else name
    value = json.dumps({"event": "x", "properties": {field: VALUES[_KIND_OF[name]]}}).encode()
    found = Sealer(KEYS).seal_record(TRACK, b"u1", value)
    assert found is not None
    assert VALUES[_KIND_OF[name]].encode() not in found.value


PLAIN = st.dictionaries(
    st.sampled_from(["feature", "rows", "email", "ip", "name", "user_name", "deep"]),
    st.sampled_from([1, None, True, "x", ADA, "203.0.113.9", {"phone": "020 7946 0958"}, [ADA, 7]]),
    max_size=4,
)
USERS = st.sampled_from(
    ["u1", ADA, "bob@acme.example", 'odd"@acme.example', "back\\slash@acme.example", "é@acme.example"]
)


@given(USERS, PLAIN)
def test_the_quick_way_gives_what_the_long_way_gives(user: str, properties: dict[str, Any]) -> None:
    body = {"event": "E", "user_id": user, "properties": properties, "context": {"library": {"name": "n"}}}
    value, key = msgspec.json.encode(body), user.encode()
    sealer = Sealer(KEYS)
    fields = tuple(properties) if not any(isinstance(value, dict | list) for value in properties.values()) else None
    found = sealer.seal_record(TRACK, key, value, fields)
    long, contacts = sealed(TRACK, body)
    assert json.loads(found.value if found else value) == long
    assert (found.key if found else key) == Sealer(KEYS).reference(user).encode()
    assert set(found.contacts if found else ()) == set(contacts)
    if found:
        assert sealer.seal_record(TRACK, found.key, found.value) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_passed_on(value: bytes) -> None:
    found = Sealer(KEYS).seal_record(TRACK, b"a@b.example", b"@" + value)
    assert found is None or found.value


def test_references_read_as_what_they_stand_for_also_within_a_text() -> None:
    reference = Sealer(KEYS).reference(ADA)
    token = reference.partition("@")[0]
    assert replaced([f"call {reference}.", 3], {token: ADA}, "gone") == [f"call {ADA}.", 3]
    assert replaced({"who": f"zendesk:{reference}", "n": None}, {token: ADA}, "gone") == {
        "who": f"zendesk:{ADA}",
        "n": None,
    }
    assert replaced(f"({reference})", {}, "(deleted person)") == "((deleted person))"


def test_exclusions_name_addresses_or_their_domains() -> None:
    rules = Exclusions.model_validate({"rules": [{"reason": "r", "user_id": [ADA, "*@staff.example"]}]})
    found = rules.sealed(Sealer(KEYS)).rules[0]
    for address in (ADA, "lea@staff.example"):
        assert found.matches(None, Sealer(KEYS).reference(address), "x", {})
    assert not found.matches(None, Sealer(KEYS).reference("bob@acme.example"), "x", {})


def test_keys_are_written_for_their_owner_alone_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / vault.FILE_NAME
    made = Keys.make()
    vault.write(path, made)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert vault.load({vault.FILE_VARIABLE: str(path)}) == made == vault.load({vault.VARIABLE: made.text})
    assert vault.load({}) is None
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["x", "hv1.AAAA.BBBB", "hv1", "hv2." + KEYS.text[4:], KEYS.text[:-3]])
def test_what_is_no_key_is_said_clearly(text: str) -> None:
    with pytest.raises(Misconfigured, match="HUNE_VAULT_KEY"):
        vault.load({vault.VARIABLE: text})
    with pytest.raises(Misconfigured, match="does not exist"):
        vault.load({vault.FILE_VARIABLE: "/nowhere/vault.key"})


def test_a_changed_key_opens_what_the_older_one_closed_until_that_is_left_out() -> None:
    closed = KEYS.wrap(b"secret", "u1")
    changed = Keys.from_text(KEYS.changed().text, "it")
    assert changed.unwrap(closed, "u1") == b"secret"
    assert not changed.is_current(closed)
    assert changed.fingerprint == KEYS.fingerprint
    with pytest.raises(Unreadable):
        changed.alone().unwrap(closed, "u1")
    for tampered, about in ((closed[:-1] + b"\0", "u1"), (closed, "u2"), (b"", "u1"), (closed[:9], "u1")):
        with pytest.raises(Unreadable):
            KEYS.unwrap(tampered, about)
