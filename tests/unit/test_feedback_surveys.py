"""What a survey score is: published worked examples, corrections, and one voice per person."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.feedback.domain import Analysis, Standing, analyse, segment_at
from services.feedback.settings import load_rules
from shared.errors import Misconfigured
from shared.surveys import (
    Measure,
    Statement,
    What,
    all_answers,
    figure,
    latest_per_person,
    misfit,
    months,
    nps_margin,
    share_interval,
    tallies,
)

ROOT = Path(__file__).parents[2]
RULES = load_rules(ROOT / "config").model
FORMULAS = ROOT.parent / "shared" / "samples" / "formulas.json"
NPS, CSAT, CES = Measure("nps", "0-10"), Measure("csat", "1-5"), Measure("ces", "1-7")
START = datetime(2026, 1, 1, tzinfo=UTC)


def said(name: str = "a1", what: What = "answered", day: float = 0, score: float | None = 9, **more: Any) -> Statement:
    fields: dict[str, Any] = {
        "source": "hune",
        "event_id": f"{what}-{name}-{day}",
        "kind": "nps",
        "user_id": None,
    } | more
    if what != "answered":
        fields |= {"kind": None, "user_id": None}
    return Statement(name, what, START + timedelta(days=day), score=None if what == "retracted" else score, **fields)


def scores(*statements: Statement, until: datetime | None = None) -> list[int]:
    return sorted(one.score for one in latest_per_person(all_answers(statements, RULES, until)))


@pytest.mark.parametrize(
    ("promoters", "passives", "detractors", "nps", "plain", "low", "high"),
    [
        (10, 5, 5, 25.00, 36.34, 21.74 - 33.46, 21.74 + 33.46),
        (50, 33, 17, 33.00, 14.68, 32.04 - 14.48, 32.04 + 14.48),
        (3, 0, 0, 100.00, 0.00, 50.00 - 56.58, 100.00),
    ],
)
def test_nps_and_its_adjusted_wald_interval_match_worked_examples(
    promoters: int, passives: int, detractors: int, nps: float, plain: float, low: float, high: float
) -> None:
    shown = figure(NPS, {10: promoters, 8: passives, 3: detractors}, RULES)
    assert shown.value == pytest.approx(nps)
    assert nps_margin(promoters, detractors, shown.n, RULES.z) == pytest.approx(plain, abs=0.005)
    assert shown.low == pytest.approx(low, abs=0.011)
    assert shown.high == pytest.approx(high, abs=0.011)


def test_ces_matches_the_worked_example_with_its_direction_stored() -> None:
    counts = dict(zip(range(1, 8), (80, 210, 140, 110, 160, 180, 120), strict=True))
    shown = figure(CES, counts, RULES)
    assert shown.value == pytest.approx(4.08)
    assert shown.ease == pytest.approx(51.33, abs=0.005)
    assert shown.counts == {"easy": 460, "top_box": 300}
    assert shown.direction == "high_is_easy"


def test_effort_scale_runs_the_other_way() -> None:
    shown = figure(Measure("ces", "1-5"), {1: 3, 5: 1}, RULES)
    assert (shown.value, shown.ease, shown.direction) == (2.0, 75.0, "high_is_effort")


@pytest.mark.parametrize(("scale", "satisfied"), [("1-5", 3), ("1-7", 2), ("1-10", 3), ("1-3", 1)])
def test_csat_counts_the_top_box_of_its_scale(scale: str, satisfied: int) -> None:
    top = int(scale.partition("-")[2])
    histogram = {top: 1, top - 1: 1, top - 2: 1} if scale != "1-5" else {5: 1, 4: 2, 3: 1}
    assert figure(Measure("csat", scale), histogram, RULES).counts["satisfied"] == satisfied


def test_agresti_coull_interval_of_8_in_10() -> None:
    low, high = share_interval(8, 10, 1.96)
    assert low == pytest.approx(47.94, abs=0.01)
    assert high == pytest.approx(95.41, abs=0.01)


def test_nobody_answered_is_null_with_a_reason() -> None:
    for measure in (NPS, CSAT, CES):
        row = figure(measure, {}, RULES).row()
        assert (row["value"], row["low"], row["high"], row["n"]) == (None, None, None, 0)
        assert row["reason"] == "nobody answered"


@pytest.mark.skipif(not FORMULAS.exists(), reason="the published examples are not beside the repository")
def test_published_survey_examples_come_out_as_printed() -> None:
    checked = 0
    for example in json.loads(FORMULAS.read_text()):
        for measure, histogram, read in _as_histogram(example["metric"], example["inputs"]):
            shown = figure(measure, histogram, RULES)
            assert getattr(shown, read) == pytest.approx(example["expected"], abs=example["tolerance"]), example[
                "source"
            ]
            checked += 1
    assert checked >= 6


def _as_histogram(metric: str, inputs: dict[str, Any]) -> Iterator[tuple[Measure, dict[int, int], str]]:
    if metric == "nps":
        suffix = "_pct" if "promoters_pct" in inputs else ""
        points = zip((10, 8, 0), ("promoters", "passives", "detractors"), strict=True)
        yield NPS, {point: inputs[name + suffix] for point, name in points}, "value"
    elif metric == "csat_pct" and "counts" in inputs:
        yield CSAT, {int(point): count for point, count in inputs["counts"].items()}, "value"
    elif metric == "csat_pct":
        yield CSAT, {5: inputs["satisfied"], 1: inputs["total"] - inputs["satisfied"]}, "value"
    elif metric == "ces_mean" and "scores" in inputs:
        yield CES, Counter(inputs["scores"]), "value"
    elif metric == "ces_mean":
        low, rest = divmod(inputs["sum"], inputs["responses"])
        yield CES, {low: inputs["responses"] - rest, low + 1: rest}, "value"


@pytest.mark.parametrize(
    ("kind", "score", "scale", "part"),
    [
        ("nps", 11, None, "score 11 is outside scale 0-10"),
        ("nps", -1, "0-10", "score -1 is outside scale 0-10"),
        ("csat", 0, "1-5", "score 0 is outside scale 1-5"),
        ("nps", 8.5, None, "score 8.5 is not a whole point of scale 0-10"),
        ("nps", 4, "1-5", "nps is not scored on scale 1-5"),
    ],
)
def test_a_score_off_its_scale_is_refused_by_name(kind: str, score: float, scale: str | None, part: str) -> None:
    assert part in str(misfit(kind, score, scale, RULES))


def test_only_the_latest_answer_of_a_person_counts_and_anonymous_ones_each() -> None:
    ann = said("a1", user_id="ann", score=9), said("a2", user_id="ann", day=3, score=2)
    nobody = said("a3", score=10), said("a4", score=10)
    assert scores(*ann, *nobody) == [2, 10, 10]
    assert scores(*ann, *nobody, until=START + timedelta(days=2)) == [9, 10, 10]


def test_a_person_speaks_once_per_kind() -> None:
    assert scores(said("a1", user_id="ann", score=9), said("a2", user_id="ann", kind="csat", score=2)) == [2, 9]


def test_a_correction_counts_whenever_it_arrives_but_only_from_its_own_time() -> None:
    given, corrected = said(score=3), said(what="corrected", day=2, score=10)
    assert scores(corrected, given) == scores(given, corrected) == [10]
    assert scores(given, corrected, until=START + timedelta(days=1)) == [3]


def test_a_correction_dated_before_its_answer_still_corrects_it() -> None:
    assert scores(said(day=1, score=3), said(what="corrected", day=0.5, score=8)) == [8]


def test_a_correction_off_the_scale_changes_nothing() -> None:
    assert scores(said(score=3), said(what="corrected", day=1, score=30)) == [3]


def test_a_retracted_answer_leaves_the_person_with_the_answer_before() -> None:
    statements = (
        said("a1", user_id="ann", score=9),
        said("a2", user_id="ann", day=1, score=2),
        said("a2", what="retracted", day=2),
    )
    assert scores(*statements) == [9]
    assert scores(*statements, until=START + timedelta(days=1)) == [2]


def test_answers_under_an_id_of_their_own_restate_each_other_and_events_without_one_do_not() -> None:
    assert scores(said(score=3), said(day=1, score=8)) == [8]
    assert scores(said(score=3, named=False), said(day=1, score=8, named=False)) == [3, 8]


names, people = st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([None, "ann", "bob"])


@st.composite
def histories(draw: st.DrawFn) -> list[Statement]:
    history = []
    for number in range(draw(st.integers(1, 12))):
        what: What = draw(st.sampled_from(["answered", "answered", "corrected", "retracted"]))
        one = said(
            draw(names), what, draw(st.integers(0, 5)), draw(st.integers(0, 11)), event_id=f"e{number}",
            user_id=draw(people), kind=draw(st.sampled_from(["nps", "csat"])), named=draw(st.booleans()),
        )  # fmt: skip
        history.append(one)
    return history


@settings(max_examples=300, deadline=None)
@given(st.data(), histories())
def test_tallies_end_in_the_same_place_in_any_order_with_repeats_and_however_split(
    data: st.DataObject, history: list[Statement]
) -> None:
    expected = {key: +count for key, count in tallies(latest_per_person(all_answers(history, RULES))).items() if +count}
    shuffled = data.draw(st.permutations(history + history[: len(history) // 2]))
    cut = data.draw(st.integers(0, len(shuffled)))
    first = Standing(RULES)
    for one in shuffled[:cut]:
        first.hear(one)
    second = Standing(RULES, counts=first.counts)
    for one in shuffled[:cut]:
        second.remember(one)
    for one in shuffled[cut:]:
        second.hear(one)
    assert {key: count for key, count in second.counts.items() if count} == expected


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(0, 5))
def test_what_was_said_later_does_not_change_what_is_known_of_a_time(history: list[Statement], day: int) -> None:
    until = START + timedelta(days=day)
    assert all_answers(history, RULES, until) == all_answers([one for one in history if one.at <= until], RULES)


def test_hearing_names_the_measures_that_moved() -> None:
    standing = Standing(RULES)
    assert standing.hear(said(user_id="ann", score=9)) == {NPS}
    assert standing.hear(said("a2", user_id="ann", day=-1, score=2)) == set()


def test_a_correction_off_the_scale_is_refused_once_its_answer_is_known() -> None:
    standing = Standing(RULES)
    corrected = said(what="corrected", score=30)
    assert standing.refusal(corrected) is None
    standing.hear(said())
    assert standing.refusal(corrected) == "score 30 is outside scale 0-10 of nps"


def test_analysis_names_the_unhappy_and_marks_the_month_that_is_not_over() -> None:
    statements = [
        said("a1", user_id="ann", score=9),
        said("a2", user_id="ann", day=40, score=2),
        said("a3", day=41, score=5, kind="csat"),
    ]
    answer = analyse(statements, Analysis(START + timedelta(days=45)), RULES)
    assert [(row["kind"], row["n"], row["value"]) for row in answer["scores"]] == [
        ("nps", 1, -100.0),
        ("csat", 1, 100.0),
    ]
    assert [(row["month"], row["kind"], row["complete"]) for row in answer["by_month"]] == [
        ("2026-01", "nps", True),
        ("2026-02", "nps", False),
        ("2026-02", "csat", False),
    ]
    assert [(one["user_id"], one["score"]) for one in answer["unhappy"]] == [("ann", 2)]
    assert (answer["persons"], answer["without_person"]) == (1, 1)


def test_months_are_cut_in_the_reporting_zone() -> None:
    from zoneinfo import ZoneInfo

    edge = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    assert [name for name, *_ in months(edge, edge, ZoneInfo("Europe/Paris"))] == ["2026-02"]


def test_segment_is_the_latest_in_force_at_the_time() -> None:
    history = [(START, "e1", "mid"), (START + timedelta(days=9), "e2", "high")]
    assert segment_at(history, START + timedelta(days=8)) == "mid"
    assert segment_at(history, START + timedelta(days=9)) == "high"
    assert segment_at(history, START - timedelta(days=1)) is None


def test_a_scale_without_the_point_it_counts_from_is_refused_with_its_line(tmp_path: Path) -> None:
    text = (
        (ROOT / "config" / "surveys.yaml")
        .read_text()
        .replace('"1-3": {satisfied_from: 3}', '"1-3": {satisfied_from: 9}')
    )
    (tmp_path / "surveys.yaml").write_text(text)
    with pytest.raises(Misconfigured, match=r"surveys\.yaml:\d+.*scale 1-3 has no point 9"):
        load_rules(tmp_path)
