"""`hune rehearse` for reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from click.testing import CliRunner

from cli import rehearse

SUMMARY = {
    "alerts": 3, "escalated": 1, "baselines": 2, "accounts": 2, "alerts_per_csm_week": 1.5, "most_in_a_week": 2,
    "csm_weeks": 2, "csm_weeks_over_budget": 0, "budget": 8, "left": 1, "warned": 0, "missed": 1,
    "median_days_before": None,
}  # fmt: skip
FOUND: dict[str, Any] = {
    "from": "2026-01-01T00:00:00Z", "to": "2026-01-15T00:00:00Z", "config_hash": "abc", "accounts": 7,
    "summary": SUMMARY,
    "rules": [{"rule": "band_red", "alerts": 3, "accounts": 2, "before_leaving": 0}],
    "weeks": [
        {"csm": "ann", "week": "2026-W01", "alerts": 1, "escalated": 0, "critical": 0, "accounts": 1, "by_rule": {}},
        {"csm": "ann", "week": "2026-W02", "alerts": 2, "escalated": 1, "critical": 0, "accounts": 1, "by_rule": {}},
    ],
    "left": [
        {"account_id": "a1", "name": "Acme", "csm": "ann", "left_at": "2026-01-09T00:00:00Z", "signs": ["notice"],
         "warned": False, "first_told_at": None, "days_before": None, "rules": []},
    ],
    "alerts": [],
}  # fmt: skip


def shown(found: Mapping[str, Any]) -> str:
    return rehearse.described(found)


def test_the_figures_each_person_each_rule_and_who_left_are_shown() -> None:
    lines = shown(FOUND).splitlines()
    assert lines[0] == "2026-01-01 to 2026-01-15, 7 accounts, abc"
    assert "CSM  W01  W02" in lines
    assert "ann  1    2" in lines
    assert any(line.split() == ["2026-01-09", "Acme", "ann", "missed"] for line in lines)


def test_other_rules_stand_beside_those_in_use() -> None:
    lines = shown({**FOUND, "current": {**SUMMARY, "alerts": 9}}).splitlines()
    assert any(line.split() == ["alerts", "told", "3", "9"] for line in lines)


def test_without_saying_what_to_rehearse_nothing_is_done() -> None:
    result = CliRunner().invoke(rehearse.command, [])
    assert result.exit_code == 2
    assert "--alerts" in result.output
