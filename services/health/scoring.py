"""The score: measures → points → weighted mean of groups → caps, under the plan of the account's profile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from services.health import facts, peers
from services.health.facts import Facts, Picture
from services.health.measures import NEUTRAL, Reading, fade, levels, read, usual
from services.health.plan import DEFAULT, Plan, Scaled, points_between, weighted_mean
from services.health.settings import (
    Bands,
    Breadth,
    Cap,
    CoreActions,
    CoreUsers,
    Licences,
    Measure,
    Model,
    OpenTicketsThere,
    Stickiness,
    UsageRecency,
    UsageTrend,
    UsageVolume,
)
from services.health.standstill import Held, held_of

__all__ = [
    "NEUTRAL",
    "Band",
    "Part",
    "Reading",
    "Score",
    "band_of",
    "fade",
    "levels",
    "mean",
    "points_between",
    "read",
    "score",
    "score_of",
    "usual",
]

Band = Literal["red", "amber", "green", "unknown"]
BY_USE = (UsageTrend, UsageVolume, UsageRecency, Stickiness, Breadth, CoreActions, CoreUsers, Licences)


@dataclass(frozen=True, slots=True)
class Part:
    """One measure's say in a score; `points` None leaves it out. `measured` tells knowledge from assumption."""

    measure: str
    group: str
    value: float | None
    points: float | None
    weight: float
    reason: str | None = None
    as_of: datetime | None = None
    measured: bool = True
    frozen: bool = False
    """As it was before the data broke: known, yet not measured."""


@dataclass(frozen=True, slots=True)
class Overridden:
    """Who put another score in its place, why and until when; and what had been computed."""

    by: str
    reason: str
    until: datetime
    score: int | None
    band: Band


@dataclass(frozen=True, slots=True)
class Score:
    """`exact` is after caps, `uncapped` before them; `caps` are those that hold, with where.

    `profile` is whose plan was used and `because` why; `config` is the digest of the model.
    """

    score: int | None
    band: Band
    exact: float | None
    coverage: float
    parts: tuple[Part, ...]
    profile: str = DEFAULT
    because: str | None = None
    uncapped: float | None = None
    caps: tuple[tuple[str, float], ...] = ()
    config: str = ""
    override: float | None = None
    """What a person put in its place for a time: `score` and `band` are of it, `exact` stays the computed one."""
    overridden: Overridden | None = None

    @property
    def computed(self) -> int | None:
        """The whole points without anybody's word."""
        return self.score if self.overridden is None else self.overridden.score

    @property
    def shown(self) -> float | None:
        return self.exact if self.override is None else self.override


def score(known: Facts, at: datetime, model: Model) -> Score:
    """The score of an account at T, from everything known by now."""
    return score_of(known, facts.picture(known, at), model)


def score_of(known: Facts, now: Picture, model: Model) -> Score:
    """The score of a picture, under the plan of the profile that fits it."""
    profile, because = profile_of(now, model)
    plan = model.plans[profile]
    past = _Past(known, now)
    scales = peers.scales_of(model, plan.names, plan.scales, known, now) if model.ranked else plan.scales
    parts = tuple([
        _part(name, group, measure, scale, weight, now, past)
        for name, group, measure, scale, weight in zip(
            plan.names, plan.groups, plan.measures, scales, plan.weights, strict=True
        )
    ])  # fmt: skip
    frozen = 0.0
    if known.breaks and (held := held_of(known, now)):
        parts = tuple([
            _held(part, measure, scale, held)
            for part, measure, scale in zip(parts, plan.measures, plan.scales, strict=True)
        ])  # fmt: skip
        frozen = _share(sum([part.weight for part in parts if part.frozen]), sum(plan.weights))
    coverage = _share(sum([part.weight for part in parts if part.measured]), sum(plan.weights))
    whole_of = plan.mean([part.points for part in parts])
    caps = tuple((name, cap.at) for name, cap in plan.caps if _holds(cap, parts, now)) if plan.caps else ()
    if whole_of is None or coverage + frozen < plan.coverage_floor:
        return Score(None, "unknown", None, coverage, parts, profile, because, None, caps, model.digest)
    exact = min((whole_of, *(at for _, at in caps)))
    whole = math.floor(exact + 0.5)
    band = band_of(whole, plan.bands)
    return Score(whole, band, exact, coverage, parts, profile, because, whole_of, caps, model.digest)


def profile_of(now: Picture, model: Model) -> tuple[str, str | None]:
    """The first profile that fits, with the reason."""
    for name, profile in model.profiles.items():
        for field in ("segment", "stage", "product"):
            wanted = getattr(profile.when, field)
            if wanted:
                known = now.products if field == "product" else {getattr(now.profile, field)}
                fits = [one for one in wanted if one in known]
                if not fits:
                    break
        else:
            return name, _because(now, model, name)
    return DEFAULT, "no profile fits" if model.profiles else None


def _because(now: Picture, model: Model, name: str) -> str:
    when, said = model.profiles[name].when, []
    for field in ("segment", "stage", "product"):
        wanted = getattr(when, field)
        if wanted:
            known = now.products if field == "product" else {getattr(now.profile, field)}
            said.append(f"{field} is {next(one for one in wanted if one in known)}")
    return ", ".join(said)


def shown_band(score: Score, before: Band | None, bands: Bands) -> Band:
    """The band people are shown: red and green stay until they are left for good."""
    if score.score is None or before in (None, "unknown"):
        return score.band
    if before == "red" and bands.leave_red is not None and score.score < bands.leave_red:
        return "red"
    if before == "green" and bands.leave_green is not None and bands.leave_green <= score.score < bands.green:
        return "green"
    return score.band


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def band_of(points: float, bands: Bands) -> Band:
    if points < bands.amber:
        return "red"
    return "green" if points >= bands.green else "amber"


def mean(parts: Iterable[Part]) -> float | None:
    """Σ weight × points / Σ weight over the parts that have points."""
    return weighted_mean([(part.weight, part.points) for part in parts if part.points is not None])


def _holds(cap: Cap, parts: tuple[Part, ...], now: Picture) -> bool:
    when = cap.when
    if isinstance(when, OpenTicketsThere):
        return any(
            ticket.is_open and ticket.severity in when.open_tickets and now.age_days(ticket.opened_at) >= when.days_open
            for ticket in now.tickets
        )
    part = next((part for part in parts if part.measure == when.measure), None)
    if part is None:
        return False
    if when.unknown:
        return not part.measured or part.points is None
    if when.points_below is not None:
        return part.points is not None and part.points < when.points_below
    if part.value is None:
        return False
    if when.value_below is not None:
        return part.value < when.value_below
    return when.value_above is not None and part.value > when.value_above


def _held(part: Part, measure: Measure, scale: Scaled, held: Sequence[Held]) -> Part:
    """A measure as it is to be read where use it depends on did not arrive."""
    if not isinstance(measure, BY_USE):
        return part
    for one in held:
        if one.concerns(lambda now: read(measure, scale, now).points, _same_points):
            value, points, reason, as_of = read(measure, scale, one.then)
            why = one.reason if reason is None else f"{reason}; {one.reason}"
            as_of = part.as_of if not one.lasts and part.as_of is not None else as_of
            if points is None:
                return replace(part, value=value, reason=why, points=part.points)
            return replace(part, value=value, points=points, reason=why, as_of=as_of,
                           measured=not one.lasts, frozen=one.lasts)  # fmt: skip
    return part


def _same_points(one: float | None, other: float | None) -> bool:
    """Whether it would not cost a point."""
    return one == other if one is None or other is None else abs(one - other) < 1


class _Past:
    """The account on the days before, looked at once for all measures that need it."""

    def __init__(self, known: Facts, now: Picture) -> None:
        self.known, self.now = known, now
        self.pictures: list[Picture] = []

    def days(self, count: int) -> Iterator[tuple[int, Picture]]:
        for back in range(1, count + 1):
            if len(self.pictures) < back:
                self.pictures.append(facts.picture(self.known, self.now.at - timedelta(days=back)))
            yield back, self.pictures[back - 1]


def _part(
    name: str, group: str, measure: Measure, scale: Scaled, weight: float, now: Picture, past: _Past
) -> Part:  # fmt: skip
    value, points, reason, as_of = read(measure, scale, now)
    if points is not None:
        return Part(name, group, value, points, weight, reason, as_of)
    reason = reason or getattr(scale, "reason", None)
    part = Part(name, group, value, None, weight, reason, as_of, measure.missing != "ignore")
    match measure.missing:
        case "ignore":
            return part
        case "neutral":
            return replace(part, points=NEUTRAL, measured=False, reason=f"{reason}: taken as neutral")
        case "zero":
            return replace(part, points=0.0, measured=False, reason=f"{reason}: taken as 0 points")
        case "last_known":
            return _last_known(part, measure, scale, past)
    raise AssertionError(f"no such policy: {measure.missing}")


def _last_known(part: Part, measure: Measure, scale: Scaled, past: _Past) -> Part:
    half_life = measure.last_known_half_life_days
    for back, then in past.days(measure.last_known_days):
        reading = read(measure, scale, then)
        if reading.points is not None:
            points = fade(reading.points, back, half_life) if half_life else reading.points
            reason = f"{part.reason}: as it was {back} days ago{', fading' if half_life else ''}"
            return replace(part, value=reading.value, points=points, as_of=reading.as_of, reason=reason)
    return replace(part, measured=False)


def plan_of(score: Score, model: Model, older: Model | None = None) -> Plan:
    """The plan that made a score: of this model, or of an older one; else one of its weights alone."""
    for known in (model, older):
        if known is not None and known.digest == score.config and score.profile in known.plans:
            return known.plans[score.profile]
    like = model.plans[DEFAULT]
    return Plan(
        score.profile,
        tuple(part.measure for part in score.parts),
        (),
        (),
        tuple(part.group for part in score.parts),
        tuple(part.weight for part in score.parts),
        None,
        like.bands,
        like.coverage_floor,
        (),
    )
