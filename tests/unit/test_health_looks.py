"""What an account's facts remember of earlier looks never shows in a later one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.health import facts, scoring
from services.health.facts import Facts, Learnt, Mark
from services.health.policy import load_policy
from services.health.usage import EVENT, UTC_ZONE, Usage, micros

T = datetime(2026, 3, 31, 15, 30, tzinfo=UTC)
POLICY = load_policy(*(Path("config") / name for name in ("health.yaml", "alerts.yaml")))
TIMES = st.one_of(
    st.integers(0, 130 * 24 * 60).map(lambda minutes: T - timedelta(minutes=minutes)),
    st.integers(0, 90).map(lambda seconds: T - timedelta(seconds=seconds)),
    st.integers(1, 600).map(lambda minutes: T + timedelta(minutes=minutes)),
)
USE = st.tuples(TIMES, st.integers(0, 3), st.integers(0, 2))
USES = st.tuples(st.just("use"), st.lists(USE, min_size=1, max_size=4))
MARKS = st.tuples(
    st.just("mark"), TIMES, st.sampled_from(["t1", "t2", "a1"]), st.sampled_from(["opened", "solved", "updated"])
)
LOOKS = st.tuples(st.just("look"), TIMES)


@given(st.lists(st.one_of(USES, MARKS, LOOKS), max_size=14))
def test_a_look_is_the_same_whatever_was_looked_at_before(steps: list[tuple[object, ...]]) -> None:
    known = Facts("acme", {})
    for number, step in enumerate(steps):
        match step:
            case "use", list(uses):
                rows = [(micros(at), user, feature, 1) for at, user, feature in uses]
                known = known.with_usage(np.array(rows, EVENT))
            case "mark", datetime() as at, str(key), str(verb):
                known = known.with_mark(_mark(key, verb, at, str(number)))
            case "look", datetime() as at:
                _same_as_afresh(known, at)
    _same_as_afresh(known, T)


def _mark(key: str, verb: str, at: datetime, id: str) -> Learnt:
    if key == "a1":
        answer = {"survey": "nps", "score": 4, "person": "ann"}
        return Learnt(("answer", key), Mark(micros(at), id, "answered", answer))
    return Learnt(("ticket", key), Mark(micros(at), id, verb, {"severity": "p1"}))


def _same_as_afresh(known: Facts, at: datetime) -> None:
    afresh = Facts(known.account_id, dict(known.things), known.usage)
    seen, new = facts.picture(known, at), facts.picture(afresh, at)
    for field in ("tickets", "answers", "profile", "latest_at", "coming_at", "today"):
        assert getattr(seen, field) == getattr(new, field)
    assert (seen.usage.first_at, seen.usage.last_at) == (new.usage.first_at, new.usage.last_at)
    assert scoring.score_of(known, seen, POLICY.model) == scoring.score_of(afresh, new, POLICY.model)
    assert seen.usage.times.tolist() == new.usage.times.tolist()


def test_use_of_today_leaves_what_was_counted_of_the_days_before() -> None:
    looks = 0

    def count() -> int:
        nonlocal looks
        looks += 1
        return looks

    midnight = micros(T.replace(hour=0, minute=0))
    before = Usage.until([np.array([(micros(T - timedelta(days=3)), 1, 1, 1)], EVENT)], T)
    assert before.remember(("k",), midnight, count) == 1
    today = before.extended(np.array([(micros(T - timedelta(hours=1)), 2, 1, 1)], EVENT), T)
    assert today is not None
    assert today.remember(("k",), midnight, count) == 1
    late = today.extended(np.array([(micros(T - timedelta(days=2)), 2, 1, 1)], EVENT), T)
    assert late is not None
    assert late.remember(("k",), midnight, count) == 2
    assert late.windows(UTC_ZONE, T.date(), "users", 30, 1) == [2]
