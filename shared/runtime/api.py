"""What a service's handlers see of the runtime: signals in, a unit of work to answer with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from shared.topics import Topic

if TYPE_CHECKING:
    from shared.runtime.unit import UnitOfWork
    from shared.settings import Settings


EVERYBODY = "*"
"""The subject of an event that concerns no account in particular (a rate, an incident): every partition has a copy."""


class Signal(msgspec.Struct, frozen=True, gc=False):
    """One event as a worker reads it; duplicates are already out.

    `type` is the short name (`usage.tracked`); `occurred_at` is the corrected time, `received_at` when
    the raw record reached the broker; `replay` marks a record of a run, which must not act outside.
    """

    topic: str
    partition: int
    offset: int
    type: str
    id: str
    source: str
    account_id: str
    data: Any
    occurred_at: datetime
    received_at: datetime
    replay: bool = False
    run: str | None = None
    demand: str | None = None
    confidence: float | None = None

    @property
    def about(self) -> str | None:
        """The account that a request is about; None asks about the whole book."""
        return None if self.account_id == self.id else self.account_id


@dataclass(frozen=True, slots=True)
class Batch:
    """Signals of one transaction, in order per partition."""

    signals: Sequence[Signal]

    def __iter__(self) -> Iterator[Signal]:
        return iter(self.signals)

    def __len__(self) -> int:
        return len(self.signals)

    @property
    def account_ids(self) -> set[str]:
        return {signal.account_id for signal in self.signals}


Handle = Callable[[Batch, "UnitOfWork"], Awaitable[None]]
Tick = Callable[[Mapping[int, datetime], int, "UnitOfWork"], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Worker:
    """A service as the runtime runs it.

    `handle` applies one batch inside the unit's transaction. `tick` moves at most `limit` accounts whose
    time has come in the given partitions (partition → clock) past that clock, and returns how many.
    `fast` holds decoders for hot event types (wire type → bytes to data); others go through pydantic.
    """

    name: str
    reads: tuple[Topic, ...]
    writes: tuple[Topic, ...]
    handle: Handle
    migrations: Path
    tick: Tick | None = None
    fast: Mapping[str, Callable[[bytes], Any]] = field(default_factory=dict)
    read: Callable[[Any], Any] | None = None
    """A reader of its own kind of records instead of the routed ones' (the router's)."""
    dedupe: bool = True
    counts_applied: bool = True
    """False: the handler itself counts what became of each signal."""
    ticks_before_clock: bool = False
    control_only: bool = False
    """Its state lives in the control database, however many others there are."""
    beside: Callable[[Settings], Coroutine[Any, Any, None]] | None = None
    """A task of its own in the same process, from start to end (notify's deliveries); cancelled when told to stop."""
    parked: str | None = None
    """A query of the control database that counts what waits for its account (the router's)."""
