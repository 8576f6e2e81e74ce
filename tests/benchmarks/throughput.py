"""Router and health worker on a backlog, against doing the same one message at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from services.router.settings import Routing
from shared import config, topics
from tests.benchmarks.lab import ROOT, Cost, Lab
from tests.benchmarks.report import Figure, Outcome
from tests.benchmarks.traffic import USERS_PER_ACCOUNT, Sent, Traffic

ROUTER_FLOOR, ROUTER_AIM = 60, 120
HEALTH_FLOOR, HEALTH_AIM = 200, 500
BARE_FLOOR = 50
MOST_RSS_MB = 256
PEER_INPUT, PEER_RESULTS = "peer.input", "peer.results"
ROUTER = """
`router`: raw topic in → PostgreSQL → routed topics out, exactly once, against FastStream as its documentation shows it
(one message, one model, one awaited `publish` for each of the same output records; default settings, logging off).
The day is under way: every user of every account has been there before.
From the first transaction (the first event in the handler) to the last record that a `read_committed` reader sees.
"""
HEALTH = """
`health`: routed topic in → PostgreSQL → results on Kafka, everything on, against FastStream as its documentation shows
it (one message, one transaction, one result published, one ack) and against a plain loop (aiokafka, asyncpg, prepared
statements, one transaction per event with its position and an id table, nothing committed to Kafka). Both keep the
simplest tables that tell the same, and neither scores.
"""
MEMORY = """
Peak resident memory (VmHWM) of each worker while it works off the backlogs above.
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything; small and large give the same ratios, large ones steadier."""

    repetitions: int
    accounts: int
    events: int
    router_peer: int
    health_peer: int
    bare_peer: int


QUICK = Size(2, 2_000, 40_000, 1_500, 300, 1_500)
FULL = Size(5, 10_000, 300_000, 5_000, 1_000, 5_000)


@dataclass(slots=True)
class Backlog:
    """The costs of every repetition, kept for whoever needs them later."""

    router: list[Cost] = field(default_factory=list)
    health: list[Cost] = field(default_factory=list)


async def measure(
    lab: Lab, size: Size, chosen: Collection[str], say: Any, *, batches: bool = False
) -> tuple[list[Outcome], Backlog]:
    """Repeat: one way, then the other, on the same records; `batches` adds other ways to route in batches."""
    traffic, backlog = Traffic(), Backlog()
    router, health = Outcome("router", ROUTER), Outcome("health", HEALTH)
    outputs = {domain: f"peer.{domain}" for domain in topics.WORKERS}
    await lab.make_topics(*outputs.values(), PEER_INPUT, PEER_RESULTS)
    records = traffic.routed(traffic.book(size.accounts, max(size.health_peer, size.bare_peer)))
    await lab.feed(PEER_INPUT, records)
    await _warm_up(lab, traffic, size)
    peers: dict[str, list[float]] = {"router": [], "batches": [], "transactions": [], "health": [], "bare": []}
    for repetition in range(size.repetitions):
        label = f"{repetition + 1}/{size.repetitions}"
        if "router" in chosen:
            say(f"router {label}: FastStream, one message at a time")
            naive = await lab.peer(
                "faststream_router", events=size.router_peer, topic=lab.topic(topics.RAW_EVENTS),
                group=f"peer.router.{repetition}", routes=_routes(outputs),
            )  # fmt: skip
            router.rows.append({"program": "FastStream", **naive})
            peers["router"].append(naive["events_per_second"])
        if "router" in chosen and batches:
            say(f"router {label}: FastStream in batches")
            naive = await lab.peer(
                "faststream_batch_router", events=4 * size.router_peer, topic=lab.topic(topics.RAW_EVENTS),
                group=f"peer.batches.{repetition}", routes=_routes(outputs),
            )  # fmt: skip
            router.rows.append({"program": "FastStream, batches", **naive})
            peers["batches"].append(naive["events_per_second"])
            say(f"router {label}: a transactional producer per input partition")
            other = await lab.peer(
                "transactional_router", events=USERS_PER_ACCOUNT * size.accounts, topic=lab.topic(topics.RAW_EVENTS),
                group=f"peer.transactions.{repetition}", routes=_routes(outputs), partitions=lab.partitions,
            )  # fmt: skip
            router.rows.append({"program": "transactional producers", **other})
            peers["transactions"].append(other["events_per_second"])
        if "health" in chosen:
            say(f"health {label}: FastStream, one transaction per message")
            naive = await lab.peer(
                "faststream_health", events=size.health_peer, topic=PEER_INPUT,
                group=f"peer.health.{repetition}", results=PEER_RESULTS,
            )  # fmt: skip
            await lab.db.execute("drop schema peer cascade")
            health.rows.append({"program": "FastStream", **naive})
            peers["health"].append(naive["events_per_second"])
            say(f"health {label}: plain loop, one transaction per event")
            bare = await lab.peer("bare_health", events=size.bare_peer, topic=PEER_INPUT, partitions=lab.partitions)
            await lab.db.execute("drop schema peer cascade")
            health.rows.append({"program": "plain loop", **bare})
            peers["bare"].append(bare["events_per_second"])
        say(f"hune {label}: {size.events:,} events")
        await _round(lab, traffic, size.accounts, size.events, backlog)
        router.rows.append({"program": "hune", **backlog.router[-1].as_numbers()})
        health.rows.append({"program": "hune", **backlog.health[-1].as_numbers()})
    router.figures = [
        Figure("router ÷ FastStream", _ratios(backlog.router, peers["router"]), "×", ROUTER_FLOOR, ROUTER_AIM),
        Figure("router", tuple(cost.per_second for cost in backlog.router), "events/s"),
        Figure("router CPU", tuple(cost.worker_us for cost in backlog.router), "µs/event", more=False),
    ]
    if batches:
        ratios = _ratios(backlog.router, peers["batches"])
        router.figures.insert(1, Figure("router ÷ FastStream in batches (at least once)", ratios, "×"))
        ratios = _ratios(backlog.router, peers["transactions"])
        router.figures.insert(2, Figure("router ÷ routing alone, with transactional producers", ratios, "×"))
    health.figures = [
        Figure("health ÷ FastStream", _ratios(backlog.health, peers["health"]), "×", HEALTH_FLOOR, HEALTH_AIM),
        Figure("health ÷ plain loop, backlog", _ratios(backlog.health, peers["bare"]), "×", BARE_FLOOR),
        Figure("health", tuple(cost.per_second for cost in backlog.health), "events/s"),
        Figure("health CPU", tuple(cost.worker_us for cost in backlog.health), "µs/event", more=False),
    ]
    memory = Outcome("memory", MEMORY, [
        Figure(f"{name} peak memory", tuple(cost.peak_rss_mb for cost in costs), "MB", MOST_RSS_MB, more=False)
        for name, costs in (("router", backlog.router), ("health", backlog.health))
    ])  # fmt: skip
    return [outcome for outcome in (router, health, memory) if outcome.name in chosen], backlog


async def work_off_some(lab: Lab, size: Size) -> Backlog:
    """The costs alone, without the others."""
    traffic, backlog = Traffic(seed=11), Backlog()
    await _warm_up(lab, traffic, size)
    await _round(lab, traffic, size.accounts, size.events, backlog)
    return backlog


async def _warm_up(lab: Lab, traffic: Traffic, size: Size) -> None:
    """What is measured is a day under way: every user has been there before."""
    await _work_off(lab, traffic.everybody(size.accounts), Backlog())


async def _round(lab: Lab, traffic: Traffic, accounts: int, events: int, backlog: Backlog) -> None:
    await _work_off(lab, traffic.raw(traffic.book(accounts, events)), backlog)


async def _work_off(lab: Lab, sent: Iterable[Sent], backlog: Backlog) -> None:
    """Events into the raw topic; the router works them off, then the health worker what it wrote."""
    await lab.feed(lab.topic(topics.RAW_EVENTS), sent)
    backlog.router.append(await lab.work_off("router"))
    backlog.health.append(await lab.work_off("health"))


def _ratios(costs: list[Cost], peers: list[float]) -> tuple[float, ...]:
    return tuple(cost.per_second / peer for cost, peer in zip(costs, peers, strict=False))


def _routes(outputs: dict[str, str]) -> dict[str, list[str]]:
    """Event type → topics, as the shipped routing has it."""
    routing = config.load(ROOT / "config/routing.yaml", Routing).model
    return {name: [outputs[domain] for domain in domains] for name, domains in routing.events.items()}
