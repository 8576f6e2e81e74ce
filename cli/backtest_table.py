"""What a model reached on a flat table, as figures and for reading; and a model proposed from one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np

from cli import files, output
from services.health import backtest, fitting, proposal, tables
from services.health.backtest import Difference, Floats, Report, Sample, Scored
from services.health.calibration import FOLDS, SEED
from services.health.fitting import Proposal
from services.health.tables import Label, Table, TableModel
from shared import config
from shared.config import Loaded
from shared.errors import Misconfigured


def read_table(path: Path) -> Table:
    """The rows of a CSV (gzip is fine), each by its header.

    Raises click.ClickException that names the line that is not as wide as the header.
    """
    with files.opened(path) as source:
        try:
            text = source.lines.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            kind = "Parquet" if error.object.startswith(files.PARQUET) else "not UTF-8"
            raise click.ClickException(f"{path} is {kind}; write it as CSV in UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    if len(set(header)) < len(header):
        raise click.ClickException(f"{path}: two columns have the same name; rename one.")
    rows = []
    for cells in reader:
        if len(cells) == len(header):
            rows.append(dict(zip(header, cells, strict=True)))
        elif cells:
            raise click.ClickException(f"{path}, line {reader.line_num}: {len(cells)} cells under {len(header)} names.")
    if not rows:
        raise click.ClickException(f"{path} has no rows.")
    return rows


def judged(
    table: Table,
    label: str,
    model: Loaded[TableModel],
    against: Loaded[TableModel] | None = None,
    dates: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """What a model reached on a table, and how another one compares; `dates` are the columns of lead times."""
    models = [one for one in (model, against) if one]
    chosen = Label.read(label)
    left = tables.labelled(table, chosen, [one.model for one in models])
    sample = Sample(left, [str(row) for row in range(len(table))])
    found = [tables.scores(table, one.model) for one in models]
    lead = lead_days(table, left, *dates) if dates else None
    reports = [
        backtest.report(sample, Scored.of(scores, one.model.bands), lead)
        for scores, one in zip(found, models, strict=True)
    ]
    row = {"model": str(model.path), "config_hash": model.digest, "label": label, **report_row(reports[0], sample)}
    if against:
        row["against"] = {"model": str(against.path), "config_hash": against.digest, **report_row(reports[1], sample)}
        row["difference"] = difference_row(backtest.difference(found[0], found[1], sample), sample)
    return row


def lead_days(table: Table, left: backtest.Bools, seen_on: str, left_on: str) -> Floats:
    """Days from each row's day to the one of leaving; NaN of those who stayed.

    Raises Misconfigured that names the row with no day, or one that was seen after its customer had left.
    """
    for name in (seen_on, left_on):
        tables.need_column(table, name)
    found = np.full(len(table), math.nan)
    for row in np.flatnonzero(left).tolist():
        seen, gone = (_day(table[row][name], row + 1, name) for name in (seen_on, left_on))
        if gone < seen:
            raise Misconfigured(
                f"row {row + 1}: {left_on} {gone} is before {seen_on} {seen}: the row was seen when all was over"
            )
        found[row] = (gone - seen).days
    return found


def _day(text: str, row: int, column: str) -> date:
    try:
        return date.fromisoformat(text.strip()[:10])
    except ValueError as error:
        raise Misconfigured(f"row {row}, column {column}: {text!r} is not a day; write 2026-03-31") from error


def fitted(
    table: Table,
    label: str,
    name: str,
    against: Loaded[TableModel] | None = None,
    *,
    keep: Sequence[str] = (),
    without: Sequence[str] = (),
) -> tuple[dict[str, Any], str]:
    """The figures of a proposed model, and the model as YAML; `name` is of the table."""
    chosen = Label.read(label)
    found = fitting.propose(table, chosen, keep=keep, without=without)
    left = tables.labelled(table, chosen, [against.model] if against else [])
    sample = Sample(left, [str(row) for row in range(len(table))])
    row = {"label": label, **proposal_row(found, sample)}
    if against:
        scores = tables.scores(table, against.model)
        other = backtest.report(sample, Scored.of(scores, against.model.bands))
        row["against"] = {"model": str(against.path), "config_hash": against.digest, **report_row(other, sample)}
        row["difference"] = difference_row(backtest.difference(100 * (1 - found.chances), scores, sample), sample)
    text = proposal.as_yaml(found, f"--table {name} --label {label}")
    row["config_hash"] = config.parse(text, TableModel).digest
    return row, text


def proposal_row(found: Proposal, sample: Sample) -> dict[str, Any]:
    """What a proposed model reached out of fold, and what it is made of."""
    model = found.learnt.model
    return {
        "model": "proposed",
        "out_of_fold": True,
        "folds": FOLDS,
        "seed": SEED,
        **report_row(found.report, sample),
        "left_out": [asdict(one) for one in found.left_out],
        "unused": list(found.unused),
        "measures": [proposal.described(name, found.learnt) for name in model.measures],
        "bands": {"amber": model.bands.amber, "green": model.bands.green},
    }


def report_row(report: Report, sample: Sample) -> dict[str, Any]:
    said = asdict(report)
    said["auc_ci_method"] = sample.method
    said["lift"] = [decile.lift for decile in report.deciles]
    if report.precision_red is None:
        said["precision_red_reason"] = said["lift_red_reason"] = "no customer is red"
    if report.lead_days is None:
        said["lead_days_reason"] = "nobody who left was red, or no days are known (--seen-on, --left-on)"
    gone = len({owner for owner, left in zip(sample.owner, sample.left, strict=True) if left})
    if gone < backtest.FEWEST:
        said["caution"] = f"only {gone} customers left: below {backtest.FEWEST}, figures are luck more than knowledge"
    return said


def difference_row(found: Difference, sample: Sample) -> dict[str, Any]:
    return {
        "auc": found.auc,
        "auc_ci": list(found.ci),
        "auc_ci_method": f"paired {sample.method}",
        "p_value": found.p_value,
        "n": found.n,
    }


def described(found: Mapping[str, Any]) -> str:
    """The report for reading."""
    parts = [lines_of(found)]
    if "against" in found:
        parts += [[f"against {found['against']['model']}", *lines_of(found["against"])], [verdict(found["difference"])]]
    return "\n\n".join("\n".join(part) for part in parts)


def verdict(gap: Mapping[str, Any]) -> str:
    low, high = gap["auc_ci"]
    said = "no difference is shown" if low <= 0 <= high else "better" if gap["auc"] > 0 else "worse"
    return f"AUC {gap['auc']:+.4f} [{low:+.4f}, {high:+.4f}] ({gap['auc_ci_method']}): {said}"


def lines_of(found: Mapping[str, Any], rows: str = "customers") -> list[str]:
    low, high = found["auc_ci"]
    precision = found["precision_red"]
    red = "nobody is red" if precision is None else f"{found['red']:,} red, {precision:.1%} of them left"
    multiple = "" if precision is None else f" ({found['lift_red']:.1f} × the mean; wanted: 3)"
    tried = f", out of fold ({found['folds']} folds)" if found.get("out_of_fold") else ""
    lines = [
        f"{found['n']:,} {rows}, {found['positives']:,} left ({found['positives'] / found['n']:.1%})",
        f"AUC {found['auc']:.4f} [{low:.4f}, {high:.4f}] ({found['auc_ci_method']}){tried}",
        f"{red}{multiple}; {found['recall_red']:.1%} of those who left were red",
        f"{found['share_green']:.1%} green (wanted: 80 % at most); "
        f"{found['below_green']:.1%} of those who left were not (wanted: two thirds)",
        f"of the tenth with the lowest scores {found['precision_at_decile']:.1%} left, "
        f"{found['recall_at_decile']:.1%} of all who did",
    ]
    if found["lead_days"] is not None:
        lines.append(f"{found['lead_days']:g} days ahead (median of those who left and were red)")
    if found["unscored"]:
        lines.append(f"{found['unscored']:,} have no score: too little is known of them")
    if "caution" in found:
        lines.append(f"caution: {found['caution']}")
    return [*lines, "", _deciles(found["deciles"]), "", *_calibration(found["calibration"])]


def _deciles(deciles: Sequence[Mapping[str, float]]) -> str:
    rows = [("TENTH", "MEAN SCORE", "LEFT", "LIFT")]
    rows += [
        (f"{number}", f"{one['score']:.1f}", f"{one['churned_pct']:.1f} %", f"{one['lift']:.2f}")
        for number, one in enumerate(deciles, 1)
    ]
    return output.table(rows)


def _calibration(found: Mapping[str, Any]) -> list[str]:
    rows = [("CHANCE FROM SCORE", "LEFT", "ROWS")]
    rows += [(f"{one['expected_pct']:.1f} %", f"{one['churned_pct']:.1f} %", f"{one['n']:,}") for one in found["bins"]]
    said = f"Brier {found['brier']:.4f} (the mean share for all: {found['brier_of_mean']:.4f})"
    return [output.table(rows), f"{said}; chances are {found['gap_pct']:.1f} points off on average"]


def columns(found: Mapping[str, Any]) -> str:
    rows = [("MEASURE", "WEIGHT", "WORST", "BEST")]
    rows += [(one["measure"], f"{one['weight']:g}", one["worst"], one["best"]) for one in found["measures"]]
    lines = [output.table(rows)]
    lines += [f"left out: {one['column']}: {one['reason']}" for one in found["left_out"]]
    if found["unused"]:
        lines.append(f"adds nothing to the others: {', '.join(found['unused'])}")
    return "\n".join(lines)
