"""One, two and three processes of a service on the same backlog."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from shared import topics
from tests.benchmarks.lab import INPUT, OUTPUTS, PATIENCE, POLL_S, Cost, Lab
from tests.benchmarks.report import Figure, Outcome
from tests.benchmarks.traffic import Sent, Traffic

PROCESSES = (1, 2, 3)
ABOUT = """
One, two and three processes of the router and of the health worker, the partitions shared out among them before the
backlog comes: it is written in one Kafka transaction and so is there for all of them at once. From that moment to the
last record that a `read_committed` reader sees. One broker and one PostgreSQL serve all of them and share the cores, so
this says what processes cost each other on this machine; more of them pay where there are cores for them.
"""
OWNERS = "select count(distinct owner) from hune.partitions where service = $1 and owner is not null"


@dataclass(frozen=True, slots=True)
class Size:
    repetitions: int
    accounts: int
    events: int


QUICK = Size(2, 2_000, 40_000)
FULL = Size(5, 10_000, 200_000)


async def measure(lab: Lab, size: Size, say: Any) -> Outcome:
    traffic, outcome = Traffic(seed=12), Outcome("scaling", ABOUT)
    await lab.begin_life(traffic)
    await lab.feed(lab.topic(topics.RAW_EVENTS), traffic.everybody(size.accounts))
    await _work_off(lab, "router", 1, [])
    await _work_off(lab, "health", 1, [])
    found: dict[tuple[str, int], list[float]] = {(name, n): [] for name in ("router", "health") for n in PROCESSES}
    for repetition in range(size.repetitions):
        for processes in PROCESSES:
            for name in ("router", "health"):
                say(f"scaling {repetition + 1}/{size.repetitions}: {name}, {processes} processes")
                book = traffic.book(size.accounts, size.events)
                records = traffic.raw(book) if name == "router" else traffic.routed(book)
                cost = await _work_off(lab, name, processes, records)
                found[name, processes].append(cost.per_second)
                numbers = {**cost.as_numbers(), "events_per_transaction": None, "wal_bytes_per_event": None}
                outcome.rows.append({"program": name, "processes": processes, **numbers})
    for name in ("router", "health"):
        alone = found[name, 1]
        outcome.figures.append(Figure(f"{name}, 1 process", tuple(alone), "events/s"))
        for n in PROCESSES[1:]:
            ratios = tuple(many / one for many, one in zip(found[name, n], alone, strict=True))
            outcome.figures.append(Figure(f"{name}, {n} processes ÷ 1", ratios, "×"))
    return outcome


async def _work_off(lab: Lab, name: str, processes: int, records: Iterable[Sent]) -> Cost:
    topic, outputs = lab.topic(INPUT[name]), [lab.topic(output) for output in OUTPUTS[name]]
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(lab.service(name)) for _ in range(processes)]
        for member in members:
            await member.ready()
        await lab.settled(members[0])
        await _shared_out(lab, name, processes)
        read = await lab.read(members[0])
        before = [await lab.snapshot(member) for member in members]
        events = await lab.feed_at_once(topic, records)
        started = ended = time.monotonic()
        goal = sum((await lab.ends(topic)).values())
        deadline, seen = started + PATIENCE, await lab.ends(*outputs)
        while await lab.read(members[0]) < goal or not await lab.is_published(name):
            lab.check(members[0], deadline)
            now = await lab.ends(*outputs)
            if now != seen:
                seen, ended = now, time.monotonic()
            await asyncio.sleep(POLL_S)
        ended = max(ended, started + POLL_S)
        costs = [
            then.until(await lab.snapshot(member), events=max(events, 1), seconds=ended - started)
            for member, then in zip(members, before, strict=True)
        ]
    assert goal >= read + events, "the backlog has been read"
    return _of_all(costs)


async def _shared_out(lab: Lab, name: str, processes: int) -> None:
    """Wait until each process owns partitions."""
    deadline = time.monotonic() + PATIENCE
    while await lab.db.fetchval(OWNERS, name) != processes:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the partitions were not shared out among {processes} processes of {name}")
        await asyncio.sleep(POLL_S)


def _of_all(costs: list[Cost]) -> Cost:
    """What several processes took over the same stretch; PostgreSQL was counted by each."""
    first = costs[0]
    return Cost(
        events=first.events,
        seconds=first.seconds,
        worker_cpu=sum(cost.worker_cpu for cost in costs),
        postgres_cpu=first.postgres_cpu,
        wal_bytes=first.wal_bytes,
        transactions=sum(cost.transactions for cost in costs),
        peak_rss_mb=sum(cost.peak_rss_mb for cost in costs),
    )
