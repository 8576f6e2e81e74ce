"""What another model would say of the same book: who would change band, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from services.health import scoring
from services.health.facts import Facts, Picture
from services.health.scoring import Band, Score
from services.health.settings import Model

BANDS: tuple[Band, ...] = ("red", "amber", "green", "unknown")


@dataclass(frozen=True, slots=True)
class Moved:
    """An account that another model puts into another band, with the measures that it weighs on differently."""

    account_id: str
    name: str | None
    arr: Decimal | None
    before: Score
    after: Score
    terms: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    accounts: int
    before: dict[Band, int]
    after: dict[Band, int]
    moved: tuple[Moved, ...]
    mean_change: float | None
    """Over the accounts that have a score under both."""


def compare(book: Iterable[tuple[Facts, Picture]], ours: Model, theirs: Model) -> Comparison:
    """Score each account twice; those that would move come with the largest ARR first."""
    before: Counter[Band] = Counter()
    after: Counter[Band] = Counter()
    moved, changes, count = [], [], 0
    for known, now in book:
        count += 1
        one, other = scoring.score_of(known, now, ours), scoring.score_of(known, now, theirs)
        before[one.band] += 1
        after[other.band] += 1
        if one.exact is not None and other.exact is not None:
            changes.append(other.exact - one.exact)
        if one.band != other.band:
            moved.append(Moved(known.account_id, now.profile.name, now.profile.arr, one, other, terms(one, other)))
    return Comparison(
        count,
        {band: before[band] for band in BANDS},
        {band: after[band] for band in BANDS},
        tuple(sorted(moved, key=lambda row: (-(row.arr or 0), row.account_id))),
        sum(changes) / len(changes) if changes else None,
    )


def terms(before: Score, after: Score) -> tuple[tuple[str, float], ...]:
    """By measure, weight × points of the mean under the one model less that under the other, the largest first."""
    one, other = _terms(before), _terms(after)
    found = {name: other.get(name, 0.0) - one.get(name, 0.0) for name in dict.fromkeys([*one, *other])}
    return tuple(
        sorted(
            ((name, by) for name, by in found.items() if abs(by) >= 0.05),
            key=lambda term: (-abs(term[1]), term[0]),
        )
    )


def _terms(score: Score) -> dict[str, float]:
    known = [part for part in score.parts if part.points is not None]
    total = sum(part.weight for part in known)
    return {part.measure: part.weight * (part.points or 0.0) / total for part in known} if total else {}
