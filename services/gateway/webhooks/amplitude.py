"""Amplitude: the event webhook and the cohort webhook, in their default templates; one object or a list.

| payload | canonical event |
|---|---|
| event | usage.tracked: event = event_type, properties = event_properties; once for each account in `groups` |
| cohort (cohort_id, users) | user.identified for each user, trait `amplitude_cohort:ID` = {name, member: in_cohort} |

The user is user_id, else device_id. The account is groups.company (organization, account), else a property that the
router knows. An event has the identity that its SDK's own call to Hune has (source amplitude, insert_id,
client_event_time), so both ways count once; without insert_id: uuid. A cohort's user: message_id and user,
computed_time (s).
"""

from __future__ import annotations

from typing import Any

from services.gateway.adapters.amplitude import ACCOUNT_GROUPS
from services.gateway.canonical import Canonical, OwnTime
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Delivery,
    Tool,
    Unreadable,
    each,
    event,
    ident,
    items,
    json_of,
    mapping,
    needed,
    objects_in,
    when,
)
from shared.ids import derived_id

SOURCE = "amplitude"
DROPPED = (
    "amplitude_id",
    "app",
    "country",
    "device_id beside a user_id",
    "event_id",
    "platform",
    "server_upload_time",
    "user_properties",
    "uuid beside an insert_id",
)


def events(delivery: Delivery) -> list[Canonical]:
    return each(objects_in(json_of(delivery.body)), lambda one: _read(delivery, one))


def _read(delivery: Delivery, one: object) -> list[Canonical]:
    if not isinstance(one, dict):
        raise Unreadable("the payload is not a JSON object")
    if "cohort_id" in one:
        return _cohort(delivery, one)
    if "event_type" in one:
        return _event(delivery, one)
    raise Unreadable("the payload holds neither event_type nor cohort_id, as the default templates do")


def _event(delivery: Delivery, one: dict[str, Any]) -> list[Canonical]:
    name = needed(ident(one.get("event_type")), "event_type")
    user = ident(one.get("user_id")) or ident(one.get("device_id"))
    own = when(one.get("client_event_time") or one.get("event_time"), "client_event_time")
    id = needed(ident(one.get("insert_id")) or ident(one.get("uuid")), "insert_id (or uuid)")
    accounts = _accounts(mapping(one.get("groups")))
    properties = mapping(one.get("event_properties"))
    if user is None and not accounts and not {"account_id", "company_id"} & properties.keys():
        raise Unreadable("the event names neither a user nor an account")
    return [
        event(
            delivery,
            SOURCE,
            "usage.tracked",
            # The first account's event has the SDK's id; the others need one of their own.
            id if nth == 0 else derived_id(SOURCE, id, account),
            own,
            user_id=user,
            event=name,
            feature=_short(properties, "feature"),
            product=_short(properties, "product"),
            groups={"company": account} if account else None,
            properties=properties or None,
        )
        for nth, account in enumerate(accounts or [None])
    ]


def _accounts(groups: dict[str, Any]) -> list[str]:
    named = next((groups[kind] for kind in ACCOUNT_GROUPS if groups.get(kind)), None)
    told = named if isinstance(named, list) else [named]
    return sorted({text for one in told if (text := ident(one))})


def _short(properties: dict[str, Any], name: str) -> str | None:
    value = properties.get(name)
    return ident(value) if isinstance(value, str) else None


def _cohort(delivery: Delivery, one: dict[str, Any]) -> list[Canonical]:
    cohort, message = (
        needed(ident(one.get("cohort_id")), "cohort_id"),
        needed(ident(one.get("message_id")), "message_id"),
    )
    member, users = one.get("in_cohort"), one.get("users")
    if not isinstance(member, bool):
        raise Unreadable("in_cohort is neither true nor false")
    if not isinstance(users, list):
        raise Unreadable("users is not a list")
    own: OwnTime | None = when(one.get("computed_time"), "computed_time")
    trait = {"name": ident(one.get("cohort_name")), "member": member}

    def read(user: object) -> list[Canonical]:
        id = needed(ident(mapping(user).get("user_id")), "user_id of a member")
        which = derived_id(SOURCE, message, cohort, id)
        traits = {f"amplitude_cohort:{cohort}": trait}
        return [event(delivery, SOURCE, "user.identified", which, own, user_id=id, traits=traits)]

    return each(items(users), read)


TOOL = Tool(SOURCE, signatures.static_token, events, DROPPED, takes_token=True)
