"""A percentile says where a value stands among its peers' of the day before, whoever counted them and in what parts."""

from __future__ import annotations

from datetime import timedelta
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.health import facts, hindsight, peers, scoring
from services.health.facts import Facts
from services.health.peers import Values
from services.health.settings import Model
from tests.unit.test_health_scoring import T, learnt

SEATS: dict[str, Any] = {
    "kind": "open_tickets", "weights": {"p3": 1}, "label": {"en": "load", "fr": "charge"}, "group": "support",
    "weight": 1, "double_after_days": 3660,
}  # fmt: skip
VALUES = st.lists(st.sampled_from([-2.0, 0.0, 0.5, 1.0, 7.5]) | st.floats(-1e6, 1e6), min_size=1, max_size=80)


def plain_rank(value: float, among: list[float]) -> float:
    """Percentile rank by definition: the mean of 0, ½ and 1 over the peers above, equal and below."""
    return 100 * fmean(1.0 if other < value else 0.5 if other == value else 0.0 for other in among)


@given(VALUES, st.data())
def test_ranks_are_those_of_the_plain_definition_however_the_accounts_are_parted(
    among: list[float], data: st.DataObject
) -> None:
    value = data.draw(st.sampled_from(among) | st.floats(-1e6, 1e6))
    where = [data.draw(st.integers(0, 3)) for _ in among]
    parts = [
        peers.tables_of(("m", "smb", one) for one, part in zip(among, where, strict=True) if part == number)
        for number in range(4)
    ]
    found = peers.merged(parts)["m"]["smb"]
    assert found.n == len(among)
    assert found.rank(value) == pytest.approx(plain_rank(value, among), abs=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.floats(-1e6, 1e6), st.integers(10, 60))
def test_what_is_condensed_ranks_within_one_part_of_it(among: list[float], value: float, most: int) -> None:
    shortened = peers.condensed(among, most)
    assert shortened.n == len(among)
    assert len(shortened.values) == min(most, len(among))
    found = peers.merged([{"m": {"s": shortened}}])["m"]["s"]
    assert found.rank(value) == pytest.approx(plain_rank(value, among), abs=100 / most)


def model(**percentile: Any) -> Model:
    return Model(coverage_floor=0, measures={"load": SEATS | {"percentile": {"peers": 3, **percentile}}})


def account(name: str, segment: str | None, tickets: int, days_ago: float = 5, more_now: int = 0) -> Facts:
    found = Facts(name, {})
    if segment is not None:
        found = found.with_mark(learnt("account.updated", f"{name}-s", 90, traits={"segment": segment}))
    for number in range(tickets + more_now):
        ago = days_ago if number < tickets else 0
        found = found.with_mark(
            learnt("ticket.opened", f"{name}-{number}", ago, ticket_id=f"{name}-{number}", severity="p3")
        )
    return found


def book() -> list[Facts]:
    smb = [account(f"s{n}", "smb", n) for n in (1, 2, 2, 4)]
    big = [account(f"b{n}", "enterprise", n) for n in (9, 11)]
    return peers.with_each_other([*smb, *big, account("none", None, 3)])


def load(found: Facts, model: Model, back: float = 0) -> scoring.Part:
    (part,) = scoring.score(found, T - timedelta(days=back), model).parts
    return part


def test_a_value_is_ranked_in_its_segment_as_it_was_the_day_before() -> None:
    known = {one.account_id: one for one in book()}
    ranked = model(best="lowest")
    loads = {name: load(one, ranked) for name, one in known.items()}
    # values grow a hair with age, alike for all: at the day before they are lower than now, never reordered by segment
    assert loads["s4"].points == pytest.approx(0)
    assert loads["s1"].points == pytest.approx(75)
    assert (loads["b9"].points, loads["none"].points) == (None, None)
    assert loads["b9"].reason == "2 accounts in segment enterprise have a value: fewer than 3 peers"
    assert loads["none"].reason == "no segment is stated: there are no peers"
    assert not loads["none"].measured or loads["none"].points is None
    everybody = model(among="everybody")
    assert load(known["none"], everybody).points == pytest.approx(100 * 4 / 7)
    assert load(known["none"], everybody, 60).reason == "no ticket in 365 days"


def test_nothing_that_happens_on_the_day_itself_moves_anybody_elses_rank() -> None:
    before = {one.account_id: one for one in book()}
    changed = [one for one in book() if one.account_id != "s4"]
    after = peers.with_each_other([*changed, account("s4", "smb", 4, more_now=30)])
    ranked = model()
    for one in after:
        if one.account_id != "s4":
            assert load(one, ranked) == load(before[one.account_id], ranked)


def test_missing_policies_apply_where_there_are_too_few_peers_or_nobody_counted_them() -> None:
    alone = Facts("acme", account("acme", "smb", 2).things)
    part = load(alone, Model(coverage_floor=0, measures={"load": SEATS | {"percentile": {}, "missing": "neutral"}}))
    assert (part.points, part.measured, part.value is not None) == (50, False, True)
    assert part.reason == f"the peers of {peers.day_for(T)} are not counted: taken as neutral"


def test_a_backtest_ranks_by_what_had_happened_before_its_cut_off() -> None:
    known = {one.account_id: one for one in book()}
    cut = hindsight.before(known["s1"], T)
    assert load(cut, model()).points == load(known["s1"], model()).points


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"percentile": {"among": "planet"}}, "segment"),
        ({"percentile": {"peers": 1}}, "greater than or equal to 2"),
        ({"percentile": {}, "worst": 1, "best": 2}, "write one scale"),
        ({"kind": "survey", "of": "nps", "percentile": {}}, "fade with age"),
    ],
)
def test_a_percentile_that_cannot_be_is_refused(said: dict[str, Any], why: str) -> None:
    base = {name: SEATS[name] for name in ("label", "group", "weight")} if "kind" in said else SEATS
    with pytest.raises(ValidationError, match=why):
        Model(measures={"load": base | said})


def test_one_days_distributions_are_of_everybodys_values_at_its_first_instant() -> None:
    tables = peers.tables_of(
        one for known in book() for one in peers.readings(known, T.date(), model(among="everybody"))
    )  # fmt: skip
    expected = sorted(
        sum(not ticket.solved_at for ticket in facts.picture(known, T).tickets) for known in book()
    )  # fmt: skip
    (values,) = tables["load"].values()
    assert isinstance(values, Values)
    assert [round(value) for value in values.values] == expected
