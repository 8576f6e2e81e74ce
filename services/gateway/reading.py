"""What the command line reads of the gateway: every request that was made, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from shared.db import Connection
from shared.times import instant

# An answer carries the time its request was received; a request answered without the gateway has an answer alone.
LIST_REQUESTS = """
    select id, demand, account_id, received_at from gateway_api.requests_v1
     where $1::timestamptz is null or received_at >= $1
"""
LIST_ANSWERS = """
    select request_id as id, status, demand, account_id, confidence, as_of, reason, received_at
      from gateway_api.answers_v1
     where $1::timestamptz is null or received_at >= $1
"""


async def export_requests(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per request received from `since` on, pending ones included, in the order they came.

    Requests are made in our time, not in the customers': `as_of`, which history may set back, does not cut them.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for db in dbs:
        for row in await db.fetch(LIST_REQUESTS, options.get("since")):
            found.setdefault(row["id"], dict(row))
    for db in dbs:
        for row in await db.fetch(LIST_ANSWERS, options.get("since")):
            asked = found.get(row["id"], {})
            found[row["id"]] = {**row, "received_at": asked.get("received_at", row["received_at"])}
    return [_row(row) for row in sorted(found.values(), key=lambda row: (row["received_at"], row["id"]))]


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    as_of = row.get("as_of")
    return {
        "id": row["id"],
        "status": row.get("status", "pending"),
        "demand": row["demand"],
        "account_id": row["account_id"],
        "confidence": row.get("confidence"),
        "as_of": instant(as_of) if as_of else None,
        "reason": row.get("reason"),
        "received_at": instant(row["received_at"]),
    }


EXPORTS = {"requests": export_requests}
