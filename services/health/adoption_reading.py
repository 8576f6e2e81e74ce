"""Exports of feature adoption and of time to value, from the facts as of any T."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from services.health import adoption, facts
from services.health.adoption import Adoption, Road
from services.health.facts import Facts
from services.health.policy import load_policy
from services.health.store import unsigned
from services.health.usage import Usage, hash_of
from shared.db import Connection
from shared.errors import Misconfigured
from shared.times import instant

Row = dict[str, Any]
FEATURES = "select hash, word from health_api.words_v1 where kind = 'feature'"
CUTS = ("account", "segment", "cohort")


async def adoption_rows(dbs: Sequence[Connection], known: Sequence[Facts], as_of: datetime) -> list[Row]:
    """One row per UTC month and feature, by all accounts' use up to T."""
    names = {unsigned(row[0]): row[1] for db in dbs for row in await db.fetch(FEATURES)}
    found = Adoption()
    for one in known:
        features = facts.picture(one, as_of).entitled_features if _has_entitlements(one) else frozenset()
        found.add(Usage.until(one.usage, as_of), frozenset(hash_of(name) for name in features))
    running = as_of.astimezone(UTC).strftime("%Y-%m")
    rows = []
    for (month, feature), taken in found.features.items():
        if feature not in names and not taken.events:
            continue
        name, active = adoption.month_name(month), found.active[month]
        rows.append(
            {
                "month": name,
                "feature": names.get(feature),
                "events": taken.events,
                "users": taken.users,
                "accounts": taken.accounts,
                "accounts_active": active,
                "adoption": round(taken.accounts / active, 6),
                "accounts_entitled": taken.entitled or None,
                "adoption_of_entitled": round(taken.entitled_using / taken.entitled, 6) if taken.entitled else None,
                "complete": name < running,
            }
        )
    return sorted(rows, key=lambda row: (row["month"], row["feature"] or ""))


def _has_entitlements(known: Facts) -> bool:
    return any(kind == "entitlement" for kind, _ in known.things)


def time_to_value_rows(known: Sequence[Facts], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """One row over all customers; by segment and cohort (month of the start) one of each; by account the roads."""
    cut = options.get("by")
    if cut is not None and cut not in CUTS:
        raise Misconfigured(f"time_to_value cannot be cut by {cut!r}; it takes --by {', '.join(CUTS)}")
    first_value = load_policy(model=options.get("config")).model.first_value
    roads = [road for one in known if (road := adoption.road(one, facts.picture(one, as_of), first_value)) is not None]
    if cut == "account":
        return [_road(road) for road in roads]
    if cut is None:
        return [_times("all", roads)]
    labels = {
        road.account_id: label
        for road in roads
        if (label := road.segment if cut == "segment" else f"{road.start_at:%Y-%m}")
    }
    return [_times(label, listed) for label, listed in adoption.by_label(roads, labels).items()]


def _times(scope: str, roads: Sequence[Road]) -> Row:
    times = asdict(adoption.times_to_value(roads))
    for name in ("median_days", "quartile_days"):
        times[name] = None if times[name] is None else round(times[name], 6)
    open_share = round(times["still_open"] / times["n"], 6) if times["n"] else None
    return {"scope": scope, **times, "open_share": open_share, "method": "Kaplan-Meier"}


def _road(road: Road) -> Row:
    return {
        "account_id": road.account_id,
        "start_at": instant(road.start_at),
        "start_from": road.start_from,
        "first_value_at": None if road.value_at is None else instant(road.value_at),
        "days": round(road.days, 6),
        "open": road.value_at is None,
        "segment": road.segment,
    }
