"""Mixpanel's ingestion API: `POST /track`, `/engage`, `/groups` (form or JSON), `/import` (JSON or NDJSON).

| call | canonical event |
|---|---|
| track, import: any event | usage.tracked |
| track: $mp_web_page_view | usage.tracked `page_viewed`, feature = current_url_path |
| track: $identify, $create_alias | user.identified with properties.previousId |
| engage | user.identified, traits = $set (before it $set_once) |
| groups with $group_key company, organization, company_id or account_id | account.updated, traits = $set |

The key is the events' `token` (`$token`), for import the user of Basic authentication. Id and time are `$insert_id`
and `time` beside the event's name where the caller states them there, else those of the properties, which the SDK
makes up for each call; the time is taken as it is. Not passed on: the properties that begin with `$` or `mp_`.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

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
    told,
    tracked,
)
from services.gateway.segment import account_fields
from services.gateway.settings import Limits

SOURCE = "mixpanel"
ACCOUNT_KEYS = ("company", "organization", "company_id", "account_id")
_VOLATILE = frozenset({"token", "$token"})
_NAMES_USER = {"$identify": "$anon_id", "$create_alias": "alias"}

PLAIN = Words(lambda count: b"1", lambda status, reason, index: b"0", "text/plain")
VERBOSE = Words(
    lambda count: b'{"status": 1, "error": null}',
    lambda status, reason, index: msgspec.json.encode(
        {"status": 0, "error": reason if index is None else f"event {index}: {reason}"}
    ),
)
IMPORT = Words(
    lambda count: msgspec.json.encode({"code": 200, "num_records_imported": count, "status": "OK"}),
    lambda status, reason, index: msgspec.json.encode(
        {"code": status, "error": reason if index is None else f"record {index}: {reason}", "status": "Bad Request"}
    ),
)


def open_call(incoming: Incoming) -> Opened:
    call = incoming.call
    form = _form(incoming)
    messages = _messages(form["data"] if form else incoming.body)
    token = None
    if messages:
        first = decode(messages[0])
        if isinstance(first, dict):
            token = first.get("$token") or mapping(first.get("properties"), "properties").get("token")
    verbose = (form or {}).get("verbose", incoming.query.get("verbose", "").encode()) == b"1"
    words = IMPORT if call == "import" else VERBOSE if verbose else PLAIN
    translate = {"engage": _engage, "groups": _group}.get(call, event_of)

    def read(received_at: datetime, limits: Limits) -> list[Canonical]:
        return read_each(messages, limits, lambda message, ids: translate(message, received_at, ids))

    return Opened(text_or_none(token), read, words)


def _form(incoming: Incoming) -> dict[str, bytes] | None:
    """The fields of a form, if the body is one; `data` is JSON, or JSON in base64."""
    if "json" in incoming.content_type or incoming.body.lstrip()[:5] not in (b"data=", b"verbo", b"ip=0&", b"ip=1&"):
        return None
    try:
        fields = {name: values[0].encode() for name, values in parse_qs(incoming.body.decode("ascii")).items()}
        data = fields["data"]
        if data.lstrip()[:1] not in (b"[", b"{"):
            data = base64.b64decode(data.replace(b" ", b"+"), validate=True)
    except (UnicodeError, KeyError, binascii.Error, ValueError):
        raise Refused("the form has no readable field `data`; send JSON, or JSON in base64") from None
    return fields | {"data": data}


def _messages(body: bytes) -> list[msgspec.Raw]:
    """A list of events, one event, or one a line."""
    start = body.lstrip()[:1]
    if start == b"[":
        messages: list[msgspec.Raw] = decode(body, list[msgspec.Raw])
        return messages
    lines = [line for line in body.splitlines() if line.strip()]
    if start == b"{" and len(lines) > 1 and lines[0].rstrip().endswith(b"}"):
        return [msgspec.Raw(line) for line in lines]
    return [msgspec.Raw(body)]


def event_of(message: dict[str, Any], received_at: datetime, ids: MissingIds) -> Canonical:
    properties = mapping(message.get("properties"), "properties")
    name = identifier(message.get("event"), "event")
    if name is None:
        raise Refused("event is missing; send its name as a string")
    user_id = identifier(properties.get("distinct_id") or properties.get("$user_id"), "distinct_id")
    stated = message.get("time")
    own = own_time(properties.get("time") if stated is None else stated, "time")
    id = identifier(message.get("$insert_id"), "$insert_id") or identifier(properties.get("$insert_id"), "$insert_id")
    common: dict[str, Any] = {
        "source": SOURCE,
        "id": id or ids.id_of(message, _VOLATILE),
        "own": own,
        "occurred_at": own.at if own else received_at,
    }
    if name in _NAMES_USER:
        user = identifier(properties.get("$identified_id"), "$identified_id") or user_id
        if user is None:
            raise Refused("distinct_id is missing; send the user's id")
        previous = properties.get(_NAMES_USER[name])
        before = {"previousId": previous} if previous else None
        return told("user.identified", user_id=user, properties=before, **common)
    plain = {key: value for key, value in properties.items() if _is_own(key)}
    if name == "$mp_web_page_view":
        path = short_text(properties.get("current_url_path"))
        return tracked(user_id=user_id, event="page_viewed", feature=path, properties=plain, **common)
    return tracked(user_id=user_id, event=name, properties=plain, **common)


def _is_own(name: str) -> bool:
    return not name.startswith(("$", "mp_")) and name not in ("token", "distinct_id", "time")


def _engage(message: dict[str, Any], received_at: datetime, ids: MissingIds) -> Canonical:
    user_id = identifier(message.get("$distinct_id"), "$distinct_id")
    if user_id is None:
        raise Refused("$distinct_id is missing; send the user's id")
    return told("user.identified", user_id=user_id, **_profile(message, received_at, ids))


def _group(message: dict[str, Any], received_at: datetime, ids: MissingIds) -> Canonical:
    if message.get("$group_key") not in ACCOUNT_KEYS:
        raise Refused(f"$group_key is not an account's; send one of {', '.join(ACCOUNT_KEYS)}")
    account_id = identifier(message.get("$group_id"), "$group_id")
    if account_id is None:
        raise Refused("$group_id is missing; send the group's id")
    fields = _profile(message, received_at, ids)
    return told("account.updated", account_id=account_id, **account_fields(fields["traits"]), **fields)


def _profile(message: dict[str, Any], received_at: datetime, ids: MissingIds) -> dict[str, Any]:
    own = own_time(message.get("$time"), "$time")
    traits = {**mapping(message.get("$set_once"), "$set_once"), **mapping(message.get("$set"), "$set")}
    return {
        "source": SOURCE,
        "id": ids.id_of(message, _VOLATILE),
        "own": own,
        "occurred_at": own.at if own else received_at,
        "traits": traits,
    }


DOOR = Door("mixpanel", ("/track", "/engage", "/groups", "/import"), open_call, VERBOSE)
