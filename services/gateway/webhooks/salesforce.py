"""Salesforce: outbound messages (SOAP), and change data capture and platform events as JSON, as a relay posts them.

| object | canonical event (fields: `OBJECTS`; more, or other fields, by `options.objects`) |
|---|---|
| Account | account.updated; what is not mapped is a trait |
| Opportunity | opportunity.changed: stage, amount, closes_on, currency; won from IsWon, IsClosed; kind from Type |
| Contact | contact.changed: title |
| Case | ticket.opened when just created, ticket.solved when closed, else ticket.updated; Priority is the severity |
| Contract | contract.changed: starts_on, ends_on |
| any platform event | by `options.objects`; else account.updated with its fields as traits, if it names an account |

The account is told by external id `salesforce` = AccountId (of an Account its Id; of a platform event the first of
`options.account_fields`); a change event without it has `salesforce_opportunity` and so on, which wait for a link.
Amounts stay as written. Salesforce repeats an outbound message for 24 h until it reads `<Ack>true</Ack>`, and sends
the state of then, so its identity is the notification's id and LastModifiedDate. Change events: transactionKey,
sequenceNumber and record, commitTimestamp (ms); one event for each record. Platform events: EventUuid (else channel
and replayId), CreatedDate. GAP_ and OVERFLOW events hold no data and go to quarantine, because something is missing
then. DELETE and UNDELETE tell nothing. SessionId is never read.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import field_validator

from services.gateway.canonical import Canonical, OwnTime
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Answer,
    Delivery,
    Forged,
    Options,
    Tool,
    Trust,
    Unreadable,
    currency,
    day,
    each,
    email,
    event,
    exact_json_of,
    external,
    first_text,
    ident,
    mapping,
    money,
    needed,
    objects_in,
    options_of,
    person,
    positive_money,
    say_refused,
    when,
    whole,
)
from services.gateway.webhooks.safe_xml import XSI, Element, read_xml
from services.gateway.webhooks.text import html_text, plain_text

SOURCE = "salesforce"
SEVERITIES = {"critical": "p1", "urgent": "p1", "high": "p2", "medium": "p3", "low": "p4"}
STATUSES = {"new": "open", "working": "open", "open": "open", "escalated": "open", "on hold": "pending"}
KINDS = (
    ("renew", "renewal"), ("expan", "expansion"), ("upgrade", "expansion"), ("upsell", "expansion"),
    ("cross-sell", "expansion"), ("add-on", "expansion"), ("new", "new"),
)  # fmt: skip
OBJECTS: dict[str, tuple[str, dict[str, str]]] = {
    "Account": (
        "account.updated",
        {"Name": "name", "Industry": "industry", "BillingCountry": "country", "CurrencyIsoCode": "currency"},
    ),
    "Opportunity": (
        "opportunity.changed",
        {"StageName": "stage", "Amount": "amount", "CurrencyIsoCode": "currency", "CloseDate": "closes_on",
         "Type": "kind"},
    ),
    "Contact": ("contact.changed", {"Title": "title"}),
    "Case": ("ticket.updated", {"Subject": "subject", "Description": "text", "Priority": "severity"}),
    "Contract": ("contract.changed", {"StartDate": "starts_on", "EndDate": "ends_on", "CurrencyIsoCode": "currency"}),
}  # fmt: skip
ID_FIELDS = {
    "account.updated": None,
    "opportunity.changed": "opportunity_id",
    "contact.changed": "contact_id",
    "ticket.updated": "ticket_id",
    "contract.changed": "contract_id",
    "subscription.changed": "subscription_id",
}
TEXTS = ("name", "industry", "country", "title", "subject")
NUMBERS = ("amount", "arr", "mrr")
DAYS = ("starts_on", "ends_on", "notice_on", "closes_on")
IDS = ("account_id", "stage", "plan", "product", "parent_id", "domain", "language", "timezone")
FIELDS = frozenset((*TEXTS, *NUMBERS, *DAYS, *IDS, "text", "severity", "kind", "currency", "seats", "salesforce"))
UNTOLD = frozenset(
    """
    Id AccountId LastModifiedDate SystemModstamp CreatedDate CreatedById LastModifiedById OwnerId ChangeEventHeader
    IsDeleted LastActivityDate LastViewedDate LastReferencedDate RecordTypeId MasterRecordId Phone Fax
    """.split()
)
DROPPED = (
    "notifications.OrganizationId",
    "notifications.ActionId",
    "notifications.SessionId",
    "notifications.EnterpriseUrl",
    "notifications.PartnerUrl",
    "channel beside an EventApiName",
    "data.schema",
    "data.event.replayId beside an EventUuid",
    "data.payload.CreatedById",
    "data.payload.LastModifiedDate",
    "data.payload.ChangeEventHeader.changeOrigin",
    "data.payload.ChangeEventHeader.changedFields",
    "data.payload.ChangeEventHeader.commitNumber",
    "data.payload.ChangeEventHeader.commitUser",
    "data.payload.ChangeEventHeader.diffFields",
    "fields of an object that no map names, except of accounts and platform events",
)


class ObjectMap(Options):
    """What an object's records become: `event`, and its field for each of the record's."""

    event: str
    fields: dict[str, str]

    @field_validator("event")
    @classmethod
    def _event(cls, given: str) -> str:
        if given not in ID_FIELDS:
            raise ValueError(f"{given!r} cannot be made of a record; use one of {', '.join(ID_FIELDS)}")
        return given

    @field_validator("fields")
    @classmethod
    def _fields(cls, given: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(given.values()) - FIELDS)
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no field here; the fields are {', '.join(sorted(FIELDS))}")
        return given


class SalesforceOptions(Options):
    objects: dict[str, ObjectMap] = {}
    account_fields: tuple[str, ...] = ("AccountId", "Account_Id__c", "AccountId__c", "Account__c")
    organization_ids: tuple[str, ...] = ()


def events(delivery: Delivery) -> list[Canonical]:
    body = _stripped(delivery.body)
    if body.startswith(b"<"):
        return each(_notifications(body), lambda one: _notified(delivery, one))
    return each(objects_in(_messages(body)), lambda one: _relayed(delivery, one))


def _messages(body: bytes) -> Any:
    """One message, a list of them, or one a line."""
    lines = [line for line in body.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}") for line in lines):
        return [exact_json_of(line) for line in lines]
    return exact_json_of(body)


# -- SOAP --------------------------------------------------------------------------------------------


def _outer(body: bytes) -> Element:
    envelope = read_xml(body)
    soap = envelope.find("Body")
    notifications = soap.find("notifications") if soap is not None else None
    if envelope.name != "Envelope" or notifications is None:
        raise Unreadable("the XML is no outbound message: it holds no notifications")
    return notifications


def _notifications(body: bytes) -> list[Element]:
    found = _outer(body).all("Notification")
    if not found:
        raise Unreadable("the outbound message holds no Notification")
    return found


def _notified(delivery: Delivery, one: Element) -> list[Canonical]:
    record = one.find("sObject")
    if record is None:
        raise Unreadable("a Notification holds no sObject")
    kind = record.attributes.get(f"{XSI}}}type", "").rpartition(":")[2]
    fields = {child.name: None if child.is_nil else child.text.strip() for child in record.children}
    id = needed(ident(one.value("Id")), "Notification.Id")
    own = when(fields.get("LastModifiedDate") or fields.get("SystemModstamp"), "LastModifiedDate")
    record_id = needed(ident(fields.get("Id")), "sObject.Id")
    return record_events(delivery, needed(kind or None, "the sObject's type"), id, own, record_id, fields)


# -- JSON --------------------------------------------------------------------------------------------


def _relayed(delivery: Delivery, one: object) -> list[Canonical]:
    """CometD's shape (`data`, `channel`), or what is inside of it, as a relay may unwrap it."""
    outer = mapping(one)
    data = mapping(outer.get("data")) or outer
    payload = mapping(data.get("payload")) or data
    header = payload.get("ChangeEventHeader")
    if isinstance(header, dict):
        return _changed(delivery, header, payload)
    about = mapping(data.get("event"))
    channel = outer.get("channel") if isinstance(outer.get("channel"), str) else ""
    name = ident(about.get("EventApiName")) or ident(str(channel).rpartition("/")[2])
    if name is None or not name.endswith("__e"):
        raise Unreadable("the message is neither a change event nor a platform event")
    replay = ident(about.get("replayId"))
    own = when(payload.get("CreatedDate"), "CreatedDate")
    id = ident(about.get("EventUuid")) or ident(payload.get("EventUuid")) or (f"{name}:{replay}" if replay else None)
    return record_events(delivery, name, needed(id, "event.EventUuid"), own, None, payload)


def _changed(delivery: Delivery, header: dict[str, Any], payload: dict[str, Any]) -> list[Canonical]:
    kind, change = ident(header.get("entityName")), str(header.get("changeType"))
    if change.startswith("GAP_") or change == "OVERFLOW":
        raise Unreadable(f"{change} of {kind}: Salesforce does not say what changed; read these records again")
    if change in ("DELETE", "UNDELETE"):
        return []
    if change not in ("CREATE", "UPDATE"):
        raise Unreadable(f"changeType {change[:40]!r} is not known")
    own = when(header.get("commitTimestamp"), "commitTimestamp")
    key = needed(ident(header.get("transactionKey")), "ChangeEventHeader.transactionKey")
    records = list(dict.fromkeys(text for one in header.get("recordIds") or () if (text := ident(one))))
    if not records:
        raise Unreadable("ChangeEventHeader.recordIds is empty")
    stem = f"{key}:{ident(header.get('sequenceNumber')) or ''}"
    fields = {name: value for name, value in payload.items() if name != "ChangeEventHeader"}
    fields |= {name: None for name in header.get("nulledFields") or () if isinstance(name, str)}
    kind = needed(kind, "ChangeEventHeader.entityName")
    is_new = change == "CREATE"
    return each(records, lambda one: record_events(delivery, kind, f"{stem}:{one}", own, one, fields, is_new=is_new))


# -- records -----------------------------------------------------------------------------------------


def record_events(
    delivery: Delivery,
    kind: str,
    id: str,
    own: OwnTime | None,
    record_id: str | None,
    fields: Mapping[str, Any],
    *,
    is_new: bool | None = None,
) -> list[Canonical]:
    options = options_of(delivery, SalesforceOptions)
    stated = options.objects.get(kind)
    if stated is not None:
        type, names = stated.event, stated.fields
    elif kind in OBJECTS:
        type, names = OBJECTS[kind]
    elif kind.endswith("__e"):
        type, names = "account.updated", {}
    else:
        raise Unreadable(f"object {kind[:100]!r} has no map; name one under options.objects of salesforce")
    told = _mapped(names, fields)
    account = next((text for name in options.account_fields if (text := ident(fields.get(name)))), None)
    links = external(salesforce=told.pop("salesforce", None) or (record_id if kind == "Account" else account))
    if not links and told.get("account_id") is None:
        if record_id is None:
            raise Unreadable(f"{kind} names no account in {', '.join(options.account_fields)}")
        links = external(**{f"salesforce_{kind.lower()}": record_id})
    if type == "account.updated" and stated is None:
        traits = {name: value for name, value in fields.items() if _is_trait(name, value, names, options)}
        told["traits"] = traits or None
    if type == "opportunity.changed":
        told["won"] = _won(fields)
    if type == "ticket.updated" and kind == "Case":
        type, told = _case(fields, told, is_new)
    if type == "contact.changed":
        told["email"] = email(fields.get("Email"))
    subject = ID_FIELDS.get(type, "ticket_id")
    if subject is not None:
        told[subject] = record_id or id
    if type == "subscription.changed":
        needed(told.get("mrr"), "the field mapped to mrr")
    return [event(delivery, SOURCE, type, id, own, external_ids=links, **told)]


def _mapped(names: Mapping[str, str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The record's fields as the event's; what is empty or does not fit is not told."""
    told: dict[str, Any] = {}
    for name, field in names.items():
        if name in fields and fields[name] not in (None, ""):
            told[field] = _value(field, fields[name])
    return told


def _value(field: str, value: Any) -> Any:
    if field in TEXTS:
        return plain_text(value)
    if field in ("arr", "mrr"):
        return positive_money(value)
    if field == "amount":
        return money(value)
    if field in DAYS:
        return day(value)
    if field == "currency":
        return currency(value)
    if field == "seats":
        seats = whole(value)
        return seats if seats is not None and seats >= 0 else None
    if field == "severity":
        return SEVERITIES.get(str(value).lower())
    if field == "kind":
        said = str(value).lower()
        return next((kind for word, kind in KINDS if word in said), None)
    return html_text(value) if field == "text" else ident(value)


def _is_trait(name: str, value: Any, names: Mapping[str, str], options: SalesforceOptions) -> bool:
    return (
        name not in names
        and name not in UNTOLD
        and name not in options.account_fields
        and isinstance(value, (str, int, float, bool, Decimal, type(None)))
    )


def _flag(value: object) -> bool | None:
    return {"true": True, "false": False}.get(str(value).lower())


def _won(fields: Mapping[str, Any]) -> bool | None:
    """IsWon says it; IsClosed alone only once it is known that it was not won."""
    won, closed = _flag(fields.get("IsWon")), _flag(fields.get("IsClosed"))
    if won:
        return True
    return False if closed and won is False else None


def _case(fields: Mapping[str, Any], told: dict[str, Any], is_new: bool | None) -> tuple[str, dict[str, Any]]:
    told = {**told, "user_id": person(SOURCE, fields.get("ContactId")), "email": email(fields.get("SuppliedEmail"))}
    status = first_text(fields.get("Status"))
    if _flag(fields.get("IsClosed")) or (status or "").lower() in ("closed", "solved", "resolved"):
        return "ticket.solved", told
    created, changed = fields.get("CreatedDate"), fields.get("LastModifiedDate")
    if is_new or (is_new is None and created and created == changed):
        return "ticket.opened", told
    return "ticket.updated", {**told, "status": STATUSES.get((status or "").lower())}


# -- trust and answers -------------------------------------------------------------------------------


def verify(delivery: Delivery, trust: Trust) -> None:
    """Salesforce signs nothing: a token in the path; and the organisation's id, where it is configured."""
    signatures.static_token(delivery, trust)
    expected = options_of(trust, SalesforceOptions).organization_ids
    if not expected or not _is_soap(delivery.body):
        return
    try:
        told = _outer(_stripped(delivery.body)).value("OrganizationId") or ""
    except Unreadable:
        raise Forged("the message names no OrganizationId") from None
    if told[:15] not in {id[:15] for id in expected}:
        raise Forged("the OrganizationId is not ours")


_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    '<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>{}</Ack></notificationsResponse>'
    "</soapenv:Body></soapenv:Envelope>"
)


def _stripped(body: bytes) -> bytes:
    """Without the byte order mark and white space before it, which an XML declaration may not have."""
    return body.lstrip(b"\xef\xbb\xbf \t\r\n")


def _is_soap(body: bytes) -> bool:
    return _stripped(body).startswith(b"<")


def accepted(delivery: Delivery) -> Answer:
    if _is_soap(delivery.body):
        return Answer(_ENVELOPE.format("true").encode(), "text/xml")
    return Answer(b'{"success": true}')


def refused(body: bytes, status: int, reason: str) -> Answer:
    """Anything but Ack true makes Salesforce send again."""
    if _is_soap(body):
        return Answer(_ENVELOPE.format("false").encode(), "text/xml")
    return say_refused(body, status, reason)


TOOL = Tool(SOURCE, verify, events, DROPPED, accepted, refused, takes_token=True)
