"""What the command line reads of notify: the ledger, and the standing of places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.notify import outreach_store, store
from shared.db import Connection
from shared.times import instant

DELIVERIES = """
    select delivery_id, destination, what, alert_id, account_id, state, mode, reason, digest_id, created_at, sent_at,
           attempts, found_later
      from notify_api.deliveries_v1
     where created_at <= $1 and ($2::timestamptz is null or created_at >= $2)
     order by created_at, delivery_id
"""


WRITES = """
    select destination, account_id, score, band, why, computed_at, state, reason, due_at, attempts, sent_at
      from notify_api.writes_v1 order by destination, account_id
"""


OUTREACH = """
    select delivery_id, destination, cause, alert_id, account_id, contact_id, state, reason, called_at, due_at,
           attempts, sent_at
      from notify_api.outreach_v1
     where called_at <= $1 and ($2::timestamptz is null or called_at >= $2)
     order by called_at, delivery_id
"""


async def export_deliveries(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per line of the ledger that was there at `as_of` (from `since` on), as it stands now."""
    rows = await _fetch(dbs[0], DELIVERIES, as_of, options.get("since"))
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


async def export_writes(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per destination and account whose score is written back, as it stands now."""
    rows = await _fetch(dbs[0], WRITES)
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


async def export_outreach(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per message to a person at a customer that was called for by `as_of` (from `since` on), as it stands."""
    rows = await _fetch(dbs[0], OUTREACH, as_of, options.get("since"))
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


async def standing(db: Connection) -> list[dict[str, Any]]:
    """Each place with its deliveries by state, and why it waits."""
    counts: dict[str, dict[str, int]] = {}
    of_all = (store.COUNTS, store.COUNT_WRITES, outreach_store.COUNT)
    for row in [row for one in of_all for row in await _fetch(db, one)]:
        counts.setdefault(row["destination"], {})[row["state"]] = row["n"]
    places = {row["destination"]: row for row in await _fetch(db, store.STANDING)}
    found = []
    for name in sorted({*counts, *places}):
        place = places.get(name)
        said = {"next_at": _plain(place["next_at"]), "failing_since": _plain(place["failing_since"]),
                "reason": place["reason"], "disabled_at": _plain(place["disabled_at"])} if place else {}  # fmt: skip
        found.append({"destination": name, "deliveries": counts.get(name, {}), **said})
    return found


async def _fetch(db: Connection, query: str, *arguments: Any) -> list[Any]:
    try:
        return list(await db.fetch(query, *arguments))
    except asyncpg.UndefinedTableError:  # a database of before there was notify
        return []


def _plain(value: Any) -> Any:
    return instant(value) if isinstance(value, datetime) else value


EXPORTS = {"deliveries": export_deliveries, "writes": export_writes, "outreach": export_outreach}
