"""`hune config`: every file is checked, every error is named; a dry run says who would move."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from click.testing import CliRunner

from cli.config import as_row, command, described
from services.health import comparing, facts
from services.health.facts import Facts
from services.health.settings import Model, load_model, read_model
from shared import config
from tests.unit.test_health_scoring import T, known, learnt

ROOT = Path(__file__).parents[2]


def test_every_shipped_file_is_valid() -> None:
    files = sorted((ROOT / "config").glob("**/*.yaml"))
    found = CliRunner().invoke(command, ["check", "--json", *map(str, files)])
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert found.exit_code == 0, found.output
    assert [row["file"] for row in rows] == [str(path) for path in files]
    assert all(row["digest"] and not row["errors"] for row in rows)
    assert {row["kind"] for row in rows if "examples" in row["file"]} == {"health", "table"}


def test_errors_name_file_line_and_field_and_do_not_hide_each_other(tmp_path: Path) -> None:
    text = (
        (ROOT / "config/health.yaml").read_text().replace("group: commercial\n", "group: commercial\n    colour: red\n")
    )
    (tmp_path / "health.yaml").write_text(text.replace("coverage_floor: 0.5", "coverage_floor: 5"))
    (tmp_path / "revenue.yaml").write_text("grace_days: [1")
    (tmp_path / "helth.yaml").write_text("language: en")
    found = CliRunner().invoke(command, ["check"], env={"HUNE_CONFIG_DIR": str(tmp_path)})
    assert found.exit_code == 2
    lines = found.stderr.splitlines()
    assert any("health.yaml:9: coverage_floor: " in line for line in lines), lines
    assert any(": measures.unpaid.colour: " in line for line in lines), lines
    assert any("revenue.yaml:1: not YAML" in line for line in lines), lines
    assert any("helth.yaml: nobody reads a file of this name; there are: alerts.yaml" in line for line in lines), lines


def test_an_empty_folder_is_no_valid_configuration(tmp_path: Path) -> None:
    found = CliRunner().invoke(command, ["check"], env={"HUNE_CONFIG_DIR": str(tmp_path)})
    assert found.exit_code == 1
    assert "has no YAML file" in found.output


def a_book() -> list[tuple[Facts, facts.Picture]]:
    steady = [(T - timedelta(days=n), "ann", "f") for n in range(1, 120)]
    angry = learnt("survey.answered", "a", 1, kind="nps", score=0, user_id="ann")
    rich = learnt("account.updated", "p", 9, name="Rich", arr="9000")
    book = [
        Facts("calm", known(uses=steady).things, known(uses=steady).usage),
        Facts("angry", known(angry).things, known(uses=steady).usage),
        Facts("rich", known(angry, rich).things, known(uses=steady).usage),
        Facts("nobody", known(rich).things),
    ]
    return [(one, facts.picture(one, T)) for one in book]


def test_a_dry_run_shows_who_would_change_band_the_largest_first() -> None:
    ours = load_model(ROOT / "config/health.yaml").model
    said = ours.model_dump(exclude_none=True)
    said["measures"]["nps"]["weight"] = 200
    found = comparing.compare(a_book(), ours, Model.model_validate(said))
    assert found.before == {"red": 0, "amber": 0, "green": 3, "unknown": 1}
    assert (found.after["green"], found.after["unknown"], found.accounts) == (0, 2, 4)
    row = as_row(found, "one", "other", T)
    moved = [(one["account_id"], one["arr"]) for one in row["moved"]]
    assert moved == [("rich", "9000"), ("angry", None), ("calm", None)]
    assert row["moved"][0]["now"]["band"] == "green"
    assert row["moved"][0]["then"]["band"] in ("red", "amber")
    assert row["moved"][0]["terms"][0]["measure"] in ("nps", "active_days", "recency")
    text = described(row)
    assert "would change band" in text
    assert "Rich" in text


def test_the_same_file_moves_nobody() -> None:
    ours = load_model(ROOT / "config/health.yaml").model
    found = comparing.compare(a_book(), ours, ours)
    assert (found.moved, found.mean_change, found.before) == ((), 0.0, found.after)


def test_where_only_bands_differ_no_measure_is_blamed() -> None:
    ours = load_model(ROOT / "config/health.yaml").model
    said = ours.model_dump(exclude_none=True)
    said["bands"] = {"amber": 40, "green": 100}
    found = comparing.compare(a_book(), ours, Model.model_validate(said))
    assert [one.terms for one in found.moved] == [(), ()]


def test_a_model_survives_being_kept() -> None:
    ours = load_model(ROOT / "config/examples/dear.yaml").model
    kept = read_model(ours.model_dump_json())
    assert kept is not None
    assert config.digest_of(kept) == ours.digest
    assert read_model(None) is None
    assert read_model('{"measures": {}}') is None
