"""Routed records: the event's own attributes, under the key of its account."""

from __future__ import annotations

from functools import lru_cache

from services.router.reader import RawEvent
from shared.events import inputs
from shared.ids import partition_of
from shared.runtime.wire import Headers, rfc3339

REMEMBERED = 200_000


@lru_cache(maxsize=REMEMBERED)
def place_of(account_id: str, partitions: int) -> tuple[bytes, int, tuple[str, bytes]]:
    """An account's key, its partition, and the header that names it."""
    key = account_id.encode()
    return key, partition_of(key, partitions), ("ce_subject", key)


@lru_cache(maxsize=4096)
def _header(name: str, value: str) -> tuple[str, bytes]:
    return name, value.encode()


_VERSION = ("ce_specversion", b"1.0")
_JSON = ("content-type", b"application/json")


def headers_of(event: RawEvent) -> Headers:
    """The event's own attributes, unchanged; times as they came where they are in UTC already."""
    own, time = event.own_time, event.time or rfc3339(event.occurred_at)
    headers = [
        _VERSION,
        ("ce_id", event.id.encode()),
        _header("ce_source", event.source),
        _header("ce_type", event.wire_type),
        ("ce_time", time.encode()),
        ("ce_recordedtime", b"%d" % event.received_ms),
        _JSON,
    ]
    if own is not None:
        headers.append(("ce_owntime", own.encode()))
    if event.mode is not None:
        headers.append(("ce_mode", event.mode))
        if event.run is not None:
            headers.append(("ce_run", event.run))
    return headers


def told_of(merge: inputs.AccountMerged, partitions: int) -> tuple[str, ...]:
    """Whom a merge is told to: both accounts, once where they share a partition, whose owner would drop a repeat."""
    both = merge.account_id, merge.merged_account_id
    return both if len({place_of(account, partitions)[1] for account in both}) == 2 else both[:1]
