"""Requests to forget a person, as Segment's and RudderStack's regulation APIs put them.

| field | Segment | RudderStack |
|---|---|---|
| `regulationType` | SUPPRESS_ONLY, UNSUPPRESS, DELETE_ONLY, SUPPRESS_WITH_DELETE | suppress, suppress_with_delete |
| who | `subjectIds` with `subjectType` USER_ID | `users`: [{`userId`}] |

Each person becomes one `privacy.requested`, keyed by the person, behind everything accepted of them before.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from services.gateway.canonical import Canonical, Refused, decode, identifier

MAX_PERSONS = 5_000
MAX_BYTES = 1024 * 1024
REGULATIONS = {
    "suppress_only": "suppress",
    "suppress": "suppress",
    "unsuppress": "unsuppress",
    "delete_only": "delete",
    "delete": "delete",
    "suppress_with_delete": "suppress_with_delete",
}


def read_regulation(body: bytes, received_at: datetime, new_id: Any = uuid.uuid4) -> list[Canonical]:
    """One event per person.

    Raises Refused naming the field.
    """
    asked = decode(body)
    if not isinstance(asked, dict):
        raise Refused("the regulation is not a JSON object")
    kind = asked.get("regulationType")
    regulation = REGULATIONS.get(kind.lower()) if isinstance(kind, str) else None
    if regulation is None:
        raise Refused(f"regulationType takes one of {', '.join(sorted(REGULATIONS))}")
    if str(asked.get("subjectType") or "USER_ID").upper() != "USER_ID":
        raise Refused("subjectType takes USER_ID: persons are known by their user id")
    persons = _persons(asked)
    return [
        Canonical(
            type="privacy.requested",
            id=str(new_id()),
            body={"user_id": person, "regulation": regulation},
            key=person,
            occurred_at=received_at,
            own_time=None,
        )
        for person in persons
    ]


def _persons(asked: dict[str, Any]) -> list[str]:
    given = asked.get("subjectIds")
    if given is None:
        users = asked.get("users")
        given = [user.get("userId") if isinstance(user, dict) else None for user in users] if users else None
    if not isinstance(given, list) or not given:
        raise Refused("subjectIds (or users with userId) is missing; send a list of user ids")
    if len(given) > MAX_PERSONS:
        raise Refused(
            f"the regulation names {len(given)} persons; at most {MAX_PERSONS}", status=413, index=MAX_PERSONS
        )
    persons = []
    for index, person in enumerate(given):
        try:
            text = identifier(person, "a subject's id")
        except Refused as refused:
            raise refused.at(index) from None
        if text is None:
            raise Refused("a subject's id is empty; send a user id", index=index)
        persons.append(text)
    return list(dict.fromkeys(persons))
