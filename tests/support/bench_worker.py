"""A worker's handlers against a real PostgreSQL, without Kafka: signals in, result events out."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devstack.ports import choose
from devstack.postgres import Postgres, outside
from shared import db
from shared.events import model_of, results, wire_type_of
from shared.runtime.api import Batch, Signal, Worker
from shared.runtime.unit import UnitOfWork, partition_for
from shared.runtime.wire import short_name
from tests.support.containers import a_postgres_container
from tests.support.stack import chosen_stack

PARTITIONS = 2
OF_BOOK = {model.wire_type() for model in (results.PartCounted, results.DataJudged)}
"""What a worker's partitions count for each other, hour by hour."""


RUNTIME = Path(__file__).parents[2] / "shared/db/migrations"


@contextmanager
def a_postgres() -> Iterator[str]:
    """A PostgreSQL of this test's own; gone afterwards."""
    if chosen_stack() == "containers":
        with a_postgres_container() as url:
            yield url
        return
    with tempfile.TemporaryDirectory(prefix="hune-test-", ignore_cleanup_errors=True) as home:
        server = Postgres(Path(home), choose(1)[0])
        try:
            server.prepare()
            server.spawn()
            deadline = time.monotonic() + 30
            while not server.is_ready():
                assert time.monotonic() < deadline, "PostgreSQL did not start within 30 s"
                time.sleep(0.02)
            yield server.url
        finally:
            server.stop()
            shutil.rmtree(outside(Path(home)), ignore_errors=True)


async def a_database(url: str, worker: Worker) -> db.Connection:
    """A connection to a database that holds only the runtime's and this worker's schema, empty."""
    connection = await db.connect(url)
    for schema, migrations in (("hune", RUNTIME), (worker.name, worker.migrations)):
        await connection.execute(f"drop schema if exists {schema} cascade; drop schema if exists {schema}_api cascade")
        await connection.execute(f"create schema {schema}")
        for path in sorted(migrations.glob("*.sql")):
            await connection.execute(path.read_text())
    return connection


_offsets = iter(range(1_000_000_000))


def a_signal(
    type: str, subject: str = "acme", /, *, id: str, at: datetime, demand: str | None = None,
    received_at: datetime | None = None, replay: bool = False, source: str = "hune", **data: Any,
) -> Signal:  # fmt: skip
    """A signal as the runtime hands it over, its data validated by the contract."""
    model = model_of(wire_type_of(type))
    return Signal(
        topic="routed", partition=partition_for(subject, PARTITIONS), offset=next(_offsets), type=type, id=id,
        source=source, account_id=subject, data=model.model_validate({"account_id": subject} | data),
        occurred_at=at, received_at=received_at or at, replay=replay, demand=demand,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """What one transaction wrote: result events in order as (type, data), rejections by reason, counts."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)
    moved: int = 0

    def of(self, type: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == type]


class Runner:
    """Runs a worker's batches and ticks, each in a transaction, at a clock the test sets."""

    def __init__(self, worker: Worker, connection: db.Connection, database: int = 0) -> None:
        self.worker, self.db, self.database = worker, connection, database
        self.clock: datetime | None = None
        self.live = False
        self._seq = 0

    async def handle(self, signals: Sequence[Signal]) -> Said:
        async with self.db.transaction():
            unit = self._unit()
            await self.worker.handle(Batch(signals), unit)
        return _said(unit)

    async def tick(self, limit: int = 1000) -> Said:
        assert self.worker.tick is not None
        assert self.clock is not None, "a tick needs a clock"
        async with self.db.transaction():
            unit = self._unit()
            moved = await self.worker.tick(dict.fromkeys(range(PARTITIONS), self.clock), limit, unit)
        return _said(unit, moved)

    def _unit(self) -> UnitOfWork:
        self._seq += 1
        clocks = dict.fromkeys(range(PARTITIONS), self.clock)
        live = range(PARTITIONS) if self.live else ()
        return UnitOfWork(
            self.worker.name, self.db, seq=self._seq, clocks=clocks, live=live, partitions=PARTITIONS,
            database=self.database,
        )  # fmt: skip


def _said(unit: UnitOfWork, moved: int = 0) -> Said:
    records = [
        record
        for partition in sorted(unit.outbox)
        for record in unit.outbox[partition]
        if dict(record.headers)["ce_type"].decode() not in OF_BOOK
    ]
    headers = [dict(record.headers) for record in records]
    return Said(
        [
            (short_name(of["ce_type"].decode()), json.loads(record.value))
            for of, record in zip(headers, records, strict=True)
        ],
        [of["ce_id"].decode() for of in headers],
        [reason for reason, _ in unit.rejected.values()],
        {outcome: n for counts in unit.counts.values() for outcome, n in counts.items()},
        moved,
    )


def day(number: float) -> datetime:
    return datetime.fromtimestamp(1_767_225_600 + number * 86_400, UTC)  # 2026-01-01 and so many days
