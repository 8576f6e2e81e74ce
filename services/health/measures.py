"""What each kind of measure reads in a picture of an account: a value, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from services.health.facts import Picture
from services.health.plan import Scaled
from services.health.settings import (
    Breadth,
    Core,
    CoreActions,
    CoreUsers,
    LastOutcome,
    LastTouch,
    Licences,
    Measure,
    MrrTrend,
    OpenTickets,
    Renewal,
    ReopenedTickets,
    Sentiment,
    Sponsors,
    Stickiness,
    SurveyAnswers,
    TicketCount,
    TimeToSolve,
    Trend,
    UnpaidInvoices,
    UsageRecency,
    UsageTrend,
    UsageVolume,
)
from services.health.usage import DAY_US, Events, action_of, hash_of, micros, midnight, midnights, moment

NEUTRAL = 50.0
HOUR_US = DAY_US // 24


class Reading(NamedTuple):
    """What a measure says at a moment: a value and its points, or why there is none."""

    value: float | None
    points: float | None
    reason: str | None = None
    as_of: datetime | None = None


Read = Callable[[Any, Scaled, Picture], Reading]


def fade(points: float, age_days: float, half_life_days: float) -> float:
    """Pull an old opinion back towards neutral: half the distance each half-life."""
    left: float = 0.5 ** (age_days / half_life_days)
    return NEUTRAL + (points - NEUTRAL) * left


def read(measure: Measure, scale: Scaled, now: Picture) -> Reading:
    """The value of a measure in a picture, and its points on a scale."""
    return READERS[type(measure)](measure, scale, now)


def _reading(scale: Scaled, value: float | None, reason: str | None = None, as_of: datetime | None = None) -> Reading:
    if value is None:
        return Reading(None, None, reason, as_of)
    return Reading(value, scale(value), reason, as_of)


# Use of the product: windows are complete days in the account's own time zone, today not among them.


def _trend(measure: UsageTrend, scale: Scaled, now: Picture) -> Reading:
    ratio, reason = usual(now, measure.trend)
    return _reading(scale, ratio, reason, _last_use(now))


def _last_use(now: Picture) -> datetime | None:
    return None if now.usage.last_at is None else moment(now.usage.last_at)


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


def levels(now: Picture, trend: Trend) -> tuple[float, float]:
    """Use in the last window, and the mean of the windows before it.

    Of the windows before, those count of which the account was there for at least half, or else the first with any use.
    """
    length, count = trend.window_days, 1 + trend.baseline_windows
    return now.usage.remember(
        ("levels", now.zone.key, now.today, trend.of, length, count, trend.weekdays),
        midnight(now.zone, now.today),
        lambda: _weekday_levels(now, trend, length, count) if trend.weekdays else _levels(now, trend, length, count),
    )


def _levels(now: Picture, trend: Trend, length: int, count: int) -> tuple[float, float]:
    # The first day matters only where some window has use, so today's use never changes anything here.
    newest, *before = now.usage.windows(now.zone, now.today, trend.of, length, count)
    kept = _there(now, before, length, count)
    before = before[:kept]
    return newest, sum(before) / len(before) if before else 0.0


def _there(now: Picture, before: list[int], length: int, count: int) -> int:
    """How many of the windows before count, the newest first."""
    first = now.usage.first_day_since(now.zone, now.today - timedelta(days=length * count))
    kept = len(before)
    while kept and not before[kept - 1]:
        kept -= 1
    if any(before[: max(0, kept - 1)]) and first > now.today - timedelta(days=length * (kept + 1) - length // 2):
        kept -= 1
    return kept


def _weekday_levels(now: Picture, trend: Trend, length: int, count: int) -> tuple[float, float]:
    """Sum of the last window's days, and of what is usual on the same days of the week."""
    kept = _there(now, now.usage.windows(now.zone, now.today, trend.of, length, count)[1:], length, count)
    daily = now.usage.windows(now.zone, now.today, trend.of, 1, length * (1 + kept))  # yesterday first
    newest, before = daily[:length], daily[length:]
    usual_on = [0.0] * 7
    for weekday in range(7):
        # k days back from yesterday is the same day of the week for all k that leave the same rest by 7
        same = before[(weekday - length) % 7 :: 7]
        usual_on[weekday] = sum(same) / len(same) if same else 0.0
    return float(sum(newest)), math.fsum(usual_on[k % 7] for k in range(length)) if before else 0.0


def _recency(measure: UsageRecency, scale: Scaled, now: Picture) -> Reading:
    last = now.usage.last_at
    if last is None or now.age_days(last) > measure.known_days:
        return Reading(None, None, f"no use in {measure.known_days} days")
    return _reading(scale, float(now.age_days(last)), None, moment(last))


def _unused(now: Picture, known_days: int) -> Reading | None:
    last = now.usage.last_at
    if last is None or now.age_days(last) > known_days:
        return Reading(None, None, f"no use in {known_days} days")
    return None


def _window(now: Picture, days: int) -> Events:
    """Events of the last complete days."""
    bounds = midnights(now.zone, now.today, days)
    return now.usage.between(int(bounds[0]) - 1, int(bounds[-2]) - 1)


def _counted(now: Picture, key: tuple[Any, ...], count: Callable[[], Any]) -> Any:
    return now.usage.remember((*key, now.zone.key, now.today), midnight(now.zone, now.today), count)


def _volume(measure: UsageVolume, scale: Scaled, now: Picture) -> Reading:
    if unknown := _unused(now, measure.known_days):
        return unknown
    days = measure.window_days
    count = now.usage.windows(now.zone, now.today, measure.of, days, 1)[0]
    match measure.per:
        case "user":
            by = now.usage.windows(now.zone, now.today, "users", days, 1)[0]
        case "seat":
            by = now.seats or 0
        case _:
            by = 1
    if not by:
        reason = "no user is known" if measure.per == "user" else "no seats are known"
        return Reading(None, None, reason, _last_use(now))
    return _reading(scale, count / by, None, _last_use(now))


def _stickiness(measure: Stickiness, scale: Scaled, now: Picture) -> Reading:
    if unknown := _unused(now, measure.known_days):
        return unknown
    days = measure.window_days
    users = now.usage.windows(now.zone, now.today, "users", days, 1)[0]
    if users < measure.floor:
        return Reading(None, None, f"fewer than {measure.floor} users: a share of them would be noise", _last_use(now))
    length = 1 if measure.of == "days" else 7
    each = now.usage.windows(now.zone, now.today, "users", length, days // length)
    return _reading(scale, sum(each) / len(each) / users, None, _last_use(now))


def _breadth(measure: Breadth, scale: Scaled, now: Picture) -> Reading:
    if unknown := _unused(now, measure.known_days):
        return unknown
    entitled = now.entitled_features or frozenset(measure.features)
    if not entitled:
        return Reading(None, None, "no entitlement names its features", _last_use(now))
    used = _counted(
        now,
        ("breadth", measure.window_days, measure.times, entitled),
        lambda: _used_features(_window(now, measure.window_days), entitled, measure.times),
    )
    return _reading(scale, used / len(entitled), None, _last_use(now))


def _used_features(events: Events, entitled: frozenset[str], times: int) -> int:
    found, counts = np.unique(events["feature"], return_counts=True)
    wanted = np.array(sorted(hash_of(name) for name in entitled), np.uint64)
    return int(np.isin(found[counts >= times], wanted).sum())


@lru_cache(maxsize=256)
def _core_hashes(features: tuple[str, ...], events: tuple[str, ...], product: str | None) -> tuple[Any, Any]:
    return (
        np.array([hash_of(name) for name in features], np.uint64),
        np.array([action_of(name, product) for name in events], np.uint64),
    )


def core_of(events: Events, core: Core) -> Events:
    """The events that are core actions."""
    if not (core.features or core.events):
        return events
    features, actions = _core_hashes(core.features, core.events, core.product)
    kept: Events = events[np.isin(events["feature"], features) | np.isin(events["action"], actions)]
    return kept


def _core_actions(measure: CoreActions, scale: Scaled, now: Picture) -> Reading:
    if unknown := _unused(now, measure.known_days):
        return unknown
    days, core = measure.window_days, measure.core
    key = ("core", days, core.features, core.events, core.product)
    count = _counted(now, key, lambda: int(core_of(_window(now, days), core).size))
    users = now.usage.windows(now.zone, now.today, "users", days, 1)[0] if measure.per == "user" else 1
    if not users:
        return Reading(None, None, f"no active user in {days} days", _last_use(now))
    return _reading(scale, count / users / (days / 7), None, _last_use(now))


def _core_users(measure: CoreUsers, scale: Scaled, now: Picture) -> Reading:
    if unknown := _unused(now, measure.known_days):
        return unknown
    days, core = measure.window_days, measure.core
    users = now.usage.windows(now.zone, now.today, "users", days, 1)[0]
    if not users:
        return Reading(None, None, f"no active user in {days} days", _last_use(now))
    key = ("core_users", days, measure.times, core.features, core.events, core.product)
    deep = _counted(now, key, lambda: _users_over(core_of(_window(now, days), core), measure.times))
    return _reading(scale, deep / users, None, _last_use(now))


def _users_over(events: Events, times: int) -> int:
    users, counts = np.unique(events["user"], return_counts=True)
    return int(((counts >= times) & (users != 0)).sum())


def _licences(measure: Licences, scale: Scaled, now: Picture) -> Reading:
    seats = now.seats
    if not seats:
        return Reading(None, None, "no seats are known" if seats is None else "no seats are left")
    if unknown := _unused(now, measure.known_days):
        return unknown
    users = now.usage.windows(now.zone, now.today, "users", measure.window_days, 1)[0]
    return _reading(scale, users / seats, None, _last_use(now))


# Support


def _tickets(measure: OpenTickets | ReopenedTickets, scale: Scaled, now: Picture) -> Reading:
    recent = [t for t in now.tickets if t.is_open or now.age_days(t.last_at) <= measure.known_days]
    if not recent:
        return Reading(None, None, f"no ticket in {measure.known_days} days")
    as_of = moment(max(ticket.last_at for ticket in recent))
    if measure.kind == "reopened_tickets":
        times = [at for ticket in recent for at in ticket.reopened_at if now.age_days(at) < measure.window_days]
        return _reading(scale, float(len(times)), None, as_of)
    load = math.fsum(
        measure.weights.get(ticket.severity, 0.0)  # type: ignore[call-overload]
        * (1 + min(now.age_days(ticket.opened_at), measure.cap_days) / measure.double_after_days)
        for ticket in recent
        if ticket.is_open
    )
    return _reading(scale, load, None, as_of)


def _ticket_count(measure: TicketCount, scale: Scaled, now: Picture) -> Reading:
    recent = [t for t in now.tickets if t.is_open or now.age_days(t.last_at) <= measure.known_days]
    if not recent:
        return Reading(None, None, f"no ticket in {measure.known_days} days")
    count = sum(
        ticket.is_open and ticket.severity in measure.severities and now.age_days(ticket.opened_at) >= measure.days_open
        for ticket in recent
    )
    return _reading(scale, float(count), None, moment(max(ticket.last_at for ticket in recent)))


def _time_to_solve(measure: TimeToSolve, scale: Scaled, now: Picture) -> Reading:
    solved = [
        (ticket.solved_at, ticket.opened_at)
        for ticket in now.tickets
        if ticket.solved_at is not None
        and ticket.severity in measure.severities
        and now.age_days(ticket.solved_at) < measure.window_days
    ]
    if not solved:
        return Reading(None, None, f"no ticket was solved in {measure.window_days} days")
    hours = median((end - start) / HOUR_US for end, start in solved)
    return _reading(scale, hours, None, moment(max(end for end, _ in solved)))


# Satisfaction


def _answers(measure: SurveyAnswers, scale: Scaled, now: Picture) -> Reading:
    answers = [a for a in now.latest_answers(measure.of) if now.age_days(a.at) <= measure.expires_days]
    if not answers:
        return Reading(None, None, f"no answer in {measure.expires_days} days")
    points = math.fsum(fade(scale(a.score), now.age_days(a.at), measure.half_life_days) for a in answers)
    value = math.fsum(answer.score for answer in answers) / len(answers)
    return Reading(value, points / len(answers), None, moment(max(answer.at for answer in answers)))


def _sentiment(measure: Sentiment, scale: Scaled, now: Picture) -> Reading:
    heard = [
        (comment.sentiment, now.age_days(comment.said_at), comment.said_at)
        for comment in now.comments
        if comment.sentiment is not None and comment.source in measure.sources
    ]
    heard = [one for one in heard if one[1] <= measure.expires_days]
    if len(heard) < measure.floor:
        said = "no comment" if not heard else f"fewer than {measure.floor} comments"
        return Reading(None, None, f"{said} whose mood can be told in {measure.expires_days} days")
    youngest = min(age for _, age, _ in heard)
    weighed = [(0.5 ** ((age - youngest) / measure.half_life_days), mood) for mood, age, _ in heard]
    value = math.fsum(w * mood for w, mood in weighed) / math.fsum(w for w, _ in weighed)
    points = fade(scale(value), youngest, measure.half_life_days)
    return Reading(value, points, None, moment(max(at for _, _, at in heard)))


# Money


def _invoices(measure: UnpaidInvoices, scale: Scaled, now: Picture) -> Reading:
    times = [max(i.failed_at or 0, i.paid_at or 0) for i in now.invoices]
    unpaid = [invoice for invoice in now.invoices if invoice.is_unpaid]
    if not unpaid and not any(now.age_days(at) <= measure.known_days for at in times):
        return Reading(None, None, f"no invoice in {measure.known_days} days")
    return _reading(scale, float(len(unpaid)), None, moment(max(times)))


def _renewal(measure: Renewal, scale: Scaled, now: Picture) -> Reading:
    deadline = now.deadline
    if deadline is None:
        return Reading(None, None, "no deadline is ahead: no contract says when its notice or its term ends")
    return _reading(scale, float((deadline - now.today).days))


def _mrr_trend(measure: MrrTrend, scale: Scaled, now: Picture) -> Reading:
    then = midnight(now.zone, now.today - timedelta(days=measure.window_days))
    before, currencies_before = now.mrr(then)
    mrr, currencies = now.mrr(micros(now.at))
    if before is None or mrr is None:
        return Reading(None, None, f"no subscription is known from {measure.window_days} days ago")
    if len(currencies | currencies_before) > 1:
        return Reading(None, None, f"subscriptions are in {' and '.join(sorted(currencies | currencies_before))}")
    if not before:
        return Reading(None, None, "new" if mrr else f"no revenue {measure.window_days} days ago")
    return _reading(scale, float(mrr / before), None, now.mrr_said_at)


# People


def _sponsors(measure: Sponsors, scale: Scaled, now: Picture) -> Reading:
    people = [contact for contact in now.contacts if contact.role in ("champion", "sponsor")]
    if not people:
        return Reading(None, None, "no champion or sponsor is known")
    return _reading(scale, float(sum(contact.left_at is None for contact in people)))


def _touch(measure: LastTouch, scale: Scaled, now: Picture) -> Reading:
    last = now.last_touch_at
    if last is None or now.age_days(last) > measure.known_days:
        return Reading(None, None, f"no contact both ways in {measure.known_days} days")
    return _reading(scale, float(now.age_days(last)), None, moment(last))


def _outcome(measure: LastOutcome, scale: Scaled, now: Picture) -> Reading:
    last = now.last_outcome_at
    if last is None or now.age_days(last) > measure.known_days:
        return Reading(None, None, f"no result confirmed in {measure.known_days} days")
    return _reading(scale, float(now.age_days(last)), None, moment(last))


# By exact type: checks against pydantic's metaclass cost more than most measures do.
READERS: dict[type[Measure], Read] = {
    UsageTrend: _trend,
    UsageRecency: _recency,
    UsageVolume: _volume,
    Stickiness: _stickiness,
    Breadth: _breadth,
    CoreActions: _core_actions,
    CoreUsers: _core_users,
    Licences: _licences,
    OpenTickets: _tickets,
    ReopenedTickets: _tickets,
    TicketCount: _ticket_count,
    TimeToSolve: _time_to_solve,
    SurveyAnswers: _answers,
    Sentiment: _sentiment,
    UnpaidInvoices: _invoices,
    Renewal: _renewal,
    MrrTrend: _mrr_trend,
    Sponsors: _sponsors,
    LastTouch: _touch,
    LastOutcome: _outcome,
}
