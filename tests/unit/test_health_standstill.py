"""Scores where data broke on the way: they stand still meanwhile, and go on from there afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import facts, scoring, standstill
from services.health.facts import Facts
from services.health.scoring import Score
from services.health.settings import Model
from services.health.tracking import Break
from services.health.usage import EVENT, UTC_ZONE, Events, hash_of, micros, midnight
from shared import config
from tests.unit.test_health_alerts import POLICY, Watch
from tests.unit.test_health_scoring import T

MODEL = config.parse(
    """
coverage_floor: 0.5
measures:
  volume:
    {label: {en: v, fr: v}, group: g, kind: usage_volume, of: events, window_days: 28, weight: 3, worst: 0, best: 84}
  recency: {label: {en: r, fr: r}, group: g, kind: usage_recency, weight: 1, worst: 30, best: 1}
""",
    Model,
).model
TODAY = T.date()


def use(days: Mapping[str, Iterable[int]]) -> Events:
    """One event at 9:00 UTC on each of so many days ago, per feature."""
    rows = [
        (midnight(UTC_ZONE, TODAY - timedelta(days=ago)) + 9 * 3_600_000_000, 1, hash_of(feature), 1)
        for feature, those in days.items()
        for ago in those
    ]
    return np.array(rows, EVENT)


def acme(events: Events, *breaks: Break) -> Facts:
    return Facts("acme", {}, (events,)).under(breaks)


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def score(found: Facts) -> Score:
    return scoring.score(found, T, MODEL)


def test_while_it_lasts_what_depends_on_it_keeps_its_last_value_and_coverage_says_so() -> None:
    lasting = Break("feature", "export", ago(10))
    events = use({"export": range(10, 100), "report": range(1, 100)})
    before = scoring.score(
        acme(use({"export": range(10, 100), "report": range(10, 100)})), T - timedelta(days=10), MODEL
    )
    found = score(acme(events, lasting))
    volume, recency = found.parts
    assert (volume.value, volume.points) == (before.parts[0].value, before.parts[0].points)
    assert volume.reason == f"frozen since {ago(10)}: use of export does not arrive"
    assert (recency.value, recency.reason) == (1.0, None)  # other use still says how long ago it was
    assert (found.coverage, found.score) == (0.25, before.score)  # below the floor, and yet a score
    assert score(acme(events)).score != found.score


def test_afterwards_it_reads_as_though_the_lost_days_had_not_been() -> None:
    over = Break("feature", "export", ago(20), ago(13))
    broken = use({"export": [*range(1, 14), *range(21, 100)], "report": range(1, 100)})
    whole = use({"export": range(1, 100), "report": range(1, 100)})
    found = score(acme(broken, over))
    assert found.parts[0].value == score(acme(whole)).parts[0].value == 56
    assert found.coverage == 1
    assert (found.parts[0].reason or "").startswith(f"without {ago(20)} to {ago(14)}")
    assert score(acme(broken)).parts[0].value == 49


def test_who_does_not_use_what_broke_is_scored_as_ever() -> None:
    events = use({"report": range(30, 100)})
    assert score(acme(events, Break("feature", "export", ago(10)))).parts == score(acme(events)).parts


def test_of_a_silent_source_only_those_stand_still_of_whom_nothing_came() -> None:
    silent = Break("source", "segment", ago(5))
    quiet, heard = use({"report": range(6, 100)}), use({"report": range(1, 100)})
    assert [part.frozen for part in score(acme(quiet, silent)).parts] == [True, True]
    assert score(acme(heard, silent)) == score(acme(heard))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 15))
def test_cutting_moves_by_whole_weeks_keeps_what_came_after_and_leaves_no_gap(end: int, length: int) -> None:
    one = Break("feature", "export", ago(end + length), ago(end))
    events = use({"report": range(1, 120)})
    kept = np.sort(standstill.cut(events, one)["at"])
    last = micros(T) - (micros(T) - midnight(UTC_ZONE, ago(end)))
    assert set(kept[kept >= last].tolist()) == {at for at in events["at"].tolist() if at >= last}
    assert len(events) - len(kept) == 7 * -(-length // 7)
    assert set(np.diff(kept).tolist()) == {86_400_000_000}


def test_a_break_opens_no_alert_of_use_and_its_end_neither_but_a_customer_who_stops_does() -> None:
    lasting, over = Break("feature", "export", ago(20)), Break("feature", "export", ago(20), ago(0))
    all_lost = use({"export": range(20, 150)})
    plain, watch = Watch(POLICY), Watch(POLICY)
    for days in range(19, -1, -1):
        plain.look(acme(all_lost), days)
        watch.look(acme(all_lost, lasting), days)
    watch.look(acme(all_lost, over))
    assert plain.opened
    assert watch.opened == []
    other = Watch(POLICY)
    for days in range(19, -1, -1):
        other.look(acme(use({"report": range(25, 150)}), lasting), days)
    assert other.opened


def test_one_that_is_of_no_account_changes_nothing_at_all() -> None:
    found = acme(use({"report": range(1, 50)}), Break("feature", "export", ago(40), ago(38)))
    assert standstill.held_of(found, facts.picture(found, T)) == ()
