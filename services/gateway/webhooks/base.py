"""What an adapter is given, what it gives back, and the few readers that all of them share.

An adapter raises `Unreadable` for a payload whose shape it does not know: the door accepts it all the same and
sends it on unread, so that it waits in quarantine. Optional fields of an odd type are simply not told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict

from services.gateway.canonical import MAX_ID, Canonical, OwnTime, Refused, decode, own_time, rfc3339
from services.gateway.webhooks.text import plain_text
from shared.ids import derived_id

MAX_DEPTH = 16
O = TypeVar("O", bound=BaseModel)  # noqa: E741
T = TypeVar("T")


class Forged(Exception):
    """The delivery does not prove where it comes from; the text never holds what was expected."""


class Unreadable(Exception):
    """A payload, or a part of it, of unknown shape; `read` is what could be read of the rest."""

    def __init__(self, reason: str, read: Sequence[Canonical] = ()) -> None:
        super().__init__(reason)
        self.read = tuple(read)


class Options(BaseModel):
    """A tool's own knobs in config/webhooks.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of a tool: header names in lower case, the body as it came.

    `url` is the address as the tool called it, `token` the last part of the path or the query's `key`.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    received_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    method: str = "POST"
    url: str = ""
    token: str | None = None
    options: BaseModel | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """What a tool proves itself by: live secrets (two while they are changed), tokens, public keys."""

    secrets: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    window_seconds: int = 300
    options: BaseModel | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.secrets or self.tokens or self.public_keys)


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    media_type: str = "application/json"


def say_success(delivery: Delivery) -> Answer:
    return Answer(b'{"success": true}')


def say_refused(body: bytes, status: int, reason: str) -> Answer:
    return Answer(msgspec.json.encode({"success": False, "error": reason}))


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool's adapter. `dropped` names the fields of its payloads that no event carries."""

    name: str
    verify: Callable[[Delivery, Trust], None]
    events: Callable[[Delivery], list[Canonical]]
    dropped: tuple[str, ...]
    accepted: Callable[[Delivery], Answer] = say_success
    refused: Callable[[bytes, int, str], Answer] = say_refused
    takes_token: bool = False


def options_of(holder: Delivery | Trust, model: type[O]) -> O:
    return holder.options if isinstance(holder.options, model) else model()


# -- reading -----------------------------------------------------------------------------------------


def json_of(body: bytes) -> Any:
    try:
        return decode(body)
    except Refused as refused:
        raise Unreadable(refused.reason) from None


_decode_exactly = msgspec.json.Decoder(float_hook=Decimal).decode


def exact_json_of(body: bytes) -> Any:
    """JSON whose fractions stay as written."""
    try:
        return _decode_exactly(body)
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidOperation, RecursionError):
        return json_of(body)


def object_of(body: bytes) -> dict[str, Any]:
    payload = json_of(body)
    if not isinstance(payload, dict):
        raise Unreadable("the payload is not a JSON object")
    return payload


def objects_in(payload: object) -> list[Any]:
    """The payload's parts: a list as it is, anything else as the only one; an empty list is unreadable."""
    parts = payload if isinstance(payload, list) else [payload]
    if not parts:
        raise Unreadable("the payload is an empty list")
    return parts


def each(parts: Iterable[T], read: Callable[[T], Iterable[Canonical]]) -> list[Canonical]:
    """Read all parts that can be read.

    Raises Unreadable with the reasons of the others, each reason once, and with what was read.
    """
    events: list[Canonical] = []
    reasons: dict[str, int] = {}
    for part in parts:
        try:
            events += read(part)
        except Unreadable as unreadable:
            events += unreadable.read
            reasons[str(unreadable)] = reasons.get(str(unreadable), 0) + 1
    if reasons:
        said = "; ".join(f"{reason} ({n} times)" if n > 1 else reason for reason, n in reasons.items())
        raise Unreadable(said[:1000], events)
    return events


def mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def at(value: object, path: str) -> Any:
    """The value at a dotted path, or None."""
    for step in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def word(value: object) -> str:
    """A name of the tool's such as a type; "" when there is none."""
    return value if isinstance(value, str) else ""


def ident(value: object) -> str | None:
    """An id as text, exactly as the tool writes it; None when there is none or it is too long for one."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value).replace("\x00", "")
    return text if 0 < len(text) <= MAX_ID else None


def needed(value: T | None, name: str) -> T:
    if value is None:
        raise Unreadable(f"{name} is missing")
    return value


def when(value: object, name: str) -> OwnTime | None:
    """A time: ISO 8601 (UTC if it names no zone), or s or ms since 1970 as a number or as digits.

    Raises Unreadable when there is one that cannot be read: it would be part of the event's identity.
    """
    if isinstance(value, str):
        value = value.strip()
        if value.isascii() and value.removeprefix("-").replace(".", "", 1).isdigit() and len(value) <= 20:
            value = float(value) if "." in value else int(value)
    if isinstance(value, Decimal):
        value = float(value)
    try:
        own = own_time(value, name)
        return OwnTime(rfc3339(own.at), own.at) if own else None
    except (Refused, OverflowError):
        raise Unreadable(f"{name} cannot be read as a time") from None


def day(value: object) -> str | None:
    """A date, or the UTC date of a time."""
    if isinstance(value, str):
        try:
            return date.fromisoformat(value.strip()).isoformat()
        except ValueError:
            pass
    try:
        own = when(value, "date")
    except Unreadable:
        return None
    return own.at.astimezone(UTC).date().isoformat() if own else None


def number(value: object) -> float | None:
    """A number, also one that the tool writes as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    found = number(value)
    return int(found) if found is not None and found == int(found) and abs(found) < 1e15 else None


def money(value: object) -> str | None:
    """An exact amount as a decimal string; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, str, float, Decimal)):
        return None
    try:
        amount = value if isinstance(value, Decimal) else Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return format(amount, "f") if amount.is_finite() and -30 < amount.adjusted() < 30 else None


def positive_money(value: object) -> str | None:
    amount = money(value)
    return amount if amount is not None and Decimal(amount) >= 0 else None


def currency(value: object) -> str | None:
    known = isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha()
    return str(value).upper() if known else None


def email(value: object) -> str | None:
    """An address: the router finds an account by its domain."""
    text = ident(value)
    return text if text is not None and "@" in text else None


def person(tool: str, id: object) -> str | None:
    """The tool's own number of a person, marked as such: it says nothing in other tools' numbers."""
    text = ident(id)
    return ident(f"{tool}:{text}") if text else None


def external(**ids: object) -> dict[str, str]:
    """External ids by namespace, without those that are not told."""
    return {namespace: text for namespace, id in ids.items() if (text := ident(id))}


def account_in(fields: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of the fields that names an account by our customer's own id."""
    return next((text for name in names if (text := ident(fields.get(name)))), None)


def first_text(*values: object) -> str | None:
    return next((text for value in values if (text := plain_text(value))), None)


# -- writing -----------------------------------------------------------------------------------------


def event(
    delivery: Delivery,
    source: str,
    type: str,
    id: str,
    own: OwnTime | None,
    *,
    user_id: str | None = None,
    account_id: str | None = None,
    external_ids: Mapping[str, str] | None = None,
    cleared: Iterable[str] = (),
    key: str | None = None,
    **fields: Any,
) -> Canonical:
    """A canonical event; what is None is left out, `cleared` fields are told to be null.

    Its key in Kafka is who it is about: the user, else the account, else the external id.
    """
    told: dict[str, Any] = {
        "account_id": account_id,
        "user_id": user_id,
        "timestamp": own.text if own else None,
        "external_ids": dict(external_ids) if external_ids else None,
        **fields,
    }
    body = {name: storable(value) for name, value in told.items() if value is not None}
    body.update(dict.fromkeys(cleared))
    where = next((f"{name}:{value}" for name, value in sorted((external_ids or {}).items())), None)
    key = key or user_id or account_id or where or id
    id = id if len(id) <= MAX_ID else derived_id("gateway", source, id)
    return Canonical(type, id, body, key, own.at if own else delivery.received_at, own.text if own else None, source)


def storable(value: Any, depth: int = 0) -> Any:
    """A JSON value that every store holds: no NUL, no endless nesting, numbers of 64 bits, Decimals as numbers."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, (dict, list, tuple)) and depth >= MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return {str(name).replace("\x00", ""): storable(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(inner, depth + 1) for inner in value]
    return value
