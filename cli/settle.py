"""`hune settle`: wait until everything accepted so far is applied, published and readable."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import click

from cli import flight
from cli.flight import Flight
from cli.offsets import Offsets
from cli.support import Stores, load_installation, open_databases, run

TIMEOUT_S = 120.0
FIRST_WAIT_S = 0.02
LONGEST_WAIT_S = 0.5
INNER_HOPS = 2


@dataclass(frozen=True, slots=True)
class SettleReport:
    """`settled`, or what was in flight when the time was over."""

    settled: bool
    seconds: float
    flight: Flight

    @property
    def in_flight(self) -> int:
        return self.flight.total


async def settle(stores: Stores, timeout: float = TIMEOUT_S, *, at_rest: bool = False) -> SettleReport:
    """Wait until two looks in a row find nothing in flight and the same ends of the topics.

    Where events never stop coming there is no rest: then it is enough that what was there at one look had
    passed at the next, as many times in a row as an event can be handed on between services. Not with `at_rest`:
    then accounts whose time has come are looked at, too.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with open_databases(stores) as databases, Offsets(stores.bootstrap_servers) as offsets:
        partitions = (await load_installation(databases[0])).partitions
        goal: Flight | None = None
        hops = 0
        before: Flight | None = None
        wait = FIRST_WAIT_S
        while True:
            state = await flight.load_state(databases)
            now = await flight.measure(state, offsets, partitions, stores.home)
            if goal is None or now.spooled:
                goal, hops = now, 0
            elif await flight.has_passed(state, goal, offsets):
                goal, hops, wait = now, hops + 1, FIRST_WAIT_S
            rested = before is not None and before.total == now.total == 0 and before.ends == now.ends
            if rested or (hops > len(state.services) + INNER_HOPS and not at_rest):
                return SettleReport(True, loop.time() - started, now)
            if loop.time() - started >= timeout:
                return SettleReport(False, loop.time() - started, now)
            before = now
            await asyncio.sleep(wait)
            wait = FIRST_WAIT_S if now.total == 0 else min(wait * 1.5, LONGEST_WAIT_S)


@click.command("settle")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=TIMEOUT_S, show_default=True, help="Seconds to wait at most."
)
def command(timeout: float) -> None:
    """Wait until everything accepted before now is applied, published and readable.

    Exits with 0 then, else with 1 and says what is still in flight.
    """
    report = run(_settle(timeout))
    if report.settled:
        click.echo(f"settled in {report.seconds:.1f} s: all that was accepted is applied and published")
        return
    click.echo(f"not settled after {report.seconds:.0f} s:", err=True)
    for line in report.flight.lines() or ["nothing at the last look, but there was no time for a second one"]:
        click.echo(f"  {line}", err=True)
    sys.exit(1)


async def _settle(timeout: float) -> SettleReport:
    from cli.home import open_stores

    async with open_stores(need_kafka=True) as stores:
        return await settle(stores, timeout)
