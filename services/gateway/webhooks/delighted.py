"""Delighted: survey responses and unsubscribes.

| event_type | canonical event |
|---|---|
| survey_response.created | survey.answered: kind, score, comment; answer_id = the response's id |
| survey_response.updated | survey.corrected of that answer_id: score, comment (often the comment comes only here) |
| unsubscribe.created | survey.opted_out |

survey_type nps is on 0-10, others as `options.scales` says (csat 1-5); one that is none of nps, csat, ces goes to
quarantine, as its scores mean something else. The user is `delighted:PERSON`, or the person property that
`options.user_property` names; the account is a property of `options.account_properties`, else found by e-mail domain.
Id: event_id; own time: updated_at (created: created_at; unsubscribe: unsubscribed_at), in s.
"""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from services.gateway.canonical import Canonical
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Delivery,
    Options,
    Tool,
    Trust,
    Unreadable,
    account_in,
    at,
    email,
    event,
    ident,
    mapping,
    needed,
    number,
    object_of,
    options_of,
    person,
    when,
    word,
)
from services.gateway.webhooks.text import plain_text

SOURCE = "delighted"
KINDS = ("nps", "csat", "ces")
DROPPED = (
    "event_data.additional_answers",
    "event_data.name",
    "event_data.notes",
    "event_data.permalink",
    "event_data.person.created_at",
    "event_data.person.name",
    "event_data.person_properties that no option names",
    "event_data.tags",
)


class DelightedOptions(Options):
    """The signature's header and prefix can be set, since Delighted's public pages do not confirm them."""

    account_properties: tuple[str, ...] = ("account_id", "company_id")
    user_property: str | None = None
    scales: dict[str, str] = {"csat": "1-5"}
    signature_header: str = "X-Delighted-Webhook-Signature"
    signature_prefix: str = "sha256="

    @field_validator("scales")
    @classmethod
    def _scales(cls, given: dict[str, str]) -> dict[str, str]:
        for kind, scale in given.items():
            low, dash, high = scale.partition("-")
            if kind not in KINDS or not (dash and low.isdigit() and high.isdigit()):
                raise ValueError(f"{kind}: {scale} is no scale of nps, csat or ces such as 1-5")
        return given


def events(delivery: Delivery) -> list[Canonical]:
    payload = object_of(delivery.body)
    kind, data = word(payload.get("event_type")), payload.get("event_data")
    id = needed(ident(payload.get("event_id")), "event_id")
    if not isinstance(data, dict):
        raise Unreadable("event_data is not an object")
    if kind == "survey_response.created":
        return _response(delivery, id, data, corrects=False)
    if kind == "survey_response.updated":
        return _response(delivery, id, data, corrects=True)
    if kind == "unsubscribe.created":
        own = when(data.get("unsubscribed_at"), "unsubscribed_at")
        who = needed(person(SOURCE, data.get("person_id")), "event_data.person_id")
        address = email(data.get("email"))
        return [event(delivery, SOURCE, "survey.opted_out", id, own, user_id=who, recipient_id=who, email=address)]
    raise Unreadable(f"event_type {kind[:100]!r} is not known")


def _response(delivery: Delivery, id: str, data: dict[str, Any], *, corrects: bool) -> list[Canonical]:
    options = options_of(delivery, DelightedOptions)
    kind = word(data.get("survey_type"))
    if kind not in KINDS:
        raise Unreadable(f"survey_type {kind[:40]!r} is none of {', '.join(KINDS)}")
    created = when(data.get("created_at"), "event_data.created_at")
    own = (when(data.get("updated_at"), "event_data.updated_at") if corrects else None) or created
    properties = mapping(data.get("person_properties"))
    ours = ident(properties.get(options.user_property)) if options.user_property else None
    told: dict[str, Any] = {
        "user_id": ours or person(SOURCE, at(data, "person.id")),
        "account_id": account_in(properties, options.account_properties),
        "email": email(at(data, "person.email")),
        "answer_id": needed(ident(data.get("id")), "event_data.id"),
        "score": number(data.get("score")),
        "comment": plain_text(data.get("comment")),
    }
    if corrects:
        return [event(delivery, SOURCE, "survey.corrected", id, own, **told)]
    needed(told["score"], "event_data.score")
    scale = "0-10" if kind == "nps" else options.scales.get(kind)
    return [event(delivery, SOURCE, "survey.answered", id, own, **told, kind=kind, scale=scale)]


def verify(delivery: Delivery, trust: Trust) -> None:
    """The signature; or, where a token is configured, the token in the path."""
    if trust.tokens and delivery.token:
        signatures.check_token(delivery, trust.tokens)
        return
    options = options_of(trust, DelightedOptions)
    signatures.hub(delivery, trust, options.signature_header, options.signature_prefix, "sha256")


TOOL = Tool(SOURCE, verify, events, DROPPED, takes_token=True)
