"""How an account's use reads where data broke on the way: it stands still meanwhile, and goes on afterwards.

While a break lasts, what depends on the lost use reads as on the day it began. Afterwards the lost days are cut out,
and what was before moves up by whole weeks: windows are of measured days, and days of the week stay in place. What
depends on it is found by losing it: what would read otherwise, had it been missing in the four weeks before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

from services.health import facts
from services.health.facts import Facts, Picture
from services.health.tracking import Break
from services.health.usage import DAY_US, UTC_ZONE, Events, hash_of, joined, micros, midnight, moment

T = TypeVar("T")
HABIT_DAYS = 28
MARGIN_WEEKS = 1


@dataclass(frozen=True, slots=True)
class Held:
    """An account's use over a break: as it is to be read (`then`), as just before it began, and had it been lost."""

    broken: Break
    lasts: bool
    then: Picture
    before: Picture
    lost: Picture

    def concerns(self, read: Callable[[Picture], T], same: Callable[[T, T], bool]) -> bool:
        return not same(read(self.before), read(self.lost))

    @property
    def reason(self) -> str:
        one = self.broken
        what = f"use of {one.name}" if one.what == "feature" else f"what {one.name} sends"
        if self.lasts:
            return f"frozen since {one.since}: {what} does not arrive"
        return f"without {one.since} to {(one.until or one.since) - timedelta(days=1)}: {what} did not arrive"


def held_of(known: Facts, now: Picture) -> tuple[Held, ...]:
    """The breaks that concern an account at T, those that last first; nothing where none does."""
    today = moment(micros(now.at)).date()
    found = []
    parts = joined(known.usage)
    for one in known.breaks:
        if one.since > today or not _concerned(one, parts, now):
            continue
        found.append(_hold(known, one, parts, now, lasts=one.lasts(today)))
    return tuple(sorted(found, key=lambda held: (not held.lasts, held.broken.since, held.broken.name)))


def margin(breaks: Sequence[Break], today: date) -> timedelta:
    """So much more of use has to be known where days are cut out."""
    days = sum(max(0, ((one.until or today) - one.since).days) + 7 * MARGIN_WEEKS for one in breaks)
    return timedelta(days=days)


def _concerned(one: Break, events: Events, now: Picture) -> bool:
    """Whether the account used what broke in the weeks before, and of a silent source nothing came since."""
    start = midnight(UTC_ZONE, one.since)
    before = (events["at"] < start) & (events["at"] >= start - HABIT_DAYS * DAY_US)
    if one.what == "feature":
        return bool((events["feature"][before] == hash_of(one.name)).any())
    until = midnight(UTC_ZONE, one.until) if one.until is not None else micros(now.at) + 1
    return bool(before.any()) and not bool(((events["at"] >= start) & (events["at"] < until)).any())


def _hold(known: Facts, one: Break, events: Events, now: Picture, *, lasts: bool) -> Held:
    start = midnight(UTC_ZONE, one.since)
    lost = (events["at"] >= start - HABIT_DAYS * DAY_US) & (events["at"] < start)
    if one.what == "feature":
        lost &= events["feature"] == hash_of(one.name)
    at = moment(start)
    before = facts.picture(_with(known, events), at)
    then = before if lasts else facts.picture(_with(known, cut(events, one)), now.at)
    return Held(one, lasts, then, before, facts.picture(_with(known, events[~lost]), at))


def _with(known: Facts, events: Events) -> Facts:
    return Facts(known.account_id, known.things, (events,), peers=known.peers)


def cut(events: Events, one: Break) -> Events:
    """Use without the days of a break that is over, what was before it moved up by whole weeks."""
    assert one.until is not None, "a break that lasts has no end to move to"
    end = midnight(UTC_ZONE, one.until)
    weeks = -(-(one.until - one.since).days // 7)
    kept = events[(events["at"] >= end) | (events["at"] < end - 7 * weeks * DAY_US)].copy()
    kept["at"][kept["at"] < end] += 7 * weeks * DAY_US
    return kept
