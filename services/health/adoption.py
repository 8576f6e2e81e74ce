"""How features are taken up over the months, and how long customers take to their first value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

import numpy as np

from services.health.facts import Facts, Picture
from services.health.measures import core_of
from services.health.settings import Core
from services.health.usage import DAY_US, Events, Usage, micros, moment

MONTH_OF_1970 = 1970 * 12


@dataclass(slots=True)
class Taken:
    """A feature in a UTC month: who used it of those who used anything, and of those entitled to it."""

    events: int = 0
    users: int = 0
    accounts: int = 0
    entitled: int = 0
    entitled_using: int = 0


@dataclass(slots=True)
class Adoption:
    """Features by (month, hash), and the accounts that used anything in each month."""

    features: dict[tuple[int, int], Taken] = field(default_factory=dict)
    active: dict[int, int] = field(default_factory=dict)

    def add(self, usage: Usage, entitled: frozenset[int]) -> None:
        """One account's use up to T, and the features it is entitled to at T."""
        if usage.first_at is None:
            return
        events = usage.events
        months = months_of(events)
        for month in np.unique(months).tolist():
            self.active[month] = self.active.get(month, 0) + 1
            for feature in entitled:
                self._of(month, feature).entitled += 1
        named = events["feature"] != 0
        pairs = np.empty(int(named.sum()), [("month", "<i8"), ("feature", "<u8"), ("user", "<u8")])
        pairs["month"], pairs["feature"] = months[named], events["feature"][named]
        pairs["user"] = events["user"][named]
        for (month, feature), count in _counted(pairs[["month", "feature"]]):
            taken = self._of(month, feature)
            taken.events += count
            taken.accounts += 1
            taken.entitled_using += feature in entitled
        people = np.unique(pairs[pairs["user"] != 0])
        for (month, feature), count in _counted(people[["month", "feature"]]):
            self._of(month, feature).users += count

    def _of(self, month: int, feature: int) -> Taken:
        return self.features.setdefault((month, feature), Taken())


def _counted(pairs: Events) -> Iterator[tuple[tuple[int, int], int]]:
    values, counts = np.unique(pairs, return_counts=True)
    return zip((value.item() for value in values), counts.tolist(), strict=True)


def months_of(events: Events) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Months since year 0, in UTC."""
    days: np.ndarray[tuple[int], np.dtype[np.int64]] = (events["at"] // DAY_US).astype("datetime64[D]")
    return days.astype("datetime64[M]").astype(np.int64) + MONTH_OF_1970


def month_name(month: int) -> str:
    return f"{month // 12:04}-{month % 12 + 1:02}"


@dataclass(frozen=True, slots=True)
class Road:
    """From a customer's start to their first value; `value_at` None: not there by `until`, when we last could tell."""

    account_id: str
    start_at: datetime
    start_from: str
    value_at: datetime | None
    until: datetime
    segment: str | None

    @property
    def days(self) -> float:
        return ((self.value_at or self.until) - self.start_at).total_seconds() / 86_400


def road(known: Facts, now: Picture, first_value: Core) -> Road | None:
    """An account's road as known at T; None when nothing says when it started."""
    start, start_from = start_of(known, now)
    if start is None:
        return None
    ended = _ended_at(known, now, start)
    until = micros(now.at) if ended is None else ended
    value = _first(core_of(now.usage.events, first_value), start) if now.usage.first_at is not None else None
    if value is not None and value > until:
        value = None
    return Road(
        known.account_id, moment(start), start_from, None if value is None else moment(value), moment(until),
        now.profile.segment,
    )  # fmt: skip


def start_of(known: Facts, now: Picture) -> tuple[int | None, str]:
    """The first day of the earliest contract, else the first paid subscription, else the first fact at all."""
    until = micros(now.at)
    days: list[int] = []
    paid: list[int] = []
    facts: list[int] = [] if now.usage.first_at is None else [now.usage.first_at]
    for (kind, _), marks in known.things.items():
        for mark in marks:
            if mark.at > until:
                continue
            facts.append(mark.at)
            if kind == "contract" and (day := mark.data.get("starts_on")):
                days.append((date.fromisoformat(day) - date(1970, 1, 1)).days * DAY_US)
            elif kind == "subscription" and Decimal(mark.data["mrr"]):
                paid.append(mark.at)
    started = [day for day in days if day <= until]
    for times, source in ((started, "contract"), (paid, "subscription"), (facts, "first seen")):
        if times:
            return min(times), source
    return None, ""


def _ended_at(known: Facts, now: Picture, start: int) -> int | None:
    """When the last subscription ended, if none runs any more."""
    until = micros(now.at)
    lasts = [
        past[-1]
        for (kind, _), marks in known.things.items()
        if kind == "subscription"
        and (past := sorted((mark for mark in marks if mark.at <= until), key=lambda m: (m.at, m.id)))
    ]
    if not lasts or any(Decimal(mark.data["mrr"]) for mark in lasts):
        return None
    end = max(mark.at for mark in lasts)
    return end if end >= start else None


def _first(events: Events, start: int) -> int | None:
    """The first event from the start on."""
    later = events["at"][events["at"] >= start]
    return int(later.min()) if later.size else None


@dataclass(frozen=True, slots=True)
class Times:
    """Kaplan and Meier's estimate: who is not there yet counts for as long as they were seen."""

    n: int
    reached: int
    still_open: int
    median_days: float | None
    quartile_days: float | None
    reason: str | None


def times_to_value(roads: Sequence[Road]) -> Times:
    """When half and a quarter had got there; None with a reason while too many have not."""
    reached = sum(one.value_at is not None for one in roads)
    curve = survival([(one.days, one.value_at is not None) for one in roads])
    median, quartile = (_falls_to(curve, share) for share in (0.5, 0.75))
    reason = None if median is not None else "fewer than half are estimated to have got there" if roads else "nobody"
    return Times(len(roads), reached, len(roads) - reached, median, quartile, reason)


def survival(times: Iterable[tuple[float, bool]]) -> list[tuple[float, float]]:
    """Share still on the road after each time at which somebody arrived: Π (1 − arrived ÷ at risk)."""
    found: list[tuple[float, float]] = []
    listed, share = sorted(times), 1.0
    at_risk, place = len(listed), 0
    while place < len(listed):
        day = listed[place][0]
        same = [arrived for when, arrived in listed[place:] if when == day]
        arrived = sum(same)
        if arrived:
            share *= 1 - arrived / at_risk
            found.append((day, share))
        at_risk -= len(same)
        place += len(same)
    return found


def _falls_to(curve: Sequence[tuple[float, float]], share: float) -> float | None:
    return next((day for day, left in curve if left <= share + 1e-12), None)


def by_label(roads: Sequence[Road], labels: Mapping[str, str]) -> dict[str, list[Road]]:
    """Roads by an account's label, in the order of labels; those without one are left out."""
    found: dict[str, list[Road]] = {}
    for one in roads:
        if label := labels.get(one.account_id):
            found.setdefault(label, []).append(one)
    return dict(sorted(found.items()))
