"""What the command line reads of the whole book's counts."""

from __future__ import annotations

from collections.abc import Sequence

from services.health.store import read_breaks
from services.health.tracking import Break
from shared.db import Connection

BREAKS = "select told_at, breaks::text from health_api.breaks_v1 order by told_at desc limit 1"


async def load_breaks(dbs: Sequence[Connection]) -> tuple[Break, ...]:
    """Where data broke on the way, as it was told last."""
    rows = [row for db in dbs if (row := await db.fetchrow(BREAKS)) is not None]
    return read_breaks(max(rows, key=lambda row: row["told_at"])["breaks"]) if rows else ()
