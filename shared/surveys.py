"""What a survey answer is, and what score many answers make: the words feedback and reviews share. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.times import ZoneName

What = Literal["answered", "corrected", "retracted"]
Direction = Literal["high_is_easy", "high_is_effort"]
Histogram = Mapping[int, int]
"""Points of a scale → how many voices stand there."""


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NpsScale(_Rule):
    promoters_from: int
    passives_from: int

    @property
    def points(self) -> tuple[int, ...]:
        return (self.promoters_from, self.passives_from)


class CsatScale(_Rule):
    satisfied_from: int

    @property
    def points(self) -> tuple[int, ...]:
        return (self.satisfied_from,)


class CesScale(_Rule):
    direction: Direction
    easy: tuple[int, ...]
    top: tuple[int, ...]

    @property
    def points(self) -> tuple[int, ...]:
        return self.easy + self.top


class _Kind(_Rule):
    default_scale: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scales: Mapping[str, NpsScale | CsatScale | CesScale] = getattr(self, "scales", {})
        if self.default_scale not in scales:
            raise ValueError(f"default_scale {self.default_scale} is not among scales {', '.join(scales)}")
        for name, rule in scales.items():
            low, high = bounds(name)
            outside = [point for point in rule.points if not low <= point <= high]
            if outside:
                raise ValueError(f"scale {name} has no point {outside[0]}")
        return self


class NpsRules(_Kind):
    scales: dict[str, NpsScale]


class CsatRules(_Kind):
    scales: dict[str, CsatScale]


class CesRules(_Kind):
    scales: dict[str, CesScale]


class SurveyRules(_Rule):
    """`config/surveys.yaml`."""

    z: float = Field(gt=0)
    reporting_zone: ZoneName
    nps: NpsRules
    csat: CsatRules
    ces: CesRules

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.reporting_zone)

    def of(self, kind: str) -> NpsRules | CsatRules | CesRules:
        rules: dict[str, NpsRules | CsatRules | CesRules] = {"nps": self.nps, "csat": self.csat, "ces": self.ces}
        return rules[kind]


def bounds(scale: str) -> tuple[int, int]:
    """Lowest and highest point of a scale written as `1-5`."""
    low, _, high = scale.partition("-")
    if not (low.isdigit() and high.isdigit() and int(low) < int(high)):
        raise ValueError(f"scale {scale!r} is not written as lowest-highest, such as 1-5")
    return int(low), int(high)


def misfit(kind: str, score: float, scale: str | None, rules: SurveyRules) -> str | None:
    """Why a score cannot be counted, or None when it is a point of a scale that the kind is scored on."""
    known = rules.of(kind)
    scale = scale or known.default_scale
    if scale not in known.scales:
        scales = ", ".join(known.scales)
        return f"{kind} is not scored on scale {scale} (score {score:g}); config/surveys.yaml knows {scales}"
    low, high = bounds(scale)
    if not low <= score <= high:
        return f"score {score:g} is outside scale {scale} of {kind}"
    if score != int(score):
        return f"score {score:g} is not a whole point of scale {scale} of {kind}"
    return None


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing said about an answer. `named`: the answer carries an id of its own, so saying it again
    restates it; without one the event's id is the name and every event is an answer by itself."""

    name: str
    what: What
    at: datetime
    source: str
    event_id: str
    named: bool = True
    user_id: str | None = None
    kind: str | None = None
    score: float | None = None
    scale: str | None = None

    @property
    def order(self) -> tuple[datetime, str, str]:
        return self.at, self.source, self.event_id


@dataclass(frozen=True, slots=True)
class Measure:
    """What may be counted together: NPS pools its scales, CSAT and CES are never mixed over scales."""

    kind: str
    scale: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one voice says after corrections; `at`, `source`, `event_id` are of the answer, not of its correction."""

    name: str
    user_id: str | None
    measure: Measure
    score: int
    at: datetime
    source: str
    event_id: str

    @property
    def order(self) -> tuple[datetime, str, str]:
        return self.at, self.source, self.event_id


def measure_of(kind: str, scale: str | None, rules: SurveyRules) -> Measure:
    known = rules.of(kind)
    return Measure(kind, known.default_scale if kind == "nps" else scale or known.default_scale)


def answers_of(group: Iterable[Statement], rules: SurveyRules) -> list[Answer]:
    """The answers that stand under one name, whatever the order in which the statements arrived.

    A correction counts by its own time, but never before the answer it corrects (clocks of tools differ);
    a retraction hides what was said up to its time.
    """
    said = sorted(group, key=lambda one: one.order)
    changes = [one for one in said if one.what != "answered"]
    given = [one for one in said if one.what == "answered"]
    restated = [one for one in given if one.named]
    chains = ([restated] if restated else []) + [[one] for one in given if not one.named]
    return [answer for chain in chains if (answer := _settled(chain, changes, rules)) is not None]


def _settled(chain: list[Statement], changes: list[Statement], rules: SurveyRules) -> Answer | None:
    first, *later = chain
    answer: Statement = first
    score, gone = first.score, False
    for one in sorted([*later, *changes], key=lambda one: one.order):
        if one.what == "answered":
            answer, score, gone = one, one.score, False
        elif one.what == "retracted":
            gone = True
        elif one.score is not None and misfit(str(answer.kind), one.score, answer.scale, rules) is None:
            score = one.score
    if gone or answer.kind is None or score is None or misfit(answer.kind, score, answer.scale, rules):
        return None
    measure = measure_of(answer.kind, answer.scale, rules)
    return Answer(answer.name, answer.user_id, measure, int(score), answer.at, answer.source, answer.event_id)


def all_answers(statements: Iterable[Statement], rules: SurveyRules, until: datetime | None = None) -> list[Answer]:
    """Every answer of one account that stands at `until` (absent: after all statements)."""
    groups: dict[str, list[Statement]] = {}
    for one in statements:
        if until is None or one.at <= until:
            groups.setdefault(one.name, []).append(one)
    return [answer for group in groups.values() for answer in answers_of(group, rules)]


def latest_per_person(answers: Iterable[Answer]) -> list[Answer]:
    """One answer per person and measure, the latest; an answer without a person counts by itself."""
    anonymous: list[Answer] = []
    known: dict[tuple[str, Measure], Answer] = {}
    for answer in answers:
        if answer.user_id is None:
            anonymous.append(answer)
            continue
        key = answer.user_id, answer.measure
        if key not in known or known[key].order < answer.order:
            known[key] = answer
    return [*known.values(), *anonymous]


def is_unhappy(answer: Answer, rules: SurveyRules) -> bool:
    """Detractor; below the CSAT bar; not among the easy points."""
    measure = answer.measure
    if measure.kind == "nps":
        return answer.score < rules.nps.scales[measure.scale].passives_from
    if measure.kind == "csat":
        return answer.score < rules.csat.scales[measure.scale].satisfied_from
    return answer.score not in rules.ces.scales[measure.scale].easy


def tallies(answers: Iterable[Answer]) -> dict[Measure, Counter[int]]:
    """How many stand at each point; tallies of several accounts add up, their scores do not."""
    counts: dict[Measure, Counter[int]] = {}
    for answer in answers:
        counts.setdefault(answer.measure, Counter())[answer.score] += 1
    return counts


@dataclass(frozen=True, slots=True)
class Figure:
    """A score with what it rests on; `value` is null with a `reason` when nobody answered.

    `counts` by kind: promoters, passives, detractors; satisfied; easy, top_box. `ease` (CES) runs from 0 to 100,
    100 = easy, whatever the direction of the scale.
    """

    kind: str
    scale: str
    method: str
    interval: str
    n: int
    value: float | None
    low: float | None
    high: float | None
    counts: Mapping[str, int]
    direction: Direction | None = None
    ease: float | None = None
    reason: str | None = None

    def row(self) -> dict[str, Any]:
        """Plain JSON values; percentages and means with 6 places, what does not apply left out."""
        row: dict[str, Any] = {"kind": self.kind, "scale": self.scale, "n": self.n, "value": _six(self.value)}
        row |= {"low": _six(self.low), "high": _six(self.high), **self.counts}
        row |= {"method": self.method, "interval": self.interval}
        if self.kind == "ces":
            row |= {"direction": self.direction, "ease": _six(self.ease)}
        return row | ({"reason": self.reason} if self.reason else {})


def _six(value: float | None) -> float | None:
    return None if value is None else round(value, 6) + 0.0


def figure(measure: Measure, histogram: Histogram, rules: SurveyRules) -> Figure:
    """The score of the voices in a histogram, by the rule of its kind and scale."""
    if measure.kind == "nps":
        return _nps(measure, histogram, rules)
    if measure.kind == "csat":
        return _csat(measure, histogram, rules)
    return _ces(measure, histogram, rules)


def _nps(measure: Measure, histogram: Histogram, rules: SurveyRules) -> Figure:
    rule = rules.nps.scales[measure.scale]
    promoters = _count(histogram, lambda point: point >= rule.promoters_from)
    detractors = _count(histogram, lambda point: point < rule.passives_from)
    n = sum(histogram.values())
    counts = {"promoters": promoters, "passives": n - promoters - detractors, "detractors": detractors}
    shown = "promoters - detractors, % of n", "adjusted_wald"
    if n == 0:
        return Figure("nps", measure.scale, *shown, 0, None, None, None, counts, reason=NOBODY)
    low, high = nps_interval(promoters, detractors, n, rules.z)
    return Figure("nps", measure.scale, *shown, n, 100 * (promoters - detractors) / n, low, high, counts)


def _csat(measure: Measure, histogram: Histogram, rules: SurveyRules) -> Figure:
    bar = rules.csat.scales[measure.scale].satisfied_from
    satisfied, n = _count(histogram, lambda point: point >= bar), sum(histogram.values())
    shown = f"top box: share at {bar} or above, %", "adjusted_wald"
    if n == 0:
        return Figure("csat", measure.scale, *shown, 0, None, None, None, {"satisfied": 0}, reason=NOBODY)
    low, high = share_interval(satisfied, n, rules.z)
    return Figure("csat", measure.scale, *shown, n, 100 * satisfied / n, low, high, {"satisfied": satisfied})


def _ces(measure: Measure, histogram: Histogram, rules: SurveyRules) -> Figure:
    rule, n = rules.ces.scales[measure.scale], sum(histogram.values())
    counts = {
        "easy": _count(histogram, lambda point: point in rule.easy),
        "top_box": _count(histogram, lambda point: point in rule.top),
    }
    shown = "mean of the points", "normal"
    if n == 0:
        return Figure("ces", measure.scale, *shown, 0, None, None, None, counts, rule.direction, reason=NOBODY)
    lowest, highest = bounds(measure.scale)
    mean = sum(point * count for point, count in histogram.items()) / n
    distance = mean - lowest if rule.direction == "high_is_easy" else highest - mean
    low, high = mean_interval(histogram, mean, n, rules.z)
    if low is not None and high is not None:
        low, high = max(low, lowest), min(high, highest)
    ease = 100 * distance / (highest - lowest)
    return Figure("ces", measure.scale, *shown, n, mean, low, high, counts, rule.direction, ease)


NOBODY = "nobody answered"


def _count(histogram: Histogram, wanted: Callable[[int], bool]) -> int:
    return sum(count for point, count in histogram.items() if wanted(point))


def nps_interval(promoters: int, detractors: int, n: int, z: float) -> tuple[float, float]:
    """Adjusted Wald (Rocks 2016): 3 more answers, three quarters of one each way; in points, clipped to ±100."""
    weight = n + 3
    p, d = (promoters + 0.75) / weight, (detractors + 0.75) / weight
    margin = z * math.sqrt((p + d - (p - d) ** 2) / weight)
    return max(-100.0, 100 * (p - d - margin)), min(100.0, 100 * (p - d + margin))


def nps_margin(promoters: int, detractors: int, n: int, z: float) -> float:
    """The plain margin of error, in points; 0 when all agree, which is why the interval above is the one shown."""
    p, d = promoters / n, detractors / n
    return 100 * z * math.sqrt((p + d - (p - d) ** 2) / n)


def share_interval(successes: int, n: int, z: float) -> tuple[float, float]:
    """Adjusted Wald of a proportion (Agresti and Coull 1998): z² more answers, half of them yes; in %, clipped."""
    weight = n + z * z
    p = (successes + z * z / 2) / weight
    margin = z * math.sqrt(p * (1 - p) / weight)
    return max(0.0, 100 * (p - margin)), min(100.0, 100 * (p + margin))


def mean_interval(histogram: Histogram, mean: float, n: int, z: float) -> tuple[float | None, float | None]:
    """Normal interval of a mean; one answer alone has none."""
    if n < 2:
        return None, None
    variance = sum(histogram[point] * (point - mean) ** 2 for point in sorted(histogram)) / (n - 1)
    margin = z * math.sqrt(variance / n)
    return mean - margin, mean + margin


def months(first: datetime, last: datetime, zone: ZoneInfo) -> Iterator[tuple[str, datetime, datetime]]:
    """Name, first instant and next month's first instant of each month from one time to another, in a zone."""
    year, month = first.astimezone(zone).year, first.astimezone(zone).month
    while (start := datetime(year, month, 1, tzinfo=zone)) <= last:
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        yield f"{start:%Y-%m}", start, datetime(year, month, 1, tzinfo=zone)
