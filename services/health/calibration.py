"""From a score to a chance of leaving, learnt on other customers than it is tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FOLDS = 5
SEED = 7
STEPS = 10
MOST_ROUNDS = 60
CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose chance fell into one tenth of 0 to 100 %."""

    n: int
    expected_pct: float
    churned_pct: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How true chances out of fold are: Brier's score beside that of the mean share, and the mean gap of the bins."""

    brier: float
    brier_of_mean: float
    gap_pct: float
    bins: tuple[Bin, ...]


def folds(keys: Sequence[str], left: Bools, count: int = FOLDS, seed: int = SEED) -> NDArray[np.int64]:
    """Which fold each row is in: rows of one key together, those who left shared out evenly.

    Keys are dealt out in the order of a hash of seed and key, so the order of the rows never matters.
    """
    gone: dict[str, bool] = {}
    for key, has_left in zip(keys, left.tolist(), strict=True):
        gone[key] = has_left or gone.get(key, False)
    ordered = sorted(gone, key=lambda key: (gone[key], xxhash.xxh3_64_intdigest(key.encode(), seed), key))
    place = {key: number % count for number, key in enumerate(ordered)}
    return np.array([place[key] for key in keys], np.int64)


def logistic(columns: Floats, left: Bools, ridge: float = 1e-6) -> Floats:
    """Intercept and slopes of the most likely logistic curve, by Newton's method; `ridge` holds the slopes back."""
    design = np.column_stack([np.ones(len(left)), columns])
    outcome, penalty = left.astype(np.float64), np.array([0.0, *[ridge] * columns.shape[1]])
    share = min(max(float(outcome.mean()), 1e-9), 1 - 1e-9)
    slopes: Floats = np.zeros(design.shape[1])
    slopes[0] = np.log(share / (1 - share))
    cost = _cost(design, outcome, penalty, slopes)
    for _ in range(MOST_ROUNDS):
        chances = chance(design @ slopes)
        gradient = design.T @ (chances - outcome) + penalty * slopes
        curvature = design.T @ (design * (chances * (1 - chances))[:, None]) + np.diag(penalty + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        length, before = 1.0, cost
        while (cost := _cost(design, outcome, penalty, slopes - length * step)) > before and length > 1e-6:
            length /= 2
        slopes = slopes - length * step
        if np.abs(step).max() <= CLOSE * (1 + np.abs(slopes).max()):
            break
    return slopes


def _cost(design: Floats, outcome: Floats, penalty: Floats, slopes: Floats) -> float:
    line = design @ slopes
    return float(np.sum(np.logaddexp(0, line) - outcome * line) + penalty @ slopes**2 / 2)


def chance(line: Floats) -> Floats:
    """1 ÷ (1 + e⁻ˣ), without overflow."""
    found: Floats = 0.5 * (1 + np.tanh(line / 2))
    return found


@dataclass(frozen=True, slots=True)
class Curve:
    """Score → chance of leaving, a logistic curve."""

    intercept: float
    slope: float

    @classmethod
    def through(cls, scores: Floats, left: Bools) -> Curve:
        intercept, slope = logistic(scores[:, None] / 100, left, ridge=1e-3).tolist()
        return cls(intercept, slope / 100)

    def at(self, scores: Floats) -> Floats:
        return chance(self.intercept + self.slope * scores)


def of_scores(scores: Floats, left: Bools, keys: Sequence[str]) -> Calibration:
    """How true the chances are that a logistic curve of the score gives, each learnt without the fold it is for."""
    place, chances = folds(keys, left), np.empty(len(left))
    for fold in range(FOLDS):
        tried = place == fold
        if tried.any():
            chances[tried] = Curve.through(scores[~tried], left[~tried]).at(scores[tried])
    return of_chances(chances, left)


def of_chances(chances: Floats, left: Bools) -> Calibration:
    outcome = left.astype(np.float64)
    where = np.minimum((chances * STEPS).astype(np.int64), STEPS - 1)
    bins = [
        Bin(int(there.sum()), float(100 * chances[there].mean()), float(100 * outcome[there].mean()))
        for there in (where == step for step in range(STEPS))
        if there.any()
    ]
    return Calibration(
        brier=float(np.mean((chances - outcome) ** 2)),
        brier_of_mean=float(outcome.mean() * (1 - outcome.mean())),
        gap_pct=sum(one.n * abs(one.expected_pct - one.churned_pct) for one in bins) / len(left),
        bins=tuple(bins),
    )
