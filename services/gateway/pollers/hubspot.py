"""HubSpot: CRM search v3 by the time of the last change, page by page (`after`).

| feed | object | canonical event |
|---|---|---|
| companies | companies | account.updated: `company_properties`; what else is asked for is a trait |
| deals | deals | opportunity.changed: `deal_properties`; won by `won_stages`, `lost_stages` |
| contacts | contacts | contact.changed: `contact_properties`, e-mail |
| tickets | tickets | ticket.opened once, ticket.updated (subject, content, priority); `solved_stages`: ticket.solved |

The mapping is the webhook's (`webhooks/hubspot.py`), with its `options` of config/webhooks.yaml. The account is
external id `hubspot` = the company: of a deal hs_primary_associated_company, of a contact associatedcompanyid, of a
ticket hs_primary_company_id (`company_property`); where it is empty, `hubspot_deal` and so on, which wait for a link.
Id: object, id and the time of the change, which is the own time; a ticket is opened at createdate and solved at
closed_date (else at the change). An empty property is not told: it clears nothing.

A search gives 10,000 records at most: a window with more is halved until it has fewer, at last to one ms, which is read
on by id. Records that change while a window is read leave it, and would shift the pages: when the total shrinks, the
list goes on behind the last id that was read, so no record is passed over. Those that left are in a later window; none
comes in, because a round ends half a minute before now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec

from services.gateway.canonical import Canonical, OwnTime
from services.gateway.pollers.base import Ask, Feed, Page, Step, milliseconds, readings, whole
from services.gateway.webhooks.base import (
    Delivery,
    Unreadable,
    email,
    event,
    exact_json_of,
    ident,
    mapping,
    needed,
    when,
)
from services.gateway.webhooks.hubspot import ROLES, SEVERITIES, SOURCE, HubspotOptions, account_value, deal_value
from services.gateway.webhooks.text import html_text, plain_text

FEEDS = ("companies", "deals", "contacts", "tickets")
CHANGED = {"contacts": "lastmodifieddate"}
"""The property of the last change; hs_lastmodifieddate of all others."""
COMPANY_PROPERTIES = {
    "deals": "hs_primary_associated_company",
    "contacts": "associatedcompanyid",
    "tickets": "hs_primary_company_id",
}
TICKET = ("subject", "content", "hs_ticket_priority", "hs_pipeline_stage", "closed_date")
SYSTEM = frozenset(("createdate", "hs_object_id", "hs_lastmodifieddate", "lastmodifieddate", "hs_createdate"))
MOST = 10_000
PER_PAGE = 200
OPTIONS = HubspotOptions()
MILLISECOND = timedelta(milliseconds=1)
DROPPED: Mapping[str, tuple[str, ...]] = {
    feed: ("createdAt", "archived", "updatedAt beside the property", "properties.hs_object_id", *more)
    for feed, more in {
        "companies": ("properties.createdate",),
        "deals": ("properties.createdate", "properties.dealname"),
        "contacts": ("properties.createdate", "properties.firstname", "properties.lastname"),
        "tickets": (),
    }.items()
}


class _Next(msgspec.Struct):
    after: str


class _Paging(msgspec.Struct):
    next: _Next | None = None


class _Answer(msgspec.Struct):
    total: int
    results: list[msgspec.Raw]
    paging: _Paging | None = None


class _Named(msgspec.Struct):
    id: str


@dataclass(frozen=True, slots=True)
class HubspotFeed(Feed):
    name: str
    options: HubspotOptions = OPTIONS
    more_properties: tuple[str, ...] = ()
    company_property: str | None = None
    most: int = MOST
    per_page: int = PER_PAGE
    tool: ClassVar[str] = SOURCE
    settle: ClassVar[timedelta] = timedelta(seconds=30)

    @property
    def changed(self) -> str:
        return CHANGED.get(self.name, "hs_lastmodifieddate")

    @property
    def company(self) -> str | None:
        return self.company_property or COMPANY_PROPERTIES.get(self.name)

    @property
    def properties(self) -> tuple[str, ...]:
        mapped: Mapping[str, tuple[str, ...]] = {
            "companies": tuple(self.options.company_properties),
            "deals": tuple(self.options.deal_properties),
            "contacts": (*self.options.contact_properties, "email"),
            "tickets": TICKET,
        }
        named = (*mapped[self.name], self.company, self.changed, "createdate", *self.more_properties)
        return tuple(dict.fromkeys(name for name in named if name))

    def first(self, start: datetime, until: datetime) -> Step:
        return Step(_to_ms(start), until, until)

    def ask(self, step: Step) -> Ask:
        filters = [
            {"propertyName": self.changed, "operator": "GTE", "value": str(milliseconds(step.start))},
            {"propertyName": self.changed, "operator": "LT", "value": str(milliseconds(_up(step.end)))},
        ]
        if above := step.place.get("above"):
            filters.append({"propertyName": "hs_object_id", "operator": "GT", "value": above})
        search: dict[str, Any] = {
            "filterGroups": [{"filters": filters}],
            "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
            "properties": list(self.properties),
            "limit": self.per_page,
        }
        if after := step.place.get("after"):
            search["after"] = after
        return Ask(f"/crm/v3/objects/{self.name}/search", json=search)

    def read(self, step: Step, body: bytes, *, is_last: bool) -> Page:
        answer = whole(body, _Answer)
        width = _up(step.end) - step.start
        if answer.total > self.most and not step.place and width > MILLISECOND:
            half = step.start + max(MILLISECOND, MILLISECOND * (width // (2 * MILLISECOND)))
            return Page((), Step(step.start, min(half, step.end), step.until))
        told = readings(answer.results, self.events)
        following = self._following(step, answer)
        if following is not None:
            return Page(told, following)
        return Page(told, step.after(2 * width), step.end)

    def _following(self, step: Step, answer: _Answer) -> Step | None:
        """Where the window goes on; None at its end."""
        after = answer.paging.next.after if answer.paging and answer.paging.next else None
        before, read = step.place.get("last"), int(step.place.get("read", 0)) + len(answer.results)
        if answer.total < int(step.place.get("total", 0)):
            return step.at(above=before)  # records have left the window: those behind them have moved up
        last = _id_of(answer.results[-1]) if answer.results else before
        if after is None:
            return None
        if read + self.per_page > self.most:
            return step.at(above=last)
        more = {"after": after, "above": step.place.get("above"), "last": last, "read": read, "total": answer.total}
        return step.at(**{name: value for name, value in more.items() if value is not None})

    def events(self, body: bytes) -> list[Canonical]:
        record = exact_json_of(body)
        if not isinstance(record, dict) or not isinstance(record.get("properties"), dict):
            raise Unreadable("the record has no properties")
        id, told = needed(ident(record.get("id")), "id"), mapping(record["properties"])
        changed = told.get(self.changed) or record.get("updatedAt")
        own = needed(when(changed, self.changed), self.changed)
        values = {name: _text(value) for name, value in told.items() if value not in (None, "")}
        return _READ[self.name](self, id, own, values)


def _to_ms(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _up(at: datetime) -> datetime:
    """To the next whole ms: HubSpot's times and filters are in ms."""
    down = _to_ms(at)
    return down if down == at else down + MILLISECOND


def _id_of(record: msgspec.Raw) -> str:
    return str(whole(bytes(record), _Named).id)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _links(feed: HubspotFeed, kind: str, id: str, values: Mapping[str, str]) -> dict[str, str]:
    company = ident(values.get(feed.company or ""))
    return {SOURCE: company} if company else {f"hubspot_{kind}": id}


_DELIVERY = Delivery(b"")


def _company(feed: HubspotFeed, id: str, own: OwnTime, values: Mapping[str, str]) -> list[Canonical]:
    told: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    for name, value in values.items():
        field = feed.options.company_properties.get(name)
        fitting = account_value(field, value) if field else None
        if field and fitting is not None:
            told[field] = fitting
        elif name not in SYSTEM:
            traits[name] = value
    links = {SOURCE: id}
    return [event(_DELIVERY, SOURCE, "account.updated", f"company:{id}:{own.text}", own,
                  external_ids=links, traits=traits or None, **told)]  # fmt: skip


def _deal(feed: HubspotFeed, id: str, own: OwnTime, values: Mapping[str, str]) -> list[Canonical]:
    fields = feed.options.deal_properties
    told: dict[str, Any] = {
        fields[name]: deal_value(fields[name], value) for name, value in values.items() if name in fields
    }
    stage = told.get("stage")
    if stage in (*feed.options.won_stages, *feed.options.lost_stages):
        told["won"] = stage in feed.options.won_stages
    links = _links(feed, "deal", id, values)
    return [event(_DELIVERY, SOURCE, "opportunity.changed", f"deal:{id}:{own.text}", own,
                  external_ids=links, opportunity_id=id, **told)]  # fmt: skip


def _contact(feed: HubspotFeed, id: str, own: OwnTime, values: Mapping[str, str]) -> list[Canonical]:
    told: dict[str, Any] = {"email": email(values.get("email"))}
    for name, field in feed.options.contact_properties.items():
        value = values.get(name)
        if value is not None and field == "role":
            told["role"] = value.lower() if value.lower() in ROLES else None
        elif value is not None:
            told["title"] = plain_text(value)
    links = _links(feed, "contact", id, values)
    return [event(_DELIVERY, SOURCE, "contact.changed", f"contact:{id}:{own.text}", own,
                  external_ids=links, contact_id=id, **told)]  # fmt: skip


def _ticket(feed: HubspotFeed, id: str, own: OwnTime, values: Mapping[str, str]) -> list[Canonical]:
    links = _links(feed, "ticket", id, values)
    common: dict[str, Any] = {"external_ids": links, "ticket_id": id}
    told: dict[str, Any] = {
        "subject": plain_text(values.get("subject")),
        "text": html_text(values.get("content")),
        "severity": SEVERITIES.get(values.get("hs_ticket_priority", "").upper()),
    }
    found = []
    opened = when(values.get("createdate"), "createdate")
    if opened is not None:
        found.append(event(_DELIVERY, SOURCE, "ticket.opened", f"ticket:{id}:opened", opened, **common))
    found.append(event(_DELIVERY, SOURCE, "ticket.updated", f"ticket:{id}:{own.text}", own, **common, **told))
    if values.get("hs_pipeline_stage") in feed.options.solved_stages:
        solved = when(values.get("closed_date"), "closed_date") or own
        found.append(event(_DELIVERY, SOURCE, "ticket.solved", f"ticket:{id}:solved", solved, **common))
    return found


_READ = {"companies": _company, "deals": _deal, "contacts": _contact, "tickets": _ticket}
