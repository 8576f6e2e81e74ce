"""The review pack: exact usage however it came in, and figures that name the events they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from services.qbr.facts import Fact, tickets_of
from services.qbr.pack import NO_REVENUE, NO_SEATS, NO_USAGE, Material, Rules, build
from services.qbr.periods import quarter_named
from services.qbr.settings import load_policy, load_surveys
from services.qbr.usage import DayRow, Draft, Usage, drafts_of, pack

CONFIG = Path(__file__).parents[2] / "config"
RULES = Rules(load_policy(CONFIG).model, load_surveys(CONFIG).model)
Q2 = quarter_named("2026-Q2", ZoneInfo("UTC"))
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
Used = tuple[str, int, datetime, str, str | None, str]


def at(day: float) -> datetime:
    return APRIL + timedelta(days=day)


def used(day: float, user: str | None = "ann", feature: str = "board", id: str | None = None) -> Used:
    return "acme", 0, at(day), id or f"u{day}-{user}-{feature}", user, feature


def rows_of(drafts: Mapping[tuple[str, date], Draft]) -> list[DayRow]:
    return [DayRow(day, pack(one), tuple(one.features), one.first, one.last) for (_, day), one in drafts.items()]


def usage_of(*batches: Iterable[Used]) -> Usage:
    return Usage(row for batch in batches for row in rows_of(drafts_of(batch)))


def fact(type: str, day: float, subject: str = "x", **data: Any) -> Fact:
    return Fact(type, subject, at(day), "hune", f"{type}-{subject}-{day}", data)


def a_pack(*facts: Fact, usage: Usage | None = None, now: float = 120, used_before: bool = False) -> dict[str, Any]:
    return build(Material(facts, usage or usage_of(), used_before), Q2, at(now), RULES)


moments = st.integers(0, 6 * 86_400 * 1_000_000 - 1).map(lambda us: APRIL + timedelta(microseconds=us))
events = st.lists(
    st.tuples(moments, st.sampled_from([None, "ann", "bob", "cyd"]), st.sampled_from(["board", "report", "sync"])),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(events, st.data())
def test_usage_is_exact_in_any_order_and_however_split_into_batches(
    drawn: list[tuple[datetime, str | None, str]], data: st.DataObject
) -> None:
    history = [("acme", 0, when, f"e{n}", user, feature) for n, (when, user, feature) in enumerate(drawn)]
    shuffled = data.draw(st.permutations(history))
    cut = data.draw(st.integers(0, len(shuffled)))
    start, end = sorted((data.draw(moments), data.draw(moments)))
    one, two = usage_of(history), usage_of(shuffled[:cut], shuffled[cut:])
    inside = [event for event in history if start <= event[2] < end]
    assert two.events(start, end) == len(inside)
    assert two.users(start, end) == len({event[4] for event in inside if event[4] is not None})
    assert two.by_feature(start, end) == {
        feature: (
            sum(event[5] == feature for event in inside),
            len({event[4] for event in inside if event[5] == feature and event[4] is not None}),
        )
        for feature in {event[5] for event in inside}
    }
    assert one.span(start, end) == two.span(start, end)
    if inside:
        span = two.span(start, end)
        first, last = (edge(inside, key=lambda event: (event[2], event[3])) for edge in (min, max))
        assert (span.first_at, span.last_at) == (first[2], last[2])
        assert span.first_id in (None, first[3])
        assert span.last_id in (None, last[3])


def test_a_window_of_whole_days_names_its_first_and_last_event() -> None:
    usage = usage_of([used(1, id="b"), used(0.5, id="a"), used(2.2, id="c")])
    span = usage.span(at(0), at(3))
    assert (span.events, span.first_id, span.last_id) == (3, "a", "c")


def test_usage_by_month_with_the_period_before_and_where_it_came_from() -> None:
    usage = usage_of([used(-10), used(-9, "bob"), used(0), used(1), used(1, "bob"), used(40), used(100)])
    shown = a_pack(usage=usage)["usage"]
    assert [(row["month"], row["events"], row["users"], row["complete"]) for row in shown["by_month"]] == [
        ("2026-04", 3, 2, True),
        ("2026-05", 1, 1, True),
        ("2026-06", 0, 0, True),
    ]
    assert (shown["events"], shown["users"], shown["period_before"]) == (4, 2, {"events": 2, "users": 2})
    assert shown["change"] == {"events": {"value": 100.0}, "users": {"value": 0.0}}
    assert shown["source"]["first"] == {"event_id": "u0-ann-board", "at": "2026-04-01T00:00:00Z"}
    assert shown["source"]["last"]["event_id"] == "u40-ann-board"


def test_a_running_quarter_ends_at_the_time_of_the_figures() -> None:
    shown = a_pack(usage=usage_of([used(0), used(40), used(41)]), now=40)
    assert shown["period"]["complete"] is False
    assert [(row["month"], row["events"], row["complete"]) for row in shown["usage"]["by_month"]] == [
        ("2026-04", 1, True),
        ("2026-05", 1, False),
    ]


def test_what_is_not_known_is_null_with_its_reason() -> None:
    shown = a_pack()
    assert (shown["usage"]["events"], shown["usage"]["reason"]) == (None, NO_USAGE)
    assert (shown["revenue"]["value"], shown["revenue"]["reason"]) == (None, NO_REVENUE)
    assert (shown["adoption"]["licence_use"]["value"], shown["adoption"]["licence_use"]["reason"]) == (None, NO_SEATS)
    assert shown["satisfaction"]["reason"] == "nobody answered in the period"
    assert (shown["touchpoints"]["last_two_way"], shown["touchpoints"]["two_way"]) == (None, 0)
    assert shown["tickets"]["hours_to_solve"]["median"] is None
    assert a_pack(used_before=True)["usage"]["events"] == 0


def test_adoption_ranks_features_and_compares_with_the_period_before() -> None:
    usage = usage_of([used(-5, feature="export"), used(0), used(1, "bob"), used(2, "bob", "report")])
    shown = a_pack(fact("account.updated", 0, seats=4), usage=usage)["adoption"]
    assert [(row["feature"], row["users"], row["share_of_users"]) for row in shown["features"]] == [
        ("board", 2, 100.0),
        ("report", 1, 50.0),
    ]
    assert (shown["new"], shown["no_longer_used"]) == (["board", "report"], ["export"])
    assert (shown["licence_use"]["value"], shown["licence_use"]["seats"]) == (50.0, 4)


def test_tickets_opened_solved_and_reopened() -> None:
    shown = a_pack(
        fact("ticket.opened", 1, "t1", severity="p1"),
        fact("ticket.solved", 2, "t1"),
        fact("ticket.opened", 3, "t2"),
        fact("ticket.updated", 4, "t2", status="closed"),
        fact("ticket.updated", 5, "t2", status="open"),
        fact("ticket.solved", 100, "t2"),
        fact("ticket.opened", -3, "t3"),
        fact("ticket.solved", 0.5, "t3"),
    )["tickets"]
    assert (shown["opened"], shown["solved"], shown["open_at_end"]) == (2, 2, 1)
    assert shown["opened_by_severity"] == {"p1": 1, "unknown": 1}
    assert shown["hours_to_solve"] == {"n": 2, "median": 54.0, "mean": 54.0}
    assert (shown["source"]["events"], shown["source"]["first"]["event_id"]) == (6, "ticket.solved-t3-0.5")


def test_satisfaction_is_the_latest_per_person_of_the_period_corrected_up_to_now() -> None:
    answered = [
        fact("survey.answered", 1, "a1", answer_id="a1", user_id="ann", kind="nps", score=9),
        fact("survey.answered", 9, "a2", answer_id="a2", user_id="ann", kind="nps", score=2),
        fact("survey.answered", -9, "a3", answer_id="a3", user_id="bob", kind="nps", score=10),
    ]
    shown = a_pack(*answered)["satisfaction"]
    assert [(row["kind"], row["n"], row["value"]) for row in shown["scores"]] == [("nps", 1, -100.0)]
    assert shown["period_before"][0]["value"] == 100.0
    corrected = fact("survey.corrected", 110, "a2", answer_id="a2", score=10)
    assert a_pack(*answered, corrected)["satisfaction"]["scores"][0]["value"] == 100.0
    assert a_pack(*answered, corrected, now=109)["satisfaction"]["scores"][0]["value"] == -100.0


def test_only_contacts_in_both_directions_count_as_touches() -> None:
    shown = a_pack(
        fact("call.held", 1, "c1"),
        fact("touchpoint.logged", 2, "p1", channel="email", two_way=True),
        fact("touchpoint.logged", 3, "p2", channel="email", two_way=False),
        fact("meeting.cancelled", 4, "m1", kind="call"),
        now=10,
    )["touchpoints"]
    assert (shown["two_way"], shown["one_way"], shown["by_channel"]) == (2, 1, {"call": 1, "email": 1})
    assert (shown["last_two_way"]["channel"], shown["days_since_two_way"]) == ("email", 8)


def test_open_loops_are_open_tickets_and_unhappy_answers_without_a_contact_since() -> None:
    unhappy = fact("survey.answered", 5, "a1", user_id="ann", kind="nps", score=2)
    ticket = fact("ticket.opened", 6, "t1", severity="p2")
    shown = a_pack(unhappy, ticket)["open_loops"]
    assert [one["ticket_id"] for one in shown["tickets"]] == ["t1"]
    assert [(one["user_id"], one["score"]) for one in shown["unhappy_without_contact"]] == [("ann", 2)]
    assert shown["source"]["events"] == 2
    assert a_pack(unhappy, ticket, fact("call.held", 7, "c1"))["open_loops"]["unhappy"] == 0


@settings(max_examples=100, deadline=None)
@given(st.permutations([
    fact("ticket.opened", 1, "t1"),
    fact("ticket.updated", 2, "t1", severity="p1", status="pending"),
    fact("ticket.solved", 3, "t1"),
    fact("survey.answered", 2, "a1", answer_id="a1", user_id="ann", kind="csat", score=2),
    fact("survey.corrected", 4, "a1", answer_id="a1", score=5),
    fact("survey.answered", 3, "a2", answer_id="a2", kind="csat", score=4),
    fact("survey.retracted", 5, "a2", answer_id="a2"),
    fact("call.held", 6, "c1"),
    fact("account.updated", 1, "e1", name="Acme", seats=3),
    fact("account.updated", 2, "e2", seats=None),
]))  # fmt: skip
def test_a_pack_is_the_same_in_whatever_order_its_facts_came(facts: list[Fact]) -> None:
    in_order = sorted(facts, key=lambda one: one.order)
    assert a_pack(*facts) == a_pack(*in_order)
    assert len(tickets_of(facts)) == 1
