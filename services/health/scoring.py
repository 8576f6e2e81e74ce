"""The score: measures → points → weighted mean, and whose share of a change is whose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.health import facts
from services.health.facts import Facts, Picture
from services.health.settings import (
    Bands,
    LastTouch,
    Measure,
    Model,
    OpenTickets,
    ReopenedTickets,
    Sponsors,
    SurveyAnswers,
    Trend,
    UnpaidInvoices,
    UsageRecency,
    UsageTrend,
)
from services.health.usage import midnight, moment

Floats = NDArray[np.float64]
Band = Literal["red", "amber", "green", "unknown"]
NEUTRAL = 50.0
MOST_PLAYERS = 12


@dataclass(frozen=True, slots=True)
class Reading:
    """What a measure says at a moment: a value and its points, or why there is none."""

    value: float | None
    points: float | None
    reason: str | None = None
    as_of: datetime | None = None


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


@dataclass(frozen=True, slots=True)
class Score:
    score: int | None
    band: Band
    exact: float | None
    coverage: float
    parts: tuple[Part, ...]


def score(known: Facts, at: datetime, model: Model) -> Score:
    """The score of an account at T, from everything known by now."""
    return score_of(known, facts.picture(known, at), model)


def score_of(known: Facts, now: Picture, model: Model) -> Score:
    parts = tuple(_part(name, measure, known, now) for name, measure in model.measures.items())
    coverage = _share(sum(part.weight for part in parts if part.measured), sum(part.weight for part in parts))
    exact = mean(parts)
    if exact is None or coverage < model.coverage_floor:
        return Score(None, "unknown", None, coverage, parts)
    whole = math.floor(exact + 0.5)
    return Score(whole, band_of(whole, model.bands), exact, coverage, parts)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def band_of(points: float, bands: Bands) -> Band:
    if points < bands.amber:
        return "red"
    return "green" if points >= bands.green else "amber"


def mean(parts: Iterable[Part]) -> float | None:
    """Σ weight × points / Σ weight over the parts that have points."""
    known = [(part.weight, part.points) for part in parts if part.points is not None]
    total = math.fsum(weight for weight, _ in known)
    if not total:
        return None
    # rounding may leave the mean of equal points a hair outside their range
    return min(100.0, max(0.0, math.fsum(weight * points for weight, points in known) / total))


def _part(name: str, measure: Measure, known: Facts, now: Picture) -> Part:
    reading = read(measure, now)
    there = reading.points is not None or measure.missing != "ignore"
    part = Part(
        name, measure.group, reading.value, reading.points, measure.weight, reading.reason, reading.as_of, there
    )
    if reading.points is not None or not there:
        return part
    match measure.missing:
        case "neutral":
            return replace(part, points=NEUTRAL, measured=False, reason=f"{reading.reason}: taken as neutral")
        case "zero":
            return replace(part, points=0.0, measured=False, reason=f"{reading.reason}: taken as 0 points")
        case "last_known":
            return _last_known(part, measure, known, now)
    raise AssertionError(f"no such policy: {measure.missing}")


def _last_known(part: Part, measure: Measure, known: Facts, now: Picture) -> Part:
    for back in range(1, measure.last_known_days + 1):
        reading = read(measure, facts.picture(known, now.at - timedelta(days=back)))
        if reading.points is not None:
            reason = f"{part.reason}: as it was {back} days ago"
            return replace(part, value=reading.value, points=reading.points, as_of=reading.as_of, reason=reason)
    return replace(part, measured=False)


def points_between(value: float, worst: float, best: float) -> float:
    """0 at or beyond worst, 100 at or beyond best, linear between; worst > best counts downwards."""
    return 100.0 * min(1.0, max(0.0, (value - worst) / (best - worst)))


def fade(points: float, age_days: float, half_life_days: float) -> float:
    """Pull an old opinion back towards neutral: half the distance each half-life."""
    left: float = 0.5 ** (age_days / half_life_days)
    return NEUTRAL + (points - NEUTRAL) * left


def read(measure: Measure, now: Picture) -> Reading:
    """The value of a measure in a picture."""
    return _READERS[type(measure)](measure, now)


def _read_trend(measure: UsageTrend, now: Picture) -> Reading:
    ratio, reason = usual(now, measure.trend)
    return _reading(measure, ratio, reason, None if now.usage.last_at is None else moment(now.usage.last_at))


def _read_recency(measure: UsageRecency, now: Picture) -> Reading:
    last = now.usage.last_at
    if last is None or now.age_days(last) > measure.known_days:
        return Reading(None, None, f"no use in {measure.known_days} days")
    return _reading(measure, float(now.age_days(last)), None, moment(last))


def _read_sponsors(measure: Sponsors, now: Picture) -> Reading:
    people = [contact for contact in now.contacts if contact.role in ("champion", "sponsor")]
    if not people:
        return Reading(None, None, "no champion or sponsor is known")
    return _reading(measure, float(sum(contact.left_at is None for contact in people)))


def _read_touch(measure: LastTouch, now: Picture) -> Reading:
    last = now.last_touch_at
    if last is None or now.age_days(last) > measure.known_days:
        return Reading(None, None, f"no contact both ways in {measure.known_days} days")
    return _reading(measure, float(now.age_days(last)), None, moment(last))


def _reading(
    measure: Measure, value: float | None, reason: str | None = None, as_of: datetime | None = None
) -> Reading:
    if value is None:
        return Reading(None, None, reason, as_of)
    return Reading(value, points_between(value, measure.worst, measure.best), reason, as_of)


def usual(now: Picture, trend: Trend) -> tuple[float | None, str | None]:
    """Use in the last window over the mean of the windows before; None with a reason when it would be noise."""
    if now.usage.last_at is None:
        return None, "never used"
    newest, baseline = levels(now, trend)
    if baseline and baseline >= trend.floor:
        return newest / baseline, None
    if not baseline:
        return None, "new" if newest else f"no use in {trend.reach_days} days"
    if newest == 0 and now.age_days(now.usage.last_at) > trend.window_days:
        return 0.0, None
    return None, f"less than {trend.floor:g} {trend.of} were usual: too few to compare"


def levels(now: Picture, trend: Trend) -> tuple[int, float]:
    """Use in the last window, and the mean of the windows before it.

    Of the windows before, those count of which the account was there for at least half, or else the first with any use.
    """
    length, count = trend.window_days, 1 + trend.baseline_windows
    return now.usage.remember(
        ("levels", now.zone.key, now.today, trend.of, length, count),
        midnight(now.zone, now.today),
        lambda: _levels(now, trend, length, count),
    )


def _levels(now: Picture, trend: Trend, length: int, count: int) -> tuple[int, float]:
    # The first day matters only where some window has use, so today's use never changes anything here.
    newest, *before = now.usage.windows(now.zone, now.today, trend.of, length, count)
    first = now.usage.first_day_since(now.zone, now.today - timedelta(days=length * count))
    while before and not before[-1]:
        before.pop()
    if any(before[:-1]) and first > now.today - timedelta(days=length * (len(before) + 1) - length // 2):
        before.pop()
    return newest, sum(before) / len(before) if before else 0.0


def _read_tickets(measure: OpenTickets | ReopenedTickets, now: Picture) -> Reading:
    recent = [t for t in now.tickets if t.is_open or now.age_days(t.last_at) <= measure.known_days]
    if not recent:
        return Reading(None, None, f"no ticket in {measure.known_days} days")
    as_of = moment(max(ticket.last_at for ticket in recent))
    if measure.kind == "reopened_tickets":
        times = [at for ticket in recent for at in ticket.reopened_at if now.age_days(at) < measure.window_days]
        return _reading(measure, float(len(times)), None, as_of)
    load = math.fsum(
        measure.weights.get(ticket.severity, 0.0)  # type: ignore[call-overload]
        * (1 + min(now.age_days(ticket.opened_at), measure.cap_days) / measure.double_after_days)
        for ticket in recent
        if ticket.is_open
    )
    return _reading(measure, load, None, as_of)


def _read_answers(measure: SurveyAnswers, now: Picture) -> Reading:
    answers = [a for a in now.latest_answers(measure.of) if now.age_days(a.at) <= measure.expires_days]
    if not answers:
        return Reading(None, None, f"no answer in {measure.expires_days} days")
    points = math.fsum(
        fade(points_between(a.score, measure.worst, measure.best), now.age_days(a.at), measure.half_life_days)
        for a in answers
    )
    value = math.fsum(answer.score for answer in answers) / len(answers)
    return Reading(value, points / len(answers), None, moment(max(answer.at for answer in answers)))


def _read_invoices(measure: UnpaidInvoices, now: Picture) -> Reading:
    times = [max(i.failed_at or 0, i.paid_at or 0) for i in now.invoices]
    unpaid = [invoice for invoice in now.invoices if invoice.is_unpaid]
    if not unpaid and not any(now.age_days(at) <= measure.known_days for at in times):
        return Reading(None, None, f"no invoice in {measure.known_days} days")
    return _reading(measure, float(len(unpaid)), None, moment(max(times)))


# By exact type: checks against pydantic's metaclass cost more than most measures do.
_READERS: dict[type[Measure], Callable[[Any, Picture], Reading]] = {
    UsageTrend: _read_trend,
    UsageRecency: _read_recency,
    OpenTickets: _read_tickets,
    ReopenedTickets: _read_tickets,
    SurveyAnswers: _read_answers,
    UnpaidInvoices: _read_invoices,
    Sponsors: _read_sponsors,
    LastTouch: _read_touch,
}


def changed_parts(before: Sequence[Part], after: Sequence[Part]) -> list[tuple[str, Part | None, Part | None]]:
    """Measures whose say differs: other points, another weight, or there on one side only."""
    old, new = {part.measure: part for part in before}, {part.measure: part for part in after}
    return [
        (name, old.get(name), new.get(name))
        for name in dict.fromkeys([*old, *new])
        if _say(old.get(name)) != _say(new.get(name))
    ]


def _say(part: Part | None) -> tuple[float, float]:
    """A part's (weight, weight × points), nothing when it has no points."""
    if part is None or part.points is None:
        return 0.0, 0.0
    return part.weight, part.weight * part.points


def shares_of_change(before: Sequence[Part], after: Sequence[Part]) -> dict[str, float]:
    """What each changed measure contributed to the change of the mean; the shares sum to it.

    Shapley value over the changed measures: the mean, over all orders in which the changes could have come,
    of what each one's coming added. Above 12 changed measures the centred form, which sums exactly too.
    A mean of nothing counts as neutral.
    """
    changed = changed_parts(before, after)
    if len(changed) > MOST_PLAYERS:
        return _centred_shares(before, after)
    fixed_names = {name for name, _, _ in changed}
    fixed = [_say(part) for part in before if part.measure not in fixed_names]
    old = np.array([_say(part) for _, part, _ in changed]).reshape(-1, 2)
    new = np.array([_say(part) for _, _, part in changed]).reshape(-1, 2)
    base = np.array([math.fsum(w for w, _ in fixed), math.fsum(p for _, p in fixed)])
    values = _means_of_subsets(base, old, new)
    shares = {name: _shapley(values, player, len(changed)) for player, (name, _, _) in enumerate(changed)}
    return _settle(shares, before, after)


def _means_of_subsets(base: Floats, old: Floats, new: Floats) -> Floats:
    """The mean when only a subset of the changes had come; bit k of the index = change k came."""
    sums = base.reshape(1, 2)
    for before, after in zip(old, new, strict=True):
        sums = np.concatenate([sums + before, sums + after])
    weights, weighted = sums[:, 0], sums[:, 1]
    means: Floats = np.divide(weighted, weights, out=np.full(len(sums), NEUTRAL), where=weights > 1e-12)
    return means


def _shapley(values: Floats, player: int, players: int) -> float:
    without, chance = _coalitions(player, players)
    return float(np.dot(chance, values[without | (1 << player)] - values[without]))


@lru_cache(maxsize=256)
def _coalitions(player: int, players: int) -> tuple[NDArray[np.int64], Floats]:
    """Subsets without the player, and the chance that just those came before it."""
    subsets = np.arange(1 << players)
    without = subsets[(subsets >> player) & 1 == 0]
    sizes = np.array([subset.bit_count() for subset in without.tolist()])
    chance = np.array([1 / (players * math.comb(players - 1, size)) for size in range(players)])
    return without, chance[sizes]


def _centred_shares(before: Sequence[Part], after: Sequence[Part]) -> dict[str, float]:
    """Σ [e₁(s₁ − r) − e₀(s₀ − r)] with effective weights e and r halfway between the two scores."""
    start, end = _mean_or_neutral(before), _mean_or_neutral(after)
    middle = (start + end) / 2
    totals = [math.fsum(_say(part)[0] for part in parts) for parts in (before, after)]
    shares: dict[str, float] = {}
    for sign, parts, total in ((-1, before, totals[0]), (1, after, totals[1])):
        for part in parts:
            weight, weighted = _say(part)
            term = (weighted - weight * middle) / total if total else 0.0
            shares[part.measure] = shares.get(part.measure, 0.0) + sign * term
    changed = {name for name, _, _ in changed_parts(before, after)}
    return _settle({name: share for name, share in shares.items() if name in changed}, before, after)


def _settle(shares: dict[str, float], before: Sequence[Part], after: Sequence[Part]) -> dict[str, float]:
    """Give what is left over to the largest share: rounding, or the little that the centred form
    credits to unchanged measures."""
    if shares:
        rest = _mean_or_neutral(after) - _mean_or_neutral(before) - math.fsum(shares.values())
        shares[max(shares, key=lambda name: abs(shares[name]))] += rest
    return shares


def _mean_or_neutral(parts: Iterable[Part]) -> float:
    value = mean(parts)
    return NEUTRAL if value is None else value


def largest_first(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: (-abs(item[1]), item[0]))
