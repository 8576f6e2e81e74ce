"""What a backtest of the log reads: every fact of every account up to T."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from services.health import peers
from services.health.facts import Facts, Key, Mark
from services.health.store import OF_THEN
from services.health.usage import Events, from_bytes, micros
from shared.db import Connection

USAGE = f"""
    select account_id, string_agg(body, ''::bytea) as body
      from health_api.usage_v1 t
     where day <= $1 and {OF_THEN.format(at="$2::timestamptz")}
     group by account_id
"""
THINGS = f"""
    select account_id, kind, key, marks::text
      from health_api.things_v1 t
     where {OF_THEN.format(at="$1::timestamptz")}
"""

_read_marks = msgspec.json.Decoder(tuple[Mark, ...]).decode


async def read_history(dbs: Sequence[Connection], as_of: datetime) -> list[Facts]:
    """All accounts with what had happened by T, in the order of their names."""
    until = micros(as_of)
    things: dict[str, dict[Key, tuple[Mark, ...]]] = {}
    used: dict[str, tuple[Events, ...]] = {}
    for db in dbs:
        for account, kind, key, body in await db.fetch(THINGS, as_of):
            marks = tuple(mark for mark in _read_marks(body) if mark.at <= until)
            if marks:
                known = things.setdefault(account, {})
                known[kind, key] = (*known.get((kind, key), ()), *marks)
        for account, body in await db.fetch(USAGE, as_of.astimezone(UTC).date(), as_of):
            events = from_bytes(body)
            past = events[events["at"] <= until]
            if past.size:
                used[account] = (*used.get(account, ()), past)
    return peers.with_each_other(
        [Facts(account, things.get(account, {}), used.get(account, ())) for account in sorted({*things, *used})]
    )
