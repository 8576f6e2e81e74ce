"""What every adapter makes of a tool's payload: canonical events, and from them records for Kafka."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from services.gateway.settings import Limits
from shared.events import wire_type_of
from shared.ids import derived_id
from shared.topics import RAW_EVENTS

SOURCE = "hune"
MAX_ID = 256
_BODY_NAMESPACE = uuid.UUID("0a3c6f3e-4c55-5d8e-9a53-7c1f6e2d9b10")
_EARLIEST_MS = 100_000_000_000
_CONTENT_TYPE = ("content-type", b"application/json")
_SPEC_VERSION = ("ce_specversion", b"1.0")
encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """The caller's fault: which message, what is wrong with it, what to do."""

    def __init__(self, reason: str, *, status: int = 400, index: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.status, self.index = reason, status, index

    def at(self, index: int) -> Refused:
        return Refused(self.reason, status=self.status, index=index)


class Canonical(msgspec.Struct, frozen=True, gc=False):
    """One canonical event. `own_time` is as sent and part of the identity; `occurred_at` is the corrected time."""

    type: str
    id: str
    body: dict[str, Any]
    key: str
    occurred_at: datetime
    own_time: str | None
    source: str = SOURCE


UNREAD = ("webhook.", "polled.")
"""What the types of records begin with that hold what a tool sent as it came, because no adapter could read it."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as Kafka will hold it.

    `fields`, where the adapter knows them: names of plain values, and nothing else but an address can be personal.
    """

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    fields: tuple[str, ...] | None = None

    @property
    def size(self) -> int:
        return len(self.value) + len(self.key) + 200


def record_of(event: Canonical, topic: str = RAW_EVENTS.name) -> Record:
    headers = [
        _SPEC_VERSION,
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", wire_type_of(event.type).encode()),
        _CONTENT_TYPE,
    ]
    if event.own_time is not None:
        # Without an own time the broker's is the event's: one of ours would differ when the call is sent again.
        headers.append(("ce_time", instant(event.occurred_at)))
        headers.append(("ce_owntime", event.own_time.encode()))
    return Record(topic, event.key.encode(), encode(event.body), headers)


def plain_headers(type: str) -> Callable[[str, str | None, bytes | None], list[tuple[str, bytes]]]:
    """A function that gives the headers of our own events of a type: from id, own time and time on our clock."""
    source, wire = ("ce_source", SOURCE.encode()), ("ce_type", wire_type_of(type).encode())

    def headers(id: str, own_time: str | None, occurred_at: bytes | None) -> list[tuple[str, bytes]]:
        if own_time is None or occurred_at is None:
            return [_SPEC_VERSION, ("ce_id", id.encode()), source, wire, _CONTENT_TYPE]
        return [
            _SPEC_VERSION,
            ("ce_id", id.encode()),
            source,
            wire,
            _CONTENT_TYPE,
            ("ce_time", occurred_at),
            ("ce_owntime", own_time.encode()),
        ]

    return headers


def rfc3339(at: datetime) -> str:
    return instant(at).decode()


def instant(at: datetime) -> bytes:
    """The same as bytes; msgspec writes it six times as fast as `isoformat`."""
    return encode(at if at.tzinfo is UTC else at.astimezone(UTC))[1:-1]


def identifier(value: object, field: str) -> str | None:
    """Give the id as text; SDKs send numbers too. Null and empty mean that there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Refused(f"{field} is {_kind(value)}; send a string")
    text = value if isinstance(value, str) else str(value)
    if len(text) > MAX_ID:
        raise Refused(f"{field} has {len(text)} characters; at most {MAX_ID}")
    return text


def short_text(value: object) -> str | None:
    """Give a value that fits an identifier of the contract, else none: it stays in the properties."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID else None


def mapping(value: object, field: str) -> dict[str, Any]:
    """Give the object; null, and the empty list that PHP makes of an empty object, are empty."""
    if not value and (value is None or isinstance(value, list)):
        return {}
    if not isinstance(value, dict):
        raise Refused(f"{field} is {_kind(value)}; send a JSON object")
    return value


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "of a wrong type")


class OwnTime(msgspec.Struct, frozen=True, gc=False):
    """A time as the client sent it, and the instant it means."""

    text: str
    at: datetime


def own_time(value: object, field: str) -> OwnTime | None:
    """Read a client's time: ISO 8601 (UTC if it names no zone) or a number of s or ms since 1970.

    A number is told apart by its size and becomes text, so that every reader reads the same instant.
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return OwnTime(value, at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            at = from_epoch(value)
            return OwnTime(rfc3339(at), at)
    except (ValueError, OverflowError):
        pass
    raise Refused(f"{field} cannot be read as a time; send ISO 8601 such as 2026-06-01T09:30:00.000Z")


def from_epoch(value: float) -> datetime:
    """The instant of s or ms since 1970; ms from 1973 on are larger than s until the year 5138."""
    microseconds = round(value * 1_000) if abs(value) >= _EARLIEST_MS else round(value * 1_000_000)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def skewed(at: datetime, sent_at: datetime | None, received_at: datetime) -> datetime:
    """Put a client's time on our clock: received_at - (sent_at - at), as Segment documents."""
    if sent_at is None:
        return at
    try:
        return received_at - (sent_at - at)
    except OverflowError:
        return at


class MissingIds:
    """Ids for messages that carry none, the same each time the same request is sent.

    The hash of the message, and its ordinal among equal messages of one request.
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}

    def id_of(self, message: Mapping[str, Any], volatile: Collection[str]) -> str:
        stable = {name: value for name, value in message.items() if name not in volatile}
        canonical = msgspec.json.encode(stable, order="sorted")
        ordinal = self._seen.get(canonical, 0)
        self._seen[canonical] = ordinal + 1
        return str(uuid.uuid5(_BODY_NAMESPACE, f"{ordinal}\x1f{canonical.decode()}"))


def tracked(
    *,
    source: str,
    id: str,
    user_id: str | None,
    event: str,
    own: OwnTime | None,
    occurred_at: datetime,
    properties: dict[str, Any],
    feature: str | None = None,
    groups: dict[str, Any] | None = None,
) -> Canonical:
    """A `usage.tracked` of a tool that is not Segment; any account it names stays where the router looks."""
    account = account_hint((groups or {}).get("company"), properties.get("company_id"), properties.get("account_id"))
    if user_id is None and account is None:
        raise Refused("the event names neither a user nor an account; send one of them")
    body: dict[str, Any] = {"event": event}
    optional = {
        "user_id": user_id,
        "feature": feature or short_text(properties.get("feature")),
        "product": short_text(properties.get("product")),
        "timestamp": own.text if own else None,
        "groups": groups,
        "properties": properties,
    }
    body.update((name, value) for name, value in optional.items() if value)
    key = user_id or account or id
    return Canonical("usage.tracked", id, body, key, occurred_at, own.text if own else None, source)


def told(
    type: str,
    *,
    source: str,
    id: str,
    own: OwnTime | None,
    occurred_at: datetime,
    user_id: str | None = None,
    account_id: str | None = None,
    **fields: Any,
) -> Canonical:
    """Any other event; empty fields are left out."""
    who = {"user_id": user_id, "account_id": account_id, "timestamp": own.text if own else None}
    body = {name: value for name, value in {**who, **fields}.items() if value}
    return Canonical(type, id, body, user_id or account_id or id, occurred_at, own.text if own else None, source)


def account_hint(*hints: object) -> str | None:
    """The first account that a message names; only for a record's key, as the router decides which counts."""
    return next((str(hint)[:MAX_ID] for hint in hints if isinstance(hint, (str, int)) and hint != ""), None)


def membership_id(event_id: str) -> str:
    """The id of the membership that a `group` call tells besides the account's traits."""
    return derived_id("gateway", event_id, "membership")


def decode(body: bytes | memoryview | msgspec.Raw, type: Any = Any) -> Any:
    """Decode JSON; raises Refused that says what is wrong, never with a piece of the payload."""
    try:
        try:
            return msgspec.json.decode(body, type=type)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            repaired = _repaired(bytes(body))
            if repaired is None:
                raise
            return msgspec.json.decode(repaired, type=type)
    except RecursionError:
        raise Refused("the JSON is nested too deep") from None
    except msgspec.ValidationError as error:
        raise Refused(f"the body has another shape than documented: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"the body is not JSON in UTF-8: {error}") from None


def _repaired(body: bytes) -> bytes | None:
    """Rewrite what SDKs send although JSON forbids it: NaN and Infinity (null), half a surrogate pair (?)."""
    if not any(sign in body for sign in (b"NaN", b"Infinity", b"\\ud", b"\\uD")):
        return None
    try:
        value = json.loads(body, parse_constant=lambda _: None)
    except ValueError:
        return None
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def check_message(raw: msgspec.Raw, limits: Limits) -> None:
    """Refuse a message that is too large, too deep or has too many keys.

    Brackets and colons in the text bound depth and keys from above, so that an ordinary message costs no walk.
    """
    text = bytes(raw)
    if len(text) > limits.event_bytes:
        raise Refused(
            f"the message has {len(text)} bytes; at most {limits.event_bytes}: send less in properties", status=413
        )
    if text.count(b"{") + text.count(b"[") > limits.depth:
        depth = _depth(decode(raw))
        if depth > limits.depth:
            raise Refused(f"the message is nested {depth} deep; at most {limits.depth}")
    if text.count(b":") > limits.keys:
        keys = _keys(decode(raw))
        if keys > limits.keys:
            raise Refused(f"the message has {keys} keys; at most {limits.keys}")


def _children(value: object) -> Collection[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _depth(value: object) -> int:
    level, depth = [value], 0
    while containers := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for container in containers for child in _children(container)]
    return depth


def _keys(value: object) -> int:
    stack, count = [value], 0
    while stack:
        top = stack.pop()
        count += len(top) if isinstance(top, dict) else 0
        stack.extend(_children(top))
    return count
