"""History gone through again under other rules: who would have heard what, when, and what nobody was told."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from services.health import domain, rehearsal
from services.health.domain import Memory, Policy
from services.health.facts import Facts
from services.health.rules import Rules
from services.health.settings import Model
from shared import config
from tests.unit.test_health_alerts import HEADCOUNT, POLICY, daily
from tests.unit.test_health_scoring import T, known, learnt

RED = "rules: {red: {when: score_below, enter: 2, leave: 3}, p1: {when: ticket_open, severity: critical}}"
POLICY_OF_SPONSORS = Policy(config.parse(HEADCOUNT, Model).model, config.parse(RED, Rules).model, "x")
START = T - timedelta(days=60)


def sponsor(n: int, days_ago: float, **said: Any) -> Any:
    told = {"role": "sponsor"} | said
    return learnt("contact.changed", f"s{n}-{days_ago}", days_ago, contact_id=f"c{n}", **told)


def owner(person: str | None, days_ago: float) -> Any:
    return learnt("csm.changed", f"o{days_ago}", days_ago, person_id=person)


def told(found: Facts, policy: Policy = POLICY_OF_SPONSORS) -> list[rehearsal.Told]:
    return rehearsal.rehearse(found, policy, START, T)


def test_what_holds_at_the_start_wakes_nobody_and_what_begins_later_is_told_to_the_owner_of_then() -> None:
    found = known(
        sponsor(1, 200),
        owner("ann", 150),
        learnt("ticket.opened", "t", 20, ticket_id="t", severity="p1"),
        owner("bob", 30),
        learnt("ticket.solved", "ts", 10, ticket_id="t"),
    )
    red, p1 = told(found)
    assert (red.rule, red.baseline, red.owner, red.opened_at) == ("red", True, "ann", START)
    assert (p1.rule, p1.baseline, p1.owner, p1.opened_at, p1.resolved_at) == (
        "p1", False, "bob", T - timedelta(days=20), T - timedelta(days=10),
    )  # fmt: skip


def test_what_happens_after_the_end_is_not_seen() -> None:
    facts = [sponsor(1, 200), sponsor(2, 200), sponsor(3, 200), owner("ann", 150)]
    later = [learnt("ticket.opened", "t", -1, ticket_id="t", severity="p1")]
    assert told(known(*facts)) == told(known(*facts, *later)) == []


def live(found: Facts, policy: Policy) -> list[tuple[str, datetime]]:
    """The same history as the worker lives it: a look whenever its own `due_at` says so."""
    memory, at, heard, baseline = Memory(), START, list[tuple[str, datetime]](), True
    while True:
        decision = domain.assess(found, memory, at, policy, cause=at.isoformat(), baseline=baseline)
        heard += [(episode.rule, at) for episode in decision.opened if not baseline]
        memory, baseline = decision.memory, False
        if decision.due_at is None or decision.due_at > T:
            return heard
        at = max(decision.due_at, at + timedelta(microseconds=1))


def test_it_tells_what_a_look_at_every_event_tells() -> None:
    uses = daily(200, 40, users=4)
    marks = [
        learnt("survey.answered", "a1", 50, kind="nps", score=2, user_id="u1", answer_id="a1"),
        learnt("invoice.failed", "i1", 33, invoice_id="i1"),
        learnt("account.updated", "p", 300, timezone="Asia/Tokyo", seats=4),
        learnt("ticket.opened", "t1", 20, ticket_id="t1", severity="p1"),
    ]
    found = uses
    for mark in marks:
        found = found.with_mark(mark)
    heard = [(one.rule, one.opened_at) for one in told(found, POLICY) if not one.baseline]
    assert sorted(heard) == sorted(live(found, POLICY))
    assert {"detractor", "payment_failed", "p1_open", "gone_silent", "band_red"} <= {rule for rule, _ in heard}


def test_who_left_is_held_against_the_alerts_of_the_days_before() -> None:
    paying = learnt("subscription.changed", "b1", 300, subscription_id="b", mrr="100")
    gone = learnt("subscription.changed", "b2", 5, subscription_id="b", mrr="0")
    ticket = learnt("ticket.opened", "t", 25, ticket_id="t", severity="p1")
    sound = [sponsor(n, 200) for n in range(5)]
    warned, missed = known(paying, gone, ticket, *sound, owner("ann", 99)), known(paying, gone, *sound)
    [one] = rehearsal.leaves(warned, told(warned), START, T)
    assert (one.days_before, one.rules, one.owner, one.signs) == (20.0, ("p1",), "ann", ("subscription",))
    [other] = rehearsal.leaves(missed, told(missed), START, T)
    assert (other.days_before, other.rules, other.owner) == (None, (), "nobody")
    assert rehearsal.leaves(warned, told(warned), T - timedelta(days=4), T) == []
    rows = rehearsal.weeks(told(warned), START, T)
    figures = rehearsal.summary([*told(warned), *told(missed)], [one, other], rows, budget=1)
    assert {name: figures[name] for name in ("alerts", "left", "warned", "missed", "median_days_before")} == {
        "alerts": 1, "left": 2, "warned": 1, "missed": 1, "median_days_before": 20.0,
    }  # fmt: skip


def test_weeks_are_counted_per_person_quiet_ones_too() -> None:
    tickets = [
        learnt("ticket.opened", f"t{n}", days, ticket_id=f"t{n}", severity="p1") for n, days in enumerate((20, 20.1, 3))
    ]
    rows = rehearsal.weeks(told(known(owner("ann", 99), *tickets)), START, T)
    assert [(row["week"], row["alerts"]) for row in rows if row["alerts"]] == [("2026-W11", 2), ("2026-W13", 1)]
    assert len(rows) == 10  # weeks from the end of January to the end of March
    figures = rehearsal.summary(told(known(owner("ann", 99), *tickets)), [], rows, budget=1)
    assert (figures["csm_weeks_over_budget"], figures["most_in_a_week"], figures["alerts_per_csm_week"]) == (1, 2, 0.3)
