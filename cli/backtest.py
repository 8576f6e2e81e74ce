"""`hune backtest`: how well a model told churn in advance."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli import files, output
from services.health import backtest
from services.health.backtest import Difference, Label, Report, Table
from services.health.settings import TableModel, load_table_model
from shared.config import Loaded

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("backtest")
@click.option("--table", type=FILE, required=True, metavar="CSV", help="One row per customer.")
@click.option("--label", required=True, metavar="COL=VALUE", help="Which rows left, such as Churn=Yes.")
@click.option("--model", type=FILE, required=True, metavar="FILE", help="Its measures are columns of the table.")
@click.option("--against", type=FILE, metavar="FILE", help="Another model to compare with, on the same rows.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(table: Path, label: str, model: Path, against: Path | None, as_json: bool) -> None:
    """Score each row of a flat table by a model, and hold the scores against who left.

    A model reads like config/health.yaml with measures of `kind: column`; see config/examples/telco.yaml.
    Needs no stack.
    """
    found = judged(read_table(table), label, load_table_model(model), load_table_model(against) if against else None)
    click.echo(output.json_line(found) if as_json else described(found))


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
    table: Table, label: str, model: Loaded[TableModel], against: Loaded[TableModel] | None = None
) -> dict[str, Any]:
    """What a model reached on a table, and how another one compares."""
    models = [one for one in (model, against) if one]
    left = backtest.labelled(table, Label.read(label), [one.model for one in models])
    found = [backtest.scores(table, one.model) for one in models]
    reports = [backtest.report(scores, left, one.model, one.digest) for scores, one in zip(found, models, strict=True)]
    row = {"model": str(model.path), "label": label, **_row(reports[0])}
    if against:
        row["against"] = {"model": str(against.path), **_row(reports[1])}
        row["difference"] = _difference(backtest.difference(found[0], found[1], left))
    return row


def _row(report: Report) -> dict[str, Any]:
    said = asdict(report)
    said["auc_ci_method"] = backtest.METHOD
    said["lift"] = [decile.lift for decile in report.deciles]
    if report.precision_red is None:
        said["precision_red_reason"] = said["lift_red_reason"] = "no customer is red"
    return said


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "auc": found.auc,
        "auc_ci": list(found.ci),
        "auc_ci_method": f"paired {backtest.METHOD}",
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
    lines = [
        f"{found['n']:,} customers, {found['positives']:,} left ({found['positives'] / found['n']:.1%})",
        f"AUC {found['auc']:.4f} [{low:.4f}, {high:.4f}] ({found['auc_ci_method']})",
        f"{red}{multiple}; {found['recall_red']:.1%} of those who left were red",
        f"{found['share_green']:.1%} green (wanted: 80 % at most); "
        f"{found['below_green']:.1%} of those who left were not (wanted: two thirds)",
    ]
    if found["unscored"]:
        lines.append(f"{found['unscored']:,} have no score: too little is known of them")
    return [*lines, "", _deciles(found["deciles"])]


def _deciles(deciles: Sequence[Mapping[str, float]]) -> str:
    rows = [("TENTH", "MEAN SCORE", "LEFT", "LIFT")]
    rows += [
        (f"{number}", f"{one['score']:.1f}", f"{one['churned_pct']:.1f} %", f"{one['lift']:.2f}")
        for number, one in enumerate(deciles, 1)
    ]
    return output.table(rows)
