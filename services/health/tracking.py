"""Where data broke on the way: features that fall across all accounts at once, and sources that fall silent.

Both are functions of counts over the whole book up to a moment: accounts per feature and UTC day, and hours in which a
source sent, by the events' own times. So order, batches, repeats and the day of judgement never matter, and what comes
late undoes a break that never was.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import numpy as np

from services.health.rules import SourceSilent, TrackingBreak
from services.health.usage import DAY_US, Events

WEEKS = 4
"""So many of the same days of the week make what is usual."""
LEAST_WEEKS = 3
REACH_WEEKS = 6
"""So far back they are looked for: days of a break do not count."""
CONFIRM_DAYS = 3
"""So many low days one after the other are looked at together."""
MANY = 400
"""From so many accounts on the normal distribution will do."""
JUDGED_DAYS = 180
"""Days so far back are judged, each time anew: what is older is in no window of a score."""
KEPT_DAYS = JUDGED_DAYS + 7 * REACH_WEEKS
HOURS_OF_WEEK = 168
PUNCTUAL, PUNCTUAL_HOURS = 0.9, 8
DAYS_CHANCE = 1e-5
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


NOTHING = Day()


def breaks(days: Mapping[date, Day], last: date, rule: TrackingBreak, judged: int = JUDGED_DAYS) -> list[Break]:
    """The breaks of all features in the days up to one: a function of the counts of these days and of REACH_WEEKS more.

    Nothing that was decided before goes in, so the same days give the same breaks whenever they are asked for.
    """
    span = _span(last, judged + 7 * REACH_WEEKS)
    known = [days.get(day, NOTHING) for day in span]
    most: dict[str, int] = {}
    for day in known:
        for name, accounts in day.features.items():
            if accounts > most.get(name, 0):
                most[name] = accounts
    found = []
    for name in sorted(name for name, accounts in most.items() if accounts >= rule.accounts):
        for since, until in _falls(_series(name, known), 7 * REACH_WEEKS, rule):
            found.append(Break("feature", name, span[since], None if until is None else span[until]))
    return found


def level_of(one: Break, days: Mapping[date, Day], last: date) -> Level:
    """How a feature that is broken was used on the last day, against what is usual."""
    span = _span(last, (last - one.since).days + 7 * REACH_WEEKS + 1)
    series = _series(one.name, [days.get(day, NOTHING) for day in span])
    level = usual(series, len(span) - 1, range(span.index(one.since), len(span)))
    return level or Level(series.counts[-1], 0.0, 0)


def _span(last: date, days: int) -> list[date]:
    return [last - timedelta(days=ago) for ago in range(days - 1, -1, -1)]


def _series(name: str, known: Sequence[Day]) -> Series:
    return Series([day.features.get(name, 0) for day in known], [day.total for day in known],
                  [day.active > 0 for day in known])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Series:
    """A feature's accounts per day, those of all features together, and the days on which anything was used."""

    counts: Sequence[int]
    totals: Sequence[int]
    active: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Level:
    """Accounts that used a feature on a day, how many are usual on such a day, and by how many weeks that is known."""

    seen: int
    expected: float
    weeks: int


def _falls(series: Series, first: int, rule: TrackingBreak) -> Iterator[tuple[int, int | None]]:
    """Places from which on, and up to which, a feature was broken; day by day, by the days before alone."""
    broken: set[int] = set()
    running: int | None = None
    low: list[tuple[int, Level]] = []
    for place in range(first, len(series.counts)):
        if running is not None and place - running >= rule.at_most_days:
            broken -= set(range(running, place))  # a feature that is no more: what there is now becomes what is usual
            running, low = None, []
        level = usual(series, place, broken)
        if level is not None and level.expected >= rule.accounts:
            if running is not None:
                if level.seen >= rule.leave * level.expected:
                    yield running, place
                    running = None
            elif level.seen <= rule.enter * level.expected:
                low = [*low, (place, level)][-CONFIRM_DAYS:]
                running = _since(low, rule)
                if running is not None:
                    broken.update(range(running, place))
                    low = []
            else:
                low = []
        if running is not None:
            broken.add(place)
    if running is not None:
        yield running, None


def _since(low: Sequence[tuple[int, Level]], rule: TrackingBreak) -> int | None:
    """The first of the low days that together are no chance; the fewer accounts there are, the more days it takes."""
    for days in range(1, len(low) + 1):
        seen = sum(level.seen for _, level in low[-days:])
        expected = math.fsum(level.expected for _, level in low[-days:])
        weeks = min(level.weeks for _, level in low[-days:])
        if at_most(seen, expected, weeks) <= rule.chance:
            return low[-days][0]
    return None


def usual(series: Series, place: int, broken: Collection[int] = ()) -> Level | None:
    """How a feature was used on a day, and how that is usual; None where too little is known.

    Usual is the second lowest of the same days of four weeks (a single high one makes no habit), less where the other
    features say that this is a quiet day.
    """
    same = [
        then
        for week in range(1, REACH_WEEKS + 1)
        if (then := place - 7 * week) >= 0 and then not in broken and series.active[then]
    ][:WEEKS]
    if len(same) < LEAST_WEEKS or not series.active[place]:
        return None
    counts = [series.counts[then] for then in same]
    seen, others = series.counts[place], sum(series.totals[then] for then in same) - sum(counts)
    if not others:
        return None
    quiet = min(1.0, (series.totals[place] - seen) * len(same) / others)
    return Level(seen, sorted(counts)[1] * quiet, len(same))


def at_most(seen: int, expected: float, weeks: int) -> float:
    """How likely so few are where so many are expected from the mean of some weeks (negative binomial)."""
    if expected > MANY:
        deviation = math.sqrt(expected * (1 + 1 / weeks))
        return math.erfc((expected - seen - 0.5) / deviation / math.sqrt(2)) / 2
    size, share = expected * weeks, math.log(weeks / (weeks + 1))
    logs = [
        math.lgamma(k + size) - math.lgamma(size) - math.lgamma(k + 1) + size * share - k * math.log(weeks + 1)
        for k in range(seen + 1)
    ]
    top = max(logs)
    return min(1.0, math.exp(top) * math.fsum(math.exp(one - top) for one in logs))


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
    found = []
    for place, last in enumerate(hours):
        following = hours[place + 1] if place + 1 < len(hours) else None
        end = now if following is None else following
        if rule.hours < end - last <= 24 * rule.at_most_days and (
            one := _silence(hours[: place + 1], end, following, rule)
        ):
            found.append(one)
    return found


def _silence(heard: Sequence[int], end: int, until: int | None, rule: SourceSilent) -> Silence | None:
    """The silence after the last hour heard, if what came before says that it is one."""
    last = heard[-1]
    weeks = min(WEEKS, (last + 1 - heard[0]) // HOURS_OF_WEEK)
    if weeks < LEAST_WEEKS:
        return None  # nobody knows its rhythm yet
    base = heard[bisect(heard, last - weeks * HOURS_OF_WEEK) :]
    counts = [0] * HOURS_OF_WEEK
    for hour in base:
        counts[hour % HOURS_OF_WEEK] += 1
    a_week = len(base) / weeks
    gone, rest = divmod(end - last - 1, HOURS_OF_WEEK)
    missed = gone * a_week + sum(counts[(last + 1 + step) % HOURS_OF_WEEK] for step in range(rest)) / weeks
    if missed < max(rule.missed, min(rule.share * a_week, rule.most)):
        return None
    if _is_punctual(counts, weeks):
        return Silence(last, until, missed, a_week)
    # Hours heard by day of the week and week; days end with the last hour that was heard.
    days = [[0] * weeks for _ in range(7)]
    for hour in base:
        week, day = divmod((last - hour) // 24, 7)
        days[6 - day][week] += 1
    gone_days = (end - last - 1) // 24
    if _by_chance(days, weeks, missed) > rule.chance and _days_by_chance(days, weeks, gone_days) > DAYS_CHANCE:
        return None
    return Silence(last, until, missed, a_week)


def _is_punctual(counts: Sequence[int], weeks: int) -> bool:
    """Whether it always sent in the same hours of the week."""
    sent = sum(counts)
    return sent >= PUNCTUAL_HOURS and sum(n for n in counts if n == weeks) >= PUNCTUAL * sent


def _by_chance(days: Sequence[Sequence[int]], weeks: int, missed: float) -> float:
    """How likely so many hours are missed by a source that sends at random, in bursts as it did before.

    How much the same days of the week differ (variance / mean) says of how many hours a burst is made; twice what is
    above the 1 of single hours, as a burst may last over midnight.
    """
    sent = sum(map(sum, days))
    around = math.fsum(sum((n - sum(day) / weeks) ** 2 for n in day) for day in days)
    burst = max(1.0, 2 * around / (weeks - 1) / (sent / weeks) - 1)
    return math.exp(-sent / burst * math.log1p(missed / sent))


def _days_by_chance(days: Sequence[Sequence[int]], weeks: int, gone: int) -> float:
    """How likely a source misses so many days on which it always sent, but for one week (beta-binomial)."""
    heard = [sum(n > 0 for n in day) for day in days]
    regular = [place for place, n in enumerate(heard) if n >= weeks - 1]
    missed = sum(day % 7 in regular for day in range(gone))
    failed, of = sum(weeks - heard[place] for place in regular), weeks * len(regular)
    return math.prod((failed + 0.5 + one) / (of + 1 + one) for one in range(missed))


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
