"""What became of every record: the figures of `hune status`, from the services' own lock rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from cli import flight
from cli.flight import Flight, PartitionState, State
from cli.offsets import Offsets
from cli.support import Stores, load_installation, open_databases
from shared import db
from shared.times import instant

ROUTER_OUTCOMES = ("routed", "parked", "quarantined", "excluded", "unclear", "unrouted")
WORKER_OUTCOMES = ("applied", "ignored", "duplicate", "quarantined", "suppressed")

COUNT_PARKED = "select reason, count(*) as n from router.parked group by reason"
COUNT_QUARANTINED = "select service, count(*) as n from hune.quarantine where state <> 'applied' group by service"


async def snapshot(stores: Stores) -> dict[str, Any]:
    """in_flight, clock, accounting, lag, parked and quarantined; without Kafka `in_flight` and `lag` are null."""
    async with open_databases(stores) as databases:
        control = databases[0]
        partitions = (await load_installation(control)).partitions
        state = await flight.load_state(databases)
        now = None
        if stores.bootstrap_servers:
            async with Offsets(stores.bootstrap_servers) as offsets:
                now = await flight.measure(state, offsets, partitions, stores.home)
        return {
            "in_flight": now.total if now else None,
            "clock": clock_of(state, await control.fetchval("select now()")),
            "accounting": accounts_of(state.partitions),
            "lag": _lag(now, state),
            "parked": await _parked(control),
            "quarantined": await _quarantined(databases, state.services),
        }


def accounts_of(partitions: Iterable[PartitionState]) -> dict[str, dict[str, Any]]:
    """Sum the outcomes per service; `balanced`: what was read adds up to what became of it."""
    counts: dict[str, Counter[str]] = {}
    for row in partitions:
        total = counts.setdefault(row.service, Counter())
        for outcome, n in row.counts.items():
            total[outcome] += n
    order = sorted(counts, key=lambda service: (service != "router", service))
    return {service: account(service, counts[service]) for service in order}


def account(service: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """One service's account; `outcome:reason` is counted in the outcome and shown beside it by reason."""
    outcomes = ROUTER_OUTCOMES if service == "router" else WORKER_OUTCOMES
    total: Counter[str] = Counter()
    reasons: dict[str, dict[str, int]] = {}
    for name, n in sorted(counts.items()):
        outcome, colon, reason = name.partition(":")
        total[outcome] += n
        if colon and n:
            reasons.setdefault(outcome, {})[reason] = n
    result: dict[str, Any] = {"read": total.pop("read", 0)}
    result |= {outcome: total.pop(outcome, 0) for outcome in outcomes}
    result |= dict(sorted(total.items()))
    result["balanced"] = result["read"] == sum(result[outcome] for outcome in (*outcomes, *total))
    return result | {f"{outcome}_reasons": named for outcome, named in reasons.items()}


def clock_of(state: State, now: datetime) -> dict[str, Any]:
    """Live: PostgreSQL's time. Historical: how far the runs have brought time; null before one has ended."""
    if any(row.live for row in state.partitions):
        return {"mode": "live", "at": instant(now)}
    clocks = [row.clock for row in state.partitions if row.clock is not None]
    return {"mode": "historical", "at": instant(max(clocks)) if clocks else None}


def _lag(now: Flight | None, state: State) -> dict[str, int] | None:
    return now.lag(state.services) if now else None


async def _parked(control: db.Connection) -> dict[str, int]:
    try:
        return {row["reason"]: row["n"] for row in await control.fetch(COUNT_PARKED)}
    except asyncpg.UndefinedTableError:  # a router that has never started has parked nothing
        return {}


async def _quarantined(databases: Sequence[db.Connection], services: Sequence[str]) -> dict[str, int]:
    total: Counter[str] = Counter(dict.fromkeys(services, 0))
    for database in databases:
        total.update({row["service"]: row["n"] for row in await database.fetch(COUNT_QUARANTINED)})
    return dict(sorted(total.items()))
