"""What a poller's adapter is given and what it gives back; nothing here touches the world.

A feed is read in windows of the tool's own time. A `Step` is one call: a window, and where in the tool's list of it.
The cursor is a time up to which everything was delivered; a round reads from a little before it, so what is read
twice has the same id and own time, and counts once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

import msgspec

from services.gateway.canonical import Canonical, Refused
from services.gateway.webhooks.base import Unreadable

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""Before any record that a tool may hold."""


class Torn(Exception):
    """An answer that is not whole, or not what the tool documents: the same is asked again."""


class Stale(Exception):
    """The place in the tool's list is not known any more: read on from the cursor."""


class Trouble(Exception):
    """The tool gives nothing now. `after`: when to ask again, in seconds, if it says so."""

    def __init__(
        self, kind: Literal["throttled", "refused", "failed"], reason: str, after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.kind, self.after = kind, after


@dataclass(frozen=True, slots=True)
class Step:
    """One call: the window `start` ≤ time < `end`, the round's end `until`, and the place in the window's list."""

    start: datetime
    end: datetime
    until: datetime
    place: Mapping[str, Any] = field(default_factory=dict)

    def at(self, **place: Any) -> Step:
        return replace(self, place=place)

    def after(self, width: timedelta) -> Step | None:
        """The window that follows, `width` long at most; None at the end of the round."""
        if self.end >= self.until:
            return None
        return Step(self.end, min(self.end + width, self.until), self.until)


@dataclass(frozen=True, slots=True)
class Ask:
    """A call to the tool's API; `is_lines`: the answer is NDJSON of any length, read in parts."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    is_lines: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One record of the tool, as it came, what it became, and why it or a part of it could not be read."""

    body: bytes
    events: tuple[Canonical, ...] = ()
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """An answer, or a part of one. `reached`: all before it is delivered once this and the pages before it are."""

    readings: tuple[Reading, ...] = ()
    next: Step | None = None
    reached: datetime | None = None


class Feed(ABC):
    """One list of a tool."""

    tool: ClassVar[str]
    name: str
    history_days: int | None = None
    """How far back the first round goes where nobody says; None: to the beginning."""
    settle: ClassVar[timedelta] = timedelta()
    """How long the tool may take until its list holds a change: a round ends so long before now."""

    @abstractmethod
    def first(self, start: datetime, until: datetime) -> Step:
        """The first call of a round."""

    @abstractmethod
    def ask(self, step: Step) -> Ask: ...

    @abstractmethod
    def read(self, step: Step, body: bytes, *, is_last: bool) -> Page:
        """Read an answer, or with `is_lines` a part of whole lines of it.

        Raises Torn.
        """

    @abstractmethod
    def events(self, body: bytes) -> list[Canonical]:
        """What one record tells.

        Raises Unreadable or Refused.
        """

    def is_stale(self, status: int, body: bytes) -> bool:
        """Whether a refusal only says that the place in the list is gone."""
        return False

    def is_throttled(self, status: int, body: bytes) -> bool:
        """Whether a refusal with another status than 429 says that there were too many calls."""
        return False

    def begins(self, now: datetime) -> datetime:
        return BEGINNING if self.history_days is None else now - timedelta(days=self.history_days)


def readings(records: Iterable[msgspec.Raw | bytes], events: Callable[[bytes], list[Canonical]]) -> tuple[Reading, ...]:
    """Read each record on its own: one that cannot be read stops no other."""
    return tuple(reading_of(bytes(record), events) for record in records)


def reading_of(body: bytes, events: Callable[[bytes], list[Canonical]]) -> Reading:
    try:
        return Reading(body, tuple(events(body)))
    except Unreadable as unreadable:
        return Reading(body, unreadable.read, str(unreadable))
    except Refused as refused:
        return Reading(body, (), refused.reason)
    except Exception as error:  # whatever a stranger's record makes raise
        return Reading(body, (), f"the adapter failed: {type(error).__name__}")


def whole(body: bytes, shape: type[Any]) -> Any:
    """An answer in the shape that the tool documents.

    Raises Torn.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Torn(f"the answer is not what the tool documents: {str(error)[:200]}") from None


def milliseconds(at: datetime) -> int:
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))


def instant_ms(at: datetime) -> str:
    """ISO 8601 with ms and Z, as the tools' filters take it; cut, so that a window never begins too late."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def reached_by(times: Sequence[datetime], until: datetime) -> datetime | None:
    """How far a page of a list in order of time has come."""
    return min(times[-1], until) if times else None
