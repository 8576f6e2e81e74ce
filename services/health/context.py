"""What whoever hears of an alert should know of the account, as it stood: worked out only for what is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from services.health import phrases, scoring, wording
from services.health.alerts import Situation
from services.health.facts import Facts, Mark
from services.health.plan import Plan
from services.health.rules import AnyRule, Rule, ScoreBelow
from services.health.scoring import Part, Score
from services.health.settings import Language, Model, Sentiment, SurveyAnswers
from services.health.usage import micros, moment

MOST = 3
LEAST_LOST = 0.05


@dataclass(frozen=True, slots=True)
class Weight:
    """What one measure costs the score: so many points more if it were perfect."""

    measure: str
    label: str
    value: str
    lost: float


@dataclass(frozen=True, slots=True)
class Step:
    """What one measure must reach; `value` null where its points do not come from its value alone."""

    measure: str
    label: str
    points: float
    to_points: float
    value: str
    to_value: str | None


@dataclass(frozen=True, slots=True)
class Touch:
    """The last contact that went both ways, and who had it."""

    at: datetime
    by: str | None
    via: str | None


@dataclass(frozen=True, slots=True)
class Context:
    """`previous_score` is what was told before; `caps` hold the score down, `restore` would lift it."""

    name: str | None
    owner: str | None
    segment: str | None
    arr: Decimal | None
    score: int | None
    band: scoring.Band
    previous_score: int | None
    previous_band: scoring.Band | None
    coverage: float
    caps: tuple[str, ...]
    notice_on: date | None
    days_to_notice: int | None
    last_touch: Touch | None
    contacts: tuple[tuple[str, str], ...]
    rule: str
    parts: tuple[Weight, ...]
    restore: tuple[Step, ...]
    restored_score: int | None


def context_of(known: Facts, at: Situation, before: Score | None, rule: AnyRule, segment: str | None) -> Context:
    now, score = at.now, at.score
    profile = now.profile
    wanted = target(score, at.model, rule)
    steps = () if wanted is None else smallest_change(score, wanted, at)
    return Context(
        name=profile.name,
        owner=profile.owner,
        segment=segment,
        arr=profile.arr,
        score=score.score,
        band=score.band,
        previous_score=before.score if before else None,
        previous_band=before.band if before else None,
        coverage=score.coverage,
        caps=tuple(name for name, _ in score.caps),
        notice_on=profile.notice_on,
        days_to_notice=None if profile.notice_on is None else (profile.notice_on - now.today).days,
        last_touch=last_touch(known, now.at),
        contacts=tuple((one.id, one.role) for one in now.contacts if one.left_at is None)[:MOST],
        rule=in_words(rule),
        parts=costliest(score, at),
        restore=steps,
        restored_score=wanted if steps else None,
    )


def last_touch(known: Facts, at: datetime) -> Touch | None:
    until = micros(at)
    marks = [mark for key, marks in known.things.items() if key[0] == "touch" for mark in marks if mark.at <= until]
    newest: Mark | None = max(marks, key=lambda mark: (mark.at, mark.id), default=None)
    return None if newest is None else Touch(moment(newest.at), newest.data.get("by"), newest.data.get("via"))


def in_words(rule: AnyRule) -> str:
    """A rule by what it looks at and its own settings: `score_below: enter 40, leave 45`."""
    said = [
        f"{name} {_shown(value)}"
        for name, value in rule
        if name != "when" and name not in Rule.model_fields and value not in (None, ())
    ]
    return f"{rule.when}: {', '.join(said)}" if said else rule.when


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return "/".join(str(one) for one in value)
    if hasattr(value, "model_dump"):
        return " ".join(f"{name} {_shown(one)}" for name, one in value)
    return str(value)


def costliest(score: Score, at: Situation) -> tuple[Weight, ...]:
    """The measures that cost the score most."""
    lost = _lost(score, scoring.plan_of(score, at.model))
    most = sorted((one for one in lost.items() if one[1] >= LEAST_LOST), key=lambda one: (-one[1], one[0]))[:MOST]
    return tuple(
        Weight(part.measure, _label(part, at), _value(part, part.value, at), round(points, 6))
        for number, points in most
        for part in (score.parts[number],)
    )


def _lost(score: Score, plan: Plan) -> dict[int, float]:
    """By how much each measure, were it perfect, would raise the score."""
    points = [part.points for part in score.parts]
    mean = plan.mean(points)
    if mean is None:
        return {}
    found: dict[int, float] = {}
    for number, value in enumerate(points):
        if value is not None and value < 100:
            better = plan.mean([*points[:number], 100.0, *points[number + 1 :]])
            found[number] = (better or 0.0) - mean
    return found


def target(score: Score, model: Model, rule: AnyRule) -> int | None:
    """The whole points from which a rule's episode is over, or else the next better band begins."""
    if score.score is None:
        return None
    if isinstance(rule, ScoreBelow) and score.score < rule.leave:
        return math.ceil(rule.leave)
    bands = scoring.plan_of(score, model).bands
    if score.band == "red":
        return math.ceil(max(bands.amber, bands.leave_red or 0))
    return math.ceil(bands.green) if score.band == "amber" else None


def smallest_change(score: Score, wanted: int, at: Situation) -> tuple[Step, ...]:
    """The least that lifts the score to so many whole points: one measure if one can, else the costliest together.

    Nothing where a cap or a person holds it, or where not even a few measures together could.
    """
    plan, least = scoring.plan_of(score, at.model), wanted - 0.5  # rounds up to it
    if score.override is not None or any(cap < least for _, cap in score.caps):
        return ()
    points = [part.points for part in score.parts]
    steps: dict[int, float] = {}
    for number, _ in sorted(_lost(score, plan).items(), key=lambda one: (-one[1], one[0])):
        mean = plan.mean(points)
        if mean is None or mean >= least:
            break
        last = _least_of_one(plan, points, mean, least)
        if last is not None:
            steps[last[0]] = points[last[0]] = last[1]
            break
        steps[number] = points[number] = 100.0
    mean = plan.mean(points)
    if mean is None or mean < least - 1e-9 or len(steps) > MOST:
        return ()
    return tuple(_step(number, score.parts[number], to, plan, at) for number, to in steps.items())


def _least_of_one(plan: Plan, points: list[float | None], mean: float, least: float) -> tuple[int, float] | None:
    """The measure that alone, with the fewest points of its own, lifts the mean so far: (number, points)."""
    found: list[tuple[float, int, float]] = []
    for number, value in enumerate(points):
        if value is None or value >= 100:
            continue
        best = plan.mean([*points[:number], 100.0, *points[number + 1 :]])
        if best is not None and best >= least and best > mean:
            to = value + (least - mean) / (best - mean) * (100 - value)  # the mean is linear in one measure's points
            found.append((to - value, number, min(100.0, to)))
    return min(found)[1:] if found else None


def _step(number: int, part: Part, to: float, plan: Plan, at: Situation) -> Step:
    value = _value_at(number, to, plan)
    return Step(
        measure=part.measure,
        label=_label(part, at),
        points=round(part.points or 0.0, 6),
        to_points=round(to, 6),
        value=_value(part, part.value, at),
        to_value=None if value is None else _value(part, value, at),
    )


def _value_at(number: int, points: float, plan: Plan) -> float | None:
    """The value that earns so many points; None where a value alone does not tell (answers fade, steps jump)."""
    measure = plan.measures[number] if plan.measures else None
    if (
        measure is None
        or isinstance(measure, SurveyAnswers | Sentiment)
        or measure.worst is None
        or measure.best is None
    ):
        return None
    value = measure.worst + points / 100 * (measure.best - measure.worst)
    return value if math.isclose(plan.scales[number](value), points, abs_tol=1e-9) else None


def _value(part: Part, value: float | None, at: Situation) -> str:
    return wording.value_of(at.model.measures.get(part.measure), value, at.language)


def _label(part: Part, at: Situation) -> str:
    measure = at.model.measures.get(part.measure)
    return measure.label.to(at.language) if measure else part.measure


def restore_in_words(context: Context, language: Language) -> str | None:
    """`active days from 41% to 62%` of each step."""
    if not context.restore:
        return None
    said = [
        phrases.text("step", language, label=step.label, now=step.value, to=step.to_value)
        if step.to_value is not None
        else phrases.text(
            "step_points", language, label=step.label, now=math.floor(step.points), to=math.ceil(step.to_points)
        )
        for step in context.restore
    ]
    return ", ".join(said)
