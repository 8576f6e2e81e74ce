"""Each measure says what its plain definition says, on any past day, from events in any order."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from services.health import facts, measures
from services.health.facts import Facts
from services.health.measures import Reading
from services.health.settings import AnyMeasure
from services.health.usage import EVENT, action_of, hash_of, micros
from tests.unit.test_health_scoring import T, known, learnt

READ: TypeAdapter[Any] = TypeAdapter(AnyMeasure)
Use = tuple[datetime, str | None, str | None, str]
USES = st.lists(
    st.tuples(
        st.datetimes(datetime(2025, 12, 1), datetime(2026, 4, 2), timezones=st.just(UTC)),
        st.sampled_from([None, "ann", "bob", "cid", "dan", "eve", "flo"]),
        st.sampled_from([None, "search", "export", "share"]),
        st.sampled_from(["clicked", "exported", "shared"]),
    ),
    max_size=60,
)
ZONES = st.sampled_from(["UTC", "Europe/Paris", "America/New_York"])
BACK = st.integers(0, 40)


def read(found: Facts, at: datetime = T, **said: Any) -> Reading:
    scale = {} if "at_least" in said else {"worst": 0, "best": 1}
    measure = READ.validate_python(
        {"label": {"en": "a", "fr": "a"}, "group": "g", "weight": 1, **scale, **said}
    )  # fmt: skip
    return measures.read(measure, lambda value: value, facts.picture(found, at))


def account(uses: list[Use], zone: str = "UTC", *said: Any) -> Facts:
    rows = [(micros(at), hash_of(user), hash_of(feature), action_of(event, None)) for at, user, feature, event in uses]
    found = known(learnt("account.updated", "zone", 300, timezone=zone), *said)
    return found.with_usage(np.array(rows, EVENT)) if rows else found


def window(uses: list[Use], zone: str, at: datetime, days: int) -> list[tuple[date, Use]]:
    """Use of the complete local days before `at`'s, with its day."""
    there = ZoneInfo(zone)
    today = at.astimezone(there).date()
    listed = [(use[0].astimezone(there).date(), use) for use in uses if use[0] <= at]
    return [(day, use) for day, use in listed if today - timedelta(days=days) <= day < today]


def used_lately(uses: list[Use], zone: str, at: datetime, days: int = 120) -> bool:
    there = ZoneInfo(zone)
    past = [use[0] for use in uses if use[0] <= at]
    return bool(past) and (at.astimezone(there).date() - max(past).astimezone(there).date()).days <= days


@settings(deadline=None)
@given(USES, ZONES, BACK, st.sampled_from([7, 28, 30]))
def test_measures_of_use_are_those_of_the_plain_definition(uses: list[Use], zone: str, back: int, days: int) -> None:
    at = T - timedelta(days=back)
    seats = learnt("entitlement.changed", "e", 200, product="crm", seats=4, features=["search", "export", "never"])
    found = account(uses, zone, seats)
    seen = window(uses, zone, at, days)
    users = {use[1] for _, use in seen if use[1]}
    if not used_lately(uses, zone, at):
        for kind in ("usage_volume", "stickiness", "breadth", "core_actions", "licences"):
            assert read(found, at, kind=kind).value is None
        return
    said: dict[str, Any] = {"window_days": days}
    assert read(found, at, kind="usage_volume", **said).value == len(seen)
    assert read(found, at, kind="usage_volume", of="users", **said).value == len(users)
    assert read(found, at, kind="usage_volume", of="days", **said).value == len({day for day, _ in seen})
    assert read(found, at, kind="usage_volume", per="seat", **said).value == pytest.approx(len(seen) / 4)
    assert read(found, at, kind="licences", **said).value == pytest.approx(len(users) / 4)
    features = Counter(use[2] for _, use in seen)
    assert read(found, at, kind="breadth", times=2, **said).value == pytest.approx(
        sum(features[name] >= 2 for name in ("search", "export", "never")) / 3
    )
    core = sum(use[2] == "search" or use[3] == "exported" for _, use in seen)
    what = {"core": {"features": ["search"], "events": ["exported"]}}
    assert read(found, at, kind="core_actions", **what, **said).value == pytest.approx(core / (days / 7))
    depth = read(found, at, kind="core_actions", per="user", **what, **said)
    assert depth.value == (pytest.approx(core / len(users) / (days / 7)) if users else None)
    daily = Counter(day for day, user in {(day, use[1]) for day, use in seen if use[1]})
    sticky = read(found, at, kind="stickiness", floor=2, **said)
    enough = len(users) >= 2
    assert sticky.value == (pytest.approx(sum(daily.values()) / days / len(users)) if enough else None)


@settings(deadline=None)
@given(USES, ZONES, BACK)
def test_weekly_stickiness_counts_users_once_a_week(uses: list[Use], zone: str, back: int) -> None:
    at = T - timedelta(days=back)
    seen, today = window(uses, zone, at, 28), at.astimezone(ZoneInfo(zone)).date()
    users = {use[1] for _, use in seen if use[1]}
    weekly = {((today - day).days - 1) // 7: set[Any]() for day, _ in seen}
    for day, use in seen:
        if use[1]:
            weekly[((today - day).days - 1) // 7].add(use[1])
    value = read(account(uses, zone), at, kind="stickiness", of="weeks", window_days=28, floor=1).value
    wanted = sum(len(who) for who in weekly.values()) / 4 / len(users) if users else None
    assert value == (pytest.approx(wanted) if wanted is not None and used_lately(uses, zone, at) else None)


def test_a_window_with_one_weekend_more_is_no_fall_where_weekdays_are_told_apart() -> None:
    workdays = [T - timedelta(days=n) for n in range(1, 121) if (T - timedelta(days=n)).weekday() < 5]
    found = account([(day, user, "search", "clicked") for day in workdays for user in ("ann", "bob", "cid")])
    trend = {"of": "events", "window_days": 10, "baseline_windows": 3, "floor": 1}
    aware = [
        read(found, T - timedelta(days=back), kind="usage_trend", trend={**trend, "weekdays": True}).value
        for back in range(7)
    ]
    plain = [read(found, T - timedelta(days=back), kind="usage_trend", trend=trend).value for back in range(7)]
    assert aware == [pytest.approx(1)] * 7
    assert min(value for value in plain if value is not None) < 0.95


@settings(deadline=None)
@given(USES, BACK)
def test_a_trend_by_weekdays_is_use_over_what_is_usual_on_those_days(uses: list[Use], back: int) -> None:
    at = T - timedelta(days=back)
    today = at.date()
    early = [
        (T - timedelta(days=118), "ann", "search", "clicked"),
        (T - timedelta(days=75), "ann", "search", "clicked"),
    ]
    uses = [*uses, *early]
    days = Counter(day for day, _ in window(uses, "UTC", at, 60))
    newest = sum(days[today - timedelta(days=k)] for k in range(1, 31))
    usual = 0.0
    for k in range(1, 31):
        same = [days[today - timedelta(days=j)] for j in range(31, 61) if (j - k) % 7 == 0]
        usual += sum(same) / len(same)
    trend = {"of": "events", "window_days": 30, "baseline_windows": 1, "floor": 0.01, "weekdays": True}
    found = read(account(uses), at, kind="usage_trend", trend=trend)
    if usual >= 0.01 and found.value is not None:
        assert found.value == pytest.approx(newest / usual)
    elif usual >= 0.01:
        pytest.fail(f"no ratio: {found.reason}")


TICKETS = st.lists(
    st.tuples(st.sampled_from(["p1", "p2", "p3"]), st.floats(0.1, 150), st.none() | st.floats(0.1, 100)), max_size=8
)


@settings(deadline=None)
@given(TICKETS, BACK)
def test_tickets_are_counted_by_severity_and_age_and_timed_to_their_solution(tickets: list[Any], back: int) -> None:
    at, said = T - timedelta(days=back), []
    opened, solved = [], []
    for number, (severity, days_ago, took) in enumerate(tickets):
        said.append(learnt("ticket.opened", f"o{number}", days_ago, ticket_id=f"t{number}", severity=severity))
        start = T - timedelta(days=days_ago)
        end = None if took is None else start + timedelta(days=took)
        if end is not None:
            said.append(learnt("ticket.solved", f"s{number}", days_ago - took, ticket_id=f"t{number}"))
        if start <= at:
            if end is not None and end <= at:
                solved.append((severity, end, took * 24))
            else:
                opened.append((severity, (at.date() - start.date()).days))
    count = read(known(*said), at, kind="ticket_count", severities=["p1", "p2"], days_open=7)
    wanted = sum(severity != "p3" and age >= 7 for severity, age in opened)
    assert count.value == (wanted if opened or solved else None)
    hours = [took for severity, end, took in solved if severity == "p1" and (at.date() - end.date()).days < 60]
    found = read(known(*said), at, kind="time_to_solve", severities=["p1"], window_days=60)
    assert found.value == (pytest.approx(median(hours), rel=1e-6) if hours else None)


def test_effort_is_read_on_its_own_scale() -> None:
    found = known(learnt("survey.answered", "e", 1, kind="ces", score=5, scale="1-5", user_id="ann"))
    assert read(found, kind="survey", of="ces").value == 7


def test_a_renewal_comes_nearer_to_the_notice_then_to_the_end_and_is_over() -> None:
    found = known(learnt("contract.changed", "c", 90, contract_id="k", notice_on="2026-04-10", ends_on="2026-06-30"))
    assert read(found, kind="renewal").value == 10
    assert read(found, datetime(2026, 4, 10, 12, tzinfo=UTC), kind="renewal").value == 0
    assert read(found, datetime(2026, 4, 11, 12, tzinfo=UTC), kind="renewal").value == 80
    assert read(found, datetime(2026, 7, 1, 12, tzinfo=UTC), kind="renewal").value is None
    sooner = found.with_mark(learnt("contract.changed", "d", 80, contract_id="m", ends_on="2026-04-02"))
    assert read(sooner, kind="renewal").value == 2


SUBSCRIPTIONS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 200), st.sampled_from(["0", "10", "12.50", "99"])), max_size=8
)


@settings(deadline=None)
@given(SUBSCRIPTIONS, BACK)
def test_revenue_is_held_against_what_it_was(changes: list[tuple[str, int, str]], back: int) -> None:
    at = T - timedelta(days=back)
    said = [
        learnt("subscription.changed", f"e{n:02}", days, subscription_id=name, mrr=mrr, currency="EUR")
        for n, (name, days, mrr) in enumerate(changes)
    ]

    def mrr(until: datetime) -> Decimal | None:
        lasts: dict[str, tuple[datetime, str, Decimal]] = {}
        for n, (name, days, amount) in enumerate(changes):
            when = T - timedelta(days=days)
            if when <= until:
                lasts[name] = max(lasts.get(name, (when, "", Decimal(0))), (when, f"e{n:02}", Decimal(amount)))
        return sum((one[2] for one in lasts.values()), Decimal(0)) if lasts else None

    midnight = datetime(at.year, at.month, at.day, tzinfo=UTC) - timedelta(days=60)
    before, now = mrr(midnight), mrr(at)
    found = read(known(*said), at, kind="mrr_trend", window_days=60)
    assert found.value == (pytest.approx(float(now / before)) if before and now is not None else None)
    assert found.value is not None or found.reason


def test_revenue_in_two_currencies_is_not_compared() -> None:
    said = [learnt("subscription.changed", "a", 90, mrr="10", currency="EUR"),
            learnt("subscription.changed", "b", 10, mrr="12", currency="USD")]  # fmt: skip
    assert read(known(*said), kind="mrr_trend", window_days=60).reason == "subscriptions are in EUR and USD"


def test_seats_are_the_entitlements_word_then_the_subscriptions_then_the_profiles() -> None:
    said = [learnt("account.updated", "p", 9, seats=5)]
    subscription = learnt("subscription.changed", "s", 8, subscription_id="x", mrr="10", seats=7)
    ended = learnt("subscription.changed", "t", 8, subscription_id="y", mrr="0", seats=70)
    one = learnt("entitlement.changed", "e", 7, product="crm", seats=3)
    other = learnt("entitlement.changed", "f", 7, product="erp", seats=4)
    over = learnt("entitlement.changed", "g", 2, product="erp", seats=0)
    for more, seats in ((subscription, 5), (ended, 7), (one, 7), (other, 3), (over, 7), (None, 3)):
        assert facts.picture(known(*said), T).seats == seats
        if more:
            said.append(more)
    assert read(known(learnt("entitlement.changed", "e", 7, seats=0)), kind="licences").reason == "no seats are left"


def test_what_cannot_be_told_says_why() -> None:
    used = account([(T - timedelta(days=2), "ann", "search", "clicked")])
    assert read(used, kind="breadth").reason == "no entitlement names its features"
    assert read(used, kind="licences").reason == "no seats are known"
    assert read(used, kind="stickiness").reason == "fewer than 5 users: a share of them would be noise"
    assert read(known(), kind="usage_volume").reason == "no use in 120 days"
    assert read(known(), kind="renewal").reason is not None
    assert read(known(), kind="time_to_solve").reason == "no ticket was solved in 90 days"
