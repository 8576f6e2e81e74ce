"""How comments sound, as voice told it in whatever order: newer ones weigh more, and it fades."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.health import domain, facts, measures, scoring, wording
from services.health.facts import Facts, Learnt
from services.health.rules import Rules
from services.health.settings import AnyMeasure, Model
from shared.times import instant
from tests.unit.test_health_scoring import MODEL, T, known, learnt

READ: TypeAdapter[Any] = TypeAdapter(AnyMeasure)
SENTIMENT: dict[str, Any] = {
    "kind": "sentiment", "label": {"en": "mood", "fr": "ton"}, "group": "voice", "weight": 1, "worst": -1, "best": 1,
    "half_life_days": 30, "expires_days": 90,
}  # fmt: skip
UNSAID: dict[str, Any] = {
    "user_id": None, "product_area": None, "language": "en", "kind": "other", "severity": None, "severity_given": False,
    "mood": None, "themes": [], "rule_themes": [], "human_themes": None, "unlabelled": None, "score": None,
    "mismatch": None, "quote": "so so", "rule_version": "1",
}  # fmt: skip


def told(
    item: str, days_ago: float, sentiment: float | None, *, said: float | None = None, change: str = "recorded",
    source: str = "ticket", revision: int = 1, id: str = "",
) -> Learnt:  # fmt: skip
    """What voice publishes because of an event of so many days ago."""
    said_at = instant(T - timedelta(days=days_ago if said is None else said))
    stamp = {"account_id": "acme", "occurred_at": instant(T), "computed_at": instant(T), "revision": revision}
    return learnt(
        facts.VOICE, id or f"{item}-{days_ago}-{revision}", days_ago, item_id=item, change=change, source=source,
        said_at=said_at, sentiment=sentiment, **stamp, **UNSAID,
    )  # fmt: skip


def read(found: Facts, back: float = 0, **said: Any) -> measures.Reading:
    measure = READ.validate_python(SENTIMENT | said)
    scale = Model(measures={"mood": measure}).plans["default"].scales[0]
    return measures.read(measure, scale, facts.picture(found, T - timedelta(days=back)))


def test_newer_comments_weigh_more_by_half_each_half_life_and_the_points_fade_with_the_newest() -> None:
    found = known(told("a", 10, 0.8), told("b", 40, -0.4), told("c", 70, -0.8))
    mean = (0.8 + 0.5 * -0.4 + 0.25 * -0.8) / 1.75
    reading = read(found)
    assert reading.value == pytest.approx(mean)
    assert reading.points == pytest.approx(50 + (50 * (mean + 1) - 50) * 0.5 ** (10 / 30))
    assert reading.as_of == T - timedelta(days=10)
    assert read(found, 25).value == pytest.approx((-0.4 + 0.5 * -0.8) / 1.5), (
        "on a past day: what had been said by then"
    )


def test_what_is_too_old_unreadable_or_a_csms_own_word_does_not_count() -> None:
    found = known(told("old", 91, 0.9), told("odd", 2, None), told("csm", 1, 1.0, source="csm"))
    reading = read(found)
    assert (reading.value, reading.points) == (None, None)
    assert reading.reason == "no comment whose mood can be told in 90 days"
    two = known(told("a", 1, 0.5), told("b", 1, 0.7, source="survey"))
    assert read(two, floor=3).reason == "fewer than 3 comments whose mood can be told in 90 days"
    assert read(two, sources=["survey"]).value == 0.7
    with pytest.raises(ValidationError, match="sources"):
        READ.validate_python(SENTIMENT | {"sources": ["csm"]})


def test_a_comment_counts_as_voice_read_it_last_and_a_retracted_one_never_again() -> None:
    said = [
        told("a", 9, -0.9), told("a", 5, 0.2, said=9, change="corrected", revision=2),
        told("b", 8, 0.9), told("b", 3, None, said=8, change="retracted", revision=2),
        told("c", 7, 0.1, id="late", revision=1), told("c", 7, 0.4, id="first", revision=2),
    ]  # fmt: skip
    assert read(known(*said)).value == pytest.approx((0.2 * 0.5 ** (2 / 30) + 0.4) / (0.5 ** (2 / 30) + 1))
    assert read(known(*said), 6).value == pytest.approx(
        (-0.9 * 0.5 ** (2 / 30) + 0.9 * 0.5 ** (1 / 30) + 0.4) / (0.5 ** (2 / 30) + 0.5 ** (1 / 30) + 1)
    )


@given(st.data())
def test_order_and_repeats_never_matter(data: st.DataObject) -> None:
    said = data.draw(
        st.lists(
            st.builds(
                told, st.sampled_from("abc"), st.integers(0, 95), st.sampled_from([-0.7, 0.0, 0.6, None]),
                said=st.just(95), change=st.sampled_from(["recorded", "corrected", "retracted", "reread"]),
                revision=st.integers(1, 3),
            ),
            max_size=8, unique_by=lambda one: one.mark.id,
        )
    )  # fmt: skip
    shuffled = [*data.draw(st.permutations(said)), *said]
    assert read(known(*said)) == read(known(*shuffled))


def test_it_is_in_the_score_its_shares_and_its_words() -> None:
    model = Model(
        coverage_floor=0, measures={"mood": READ.validate_python(SENTIMENT), "nps": MODEL.measures["nps"]}
    )  # fmt: skip
    answer = learnt("survey.answered", "n", 1, kind="nps", score=9, user_id="ann")
    before, after = (
        scoring.score(found, T, model) for found in (known(answer), known(answer, told("a", 0, -0.6)))
    )  # fmt: skip
    assert {part.measure: part.value for part in after.parts} == {"mood": -0.6, "nps": 9}
    policy = domain.Policy(model, Rules.model_validate({"rules": {}}), "d")
    shares = domain.shares_between(before, after, policy)
    assert set(shares) == {"mood"}
    assert math.fsum(shares.values()) == pytest.approx((after.exact or 0) - (before.exact or 0), abs=1e-9)
    assert "mood \N{MINUS SIGN}0.60" in wording.why_changed(before, after, shares, model, "en")
    assert "ton \N{MINUS SIGN}0,60" in wording.why_changed(before, after, shares, model, "fr")
    assert model.listens
    assert not MODEL.listens


def test_what_voice_told_is_no_news_of_the_customer() -> None:
    now = facts.picture(known(told("a", 3, 0.5)), T)
    assert now.latest_at is None
    assert now.heard_at is not None
