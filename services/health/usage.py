"""Exact use of the product from the events themselves: packed columns, distinct counts, windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import xxhash
from numpy.typing import NDArray

T = TypeVar("T")
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Events = NDArray[np.void]
UseOf = Literal["days", "users", "features", "events"]

EVENT = np.dtype([("at", "<i8"), ("user", "<u8"), ("feature", "<u8"), ("action", "<u8")])
"""One event of use: microseconds since 1970, then hashes of user, feature and (event, product); 0 = none."""
NO_EVENTS: Events = np.empty(0, EVENT)
DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")
_SMALL = 64


def micros(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def hash_of(name: str | None) -> int:
    """64 bits of a name; 0 stands for none."""
    return xxhash.xxh3_64_intdigest(name.encode()) if name else 0


def action_of(event: str, product: str | None) -> int:
    return xxhash.xxh3_64_intdigest(f"{event}\x1f{product or ''}".encode())


def from_bytes(body: bytes) -> Events:
    return np.frombuffer(body, EVENT)


def joined(parts: Iterable[Events]) -> Events:
    """One array of all parts (numpy's own way takes much longer for records)."""
    listed = [part for part in parts if part.size]
    if len(listed) == 1:
        return listed[0]
    return from_bytes(b"".join(part.tobytes() for part in listed)) if listed else NO_EVENTS


def _in_order(events: Events) -> Events:
    return events[events["at"].argsort(kind="stable")]


def distinct(hashes: Hashes) -> int:
    """How many different names, not counting none (0)."""
    if hashes.size <= _SMALL:
        found = set(hashes.tolist())
        return len(found) - (0 in found)
    ordered = np.sort(hashes)  # about three times quicker than numpy.unique
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + (1 if ordered[0] else 0)


@lru_cache(maxsize=4096)
def midnight(zone: ZoneInfo, day: date) -> int:
    """The first instant of a local day."""
    return micros(datetime.combine(day, time(), zone).astimezone(UTC))


@lru_cache(maxsize=4096)
def midnights(zone: ZoneInfo, today: date, days: int) -> Ints:
    """The first instants of the `days` local days before today, of today and of tomorrow."""
    return np.array([midnight(zone, today + timedelta(step)) for step in range(-days, 2)], np.int64)


@dataclass(slots=True)
class Usage:
    """Events of one account in the order of time, all at or before the moment they are looked at."""

    first_at: int | None
    last_at: int | None
    next_at: int | None
    """The first event after that moment, if one is known already."""
    _parts: list[Events]
    """Put in order of time only when somebody looks into them."""
    _times: Ints | None = None
    _counted: dict[tuple[Any, ...], tuple[int, Any]] = field(default_factory=dict)
    """What was counted already, and before which moment: several measures and rules look at the same windows."""

    @classmethod
    def until(cls, parts: Iterable[Events], at: datetime) -> Usage:
        """Merge parts that came in any order, leaving out what had not happened by `at`."""
        events = joined(parts)
        times = np.ascontiguousarray(events["at"])
        order = times.argsort(kind="stable")
        times = times[order]
        size = int(times.searchsorted(micros(at), side="right"))
        coming = int(times[size]) if size < times.size else None
        if not size:
            return cls(None, None, coming, [])
        return cls(int(times[0]), int(times[size - 1]), coming, [events[order[:size]]], times[:size])

    def holds_at(self, us: int) -> bool:
        """Whether it would look the same at that moment."""
        return (self.last_at is None or self.last_at <= us) and (self.next_at is None or us < self.next_at)

    def extended(self, events: Events, at: datetime) -> Usage | None:
        """The same with more events; None unless all of them have happened."""
        first, last = int(events["at"].min()), int(events["at"].max())
        if self.next_at is not None or last > micros(at):
            return None
        counted = {key: found for key, found in self._counted.items() if found[0] <= first}
        if self.first_at is not None and self.last_at is not None:
            first, last = min(first, self.first_at), max(last, self.last_at)
        parts = [*self._parts, events] if self._parts else [_in_order(events)]
        return Usage(first, last, None, parts, None, counted)

    @property
    def events(self) -> Events:
        self._put_in_order()
        return self._parts[0]

    @property
    def times(self) -> Ints:
        self._put_in_order()
        if self._times is None:
            self._times = np.ascontiguousarray(self._parts[0]["at"])
        return self._times

    def _put_in_order(self) -> None:
        if len(self._parts) != 1:
            self._parts = [_in_order(joined(self._parts))]

    def between(self, after: int, until: int) -> Events:
        """Events with after < at <= until."""
        low, high = self.times.searchsorted([after, until], side="right")
        return self.events[low:high]

    def first_day_since(self, zone: ZoneInfo, day: date) -> date:
        """The local day of the first use from `day` on, or the last of all days when there is none."""
        times = self.times
        place = int(times.searchsorted(midnight(zone, day)))
        return moment(int(times[place])).astimezone(zone).date() if place < times.size else date.max

    def windows(self, zone: ZoneInfo, today: date, of: UseOf, length: int, count: int) -> list[int]:
        """Events, or distinct days, users or features, in `count` windows of complete local days, newest first."""
        return self.remember(
            ("windows", zone.key, today, of, length, count),
            midnight(zone, today),
            lambda: self._count(zone, today, of, length, count),
        )

    def remember(self, key: tuple[Any, ...], before: int, count: Callable[[], T]) -> T:
        """Count once what depends on the key and on use before a moment alone."""
        known = self._counted.get(key)
        if known is None:
            known = self._counted[key] = before, count()
        found: T = known[1]
        return found

    def _count(self, zone: ZoneInfo, today: date, of: UseOf, length: int, count: int) -> list[int]:
        bounds = midnights(zone, today, length * count)[: length * count + 1]
        edges = self.times.searchsorted(bounds, side="left")
        if of == "days":
            used: list[int] = (edges[1:] > edges[:-1]).reshape(count, length).sum(axis=1).tolist()
            return used[::-1]
        cuts = edges[::length].tolist()
        if of == "events":
            return [cuts[k + 1] - cuts[k] for k in reversed(range(count))]
        names = self.events["user" if of == "users" else "feature"]
        return [distinct(names[cuts[k] : cuts[k + 1]]) for k in reversed(range(count))]

    def stopped(self, zone: ZoneInfo, today: date, length: int, count: int) -> list[int]:
        """Who used it in the older windows and not in the newest: hashes, those of most days first."""
        bounds = midnights(zone, today, length * count)
        recent = self.between(int(bounds[-1 - 1 - length]) - 1, int(bounds[-1]) - 1)
        before = self.between(int(bounds[0]) - 1, int(bounds[-1 - 1 - length]) - 1)
        still = set(recent["user"].tolist())
        days: dict[int, set[int]] = {}
        for at, user in zip(before["at"].tolist(), before["user"].tolist(), strict=True):
            if user and user not in still:
                days.setdefault(user, set()).add(at // DAY_US)
        return sorted(days, key=lambda user: (-len(days[user]), user))


def group(accounts: Ints, events: Events) -> list[tuple[int, int, bytes]]:
    """Cut events into (account's index, UTC day since 1970, packed body), one per account and day."""
    if not events.size:
        return []
    days = events["at"] // DAY_US
    order = np.lexsort((days, accounts))
    accounts, days = accounts[order], days[order]
    starts = np.flatnonzero((np.diff(accounts, prepend=-1) != 0) | (np.diff(days, prepend=days[:1] - 1) != 0))
    body, size = events[order].tobytes(), EVENT.itemsize
    ends = [*(starts[1:] * size).tolist(), len(body)]
    return [
        (account, day, body[start * size : end])
        for account, day, start, end in zip(
            accounts[starts].tolist(), days[starts].tolist(), starts.tolist(), ends, strict=True
        )
    ]


@dataclass(frozen=True, slots=True)
class Totals:
    """An account's use up to T, as exported."""

    events: int
    users: int
    features: int
    first_at: int
    last_at: int
    events_last_30d: int
    events_prev_90d: int


def totals(usage: Usage, at: datetime) -> Totals | None:
    """Counts up to T; the windows are (T − 30 d, T] and (T − 120 d, T − 30 d] on the events' own time."""
    if usage.first_at is None or usage.last_at is None:
        return None
    now = micros(at)
    return Totals(
        events=int(usage.events.size),
        users=distinct(usage.events["user"]),
        features=distinct(usage.events["feature"]),
        first_at=usage.first_at,
        last_at=usage.last_at,
        events_last_30d=int(usage.between(now - 30 * DAY_US, now).size),
        events_prev_90d=int(usage.between(now - 120 * DAY_US, now - 30 * DAY_US).size),
    )


@dataclass(frozen=True, slots=True)
class Month:
    """A UTC calendar month over all accounts; of T's month the days up to T's day count."""

    month: str
    mau: int
    mean_dau: float
    dau_mau: float | None


def months(usage: Usage, at: datetime) -> list[Month]:
    """Monthly and mean daily distinct users, from the month of the first event to T's."""
    if usage.first_at is None:
        return []
    found, first = [], moment(usage.first_at).date().replace(day=1)
    last_day = at.astimezone(UTC).date()
    while first <= last_day:
        following = (first + timedelta(days=32)).replace(day=1)
        days = (min(following, last_day + timedelta(days=1)) - first).days
        events = usage.between(midnight(UTC_ZONE, first) - 1, midnight(UTC_ZONE, following) - 1)
        events = events[events["user"] != 0]
        mau = distinct(events["user"])
        pairs = {*zip((events["at"] // DAY_US).tolist(), events["user"].tolist(), strict=True)}
        mean = len(pairs) / days
        found.append(Month(f"{first:%Y-%m}", mau, mean, mean / mau if mau else None))
        first = following
    return found
