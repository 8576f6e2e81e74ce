"""Recommends features at ticks: reads what accounts use, counts it over all partitions, decides, and tells.

Each look of a tick keeps what the account has and uses. Once a day, when nothing is due, a partition counts those of
its green accounts and tells all partitions; who has heard from all compares by it. Events change nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from services.health import facts, guidance, guidance_store
from services.health.counting import keys_of
from services.health.domain import Memory, Policy
from services.health.facts import Facts
from services.health.guidance import Counted, Peers, Standing, Turn, Where
from services.health.guidance_store import Segments
from services.health.store import Account
from shared import requests, topics
from shared.db import Connection
from shared.events import Event, results
from shared.merging import Closed
from shared.requests import Unusable
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork
from shared.times import instant

FEATURES_COUNTED = results.FeaturesCounted.type_name
DEMAND = "recommendation.dismiss"
RESULTS = topics.RESULTS["health"]
KEPT_DAYS = 3
MOST_BYTES = 700_000
"""Of counts in one record; what the fewest have is left out beyond."""
MOST_NOTE = 1000


@dataclass(frozen=True, slots=True)
class Dismissal:
    """A person's request: the recommendation by its id or its feature."""

    wanted: str
    by: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Dismissed:
    """What a dismissal came to; `turn` None: it had been dismissed before."""

    recommendation_id: str
    feature: str
    until: datetime
    turn: Turn | None


@dataclass(slots=True)
class Around:
    """What one tick's looks know of others: counts by partition, and the accounts as they were counted."""

    counts: Mapping[int, Segments | None] = field(default_factory=dict)
    before: Mapping[str, Counted] = field(default_factory=dict)
    after: dict[str, tuple[str, frozenset[str], frozenset[str]]] = field(default_factory=dict)
    """Segment, entitled, used: as it is counted from now on, but for its band."""


class Guiding:
    """Of one worker; what it remembers only spares questions to the database."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.rules = policy, policy.model.guidance
        self._counts: dict[date, Segments] = {}
        """Of days that are complete: every partition hears the same."""
        self._done: dict[int, date] = {}

    async def around(self, looked: Sequence[tuple[Account, Facts, Memory]], unit: UnitOfWork) -> Around:
        """Read what the looks of a tick need; nothing where no account has any features."""
        concerned = [row for row, known, memory in looked if _concerned(known, memory.guidance)]
        if self.rules is None or not concerned:
            return Around()
        before = await guidance_store.load_features(unit.db, [row.account_id for row in concerned])
        counts = await self._heard({row.partition for row in concerned}, self.rules.window_days, unit.db)
        return Around(counts, before)

    async def _heard(self, partitions: set[int], window: int, db: Connection) -> Mapping[int, Segments | None]:
        """The newest counts of which each partition has heard all."""
        found: dict[int, Segments | None] = {}
        for partition, days in (await guidance_store.complete_days(db, partitions, window)).items():
            if days[0] not in self._counts:
                self._counts = {day: self._counts[day] for day in sorted(self._counts)[-KEPT_DAYS:]}
                self._counts[days[0]] = await guidance_store.load_counts(db, partition, window, days[0])
            found[partition] = self._counts[days[0]]
        return found

    def look(
        self, row: Account, known: Facts, memory: Memory, at: datetime, around: Around, *, cause: str, baseline: bool
    ) -> Turn | None:
        """Decide about one account; None when there is nothing to decide."""
        standing = memory.guidance
        if not _concerned(known, standing):
            return None
        now = facts.picture(known, at)
        segment = now.profile.segment or memory.tier
        where = Where(row.account_id, at, segment, self.policy.model.language, cause, baseline)
        if self.rules is None:
            return guidance.decide(guidance.Own(frozenset(), frozenset()), None, standing, None, where)
        own = guidance.own_of(known, now, standing, self.rules)
        around.after[row.account_id] = segment or "", own.entitled, own.used
        counts = around.counts.get(row.partition)
        peers: Mapping[str, Peers] | None = None
        if counts is not None:
            peers = guidance.without(counts.get(segment or "", {}), around.before.get(row.account_id), segment or "")
        return guidance.decide(own, peers, standing, self.rules, where)

    async def keep(self, looked: Iterable[tuple[Account, Memory]], around: Around, unit: UnitOfWork) -> None:
        """Keep how accounts are counted from now on, where that changed."""
        rows = []
        for row, memory in looked:
            if (said := around.after.get(row.account_id)) is None:
                continue
            segment, entitled, used = said
            one = Counted(segment, memory.band or "unknown", tuple(sorted(entitled)), tuple(sorted(used)))
            if around.before.get(row.account_id) != one:
                rows.append((row.account_id, row.partition, one))
                self._done.pop(row.partition, None)
        if rows:
            await guidance_store.save_features(unit.db, rows)
            await guidance_store.start_counting(unit.db, {partition for _, partition, _ in rows})

    async def count(self, clocks: Mapping[int, datetime], unit: UnitOfWork) -> int:
        """Tell all partitions what those with a new day count; how many did."""
        days = {partition: at.astimezone(UTC).date() for partition, at in clocks.items()}
        waiting = {partition: day for partition, day in days.items() if self._done.get(partition) != day}
        if not waiting:
            return 0
        unit.on_commit.append(lambda: self._done.update(waiting))
        if self.rules is None:
            await guidance_store.stop_counting(unit.db, waiting)
            return 0
        window = self.rules.window_days
        due = await guidance_store.list_counting(unit.db, {one: clocks[one] for one in waiting}, window)
        for partition in due:
            day = waiting[partition]
            await self._tell_counts(partition, day, window, unit)
            tomorrow = datetime.combine(day + timedelta(days=1), time(), UTC)
            await guidance_store.save_told(unit.db, partition, day, window, tomorrow)
        return len(due)

    async def _tell_counts(self, partition: int, day: date, window: int, unit: UnitOfWork) -> None:
        segments: dict[str, dict[str, results.FeatureCount]] = {}
        size = 0
        for segment, feature, of in await guidance_store.count_features(unit.db, partition):
            size += len(feature.encode()) + 40 + (0 if segment in segments else len(segment.encode()) + 10)
            if size > MOST_BYTES:
                break
            segments.setdefault(segment, {})[feature] = results.FeatureCount(entitled=of.entitled, using=of.using)
        event = results.FeaturesCounted(
            of_partition=partition, partitions=unit.partitions, day=day, window_days=window, segments=segments
        )
        for key in keys_of(unit.partitions):
            unit.emit(
                topics.INTERNAL["health"], event, account_id=key, cause=f"features:{partition}:{day}:{window}",
                occurred_at=datetime.combine(day, time(), UTC), partition=partition,
            )  # fmt: skip
        await guidance_store.forget_counts(unit.db, partition, day - timedelta(days=KEPT_DAYS))

    async def hear(self, signals: Sequence[Signal], unit: UnitOfWork) -> None:
        """Keep what partitions counted; with the first day that is complete, have accounts looked at again."""
        said = []
        for one in signals:
            data = one.data
            if self.rules is None or data.window_days != self.rules.window_days:
                unit.ignore(one, "features counted under another configuration")
                continue
            counts = {
                segment: {feature: Peers(of.entitled, of.using) for feature, of in features.items()}
                for segment, features in data.segments.items()
            }
            said.append((one.partition, data.day, data.window_days, data.of_partition, data.partitions, counts))
        if not said or self.rules is None:
            return
        new = await guidance_store.save_counts(unit.db, said)
        if new:  # they tell their own, too, though they may have none
            await guidance_store.start_counting(unit.db, {partition for partition, _ in new})
        for partition, _ in new:
            self._done.pop(partition, None)
        complete = await guidance_store.complete_days(unit.db, {partition for partition, _ in new},
                                                      self.rules.window_days)  # fmt: skip
        for partition, days in sorted(complete.items()):
            if len(days) == 1 and (partition, days[0]) in new:
                await guidance_store.wake(unit.db, partition)


def _concerned(known: Facts, standing: Standing) -> bool:
    return bool(standing.open) or any(kind == "entitlement" for kind, _ in known.things)


def read(parameters: Mapping[str, Any], user_id: str | None) -> Dismissal:
    """A dismissal as it was asked for; raises Unusable naming the parameter."""
    wanted = requests.text(parameters, "recommendation_id") or requests.text(parameters, "feature")
    if wanted is None:
        raise Unusable(f"{DEMAND} takes recommendation_id or feature; health.score lists what is recommended")
    note = parameters.get("note")
    if note is not None and (not isinstance(note, str) or len(note) > MOST_NOTE):
        raise Unusable(f"parameter note takes a text of at most {MOST_NOTE} characters")
    return Dismissal(wanted, requests.text(parameters, "by") or user_id, note)


def dismiss(asked: Dismissal, memory: Memory, policy: Policy, account_id: str, at: datetime) -> Dismissed:
    """Carry a dismissal out on what is remembered of its account; raises Unusable when there is nothing to dismiss."""
    turn = guidance.dismiss(memory.guidance, asked.wanted, policy.model.guidance, at, asked.by, asked.note)
    if turn is not None:
        [end] = turn.ended
        one = end.recommendation
        return Dismissed(one.recommendation_id, one.feature, end.until or at, turn)
    rest = guidance.dismissed_before(memory.guidance, asked.wanted)
    if rest is not None and rest.until > at:
        return Dismissed(rest.dismissed or "", rest.feature, rest.until, None)
    there = ", ".join(one.feature for one in memory.guidance.open) or "nothing"
    raise Unusable(f"{asked.wanted!r} is not recommended to account {account_id!r}; recommended is: {there}")


def done(account_id: str, said: Dismissed, policy: Policy) -> dict[str, Any]:
    """The answer to a dismissal."""
    return {
        "account_id": account_id,
        "config_hash": policy.digest,
        "done": "dismissed",
        "already": said.turn is None,
        "recommendation_id": said.recommendation_id,
        "feature": said.feature,
        "until": instant(said.until),
    }


def shown(standing: Standing) -> list[dict[str, Any]]:
    """What is recommended, as JSON, best first."""
    return [
        {
            "recommendation_id": one.recommendation_id,
            "feature": one.feature,
            "segment": one.segment,
            "peers": one.peers.entitled,
            "peers_using": one.peers.using,
            "share": round(one.peers.share, 6),
            "share_low": round(one.peers.share_low, 6),
            "unused_days": one.unused_days,
            "why": one.why,
            "next_step": one.next_step,
            "made_at": instant(one.made_at),
            "baseline": one.baseline,
        }
        for one in standing.open
    ]


def tell(row: Account, turn: Turn, stamp: Mapping[str, Any], cause: str, unit: UnitOfWork) -> list[guidance_store.Row]:
    """Emit what was recommended and what became of it; what to record."""
    rows: list[guidance_store.Row] = []

    def emit(event: Event, kind: str) -> None:
        unit.emit(RESULTS, event, account_id=row.account_id, cause=cause, kind=kind, partition=row.partition)

    for end in turn.ended:
        one = end.recommendation
        head = {**stamp, "recommendation_id": one.recommendation_id, "feature": one.feature, "made_at": one.made_at}
        event: Event
        if end.became == "adopted":
            event = results.RecommendationAdopted(**head, days_used=end.days_used, baseline=turn.baseline)
        elif end.became == "dismissed":
            event = results.RecommendationDismissed(**head, by=end.by, note=end.note, until=end.until)
        else:
            event = results.RecommendationWithdrawn(**head, reason=end.reason, baseline=turn.baseline)
        emit(event, f"recommendation.{end.became}:{one.recommendation_id}")
        rows.append((row.account_id, row.partition, one, stamp["computed_at"], end))
    for one in turn.made:
        event = results.RecommendationMade(
            **stamp, recommendation_id=one.recommendation_id, feature=one.feature, segment=one.segment,
            peers=one.peers.entitled, peers_using=one.peers.using, share=round(one.peers.share, 6),
            share_low=round(one.peers.share_low, 6), unused_days=one.unused_days, why=one.why,
            next_step=one.next_step, baseline=one.baseline,
        )  # fmt: skip
        emit(event, f"recommendation.made:{one.recommendation_id}")
        rows.append((row.account_id, row.partition, one, None, None))
    return rows


async def close(merged: Sequence[tuple[Account, Memory, Closed, datetime]], unit: UnitOfWork, policy: Policy) -> None:
    """Withdraw what was recommended to accounts that became others: (account, memory, what it became, when now is)."""
    rows = []
    for row, memory, to, at in merged:
        stamp = {
            "account_id": row.account_id, "occurred_at": to.merged_at, "computed_at": at, "config_hash": policy.digest,
        }  # fmt: skip
        rows += tell(row, guidance.closed(memory.guidance, "merged"), stamp, f"{row.account_id}:merged", unit)
    if rows:
        await guidance_store.save_recommendations(unit.db, rows, policy.digest)
    await guidance_store.forget_features(unit.db, [row.account_id for row, _, _, _ in merged])
