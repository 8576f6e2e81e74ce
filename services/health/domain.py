"""The rule: facts, what was decided before, and the time give a decision.

A figure (the score) is a function of the facts and T alone. A decision (a change told, an alert) also
depends on what was told before: that is `Memory`, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import xxhash

from services.health import episodes, facts, guidance, overrides, scoring, shares, wording
from services.health.alerts import Situation
from services.health.context import Context, context_of
from services.health.episodes import NOTHING, Episode, Grown, Hush
from services.health.facts import Facts, Picture
from services.health.guidance import Standing
from services.health.rules import Rules
from services.health.scoring import Score
from services.health.settings import Model
from services.health.standstill import held_of
from services.health.tracking import Break
from services.health.usage import Usage, micros, midnight, moment

SPREAD_S = 900
"""Accounts of one time zone are due in the first quarter of an hour of their day, not all at midnight."""
NEWS_FOR = timedelta(hours=24)
"""What is older at its receipt wakes nobody."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that the business set, with the digest that goes on what it produced."""

    model: Model
    rules: Rules
    digest: str
    older: dict[str, Model | None] = field(default_factory=dict, compare=False)
    """Models that made scores which are still told of, by their digest; None: nobody can read it any more."""
    history: timedelta = field(init=False)
    """How far back use has to be known: the longest window, and the margin of a time zone."""
    horizon: timedelta = field(init=False)
    """After so long without a fact nothing changes with time alone."""
    memory_days: int = field(init=False)
    """How far back scores that were shown have to be known."""

    def __post_init__(self) -> None:
        model, rules = self.model, self.rules
        object.__setattr__(self, "history", timedelta(days=max(model.history_days, rules.history_days) + 2))
        object.__setattr__(self, "horizon", timedelta(days=max(model.horizon_days, rules.horizon_days) + 2))
        object.__setattr__(self, "memory_days", rules.memory_days)


@dataclass(frozen=True, slots=True)
class Memory:
    """What was told of an account: the last score and state, the scores shown lately, the open alerts."""

    score: Score | None = None
    state: Mapping[str, Any] | None = None
    shown: tuple[tuple[date, int], ...] = ()
    open: tuple[Episode, ...] = ()
    hush: Hush = NOTHING
    band: scoring.Band | None = None
    """The band that was shown last."""
    in_band: tuple[scoring.Band, datetime] | None = None
    """That band and since when."""
    tier: str | None = None
    """The tier that ops decided last; told where no segment is stated."""
    breaks: tuple[Break, ...] = ()
    """Where data broke on the way, as the whole book's owner says."""
    guidance: Standing = guidance.NOTHING
    """The features that are recommended to it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A score worth telling: the whole points or the band differ from what was told last."""

    previous: Score | None
    current: Score
    shares: Mapping[str, float]
    why: str
    shown_band: scoring.Band
    """With hysteresis: the band that people are shown."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What an assessment came to; `due_at` is when time alone may change it."""

    memory: Memory
    change: Change | None
    state: Mapping[str, Any] | None
    opened: tuple[Episode, ...]
    grown: tuple[Grown, ...]
    reminded: tuple[Episode, ...]
    resolved: tuple[Episode, ...]
    contexts: Mapping[str, Context]
    """By alert, of those opened and grown."""
    due_at: datetime | None
    timezone: str
    last_active_day: date | None


def assess(known: Facts, memory: Memory, at: datetime, policy: Policy, *, cause: str, baseline: bool) -> Decision:
    """Decide what is worth telling of an account at T, after what was told before."""
    now = facts.picture(known, at)
    score = overrides.score_of(known, now, policy.model)
    plan = policy.model.plans[score.profile]
    band = scoring.shown_band(score, memory.band, plan.bands)
    change = _change(memory, score, band, policy)
    in_band = memory.in_band if memory.in_band and memory.in_band[0] == band else (band, at)
    situation = Situation(
        now=now,
        score=score,
        band=band,
        shown=memory.shown,
        had_score=memory.score is not None and memory.score.score is not None,
        green_since=in_band[1] if in_band[0] == "green" else None,
        model=policy.model,
        language=policy.model.language,
        held=held_of(known, now) if known.breaks else (),
    )
    turn = episodes.decide(situation, memory.open, memory.hush, policy.rules, cause=cause, baseline=baseline)
    segment = now.profile.segment or memory.tier
    state = _state(now, score, band, segment)
    after = Memory(
        score=score if change else memory.score,
        state=state,
        shown=_shown(memory.shown, now.today, score, policy),
        open=(*turn.still, *turn.opened),
        hush=turn.hush,
        band=band,
        in_band=in_band,
        tier=memory.tier,
        breaks=memory.breaks,
        guidance=memory.guidance,
    )
    told = state if state != memory.state else None
    return Decision(
        memory=after,
        change=change,
        state=told,
        opened=turn.opened,
        grown=turn.grown,
        reminded=turn.reminded,
        resolved=turn.resolved,
        contexts={
            episode.alert_id: context_of(known, situation, memory.score, policy.rules.rules[episode.rule], segment)
            for episode in (*turn.opened, *(grown.episode for grown in turn.grown))
        },
        due_at=_soonest(
            due_at(known, now, policy),
            episodes.due_at(after.open, after.hush, policy.rules, at),
            overrides.ends_at(known, at),
            guidance.due_at(after.guidance, policy.model.guidance, at),
        ),
        timezone=now.zone.key,
        last_active_day=None if now.usage.last_at is None else now.day_of(now.usage.last_at),
    )


def _change(memory: Memory, after: Score, band: scoring.Band, policy: Policy) -> Change | None:
    before, model = memory.score, policy.model
    said = overrides.why(before, after, model.language)
    if (
        before is not None
        and said is None
        and (before.score, before.band, memory.band or before.band) == (after.score, after.band, band)
    ):
        return None
    causes = shares_between(before, after, policy)
    why = said or wording.why_changed(before, after, causes, model, model.language)
    return Change(before, after, causes, why, band)


def shares_between(before: Score | None, after: Score, policy: Policy) -> Mapping[str, float]:
    """What each cause contributed to the change of a score; nothing where there was none."""
    if before is None or (before.override is not None and before.override == after.override):
        return {}
    older = policy.older.get(before.config)
    old = scoring.plan_of(before, policy.model, older)
    return shares.shares_of(before, after, old, scoring.plan_of(after, policy.model))


def _soonest(*times: datetime | None) -> datetime | None:
    return min((at for at in times if at is not None), default=None)


def _shown(
    shown: tuple[tuple[date, int], ...], today: date, score: Score, policy: Policy
) -> tuple[tuple[date, int], ...]:
    """The highest computed score of each day that a rule may look back to."""
    since = today - timedelta(days=policy.memory_days)
    days = {day: value for day, value in shown if day >= since}
    if score.computed is not None:
        days[today] = max(score.computed, days.get(today, 0))
    return tuple(sorted(days.items()))


def _state(now: Picture, score: Score, band: scoring.Band, segment: str | None) -> dict[str, Any]:
    profile = now.profile
    return {
        "name": profile.name,
        "score": score.score,
        "band": score.band,
        "shown_band": band,
        "parent_id": profile.parent_id,
        "segment": segment,
        "stage": profile.stage,
        "owner": profile.owner,
        "arr": None if profile.arr is None else format(profile.arr, "f"),
        "notice_on": None if profile.notice_on is None else profile.notice_on.isoformat(),
    }


def due_at(known: Facts, now: Picture, policy: Policy) -> datetime | None:
    """When time alone may change something: a fact's own time is still to come, or the local day ends."""
    coming = None if now.coming_at is None else moment(now.coming_at)
    looks_ahead = policy.model.looks_ahead or policy.rules.looks_ahead
    comes_nearer = looks_ahead and now.deadline is not None
    latest = now.latest_at
    if latest is not None and policy.model.listens:
        latest = max(latest, now.heard_at or latest)
    if latest is None or (moment(latest) + policy.horizon < now.at and not comes_nearer):
        return coming
    night = moment(midnight(now.zone, now.today + timedelta(days=1))) + spread(known.account_id)
    return night if coming is None else min(night, coming)


def spread(account_id: str) -> timedelta:
    return timedelta(seconds=xxhash.xxh3_64_intdigest(account_id.encode()) % SPREAD_S)


def triples(known: Facts, at: datetime, zone: ZoneInfo) -> set[tuple[date, int, int]]:
    """The (local day, user, feature) of all use up to T: a score sees nothing finer."""
    events = Usage.until(known.usage, at).events
    return {
        (moment(when).astimezone(zone).date(), user, feature)
        for when, user, feature in zip(
            events["at"].tolist(), events["user"].tolist(), events["feature"].tolist(), strict=True
        )
    }


def before_life(known: Facts, assessed_at: datetime, at: datetime) -> Facts:
    """What had been assessed, or is too old to be news: the rest came live, before the clock did.

    The same facts where nothing did.
    """
    seen = max(micros(assessed_at), micros(at - NEWS_FOR))
    if not any(mark.at > seen for marks in known.things.values() for mark in marks) and not any(
        events.size and events["at"].max() > seen for events in known.usage
    ):
        return known
    things = {key: past for key, marks in known.things.items() if (past := tuple(m for m in marks if m.at <= seen))}
    past_use = tuple(events[events["at"] <= seen] for events in known.usage)
    return Facts(known.account_id, things, past_use, peers=known.peers, breaks=known.breaks)
