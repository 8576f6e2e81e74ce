"""`hune backtest`: how well a model told churn in advance; `hune backtest fit`: a model learnt from who left."""

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
from services.health.tables import Label, Table, TableModel
from shared import config
from shared.config import Loaded
from shared.errors import Misconfigured

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("backtest", invoke_without_command=True)
@click.option("--table", type=FILE, metavar="CSV", help="One row per customer.")
@click.option("--label", metavar="COL=VALUE", help="Which rows left, such as Churn=Yes.")
@click.option("--model", type=FILE, metavar="FILE", help="Its measures are columns of the table.")
@click.option("--against", type=FILE, metavar="FILE", help="Another model to compare with, on the same rows.")
@click.option("--seen-on", metavar="COL", help="The column with the day that a row is of, for lead times.")
@click.option("--left-on", metavar="COL", help="The column with the day that a customer left or gave notice.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_context
def command(
    context: click.Context,
    table: Path | None,
    label: str | None,
    model: Path | None,
    against: Path | None,
    seen_on: str | None,
    left_on: str | None,
    as_json: bool,
) -> None:
    """Score each row of a flat table by a model, and hold the scores against who left.

    A model reads like config/health.yaml with measures of `kind: column`; see config/examples/telco.yaml.
    Needs no stack.
    """
    if context.invoked_subcommand:
        return
    if table is None or label is None or model is None:
        raise click.UsageError("give --table, --label and --model, or `hune backtest fit` to have a model proposed")
    if (seen_on is None) != (left_on is None):
        raise click.UsageError("lead times need both --seen-on and --left-on")
    rows = read_table(table)
    other = config.load(against, TableModel) if against else None
    dates = (seen_on, left_on) if seen_on and left_on else None
    found = judged(rows, label, config.load(model, TableModel), other, dates)
    click.echo(output.json_line(found) if as_json else described(found))


@command.command("fit")
@click.option("--table", type=FILE, required=True, metavar="CSV", help="One row per customer.")
@click.option("--label", required=True, metavar="COL=VALUE", help="Which rows left, such as Churn=Yes.")
@click.option("--out", type=FILE, metavar="FILE", help="Where the model goes (default: stdout).")
@click.option("--against", type=FILE, metavar="FILE", help="A model written by hand to compare with.")
@click.option("--without", multiple=True, metavar="COL", help="Do not learn from this column; may be repeated.")
@click.option("--keep", multiple=True, metavar="COL", help="Learn from it although it looks unfit; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def fit(
    table: Path,
    label: str,
    out: Path | None,
    against: Path | None,
    without: tuple[str, ...],
    keep: tuple[str, ...],
    as_json: bool,
) -> None:
    """Propose a model: monotone bands per column and weights, learnt from who left.

    Every figure is of rows that the model behind it had not learnt from. Needs no stack.
    """
    rows = read_table(table)
    other = config.load(against, TableModel) if against else None
    found, text = fitted(rows, label, table.name, other, keep=keep, without=without)
    if out:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{out} cannot be written: {error.strerror}.") from error
        found["out"] = str(out)
    if as_json:
        click.echo(output.json_line(found))
    elif out:
        click.echo(f"{described(found)}\n\n{_told_columns(found)}\n\nwrote {out}")
    else:
        click.echo(text, nl=False)


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
    row = {"model": str(model.path), "config_hash": model.digest, "label": label, **_row(reports[0], sample)}
    if against:
        row["against"] = {"model": str(against.path), "config_hash": against.digest, **_row(reports[1], sample)}
        row["difference"] = _difference(backtest.difference(found[0], found[1], sample), sample)
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
    row = {
        "model": "proposed",
        "label": label,
        "out_of_fold": True,
        "folds": FOLDS,
        "seed": SEED,
        **_row(found.report, sample),
        "left_out": [asdict(one) for one in found.left_out],
        "unused": list(found.unused),
        "measures": [proposal.described(name, found.learnt) for name in found.learnt.model.measures],
        "bands": {"amber": found.learnt.model.bands.amber, "green": found.learnt.model.bands.green},
    }
    if against:
        scores = tables.scores(table, against.model)
        other = backtest.report(sample, Scored.of(scores, against.model.bands))
        row["against"] = {"model": str(against.path), "config_hash": against.digest, **_row(other, sample)}
        row["difference"] = _difference(backtest.difference(100 * (1 - found.chances), scores, sample), sample)
    text = proposal.as_yaml(found, name, label)
    row["config_hash"] = proposal.read_back(text).digest
    return row, text


def _row(report: Report, sample: Sample) -> dict[str, Any]:
    said = asdict(report)
    said["auc_ci_method"] = sample.method
    said["lift"] = [decile.lift for decile in report.deciles]
    if report.precision_red is None:
        said["precision_red_reason"] = said["lift_red_reason"] = "no customer is red"
    if report.lead_days is None:
        said["lead_days_reason"] = "no days are known: name their columns with --seen-on and --left-on"
    if report.positives < backtest.FEWEST:
        said["caution"] = f"only {report.positives} left: below {backtest.FEWEST}, figures are luck more than knowledge"
    return said


def _difference(found: Difference, sample: Sample) -> dict[str, Any]:
    return {
        "auc": found.auc,
        "auc_ci": list(found.ci),
        "auc_ci_method": f"paired {sample.method}",
        "p_value": found.p_value,
        "n": found.n,
    }


def described(found: Mapping[str, Any]) -> str:
    """The report for reading."""
    lines = _lines(found)
    if "against" in found:
        gap = found["difference"]
        low, high = gap["auc_ci"]
        verdict = "no difference is shown" if low <= 0 <= high else "better" if gap["auc"] > 0 else "worse"
        lines += ["", f"against {found['against']['model']}", *_lines(found["against"]), ""]
        lines += [f"AUC {gap['auc']:+.4f} [{low:+.4f}, {high:+.4f}] ({gap['auc_ci_method']}): {verdict}"]
    return "\n".join(lines)


def _lines(found: Mapping[str, Any]) -> list[str]:
    low, high = found["auc_ci"]
    precision = found["precision_red"]
    red = "nobody is red" if precision is None else f"{found['red']:,} red, {precision:.1%} of them left"
    multiple = "" if precision is None else f" ({found['lift_red']:.1f} × the mean; wanted: 3)"
    tried = f", out of fold ({found['folds']} folds)" if found.get("out_of_fold") else ""
    lines = [
        f"{found['n']:,} customers, {found['positives']:,} left ({found['positives'] / found['n']:.1%})",
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


def _told_columns(found: Mapping[str, Any]) -> str:
    rows = [("MEASURE", "WEIGHT", "WORST", "BEST")]
    rows += [(one["measure"], f"{one['weight']:g}", one["worst"], one["best"]) for one in found["measures"]]
    lines = [output.table(rows)]
    lines += [f"left out: {one['column']}: {one['reason']}" for one in found["left_out"]]
    if found["unused"]:
        lines.append(f"adds nothing to the others: {', '.join(found['unused'])}")
    return "\n".join(lines)
