"""From a page to records: what could be read as events, what could not as it came.

An unread record of a tool becomes one of type `hune.polled.TOOL.FEED.v1` with the tool's own bytes and the reason
beside them. The router does not know the type, so it waits in quarantine; `hune quarantine redrive` reads it again with
the adapters and the configuration of the day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from services.gateway.canonical import Record, record_of
from services.gateway.pollers.base import Feed, Reading, reading_of
from services.gateway.webhooks.translate import MAX_RECORD_BYTES, misfit
from shared.ids import derived_id
from shared.topics import RAW_EVENTS

POLLED_PREFIX, POLLED_SUFFIX = "hune.polled.", ".v1"


def records_of(feed: Feed, reading: Reading) -> tuple[list[Record], str | None]:
    """The records that keep what a tool's record told, and why they are not all of it, if so."""
    unread = reading.unread
    records: list[Record] = []
    for event in reading.events:
        odd = misfit(event)
        record = record_of(event) if odd is None else None
        if record is None:
            unread = f"{event.type} does not fit the contract: {odd}"
        elif record.size > MAX_RECORD_BYTES:
            unread = f"{event.type} has {record.size} bytes; at most {MAX_RECORD_BYTES}"
        else:
            records.append(record)
    if unread is not None:
        records.append(_unread(feed, reading.body, unread))
    return records, unread


def _unread(feed: Feed, body: bytes, reason: str) -> Record:
    digest = hashlib.sha256(body).hexdigest()
    id = derived_id("gateway", "polled", feed.tool, feed.name, digest)
    if len(body) > MAX_RECORD_BYTES:
        body = msgspec.json.encode({"bytes": len(body), "sha256": digest})
        reason = f"{reason}; only its length and hash are kept"
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", feed.tool.encode()),
        ("ce_type", f"{POLLED_PREFIX}{feed.tool}.{feed.name}{POLLED_SUFFIX}".encode()),
        ("ce_reason", reason[:1000].encode("utf-8", "replace")),
        ("content-type", b"application/json"),
    ]
    return Record(RAW_EVENTS.name, id.encode(), body, headers)


def identity(record: Record) -> bytes:
    """What makes a record the same one when it is read again."""
    named = dict(record.headers)
    parts = (named.get("ce_source", b""), named.get("ce_id", b""), named.get("ce_owntime", b""))
    return hashlib.blake2b(b"\x1f".join(parts), digest_size=16).digest()


def is_polled(headers: Mapping[str, bytes | None]) -> bool:
    """Whether a record holds what a tool gave as it came."""
    type = headers.get("ce_type") or b""
    return type.startswith(POLLED_PREFIX.encode()) and type.endswith(POLLED_SUFFIX.encode())


def reread(headers: Mapping[str, bytes | None], body: bytes, feeds: Iterable[Feed]) -> tuple[list[Record], str | None]:
    """Read an unread record with today's adapters: what it gives now, and why it is not all, if so."""
    name = (headers.get("ce_type") or b"").decode().removeprefix(POLLED_PREFIX).removesuffix(POLLED_SUFFIX)
    feed = next((one for one in feeds if f"{one.tool}.{one.name}" == name), None)
    if feed is None:
        return [], f"no feed is called {name[:100]!r}"
    records, unread = records_of(feed, reading_of(body, feed.events))
    return ([], unread) if unread is not None else (records, None)
