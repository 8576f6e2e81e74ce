"""Ops' rules: revenue, groups, tiers, contacts, capacity."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ops import segments, touch
from services.ops.capacity import Held, capacity
from services.ops.relatives import key_to
from services.ops.revenue import (
    Arr,
    ParentStatement,
    Rates,
    RateStatement,
    RevenueStatement,
    arr_at,
    group_arr,
    groups,
    parents_at,
    rates_at,
    root_of,
)
from services.ops.segments import Decision
from services.ops.settings import SegmentRules, load_segment_rules
from services.ops.touch import Touch
from shared.config import parse
from shared.errors import Misconfigured
from shared.ids import partition_of
from shared.team import Assignment, Team, load_team, owner_at, pool_for

CONFIG = Path(__file__).parents[2] / "config"
RULES = load_segment_rules(CONFIG).model
NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)
LONG_AGO = NOON - timedelta(days=50)
NOBODY = Team()


def days(number: float) -> timedelta:
    return timedelta(days=number)


def a_statement(
    amount: str | None,
    *,
    kind: str = "subscription",
    ref: str = "",
    at: datetime = NOON,
    id: str = "e1",
    account: str = "acme",
    **terms: Any,
) -> RevenueStatement:
    value = None if amount is None else Decimal(amount)
    return RevenueStatement(account, kind, ref, at, id, terms.pop("states_amount", True), value, **terms)


def arr(*statements: RevenueStatement, at: datetime = NOON, rates: Rates | None = None) -> Arr:
    return arr_at(statements, at, rates or {}, RULES)


def an_arr(amount: float | str | None) -> Arr:
    return Arr(None if amount is None else Decimal(str(amount)), "subscription", "the subscription")


# revenue


def test_subscriptions_of_an_account_add_up() -> None:
    assert arr(a_statement("1200", ref="a"), a_statement("600", ref="b")).amount == 1800


def test_the_latest_statement_of_a_subscription_stands_and_zero_ends_it() -> None:
    first, last = a_statement("1200", at=NOON - days(9)), a_statement("0", at=NOON, id="e2")
    assert arr(first, last).amount == 0
    assert arr(first, last, at=NOON - days(1)).amount == 1200


def test_what_the_crm_says_of_the_account_outranks_a_contract_and_that_a_subscription() -> None:
    field, sub = a_statement("9", kind="account"), a_statement("100")
    contract = a_statement("500", kind="contract")
    assert (arr(field, sub, contract).amount, arr(field, sub, contract).source) == (Decimal(9), "account")
    assert arr(sub, contract).source == "contract"
    assert arr(sub).source == "subscription"


def test_a_contract_without_an_amount_leaves_the_word_to_the_subscription() -> None:
    assert arr(a_statement(None, kind="contract", states_amount=False), a_statement("100")).amount == 100


def test_a_null_clears_the_accounts_field() -> None:
    told, cleared = a_statement("9", kind="account", at=NOON - days(1)), a_statement(None, kind="account", id="e2")
    assert arr(told, cleared).amount is None


def test_a_contract_counts_from_its_start_and_not_after_an_end_that_does_not_renew() -> None:
    terms = a_statement("500", kind="contract", starts_on=date(2026, 5, 1), ends_on=date(2026, 5, 31), auto_renew=False,
                        at=NOON - days(90))  # fmt: skip
    assert arr(terms, at=datetime(2026, 4, 30, 12, tzinfo=UTC)).amount == 0
    assert arr(terms, at=NOON).amount == 500
    assert arr(terms, at=datetime(2026, 6, 1, 12, tzinfo=UTC)).amount == 0
    assert arr(replace(terms, auto_renew=True), at=datetime(2026, 6, 1, 12, tzinfo=UTC)).amount == 500


def test_an_unknown_currency_is_a_reason_and_no_guess() -> None:
    got = arr(a_statement("100", ref="a"), a_statement("100", ref="b", currency="USD"))
    assert got.amount is None
    assert "no rate of USD in EUR for 2026" in got.reason


def test_a_rate_of_the_year_converts_exactly_and_an_older_one_says_so() -> None:
    dollars = a_statement("100", currency="USD")
    assert arr(dollars, rates={("USD", 2026): Decimal("0.915")}).amount == Decimal("91.50")
    older = arr(dollars, rates={("USD", 2025): Decimal("0.9"), ("USD", 2027): Decimal("5")})
    assert (older.amount, older.reason) == (Decimal(90), "the subscription; USD at its rate of 2025")


def test_events_outrank_configured_rates_from_their_own_time_on() -> None:
    rules = RULES.model_copy(update={"rates": {"USD": {2026: Decimal("0.8")}}})
    said = [RateStatement("USD", 2026, Decimal("0.9"), NOON, "r1")]
    assert rates_at(said, NOON, rules)["USD", 2026] == Decimal("0.9")
    assert rates_at(said, NOON - days(1), rules)["USD", 2026] == Decimal("0.8")


def test_a_group_whose_one_amount_cannot_be_converted_has_no_sum() -> None:
    whole = {"a": an_arr(10), "b": an_arr(5), "c": Arr(None, None, "nothing known")}
    assert group_arr(whole, RULES).amount == 15
    assert group_arr(whole | {"d": Arr(None, "contract", "no rate of USD")}, RULES).reason == "d: no rate of USD"


statements = st.lists(
    st.builds(
        lambda kind, ref, hours, n, amount, currency, states: RevenueStatement(
            "acme", kind, ref, NOON - timedelta(hours=hours), f"e{n}-{kind}{ref}", states, Decimal(amount), currency
        ),
        st.sampled_from(["contract", "subscription", "account"]), st.sampled_from(["", "x"]), st.integers(-3, 8),
        st.integers(0, 50), st.integers(0, 90_000), st.sampled_from([None, "EUR", "USD"]), st.booleans(),
    ),
    max_size=12, unique_by=lambda one: (one.kind, one.ref, one.at, one.event_id),
)  # fmt: skip


@given(statements, st.data())
@settings(max_examples=80)
def test_arr_depends_neither_on_order_nor_on_repeats(ones: list[Any], data: st.DataObject) -> None:
    rates = {("USD", 2026): Decimal("0.9")}
    shuffled = data.draw(st.permutations(ones))
    assert arr_at(shuffled + shuffled[:3], NOON, rates, RULES) == arr_at(ones, NOON, rates, RULES)


# hierarchy


def test_children_are_summed_at_the_ultimate_parent() -> None:
    parents = {"shop": "region", "region": "world", "world": None}
    assert root_of("shop", parents).account_id == "world"
    assert groups(["shop", "region", "world", "other"], parents)["world"] == ["region", "shop", "world"]


def test_a_loop_of_parents_is_ignored_with_the_reason() -> None:
    parents = {"a": "b", "b": "a", "below": "a"}
    assert root_of("a", parents).account_id == "a"
    assert root_of("b", parents).account_id == "b"
    assert root_of("below", parents).account_id == "a"
    assert "a → b → a" in (root_of("a", parents).reason or "")
    assert root_of("self", {"self": "self"}).account_id == "self"


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([*"abcdef", None]), max_size=6), st.data())
def test_every_account_has_one_root_that_is_its_own(parents: dict[str, str | None], data: st.DataObject) -> None:
    links = [ParentStatement(child, parent, NOON, child) for child, parent in parents.items()]
    found = groups("abcdef", parents_at(data.draw(st.permutations(links)), NOON))
    assert sorted(name for names in found.values() for name in names) == list("abcdef")
    assert all(root in names for root, names in found.items())


@pytest.mark.parametrize("partitions", [1, 2, 12])
def test_a_key_reaches_the_partition_it_is_made_for(partitions: int) -> None:
    assert all(partition_of(key_to(p, partitions).encode(), partitions) == p for p in range(partitions))


# tiers


@pytest.mark.parametrize(
    ("amount", "tier"),
    [("50000.01", "high"), ("50000", "mid"), ("5000", "mid"), ("4999.99", "low"), ("0", "low")],
)
def test_tiers_are_the_seeds(amount: str, tier: str) -> None:
    assert segments.tier_for(an_arr(amount), None, RULES)[0] == tier


def test_a_tier_is_kept_within_ten_percent_below_its_threshold() -> None:
    assert segments.tier_for(an_arr(45_000), "high", RULES)[0] == "high"
    assert segments.tier_for(an_arr("44999.99"), "high", RULES)[0] == "mid"
    assert segments.tier_for(an_arr(4_500), "mid", RULES)[0] == "mid"
    assert segments.tier_for(an_arr(50_001), "mid", RULES)[0] == "high"


def test_an_unknown_arr_keeps_the_tier_and_gives_none_at_first() -> None:
    assert segments.tier_for(an_arr(None), "mid", RULES)[0] == "mid"
    assert segments.tier_for(an_arr(None), None, RULES)[0] is None


@given(st.integers(1_000, 120_000), st.lists(st.floats(-0.05, 0.05), min_size=2, max_size=40))
def test_five_percent_of_noise_never_makes_a_tier_flap(base: int, noise: list[float]) -> None:
    tier, changes = None, 0
    for share in noise:
        after = segments.tier_for(an_arr(round(base * (1 + share), 2)), tier, RULES)[0]
        changes += tier is not None and after != tier
        tier = after
    assert changes <= 1


def test_quarters_start_in_the_reporting_zone() -> None:
    paris = RULES.model_copy(update={"timezone": "Europe/Paris"})
    late = datetime(2026, 3, 31, 22, 30, tzinfo=UTC)
    assert segments.quarter_start(late, paris) == datetime(2026, 4, 1, tzinfo=ZoneInfo("Europe/Paris"))
    assert segments.quarter_start(late, RULES) == datetime(2026, 1, 1, tzinfo=UTC)
    assert segments.next_quarter_start(datetime(2026, 11, 2, tzinfo=UTC), RULES) == datetime(2027, 1, 1, tzinfo=UTC)


def decide(history: list[Decision], amount: float | None, at: datetime) -> Decision | None:
    return segments.decide(history, an_arr(amount), at, "acme", "queue", RULES)


def test_a_first_tier_takes_effect_at_once_and_rests_on_this_instant() -> None:
    first = decide([], 60_000, NOON)
    assert first is not None
    assert (first.tier, first.kind, first.effective_on, first.cut_at) == ("high", "first", NOON.date(), NOON)
    assert decide([], None, NOON) is None


def test_within_a_quarter_an_invoice_changes_no_tier() -> None:
    first = decide([], 60_000, NOON)
    assert first is not None
    # The ARR that decides is that of the first decision's moment, whatever came after it.
    assert segments.cut_for([first], NOON + days(20), RULES) == NOON
    assert decide([first], 60_000, NOON + days(20)) is None


def test_a_new_quarter_decides_on_the_arr_at_its_first_instant() -> None:
    first = decide([], 60_000, NOON)
    assert first is not None
    july = datetime(2026, 7, 1, 0, 0, 5, tzinfo=UTC)
    assert segments.cut_for([first], july, RULES) == datetime(2026, 7, 1, tzinfo=UTC)
    quarter = decide([first], 20_000, july)
    assert quarter is not None
    assert (quarter.tier, quarter.kind, quarter.effective_on) == ("mid", "quarter", date(2026, 7, 1))


def test_late_news_restate_the_quarter_from_the_tier_before_it() -> None:
    first = decide([], 60_000, NOON)
    assert first is not None
    quarter = decide([first], 20_000, datetime(2026, 7, 1, tzinfo=UTC))
    assert quarter is not None
    # 46 k would be mid for a newcomer, but the account came into the quarter as high.
    restated = decide([first, quarter], 46_000, datetime(2026, 7, 9, tzinfo=UTC))
    assert restated is not None
    assert (restated.tier, restated.kind, restated.effective_on) == ("high", "restated", date(2026, 7, 1))


def test_an_approved_tier_stands_until_the_next_quarter() -> None:
    first = decide([], 60_000, NOON)
    assert first is not None
    approved = replace(first, tier="low", kind="approved", revision=2)
    assert decide([first, approved], 90_000, NOON + days(3)) is None
    after = decide([first, approved], 90_000, datetime(2026, 7, 1, tzinfo=UTC))
    assert after is not None
    assert after.tier == "high"


def test_a_child_takes_its_parents_tier_and_keeps_its_own_until_the_quarter_ends() -> None:
    given = replace(_first(60_000), root_id="world")
    assert segments.adopt([], given, "queue") is not None
    assert segments.adopt([_first(100)], given, "queue") is None
    july = replace(given, period=date(2026, 7, 1), effective_on=date(2026, 7, 1), decided_at=NOON + days(42))
    adopted = segments.adopt([_first(100)], july, "queue")
    assert adopted is not None
    assert (adopted.tier, adopted.kind, adopted.revision) == ("high", "group", 2)
    assert segments.adopt([adopted], july, "queue") is None
    restated = segments.adopt([adopted], replace(july, tier="mid", decided_at=NOON + days(50)), "queue")
    assert restated is not None
    assert restated.tier == "mid"


def _first(amount: float) -> Decision:
    first = decide([], amount, NOON)
    assert first is not None
    return first


# contacts


def a_touch(kind: str, at: datetime, ref: str = "", **more: Any) -> Touch:
    id = more.pop("id", f"{kind}-{at.isoformat()}-{ref}")
    return Touch("acme", kind, ref or id, at, id, more.pop("channel", "email"), **more)


def test_only_what_went_both_ways_counts() -> None:
    mail = a_touch("sent", NOON)
    assert touch.two_way([mail], RULES) == []
    assert touch.two_way([a_touch("received", NOON - days(1)), mail], RULES) == []
    answer = a_touch("received", NOON + days(2))
    assert touch.two_way([answer, mail], RULES) == [answer]
    assert touch.two_way([mail, a_touch("received", NOON + days(31))], RULES) == []


def test_an_answer_of_another_contact_is_no_answer() -> None:
    mail = a_touch("sent", NOON, contact_id="ann")
    assert touch.two_way([mail, a_touch("received", NOON + days(1), contact_id="bob")], RULES) == []
    assert len(touch.two_way([mail, a_touch("received", NOON + days(1), contact_id="ann")], RULES)) == 1


def test_a_meeting_told_twice_counts_once() -> None:
    twice = [a_touch("meeting", NOON, "m1", id="a"), a_touch("meeting", NOON + days(1), "m1", id="b")]
    assert [one.event_id for one in touch.two_way(twice, RULES)] == ["a"]


def test_the_next_contact_is_due_a_cadence_after_the_last() -> None:
    talk = a_touch("call", NOON)
    assert touch.next_touch(talk, RULES.tier("high"), None, RULES).due_on == date(2026, 6, 3)
    assert touch.next_touch(talk, RULES.tier("low"), None, RULES).due_on is None
    never = touch.next_touch(None, RULES.tier("mid"), date(2026, 5, 1), RULES)
    assert (never.due_on, "no two-way contact is known" in never.reason) == (date(2026, 5, 31), True)
    assert "no tier" in touch.next_touch(talk, None, None, RULES).reason


touches = st.lists(
    st.builds(
        lambda kind, hours, ref: a_touch(kind, NOON + timedelta(hours=hours), ref, id=f"{kind}{hours}{ref}"),
        st.sampled_from(["touchpoint", "meeting", "call", "sent", "received"]), st.integers(-2000, 2000),
        st.sampled_from(["", "r1", "r2"]),
    ),
    max_size=15, unique_by=lambda one: one.event_id,
)  # fmt: skip


@given(touches, st.data())
@settings(max_examples=80)
def test_the_last_contact_depends_neither_on_order_nor_on_repeats(ones: list[Any], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(ones))
    assert touch.latest(shuffled + shuffled[:2], NOON, RULES) == touch.latest(ones, NOON, RULES)


# team

TEAM = parse(
    """
people:
  - {id: lea, name: Léa, languages: [fr], absences: [{from: 2026-05-18, to: 2026-05-22}], backup: sam}
  - {id: sam, name: Sam, languages: [en], capacity: 0.5}
  - {id: zoe, name: Zoé, absences: [{from: 2026-05-01, to: 2026-05-31}]}
pools:
  - {id: fr-pool, name: Pool, members: [lea], tiers: [mid], languages: [fr]}
  - {id: pool, name: Pool, members: [sam, zoe], tiers: [mid, low]}
""",
    Team,
).model


def assigned(person_id: str | None, at: datetime = LONG_AGO, id: str = "a1") -> Assignment:
    return Assignment("acme", "csm", person_id, at, id)


def test_the_latest_assignment_stands_and_null_means_the_queue() -> None:
    history = [assigned("sam"), assigned(None, NOON - days(1), "a2")]
    assert owner_at(history, "csm", NOON, TEAM).assigned is None
    assert owner_at(history, "csm", NOON - days(2), TEAM).assigned == "sam"
    assert owner_at(history, "am", NOON, TEAM).assigned is None


def test_a_backup_stands_in_while_somebody_is_away() -> None:
    assert owner_at([assigned("lea")], "csm", NOON, TEAM).acting == "sam"
    assert owner_at([assigned("lea")], "csm", NOON + days(10), TEAM).acting == "lea"
    assert owner_at([assigned("zoe")], "csm", NOON, TEAM).acting is None


def test_pooled_is_a_coverage_on_top_of_the_tier() -> None:
    def cover(tier: str, *held: Assignment) -> tuple[str, str | None]:
        return segments.cover(tier, held, NOON, TEAM, RULES)

    assert cover("high", assigned("sam")) == ("named", "sam")
    assert cover("mid", assigned("pool")) == ("pooled", "pool")
    assert cover("mid") == ("pooled", "pool")  # the French pool's one member is away
    assert cover("high") == ("queue", None)
    assert segments.cover("low", [], NOON, NOBODY, RULES) == ("automated", None)


def test_a_pool_is_chosen_by_language_and_by_who_is_there() -> None:
    assert (pool_for(TEAM, "mid", NOON + days(10), "fr", None) or TEAM.pools[1]).id == "fr-pool"
    assert (pool_for(TEAM, "mid", NOON + days(10), "de", None) or TEAM.pools[0]).id == "pool"
    assert pool_for(TEAM, "high", NOON, None, None) is None


def test_load_is_measured_against_the_accounts_per_csm_of_each_tier() -> None:
    held = [Held(f"h{n}", "high", "named", "lea") for n in range(15)]
    held += [Held(f"m{n}", "mid", "named", "lea") for n in range(50)]
    held += [Held("q", "mid", "queue", None), Held("s", "high", "named", "sam"), Held("x", "mid", "named", "new")]
    rows = {row["person_id"]: row for row in capacity(held, TEAM, RULES, NOON)}
    assert (rows["lea"]["load"], rows["lea"]["state"], rows["lea"]["away"]) == (1.0, "within", True)
    assert (rows["sam"]["load"], rows["sam"]["state"]) == (round(1 / 15, 6), "under")
    assert (rows["queue"]["accounts"], rows["queue"]["load"]) == (1, None)
    assert "not in team.yaml" in rows["new"]["reason"]
    assert rows["zoe"]["accounts"] == 0


def test_too_many_accounts_are_over() -> None:
    held = [Held(f"h{n}", "high", "named", "lea") for n in range(31)]
    assert next(row for row in capacity(held, TEAM, RULES, NOON) if row["person_id"] == "lea")["state"] == "over"


# configuration


def test_the_shipped_files_are_valid_and_hold_the_seeds() -> None:
    assert [tier.name for tier in RULES.tiers] == ["high", "mid", "low"]
    assert [tier.accounts_per_csm.max for tier in RULES.tiers] == [30, 100, 500]
    assert load_team(CONFIG).model == Team()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tiers: [{name: a, arr_from: 0, accounts_per_csm: {min: 9, max: 2}}]", "max 2 is below min 9"),
        ("tiers: [{name: a, arr_from: 5, accounts_per_csm: {min: 1, max: 2}}]", "must take everybody"),
        ("tiers: [{name: a, accounts_per_csm: {min: 1, max: 2}}]", "either arr_over or arr_from"),
    ],
)
def test_a_wrong_segments_file_is_refused_with_what_to_write(text: str, named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        parse(text, SegmentRules)


def test_a_team_that_names_unknown_people_is_refused() -> None:
    with pytest.raises(Misconfigured, match="max: named as backup"):
        parse("people: [{id: lea, name: L, backup: max}]", Team)
