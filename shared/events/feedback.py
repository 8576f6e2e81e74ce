"""What feedback decided: the survey scores of an account."""

from __future__ import annotations

from typing import Literal

from shared.events.base import Event, Identifier, ResultEvent
from shared.events.inputs import SurveyKind


class SurveyFigure(Event):
    """A score with what it rests on; `value` null with a `reason` when nobody answered.

    NPS: -100 to 100, `promoters`, `passives`, `detractors` counted. CSAT: % satisfied by top box. CES: mean of the
    points, `direction` says what a high one means, `ease` runs from 0 to 100 = easy.
    """

    kind: SurveyKind
    scale: str
    method: str
    interval: str
    n: int
    value: float | None
    low: float | None = None
    high: float | None = None
    promoters: int | None = None
    passives: int | None = None
    detractors: int | None = None
    satisfied: int | None = None
    easy: int | None = None
    top_box: int | None = None
    direction: Literal["high_is_easy", "high_is_effort"] | None = None
    ease: float | None = None
    reason: str | None = None


class SurveyScoreChanged(ResultEvent, type="survey_score.changed"):
    """An account's score of one kind and scale moved: all answers, the latest per person."""

    account_id: Identifier
    kind: SurveyKind
    scale: str
    previous: SurveyFigure | None
    current: SurveyFigure
    baseline: bool = False
