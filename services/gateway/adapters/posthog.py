"""PostHog's capture API, as its server SDKs send it: `POST /batch/`, `/capture/`, `/e/`, `/i/v0/e/`.

| event | canonical event |
|---|---|
| any | usage.tracked; groups = properties.$groups |
| $pageview, $screen | usage.tracked `page_viewed` / `screen_viewed`, feature = $pathname, $screen_name |
| $identify, $set | user.identified, traits = $set (before it $set_once) |
| $create_alias | user.identified with properties.previousId = properties.alias |
| $groupidentify of `company`, `organization` or `account` | account.updated, traits = $group_set |

The key is `api_key` (or `token`); the id is `uuid`; the time is `timestamp`, its skew taken out by `sent_at` unless
`historical_migration` is set. Not passed on: the properties that begin with `$` (device, library, IP).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from services.gateway.adapters.base import Door, Incoming, Opened, Words, read_each, text_or_none
from services.gateway.canonical import (
    Canonical,
    MissingIds,
    Refused,
    decode,
    identifier,
    mapping,
    own_time,
    short_text,
    skewed,
    told,
    tracked,
)
from services.gateway.segment import account_fields
from services.gateway.settings import Limits

SOURCE = "posthog"
ACCOUNT_GROUPS = ("company", "organization", "account")
_VOLATILE = frozenset({"sent_at", "api_key", "token"})
_VIEWS = {"$pageview": ("page_viewed", "$pathname"), "$screen": ("screen_viewed", "$screen_name")}
_KINDS = {401: "authentication_error", 403: "authentication_error", 429: "throttled_error"}


def _refused(status: int, reason: str, index: int | None) -> bytes:
    detail = reason if index is None else f"batch[{index}]: {reason}"
    kind = _KINDS.get(status, "validation_error" if status < 500 else "server_error")
    return msgspec.json.encode({"type": kind, "code": str(status), "detail": detail, "attr": None})


WORDS = Words(accepted=lambda count: b'{"status": 1}', refused=_refused)


class _Envelope(msgspec.Struct):
    batch: list[msgspec.Raw] | None = None
    api_key: Any = None
    token: Any = None
    sent_at: Any = None
    historical_migration: Any = False


def open_capture(incoming: Incoming) -> Opened:
    """A batch, or a single event that is its own envelope."""
    envelope = decode(incoming.body, _Envelope)
    messages = envelope.batch if envelope.batch is not None else [msgspec.Raw(incoming.body)]
    key = text_or_none(envelope.api_key) or text_or_none(envelope.token)
    if key is None and envelope.batch is None:
        key = text_or_none(mapping(decode(incoming.body).get("properties"), "properties").get("token"))

    def read(received_at: datetime, limits: Limits) -> list[Canonical]:
        sent_at = None if envelope.historical_migration else _sent_at(envelope.sent_at)
        return read_each(messages, limits, lambda message, ids: event_of(message, sent_at, received_at, ids))

    return Opened(key, read, WORDS)


def _sent_at(value: object) -> datetime | None:
    try:
        sent = own_time(value, "sent_at")
    except Refused:
        return None
    return sent.at if sent else None


def event_of(message: dict[str, Any], sent_at: datetime | None, received_at: datetime, ids: MissingIds) -> Canonical:
    properties = mapping(message.get("properties"), "properties")
    name = identifier(message.get("event"), "event")
    if name is None:
        raise Refused("event is missing; send its name as a string")
    user_id = identifier(message.get("distinct_id") or properties.get("distinct_id"), "distinct_id")
    own = own_time(message.get("timestamp"), "timestamp")
    common: dict[str, Any] = {
        "source": SOURCE,
        "id": identifier(message.get("uuid"), "uuid") or ids.id_of(message, _VOLATILE),
        "own": own,
        "occurred_at": skewed(own.at, sent_at, received_at) if own else received_at,
    }
    groups = properties.get("$groups")
    groups = groups if isinstance(groups, dict) else None
    if name in ("$identify", "$set", "$create_alias"):
        return _person(message, name, properties, user_id, common)
    if name == "$groupidentify" and properties.get("$group_type") in ACCOUNT_GROUPS:
        traits = mapping(properties.get("$group_set"), "properties.$group_set")
        account = identifier(properties.get("$group_key"), "properties.$group_key")
        if account is None:
            raise Refused("properties.$group_key is missing; send the group's id")
        return told("account.updated", account_id=account, traits=traits, **account_fields(traits), **common)
    event, feature = name, None
    if name in _VIEWS:
        event, feature = _VIEWS[name][0], short_text(properties.get(_VIEWS[name][1]))
    plain = {key: value for key, value in properties.items() if not key.startswith("$") and key != "token"}
    return tracked(user_id=user_id, event=event, feature=feature, groups=groups, properties=plain, **common)


def _person(
    message: dict[str, Any], name: str, properties: dict[str, Any], user_id: str | None, common: dict[str, Any]
) -> Canonical:
    if user_id is None:
        raise Refused("distinct_id is missing; send the user's id")
    before = properties.get("alias") if name == "$create_alias" else properties.get("$anon_distinct_id")
    traits: dict[str, Any] = {}
    for field in ("$set_once", "$set"):
        traits |= mapping(message.get(field), field) | mapping(properties.get(field), f"properties.{field}")
    previous = {"previousId": before} if before else None
    return told("user.identified", user_id=user_id, traits=traits, properties=previous, **common)


DOOR = Door("posthog", ("/capture", "/e", "/i/v0/e"), open_capture, WORDS)
