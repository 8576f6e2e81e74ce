"""A person's word stands in the place of the score for its time, and the computed score beside it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import facts, overrides, scoring
from services.health.facts import Facts, Learnt
from services.health.scoring import Overridden
from shared.requests import Unusable
from tests.unit.test_health_alerts import POLICY, Watch, counting, daily, sponsors
from tests.unit.test_health_scoring import T, known


def said(id: str, days_ago: float, score: int = 80, lasts_days: float = 10, by: str = "ann", **more: Any) -> Learnt:
    at = T - timedelta(days=days_ago)
    until = (at + timedelta(days=lasts_days)).isoformat()
    asked = {"score": score, "reason": "they told me", "by": by, "until": until} | more
    return overrides.learn(id, at, asked, None)


def shown(found: Facts, at: datetime = T) -> scoring.Score:
    return overrides.score_of(found, facts.picture(found, at), POLICY.model)


def test_the_word_counts_from_its_time_to_its_end_and_the_computed_score_stays_beside_it() -> None:
    found = daily(120, 40)
    computed = scoring.score(found, T, POLICY.model)
    told = shown(found.with_mark(said("r1", 2)))
    assert (told.score, told.band, told.exact, told.parts) == (80, "green", computed.exact, computed.parts)
    assert told.overridden == Overridden("ann", "they told me", T + timedelta(days=8), computed.score, computed.band)
    assert told.shown == 80.0
    assert shown(found.with_mark(said("r1", 10))) == computed  # it ends at this instant
    assert shown(found.with_mark(said("r1", -1))) == computed  # it is still to come
    assert shown(found.with_mark(said("r1", 2)), T - timedelta(days=3)).override is None


@settings(deadline=None, max_examples=50)
@given(st.permutations([("r1", 9, 10), ("r2", 5, 20), ("r3", 5, 30), ("r4", 1, 40)]))
def test_the_newest_word_counts_in_whatever_order_they_came(order: list[tuple[str, int, int]]) -> None:
    found = known()
    for id, days, score in order:
        found = found.with_mark(said(id, days, score, lasts_days=30))
    assert [shown(found, T - timedelta(days=ago)).score for ago in (10, 6, 3, 0)] == [None, 10, 30, 40]


def test_it_can_be_taken_back() -> None:
    found = known().with_mark(said("r1", 5)).with_mark(said("r2", 2, clear=True))
    assert shown(found).override is None
    assert shown(found, T - timedelta(days=3)).score == 80


def test_it_is_told_with_who_and_why_ends_by_itself_and_its_share_is_the_whole_change() -> None:
    watch = counting()
    watch.look(sponsors(30), 9)
    assert watch.opened == [("red", "")]
    first = watch.look(sponsors(30).with_mark(said("r1", 8, lasts_days=5)), 8)
    assert first.change is not None
    assert first.change.why == "Set to 80 by ann until 2026-03-28: they told me (computed: 30)"
    assert dict(first.change.shares) == {"override": pytest.approx(50)}
    assert watch.resolved == [("red", "")]
    assert overrides.ends_at(sponsors(30).with_mark(said("r1", 8, lasts_days=5)), T - timedelta(days=8)) == (
        T - timedelta(days=3)
    )
    same = watch.look(sponsors(33).with_mark(said("r1", 8, lasts_days=5)), 6)
    assert (same.change, watch.memory.open) == (None, ())
    last = watch.look(sponsors(33).with_mark(said("r1", 8, lasts_days=5)), 3)
    assert last.change is not None
    assert last.change.why == "The override by ann is over: 33 as computed"
    assert sum(last.change.shares.values()) == pytest.approx(-47)
    assert watch.opened == [("red", ""), ("red", "")]  # what a person said is no height to fall from


def test_another_reason_for_the_same_score_is_told_and_moves_nothing() -> None:
    watch = Watch()
    found = daily(120, 1)
    watch.look(found.with_mark(said("r1", 8)), 8)
    change = watch.look(found.with_mark(said("r1", 8)).with_mark(said("r2", 7, reason="they signed")), 7).change
    assert change is not None
    assert (change.shares, change.current.score) == ({}, 80)
    assert "they signed" in change.why


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ({}, "by is missing"),
        ({"by": "ann"}, "reason takes a text of 1 to 500"),
        ({"by": "ann", "reason": "r"}, "until is missing: an override must end"),
        ({"by": "ann", "reason": "r", "until": "2026-03-31T15:30:00Z"}, "within 366 days after"),
        ({"by": "ann", "reason": "r", "until": "2030-01-01"}, "within 366 days after"),
        ({"by": "ann", "reason": "r", "until": "2026-05-01"}, "score takes a whole number"),
        ({"by": "ann", "reason": "r", "until": "2026-05-01", "score": 101}, "score takes a whole number"),
        ({"by": "ann", "reason": "r", "until": "2026-05-01", "score": True}, "score takes a whole number"),
        ({"by": "ann", "reason": "r", "until": "2026-05-01", "score": 50.5}, "score takes a whole number"),
    ],
)
def test_what_is_missing_or_wrong_is_named(parameters: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Unusable, match=wrong):
        overrides.learn("r", T, parameters, None)
    if "by" not in parameters:
        assert overrides.learn("r", T, {"clear": True}, "ann").mark.data == {"by": "ann"}
