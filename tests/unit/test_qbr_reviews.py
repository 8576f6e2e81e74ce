"""When reviews are due, held, rescheduled and missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.qbr.domain import (
    Account,
    Decision,
    NotPossible,
    Review,
    Said,
    Wish,
    completion,
    covered,
    decide,
    hold,
    meetings_of,
    next_due,
    schedule,
)
from services.qbr.periods import before, period_of, quarter_named
from services.qbr.settings import load_policy

POLICY = load_policy(Path(__file__).parents[2] / "config").model
PARIS = ZoneInfo("Europe/Paris")


def on(month: int, day: int, hour: int = 12, year: int = 2026) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def an_account(segment: str | None = "high", *meetings: Said, reviews: tuple[Review, ...] = ()) -> Account:
    return Account("acme", [(on(1, 1), "s1", segment)], meetings, reviews)


def said(what: str, at: datetime, for_: datetime | None = None, id: str = "m1", kind: str = "qbr") -> Said:
    return Said(id, what, kind, at, f"{what}-{at.isoformat()}", for_)


def after(account: Account, at: datetime) -> tuple[Account, list[Decision]]:
    decisions = decide(account, at, POLICY)
    reviews = {review.review_id: review for review in account.reviews}
    reviews |= {decision.review.review_id: decision.review for decision in decisions}
    return replace(account, reviews=tuple(reviews.values())), decisions


def told(decisions: list[Decision]) -> list[tuple[str, str]]:
    return [(decision.what, decision.review.period) for decision in decisions]


def test_periods_begin_with_their_zones_first_instant() -> None:
    edge = datetime(2026, 6, 30, 22, 30, tzinfo=UTC)
    assert period_of(edge, "quarter", ZoneInfo("UTC")).name == "2026-Q2"
    assert period_of(edge, "quarter", PARIS).name == "2026-Q3"
    assert period_of(on(12, 31), "half_year", PARIS).ends_at == datetime(2027, 1, 1, tzinfo=PARIS)
    assert before(quarter_named("Q1 2026", PARIS), PARIS).name == "2025-Q4"


@pytest.mark.parametrize("text", ["2026-Q3", "2026Q3", "q3 2026", "T3 2026"])
def test_a_quarter_is_read_as_people_write_it(text: str) -> None:
    assert quarter_named(text, ZoneInfo("UTC")).name == "2026-Q3"


def test_a_quarter_that_is_none_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(ValueError, match="'2026-Q5' is not one; write 2026-Q3"):
        quarter_named("2026-Q5", ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("segment", "expected"),
    [("high", [("qbr", "2026-Q2")]), ("mid", [("check_in", "2026-H1")]), ("low", []), (None, []), ("vip", [])],
)
def test_the_segment_decides_how_often_there_is_a_review(segment: str | None, expected: list[tuple[str, str]]) -> None:
    decisions = decide(an_account(segment), on(4, 2), POLICY)
    assert [(one.review.kind, one.review.period) for one in decisions] == expected


def test_a_review_is_planned_once_per_period_and_then_the_next() -> None:
    account, first = after(an_account(), on(4, 2))
    account, again = after(account, on(5, 2))
    assert (told(first), again) == ([("scheduled", "2026-Q2")], [])
    assert next_due(account, account.reviews, on(5, 2), POLICY) == on(6, 17, 0)
    account, _ = after(account, on(6, 20))
    account, later = after(account, on(7, 1, 0))
    assert told(later) == [("scheduled", "2026-Q3")]


def test_the_pack_is_prepared_before_the_date_else_before_the_end_of_the_period() -> None:
    account, _ = after(an_account("high", said("scheduled", on(4, 3), on(5, 20))), on(4, 4))
    assert next_due(account, account.reviews, on(4, 4), POLICY) == on(5, 6)
    assert told(after(account, on(5, 6))[1]) == [("prepared", "2026-Q2")]


def test_a_meeting_that_took_place_holds_the_review_of_its_time() -> None:
    account, decisions = after(an_account("high", said("held", on(4, 20))), on(4, 21))
    assert told(decisions) == [("scheduled", "2026-Q2"), ("held", "2026-Q2")]
    assert account.reviews[0].held_at == on(4, 20)
    assert after(account, on(6, 30))[1] == []


def test_an_ordinary_call_is_no_review() -> None:
    assert told(decide(an_account("high", said("held", on(4, 20), kind="call")), on(4, 21), POLICY)) == [
        ("scheduled", "2026-Q2")
    ]


def test_not_held_by_the_end_of_grace_is_missed() -> None:
    account, _ = after(an_account(), on(4, 2))
    account, _ = after(account, on(6, 20))
    assert told(after(account, on(7, 14, 23))[1]) == [("scheduled", "2026-Q3")]
    assert ("missed", "2026-Q2") in told(after(account, on(7, 15, 0))[1])


def test_a_review_moved_by_agreement_is_rescheduled_and_not_missed() -> None:
    moved = said("scheduled", on(4, 3), on(6, 10)), said("rescheduled", on(6, 9), on(7, 10))
    account, first = after(an_account("high", moved[0]), on(4, 4))
    account, second = after(replace(account, meetings=moved), on(6, 10))
    assert told(first)[-1] == ("scheduled", "2026-Q2")
    assert told(second) == [("rescheduled", "2026-Q2")]
    assert (second[0].previous_for, second[0].review.due_at) == (on(6, 10), on(7, 10))
    account, later = after(account, on(7, 20))
    assert "missed" not in [decision.what for decision in later]
    assert told(after(account, on(7, 24))[1]) == [("missed", "2026-Q2")]


@pytest.mark.parametrize("what", ["cancelled", "no_show"])
def test_a_date_that_fell_through_leaves_the_review_open(what: str) -> None:
    story = said("scheduled", on(4, 3), on(5, 20)), said(what, on(5, 20))
    account, _ = after(an_account("high", story[0]), on(4, 4))
    account, decisions = after(replace(account, meetings=story), on(5, 21))
    assert [(one.what, one.reason, one.review.scheduled_for) for one in decisions] == [("rescheduled", what, None)]
    again = (*story, said("held", on(6, 3), id="m2"))
    assert told(after(replace(account, meetings=again), on(6, 4))[1]) == [("held", "2026-Q2")]


def test_a_meeting_in_time_that_is_learnt_late_turns_missed_into_held() -> None:
    account, _ = after(an_account(), on(4, 2))
    account, _ = after(account, on(7, 16))
    account, decisions = after(replace(account, meetings=(said("held", on(6, 28)),)), on(7, 17))
    assert told(decisions) == [("held", "2026-Q2")]


def test_a_review_nobody_planned_is_kept_but_not_counted_as_due() -> None:
    account, decisions = after(an_account("low", said("held", on(4, 20))), on(4, 21))
    assert told(decisions) == [("held", "2026-Q2")]
    assert completion(account.reviews, quarter_named("2026-Q2", ZoneInfo("UTC"))).rate is None
    assert after(account, on(4, 22))[1] == []


def test_a_segment_that_rises_in_mid_period_gets_one_review_a_quarter_not_two() -> None:
    account, _ = after(an_account("mid"), on(1, 5))
    risen = replace(account, segments=[*account.segments, (on(1, 20), "s2", "high")])
    risen, first = after(risen, on(1, 20))
    risen, _ = after(risen, on(3, 20))
    _, second = after(risen, on(4, 2))
    assert told(first) == [("scheduled", "2026-Q1")]
    assert told(second) == []  # the half-year's review is still open and due at the end of this quarter


def test_completion_counts_held_of_due_and_takes_a_moved_review_to_its_new_quarter() -> None:
    quarter, following = (quarter_named(name, ZoneInfo("UTC")) for name in ("2026-Q2", "2026-Q3"))

    def a_review(status: Any, due: datetime = quarter.ends_at, **more: Any) -> Review:
        return Review("r", "acme", "qbr", "2026-Q2", quarter.starts_at, quarter.ends_at, due, status, **more)

    moved = a_review("prepared", on(7, 10), rescheduled=1)
    reviews = [a_review("held"), a_review("held"), a_review("missed"), moved, a_review("held", planned=False)]
    assert completion(reviews, quarter).row(90) == {
        "rate": 66.666667, "due": 3, "held": 2, "missed": 1, "open": 0, "rescheduled": 0, "target": 90,
    }  # fmt: skip
    assert (completion(reviews, following).due, completion(reviews, following).rescheduled) == (1, 1)
    assert completion([], quarter).row(90)["reason"] == "no review was due"


def test_a_person_may_schedule_hold_and_is_told_why_not() -> None:
    account, _ = after(an_account(), on(4, 2))
    dated = schedule(account, Wish("q1", on=on(5, 5)), on(4, 3), POLICY)
    assert (dated.what, dated.review.scheduled_for) == ("scheduled", on(5, 5))
    account = replace(account, reviews=(dated.review,))
    moved = schedule(account, Wish("q2", on=on(5, 9)), on(4, 4), POLICY)
    assert (moved.what, moved.previous_for) == ("rescheduled", on(5, 5))
    held = hold(account, Wish("q3", sponsor_attended=True), on(5, 5), POLICY)
    assert (held.review.status, held.review.held_at, held.review.sponsor_attended) == ("held", on(5, 5), True)
    with pytest.raises(NotPossible, match=r"is over; use review\.hold"):
        schedule(account, Wish("q4", on=on(4, 1)), on(4, 3), POLICY)
    with pytest.raises(NotPossible, match="'nope' is not one of account 'acme'"):
        hold(account, Wish("q5", review_id="nope"), on(4, 3), POLICY)
    with pytest.raises(NotPossible, match="parameter scheduled_for is missing"):
        schedule(account, Wish("q6"), on(4, 3), POLICY)


def test_a_pack_made_early_in_a_quarter_is_about_the_one_before() -> None:
    review = after(an_account(), on(4, 2))[0].reviews[0]
    assert covered(review, on(4, 10), ZoneInfo("UTC")).name == "2026-Q1"
    assert covered(review, on(6, 17), ZoneInfo("UTC")).name == "2026-Q2"


def test_a_review_survives_its_row() -> None:
    review = after(an_account("high", said("scheduled", on(4, 3), on(5, 20))), on(4, 4))[0].reviews[0]
    assert Review.of_row(review.row()) == review


@given(st.permutations([
    said("scheduled", on(4, 3), on(5, 1)),
    said("rescheduled", on(4, 20), on(5, 9)),
    said("no_show", on(5, 9)),
    said("rescheduled", on(5, 10), on(5, 30)),
    said("held", on(5, 30)),
]), st.integers(0, 60))  # fmt: skip
def test_a_meeting_is_the_same_in_whatever_order_it_was_told(story: list[Said], days: int) -> None:
    at = on(4, 2) + timedelta(days=days)
    in_order = sorted(story, key=lambda one: one.at)
    assert meetings_of([*story, *story], at) == meetings_of([one for one in in_order if one.at <= at], at)
