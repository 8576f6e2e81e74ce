"""What a message can be handed to, and what can come of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from services.notify.blocks import Message
from services.notify.card import Card


@dataclass(frozen=True, slots=True)
class Outcome:
    """`refused`: surely not posted, try again (`after` seconds); `failed`: never will be; `unclear`: nobody knows."""

    what: Literal["sent", "refused", "failed", "unclear", "missing"]
    reason: str = ""
    channel: str | None = None
    ts: str | None = None
    thread_ts: str | None = None
    after: float | None = None
    gone: bool = False
    """The far end said that it wants no more."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One delivery, addressed: `cards` are what it is about, `message` how Slack shows it."""

    delivery_id: str
    what: str
    address: str
    channel: str | None
    message: Message
    cards: tuple[Card, ...]
    thread_ts: str | None = None
    ts: str | None = None
    attempted_at: datetime | None = None


class Sink(Protocol):
    """A way out. `updates`: what was posted can be changed; `looks_up`: one can ask whether something was posted."""

    name: str
    updates: bool
    looks_up: bool
    is_machine: bool
    paced: bool

    async def post(self, letter: Letter) -> Outcome: ...

    async def update(self, letter: Letter) -> Outcome: ...

    async def look_up(self, letter: Letter) -> Outcome:
        """Answers `sent` when it is there, `missing` when it surely is not."""
        ...

    async def close(self) -> None: ...


Json = dict[str, Any]
