"""Duplicates against a real PostgreSQL: whatever happens, each event is seen for the first time exactly once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared import db as database
from shared.runtime import seen as module
from shared.runtime.seen import UNDATED, Seen, check_all, save_all
from tests.support.stack import TestStores

NOW = 480_000  # an hour
Event = tuple[int, int, int]  # partition, hash, hour
rng = np.random.default_rng(11)


class Counting:
    """A connection that counts its round trips."""

    def __init__(self, db: database.Connection) -> None:
        self.db, self.asked = db, 0

    async def fetch(self, *args: Any) -> Any:
        self.asked += 1
        return await self.db.fetch(*args)

    async def execute(self, *args: Any) -> Any:
        self.asked += 1
        return await self.db.execute(*args)


class Owner:
    """Owns the partitions of a service of its own, as the runtime does."""

    def __init__(self, runner: asyncio.Runner, url: str, capacity: int = 1_000_000, partitions: int = 3) -> None:
        self.run = runner.run
        self.plain = self.run(database.connect(url))
        self.other = self.run(database.connect(url))
        self.db: Any = Counting(self.plain)
        self.partitions = partitions
        self.anew(capacity)

    def anew(self, capacity: int) -> None:
        self.service = f"seen-{uuid.uuid4()}"
        self.capacity = capacity
        self.restart()

    def restart(self) -> None:
        self.seens = [Seen(self.service, partition, self.capacity) for partition in range(self.partitions)]

    def close(self) -> None:
        self.run(self.plain.close())
        self.run(self.other.close())

    def apply(self, events: list[Event], **how: Any) -> list[Event]:
        """One batch; returns the events that were seen for the first time."""
        return self.run(self._apply(events, **how))

    def asks(self, events: list[Event]) -> int:
        before = self.db.asked
        self.apply(events)
        return int(self.db.asked - before)

    async def _apply(
        self,
        events: list[Event],
        end: str = "commit",
        refused: frozenset[int] = frozenset(),
        meanwhile: int | None = None,
    ) -> list[Event]:
        parts = {partition: [e for e in events if e[0] == partition] for partition, _, _ in events}
        seens = [self.seens[partition] for partition in parts]
        transaction = self.plain.transaction()
        await transaction.start()
        try:
            masks = await check_all(
                self.db,
                [
                    (
                        self.seens[partition],
                        np.array([number for _, number, _ in part], np.uint64),
                        np.array([hour for _, _, hour in part], np.int64),
                    )
                    for partition, part in parts.items()
                ],
            )
            fresh = [
                event
                for part, mask in zip(parts.values(), masks, strict=True)
                for event, new in zip(part, mask.tolist(), strict=True)
                if new
            ]
            for seen in seens:
                seen.withdraw(np.array(sorted(refused), np.uint64))
            await save_all(self.db, seens)
            if meanwhile is not None:
                await self._compact(self.other, meanwhile, "commit")
        except BaseException:
            await transaction.rollback()
            raise
        if end == "rollback":
            await transaction.rollback()
        else:
            await transaction.commit()
        for seen in seens:
            if end != "commit":
                seen.abort()
            seen.commit()
        return fresh

    def compact(self, before: int, end: str = "commit") -> None:
        self.run(self._compact(self.plain, before, end))

    async def _compact(self, db: database.Connection, before: int, end: str) -> None:
        for seen in self.seens:
            transaction = db.transaction()
            await transaction.start()
            while await seen.compact(db, before, 3):
                pass
            if end == "commit":
                await transaction.commit()
            else:
                await transaction.rollback()
                seen.abort()

    def rows(self, table: str) -> int:
        return int(self.run(self.plain.fetchval(f"select count(*) from hune.{table} where service = $1", self.service)))


@pytest.fixture
def owner(stack: TestStores) -> Iterator[Owner]:
    with asyncio.Runner() as runner:
        owner = Owner(runner, stack.database_url, partitions=12)
        yield owner
        owner.close()


def events_at(hours: list[int], partitions: int = 12) -> list[Event]:
    numbers = rng.integers(0, 2**64, len(hours), dtype=np.uint64).tolist()
    return [(nth % partitions, number, hour) for nth, (number, hour) in enumerate(zip(numbers, hours, strict=True))]


def live(now: int, size: int = 600) -> list[Event]:
    return events_at([now - (nth % 23 if nth % 20 == 0 else 0) for nth in range(size)])


def test_a_rolled_back_batch_is_new_again(owner: Owner) -> None:
    batch = live(NOW)
    assert len(owner.apply(batch, end="rollback")) == 600
    assert len(owner.apply(batch)) == 600
    assert owner.apply(batch) == []


def test_a_batch_whose_commit_was_unclear_is_a_repeat_if_it_happened(owner: Owner) -> None:
    owner.apply(live(NOW))
    batch = [*live(NOW), (0, 7, UNDATED)]
    assert len(owner.apply(batch, end="unclear")) == 601
    assert owner.apply(batch) == []


def test_a_refused_event_may_come_again(owner: Owner) -> None:
    batch = [(0, 1, NOW), (0, 2, NOW), (0, 3, UNDATED)]
    owner.apply(batch, refused=frozenset({2, 3}))
    assert owner.apply(batch) == [(0, 2, NOW), (0, 3, UNDATED)]
    assert owner.apply(batch) == []


def test_the_first_of_two_in_one_batch_is_the_new_one(owner: Owner) -> None:
    with_repeats = np.tile(np.array([5, 6, 5, 6, 5], np.uint64), 2)

    async def check() -> list[bool]:
        (mask,) = await check_all(owner.db, [(owner.seens[0], with_repeats, np.array([NOW] * 8 + [UNDATED] * 2))])
        return list(mask.tolist())

    assert owner.run(check()) == [True, True, *[False] * 6, True, True]


def test_a_check_without_an_end_is_refused(owner: Owner) -> None:
    async def check() -> None:
        await check_all(owner.db, [(owner.seens[0], np.array([1], np.uint64), np.array([NOW]))])

    owner.run(check())
    with pytest.raises(RuntimeError, match="save_all was not called"):
        owner.seens[0].commit()
    with pytest.raises(RuntimeError, match="checked again"):
        owner.run(check())


def test_live_traffic_over_all_partitions_costs_no_query_to_check(owner: Owner) -> None:
    owner.apply(live(NOW))
    assert owner.asks(live(NOW)) == 1, "one statement saves all partitions"
    assert owner.asks(live(NOW + 1)) == 1, "a new hour"
    assert owner.asks(live(NOW + 48)) == 1, "a new day"


def test_hundreds_of_new_hours_cost_one_query_to_check(owner: Owner) -> None:
    months = sorted(NOW + nth * 7 for nth in range(1_200))
    assert owner.asks(events_at(months)) == 2
    assert owner.asks(events_at([hour + 10_000 for hour in months])) == 1


def test_a_replay_by_a_new_owner_costs_a_handful_of_queries(owner: Owner) -> None:
    batch = events_at(sorted(NOW + nth // 4 for nth in range(2_400)))
    owner.apply(batch)
    owner.restart()
    assert owner.asks(batch) == 3
    assert owner.apply(batch) == []


def test_memory_stays_within_its_capacity(owner: Owner) -> None:
    owner.anew(capacity=2_000)
    batches = [events_at([NOW + hour] * 300 + [NOW + hour - 30] * 30) for hour in range(60)]
    for batch in batches:
        assert len(owner.apply(batch)) == 330
    assert max(seen.resident for seen in owner.seens) <= 2_000
    assert [owner.apply(batch) for batch in batches] == [[]] * 60


def test_the_busiest_hour_stays_in_memory_even_if_it_is_too_large(owner: Owner) -> None:
    owner.anew(capacity=10)
    owner.apply(live(NOW))
    assert owner.asks(events_at([NOW] * 600)) == 1


def test_few_ids_of_many_hours_share_a_row(owner: Owner) -> None:
    owner.apply([(0, nth, NOW + nth % 20) for nth in range(1, 100)])
    assert owner.rows("seen") == 1


def test_compaction_replaces_the_rows_of_past_hours_by_chunks(owner: Owner) -> None:
    batches = [[(0, number, NOW) for number in range(start, start + 500)] for start in range(0, 5_000, 500)]
    for batch in batches:
        owner.apply(batch)
    owner.compact(before=NOW)
    assert (owner.rows("seen"), owner.rows("seen_cold")) == (10, 0), "the hour is not over"
    owner.compact(before=NOW + 1)
    assert (owner.rows("seen"), owner.rows("seen_cold")) == (0, 5)
    assert not owner.seens[0].may_compact(NOW + 1)
    owner.restart()
    assert owner.apply([(0, 4_999, NOW), (0, 5_000, NOW)]) == [(0, 5_000, NOW)], "a look at two chunks"
    assert owner.apply([(0, 42, NOW)]) == [], "having added to an hour does not mean to know it"
    owner.restart()
    assert [owner.apply(batch) for batch in batches] == [[]] * 10
    owner.compact(before=NOW + 1)
    assert owner.rows("seen") == 1, "one late id is not worth writing the chunks again"


HOURS = [UNDATED, 0, *(NOW + ahead for ahead in (0, 1, 2, 23, 24, 9_600))]
EDGES = [0, 2**63 - 1, 2**63, 2**64 - 1]


def an_event(partition: int, number: int, nth_hour: int) -> Event:
    """One hash is always of one hour; the first few lie at the edges of what eight bytes hold."""
    at_edge = EDGES[number] ^ nth_hour << 8 if number < len(EDGES) else 0
    return partition, at_edge or (number * 64 + nth_hour) * 0x9E3779B97F4A7C15 % 2**64, HOURS[nth_hour]


events = st.builds(an_event, st.integers(0, 1), st.integers(0, 15), st.integers(0, len(HOURS) - 1))


@dataclass(frozen=True)
class Step:
    events: list[Event]
    resend: bool
    end: str
    refused: int
    compact: str
    restart: bool


steps = st.builds(
    Step,
    events=st.lists(events, max_size=40),
    resend=st.booleans(),
    end=st.sampled_from(["commit", "commit", "commit", "rollback", "unclear"]),
    refused=st.integers(0, 3),
    compact=st.sampled_from(["", "", "commit", "rollback", "meanwhile"]),
    restart=st.booleans(),
)


def test_each_event_is_new_exactly_once_whatever_happens(stack: TestStores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a plain set, with limits so small that every path is taken."""
    for name, value in {
        "FEW": 3, "SCATTER_FROM": 2, "WHOLE": 2, "ASKED_OFTEN": 3, "CHUNK": 2, "MOST_DAYS": 2, "_BUCKET_COST": 1,
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, value)

    with asyncio.Runner() as runner:
        owner = Owner(runner, stack.database_url)

        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(steps, max_size=12), st.sampled_from([1, 10, 30, 10_000]))
        def holds(program: list[Step], capacity: int) -> None:
            owner.anew(capacity)
            applied: set[Event] = set()
            batch: list[Event] = []
            for step in program:
                batch = [*step.events, *(batch if step.resend else ())]
                if step.restart:
                    owner.restart()
                if step.compact in ("commit", "rollback"):
                    owner.compact(NOW + 40, step.compact)
                refused = frozenset(number for _, number, _ in batch[: step.refused])
                fresh = owner.apply(
                    batch,
                    end=step.end,
                    refused=refused,
                    meanwhile=NOW + 40 if step.compact == "meanwhile" else None,
                )
                expected = {event for event in batch if event not in applied}
                assert len(fresh) == len(set(fresh))
                assert set(fresh) == expected
                if step.end != "rollback":
                    applied |= {event for event in expected if event[1] not in refused}
            owner.restart()
            everything = sorted(applied)
            assert owner.apply(everything) == []
            stored = owner.run(
                owner.plain.fetchval(
                    """select (select coalesce(sum(length(ids)), 0) from hune.seen where service = $1) / 8
                            + (select coalesce(sum(length(ids)), 0) from hune.seen_cold where service = $1) / 8
                            + (select count(*) from hune.seen_undated where service = $1)""",
                    owner.service,
                )
            )
            assert stored == len(applied)

        try:
            holds()
        finally:
            owner.close()
