"""From a delivery to records: what could be read as events and requests, what could not as it came.

An unread delivery becomes one record of type `hune.webhook.TOOL.v1` with the tool's own bytes and the reason beside
them. The router does not know the type, so it waits in quarantine; `hune quarantine redrive` reads it again with the
adapters of the day (`reread`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from services.gateway.canonical import Canonical, Record, Refused, record_of
from services.gateway.webhooks.base import Delivery, Tool, Unreadable
from services.gateway.webhooks.settings import Webhooks
from services.gateway.webhooks.tools import TOOLS
from shared.errors import Poison
from shared.events import model_of, wire_type_of
from shared.ids import derived_id
from shared.topics import RAW_EVENTS, RAW_REQUESTS

log = logging.getLogger(__name__)

UNREAD_PREFIX, UNREAD_SUFFIX = "hune.webhook.", ".v1"
REQUEST = "request.made"
MAX_RECORD_BYTES = 1_500_000


@dataclass(frozen=True, slots=True)
class Reading:
    """What a delivery came to; `unread` says why it, or a part of it, could not be read."""

    events: tuple[Canonical, ...]
    unread: str | None = None


def read(tool: Tool, delivery: Delivery) -> Reading:
    """Read a delivery; never raises, because a tool would stop its whole stream."""
    try:
        events, unread = tuple(tool.events(delivery)), None
    except Unreadable as unreadable:
        events, unread = unreadable.read, str(unreadable)
    except Exception as error:
        log.error("an adapter failed", extra={"tool": tool.name, "error": type(error).__name__})
        events, unread = (), f"the adapter failed: {type(error).__name__}"
    for event in events:
        found = misfit(event)
        if found is not None:
            return Reading((), f"{event.type} does not fit the contract: {found}")
    return Reading(events, unread)


def misfit(event: Canonical) -> str | None:
    """Why an event does not fit the contract, if it does not."""
    try:
        model_of(wire_type_of(event.type)).model_validate(event.body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except Poison as poison:
        return str(poison)
    return None


def records_of(tool: Tool, delivery: Delivery) -> list[Record]:
    """The records that keep a delivery, unread ones last.

    Raises Refused for what no record can hold.
    """
    reading = read(tool, delivery)
    records = [record_of(event, RAW_REQUESTS.name if event.type == REQUEST else RAW_EVENTS.name)
               for event in reading.events]  # fmt: skip
    if reading.unread is not None:
        records.append(_unread(tool.name, delivery, reading.unread))
    largest = max((record.size for record in records), default=0)
    if largest > MAX_RECORD_BYTES:
        raise Refused(f"one event has {largest} bytes; at most {MAX_RECORD_BYTES}", status=413)
    return records


def _unread(tool: str, delivery: Delivery, reason: str) -> Record:
    id = derived_id("gateway", "webhook", tool, hashlib.sha256(delivery.body).hexdigest())
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", tool.encode()),
        ("ce_type", f"{UNREAD_PREFIX}{tool}{UNREAD_SUFFIX}".encode()),
        ("ce_reason", reason[:1000].encode("utf-8", "replace")),
        ("content-type", delivery.headers.get("content-type", "application/octet-stream")[:200].encode()),
    ]
    return Record(RAW_EVENTS.name, id.encode(), delivery.body, headers)


def is_unread(headers: Mapping[str, bytes | None]) -> bool:
    """Whether a record holds a delivery as it came."""
    type = headers.get("ce_type") or b""
    return type.startswith(UNREAD_PREFIX.encode()) and type.endswith(UNREAD_SUFFIX.encode())


def reread(
    headers: Mapping[str, bytes | None], body: bytes, received_at: datetime, webhooks: Webhooks
) -> tuple[list[Record], str | None]:
    """Read an unread record with today's adapters: what it gives now, and why it is not all, if so.

    Reading the same again gives the same ids and times, so what had been read before counts once.
    """
    name = (headers.get("ce_type") or b"").decode().removeprefix(UNREAD_PREFIX).removesuffix(UNREAD_SUFFIX)
    tool = TOOLS.get(name)
    if tool is None:
        return [], f"webhooks of {name[:100]!r} are not known"
    content_type = (headers.get("content-type") or b"").decode("utf-8", "replace")
    delivery = Delivery(body, {"content-type": content_type}, received_at, options=webhooks.of(name).options)
    reading = read(tool, delivery)
    if reading.unread is not None:
        return [], reading.unread
    return records_of(tool, delivery), None
