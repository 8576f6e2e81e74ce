"""What is decided of the whole book reaches every partition, and comes back as it was said."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, cast

import msgspec

from services.health.book import Book, _slot
from services.health.domain import Memory
from services.health.policy import load_policy
from services.health.store import read_breaks
from services.health.telling import Cause
from services.health.tracking import Break
from shared.events import model_of
from shared.runtime.unit import UnitOfWork

NOW = datetime(2026, 3, 31, 1, 20, tzinfo=UTC)
BREAKS = (
    Break("feature", "export", date(2026, 3, 2), date(2026, 3, 5)),
    Break("source", "segment", date(2026, 3, 29)),
)


def test_every_partition_is_told_once_with_what_changed_first() -> None:
    unit = UnitOfWork("health", cast(Any, None), seq=1, clocks={0: NOW}, live=[0], partitions=5)
    cause = Cause("book", NOW, (), NOW, baseline=False)
    Book(load_policy())._broadcast(0, BREAKS[:1], BREAKS, cause, unit)
    records = unit.outbox[0]
    assert [record.partition for record in records] == list(range(5))
    assert len({dict(record.headers)["ce_id"] for record in records}) == 5
    said: Any = model_of(dict(records[0].headers)["ce_type"].decode()).model_validate_json(records[0].value)
    assert tuple(Break(one.what, one.name, one.since, one.until) for one in said.breaks) == BREAKS
    assert said.since == date(2026, 3, 29)


def test_breaks_are_remembered_as_they_were_told() -> None:
    assert read_breaks(msgspec.json.encode(BREAKS)) == BREAKS
    memory = msgspec.json.decode(msgspec.json.encode(Memory(breaks=BREAKS)), type=Memory)
    assert memory.breaks == BREAKS


def test_an_hour_is_counted_once_what_comes_minutes_late_is_in() -> None:
    assert _slot(NOW) == datetime(2026, 3, 31, 1, tzinfo=UTC)
    assert _slot(NOW.replace(minute=9)) == datetime(2026, 3, 31, 0, tzinfo=UTC)
