"""Mood against what people decided: 1,258 public seat reviews, half of them scored but not read by the author."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from services.voc.analysis import analyse
from services.voc.settings import VocSettings, rules_of

REVIEWS = Path(
    os.environ.get("HUNE_SEAT_REVIEWS", Path(__file__).resolve().parents[3] / "shared" / "data" / "seat-reviews.csv")
)
FLOOR = 0.90

pytestmark = pytest.mark.skipif(not REVIEWS.exists(), reason="needs seat-reviews.csv; name it in HUNE_SEAT_REVIEWS")


def auc(liked: list[float], disliked: list[float]) -> float:
    """The chance that a liked one scores above a disliked one; ties count half."""
    better = sum((yes > no) + (yes == no) / 2 for yes in liked for no in disliked)
    return better / (len(liked) * len(disliked))


@pytest.mark.parametrize("half", ["development", "held out"])
def test_sentiment_ranks_recommending_reviews_above_the_others(half: str) -> None:
    lexicon = rules_of(VocSettings()).lexicon
    scores: dict[str, list[float]] = {"0": [], "1": []}
    with REVIEWS.open(newline="") as file:
        for row in csv.DictReader(file):
            if (int(row["review_id"]) % 2 == 0) == (half == "development"):
                reading = analyse(row["content"], "survey", lexicon, "en")
                assert reading.sentiment is not None
                scores[row["recommended"]].append(reading.sentiment)
    measured = auc(scores["1"], scores["0"])
    print(f"AUC of the {half} half: {measured:.4f}")
    assert measured >= FLOOR
