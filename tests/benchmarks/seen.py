"""What telling duplicates apart costs per event: `python -m tests.benchmarks.seen [CASE …]`.

It starts a PostgreSQL of its own. Worker time is this process's CPU, PostgreSQL's that of the
server's processes; ids are random, 95 % of live traffic is of this hour, 4 % of the last day and 1 % of the last 90.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]

from devstack.ports import choose
from devstack.postgres import Postgres
from shared import db as database
from shared.db.migrate import migrate
from shared.runtime.seen import Seen, check_all, identity, save_all

PARTITIONS = 12
BATCH = 5_000
NOW = 500_000  # an hour
SERVICE = "bench"
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # hashes, hours, partitions
rng = np.random.default_rng(7)


@contextmanager
def postgres() -> Iterator[tuple[str, int]]:
    with tempfile.TemporaryDirectory() as home:
        server = Postgres(Path(home), choose(1)[0])
        server.prepare()
        server.spawn()
        try:
            while not server.is_ready():
                time.sleep(0.05)
            assert server.pid is not None
            yield server.url, server.pid
        finally:
            server.stop()


def server_cpu(pid: int) -> float:
    total = 0.0
    main = psutil.Process(pid)
    for process in (main, *main.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def a_batch(hours: np.ndarray) -> Batch:
    size = len(hours)
    return rng.integers(0, 2**64, size, dtype=np.uint64), hours, rng.integers(0, PARTITIONS, size)


def live(now: int, size: int = BATCH) -> Batch:
    hours = np.full(size, now)
    chance = rng.random(size)
    late = (chance >= 0.95) & (chance < 0.99)
    hours[late] -= rng.integers(1, 24, int(late.sum()))
    old = chance >= 0.99
    hours[old] -= rng.integers(24, 2160, int(old.sum()))
    return a_batch(hours)


@dataclass(frozen=True, slots=True)
class Spent:
    """Per event: CPU of the worker (and of it the hashing of ids) and of PostgreSQL in µs, and bytes of WAL."""

    events: int
    worker_us: float
    postgres_us: float
    wal_bytes: float
    identity_us: float = 0.0

    def as_numbers(self) -> dict[str, float]:
        return {name: round(value, 2) for name, value in asdict(self).items()}


class Run:
    """Batches through the store, with what they cost."""

    def __init__(self, db: database.Connection, pid: int, capacity: int, partitions: int = PARTITIONS) -> None:
        self.db, self.pid = db, pid
        self.seens = [Seen(SERVICE, p, capacity // partitions) for p in range(partitions)]
        self.spent, self.wall = 0.0, list[float]()

    async def apply(self, batch: Batch) -> int:
        hashes, hours, partitions = batch
        items = []
        for seen in self.seens:
            mine = partitions % len(self.seens) == seen.partition
            if mine.any():
                items.append((seen, hashes[mine], hours[mine]))
        async with self.db.transaction():
            started = time.process_time(), time.perf_counter()
            masks = await check_all(self.db, items)
            await save_all(self.db, [seen for seen, _, _ in items])
            self.spent += time.process_time() - started[0]
            self.wall.append(time.perf_counter() - started[1])
        started = time.process_time(), time.perf_counter()
        for seen, _, _ in items:
            seen.commit()
        self.spent += time.process_time() - started[0]
        self.wall[-1] += time.perf_counter() - started[1]
        return int(sum(mask.sum() for mask in masks))

    async def measure(self, name: str, batches: list[Batch], expected: int | None = None) -> Spent:
        self.spent, self.wall = 0.0, list[float]()
        events = sum(len(batch[0]) for batch in batches)
        wal = await self.db.fetchval("select pg_current_wal_insert_lsn()")
        before = server_cpu(self.pid)
        new = sum([await self.apply(batch) for batch in batches])
        server = server_cpu(self.pid) - before
        written = await self.db.fetchval("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1)", wal)
        if expected is not None and new != expected:
            raise AssertionError(f"{name}: {new} new instead of {expected}")
        wall = sorted(self.wall)
        print(
            f"{name:44s} {events:8d} events  worker {self.spent / events * 1e6:6.2f} + PostgreSQL"
            f" {server / events * 1e6:6.2f} µs/event  batch p50 {wall[len(wall) // 2] * 1e3:6.1f}"
            f" p99 {wall[int(len(wall) * 0.99)] * 1e3:6.1f} ms  WAL {float(written) / events:5.0f} B/event"
            f"  resident {sum(seen.resident for seen in self.seens) / 1e6:.2f} M",
            flush=True,
        )
        return Spent(events, self.spent / events * 1e6, server / events * 1e6, float(written) / events)


async def fill_history(db: database.Connection, per_hour: int, hours: int = 2160) -> None:
    """Packed history of `per_hour` ids in each bucket-hour of the whole service."""
    each = per_hour // PARTITIONS
    rows = []
    for hour in range(NOW - hours, NOW):
        for partition in range(PARTITIONS):
            ids = np.sort(rng.integers(-(2**63), 2**63 - 1, each))
            for start in range(0, each, 1024):
                low = int(ids[start]) if start else -(2**63)
                rows.append((SERVICE, partition, hour + hour // 24, low, ids[start : start + 1024].tobytes()))
    await db.copy_records_to_table(
        "seen_cold", schema_name="hune", records=rows, columns=["service", "partition", "bucket", "lo", "ids"]
    )
    await db.execute("analyze hune.seen_cold")


def in_time_order(events: int, hours: int) -> list[Batch]:
    """An import: `events` spread evenly over `hours`, oldest first."""
    order = np.sort(rng.integers(NOW - hours, NOW, events))
    return [a_batch(order[start : start + BATCH]) for start in range(0, events, BATCH)]


async def clear(db: database.Connection) -> None:
    await db.execute("truncate hune.seen, hune.seen_cold, hune.seen_undated")
    await db.execute("checkpoint")


def hashing() -> float:
    start = datetime(2026, 11, 22, 17, tzinfo=UTC)
    moments = [start + timedelta(milliseconds=int(ms)) for ms in rng.integers(0, 3_600_000, BATCH)]
    texts = [moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") for moment in moments]
    events = [("hune", str(uuid.uuid4()), text) for text in texts]
    best = 1e9
    for _ in range(20):
        began = time.perf_counter()
        found = [identity(source, name, text) for source, name, text in events]
        np.fromiter((name for name, _ in found), np.uint64, BATCH)
        np.fromiter((hour for _, hour in found), np.int64, BATCH)
        best = min(best, time.perf_counter() - began)
    print(f"{'identity, two arrays made of it':44s} {BATCH:8d} events  worker {best / BATCH * 1e6:6.2f} µs/event")
    return best / BATCH * 1e6


async def with_history(url: str, pid: int, *, per_hour: int, batches: int) -> Spent:
    """Live traffic on 90 days of history, warm."""
    await migrate([url], PARTITIONS)
    db = await database.connect(url)
    await fill_history(db, per_hour)
    run = Run(db, pid, 2_000_000)
    await run.measure("live, 90 days of history, start", [live(NOW) for _ in range(20)], BATCH * 20)
    spent = await run.measure("live, 90 days of history", [live(NOW) for _ in range(batches)], BATCH * batches)
    await db.close()
    return replace(spent, identity_us=hashing())


async def main(url: str, pid: int, chosen: list[str]) -> None:
    await migrate([url], PARTITIONS)
    db = await database.connect(url)
    hashing()
    cases = {
        "live": case_live, "history": case_history, "small": case_small_cache, "dense": case_dense_import,
        "sparse": case_sparse_import, "shuffled": case_shuffled, "undated": case_undated, "one": case_one_hour,
        "thin": case_thin,
    }  # fmt: skip
    for name in chosen or cases:
        await clear(db)
        await cases[name](db, pid)
    await db.close()


async def case_live(db: database.Connection, pid: int) -> None:
    run = Run(db, pid, 8_000_000)
    batches = [live(NOW) for _ in range(120)]
    await run.measure("live, no history", batches, BATCH * 120)
    await run.measure("live, all of it again", batches, 0)


async def case_history(db: database.Connection, pid: int) -> None:
    await fill_history(db, 20_000)
    run = Run(db, pid, 8_000_000)
    await run.measure("live, 90 days of 20 k ids an hour, start", [live(NOW) for _ in range(20)], BATCH * 20)
    await run.measure("live, 90 days of 20 k ids an hour", [live(NOW) for _ in range(100)], BATCH * 100)


async def case_small_cache(db: database.Connection, pid: int) -> None:
    await fill_history(db, 20_000)
    run = Run(db, pid, 200_000)
    await run.measure("the same, 200 k ids in memory", [live(NOW) for _ in range(100)], BATCH * 100)


async def case_dense_import(db: database.Connection, pid: int) -> None:
    batches = in_time_order(600_000, 2160)
    await Run(db, pid, 2_000_000).measure("import in time order, 600 k over 90 days", batches, 600_000)
    await Run(db, pid, 2_000_000).measure("its replay in a new process", batches, 0)
    run = Run(db, pid, 2_000_000)
    began, rows = time.process_time(), await db.fetchval("select count(*) from hune.seen")
    for seen in run.seens:
        async with db.transaction():
            while await seen.compact(db, NOW + 24, 64):
                pass
    left, cold = await db.fetchrow("select (select count(*) from hune.seen), (select count(*) from hune.seen_cold)")
    print(f"    compacted {rows} rows to {left} + {cold} chunks, worker {time.process_time() - began:.2f} s")
    await run.measure("its replay after compaction", batches, 0)


async def case_sparse_import(db: database.Connection, pid: int) -> None:
    batches = in_time_order(20_000, 13 * 365 * 24)
    await Run(db, pid, 2_000_000).measure("import in time order, 20 k over 13 years", batches, 20_000)
    await Run(db, pid, 2_000_000).measure("its replay in a new process", batches, 0)


async def case_shuffled(db: database.Connection, pid: int) -> None:
    batches = [a_batch(rng.integers(NOW - 2160, NOW, BATCH)) for _ in range(80)]
    await Run(db, pid, 2_000_000).measure("import shuffled, 400 k over 90 days", batches, 400_000)
    await Run(db, pid, 100_000).measure("its replay, 100 k ids in memory", batches[:20], 0)


async def case_undated(db: database.Connection, pid: int) -> None:
    batches = [a_batch(np.full(BATCH, -1)) for _ in range(40)]
    await Run(db, pid, 2_000_000).measure("undated", batches, 200_000)


async def case_one_hour(db: database.Connection, pid: int) -> None:
    batches = [a_batch(np.full(BATCH, NOW)) for _ in range(300)]
    await Run(db, pid, 200_000, 1).measure("1.5 M in one hour, one partition, 200 k wanted", batches, 1_500_000)


async def case_thin(db: database.Connection, pid: int) -> None:
    run = Run(db, pid, 8_000_000)
    await run.measure("thin live traffic, batches of 50", [live(NOW, 50) for _ in range(400)], 20_000)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*")
    arguments = parser.parse_args()
    with postgres() as (its_url, its_pid):
        asyncio.run(main(its_url, its_pid, arguments.case))
