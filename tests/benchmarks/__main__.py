"""`python -m tests.benchmarks [--quick] [NAME …]`: measure, print, and write docs/benchmarks.

NAME is one of router, health, memory, thin, latency, accounts, rescore, dedupe, gateway, peers, scaling, notify;
without any it is all but the last three, which have pages of their own (`--peers` adds peers).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from devstack.stack import Stack
from tests.benchmarks import (
    accounts,
    dedupe,
    exactly_once,
    gateway,
    latency,
    notify,
    report,
    rescore,
    scaling,
    thin,
    throughput,
)
from tests.benchmarks.lab import Lab
from tests.benchmarks.report import Machine, Outcome

USUAL = ("router", "health", "memory", "thin", "latency", "accounts", "rescore", "dedupe", "gateway")
NAMES = (*USUAL, *report.TITLES)
ON_A_BACKLOG = {"router", "health", "memory"}


def say(text: str) -> None:
    print(f"  {text} …", file=sys.stderr, flush=True)


async def measure(stack: Stack, chosen: Collection[str], *, quick: bool, peers: bool) -> tuple[list[Outcome], str]:
    lab = Lab(stack)
    await lab.open()
    outcomes: list[Outcome] = []

    def found(outcome: Outcome) -> None:
        outcomes.append(outcome)
        for figure in outcome.figures:
            print(report.in_words(figure), flush=True)

    try:
        version: str = (await lab.db.fetchval("show server_version")).split()[0]
        backlog = throughput.Backlog()
        if ON_A_BACKLOG & set(chosen):
            size = throughput.QUICK if quick else throughput.FULL
            some, backlog = await throughput.measure(lab, size, chosen, say, batches=peers)
            for outcome in some:
                found(outcome)
        if "thin" in chosen:
            found(await thin.measure(lab, thin.QUICK if quick else thin.FULL, say))
        if "latency" in chosen:
            found(await latency.measure(lab, latency.QUICK if quick else latency.FULL, say))
        if "dedupe" in chosen:
            found(await dedupe.measure(lab, backlog, dedupe.QUICK if quick else dedupe.FULL, say))
        if "gateway" in chosen:
            found(await gateway.measure(lab, gateway.QUICK if quick else gateway.FULL, say))
        if "peers" in chosen:
            found(await exactly_once.measure(lab, exactly_once.QUICK if quick else exactly_once.FULL, say))
        if "scaling" in chosen:
            found(await scaling.measure(lab, scaling.QUICK if quick else scaling.FULL, say))
        if "notify" in chosen:
            found(await notify.measure(lab, notify.QUICK if quick else notify.FULL, say))
    finally:
        await lab.close()
    if "accounts" in chosen:
        found(await accounts.measure(stack, accounts.QUICK if quick else accounts.FULL, say))
    if "rescore" in chosen:
        found(await rescore.measure(stack, rescore.QUICK if quick else rescore.FULL, say))
    return outcomes, version


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="hune bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few minutes instead of twenty; coarser")
    parser.add_argument("--peers", action="store_true", help="compare with others in batches, and exactly once, too")
    parser.add_argument("--no-write", action="store_true", help="print only; leave docs/benchmarks as it is")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are {', '.join(NAMES)}")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # new topics have no leaders for a moment
    chosen = set(given.names or USUAL) | ({"peers"} if given.peers else set())
    started, load = time.monotonic(), Machine.here()
    home = Path(tempfile.mkdtemp(prefix="hune-bench-"))
    try:
        with Stack(home, {}) as stack:
            outcomes, postgresql = asyncio.run(measure(stack, chosen, quick=given.quick, peers=given.peers))
    except BaseException:
        for log in sorted(home.glob("logs/*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
        raise
    finally:
        shutil.rmtree(home, ignore_errors=True)
    machine = load.with_postgresql(postgresql)
    if not given.no_write:
        size, seconds = "quick" if given.quick else "full", time.monotonic() - started
        usual = [outcome for outcome in outcomes if outcome.name not in report.TITLES]
        pages = [report.write(usual, machine, size, seconds)] if usual else []
        pages += [report.write_alone(one, machine, size, seconds) for one in outcomes if one.name in report.TITLES]
        print(f"written to {', '.join(map(str, pages))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
