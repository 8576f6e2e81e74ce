"""What the command line reads of the whole book's counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from services.health import tracking
from services.health.facts import Facts
from services.health.incidents import Hours
from services.health.store import read_breaks, unsigned
from services.health.tracking import Break, Day
from services.health.usage import joined
from shared.db import Connection

BREAKS = "select told_at, breaks::text from health_api.breaks_v1 order by told_at desc limit 1"
HEARD = "select source, used, day, hours from health_api.heard_v1"
FEATURES = "select hash, word from health_api.words_v1 where kind = 'feature'"
Counts = tuple[Mapping[date, Day], Hours]


async def load_breaks(dbs: Sequence[Connection]) -> tuple[Break, ...]:
    """Where data broke on the way, as it was told last."""
    rows = [row for db in dbs if (row := await db.fetchrow(BREAKS)) is not None]
    return read_breaks(max(rows, key=lambda row: row["told_at"])["breaks"]) if rows else ()


async def count_book(dbs: Sequence[Connection], book: Sequence[Facts]) -> Counts:
    """Accounts per day and feature by everything that is known, and when sources sent live."""
    names = {unsigned(row[0]): row[1] for db in dbs for row in await db.fetch(FEATURES)}
    days = {
        day: Day(active, {names[feature]: n for feature, n in features.items() if feature in names})
        for day, (active, features) in tracking.count(joined(one.usage) for one in book).items()
    }
    hours: dict[tuple[str, bool], list[tuple[date, int]]] = {}
    for db in dbs:
        for source, used, day, mask in await db.fetch(HEARD):
            hours.setdefault((source, used), []).append((day, mask))
    return days, hours
