"""Proposes a model of the history: the measures of a model, on scales and with weights learnt from who left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from services.health import backtest, fitting, hindsight
from services.health.backtest import Floats
from services.health.facts import Facts
from services.health.fitting import LeftOut, Proposal, Rows
from services.health.hindsight import Look
from services.health.settings import Model
from services.health.shapes import Cells
from services.health.tables import TableModel


def propose(book: Mapping[str, Facts], looks: Sequence[Look], base: Model) -> tuple[Proposal, Model]:
    """Learn scales and weights of the measures of `base` from what they said at the cut-offs; judged out of fold.

    All rows of an account are in one fold, and every figure is of scores as health itself makes them.
    Raises Misconfigured when fewer than 50 accounts left or stayed, and when no measure tells anything.
    """
    sample = hindsight.sample_of(looks)
    gone = {one.account_id for one in looks if one.days_left is not None}
    backtest.enough(np.array([name in gone for name in {one.account_id for one in looks}], bool), backtest.FEWEST)

    def score(rows: Sequence[int], found: TableModel) -> Floats:
        model = as_model(found, base)
        return np.array([_exact(book[looks[row].account_id], looks[row], model) for row in rows], np.float64)

    columns, left_out = _columns(looks, base)
    found = fitting.proposed(Rows(columns, sample, score, empty_says=False), left_out)
    return found, as_model(found.learnt.model, base)


def _exact(known: Facts, at: Look, model: Model) -> float:
    found = hindsight.scored(known, at.at, model)
    return math.nan if found is None or found[0].exact is None else found[0].exact


def _columns(looks: Sequence[Look], base: Model) -> tuple[list[Cells], list[LeftOut]]:
    """What each measure said at each look; those that always said the same are left out."""
    values = [{part.measure: part.value for part in one.score.parts} for one in looks]
    columns, left_out = [], []
    for name in base.measures:
        said = [row.get(name) for row in values]
        cells = Cells.read(name, ["" if value is None else repr(float(value)) for value in said])
        if len({word for word in cells.words if word}) < 2:
            left_out.append(LeftOut(name, "it says the same of everybody, or nothing"))
        else:
            columns.append(cells)
    return columns, left_out


def as_model(found: TableModel, base: Model) -> Model:
    """The chosen measures of `base`, on the scales and with the weights found; no groups, profiles or caps."""
    measures = {
        column.column: base.measures[column.column].model_copy(
            update={
                "worst": None,
                "best": None,
                "above": None,
                "percentile": None,
                "at_least": column.at_least,
                "weight": column.weight,
                "missing": "ignore",
            }
        )
        for column in found.measures.values()
    }
    return Model(language=base.language, coverage_floor=base.coverage_floor, bands=found.bands, measures=measures)
