"""The return on Customer Success, from figures that are given."""

from __future__ import annotations

import json

from click.testing import CliRunner

from cli.roi import command


def test_both_forms_of_the_same_return() -> None:
    found = CliRunner().invoke(command, ["--saved", "250000", "--cost", "100000", "--json"])
    row = json.loads(found.stdout)
    assert (row["roi_pct"], row["ratio"], row["gain"]) == (150.0, 2.5, "250000")
    text = CliRunner().invoke(command, ["--saved", "250000", "--cost", "100000"]).stdout
    assert "150 %" in text
    assert "2.5 : 1" in text


def test_what_cannot_be_is_refused_by_name() -> None:
    for arguments, why in (
        (["--saved", "1", "--cost", "0"], "--cost: a cost of 0"),
        (["--saved", "1"], "--saved needs --cost"),
        (["--saved", "a lot", "--cost", "1"], "'a lot' is not an amount"),
        (["--saved", "1", "--cost", "1", "--margin", "101"], "--margin"),
        (["--expanded", "1", "--cost", "1"], "--expanded goes with --saved"),
    ):
        refused = CliRunner().invoke(command, arguments)
        assert refused.exit_code == 2
        assert why in refused.output
