"""Amplitude's HTTP API V2 and its batch API: `POST /2/httpapi`, `/batch`.

| event_type | canonical event |
|---|---|
| any | usage.tracked; groups = groups |
| $identify | user.identified, traits = user_properties.$set, else user_properties |
| $groupidentify with a company, organization or account in `groups` | account.updated, traits = group_properties |

The key is `api_key`, the id `insert_id`, the time `time` (ms), taken as it is: the protocol tells no sending time.
Not passed on: device, platform, place, IP, library, session.
"""

from __future__ import annotations

import time
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
    told,
    tracked,
)
from services.gateway.segment import account_fields
from services.gateway.settings import Limits

SOURCE = "amplitude"
ACCOUNT_GROUPS = ("company", "organization", "account")


def _accepted(count: int) -> bytes:
    return msgspec.json.encode(
        {
            "code": 200,
            "events_ingested": count,
            "payload_size_bytes": 0,
            "server_upload_time": int(time.time() * 1000),
        }
    )


def _refused(status: int, reason: str, index: int | None) -> bytes:
    answer: dict[str, Any] = {"code": status, "error": reason}
    if index is not None:
        answer["events_with_invalid_fields"] = {"event": [index]}
    return msgspec.json.encode(answer)


WORDS = Words(_accepted, _refused)


class _Envelope(msgspec.Struct):
    events: list[msgspec.Raw]
    api_key: Any = None


class _Shape(msgspec.Struct):
    events: msgspec.Raw = msgspec.Raw()


def is_amplitude(body: bytes) -> bool:
    return bool(bytes(decode(body, _Shape).events))


def open_events(incoming: Incoming) -> Opened:
    envelope = decode(incoming.body, _Envelope)

    def read(received_at: datetime, limits: Limits) -> list[Canonical]:
        return read_each(envelope.events, limits, lambda message, ids: event_of(message, received_at, ids))

    return Opened(text_or_none(envelope.api_key), read, WORDS)


def event_of(message: dict[str, Any], received_at: datetime, ids: MissingIds) -> Canonical:
    name = identifier(message.get("event_type"), "event_type")
    if name is None:
        raise Refused("event_type is missing; send its name as a string")
    user_id = identifier(message.get("user_id"), "user_id") or identifier(message.get("device_id"), "device_id")
    own = own_time(message.get("time"), "time")
    groups = mapping(message.get("groups"), "groups")
    common: dict[str, Any] = {
        "source": SOURCE,
        "id": identifier(message.get("insert_id"), "insert_id") or ids.id_of(message, ()),
        "own": own,
        "occurred_at": own.at if own else received_at,
    }
    if name == "$identify":
        if user_id is None:
            raise Refused("user_id is missing; send the user's id")
        traits = _set(message, "user_properties")
        return told("user.identified", user_id=user_id, traits=traits, groups=groups, **common)
    account = next((groups[kind] for kind in ACCOUNT_GROUPS if groups.get(kind)), None)
    if name == "$groupidentify" and account is not None:
        traits = _set(message, "group_properties")
        account_id = identifier(account, "groups")
        return told("account.updated", account_id=account_id, traits=traits, **account_fields(traits), **common)
    properties = mapping(message.get("event_properties"), "event_properties")
    return tracked(user_id=user_id, event=name, groups=groups, properties=properties, **common)


def _set(message: dict[str, Any], field: str) -> dict[str, Any]:
    """The properties of an identify operation: those it sets, without Amplitude's operators."""
    given = mapping(message.get(field), field)
    stated = {**mapping(given.get("$setOnce"), field), **mapping(given.get("$set"), field)}
    return stated | {name: value for name, value in given.items() if not name.startswith("$")}


DOOR = Door("amplitude", ("/2/httpapi",), open_events, WORDS)
