"""Counts of use are exact, whatever the order, the batches and the time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.health import usage
from services.health.usage import EVENT, UTC_ZONE, Events, Usage, micros

T = datetime(2026, 3, 31, 15, 30, tzinfo=UTC)
UseAt = tuple[datetime, str | None, str | None]
USES = st.lists(
    st.tuples(
        st.datetimes(datetime(2025, 11, 1), datetime(2026, 4, 2), timezones=st.just(UTC)),
        st.sampled_from([None, "ann", "bob", "cid", "dan"]),
        st.sampled_from([None, "search", "export", "share"]),
    ),
    max_size=40,
)


def used(*uses: UseAt) -> Events:
    rows = [(micros(at), usage.hash_of(user), usage.hash_of(feature), 1) for at, user, feature in uses]
    return np.array(rows, EVENT)


@given(USES, st.randoms(), st.integers(1, 5))
def test_totals_are_those_of_the_plain_definition_in_any_order_and_split(
    uses: list[UseAt], rng: object, cuts: int
) -> None:
    shuffled = list(uses)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    parts = [used(*shuffled[k::cuts]) for k in range(cuts)]
    totals = usage.totals(Usage.until(parts, T), T)
    past = [use for use in uses if use[0] <= T]
    if not past:
        assert totals is None
        return
    assert totals is not None
    assert totals.events == len(past)
    assert totals.users == len({user for _, user, _ in past if user})
    assert totals.features == len({feature for _, _, feature in past if feature})
    assert (totals.first_at, totals.last_at) == (micros(min(u[0] for u in past)), micros(max(u[0] for u in past)))
    assert totals.events_last_30d == sum(T - timedelta(30) < at <= T for at, _, _ in past)
    assert totals.events_prev_90d == sum(T - timedelta(120) < at <= T - timedelta(30) for at, _, _ in past)


@given(USES, st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe"]))
def test_windows_count_complete_local_days_only(uses: list[UseAt], name: str) -> None:
    zone = ZoneInfo(name)
    today = T.astimezone(zone).date()
    seen = Usage.until([used(*uses)], T)
    for of, pick in (("days", 0), ("users", 1), ("features", 2)):
        expected = []
        for window in range(4):
            first, last = today - timedelta(30 * (window + 1)), today - timedelta(30 * window + 1)
            inside = [use for use in uses if first <= use[0].astimezone(zone).date() <= last and use[0] <= T]
            days = {use[0].astimezone(zone).date() for use in inside}
            expected.append(len(days) if of == "days" else len({use[pick] for use in inside if use[pick]}))
        assert seen.windows(zone, today, of, 30, 4) == expected  # type: ignore[arg-type]


@given(USES, st.integers(1, 3))
def test_packing_by_account_and_day_loses_nothing(uses: list[UseAt], accounts: int) -> None:
    events = used(*uses) if uses else usage.NO_EVENTS
    owners = np.arange(len(uses)) % accounts
    rows = usage.group(owners, events)
    assert len({(account, day) for account, day, _ in rows}) == len(rows)
    back = sorted((account, *event) for account, _, body in rows for event in usage.from_bytes(body).tolist())
    assert back == sorted((owner, *event) for owner, event in zip(owners.tolist(), events.tolist(), strict=True))
    assert all(at // usage.DAY_US == day for _, day, body in rows for at in usage.from_bytes(body)["at"].tolist())


def test_a_day_of_25_hours_is_one_day() -> None:
    zone, today = ZoneInfo("Europe/Paris"), date(2025, 10, 27)
    edges = usage.midnights(zone, today, 2)
    assert [int(hours) for hours in np.diff(edges) // 3_600_000_000] == [24, 25, 24]


def test_months_count_users_once_over_all_accounts_and_the_last_one_to_its_day() -> None:
    jan, feb = datetime(2026, 1, 31, 23, 59, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    seen = Usage.until([used((jan, "ann", None), (jan, "bob", None)), used((feb, "ann", None), (feb, None, None))], T)
    january, february = usage.months(seen, feb + timedelta(hours=3))[:2]
    assert (january.month, january.mau, january.mean_dau) == ("2026-01", 2, 2 / 31)
    assert (february.month, february.mau, february.mean_dau, february.dau_mau) == ("2026-02", 1, 1.0, 1.0)


def test_who_stopped_is_told_by_days_of_use() -> None:
    days = [T - timedelta(days=n) for n in range(120)]
    seen = Usage.until(
        [used(*((d, "gone", None) for d in days[40:]), (days[50], "rare", None), (days[0], "here", None))], T
    )
    assert seen.stopped(UTC_ZONE, T.date(), 30, 4) == [usage.hash_of("gone"), usage.hash_of("rare")]
