"""Alerts as episodes: when one opens, grows, is heard of again and is over.

An episode is one account, rule and cause. What rules find to hold right now is the input; what was decided
before (the open episodes, and what keeps others from opening) is the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from services.health import alerts, phrases
from services.health.alerts import Finding, Situation
from services.health.rules import SEVERITIES, AnyRule, Rules, Severity
from services.health.settings import Language
from shared.ids import derived_id

Name = tuple[str, str]
"""A rule and a cause."""
MOST_IN_A_MONTH = 2
"""What comes and goes more often than that flaps: it is known by now, and waits until the month is over."""
MONTH = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Episode:
    """An alert from its opening to its end, as it was told."""

    alert_id: str
    rule: str
    cause: str
    kind: str
    severity: Severity
    title: str
    why: str
    next_step: str | None
    evidence: Mapping[str, Any]
    opened_at: datetime
    baseline: bool
    people: tuple[int, ...] = ()
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    snoozed: bool = False
    snoozed_until: datetime | None = None
    """Null while snoozed: until it changes."""

    @property
    def name(self) -> Name:
        return self.rule, self.cause


@dataclass(frozen=True, slots=True)
class Rest:
    """An episode that is over: the next of its name waits until then, unless it is more severe.

    It is remembered as long as it counts among the `MOST_IN_A_MONTH`.
    """

    rule: str
    cause: str
    severity: Severity
    until: datetime
    opened_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """On which days a rule that must be confirmed would have opened an episode."""

    rule: str
    cause: str
    days: tuple[date, ...]


@dataclass(frozen=True, slots=True)
class Hush:
    """What keeps episodes from opening although their rule holds."""

    closed: tuple[Name, ...] = ()
    """Closed by a person, and the cause is still there."""
    resting: tuple[Rest, ...] = ()
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class Grown:
    """An episode that is more severe than it was, and a sentence on why."""

    episode: Episode
    previous: Severity
    why: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What one look came to; `still` and `opened` are open afterwards."""

    opened: tuple[Episode, ...]
    grown: tuple[Grown, ...]
    reminded: tuple[Episode, ...]
    resolved: tuple[Episode, ...]
    still: tuple[Episode, ...]
    hush: Hush


@dataclass(frozen=True, slots=True)
class Where:
    """Whose episodes, and when it is there."""

    account_id: str
    at: datetime
    today: date
    language: Language


def decide(at: Situation, running: Sequence[Episode], hush: Hush, rules: Rules, *, cause: str, baseline: bool) -> Turn:
    """Open, grow, remind of and resolve episodes by what holds now and what was decided before."""
    holding: dict[Name, Finding] = {}
    for rule_name, rule in rules.rules.items():
        if rule.enabled:
            for found in alerts.findings(rule_name, rule, at):
                holding[rule_name, found.cause] = found
    if not running and not holding and hush == NOTHING:
        return _QUIET
    where = Where(at.now.account_id, at.now.at, at.now.today, at.language)
    return turn(where, holding, running, hush, rules, cause=cause, baseline=baseline)


def turn(
    at: Where, holding: Mapping[Name, Finding], running: Sequence[Episode], hush: Hush, rules: Rules, *, cause: str,
    baseline: bool,
) -> Turn:  # fmt: skip
    """The same by what was found to hold."""
    now = at.at
    resolved = tuple(episode for episode in running if episode.name not in holding)
    grown: list[Grown] = []
    reminded: list[Episode] = []
    still: list[Episode] = []
    for episode in running:
        if episode.name in holding:
            after = _go_on(episode, holding[episode.name], rules.rules[episode.rule], at, grown, baseline=baseline)
            if after.snoozed and after.snoozed_until is not None and after.snoozed_until <= now:
                after = replace(after, snoozed=False, snoozed_until=None)
                reminded.append(after)
            still.append(after)
    closed = tuple(name for name in hush.closed if name in holding)
    resting = _resting(resolved, hush.resting, rules, now)
    known = {episode.name for episode in running} | set(closed)
    wanted = {name: found for name, found in holding.items() if found.enters and name not in known}
    doubts, sure = _confirmed(wanted, hush.doubts, rules, at.today, baseline=baseline)
    tired = {(rest.rule, rest.cause): rest.severity for rest in resting if rest.until > now}
    opened: list[Episode] = []
    loud = {episode.rule for episode in still} | {rule for rule, _ in closed}
    for name in sorted(sure, key=lambda name: rules.order[name[0]]):
        rule, found = rules.rules[name[0]], wanted[name]
        severity = _worst(rule.severity, found.severity)
        if (name in tired and not _above(severity, tired[name])) or not loud.isdisjoint(rule.unless):
            continue
        loud.add(name[0])
        opened.append(_open(found, severity, at, rule, cause, baseline))
    fresh = {episode.name for episode in opened}
    left = tuple(doubt for doubt in doubts if (doubt.rule, doubt.cause) not in fresh)
    return Turn(
        tuple(opened), tuple(grown), tuple(reminded), resolved, tuple(still), Hush(closed, resting, left)
    )  # fmt: skip


NOTHING = Hush()
_QUIET = Turn((), (), (), (), (), NOTHING)


def due_at(open_: Iterable[Episode], hush: Hush, rules: Rules, now: datetime) -> datetime | None:
    """When time alone changes an episode: a snooze ends, it has gone unheard for too long, or a rest is over."""
    times = [rest.until for rest in hush.resting]
    for episode in open_:
        if episode.snoozed:
            times += [episode.snoozed_until] if episode.snoozed_until else []
        elif (at := _unheard_at(episode, rules.rules.get(episode.rule))) is not None:
            times.append(at)
    return min((at for at in times if at > now), default=None)


def _unheard_at(episode: Episode, rule: AnyRule | None) -> datetime | None:
    """When an episode that nobody takes on becomes more severe."""
    if rule is None or rule.unheard is None or episode.acknowledged_at is not None or episode.baseline:
        return None
    if not _above(rule.unheard.severity, episode.severity):
        return None
    return episode.opened_at + timedelta(days=rule.unheard.days)


def _go_on(
    episode: Episode, found: Finding, rule: AnyRule, at: Where, grown: list[Grown], *, baseline: bool
) -> Episode:
    """The episode as it is now: an acknowledged one does not grow, a snoozed one only with its cause."""
    if episode.acknowledged_at is not None:
        return episode
    severity, phrase = _worst(episode.severity, found.severity), "grown"
    unheard = None if episode.snoozed else _unheard_at(episode, rule)
    if unheard is not None and unheard <= at.at and rule.unheard and _above(rule.unheard.severity, severity):
        severity, phrase = rule.unheard.severity, "unheard"
    if severity == episode.severity:
        return episode
    words = found.tell()
    shown, days = phrases.text(f"severity.{severity}", at.language), (at.at - episode.opened_at).days
    why = phrases.text(phrase, at.language, severity=shown, n=days, why=words.why)
    after = replace(
        episode, severity=severity, title=words.title, why=words.why, evidence=words.evidence, people=words.people,
        baseline=episode.baseline and baseline, snoozed=False, snoozed_until=None,
    )  # fmt: skip
    grown.append(Grown(after, episode.severity, why))
    return after


def _resting(resolved: Iterable[Episode], before: Iterable[Rest], rules: Rules, now: datetime) -> tuple[Rest, ...]:
    """What rests, what is over by now among it; who came back too often rests until a month after the first time."""
    kept = [rest for rest in before if rest.until > now or (rest.opened_at or rest.until) > now - MONTH]
    for episode in resolved:
        rule = rules.rules.get(episode.rule)
        if rule is None or not rule.enabled:
            continue
        until = now + timedelta(days=rule.cooldown_days)
        times = [rest.opened_at for rest in kept if (rest.rule, rest.cause) == episode.name and rest.opened_at]
        lately = sorted(at for at in (*times, episode.opened_at) if at > now - MONTH)
        if len(lately) >= MOST_IN_A_MONTH:
            until = max(until, lately[-MOST_IN_A_MONTH] + MONTH)
        worst = episode.severity
        for rest in kept:
            if (rest.rule, rest.cause) == episode.name and rest.until > now:
                worst = _worst(worst, rest.severity)
        kept = [rest if (rest.rule, rest.cause) != episode.name else replace(rest, until=min(rest.until, now))
                for rest in kept]  # fmt: skip
        kept.append(Rest(episode.rule, episode.cause, worst, until, episode.opened_at))
    return tuple(kept)


def _confirmed(
    wanted: Mapping[Name, Finding], before: Iterable[Doubt], rules: Rules, today: date, *, baseline: bool
) -> tuple[list[Doubt], list[Name]]:
    """Days on which rules held that must be confirmed, and the names that are sure by now.

    What is caught up with needs no confirmation: it is told once, as it stands.
    """
    days = {(doubt.rule, doubt.cause): set(doubt.days) for doubt in before}
    sure: list[Name] = []
    for name in wanted:
        confirm = rules.rules[name[0]].confirm
        if confirm is None or baseline:
            sure.append(name)
            continue
        held = days.setdefault(name, set())
        held.add(today)
        if sum((today - day).days < confirm.of_days for day in held) >= confirm.days:
            sure.append(name)
    doubts: list[Doubt] = []
    for (rule, cause), held in days.items():
        settings = rules.rules.get(rule)
        if settings is not None and settings.confirm is not None:
            within = tuple(sorted(day for day in held if (today - day).days < settings.confirm.of_days))
            doubts += [Doubt(rule, cause, within)] if within else []
    return doubts, sure


def _open(found: Finding, severity: Severity, at: Where, rule: AnyRule, cause: str, baseline: bool) -> Episode:
    words = found.tell()
    return Episode(
        alert_id=derived_id("health", at.account_id, found.rule, found.cause, cause),
        rule=found.rule,
        cause=found.cause,
        kind=rule.kind,
        severity=severity,
        title=words.title,
        why=words.why,
        next_step=rule.next_step.to(at.language) if rule.next_step else None,
        evidence=words.evidence,
        opened_at=at.at,
        baseline=baseline,
        people=words.people,
    )


def _above(one: Severity, other: Severity) -> bool:
    return SEVERITIES.index(one) > SEVERITIES.index(other)


def _worst(one: Severity, other: Severity | None) -> Severity:
    return other if other is not None and _above(other, one) else one
