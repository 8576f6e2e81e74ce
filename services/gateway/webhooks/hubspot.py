"""HubSpot: webhooks v3 of an app. Always a list, out of order, repeated with another attemptNumber.

| subscriptionType | canonical event |
|---|---|
| company.propertyChange | account.updated: the field that `options.company_properties` names, any other as a trait; "" clears |
| deal.propertyChange | opportunity.changed: `options.deal_properties`; dealstage in `won_stages`, `lost_stages` also says won |
| contact.propertyChange | contact.changed: `options.contact_properties`; other properties tell nothing |
| ticket.creation | ticket.opened |
| ticket.propertyChange | ticket.updated (subject, content, hs_ticket_priority); a stage in `solved_stages`: ticket.solved |
| contact.privacyDeletion | privacy.requested delete of the user `hubspot:CONTACT` |
| *.creation, deletion, merge, restore, associationChange | accepted, tell nothing |

HubSpot names one object an event: a company is external id `hubspot`; deals, contacts and tickets have
`hubspot_deal`, `hubspot_contact`, `hubspot_ticket`, which wait until an account is linked to them. A company property
mapped to `account_id` makes the link. Id: portal, event, subscription, object and property (eventId alone is not
unique, as HubSpot says); own time: occurredAt (ms).
"""  # noqa: E501

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from services.gateway.canonical import Canonical, OwnTime
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Delivery,
    Forged,
    Options,
    Tool,
    Trust,
    Unreadable,
    currency,
    day,
    each,
    event,
    external,
    ident,
    json_of,
    money,
    needed,
    objects_in,
    options_of,
    person,
    positive_money,
    when,
    whole,
    word,
)
from services.gateway.webhooks.text import html_text, plain_text

SOURCE = "hubspot"
SEVERITIES = {"URGENT": "p1", "HIGH": "p2", "MEDIUM": "p3", "LOW": "p4"}
KINDS = {"newbusiness": "new", "renewal": "renewal", "expansion": "expansion", "upsell": "expansion"}
ROLES = ("champion", "sponsor", "admin", "billing", "user", "other")
ACCOUNT_FIELDS = frozenset(
    """
    account_id name parent_id domain plan product stage industry country language timezone seats arr currency
    """.split()
)
DEAL_FIELDS = frozenset("stage amount currency closes_on kind".split())
CONTACT_FIELDS = frozenset("role title".split())
CLEARABLE = frozenset("name domain plan product stage industry country language timezone parent_id".split())
OBJECTS = ("company", "deal", "contact", "ticket", "product", "line_item", "conversation")
NOT_USED = frozenset(
    f"{what}.{change}"
    for what in OBJECTS
    for change in ("creation", "deletion", "merge", "restore", "associationChange", "newMessage")
) - {"ticket.creation"} | {"product.propertyChange", "line_item.propertyChange", "conversation.propertyChange"}
DROPPED = (
    "[].appId",
    "[].attemptNumber",
    "[].changeSource",
    "[].changeFlag",
    "[].sourceId",
)


class HubspotOptions(Options):
    """Which property becomes which field."""

    company_properties: dict[str, str] = {
        "name": "name",
        "domain": "domain",
        "industry": "industry",
        "country": "country",
        "lifecyclestage": "stage",
    }
    deal_properties: dict[str, str] = {
        "dealstage": "stage",
        "amount": "amount",
        "deal_currency_code": "currency",
        "closedate": "closes_on",
        "dealtype": "kind",
    }
    contact_properties: dict[str, str] = {"jobtitle": "title"}
    won_stages: tuple[str, ...] = ("closedwon",)
    lost_stages: tuple[str, ...] = ("closedlost",)
    solved_stages: tuple[str, ...] = ()
    signature: Literal["v3", "v1"] = Field(default="v3", description="v1 can be replayed and forged more easily")

    @field_validator("company_properties")
    @classmethod
    def _company(cls, given: dict[str, str]) -> dict[str, str]:
        return _known(given, ACCOUNT_FIELDS)

    @field_validator("deal_properties")
    @classmethod
    def _deal(cls, given: dict[str, str]) -> dict[str, str]:
        return _known(given, DEAL_FIELDS)

    @field_validator("contact_properties")
    @classmethod
    def _contact(cls, given: dict[str, str]) -> dict[str, str]:
        return _known(given, CONTACT_FIELDS)


def _known(given: dict[str, str], fields: frozenset[str]) -> dict[str, str]:
    unknown = sorted(set(given.values()) - fields)
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is no field here; the fields are {', '.join(sorted(fields))}")
    return given


def events(delivery: Delivery) -> list[Canonical]:
    return each(objects_in(json_of(delivery.body)), lambda one: _read(delivery, one))


def _read(delivery: Delivery, one: object) -> list[Canonical]:
    if not isinstance(one, dict):
        raise Unreadable("an entry is not a JSON object")
    kind = word(one.get("subscriptionType"))
    if kind in NOT_USED:
        return []
    read = _READ.get(kind)
    if read is None:
        raise Unreadable(f"subscriptionType {kind[:100]!r} is not known")
    thing = needed(ident(one.get("objectId")), "objectId")
    what = ident(one.get("propertyName")) or kind
    event_id = needed(ident(one.get("eventId")), "eventId")
    parts = (one.get("portalId"), event_id, one.get("subscriptionId"), thing, what)
    id = ":".join(ident(part) or "" for part in parts)
    return read(delivery, id, when(one.get("occurredAt"), "occurredAt"), thing, one)


def _property(one: dict[str, Any]) -> tuple[str, str]:
    """The property and its new value as text, "" when it was cleared."""
    name, value = needed(ident(one.get("propertyName")), "propertyName"), one.get("propertyValue")
    if isinstance(value, bool):
        value = str(value).lower()
    return name, "" if value is None else str(value)


def _company(d: Delivery, id: str, own: OwnTime | None, thing: str, one: dict[str, Any]) -> list[Canonical]:
    name, value = _property(one)
    field = options_of(d, HubspotOptions).company_properties.get(name)
    told: dict[str, Any] = {"external_ids": {SOURCE: thing}}
    fitting = account_value(field, value) if field else None
    if field and not value and field in CLEARABLE:
        told["cleared"] = (field,)
    elif field and fitting is not None:
        told[field] = fitting
    else:
        told["traits"] = {name: value or None}
    return [event(d, SOURCE, "account.updated", id, own, **told)]


def account_value(field: str, value: str) -> Any:
    """The value as the field takes it; None when it does not fit."""
    if field == "arr":
        return positive_money(value)
    if field == "currency":
        return currency(value)
    if field == "seats":
        seats = whole(value)
        return seats if seats is not None and seats >= 0 else None
    return plain_text(value) if field in ("name", "industry", "country") else ident(value)


def _deal(d: Delivery, id: str, own: OwnTime | None, thing: str, one: dict[str, Any]) -> list[Canonical]:
    name, value = _property(one)
    options = options_of(d, HubspotOptions)
    field = options.deal_properties.get(name)
    if field is None:
        return []
    told: dict[str, Any] = {field: deal_value(field, value)}
    if field == "stage" and value in (*options.won_stages, *options.lost_stages):
        told["won"] = value in options.won_stages
    links = {"hubspot_deal": thing}
    return [event(d, SOURCE, "opportunity.changed", id, own, external_ids=links, opportunity_id=thing, **told)]


def deal_value(field: str, value: str) -> Any:
    readers = {"amount": money, "currency": currency, "closes_on": day, "stage": ident}
    return readers[field](value) if field in readers else KINDS.get(value.lower())


def _contact(d: Delivery, id: str, own: OwnTime | None, thing: str, one: dict[str, Any]) -> list[Canonical]:
    name, value = _property(one)
    field = options_of(d, HubspotOptions).contact_properties.get(name)
    if field is None or (field == "role" and value.lower() not in ROLES):
        return []
    told: dict[str, Any] = {"role": value.lower()} if field == "role" else {"title": plain_text(value)}
    links = {"hubspot_contact": thing}
    return [event(d, SOURCE, "contact.changed", id, own, external_ids=links, contact_id=thing, **told)]


def _privacy(d: Delivery, id: str, own: OwnTime | None, thing: str, one: dict[str, Any]) -> list[Canonical]:
    return [event(d, SOURCE, "privacy.requested", id, own, user_id=person(SOURCE, thing), regulation="delete")]


def _ticket_opened(d: Delivery, id: str, own: OwnTime | None, thing: str, one: dict[str, Any]) -> list[Canonical]:
    return [event(d, SOURCE, "ticket.opened", id, own, external_ids={"hubspot_ticket": thing}, ticket_id=thing)]


def _ticket(d: Delivery, id: str, own: OwnTime | None, thing: str, one: dict[str, Any]) -> list[Canonical]:
    name, value = _property(one)
    told: dict[str, Any] = {"external_ids": external(hubspot_ticket=thing), "ticket_id": thing}
    if name == "hs_pipeline_stage":
        solved = value in options_of(d, HubspotOptions).solved_stages
        return [event(d, SOURCE, "ticket.solved", id, own, **told)] if solved else []
    change: dict[str, Any] | None = {
        "subject": {"subject": plain_text(value)},
        "content": {"text": html_text(value)},
        "hs_ticket_priority": {"severity": SEVERITIES.get(value.upper())},
    }.get(name)
    if change is None or None in change.values():
        return []
    return [event(d, SOURCE, "ticket.updated", id, own, **told, **change)]


_READ = {
    "company.propertyChange": _company,
    "deal.propertyChange": _deal,
    "contact.propertyChange": _contact,
    "contact.privacyDeletion": _privacy,
    "ticket.creation": _ticket_opened,
    "ticket.propertyChange": _ticket,
}


def verify(delivery: Delivery, trust: Trust) -> None:
    if options_of(trust, HubspotOptions).signature == "v1":
        signatures.hubspot_v1(delivery, trust)
        return
    if "x-hubspot-signature-v3" not in delivery.headers:
        raise Forged("header X-HubSpot-Signature-v3 is missing; v1 and v2 are not taken")
    signatures.hubspot_v3(delivery, trust)


TOOL = Tool(SOURCE, verify, events, DROPPED)
