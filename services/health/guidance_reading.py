"""What the command line reads of recommendations: as they were told, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.health.guidance import Peers
from services.health.rules import SEVERITIES
from shared.db import Connection
from shared.errors import Misconfigured
from shared.times import instant

Row = dict[str, Any]

RECOMMENDATIONS = """
    select recommendation_id, account_id, feature, segment, peers, peers_using, share_low, unused_days, why, next_step,
           baseline, config_hash, made_at, ended_at, became, reason, ended_by, note
      from health_api.recommendations_v1
     where made_at <= $1 and ($2::timestamptz is null or made_at >= $2) and ($3::text is null or account_id = $3)
"""
ALERT_STEPS = """
    select coalesce((select l.data ->> 'severity' from health_api.alert_log_v1 l
                      where l.alert_id = a.alert_id and l.what = 'escalated' and l.told_at <= $2
                      order by l.told_at desc limit 1), a.severity), a.next_step
      from health_api.alerts_v1 a
     where a.account_id = $1 and a.opened_at <= $2 and (a.resolved_at is null or a.resolved_at > $2)
       and a.next_step is not null
     order by a.opened_at, a.alert_id
"""


async def export_recommendations(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """Recommendations as they stood at T; `since` leaves out those made before it."""
    if options.get("by") is not None:
        raise Misconfigured(f"recommendations cannot be cut by {options['by']!r}; leave --by out")
    rows = await _load(dbs, as_of, options.get("since"), None)
    return sorted(rows, key=lambda row: (row["account_id"], row["made_at"], -row["share_low"], row["feature"]))


async def open_ones(dbs: Sequence[Connection], account_id: str, as_of: datetime) -> list[Row]:
    """What was recommended to an account and still stood at T, best first."""
    rows = [row for row in await _load(dbs, as_of, None, account_id) if row["state"] == "open"]
    return sorted(rows, key=lambda row: (-row["share_low"], row["feature"]))


async def next_step(
    dbs: Sequence[Connection], account_id: str, as_of: datetime, recommended: Sequence[Row]
) -> str | None:
    """What to do first at T: about the most severe alert that was open, else the first recommendation."""
    steps = [row for db in dbs for row in await db.fetch(ALERT_STEPS, account_id, as_of)]
    if steps:
        first: str = max(steps, key=lambda row: SEVERITIES.index(row[0]))[1]
        return first
    return recommended[0]["next_step"] if recommended else None


async def _load(
    dbs: Sequence[Connection], as_of: datetime, since: datetime | None, account_id: str | None
) -> list[Row]:
    found = [row for db in dbs for row in await db.fetch(RECOMMENDATIONS, as_of, since, account_id)]
    return [_row(dict(row), as_of) for row in found]


def _row(row: Row, as_of: datetime) -> Row:
    ended = row["ended_at"]
    if ended is not None and ended > as_of:
        row |= dict.fromkeys(("ended_at", "became", "reason", "ended_by", "note"))
    became = row.pop("became")
    return {
        **row,
        "share": round(Peers(row["peers"], row["peers_using"]).share, 6),
        "share_low": round(row["share_low"], 6),
        "state": became or "open",
        "made_at": instant(row["made_at"]),
        "ended_at": None if row["ended_at"] is None else instant(row["ended_at"]),
    }
