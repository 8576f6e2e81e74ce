"""What is known of an alert and of its account, as it is to be told: folds over what the topics say."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

SEVERITIES = ("low", "medium", "high", "critical")
What = Literal["opened", "escalated", "reminded", "resolved", "acknowledged", "snoozed"]
MOST_HISTORY = 50


def rank(severity: str) -> int:
    """0 for the least; a severity that is not known counts as the least."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


@dataclass(frozen=True, slots=True)
class Weighing:
    """What one measure costs the score: `lost` points more if it were perfect."""

    label: str
    value: str
    lost: float


@dataclass(frozen=True, slots=True)
class Remedy:
    """What one measure must reach; `to_value` None where its points do not come from its value alone."""

    label: str
    value: str
    to_value: str | None
    points: float
    to_points: float


@dataclass(frozen=True, slots=True)
class Touch:
    """The last contact in both directions."""

    at: datetime
    by: str | None
    channel: str | None


@dataclass(frozen=True, slots=True)
class Context:
    """What an alert said of its account as it stood when it was told; `contacts`: id and role of whom to call."""

    name: str | None
    owner: str | None
    segment: str | None
    arr: str | None
    score: int | None
    band: str
    previous_score: int | None
    previous_band: str | None
    coverage: float
    caps: tuple[str, ...]
    notice_on: str | None
    touch: Touch | None
    contacts: tuple[tuple[str, str], ...]
    rule: str
    parts: tuple[Weighing, ...]
    restore: tuple[Remedy, ...]
    restored_score: int | None


@dataclass(frozen=True, slots=True)
class Said:
    """One event of an episode."""

    event_id: str
    what: What
    alert_id: str
    account_id: str
    partition: int
    at: datetime
    service: str = ""
    rule: str = ""
    kind: str = "risk"
    severity: str = "low"
    title: str = ""
    why: str = ""
    next_step: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    baseline: bool = False
    cause_ids: tuple[str, ...] = ()
    computed_at: datetime | None = None
    by: str | None = None
    until: datetime | None = None
    context: Context | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A line of an episode's history."""

    version: int
    what: str
    at: datetime
    severity: str
    why: str
    by: str | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Episode:
    """An alert as far as it has come; `version` counts what is worth telling."""

    alert_id: str
    account_id: str
    partition: int
    service: str
    rule: str
    kind: str
    severity: str
    title: str
    why: str
    next_step: str | None
    evidence: Mapping[str, Any]
    opened_at: datetime
    computed_at: datetime
    cause_ids: tuple[str, ...]
    baseline: bool
    state: Literal["open", "resolved"] = "open"
    version: int = 1
    resolved_at: datetime | None = None
    acknowledged_by: str | None = None
    snoozed: bool = False
    snoozed_until: datetime | None = None
    history: tuple[Step, ...] = ()
    context: Context | None = None

    @property
    def is_open(self) -> bool:
        return self.state == "open"


def told(episode: Episode | None, said: Said) -> Episode | None:
    """The episode after one more event; None when the event says nothing new, or nothing of an episode there is."""
    if episode is None:
        return _opened(said) if said.what == "opened" else None
    if said.event_id in {step.event_id for step in episode.history}:
        return None
    if said.what == "opened" or not episode.is_open:
        return None
    version = episode.version + 1
    severity = said.severity if said.what == "escalated" else episode.severity
    step = Step(version, said.what, said.at, severity, said.why, said.by, said.event_id)
    after = replace(episode, version=version, history=(*episode.history, step)[-MOST_HISTORY:])
    match said.what:
        case "escalated":
            return replace(
                after,
                severity=said.severity,
                title=said.title,
                why=said.why,
                next_step=said.next_step,
                evidence=said.evidence,
                baseline=episode.baseline and said.baseline,
                snoozed=False,
                snoozed_until=None,
                context=said.context or episode.context,
            )
        case "reminded":
            return replace(after, snoozed=False, snoozed_until=None)
        case "resolved":
            return replace(after, state="resolved", resolved_at=said.at)
        case "acknowledged":
            return replace(after, acknowledged_by=said.by or "somebody")
        case _:
            return replace(after, snoozed=True, snoozed_until=said.until)


def forgotten(episode: Episode, person: str, alias: str) -> Episode:
    """The episode without a person, of whom only the SHA-256 is known: an alias for the id, and none of their words."""
    evidence = dict(episode.evidence)
    quote = evidence.pop("quote", None) if is_person(evidence.get("user_id"), person) else None
    names = {word for word in _words(evidence) if is_person(word, person)}
    context = episode.context
    if context is not None:
        names |= {contact for contact, _ in context.contacts if is_person(contact, person)}
        contacts = tuple((alias if contact in names else contact, role) for contact, role in context.contacts)
        context = replace(context, contacts=contacts)

    def without(text: str) -> str:
        text = text.replace(quote, "…") if isinstance(quote, str) and quote else text
        for name in sorted(names):
            text = re.sub(rf"(?<![\w.@-]){re.escape(name)}(?![\w@-])", lambda _: alias, text)
        return text

    return replace(
        episode,
        version=episode.version + 1,
        evidence=_renamed(evidence, names, alias),
        context=context,
        title=without(episode.title),
        why=without(episode.why),
        next_step=None if episode.next_step is None else without(episode.next_step),
        history=tuple(replace(step, why=without(step.why)) for step in episode.history),
    )


def is_person(word: object, person: str) -> bool:
    return isinstance(word, str) and hashlib.sha256(word.encode()).hexdigest() == person


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _words(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _words(one)


def _renamed(value: Any, names: Set[str], alias: str) -> Any:
    if isinstance(value, str):
        return alias if value in names else value
    if isinstance(value, Mapping):
        return {name: _renamed(one, names, alias) for name, one in value.items()}
    return [_renamed(one, names, alias) for one in value] if isinstance(value, list | tuple) else value


def _opened(said: Said) -> Episode:
    return Episode(
        alert_id=said.alert_id,
        account_id=said.account_id,
        partition=said.partition,
        service=said.service,
        rule=said.rule,
        kind=said.kind,
        severity=said.severity,
        title=said.title,
        why=said.why,
        next_step=said.next_step,
        evidence=said.evidence,
        opened_at=said.at,
        computed_at=said.computed_at or said.at,
        cause_ids=said.cause_ids,
        baseline=said.baseline,
        history=(Step(1, "opened", said.at, said.severity, said.why, None, said.event_id),),
        context=said.context,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """The last change of a score: whole points and bands, and what moved it most."""

    before: int | None
    before_band: str | None
    after: int | None
    after_band: str
    why: str
    shares: tuple[tuple[str, float], ...]
    coverage: float
    cause_ids: tuple[str, ...]
    computed_at: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """What an account's results said last; None where nothing did."""

    account_id: str
    name: str | None = None
    score: int | None = None
    band: str | None = None
    segment: str | None = None
    stage: str | None = None
    owner: str | None = None
    arr: str | None = None
    notice_on: str | None = None
    coverage_model: str | None = None
    change: Change | None = None
    touch: Touch | None = None

    def change_for(self, episode: Episode) -> Change | None:
        """The change of score that came with the episode, if it is the last one."""
        change = self.change
        if change is None or change.computed_at != episode.computed_at:
            return None
        return change if set(change.cause_ids) == set(episode.cause_ids) else None
