"""The cost of an event does not grow with the number of accounts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from devstack.stack import Stack
from services.health.policy import load_policy
from services.health.usage import EVENT
from shared import topics
from shared.runtime.unit import partition_for
from tests.benchmarks.lab import FIRST, Cost, Lab
from tests.benchmarks.report import Figure, Outcome
from tests.benchmarks.traffic import Sent, Traffic, account

WINDOW = 5_000
LEAST = 1_000
CPU_MOST, WALL_MOST = 1.3, 1.6
ABOUT = f"""
The health worker on a backlog of the usual mix in installations of different size. The accounts are there beforehand,
each with some use of yesterday, a last score and today's first use. In every partition {WINDOW:,} events in a row touch
as many different accounts as a twelfth of {LEAST:,}, chosen anew for the next {WINDOW:,}: the same number of different
accounts per transaction in each installation.
"""


@dataclass(frozen=True, slots=True)
class Size:
    repetitions: int
    accounts: tuple[int, ...]
    windows: int


QUICK = Size(1, (1_000, 100_000), 1)
FULL = Size(3, (1_000, 100_000, 1_000_000), 4)


async def measure(stack: Stack, size: Size, say: Any) -> Outcome:
    outcome = Outcome("accounts", ABOUT)
    labs = {count: Lab(stack, f"accounts{count}") for count in size.accounts}
    books: dict[int, list[list[str]]] = {}
    costs: dict[int, list[Cost]] = {count: [] for count in size.accounts}
    traffic = Traffic(seed=10)
    for count, lab in labs.items():
        say(f"accounts: an installation with {count:,}")
        await lab.open()
        books[count] = by_partition(count, lab.partitions)
        await lab.begin_life(traffic)
        await settle_in(lab, books[count])
    try:
        for repetition in range(size.repetitions):
            for count, lab in labs.items():
                say(f"accounts {repetition + 1}/{size.repetitions}: {count:,}")
                await lab.feed(lab.topic(topics.ROUTED["health"]), _windows(traffic, books[count], size.windows))
                cost = await lab.work_off("health")
                costs[count].append(cost)
                outcome.rows.append({"accounts": f"{count:,}", **cost.as_numbers()})
    finally:
        for lab in labs.values():
            await lab.close()
    least = costs[size.accounts[0]]
    for count in size.accounts[1:]:
        label = f"{count:,} accounts ÷ {size.accounts[0]:,}"
        outcome.figures += [
            Figure(f"CPU per event, {label}", _ratio(costs[count], least, _cpu), "×", CPU_MOST, more=False),
            Figure(f"time per event, {label}", _ratio(costs[count], least, _wall), "×", WALL_MOST, more=False),
        ]
    for count in size.accounts:
        wal = tuple(cost.wal_bytes / cost.events for cost in costs[count])
        outcome.figures.append(Figure(f"WAL at {count:,} accounts", wal, "bytes/event", more=False))
    return outcome


def _cpu(cost: Cost) -> float:
    return cost.worker_us + cost.postgres_us


def _wall(cost: Cost) -> float:
    return cost.seconds / cost.events


def _ratio(costs: list[Cost], least: list[Cost], of: Any) -> tuple[float, ...]:
    return tuple(of(cost) / of(base) for cost, base in zip(costs, least, strict=True))


def by_partition(count: int, partitions: int) -> list[list[str]]:
    book: list[list[str]] = [[] for _ in range(partitions)]
    for number in range(count):
        book[partition_for(account(number), partitions)].append(account(number))
    return book


def _windows(traffic: Traffic, book: list[list[str]], windows: int) -> Iterator[Sent]:
    """Each partition's next windows; within a window its accounts take turns at random."""
    draw = np.random.default_rng(traffic.next_run())
    some = LEAST // len(book)
    for _ in range(windows):
        for accounts in book:
            chosen = draw.choice(len(accounts), size=min(some, len(accounts)), replace=False)
            picks = chosen[draw.integers(0, len(chosen), WINDOW)]
            yield from traffic.routed(traffic.of([accounts[k] for k in picks.tolist()]))


async def settle_in(lab: Lab, book: list[list[str]]) -> None:
    """Accounts as they stand after a first use today: scored, with use of yesterday, nothing waiting."""
    memory = await lab.db.fetchval("select memory::text from health.accounts where account_id = $1", FIRST)
    now = datetime.now(UTC)
    due, digest = now + timedelta(days=1), load_policy().digest
    body = np.zeros(5, EVENT)
    body["at"] = int((now - timedelta(days=1)).timestamp() * 1e6) + np.arange(5)
    body["user"] = np.arange(1, 6)
    await lab.db.execute("create table known (account_id text, partition int)")
    rows = ((name, partition) for partition, names in enumerate(book) for name in names)
    await lab.db.copy_records_to_table("known", records=rows)
    await lab.db.execute(
        """
        insert into health.accounts (account_id, partition, timezone, last_active_day, next_due_at, pending,
                                     assessed_at, assessed_live, config_hash, memory)
        select account_id, partition, 'UTC', $1::timestamptz::date, $2, false, $1, true, $3, $4::jsonb from known
        """,
        now, due, digest, json.loads(memory) if memory else None,
    )  # fmt: skip
    await lab.db.execute(
        "insert into health.usage (account_id, day, partition, n, body) "
        "select account_id, $1::timestamptz::date - 1, partition, 5, $2 from known",
        now, body.tobytes(),
    )  # fmt: skip
    await lab.db.execute("drop table known")
    await lab.db.execute("analyze")
    await lab.db.execute("checkpoint")
