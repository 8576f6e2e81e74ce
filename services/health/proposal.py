"""A proposed model as people read it: YAML with the figures it was chosen for, and with each group's share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from services.health.calibration import FOLDS
from services.health.fitting import Learnt, Proposal
from services.health.settings import Measure, Model
from services.health.shapes import Group
from services.health.tables import Column

WIDTH = 118


def as_yaml(found: Proposal, options: str, model: Model | None = None) -> str:
    """The model as a file that `hune backtest --model` reads; `options` are of the command, `model` is of a history."""
    of_table = found.learnt.model
    head = "\n".join(f"# {line}" for said in _head(found, options, model) for line in textwrap.wrap(said, WIDTH))
    settings = {
        "coverage_floor": of_table.coverage_floor if model is None else model.coverage_floor,
        "bands": {"amber": _short(of_table.bands.amber), "green": _short(of_table.bands.green)},
    }
    parts = [head, _dump(settings if model is None else {"language": model.language} | settings), "", "measures:"]
    for name, column in of_table.measures.items():
        parts += [f"  # {line}" for line in textwrap.wrap(_shares(found.learnt, column), WIDTH - 4)]
        fields = {name: _fields(column)} if model is None else {column.column: _measure(model.measures[column.column])}
        parts.append(textwrap.indent(_dump(fields), "  "))
    return "\n".join(parts) + "\n"


def _head(found: Proposal, options: str, model: Model | None) -> Iterator[str]:
    report = found.report
    low, high = report.auc_ci
    rows = "customers" if model is None else "account-months"
    yield f"Proposed by hune backtest fit {options}"
    yield (
        f"Learnt from {report.n:,} {rows}; {report.positives:,} left. Tried on customers that it had not learnt from "
        f"({FOLDS} folds): AUC {report.auc:.4f} [{low:.4f}, {high:.4f}]; of the tenth with the lowest scores "
        f"{report.precision_at_decile:.1%} left."
    )
    yield "Red is about the tenth with the lowest scores; three quarters of those who left were below green."
    for one in found.left_out:
        yield f"Left out: {one.column}: {one.reason}."
    if found.unused:
        yield f"Adds nothing to the others: {', '.join(found.unused)}."


def described(name: str, learnt: Learnt) -> dict[str, Any]:
    """A measure for the report: its weight and what is worth least and most."""
    measure = learnt.model.measures[name]
    groups = sorted(_named(learnt, measure), key=lambda one: one[1].rate)
    (best, low), (worst, high) = groups[0], groups[-1]
    return {
        "measure": name,
        "column": measure.column,
        "weight": measure.weight,
        "worst": f"{worst} ({100 * high.rate:.0f} % left)",
        "best": f"{best} ({100 * low.rate:.0f} % left)",
    }


def _shares(learnt: Learnt, measure: Column) -> str:
    said = (f"{words}: {100 * group.rate:.0f} % of {group.n:,}" for words, group in _named(learnt, measure))
    return f"left: {'; '.join(said)}"


def _named(learnt: Learnt, measure: Column) -> Iterator[tuple[str, Group]]:
    shape = learnt.shapes[measure.column]
    edges = [f"{edge:.15g}" for edge in shape.edges] if shape.is_numeric else []
    for place, group in enumerate(shape.groups):
        if not shape.is_numeric:
            yield " or ".join(str(word) for word in group.holds), group
        elif place < len(edges):
            yield f"below {edges[place]}", group
        else:
            yield f"{edges[-1]} and above" if edges else "any number", group
    if shape.empty is not None:
        yield "empty", shape.empty


def _fields(measure: Column) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": measure.kind, "column": measure.column, "weight": measure.weight}
    if measure.at_least is not None:
        said["at_least"] = {_short(edge): _short(points) for edge, points in measure.at_least.items()}
    if measure.values is not None:
        said["values"] = {word: _short(points) for word, points in measure.values.items()}
    if measure.missing != "ignore":
        said["missing"] = measure.missing if isinstance(measure.missing, str) else _short(measure.missing)
    return said


def _measure(measure: Measure) -> dict[str, Any]:
    """A measure of the history: what it asks as it was, its scale and weight as they were found."""
    said = measure.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    first = {"label": said.pop("label"), "group": said.pop("group"), "kind": said.pop("kind")}
    own = {name: value for name, value in said.items() if name not in ("weight", "at_least", "missing")}
    steps = {_short(edge): _short(points) for edge, points in (measure.at_least or {}).items()}
    return first | own | {"weight": measure.weight, "at_least": steps}


def _short(number: float) -> float:
    return int(number) if number.is_integer() else number


def _dump(said: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, default_flow_style=None, width=WIDTH)
    return text.rstrip("\n")
