"""Alerts keep quiet: confirmed, rested, silenced, acknowledged, snoozed, and louder only when they grow."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import actions, domain, episodes
from services.health.actions import Acted, Action, Declined, Past
from services.health.domain import Policy
from services.health.rules import Rules
from services.health.settings import Model
from shared import config
from shared.errors import Misconfigured
from shared.requests import Unusable
from tests.unit.test_health_alerts import HEADCOUNT, POLICY, Watch, sponsors
from tests.unit.test_health_scoring import T


def watching(rules: str) -> Watch:
    """A watch whose score is the number of sponsors, under rules."""
    return Watch(Policy(config.parse(HEADCOUNT, Model).model, config.parse(rules, Rules).model, "x"))


RED = "red: {when: score_below, enter: 40, leave: 45"


def ids(watch: Watch) -> list[str]:
    return [episode.alert_id for episode in watch.memory.open]


@st.composite
def flapping(draw: st.DrawFn) -> tuple[int, list[tuple[float, int]]]:
    """A centre, and within a month (days ago, score) of which no score is more than 3 points off it.

    A sponsor always stays: to lose the last one is another rule's.
    """
    centre = draw(st.integers(4, 100))
    near = st.integers(max(0, centre - 3), min(100, centre + 3))
    times = draw(st.lists(st.floats(0, 30, allow_nan=False), min_size=2, max_size=40, unique=True))
    return centre, [(ago, draw(near)) for ago in sorted(times, reverse=True)]


def _ring(watch: Watch, scores: list[tuple[float, int]]) -> int:
    for ago, score in scores:
        watch.look(sponsors(score), ago)
    return len(watch.opened)


@settings(deadline=None, max_examples=60)
@given(flapping(), st.booleans())
def test_a_score_that_flaps_around_any_centre_for_a_month_rings_twice_at_most(
    flap: tuple[int, list[tuple[float, int]]], from_far: bool
) -> None:
    watch = Watch(Policy(config.parse(HEADCOUNT, Model).model, POLICY.rules, "x"))
    if from_far:
        watch.look(sponsors(60), 31)
    assert _ring(watch, flap[1]) <= 2


@settings(deadline=None, max_examples=60)
@given(flapping(), st.integers(1, 99), st.integers(0, 6))
def test_so_it_does_under_rules_whose_edges_are_as_near_as_one_likes(
    flap: tuple[int, list[tuple[float, int]]], enter: int, room: int
) -> None:
    watch = watching(f"rules: {{red: {{when: score_below, enter: {enter}, leave: {enter + room}}}}}")
    assert _ring(watch, flap[1]) <= 2


def test_what_flapped_may_ring_again_a_month_later() -> None:
    watch = watching("rules: {red: {when: score_below, enter: 40, leave: 40}}")
    for number in range(60, 0, -1):
        watch.look(sponsors(39 if number % 2 else 41), number)
    assert len(watch.opened) == 4


def test_what_must_be_confirmed_opens_on_the_second_of_three_days_and_not_after_one() -> None:
    watch = watching(f"rules: {{{RED}, confirm: {{days: 2, of_days: 3}}}}}}")
    for ago, n in ((9, 30), (8.9, 30), (8, 60), (7, 60), (6, 30), (5, 60)):
        watch.look(sponsors(n), ago)
    assert watch.opened == []
    watch.look(sponsors(30), 4)
    assert watch.opened == [("red", "")]


def test_what_is_caught_up_with_is_told_at_once_and_confirmed_by_nobody() -> None:
    watch = watching(f"rules: {{{RED}, confirm: {{days: 2, of_days: 3}}}}}}")
    watch.look(sponsors(30), 4, baseline=True)
    assert watch.opened == [("red", "")]


def test_after_an_episode_the_next_waits_out_the_cool_down_and_comes_by_itself() -> None:
    watch = watching(f"rules: {{{RED}, cooldown_days: 7}}}}")
    watch.look(sponsors(30), 20)
    watch.look(sponsors(60), 19)
    assert watch.look(sponsors(30), 18).due_at == T - timedelta(days=12)
    assert watch.opened == [("red", "")]
    watch.look(sponsors(30), 12)
    assert watch.opened == [("red", ""), ("red", "")]


def test_a_more_severe_episode_does_not_wait() -> None:
    watch = watching(f"rules: {{{RED}, cooldown_days: 7, worse: {{at: 20, severity: critical}}}}}}")
    for ago, n in ((20, 30), (19, 60), (18, 30), (17, 20)):
        watch.look(sponsors(n), ago)
    assert watch.opened == [("red", ""), ("red", "")]
    assert watch.memory.open[0].severity == "critical"


def test_one_episode_silences_another_until_it_is_over() -> None:
    rules = "unsound: {when: score_below, enter: 60, leave: 60, unless: [red]}"
    watch = watching(f"rules: {{{rules}, {RED}}}}}")
    watch.look(sponsors(30), 9)
    assert watch.opened == [("red", "")]
    watch.look(sponsors(50), 8)
    assert watch.opened == [("red", ""), ("unsound", "")]
    assert watch.resolved == [("red", "")]


def test_rules_that_silence_nobody_or_each_other_are_refused() -> None:
    with pytest.raises(Misconfigured, match="red: unless names 'blue', which is no other rule"):
        config.parse(f"rules: {{{RED}, unless: [blue]}}}}", Rules)
    ring = f"rules: {{{RED}, unless: [drop]}}, drop: {{when: score_drop, unless: [red]}}}}"
    with pytest.raises(Misconfigured, match=r"ring through unless: (red < drop < red|drop < red < drop)"):
        config.parse(ring, Rules)


def test_an_episode_grows_with_its_cause_once_per_step_and_never_shrinks() -> None:
    watch = watching(f"rules: {{{RED}, severity: medium, worse: {{at: 20, severity: critical}}}}}}")
    for ago, n in ((9, 30), (8, 20), (7, 35), (6, 10)):
        watch.look(sponsors(n), ago)
    [grown] = [one for decision in watch.told for one in decision.grown]
    assert (grown.previous, grown.episode.severity, grown.episode.alert_id) == ("medium", "critical", ids(watch)[0])
    assert grown.why.startswith("Now critical. Score 20.")
    assert grown.episode.opened_at == T - timedelta(days=9)
    assert [episode.severity for episode in watch.memory.open] == ["critical"]


UNHEARD = f"rules: {{{RED}, severity: medium, unheard: {{days: 5, severity: high}}}}}}"


def test_an_episode_that_nobody_takes_on_grows_at_its_hour() -> None:
    watch = watching(UNHEARD)
    assert watch.look(sponsors(30), 9).due_at == T - timedelta(days=9) + timedelta(days=5)
    watch.look(sponsors(31), 5)
    assert watch.memory.open[0].severity == "medium"
    [grown] = watch.look(sponsors(31), 4).grown
    assert grown.why.startswith("Nobody has taken it on for 5 days, now high. Score 31.")
    assert watch.look(sponsors(31), 3).grown == ()


def test_what_woke_nobody_is_not_missed_by_anybody() -> None:
    watch = watching(UNHEARD)
    watch.look(sponsors(30), 9, baseline=True)
    assert watch.look(sponsors(31), 1).grown == ()


def test_growth_of_what_woke_nobody_is_news_and_so_is_its_end() -> None:
    watch = watching(f"rules: {{{RED}, worse: {{at: 20, severity: critical}}}}}}")
    watch.look(sponsors(30), 9, baseline=True)
    assert watch.memory.open[0].baseline
    watch.look(sponsors(10), 8)
    assert [episode.baseline for episode in watch.look(sponsors(60), 7).resolved] == [False]


def do(watch: Watch, what: str, alert_id: str, days_ago: float = 0, **said: Any) -> Acted | Declined:
    """Carry out a request at its time."""
    now = T - timedelta(days=days_ago)
    action = actions.read(f"alert.{what}", {"alert_id": alert_id, "by": "ann", **said}, None, now)
    acted = actions.act(action, watch.memory, {}, "acme", now)
    if isinstance(acted, Acted):
        watch.memory = acted.memory
    return acted


def test_an_acknowledged_episode_does_not_grow_and_is_acknowledged_once() -> None:
    watch = watching(f"rules: {{{RED}, worse: {{at: 20, severity: critical}}, unheard: {{days: 5}}}}}}")
    watch.look(sponsors(30), 9)
    first = do(watch, "acknowledge", ids(watch)[0], 8)
    again = do(watch, "acknowledge", ids(watch)[0], 7)
    assert isinstance(first, Acted)
    assert isinstance(again, Acted)
    assert (first.news, again.news) == (True, False)
    assert (watch.memory.open[0].acknowledged_by, watch.memory.open[0].acknowledged_at) == (
        "ann", T - timedelta(days=8),
    )  # fmt: skip
    for ago, n in ((6, 10), (1, 5)):
        assert watch.look(sponsors(n), ago).grown == ()


def test_a_snoozed_episode_is_quiet_until_its_date_and_is_then_heard_of_again() -> None:
    watch = watching(UNHEARD)
    watch.look(sponsors(30), 9)
    do(watch, "snooze", ids(watch)[0], 8, days=6)
    assert watch.look(sponsors(31), 3).due_at == T - timedelta(days=2)
    [reminded] = watch.look(sponsors(31), 2).reminded
    assert (reminded.alert_id, reminded.snoozed) == (ids(watch)[0], False)
    assert watch.look(sponsors(31), 1.9).reminded == ()
    assert [one.previous for decision in watch.told for one in decision.grown] == ["medium"]


def test_a_snoozed_episode_is_heard_of_when_its_cause_grows_whatever_the_date() -> None:
    watch = watching(f"rules: {{{RED}, worse: {{at: 20, severity: critical}}, unheard: {{days: 1}}}}}}")
    watch.look(sponsors(30), 9)
    do(watch, "snooze", ids(watch)[0], 9)
    assert watch.look(sponsors(30), 1).grown == ()
    [grown] = watch.look(sponsors(15), 0.5).grown
    assert (grown.episode.severity, grown.episode.snoozed) == ("critical", False)


def test_what_a_person_closed_stays_closed_until_its_cause_has_gone() -> None:
    watch = watching(f"rules: {{{RED}, worse: {{at: 20, severity: critical}}}}}}")
    watch.look(sponsors(30), 9)
    done = do(watch, "resolve", ids(watch)[0], 8)
    assert isinstance(done, Acted)
    assert ids(watch) == []
    watch.look(sponsors(44), 7)
    watch.look(sponsors(10), 6)
    assert len(watch.opened) == 1
    watch.look(sponsors(60), 5)
    watch.look(sponsors(30), 4)
    assert len(watch.opened) == 2


def test_an_alert_that_is_over_can_only_be_rated() -> None:
    over = {"a1": Past("a1", "acme", "red", "Health is red: 30", T)}
    watch = watching(UNHEARD)
    rating = actions.act(Action("rated", "a1", None, None, useful=False), watch.memory, over, "acme", T)
    assert isinstance(rating, Acted)
    late = actions.act(Action("acknowledged", "a1", None, None), watch.memory, over, "acme", T)
    assert late == Declined("alert 'a1' (Health is red: 30) was over at 2026-03-31T15:30:00Z")
    for account, alert in (("other", "a1"), ("acme", "a2")):
        unknown = actions.act(Action("rated", alert, None, None), watch.memory, over, account, T)
        assert unknown == Declined(f"account {account!r} has no alert {alert!r}; health.alerts lists what is open")


@pytest.mark.parametrize(
    ("demand", "said", "wrong"),
    [
        ("alert.acknowledge", {}, "parameter alert_id is missing"),
        ("alert.acknowledge", {"alert_id": 7}, "parameter alert_id takes a text"),
        ("alert.acknowledge", {"alert_id": "a", "note": "x" * 1001}, "parameter note takes a text of at most 1000"),
        ("alert.snooze", {"alert_id": "a", "days": 0}, "takes until .a time. or days"),
        ("alert.snooze", {"alert_id": "a", "days": True}, "takes until .a time. or days"),
        ("alert.snooze", {"alert_id": "a", "until": "2026-03-31T15:30:00Z"}, "within 366 days from now"),
        ("alert.snooze", {"alert_id": "a", "until": "2027-04-02"}, "within 366 days from now"),
        ("alert.rate", {"alert_id": "a"}, "takes useful .true or false. or verdict"),
        ("alert.rate", {"alert_id": "a", "verdict": "meh"}, "it takes acted, early, noise"),
    ],
)
def test_an_action_that_cannot_be_read_names_what_is_wrong(demand: str, said: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Unusable, match=wrong):
        actions.read(demand, said, None, T)


def test_a_verdict_says_whether_it_was_of_use() -> None:
    found = [actions.read("alert.rate", {"alert_id": "a", "verdict": one}, None, T).useful for one in actions.VERDICTS]
    assert found == [True, False, True]
    assert actions.read("alert.rate", {"alert_id": "a", "useful": False, "verdict": "acted"}, None, T).useful is False


def test_a_rule_that_is_switched_off_ends_its_episodes_without_a_rest() -> None:
    watch = watching(f"rules: {{{RED}, cooldown_days: 7}}}}")
    watch.look(sponsors(30), 9)
    off = config.parse(f"rules: {{{RED}, cooldown_days: 7, enabled: false}}}}", Rules).model
    watch.policy = replace(watch.policy, rules=off)
    assert [episode.rule for episode in watch.look(sponsors(30), 8).resolved] == ["red"]
    assert watch.memory.hush == episodes.NOTHING


def test_what_hush_remembers_ends_by_itself() -> None:
    watch = watching(f"rules: {{{RED}, cooldown_days: 3, confirm: {{days: 2, of_days: 2}}}}}}")
    for ago, n in ((9, 30), (8, 30), (7, 60), (6, 30)):
        watch.look(sponsors(n), ago)
    assert watch.memory.hush.resting
    assert watch.memory.hush.doubts
    assert watch.look(sponsors(60), 3).memory.hush.doubts == ()
    assert watch.look(sponsors(60), -30).memory.hush == episodes.NOTHING
    assert domain.Memory().hush == episodes.NOTHING
