"""Scores as they would have been, held against who left afterwards.

At each cut-off an account is scored from what had happened before it, and from nothing else: whatever is done to a
later event, the score stays the same to the last bit. Who left within the horizon is read from the events after it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np

from services.health import facts, leaving, scoring
from services.health.backtest import Floats, Sample, Scored
from services.health.facts import Facts
from services.health.leaving import Leaving
from services.health.scoring import Score
from services.health.settings import Model
from services.health.usage import DAY_US, micros, moment

Leavings = Mapping[str, Sequence[Leaving]]
"""By account, the oldest first."""
BUDGET = 5
"""So many alerts a CSM gets to in a week."""
WARM_UP_DAYS = 60
"""Before so much history there is little to score by."""


@dataclass(frozen=True, slots=True)
class Look:
    """An account at a cut-off; `days_left` is how long after it left within the horizon, None if it did not."""

    account_id: str
    at: datetime
    owner: str
    score: Score
    days_left: float | None


@dataclass(frozen=True, slots=True)
class Window:
    """What is looked back on: cut-offs from `start` on, each with a whole horizon up to `end` after it."""

    start: datetime
    end: datetime
    horizon: timedelta

    @property
    def last(self) -> datetime:
        return self.end - self.horizon

    def months(self) -> list[datetime]:
        """The first instants of UTC months."""
        found, at = [], self.start.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        while at <= self.last:
            if at >= self.start:
                found.append(at)
            at = (at + timedelta(days=32)).replace(day=1)
        return found

    def weeks(self) -> list[datetime]:
        """Mondays, 00:00 UTC."""
        day = self.start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        at, found = day - timedelta(days=day.weekday()), []
        while at <= self.last:
            if at >= self.start:
                found.append(at)
            at += timedelta(days=7)
        return found


def before(known: Facts, at: datetime) -> Facts:
    """What had happened before a moment, and nothing of what came then or later."""
    until = micros(at)
    things = {
        key: past for key, marks in known.things.items() if (past := tuple(mark for mark in marks if mark.at < until))
    }
    past_use = tuple(events[events["at"] < until] for events in known.usage)
    return Facts(known.account_id, things, past_use, peers=known.peers)


def scored(known: Facts, at: datetime, model: Model) -> tuple[Score, str] | None:
    """The score at a cut-off and whose account it was; None when it was no customer then."""
    past = before(known, at)
    now = facts.picture(past, at)
    gone = leaving.leavings(past)
    if now.latest_at is None or (gone and gone[-1].back_at is None):
        return None
    return scoring.score_of(past, now, model), now.profile.owner or ""


def look(known: Facts, at: datetime, model: Model, left: Sequence[Leaving], horizon: timedelta) -> Look | None:
    found = scored(known, at, model)
    if found is None:
        return None
    cut, until = micros(at), micros(at + horizon)
    gone_at = next((one.at for one in left if cut <= one.at < until), None)
    return Look(known.account_id, at, found[1], found[0], None if gone_at is None else (gone_at - cut) / DAY_US)


@dataclass(frozen=True, slots=True)
class Hindsight:
    """A model's scores at monthly and weekly cut-offs."""

    months: tuple[Look, ...]
    weeks: tuple[tuple[Look, ...], ...]


def look_back(book: Sequence[Facts], left: Leavings, window: Window, model: Model, *, weekly: bool = True) -> Hindsight:
    """What a model would have said of every account at the window's cut-offs."""

    def at(cut: datetime) -> tuple[Look, ...]:
        found = (look(known, cut, model, left[known.account_id], window.horizon) for known in book)
        return tuple(one for one in found if one is not None)

    weeks = window.weeks() if weekly else []
    return Hindsight(tuple(one for cut in window.months() for one in at(cut)), tuple(map(at, weeks)))


def sample_of(looks: Sequence[Look]) -> Sample:
    left = np.array([one.days_left is not None for one in looks], bool)
    return Sample(left, [one.account_id for one in looks])


def scored_of(looks: Sequence[Look]) -> Scored:
    scores = [math.nan if one.score.exact is None else one.score.exact for one in looks]
    return Scored(np.array(scores, np.float64), [one.score.band for one in looks])


def lead_of(looks: Sequence[Look]) -> Floats:
    return np.array([math.nan if one.days_left is None else one.days_left for one in looks], np.float64)


@dataclass(frozen=True, slots=True)
class Told:
    """An alert that a CSM would have got."""

    account_id: str
    owner: str
    at: datetime
    came_true: bool


@dataclass(frozen=True, slots=True)
class Alerts:
    """What a team would have felt: of the alerts, how many came true; of those who left, how many had been told."""

    told: tuple[Told, ...]
    weeks: int
    owners: int
    held_back: int
    """Accounts that turned red in a week in which their CSM had enough already, counted once a week."""
    leavings: int
    foretold: int
    days_before: tuple[float, ...]
    """From the first alert of the horizon before it to each leaving that was foretold."""

    @property
    def precision(self) -> float | None:
        return sum(one.came_true for one in self.told) / len(self.told) if self.told else None

    @property
    def recall(self) -> float | None:
        return self.foretold / self.leavings if self.leavings else None

    @property
    def median_days_before(self) -> float | None:
        return median(self.days_before) if self.days_before else None

    @property
    def per_owner_and_week(self) -> float | None:
        return len(self.told) / (self.weeks * self.owners) if self.weeks and self.owners else None


def alerts(
    weeks: Sequence[Sequence[Look]],
    left: Leavings,
    horizon: timedelta,
    budget: int = BUDGET,
) -> Alerts:
    """Each week each CSM hears of at most `budget` accounts that are red, the lowest scores first.

    An account is told once while it stays red, and again when a horizon has passed.
    """
    told: list[Told] = []
    last_told: dict[str, datetime] = {}
    held_back = 0
    for looks in weeks:
        for one in looks:
            if one.score.band not in ("red", "unknown"):
                last_told.pop(one.account_id, None)
        waiting: dict[str, list[Look]] = {}
        for one in looks:
            before = last_told.get(one.account_id)
            if one.score.band == "red" and (before is None or one.at - before >= horizon):
                waiting.setdefault(one.owner, []).append(one)
        for owner in sorted(waiting):
            ranked = sorted(waiting[owner], key=lambda one: (one.score.exact, one.account_id))
            held_back += max(0, len(ranked) - budget)
            for one in ranked[:budget]:
                told.append(Told(one.account_id, owner, one.at, one.days_left is not None))
                last_told[one.account_id] = one.at
    days = list(_days_before(told, _within(weeks, left, horizon), horizon))
    return Alerts(
        told=tuple(told),
        weeks=len(weeks),
        owners=len({one.owner for looks in weeks for one in looks}),
        held_back=held_back,
        leavings=len(days),
        foretold=sum(one is not None for one in days),
        days_before=tuple(one for one in days if one is not None),
    )


def _within(weeks: Sequence[Sequence[Look]], left: Leavings, horizon: timedelta) -> Iterator[tuple[str, int]]:
    """Leavings that some look came at most a horizon before."""
    seen: dict[str, list[int]] = {}
    for looks in weeks:
        for one in looks:
            seen.setdefault(one.account_id, []).append(micros(one.at))
    reach = micros(moment(0) + horizon)
    for account_id in sorted(seen):
        for gone in left.get(account_id, ()):
            if any(at <= gone.at < at + reach for at in seen[account_id]):
                yield account_id, gone.at


def _days_before(told: Iterable[Told], gone: Iterable[tuple[str, int]], horizon: timedelta) -> Iterator[float | None]:
    """For each leaving the days since the first alert that was at most a horizon before it; None without any."""
    times: dict[str, list[int]] = {}
    for one in told:
        times.setdefault(one.account_id, []).append(micros(one.at))
    reach = micros(moment(0) + horizon)
    for account_id, at in gone:
        own = times.get(account_id, [])
        first = bisect_left(own, at - reach + 1)
        yield (at - own[first]) / DAY_US if first < len(own) and own[first] <= at else None


def window_of(
    known: Iterable[Facts], end: datetime, horizon: timedelta, start: datetime | None = None
) -> Window | None:
    """From when there is enough history (or from `start`) up to T; None when nothing has happened by then."""
    times = [mark.at for one in known for marks in one.things.values() for mark in marks]
    times += [int(events["at"].min()) for one in known for events in one.usage if events.size]
    first = min(times, default=None)
    if start is None and first is None:
        return None
    return Window(start or moment(first or 0) + timedelta(days=WARM_UP_DAYS), end, horizon)
