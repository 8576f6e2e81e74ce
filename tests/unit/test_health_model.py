"""A model says what it says: groups in groups, scales, profiles, caps, bands that are left for good; or is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.health import domain, scoring
from services.health.domain import Memory, Policy
from services.health.facts import Facts
from services.health.plan import scaled
from services.health.policy import load_policy
from services.health.settings import Bands, Model, Scale
from shared import config
from shared.errors import Misconfigured
from tests.unit.test_health_scoring import T, known, learnt

MEASURES: dict[str, Any] = {
    "answers": {"kind": "survey", "of": "nps", "half_life_days": 3660, "group": "voice", "weight": 1, "worst": 0,
                "best": 10},
    "ease": {"kind": "survey", "of": "ces", "half_life_days": 3660, "group": "effort", "weight": 3, "worst": 1,
             "best": 7},
    "tickets": {"kind": "ticket_count", "group": "support", "weight": 1, "worst": 2, "best": 0},
}  # fmt: skip


def a_model(**said: Any) -> Model:
    measures = {
        name: {"label": {"en": name, "fr": name}, **measure}
        for name, measure in {**MEASURES, **said.pop("measures", {})}.items()
    }
    text = yaml.safe_dump({"coverage_floor": 0, "measures": measures, **said}, sort_keys=False)
    return config.parse(text, Model, Path("health.yaml")).model


NESTED = {
    "customer": {"weight": 1, "groups": {"voice": {"weight": 1}, "effort": {"weight": 1}}},
    "support": {"weight": 3},
}


def an_account(nps: float | None = 5, ces: float | None = 7, tickets: int | None = 1, *more: Any) -> Facts:
    said = list(more)
    if nps is not None:
        said.append(learnt("survey.answered", "n", 0, kind="nps", score=nps, user_id="ann", answer_id="n"))
    if ces is not None:
        said.append(learnt("survey.answered", "c", 0, kind="ces", score=ces, user_id="ann", answer_id="c"))
    if tickets is not None:
        said.append(learnt("ticket.opened", "t0", 2, ticket_id="t0", severity="p3"))
        said += [learnt("ticket.solved", "s0", 1, ticket_id="t0")] if not tickets else []
        said += [learnt("ticket.opened", f"t{n}", 1, ticket_id=f"t{n}", severity="p3") for n in range(1, tickets)]
    return known(*said)


def exact(model: Model, found: Facts) -> float | None:
    return scoring.score(found, T, model).exact


def test_a_group_weighs_as_one_however_many_measures_are_in_it() -> None:
    assert exact(a_model(), an_account()) == pytest.approx((50 + 3 * 100 + 50) / 5)
    assert exact(a_model(groups=NESTED), an_account()) == pytest.approx((75 + 3 * 50) / 4)


def test_what_is_missing_leaves_its_weight_to_its_own_group_and_an_empty_group_to_the_others() -> None:
    model = a_model(groups=NESTED)
    assert exact(model, an_account(ces=None)) == pytest.approx((50 + 3 * 50) / 4)
    assert exact(model, an_account(nps=None, ces=None)) == pytest.approx(50)
    assert scoring.score(an_account(ces=None), T, model).coverage == pytest.approx(1 - 1 / 8)


def test_weights_of_nested_measures_are_percent_of_the_score() -> None:
    weights = dict(zip(MEASURES, a_model(groups=NESTED).plans["default"].weights, strict=True))
    assert weights == {"answers": pytest.approx(12.5), "ease": pytest.approx(12.5), "tickets": pytest.approx(75)}


@pytest.mark.parametrize(
    ("scale", "points"),
    [
        ({"at_least": {0: 0, 5: 50, 10: 100}}, {-3: 0, 0: 0, 4.9: 0, 5: 50, 10: 100, 99: 100}),
        ({"above": {0: 0, 50: 50, 75: 100}}, {0: 0, 50: 0, 51: 50, 75: 50, 76: 100}),
        ({"worst": 30, "best": 0}, {40: 0, 30: 0, 15: 50, -1: 100}),
    ],
)
def test_a_scale_gives_points(scale: dict[str, Any], points: dict[float, float]) -> None:
    given = scaled(Scale(**scale))
    assert {value: given(value) for value in points} == points


PROFILES = {
    "starting": {"when": {"stage": ["onboarding"]}, "weights": {"ease": 0}, "bands": {"amber": 20, "green": 50}},
    "large": {
        "when": {"segment": ["enterprise"], "product": ["erp", "crm"]},
        "scales": {"answers": {"at_least": {0: 7}}},
    },
}  # fmt: skip


def test_the_first_profile_that_fits_is_used_and_says_why() -> None:
    model = a_model(profiles=PROFILES)
    start = learnt("account.updated", "p1", 9, stage="onboarding", product="crm", traits={"segment": "enterprise"})
    grown = learnt("account.updated", "p2", 5, stage="adoption")
    one = scoring.score(an_account(5, 7, 1, start), T, model)
    assert (one.profile, one.because, one.exact, one.band) == ("starting", "stage is onboarding", 50, "green")
    assert [part.measure for part in one.parts] == ["answers", "tickets"]
    other = scoring.score(an_account(5, 7, 1, start, grown), T, model)
    assert (other.profile, other.because) == ("large", "segment is enterprise, product is crm")
    assert other.exact == pytest.approx((7 + 300 + 50) / 5)
    nobody = scoring.score(an_account(), T, model)
    assert (nobody.profile, nobody.because) == ("default", "no profile fits")


CAPS: dict[str, Any] = {
    "p1_open": {
        "label": {"en": "P1 open", "fr": "P1 ouvert"}, "at": 60, "when": {"open_tickets": ["p1"], "days_open": 1}
    },
    "unheard": {"label": {"en": "unheard", "fr": "silence"}, "at": 69, "when": {"measure": "answers", "unknown": True}},
    "angry": {"label": {"en": "angry", "fr": "fâché"}, "at": 30, "when": {"measure": "answers", "value_below": 3}},
}  # fmt: skip


def test_a_cap_holds_the_score_down_while_its_cause_is_there() -> None:
    model = a_model(caps=CAPS)
    well = an_account(10, 7, 0)
    p1 = learnt("ticket.opened", "p1", 2, ticket_id="p1", severity="p1")
    assert scoring.score(well, T, model).caps == ()
    capped = scoring.score(well.with_mark(p1), T, model)
    assert (capped.exact, capped.uncapped, capped.caps) == (60, 90, (("p1_open", 60.0),))
    fresh = learnt("ticket.opened", "p1", 0.2, ticket_id="p1", severity="p1")
    assert scoring.score(well.with_mark(fresh), T, model).caps == ()
    solved = learnt("ticket.solved", "x", 0.1, ticket_id="p1")
    assert scoring.score(well.with_mark(p1).with_mark(solved), T, model).caps == ()
    assert dict(scoring.score(an_account(None), T, model).caps) == {"unheard": 69}
    assert dict(scoring.score(an_account(2), T, model).caps) == {"angry": 30}


def test_a_cap_below_a_lower_score_changes_nothing() -> None:
    low = an_account(3, 1, 2, learnt("ticket.opened", "p1", 2, ticket_id="p1", severity="p1"))
    found = scoring.score(low, T, a_model(caps=CAPS))
    assert found.exact == found.uncapped
    assert dict(found.caps) == {"p1_open": 60}


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ([72, 67, 72, 66, 64, 66, 71], ["green", "green", "green", "green", "amber", "amber", "green"]),
        ([50, 39, 42, 44, 45, 41], ["amber", "red", "red", "red", "amber", "amber"]),
        ([72, 20, 80], ["green", "red", "green"]),
    ],
)
def test_a_shown_band_is_left_for_good_or_not_at_all(path: list[int], shown: list[str]) -> None:
    bands = Bands(amber=40, green=70, leave_red=45, leave_green=65)
    before: Any = None
    found = []
    for points in path:
        score = scoring.Score(points, scoring.band_of(points, bands), points, 1.0, ())
        before = scoring.shown_band(score, before, bands)
        found.append(before)
    assert found == shown


def test_a_score_that_flaps_about_an_edge_shows_one_band_in_thirty_days() -> None:
    bands = {"amber": 40, "green": 70, "leave_red": 45, "leave_green": 65}
    policy = Policy(a_model(bands=bands), load_policy().rules, "c")
    memory, shown, plain, found = Memory(), set(), set(), an_account(7, 6, 1)
    for day in range(30):
        at = T + timedelta(days=day)
        tell = learnt("survey.answered", f"a{day}", -day, kind="nps", score=7 if day % 2 else 3, user_id="ann",
                      answer_id=f"a{day}")  # fmt: skip
        found = found.with_mark(tell)
        decision = domain.assess(found, memory, at, policy, cause=f"c{day}", baseline=False)
        memory = decision.memory
        if decision.change:
            shown.add(decision.change.shown_band)
            plain.add(decision.change.current.band)
    assert plain == {"green", "amber"}
    assert shown == {"green"}


@pytest.mark.parametrize(
    ("said", "where", "why"),
    [
        ({"groups": {"voice": {"weight": 1}}}, "measures.ease.group", "no group 'effort'; there are: voice"),
        ({"groups": {**NESTED, "voice": {"weight": 1}}}, "groups.voice", "two groups 'voice'"),
        ({"groups": {**NESTED, "more": {"weight": 1}}}, "groups.more", "no measure is in the group"),
        ({"groups": {"voice": {"weight": 0}}}, "groups.voice.weight", "greater than 0"),
        ({"measures": {"config": MEASURES["ease"]}}, "measures.config", "cannot be called"),
        ({"measures": {"ease": {**MEASURES["ease"], "best": 1}}}, "measures.ease", "two different ends"),
        ({"measures": {"ease": {**MEASURES["ease"], "above": {1: 1}}}}, "measures.ease", "write one scale"),
        ({"measures": {"ease": {**MEASURES["ease"], "weight": 0}}}, "measures.ease.weight", "greater than 0"),
        ({"measures": {"ease": {**MEASURES["ease"], "percentile": {}}}}, "measures.ease", "write one scale"),
        ({"profiles": {"x": {"when": {}}}}, "profiles.x.when", "name a segment, a stage or a product"),
        (
            {"profiles": {"x": {"when": {"stage": ["a"]}, "weights": {"eas": 1}}}},
            "profiles.x.weights.eas",
            "no measure 'eas'; there are: answers, ease, tickets",
        ),
        (
            {"profiles": {"x": {"when": {"stage": ["a"]}, "weights": dict.fromkeys(MEASURES, 0)}}},
            "profiles.x.weights",
            "all weights are 0",
        ),
        ({"profiles": {"x": {"when": {"stage": ["a"]}, "groups": {"z": 1}}}}, "profiles.x.groups.z", "no group 'z'"),
        (
            {"caps": {"k": {**CAPS["angry"], "when": {"measure": "mood", "unknown": True}}}},
            "caps.k.when.measure",
            "no measure 'mood'",
        ),
        ({"bands": {"amber": 40, "green": 70, "leave_red": 30}}, "bands", "red is left between 40 and 70"),
    ],
)
def test_names_that_do_not_agree_are_refused_with_line_and_field(said: dict[str, Any], where: str, why: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        a_model(**said)
    told = str(refused.value).splitlines()
    line = next((line for line in told if f": {where}: " in line), "")
    assert why in line, told
    assert line.split(":")[1].isdigit()


def test_a_last_known_value_fades_to_neutral() -> None:
    paid = {"kind": "unpaid_invoices", "known_days": 10, "group": "voice", "weight": 1, "worst": 2, "best": 0,
            "missing": "last_known", "last_known_days": 20, "last_known_half_life_days": 5}  # fmt: skip
    model = a_model(measures={"paid": paid})
    found = scoring.score(known(learnt("invoice.paid", "e", 15, invoice_id="i")), T, model)
    part = next(part for part in found.parts if part.measure == "paid")
    assert part.points == pytest.approx(75)
    assert part.reason == "no invoice in 10 days: as it was 5 days ago, fading"
