"""Where data broke on the way: features that fall across all accounts at once, and sources that fall silent.

Both are functions of counts over the whole book: accounts per feature and UTC day, and hours in which a source sent.
So order, batches and repeats never matter, and what comes late undoes a break that never was.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import numpy as np

from services.health.rules import SourceSilent, TrackingBreak
from services.health.usage import DAY_US, Events

WEEKS = 4
"""So many of the same days of the week make what is usual."""
LEAST_WEEKS = 2
REACH_WEEKS = 6
"""So far back they are looked for: days of a break do not count."""
JUDGED_DAYS = 30
"""Days so far back are judged anew each time; what was decided of older ones stays."""
KEPT_DAYS = JUDGED_DAYS + 7 * REACH_WEEKS
HOURS_OF_WEEK = 168
_EPOCH_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Break:
    """UTC days on which use did not arrive: of a feature, or all of a source's; `until` None: it lasts."""

    what: Literal["feature", "source"]
    name: str
    since: date
    until: date | None = None

    def lasts(self, day: date) -> bool:
        return self.until is None or day < self.until


@dataclass(slots=True)
class Day:
    """How many accounts used anything on a day, and each feature."""

    active: int = 0
    features: dict[str, int] = field(default_factory=dict)
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = sum(self.features.values())

    def add(self, active: int, features: Mapping[str, int]) -> None:
        self.active += active
        self.total += sum(features.values())
        for name, accounts in features.items():
            self.features[name] = self.features.get(name, 0) + accounts


def breaks(
    days: Mapping[date, Day], last: date, rule: TrackingBreak, known: Iterable[Break] = (), judged: int = JUDGED_DAYS
) -> list[Break]:
    """The breaks of all features up to a day, those of before what is judged as they are known."""
    first = last - timedelta(days=judged - 1)
    older: dict[str, list[Break]] = {}
    for one in known:
        if one.what == "feature" and one.since < first:
            older.setdefault(one.name, []).append(one)
    names = sorted({name for day in days.values() for name in day.features} | older.keys())
    return [one for name in names for one in _breaks_of(name, days, first, last, rule, older.get(name, ()))]


def _breaks_of(
    name: str, days: Mapping[date, Day], first: date, last: date, rule: TrackingBreak, older: Sequence[Break]
) -> Iterator[Break]:
    broken = {
        day for one in older for day in _span(one.since, min(one.until or first, first))
    }  # fmt: skip
    running = next((one.since for one in older if one.lasts(first)), None)
    yield from (one for one in older if not one.lasts(first))
    for day in _span(first, last + timedelta(days=1)):
        level = usual(name, day, days, broken)
        holds = running is not None
        if level is not None and level[1] >= rule.accounts:
            seen, expected = level
            if running is None:
                holds = seen <= rule.enter * expected and _at_most(seen, expected) <= rule.chance
            else:
                holds = seen < rule.leave * expected
        if holds:
            running = running or day
            broken.add(day)
        elif running is not None:
            yield from _lived(name, running, day, rule)
            running = None
    if running is not None and (last - running).days < rule.at_most_days:
        yield Break("feature", name, running)


def _lived(name: str, since: date, until: date, rule: TrackingBreak) -> Iterator[Break]:
    if (until - since).days <= rule.at_most_days:
        yield Break("feature", name, since, until)


def usual(name: str, day: date, days: Mapping[date, Day], broken: Collection[date] = ()) -> tuple[int, float] | None:
    """Accounts that used a feature on a day, and how many are usual on such a day; None where too little is known.

    Usual is the mean of the same days of the week, less where the other features say that this is a quiet day.
    """
    today = days.get(day)
    same = [
        found
        for week in range(1, REACH_WEEKS + 1)
        if (then := day - timedelta(days=7 * week)) not in broken and (found := days.get(then)) and found.active
    ][:WEEKS]
    if today is None or len(same) < LEAST_WEEKS:
        return None
    seen, used = today.features.get(name, 0), sum(one.features.get(name, 0) for one in same)
    others = sum(one.total for one in same) - used
    if not others:
        return None
    return seen, used / len(same) * min(1.0, (today.total - seen) * len(same) / others)


def _at_most(seen: int, expected: float) -> float:
    """How likely so few are where so many are expected (Poisson)."""
    logs = [k * math.log(expected) - expected - math.lgamma(k + 1) for k in range(seen + 1)]
    top = max(logs)
    return min(1.0, math.exp(top) * math.fsum(math.exp(one - top) for one in logs))


def _span(since: date, until: date) -> Iterator[date]:
    for step in range((until - since).days):
        yield since + timedelta(days=step)


def count(parts: Iterable[Events]) -> dict[date, tuple[int, dict[int, int]]]:
    """Per UTC day: accounts with any use, and accounts per hash of a feature; one part is one account's use."""
    found: dict[date, tuple[int, dict[int, int]]] = {}
    for events in parts:
        pairs = np.empty(events.size, [("day", "<i8"), ("feature", "<u8")])
        pairs["day"], pairs["feature"] = events["at"] // DAY_US, events["feature"]
        seen: dict[int, list[int]] = {}
        for number, feature in np.unique(pairs).tolist():
            seen.setdefault(number, []).append(feature)
        for number, features in seen.items():
            active, counts = found.get(day := date.fromordinal(_EPOCH_DAY + number), (0, {}))
            for feature in features:
                if feature:
                    counts[feature] = counts.get(feature, 0) + 1
            found[day] = active + 1, counts
    return found


# Sources


@dataclass(frozen=True, slots=True)
class Silence:
    """A source without a word from the hour after `last` on, until `until` (None: it lasts); hours since 1970."""

    last: int
    until: int | None
    missed: float
    a_week: float


def silences(heard: Collection[int], now: int, rule: SourceSilent) -> list[Silence]:
    """The silences of a source by the hours in which it sent (since 1970), complete hours up to `now`."""
    hours = sorted(hour for hour in heard if hour <= now)
    known = frozenset(hours)
    found = []
    for place, last in enumerate(hours):
        following = hours[place + 1] if place + 1 < len(hours) else None
        end = now if following is None else following
        if end - last - 1 >= rule.hours and (one := _silence(known, hours[0], last, end, following, rule)) is not None:
            found.append(one)
    return found


def _silence(
    heard: frozenset[int], first: int, last: int, end: int, until: int | None, rule: SourceSilent
) -> Silence | None:
    weeks = min(WEEKS, (last + 1 - first) // HOURS_OF_WEEK)
    if weeks < LEAST_WEEKS:
        return None  # nobody knows its rhythm yet
    rhythm = [0.0] * HOURS_OF_WEEK
    for hour in range(last + 1 - weeks * HOURS_OF_WEEK, last + 1):
        if hour in heard:
            rhythm[hour % HOURS_OF_WEEK] += 1 / weeks
    a_week = math.fsum(rhythm)
    gone, rest = divmod(end - last - 1, HOURS_OF_WEEK)
    missed = gone * a_week + math.fsum(rhythm[(last + 1 + step) % HOURS_OF_WEEK] for step in range(rest))
    if missed < max(rule.missed, rule.share * a_week):
        return None
    return Silence(last, until, missed, a_week)


def hour_of(at: datetime) -> int:
    return int(at.timestamp() // 3600)


def time_of(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, UTC)


def days_of(silence: Silence) -> tuple[date, date | None] | None:
    """The UTC days after the one of the last word, up to the one of the next; None: no whole day among them."""
    since = time_of(silence.last).date() + timedelta(days=1)
    until = None if silence.until is None else time_of(silence.until).date()
    return None if until is not None and until <= since else (since, until)


def hours_of(masks: Iterable[tuple[date, int]]) -> set[int]:
    """Hours since 1970 from days and bits of their hours."""
    return {
        (day.toordinal() - _EPOCH_DAY) * 24 + hour for day, mask in masks for hour in range(24) if mask >> hour & 1
    }  # fmt: skip
