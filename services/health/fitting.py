"""Proposes a model of a flat table: monotone bands per column, and weights, learnt from who left.

Each column becomes groups of numbers (pool-adjacent-violators, so that chances only rise or only fall) or of words;
a border stays only if it pays for itself by BIC. A logistic curve over the groups' log odds, its slopes held at zero
or above, gives the weights. What the model reaches is said of rows of which it had learnt nothing: out of fold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from services.health import backtest, calibration, tables
from services.health.backtest import Report, Sample, Scored
from services.health.calibration import FOLDS, Curve
from services.health.scoring import Band
from services.health.settings import Bands
from services.health.shapes import FEWEST_ROWS, Cells, Shape, shape_of
from services.health.tables import OTHERWISE, Column, Label, Table, TableModel, number_in
from shared.errors import Misconfigured

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
MOST_STRAYS = 0.05
LONG_NUMBER = 5
RIDGE = 1.0
LEAST_WEIGHT = 0.5
GIVEN_AWAY = 0.98
"""A column that ranks who left so well alone is the answer under another name."""
RED_SHARE = 0.10
GREEN_MISSES = 0.25
MOST_GREEN = 0.80
_NAMED_ID = re.compile(r"(?:^|[_\W])(?:u?u?id|guid|key|e-?mail|phone|uri|url)$|(?<=[a-z])(?:ID|Id)$", re.IGNORECASE)
_DAY = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A column that no measure reads, and why."""

    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class Learnt:
    """A model, the shapes of its measures, and the chance of leaving that a score of it stands for."""

    model: TableModel
    shapes: Mapping[str, Shape]
    curve: Curve


@dataclass(frozen=True, slots=True)
class Proposal:
    """A model learnt from all rows, and what models learnt the same way reached on rows they did not know."""

    learnt: Learnt
    report: Report
    chances: Floats
    """Of each row, out of fold."""
    left_out: tuple[LeftOut, ...]
    unused: tuple[str, ...]
    """Columns that add nothing to the others."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What is learnt from: columns, who left, and how a model scores rows (by their numbers).

    `empty_says` lets an empty cell be worth points of its own; else what is not known is left out of the mean.
    """

    columns: Sequence[Cells]
    sample: Sample
    score: Callable[[Sequence[int], TableModel], Floats]
    empty_says: bool = True


def propose(table: Table, label: Label, *, keep: Collection[str] = (), without: Collection[str] = ()) -> Proposal:
    """Learn a model of a table, and say what such a model reaches out of fold.

    Raises Misconfigured below 50 who left or stayed, for a column that is not there, and when no column tells anything.
    """
    for name in (*keep, *without):
        tables.need_column(table, name)
    left = tables.labelled(table, label)
    backtest.enough(left, backtest.FEWEST)
    columns, left_out = usable(table, left, label, keep, without)
    keys = ["\x1f".join(text for name, text in row.items() if name != label.column) for row in table]

    def score(rows: Sequence[int], model: TableModel) -> Floats:
        return tables.scores([table[row] for row in rows], model)

    return proposed(Rows(columns, Sample(left, keys), score), left_out)


def proposed(rows: Rows, left_out: Sequence[LeftOut] = ()) -> Proposal:
    """A model learnt from all rows, and what models learnt the same way reach on rows they do not know.

    Raises Misconfigured when no column tells anything.
    """
    learnt = learn(rows, np.ones(len(rows.sample.left), bool))
    if learnt is None:
        raise Misconfigured("no column tells who left: there is nothing to learn a model from")
    scored, chances = out_of_fold(rows)
    read = {measure.column for measure in learnt.model.measures.values()}
    return Proposal(
        learnt=learnt,
        report=replace(
            backtest.report(rows.sample, scored), calibration=calibration.of_chances(chances, rows.sample.left)
        ),
        chances=chances,
        left_out=tuple(left_out),
        unused=tuple(cells.name for cells in rows.columns if cells.name not in read),
    )


def out_of_fold(rows: Rows) -> tuple[Scored, Floats]:
    """What a model says of each row that learnt from the other folds alone, and the chance of leaving it gives.

    Points of two folds are on two scales, so the score of a row is 100 × (1 − chance); bands are those of its model.
    A row that its model cannot score is of the mean chance.
    """
    left = rows.sample.left
    place = calibration.folds(rows.sample.owner, left)
    chances, bands = np.empty(len(left)), np.full(len(left), "unknown", object)
    for fold in range(FOLDS):
        tried = np.flatnonzero(place == fold)
        learnt = learn(rows, place != fold)
        chances[tried] = left[place != fold].mean()
        if learnt is not None:
            found = rows.score(tried.tolist(), learnt.model)
            known = ~np.isnan(found)
            chances[tried[known]] = learnt.curve.at(found[known])
            bands[tried] = Scored.of(found, learnt.model.bands).bands
    told: list[Band] = bands.tolist()
    return Scored(100 * (1 - chances), told), chances


def usable(
    table: Table, left: Bools, label: Label, keep: Collection[str] = (), without: Collection[str] = ()
) -> tuple[list[Cells], list[LeftOut]]:
    """The columns that may tell something, and the others with the reason why not."""
    columns, left_out = [], []
    for name in table[0]:
        if name == label.column:
            continue
        cells = Cells.read(name, [row[name].strip() for row in table])
        reason = "as asked" if name in without else None if name in keep else why_not(cells, left)
        if reason is None:
            columns.append(cells)
        else:
            left_out.append(LeftOut(name, reason))
    return columns, left_out


def why_not(cells: Cells, left: Bools) -> str | None:
    """Why a column must not be learnt from; None when it may."""
    counts = dict(zip(cells.words, np.bincount(cells.codes).tolist(), strict=True))
    blank = counts.pop("", 0)
    if len(counts) + bool(blank) <= 1:
        return "it says the same of everybody" if counts else "it is empty"
    filled = sum(counts.values())
    if cells.numbers is None:
        if all(_DAY.fullmatch(word) for word in counts):
            return "it holds days; a number of days up to the day of the row can be learnt from"
        strays = {word: n for word, n in counts.items() if number_in(word) is None}
        if sum(strays.values()) < MOST_STRAYS * filled and len(counts) > FEWEST_ROWS:
            named = ", ".join(repr(word) for word in sorted(strays, key=lambda word: (-strays[word], word))[:3])
            return f"it holds numbers and {sum(strays.values())} cells that are none ({named}); empty those"
    if _is_id(cells, list(counts), filled):
        return f"it names rows: {len(counts)} different values in {filled} cells"
    if cells.numbers is None and max(counts.values()) < FEWEST_ROWS:
        return f"no word of it comes {FEWEST_ROWS} times"
    shape = shape_of(cells, left, np.ones(len(left), bool))
    odds = shape.of_rows(cells)
    alone = backtest.auc(-odds, left)
    if alone >= GIVEN_AWAY:
        return f"alone it all but tells who left (AUC {alone:.3f}): it seems to be known only afterwards"
    return None


def _is_id(cells: Cells, different: Sequence[str], filled: int) -> bool:
    """Words of which most are different; whole numbers that are all different and run on, or are of one length."""
    if _NAMED_ID.search(cells.name) and len(different) > max(FEWEST_ROWS, filled / 10):
        return True
    if cells.numbers is None:
        return len(different) > max(FEWEST_ROWS, filled / 2)
    known = cells.numbers[~cells.empty]
    if len(different) < filled or filled < FEWEST_ROWS or not (known == np.floor(known)).all():
        return False
    lengths = {len(word) for word in different}
    return bool(known.max() - known.min() < 2 * filled) or (len(lengths) == 1 and min(lengths) >= LONG_NUMBER)


def learn(rows: Rows, where: Bools) -> Learnt | None:
    """A model by the rows `where` alone, as it is written down: in rounded points and weights. None: nothing tells."""
    left = rows.sample.left
    shapes = {cells.name: shape_of(cells, left, where, empty_says=rows.empty_says) for cells in rows.columns}
    telling = [cells for cells in rows.columns if len(set(_all_odds(shapes[cells.name]))) > 1]
    slopes = _slopes({cells.name: shapes[cells.name].of_rows(cells)[where] for cells in telling}, left[where])
    measures = _measures({name: shapes[name] for name in slopes}, slopes)
    if not measures:
        return None
    model = TableModel(measures=measures, bands=Bands(amber=1, green=2))
    found = rows.score(np.flatnonzero(where).tolist(), model)
    known = ~np.isnan(found)
    bands = _bands(found[known], left[where][known])
    curve = Curve.through(found[known], left[where][known])
    used = {measure.column: shapes[measure.column] for measure in measures.values()}
    return Learnt(model.model_copy(update={"bands": bands}), used, curve)


def _slopes(odds: Mapping[str, Floats], left: Bools) -> dict[str, float]:
    """The logistic slope of each column's log odds; columns that would count against themselves are left out."""
    names = list(odds)
    while names:
        found = calibration.logistic(np.column_stack([odds[name] for name in names]), left, RIDGE)[1:]
        slopes = dict(zip(names, found.tolist(), strict=True))
        worst = min(names, key=slopes.__getitem__)
        if slopes[worst] > 0:
            return slopes
        names.remove(worst)
    return {}


def _measures(shapes: Mapping[str, Shape], slopes: Mapping[str, float]) -> dict[str, Column]:
    """Log odds turned into points and weights: the weighted mean of the points keeps the order of the sums."""
    spans = {name: _span(shape) for name, shape in shapes.items()}
    says = {name: slopes[name] * (high - low) for name, (low, high) in spans.items()}
    while says and min(says.values()) < LEAST_WEIGHT / 100 * sum(says.values()):
        del says[min(says, key=says.__getitem__)]
    found: dict[str, Column] = {}
    total = sum(says.values())
    for name in sorted(says, key=lambda name: (-says[name], name)):
        found[_slug(name, found)] = _column(shapes[name], spans[name], round(100 * says[name] / total, 1))
    return found


def _all_odds(shape: Shape) -> list[float]:
    return [shape.odds(group) for group in shape.groups] + ([shape.odds(shape.empty)] if shape.empty else [])


def _span(shape: Shape) -> tuple[float, float]:
    odds = _all_odds(shape)
    return min(odds), max(odds)


def _column(shape: Shape, span: tuple[float, float], weight: float) -> Column:
    low, high = span

    def points(odds: float) -> float:
        return float(round(100 * (high - min(max(odds, low), high)) / (high - low)))

    worth = [points(shape.odds(group)) for group in shape.groups]
    missing: float | Literal["ignore"] = points(shape.odds(shape.empty)) if shape.empty else "ignore"
    if shape.is_numeric:
        steps = dict(zip(shape.starts, worth, strict=True))
        return Column(kind="column", column=shape.column, weight=weight, at_least=steps, missing=missing)
    values = {str(word): at for group, at in zip(shape.groups, worth, strict=True) for word in group.holds}
    values[OTHERWISE] = points(0.0)
    return Column(kind="column", column=shape.column, weight=weight, values=values, missing=missing)


def _slug(column: str, taken: Collection[str]) -> str:
    plain = re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column)).strip("_").lower() or "column"
    return next(name for n in range(1, len(taken) + 3) if (name := plain if n == 1 else f"{plain}_{n}") not in taken)


def _bands(found: Floats, left: Bools) -> Bands:
    """Red: the tenth with the lowest scores. Green: above it three quarters of those who left lie lower, and at most
    80 % of all lie there."""
    whole = np.floor(found + 0.5)
    edges = np.arange(1, 101)
    below = np.array([(whole < edge).mean() for edge in edges])
    amber = int(edges[np.abs(below - RED_SHARE).argmin()])
    caught = np.array([left[whole < edge].sum() / left.sum() for edge in edges])
    fit = (caught >= 1 - GREEN_MISSES) & (below >= 1 - MOST_GREEN) & (edges > amber)
    green = int(edges[fit.argmax()]) if fit.any() else 100
    return Bands(amber=min(amber, 99), green=max(green, min(amber, 99) + 1))
