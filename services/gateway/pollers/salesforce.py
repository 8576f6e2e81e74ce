"""Salesforce: SOQL by SystemModstamp over the REST API, page by page (`nextRecordsUrl`).

| feed | object | canonical event |
|---|---|---|
| accounts | Account | account.updated; what is selected and not mapped is a trait |
| opportunities | Opportunity | opportunity.changed: stage, amount, closes_on, kind, won, currency |
| contacts | Contact | contact.changed: title, e-mail |
| tasks | Task, closed, TaskSubtype Call | call.held: duration, person_id = OwnerId, attendees = WhoId |
| | Task, closed, TaskSubtype Email | touchpoint.logged: e-mail, one way |
| | every other Task | tells nothing |

The first three are the mapping of the webhook (`webhooks/salesforce.py`), with its `options` of config/webhooks.yaml.
Id: object, Id and SystemModstamp, which is the own time; of a task object and Id, with CompletedDateTime (else
CreatedDate), so that a call edited later stays one call. A call of 0 s, an internal one and a list e-mail tell
nothing. Currencies: CurrencyIsoCode, which only organisations with several have (`multi_currency`); else not told.
Deleted records are not listed. A query locator that has expired: the list is read on from the cursor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from services.gateway.canonical import Canonical
from services.gateway.pollers.base import Ask, Feed, Page, Step, Torn, instant_ms, reached_by, readings, whole
from services.gateway.webhooks.base import (
    Delivery,
    Unreadable,
    event,
    exact_json_of,
    external,
    ident,
    needed,
    number,
    when,
)
from services.gateway.webhooks.salesforce import OBJECTS, SOURCE, SalesforceOptions, record_events

FEEDS = {"accounts": "Account", "opportunities": "Opportunity", "contacts": "Contact", "tasks": "Task"}
SELECTED: Mapping[str, tuple[str, ...]] = {
    "Account": (),
    "Opportunity": ("AccountId", "IsClosed", "IsWon"),
    "Contact": ("AccountId", "Email"),
    "Task": (
        "AccountId", "WhoId", "OwnerId", "TaskSubtype", "CallType", "CallDurationInSeconds", "IsClosed",
        "CompletedDateTime", "CreatedDate",
    ),
}  # fmt: skip
"""Beside what the maps name."""
OPTIONS = SalesforceOptions()
CURRENCY = "CurrencyIsoCode"
HAS_CURRENCY = ("Account", "Opportunity")
DROPPED: Mapping[str, tuple[str, ...]] = {
    "accounts": ("attributes",),
    "opportunities": ("attributes",),
    "contacts": ("attributes",),
    "tasks": ("attributes", "SystemModstamp", "CreatedDate beside CompletedDateTime"),
}
FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_MORE = re.compile(r"/services/data/v\d+\.\d+/query/[\w-]+")


class _Answer(msgspec.Struct):
    records: list[msgspec.Raw]
    done: bool
    nextRecordsUrl: str | None = None


@dataclass(frozen=True, slots=True)
class SalesforceFeed(Feed):
    name: str
    options: SalesforceOptions = OPTIONS
    version: str = "61.0"
    more_fields: tuple[str, ...] = ()
    multi_currency: bool = False
    tool: ClassVar[str] = SOURCE
    history_days: int | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "history_days", 30 if self.name == "tasks" else None)

    @property
    def object(self) -> str:
        return FEEDS[self.name]

    @property
    def fields(self) -> tuple[str, ...]:
        stated = self.options.objects.get(self.object)
        mapped = stated.fields if stated else OBJECTS[self.object][1] if self.object in OBJECTS else {}
        named = (
            "Id",
            "SystemModstamp",
            *(name for name in mapped if name != CURRENCY or stated),
            *SELECTED[self.object],
            *((CURRENCY,) if self.multi_currency and self.object in HAS_CURRENCY else ()),
            *self.more_fields,
        )
        return tuple(dict.fromkeys(named))

    def first(self, start: datetime, until: datetime) -> Step:
        return Step(start, until, until)

    def ask(self, step: Step) -> Ask:
        if more := step.place.get("more"):
            return Ask(more)
        window = f"SystemModstamp >= {instant_ms(step.start)} AND SystemModstamp < {instant_ms(step.end)}"
        query = f"SELECT {', '.join(self.fields)} FROM {self.object} WHERE {window} ORDER BY SystemModstamp, Id"
        return Ask(f"/services/data/v{self.version}/query", {"q": query})

    def read(self, step: Step, body: bytes, *, is_last: bool) -> Page:
        answer = whole(body, _Answer)
        told = readings(answer.records, self.events)
        if answer.done:
            return Page(told, None, step.end)
        if answer.nextRecordsUrl is None or not _MORE.fullmatch(answer.nextRecordsUrl):
            raise Torn("the answer says that there is more, and not where")
        return Page(told, step.at(more=answer.nextRecordsUrl), reached_by(_times(answer.records), step.end))

    def events(self, body: bytes) -> list[Canonical]:
        record = exact_json_of(body)
        if not isinstance(record, dict):
            raise Unreadable("the record is not a JSON object")
        fields = {name: value for name, value in record.items() if name != "attributes"}
        id = needed(ident(fields.get("Id")), "Id")
        delivery = Delivery(b"", options=self.options)
        if self.object == "Task":
            return _task(delivery, id, fields)
        own = needed(when(fields.get("SystemModstamp"), "SystemModstamp"), "SystemModstamp")
        return record_events(delivery, self.object, f"{self.object}:{id}:{own.text}", own, id, fields)

    def is_stale(self, status: int, body: bytes) -> bool:
        return status == 400 and b"INVALID_QUERY_LOCATOR" in body

    def is_throttled(self, status: int, body: bytes) -> bool:
        return status in (403, 503) and (b"REQUEST_LIMIT_EXCEEDED" in body or b"SERVER_UNAVAILABLE" in body)


def _times(records: list[msgspec.Raw]) -> list[datetime]:
    """When the last record changed that says so: the list is in this order."""
    for record in reversed(records):
        try:
            own = when(msgspec.json.decode(record).get("SystemModstamp"), "SystemModstamp")
        except (Unreadable, AttributeError):
            continue
        if own is not None:
            return [own.at]
    return []


def _task(delivery: Delivery, id: str, fields: Mapping[str, Any]) -> list[Canonical]:
    if fields.get("IsClosed") is not True:
        return []
    own = needed(when(fields.get("CompletedDateTime") or fields.get("CreatedDate"), "CompletedDateTime"),
                 "CompletedDateTime")  # fmt: skip
    account, owner, contact = (ident(fields.get(name)) for name in ("AccountId", "OwnerId", "WhoId"))
    links = external(salesforce=account) or external(salesforce_task=id)
    kind, seconds = fields.get("TaskSubtype"), number(fields.get("CallDurationInSeconds"))
    if kind == "Call" and fields.get("CallType") != "Internal" and seconds != 0:
        return [
            event(
                delivery, SOURCE, "call.held", f"Task:{id}", own, external_ids=links, call_id=id, person_id=owner,
                duration_s=int(seconds) if seconds is not None and 0 < seconds < 2**31 else None,
                attendees=[contact] if contact else None,
            )
        ]  # fmt: skip
    if kind == "Email":
        return [
            event(
                delivery, SOURCE, "touchpoint.logged", f"Task:{id}", own, external_ids=links, touchpoint_id=id,
                channel="email", two_way=False, person_id=owner,
            )
        ]  # fmt: skip
    return []
