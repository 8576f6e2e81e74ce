"""Shares of a change: they sum to it, what did not change has none, and they are Shapley's where that is told apart."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import shares
from services.health.plan import Plan
from services.health.scoring import NEUTRAL, Part, Score
from services.health.settings import Model

Points = float | None


def a_model(
    weights: dict[str, tuple[str, float]], groups: dict[str, Any] | None = None, profiles: dict[str, Any] | None = None
) -> Model:
    measures = {
        name: {"label": {"en": name, "fr": name}, "group": group, "kind": "sponsors", "weight": weight, "worst": 0,
               "best": 1}
        for name, (group, weight) in weights.items()
    }  # fmt: skip
    return Model.model_validate(
        {"measures": measures, "groups": groups or {}, "profiles": profiles or {}, "coverage_floor": 0}
    )


def a_score(plan: Plan, points: dict[str, Points], config: str = "c", **said: Any) -> Score:
    parts = tuple(
        Part(name, group, points[name], points[name], weight, measured=points[name] is not None)
        for name, group, weight in zip(plan.names, plan.groups, plan.weights, strict=True)
    )
    mean = plan.mean([part.points for part in parts])
    exact = min([NEUTRAL if mean is None else mean, *(at for _, at in said.get("caps", ()))])
    return Score(round(exact), "amber", exact, 1.0, parts, plan.profile, uncapped=mean, config=config, **said)


def changed(model: Model, old: dict[str, Points], new: dict[str, Points], **said: Any) -> dict[str, float]:
    plan = model.plans["default"]
    before = a_score(plan, old, caps=said.get("caps_before", ()), override=said.get("override_before"))
    after = a_score(plan, new, caps=said.get("caps_after", ()), override=said.get("override_after"))
    return shares.shares_of(before, after, plan, plan)


def by_orders(causes: list[str], value: Any) -> dict[str, float]:
    """Shapley by its definition: every order in which the causes can come."""
    found = dict.fromkeys(causes, 0.0)
    orders = list(itertools.permutations(causes))
    for order in orders:
        came: set[str] = set()
        for cause in order:
            before = value(frozenset(came))
            came.add(cause)
            found[cause] += (value(frozenset(came)) - before) / len(orders)
    return found


def test_the_shares_are_those_of_the_worked_example() -> None:
    model = a_model({"usage": ("g", 0.5), "nps": ("g", 0.3), "support": ("g", 0.2)})
    found = changed(model, {"usage": 80, "nps": 70, "support": 90}, {"usage": 40, "nps": 70, "support": None})
    assert found == {"usage": pytest.approx(-22.5), "support": pytest.approx(-5.25)}


def test_where_only_points_moved_a_share_is_weight_times_difference() -> None:
    model = a_model({"a": ("g", 3), "b": ("g", 1), "c": ("g", 4)})
    found = changed(model, {"a": 10, "b": 90, "c": None}, {"a": 50, "b": 10, "c": None})
    assert found == {"a": pytest.approx(30), "b": pytest.approx(-20)}


TREE = {"x": {"weight": 3, "groups": {"xx": {"weight": 1}, "xy": {"weight": 2}}}, "y": {"weight": 1}}
POINTS = st.none() | st.floats(0, 100)
CASE = st.tuples(POINTS, POINTS, st.floats(0.1, 50), st.booleans(), st.sampled_from(["x", "xx", "xy", "y"]))


def a_case(parts: list[Any], *, nested: bool) -> tuple[Model, dict[str, Points], dict[str, Points]]:
    names = [f"m{n}" for n in range(len(parts))]
    weights = {name: (group, weight) for name, (_, _, weight, _, group) in zip(names, parts, strict=True)}
    used = {group for group, _ in weights.values()}
    groups: dict[str, Any] = {}
    if nested:
        below = {name: said for name, said in TREE["x"]["groups"].items() if name in used}  # type: ignore[index]
        if below or "x" in used:
            groups["x"] = {"weight": 3, "groups": below}
        if "y" in used:
            groups["y"] = TREE["y"]
    old = {name: then for name, (then, *_) in zip(names, parts, strict=True)}
    new = {name: then if same else now for name, (then, now, _, same, _) in zip(names, parts, strict=True)}
    return a_model(weights, groups), old, new


CAPS = st.sampled_from([(), (("k", 40.0),), (("k", 40.0), ("l", 10.0)), (("l", 60.0),)])
OVERRIDES = st.none() | st.floats(0, 100)


@settings(deadline=None)
@given(st.lists(CASE, min_size=1, max_size=30), st.booleans(), CAPS, CAPS, OVERRIDES, OVERRIDES)
def test_shares_sum_to_the_change_and_what_did_not_change_has_none(
    parts: list[Any], nested: bool, held: Any, holds: Any, then: Points, now: Points
) -> None:
    model, old, new = a_case(parts, nested=nested)
    plan = model.plans["default"]
    before, after = a_score(plan, old, caps=held, override=then), a_score(plan, new, caps=holds, override=now)
    found = shares.shares_of(before, after, plan, plan)
    assert before.shown is not None
    assert after.shown is not None
    if found:
        assert math.fsum(found.values()) == pytest.approx(after.shown - before.shown, abs=1e-9)
    else:
        assert after.shown == before.shown
    causes = {name for name in old if old[name] != new[name]}
    causes |= {f"cap:{name}" for name in ("k", "l") if dict(held).get(name) != dict(holds).get(name)}
    assert found.keys() <= causes | ({"override"} if then != now else set())


@settings(deadline=None, max_examples=60)
@given(st.lists(CASE, min_size=1, max_size=5), st.booleans(), CAPS, CAPS)
def test_shares_are_the_mean_over_all_orders(parts: list[Any], nested: bool, held: Any, holds: Any) -> None:
    model, old, new = a_case(parts, nested=nested)
    plan = model.plans["default"]
    causes = [name for name in old if old[name] != new[name]]
    caps = [f"cap:{name}" for name in ("k", "l") if dict(held).get(name) != dict(holds).get(name)]

    def value(came: frozenset[str]) -> float:
        mean = plan.mean([new[name] if name in came else old[name] for name in plan.names])
        on: list[float] = [dict(holds if f"cap:{name}" in came else held).get(name, 101) for name in ("k", "l")]
        return min([NEUTRAL if mean is None else mean, *on])

    before, after = a_score(plan, old, caps=held), a_score(plan, new, caps=holds)
    found = shares.shares_of(before, after, plan, plan)
    for cause, share in by_orders(causes + caps, value).items():
        assert found.get(cause, 0.0) == pytest.approx(share, abs=1e-8), cause


@pytest.mark.parametrize("count", [11, 40, 200])
def test_any_number_of_parts_is_told_apart(count: int) -> None:
    rng = random.Random(count)
    weights = {f"m{n}": (f"g{n % 5}", rng.uniform(1, 9)) for n in range(count)}
    groups = {f"g{n}": {"weight": n + 1.0} for n in range(5)}
    names = list(weights)
    old = {name: rng.choice([None, rng.uniform(0, 100)]) for name in names}
    new = dict(old)
    for name in names[: min(count, 24)]:
        new[name] = rng.uniform(0, 100) if rng.random() < 0.7 else None
    for model in (a_model(weights), a_model(weights, groups)):
        plan = model.plans["default"]
        before, after = a_score(plan, old), a_score(plan, new)
        found = shares.shares_of(before, after, plan, plan)
        assert before.exact is not None
        assert after.exact is not None
        assert math.fsum(found.values()) == pytest.approx(after.exact - before.exact, abs=1e-9)
        assert found.keys() == {name for name in names if old[name] != new[name]}


def test_when_there_are_many_a_groups_share_is_its_shapley_value_among_the_groups() -> None:
    weights = {f"m{n}": ("ab"[n % 2], 1.0 + n) for n in range(12)}
    model = a_model(weights)
    plan = model.plans["default"]
    old: dict[str, Points] = {f"m{n}": 10.0 * (n % 7) for n in range(12)}
    new: dict[str, Points] = {name: None if n % 3 == 0 else 95.0 - n for n, name in enumerate(old)}
    groups = {group: {name for name, (of, _) in weights.items() if of == group} for group in "ab"}

    def value(came: frozenset[str]) -> float:
        moved = {name for group in came for name in groups[group]}
        mean = plan.mean([new[name] if name in moved else old[name] for name in plan.names])
        return NEUTRAL if mean is None else mean

    found = changed_by_game(plan, old, new)
    for group, share in by_orders(list(groups), value).items():
        assert math.fsum(found[name] for name in groups[group]) == pytest.approx(share, abs=1e-9)


def changed_by_game(plan: Plan, old: dict[str, Points], new: dict[str, Points]) -> dict[str, float]:
    """Two caps that never bind make the closed forms step aside."""
    before = a_score(plan, old, caps=(("never", 100.0),))
    return shares.shares_of(before, a_score(plan, new, caps=(("never", 100.0),)), plan, plan)


@settings(deadline=None)
@given(st.lists(CASE, min_size=1, max_size=8))
def test_the_closed_forms_say_what_the_game_says(parts: list[Any]) -> None:
    model, old, new = a_case(parts, nested=False)
    plan = model.plans["default"]
    found = shares.shares_of(a_score(plan, old), a_score(plan, new), plan, plan)
    game = changed_by_game(plan, old, new)
    assert found.keys() == game.keys()
    assert all(found[name] == pytest.approx(game[name], abs=1e-8) for name in game)


def test_another_profile_is_a_cause_beside_what_moved() -> None:
    model = a_model(
        {"a": ("g", 1), "b": ("g", 1)}, profiles={"new": {"when": {"stage": ["onboarding"]}, "weights": {"a": 3}}}
    )
    before = a_score(model.plans["default"], {"a": 80, "b": 40})
    after = a_score(model.plans["new"], {"a": 80, "b": 20})
    found = shares.shares_of(before, after, model.plans["default"], model.plans["new"])
    assert found == {"profile": pytest.approx(12.5), "b": pytest.approx(-7.5)}


def test_another_configuration_is_a_cause_and_takes_the_measures_that_it_brought() -> None:
    old, new = a_model({"a": ("g", 1), "b": ("g", 1)}), a_model({"a": ("g", 1), "c": ("g", 1)})
    before = a_score(old.plans["default"], {"a": 80, "b": 40}, "old")
    after = a_score(new.plans["default"], {"a": 80, "c": 0}, "new")
    found = shares.shares_of(before, after, old.plans["default"], new.plans["default"])
    assert found == {"config": pytest.approx(-20)}


def test_a_cap_that_comes_has_its_own_share() -> None:
    model = a_model({"a": ("g", 1), "b": ("g", 1)})
    found = changed(model, {"a": 90, "b": 90}, {"a": 90, "b": 70}, caps_after=(("p1_open", 60.0),))
    assert found == {"cap:p1_open": pytest.approx(-25), "b": pytest.approx(-5)}
    assert shares.kind_of("cap:p1_open") == "cap"


def test_an_override_hides_what_moves_under_it() -> None:
    model = a_model({"a": ("g", 1)})
    assert changed(model, {"a": 50}, {"a": 20}, override_before=80.0, override_after=80.0) == {"a": 0.0}
    assert changed(model, {"a": 50}, {"a": 50}, override_after=80.0) == {"override": pytest.approx(30)}
