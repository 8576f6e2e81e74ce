"""What an adapter is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from services.gateway.canonical import Canonical, MissingIds, Record, Refused, check_message, decode, record_of
from services.gateway.settings import Limits


@dataclass(frozen=True, slots=True)
class Incoming:
    """What an adapter sees of a request."""

    method: str
    body: bytes
    url_path: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    content_type: str

    @property
    def call(self) -> str:
        """The last part of the path."""
        return self.url_path.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Words:
    """How a family wants its answers: the body of its 200, given the number of events, and of any other status."""

    accepted: Callable[[int], bytes]
    refused: Callable[[int, str, int | None], bytes]
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Opened:
    """A request opened as far as its key; `read` does the rest once the key is accepted.

    `quick` gives the records of the same events, where a family has a faster way to them.
    """

    write_key: str | None
    read: Callable[[datetime, Limits], list[Canonical]]
    words: Words | None = None
    quick: Callable[[datetime, Limits], list[Record]] | None = None

    def records(self, received_at: datetime, limits: Limits) -> list[Record]:
        if self.quick is not None:
            return self.quick(received_at, limits)
        return [record_of(event) for event in self.read(received_at, limits)]


@dataclass(frozen=True, slots=True)
class Door:
    """One family's paths. `password` tells that its key is the password of Basic authentication, not the user."""

    name: str
    paths: tuple[str, ...]
    open: Callable[[Incoming], Opened]
    words: Words
    methods: tuple[str, ...] = ("POST",)
    password: bool = False


def error_of(reason: str, index: int | None) -> dict[str, Any]:
    return {"error": reason} if index is None else {"error": reason, "index": index}


SEGMENT_WORDS = Words(
    accepted=lambda count: b'{"success": true}',
    refused=lambda status, reason, index: msgspec.json.encode({"success": False, **error_of(reason, index)}),
)


Translate = Callable[[dict[str, Any], MissingIds], Canonical]


def read_each(messages: list[msgspec.Raw], limits: Limits, translate: Translate) -> list[Canonical]:
    """Translate all messages or none.

    Raises Refused with the index of the message that is at fault.
    """
    if len(messages) > limits.batch_events:
        raise Refused(
            f"the call has {len(messages)} events; at most {limits.batch_events}: send several",
            status=413,
            index=limits.batch_events,
        )
    ids = MissingIds()
    events = []
    for index, raw in enumerate(messages):
        try:
            check_message(raw, limits)
            message = decode(raw)
            if not isinstance(message, dict):
                raise Refused("the event is not a JSON object")
            events.append(translate(message, ids))
        except Refused as refused:
            raise refused.at(index) from None
    return events


def text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
