"""Gong: an automation rule that fires a webhook when a call has been processed.

| call | canonical event |
|---|---|
| scope External, or unknown | call.held for each account: duration, language, person_id = primaryUserId, attendees |
| a test (`isTest`), or scope Internal | accepted, tells nothing |

The accounts are the Account (HubSpot: Company) objects in `context` and in the external parties' contexts, told by
external id `salesforce`, `hubspot` …; if there is none, the external parties' e-mail domains, one event each.
attendees are the external parties: their CRM contact, else Gong's party id. The payload holds no transcript, so there
is no text. Id: the call and the account; own time: metaData.started (else scheduled).
"""

from __future__ import annotations

from typing import Any

from services.gateway.canonical import Canonical
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Delivery,
    Forged,
    Tool,
    Trust,
    Unreadable,
    at,
    email,
    event,
    ident,
    items,
    mapping,
    needed,
    number,
    object_of,
    when,
    word,
)

SOURCE = "gong"
LANGUAGES = {
    "eng": "en", "fra": "fr", "fre": "fr", "deu": "de", "ger": "de", "spa": "es", "ita": "it", "nld": "nl",
    "dut": "nl", "por": "pt",
}  # fmt: skip
ACCOUNTS = ("Account", "Company")
CONTACTS = ("Contact", "Lead")
DROPPED = (
    "callData.collaboration",
    "callData.content",
    "callData.context[].objects[].fields",
    "callData.interaction",
    "callData.media",
    "callData.metaData.direction",
    "callData.metaData.media",
    "callData.metaData.system",
    "callData.metaData.title",
    "callData.metaData.url",
    "callData.metaData.scheduled beside started",
    "callData.parties[].methods",
    "callData.parties[].name",
    "callData.parties[].speakerId",
    "callData.parties[].title",
    "callData.parties[].userId",
)


def events(delivery: Delivery) -> list[Canonical]:
    payload = object_of(delivery.body)
    call = payload.get("callData")
    meta = at(call, "metaData")
    if not isinstance(call, dict) or not isinstance(meta, dict):
        raise Unreadable("callData.metaData is not an object")
    if payload.get("isTest") is True or meta.get("scope") == "Internal":
        return []
    id = needed(ident(meta.get("id")), "callData.metaData.id")
    own = when(meta.get("started") or meta.get("scheduled"), "callData.metaData.started")
    outside = [party for party in map(mapping, items(call.get("parties"))) if party.get("affiliation") == "External"]
    seconds = number(meta.get("duration"))
    told: dict[str, Any] = {
        "call_id": id,
        "person_id": ident(meta.get("primaryUserId")),
        "duration_s": int(seconds) if seconds is not None and 0 <= seconds < 2**31 else None,
        "language": LANGUAGES.get(word(meta.get("language")).lower()),
        "attendees": list(dict.fromkeys(text for party in outside if (text := _attendee(party)))) or None,
    }
    return [
        event(delivery, SOURCE, "call.held", f"{id}:{where}" if where else id, own, **who, **told)
        for where, who in _accounts(call, outside)
    ]


def _objects(context: object, kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    """(namespace, id) of the CRM's objects of these kinds."""
    return [
        (word(system.get("system")).lower(), id)
        for system in map(mapping, items(context))
        for thing in map(mapping, items(system.get("objects")))
        if word(thing.get("objectType")) in kinds
        and (id := ident(thing.get("objectId")))
        and word(system.get("system"))
    ]


def _attendee(party: dict[str, Any]) -> str | None:
    contact = next((id for _, id in _objects(party.get("context"), CONTACTS)), None)
    return contact or ident(party.get("id"))


def _accounts(call: dict[str, Any], outside: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """What tells the call's accounts apart, and how each is told; one without anything if nothing tells it."""
    found = _objects(call.get("context"), ACCOUNTS)
    found += [named for party in outside for named in _objects(party.get("context"), ACCOUNTS)]
    if found:
        return [(f"{space}:{id}", {"external_ids": {space: id}}) for space, id in dict.fromkeys(found)]
    domains: dict[str, str] = {}
    for party in outside:
        address = email(party.get("emailAddress"))
        if address:
            domains.setdefault(address.rpartition("@")[2].strip().lower(), address)
    return [(domain, {"email": address}) for domain, address in domains.items()] or [("", {})]


def verify(delivery: Delivery, trust: Trust) -> None:
    """Either of Gong's ways: the key in the URL, or the signed JWT, which is checked whenever a key for it is set."""
    if trust.public_keys:
        signatures.signed_jwt(delivery, trust)
    elif not trust.secrets and not trust.tokens:
        raise Forged("no secret is set for this tool")
    else:
        signatures.static_token(delivery, trust)


TOOL = Tool(SOURCE, verify, events, DROPPED, takes_token=True)
