"""What a person does about an alert, as a request: acknowledge, snooze, resolve, rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from services.health.domain import Memory
from services.health.episodes import Episode
from shared import requests
from shared.requests import Unusable
from shared.times import instant

What = Literal["acknowledged", "snoozed", "resolved", "rated"]
Verdict = Literal["acted", "noise", "early"]
DEMANDS: Mapping[str, What] = {
    "alert.acknowledge": "acknowledged",
    "alert.snooze": "snoozed",
    "alert.resolve": "resolved",
    "alert.rate": "rated",
}
VERDICTS: tuple[Verdict, ...] = ("acted", "noise", "early")
MOST_DAYS = 366
MOST_NOTE = 1000


@dataclass(frozen=True, slots=True)
class Action:
    """`until` null of a snooze: until it changes."""

    what: What
    alert_id: str
    by: str | None
    note: str | None
    until: datetime | None = None
    useful: bool = True
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """An alert that is over, as it was recorded."""

    alert_id: str
    account_id: str
    rule: str
    title: str
    resolved_at: datetime


@dataclass(frozen=True, slots=True)
class Acted:
    """What an action came to; `news` is False when it had been done before."""

    action: Action
    alert: Episode | Past
    memory: Memory
    news: bool = True


@dataclass(frozen=True, slots=True)
class Declined:
    """Why nothing was done."""

    reason: str


def read(demand: str, parameters: Mapping[str, Any], user_id: str | None, now: datetime) -> Action:
    """An action as it was asked for; raises Unusable naming the parameter."""
    what = DEMANDS[demand]
    alert_id = requests.text(parameters, "alert_id")
    if alert_id is None:
        raise Unusable(f"parameter alert_id is missing: {demand} acts on one alert; health.alerts lists them")
    by, note = requests.text(parameters, "by") or user_id, parameters.get("note")
    if note is not None and (not isinstance(note, str) or len(note) > MOST_NOTE):
        raise Unusable(f"parameter note takes a text of at most {MOST_NOTE} characters")
    action = Action(what, alert_id, by, note)
    if what == "snoozed":
        return replace(action, until=_until(parameters, now))
    if what == "rated":
        return _rating(action, parameters)
    return action


def _until(parameters: Mapping[str, Any], now: datetime) -> datetime | None:
    until, days = requests.time(parameters, "until"), parameters.get("days")
    if days is not None:
        if until is not None or isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS:
            raise Unusable(
                f"alert.snooze takes until (a time) or days (1 to {MOST_DAYS}), or neither: until it changes"
            )
        until = now + timedelta(days=days)
    if until is not None and not now < until <= now + timedelta(days=MOST_DAYS):
        raise Unusable(f"parameter until is {instant(until)}; it takes a time within {MOST_DAYS} days from now")
    return until


def _rating(action: Action, parameters: Mapping[str, Any]) -> Action:
    useful, said = requests.flag(parameters, "useful"), requests.text(parameters, "verdict", VERDICTS)
    verdict = next((one for one in VERDICTS if one == said), None)
    if useful is None and verdict is None:
        raise Unusable(f"alert.rate takes useful (true or false) or verdict ({', '.join(VERDICTS)})")
    return replace(action, useful=verdict != "noise" if useful is None else useful, verdict=verdict)


def act(action: Action, memory: Memory, past: Mapping[str, Past], account_id: str, now: datetime) -> Acted | Declined:
    """Carry an action out on what is remembered of its account."""
    episode = next((one for one in memory.open if one.alert_id == action.alert_id), None)
    if episode is None:
        over = past.get(action.alert_id)
        if over is None or over.account_id != account_id:
            return Declined(
                f"account {account_id!r} has no alert {action.alert_id!r}; health.alerts lists what is open"
            )
        if action.what == "rated":
            return Acted(action, over, memory)
        return Declined(f"alert {action.alert_id!r} ({over.title}) was over at {instant(over.resolved_at)}")
    match action.what:
        case "acknowledged":
            if episode.acknowledged_at is not None:
                return Acted(action, episode, memory, news=False)
            after = replace(episode, acknowledged_at=now, acknowledged_by=action.by)
        case "snoozed":
            after = replace(episode, snoozed=True, snoozed_until=action.until)
        case "rated":
            return Acted(action, episode, memory)
        case "resolved":
            rest = tuple(one for one in memory.open if one is not episode)
            hush = replace(memory.hush, closed=(*memory.hush.closed, episode.name))
            return Acted(action, episode, replace(memory, open=rest, hush=hush))
    return Acted(action, after, replace(memory, open=tuple(after if one is episode else one for one in memory.open)))
