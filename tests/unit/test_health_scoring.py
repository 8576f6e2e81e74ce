"""The score is a figure: bounded, independent of order, and every change is explained to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.health import facts, scoring, shares, wording
from services.health.facts import Facts, Ignore, Learnt, Mark, Reject
from services.health.policy import load_policy
from services.health.scoring import Part
from services.health.settings import Model
from services.health.usage import micros
from shared import config
from shared.events import model_of, wire_type_of
from tests.unit.test_health_usage import used

T = datetime(2026, 3, 31, 15, 30, tzinfo=UTC)
MODEL = load_policy().model


def part(measure: str, points: float | None, weight: float = 1.0) -> Part:
    return Part(measure, "g", points, points, weight, measured=points is not None)


def learnt(type: str, id: str, days_ago: float, /, **data: Any) -> Learnt:
    said = facts.learn(type, model_of(wire_type_of(type)).model_validate(data), id, T - timedelta(days=days_ago))
    assert isinstance(said, Learnt), said
    return said


def known(*said: Learnt, uses: list[Any] | None = None) -> Facts:
    found = Facts("acme", {})
    for one in said:
        found = found.with_mark(one)
    return found.with_usage(used(*uses)) if uses else found


def points(name: str, found: Facts, at: datetime = T, model: Model = MODEL) -> float | None:
    return next(part.points for part in scoring.score(found, at, model).parts if part.measure == name)


def value(name: str, found: Facts, at: datetime = T) -> float | None:
    return next(part.value for part in scoring.score(found, at, MODEL).parts if part.measure == name)


def test_points_are_linear_between_the_ends_and_invert_by_swapping() -> None:
    assert scoring.points_between(18, 7, 30) == pytest.approx(47.826, abs=1e-3)
    assert scoring.points_between(30, 90, 14) == pytest.approx(78.947, abs=1e-3)
    assert [scoring.points_between(v, 90, 14) for v in (200, 90, 14, 0)] == [0, 0, 100, 100]


def test_an_opinion_halves_towards_neutral_after_one_half_life() -> None:
    assert scoring.fade(90, 30, 30) == 70
    assert scoring.fade(100, 45, 30) == pytest.approx(50 + 50 * 0.3536, abs=1e-2)


@given(st.lists(st.tuples(st.none() | st.floats(0, 100), st.floats(0.1, 50)), min_size=1, max_size=12))
def test_a_mean_stays_within_its_points(parts: list[tuple[float | None, float]]) -> None:
    mean = scoring.mean([part(f"m{n}", p, w) for n, (p, w) in enumerate(parts)])
    there = [p for p, _ in parts if p is not None]
    assert mean is None if not there else mean is not None and min(there) - 1e-9 <= mean <= max(there) + 1e-9


STEPS: list[tuple[str, dict[str, Any]]] = [
    ("ticket.opened", {"ticket_id": "t1", "severity": "p1"}),
    ("ticket.opened", {"ticket_id": "t2", "severity": "p2"}),
    ("ticket.solved", {"ticket_id": "t1"}),
    ("ticket.updated", {"ticket_id": "t1", "status": "open"}),
    ("ticket.updated", {"ticket_id": "t2", "severity": "p4"}),
    ("survey.answered", {"kind": "nps", "score": 3, "user_id": "ann", "answer_id": "a1"}),
    ("survey.answered", {"kind": "nps", "score": 10, "user_id": "ann", "answer_id": "a2"}),
    ("survey.corrected", {"answer_id": "a2", "score": 6}),
    ("survey.retracted", {"answer_id": "a1"}),
    ("survey.answered", {"kind": "csat", "score": 2}),
    ("invoice.failed", {"invoice_id": "i1", "amount": "12.50"}),
    ("invoice.paid", {"invoice_id": "i1"}),
    ("contact.changed", {"contact_id": "c1", "role": "sponsor"}),
    ("contact.changed", {"contact_id": "c1", "status": "left"}),
    ("account.updated", {"timezone": "Asia/Tokyo", "name": "Acme"}),
    ("touchpoint.logged", {"two_way": True}),
]
HISTORIES = st.lists(st.tuples(st.sampled_from(STEPS), st.floats(0, 200)), max_size=12)


@given(HISTORIES, st.lists(st.floats(-1, 130), max_size=20), st.randoms(), st.floats(0, 100))
def test_facts_commute_and_any_moment_is_told_the_same_later(
    history: list[tuple[tuple[str, dict[str, Any]], float]], uses: list[float], rng: Any, back: float
) -> None:
    said = [learnt(type, f"e{n}", days, **data) for n, ((type, data), days) in enumerate(history)]
    use = [(T - timedelta(days=days), f"u{n % 3}", "f") for n, days in enumerate(uses)]
    first = known(*said, uses=use)
    shuffled = [*said, *said]  # and each one twice
    rng.shuffle(shuffled)
    second = known(*shuffled, uses=list(reversed(use)))
    at = T - timedelta(days=back)
    score = scoring.score(first, at, MODEL)
    assert score == scoring.score(second, at, MODEL)
    then = known(*(one for one in said if one.mark.at <= micros(at)), uses=[one for one in use if one[0] <= at] or None)
    assert score == scoring.score(then, at, MODEL)
    assert score.score is None or 0 <= score.score <= 100
    assert 0 <= score.coverage <= 1
    assert (score.band == "unknown") == (score.score is None)


def test_an_account_of_which_little_is_known_is_neither_red_nor_green() -> None:
    score = scoring.score(known(learnt("invoice.failed", "e", 1, invoice_id="i")), T, MODEL)
    assert (score.score, score.band, score.exact) == (None, "unknown", None)
    assert score.coverage == pytest.approx(0.06)


def test_steady_use_is_green_and_its_end_is_red() -> None:
    steady = known(uses=[(T - timedelta(days=n), "ann", "f") for n in range(1, 120)])
    ended = known(uses=[(T - timedelta(days=n), "ann", "f") for n in range(35, 120)])
    long_ago = known(uses=[(T - timedelta(days=n), "ann", "f") for n in range(400, 420)])
    assert scoring.score(steady, T, MODEL).band == "green"
    assert scoring.score(ended, T, MODEL).band == "red"
    assert scoring.score(long_ago, T, MODEL).band == "unknown"


def test_a_young_account_is_not_compared_with_the_time_before_it() -> None:
    young = known(uses=[(T - timedelta(days=n), f"u{k}", "f") for n in range(1, 61) for k in range(3)])
    assert value("active_users", young) == 1.0
    assert value("active_days", young) == 1.0


def test_a_silent_account_that_was_young_is_compared_with_what_there_was() -> None:
    brief = known(uses=[(T - timedelta(days=70), "ann", "f")])
    assert value("active_days", brief) == 0
    assert scoring.score(brief, T, MODEL).band == "red"


def test_too_little_use_before_gives_no_ratio_but_a_reason() -> None:
    rare = known(uses=[(T - timedelta(days=40), "ann", "f"), (T - timedelta(days=2), "ann", "f")])
    found = {p.measure: p for p in scoring.score(rare, T, MODEL).parts}["active_days"]
    assert (found.value, found.points) == (1.0, 100.0)
    users = {p.measure: p for p in scoring.score(rare, T, MODEL).parts}["active_users"]
    assert (users.value, users.reason) == (None, "less than 2 users were usual: too few to compare")


def test_the_running_day_counts_for_recency_only() -> None:
    before = known(uses=[(T - timedelta(days=n), "ann", "f") for n in range(5, 100)])
    after = before.with_usage(used((T - timedelta(minutes=1), "new", "g")))
    then, now = scoring.score(before, T, MODEL).parts, scoring.score(after, T, MODEL).parts
    assert [one.measure for one, other in zip(then, now, strict=True) if one.points != other.points] == ["recency"]


def test_a_ticket_weighs_by_severity_and_age_until_it_is_solved() -> None:
    opened = learnt("ticket.opened", "e1", 14, ticket_id="t", severity="p1")
    solved = learnt("ticket.solved", "e2", 1, ticket_id="t")
    assert value("open_tickets", known(opened)) == pytest.approx(20)
    assert value("open_tickets", known(solved, opened)) == 0
    assert points("open_tickets", known(solved, opened), T - timedelta(days=2)) is not None
    again = learnt("ticket.updated", "e3", 0.5, ticket_id="t", status="open")
    assert value("open_tickets", known(again, solved, opened)) == pytest.approx(20)
    assert value("reopened", known(again, solved, opened)) == 1
    assert points("open_tickets", known()) is None


def test_only_the_latest_answer_of_a_person_counts_and_a_retraction_restores_the_one_before() -> None:
    old = learnt("survey.answered", "e1", 9, kind="nps", score=3, user_id="ann", answer_id="a1")
    new = learnt("survey.answered", "e2", 2, kind="nps", score=10, user_id="ann", answer_id="a2")
    assert value("nps", known(old, new)) == 10
    assert value("nps", known(new, old, learnt("survey.retracted", "e3", 1, answer_id="a2"))) == 3
    assert value("nps", known(new, old, learnt("survey.corrected", "e4", 1, answer_id="a2", score=7))) == 7


def test_scales_are_brought_to_one() -> None:
    csat = learnt("survey.answered", "e1", 0.1, kind="csat", score=7, scale="1-7")
    assert value("csat", known(csat)) == 100
    assert value("nps", known(learnt("survey.answered", "e1", 0.1, kind="nps", score=5, scale="0-5"))) == 10


@pytest.mark.parametrize(
    ("type", "data", "why"),
    [
        ("survey.answered", {"kind": "nps", "score": 11}, "outside the scale 0-10"),
        ("survey.answered", {"kind": "csat", "score": 3, "scale": "5-5"}, "has no room"),
        ("account.updated", {"timezone": "Mars/Olympus"}, "not an IANA name"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(type: str, data: dict[str, Any], why: str) -> None:
    said = facts.learn(type, model_of(wire_type_of(type)).model_validate(data), "e", T)
    assert isinstance(said, Reject)
    assert why in said.reason


def test_what_health_keeps_no_figure_of_is_ignored_with_a_reason() -> None:
    said = facts.learn("message.sent", model_of("hune.message.sent.v1").model_validate({"message_id": "m"}), "e", T)
    assert said == Ignore("of no consequence for health")


def test_arr_is_the_crms_word_first_then_the_contracts_then_twelve_months() -> None:
    monthly = learnt("subscription.changed", "e1", 9, mrr="100.50")
    contract = learnt("contract.changed", "e2", 8, arr="900", notice_on="2026-06-01")
    crm = learnt("account.updated", "e3", 7, arr="1000")
    cleared = learnt("account.updated", "e4", 6, arr=None)
    assert [
        str(facts.picture(known(*said), T).profile.arr)
        for said in ([monthly], [monthly, contract], [monthly, contract, crm], [monthly, contract, crm, cleared])
    ] == ["1206.00", "900", "1000", "900"]


MISSING = """
coverage_floor: 0
measures:
  recency: {{label: {{en: a, fr: a}}, group: g, kind: usage_recency, weight: 1, worst: 30, best: 0}}
  paid: {{label: {{en: b, fr: b}}, group: g, kind: unpaid_invoices, weight: 3, worst: 2, best: 0, known_days: 10,
         missing: {policy}, last_known_days: 20}}
"""


@pytest.mark.parametrize(("policy", "exact"), [("ignore", 100), ("neutral", 62.5), ("zero", 25), ("last_known", 100)])
def test_a_missing_value_means_what_the_configuration_says(policy: str, exact: float) -> None:
    model = config.parse(MISSING.format(policy=policy), Model).model
    found = known(learnt("invoice.paid", "e", 15, invoice_id="i"), uses=[(T, "ann", "f")])
    score = scoring.score(found, T, model)
    assert score.exact == pytest.approx(exact)
    assert score.coverage == (1.0 if policy == "last_known" else 0.25)


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_change_is_told_in_one_sentence_with_its_largest_cause_first(language: Any) -> None:
    steady = known(uses=[(T - timedelta(days=n), "ann", "f") for n in range(1, 120)])
    trouble = steady.with_mark(learnt("ticket.opened", "e", 0.1, ticket_id="t", severity="p1"))
    before, after = scoring.score(steady, T, MODEL), scoring.score(trouble, T, MODEL)
    plan = MODEL.plans["default"]
    said = wording.why_changed(before, after, shares.shares_of(before, after, plan, plan), MODEL, language)
    assert (
        said
        == {
            "en": "Fell 8 points to 92 (green): open tickets 10 (was not known) (−7.8), "
            "reopened tickets 0 (was not known) (+0.1)",
            "fr": "Baisse de 8 points à 92 (vert) : tickets ouverts 10 (avant : inconnu) (−7,8), "
            "tickets rouverts 0 (avant : inconnu) (+0,1)",
        }[language]
    )


def test_marks_read_the_same_in_any_order_even_at_one_instant() -> None:
    a, b = Mark(5, "a", "changed", {"role": "user"}), Mark(5, "b", "changed", {"role": "sponsor"})
    for marks in ((a, b), (b, a)):
        assert facts.picture(Facts("x", {("contact", "c"): marks}), T).contacts[0].role == "sponsor"
