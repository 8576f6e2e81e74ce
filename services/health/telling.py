"""Decisions in the words of the contract: score changes, states, alerts, and answers to requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from services.health import actions, facts, guidance_store, guiding, overrides, phrases, scoring, shares, wording
from services.health.actions import Acted, Declined, Past
from services.health.context import restore_in_words
from services.health.domain import Change, Decision, Memory, Policy
from services.health.episodes import Episode
from services.health.facts import Facts, Learnt
from services.health.guidance import Turn
from services.health.guiding import Dismissed
from services.health.rules import SEVERITIES
from services.health.store import Account, LogRow
from shared import topics
from shared.events import Event, results
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork
from shared.times import instant

RESULTS = topics.RESULTS["health"]
People = Mapping[tuple[str, int], str]
Emit = Callable[[topics.Topic, Event, str], None]
EndedEpisode = tuple[str, int, Episode, datetime | None]
ScoreRow = tuple[str, int, datetime, str, Change]
"""Account, partition, when it was told, cause, change."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an assessment was made, and in what light: `id` makes the ids of what it emits."""

    id: str
    occurred_at: datetime
    cause_ids: tuple[str, ...]
    clock: datetime
    baseline: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What to record of a decision: episodes with their end, the score's change, and what became of open alerts."""

    episodes: list[tuple[str, int, Episode, datetime | None]]
    score: ScoreRow | None = None
    log: list[LogRow] = field(default_factory=list)
    guided: list[guidance_store.Row] = field(default_factory=list)


def people_of(decision: Decision | Acted | Turn) -> Iterator[int]:
    """Users whose names a decision needs."""
    if isinstance(decision, Decision):
        for episode in (*decision.opened, *(one.episode for one in decision.grown)):
            yield from episode.people


def tell(
    row: Account, decision: Decision | Acted | Turn, cause: Cause, people: People, unit: UnitOfWork, policy: Policy
) -> Told:
    """Emit what a decision came to."""
    stamp: dict[str, Any] = {
        "account_id": row.account_id,
        "cause_ids": cause.cause_ids,
        "occurred_at": cause.occurred_at,
        "computed_at": cause.clock,
        "config_hash": policy.digest,
    }

    def emit(topic: topics.Topic, event: Event, kind: str) -> None:
        unit.emit(topic, event, account_id=row.account_id, cause=cause.id, kind=kind, partition=row.partition)

    if isinstance(decision, Turn):
        return Told([], guided=guiding.tell(row, decision, stamp, cause.id, unit))
    if isinstance(decision, Acted):
        return _tell_action(row, decision, cause, stamp, emit, policy)
    change = decision.change
    if change:
        event = results.HealthScoreChanged.model_validate(
            {
                **stamp,
                "previous": _score(change.previous) if change.previous else None,
                "current": _score(change.current),
                "shares": [
                    {"cause": name, "points": points, "kind": shares.kind_of(name)}
                    for name, points in shares.largest_first(change.shares)
                ],
                "why": change.why,
                "shown_band": change.shown_band,
                "baseline": cause.baseline,
                "next_step": next_step(decision.memory),
            }
        )
        emit(RESULTS, event, "health_score.changed")
    if decision.state is not None:
        state = results.AccountState(account_id=row.account_id, as_of=cause.clock, **decision.state)
        emit(topics.STATE_ACCOUNTS, state, "account.state")
    score = (row.account_id, row.partition, cause.clock, cause.id, change) if change else None
    told = Told([], score)
    for one in decision.opened:
        episode = _named(one, row.account_id, people)
        opening = results.AlertOpened(**stamp, **alert_fields(episode), baseline=episode.baseline,
                                      context=_context(decision, episode, policy))  # fmt: skip
        emit(topics.ALERTS, opening, f"alert.opened:{episode.rule}:{episode.cause}")
        told.episodes.append((row.account_id, row.partition, episode, None))
    for grown in decision.grown:
        episode = _named(grown.episode, row.account_id, people)
        fields = {**alert_fields(episode), "why": grown.why}
        more = results.AlertEscalated(**stamp, **fields, previous_severity=grown.previous,
                                      opened_at=episode.opened_at, baseline=cause.baseline,
                                      context=_context(decision, episode, policy))  # fmt: skip
        emit(topics.ALERTS, more, f"alert.escalated:{episode.alert_id}")
        said = {"severity": episode.severity, "previous": grown.previous, "why": grown.why}
        told.log.append(_log(row, cause, episode, "escalated", said))
    for episode in decision.reminded:
        why = phrases.text("reminded", policy.model.language, why=episode.why)
        again = results.AlertReminded(**stamp, **{**alert_fields(episode), "why": why}, opened_at=episode.opened_at)
        emit(topics.ALERTS, again, f"alert.reminded:{episode.alert_id}")
        told.log.append(_log(row, cause, episode, "reminded", {}))
    for episode in decision.resolved:
        over = wording.text("resolved", policy.model.language, title=episode.title)
        fields = {**alert_fields(episode), "why": over, "next_step": None}
        ending = results.AlertResolved(**stamp, **fields, opened_at=episode.opened_at, baseline=episode.baseline)
        emit(topics.ALERTS, ending, f"alert.resolved:{episode.alert_id}")
        told.episodes.append((row.account_id, row.partition, episode, cause.clock))
    return told


def next_step(memory: Memory) -> str | None:
    """What to do first: about the most severe open alert, else the first recommendation."""
    told = [one for one in memory.open if one.next_step and not one.snoozed]
    if told:
        return max(told, key=lambda one: SEVERITIES.index(one.severity)).next_step
    return memory.guidance.open[0].next_step if memory.guidance.open else None


def end(row: Account, episode: Episode, why: str, cause: Cause, unit: UnitOfWork, policy: Policy) -> EndedEpisode:
    """Emit the end of an alert that has another reason than that its cause is gone."""
    ending = results.AlertResolved(
        account_id=row.account_id, cause_ids=cause.cause_ids, occurred_at=cause.occurred_at, computed_at=cause.clock,
        config_hash=policy.digest, **{**alert_fields(episode), "why": why, "next_step": None},
        opened_at=episode.opened_at, baseline=episode.baseline,
    )  # fmt: skip
    unit.emit(
        topics.ALERTS, ending, account_id=row.account_id, cause=cause.id, kind=f"alert.resolved:{episode.alert_id}",
        partition=row.partition,
    )  # fmt: skip
    return row.account_id, row.partition, episode, cause.clock


def _context(decision: Decision, episode: Episode, policy: Policy) -> results.AlertContext | None:
    """What concerns the whole book has none."""
    known = decision.contexts.get(episode.alert_id)
    if known is None:
        return None
    said = asdict(known)
    return results.AlertContext(
        **said
        | {
            "coverage": round(known.coverage, 6),
            "notice_on": None if known.notice_on is None else known.notice_on.isoformat(),
            "contacts": [{"contact_id": name, "role": role} for name, role in known.contacts],
            "restore_text": restore_in_words(known, policy.model.language),
        }
    )


def _tell_action(
    row: Account, acted: Acted, cause: Cause, stamp: Mapping[str, Any], emit: Emit, policy: Policy
) -> Told:
    """Emit what a person did; what had been done before is not told again."""
    action, alert, told = acted.action, acted.alert, Told([])
    if not acted.news:
        return told
    said: dict[str, Any] = {"by": action.by, "note": action.note}
    if action.what == "resolved" and isinstance(alert, Episode):
        phrase, language = "closed" if action.by else "closed_by_nobody", policy.model.language
        why = phrases.text(phrase, language, by=action.by, title=alert.title)
        fields = {**alert_fields(alert), "why": why, "next_step": None}
        ending = results.AlertResolved(**stamp, **fields, **said, opened_at=alert.opened_at, baseline=alert.baseline)
        emit(topics.ALERTS, ending, f"alert.resolved:{alert.alert_id}")
        told.episodes.append((row.account_id, row.partition, alert, cause.clock))
    else:
        head = {**stamp, "alert_id": alert.alert_id, "service": "health", "rule": alert.rule, **said}
        event: Event
        if action.what == "snoozed":
            said["until"] = None if action.until is None else instant(action.until)
            event = results.AlertSnoozed(**head, until=action.until)
        elif action.what == "rated":
            said |= {"useful": action.useful, "verdict": action.verdict}
            event = results.AlertRated(**head, useful=action.useful, verdict=action.verdict)
        else:
            event = results.AlertAcknowledged(**head)
        emit(RESULTS, event, f"alert.{action.what}:{alert.alert_id}")
    told.log.append(_log(row, cause, alert, action.what, said))
    return told


def _log(row: Account, cause: Cause, alert: Episode | Past, what: str, said: Mapping[str, Any]) -> LogRow:
    return alert.alert_id, cause.clock, cause.id, what, row.account_id, row.partition, alert.rule, said


def with_names(memory: Memory, account_id: str, people: People) -> Memory:
    """Put the names of people into the evidence of the open alerts."""
    return replace(memory, open=tuple(_named(episode, account_id, people) for episode in memory.open))


def _named(episode: Episode, account_id: str, people: People) -> Episode:
    if not episode.people:
        return episode
    names = [name for person in episode.people if (name := people.get((account_id, person)))]
    return replace(episode, evidence={**episode.evidence, "people": names}, people=())


def score_event(score: scoring.Score) -> results.Score:
    return results.Score.model_validate(_score(score))


def _score(score: scoring.Score) -> dict[str, Any]:
    """A score as `results.Score` has it: to validate the whole once takes half of one part after another."""
    return {
        "score": score.score,
        "band": score.band,
        "exact": score.shown,
        "coverage": score.coverage,
        "profile": score.profile,
        "profile_reason": score.because,
        "uncapped": score.uncapped,
        "caps": [{"cap": name, "at": at} for name, at in score.caps],
        "override": _override(score),
        "parts": [
            {
                "measure": part.measure,
                "group": part.group,
                "value": part.value,
                "points": part.points,
                "weight": part.weight,
                "reason": part.reason,
                "as_of": part.as_of,
            }
            for part in score.parts
        ],
    }


def _override(score: scoring.Score) -> results.ScoreOverride | None:
    said = score.overridden
    if said is None:
        return None
    return results.ScoreOverride(
        by=said.by, reason=said.reason, until=said.until, score=said.score, band=said.band, exact=score.exact
    )


def alert_fields(episode: Episode) -> dict[str, Any]:
    return {
        "alert_id": episode.alert_id,
        "service": "health",
        "rule": episode.rule,
        "kind": episode.kind,
        "severity": episode.severity,
        "title": episode.title,
        "why": episode.why,
        "next_step": episode.next_step,
        "evidence": dict(sorted(episode.evidence.items())),
    }


Done = Acted | Declined | Learnt | Dismissed | None
"""What an action came to, if the request was one that could be carried out."""
ASKED = ("health.score", "health.indicators", "health.alerts")


def demand_of(signal: Signal) -> str:
    return signal.demand or signal.data.demand or ""


def reply(
    signal: Signal, standing: tuple[Facts, Memory] | None, exists: bool, came: Done, unit: UnitOfWork, policy: Policy
) -> None:
    """Answer a request about one account as of now, say what was done, or why not."""
    demand, clock = demand_of(signal), unit.clock(signal.partition)
    if isinstance(came, Declined):
        unit.decline(signal, came.reason)
    elif isinstance(came, Acted):
        unit.answer(signal, done(signal.account_id, came, policy), clock)
    elif isinstance(came, Dismissed):
        unit.answer(signal, guiding.done(signal.account_id, came, policy), clock)
    elif isinstance(came, Learnt):
        unit.answer(signal, {"account_id": signal.account_id, "override": overrides.told(came.mark)}, clock)
    elif demand not in (*ASKED, *actions.DEMANDS, overrides.DEMAND, guiding.DEMAND):
        unit.decline(signal, f"health does not answer {demand or 'a request without a demand'} yet")
    elif not signal.data.account_id and not exists:
        unit.decline(signal, f"{demand} answers for one account at a time: name it in account_id")
    elif not exists and standing is None:
        unit.decline(signal, f"account {signal.account_id!r} is not known: no event has named it")
    elif clock is None or standing is None:
        unit.decline(signal, "the first import has not ended: ask again once `hune status` shows a clock")
    elif "as_of" in signal.data.parameters:
        unit.decline(signal, f"{demand} answers as of now; for another time: hune score {signal.account_id} --as-of T")
    else:
        known, memory = standing
        unit.answer(signal, _answer(demand, known, memory, clock, policy), clock)


def _answer(demand: str, known: Facts, memory: Memory, at: datetime, policy: Policy) -> dict[str, Any]:
    head: dict[str, Any] = {"account_id": known.account_id, "config_hash": policy.digest}
    if demand == "health.alerts":
        return open_alerts(known.account_id, memory, policy)
    now = facts.picture(known, at)
    score = overrides.score_of(known, now, policy.model)
    if demand == "health.indicators":
        return {**head, "indicators": indicators(score, policy)}
    advice = {"next_step": next_step(memory), "recommendations": guiding.shown(memory.guidance)}
    return {**head, **score_fields(score, policy), **advice}


def open_alerts(account_id: str, memory: Memory, policy: Policy) -> dict[str, Any]:
    alerts = [_alert(episode) for episode in memory.open]
    return {"account_id": account_id, "config_hash": policy.digest, "alerts": alerts}


def score_fields(score: scoring.Score, policy: Policy) -> dict[str, Any]:
    """A score as JSON, with a sentence on what weighs on it."""
    language = policy.model.language
    if score.overridden is not None:
        why = overrides.why(None, score, language) or ""
    elif score.score is None:
        why = wording.why_changed(None, score, {}, policy.model, language)
    else:
        why = wording.weakest(score.parts, policy.model, language)
    return {**score_event(score).model_dump(mode="json"), "why": why}


def indicators(score: scoring.Score, policy: Policy) -> list[dict[str, Any]]:
    """The measures with their values, in words and figures."""
    language, measures = policy.model.language, policy.model.measures
    return [
        {
            **part.model_dump(mode="json"),
            "label": measures[part.measure].label.to(language),
            "text": wording.value_of(measures[part.measure], part.value, language),
        }
        for part in score_event(score).parts
    ]


def _alert(episode: Episode) -> dict[str, Any]:
    opened_at = episode.opened_at.isoformat().replace("+00:00", "Z")
    return {
        **alert_fields(episode),
        "opened_at": opened_at,
        "baseline": episode.baseline,
        "acknowledged_at": None if episode.acknowledged_at is None else instant(episode.acknowledged_at),
        "acknowledged_by": episode.acknowledged_by,
        "snoozed": episode.snoozed,
        "snoozed_until": None if episode.snoozed_until is None else instant(episode.snoozed_until),
    }


def done(account_id: str, acted: Acted, policy: Policy) -> dict[str, Any]:
    """What an action came to: the alert as it then stood."""
    action, alert = acted.action, acted.alert
    over = isinstance(alert, Past) or action.what == "resolved"
    shown = _alert(alert) if isinstance(alert, Episode) else {"alert_id": alert.alert_id, "rule": alert.rule}
    return {
        "account_id": account_id,
        "config_hash": policy.digest,
        "done": action.what,
        "already": not acted.news,
        "alert": {**shown, "state": "resolved" if over else "open"},
    }
