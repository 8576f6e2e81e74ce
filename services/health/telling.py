"""Decisions in the words of the contract: score changes, states, alerts, and answers to requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from services.health import facts, scoring, wording
from services.health.domain import Change, Decision, Episode, Memory, Policy
from services.health.facts import Facts
from services.health.store import Account
from shared import topics
from shared.events import Event, results
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork

RESULTS = topics.RESULTS["health"]
People = Mapping[tuple[str, int], str]


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
    """What to record of a decision: episodes with their end, and the score's change."""

    episodes: list[tuple[str, int, Episode, datetime | None]]
    score: tuple[str, int, datetime, str, Change] | None


def tell(row: Account, decision: Decision, cause: Cause, people: People, unit: UnitOfWork, policy: Policy) -> Told:
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

    change = decision.change
    if change:
        event = results.HealthScoreChanged(
            **stamp,
            previous=score_event(change.previous) if change.previous else None,
            current=score_event(change.current),
            shares=tuple(
                results.ShareOfChange(cause=name, points=points)
                for name, points in scoring.largest_first(change.shares)
            ),
            why=change.why,
            baseline=cause.baseline,
        )
        emit(RESULTS, event, "health_score.changed")
    if decision.state is not None:
        state = results.AccountState(account_id=row.account_id, as_of=cause.clock, **decision.state)
        emit(topics.STATE_ACCOUNTS, state, "account.state")
    opened = [_named(episode, row.account_id, people) for episode in decision.opened]
    for episode in opened:
        opening = results.AlertOpened(**stamp, **alert_fields(episode), baseline=episode.baseline)
        emit(topics.ALERTS, opening, f"alert.opened:{episode.rule}:{episode.cause}")
    for episode in decision.resolved:
        over = wording.text("resolved", policy.model.language, title=episode.title)
        fields = {**alert_fields(episode), "why": over, "next_step": None}
        ending = results.AlertResolved(**stamp, **fields, opened_at=episode.opened_at)
        emit(topics.ALERTS, ending, f"alert.resolved:{episode.alert_id}")
    episodes: list[tuple[str, int, Episode, datetime | None]] = []
    episodes += [(row.account_id, row.partition, episode, None) for episode in opened]
    episodes += [(row.account_id, row.partition, episode, cause.clock) for episode in decision.resolved]
    score = (row.account_id, row.partition, cause.clock, cause.id, change) if change else None
    return Told(episodes, score)


def with_names(memory: Memory, account_id: str, people: People) -> Memory:
    """Put the names of people into the evidence of the open alerts."""
    return replace(memory, open=tuple(_named(episode, account_id, people) for episode in memory.open))


def _named(episode: Episode, account_id: str, people: People) -> Episode:
    if not episode.people:
        return episode
    names = [name for person in episode.people if (name := people.get((account_id, person)))]
    return replace(episode, evidence={**episode.evidence, "people": names}, people=())


def score_event(score: scoring.Score) -> results.Score:
    return results.Score(
        score=score.score,
        band=score.band,
        exact=score.exact,
        coverage=score.coverage,
        parts=tuple(
            results.Part(
                measure=part.measure,
                group=part.group,
                value=part.value,
                points=part.points,
                weight=part.weight,
                reason=part.reason,
                as_of=part.as_of,
            )
            for part in score.parts
        ),
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


def reply(
    signal: Signal, standing: tuple[Facts, Memory] | None, exists: bool, unit: UnitOfWork, policy: Policy
) -> None:
    """Answer a request about one account as of now, or say why not."""
    demand, clock = signal.demand or signal.data.demand or "", unit.clock(signal.partition)
    if demand not in ("health.score", "health.indicators", "health.alerts"):
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
        return {**head, "alerts": [_alert(episode) for episode in memory.open]}
    now = facts.picture(known, at)
    score = scoring.score_of(known, now, policy.model)
    if demand == "health.indicators":
        return {**head, "indicators": indicators(score, policy)}
    return {**head, **score_fields(score, policy)}


def score_fields(score: scoring.Score, policy: Policy) -> dict[str, Any]:
    """A score as JSON, with a sentence on what weighs on it."""
    language = policy.model.language
    if score.score is None:
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
    return {**alert_fields(episode), "opened_at": opened_at, "baseline": episode.baseline}
