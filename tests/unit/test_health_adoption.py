"""Adoption counts accounts and people once; who has not got there yet counts for as long as they were seen."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import adoption, facts
from services.health.adoption import Adoption, survival
from services.health.settings import Core
from services.health.usage import Usage, hash_of, micros
from tests.unit.test_health_scoring import T, known, learnt
from tests.unit.test_health_usage import USES, UseAt, used


@settings(deadline=None)
@given(st.lists(USES, max_size=4))
def test_adoption_is_that_of_the_plain_definition(accounts: list[list[UseAt]]) -> None:
    found = Adoption()
    for uses in accounts:
        found.add(Usage.until([used(*uses)], T), frozenset({hash_of("export")}))
    using: dict[tuple[str, int], set[int]] = defaultdict(set)
    people: dict[tuple[str, int], set[tuple[int, str]]] = defaultdict(set)
    events: dict[tuple[str, int], int] = defaultdict(int)
    active: dict[str, set[int]] = defaultdict(set)
    for number, uses in enumerate(accounts):
        for at, user, feature in uses:
            if at > T:
                continue
            month = f"{at:%Y-%m}"
            active[month].add(number)
            if feature:
                key = month, hash_of(feature)
                using[key].add(number)
                events[key] += 1
                if user:
                    people[key].add((number, user))
    told = {(adoption.month_name(month), feature): taken for (month, feature), taken in found.features.items()}
    for key in {*using, *told}:
        taken = told[key]
        assert (taken.accounts, taken.users, taken.events) == (len(using[key]), len(people[key]), events[key])
        if key[1] == hash_of("export"):
            assert (taken.entitled, taken.entitled_using) == (len(active[key[0]]), len(using[key]))
    assert {adoption.month_name(m): n for m, n in found.active.items()} == {m: len(who) for m, who in active.items()}


def test_the_survival_curve_is_that_of_the_textbook() -> None:
    """Six remission times with two censored (6, 6, 6+, 7, 9+, 10): 0.667, 0.444, 0."""
    curve = survival([(6, True), (6, True), (6, False), (7, True), (9, False), (10, True)])
    assert curve == [(6, pytest.approx(4 / 6)), (7, pytest.approx(4 / 6 * 2 / 3)), (10, 0)]


def a_road(days: float, arrived: bool, **said: Any) -> adoption.Road:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    end = start + timedelta(days=days)
    return adoption.Road(said.get("account_id", "a"), start, "contract", end if arrived else None, end, None)


def test_a_median_of_finishers_would_flatter() -> None:
    roads = [a_road(2, True), a_road(4, True), a_road(90, False), a_road(90, False), a_road(90, False)]
    times = adoption.times_to_value(roads)
    assert (times.n, times.reached, times.still_open, times.median_days) == (5, 2, 3, None)
    assert times.quartile_days == 4
    assert times.reason == "fewer than half are estimated to have got there"
    assert adoption.times_to_value(roads[:4]).median_days == 4
    assert adoption.times_to_value([]).reason == "nobody"


def test_a_road_starts_with_the_contract_and_ends_with_the_first_core_action() -> None:
    contract = learnt("contract.changed", "c", 30, starts_on=(T - timedelta(days=20)).date().isoformat())
    uses: list[UseAt] = [(T - timedelta(days=25), "ann", "search"), (T - timedelta(days=15), "ann", "search"),
                         (T - timedelta(days=5), "ann", "export")]  # fmt: skip
    found = known(contract, uses=uses)
    first = adoption.road(found, facts.picture(found, T), Core(features=("export",)))
    assert first is not None
    start = datetime.combine(date(2026, 3, 11), datetime.min.time(), UTC)
    assert (first.start_at, first.start_from, first.value_at) == (start, "contract", T - timedelta(days=5))
    anything = adoption.road(found, facts.picture(found, T), Core())
    assert anything is not None
    assert anything.value_at == T - timedelta(days=15)
    then = adoption.road(found, facts.picture(found, T - timedelta(days=10)), Core(features=("export",)))
    assert then is not None
    assert (then.value_at, then.until) == (None, T - timedelta(days=10))


def test_who_left_without_value_was_seen_until_they_left() -> None:
    start = learnt("subscription.changed", "s1", 40, mrr="10")
    end = learnt("subscription.changed", "s2", 10, mrr="0")
    found = known(start, end, uses=[(T - timedelta(days=5), "ann", "search")])
    road = adoption.road(found, facts.picture(found, T), Core())
    assert road is not None
    assert (road.start_from, road.value_at, road.until) == ("subscription", None, T - timedelta(days=10))
    assert micros(road.start_at) == start.mark.at


def test_of_whom_nothing_is_known_there_is_no_road() -> None:
    assert adoption.road(known(), facts.picture(known(), T), Core()) is None
