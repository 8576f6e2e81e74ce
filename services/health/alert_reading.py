"""What the command line reads of alerts: as they were told, with what people did about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from services.health.rules import SEVERITIES
from shared.db import Connection
from shared.errors import Misconfigured
from shared.times import instant

Row = dict[str, Any]

ALERTS = """
    select alert_id, account_id, rule, cause, kind, severity, title, why, next_step, evidence::text, baseline,
           config_hash, opened_at, case when resolved_at <= $1 then resolved_at end as resolved_at
      from health_api.alerts_v1
     where opened_at <= $1 and ($2::timestamptz is null or opened_at >= $2)
"""
LOG = """
    select alert_id, told_at, what, data::text
      from health_api.alert_log_v1
     where told_at <= $1
     order by alert_id, told_at, cause, what
"""


async def export_alerts(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """Alerts as they stood at T; `since` leaves out those opened before it, `by: rule` counts them per rule."""
    by = options.get("by")
    if by not in (None, "rule"):
        raise Misconfigured(f"alerts cannot be cut by {by!r}; it takes --by rule")
    rows = [dict(row) for db in dbs for row in await db.fetch(ALERTS, as_of, options.get("since"))]
    logs: dict[str, list[tuple[datetime, str, Mapping[str, Any]]]] = {}
    for db in dbs:
        for alert_id, at, what, said in await db.fetch(LOG, as_of):
            logs.setdefault(alert_id, []).append((at, what, msgspec.json.decode(said)))
    found = [_row(row, logs.get(row["alert_id"], ())) for row in rows]
    ordered = sorted(found, key=lambda row: (row["account_id"], row["opened_at"], row["alert_id"]))
    return per_rule(ordered) if by else ordered


def _row(row: Row, log: Sequence[tuple[datetime, str, Mapping[str, Any]]]) -> Row:
    row["service"] = "health"
    row["evidence"] = msgspec.json.decode(row["evidence"])
    row["state"] = "resolved" if row["resolved_at"] else "open"
    row["opened_at"] = instant(row["opened_at"])
    row["resolved_at"] = None if row["resolved_at"] is None else instant(row["resolved_at"])
    return row | became(row["severity"], log)


def became(severity: str, log: Iterable[tuple[datetime, str, Mapping[str, Any]]]) -> Row:
    """What an alert's log (time, what, data), oldest first, says of it besides its opening and end."""
    row: Row = {
        "severity": severity,
        "opened_severity": severity,
        "acknowledged_at": None,
        "acknowledged_by": None,
        "snoozed_at": None,
        "snoozed_until": None,
        "resolved_by": None,
        "useful": None,
        "verdict": None,
    }
    for at, what, said in log:
        match what:
            case "escalated":
                row |= {"severity": said["severity"], "snoozed_at": None, "snoozed_until": None}
            case "reminded":
                row |= {"snoozed_at": None, "snoozed_until": None}
            case "acknowledged":
                row |= {"acknowledged_at": instant(at), "acknowledged_by": said.get("by")}
            case "snoozed":
                row |= {"snoozed_at": instant(at), "snoozed_until": said.get("until")}
            case "rated":
                row |= {"useful": said.get("useful"), "verdict": said.get("verdict")}
            case "resolved":
                row["resolved_by"] = said.get("by")
    return row


def per_rule(rows: Iterable[Row]) -> list[Row]:
    """How many alerts each rule told and how many of those that were rated were of use; baselines apart."""
    found: dict[str, Row] = {}
    for row in rows:
        one = found.setdefault(
            row["rule"],
            {"rule": row["rule"], "kind": row["kind"], "opened": 0, "baseline": 0, "open": 0, "critical": 0,
             "acknowledged": 0, "closed_by_hand": 0, "rated": 0, "useful": 0},
        )  # fmt: skip
        if row["baseline"]:
            one["baseline"] += 1
            continue
        one["opened"] += 1
        one["open"] += row["state"] == "open"
        one["critical"] += row["severity"] == SEVERITIES[-1]
        one["acknowledged"] += row["acknowledged_at"] is not None
        one["closed_by_hand"] += row["resolved_by"] is not None
        one["rated"] += row["useful"] is not None
        one["useful"] += row["useful"] is True
    for one in found.values():
        one["useful_pct"] = round(100 * one["useful"] / one["rated"], 6) if one["rated"] else None
    return [found[name] for name in sorted(found)]
