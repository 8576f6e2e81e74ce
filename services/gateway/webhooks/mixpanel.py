"""Mixpanel: a cohort synced to a webhook. Its events come by `/import` and the export instead.

| action | canonical event for each member |
|---|---|
| members, add_members | user.identified, traits: `mixpanel_cohort:ID` = {name, member: true}, first_name, last_name, exported properties |
| remove_members | user.identified, trait `mixpanel_cohort:ID` = {name, member: false} |

The user is mixpanel_distinct_id (what the app identified the user with); the account a property of
`options.account_properties`, else found by e-mail domain. Nothing tells a time: the broker's is the event's. Id: from
project, cohort, integration, session, action and member, so a page sent again counts once. `members` replaces the
cohort, page by page: who is not on any page is not told to have left. The answer is Mixpanel's `action` and `status`.
"""  # noqa: E501

from __future__ import annotations

from typing import Any

import msgspec

from services.gateway.canonical import Canonical
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Answer,
    Delivery,
    Options,
    Tool,
    Unreadable,
    account_in,
    each,
    email,
    event,
    ident,
    items,
    mapping,
    needed,
    object_of,
    options_of,
    word,
)
from shared.ids import derived_id

SOURCE = "mixpanel"
ACTIONS = {"members": True, "add_members": True, "remove_members": False}
NOT_TRAITS = ("mixpanel_distinct_id", "email")
DROPPED = ("parameters.mixpanel_cohort_description", "parameters.page_info")


class MixpanelOptions(Options):
    account_properties: tuple[str, ...] = ("account_id", "company_id")


def events(delivery: Delivery) -> list[Canonical]:
    payload = object_of(delivery.body)
    action = word(payload.get("action"))
    if action not in ACTIONS:
        raise Unreadable(f"action {action[:40]!r} is not known")
    parameters = payload.get("parameters")
    if not isinstance(parameters, dict) or not isinstance(parameters.get("members"), list):
        raise Unreadable("parameters.members is not a list")
    cohort = needed(ident(parameters.get("mixpanel_cohort_id")), "parameters.mixpanel_cohort_id")
    sync = [parameters.get(f"mixpanel_{name}") for name in ("project_id", "cohort_id", "integration_id", "session_id")]
    trait = {"name": ident(parameters.get("mixpanel_cohort_name")), "member": ACTIONS[action]}

    def read(member: object) -> list[Canonical]:
        fields = mapping(member)
        user = needed(ident(fields.get("mixpanel_distinct_id")), "mixpanel_distinct_id of a member")
        names = options_of(delivery, MixpanelOptions).account_properties
        traits: dict[str, Any] = {f"mixpanel_cohort:{cohort}": trait}
        if ACTIONS[action]:
            told = {n: v for n, v in fields.items() if n not in NOT_TRAITS and n not in names and v is not None}
            traits = {**told, **traits}
        return [
            event(
                delivery,
                SOURCE,
                "user.identified",
                derived_id(SOURCE, *sync, action, user),
                None,
                user_id=user,
                account_id=account_in(fields, names),
                email=email(fields.get("email")),
                traits=traits,
            )
        ]

    return each(items(parameters["members"]), read)


def _action(body: bytes) -> str | None:
    try:
        action = word(object_of(body).get("action"))
    except Unreadable:
        return None
    return action if action in ACTIONS else None


def accepted(delivery: Delivery) -> Answer:
    return Answer(msgspec.json.encode({"action": _action(delivery.body), "status": "success"}))


def refused(body: bytes, status: int, reason: str) -> Answer:
    error = {"message": reason, "code": status}
    return Answer(msgspec.json.encode({"action": _action(body), "status": "failure", "error": error}))


TOOL = Tool(SOURCE, signatures.static_token, events, DROPPED, accepted, refused, takes_token=True)
