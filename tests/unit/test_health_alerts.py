"""Alerts are episodes: opened once per cause, closed when it is gone, quiet at the edge."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

from services.health import domain
from services.health.domain import Decision, Memory, Policy
from services.health.facts import Facts
from services.health.policy import load_policy
from services.health.rules import Rules
from services.health.settings import Model
from shared import config
from tests.unit.test_health_scoring import T, known, learnt
from tests.unit.test_health_usage import used

POLICY = load_policy()
HEADCOUNT = """
coverage_floor: 0
measures:
  sponsors: {label: {en: sponsors, fr: sponsors}, group: g, kind: sponsors, weight: 1, worst: 0, best: 100}
"""
BAND = "rules: {red: {when: score_below, enter: 40, leave: 45}, drop: {when: score_drop, points: 15, days: 30}}"


class Watch:
    """Assesses one account again and again, remembering what was told."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy, self.memory, self.told, self.n = policy, Memory(), list[Decision](), 0

    def look(self, found: Facts, days_ago: float = 0, baseline: bool = False) -> Decision:
        self.n += 1
        at = T - timedelta(days=days_ago)
        decision = domain.assess(found, self.memory, at, self.policy, cause=f"c{self.n}", baseline=baseline)
        self.memory = decision.memory
        self.told.append(decision)
        return decision

    @property
    def opened(self) -> list[tuple[str, str]]:
        return [(episode.rule, episode.cause) for decision in self.told for episode in decision.opened]

    @property
    def resolved(self) -> list[tuple[str, str]]:
        return [(episode.rule, episode.cause) for decision in self.told for episode in decision.resolved]


def counting() -> Watch:
    """A watch whose score is the number of sponsors."""
    return Watch(Policy(config.parse(HEADCOUNT, Model).model, config.parse(BAND, Rules).model, "x"))


def sponsors(n: int) -> Facts:
    return known(*(learnt("contact.changed", f"c{k}", 200, contact_id=f"c{k}", role="sponsor") for k in range(n)))


def test_a_score_that_hovers_at_the_edge_rings_once() -> None:
    watch = counting()
    for day in range(30, 0, -1):
        watch.look(sponsors(38 if day % 2 else 43), day)
    assert watch.opened == [("red", "")]
    assert watch.resolved == []
    watch.look(sponsors(45))
    assert watch.resolved == [("red", "")]


def test_a_second_episode_has_an_id_of_its_own() -> None:
    watch = counting()
    for day, n in ((9, 30), (8, 60), (7, 30)):
        watch.look(sponsors(n), day)
    ids = [episode.alert_id for decision in watch.told for episode in decision.opened if episode.rule == "red"]
    assert len(ids) == len(set(ids)) == 2


def test_a_fall_is_measured_from_the_best_score_shown_lately() -> None:
    watch = counting()
    watch.look(sponsors(90), 40)
    watch.look(sponsors(80), 20)
    assert ("drop", "") not in watch.opened
    watch.look(sponsors(65), 10)
    assert ("drop", "") in watch.opened
    watch.look(sponsors(65), -21)  # the 80 is now more than 30 days old
    assert ("drop", "") in watch.resolved


def test_each_change_begins_where_the_one_before_ended_and_small_ones_are_not_told() -> None:
    watch = counting()
    for n in (50, 50, 51, 30, 80):
        watch.look(sponsors(n))
    changes = [decision.change for decision in watch.told if decision.change]
    assert [change.current.score for change in changes] == [50, 51, 30, 80]
    assert changes[0].previous is None
    assert all(after.previous == before.current for before, after in pairwise(changes))


def test_a_p1_rings_at_once_for_each_ticket_and_ends_with_it() -> None:
    watch = Watch()
    one = learnt("ticket.opened", "e1", 0.1, ticket_id="t1", severity="p1", subject="Down")
    two = learnt("ticket.updated", "e2", 0.05, ticket_id="t2", severity="p1")
    watch.look(known())
    opened = watch.look(known(one)).opened
    assert [(episode.rule, episode.severity, episode.title) for episode in opened] == [
        ("p1_open", "critical", "P1 ticket open: Down")
    ]
    watch.look(known(one, two))
    watch.look(known(one, two, learnt("ticket.solved", "e3", 0.01, ticket_id="t1")))
    assert watch.opened == [("p1_open", "t1"), ("p1_open", "t2")]
    assert watch.resolved == [("p1_open", "t1")]


def test_a_storm_of_tickets_is_one_alert() -> None:
    watch = Watch()
    tickets = [learnt("ticket.opened", f"e{n}", 1 - n / 10, ticket_id=f"t{n}", severity="p3") for n in range(7)]
    for n in range(1, 8):
        watch.look(known(*tickets[:n]))
    assert watch.opened == [("ticket_storm", "")]
    watch.look(known(*tickets), -7)
    assert watch.resolved == [("ticket_storm", "")]


def test_a_detractor_rings_until_the_same_person_answers_better() -> None:
    watch = Watch()
    bad = learnt("survey.answered", "e1", 2, kind="nps", score=2, user_id="ann", answer_id="a1", comment="slow")
    good = learnt("survey.answered", "e2", 1, kind="nps", score=9, user_id="ann", answer_id="a2")
    assert watch.look(known(bad)).opened[0].why == "Answered 2 on 2026-03-29: “slow”"
    watch.look(known(bad, good))
    assert watch.opened == [("detractor", "a1")]  # nobody has been green for long, so no promoter counts
    assert watch.resolved == [("detractor", "a1")]


def test_a_failed_payment_and_a_sponsor_who_left_ring_until_they_are_made_good() -> None:
    watch = Watch()
    failed = learnt("invoice.failed", "e1", 3, invoice_id="i1", amount="12.50", currency="EUR")
    joined = learnt("contact.changed", "e2", 90, contact_id="c", role="sponsor")
    left = learnt("contact.changed", "e3", 2, contact_id="c", status="left")
    watch.look(known(failed, joined, left))
    assert sorted(watch.opened) == [("payment_failed", "i1"), ("sponsor_left", "c")]
    back = learnt("contact.changed", "e4", 1, contact_id="c", status="active")
    watch.look(known(failed, joined, left, back, learnt("invoice.paid", "e5", 1, invoice_id="i1")))
    assert sorted(watch.resolved) == [("payment_failed", "i1"), ("sponsor_left", "c")]


def daily(first: int, last: int, users: int = 3) -> Facts:
    return known(uses=[(T - timedelta(days=n), f"u{k}", "f") for n in range(last, first) for k in range(users)])


def test_use_that_ends_is_told_with_who_stopped_and_over_with_the_next_use() -> None:
    watch, found = Watch(), daily(120, 40)
    watch.look(daily(120, 1))
    assert watch.opened == []
    opened = {episode.rule: episode for episode in watch.look(found).opened}
    assert set(opened) == {"gone_silent", "band_red"}  # a red score silences a falling one
    assert len(opened["gone_silent"].people) == 3
    watch.look(found.with_usage(used((T, "u1", "f"))))
    assert ("gone_silent", "") in watch.resolved


def test_an_account_that_was_always_silent_wakes_nobody() -> None:
    watch = Watch()
    watch.look(daily(400, 300))
    assert watch.opened == []


def test_losing_the_score_is_a_matter_of_data_not_of_risk_and_keeps_what_was_open() -> None:
    watch, found = Watch(), daily(120, 40)
    watch.look(found)
    watch.look(found, -90)
    assert ("score_lost", "") in watch.opened
    assert ("band_red", "") not in watch.resolved


def test_growth_is_an_opportunity() -> None:
    watch = Watch()
    found = daily(120, 0, users=4).with_usage(used(*((T - timedelta(days=5), f"n{k}", "f") for k in range(5))))
    watch.look(found, 1)
    assert [(episode.rule, episode.kind) for episode in watch.look(found).opened] == [("growth", "opportunity")]


def test_an_account_is_due_at_its_next_midnight_while_time_can_change_something() -> None:
    zoned = learnt("account.updated", "e", 1, timezone="Asia/Tokyo")
    due = Watch().look(known(zoned)).due_at
    assert due is not None
    assert due - domain.spread("acme") == T.replace(hour=15, minute=0) + timedelta(days=1)  # T is 00:30 in Tokyo
    assert Watch().look(daily(1000, 900)).due_at is None
    to_come = known(zoned).with_usage(used((T + timedelta(minutes=5), "ann", "f")))
    assert Watch().look(to_come).due_at == T + timedelta(minutes=5)


def test_a_rule_that_is_switched_off_is_silent() -> None:
    rules = POLICY.rules.model_copy(
        update={
            "rules": {name: rule.model_copy(update={"enabled": False}) for name, rule in POLICY.rules.rules.items()}
        }
    )
    watch = Watch(replace(POLICY, rules=rules))
    watch.look(known(learnt("ticket.opened", "e", 1, ticket_id="t", severity="p1")))
    assert watch.opened == []


def test_what_is_told_of_a_state_is_told_once() -> None:
    watch, found = Watch(), known(learnt("account.updated", "e", 1, name="Acme", arr="1200.50"))
    first: Any = watch.look(found).state
    assert (first["name"], first["arr"], first["band"]) == ("Acme", "1200.50", "unknown")
    assert watch.look(found).state is None
