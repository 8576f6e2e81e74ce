"""Revenue: movements add up, retention never exceeds what there was, and order never matters."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import facts, ratios, revenue_tables
from services.health.policy import load_revenue
from services.health.ratios import known
from services.health.revenue import Book, ParentStatement, RateStatement, Statement, roots
from services.health.settings import RevenueRules
from services.health.usage import micros
from shared.events.inputs import SubscriptionChanged

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "samples" / "formulas.json"
RULES = load_revenue()
END = datetime(2024, 6, 15, 12, tzinfo=UTC)


def at(day: str) -> int:
    return micros(datetime.fromisoformat(day).replace(tzinfo=UTC))


def says(account: str, day: str, mrr: str, sub: str = "", **more: Any) -> Statement:
    return Statement(account, sub, at(day), f"{account}{sub}{day}{mrr}", Decimal(mrr), **more)


def rules(**more: Any) -> RevenueRules:
    return RevenueRules.model_validate(RULES.model_dump() | more)


def rows(*statements: Statement, to: datetime = END, rules: RevenueRules = RULES, **more: Any) -> dict[str, Any]:
    return {row["month"]: row for row in revenue_tables.by_month(Book(statements, to, rules, **more))}


# -- an oracle that knows nothing of steps, pots and arrays ------------------------------------------


def paid(statements: list[Statement], account: str, before: int) -> Decimal:
    total = Decimal(0)
    for sub in {one.subscription for one in statements}:
        past = [o for o in statements if (o.account_id, o.subscription) == (account, sub) and o.at < before]
        if past:
            total += max(past, key=lambda one: (one.at, one.event_id)).mrr
    return total


def by_hand(statements: list[Statement], start: int, end: int) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("expansion", "contraction", "churned", "new", "returning"), Decimal(0))
    found |= {"start_mrr": Decimal(0), "end_mrr": Decimal(0), "customers_start": 0, "customers_kept": 0}
    for account in {one.account_id for one in statements}:
        old, new = paid(statements, account, start), paid(statements, account, end)
        found["start_mrr"] += old
        found["end_mrr"] += new
        found["customers_start"] += old > 0
        found["customers_kept"] += old > 0 and new > 0
        if old == 0 and new > 0:
            times = {one.at for one in statements if one.at < start}
            back = any(paid(statements, account, time + 1) > 0 for time in times)
            found["returning" if back else "new"] += new
        elif new == 0:
            found["churned"] += old
        elif new > old:
            found["expansion"] += new - old
        else:
            found["contraction"] += old - new
    return found


STATEMENTS = st.lists(
    st.builds(
        lambda account, sub, hours, amount, n: Statement(
            account, sub, at("2024-01-01") + hours * 3_600_000_000, f"e{n}", Decimal(amount)
        ),
        st.sampled_from("abcd"),
        st.sampled_from(["", "s"]),
        st.integers(0, 24 * 160),
        st.sampled_from(["0", "0", "10", "20.50", "1000000000000.01", "0.10"]),
        st.integers(0, 9999),
    ),
    max_size=14,
    unique_by=lambda one: one.event_id,
)
LEVELS = st.sampled_from(["contract", "account", "parent"])
PARENTS = [ParentStatement("a", at("2024-01-05"), "p1", "b"), ParentStatement("c", at("2024-03-05"), "p2", "a")]


@given(STATEMENTS)
@settings(deadline=None, max_examples=60)
def test_every_month_is_what_counting_by_hand_gives(statements: list[Statement]) -> None:
    table = rows(*statements)
    for month, row in table.items():
        start = datetime.fromisoformat(f"{month}-01").replace(tzinfo=UTC)
        end = min((start + timedelta(days=32)).replace(day=1), END + timedelta(microseconds=1))
        expected = by_hand(statements, micros(start), micros(end))
        assert {name: type(expected[name])(row[name]) for name in expected} == expected
        assert row["complete"] is (month != "2024-06")
    if table:
        assert list(table)[-1] == "2024-06"


@given(STATEMENTS, LEVELS, st.sampled_from([0, 10, 40]), st.randoms())
@settings(deadline=None, max_examples=60)
def test_what_there_was_and_what_moved_is_what_there_is(
    statements: list[Statement], level: str, grace: int, dice: random.Random
) -> None:
    policy = rules(level=level, grace_days=grace)
    table = rows(*statements, rules=policy, parents=PARENTS)
    before = None
    for row in table.values():
        money = {name: Decimal(row[name]) for name in ("start_mrr", "end_mrr", *revenue_names())}
        gained = money["new"] + money["returning"] + money["expansion"]
        assert money["start_mrr"] + gained - money["churned"] - money["contraction"] == money["end_mrr"]
        assert min(money.values()) >= 0
        assert before is None or money["start_mrr"] == before
        before = money["end_mrr"]
        assert row["grr_pct"] is None or 0 <= row["grr_pct"] <= min(100, row["nrr_pct"])
        assert row["customers_kept"] <= row["customers_start"]
    again = [*statements, *dice.sample(statements, k=len(statements) // 2)]
    dice.shuffle(again)
    assert rows(*again, rules=policy, parents=PARENTS[::-1]) == table


def revenue_names() -> tuple[str, ...]:
    return ("expansion", "contraction", "churned", "new", "returning")


@given(STATEMENTS, LEVELS)
@settings(deadline=None, max_examples=30)
def test_movements_by_account_and_months_by_cohort_sum_to_the_months(statements: list[Statement], level: str) -> None:
    book = Book(statements, END, rules(level=level), parents=PARENTS)
    months = {row["month"]: row for row in revenue_tables.by_month(book)}
    all_moves = revenue_tables.by_account(book)
    for name in revenue_names():
        for month, row in months.items():
            moves = [Decimal(move["amount"]) for move in all_moves if (move["month"], move["kind"]) == (month, name)]
            assert sum(moves, Decimal(0)) == Decimal(row[name])
    if level != "parent":  # groups of other days than today's may span cohorts
        cut = revenue_tables.by_label(book, "cohort", revenue_tables.cohorts(book))
        for month, row in months.items():
            assert sum(Decimal(one["end_mrr"]) for one in cut if one["month"] == month) == Decimal(row["end_mrr"])


# -- by example ---------------------------------------------------------------------------------------


def test_a_month_starts_with_the_state_just_before_its_first_instant() -> None:
    table = rows(says("a", "2024-01-31T23:59:59", "10"), says("b", "2024-02-01", "5"), says("a", "2024-03-01", "0"))
    assert (table["2024-01"]["new"], table["2024-01"]["end_mrr"]) == ("10.00", "10.00")
    assert (table["2024-02"]["start_mrr"], table["2024-02"]["new"], table["2024-02"]["churned"]) == (
        "10.00",
        "5.00",
        "0.00",
    )
    assert table["2024-03"]["churned"] == "10.00"


def test_months_are_those_of_the_reporting_zone() -> None:
    table = rows(says("a", "2024-01-31T23:30:00", "10"), rules=rules(timezone="Europe/Paris"))
    assert next(iter(table)) == "2024-02"


def test_the_month_of_t_ends_at_t_itself_included() -> None:
    moved = [says("a", "2024-05-01", "10"), says("a", "2024-06-15T12:00:00", "30")]
    assert rows(*moved)["2024-06"]["expansion"] == "20.00"
    assert rows(*moved, to=END - timedelta(seconds=1))["2024-06"]["expansion"] == "0.00"
    first = rows(*moved, to=datetime(2024, 6, 1, tzinfo=UTC))
    assert [(row["month"], row["complete"]) for row in first.values()] == [("2024-05", True), ("2024-06", False)]


def test_an_account_that_left_and_came_back_is_returning_not_new() -> None:
    story = [says("a", "2024-01-10", "10"), says("a", "2024-02-10", "0"), says("a", "2024-04-10", "12")]
    table = rows(*story)
    assert (table["2024-04"]["returning"], table["2024-04"]["new"]) == ("12.00", "0.00")
    assert table["2024-03"]["grr_pct"] is None
    assert table["2024-03"]["grr_pct_reason"] == "no recurring revenue at the start"
    assert table["2024-03"]["quick_ratio_reason"] == "no loss"


@pytest.mark.parametrize(("grace", "churned"), [(0, "10.00"), (13, "10.00"), (14, "0.00")])
def test_whoever_comes_back_within_the_grace_never_left(grace: int, churned: str) -> None:
    story = [says("a", "2024-01-10", "10"), says("a", "2024-02-20", "0"), says("a", "2024-03-05", "12")]
    table = rows(*story, rules=rules(grace_days=grace))
    assert table["2024-02"]["churned"] == churned
    assert table["2024-03"]["expansion" if churned == "0.00" else "returning"] in ("2.00", "12.00")


@pytest.mark.parametrize(
    ("level", "expansion", "contraction", "churned", "grr"),
    [
        ("contract", "30.00", "40.00", "50.00", 55.0),
        ("account", "0.00", "10.00", "50.00", 70.0),
        ("parent", "0.00", "60.00", "0.00", 70.0),
    ],
)
def test_the_level_says_within_what_gains_hide_losses(
    level: str, expansion: str, contraction: str, churned: str, grr: float
) -> None:
    story = [
        says("a", "2024-01-10", "100", "x"),
        says("a", "2024-01-10", "50", "y"),
        says("a", "2024-02-10", "60", "x"),
        says("a", "2024-02-10", "80", "y"),
        says("b", "2024-01-10", "50"),
        says("b", "2024-02-10", "0"),
    ]
    row = rows(*story, rules=rules(level=level), parents=[ParentStatement("b", at("2024-01-01"), "p", "a")])["2024-02"]
    assert (row["expansion"], row["contraction"], row["churned"], row["grr_pct"]) == (
        expansion,
        contraction,
        churned,
        grr,
    )
    assert row["nrr_pct"] == 70.0


def test_a_loop_of_parents_is_ignored() -> None:
    links = {"a": "b", "b": "c", "c": "b", "d": "a", "e": "f"}
    found = roots("abcde", links)
    assert [found[name] for name in "abcde"] == ["b", "b", "c", "b", "f"]


def test_foreign_money_is_converted_at_the_constant_rate_of_the_months_year() -> None:
    story = [says("a", "2023-12-10", "100", currency="USD"), says("a", "2024-01-10", "120")]
    rates = [
        RateStatement("USD", 2023, at("2023-01-01"), "r1", Decimal("0.9")),
        RateStatement("USD", 2024, at("2024-01-01"), "r3", Decimal("0.5")),
        RateStatement("USD", 2024, at("2024-01-01"), "r2", Decimal("0.7")),
        RateStatement("USD", 2024, at("2024-09-01"), "r4", Decimal("9")),
    ]
    table = rows(*story, rates=rates)
    assert table["2023-12"]["end_mrr"] == "90.00"
    assert (table["2024-01"]["start_mrr"], table["2024-01"]["expansion"], table["2024-01"]["end_mrr"]) == (
        "50.00",
        "10.00",
        "60.00",
    )


def test_an_unknown_currency_hides_only_what_depends_on_it_and_is_named() -> None:
    story = [
        says("a", "2024-01-10", "100"),
        says("j", "2024-02-10", "900", currency="JPY"),
        says("a", "2024-03-10", "80"),
    ]
    table = rows(*story)
    february, march = table["2024-02"], table["2024-03"]
    assert (february["start_mrr"], february["new"], february["end_mrr"]) == ("100.00", None, None)
    assert "JPY" in february["new_reason"]
    assert (february["nrr_pct"], february["grr_pct"]) == (100.0, 100.0)
    assert february["quick_ratio"] is None
    assert (march["contraction"], march["start_mrr"], march["nrr_pct"], march["logo_retention_pct"]) == (
        "20.00",
        None,
        None,
        100.0,
    )


def test_growth_is_told_apart_by_its_cause() -> None:
    story = [
        says("a", "2024-01-10", "100", "x", product="core", plan="pro", seats=10),
        says("a", "2024-02-01", "120", "x", seats=12),
        says("a", "2024-02-02", "30", "y", product="voice"),
        says("b", "2024-01-10", "100", seats=5, plan="pro"),
        says("b", "2024-02-10", "103"),
        says("c", "2024-01-10", "50"),
        says("c", "2024-01-10", "50", "z"),
        says("c", "2024-02-10", "57"),
        says("c", "2024-02-11", "45", "z"),
    ]
    [_, row, *_] = revenue_tables.by_ratios(Book(story, END, RULES))
    assert [row[name] for name in ("upsell", "cross_sell", "price", "unexplained", "netted")] == [
        "20.00",
        "30.00",
        "3.00",
        "7.00",
        "5.00",
    ]
    assert row["nrr_12m_pct"] is None
    assert row["targets"][0] == {"figure": "nrr_12m_pct", "wanted": "> 100 %", "met": None}


def test_churn_of_a_year_compounds() -> None:
    assert ratios.six(ratios.annualised(known(2))) == round(100 * (1 - 0.98**12), 6)


def test_lifetime_value_needs_a_margin_and_a_churn() -> None:
    value = ratios.ltv(known(10_000), 100, Decimal(80), known(2))
    assert ratios.money(value) == "4000.00"
    assert ratios.ltv(known(1), 1, Decimal(80), known(0)).reason == "nobody left"
    assert "gross_margin_pct" in str(ratios.ltv(known(1), 1, None, known(1)).reason)


def test_the_return_is_told_in_both_forms() -> None:
    found = ratios.roi(Decimal(250_000), Decimal(100_000))
    assert (ratios.six(found.profit_pct), ratios.six(found.ratio)) == (150.0, 2.5)
    margin = ratios.roi(Decimal(200), Decimal(100), Decimal(300), Decimal(80))
    assert (ratios.six(margin.profit_pct), ratios.six(margin.ratio)) == (300.0, 4.0)


def test_the_domains_vector() -> None:
    start, expansion, contraction, churned = (known(Decimal(x)) for x in ("10", "1.8", "0.6", "0.9"))
    assert ratios.six(ratios.grr(start, contraction, churned)) == 85.0
    assert ratios.six(ratios.nrr(start, expansion, contraction, churned)) == 103.0


def _vectors() -> list[dict[str, Any]]:
    wanted = ("nrr_pct", "grr_pct", "quick_ratio", "logo_retention_pct")
    listed = json.loads(VECTORS.read_text()) if VECTORS.exists() else []
    return [vector for vector in listed if vector["metric"] in wanted]


@pytest.mark.skipif(not VECTORS.exists(), reason="the published examples are not here")
def test_published_examples() -> None:
    for vector in _vectors():
        given = {name: known(Decimal(value)) for name, value in vector["inputs"].items()}
        nothing = known(0)
        new = given.get("new", given.get("new_plus_expansion", nothing))
        lost = given.get("lost", given.get("contraction_plus_churned", given.get("churned", nothing)))
        contraction, expansion = given.get("contraction", nothing), given.get("expansion", nothing)
        match vector["metric"]:
            case "nrr_pct":
                value = ratios.nrr(given["start"], expansion, contraction, lost)
            case "grr_pct":
                value = ratios.grr(given["start"], contraction, lost)
            case "quick_ratio":
                value = ratios.quick_ratio(new, expansion, contraction, lost)
            case _:
                start, gone = vector["inputs"]["start"], vector["inputs"]["churned"]
                value = ratios.retention(start, start - gone)
        assert ratios.six(value) == pytest.approx(vector["expected"], abs=vector["tolerance"])


def test_a_statement_keeps_what_revenue_needs_and_an_absurd_amount_is_refused() -> None:
    told = SubscriptionChanged(mrr=Decimal("10.50"), currency="USD", product="core", plan="pro", seats=3)
    learnt = facts.learn("subscription.changed", told, "e1", END)
    assert isinstance(learnt, facts.Learnt)
    assert learnt.mark.data == {"mrr": "10.50", "currency": "USD", "product": "core", "plan": "pro", "seats": 3}
    absurd = facts.learn("subscription.changed", SubscriptionChanged(mrr=Decimal("1E+99999")), "e2", END)
    assert isinstance(absurd, facts.Reject)


def test_a_long_history_of_small_amounts_stays_exact() -> None:
    story = [says(f"a{n}", "2024-01-10", "0.10") for n in range(1000)]
    story += [says(f"b{n}", "2024-01-10", "333.3333333333333333333333333") for n in range(3)]
    assert rows(*story)["2024-01"]["end_mrr"] == "1099.9999999999999999999999999"
