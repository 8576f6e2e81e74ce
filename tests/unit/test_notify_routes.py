"""Who hears, when, and what is said next in one place."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notify import sample
from services.notify.domain import (
    Places,
    Plan,
    Row,
    Standing,
    Told,
    destinations,
    next_digest,
    plan,
    quiet_until,
)
from services.notify.episodes import Account, Episode, Said, told
from services.notify.settings import Notify
from shared.config import parse
from shared.errors import Misconfigured
from shared.team import Team

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)  # a Wednesday
PARIS = ZoneInfo("Europe/Paris")
UTC_ZONE = ZoneInfo("UTC")


def rules(**given: Any) -> Notify:
    return Notify.model_validate(given)


def an_episode(**given: Any) -> Episode:
    return replace(sample.card(NOW, "en").episode, **given)


def where(episode: Episode, account: Account, given: Notify, team: Team | None = None, **places: Any) -> list[str]:
    there: dict[str, Any] = {
        "channels": {"cs": "slack:C1", "top": "slack:C2"}, "default": "slack:C0", "reaches_people": True,
    }  # fmt: skip
    return destinations(episode, account, given, team or Team(), Places(**(there | places)), NOW)


CHANNELS = {"cs": {"slack": "C11"}, "top": {"slack": "C22"}}


def test_the_first_route_that_reaches_somebody_counts() -> None:
    given = rules(
        channels=CHANNELS, routes=[{"to": ["owner"]}, {"to": ["cs"], "segments": ["high"]}, {"to": ["default"]}]
    )
    assert where(an_episode(), Account("a", owner="lea", segment="high"), given) == ["slack:C1"], (
        "lea is not in the team"
    )
    team = Team.model_validate({"people": [{"id": "lea", "name": "Léa", "slack_id": "U1"}]})
    assert where(an_episode(), Account("a", owner="lea", segment="high"), given, team) == ["slack:U1"]
    assert where(an_episode(), Account("a"), given) == ["slack:C0"]


def test_a_route_that_goes_on_adds_to_the_next() -> None:
    given = rules(
        channels=CHANNELS,
        routes=[{"to": ["top"], "severity_from": "high", "go_on": True}, {"to": ["cs", "top"], "kinds": ["risk"]}],
    )
    assert where(an_episode(severity="critical"), Account("a"), given) == ["slack:C2", "slack:C1"]
    assert where(an_episode(severity="low"), Account("a"), given) == ["slack:C1", "slack:C2"]
    assert where(an_episode(severity="low", kind="data"), Account("a"), given) == []


def test_an_absent_owner_is_stood_in_for() -> None:
    away = {"absences": [{"from": "2026-11-16", "to": "2026-11-20"}], "backup": "sam"}
    team = Team.model_validate(
        {"people": [{"id": "lea", "name": "L", "slack_id": "U1", **away}, {"id": "sam", "name": "S", "slack_id": "U2"}]}
    )
    assert where(an_episode(), Account("a", owner="lea"), rules(routes=[{"to": ["owner"]}]), team) == ["slack:U2"]


@pytest.mark.parametrize(
    ("at", "until"),
    [
        ("2026-11-18T12:00", None),
        ("2026-11-18T19:00", "2026-11-19T08:00"),
        ("2026-11-19T03:00", "2026-11-19T08:00"),
        ("2026-11-19T08:00", None),
        ("2026-11-20T20:00", "2026-11-23T08:00"),  # Friday evening until Monday morning
        ("2026-11-21T12:00", "2026-11-23T08:00"),
    ],
)
def test_quiet_hours_run_on_the_readers_clock(at: str, until: str | None) -> None:
    given = rules(quiet_hours={"from": "19:00", "to": "08:00"})
    now = datetime.fromisoformat(at).replace(tzinfo=PARIS).astimezone(UTC)
    found = quiet_until(now, given, PARIS)
    assert (found and f"{found.astimezone(PARIS):%Y-%m-%dT%H:%M}") == until


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.times(), st.times(), st.booleans())
def test_quiet_hours_end_after_they_begin_and_are_over_then(at: datetime, start: Any, end: Any, weekends: bool) -> None:
    given = rules(quiet_hours={"from": start, "to": end, "weekends": weekends})
    now = at.replace(tzinfo=UTC)
    found = quiet_until(now, given, PARIS)
    assert found is None or now < found <= now + timedelta(days=5)


def test_the_daily_digest_comes_in_the_morning() -> None:
    found = next_digest(NOW, rules(digest_at="08:00"), PARIS)
    assert found == datetime(2026, 11, 19, 7, tzinfo=UTC)


# -- what next


def a_row(seq: int = 1, what: Any = "open", **given: Any) -> Row:
    fields: dict[str, Any] = {
        "state": "pending", "mode": "single", "due_at": NOW, "created_at": NOW, "alert_id": "sample", "account_id": "a",
    }  # fmt: skip
    return Row(f"d{seq}", seq, what, **(fields | given))


def next_of(*rows: Row, given: Notify | None = None, standing: Standing | None = None, episode: Episode | None = None,
            told: Told | None = None, many: bool = False) -> Plan:  # fmt: skip
    one = episode or an_episode()
    episodes = {row.alert_id or "": one for row in rows}
    return plan(
        rows, episodes, {}, {"sample": told} if told else {}, {}, standing or Standing(UTC_ZONE), given or rules(), NOW
    )


def test_nothing_is_said_while_somebodys_call_is_unclear() -> None:
    found = next_of(a_row(1, state="sending", attempted_at=NOW), a_row(2, alert_id="other"))
    assert found.act is None
    assert found.look_again_at == NOW + timedelta(seconds=10)


def test_an_unclear_call_is_looked_up_once_it_must_show() -> None:
    found = next_of(a_row(1, state="unknown", attempted_at=NOW - timedelta(seconds=11)))
    assert found.act is not None
    assert found.act.what == "look_up"


def test_an_unclear_change_in_place_is_simply_made_again() -> None:
    found = next_of(a_row(1, "update", state="sending", attempted_at=NOW))
    assert [row.delivery_id for row in found.again] == ["d1"]


def test_a_history_waits_for_its_message() -> None:
    found = next_of(a_row(1, due_at=NOW + timedelta(minutes=5)), a_row(2, "thread", version=2))
    assert found.act is None
    assert found.suppress == []


def test_of_several_changes_the_newest_is_made_and_each_line_of_history() -> None:
    rows = [a_row(1, "update", version=2), a_row(2, "thread", version=2), a_row(3, "update", version=3)]
    found = next_of(*rows, told=Told("1.0", "C1", 1, 1, None))
    assert [(row.seq, why) for row, why in found.suppress] == [(1, "a newer one follows")]
    assert found.act is not None
    assert (found.act.row, found.act.thread_ts) == (rows[1], "1.0")


def test_an_urgent_alert_wakes_people_and_another_waits_for_the_morning() -> None:
    given = rules(quiet_hours={"from": "11:00", "to": "13:00"})
    assert next_of(a_row(), given=given, episode=an_episode(severity="critical")).act is not None
    assert [at for _, at, _ in next_of(a_row(), given=given).later] == [NOW + timedelta(hours=1)]


def test_beyond_the_budget_a_person_gets_a_digest_and_a_channel_does_not() -> None:
    spent = Standing(UTC_ZONE, is_person=True, sent_this_week=8)
    assert [mode for _, _, mode in next_of(a_row(), standing=spent).later] == ["daily"]
    assert next_of(a_row(), standing=replace(spent, is_person=False)).act is not None


def test_a_machine_hears_everything_at_once() -> None:
    machine = Standing(UTC_ZONE, is_machine=True, updates=False)
    over = an_episode(state="resolved")
    found = next_of(a_row(), given=rules(quiet_hours={"from": "11:00", "to": "13:00"}), standing=machine, episode=over)
    assert found.act is not None


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["open", "update", "thread"]), st.integers(1, 4), st.booleans()),
        max_size=30,
    ),
    st.integers(0, 12),
)
def test_a_plan_names_each_row_at_most_once_and_says_the_first_that_may_be(rows: list[Any], budget: int) -> None:
    made = [
        a_row(n, what, alert_id=f"alert-{alert}", version=version, due_at=NOW + timedelta(hours=1 if later else 0))
        for n, (alert, what, version, later) in enumerate(rows)
    ]
    episodes = {f"alert-{n}": an_episode(alert_id=f"alert-{n}", account_id=f"acct-{n}") for n in range(6)}
    standing = Standing(UTC_ZONE, is_person=True, sent_this_week=budget)
    shown = {"alert-0": Told("1.0", "C1", 1, 1, None)}
    found = plan(made, episodes, {}, shown, {}, standing, rules(digest_over=3), NOW)
    named = [row.seq for row, _ in found.suppress] + [row.seq for row, _, _ in found.later]
    if found.act is not None:
        named += [row.seq for row in (*found.act.rows, *([found.act.row] if found.act.row else []))]
        assert all(row.due_at <= NOW for row in found.act.rows)
    assert len(named) == len(set(named))


# -- episodes


def said(what: Any, n: int, **given: Any) -> Said:
    return Said(f"e{n}", what, "a1", "acme", 0, NOW + timedelta(minutes=n), severity="high", title="T", **given)


def test_an_episode_goes_forward_only() -> None:
    first = told(None, said("opened", 1))
    assert first is not None
    assert told(None, said("resolved", 2)) is None, "of an alert that nobody opened"
    assert told(first, said("opened", 1)) is None, "the same event again"
    over = told(first, said("resolved", 2))
    assert over is not None
    assert (over.state, over.version) == ("resolved", 2)
    assert told(over, said("escalated", 3)) is None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("channels: {cs: {slack: '#general'}}", "notify.yaml:1: channels.cs.slack"),
        ("channels: {cs: {slack: C11, email: a@example.com}}", "name one of"),
        ("routes: [{to: [nobody]}]", "nobody: in a route, but not among channels"),
        ("pace: {lease_seconds: 5}", "at least twice"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, wrong: str) -> None:
    from pathlib import Path

    with pytest.raises(Misconfigured, match=wrong):
        parse(text, Notify, Path("notify.yaml"))
