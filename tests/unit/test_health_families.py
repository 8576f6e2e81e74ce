"""A parent's score follows from its children's, in trees of any depth; who is their own ancestor counts for nobody."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.health.families import FamilyScore, Member, Standing, in_cycles, score_of, standings
from services.health.scoring import band_of
from services.health.settings import Bands, Family

BANDS = Bands()
MEAN = Family(by="mean")


def a_member(account_id: str, points: float | None, arr: int | None = None) -> Member:
    band = "unknown" if points is None else band_of(points, BANDS)
    return Member(account_id, points, band, None if arr is None else Decimal(arr))


def of(parent: Member, children: list[Member], /, **rule: str) -> FamilyScore:
    return score_of(parent, children, Family.model_validate(rule), BANDS)


def test_planhats_plain_mean_of_parent_and_children() -> None:
    """(10 + 5 + 5 + 5) / 4 = 6.25, shown as 6."""
    found = of(a_member("p", 100), [a_member(f"c{n}", 50) for n in range(3)], by="mean", own="as_a_child")
    assert found.points == 62.5
    tenths = of(a_member("p", 10), [a_member(f"c{n}", 5) for n in range(3)], by="mean", own="as_a_child")
    assert (tenths.points, tenths.score) == (6.25, 6)


def test_churnzeros_children_count_alone_and_the_parent_when_there_are_none() -> None:
    children = [a_member("a", 20), a_member("b", 60), a_member("c", None)]
    assert of(a_member("p", 100), children, by="mean", own="when_alone").points == 40
    assert of(a_member("p", 100), [a_member("c", None)], by="mean", own="when_alone").points == 100
    assert of(a_member("p", 100), [a_member("c", None)], by="mean", own="never").reason == "no member has a score"


@pytest.mark.parametrize(
    ("rule", "points"),
    [
        ({"by": "mean"}, 60),
        ({"by": "worst"}, 30),
        ({"by": "arr_weighted"}, (90 * 1 + 30 * 8) / 9),
        ({"by": "share_in_band"}, 100 / 3),
        ({"by": "share_in_band", "band": "red"}, 100 / 3),
    ],
)
def test_the_four_ways(rule: dict[str, str], points: float) -> None:
    found = of(a_member("p", 60), [a_member("a", 90, 1), a_member("b", 30, 8)], **rule)
    assert found.points == pytest.approx(points)
    assert (found.members, found.scored) == (3, 3)


def test_nobody_to_weigh_by_is_said() -> None:
    assert of(a_member("p", 50), [a_member("a", 50)], by="arr_weighted").reason == (
        "no scored member has an ARR to weigh by"
    )


def told(parents: dict[str, str | None], points: dict[str, float], rule: Family = MEAN) -> dict[str, Standing]:
    accounts = [(a_member(name, points.get(name), 10), parent) for name, parent in parents.items()]
    return {one.account_id: one for one in standings(accounts, rule, BANDS)}


def test_a_tree_of_five_levels_rolls_up_level_by_level() -> None:
    parents: dict[str, str | None] = {"a": None, "b": "a", "c": "b", "d": "c", "e": "d"}
    found = told(parents, {"a": 0, "b": 20, "c": 40, "d": 60, "e": 100})
    assert found["d"].score.points == 80
    assert found["c"].score.points == 60
    assert found["b"].score.points == 40
    assert found["a"].score.points == 20
    assert found["a"].arr == 50
    assert found["a"].children == ("b",)


def test_a_child_that_moves_changes_both_parents() -> None:
    points = {"x": 90.0, "y": 90.0, "c": 30.0}
    before = told({"x": None, "y": None, "c": "x"}, points)
    after = told({"x": None, "y": None, "c": "y"}, points)
    assert ({name: one.score.points for name, one in before.items()}) == {"x": 60}
    assert ({name: one.score.points for name, one in after.items()}) == {"y": 60}


def test_a_cycle_is_told_apart_and_leaves_the_rest_alone() -> None:
    found = told({"a": "b", "b": "a", "c": "a", "p": None, "q": "p"}, {"a": 10, "b": 20, "c": 30, "p": 40, "q": 60})
    assert {name for name, one in found.items() if one.in_cycle} == {"a", "b"}
    assert found["a"].score.reason == "its parents lead back to itself"
    assert found["p"].score.points == 50
    assert told({"a": "a"}, {"a": 1})["a"].in_cycle


PARENTS = st.dictionaries(st.sampled_from("abcdefgh"), st.none() | st.sampled_from("abcdefgh"), max_size=8)


@given(PARENTS, st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 100)))
def test_any_links_end_in_scores_within_those_of_the_members(
    parents: dict[str, str | None], points: dict[str, float]
) -> None:
    links = {child: parent for child, parent in parents.items() if parent}

    def leads_back(start: str) -> bool:
        one = links.get(start)
        for _ in range(10):
            if one is None or one == start:
                break
            one = links.get(one)
        return one == start

    assert in_cycles(links) == {name for name in links if leads_back(name)}
    for rule in (MEAN, Family(by="worst"), Family(by="arr_weighted")):
        for one in told(parents, points, rule).values():
            if one.score.points is not None:
                known = [value for name, value in points.items() if name in parents]
                assert min(known) - 1e-9 <= one.score.points <= max(known) + 1e-9
