"""The Segment HTTP API: calls as Segment's and RudderStack's SDKs send them become canonical events.

| call | canonical event | account told by |
|---|---|---|
| track | usage.tracked, feature = properties.feature | context.groupId, groups, properties (the router's order) |
| page, screen | usage.tracked `page_viewed` / `screen_viewed`, feature = name | the same |
| identify | user.identified | traits.company.id, else context.groupId |
| group | account.updated, with a user also user.identified as their membership | groupId |
| alias | user.identified with properties.previousId | context.groupId |

Not passed on: integrations, channel, _metadata and of the context all but what `_CONTEXT` names (IP, user
agent, device, page and campaign stay out).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

import msgspec

from services.gateway.canonical import (
    MAX_ID,
    Canonical,
    MissingIds,
    OwnTime,
    Record,
    Refused,
    account_hint,
    check_message,
    decode,
    encode,
    identifier,
    instant,
    mapping,
    membership_id,
    own_time,
    plain_headers,
    record_of,
    short_text,
    skewed,
)
from services.gateway.settings import MIB, Limits
from shared.topics import RAW_EVENTS

CALLS = ("track", "identify", "group", "page", "screen", "alias")
BATCHES = ("batch", "import")
RUDDERSTACK_BATCH_BYTES = 4 * MIB
_VOLATILE = frozenset({"sentAt", "receivedAt", "writeKey"})
_CONTEXT = ("groupId", "locale", "timezone", "library", "app")
_ACCOUNT_TEXTS = ("plan", "stage", "language", "timezone", "domain", "product")


class Message(msgspec.Struct, gc=False):
    """A call's fields; everything optional, as the SDKs differ in what they leave out, set to null or to ""."""

    type: Any = None
    messageId: Any = None
    userId: Any = None
    anonymousId: Any = None
    event: Any = None
    name: Any = None
    category: Any = None
    groupId: Any = None
    previousId: Any = None
    account_id: Any = None
    traits: Any = None
    properties: Any = None
    groups: Any = None
    context: Any = None
    timestamp: Any = None
    originalTimestamp: Any = None
    sentAt: Any = None


class _Batch(msgspec.Struct):
    batch: list[msgspec.Raw]
    sentAt: Any = None
    writeKey: Any = None
    context: Any = None


class _Single(msgspec.Struct):
    writeKey: Any = None


class Envelope(msgspec.Struct):
    """A request opened but not yet read: its messages as raw JSON."""

    kind: str | None
    messages: list[msgspec.Raw]
    size: int
    write_key: str | None
    sent_at: Any = None
    context: Any = None


class Who(msgspec.Struct, frozen=True, gc=False):
    """What the mapping of any call needs to know besides the message."""

    user_id: str | None
    own: OwnTime | None
    occurred_at: datetime
    id: str
    context: dict[str, Any]
    groups: dict[str, Any]


def open_envelope(call: str, body: bytes) -> Envelope:
    """Find the write key and the messages; `call` is the last part of the path."""
    if call in BATCHES:
        batch = decode(body, _Batch)
        return Envelope(None, batch.batch, len(body), _key(batch.writeKey), batch.sentAt, batch.context)
    single = decode(body, _Single)
    return Envelope(call, [msgspec.Raw(body)], len(body), _key(single.writeKey))


def read_events(envelope: Envelope, received_at: datetime, limits: Limits) -> list[Canonical]:
    """Translate the messages of a request, all or none.

    Raises Refused with the index of the message that is at fault.
    """
    if len(envelope.messages) > limits.batch_events:
        raise Refused(
            f"the batch has {len(envelope.messages)} messages; at most {limits.batch_events}: send several batches",
            status=413,
            index=limits.batch_events,
        )
    _check_batch_size(envelope, limits)
    shared = mapping(envelope.context, "context")
    sent_at = _sent_at(envelope.sent_at)
    ids = MissingIds()
    events: list[Canonical] = []
    for index, raw in enumerate(envelope.messages):
        try:
            check_message(raw, limits)
            events.extend(_read(decode(raw, Message), raw, envelope.kind, shared, sent_at, received_at, ids))
        except Refused as refused:
            raise refused.at(index) from None
    return events


class _Context(msgspec.Struct, gc=False, omit_defaults=True):
    """What is passed on of a context; the rest is skipped while decoding."""

    groupId: Any = None
    locale: Any = None
    timezone: Any = None
    library: Any = None
    app: Any = None
    groups: Any = None


_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
_MaybeId = Annotated[str, msgspec.Meta(max_length=MAX_ID)]


class _Track(msgspec.Struct, gc=False):
    """A track call as SDKs send nearly all of them; one of another shape goes the long way."""

    type: Literal["track"]
    messageId: _Id
    event: _Id
    userId: _MaybeId | None = None
    anonymousId: _MaybeId | None = None
    properties: dict[str, Any] | None = None
    timestamp: str | None = None
    context: _Context | None = None
    groups: dict[str, Any] | None = None
    account_id: None = None
    originalTimestamp: None = None
    sentAt: None = None


class _Used(msgspec.Struct, gc=False, omit_defaults=True):
    """The data of its `usage.tracked`, in the order of `_body`."""

    event: str
    feature: str | None = None
    product: str | None = None
    properties: dict[str, Any] | None = None
    user_id: str | None = None
    timestamp: str | None = None
    groups: dict[str, Any] | None = None
    context: _Context | None = None


_LEAST_BYTES_A_KEY = 4
_NESTED = frozenset((dict, list))
NO_SKEW = timedelta()
_NO_CONTEXT = _Context()
_track_of = msgspec.json.Decoder(_Track).decode
_used_headers = plain_headers("usage.tracked")
_RAW_EVENTS = RAW_EVENTS.name


def read_records(envelope: Envelope, received_at: datetime, limits: Limits) -> list[Record]:
    """What `read_events` gives, as records: ordinary track calls of a batch in one step, which costs a fifth.

    Raises Refused with the index of the message that is at fault.
    """
    if envelope.kind is not None or envelope.context is not None or len(envelope.messages) > limits.batch_events:
        return [record_of(event) for event in read_events(envelope, received_at, limits)]
    _check_batch_size(envelope, limits)
    sent_at = _sent_at(envelope.sent_at)
    skew = received_at - sent_at if sent_at is not None else NO_SKEW
    ids = MissingIds()
    records: list[Record] = []
    for index, raw in enumerate(envelope.messages):
        record = quick_record(bytes(raw), skew, limits)
        if record is not None:
            records.append(record)
            continue
        try:
            check_message(raw, limits)
            events = _read(decode(raw, Message), raw, None, {}, sent_at, received_at, ids)
            records.extend([record_of(event) for event in events])
        except Refused as refused:
            raise refused.at(index) from None
    return records


def quick_record(text: bytes, skew: timedelta, limits: Limits) -> Record | None:
    """The record of an ordinary track call; None if it is another call or anything about it needs a closer look."""
    if (
        len(text) > limits.event_bytes
        or text.count(b"{") + text.count(b"[") > limits.depth
        or (len(text) > _LEAST_BYTES_A_KEY * limits.keys and text.count(b":") > limits.keys)
    ):
        return None
    try:
        call = _track_of(text)
        own, occurred_at = call.timestamp or None, None
        if own is not None:
            at = datetime.fromisoformat(own)
            if at.tzinfo is not UTC:
                at = at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
            occurred_at = instant(at + skew)
    except (ValueError, OverflowError, RecursionError):
        return None
    user = call.userId or call.anonymousId
    if not user:
        return None
    properties, context, groups = call.properties, call.context, call.groups
    feature = product = None
    if properties:
        if "feature" in properties:
            feature = short_text(properties["feature"])
        if "product" in properties:
            product = short_text(properties["product"])
    if context is not None:
        if groups is None and context.groups is not None:
            groups = context.groups if isinstance(context.groups, dict) else None
        context.groups = None
        if context == _NO_CONTEXT:
            context = None
    used = _Used(call.event, feature, product, properties or None, user, own, groups or None, context)
    headers = _used_headers(call.messageId, own, occurred_at)
    plain = not groups and (not properties or _NESTED.isdisjoint(map(type, properties.values())))
    return Record(_RAW_EVENTS, user.encode(), encode(used), headers, tuple(properties or ()) if plain else None)


def _check_batch_size(envelope: Envelope, limits: Limits) -> None:
    if envelope.size <= limits.batch_bytes or envelope.kind is not None:
        return
    most = max(limits.batch_bytes, RUDDERSTACK_BATCH_BYTES) if _is_rudderstack(envelope) else limits.batch_bytes
    if envelope.size <= most:
        return
    total, offending = 0, None
    for index, raw in enumerate(envelope.messages):
        total, offending = total + len(bytes(raw)), index
        if total > most:
            break
    raise Refused(
        f"the batch has {envelope.size} bytes; at most {most}: send several batches",
        status=413,
        index=offending,
    )


def _is_rudderstack(envelope: Envelope) -> bool:
    """RudderStack's SDKs name a channel in each message and may send 4 MiB; Segment's do not."""
    return bool(envelope.messages) and b'"channel"' in bytes(envelope.messages[0])


def _read(
    message: Message,
    raw: msgspec.Raw,
    kind: str | None,
    shared: dict[str, Any],
    sent_at: datetime | None,
    received_at: datetime,
    ids: MissingIds,
) -> Iterator[Canonical]:
    kind = kind or message.type
    translate = _TRANSLATE.get(kind) if isinstance(kind, str) else None
    if translate is None:
        raise Refused(f"type is missing or unknown; send one of {', '.join(CALLS)}")
    own, occurred_at = _times(message, sent_at, received_at)
    context = mapping(message.context, "context")
    if shared:
        context = {**shared, **context}
    who = Who(
        user_id=identifier(message.userId, "userId") or identifier(message.anonymousId, "anonymousId"),
        own=own,
        occurred_at=occurred_at,
        id=identifier(message.messageId, "messageId") or ids.id_of(decode(raw), _VOLATILE),
        context=context,
        groups=_groups(message, context),
    )
    return translate(message, who)


def _groups(message: Message, context: dict[str, Any]) -> dict[str, Any]:
    groups = message.groups if message.groups is not None else context.get("groups")
    return groups if isinstance(groups, dict) else {}


def _times(message: Message, sent_at: datetime | None, received_at: datetime) -> tuple[OwnTime | None, datetime]:
    """Own time and corrected time.

    Segment's SDKs send one time, by the client's clock: the skew is taken out. RudderStack's Node SDK sends
    two: `originalTimestamp` is when the call was made, `timestamp` what the caller stated, which stands.
    """
    stated = own_time(message.timestamp, "timestamp")
    original = own_time(message.originalTimestamp, "originalTimestamp")
    own = original or stated
    if own is None:
        return None, received_at
    if original is not None and stated is not None:
        return own, stated.at
    if message.sentAt is not None:
        sent_at = _sent_at(message.sentAt) or sent_at
    return own, skewed(own.at, sent_at, received_at)


def _sent_at(value: object) -> datetime | None:
    """When the client sent it; what cannot be read corrects nothing."""
    try:
        own = own_time(value, "sentAt")
    except Refused:
        return None
    return own.at if own else None


def _key(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _required(value: str | None, field: str) -> str:
    if value is None:
        raise Refused(f"{field} is missing; send it as a string")
    return value


def _body(who: Who, **fields: Any) -> dict[str, Any]:
    """The event's data: what is known, and of the context only what helps to find the account and the sender."""
    body = {name: value for name, value in fields.items() if value is not None}
    if who.user_id is not None:
        body["user_id"] = who.user_id
    if who.own is not None:
        body["timestamp"] = who.own.text
    if who.groups:
        body["groups"] = who.groups
    context = {name: who.context[name] for name in _CONTEXT if who.context.get(name) is not None}
    if context:
        body["context"] = context
    return body


def _event(type: str, who: Who, body: dict[str, Any], account: str | None, id: str = "") -> Canonical:
    """Keyed by the source-native entity: the user, else the account."""
    own = who.own.text if who.own else None
    return Canonical(type, id or who.id, body, who.user_id or account or who.id, who.occurred_at, own)


def _account_hint(message: Message, who: Who, properties: dict[str, Any]) -> str | None:
    return account_hint(
        message.account_id,
        who.context.get("groupId"),
        who.groups.get("company"),
        properties.get("company_id"),
        properties.get("account_id"),
    )


def _somebody(who: Who, account: str | None) -> None:
    if who.user_id is None and account is None:
        raise Refused("userId and anonymousId are missing; send one of them")


def _used(message: Message, who: Who, event: str, feature: str | None, properties: dict[str, Any]) -> Canonical:
    account = _account_hint(message, who, properties)
    _somebody(who, account)
    body = _body(
        who,
        event=event,
        feature=feature,
        product=short_text(properties.get("product")),
        account_id=identifier(message.account_id, "account_id"),
        properties=properties or None,
    )
    return _event("usage.tracked", who, body, account)


def _track(message: Message, who: Who) -> Iterator[Canonical]:
    properties = mapping(message.properties, "properties")
    event = _required(identifier(message.event, "event"), "event")
    yield _used(message, who, event, short_text(properties.get("feature")), properties)


def _viewed(event: str) -> Callable[[Message, Who], Iterator[Canonical]]:
    def translate(message: Message, who: Who) -> Iterator[Canonical]:
        properties = mapping(message.properties, "properties")
        if message.category is not None and "category" not in properties:
            properties = {**properties, "category": message.category}
        feature = short_text(message.name) or short_text(properties.get("name"))
        yield _used(message, who, event, feature, properties)

    return translate


def _identify(message: Message, who: Who) -> Iterator[Canonical]:
    _required(who.user_id, "userId (or anonymousId)")
    traits = mapping(message.traits, "traits")
    company = traits.get("company")
    account = identifier(company.get("id"), "traits.company.id") if isinstance(company, dict) else None
    account = account or identifier(message.account_id, "account_id") or _current_group(who)
    anonymous = identifier(message.anonymousId, "anonymousId")
    before = {"anonymousId": anonymous} if anonymous not in (None, who.user_id) else None
    yield _event("user.identified", who, _body(who, account_id=account, traits=traits, properties=before), account)


def _current_group(who: Who) -> str | None:
    return identifier(who.context.get("groupId"), "context.groupId")


def _alias(message: Message, who: Who) -> Iterator[Canonical]:
    _required(who.user_id, "userId")
    previous = _required(identifier(message.previousId, "previousId"), "previousId")
    account = _current_group(who)
    yield _event("user.identified", who, _body(who, account_id=account, properties={"previousId": previous}), account)


def _group(message: Message, who: Who) -> Iterator[Canonical]:
    account = _required(identifier(message.groupId, "groupId"), "groupId")
    traits = mapping(message.traits, "traits")
    body = _body(who, account_id=account, traits=traits, **account_fields(traits))
    for name in traits.keys() & {"name", "plan", "industry"}:
        if traits[name] is None:
            body[name] = None  # an explicit null clears the field
    yield _event("account.updated", who, body, account)
    if who.user_id is not None:
        yield _event("user.identified", who, _body(who, account_id=account), account, membership_id(who.id))


def account_fields(traits: dict[str, Any]) -> dict[str, Any]:
    """The traits that the contract knows, where their value fits it; all traits travel beside them anyway.

    `employees` is the size of the company, not of the licence: it stays a trait and does not become `seats`.
    """
    fields: dict[str, Any] = {name: short_text(traits.get(name)) for name in _ACCOUNT_TEXTS}
    address = traits.get("address")
    fields["country"] = _text(traits.get("country") or (address.get("country") if isinstance(address, dict) else None))
    for name in ("name", "industry"):
        fields[name] = _text(traits.get(name))
    seats = traits.get("seats")
    if isinstance(seats, int) and not isinstance(seats, bool) and seats >= 0:
        fields["seats"] = seats
    fields["arr"] = _amount(traits.get("arr"))
    currency = traits.get("currency")
    if isinstance(currency, str) and len(currency) == 3 and currency.isascii() and currency.isalpha():
        fields["currency"] = currency.upper()
    return fields


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and len(value) <= 20_000 else None


def _amount(value: object) -> str | None:
    """An amount as a decimal string, exact as sent; none if it is not an amount of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return format(amount, "f") if amount.is_finite() and amount >= 0 and -30 < amount.adjusted() < 30 else None


_TRANSLATE: dict[str, Callable[[Message, Who], Iterator[Canonical]]] = {
    "track": _track,
    "identify": _identify,
    "group": _group,
    "alias": _alias,
    "page": _viewed("page_viewed"),
    "screen": _viewed("screen_viewed"),
}
