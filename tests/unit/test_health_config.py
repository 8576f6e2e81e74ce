"""Configuration errors name the file, the line and the field."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from services.health.policy import load_policy
from services.health.rules import Rules
from services.health.settings import Model
from shared import config
from shared.errors import Misconfigured

MEASURE = """
coverage_floor: 0.5
measures:
  last_use:
    label: {{en: last use, fr: dernier usage}}
    group: usage
    kind: {kind}
    weight: {weight}
    worst: {worst}
    best: 3
"""


def model(kind: str = "usage_recency", weight: str = "1", worst: str = "30") -> config.Loaded[Model]:
    return config.parse(MEASURE.format(kind=kind, weight=weight, worst=worst), Model)


def test_the_shipped_files_are_valid_and_cover_five_groups() -> None:
    policy = load_policy()
    assert len({measure.group for measure in policy.model.measures.values()}) == 5
    assert sum(measure.weight for measure in policy.model.measures.values()) == 100
    assert {rule.kind for rule in policy.rules.rules.values()} == {"risk", "opportunity", "data"}


@pytest.mark.parametrize(
    ("said", "line", "field", "why"),
    [
        ({"weight": "0"}, 8, "measures.last_use.weight", "greater than 0"),
        ({"worst": "3"}, 5, "measures.last_use", "two different ends"),
        ({"kind": "horoscope"}, 5, "measures.last_use", "does not match any of the expected tags"),
        ({"weight": "heavy"}, 8, "measures.last_use.weight", "valid number"),
        ({"weight": ".inf"}, 8, "measures.last_use.weight", "finite"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(said: dict[str, str], line: int, field: str, why: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        model(**said)
    assert f"config.yaml:{line}: {field}: " in str(refused.value)
    assert why in str(refused.value)


def test_every_error_of_a_file_is_told_at_once() -> None:
    with pytest.raises(Misconfigured) as refused:
        config.parse("bands: {amber: 80, green: 70}\nmeasures: {}\ncoverage_floor: 2\nsurprise: 1", Model)
    told = {line.split(": ")[1] for line in str(refused.value).splitlines()}
    assert told == {"coverage_floor", "bands", "measures", "surprise"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [1", "not YAML"),
        ("measures: {}\nmeasures: {}", "config.yaml:2: measures: written twice"),
        ("- 1", "the file: "),
        ("", "measures: Field required"),
    ],
)
def test_a_broken_file_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        config.parse(text, Model)
    assert why in str(refused.value)


def test_a_missing_file_says_where_it_was_looked_for() -> None:
    with pytest.raises(Misconfigured, match=r"/nowhere/health\.yaml: cannot be read"):
        config.load("/nowhere/health.yaml", Model)


def test_an_alert_that_would_flap_is_refused() -> None:
    with pytest.raises(Misconfigured, match="would flap"):
        config.parse("rules: {red: {when: score_below, enter: 40, leave: 30}}", Rules)


class Shop(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    open: bool = True


def test_the_digest_is_of_the_meaning_not_of_the_writing() -> None:
    short = config.parse("name: a", Shop)
    assert short.digest == config.parse("# said at length\nopen: true\nname: 'a'\n", Shop).digest
    assert short.digest != config.parse("name: b", Shop).digest
    assert len(short.digest) == 12
