"""What is decided of the whole book reaches every partition, and comes back as it was said."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, cast

import msgspec
import pytest

from services.health import book_store
from services.health.book import Book, _slot
from services.health.domain import Memory
from services.health.handlers import Handlers
from services.health.policy import load_policy
from services.health.store import read_breaks
from services.health.telling import Cause
from services.health.tracking import Break
from shared.events import model_of
from shared.runtime.api import Batch, Signal
from shared.runtime.unit import UnitOfWork, partition_for
from tests.support.bench_worker import PARTITIONS, a_signal

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


async def test_hours_are_learnt_by_source_from_whatever_came_live_or_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[dict[Any, Any]] = []

    async def save(_: object, hours: dict[Any, Any]) -> None:
        saved.append(hours)

    monkeypatch.setattr(book_store, "save_heard", save)
    clocks: dict[int, datetime | None] = dict.fromkeys(range(PARTITIONS), NOW)

    def use(account: str, hour: int, source: str = "segment", **more: Any) -> Signal:
        at = NOW.replace(hour=hour)
        return a_signal(
            "usage.tracked", account, id=f"{account}{hour}{source}", at=at, source=source, event="Used", **more
        )

    async def learnt(*batch: Signal) -> dict[Any, Any]:
        handlers = Handlers(load_policy())
        unit = UnitOfWork("health", cast(Any, None), seq=1, clocks=clocks, live=clocks, partitions=PARTITIONS)
        columns, others = handlers._columns(Batch(batch), unit)
        saved.clear()
        await handlers.book.learn(batch, others, columns.events(), columns.partitions, columns.account, unit)
        return saved[0] if saved else {}

    day, places = NOW.date(), {name: partition_for(name, PARTITIONS) for name in ("acme", "beacon", "calm")}
    assert len(set(places.values())) == PARTITIONS
    alone = await learnt(*(use(name, hour) for name in places for hour in (3, 5)))
    assert alone == {(place, "segment", True, day): (1 << 3 | 1 << 5,) * 2 for place in places.values()}
    tagged = a_signal("invoice.paid", "acme", id="i", at=NOW, source="stripe", invoice_id="i1")
    mixed = await learnt(use("acme", 3), tagged, use("beacon", 4, "hune", replay=True), use("acme", 4, replay=True))
    assert mixed == {
        (places["acme"], "segment", True, day): (1 << 3 | 1 << 4, 1 << 3),
        (places["beacon"], "hune", True, day): (1 << 4, 0),
        (places["acme"], "stripe", False, day): (1 << NOW.hour, 1 << NOW.hour),
    }
    assert await learnt(a_signal("invoice.paid", "acme", id="i", at=NOW, source="hune.ops", invoice_id="i1")) == {}
