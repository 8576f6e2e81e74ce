"""What befalls an installation under test, and the proof that it did."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from shared import topics
from tests.support.chaos_stack import ChaosStack, Member, until

AT_ONCE = 4
FROZEN_S = 11.0
"""Longer than the 6 s after which a group misses a silent member, and the others' next heartbeat, which tells them."""
USUAL_S = 3.0
"""From one fault's end to the next one's, when nothing waits."""
REACHED_WITHIN_S = 60.0
TRIES = 2
WORKERS = ("health", "feedback", "qbr", "ops", "voc")
READS = {
    "router": [topics.RAW_EVENTS.name, topics.RAW_REQUESTS.name],
    "health": [topics.ROUTED["health"].name],
}
# Where a process kills or stops itself, and whose.
RIGS = (
    ("qbr", "before_commit", "kill"),
    ("health", "before_commit", "stop"),
    ("router", "after_commit", "kill"),
    ("health", "before_lock", "stop"),
    ("ops", "before_lock", "stop"),
    ("voc", "before_publish", "kill"),
    ("voc", "before_kafka_commit", "kill"),
    ("feedback", "after_kafka_commit", "kill"),
    ("ops", "inside_tick", "kill"),
    ("health", "inside_tick", "kill"),
    ("router", "after_release", "kill"),
    ("ops", "between_stores", "stop"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong; `target` is a service or a store, and is not struck twice at a time."""

    kind: str
    target: str
    detail: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.target, self.detail)))


@dataclass
class Done:
    """What happened of what was planned: a rigged place may not have been reached."""

    happened: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.happened.values())


def plan(count: int, chance: random.Random) -> list[Fault]:
    """So many faults in a seeded order; among them one of each kind."""
    faults = [Fault("rig", service, f"{point}:{action}") for service, point, action in RIGS]
    faults += [Fault("kill", name) for name in ("gateway", "router", *WORKERS, "voc", "ops", "router")]
    faults += [Fault("lose", store) for store in ("kafka", "kafka", "postgres", "postgres")]
    faults += [Fault("freeze", name) for name in ("router", "health", "ops")]
    faults += [Fault("join", name) for name in ("health", "ops")]
    faults += [Fault(kind, name) for kind in ("forget", "mislead") for name in READS]
    others = [Fault("kill", name) for name in ("gateway", "router", *WORKERS)]
    others += [Fault("lose", "kafka"), Fault("lose", "postgres"), Fault("freeze", "router"), Fault("freeze", "qbr")]
    chance.shuffle(faults)
    faults = faults[:count]
    while len(faults) < count:
        faults.append(chance.choice(others))
    return faults


class Weather(Protocol):
    """What befalls a round; `share` tells how much of it is over."""

    @property
    def share(self) -> float: ...

    async def run(self) -> Done: ...


class Storm:
    """Carries out a plan, some faults at a time; `share` tells how much of it is over."""

    def __init__(self, stack: ChaosStack, faults: list[Fault], chance: random.Random) -> None:
        self.stack, self.chance = stack, chance
        self.done = Done()
        self._left = list(faults)
        self._faults = faults
        self._busy: set[str] = set()
        self._over = 0
        self._moved_at = time.monotonic()
        self._strike: dict[str, Callable[[Fault], Awaitable[bool]]] = {
            "kill": self._kill, "lose": self._lose, "freeze": self._freeze, "join": self._join,
            "forget": self._forget, "mislead": self._mislead, "rig": self._rig,
        }  # fmt: skip

    @property
    def share(self) -> float:
        """Whole faults, and those under way by the clock: what waits for traffic gets some."""
        if not self._left and not self._busy:
            return 1.0
        waited = time.monotonic() - self._moved_at
        return (self._over + min(waited / USUAL_S, AT_ONCE) + waited / (8 * USUAL_S)) / len(self._faults)

    async def run(self) -> Done:
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(self._strike_on(number * 1.5))
        return self.done

    async def _strike_on(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while self._left:
            fault = self._next()
            if fault is None:
                await asyncio.sleep(0.2)
                continue
            self._busy.add(fault.target)
            started = time.monotonic()
            try:
                happened = await self._strike[fault.kind](fault)
            finally:
                self._busy.discard(fault.target)
            if happened:
                self.done.happened[str(fault)] += 1
            else:
                self.done.missed.append(str(fault))
                if self.done.missed.count(str(fault)) < TRIES:
                    self._left.append(fault)
                    continue
            self._over += 1
            self._moved_at = time.monotonic()
            note = "" if happened else " (not reached)"
            print(
                f"  {time.strftime('%H:%M:%S')} {self._over:>3} {fault}{note}: {time.monotonic() - started:.1f} s",
                flush=True,
            )
            await asyncio.sleep(self.chance.uniform(0.3, 1.5))

    def _next(self) -> Fault | None:
        """What needs somebody still unknown comes first, then whoever has most to come: that takes longest."""
        free = [fault for fault in self._left if fault.target not in self._busy]
        if not free:
            return None
        chosen = next((fault for fault in free if "after_release" in fault.detail), None)
        if chosen is None:
            left = Counter(fault.target for fault in self._left)
            chosen = self.chance.choices(free, [left[fault.target] for fault in free])[0]
        self._left.remove(chosen)
        return chosen

    def _one_of(self, service: str) -> Member:
        return self.chance.choice([member for member in self.stack.of(service) if member.is_up])

    async def _kill(self, fault: Fault) -> bool:
        await until(lambda: any(member.is_up for member in self.stack.of(fault.target)), "a member is up")
        member = self._one_of(fault.target)
        before = member.starts
        self.stack.kill(member)
        await until(lambda: member.starts > before, f"{member.name} is started again")
        await asyncio.sleep(1.0)
        return True

    async def _lose(self, fault: Fault) -> bool:
        store = next(store for store in self.stack.stores if store.name == fault.target)
        await self.stack.lose(store, self.chance.uniform(0.5, 5.0))
        await asyncio.sleep(2.0)
        return True

    async def _freeze(self, fault: Fault) -> bool:
        await until(lambda: any(member.is_up for member in self.stack.of(fault.target)), "a member is up")
        await self.stack.freeze(self._one_of(fault.target), FROZEN_S)
        return True

    async def _join(self, fault: Fault) -> bool:
        """One member more, which leaves again after a while."""
        member = self.stack.add(fault.target)
        await asyncio.sleep(self.chance.uniform(4.0, 8.0))
        await self.stack.end(member)
        self.stack.members.remove(member)
        return True

    async def _forget(self, fault: Fault) -> bool:
        await self.stack.forget(fault.target)
        return True

    async def _mislead(self, fault: Fault) -> bool:
        await self.stack.mislead(fault.target, READS[fault.target])
        return True

    async def _rig(self, fault: Fault) -> bool:
        point, _, action = fault.detail.partition(":")
        await until(lambda: any(member.is_up for member in self.stack.of(fault.target)), "a member is up")
        member, visit = self._one_of(fault.target), self.chance.randint(1, 4)
        return await self.stack.rig(member, point, action, visit, seconds=REACHED_WITHIN_S, frozen=FROZEN_S)
