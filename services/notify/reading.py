"""What the command line reads of notify: the ledger, the standing of places, and how useful alerts were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.notify import store
from shared.db import Connection
from shared.times import instant

DELIVERIES = """
    select delivery_id, destination, what, alert_id, account_id, state, mode, reason, digest_id, created_at, sent_at,
           attempts, found_later
      from notify_api.deliveries_v1
     where created_at <= $1 and ($2::timestamptz is null or created_at >= $2)
     order by created_at, delivery_id
"""
TOLD = """
    select e.rule, count(distinct d.alert_id) as told
      from notify.deliveries d join notify.episodes e using (alert_id)
     where (d.state = 'sent' or d.digest_id is not null) and d.what = 'open' and d.created_at <= $1 group by e.rule
"""
RATED = """
    select rule, count(*) as rated, count(*) filter (where useful) as useful from (
        select distinct on (alert_id, who) rule, useful from notify_api.ratings_v1 where at <= $1
         order by alert_id, who, at desc, request_id desc) as latest
     where rule is not null group by rule
"""


async def export_deliveries(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per line of the ledger that was there at `as_of` (from `since` on), as it stands now."""
    rows = await _fetch(dbs[0], DELIVERIES, as_of, options.get("since"))
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


async def export_ratings(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Per rule: alerts told, ratings (the latest of each person and alert), and the share useful; null without any."""
    told = {row["rule"]: row["told"] for row in await _fetch(dbs[0], TOLD, as_of)}
    rated = {row["rule"]: row for row in await _fetch(dbs[0], RATED, as_of)}
    found = []
    for rule in sorted({*told, *rated}):
        row = rated.get(rule)
        n, useful = (row["rated"], row["useful"]) if row else (0, 0)
        share = round(useful / n, 6) if n else None
        reason = None if n else "nobody has rated an alert of this rule"
        found.append({"rule": rule, "told": told.get(rule, 0), "rated": n, "useful": useful, "share_useful": share,
                      "reason": reason})  # fmt: skip
    return found


async def standing(db: Connection) -> list[dict[str, Any]]:
    """Each place with its deliveries by state, and why it waits."""
    counts: dict[str, dict[str, int]] = {}
    for row in await _fetch(db, store.COUNTS):
        counts.setdefault(row["destination"], {})[row["state"]] = row["n"]
    places = {row["destination"]: row for row in await _fetch(db, store.STANDING)}
    found = []
    for name in sorted({*counts, *places}):
        place = places.get(name)
        said = {"next_at": _plain(place["next_at"]), "failing_since": _plain(place["failing_since"]),
                "reason": place["reason"]} if place else {}  # fmt: skip
        found.append({"destination": name, "deliveries": counts.get(name, {}), **said})
    return found


async def _fetch(db: Connection, query: str, *arguments: Any) -> list[Any]:
    try:
        return list(await db.fetch(query, *arguments))
    except asyncpg.UndefinedTableError:  # a database of before there was notify
        return []


def _plain(value: Any) -> Any:
    return instant(value) if isinstance(value, datetime) else value


EXPORTS = {"deliveries": export_deliveries, "alert_ratings": export_ratings}
