"""A proposed model: bands that only rise or fall, figures of rows it had not learnt from, and no column that knew."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cli.backtest import command
from cli.backtest_table import read_table
from services.health import backtest, calibration, fitting, shapes, tables
from services.health.backtest import Sample
from services.health.fitting import Proposal
from services.health.shapes import Group
from services.health.tables import Label, TableModel
from shared import config
from shared.errors import Misconfigured

TELCO = Path(__file__).resolve().parents[3] / "shared" / "data" / "telco-churn.csv"
LEFT = Label("left", "yes")
Rows = list[dict[str, str]]


def a_table(rows: int = 600, seed: int = 3) -> Rows:
    """Who logs in little and is on a free plan leaves more often; the colour says nothing."""
    dice = np.random.default_rng(seed)
    found = []
    for row in range(rows):
        logins, plan = int(dice.integers(0, 30)), str(dice.choice(["free", "pro", "team"]))
        odds = 1.5 - 0.2 * logins + {"free": 1.5, "pro": 0.0, "team": -1.0}[plan]
        found.append(
            {
                "customer_id": f"C-{row:05}",
                "logins": str(logins),
                "plan": plan,
                "colour": str(dice.choice(["red", "green", "blue"])),
                "left": "yes" if dice.random() < 1 / (1 + math.exp(-odds)) else "no",
            }
        )
    return found


def proposed(table: Rows, **options: Any) -> Proposal:
    return fitting.propose(table, LEFT, **options)


def rows_of(table: Rows, left: Any, keys: list[str] | None = None) -> fitting.Rows:
    columns, _ = fitting.usable(table, left, LEFT)
    sample = Sample(left, keys or [str(row) for row in range(len(table))])
    return fitting.Rows(columns, sample, lambda rows, model: tables.scores([table[row] for row in rows], model))


def with_column(table: Rows, name: str, cell: Callable[[int, dict[str, str]], str]) -> Rows:
    return [{name: cell(number, row), **row} for number, row in enumerate(table)]


GROUPS = st.lists(
    st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1, max_size=6
).map(lambda counts: [Group(n, gone, (float(at), float(at))) for at, (n, gone) in enumerate(counts)])


def cheapest(groups: list[Group]) -> float:
    """The least squared error of any way to cut neighbours into runs whose shares rise."""
    best = math.inf
    for cuts in product((False, True), repeat=len(groups) - 1):
        runs, start = [], 0
        for end in [*[at + 1 for at, cut in enumerate(cuts) if cut], len(groups)]:
            runs.append(groups[start:end])
            start = end
        means = [sum(g.gone for g in run) / sum(g.n for g in run) for run in runs]
        if all(low <= high for low, high in pairwise(means)):
            best = min(
                best, sum(g.n * (g.rate - mean) ** 2 for run, mean in zip(runs, means, strict=True) for g in run)
            )
    return best


@given(GROUPS)
@settings(deadline=None)
def test_pooling_adjacent_violators_is_the_nearest_rising_curve(groups: list[Group]) -> None:
    found = shapes.pooled(groups, lambda one, other: one.rate > other.rate)
    assert all(low.rate <= high.rate for low, high in pairwise(found))
    assert (sum(g.n for g in found), sum(g.gone for g in found)) == (
        sum(g.n for g in groups),
        sum(g.gone for g in groups),
    )
    error = sum(
        g.n * (g.rate - next(f.rate for f in found if f.holds[0] <= g.holds[0] <= f.holds[1])) ** 2  # type: ignore[operator,misc]
        for g in groups
    )
    assert error == pytest.approx(cheapest(groups), abs=1e-9)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=12, max_size=40))
@settings(deadline=None)
def test_the_logistic_curve_is_where_the_likelihood_is_flat(rows: list[tuple[int, bool]]) -> None:
    numbers, left = np.array([[float(x)] for x, _ in rows]), np.array([gone for _, gone in rows])
    assume(0 < left.sum() < len(left))
    slopes = calibration.logistic(numbers, left, ridge=0.5)

    def cost(at: Any) -> float:
        lines = (at[0] + at[1] * x for x in numbers[:, 0].tolist())
        lost = sum(math.log1p(math.exp(x)) - x * y for x, y in zip(lines, left.tolist(), strict=True))
        return float(lost + 0.25 * at[1] ** 2)

    best = cost(slopes)
    for step in product((-1e-3, 0, 1e-3), repeat=2):
        assert cost(slopes + np.array(step)) >= best - 1e-9


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.booleans()), min_size=5, max_size=60), st.randoms())
def test_folds_keep_a_customer_together_whatever_the_order(rows: list[tuple[str, bool]], dice: Any) -> None:
    def placed(rows: list[tuple[str, bool]]) -> dict[str, set[int]]:
        place = calibration.folds([key for key, _ in rows], np.array([gone for _, gone in rows]), count=3)
        return {key: {int(f) for (k, _), f in zip(rows, place, strict=True) if k == key} for key, _ in rows}

    there = placed(rows)
    assert all(len(found) == 1 for found in there.values())
    shuffled = list(rows)
    dice.shuffle(shuffled)
    assert placed(shuffled) == there


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e3))
def test_borders_tell_their_sides_apart(low: float, gap: float) -> None:
    assume(low + gap > low)
    assert low < shapes.between(low, low + gap) <= low + gap


@pytest.mark.parametrize(
    ("low", "high", "border"), [(6, 7, 7), (6, 20, 10), (0.31, 0.46, 0.4), (-5, 5, 0), (98, 130, 100)]
)
def test_borders_are_short(low: float, high: float, border: float) -> None:
    assert shapes.between(low, high) == border


def test_what_matters_is_found_and_noise_is_not() -> None:
    found = proposed(a_table(1500))
    measures = found.learnt.model.measures
    assert set(measures) == {"logins", "plan"}
    assert measures["logins"].weight > measures["plan"].weight
    points = list((measures["logins"].at_least or {}).values())
    assert points == sorted(points)
    assert (points[0], points[-1]) == (0, 100)
    values = measures["plan"].values or {}
    assert values["free"] < values["pro"] <= values["team"]
    assert found.unused == ("colour",)
    assert [one.column for one in found.left_out] == ["customer_id"]


def test_points_and_weights_are_the_curve_that_was_learnt() -> None:
    """The score ranks as the sum of slope × log odds does, but for rounding to whole points."""
    table = a_table(900)
    left = tables.labelled(table, LEFT)
    rows = rows_of(table, left)
    learnt = fitting.learn(rows, np.ones(len(left), bool))
    assert learnt is not None
    cells = {one.name: one for one in rows.columns}
    odds = {name: shape.of_rows(cells[name]) for name, shape in learnt.shapes.items()}
    slopes = calibration.logistic(np.column_stack(list(odds.values())), left, fitting.RIDGE)[1:]
    line = np.column_stack(list(odds.values())) @ slopes
    found = tables.scores(table, learnt.model)
    assert np.corrcoef(found, -line)[0, 1] > 0.9995
    assert backtest.auc(found, left) == pytest.approx(backtest.auc(-line, left), abs=0.003)


def by_chance(seed: int) -> Rows:
    dice = np.random.default_rng(seed)
    return [
        {
            **{f"x{column}": f"{dice.normal():.3f}" for column in range(6)},
            **{f"w{column}": f"w{dice.integers(0, 25)}" for column in range(6)},
            "left": "yes" if dice.random() < 0.3 else "no",
        }
        for _ in range(1000)
    ]


def test_chance_seldom_makes_a_border() -> None:
    found = [
        shapes.shape_of(one, left, left | True)
        for table in map(by_chance, range(4))
        for left in [tables.labelled(table, LEFT)]
        for one in fitting.usable(table, left, LEFT)[0]
    ]
    assert len(found) == 48
    assert sum(len(shape.groups) > 1 for shape in found) <= 48 / 8


def test_labels_at_random_are_not_told() -> None:
    """What was learnt from a row must not come back in its figure, however closely a model clings to its rows."""
    table = [{"clings": f"w{row % 20}", **one} for row, one in enumerate(by_chance(5))]
    for row, one in enumerate(table):
        if row % 7 == 0:
            one["clings"] = "gone" if one["left"] == "yes" else "here"
    told = [row for row in range(len(table)) if row % 7]
    found = proposed(table)
    left = tables.labelled(table, LEFT)
    assert backtest.auc(-found.chances, left) > 0.55
    assert abs(backtest.auc(-found.chances[told], left[told]) - 0.5) < 0.06


def test_a_row_is_scored_by_models_that_never_saw_it() -> None:
    """Another label of one row moves its own chance only through folds in which it is not."""
    table = a_table(400)
    left = tables.labelled(table, LEFT)
    keys = [row["customer_id"] for row in table]
    tried = calibration.folds(keys, left) == 2
    one, other = (fitting.learn(rows_of(table, labels, keys), ~tried) for labels in (left, left ^ tried))
    assert one is not None
    assert one == other
    _, chances = fitting.out_of_fold(rows_of(table, left, keys))
    there = [row for row, is_tried in zip(table, tried, strict=True) if is_tried]
    assert chances[tried].tolist() == one.curve.at(tables.scores(there, one.model)).tolist()


def test_the_order_of_the_rows_changes_nothing() -> None:
    table = a_table(500)
    one, other = proposed(table), proposed(table[::-1])
    assert one.learnt.model == other.learnt.model
    assert one.report.auc == pytest.approx(other.report.auc)


@pytest.mark.parametrize(
    ("name", "cell", "why"),
    [
        ("reference", lambda n, _: f"R{n * 7919 % 10007}x", "it names rows"),
        ("number", lambda n, _: str(100 + n), "it names rows"),
        ("account", lambda n, _: str(1_000_003 + n * 7919), "it names rows"),
        ("userId", lambda n, _: str(n // 3), "it names rows"),
        ("city", lambda n, _: f"city{n % 200}", "no word of it comes 20 times"),
        ("country", lambda n, _: "FR", "the same of everybody"),
        ("note", lambda n, _: " ", "it is empty"),
        ("since", lambda n, _: f"2025-{n % 12 + 1:02}-01", "it holds days"),
        ("seats", lambda n, _: "n/a" if n % 50 == 0 else str(n % 40), "12 cells that are none ('n/a')"),
        ("reason", lambda n, row: "price" if row["left"] == "yes" else "", "known only afterwards"),
        ("risk", lambda n, row: str(n % 50 + 60 * (row["left"] == "yes")), "known only afterwards"),
    ],
)
def test_columns_that_cannot_be_learnt_from_are_left_out_by_name(
    name: str, cell: Callable[[int, dict[str, str]], str], why: str
) -> None:
    found = proposed(with_column(a_table(), name, cell))
    reasons = {one.column: one.reason for one in found.left_out}
    assert why in reasons[name]
    assert name not in {measure.column for measure in found.learnt.model.measures.values()}


def test_measures_that_only_look_like_names_stay() -> None:
    dice = np.random.default_rng(2)
    table = with_column(a_table(), "spend", lambda n, row: f"{dice.gamma(2, 400 if row['left'] == 'no' else 150):.2f}")
    assert "spend" in proposed(table).learnt.model.measures


def test_one_says_what_is_kept_and_what_is_not() -> None:
    table = with_column(a_table(), "risk", lambda n, row: str(n % 50 + 60 * (row["left"] == "yes")))
    found = proposed(table, keep=["risk"], without=["plan"])
    assert "risk" in found.learnt.model.measures
    assert {one.column: one.reason for one in found.left_out}["plan"] == "as asked"
    with pytest.raises(Misconfigured, match="no column 'plans'"):
        proposed(table, without=["plans"])


def test_an_empty_cell_may_say_something() -> None:
    table = a_table(1500)
    for row in table:
        if row["left"] == "yes" and int(row["logins"]) % 2:
            row["logins"] = ""
    measure = proposed(table).learnt.model.measures["logins"]
    assert measure.missing == 0


def test_below_fifty_who_left_nothing_is_learnt() -> None:
    table, gone = [], 0
    for row in a_table():
        gone += row["left"] == "yes"
        if row["left"] == "no" or gone <= 49:
            table.append(row)
    with pytest.raises(Misconfigured, match=r"49 customers left and .* below 50"):
        proposed(table)


def a_file(folder: Path, table: Rows) -> str:
    path = folder / "table.csv"
    path.write_text("\n".join([",".join(table[0]), *(",".join(row.values()) for row in table)]))
    return str(path)


def test_the_file_it_writes_is_a_model_of_the_same_scores(tmp_path: Path) -> None:
    table, out = a_table(), tmp_path / "model.yaml"
    arguments = ["--table", a_file(tmp_path, table), "--label", "left=yes"]
    found = json.loads(CliRunner().invoke(command, ["fit", *arguments, "--out", str(out), "--json"]).stdout)
    written = config.load(out, TableModel)
    assert written.digest == found["config_hash"]
    assert tables.scores(table, written.model).tolist() == tables.scores(table, proposed(table).learnt.model).tolist()
    assert {"auc", "auc_ci", "precision_at_decile", "calibration", "left_out", "unused", "measures"} <= found.keys()
    assert found["out_of_fold"]
    judged = json.loads(CliRunner().invoke(command, [*arguments, "--model", str(out), "--json"]).stdout)
    assert judged["config_hash"] == found["config_hash"]
    assert CliRunner().invoke(command, ["fit", *arguments]).stdout == out.read_text()
    shown = CliRunner().invoke(command, ["fit", *arguments, "--out", str(out), "--against", str(out)]).stdout
    assert "out of fold (5 folds)" in shown
    assert "left out: customer_id" in shown


def test_words_that_yaml_reads_otherwise_survive(tmp_path: Path) -> None:
    words = ["Yes", "no", "1.0", "null", "a: b", "~", "é # x"]
    table = with_column(
        a_table(1200), "answer", lambda n, row: words[n % 3 if row["left"] == "yes" else n % len(words)]
    )
    out = tmp_path / "model.yaml"
    found = CliRunner().invoke(command, ["fit", "--table", a_file(tmp_path, table), "--label", "left=yes"])
    out.write_text(found.stdout)
    values = config.load(out, TableModel).model.measures["answer"].values
    assert values == proposed(table).learnt.model.measures["answer"].values
    assert set(words) < set(values or {})


@pytest.mark.skipif(not TELCO.exists(), reason="the public table is not here")
def test_a_third_of_the_public_table_teaches_most_of_what_it_knows() -> None:
    found = fitting.propose(read_table(TELCO)[::3], Label("Churn", "Yes"))
    assert [one.column for one in found.left_out] == ["customerID"]
    assert 0.82 < found.report.auc < 0.86
    assert found.report.precision_at_decile > 0.68
    assert found.report.calibration.gap_pct < 4
