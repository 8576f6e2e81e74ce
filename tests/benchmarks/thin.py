"""Thin traffic: how fast may events come so that the worker takes about 250 at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared import topics
from tests.benchmarks.lab import Cost, Lab, Running
from tests.benchmarks.report import Figure, Outcome
from tests.benchmarks.traffic import Sent, Traffic

PEER_INPUT = "peer.thin"
BATCH = 250
FLOOR = 25
ACCOUNTS = 10_000
STEP_S = 0.01
FIRST_RATE, FASTER = 1_000, 1.6
BEHIND_S = 0.5
ABOUT = f"""
The health worker while events come at a steady rate. The rate is raised until transactions hold about {BATCH} events
(or the worker no longer keeps up); that rate is compared with a plain loop of one transaction per event.
"""


@dataclass(frozen=True, slots=True)
class Size:
    repetitions: int
    seconds: float
    bare_peer: int


QUICK = Size(2, 3.0, 1_500)
FULL = Size(5, 6.0, 5_000)


async def measure(lab: Lab, size: Size, say: Any) -> Outcome:
    traffic, outcome = Traffic(seed=8), Outcome("thin", ABOUT)
    await lab.begin_life(traffic)
    await lab.feed(_topic(lab), traffic.routed(traffic.book(ACCOUNTS, 20_000)))
    await lab.make_topics(PEER_INPUT)
    await lab.feed(PEER_INPUT, traffic.routed(traffic.book(ACCOUNTS, size.bare_peer)))
    rates: list[float] = []
    bare: list[float] = []
    costs: list[Cost] = []
    async with lab.service("health") as running:
        await running.ready()
        await lab.settled(running)
        say("thin: looking for the rate")
        rate = await _find_rate(lab, running, traffic, size.seconds)
        for repetition in range(size.repetitions):
            cost, kept_up = await _steady(lab, running, traffic, rate, size.seconds)
            say(f"thin {repetition + 1}/{size.repetitions}: {rate:,.0f} events/s")
            peer = await lab.peer("bare_health", events=size.bare_peer, topic=PEER_INPUT, partitions=lab.partitions)
            await lab.db.execute("drop schema peer cascade")
            costs.append(cost)
            rates.append(rate if kept_up else cost.per_second)
            bare.append(peer["events_per_second"])
            outcome.rows += [{"program": "plain loop", **peer}, {"program": "hune", **cost.as_numbers()}]
    outcome.figures = [
        Figure("health ÷ plain loop, thin traffic", tuple(a / b for a, b in zip(rates, bare, strict=True)), "×", FLOOR),
        Figure("events per transaction, thin traffic", tuple(cost.events_per_transaction for cost in costs), ""),
        Figure(
            "health CPU, thin traffic", tuple(cost.worker_us + cost.postgres_us for cost in costs),
            "µs/event with PostgreSQL", more=False,
        ),
    ]  # fmt: skip
    return outcome


async def _find_rate(lab: Lab, running: Running, traffic: Traffic, seconds: float) -> float:
    """Between the last rate with smaller transactions and the first with larger ones."""
    before = (0.0, 0.0)
    rate = float(FIRST_RATE)
    while True:
        cost, kept_up = await _steady(lab, running, traffic, rate, seconds)
        size = cost.events_per_transaction
        if size >= BATCH:
            share = (BATCH - before[1]) / (size - before[1])
            return before[0] + share * (rate - before[0])
        if not kept_up:
            return before[0] or cost.per_second
        before, rate = (rate, size), rate * FASTER


async def _steady(lab: Lab, running: Running, traffic: Traffic, rate: float, seconds: float) -> tuple[Cost, bool]:
    """Feed at a rate; the cost of the stretch, and whether the worker was not left behind."""
    records = list(traffic.routed(traffic.book(ACCOUNTS, int(rate * seconds))))
    start, before = await lab.snapshot(running), await lab.read(running)
    await paced(lab, _topic(lab), records, rate)
    end, after = await lab.snapshot(running), await lab.read(running)
    await lab.settled(running)
    events = max(after - before, 1)
    kept_up = len(records) - events < rate * BEHIND_S
    return start.until(end, events=events, seconds=end.at - start.at), kept_up


async def paced(lab: Lab, topic: str, records: Sequence[Sent], rate: float) -> None:
    """Write records so many a second, a few at a time."""
    began, done = time.monotonic(), 0
    while done < len(records):
        due = min(len(records), int((time.monotonic() - began) * rate))
        if due > done:
            await lab.send(topic, records[done:due])
            done = due
        await asyncio.sleep(STEP_S)


def _topic(lab: Lab) -> str:
    return lab.topic(topics.ROUTED["health"])
