"""The ways in: which paths a family of SDKs uses, where its key is, and in which words it wants the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from services.gateway import segment
from services.gateway.canonical import Canonical
from services.gateway.settings import Limits


@dataclass(frozen=True, slots=True)
class Incoming:
    """What an adapter sees of a request."""

    body: bytes
    url_path: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    content_type: str


Read = Callable[[datetime, Limits], list[Canonical]]


@dataclass(frozen=True, slots=True)
class Opened:
    """A request opened as far as its key; `read` does the rest once the key is accepted."""

    write_key: str | None
    read: Read


def _accepted(count: int) -> bytes:
    return b'{"success": true}'


def _refused(status: int, reason: str, index: int | None) -> bytes:
    answer: dict[str, Any] = {"success": False, "error": reason}
    if index is not None:
        answer["index"] = index
    return msgspec.json.encode(answer)


@dataclass(frozen=True, slots=True)
class Door:
    """One family's paths, served with and without a trailing slash; `accepted` gives the body of its 200, `refused` that of any other status."""

    name: str
    paths: tuple[str, ...]
    open: Callable[[Incoming], Opened]
    methods: tuple[str, ...] = ("POST",)
    accepted: Callable[[int], bytes] = _accepted
    refused: Callable[[int, str, int | None], bytes] = _refused
    media_type: str = "application/json"


def _open_segment(incoming: Incoming) -> Opened:
    call = incoming.url_path.rstrip("/").rpartition("/")[2]
    envelope = segment.open_envelope(call, incoming.body)
    return Opened(envelope.write_key, lambda at, limits: segment.read_events(envelope, at, limits))


SEGMENT = Door(
    name="segment",
    paths=tuple(f"/v1/{call}" for call in (*segment.BATCHES, *segment.CALLS)),
    open=_open_segment,
)

DOORS: tuple[Door, ...] = (SEGMENT,)
