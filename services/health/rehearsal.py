"""What rules would have told: history gone through as the worker lived it, without anybody hearing of it.

Each account is looked at when one of its facts happens (of its use, the first of a day) and at each of its midnights,
with the same decision as live. What holds already at the start is a baseline and counts for nobody. People are not
replayed: nobody acknowledges, so what would have been escalated is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import fmean, median
from typing import Any
from zoneinfo import ZoneInfo

from services.health import domain, episodes, incidents, leaving, overrides, phrases
from services.health.domain import Decision, Memory, Policy
from services.health.episodes import Episode
from services.health.facts import Facts
from services.health.incidents import Hours
from services.health.rules import SourceSilent, TrackingBreak
from services.health.tracking import Break, Day
from services.health.usage import DAY_US, Usage, micros, midnight, moment
from shared.runtime.api import EVERYBODY
from shared.times import instant

NOBODY = "nobody"
"""Who looks after an account without an owner."""
LOOK_BACK = timedelta(days=90)
"""An alert so long before somebody leaves counts as a warning."""
BUDGET = 8
"""So many alerts a person gets to in a week."""


@dataclass(frozen=True, slots=True)
class Told:
    """An alert as somebody would have heard it; `escalated_at` are the times it became more severe."""

    account_id: str
    name: str | None
    owner: str
    rule: str
    kind: str
    severity: str
    title: str
    opened_at: datetime
    baseline: bool
    resolved_at: datetime | None = None
    escalated_at: tuple[datetime, ...] = ()


@dataclass(slots=True)
class _Open:
    episode: Episode
    owner: str
    name: str | None
    escalated_at: list[datetime] = field(default_factory=list)


def rehearse(known: Facts, policy: Policy, start: datetime, end: datetime) -> list[Told]:
    """Every alert of an account from `start` to `end`, those that hold at the start as baselines."""
    memory, running, told = Memory(), dict[str, _Open](), list[Told]()
    for at, decision in _looks(known, policy, start, end):
        memory = decision.memory
        state = memory.state or {}
        for episode in decision.opened:
            running[episode.alert_id] = _Open(episode, state.get("owner") or NOBODY, state.get("name"))
        for grown in decision.grown:
            running[grown.episode.alert_id].escalated_at.append(at)
        for episode in decision.resolved:
            told.append(_told(known.account_id, running.pop(episode.alert_id), at))
    told += [_told(known.account_id, one, None) for one in running.values()]
    return sorted(told, key=lambda one: (one.opened_at, one.rule, one.title))


def rehearse_data(
    days: Mapping[date, Day], hours: Hours, policy: Policy, start: datetime, end: datetime
) -> tuple[list[Told], tuple[Break, ...]]:
    """Incidents of the whole book from `start` to `end`, and the days that broke; by whole days."""
    judged = (end.date() - min(days, default=end.date())).days + 1
    breaks = incidents.found(days, hours, end, policy.rules, policy.model.language, judged).breaks
    rules = {
        what: (name, rule)
        for what, kind in (("feature", TrackingBreak), ("source", SourceSilent))
        for name, rule in policy.rules.rules.items()
        if isinstance(rule, kind) and rule.enabled
    }
    told = []
    for one in breaks:
        name, rule = rules[one.what]
        opened_at = _utc(one.since + timedelta(days=1))
        over_at = None if one.until is None else _utc(one.until + timedelta(days=1))
        if opened_at <= end and (over_at is None or over_at > start):
            title = phrases.text(f"{one.what}.broke", policy.model.language, it=one.name)
            told.append(Told(EVERYBODY, None, NOBODY, name, rule.kind, rule.severity, title, max(start, opened_at),
                             opened_at <= start, over_at if over_at and over_at <= end else None))  # fmt: skip
    return told, breaks


def _utc(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _told(account_id: str, one: _Open, resolved_at: datetime | None) -> Told:
    episode = one.episode
    return Told(
        account_id, one.name, one.owner, episode.rule, episode.kind, episode.severity, episode.title,
        episode.opened_at, episode.baseline, resolved_at, tuple(one.escalated_at),
    )  # fmt: skip


def _looks(known: Facts, policy: Policy, start: datetime, end: datetime) -> Iterator[tuple[datetime, Decision]]:
    """Every look at an account: at the start, at its facts, at its nights."""
    at, memory, baseline = start, Memory(), True
    times = iter(_times(known, start, end))
    coming = next(times, None)
    while True:
        decision = domain.assess(known, memory, at, policy, cause=at.isoformat(), baseline=baseline)
        yield at, decision
        memory, baseline = decision.memory, False
        while coming is not None and coming <= at:
            coming = next(times, None)
        due = _due_at(known, decision, at, policy)
        following = min((one for one in (coming, due) if one is not None), default=None)
        if following is None or following > end:
            return
        at = following


def _due_at(known: Facts, decision: Decision, at: datetime, policy: Policy) -> datetime | None:
    """When time alone asks for a look: an episode or an override changes by itself, or the day ends.

    The decision's own `due_at` may be the next use of the day, which changes nothing.
    """
    memory, zone = decision.memory, ZoneInfo(decision.timezone)
    tomorrow = at.astimezone(zone).date() + timedelta(days=1)
    night = moment(midnight(zone, tomorrow)) + domain.spread(known.account_id)
    times = [episodes.due_at(memory.open, memory.hush, policy.rules, at), overrides.ends_at(known, at)]
    if decision.due_at is not None and decision.due_at <= night:
        times.append(night)
    return min((one for one in times if one is not None), default=None)


def _times(known: Facts, start: datetime, end: datetime) -> list[datetime]:
    """When something happened that can matter: facts, and the first use of each UTC day."""
    first, last = micros(start), micros(end)
    times = {mark.at for marks in known.things.values() for mark in marks if first < mark.at <= last}
    used = Usage.until(known.usage, end).times
    days: set[int] = set()
    for at in used[used.searchsorted(first, side="right") :].tolist():
        if at // DAY_US not in days:
            days.add(at // DAY_US)
            times.add(at)
    return [moment(at) for at in sorted(times)]


@dataclass(frozen=True, slots=True)
class Leave:
    """Somebody who left, and what had been told in the days before."""

    account_id: str
    name: str | None
    owner: str
    left_at: datetime
    signs: tuple[str, ...]
    first_told_at: datetime | None
    rules: tuple[str, ...]

    @property
    def days_before(self) -> float | None:
        return None if self.first_told_at is None else (self.left_at - self.first_told_at).total_seconds() / 86_400


def leaves(known: Facts, told: Sequence[Told], start: datetime, end: datetime) -> list[Leave]:
    """Each time the account left from `start` to `end`, with the risk alerts of the days before."""
    found = []
    for one in leaving.leavings(known):
        left_at = moment(one.at)
        if not start < left_at <= end:
            continue
        warned = [
            alert
            for alert in told
            if alert.kind == "risk"
            and alert.opened_at < left_at
            and (alert.opened_at >= left_at - LOOK_BACK or alert.resolved_at is None or alert.resolved_at >= left_at)
        ]
        last = max(warned, key=lambda alert: alert.opened_at, default=None)
        found.append(
            Leave(
                known.account_id,
                next((alert.name for alert in told if alert.name), None),
                last.owner if last else next((alert.owner for alert in reversed(told)), NOBODY),
                left_at,
                one.signs,
                min((alert.opened_at for alert in warned), default=None),
                tuple(sorted({alert.rule for alert in warned})),
            )
        )
    return found


def week_of(at: datetime) -> str:
    year, week, _ = at.isocalendar()
    return f"{year}-W{week:02d}"


def weeks(told: Iterable[Told], start: datetime, end: datetime) -> list[dict[str, Any]]:
    """What each person would have received in each ISO week (UTC), quiet weeks included."""
    heard = [one for one in told if not one.baseline]
    owners = sorted({one.owner for one in heard})
    span = [start + timedelta(days=n) for n in range((end - start).days + 1)]
    found = []
    for owner in owners:
        own = [one for one in heard if one.owner == owner]
        for week in sorted({week_of(at) for at in span}):
            alerts = [one for one in own if week_of(one.opened_at) == week]
            louder = sum(week_of(at) == week for one in own for at in one.escalated_at)
            found.append(
                {
                    "csm": owner,
                    "week": week,
                    "alerts": len(alerts),
                    "escalated": louder,
                    "critical": sum(one.severity == "critical" for one in alerts),
                    "accounts": len({one.account_id for one in alerts}),
                    "by_rule": dict(sorted(Counter(one.rule for one in alerts).items())),
                }
            )
    return found


def summary(told: Sequence[Told], left: Sequence[Leave], rows: Sequence[dict[str, Any]], budget: int) -> dict[str, Any]:
    """The figures that a team feels."""
    heard = [one for one in told if not one.baseline]
    counts = [row["alerts"] for row in rows]
    ahead = [days for one in left if (days := one.days_before) is not None]
    return {
        "alerts": len(heard),
        "escalated": sum(len(one.escalated_at) for one in heard),
        "baselines": len(told) - len(heard),
        "accounts": len({one.account_id for one in heard}),
        "alerts_per_csm_week": round(fmean(counts), 6) if counts else None,
        "most_in_a_week": max(counts, default=0),
        "csm_weeks": len(counts),
        "csm_weeks_over_budget": sum(count > budget for count in counts),
        "budget": budget,
        "left": len(left),
        "warned": len(ahead),
        "missed": len(left) - len(ahead),
        "median_days_before": round(median(ahead), 6) if ahead else None,
    }


def per_rule(told: Sequence[Told], left: Sequence[Leave]) -> list[dict[str, Any]]:
    """How often each rule rang, and before how many who left."""
    heard = Counter(one.rule for one in told if not one.baseline)
    accounts = {name: len({one.account_id for one in told if one.rule == name and not one.baseline}) for name in heard}
    before = Counter(rule for one in left for rule in one.rules)
    return [
        {"rule": name, "alerts": heard[name], "accounts": accounts.get(name, 0), "before_leaving": before[name]}
        for name in sorted({*heard, *before})
    ]


def leave_row(one: Leave) -> dict[str, Any]:
    return {
        "account_id": one.account_id,
        "name": one.name,
        "csm": one.owner,
        "left_at": instant(one.left_at),
        "signs": list(one.signs),
        "warned": one.first_told_at is not None,
        "first_told_at": None if one.first_told_at is None else instant(one.first_told_at),
        "days_before": None if one.days_before is None else round(one.days_before, 6),
        "rules": list(one.rules),
    }
