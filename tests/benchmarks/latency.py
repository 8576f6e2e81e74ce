"""From the raw topic to the result that a `read_committed` reader sees, through router and health worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from shared import topics
from shared.kafka import consumer_options
from tests.benchmarks.lab import Lab
from tests.benchmarks.report import Figure, Outcome
from tests.benchmarks.traffic import Drawn, Traffic, account

RATE = 1_000
ACCOUNTS = 2_000
FLOOR_MS, AIM_MS = 1_000, 250
WARM_SHARE = 0.3
STEP_S = 0.005
PATIENCE_S = 20.0
RESULTS = (topics.ALERTS, topics.RESULTS["health"])
ABOUT = f"""
{RATE:,} events a second into the raw topic, from the moment an event is handed to the producer to the moment a
`read_committed` reader holds the first result that names it as a cause; the first {WARM_SHARE:.0%} of a run is left
out. *tickets*: every event is a p1 ticket that is opened or solved and so opens or resolves an alert. *mix*: 95 % use
of the product, 5 % such tickets; the tickets are measured.
"""


@dataclass(frozen=True, slots=True)
class Size:
    repetitions: int
    seconds: float


QUICK = Size(1, 6.0)
FULL = Size(3, 20.0)


@dataclass(slots=True)
class Watch:
    """When events were sent and their first results seen."""

    sent: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    def milliseconds(self) -> list[float]:
        late = sorted(self.sent.items(), key=lambda item: item[1])[int(len(self.sent) * WARM_SHARE) :]
        return sorted((self.seen[id] - at) * 1e3 for id, at in late if id in self.seen)


async def measure(lab: Lab, size: Size, say: Any) -> Outcome:
    outcome, traffic = Outcome("latency", ABOUT), Traffic(seed=9)
    makers = {"tickets": _tickets, "mix": _mix}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    async with lab.service("router") as router, lab.service("health") as health:
        await router.ready()
        await health.ready()
        await lab.feed(
            lab.topic(topics.RAW_EVENTS), (traffic.as_raw(traffic.usage(account(k))) for k in range(ACCOUNTS))
        )
        await lab.settled(router)
        await lab.settled(health)
        for repetition in range(size.repetitions):
            for name, make in makers.items():
                say(f"latency {repetition + 1}/{size.repetitions}: {name} at {RATE:,} events/s")
                watch = await _run(lab, make(traffic), size.seconds)
                await lab.settled(router)
                await lab.settled(health)
                times = watch.milliseconds()
                p50, p99 = share(times, 0.5), share(times, 0.99)
                found[name].append((p50, p99))
                outcome.rows.append({
                    "traffic": name, "events_with_a_result": len(watch.sent), "results_missing":
                    len(watch.sent.keys() - watch.seen.keys()), "p50_ms": p50, "p90_ms": share(times, 0.9),
                    "p99_ms": p99, "most_ms": share(times, 1.0),
                })  # fmt: skip
    for name, shares in found.items():
        p50s, p99s = zip(*shares, strict=True)
        outcome.figures += [
            Figure(f"raw event → result, {name}, p50", p50s, "ms", more=False),
            Figure(f"raw event → result, {name}, p99", p99s, "ms", FLOOR_MS, AIM_MS, more=False),
        ]
    return outcome


def _tickets(traffic: Traffic) -> Callable[[int], Iterator[tuple[Drawn, bool]]]:
    run = traffic.next_run()

    def make(number: int) -> Iterator[tuple[Drawn, bool]]:
        verb = "opened" if number // ACCOUNTS % 2 == 0 else "solved"
        ticket = f"L{run}-{number % ACCOUNTS}-{number // (2 * ACCOUNTS)}"
        yield traffic.ticket(account(number % ACCOUNTS), ticket, verb), True

    return make


def _mix(traffic: Traffic) -> Callable[[int], Iterator[tuple[Drawn, bool]]]:
    tickets = _tickets(traffic)

    def make(number: int) -> Iterator[tuple[Drawn, bool]]:
        if number % 20 == 0:
            yield from tickets(number // 20)
        else:
            yield traffic.usage(account(number * 7 % ACCOUNTS)), False

    return make


async def _run(lab: Lab, make: Callable[[int], Iterator[tuple[Drawn, bool]]], seconds: float) -> Watch:
    seen, topic = Watch(), lab.topic(topics.RAW_EVENTS)
    reader = asyncio.create_task(watch(lab, seen, ready := asyncio.Event()))
    try:
        await ready.wait()
        writer, began, done, total = Traffic(), time.monotonic(), 0, int(RATE * seconds)
        while done < total:
            due = min(total, int((time.monotonic() - began) * RATE))
            drawn = [one for number in range(done, due) for one in make(number)]
            records, now = [writer.as_raw(event) for event, _ in drawn], time.monotonic()
            seen.sent.update((event.id, now) for event, measured in drawn if measured)
            if records:
                await lab.send(topic, records)
            done = due
            await asyncio.sleep(STEP_S)
        await _all_seen(seen, reader)
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
    return seen


async def _all_seen(seen: Watch, reader: asyncio.Task[None]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while seen.sent.keys() - seen.seen.keys() and not reader.done():  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def watch(lab: Lab, into: Watch, ready: asyncio.Event) -> None:
    """Read results as they are committed."""
    consumer = AIOKafkaConsumer(**consumer_options(lab.bootstrap_servers))
    await consumer.start()
    try:
        where = [TopicPartition(lab.topic(topic), p) for topic in RESULTS for p in range(lab.partitions)]
        consumer.assign(where)
        for tp, end in (await consumer.end_offsets(where)).items():
            consumer.seek(tp, end)
        ready.set()
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                now = time.monotonic()
                for record in records:
                    for cause in _causes(record.value):
                        into.seen.setdefault(cause, now)
    finally:
        await consumer.stop()


class _Result(msgspec.Struct):
    cause_ids: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(_Result).decode


def _causes(body: bytes) -> tuple[str, ...]:
    return _decode(body).cause_ids


def share(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) if ordered else float("inf")
