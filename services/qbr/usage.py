"""Who used what and when, 16 bytes an event: packed per account, day and batch; read back for any window. Pure."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

BYTES = 16
FEATURE_BITS = 20
FEATURE_MASK = (1 << FEATURE_BITS) - 1
DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.date()
MICROSECOND = timedelta(microseconds=1)
SEED = 0x48554E45
NOBODY = 0
Words = npt.NDArray[np.uint64]
Mark = tuple[datetime, str]
"""When an event occurred, and its id."""


def user_hash(user_id: str | None) -> int:
    """8 bytes that stand for a user; 0 is kept for events without one."""
    return NOBODY if user_id is None else xxhash.xxh3_64_intdigest(user_id.encode(), SEED) or 1


@dataclass(slots=True)
class Draft:
    """One account's events of one UTC day, as they come."""

    partition: int
    first: Mark
    last: Mark
    words: array[int] = field(default_factory=lambda: array("Q"))
    features: dict[str, int] = field(default_factory=dict)

    def add(self, at: datetime, event_id: str, user: int, feature: str) -> None:
        mark = at, event_id
        if mark < self.first:
            self.first = mark
        elif mark > self.last:
            self.last = mark
        number = self.features.setdefault(feature, len(self.features))
        moment = ((at.hour * 60 + at.minute) * 60 + at.second) * 1_000_000 + at.microsecond
        self.words.append(moment << FEATURE_BITS | number)
        self.words.append(user)


@dataclass(frozen=True, slots=True)
class DayRow:
    """What one batch held of an account's day."""

    day: date
    packed: bytes
    features: tuple[str, ...]
    first: Mark
    last: Mark


def pack(draft: Draft) -> bytes:
    """Little-endian pairs of 64 bits: time of day and feature number; user hash."""
    words = draft.words
    if sys.byteorder == "big":
        words = words[:]
        words.byteswap()
    return words.tobytes()


@dataclass(frozen=True, slots=True)
class Span:
    """How many events a figure rests on, from which to which; an id is null where the window cuts through its day."""

    events: int
    first_at: datetime | None = None
    first_id: str | None = None
    last_at: datetime | None = None
    last_id: str | None = None


class Usage:
    """An account's events, decoded once; every method takes a window [start, end)."""

    def __init__(self, rows: Iterable[DayRow]) -> None:
        numbers: dict[str, int] = {}
        known: list[int] = []  # per row, the numbers of its features
        bases, sizes, midnights, packed = [], [], [], []
        self._days: dict[date, tuple[Mark, Mark]] = {}
        for row in rows:
            bases.append(len(known))
            sizes.append(len(row.packed) // BYTES)
            midnights.append((row.day - EPOCH_DAY).days * DAY_US)
            packed.append(row.packed)
            known += [numbers.setdefault(name, len(numbers)) for name in row.features]
            day = self._days.get(row.day)
            self._days[row.day] = (min(day[0], row.first), max(day[1], row.last)) if day else (row.first, row.last)
        words: Words = np.frombuffer(b"".join(packed), dtype="<u8").reshape(-1, 2)
        local = (words[:, 0] & np.uint64(FEATURE_MASK)).astype(np.int64)
        times = (words[:, 0] >> np.uint64(FEATURE_BITS)).astype(np.int64)
        self._names = list(numbers)
        self._users = words[:, 1]
        self._times = times + np.repeat(np.array(midnights, dtype=np.int64), sizes)
        self._features = np.array(known, dtype=np.int64)[local + np.repeat(np.array(bases, dtype=np.int64), sizes)]

    def events(self, start: datetime, end: datetime) -> int:
        return int(self._within(start, end).sum())

    def users(self, start: datetime, end: datetime) -> int:
        """Distinct users; events without a user add none."""
        return _distinct(self._users[self._within(start, end)])

    def by_feature(self, start: datetime, end: datetime) -> dict[str, tuple[int, int]]:
        """Events and distinct users of each feature used."""
        inside = self._within(start, end)
        features, users = self._features[inside], self._users[inside]
        found = {}
        for number in np.unique(features):
            of = features == number
            found[self._names[int(number)]] = int(of.sum()), _distinct(users[of])
        return found

    def span(self, start: datetime, end: datetime) -> Span:
        times = self._times[self._within(start, end)]
        if not times.size:
            return Span(0)
        first_at, last_at = (EPOCH + timedelta(microseconds=int(edge)) for edge in (times.min(), times.max()))
        earliest, latest = self._days[first_at.date()][0], self._days[last_at.date()][1]
        return Span(
            int(times.size),
            first_at,
            None if self._cut(first_at.date(), start, end) else earliest[1],
            last_at,
            None if self._cut(last_at.date(), start, end) else latest[1],
        )

    def _cut(self, day: date, start: datetime, end: datetime) -> bool:
        earliest, latest = self._days[day]
        return earliest[0] < start or latest[0] >= end

    def _within(self, start: datetime, end: datetime) -> npt.NDArray[np.bool_]:
        return (self._times >= _us(start)) & (self._times < _us(end))


def _us(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


def _distinct(users: Words) -> int:
    return int(np.unique(users[users != NOBODY]).size)


def drafts_of(events: Iterable[tuple[str, int, datetime, str, str | None, str]]) -> Mapping[tuple[str, date], Draft]:
    """Gather (account, partition, at, event id, user, feature) by account and UTC day."""
    drafts: dict[tuple[str, date], Draft] = {}
    hashes: dict[str | None, Any] = {}
    for account_id, partition, at, event_id, user_id, feature in events:
        key = account_id, at.date()
        draft = drafts.get(key)
        if draft is None:
            draft = drafts[key] = Draft(partition, (at, event_id), (at, event_id))
        user = hashes.get(user_id)
        if user is None:
            user = hashes[user_id] = user_hash(user_id)
        draft.add(at, event_id, user, feature)
    return drafts
