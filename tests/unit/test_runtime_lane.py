"""What a lane may count as read: records that were applied, and markers; nothing that was only fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from shared.runtime.api import Worker
from shared.runtime.lane import Lane
from shared.runtime.ownership import After, Owned
from shared.runtime.transaction import Attempt, Work
from shared.runtime.wire import Refused
from shared.topics import RESULTS

TOPIC = RESULTS["ops"]


async def handle(batch: Any, unit: Any) -> None:
    raise AssertionError("nothing is applied here")


WORKER = Worker(name="qbr", reads=(TOPIC,), writes=(), handle=handle, migrations=Path())


def a_partition(applied: int) -> Owned:
    nobody: Any = type("Nobody", (), {"position": 0, "behind": 0})()
    return Owned(
        partition=0, epoch=1, version=1, offsets={TOPIC.name: applied}, head=0, published=0, clock=None, live=True,
        marks={}, counts=Counter(), seen=nobody, relay=nobody,
    )  # fmt: skip


def a_lane(owned: Owned, stands_at: int) -> Lane:
    lane = Lane(WORKER, None, lambda record: Refused(record, "not read here"), 1)

    async def position(topic: str, partition: int) -> int:
        return stands_at

    lane.position = position
    lane.add(owned)
    return lane


def records(offsets: Iterable[int]) -> list[Any]:
    return [ConsumerRecord(TOPIC.name, 0, at, 0, 0, b"", b"", None, 0, 0, ()) for at in offsets]


def offset_after(owned: Owned, passed: dict[tuple[str, int], int]) -> int:
    attempt, after = Attempt(WORKER, Work((), [owned], passed=passed), 1), {0: After.of(owned)}
    attempt._move_offsets(after)
    return after[0].offsets[TOPIC.name]


async def test_the_offset_moves_past_markers_behind_the_last_record() -> None:
    owned = a_partition(applied=5)
    lane = a_lane(owned, stands_at=7)
    assert offset_after(owned, await lane._markers_passed([owned])) == 7


@pytest.mark.parametrize("given_up_by", ["a revocation", "the end of the process"])
async def test_records_that_were_fetched_and_given_up_are_left_to_the_next_owner(given_up_by: str) -> None:
    owned = a_partition(applied=5)
    lane = a_lane(owned, stands_at=10)
    lane.take_in(records(range(5, 10)))
    if given_up_by == "a revocation":
        await lane.remove([0], timeout=0.1)
    else:
        lane.stop()
        assert await lane._next_work() is None
    assert not owned.queue
    assert offset_after(owned, await lane._markers_passed([owned])) == 5
