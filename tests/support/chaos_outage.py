"""A chaos run of long outages: each round takes one store away for minutes while traffic goes on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cli.home import spool_of
from tests.support.chaos_faults import Done, Weather
from tests.support.chaos_feed import Feed
from tests.support.chaos_mix import Sending
from tests.support.chaos_run import Run, Tier
from tests.support.chaos_stack import ChaosStack

STORES = ("kafka", "postgres")
RATE = 100
"""Different events a second."""
AROUND_S = 20.0
"""Traffic before the outage and after it."""


class Outage:
    """One store away for so long; its share is the clock's."""

    def __init__(self, stack: ChaosStack, store: str, seconds: float) -> None:
        self._stack, self._store, self._seconds = stack, store, seconds
        self._began = time.monotonic()

    @property
    def share(self) -> float:
        return min(1.0, (time.monotonic() - self._began) / (self._seconds + 2 * AROUND_S))

    async def run(self) -> Done:
        await asyncio.sleep(AROUND_S)
        store = next(store for store in self._stack.stores if store.name == self._store)
        await self._stack.lose(store, self._seconds)
        await asyncio.sleep(AROUND_S)
        return Done(Counter({f"{self._store} away for {self._seconds:.0f} s": 1}))


class Outages(Run):
    """A round for each store, at a steady rate; the gateway has a spool, as `hune up` gives it one.

    Who writes to Kafka itself waits for it; the gateway's clients do not wait for them.
    """

    def __init__(self, seconds: float, seed: int, home: Path, accounts: int = 400) -> None:
        events = round(RATE * (seconds + 2 * AROUND_S))
        tier = Tier("outages", len(STORES), events, 1, accounts, settled_within_s=max(600.0, seconds))
        super().__init__(tier, seed, home)
        self.seconds = seconds
        self.stack.options["HUNE_GATEWAY_SPOOL_DIR"] = str(spool_of(home))

    def _feed(self, key: str) -> Feed:
        patience = self.seconds + 180.0
        return Feed(self.stack.bootstrap_servers, self.stack.gateway_url, key, self.tier.partitions, patience)

    def _storm(self, number: int) -> Weather:
        return Outage(self.stack, STORES[number], self.seconds)

    async def _send(self, feed: Feed, sendings: Sequence[Sending], storm: Weather) -> None:
        direct = [one for one in sendings if one.door == "kafka"]
        others = [one for one in sendings if one.door != "kafka"]
        twin = feed.twin()
        await asyncio.gather(feed.run(direct, lambda: storm.share), twin.run(others, lambda: storm.share))
        feed.accepted += twin.accepted
        feed.again += twin.again
        self.say(f"the gateway's part: {twin.accepted:,} accepted, sent again: {dict(twin.again)}")
