"""The loop of all feeds: take the feed, read a round page by page, deliver, and only then move the cursor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from services.gateway import metrics
from services.gateway.canonical import Record
from services.gateway.pollers.base import Ask, Feed, Page, Stale, Step, Torn, Trouble
from services.gateway.pollers.store import Cursor
from services.gateway.pollers.translate import identity, records_of
from services.gateway.spool import NotDurable

log = logging.getLogger(__name__)

WAITS = (1.0, 4.0, 15.0)
"""Between the tries of one call, where the tool names no time."""
PATIENCE = 60.0
"""The longest wait within a round; a longer one ends it."""
BACKOFF = (15.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""Between rounds that fail."""
LOOK_SECONDS = 5.0
PUBLISHED_AT_ONCE = 500
REMEMBERED = 300_000
"""Records of a feed that are known to be delivered, at some 150 bytes each: those of the overlap are not sent again."""


class Api(Protocol):
    def call(self, feed: Feed, ask: Ask) -> AsyncGenerator[tuple[bytes, bool], None]: ...


class Rows(Protocol):
    @property
    def lease_seconds(self) -> float: ...

    async def take(self, tool: str, feed: str) -> Cursor | None: ...

    async def renew(self, tool: str, feed: str) -> bool: ...

    async def move(self, tool: str, feed: str, position: datetime | None, records: int, unread: int) -> bool: ...

    async def succeed(self, tool: str, feed: str, again_in: float) -> None: ...

    async def fail(self, tool: str, feed: str, again_in: float, error: str) -> None: ...

    async def release(self, tool: str, feed: str) -> None: ...

    async def position(self, tool: str, feed: str) -> datetime | None: ...


class Lost(Exception):
    """Somebody else has the feed by now."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a feed is read; `since` is where its first round begins."""

    every: float
    overlap: timedelta
    since: datetime | None = None


class Memory:
    """The last records that were delivered, so that the overlap costs reading and not sending."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._known: dict[bytes, None] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def add(self, keys: Sequence[bytes]) -> None:
        self._known.update(dict.fromkeys(keys))
        for key in list(_first(self._known, len(self._known) - self._most)):
            del self._known[key]


def _first(known: dict[bytes, None], count: int) -> Iterator[bytes]:
    return (key for _, key in zip(range(count), known, strict=False))


@dataclass(slots=True)
class _Counts:
    records: int = 0
    unread: int = 0


class Poller:
    """One feed, as often as its plan says."""

    def __init__(
        self,
        feed: Feed,
        api: Api,
        cursors: Rows,
        publish: Callable[[list[Record]], Awaitable[None]],
        plan: Plan,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._feed, self._api, self._cursors, self._publish, self._plan = feed, api, cursors, publish, plan
        self._sleep, self._spread = sleep, spread
        self._name = (feed.tool, feed.name)
        self._memory = Memory()
        self._counts = _Counts()

    async def run(self) -> None:
        """Until cancelled; nothing that goes wrong ends it."""
        while True:
            try:
                await self.once()
                await self._show_lag()
            except Exception as error:
                log.warning("a feed cannot be polled now", extra=self._about(error=type(error).__name__))
            await self._sleep(min(self._plan.every, LOOK_SECONDS))

    async def once(self) -> bool:
        """Read a round, if the feed is due and free; whether it was."""
        cursor = await self._cursors.take(*self._name)
        if cursor is None:
            return False
        beating = asyncio.create_task(self._beat())
        try:
            await self._round(cursor)
        except Lost:
            log.warning("a feed was taken over by another gateway", extra=self._about())
        except Stale:
            await self._cursors.fail(*self._name, 0.0, "the tool has forgotten the place in its list; read on")
        except Trouble as trouble:
            again = max(trouble.after or 0.0, self._backoff(cursor.failures))
            log.warning("a feed failed", extra=self._about(kind=trouble.kind, error=str(trouble), again_in=again))
            await self._cursors.fail(*self._name, again, str(trouble))
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await self._cursors.release(*self._name)
            raise
        else:
            await self._cursors.succeed(*self._name, self._plan.every)
        finally:
            beating.cancel()
        return True

    async def _round(self, cursor: Cursor) -> None:
        until = cursor.now - self._feed.settle
        if cursor.position is not None:
            start = cursor.position - self._plan.overlap
        else:
            start = self._plan.since or self._feed.begins(cursor.now)
        step = self._feed.first(start, until) if start < until else None
        while step is not None:
            step = await self._step(step)

    async def _step(self, step: Step) -> Step | None:
        """One call, tried again a few times; gives the next one."""
        for wait in (*WAITS, None):
            try:
                return await self._read(step)
            except (Trouble, Torn, NotDurable) as error:
                trouble = error if isinstance(error, Trouble) else Trouble("failed", str(error))
                metrics.POLL_TROUBLES.labels(*self._name, "torn" if isinstance(error, Torn) else trouble.kind).inc()
                pause = trouble.after if trouble.after is not None else wait
                if wait is None or pause is None or pause > PATIENCE or trouble.kind == "refused":
                    raise trouble from None
                await self._sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def _read(self, step: Step) -> Step | None:
        page: Page | None = None
        async with aclosing(self._api.call(self._feed, self._feed.ask(step))) as parts:
            async for body, is_last in parts:
                page, records = await asyncio.to_thread(self._translate, step, body, is_last)
                await self._deliver(records)
                if is_last:
                    break
            else:
                raise Torn("the answer has no end")
        assert page is not None
        counts, self._counts = self._counts, _Counts()
        if not await self._cursors.move(*self._name, page.reached, counts.records, counts.unread):
            raise Lost
        return page.next

    def _translate(self, step: Step, body: bytes, is_last: bool) -> tuple[Page, list[tuple[Record, bytes, bool]]]:
        """A page, and its records that were not delivered yet: with identity, and whether they are unread ones."""
        page = self._feed.read(step, body, is_last=is_last)
        found: list[tuple[Record, bytes, bool]] = []
        for reading in page.readings:
            records, unread = records_of(self._feed, reading)
            last = len(records) - 1
            found += [(one, identity(one), unread is not None and n == last) for n, one in enumerate(records)]
        return page, found

    async def _deliver(self, found: Sequence[tuple[Record, bytes, bool]]) -> None:
        new = {key: (record, unread) for record, key, unread in found if key not in self._memory}
        metrics.POLLED.labels(*self._name, "repeated").inc(len(found) - len(new))
        keys = list(new)
        for start in range(0, len(keys), PUBLISHED_AT_ONCE):
            some = keys[start : start + PUBLISHED_AT_ONCE]
            await self._publish([new[key][0] for key in some])
            self._memory.add(some)
            unread = sum(new[key][1] for key in some)
            metrics.POLLED.labels(*self._name, "sent").inc(len(some) - unread)
            metrics.POLLED.labels(*self._name, "unread").inc(unread)
            self._counts.records += len(some)
            self._counts.unread += unread

    async def _beat(self) -> None:
        """Keep the feed while the round goes on; who has lost it finds out when the cursor is to move."""
        while True:
            await asyncio.sleep(self._cursors.lease_seconds / 3)
            try:
                if not await self._cursors.renew(*self._name):
                    return
            except Exception as error:
                log.debug("a lease could not be renewed", extra=self._about(error=type(error).__name__))

    async def _show_lag(self) -> None:
        position = await self._cursors.position(*self._name)
        if position is not None:
            lag = (datetime.now(position.tzinfo) - position).total_seconds()
            metrics.POLL_LAG_SECONDS.labels(*self._name).set(max(0.0, lag))

    def _backoff(self, failures: int) -> float:
        longest = BACKOFF[min(failures, len(BACKOFF) - 1)]
        return longest * (0.5 + self._spread() / 2)

    def _about(self, **more: object) -> dict[str, object]:
        return {"tool": self._feed.tool, "feed": self._feed.name, **more}
