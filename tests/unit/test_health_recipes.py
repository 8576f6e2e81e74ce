"""The recipes of other houses, as configurations, give what their own pages say."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.health import scoring
from services.health.facts import Facts, Learnt
from services.health.settings import Model, load_model
from tests.unit.test_health_scoring import T, known, learnt

EXAMPLES = Path(__file__).parents[2] / "config/examples"
RECIPES = ("catalyst", "churnzero", "dear", "planhat", "prove", "totango")


def recipe(name: str) -> Model:
    return load_model(EXAMPLES / f"{name}.yaml").model


def used_by(people: int, *, before: int = 0, each: int = 1) -> list[Any]:
    """So many people in the last four weeks, each so often, and so many in the month before."""
    uses: list[Any] = [
        (T - timedelta(days=2, minutes=user * 100 + n), f"u{user}", "reports")
        for user in range(people)
        for n in range(each)
    ]
    return uses + [(T - timedelta(days=40, minutes=user), f"u{user}", "reports") for user in range(before)]


def seats(count: int) -> Learnt:
    return learnt("entitlement.changed", "seats", 200, seats=count)


def answer(kind: str, score: float, days: float = 0.0, **said: Any) -> Learnt:
    id = f"{kind}{days}"
    return learnt("survey.answered", id, days, kind=kind, score=score, user_id="ann", answer_id=id, **said)


def points(model: Model, found: Facts) -> dict[str, float | None]:
    return {part.measure: part.points for part in scoring.score(found, T, model).parts}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_and_says_nothing_of_an_account_of_which_nothing_is_known_but_churnzeros(
    name: str,
) -> None:
    found = scoring.score(known(), T, recipe(name))
    expected = {"churnzero": (0, "red"), "planhat": (50, "amber")}.get(name, (None, "unknown"))
    assert (found.score, found.band) == expected


def test_totango_adds_good_average_and_poor_by_dimension_and_rounds() -> None:
    found = known(seats(10), answer("nps", 8), learnt("ticket.opened", "t", 8, ticket_id="t"),
                  uses=used_by(5, before=5))  # fmt: skip
    model = recipe("totango")
    assert points(model, found) == {"licences": 60, "active_users": 100, "old_tickets": 60, "nps": 60}
    score = scoring.score(found, T, model)
    assert score.exact == pytest.approx(0.5 * (0.6 * 60 + 0.4 * 100) + 0.3 * 60 + 0.2 * 60)
    assert score.score == 68


def test_catalyst_spreads_the_weight_of_a_missing_input_in_proportion() -> None:
    """The worked example: .5/.3/.2 of 80/70/90 is 79; of 40/70/nothing it is 51.25."""
    model = recipe("catalyst")
    rich = known(seats(10), answer("nps", 7), answer("csat", 90, scale="0-100"), uses=used_by(8))
    poor = known(seats(10), answer("nps", 7), answer("csat", 90, 91, scale="0-100"), uses=used_by(4))
    assert scoring.score(rich, T, model).exact == pytest.approx(79)
    assert scoring.score(poor, T, model).exact == pytest.approx(51.25)


def test_churnzero_gives_no_points_for_what_did_not_happen() -> None:
    model = recipe("churnzero")
    assert sum(measure.weight for measure in model.measures.values()) == 100
    found = known(uses=[(T - timedelta(days=n), "ann", "reports") for n in range(1, 11)])
    assert scoring.score(found, T, model).exact == pytest.approx(40 * 0.5 + 20 * 0.25)


def test_planhat_starts_at_five_and_adds_and_takes_away() -> None:
    model = recipe("planhat")
    up = known(uses=used_by(4, before=4))
    assert scoring.score(up, T, model).exact == pytest.approx(70)
    down = known(uses=used_by(2, before=4))
    assert scoring.score(down, T, model).exact == pytest.approx(30)
    assert scoring.score(down.with_mark(answer("nps", 10)), T, model).exact == pytest.approx(40)


@pytest.mark.parametrize(("deep", "expected"), [(5, 100), (4, 75), (2, 50), (1, 25), (0, 0)])
def test_dear_bands_depth_at_50_35_20_and_10_percent(deep: int, expected: float) -> None:
    uses = used_by(10)
    for user in range(deep):
        uses += [(T - timedelta(days=3, minutes=user * 60 + n), f"u{user}", "reports") for n in range(9)]
    found = points(recipe("dear"), known(seats(10), uses=uses))
    assert found["depth"] == expected
    assert found["breadth"] == 25
    assert found["outcome"] == 0


def test_dear_is_red_in_engagement_after_ninety_days_and_in_roi_after_a_year() -> None:
    model = recipe("dear")
    recent = known(
        learnt("touchpoint.logged", "t", 10, two_way=True), learnt("outcome.verified", "o", 80, objective="x")
    )
    assert {name: points(model, recent)[name] for name in ("last_touch", "outcome")} == {
        "last_touch": 100,
        "outcome": 100,
    }
    old = known(learnt("touchpoint.logged", "t", 90, two_way=True), learnt("outcome.verified", "o", 365, objective="x"))
    assert {name: points(model, old)[name] for name in ("last_touch", "outcome")} == {"last_touch": 0, "outcome": 0}


def test_dear_adoption_is_half_depth_and_half_breadth() -> None:
    plan = recipe("dear").plans["default"]
    weights = dict(zip(plan.names, plan.weights, strict=True))
    assert weights["depth"] == weights["breadth"] == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("people", "stage", "expected"),
    [(3, "onboarding", 60), (3, "adoption", 0), (8, "onboarding", 100), (8, "adoption", 100)],
)
def test_prove_judges_licence_use_by_age(people: int, stage: str, expected: float) -> None:
    found = known(seats(10), learnt("account.updated", "p", 100, stage=stage), uses=used_by(people))
    assert points(recipe("prove"), found)["licences"] == expected


@pytest.mark.parametrize(("people", "expected"), [(4, 0), (5, 60), (7, 60), (8, 100)])
def test_prove_bands_engaged_users_at_50_and_80_percent(people: int, expected: float) -> None:
    assert points(recipe("prove"), known(seats(10), uses=used_by(people)))["engaged"] == expected
