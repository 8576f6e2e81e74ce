"""How well a score told churn in advance, on a flat table: one row per customer, a column says who left.

The AUC is Mann-Whitney's: the chance that a customer who left had the lower score (equal scores count half).
Its interval, and that of the difference of two models on the same rows, are DeLong's at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from services.health.scoring import NEUTRAL, Part, band_of, mean, points_between
from services.health.settings import OTHERWISE, Column, TableModel
from shared.errors import Misconfigured

Floats = NDArray[np.float64]
Table = Sequence[Mapping[str, str]]
FEWEST = 50
"""Below so many who left, figures would be luck."""
DECILES = 10
CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
METHOD = "DeLong, 95 %"


@dataclass(frozen=True, slots=True)
class Label:
    """Who left: rows whose `column` reads `value`."""

    column: str
    value: str

    @classmethod
    def read(cls, text: str) -> Label:
        column, sign, value = text.partition("=")
        if not (column and sign and value):
            raise Misconfigured(f"label {text!r} is not COLUMN=VALUE; write for example Churn=Yes")
        return cls(column, value)


@dataclass(frozen=True, slots=True)
class Decile:
    """A tenth of the scored customers, the lowest scores first; equal scores are shared out evenly."""

    score: float
    churned_pct: float
    lift: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a model reached. `n` and `positives` are all rows; unscored ones are in no ranking but count as missed."""

    n: int
    positives: int
    unscored: int
    auc: float
    auc_ci: tuple[float, float]
    red: int
    precision_red: float | None
    recall_red: float
    lift_red: float | None
    below_green: float
    share_green: float
    deciles: tuple[Decile, ...]
    config_hash: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The first model's AUC less the second's, over the rows that both score."""

    n: int
    auc: float
    ci: tuple[float, float]
    p_value: float | None


def labelled(table: Table, label: Label, models: Iterable[TableModel]) -> NDArray[np.bool_]:
    """Which rows left.

    Raises Misconfigured for a label or column that is not there, a label that a model reads, and too few who left.
    """
    columns = list(table[0]) if table else []
    if label.column not in columns:
        raise Misconfigured(f"the table has no column {label.column!r}; it has: {', '.join(columns)}")
    for model in models:
        for name, measure in model.measures.items():
            if measure.column == label.column:
                raise Misconfigured(f"measure {name} reads the label {label.column!r}: it would know the answer")
            if measure.column not in columns:
                raise Misconfigured(
                    f"measure {name}: the table has no column {measure.column!r}; it has: {', '.join(columns)}"
                )
    values = [row[label.column].strip() for row in table]
    left = np.array([value == label.value for value in values], bool)
    if not left.any():
        seen = ", ".join(sorted(set(values))[:10])
        raise Misconfigured(f"no row has {label.column} = {label.value!r}; there are: {seen}")
    _enough(int(left.sum()), int((~left).sum()))
    return left


def _enough(left: int, stayed: int) -> None:
    if left < FEWEST or stayed < FEWEST:
        raise Misconfigured(
            f"{left} customers left and {stayed} stayed: below {FEWEST} of either, figures would be luck"
        )


def scores(table: Table, model: TableModel) -> Floats:
    """Each row's exact score; NaN where too little is known for one."""
    return np.array([score(row, number, model) for number, row in enumerate(table, 1)], np.float64)


def score(row: Mapping[str, str], number: int, model: TableModel) -> float:
    """The score of one row (`number` names it in errors), as health scores an account."""
    parts = [_part(name, measure, row, number) for name, measure in model.measures.items()]
    coverage = math.fsum(p.weight for p in parts if p.measured) / math.fsum(p.weight for p in parts)
    exact = mean(parts)
    return math.nan if exact is None or coverage < model.coverage_floor else exact


def _part(name: str, measure: Column, row: Mapping[str, str], number: int) -> Part:
    points = points_of(name, measure, row[measure.column].strip(), number)
    if points is not None:
        return Part(name, measure.group, None, points, measure.weight)
    stand_in = {"ignore": None, "neutral": NEUTRAL, "zero": 0.0}[measure.missing]
    return Part(name, measure.group, None, stand_in, measure.weight, "empty", measured=False)


def points_of(name: str, measure: Column, text: str, number: int) -> float | None:
    """What a cell is worth, 0 to 100; None when it is empty.

    Raises Misconfigured that names row, column and what is wrong with the cell.
    """
    where = f"row {number}, column {measure.column} (measure {name})"
    if measure.values is not None and (text in measure.values or text):
        points = measure.values.get(text, measure.values.get(OTHERWISE))
        if points is None:
            known = ", ".join(sorted(measure.values))
            raise Misconfigured(f"{where}: {text!r} has no points; values has: {known} (add it, or '*' for all others)")
        return points
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise Misconfigured(f"{where}: {text!r} is not a number; give the measure values for words") from error
    if not math.isfinite(value):
        raise Misconfigured(f"{where}: {text!r} is not a finite number")
    assert measure.worst is not None
    assert measure.best is not None
    return points_between(value, measure.worst, measure.best)


def report(found: Floats, left: NDArray[np.bool_], model: TableModel, config_hash: str) -> Report:
    """What a model's scores say of who left.

    Raises Misconfigured when too few of either kind have a score.
    """
    scored = ~np.isnan(found)
    _enough(int((left & scored).sum()), int((~left & scored).sum()))
    auc, interval = _auc(_placements(found[scored], left[scored]))
    whole = np.floor(found + 0.5)
    bands = np.array([band_of(p, model.bands) if there else "" for p, there in zip(whole, scored, strict=True)])
    red, base = bands == "red", left.mean()
    precision = float(left[red].mean()) if red.any() else None
    return Report(
        n=len(left),
        positives=int(left.sum()),
        unscored=int((~scored).sum()),
        auc=auc,
        auc_ci=interval,
        red=int(red.sum()),
        precision_red=precision,
        recall_red=float(left[red].sum() / left.sum()),
        lift_red=None if precision is None else float(precision / base),
        below_green=float(left[scored & (bands != "green")].sum() / left.sum()),
        share_green=float((bands == "green").mean()),
        deciles=deciles(found[scored], left[scored]),
        config_hash=config_hash,
    )


def deciles(found: Floats, left: NDArray[np.bool_]) -> tuple[Decile, ...]:
    """Tenths from the lowest score up."""
    values, inverse, counts = np.unique(found, return_inverse=True, return_counts=True)
    gone = np.bincount(inverse, weights=left.astype(np.float64))
    rows = np.concatenate([[0.0], np.cumsum(counts)])
    edges = np.linspace(0, len(found), DECILES + 1)
    size = len(found) / DECILES
    churned = np.diff(np.interp(edges, rows, np.concatenate([[0.0], np.cumsum(gone)]))) / size
    points = np.diff(np.interp(edges, rows, np.concatenate([[0.0], np.cumsum(values * counts)]))) / size
    base = left.mean()
    return tuple(
        Decile(float(score), float(100 * share), float(share / base))
        for score, share in zip(points, churned, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Placements:
    """Of each who left, the share of those who stayed with a higher score; of each who stayed, the reverse."""

    of_left: Floats
    of_stayed: Floats

    @property
    def auc(self) -> float:
        return float(self.of_left.mean())


def _placements(found: Floats, left: NDArray[np.bool_]) -> _Placements:
    risk = -found
    gone, there = risk[left], risk[~left]
    ranks = _midranks(np.concatenate([gone, there]))
    of_left = (ranks[: len(gone)] - _midranks(gone)) / len(there)
    of_stayed = 1 - (ranks[len(gone) :] - _midranks(there)) / len(gone)
    return _Placements(of_left, of_stayed)


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def _auc(found: _Placements) -> tuple[float, tuple[float, float]]:
    error = math.sqrt(_variance(found.of_left) + _variance(found.of_stayed))
    return found.auc, (max(0.0, found.auc - Z * error), min(1.0, found.auc + Z * error))


def _variance(placements: Floats) -> float:
    return float(placements.var(ddof=1) / len(placements))


def difference(one: Floats, other: Floats, left: NDArray[np.bool_]) -> Difference:
    """Two models on the same rows: the covariance of their rankings is taken into account."""
    both = ~np.isnan(one) & ~np.isnan(other)
    _enough(int((left & both).sum()), int((~left & both).sum()))
    first, second = _placements(one[both], left[both]), _placements(other[both], left[both])
    apart = _variance(first.of_left - second.of_left) + _variance(first.of_stayed - second.of_stayed)
    delta, error = first.auc - second.auc, math.sqrt(apart)
    p_value = 2 * NormalDist().cdf(-abs(delta) / error) if error > 0 else None
    return Difference(int(both.sum()), delta, (delta - Z * error, delta + Z * error), p_value)
