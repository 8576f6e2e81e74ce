"""Which fields of an event are a person's, and the references that stand in their place.

| found | where | becomes |
|---|---|---|
| a value that is an e-mail address, also behind a tool's prefix | all but texts people wrote | `hv_…@domain` |
| a value named as an e-mail address, phone number, IP address, name | traits, properties, context | `hv_…` |

`name` is a person's in the traits of a user alone. The same address has the same reference everywhere, whatever its
case, so that it still joins; other values have one per person. Staff (`person_id`) are nobody's contacts.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from shared.vault.keys import Keys

PREFIX = "hv_"
TOKEN = re.compile(r"hv_[a-z2-7]{26}")
REFERENCE = re.compile(r"hv_[a-z2-7]{26}(?:@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)?")
LONGEST = 256
REMEMBERED = 100_000
EMAIL, NAME, PHONE, IP, OTHER = "email", "name", "phone", "ip", "other"

REQUEST, PRIVACY = "request.made", "privacy.requested"
OF_PERSONS = frozenset(("user.identified", "contact.changed"))
STAFF = frozenset(("person_id", "cause_ids"))
TEXTS = frozenset(("text", "comment", "note", "subject", "title", "reason", "objective"))
NAMED = frozenset(("traits", "properties", "context", "groups"))
MACHINE = frozenset(("library", "app", "os", "device", "page", "screen", "network"))
"""Parts of a context whose names are not a person's."""
PERSONS = ("user_id", "recipient_id", "contact_id")
_ASKED = ("account_id", "user_id", "contact_id")

_ADDRESS = re.compile(r"((?:[a-z_]+:)?)([^\s@:,;<>()\[\]\"\\]+@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+))")
_REFERRED = re.compile(rb"hv_[a-z2-7]{26}@")
_DIGITS = re.compile(r"\d")
_SIGNS = str.maketrans("", "", "_- .$")
_KINDS = {
    EMAIL: "email mail emailaddress useremail useremailaddress contactemail workemail personalemail customeremail",
    PHONE: "phone phonenumber mobile mobilephone mobilenumber cellphone telephone telephonenumber workphone homephone"
    " contactphone userphone customerphone",
    IP: "ip ipaddress ipaddr clientip userip remoteip remoteaddr remoteaddress clientaddress",
    NAME: "firstname lastname fullname middlename surname givenname familyname nickname username displayname realname"
    " contactname personname customername",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Contact(NamedTuple):
    """A personal value, for the vault: whose it is (their id as events have it), and its reference's token."""

    person: str
    token: str
    kind: str
    value: str


class Sealed(msgspec.Struct, frozen=True, gc=False):
    key: bytes | None
    value: bytes
    contacts: list[Contact]


class Sealer:
    """Puts references into events; pure but for what it remembers of addresses. `fields` are further names."""

    def __init__(self, keys: Keys, fields: Iterable[str] = ()) -> None:
        self.keys = keys
        self._kind_of = _KIND_OF | {_plain(name): OTHER for name in fields}
        self._hints = tuple(name.lower().encode() for name in fields)
        self._kinds: dict[str, str | None] = {}
        self._addresses: dict[str, tuple[str, str] | None] = {}
        self._users: dict[bytes, tuple[bytes, bytes, bytes, Contact] | None] = {}
        self._tokens: dict[tuple[str, str, str], str] = {}
        self._shapes: dict[tuple[str, ...], bool] = {}

    def seal_record(
        self, type: str, key: bytes | None, value: bytes, fields: tuple[str, ...] | None = None
    ) -> Sealed | None:
        """What stands for a record's key and JSON body; None when they hold nothing personal.

        `fields` are all names whose values can be personal without being an address, where the caller knows them.
        """
        if fields is not None and self.is_plain(fields):
            if b"@" not in value:
                return None
            if key is not None and (quick := self._only_user(key, value)) is not None:
                return quick
        elif not self.may_hold(value) and not (key and b"@" in key):
            return None
        try:
            body = _decode(value)
            named = key.decode() if key is not None else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(body, dict):
            return None
        contacts: list[Contact] = []
        sealed = self.seal(type, body, contacts)
        other_key = self._string(named, None, contacts) if named is not None else None
        if not contacts:
            return None
        kept = [] if type == PRIVACY else contacts  # who asks to be forgotten is not told anew
        return Sealed(None if other_key is None else other_key.encode(), _encode(sealed), kept)

    def is_plain(self, fields: tuple[str, ...]) -> bool:
        """Whether none of the names is a personal value's."""
        try:
            return self._shapes[fields]
        except KeyError:
            pass
        if len(self._shapes) > REMEMBERED:
            self._shapes.clear()
        found = all(self._kind(name) is None and name.lower() != "$name" for name in fields)
        self._shapes[fields] = found
        return found

    def seal_structured(self, type: str, key: bytes | None, value: bytes) -> Sealed | None:
        """The same for a CloudEvent in structured mode, whose body is its `data`."""
        event = _decode(value)
        if not isinstance(event, dict) or not isinstance(event.get("data"), dict):
            return None
        sealed = self.seal_record(type, key, _encode(event["data"]))
        if sealed is None:
            return None
        return Sealed(sealed.key, _encode({**event, "data": _decode(sealed.value)}), sealed.contacts)

    def may_hold(self, value: bytes) -> bool:
        """False when the JSON surely holds nothing personal; a few searches, no decoding."""
        low = value.lower()
        return (
            (b"@" in low and low.count(b"@") > len(_REFERRED.findall(low)))
            or b'"traits"' in low
            or b"mail" in low
            or b'ip"' in low
            or b"phone" in low
            or b"mobile" in low
            or b"addr" in low
            or low.count(b'name"') > low.count(b'"name"')
            or b"\\u00" in low
            or any(hint in low for hint in self._hints)
        )

    def seal(self, type: str, body: Mapping[str, Any], contacts: list[Contact]) -> dict[str, Any]:
        """The body with references; what they stand for is added to `contacts`."""
        if type == REQUEST:
            return self._asked(body, contacts)
        found = dict(body)
        for name in PERSONS:
            if isinstance(found.get(name), str):
                found[name] = self._string(found[name], None, contacts)
        person = next((str(found[name]) for name in PERSONS if found.get(name)), None)
        for name, value in found.items():
            if name in STAFF or name in TEXTS or name in PERSONS:
                continue
            if name == "context" and isinstance(value, dict):
                found[name] = {
                    part: self._any(inner, person, contacts) if part in MACHINE else inner
                    for part, inner in value.items()
                }
                rest = {part: inner for part, inner in value.items() if part not in MACHINE}
                found[name] |= self._fields(rest, person, False, contacts)
            elif name in NAMED:
                found[name] = self._fields(value, person, type in OF_PERSONS and name == "traits", contacts)
            elif name == "email" and isinstance(value, str):
                found[name] = self._string(value, person, contacts)
            else:
                found[name] = self._any(value, person, contacts)
        return found

    def reference(self, text: str) -> str:
        """What stands for an e-mail address; any other text stays."""
        known = self._address(text)
        return known[0] if known else text

    def _only_user(self, key: bytes, value: bytes) -> Sealed | None:
        """The commonest case without decoding: the user id is an address, and nothing else can be personal."""
        try:
            known = self._users[key]
        except KeyError:
            known = self._make_user(key)
        if known is None or value.count(b"@") != 1:
            return None
        quoted, stands, reference, contact = known
        if quoted not in value:
            return None
        return Sealed(reference, value.replace(quoted, stands, 1), [contact])

    def _make_user(self, key: bytes) -> tuple[bytes, bytes, bytes, Contact] | None:
        if len(self._users) > REMEMBERED:
            self._users.clear()
        text = key.decode("utf-8", "replace")
        known = self._address(text) if text.isascii() else None
        found = None
        if known is not None:
            stands = known[0].encode()
            contact = Contact(known[0], known[1], EMAIL, text)
            found = b'"user_id":"%b"' % key, b'"user_id":"%b"' % stands, stands, contact
        self._users[key] = found
        return found

    def _asked(self, body: Mapping[str, Any], contacts: list[Contact]) -> dict[str, Any]:
        """Of a request: whom or what it is about. Who asks is staff."""
        found = dict(body)
        if isinstance(found.get("account_id"), str):
            found["account_id"] = self._string(found["account_id"], None, contacts)
        parameters = found.get("parameters")
        if isinstance(parameters, dict):
            found["parameters"] = {
                name: self._string(value, None, contacts) if name in _ASKED and isinstance(value, str) else value
                for name, value in parameters.items()
            }
        return found

    def _fields(self, value: Any, person: str | None, of_person: bool, contacts: list[Contact]) -> Any:
        """Traits, properties or a context: by the fields' names, and addresses by what they are."""
        if isinstance(value, dict):
            found = {}
            for name, part in value.items():
                kind = self._kind(name)
                if kind is None and name.lower() in ("name", "$name"):
                    kind = NAME if of_person or name[0] == "$" else None
                if kind is not None and isinstance(part, str | int | float) and not isinstance(part, bool):
                    found[name] = self._value(kind, part, person, contacts)
                else:
                    found[name] = self._fields(part, person, False, contacts)
            return found
        if isinstance(value, list):
            return [self._fields(part, person, False, contacts) for part in value]
        return self._string(value, person, contacts) if isinstance(value, str) and "@" in value else value

    def _value(self, kind: str, value: str | int | float, person: str | None, contacts: list[Contact]) -> Any:
        text = str(value)
        if not text.strip() or text in ("0", "1") or REFERENCE.fullmatch(text):
            return value
        if "@" in text:
            stands = self._string(text, person, contacts)
            if stands != text:
                return stands
        if kind == PHONE and len(_DIGITS.findall(text)) < 5:
            return value
        if kind == IP and not ("." in text or ":" in text):
            return value
        told = kind, person or "", text
        token = self._tokens.get(told)
        if token is None:
            if len(self._tokens) > REMEMBERED:
                self._tokens.clear()
            token = self._tokens[told] = token_of(self.keys.digest(*told))
        contacts.append(Contact(person or token, token, kind, text))
        return token

    def _any(self, value: Any, person: str | None, contacts: list[Contact]) -> Any:
        """Addresses by what they are."""
        if isinstance(value, str):
            return self._string(value, person, contacts) if "@" in value else value
        if isinstance(value, list | tuple):
            return [self._any(part, person, contacts) for part in value]
        if isinstance(value, dict):
            return {name: part if name in TEXTS else self._any(part, person, contacts) for name, part in value.items()}
        return value

    def _string(self, text: str, person: str | None, contacts: list[Contact]) -> str:
        known = self._address(text)
        if known is None:
            return text
        reference, token = known
        contacts.append(Contact(person or reference, token, EMAIL, text))
        return reference

    def _address(self, text: str) -> tuple[str, str] | None:
        """Reference and token of an e-mail address, None if it is none or is one already."""
        if "@" not in text:
            return None
        try:
            return self._addresses[text]
        except KeyError:
            pass
        if len(self._addresses) > REMEMBERED:
            self._addresses.clear()
        found = self._addresses[text] = self._make_address(text)
        return found

    def _make_address(self, text: str) -> tuple[str, str] | None:
        match = _ADDRESS.fullmatch(text.strip())
        if match is None or REFERENCE.fullmatch(match[2]):
            return None
        token = token_of(self.keys.digest(EMAIL, match[2].lower()))
        reference = f"{match[1]}{token}@{match[3].lower()}"
        return (reference if len(reference) <= LONGEST else match[1] + token), token

    def _kind(self, name: str) -> str | None:
        try:
            return self._kinds[name]
        except KeyError:
            pass
        if len(self._kinds) > REMEMBERED:
            self._kinds.clear()
        found = self._kinds[name] = self._kind_of.get(_plain(name))
        return found


def _plain(name: str) -> str:
    return name.lower().translate(_SIGNS)


def token_of(digest: bytes) -> str:
    return PREFIX + base64.b32encode(digest[:16]).decode().rstrip("=").lower()


def tokens_in(value: Any) -> set[str]:
    """The tokens of all references in a text, or in anything JSON holds."""
    if isinstance(value, str):
        return set(TOKEN.findall(value)) if PREFIX in value else set()
    if isinstance(value, Mapping):
        return {token for name, part in value.items() for token in (*tokens_in(name), *tokens_in(part))}
    if isinstance(value, list | tuple | set | frozenset):
        return {token for part in value for token in tokens_in(part)}
    return set()


def replaced(value: Any, values: Mapping[str, str], otherwise: str) -> Any:
    """The same with each reference replaced by its value, or by `otherwise` where there is none any more."""
    if isinstance(value, str):
        if PREFIX not in value:
            return value
        return REFERENCE.sub(lambda found: values.get(found[0].partition("@")[0], otherwise), value)
    if isinstance(value, Mapping):
        return {replaced(name, values, otherwise): replaced(part, values, otherwise) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(part, values, otherwise) for part in value]
    return value
