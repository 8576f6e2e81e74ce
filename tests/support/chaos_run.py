"""A chaos run: rounds of traffic under faults, each followed by a look at everything that came out."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cli import accounting, export, settle
from services.gateway import keys
from shared import db, topics
from tests.support import chaos_checks as checks
from tests.support import chaos_stack, oracle
from tests.support.chaos_checks import Routed
from tests.support.chaos_faults import WORKERS, Storm, Weather, plan
from tests.support.chaos_feed import Feed, ids_of
from tests.support.chaos_mix import WISHES, WORDINGS, Mix, Sending, name_of, now
from tests.support.chaos_stack import ChaosStack
from tests.support.oracle import Book, Event, Raw

MEMBERS = {"gateway": 1, "router": 2, "health": 2, "feedback": 1, "qbr": 1, "ops": 3, "voc": 1}
KINDS = ("accounts", "usage", "nps", "segments", "touchpoints", "verbatims", "themes", "feature_requests", "scores",
         "alerts")  # fmt: skip
LABELS: dict[str, Sequence[str]] = {
    **WORDINGS,
    WISHES[0]: ["usability.interface"],
    WISHES[1]: ["features.automation"],
    WISHES[2]: ["features.export_import"],
    WISHES[3]: [],
}
RAW = [topics.RAW_EVENTS.name, topics.RAW_REQUESTS.name]
ROUTED = {worker: topics.ROUTED[worker].name for worker in WORKERS}


@dataclass(frozen=True, slots=True)
class Tier:
    """How much of everything; the numbers are of one round."""

    name: str
    rounds: int
    events: int
    faults: int
    accounts: int
    partitions: int = 4
    settled_within_s: float = 300.0

    def is_looked_at(self, rounds: int) -> bool:
        """Whether so many rounds are looked at: when they have doubled (a look is at all of them), and at the end."""
        return rounds & (rounds - 1) == 0 or rounds >= self.rounds


QUICK = Tier("quick", rounds=1, events=50_000, faults=35, accounts=400)
RELEASE = Tier("release", rounds=25, events=40_000, faults=40, accounts=2_000, settled_within_s=1_200.0)


@dataclass
class Progress:
    """What a run has done so far, kept in its home: an interrupted run goes on with the round it was in."""

    seed: int
    born: str
    bases: list[str] = field(default_factory=list)
    finished: int = 0
    events: int = 0
    seconds: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    proof: Counter[str] = field(default_factory=Counter)
    looks: list[int] = field(default_factory=list)
    """After how many rounds everything was looked at."""
    asked: list[str] = field(default_factory=list)
    """What the ids of the requests begin with that the looks themselves made."""
    complaints: list[str] = field(default_factory=list)
    ended_by: str = ""
    """What ended a run in the middle of a round, if it was not a look."""
    interruptions: int = 0

    @classmethod
    def load(cls, path: Path, seed: int) -> Progress:
        if not path.exists():
            return cls(seed, now().isoformat())
        kept = json.loads(path.read_text())
        kept["happened"], kept["proof"] = Counter(kept["happened"]), Counter(kept["proof"])
        return cls(**kept)

    def save(self, path: Path) -> None:
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(vars(self), indent=1))
        draft.replace(path)


class Run:
    """One tier in one home."""

    def __init__(self, tier: Tier, seed: int, home: Path, hours: float = math.inf) -> None:
        self.tier, self.home, self.hours = tier, home, hours
        self.path = home / "chaos.json"
        self.progress = Progress.load(self.path, seed)
        self.stack = ChaosStack(home, tier.partitions, MEMBERS)
        self.started = time.monotonic()

    async def all(self) -> Progress:
        """Every round that is not over yet, and none that would begin after `hours`.

        Raises AssertionError with the complaints of the first look that has some. What ends it is kept.
        """
        progress = self.progress
        self.say(f"seed {progress.seed} (HUNE_CHAOS_SEED), home {self.home}")
        if progress.bases:
            progress.interruptions += 1
            progress.complaints, progress.ended_by = [], ""
            progress.save(self.path)
        try:
            await self.stack.start()
            await self.stack.until_ready()
            key = await self._key()
            while progress.finished < self.tier.rounds and time.monotonic() - self.started < self.hours * 3600:
                await self._round(progress.finished, key)
                if self.tier.is_looked_at(progress.finished):
                    await self._look(key)
            if progress.finished and progress.finished not in progress.looks:
                await self._look(key)
        except Exception as error:
            progress.ended_by = "; ".join(reasons(error))
            progress.save(self.path)
            raise
        finally:
            await self.stack.stop()
        return progress

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.started:6.1f} s  {text}", flush=True)

    async def _key(self) -> str:
        control = await db.connect(self.stack.database_url)
        try:
            return await keys.create_key(control, f"chaos {time.time_ns()}")
        finally:
            await control.close()

    def mix(self, number: int) -> Mix:
        born, base = datetime.fromisoformat(self.progress.born), datetime.fromisoformat(self.progress.bases[number])
        return Mix(self.progress.seed, born, base, self.tier.accounts, number)

    async def _round(self, number: int, key: str) -> None:
        started = time.monotonic()
        if len(self.progress.bases) == number:
            self.progress.bases.append(now().isoformat())
            self.progress.save(self.path)
        mix = self.mix(number)
        feed = self._feed(key)
        prelude = mix.prelude()
        if number == 0:
            await feed.run(prelude)
            await self.stack.until_live()
            await self._settle()
        sendings = mix.sendings(self.tier.events)
        before = await self._evidence()
        storm = self._storm(number)
        self.say(f"round {number + 1}: {len(sendings):,} records, {self.tier.faults} faults")
        feeding = asyncio.create_task(self._send(feed, sendings, storm))
        try:
            done = await storm.run()
            self.say("the faults are over")
            await feeding
        finally:
            feeding.cancel()
        self.say(f"all {feed.accepted:,} accepted, sent again: {dict(feed.again)}")
        await self.stack.until_ready()
        await self._settle()
        proof = await self._evidence() - before
        proof["sendings repeated by clients"] = sum(feed.again.values())
        self._note(number, done.happened, done.missed, proof, time.monotonic() - started)

    def _feed(self, key: str) -> Feed:
        return Feed(self.stack.bootstrap_servers, self.stack.gateway_url, key, self.tier.partitions)

    def _storm(self, number: int) -> Weather:
        chance = random.Random(f"{self.progress.seed}/{number}/faults")
        return Storm(self.stack, plan(self.tier.faults, chance), chance)

    async def _send(self, feed: Feed, sendings: Sequence[Sending], storm: Weather) -> None:
        await feed.run(sendings, lambda: storm.share)

    async def _evidence(self) -> Counter[str]:
        """What tells, so far, that faults happened."""
        rows = await self.stack.fetch("select coalesce(sum(epoch), 0)::bigint as n from hune.partitions")
        return Counter(
            {
                "processes that died and came back": sum(len(member.deaths) for member in self.stack.members),
                "Kafka restarts": self.stack.store_restarts["kafka"],
                "PostgreSQL restarts": self.stack.store_restarts["postgres"],
                "changes of a partition's owner": int(rows[0]["n"]),
                "writes of former owners refused": self.stack.said(chaos_stack.ZOMBIES),
                "batches tried again": self.stack.said(chaos_stack.RETRIES),
                "relays started over": self.stack.said(chaos_stack.RELAYS),
            }
        )

    def _note(
        self, number: int, happened: Counter[str], missed: list[str], proof: Counter[str], seconds: float
    ) -> None:
        progress = self.progress
        progress.happened += happened
        progress.missed += missed
        progress.proof += proof
        progress.finished, progress.events = number + 1, progress.events + self.tier.events
        progress.seconds += seconds
        progress.save(self.path)

    async def _settle(self) -> None:
        report = await settle.settle(self.stack, self.tier.settled_within_s)
        assert report.settled, "not settled:\n" + "\n".join(report.flight.lines())
        self.say(f"settled in {report.seconds:.1f} s")

    # -- what came out ----------------------------------------------------------------------------

    async def _look(self, key: str) -> None:
        """Look at everything that is there by now, and keep what it tells."""
        started = time.monotonic()
        progress = self.progress
        told = await self._check(key)
        progress.proof += told - progress.proof
        progress.looks.append(progress.finished)
        progress.seconds += time.monotonic() - started
        progress.save(self.path)
        assert not progress.complaints, "\n".join(progress.complaints)

    async def _check(self, key: str) -> Counter[str]:
        sent = set(ids_of(self.mix(0).prelude()))
        for past in range(self.progress.finished):
            sent |= self._sent_in(past)
        at = now()
        exports = await self._exports(at)
        asked = await self._ask_for_packs(at, key)
        sent |= {id for prefix in self.progress.asked for id in self._packs(prefix)}
        status = await accounting.snapshot(self.stack)
        book = Book.of([raw async for raw in self.stack.records(RAW)])
        results = await self.stack.read([topic.name for topic in topics.RESULTS.values()])
        alerts = await self.stack.read([topics.ALERTS.name])
        states = await self.stack.read([topics.STATE_ACCOUNTS.name])
        self.say(f"read back: {book.records:,} raw, {len(results):,} results, {len(alerts):,} alert events")
        us = oracle.micros(at)
        complaints = checks.all_accepted(book, sent)
        looks = []
        for worker, topic in ROUTED.items():
            look = Routed(worker)
            async for raw in self.stack.records([topic]):
                look.take(raw)
            complaints += look.as_told(book)
            looks.append(look)
        complaints += checks.adds_up(status["accounting"], book, looks)
        rung = next(look.rung for look in looks if look.domain == "health")
        complaints += checks.exports_agree(exports, book, us, LABELS, oracle.flapping(rung))
        complaints += checks.packs_agree(results, asked, book, us)
        complaints += result_complaints(results, alerts, states, exports, rung, book, us)
        self.say(f"checked: {len(complaints)} complaints")
        self.progress.complaints = complaints
        dropped = sum(status["accounting"][worker]["duplicate"] for worker in WORKERS)
        return Counter({"repeats dropped by workers": dropped, "results": len(results), "alert events": len(alerts)})

    def _sent_in(self, number: int) -> set[str]:
        mix = self.mix(number)
        mix.prelude()  # takes the first ids
        return ids_of(mix.sendings(self.tier.events))

    def _packs(self, prefix: str) -> dict[str, str]:
        return {f"{prefix}-{k}": name_of(k) for k in range(self.tier.accounts)}

    async def _ask_for_packs(self, at: datetime, key: str) -> dict[str, str]:
        """Ask for the review pack of every account as of T; request → account."""
        prefix = f"look-{len(self.progress.asked)}"
        self.progress.asked.append(prefix)
        self.progress.save(self.path)  # an interrupted look has asked too
        asked = self._packs(prefix)
        sendings = []
        for id, account in asked.items():
            body = {"id": id, "demand": "qbr.review", "account_id": account, "parameters": {"as_of": at.isoformat()}}
            sendings.append(Sending("kafka", RAW[1], account.encode(), json.dumps(body).encode(), (), id))
        await self._feed(key).run(sendings)
        await self._settle()
        return asked

    async def _exports(self, at: datetime) -> dict[str, list[dict[str, Any]]]:
        found = {kind: await export.rows(self.stack, kind, at) for kind in KINDS}
        found["usage by month"] = await export.rows(self.stack, "usage", at, by="month")
        return found


def result_complaints(
    results: Sequence[Raw], alerts: Sequence[Raw], states: Sequence[Raw], exports: dict[str, list[dict[str, Any]]],
    rung: Sequence[tuple[str, Event]], book: Book, at: int,
) -> list[str]:  # fmt: skip
    """What is wrong with the result topics."""
    complaints = checks.each_once([*results, *alerts, *states])
    complaints += checks.chained(results, "health_score.changed", ["account_id"], "previous", "current")
    complaints += checks.chained(
        results, "survey_score.changed", ["account_id", "kind", "scale"], "previous", "current"
    )
    complaints += checks.chained(results, "account.segmented", ["account_id"], "previous", "segment")
    complaints += checks.scores_as_told(results, states, exports["scores"])
    complaints += checks.surveys_as_told(results, book, at)
    complaints += checks.segments_as_told(results, book, at)
    complaints += checks.comments_as_told(results, book, at)
    complaints += checks.answered_once(results, book)
    complaints += checks.alternating(alerts)
    complaints += checks.alerts_as_ruled(alerts, rung)
    return complaints


def reasons(error: BaseException) -> list[str]:
    """The first line of each."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in reasons(inner)]
    return [f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"]


def unproven(progress: Progress, tier: Tier) -> list[str]:
    """What a run would have to show and does not: a storm that did not blow proves nothing."""
    rounds = progress.finished
    needed = {
        "processes that died and came back": 10 * rounds,
        "Kafka restarts": 2 * rounds,
        "PostgreSQL restarts": 2 * rounds,
        "changes of a partition's owner": 50 * rounds,
        "writes of former owners refused": rounds,
        "batches tried again": rounds,
        "relays started over": rounds,
        "sendings repeated by clients": 1,
        "repeats dropped by workers": rounds * tier.events // 10,
    }
    missing = [f"{name}: {progress.proof[name]}, not {n}" for name, n in needed.items() if progress.proof[name] < n]
    reached = {fault.split()[-1].partition(":")[0] for fault in progress.happened if fault.startswith("rig")}
    planned = {fault.split()[-1].partition(":")[0] for fault in progress.missed if fault.startswith("rig")}
    missing += [f"the place {point} was never reached" for point in sorted(planned - reached)]
    if rounds not in progress.looks:
        missing.append(f"{rounds} rounds are over, looked at after {progress.looks}")
    if rounds == 0 or sum(progress.happened.values()) < 0.75 * tier.faults * rounds:
        missing.append(f"only {sum(progress.happened.values())} faults happened")
    return missing
