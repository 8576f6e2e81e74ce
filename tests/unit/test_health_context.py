"""What an alert tells besides its reason: what costs most, the least that restores the band, who spoke last."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import context, facts, scoring
from services.health.alerts import Situation
from services.health.context import Context
from services.health.scoring import Part, Score
from tests.unit.test_health_alerts import POLICY, Watch, daily
from tests.unit.test_health_scoring import T, known, learnt

MEASURES = list(POLICY.model.measures)


def situation(score: Score) -> Situation:
    now = facts.picture(known(), T)
    return Situation(now, score, score.band, (), True, None, POLICY.model, "en")


def scored(points: list[int | None]) -> Score:
    parts = tuple(
        Part(name, "g", None, None if value is None else float(value), POLICY.model.measures[name].weight)
        for name, value in zip(MEASURES, points, strict=True)
    )
    exact = scoring.mean(parts)
    whole = None if exact is None else int(exact + 0.5)
    return Score(whole, scoring.band_of(whole or 0, POLICY.model.bands), exact, 1.0, parts, config=POLICY.model.digest)


def mean_with(score: Score, changed: dict[str, float]) -> float:
    known = [(p.weight, changed.get(p.measure, p.points)) for p in score.parts if p.points is not None]
    return sum(weight * (points or 0.0) for weight, points in known) / sum(weight for weight, _ in known)


SCORES = st.lists(st.one_of(st.none(), st.integers(0, 100)), min_size=len(MEASURES), max_size=len(MEASURES))


@settings(deadline=None)
@given(SCORES, st.integers(1, 100))
def test_the_least_change_reaches_its_target_and_no_single_measure_does_with_less(
    points: list[int | None], wanted: int
) -> None:
    score = scored(points)
    steps = context.smallest_change(score, wanted, situation(score))
    reached = mean_with(score, {step.measure: step.to_points for step in steps}) if score.exact is not None else 0.0
    singles = [
        points
        for part in score.parts
        if part.points is not None
        for points in range(int(part.points), 101)
        if mean_with(score, {part.measure: float(points)}) >= wanted - 0.5
    ]
    if score.exact is None or score.exact >= wanted - 0.5:
        assert steps == ()
    elif singles:
        [step] = steps
        assert abs(reached - (wanted - 0.5)) < 1e-6
        fewest = min(
            points - (part.points or 0)
            for part in score.parts
            if part.points is not None
            for points in range(int(part.points), 101)
            if mean_with(score, {part.measure: float(points)}) >= wanted - 0.5
        )
        assert step.to_points - step.points <= fewest + 1e-6
    elif steps:
        assert reached >= wanted - 0.5 - 1e-6
        assert all(step.to_points > step.points for step in steps)


@settings(deadline=None)
@given(SCORES)
def test_what_is_named_costs_most_and_by_what_it_would_give(points: list[int | None]) -> None:
    score = scored(points)
    named = context.costliest(score, situation(score))
    gains = {
        part.measure: mean_with(score, {part.measure: 100.0}) - mean_with(score, {})
        for part in score.parts
        if part.points is not None
    }
    most = sorted((gain for gain in gains.values() if gain >= 0.05), reverse=True)[:3]
    assert [round(one.lost, 4) for one in named] == [round(gain, 4) for gain in most]
    assert all(abs(gains[one.measure] - one.lost) < 1e-5 for one in named)


def the_context(watch: Watch, when: str) -> Context:
    told = (one for decision in watch.told for one in decision.contexts.values())
    return next(one for one in told if one.rule.startswith(when))


def test_an_alert_knows_the_account_as_it_stood() -> None:
    watch = Watch()
    profile = learnt("account.updated", "e1", 200, name="Acme", arr="12000.50")
    contract = learnt("contract.changed", "e2", 100, contract_id="c", notice_on="2026-05-01")
    calls = [
        learnt("call.held", f"e{3 + n}", days, call_id=f"k{n}", person_id=who)
        for n, (days, who) in enumerate(((50, "bob"), (20, "ann")))
    ]
    sponsor = learnt("contact.changed", "e9", 90, contact_id="s1", role="sponsor")
    one_way = learnt("touchpoint.logged", "e10", 1, two_way=True, channel="visit")
    base = [profile, contract, *calls, sponsor, learnt("csm.changed", "e11", 99, person_id="cid")]
    watch.look(known(*base))
    watch.look(known(*base, learnt("ticket.opened", "e12", 0.1, ticket_id="t", severity="p1")))
    said = the_context(watch, "ticket_open")
    assert (said.name, said.owner, said.arr, said.days_to_notice) == ("Acme", "cid", Decimal("12000.50"), 31)
    assert said.last_touch == context.Touch(T - timedelta(days=20), "ann", "call")
    assert said.contacts == (("s1", "sponsor"),)
    assert said.rule == "ticket_open: severities p1"
    later = context.last_touch(known(*base, one_way), T)
    assert later is not None
    assert (later.by, later.via) == (None, "visit")


def test_a_red_alert_says_what_would_end_it_and_that_it_would() -> None:
    watch = Watch()
    watch.look(daily(120, 1))
    watch.look(daily(120, 40))
    said = the_context(watch, "score_below")
    assert said.rule == "score_below: enter 40, leave 47, worse at 20 severity critical"
    assert (said.previous_band, said.band, said.restored_score) == ("green", "red", 47)
    assert said.score is not None
    assert said.score < 40
    text = context.restore_in_words(said, "en")
    assert text is not None
    assert text.count(" from ") == len(said.restore) >= 1


def test_nothing_is_worked_out_for_what_is_not_told() -> None:
    watch = Watch()
    watch.look(daily(120, 40))
    assert watch.told[-1].contexts
    watch.look(daily(120, 40))
    assert watch.told[-1].contexts == {}


def test_a_promoter_counts_where_the_account_has_long_been_green() -> None:
    watch = Watch()
    uses = daily(260, 0)
    happy = learnt("survey.answered", "e1", 3, kind="nps", score=10, user_id="ann", answer_id="a1")
    found = uses.with_mark(happy)
    for days_ago in (89, 40, 2):
        watch.look(found if days_ago < 3 else uses, days_ago)
    assert watch.opened == []
    watch.look(found, -1)
    assert watch.opened == [("promoter", "a1")]


def test_a_team_that_starts_to_use_it_is_an_opportunity_and_a_new_customer_is_not() -> None:
    def use(people: range, first: int, last: int) -> list[tuple[object, str, str]]:
        return [(T - timedelta(days=n), f"u{k}", "f") for n in range(last, first) for k in people]

    watch = Watch()
    watch.look(known(uses=[*use(range(4), 100, 0), *use(range(10, 14), 8, 1)]))
    assert ("new_team", "") not in watch.opened
    watch.look(known(uses=[*use(range(4), 100, 0), *use(range(10, 15), 8, 1)]))
    assert ("new_team", "") in watch.opened
    newcomer = Watch()
    newcomer.look(known(uses=use(range(9), 9, 0)))
    assert ("new_team", "") not in newcomer.opened
    returning = Watch()
    returning.look(known(uses=[*use(range(9), 100, 60), *use(range(4), 60, 0), *use(range(4, 9), 8, 1)]))
    assert ("new_team", "") not in returning.opened


def opened_of(watch: Watch, rule: str) -> list[str]:
    return [cause for name, cause in watch.opened if name == rule]


def test_a_deadline_that_comes_nearer_rings_unless_the_account_is_green_and_grows_at_the_end() -> None:
    contract = learnt("contract.changed", "e", 200, contract_id="c", notice_on="2026-05-30", ends_on="2026-08-30")
    watch, green = Watch(), Watch()
    assert watch.look(known(contract), 1).due_at is not None  # in a day it is 60 days, whatever else happens
    assert opened_of(watch, "notice_near") == []
    watch.look(known(contract))
    green.look(daily(200, 0).with_mark(contract))
    assert (opened_of(watch, "notice_near"), opened_of(green, "notice_near")) == (["2026-05-30"], [])
    [grown] = watch.look(known(contract), -46).grown
    assert (grown.episode.severity, grown.episode.evidence["days_left"]) == ("critical", 14)
    watch.look(known(contract), -61)
    assert opened_of(watch, "notice_near") == ["2026-05-30"]
    assert ("notice_near", "2026-05-30") in watch.resolved
    watch.look(known(contract), -92)
    assert opened_of(watch, "notice_near") == ["2026-05-30", "2026-08-30"]


def test_licences_in_use_above_nine_in_ten_are_an_opportunity() -> None:
    seats = learnt("account.updated", "e1", 200, seats=10)
    watch = Watch()
    watch.look(daily(100, 0, users=9).with_mark(seats))
    assert opened_of(watch, "licence_full") == []
    watch.look(daily(100, 0, users=10).with_mark(seats))
    assert opened_of(watch, "licence_full") == [""]
    watch.look(daily(100, 0, users=8).with_mark(seats))
    assert ("licence_full", "") in watch.resolved


def test_a_score_and_a_revenue_that_say_the_contrary_are_told() -> None:
    def paying(*changes: tuple[float, int]) -> list[Any]:
        return [
            learnt("subscription.changed", f"s{n}", days, subscription_id="s", mrr=str(mrr), currency="EUR")
            for n, (days, mrr) in enumerate(changes)
        ]

    def look(uses: facts.Facts, marks: list[Any]) -> list[str]:
        watch = Watch()
        for mark in marks:
            uses = uses.with_mark(mark)
        watch.look(uses)
        return opened_of(watch, "revenue_disagrees")

    green, red = daily(200, 0), daily(120, 40)
    assert look(green, paying((200, 100), (5, 90))) == ["falls"]
    assert look(green, paying((200, 100), (5, 91))) == []
    assert look(green, paying((200, 100), (95, 90))) == []
    assert look(red, paying((200, 100), (5, 110))) == ["grows"]
    assert look(red, paying((200, 100), (5, 90))) == []
    assert look(green, paying((5, 90))) == []
