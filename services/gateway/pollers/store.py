"""The cursors' SQL: one row per feed in the control database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.gateway.store import Database

KNOW = "insert into gateway.polls (tool, feed) values ($1, $2) on conflict do nothing"
# A lease that ran out is anybody's; the row's own time decides, so that clocks of machines do not matter.
TAKE = """
    update gateway.polls
       set holder = $3, leased_until = now() + make_interval(secs => $4)
     where tool = $1 and feed = $2 and due_at <= now()
       and (holder is null or holder = $3 or leased_until < now())
 returning position, failures, now() as now
"""
RENEW = """
    update gateway.polls set leased_until = now() + make_interval(secs => $4)
     where tool = $1 and feed = $2 and holder = $3
 returning 1
"""
MOVE = """
    update gateway.polls
       set position = greatest(position, $4), records = records + $5, unread = unread + $6
     where tool = $1 and feed = $2 and holder = $3
 returning 1
"""
SUCCEED = """
    update gateway.polls
       set holder = null, leased_until = null, due_at = now() + make_interval(secs => $4),
           succeeded_at = now(), failures = 0, error = null, error_at = null
     where tool = $1 and feed = $2 and holder = $3
"""
FAIL = """
    update gateway.polls
       set holder = null, leased_until = null, due_at = now() + make_interval(secs => $4),
           failures = failures + 1, error = $5, error_at = now()
     where tool = $1 and feed = $2 and holder = $3
"""
RELEASE = """
    update gateway.polls set holder = null, leased_until = null where tool = $1 and feed = $2 and holder = $3
"""
LOOK = "select position from gateway.polls where tool = $1 and feed = $2"
LIST = """
    select tool, feed, position, succeeded_at, failures, error, error_at, records, unread, due_at, now() as now,
           case when leased_until >= now() then holder end as holder
      from gateway.polls
     order by tool, feed
"""
REWIND = """
    insert into gateway.polls as known (tool, feed, position) values ($1, $2, $3)
        on conflict (tool, feed) do update
       set position = excluded.position, holder = null, leased_until = null, due_at = now(), failures = 0
 returning tool
"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A feed that is ours to read: all before `position` is delivered; `now` is the database's."""

    position: datetime | None
    failures: int
    now: datetime


class Cursors:
    """The rows as the loop uses them, in the name of one process."""

    def __init__(self, db: Database, holder: str, lease_seconds: float = 60.0) -> None:
        self._db, self._holder, self.lease_seconds = db, holder, lease_seconds
        self._known: set[tuple[str, str]] = set()

    async def take(self, tool: str, feed: str) -> Cursor | None:
        """Take the feed if it is due and nobody reads it."""
        if (tool, feed) not in self._known:
            await self._db.execute(KNOW, tool, feed)
            self._known.add((tool, feed))
        row = await self._db.fetchrow(TAKE, tool, feed, self._holder, self.lease_seconds)
        return Cursor(row["position"], row["failures"], row["now"]) if row is not None else None

    async def renew(self, tool: str, feed: str) -> bool:
        """Keep the feed; False if it is another's by now."""
        return await self._db.fetchval(RENEW, tool, feed, self._holder, self.lease_seconds) is not None

    async def move(self, tool: str, feed: str, position: datetime | None, records: int, unread: int) -> bool:
        """Write down what was delivered; False if the feed is another's by now."""
        return await self._db.fetchval(MOVE, tool, feed, self._holder, position, records, unread) is not None

    async def succeed(self, tool: str, feed: str, again_in: float) -> None:
        await self._db.execute(SUCCEED, tool, feed, self._holder, again_in)

    async def fail(self, tool: str, feed: str, again_in: float, error: str) -> None:
        await self._db.execute(FAIL, tool, feed, self._holder, again_in, error[:500])

    async def release(self, tool: str, feed: str) -> None:
        await self._db.execute(RELEASE, tool, feed, self._holder)

    async def position(self, tool: str, feed: str) -> datetime | None:
        found: datetime | None = await self._db.fetchval(LOOK, tool, feed)
        return found


async def list_polls(db: Database) -> list[Mapping[str, Any]]:
    return list(await db.fetch(LIST))


async def rewind(db: Database, tool: str, feed: str, position: datetime) -> None:
    """Have a feed read again from a time on; a round that runs now stops at its next page."""
    await db.fetchval(REWIND, tool, feed, position)
