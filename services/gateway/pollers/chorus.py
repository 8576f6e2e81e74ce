"""Chorus: engagements of API v3 by their date, page by page (`continuation_key`).

| engagement | canonical event for each account |
|---|---|
| processed | call.held: duration, language, person_id = user_id, attendees = participants of type cust |
| no_show | meeting.no_show: the same without a duration |
| not processed yet | nothing: it is there again in the next rounds, as long as the overlap reaches |

The account is the CRM's: external id `crm` (`salesforce`, or `hubspot`) = account_id; without one, the e-mail domains
of the customer's participants, one event each. Id: the engagement and the account; own time: date_time (s). Chorus
filters by the date of an engagement, not by its last change: what is processed later than the overlap is not found.
Summaries and action items are Chorus's words, not the customer's, and are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec

from services.gateway.canonical import Canonical
from services.gateway.pollers.base import Ask, Feed, Page, Step, instant_ms, readings, whole
from services.gateway.webhooks.base import (
    Delivery,
    Unreadable,
    email,
    event,
    ident,
    items,
    mapping,
    needed,
    number,
    object_of,
    person,
    when,
    word,
)

SOURCE = "chorus"
FEEDS = ("engagements",)
WINDOW = timedelta(days=7)
KINDS = ("meeting", "dialer", "call")
UNPROCESSED = ("scheduled", "pending", "processing", "in_progress", "recording", "uploading", "queued")
DROPPED: Mapping[str, tuple[str, ...]] = {
    "engagements": (
        "account_name", "action_items", "initiator", "meeting_summary", "num_cust_questions", "num_engaging_questions",
        "opportunity_id", "opportunity_name", "participants[].company_name", "participants[].name",
        "participants[].title", "participants[].email beside an account_id", "subject", "tracker_matches", "url",
        "user_email", "user_name",
    )
}  # fmt: skip


class _Answer(msgspec.Struct):
    engagements: list[msgspec.Raw]
    continuation_key: str | int | None = None


@dataclass(frozen=True, slots=True)
class ChorusFeed(Feed):
    name: str = "engagements"
    crm: str = "salesforce"
    history_days: int | None = 30
    tool: ClassVar[str] = SOURCE

    def first(self, start: datetime, until: datetime) -> Step:
        return Step(start, min(start + WINDOW, until), until)

    def ask(self, step: Step) -> Ask:
        query = {"min_date": instant_ms(step.start), "max_date": instant_ms(step.end), "with_trackers": "false"}
        if key := step.place.get("key"):
            query["continuation_key"] = key
        return Ask("/v3/engagements", query)

    def read(self, step: Step, body: bytes, *, is_last: bool) -> Page:
        answer = whole(body, _Answer)
        told = readings(answer.engagements, self.events)
        key = str(answer.continuation_key or "")
        if key and answer.engagements and key != step.place.get("key"):
            return Page(told, step.at(key=key))
        return Page(told, step.after(WINDOW), step.end)

    def events(self, body: bytes) -> list[Canonical]:
        call = object_of(body)
        id = needed(ident(call.get("engagement_id")), "engagement_id")
        kind = word(call.get("engagement_type"))
        if kind not in KINDS:
            raise Unreadable(f"engagement_type {kind[:40]!r} is not known")
        if word(call.get("processing_state")) in UNPROCESSED:
            return []
        own = needed(when(call.get("date_time"), "date_time"), "date_time")
        outside = [one for one in map(mapping, items(call.get("participants"))) if one.get("type") == "cust"]
        seconds, languages = number(call.get("duration")), items(call.get("languages"))
        told: dict[str, Any] = {
            "person_id": ident(call.get("user_id")),
            "language": ident(languages[0]) if len(languages) == 1 else None,
            "attendees": [name for one in outside if (name := person(SOURCE, one.get("person_id")))] or None,
        }
        if call.get("no_show") is True:
            type, told = "meeting.no_show", {**told, "meeting_id": id}
        else:
            held = int(seconds) if seconds is not None and 0 <= seconds < 2**31 else None
            type, told = "call.held", {**told, "call_id": id, "duration_s": held}
        return [
            event(Delivery(b""), SOURCE, type, f"{id}:{where}" if where else id, own, **who, **told)
            for where, who in self._accounts(call, outside)
        ]

    def _accounts(self, call: Mapping[str, Any], outside: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
        account = ident(call.get("account_id"))
        if account:
            return [(f"{self.crm}:{account}", {"external_ids": {self.crm: account}})]
        domains: dict[str, str] = {}
        for one in outside:
            address = email(one.get("email"))
            if address:
                domains.setdefault(address.rpartition("@")[2].strip().lower(), address)
        return [(domain, {"email": address}) for domain, address in domains.items()] or [("", {})]
