"""Flat tables, one row per customer: how a model of columns reads a row, and who of them left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from services.health.measures import NEUTRAL
from services.health.plan import points_between, points_from, weighted_mean
from services.health.settings import Bands, Language, Points, Settings, Steps, Words
from shared.errors import Misconfigured

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Table = Sequence[Mapping[str, str]]
OTHERWISE = "*"


class Column(Settings):
    """One column of a flat table: numbers on a scale or in steps, or words by what each is worth.

    `at_least` gives the points of the last step that a number reaches. In `values` the word `*` stands for every other
    one. A number for `missing` says what an empty cell is worth.
    """

    kind: Literal["column"]
    column: Annotated[str, Field(min_length=1)]
    label: Words | None = None
    group: str = "table"
    weight: Annotated[float, Field(gt=0)]
    worst: float | None = None
    best: float | None = None
    at_least: Steps | None = None
    values: Annotated[dict[str, Points], Field(min_length=1)] | None = None
    missing: Literal["ignore", "neutral", "zero"] | Points = "ignore"

    @field_validator("values", mode="before")
    @classmethod
    def _words_are_text(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if any(isinstance(word, bool) for word in values):
            raise ValueError("YAML reads Yes, No, True, False, on and off as truth values: put them in quotes")
        return {word if isinstance(word, str) else f"{word}": points for word, points in values.items()}

    @model_validator(mode="after")
    def _has_one_scale(self) -> Self:
        ends = [end for end in (self.worst, self.best) if end is not None]
        given = [bool(ends), self.at_least is not None, self.values is not None]
        if sum(given) != 1 or len(ends) == 1:
            raise ValueError("write one scale: worst and best or at_least (for numbers), or values (for words)")
        if len(ends) == 2 and ends[0] == ends[1]:
            raise ValueError(f"worst and best are both {ends[0]:g}: a scale needs two different ends")
        return self


class TableModel(Settings):
    """How a row of a flat table is scored: as `Model`, of columns."""

    language: Language = "en"
    coverage_floor: Annotated[float, Field(ge=0, le=1)] = 0.5
    bands: Bands = Bands()
    measures: Annotated[dict[str, Column], Field(min_length=1)]


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


def labelled(table: Table, label: Label, models: Iterable[TableModel] = ()) -> Bools:
    """Which rows left.

    Raises Misconfigured for a label or column that is not there, or a label that a model reads.
    """
    columns = list(table[0]) if table else []
    need_column(table, label.column)
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
    return left


def need_column(table: Table, name: str) -> None:
    columns = list(table[0]) if table else []
    if name not in columns:
        raise Misconfigured(f"the table has no column {name!r}; it has: {', '.join(columns)}")


def scores(table: Table, model: TableModel) -> Floats:
    """Each row's exact score; NaN where too little is known for one."""
    readers = [Reader(name, measure) for name, measure in model.measures.items()]
    weight = math.fsum(reader.weight for reader in readers)
    return np.array([_score(row, number, readers, weight, model) for number, row in enumerate(table, 1)], np.float64)


def _score(row: Mapping[str, str], number: int, readers: Sequence[Reader], total: float, model: TableModel) -> float:
    """The score of one row (`number` names it in errors), as health scores an account."""
    known, measured = [], 0.0
    for reader in readers:
        points, is_measured = reader.read(row, number)
        measured += reader.weight * is_measured
        if points is not None:
            known.append((reader.weight, points))
    exact = weighted_mean(known)
    return math.nan if exact is None or measured / total < model.coverage_floor else exact


class Reader:
    """Reads one measure's cell of a row; what a text is worth is worked out once."""

    def __init__(self, name: str, measure: Column) -> None:
        self.name, self.measure, self.weight = name, measure, measure.weight
        self._known: dict[str, tuple[float | None, bool]] = {}
        steps = sorted((measure.at_least or {}).items())
        self._edges, self._steps = [edge for edge, _ in steps], [points for _, points in steps]

    def read(self, row: Mapping[str, str], number: int) -> tuple[float | None, bool]:
        """What the cell is worth, 0 to 100 or nothing, and whether that is measured rather than assumed.

        Raises Misconfigured that names row, column and what is wrong with the cell.
        """
        text = row[self.measure.column]
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self._worth(text.strip(), number)
        return found

    def _worth(self, text: str, number: int) -> tuple[float | None, bool]:
        measure, values = self.measure, self.measure.values
        where = f"row {number}, column {measure.column} (measure {self.name})"
        if values is not None and (text in values or text):
            points = values.get(text, values.get(OTHERWISE))
            if points is None:
                known = ", ".join(sorted(values))
                raise Misconfigured(
                    f"{where}: {text!r} has no points; values has: {known} (add it, or '*' for all others)"
                )
            return points, True
        if not text:
            if not isinstance(measure.missing, str):
                return measure.missing, True
            return {"ignore": None, "neutral": NEUTRAL, "zero": 0.0}[measure.missing], False
        value = number_in(text)
        if value is None:
            raise Misconfigured(f"{where}: {text!r} is not a finite number; give the measure values for words")
        if self._edges:
            return points_from(value, self._edges, self._steps), True
        assert measure.worst is not None
        assert measure.best is not None
        return points_between(value, measure.worst, measure.best), True


def number_in(text: str) -> float | None:
    """A cell's finite number; None when it says anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None
