"""The example company: the same for everybody, true to its calendar, and its stories are in the events."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from cli.company import events, live_events
from cli.company.calendars import Span, easter, is_holiday, openness
from cli.company.dealings import words
from cli.company.population import population
from cli.company.usage import BREAK_DAYS, BROKEN_FEATURE
from shared.events.base import model_of, wire_type_of

SEED = 7
UNTIL = datetime(2026, 5, 14, 15, 30, tzinfo=UTC)
TODAY = date(2026, 5, 14)
Event = dict[str, Any]


@pytest.fixture(scope="module")
def history() -> list[Event]:
    return list(events(SEED, UNTIL))


def of(history: Iterable[Event], account_id: str, *types: str) -> list[Event]:
    return [event for event in history if event.get("account_id") == account_id and event["type"] in types]


def ago(event: Event) -> int:
    return (TODAY - day_of(event)).days


def mean_of(counts: Counter[int], days: list[int]) -> float:
    return sum(counts[each] for each in days) / len(days)


def day_of(event: Event) -> date:
    return datetime.fromisoformat(event["timestamp"]).date()


def test_every_event_keeps_the_contract(history: list[Event]) -> None:
    plain = [event for event in history if event["type"] != "usage.tracked"]
    used = [event for event in history if event["type"] == "usage.tracked"][::200]
    for event in [*plain, *used, *live_events(SEED, UNTIL)]:
        model_of(wire_type_of(event["type"])).model_validate(event)
        assert set(event) <= {"id", "type", "timestamp"} | set(model_of(wire_type_of(event["type"])).model_fields)


def test_history_runs_in_order_up_to_the_last_midnight(history: list[Event]) -> None:
    times = [event["timestamp"] for event in history]
    assert times == sorted(times)
    assert times[-1].startswith("2026-05-13T")
    assert times[0].startswith("2024-11-")


def test_no_two_events_have_the_same_id(history: list[Event]) -> None:
    assert len({event["id"] for event in history}) == len(history)
    tickets = [event["ticket_id"] for event in history if event["type"] == "ticket.opened"]
    invoices = Counter(event["invoice_id"] for event in history if event["type"] == "invoice.paid")
    assert len(set(tickets)) == len(tickets)
    assert set(invoices.values()) == {1}


def test_seed_and_day_alone_decide() -> None:
    later_the_same_day = UNTIL.replace(hour=23)
    assert list(events(SEED, UNTIL, months=3)) == list(events(SEED, later_the_same_day, months=3))
    assert list(events(SEED, UNTIL, months=3)) != list(events(SEED + 1, UNTIL, months=3))
    assert list(live_events(SEED, UNTIL)) == list(live_events(SEED, UNTIL))


def test_ten_thousand_events_a_second_are_written() -> None:
    began = time.process_time()
    written = sum(1 for _ in events(SEED + 2, UNTIL, months=6))
    assert written / (time.process_time() - began) > 10_000


def test_two_hundred_customers_of_all_sizes_and_both_models() -> None:
    customers = population(SEED)
    assert 190 <= len(customers) <= 215
    assert len({one.name for one in customers}) == len(customers)
    kinds = Counter((one.model, one.tier) for one in customers)
    assert kinds["b2b", "high"] >= 20
    assert kinds["b2b", "mid"] >= 60
    assert kinds["b2b", "low"] >= 40
    assert kinds["b2c", "low"] >= 30
    parents = {one.parent_id for one in customers if one.parent_id}
    assert len(parents) >= 4
    assert parents <= {one.id for one in customers}


def test_nobody_works_at_christmas_and_few_on_weekends(history: list[Event]) -> None:
    consumers = {one.id for one in population(SEED) if one.model == "b2c"}
    used = Counter(
        day_of(event)
        for event in history
        if event["type"] == "usage.tracked" and event.get("account_id", "") not in consumers
    )
    assert used[date(2025, 12, 25)] < 0.15 * used[date(2025, 12, 11)]
    assert used[date(2026, 3, 14)] < 0.15 * used[date(2026, 3, 12)]


def test_france_rests_in_august_and_on_its_own_holidays() -> None:
    assert [easter(year) for year in (2025, 2026, 2027)] == [date(2025, 4, 20), date(2026, 4, 5), date(2027, 3, 28)]
    assert is_holiday(date(2026, 5, 14), "FR")  # Ascension
    assert not is_holiday(date(2026, 7, 14), "GB")
    assert is_holiday(date(2026, 11, 26), "US")  # Thanksgiving
    assert is_holiday(date(2026, 11, 27), "US")
    assert not is_holiday(date(2026, 11, 20), "US")
    span = Span.until(datetime(2026, 9, 1, tzinfo=UTC), 3)
    august = [(date(2026, 8, 18) - span.first).days, (date(2026, 6, 16) - span.first).days]
    busy = openness(span, "FR", True)
    assert busy[august[0]] < busy[august[1]]


def test_who_is_unknown_at_first_is_identified_later(history: list[Event]) -> None:
    nameless = [event for event in history if event["type"] == "usage.tracked" and "account_id" not in event]
    identified = {event["user_id"]: event for event in history if event["type"] == "user.identified"}
    assert 5 <= len(nameless) <= 200
    for event in nameless:
        assert event["timestamp"] <= identified[event["user_id"]]["timestamp"]
        assert identified[event["user_id"]]["account_id"]


def test_the_joinery_ends_with_19_of_20_active_and_40_percent_more(history: list[Event]) -> None:
    used = of(history, "menuiserie-vallombre", "usage.tracked")
    active = {event["user_id"] for event in used if ago(event) <= 30}
    before = {event["user_id"] for event in used if 90 < ago(event) <= 120}
    mrr = [float(event["mrr"]) for event in of(history, "menuiserie-vallombre", "subscription.changed")]
    assert of(history, "menuiserie-vallombre", "account.updated")[0]["seats"] == 20
    assert len(active) == 19
    assert len(before) < 10
    assert mrr[-1] / mrr[0] == pytest.approx(1.4)


def test_the_champion_who_leaves_takes_the_use_along(history: list[Event]) -> None:
    (gone,) = [e for e in of(history, "laboratoires-seranne", "contact.changed") if e["status"] == "left"]
    used = of(history, "laboratoires-seranne", "usage.tracked")
    before = {event["user_id"] for event in used if ago(gone) < ago(event) <= ago(gone) + 30}
    after = {event["user_id"] for event in used if ago(event) <= 30}
    assert gone["role"] == "champion"
    assert len(after) < 0.6 * len(before)


def test_the_silent_churner_says_nothing(history: list[Event]) -> None:
    heard = of(history, "harrowmere-freight", "usage.tracked", "ticket.opened", "survey.answered", "message.received",
               "call.held", "touchpoint.logged", "meeting.held")  # fmt: skip
    assert min(ago(event) for event in heard) >= 40
    (contract,) = of(history, "harrowmere-freight", "contract.changed")[-1:]
    assert timedelta(0) < date.fromisoformat(contract["notice_on"]) - TODAY < timedelta(days=60)


def test_the_price_complaint_comes_from_somebody_who_uses_it(history: list[Event]) -> None:
    answer = of(history, "cooperative-brisemont", "survey.answered")[-1]
    used = of(history, "cooperative-brisemont", "usage.tracked")
    assert answer["score"] <= 6
    assert "tarif" in answer["comment"]
    assert any(ago(event) <= 4 for event in used)


def test_in_the_tracking_break_one_feature_is_missing_and_nobody_has_left(history: list[Event]) -> None:
    used = [event for event in history if event["type"] == "usage.tracked"]
    working = [event for event in used if day_of(event).weekday() < 5]
    mobile = Counter(ago(event) for event in working if event["feature"] == BROKEN_FEATURE)
    others = Counter(ago(event) for event in working if event["feature"] != BROKEN_FEATURE)
    usual = [days for days in range(30, 72) if others[days]]
    broken = [days for days in BREAK_DAYS if others[days]]
    assert mean_of(mobile, broken) < 0.3 * mean_of(mobile, usual)
    assert mean_of(others, broken) > 0.7 * mean_of(others, usual)
    crews = of(history, "duinveste-techniek", "usage.tracked")
    assert any(ago(event) < min(BREAK_DAYS) for event in crews)


def test_the_storm_has_two_open_p1(history: list[Event]) -> None:
    opened = [event for event in of(history, "falkenrode-logistik", "ticket.opened") if ago(event) <= 7]
    solved = {event["ticket_id"] for event in of(history, "falkenrode-logistik", "ticket.solved")}
    assert len(opened) >= 7
    assert len([e for e in opened if e["severity"] == "p1" and e["ticket_id"] not in solved]) == 2


def test_the_promoter_expands(history: list[Event]) -> None:
    assert of(history, "juniper-wake-outfitters", "survey.answered")[-1]["score"] == 10
    mrr = [float(event["mrr"]) for event in of(history, "juniper-wake-outfitters", "subscription.changed")]
    assert mrr[-1] / mrr[0] == pytest.approx(1.3)


def test_comments_are_in_french_and_english(history: list[Event]) -> None:
    comments = Counter(
        event["language"] for event in history if event["type"] == "survey.answered" and "comment" in event
    )
    assert min(comments["fr"], comments["en"]) > 100
    for part in ("nps", "csat", "tickets", "calls", "wishes"):
        assert set(words()[part]) == {"fr", "en"}


@pytest.mark.parametrize("at", [UNTIL, UNTIL.replace(hour=0, minute=0, second=5), UNTIL.replace(hour=23, minute=59)])
def test_today_happens_between_midnight_and_now(at: datetime) -> None:
    now = list(live_events(SEED, at))
    midnight = at.replace(hour=0, minute=0, second=0)
    assert all(midnight <= datetime.fromisoformat(event["timestamp"]) <= at for event in now)
    assert len({event["id"] for event in now}) == len(now)
    assert Counter(event["type"] for event in now).keys() == {
        "usage.tracked", "ticket.opened", "survey.answered", "invoice.failed", "contact.changed",
    }  # fmt: skip
    assert {event.get("severity") for event in now} >= {"p1"}
    assert {event.get("score") for event in now} >= {3, 10}


def test_what_happens_today_happens_to_known_people(history: list[Event]) -> None:
    known = {event["user_id"] for event in history if event["type"] == "user.identified"}
    assert {event["user_id"] for event in live_events(SEED, UNTIL) if "user_id" in event} <= known
