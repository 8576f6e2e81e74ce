"""Data that breaks on the way: told apart from customers who stop, once for the whole book, and over by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import incidents, rehearsal, tracking
from services.health.policy import load_policy
from services.health.rules import SourceSilent, TrackingBreak
from services.health.tracking import Break, Day, Silence
from services.health.usage import EVENT, hash_of, micros

LAST = date(2026, 3, 31)
BREAK, SILENT = TrackingBreak(when="tracking_break"), SourceSilent(when="source_silent")
RULES = load_policy().rules


def days_of(accounts: int = 40, lost: Mapping[int, int] | None = None, feature: str = "export") -> dict[date, Day]:
    """Every account uses `report`, and all of them `feature`; `lost`: days ago → how many do."""
    found = {}
    for ago in range(tracking.KEPT_DAYS):
        day = LAST - timedelta(days=ago)
        active = accounts if day.weekday() < 5 else accounts // 10
        found[day] = Day(active, {"report": active, feature: min(active, (lost or {}).get(ago, active))})
    return found


def test_a_feature_that_falls_everywhere_at_once_is_a_break_from_its_first_day_on() -> None:
    assert tracking.breaks(days_of(lost={0: 0, 1: 1}), LAST, BREAK) == [
        Break("feature", "export", LAST - timedelta(days=1))
    ]


def test_it_is_over_on_the_first_day_that_is_as_usual() -> None:
    lost = {12: 0, 13: 0, 14: 0}
    [one] = tracking.breaks(days_of(lost=lost), LAST, BREAK)
    assert (one.since, one.until) == (LAST - timedelta(days=14), LAST - timedelta(days=11))


@pytest.mark.parametrize(
    ("accounts", "lost"),
    [
        (40, {}),
        (40, {0: 20}),  # half of them: below `leave`, above `enter`
        (8, {0: 0, 1: 0}),  # too few accounts to tell
        (40, dict.fromkeys(range(tracking.KEPT_DAYS - 12, tracking.KEPT_DAYS), 0)),  # before anything was known
    ],
)
def test_nothing_broke(accounts: int, lost: dict[int, int]) -> None:
    assert tracking.breaks(days_of(accounts, lost), LAST, BREAK) == []


def test_a_quiet_day_of_all_use_is_no_break() -> None:
    days = days_of()
    days[LAST] = Day(3, {"report": 3, "export": 2})
    assert tracking.breaks(days, LAST, BREAK) == []


def test_a_week_end_within_does_not_end_it_nor_does_its_own_silence_become_usual() -> None:
    [one] = tracking.breaks(days_of(lost=dict.fromkeys(range(16), 0)), LAST, BREAK)
    assert (one.since, one.until) == (LAST - timedelta(days=15), None)


def test_what_never_comes_back_is_given_up_as_a_feature_that_is_no_more() -> None:
    for ago in (BREAK.at_most_days, 25, 29):
        assert tracking.breaks(days_of(lost=dict.fromkeys(range(ago + 1), 0)), LAST, BREAK) == []


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 29), st.integers(1, 12), st.integers(0, 1_000_000))
def test_any_break_of_whole_days_is_found_and_what_is_sent_late_undoes_it(ago: int, length: int, seed: int) -> None:
    length = min(length, ago + 1)
    lost = {ago - n: 0 for n in range(length)}
    found = tracking.breaks(days_of(lost=lost), LAST, BREAK)
    weekdays = [ago - n for n in range(length) if (LAST - timedelta(days=ago - n)).weekday() < 5]
    assert len(found) == (1 if weekdays else 0)
    if found:
        assert found[0].since == LAST - timedelta(days=weekdays[0])
    late = list(days_of(lost=lost).items()) + list(days_of().items())
    assert tracking.breaks(dict(late), LAST, BREAK) == []


# Two hundred days by chance

OFFICE = (1.0, 1.0, 1.0, 1.0, 0.9, 0.15, 0.1)  # of Monday's use
HOLIDAYS = (20, 21, 77, 150)  # days ago


def by_chance(accounts: int, seed: int, shares: Mapping[str, float]) -> dict[date, Day]:
    chance, found = np.random.default_rng(seed), {}
    for ago in range(tracking.KEPT_DAYS):
        day = LAST - timedelta(days=ago)
        active = int(chance.binomial(accounts, 0.9 * OFFICE[day.weekday()] * (0.05 if ago in HOLIDAYS else 1)))
        found[day] = Day(active, {name: int(chance.binomial(active, share)) for name, share in shares.items()})
    return found


@pytest.mark.parametrize("accounts", [15, 40, 200, 2000])
def test_no_chance_and_no_holiday_is_a_break(accounts: int) -> None:
    shares = {f"f{n}": 0.05 + n * 0.045 for n in range(20)}
    for seed in range(3):
        assert tracking.breaks(by_chance(accounts, seed, shares), LAST, BREAK) == []


def test_a_campaign_is_no_habit_and_its_end_no_break() -> None:
    days = by_chance(400, 1, {"export": 0.05, "report": 0.9})
    for ago in (7, 8, 9, 35):
        days[LAST - timedelta(days=ago)].features["export"] = 350
    assert tracking.breaks({day: Day(one.active, one.features) for day, one in days.items()}, LAST, BREAK) == []


@pytest.mark.parametrize(("accounts", "within"), [(40, 1), (200, 0)])
def test_a_real_break_is_found_on_its_first_day_or_the_next(accounts: int, within: int) -> None:
    monday = LAST - timedelta(days=LAST.weekday() + 7)
    for seed in range(5):
        days = by_chance(accounts, seed, dict.fromkeys(("export", "report", "share"), 0.9))
        for day in (day for day in list(days) if day >= monday):
            days[day] = Day(days[day].active, days[day].features | {"export": 0})
        found = tracking.breaks(days, monday + timedelta(days=within), BREAK)
        assert [(one.name, one.since, one.until) for one in found] == [("export", monday, None)]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 60), st.integers(0, 1000))
def test_a_day_is_judged_the_same_whatever_comes_after_it(ago: int, length: int, back: int, seed: int) -> None:
    days = by_chance(60, seed, {"export": 0.8, "report": 0.8})
    for one in range(max(0, ago - length), ago):
        day = LAST - timedelta(days=one)
        days[day] = Day(days[day].active, days[day].features | {"export": 0})
    then = LAST - timedelta(days=back)
    known = {day: one for day, one in days.items() if day <= then}
    assert tracking.breaks(known, then, BREAK) == tracking.breaks(days, then, BREAK)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.sampled_from(["a", "b"])), min_size=1), st.randoms()
)
def test_counts_are_those_of_the_accounts_whatever_the_order(use: list[tuple[int, int, str]], random: Random) -> None:
    def rows(found: list[tuple[int, int, str]]) -> dict[int, np.ndarray[tuple[int], np.dtype[np.void]]]:
        at = {a: [(micros(datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=h)), 1, hash_of(f), 1)
                  for b, h, f in found if b == a] for a, _, _ in found}  # fmt: skip
        return {a: np.array(events, EVENT) for a, events in at.items()}

    counts = tracking.count(rows(use).values())
    shuffled = use * 2
    random.shuffle(shuffled)
    assert tracking.count(rows(shuffled).values()) == counts
    for day, (active, features) in counts.items():
        on = [(a, f) for a, h, f in use if date(2026, 3, 1) + timedelta(days=h // 24) == day]
        assert active == len({a for a, _ in on})
        assert features == {hash_of(f): len({a for a, g in on if g == f}) for f in {f for _, f in on}}


# Sources

NOON = tracking.hour_of(datetime(2026, 3, 31, 12, tzinfo=UTC))


def sent(until_ago: int, weeks: int = 6, office: bool = False, daily: bool = False) -> set[int]:
    """Hours of a source that sends around the clock, in office hours, or once a night, until so many hours ago."""
    found = set()
    for hour in range(NOON - weeks * 168, NOON - until_ago + 1):
        at = tracking.time_of(hour)
        if (not office or (at.weekday() < 5 and 8 <= at.hour < 18)) and (not daily or at.hour == 2):
            found.add(hour)
    return found


def silent(heard: set[int], now: int = NOON) -> bool:
    return any(one.until is None for one in tracking.silences(heard, now, SILENT))


def test_how_long_a_source_may_be_silent_follows_from_its_rhythm() -> None:
    assert not silent(sent(36))
    assert silent(sent(44))  # a quarter of a week that is all hours
    assert not silent(sent(24, daily=True))
    assert silent(sent(60, daily=True))  # two nights
    friday = NOON - 4 * 24 + 7  # 19:00
    night = {hour for hour in sent(0, office=True) if hour < friday}
    assert not silent(night, friday + 62)  # Monday 9:00
    assert not silent(night, friday + 71)  # a bank holiday
    assert silent(night, friday + 88)


def test_a_source_that_nobody_knows_yet_or_that_sends_now_and_then_is_not_missed() -> None:
    assert not silent(sent(100, weeks=1))
    assert not silent({NOON - 400, NOON - 900, NOON - 1000})
    assert not silent(set())


def test_a_silence_is_over_with_the_first_word_and_never_was_when_it_is_sent_late() -> None:
    heard = sent(0) - set(range(NOON - 100, NOON - 20))
    [one] = tracking.silences(heard, NOON, SILENT)
    assert (one.last, one.until) == (NOON - 101, NOON - 20)
    assert tracking.days_of(one) == (date(2026, 3, 28), date(2026, 3, 30))
    assert tracking.silences(sent(0), NOON, SILENT) == []


def test_no_whole_day_is_cut_out_of_a_short_silence() -> None:
    assert tracking.days_of(Silence(NOON - 20, NOON - 2, 3, 4)) is None


HOURS = 200 * 24


def at_random(a_week: float, seed: int, profile: Sequence[float] = (1.0,) * 168) -> set[int]:
    """Hours of two hundred days in which a source sends that knows no rhythm but that of the week."""
    rates = np.resize(np.array(profile) * a_week / sum(profile), HOURS)
    return set((NOON - HOURS + np.flatnonzero(np.random.default_rng(seed).random(HOURS) < 1 - np.exp(-rates))).tolist())


WORKING = [1.0 if day < 5 and 8 <= hour < 18 else 0.1 for day in range(7) for hour in range(24)]


@pytest.mark.parametrize("a_week", [0.5, 1, 2, 3, 5, 7, 15, 30, 70, 200, 1000])
def test_no_pause_of_a_source_that_sends_at_random_is_a_silence(a_week: float) -> None:
    for seed in range(3):
        assert tracking.silences(at_random(a_week, seed), NOON, SILENT) == []
        assert tracking.silences(at_random(a_week, seed, WORKING), NOON, SILENT) == []


def test_nor_of_one_that_sends_in_bursts() -> None:
    for seed in range(5):
        bursts = {hour + more for hour in at_random(2, seed) for more in range(6)}
        assert tracking.silences(bursts, NOON, SILENT) == []


@pytest.mark.parametrize(("a_week", "hours"), [(1000, 38), (200, 48), (70, 96)])
def test_one_that_sends_much_is_missed_within_a_day_or_so_and_one_that_sends_less_later(
    a_week: float, hours: int
) -> None:
    for seed in range(5):
        heard = {hour for hour in at_random(a_week, seed) if hour <= NOON - hours}
        assert silent(heard)
        assert not silent(heard, min(NOON, max(heard) + 20))


def test_a_source_that_never_comes_back_is_given_up() -> None:
    assert silent(sent(24 * SILENT.at_most_days - 1))
    assert not silent(sent(24 * SILENT.at_most_days + 1))


# Incidents


def masks(hours: set[int], live: bool = True) -> list[tuple[date, int, int]]:
    return [(tracking.time_of(hour).date(), 1 << hour % 24, live << hour % 24) for hour in sorted(hours)]


def test_a_feature_is_one_incident_and_what_is_told_of_it_says_what_is_usual() -> None:
    until = datetime(2026, 4, 1, tzinfo=UTC)
    found = incidents.found(days_of(lost={0: 0, 1: 1}), {}, until, RULES, "en")
    assert list(found.holding) == [("tracking_break", "export")]
    words = found.holding["tracking_break", "export"].tell()
    assert words.title == "Tracking of export broke: 0 of 40 accounts"
    assert words.evidence["since"] == "2026-03-30"
    french = incidents.found(days_of(lost={0: 0, 1: 1}), {}, until, RULES, "fr")
    assert french.holding["tracking_break", "export"].tell().title == "Le suivi de export est rompu : 0 comptes sur 40"


def test_a_source_is_one_incident_whatever_it_sends_and_only_lost_use_freezes() -> None:
    until = tracking.time_of(NOON)
    both = {("segment", True): masks(sent(90)), ("segment", False): masks(sent(90)), ("zendesk", False): masks(sent(0))}
    found = incidents.found({}, both, until, RULES, "en")
    assert list(found.holding) == [("source_silent", "segment")]
    assert found.breaks == (Break("source", "segment", date(2026, 3, 28)),)
    words = found.holding["source_silent", "segment"].tell()
    assert words.title == "segment is silent"
    assert "Measures of use are frozen" in words.why
    tickets = incidents.found({}, {("zendesk", False): masks(sent(90))}, until, RULES, "fr")
    assert (list(tickets.holding), tickets.breaks) == ([("source_silent", "zendesk")], ())
    assert tickets.holding["source_silent", "zendesk"].tell().title == "zendesk ne dit plus rien"


def test_use_that_stops_is_an_incident_though_the_source_still_sends_the_rest() -> None:
    hours = {("hune", True): masks(sent(90)), ("hune", False): masks(sent(0))}
    found = incidents.found({}, hours, tracking.time_of(NOON), RULES, "en")
    assert list(found.holding) == [("source_silent", "hune")]
    assert found.breaks[0].until is None


def test_the_end_of_an_import_is_told_to_nobody() -> None:
    hours = {("hune", True): masks(sent(90), live=False)}
    assert incidents.found({}, hours, tracking.time_of(NOON), RULES, "en").holding == {}


def test_a_rehearsal_tells_of_data_too_once_for_the_book_and_quietly_of_what_had_begun_before() -> None:
    policy = load_policy()
    end = datetime(2026, 4, 1, tzinfo=UTC)
    days = days_of(lost={0: 0, 1: 0, 20: 0, 21: 0})
    told, breaks = rehearsal.rehearse_data(days, {}, policy, end - timedelta(days=30), end)
    assert [(one.since, one.until) for one in breaks] == [
        (date(2026, 3, 10), date(2026, 3, 12)), (date(2026, 3, 30), None)
    ]  # fmt: skip
    assert [(one.account_id, one.rule, one.kind, one.baseline) for one in told] == [
        ("*", "tracking_break", "data", False)
    ] * 2
    assert (told[0].resolved_at, told[1].resolved_at) == (datetime(2026, 3, 13, tzinfo=UTC), None)
    [late] = rehearsal.rehearse_data(days, {}, policy, end - timedelta(hours=1), end)[0]
    assert late.baseline
