"""The whole book: partitions count their accounts, one of them sums, decides where data broke, and tells them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from services.health import actions, book_store, episodes, incidents, standstill, store, telling, tracking
from services.health.actions import Acted, Declined
from services.health.book_store import Masks
from services.health.domain import Decision, Memory, Policy
from services.health.store import Account
from services.health.telling import Cause
from services.health.tracking import KEPT_DAYS, Break
from services.health.usage import DAY_US, Events
from shared import topics
from shared.events import results
from shared.ids import derived_id
from shared.requests import Unusable
from shared.runtime.api import EVERYBODY, Signal
from shared.runtime.unit import UnitOfWork, partition_for
from shared.runtime.wire import Outgoing, event_headers

COUNTED, JUDGED = results.PartCounted.type_name, results.DataJudged.type_name
INTERNAL = topics.INTERNAL["health"]
GRACE = timedelta(minutes=10)
"""So long after an hour what happened in it is counted."""
CHUNK_DAYS = 24
HOUR_US = 3_600_000_000
MOST_ORIGINS = 1 << 20
_EPOCH_DAY = date(1970, 1, 1).toordinal()


class Book:
    """The book's counts under one policy; what it remembers only spares questions to the database."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.is_on = policy.rules.judges_data
        """Off, nothing is counted, judged or read otherwise."""
        self.heard: dict[book_store.Heard, Masks] = {}
        self.told: dict[int, datetime] = {}

    async def learn(
        self, batch: Iterable[Signal], others: Sequence[Signal], events: Events, partitions: Sequence[int],
        account: Sequence[int], unit: UnitOfWork,
    ) -> None:  # fmt: skip
        """Remember in which hours sources sent: `others` anything, `events` the use of the batch in its order.

        `account` of each event, `partitions` of each account.
        """
        if not self.is_on:
            return
        found: dict[book_store.Heard, Masks] = {}
        if events.size:
            known: dict[tuple[int, str, bool], int] = {}
            used = [one for one in batch if one.type == "usage.tracked"] if others else batch
            first = next(iter(used))
            of: Any
            if len({one.source for one in used}) == 1 and len({one.replay for one in used}) == 1:  # as nearly always
                known = {(place, first.source, first.replay): n for n, place in enumerate(dict.fromkeys(partitions))}
                places = [known[place, first.source, first.replay] for place in partitions]
                of = np.array(places, np.int64)[np.array(account, np.int64)]
            else:
                of = [known.setdefault((one.partition, one.source, one.replay), len(known)) for one in used]
            origins = list(known)
            for both in np.unique(events["at"] // HOUR_US * MOST_ORIGINS + np.array(of, np.int64)).tolist():
                hour, place = divmod(both, MOST_ORIGINS)
                partition, source, replay = origins[place]
                _add(found, partition, source, True, hour, live=not replay)
        for one in others:
            if one.type != "request.made":
                _add(found, one.partition, one.source, False, tracking.hour_of(one.occurred_at), live=not one.replay)
        new = {}
        for key, (mask, live) in found.items():
            before, lived = self.heard.get(key, (0, 0))
            if (before | mask, lived | live) != (before, lived) and not key[1].startswith("hune."):
                new[key] = mask, live
        if new:
            await book_store.save_heard(unit.db, new)
            unit.on_commit.append(lambda: self._remember(new))

    def _remember(self, new: Mapping[book_store.Heard, Masks]) -> None:
        if len(self.heard) > 100_000:
            self.heard.clear()
        for key, (mask, live) in new.items():
            before, lived = self.heard.get(key, (0, 0))
            self.heard[key] = before | mask, lived | live

    async def count_again(self, events: Events, partitions: Sequence[int], account: Sequence[int],
                          unit: UnitOfWork) -> None:  # fmt: skip
        """Use of days that may be counted already: `account` of each event, `partitions` of each account."""
        clocks = [clock for partition in set(partitions) if (clock := unit.clock(partition)) is not None]
        if not clocks or not self.is_on:
            return
        today = max(clocks).astimezone(UTC).date().toordinal() - _EPOCH_DAY
        past = events["at"] < today * DAY_US
        if not past.any():
            return
        days = (events["at"][past] // DAY_US).tolist()
        late = {
            (partitions[index], date.fromordinal(_EPOCH_DAY + day))
            for index, day in zip(np.array(account)[past].tolist(), days, strict=True)
        }
        await book_store.uncount(unit.db, late)

    async def hear(self, signals: Sequence[Signal], unit: UnitOfWork) -> None:
        """Keep what partitions counted, and what was decided of it."""
        parts = [one for one in signals if one.type == COUNTED]
        if parts:
            said = [(one.data.part, one.data) for one in parts]
            await book_store.save_parts(
                unit.db,
                parts[0].partition,
                [(part, day.day, day.active, day.features) for part, data in said for day in data.days],
                [
                    (part, one.source, one.used, one.day, (one.hours, one.live))
                    for part, data in said
                    for one in data.hours
                ],
                {part: data.until for part, data in said if data.until is not None},
            )
        for one in signals:
            if one.type == JUDGED:
                breaks = tuple(Break(b.what, b.name, b.since, b.until) for b in one.data.breaks)
                since = None if one.data.since is None else one.data.since - timedelta(days=standstill.HABIT_DAYS)
                await book_store.save_breaks(unit.db, [(one.partition, one.occurred_at, breaks)], since)

    async def tick(self, clocks: Mapping[int, datetime], unit: UnitOfWork) -> int:
        """Count what is complete, and judge once all partitions have: 1 if that was done."""
        if not self.is_on:
            return 0
        slots = {partition: _slot(clock) for partition, clock in clocks.items()}
        late = [partition for partition, slot in slots.items() if self.told.get(partition, _NEVER) < slot]
        if late:
            told = await book_store.load_told(unit.db, late)
            self.told.update(told)
            waiting = [partition for partition in late if told.get(partition, _NEVER) < slots[partition]]
            for partition in waiting:
                await self._count(partition, slots[partition], clocks[partition], unit)
        place = partition_for(EVERYBODY, unit.partitions)
        return await self._judge(place, clocks[place], unit) if place in clocks else 0

    async def _count(self, partition: int, slot: datetime, clock: datetime, unit: UnitOfWork) -> None:
        """Tell the book's partition what is complete here; at most so many days at once."""
        today = slot.date()
        oldest = today - timedelta(days=KEPT_DAYS)
        counted = await book_store.load_counted(unit.db, partition, oldest)
        missing = [day for n in range(KEPT_DAYS) if (day := oldest + timedelta(days=n)) not in counted]
        first = missing[0] if missing else today
        chunk = [day for day in missing if day < first + timedelta(days=CHUNK_DAYS)]
        done = len(chunk) == len(missing)
        days = []
        if chunk:
            use = await book_store.load_use(unit.db, partition, first, chunk[-1] + timedelta(days=1))
            counts = tracking.count(use)
            names = await book_store.load_words(unit.db, {one for _, found in counts.values() for one in found})
            for day in chunk:
                active, features = counts.get(day, (0, {}))
                named = {names[one]: n for one, n in sorted(features.items()) if one in names}
                days.append(results.DayOfPart(day=day, active=active, features=named))
            await book_store.save_counted(unit.db, partition, [(day.day, day.active, day.features) for day in days])
        hours = await book_store.take_hours(unit.db, partition, oldest)
        event = results.PartCounted(
            part=partition,
            until=slot if done else None,
            days=tuple(days),
            hours=tuple(results.HoursOfSource(source=source, used=used, day=day, hours=mask, live=live)
                        for source, used, day, mask, live in sorted(hours)),
        )  # fmt: skip
        unit.emit(
            INTERNAL, event, account_id=EVERYBODY, cause=f"{partition}:{unit.seq}", kind=COUNTED, occurred_at=clock,
            partition=partition,
        )  # fmt: skip
        if done:
            await book_store.save_told(unit.db, partition, slot, oldest)

    async def _judge(self, place: int, clock: datetime, unit: UnitOfWork) -> int:
        parts, until, judged, was_live, memory = await book_store.load_standing(unit.db, place)
        if parts < unit.partitions or until is None or (judged is not None and judged >= until):
            return 0
        live = unit.is_live(place)
        oldest = until.date() - timedelta(days=KEPT_DAYS)
        counts = await book_store.load_days(unit.db, place, oldest)
        hours = await book_store.load_hours(unit.db, place, oldest)
        found = incidents.found(counts, hours, until, self.policy.rules, self.policy.model.language)
        where = episodes.Where(EVERYBODY, clock, until.date(), self.policy.model.language)
        cause = Cause(f"book:{until.isoformat()}", clock, (), clock, baseline=not live or not was_live)
        turn = episodes.turn(where, found.holding, memory.open, memory.hush, self.policy.rules,
                             cause=cause.id, baseline=cause.baseline)  # fmt: skip
        after = Memory(open=(*turn.still, *turn.opened), hush=turn.hush, breaks=found.breaks)
        decision = Decision(after, None, None, turn.opened, turn.grown, turn.reminded, turn.resolved, {}, None, "UTC",
                            None)  # fmt: skip
        await self._tell(place, decision, cause, unit)
        await book_store.save_book(unit.db, place, after, until, live=live)
        await book_store.forget(unit.db, place, oldest)
        if found.breaks != memory.breaks:
            self._broadcast(place, memory.breaks, found.breaks, cause, unit)
        return 1

    async def _tell(self, place: int, decided: Decision | Acted, cause: Cause, unit: UnitOfWork) -> None:
        told = telling.tell(Account(EVERYBODY, place), decided, cause, {}, unit, self.policy)
        if told.episodes:
            await store.save_alerts(unit.db, told.episodes, self.policy.digest)
        if told.log:
            await store.save_log(unit.db, told.log)

    def _broadcast(
        self, place: int, before: Collection[Break], after: Sequence[Break], cause: Cause, unit: UnitOfWork
    ) -> None:
        changed = set(before) ^ set(after)
        event = results.DataJudged(
            breaks=tuple(results.BreakOfData(what=b.what, name=b.name, since=b.since, until=b.until) for b in after),
            since=min(one.since for one in changed),
        )
        for partition in range(unit.partitions):
            identity = derived_id("health", cause.id, JUDGED, EVERYBODY, partition)
            headers = event_headers(event, id=identity, source="hune.health", subject=EVERYBODY, time=cause.clock)
            body = event.model_dump_json().encode()
            unit.send(place, Outgoing(INTERNAL.name, partition, EVERYBODY.encode(), body, headers))

    async def answer(self, signal: Signal, unit: UnitOfWork) -> None:
        """A request about the whole book: what is open, or something to be done about it."""
        demand, clock = telling.demand_of(signal), unit.clock(signal.partition)
        if clock is None or demand not in ("health.alerts", *actions.DEMANDS):
            unit.decline(signal, f"health does not answer {demand or 'a request without a demand'} for the whole book")
            return
        memory = await book_store.load_memory(unit.db, signal.partition)
        if demand == "health.alerts":
            unit.answer(signal, telling.open_alerts(EVERYBODY, memory, self.policy), clock)
            return
        try:
            action = actions.read(demand, signal.data.parameters, signal.data.user_id, clock)
        except Unusable as error:
            unit.decline(signal, str(error))
            return
        past = await store.load_past(unit.db, [action.alert_id])
        acted = actions.act(action, memory, past, EVERYBODY, clock)
        if isinstance(acted, Declined):
            unit.decline(signal, acted.reason)
            return
        cause = Cause(signal.id, signal.occurred_at, (signal.id,), clock, baseline=False)
        await self._tell(signal.partition, acted, cause, unit)
        await book_store.save_memory(unit.db, signal.partition, replace(acted.memory, breaks=memory.breaks))
        unit.answer(signal, telling.done(EVERYBODY, acted, self.policy), clock)


_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def _add(
    found: dict[book_store.Heard, Masks], partition: int, source: str, used: bool, hour: int, *, live: bool
) -> None:
    day, bit = divmod(hour, 24)
    key = partition, source, used, date.fromordinal(_EPOCH_DAY + day)
    mask, lived = found.get(key, (0, 0))
    found[key] = mask | 1 << bit, lived | live << bit


def _slot(clock: datetime) -> datetime:
    """The last whole UTC hour that is complete."""
    return (clock.astimezone(UTC) - GRACE).replace(minute=0, second=0, microsecond=0)
