"""Customer.io's Track API: one person or one event a call; the key is the password of Basic authentication.

| call | canonical event |
|---|---|
| PUT /api/v1/customers/{id} | user.identified, traits = the attributes |
| POST /api/v1/customers/{id}/events | usage.tracked; page, screen: `page_viewed`, `screen_viewed`, feature = name |
| DELETE /api/v1/customers/{id} | user.deactivated |

The id of an event is its `id`, else it is derived from the call: the SDK sends none, and repeats a call byte for byte.
The time is `timestamp` (s); events without one and without an id count once if they are equal. A change of a person
without a time gets an id of its own, as the same attributes may come back later; repeating it changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from services.gateway.adapters.base import Door, Incoming, Opened, Words, read_each
from services.gateway.canonical import (
    Canonical,
    MissingIds,
    Refused,
    identifier,
    mapping,
    own_time,
    short_text,
    told,
    tracked,
)
from services.gateway.settings import Limits

SOURCE = "customerio"
_VIEWS = {"page": "page_viewed", "screen": "screen_viewed"}
WORDS = Words(
    lambda count: b"{}",
    lambda status, reason, index: msgspec.json.encode({"meta": {"error": reason, "errors": [reason]}}),
)
Translate = Callable[[str, dict[str, Any], datetime, MissingIds], Canonical]


def _open(translate: Translate) -> Callable[[Incoming], Opened]:
    def open_call(incoming: Incoming) -> Opened:
        user_id = incoming.path["id"]

        def read(received_at: datetime, limits: Limits) -> list[Canonical]:
            if not 0 < len(user_id) <= 256:
                raise Refused("the person's id in the path takes 1 to 256 characters")
            raw = msgspec.Raw(incoming.body or b"{}")
            return read_each([raw], limits, lambda message, ids: translate(user_id, message, received_at, ids))

        return Opened(None, read)

    return open_call


def event_of(user_id: str, message: dict[str, Any], received_at: datetime, ids: MissingIds) -> Canonical:
    name = identifier(message.get("name"), "name")
    if name is None:
        raise Refused("name is missing; send the event's name as a string")
    own = own_time(message.get("timestamp"), "timestamp")
    kind = message.get("type")
    view = _VIEWS.get(kind) if isinstance(kind, str) else None
    return tracked(
        source=SOURCE,
        id=identifier(message.get("id"), "id") or ids.id_of({"customer": user_id, **message}, ()),
        user_id=user_id,
        event=view or name,
        feature=short_text(name) if view else None,
        own=own,
        occurred_at=own.at if own else received_at,
        properties=mapping(message.get("data"), "data"),
    )


def person_of(user_id: str, message: dict[str, Any], received_at: datetime, ids: MissingIds) -> Canonical:
    own = own_time(message.get("_timestamp"), "_timestamp")
    traits = {name: value for name, value in message.items() if not name.startswith("_")}
    company = traits.get("company_id") or traits.get("account_id")
    return told(
        "user.identified",
        source=SOURCE,
        id=ids.id_of({"customer": user_id, **message}, ()) if own else str(uuid.uuid4()),
        own=own,
        occurred_at=own.at if own else received_at,
        user_id=user_id,
        account_id=identifier(company, "company_id"),
        traits=traits,
    )


def deleted(user_id: str, message: dict[str, Any], received_at: datetime, ids: MissingIds) -> Canonical:
    return told(
        "user.deactivated", source=SOURCE, id=str(uuid.uuid4()), own=None, occurred_at=received_at, user_id=user_id
    )


def _by_method(incoming: Incoming) -> Opened:
    return _open(deleted if incoming.method == "DELETE" else person_of)(incoming)


DOORS = (
    Door("customerio", ("/api/v1/customers/{id}",), _by_method, WORDS, ("PUT", "POST", "DELETE"), password=True),
    Door("customerio", ("/api/v1/customers/{id}/events",), _open(event_of), WORDS, password=True),
)
