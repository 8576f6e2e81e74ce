"""A person's word instead of the computed score, with a reason and an end; the computed one stays beside it.

It is a fact like others: a mark with its own time, so any past moment is shown with the override of then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from services.health import phrases, scoring
from services.health.facts import Facts, Key, Learnt, Mark, Picture, without_zeros
from services.health.scoring import Overridden, Score
from services.health.settings import Language, Model
from services.health.usage import micros, moment
from shared import requests
from shared.requests import Unusable
from shared.times import instant

KEY: Key = ("override", "")
DEMAND = "score.override"
MOST_DAYS = 366
MOST_REASON = 500
WANTED = "score.override takes score (0 to 100), reason, by and until; or clear: true with by"


def learn(demand_id: str, at: datetime, parameters: Mapping[str, Any], user_id: str | None) -> Learnt:
    """What a request to override a score leaves behind; raises Unusable naming the parameter."""
    by = requests.text(parameters, "by") or user_id
    if by is None:
        raise Unusable(f"parameter by is missing: who says so? {WANTED}")
    said: dict[str, Any] = {"by": without_zeros(by)}
    if requests.flag(parameters, "clear"):
        return Learnt(KEY, Mark(micros(at), demand_id, "cleared", said))
    reason = parameters.get("reason")
    if not isinstance(reason, str) or not reason.strip() or len(reason) > MOST_REASON:
        raise Unusable(f"parameter reason takes a text of 1 to {MOST_REASON} characters. {WANTED}")
    until = requests.time(parameters, "until")
    if until is None:
        raise Unusable(f"parameter until is missing: an override must end. {WANTED}")
    if not at < until <= at + timedelta(days=MOST_DAYS):
        raise Unusable(
            f"parameter until is {instant(until)}; it takes a time within {MOST_DAYS} days after the request"
        )
    said |= {"score": _points(parameters.get("score")), "reason": without_zeros(reason), "until": micros(until)}
    return Learnt(KEY, Mark(micros(at), demand_id, "set", said))


def _points(score: Any) -> int:
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 100 or score != int(score):
        raise Unusable(f"parameter score takes a whole number from 0 to 100. {WANTED}")
    return int(score)


def in_effect(known: Facts, at: datetime) -> Mapping[str, Any] | None:
    """What the newest override by T says, if it has not ended; `until` in microseconds."""
    marks = known.things.get(KEY)
    if marks is None:
        return None
    now = micros(at)
    newest = max((mark for mark in marks if mark.at <= now), key=lambda mark: (mark.at, mark.id), default=None)
    if newest is None or newest.verb != "set" or newest.data["until"] <= now:
        return None
    return newest.data


def told(mark: Mark) -> dict[str, Any]:
    """A mark as an answer shows it."""
    until = mark.data.get("until")
    return {**mark.data, "until": None if until is None else instant(moment(until)), "in_effect": mark.verb == "set"}


def ends_at(known: Facts, at: datetime) -> datetime | None:
    """When time alone ends the override of T."""
    said = in_effect(known, at)
    return None if said is None else moment(said["until"])


def score_of(known: Facts, now: Picture, model: Model) -> Score:
    """The score that is shown: a person's word where there is one, with the computed one beside it."""
    computed = scoring.score_of(known, now, model)
    said = in_effect(known, now.at)
    if said is None:
        return computed
    points = said["score"]
    return replace(
        computed,
        score=points,
        band=scoring.band_of(points, scoring.plan_of(computed, model).bands),
        override=float(points),
        overridden=Overridden(said["by"], said["reason"], moment(said["until"]), computed.score, computed.band),
    )


def why(before: Score | None, after: Score, language: Language) -> str | None:
    """The sentence on an override that began, changed or ended; None when that is not what happened."""
    was, now = before.overridden if before else None, after.overridden
    if now is not None and (was is None or (was.by, was.reason, was.until) != (now.by, now.reason, now.until)):
        computed = phrases.text("nothing", language) if now.score is None else now.score
        return phrases.text("overridden", language, score=after.score, by=now.by, until=f"{now.until:%Y-%m-%d}",
                            reason=now.reason, computed=computed)  # fmt: skip
    if was is not None and now is None:
        phrase = "back_to_unknown" if after.score is None else "back_to"
        return phrases.text(phrase, language, score=after.score, by=was.by)
    return None
