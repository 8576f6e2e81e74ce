"""A whole book scored again after a change of the configuration, and what live events notice of it."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.stack import Stack
from services.health.policy import load_policy
from shared import topics
from shared.settings import config_dir
from tests.benchmarks.accounts import by_partition, settle_in
from tests.benchmarks.lab import Lab
from tests.benchmarks.latency import Watch, share, watch
from tests.benchmarks.report import Figure, Outcome
from tests.benchmarks.traffic import Traffic, account

MOST_SECONDS, MOST_DELAY_MS = 60, 2_000
RATE, STEP_S, PATIENCE_S = 200, 0.01, 600.0
OUTDATED = "select count(*) from health.accounts where config_hash <> $1"
ABOUT = f"""
Every account of a book was scored under one configuration; the health worker starts with another (one weight is
different), which scores them all again in the background. First alone, then back again while {RATE} events a second
come, of which every twentieth is a ticket: how long the tickets' results take meanwhile.
"""


@dataclass(frozen=True, slots=True)
class Size:
    accounts: int


QUICK, FULL = Size(100_000), Size(100_000)


async def measure(stack: Stack, size: Size, say: Any) -> Outcome:
    outcome, traffic, lab = Outcome("rescore", ABOUT), Traffic(seed=12), Lab(stack, "rescore")
    await lab.open()
    try:
        say(f"rescore: an installation with {size.accounts:,} accounts")
        await lab.begin_life(traffic)
        await settle_in(lab, by_partition(size.accounts, lab.partitions))
        with _another_config() as (folder, digest):
            say(f"rescore: {size.accounts:,} accounts under another configuration")
            lab.options["HUNE_CONFIG_DIR"] = str(folder)
            async with lab.service("health") as running:
                await running.ready()
                alone = await _until_current(lab, digest)
        del lab.options["HUNE_CONFIG_DIR"]
        say("rescore: back again, with live events")
        async with lab.service("health") as running:
            seen = Watch()
            reader = asyncio.create_task(watch(lab, seen, ready := asyncio.Event()))
            await ready.wait()
            await running.ready()
            feeding = asyncio.create_task(_feed(lab, traffic, seen, size.accounts))
            beside = await _until_current(lab, load_policy().digest)
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await lab.settled(running)
            await asyncio.sleep(1)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
    finally:
        await lab.close()
    times = sorted((seen.seen[id] - at) * 1e3 for id, at in seen.sent.items() if id in seen.seen)
    outcome.rows.append({
        "accounts": size.accounts, "alone_seconds": round(alone, 1), "with_live_events_seconds": round(beside, 1),
        "tickets": len(seen.sent), "results_missing": len(seen.sent.keys() - seen.seen.keys()),
        "p50_ms": share(times, 0.5), "p99_ms": share(times, 0.99), "most_ms": share(times, 1.0),
    })  # fmt: skip
    outcome.figures = [
        Figure(f"{size.accounts:,} accounts scored again", (alone,), "s", MOST_SECONDS, more=False),
        Figure("the same while live events come", (beside,), "s", more=False),
        Figure("live event → result meanwhile, most", (share(times, 1.0),), "ms", MOST_DELAY_MS, more=False),
    ]
    return outcome


@contextmanager
def _another_config() -> Iterator[tuple[Path, str]]:
    """The shipped configuration with another weight for its first measure, and its digest."""
    with tempfile.TemporaryDirectory(prefix="hune-config-") as home:
        folder = Path(shutil.copytree(config_dir(), Path(home, "config")))
        model = folder / "health.yaml"
        heavier = re.compile(r"^( +weight:) (\d+)", re.MULTILINE)
        changed, count = heavier.subn(lambda found: f"{found[1]} {int(found[2]) + 1}", model.read_text(), count=1)
        assert count, "the shipped model has weights"
        model.write_text(changed)
        yield folder, load_policy(folder / "health.yaml", folder / "alerts.yaml").digest


async def _until_current(lab: Lab, digest: str) -> float:
    """Seconds until no account has a score of another configuration."""
    began = time.monotonic()
    while await lab.db.fetchval(OUTDATED, digest):
        assert time.monotonic() - began < PATIENCE_S, "the book is not scored again"
        await asyncio.sleep(0.2)
    return time.monotonic() - began


async def _feed(lab: Lab, traffic: Traffic, seen: Watch, accounts: int) -> None:
    topic, run, began, done = lab.topic(topics.ROUTED["health"]), traffic.next_run(), time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * RATE)
        drawn = []
        for number in range(done, due):
            name = account(number * 7919 % accounts)
            if number % 20:
                drawn.append(traffic.usage(name))
            else:
                drawn.append(ticket := traffic.ticket(name, f"R{run}-{number}", "opened"))
                seen.sent[ticket.id] = time.monotonic()
        await lab.send(topic, [traffic.as_routed(event) for event in drawn])
        done = due
        await asyncio.sleep(STEP_S)
