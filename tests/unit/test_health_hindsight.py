"""Looking back knows nothing of what came after: labels may look ahead, scores may not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import backtest_log, output
from services.health import backtest, facts, hindsight, leaving
from services.health.backtest import Sample
from services.health.facts import Facts, Learnt
from services.health.hindsight import Look, Window
from services.health.leaving import Leaving
from services.health.policy import load_policy
from services.health.scoring import Score
from services.health.settings import Model
from services.health.usage import micros, moment
from shared import config
from shared.errors import Misconfigured
from shared.events import model_of, wire_type_of
from tests.unit.test_health_usage import used

START = datetime(2025, 1, 1, tzinfo=UTC)
CUT = datetime(2025, 9, 1, tzinfo=UTC)
MODEL = load_policy().model
Said = tuple[str, float, dict[str, Any]]
"""An event's type, its day since the start, and its data."""

EVENTS: st.SearchStrategy[Said] = st.one_of(
    *[
        st.tuples(st.just(type), st.floats(0, 480), data)
        for type, data in {
            "usage.tracked": st.fixed_dictionaries(
                {"user_id": st.sampled_from(["ann", "bob"]), "feature": st.sampled_from(["search", "export"])}
            ),
            "ticket.opened": st.fixed_dictionaries(
                {"ticket_id": st.sampled_from("12"), "severity": st.sampled_from(["p1", "p3"])}
            ),
            "ticket.solved": st.fixed_dictionaries({"ticket_id": st.sampled_from("12")}),
            "survey.answered": st.fixed_dictionaries({"kind": st.just("nps"), "score": st.integers(0, 10)}),
            "invoice.failed": st.fixed_dictionaries({"invoice_id": st.sampled_from("12")}),
            "invoice.paid": st.fixed_dictionaries({"invoice_id": st.sampled_from("12")}),
            "account.updated": st.fixed_dictionaries(
                {"stage": st.sampled_from(["adoption", "churned"]), "timezone": st.sampled_from(["UTC", "Asia/Tokyo"])}
            ),
            "csm.changed": st.fixed_dictionaries({"person_id": st.sampled_from(["lea", "sam"])}),
            "meeting.held": st.just({"meeting_id": "m"}),
            "churn.notified": st.just({}),
            "subscription.changed": st.fixed_dictionaries({"mrr": st.sampled_from(["0", "100"])}),
            "contract.changed": st.fixed_dictionaries({"arr": st.sampled_from(["0", "900"])}),
        }.items()
    ]
)


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def known(*said: Said, account: str = "acme") -> Facts:
    """The facts of an account, by the same function that the worker learns with."""
    found, uses = Facts(account, {}), []
    for number, (type_, day, data) in enumerate(said):
        if type_ == "usage.tracked":
            uses.append((at(day), data["user_id"], data["feature"]))
            continue
        event = model_of(wire_type_of(type_)).model_validate(data)
        learnt = facts.learn(type_, event, f"{type_}{day}{number}", at(day))
        assert isinstance(learnt, Learnt), learnt
        found = found.with_mark(learnt)
    return found.with_usage(used(*uses)) if uses else found


Scorer = Callable[..., Any]


def as_bytes(scorer: Scorer, said: Sequence[Said]) -> bytes:
    return msgspec.json.encode(scorer(known(*said), CUT, MODEL))


FEW = st.lists(EVENTS, max_size=25)


@given(FEW, FEW, FEW)
@settings(deadline=None)
def test_whatever_comes_at_the_cut_off_or_later_leaves_the_score_as_it_is(
    earlier: list[Said], later: list[Said], other: list[Said]
) -> None:
    day = (CUT - START).days
    past = [one for one in earlier if at(one[1]) < CUT]
    ahead, instead = ([(type_, max(when, day), data) for type_, when, data in said] for said in (later, other))
    there = as_bytes(hindsight.scored, past)
    assert as_bytes(hindsight.scored, [*past, *ahead]) == there
    assert as_bytes(hindsight.scored, [*instead, *past]) == there


def test_a_score_that_looks_ahead_would_be_caught() -> None:
    """The check above finds a leak where there is one."""

    def leaks(found: Facts, cut: datetime, model: Any) -> Any:
        return hindsight.scored(found, cut + timedelta(days=7), model)

    past: list[Said] = [("usage.tracked", day, {"user_id": "ann", "feature": "search"}) for day in range(100, 240)]
    ahead: Said = ("invoice.failed", 245, {"invoice_id": "1"})
    assert as_bytes(leaks, [*past, ahead]) != as_bytes(leaks, past)
    assert as_bytes(hindsight.scored, [*past, ahead]) == as_bytes(hindsight.scored, past)


PAYS: Said = ("subscription.changed", 0, {"mrr": "100"})


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ([PAYS], []),
        ([PAYS, ("churn.notified", 50, {})], [(50, None)]),
        ([PAYS, ("churn.notified", 50, {}), ("subscription.changed", 95, {"mrr": "0"})], [(50, None)]),
        ([PAYS, ("subscription.changed", 95, {"mrr": "0"})], [(95, None)]),
        ([("subscription.changed", 95, {"mrr": "0"})], []),
        ([PAYS, ("subscription.changed", 60, {"mrr": "0"}), ("subscription.changed", 62, {"mrr": "90"})], []),
        ([PAYS, ("subscription.changed", 60, {"mrr": "0"}), ("subscription.changed", 80, {"mrr": "90"})], [(60, 80)]),
        (
            [
                PAYS,
                ("subscription.changed", 5, {"subscription_id": "b", "mrr": "9"}),
                ("subscription.changed", 60, {"mrr": "0"}),
            ],
            [],
        ),
        ([("contract.changed", 1, {"arr": "10"}), ("contract.changed", 40, {"arr": "0"})], [(40, None)]),
        ([("account.updated", 1, {"stage": "adoption"}), ("account.updated", 40, {"stage": "churned"})], [(40, None)]),
        ([("account.updated", 4, {"stage": "churned"}), ("account.updated", 40, {"stage": "adoption"})], [(4, 40)]),
        (
            [
                PAYS,
                ("churn.notified", 50, {"effective_on": "2025-06-30"}),
                ("contract.changed", 60, {"arr": "1200", "ends_on": "2026-06-30"}),
            ],
            [(50, 60)],
        ),
        (
            [
                PAYS,
                ("churn.notified", 50, {"effective_on": "2025-06-30"}),
                ("contract.changed", 60, {"arr": "1200", "ends_on": "2025-06-30"}),
                ("subscription.changed", 70, {"mrr": "110"}),
            ],
            [(50, None)],
        ),
    ],
)
def test_an_account_leaves_when_its_events_say_so(said: list[Said], left: list[tuple[int, int | None]]) -> None:
    def day(us: int | None) -> int | None:
        return None if us is None else (moment(us) - START).days

    assert [(day(one.at), day(one.back_at)) for one in leaving.leavings(known(*said))] == left


@given(FEW, st.randoms())
@settings(deadline=None)
def test_leaving_does_not_depend_on_the_order_of_arrival(said: list[Said], dice: Any) -> None:
    numbered = [(type_, day + number / 1e6, data) for number, (type_, day, data) in enumerate(said)]
    shuffled = list(numbered)
    dice.shuffle(shuffled)
    found = [leaving.leavings(known(*order)) for order in (numbered, shuffled)]
    assert [(one.at, one.signs, one.back_at) for one in found[0]] == [
        (one.at, one.signs, one.back_at) for one in found[1]
    ]
    for one, other in zip(found[0], found[0][1:], strict=False):
        assert one.back_at is not None
        assert one.back_at <= other.at


def test_who_has_given_notice_is_no_customer_to_be_warned_of() -> None:
    gone = known(PAYS, ("churn.notified", 50, {}))
    assert hindsight.scored(gone, at(50), MODEL) is not None
    assert hindsight.scored(gone, at(50.1), MODEL) is None
    assert hindsight.scored(known(PAYS), at(0), MODEL) is None


def test_the_horizon_begins_at_the_cut_off_and_is_open_at_its_end() -> None:
    gone = known(PAYS, ("churn.notified", 140, {}))
    left, horizon = leaving.leavings(gone), timedelta(days=90)

    def days(day: float) -> float | None:
        found = hindsight.look(gone, at(day), MODEL, left, horizon)
        assert found is not None
        return found.days_left

    assert [days(day) for day in (50, 50.5, 140)] == [None, 89.5, 0]


def test_cut_offs_have_a_whole_horizon_after_them() -> None:
    window = Window(at(59.5), datetime(2025, 8, 30, tzinfo=UTC), timedelta(days=90))
    assert [f"{month:%m-%d}" for month in window.months()] == ["04-01", "05-01", "06-01"]
    weeks = window.weeks()
    assert {week.weekday() for week in weeks} == {0}
    assert (weeks[0].date(), weeks[-1].date()) == (date(2025, 3, 3), date(2025, 5, 26))


def a_look(account: str, day: float, points: float, owner: str = "lea", days_left: float | None = None) -> Look:
    band: Any = "red" if points < 40 else "green"
    return Look(account, at(day), owner, Score(int(points), band, float(points), 1.0, ()), days_left)


def test_a_csm_hears_of_so_many_a_week_the_lowest_first_and_of_each_once() -> None:
    horizon = timedelta(days=90)
    first = [a_look(f"a{n}", 0, 10 + n, days_left=30.0 if n in (1, 6) else None) for n in range(7)]
    second = [a_look(f"a{n}", 7, 10 + n, days_left=23.0 if n in (1, 6) else None) for n in range(7)]
    third = [a_look("a0", 14, 90), a_look("b", 14, 5, owner="sam")]
    fourth = [a_look("a0", 21, 10)]
    left = {"a1": [Leaving(micros(at(30)), ("notice",))], "a6": [Leaving(micros(at(30)), ("notice",))]}
    found = hindsight.alerts([first, second, third, fourth], left, horizon)
    told = [(one.account_id, (one.at - START).days) for one in found.told]
    assert told == [*[(f"a{n}", 0) for n in range(5)], ("a5", 7), ("a6", 7), ("b", 14), ("a0", 21)]
    assert found.precision == 2 / 9
    assert (found.leavings, found.foretold, found.days_before) == (2, 2, (30.0, 23.0))
    assert (found.held_back, found.owners, found.weeks) == (2, 2, 4)


def test_an_alert_is_given_again_after_a_horizon_and_only_those_within_it_foretell() -> None:
    weeks = [[a_look("a", 7 * week, 10, days_left=None if week < 9 else 3.0)] for week in range(20)]
    left = {"a": [Leaving(micros(at(140)), ("notice",))]}
    found = hindsight.alerts(weeks, left, timedelta(days=30))
    assert [(one.at - START).days for one in found.told] == [0, 35, 70, 105]
    assert found.days_before == ()
    assert found.recall == 0


def a_book(accounts: int = 60, seed: int = 5, step: int = 2) -> list[Facts]:
    """Half of the accounts use it less and less in the two months before they give notice."""
    dice, book = np.random.default_rng(seed), []
    for number in range(accounts):
        gone = int(dice.integers(130, 290)) if number % 2 else None
        said: list[Said] = [PAYS, ("csm.changed", 0, {"person_id": f"csm{number % 3}"})]
        for day in range(0, 300 if gone is None else gone, step):
            fades = gone is not None and day > gone - 60
            if dice.random() < (0.1 if fades else 0.7):
                said.append(("usage.tracked", day + 0.4, {"user_id": f"u{dice.integers(6)}", "feature": "search"}))
        if gone is not None:
            said.append(("churn.notified", gone, {}))
        book.append(known(*said, account=f"acct-{number:03}"))
    return book


def test_the_figures_of_a_history_say_what_a_team_would_have_felt() -> None:
    book, end = a_book(), at(300)
    found = backtest_log.looked_back(book, end, 60, None)
    assert found["left"] == 30
    assert found["signs"] == {"notice": 30}
    assert found["cutoffs"] == ["2025-04-01", "2025-05-01", "2025-06-01", "2025-07-01", "2025-08-01"]
    assert "caution" in found
    assert found["auc_ci"][0] > 0.6
    assert "Obuchowski" in found["auc_ci_method"]
    assert found["precision_at_5"] > 0.6
    assert 5 < found["median_days_before_notice"] < 60
    assert found["alerts"]["csms"] == 3
    text = backtest_log.described(json.loads(output.json_line(found)) | {"as_of": end})
    assert "at most 5 alerts per CSM and week" in text
    assert "account-months" in text
    assert output.json_line(backtest_log.looked_back(book[::-1], end, 60, None)) == output.json_line(found)


def test_what_comes_after_changes_labels_and_no_score() -> None:
    book = a_book(40)
    end, horizon = at(300), timedelta(days=60)
    window = hindsight.window_of(book, end, horizon)
    assert window is not None
    left = {one.account_id: leaving.leavings(one) for one in book}
    there = hindsight.look_back(book, left, window, MODEL).months
    cut = there[len(there) // 2].at
    changed = known(("churn.notified", (cut - START).days, {})).things
    other = [Facts(one.account_id, {**hindsight.before(one, cut).things, **changed}, one.usage) for one in book]
    moved = {one.account_id: leaving.leavings(one) for one in other}
    again = hindsight.look_back(other, moved, window, MODEL).months
    until = [look for look in there if look.at <= cut]
    after = {(look.account_id, look.at): look for look in again}
    assert len(until) > 40
    same = [after[look.account_id, look.at] for look in until]
    assert [(one.score, one.owner) for one in same] == [(one.score, one.owner) for one in until]
    assert sum(one.days_left is not None for one in same) > sum(one.days_left is not None for one in until)


def test_a_model_is_learnt_from_the_history_and_judged_on_other_accounts(tmp_path: Path) -> None:
    book, end, out = a_book(120, step=6), at(300), tmp_path / "health.yaml"
    found, text = backtest_log.fitted(book, end, 60, None)
    out.write_text(text)
    assert found["out_of_fold"]
    assert "Obuchowski" in found["auc_ci_method"]
    assert found["auc_ci"][0] > 0.6
    assert {"sponsors", "nps"} <= {one["column"] for one in found["left_out"]}
    model = config.load(out, Model).model
    assert model.digest == found["config_hash"]
    assert set(model.measures) == {one["column"] for one in found["measures"]} < set(MODEL.measures)
    for name, measure in model.measures.items():
        points = [measure.at_least[edge] for edge in sorted(measure.at_least)] if measure.at_least else []
        assert points in (sorted(points), sorted(points, reverse=True))
        assert (min(points), max(points)) == (0, 100)
        assert (measure.kind, measure.label) == (MODEL.measures[name].kind, MODEL.measures[name].label)
    again = backtest_log.looked_back(book, end, 60, out)
    assert again["auc"] > 0.6
    assert again["config_hash"] == found["config_hash"]


def test_below_fifty_accounts_that_left_nothing_is_learnt_however_many_months_there_are() -> None:
    with pytest.raises(Misconfigured, match=r"customers left .* below 50"):
        backtest_log.fitted(a_book(20), at(300), 60, None)


@pytest.mark.parametrize("end", [at(100), at(1)])
def test_a_history_that_is_too_short_is_refused(end: datetime) -> None:
    with pytest.raises(Misconfigured, match="too short"):
        backtest_log.looked_back([known(PAYS)], end, 90, None)


def test_rows_of_one_customer_count_as_one_voice() -> None:
    """Each customer three times over says no more than once: the interval stays what it was."""
    dice = np.random.default_rng(3)
    left = dice.random(80) < 0.4
    scores, other = dice.normal(60 - 15 * left, 12), dice.normal(60 - 9 * left, 15)
    names = [f"c{row}" for row in range(80)]
    once, thrice = Sample(left, names), Sample(np.tile(left, 3), names * 3)
    single, triple = (
        backtest.difference(scores, other, once),
        backtest.difference(np.tile(scores, 3), np.tile(other, 3), thrice),
    )
    assert triple.ci == pytest.approx(single.ci, abs=1e-9)


def test_the_interval_by_customer_is_that_of_drawing_customers() -> None:
    dice = np.random.default_rng(11)
    customers, months = 150, 6
    risk = dice.normal(0, 1, customers)
    left = dice.random((customers, months)) < 1 / (1 + np.exp(2 - 1.5 * risk[:, None]))
    scores = -(risk[:, None] + dice.normal(0, 0.7, (customers, months)))
    owner = np.repeat(np.arange(customers), months).reshape(customers, months)
    sample = Sample(left.ravel(), [f"c{one}" for one in owner.ravel()])
    zero = np.zeros(left.size)  # ranks nobody: an AUC of one half, without spread
    found = backtest.difference(scores.ravel(), zero, sample)
    drawn = [
        backtest.auc(scores[rows].ravel(), left[rows].ravel())
        for rows in (dice.integers(0, customers, customers) for _ in range(400))
    ]
    assert (found.ci[1] - found.ci[0]) / 2 / backtest.Z == pytest.approx(float(np.std(drawn)), rel=0.15)
