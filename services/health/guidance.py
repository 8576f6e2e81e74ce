"""Features worth showing to a customer: entitled, not used, and used by the green accounts of the same segment.

What is recommended is a decision: it stays as it was told until it is adopted, dismissed or withdrawn. What others use
comes as counts; what was decided before of the account is its `Standing`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Literal

import numpy as np

from services.health import phrases
from services.health.facts import Facts, Picture
from services.health.settings import Guidance, Language
from services.health.usage import hash_of, micros, midnight
from shared.ids import derived_id

Became = Literal["adopted", "dismissed", "withdrawn"]
Reason = Literal["not_entitled", "used_before", "peers_left", "expired", "switched_off", "merged"]
WAITS = ("peers_left", "expired")
"""Withdrawn for these reasons, a feature rests as if it had been dismissed."""
Z = 1.959963984540054
"""Of a confidence of 95 %, both sides."""


@dataclass(frozen=True, slots=True)
class Peers:
    """Of so many other green accounts of the segment that are entitled to a feature, so many use it."""

    entitled: int
    using: int

    @property
    def share(self) -> float:
        return self.using / self.entitled

    @property
    def share_low(self) -> float:
        """The lower end of Wilson's interval: 5 of 5 say less than 95 of 100."""
        n, p = self.entitled, self.share
        half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return max(0.0, (p + Z * Z / (2 * n) - half) / (1 + Z * Z / n))


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A feature as it was recommended, with the figures of then."""

    recommendation_id: str
    feature: str
    segment: str | None
    peers: Peers
    unused_days: int
    why: str
    next_step: str
    made_at: datetime
    baseline: bool


@dataclass(frozen=True, slots=True)
class Rest:
    """A feature that is not recommended again before then."""

    feature: str
    until: datetime
    dismissed: str | None = None
    """The recommendation that a person dismissed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What was decided of an account: the open recommendations, best first, and what rests."""

    open: tuple[Recommendation, ...] = ()
    resting: tuple[Rest, ...] = ()
    seen: bool = False
    """Whether it was compared with others before; the first time tells a baseline."""


NOTHING = Standing()


@dataclass(frozen=True, slots=True)
class Own:
    """What an account is entitled to and what it uses of that."""

    entitled: frozenset[str]
    used: frozenset[str]
    age_days: int | None = None
    """Days since the first use of anything; none where nothing was used in the window."""
    before: frozenset[str] = frozenset()
    """Of what is recommended: what was used, as is known by now, in the time before that."""
    since: Mapping[str, int] = field(default_factory=dict)
    """Of what is recommended: on how many of the last days it was used since."""
    broken: frozenset[str] = frozenset()
    """What does not arrive now from anybody: not used is no news."""


@dataclass(frozen=True, slots=True)
class Where:
    """Whose recommendations, and when; `cause` makes their ids."""

    account_id: str
    at: datetime
    segment: str | None
    language: Language
    cause: str
    baseline: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a recommendation, and why."""

    recommendation: Recommendation
    became: Became
    reason: Reason | None = None
    days_used: int = 0
    by: str | None = None
    note: str | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What one look, or a person, came to."""

    standing: Standing
    made: tuple[Recommendation, ...] = ()
    ended: tuple[Ended, ...] = ()
    baseline: bool = False


def own_of(known: Facts, now: Picture, standing: Standing, rules: Guidance) -> Own:
    """An account's features as known at a moment."""
    entitled, usage = now.entitled_features, now.usage
    since, at = midnight(now.zone, now.today - timedelta(days=rules.window_days)), micros(now.at)
    events = usage.between(since - 1, at)
    names = set(events["feature"].tolist())
    before, after = set(), {}
    for one in standing.open:
        made_at, feature = micros(one.made_at), np.uint64(hash_of(one.feature))
        if int(feature) not in names:
            continue
        start = midnight(now.zone, now.day_of(made_at) - timedelta(days=one.unused_days))
        past, later = usage.between(start - 1, made_at), usage.between(made_at, at)
        if (past["feature"] == feature).any():
            before.add(one.feature)
        first = now.today - timedelta(days=rules.adopted.within_days)
        days = {now.day_of(time) for time in later["at"][later["feature"] == feature].tolist()}
        after[one.feature] = sum(day > first for day in days)
    first_at = usage.first_at
    return Own(
        entitled=entitled,
        used=frozenset(name for name in entitled if hash_of(name) in names),
        age_days=None if not events.size or first_at is None else now.age_days(first_at),
        before=frozenset(before),
        since=after,
        broken=_broken(known, now.today),
    )


def _broken(known: Facts, today: date) -> frozenset[str]:
    return frozenset(one.name for one in known.breaks if one.what == "feature" and one.lasts(today))


def decide(own: Own, peers: Mapping[str, Peers] | None, standing: Standing, rules: Guidance | None, at: Where) -> Turn:
    """What to recommend now, and what became of what was; `peers` by feature, None: they are not counted yet."""
    if rules is None:
        ended = tuple(Ended(one, "withdrawn", "switched_off") for one in standing.open)
        return Turn(replace(standing, open=()), ended=ended, baseline=at.baseline)
    ended = tuple(end for one in standing.open if (end := _end_of(one, own, peers, rules, at.at)) is not None)
    gone = {end.recommendation.feature for end in ended}
    still = tuple(one for one in standing.open if one.feature not in gone)
    cooldown = at.at + timedelta(days=rules.cooldown_days)
    waiting = [Rest(end.recommendation.feature, cooldown) for end in ended if end.reason in WAITS]
    resting = _rested((*standing.resting, *waiting), at.at)
    if peers is None:
        return Turn(Standing(still, resting, standing.seen), ended=ended, baseline=at.baseline)
    baseline = at.baseline or not standing.seen
    known = {one.feature for one in still} | {one.feature for one in resting} | gone
    taken = known | own.used | own.broken
    found = best(own, taken, peers, rules)[: max(0, rules.most_open - len(still))]
    made = tuple(_make(feature, peers[feature], rules, at, baseline=baseline) for feature in found)
    after = Standing(in_order((*still, *made)), resting, seen=True)
    return Turn(after, made, ended, baseline)


def best(own: Own, taken: Collection[str], peers: Mapping[str, Peers], rules: Guidance) -> list[str]:
    """What an account has and does not use, the feature that others use most surely first."""
    if own.age_days is None or own.age_days < rules.least_age_days:
        return []
    fit = [
        name
        for name in own.entitled.difference(taken)
        if (of := peers.get(name)) and of.entitled >= rules.green_peers and of.share >= rules.share
    ]
    return sorted(fit, key=lambda name: (-peers[name].share_low, name))


def in_order(open_: Iterable[Recommendation]) -> tuple[Recommendation, ...]:
    return tuple(sorted(open_, key=lambda one: (-one.peers.share_low, one.feature)))


def _end_of(
    one: Recommendation, own: Own, peers: Mapping[str, Peers] | None, rules: Guidance, at: datetime
) -> Ended | None:
    """Whether a recommendation is over, and why."""
    used = own.since.get(one.feature, 0)
    if one.feature in own.before:
        return Ended(one, "withdrawn", "used_before")
    if used >= rules.adopted.days:
        return Ended(one, "adopted", days_used=used)
    if one.feature not in own.entitled:
        return Ended(one, "withdrawn", "not_entitled")
    of = None if peers is None else peers.get(one.feature)
    if of is not None and of.entitled >= rules.green_peers and of.share < rules.leave_share:
        return Ended(one, "withdrawn", "peers_left")
    if one.made_at + timedelta(days=rules.expires_days) <= at:
        return Ended(one, "withdrawn", "expired")
    return None


def _rested(resting: Iterable[Rest], at: datetime) -> tuple[Rest, ...]:
    """What still rests, once per feature."""
    latest: dict[str, Rest] = {}
    for rest in resting:
        if rest.until > at and (rest.feature not in latest or latest[rest.feature].until < rest.until):
            latest[rest.feature] = rest
    return tuple(latest[feature] for feature in sorted(latest))


def _make(feature: str, peers: Peers, rules: Guidance, at: Where, *, baseline: bool) -> Recommendation:
    group = phrases.text("guidance.of_segment" if at.segment else "guidance.of_none", at.language, segment=at.segment)
    words = {"feature": feature, "using": peers.using, "n": peers.entitled, "group": group, "days": rules.window_days}
    return Recommendation(
        recommendation_id=derived_id("health", at.account_id, "recommendation", feature, at.cause),
        feature=feature,
        segment=at.segment,
        peers=peers,
        unused_days=rules.window_days,
        why=phrases.text("guidance.why", at.language, **words),
        next_step=phrases.text("guidance.step", at.language, **words),
        made_at=at.at,
        baseline=baseline,
    )


def dismiss(
    standing: Standing, wanted: str, rules: Guidance | None, at: datetime, by: str | None, note: str | None
) -> Turn | None:
    """Take an open recommendation (its id, or its feature) off the account for a time; None when there is none."""
    one = next((one for one in standing.open if wanted in (one.recommendation_id, one.feature)), None)
    if one is None:
        return None
    until = at + timedelta(days=(rules or Guidance()).cooldown_days)
    rest = Rest(one.feature, until, one.recommendation_id)
    left = tuple(other for other in standing.open if other is not one)
    after = replace(standing, open=left, resting=_rested((*standing.resting, rest), at))
    return Turn(after, ended=(Ended(one, "dismissed", by=by, note=note, until=until),))


def dismissed_before(standing: Standing, wanted: str) -> Rest | None:
    return next((one for one in standing.resting if one.dismissed and wanted in (one.dismissed, one.feature)), None)


def closed(standing: Standing, reason: Reason) -> Turn:
    """All that is open, withdrawn."""
    return Turn(NOTHING, ended=tuple(Ended(one, "withdrawn", reason) for one in standing.open), baseline=True)


def due_at(standing: Standing, rules: Guidance | None, now: datetime) -> datetime | None:
    """When time alone ends a recommendation."""
    if rules is None:
        return None
    times = [one.made_at + timedelta(days=rules.expires_days) for one in standing.open]
    return min((at for at in times if at > now), default=None)


@dataclass(frozen=True, slots=True)
class Counted:
    """An account as it is counted among others: its segment ('': none), its band as shown, its features."""

    segment: str
    band: str
    entitled: tuple[str, ...]
    used: tuple[str, ...]


def without(counts: Mapping[str, Peers], own: Counted | None, segment: str) -> dict[str, Peers]:
    """The counts of a segment without the account itself, as it was counted."""
    if own is None or own.band != "green" or own.segment != segment:
        return {name: of for name, of in counts.items() if of.entitled}
    entitled, used = set(own.entitled), set(own.used)
    found = {
        name: Peers(of.entitled - (name in entitled), max(0, of.using - (name in used))) for name, of in counts.items()
    }
    return {name: of for name, of in found.items() if of.entitled > 0}
