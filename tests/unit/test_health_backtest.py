"""A backtest says how well scores told churn: exact rankings, honest intervals, nothing that knew the answer."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.backtest import command
from services.health import backtest, tables
from services.health.backtest import Report, Sample, Scored
from services.health.tables import Label, TableModel
from shared import config
from shared.errors import Misconfigured

TELCO = Path(__file__).resolve().parents[3] / "shared" / "data" / "telco-churn.csv"
EXAMPLE = Path(__file__).parents[2] / "config/examples/telco.yaml"
MODEL = """
measures:
  months: {kind: column, column: months, weight: 3, worst: 0, best: 10}
  plan: {kind: column, column: plan, weight: 1, values: {free: 0, paid: 100, "*": 50}}
"""


def model(text: str = MODEL) -> TableModel:
    return config.parse(text, TableModel).model


def a_table(rows: int = 200, shift: float = 2.0, seed: int = 7) -> list[dict[str, str]]:
    dice = np.random.default_rng(seed)
    left = dice.random(rows) < 0.4
    months = np.clip(dice.normal(5 - shift * left, 2), 0, 10).round(1)
    return [
        {"id": str(n), "months": f"{m:g}", "plan": "free" if n % 3 else "paid", "left": "yes" if gone else "no"}
        for n, (m, gone) in enumerate(zip(months, left, strict=True))
    ]


def sample_of(left: Any) -> Sample:
    return Sample(left, [str(row) for row in range(len(left))])


def reported(scores: Any, left: Any) -> Report:
    return backtest.report(sample_of(left), Scored.of(scores, model().bands))


@st.composite
def samples(draw: st.DrawFn) -> tuple[Any, Any]:
    scores = draw(st.lists(st.integers(0, 12), min_size=120, max_size=160))
    left = [n % 2 == 0 or score < draw(st.integers(0, 6)) for n, score in enumerate(scores[:100])]
    return np.array(scores, float), np.array([*left, *[False] * (len(scores) - 100)], bool)


def by_definition(scores: Any, left: Any) -> tuple[float, Any, Any]:
    """Every pair of one who left and one who stayed: 1 when the score of the first is lower, half when equal."""
    gone, there = scores[left], scores[~left]
    wins = (gone[:, None] < there[None, :]) + 0.5 * (gone[:, None] == there[None, :])
    return float(wins.mean()), wins.mean(axis=1), wins.mean(axis=0)


def spread(values: Any) -> float:
    return float(sum((value - values.mean()) ** 2 for value in values) / (len(values) - 1) / len(values))


@given(samples())
@settings(deadline=None, max_examples=25)
def test_the_auc_and_its_interval_are_those_of_all_pairs(sample: tuple[Any, Any]) -> None:
    scores, left = sample
    found = reported(scores, left)
    auc, of_left, of_stayed = by_definition(scores, left)
    assert found.auc == pytest.approx(auc, abs=1e-12)
    half = 1.959963984540054 * math.sqrt(spread(of_left) + spread(of_stayed))
    assert found.auc_ci == pytest.approx((max(0, auc - half), min(1, auc + half)), abs=1e-12)


@given(samples(), st.randoms())
@settings(deadline=None, max_examples=25)
def test_neither_the_order_of_rows_nor_the_scale_of_scores_matters(sample: tuple[Any, Any], dice: Any) -> None:
    scores, left = sample
    order = list(range(len(scores)))
    dice.shuffle(order)
    there, shuffled = backtest.deciles(scores, left), backtest.deciles(scores[order], left[order])
    for one, other in zip(there, shuffled, strict=True):
        assert (one.score, one.lift) == pytest.approx((other.score, other.lift))
    assert sum(decile.lift for decile in there) == pytest.approx(10)
    squared = reported(scores[order] ** 2 / 2, left[order])
    assert squared.auc == pytest.approx(reported(scores, left).auc)


@given(samples(), st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_the_difference_of_two_models_is_paired(sample: tuple[Any, Any], noise: int) -> None:
    scores, left = sample
    other = scores + np.random.default_rng(noise).normal(0, 3, len(scores)).round()
    found = backtest.difference(scores, other, sample_of(left))
    one, two = by_definition(scores, left), by_definition(other, left)
    assert found.auc == pytest.approx(one[0] - two[0], abs=1e-12)
    error = math.sqrt(spread(one[1] - two[1]) + spread(one[2] - two[2]))
    assert found.ci[1] - found.ci[0] == pytest.approx(2 * 1.959963984540054 * error, abs=1e-12)
    same = backtest.difference(scores, scores, sample_of(left))
    assert (same.auc, same.ci, same.p_value) == (0, (0, 0), None)


def test_columns_earn_points_as_measures_do() -> None:
    def score(row: dict[str, str], text: str = MODEL) -> float:
        return float(tables.scores([row], model(text))[0])

    row = {"months": "5", "plan": "paid", "left": "no"}
    assert score(row) == (3 * 50 + 100) / 4
    assert score(row | {"plan": "trial"}) == 50
    assert score(row | {"months": " "}, "coverage_floor: 0.25\n" + MODEL) == 100
    assert math.isnan(score(row | {"months": " "}))


def test_numbers_earn_the_points_of_the_last_step_they_reach() -> None:
    chosen = model("measures:\n  m: {kind: column, column: m, weight: 1, missing: 7, at_least: {5.5: 90, 0: 0, 2: 40}}")
    worth = {"-3": 0, "1.99": 0, "2": 40, "5.4": 40, "5.5": 90, "1e9": 90, " ": 7}
    assert {text: float(tables.scores([{"m": text}], chosen)[0]) for text in worth} == worth


def test_bands_count_what_left_and_who_has_no_score_was_missed() -> None:
    scores = np.array([20.0] * 60 + [39.4] * 20 + [39.5] * 40 + [80.0] * 80 + [math.nan] * 10)
    left = np.array([True] * 60 + [False] * 20 + [True, False] * 20 + [False] * 80 + [True] * 10)
    found = reported(scores, left)
    assert (found.red, found.precision_red, found.recall_red) == (80, 0.75, 60 / 90)
    assert (found.n, found.positives, found.unscored) == (210, 90, 10)
    assert found.share_green == 80 / 210
    assert found.below_green == 80 / 90


@pytest.mark.parametrize(
    ("label", "text", "why"),
    [
        ("left", MODEL, "not COLUMN=VALUE"),
        ("gone=yes", MODEL, "no column 'gone'; it has: id, months, plan, left"),
        ("left=maybe", MODEL, "there are: no, yes"),
        ("plan=paid", MODEL, "measure plan reads the label 'plan'"),
        ("id=7", MODEL, "1 customers left"),
        ("left=yes", MODEL.replace("column: months", "column: weeks"), "months: the table has no column 'weeks'"),
        ("left=yes", MODEL.replace(', "*": 50', "").replace("paid", "gold"), "row 1, column plan (measure plan)"),
        ("left=yes", MODEL.replace("column: months", "column: plan"), "'paid' is not a finite number"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(label: str, text: str, why: str) -> None:
    table, chosen = a_table(), model(text)

    def judge() -> None:
        backtest.enough(tables.labelled(table, Label.read(label), [chosen]))
        tables.scores(table, chosen)

    with pytest.raises(Misconfigured) as refused:
        judge()
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("measure", "why"),
    [
        ("worst: 1", "write one scale"),
        ("worst: 1, best: 2, at_least: {0: 1}", "write one scale"),
        ("worst: 1, best: 2, values: {a: 1}", "write one scale"),
        ("at_least: {0: 1, 5: 101}", "less than or equal to 100"),
        ("best: 2, worst: 2", "two different ends"),
        ("values: {Yes: 1}", "put them in quotes"),
        ("values: {a: 101}", "less than or equal to 100"),
    ],
)
def test_a_column_has_one_scale(measure: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        model(f"measures:\n  m: {{kind: column, column: c, weight: 1, {measure}}}")


def a_csv(folder: Path, rows: list[dict[str, str]]) -> str:
    path = folder / "table.csv"
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines))
    return str(path)


def test_the_command_compares_two_models(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(MODEL)
    bad.write_text(MODEL.replace("months, weight: 3", "id, weight: 3"))
    arguments = ["--table", a_csv(tmp_path, a_table(shift=4.0)), "--label", "left=yes", "--model", str(good)]
    found = json.loads(CliRunner().invoke(command, [*arguments, "--against", str(bad), "--json"]).stdout)
    assert found["auc"] > 0.7 > found["against"]["auc"]
    assert found["auc_ci"][0] < found["auc"] < found["auc_ci"][1]
    assert found["difference"]["auc_ci"][0] > 0
    assert {"precision_red", "recall_red", "lift", "share_green", "n", "positives"} <= found.keys()
    text = CliRunner().invoke(command, [*arguments, "--against", str(bad)]).stdout
    assert "better" in text


def test_lead_time_is_told_where_the_table_has_days(tmp_path: Path) -> None:
    rows = a_table(shift=4.0)
    for number, row in enumerate(rows):
        row |= {"seen": "2026-03-01", "gone": f"2026-04-{number % 20 + 1:02}" if row["left"] == "yes" else ""}
    chosen = tmp_path / "model.yaml"
    chosen.write_text(MODEL)
    arguments = ["--table", a_csv(tmp_path, rows), "--label", "left=yes", "--model", str(chosen), "--json"]
    dated = [*arguments, "--seen-on", "seen", "--left-on", "gone"]
    found = json.loads(CliRunner().invoke(command, dated).stdout)
    points = tables.scores(rows, model())
    days = [n % 20 + 31 for n, row in enumerate(rows) if row["left"] == "yes" and math.floor(points[n] + 0.5) < 40]
    assert len(days) > 5
    assert found["lead_days"] == statistics.median(days)
    assert json.loads(CliRunner().invoke(command, arguments).stdout)["lead_days"] is None
    leaver = next(row for row in rows if row["left"] == "yes")
    leaver["gone"] = "2026-02-27"
    a_csv(tmp_path, rows)
    refused = CliRunner().invoke(command, dated)
    assert "is before seen 2026-03-01: the row was seen when all was over" in str(refused.exception)
    leaver["gone"] = "soon"
    a_csv(tmp_path, rows)
    assert "'soon' is not a day" in str(CliRunner().invoke(command, dated).exception)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "give --log or --table"),
        (["--log", "--table", "t.csv"], "give --log or --table"),
        (["--table", "t.csv", "--label", "a=b"], "--table needs --label and --model"),
        (["--log", "--label", "a=b"], "are of tables"),
        (["--table", "t.csv", "--label", "a=b", "--model", "m", "--seen-on", "c"], "both --seen-on and --left-on"),
        (["fit"], "give --log or --table"),
        (["fit", "--table", "t.csv"], "--table needs --label"),
        (["fit", "--log", "--keep", "a"], "--log --model names the measures"),
        (["fit", "--table", "t.csv", "--label", "a=b", "--model", "m"], "--model is of --log"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], why: str) -> None:
    refused = CliRunner().invoke(command, arguments)
    assert refused.exit_code == 2
    assert why in " ".join(refused.output.split())


def test_a_crooked_row_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3\n")
    refused = CliRunner().invoke(command, ["--table", str(path), "--label", "a=1", "--model", str(EXAMPLE)])
    assert refused.exit_code == 1
    assert "line 3: 1 cells under 2 names" in refused.output


@pytest.mark.skipif(not TELCO.exists(), reason="the public table is not here")
def test_the_example_model_tells_who_leaves() -> None:
    arguments = ["--table", str(TELCO), "--label", "Churn=Yes", "--model", str(EXAMPLE), "--json"]
    found = json.loads(CliRunner().invoke(command, arguments).stdout)
    assert (found["n"], found["positives"], found["unscored"]) == (7043, 1869, 0)
    assert found["auc_ci"][0] > 0.80


def test_the_example_model_is_valid() -> None:
    assert len(config.load(EXAMPLE, TableModel).model.measures) == 7
