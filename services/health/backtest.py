"""How well scores told churn in advance: each row a customer at a moment, its score, and whether it then left.

The AUC is Mann-Whitney's: the chance that a row that left had the lower score (equal scores count half). Its
interval, and that of the difference of two models on the same rows, are DeLong's at 95 %; where one customer has
several rows, Obuchowski's form of it (1997), in which rows of one customer lean on each other as they please.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import numpy as np
from numpy.typing import NDArray

from services.health import calibration
from services.health.calibration import Calibration
from services.health.scoring import Band, band_of
from services.health.settings import Bands
from shared.errors import Misconfigured

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FEWEST = 50
"""Below so many who left, figures are luck rather than knowledge."""
DECILES = 10
CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows with what became of them; rows of equal `owner` are of one customer."""

    left: Bools
    owner: Sequence[str]

    @property
    def repeats(self) -> bool:
        return len(set(self.owner)) < len(self.owner)

    @property
    def method(self) -> str:
        return "DeLong by customer (Obuchowski), 95 %" if self.repeats else "DeLong, 95 %"


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of each row; a score of NaN with the band `unknown` where too little is known."""

    scores: Floats
    bands: Sequence[Band]

    @classmethod
    def of(cls, scores: Floats, bands: Bands) -> Scored:
        """By the whole points that are shown."""
        whole = np.floor(scores + 0.5)
        return cls(scores, ["unknown" if math.isnan(points) else band_of(points, bands) for points in whole.tolist()])


@dataclass(frozen=True, slots=True)
class Decile:
    """A tenth of the scored rows, the lowest scores first; equal scores are shared out evenly."""

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
    precision_at_decile: float
    recall_at_decile: float
    red: int
    precision_red: float | None
    recall_red: float
    lift_red: float | None
    below_green: float
    share_green: float
    lead_days: float | None
    """Median days between the row and the day of leaving, of those who left and were red."""
    deciles: tuple[Decile, ...]
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Difference:
    """The first model's AUC less the second's, over the rows that both score."""

    n: int
    auc: float
    ci: tuple[float, float]
    p_value: float | None


def enough(left: Bools, fewest: int = 2) -> None:
    """Refuse samples of which nothing can be said.

    Raises Misconfigured with how many there are.
    """
    gone, there = int(left.sum()), int((~left).sum())
    if gone < fewest or there < fewest:
        raise Misconfigured(
            f"{gone} customers left and {there} stayed: below {fewest} of either, figures would be luck"
        )


def report(sample: Sample, found: Scored, lead_days: Floats | None = None) -> Report:
    """What a model's scores say of who left; `lead_days` are each row's days to leaving (NaN: not known).

    Raises Misconfigured when too few of either kind have a score.
    """
    left, bands, scored = sample.left, np.array(found.bands), ~np.isnan(found.scores)
    enough(left[scored])
    kept = Sample(left[scored], [who for who, there in zip(sample.owner, scored, strict=True) if there])
    auc, interval = _auc(_placements(found.scores[scored], kept))
    tenths = deciles(found.scores[scored], kept.left)
    red = bands == "red"
    precision = float(left[red].mean()) if red.any() else None
    return Report(
        n=len(left),
        positives=int(left.sum()),
        unscored=int((~scored).sum()),
        auc=auc,
        auc_ci=interval,
        precision_at_decile=tenths[0].churned_pct / 100,
        recall_at_decile=tenths[0].churned_pct / 100 * len(kept.left) / DECILES / int(left.sum()),
        red=int(red.sum()),
        precision_red=precision,
        recall_red=float(left[red].sum() / left.sum()),
        lift_red=None if precision is None else float(precision / left.mean()),
        below_green=float(left[scored & (bands != "green")].sum() / left.sum()),
        share_green=float((bands == "green").mean()),
        lead_days=_lead(left & red, lead_days),
        deciles=tenths,
        calibration=calibration.of_scores(found.scores[scored], kept.left, kept.owner),
    )


def _lead(told: Bools, lead_days: Floats | None) -> float | None:
    if lead_days is None:
        return None
    known = lead_days[told & ~np.isnan(lead_days)].tolist()
    return float(median(known)) if known else None


def deciles(found: Floats, left: Bools) -> tuple[Decile, ...]:
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
    """Of each row that left, the share of those that stayed with a higher score; of each that stayed, the reverse.

    `gone` and `there` number their customers.
    """

    of_left: Floats
    of_stayed: Floats
    gone: NDArray[np.int64]
    there: NDArray[np.int64]

    @property
    def auc(self) -> float:
        return float(self.of_left.mean())

    def less(self, other: _Placements) -> _Placements:
        return _Placements(self.of_left - other.of_left, self.of_stayed - other.of_stayed, self.gone, self.there)


def _placements(found: Floats, sample: Sample) -> _Placements:
    left, (_, owner) = sample.left, np.unique(np.array(sample.owner, object), return_inverse=True)
    risk = -found
    gone, there = risk[left], risk[~left]
    ranks = _midranks(np.concatenate([gone, there]))
    of_left = (ranks[: len(gone)] - _midranks(gone)) / len(there)
    of_stayed = 1 - (ranks[len(gone) :] - _midranks(there)) / len(gone)
    return _Placements(of_left, of_stayed, owner[left], owner[~left])


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def _auc(found: _Placements) -> tuple[float, tuple[float, float]]:
    error = _error(found)
    return found.auc, (max(0.0, found.auc - Z * error), min(1.0, found.auc + Z * error))


def _error(found: _Placements) -> float:
    """The standard error of the mean placement; with one row per customer it is DeLong's."""
    size = int(max(found.gone.max(), found.there.max())) + 1
    of_left = np.bincount(found.gone, found.of_left - found.auc, size)
    of_stayed = np.bincount(found.there, found.of_stayed - found.of_stayed.mean(), size)
    gone, there = len(found.of_left), len(found.of_stayed)
    both = float(of_left @ of_stayed) * size / max(size - 1, 1)
    variance = (
        float(of_left @ of_left) * _spread(found.gone) / gone**2
        + float(of_stayed @ of_stayed) * _spread(found.there) / there**2
        + 2 * both / (gone * there)
    )
    return math.sqrt(max(variance, 0.0))


def _spread(owners: NDArray[np.int64]) -> float:
    """k ÷ (k − 1) for k customers."""
    customers = len(np.unique(owners))
    return customers / max(customers - 1, 1)


def difference(one: Floats, other: Floats, sample: Sample) -> Difference:
    """Two models on the same rows: the covariance of their rankings is taken into account."""
    both = ~np.isnan(one) & ~np.isnan(other)
    enough(sample.left[both])
    kept = Sample(sample.left[both], [who for who, there in zip(sample.owner, both, strict=True) if there])
    first, second = _placements(one[both], kept), _placements(other[both], kept)
    delta, error = first.auc - second.auc, _error(first.less(second))
    p_value = 2 * NormalDist().cdf(-abs(delta) / error) if error > 0 else None
    return Difference(int(both.sum()), delta, (delta - Z * error, delta + Z * error), p_value)


def auc(found: Floats, left: Bools) -> float:
    """The chance that a row that left has the lower score."""
    return _placements(found, Sample(left, [""] * len(left))).auc
