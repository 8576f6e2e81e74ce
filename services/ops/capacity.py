"""How loaded each person is against the accounts per CSM of each tier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.ops.settings import SegmentRules
from shared.team import Team

QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Held:
    """One account as somebody holds it."""

    account_id: str
    tier: str | None
    coverage: str | None
    person_id: str | None


def capacity(held: Iterable[Held], team: Team, rules: SegmentRules, at: datetime) -> list[dict[str, Any]]:
    """One row per person, pool and the queue.

    load = Σ over tiers of accounts / (the tier's most accounts per CSM × the person's capacity): above 1 is too much,
    and too little when even at the tiers' least accounts per CSM it stays below 1. Automated accounts weigh nothing.
    """
    counts: dict[str, Counter[str]] = {person.id: Counter() for person in team.people if "csm" in person.roles}
    counts |= {pool.id: Counter() for pool in team.pools}
    for one in held:
        counts.setdefault(one.person_id or QUEUE, Counter())[_column(one)] += 1
    return [_row(person_id, counts[person_id], team, rules, at) for person_id in sorted(counts)]


def _column(one: Held) -> str:
    if one.coverage == "automated":
        return "automated"
    return one.tier or "unknown"


def _row(person_id: str, counts: Counter[str], team: Team, rules: SegmentRules, at: datetime) -> dict[str, Any]:
    person, pool = team.person(person_id), team.pool(person_id)
    strength = _strength(person_id, team)
    load = lowest = None
    if strength:
        load = sum(counts[tier.name] / (tier.accounts_per_csm.max * strength) for tier in rules.tiers)
        lowest = sum(counts[tier.name] / (tier.accounts_per_csm.min * strength) for tier in rules.tiers)
    away = person is not None and person.is_away(at.astimezone(person.hours.zone).date())
    return {
        "person_id": person_id,
        "name": person.name if person else pool.name if pool else None,
        "kind": "pool" if pool else QUEUE if person_id == QUEUE else "person",
        "accounts": sum(counts.values()),
        **{f"accounts_{tier.name}": counts[tier.name] for tier in rules.tiers},
        "accounts_unknown": counts["unknown"],
        "accounts_automated": counts["automated"],
        "capacity": strength,
        "load": None if load is None else round(load, 6),
        "state": _state(load, lowest),
        "away": away,
        "reason": _reason(person_id, team, counts, rules),
    }


def _strength(person_id: str, team: Team) -> float | None:
    person, pool = team.person(person_id), team.pool(person_id)
    if person is not None:
        return person.capacity
    if pool is not None:
        return sum(member.capacity for one in pool.members if (member := team.person(one)) is not None)
    return None if person_id == QUEUE else 1.0


def _state(load: float | None, lowest: float | None) -> str | None:
    if load is None or lowest is None:
        return None
    return "over" if load > 1 else "under" if lowest < 1 else "within"


def _reason(person_id: str, team: Team, counts: Counter[str], rules: SegmentRules) -> str:
    if person_id == QUEUE:
        return "nobody owns these accounts"
    parts = [
        f"{counts[tier.name]} {tier.name} of {tier.accounts_per_csm.min}–{tier.accounts_per_csm.max}"
        for tier in rules.tiers
        if counts[tier.name]
    ]
    said = ", ".join(parts) or "no accounts"
    return said if team.knows(person_id) else f"{said}; not in team.yaml, so counted as one full person"
