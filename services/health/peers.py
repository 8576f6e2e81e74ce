"""Where a value stands among those of other accounts: distributions per measure and segment, one a day.

A score on the UTC day D reads the distribution of the day before: what all accounts' values were at that day's first
instant. So it does not depend on when anybody was looked at, and any past one can be counted again from the facts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.health import facts
from services.health.facts import Facts, Picture
from services.health.measures import read
from services.health.plan import Ranked, Scaled
from services.health.settings import Model

EVERYBODY = ""
"""The segment of those who are ranked among all accounts."""
MOST_VALUES = 500
"""Of one partition's values per measure and segment; more become so many of equal weight, in their order."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Values:
    """Some accounts' values in order; each stands for n ÷ len(values) accounts."""

    n: int
    values: tuple[float, ...]


Tables = Mapping[str, Mapping[str, Values]]
"""By measure and segment."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values in order with the weight of all up to each."""

    n: int
    values: Floats
    weights: Floats

    def rank(self, value: float) -> float:
        """Percent of the accounts that are below, those that are equal by half."""
        total = self.weights[-1]
        below = int(self.values.searchsorted(value, side="left"))
        up_to = int(self.values.searchsorted(value, side="right"))
        less = self.weights[below - 1] if below else 0.0
        least = self.weights[up_to - 1] if up_to else 0.0
        return float(100.0 * (less + least) / 2 / total)


class Peers(Protocol):
    """Who knows of the distributions of a day under a model; None: they are not counted."""

    def of(self, model: Model, day: date) -> Mapping[str, Mapping[str, Distribution]] | None: ...


def first_instant(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def day_for(at: datetime) -> date:
    """Whose distribution a score at a moment reads."""
    return at.astimezone(UTC).date() - timedelta(days=1)


def readings(known: Facts, day: date, model: Model) -> Iterator[tuple[str, str, float]]:
    """What one account brings into a day's distributions: measure, segment and value."""
    now = facts.picture(known, first_instant(day))
    if now.latest_at is None:
        return
    for name, among in model.ranked.items():
        value = read(model.measures[name], float, now).value
        if value is not None and math.isfinite(value):
            if "segment" in among and now.profile.segment:
                yield name, now.profile.segment, value
            if "everybody" in among:
                yield name, EVERYBODY, value


def tables_of(said: Iterable[tuple[str, str, float]], most: int = MOST_VALUES) -> dict[str, dict[str, Values]]:
    found: dict[str, dict[str, list[float]]] = {}
    for measure, segment, value in said:
        found.setdefault(measure, {}).setdefault(segment, []).append(value)
    return {
        measure: {segment: condensed(values, most) for segment, values in sorted(of.items())}
        for measure, of in sorted(found.items())
    }


def condensed(values: Sequence[float], most: int = MOST_VALUES) -> Values:
    ordered = sorted(values)
    if len(ordered) <= most:
        return Values(len(ordered), tuple(ordered))
    middles = ((2 * k + 1) * len(ordered) // (2 * most) for k in range(most))
    return Values(len(ordered), tuple(ordered[middle] for middle in middles))


def merged(parts: Collection[Tables]) -> dict[str, dict[str, Distribution]]:
    """The distributions of all accounts from those of some each."""
    gathered: dict[str, dict[str, list[Values]]] = {}
    for part in parts:
        for measure, of in part.items():
            for segment, values in of.items():
                gathered.setdefault(measure, {}).setdefault(segment, []).append(values)
    return {
        measure: {segment: _joined(values) for segment, values in of.items()} for measure, of in gathered.items()
    }  # fmt: skip


def _joined(parts: Sequence[Values]) -> Distribution:
    values = np.array([value for part in parts for value in part.values], np.float64)
    weights = np.array([part.n / len(part.values) for part in parts for _ in part.values], np.float64)
    order = values.argsort(kind="stable")
    return Distribution(sum(part.n for part in parts), values[order], weights[order].cumsum())


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was counted of one day, under one model."""

    digest: str
    day: date
    tables: Mapping[str, Mapping[str, Distribution]] | None

    def of(self, model: Model, day: date) -> Mapping[str, Mapping[str, Distribution]] | None:
        return self.tables if (model.digest, day) == (self.digest, self.day) else None


class Counted:
    """Counts over a whole book whatever day is asked for."""

    def __init__(self) -> None:
        self.book: Sequence[Facts] = ()
        self._known: dict[tuple[str, date], Mapping[str, Mapping[str, Distribution]]] = {}

    def of(self, model: Model, day: date) -> Mapping[str, Mapping[str, Distribution]] | None:
        where = model.digest, day
        if where not in self._known:
            said = (one for known in self.book for one in readings(known, day, model))
            self._known[where] = merged([tables_of(said, most=len(self.book) or 1)])
        return self._known[where]


def with_each_other(book: Sequence[Facts]) -> list[Facts]:
    """A whole book whose accounts know of each other."""
    counted = Counted()
    counted.book = book
    return [Facts(one.account_id, one.things, one.usage, one.looked, counted, one.breaks) for one in book]


@dataclass(frozen=True, slots=True)
class Unranked:
    """A scale on which no value has points, and why."""

    reason: str

    def __call__(self, value: float) -> Any:
        return None


def scales_of(model: Model, names: Sequence[str], scales: Sequence[Scaled], known: Facts, now: Picture) -> list[Scaled]:
    """A plan's scales as they are for an account at a moment."""
    return [
        _ranked(model, name, scale, known, now) if isinstance(scale, Ranked) else scale
        for name, scale in zip(names, scales, strict=True)
    ]


def _ranked(model: Model, name: str, scale: Ranked, known: Facts, now: Picture) -> Scaled:
    rule, day, segment = scale.rule, day_for(now.at), now.profile.segment
    if rule.among == "segment" and not segment:
        return Unranked("no segment is stated: there are no peers")
    tables = known.peers.of(model, day) if known.peers is not None else None
    if tables is None:
        return Unranked(f"the peers of {day.isoformat()} are not counted")
    found = tables.get(name, {}).get((segment or "") if rule.among == "segment" else EVERYBODY)
    if found is None or found.n < rule.peers:
        whom = f"in segment {segment}" if rule.among == "segment" else "in all"
        return Unranked(f"{found.n if found else 0} accounts {whom} have a value: fewer than {rule.peers} peers")
    if rule.best == "lowest":
        return lambda value: 100.0 - found.rank(value)
    return found.rank
