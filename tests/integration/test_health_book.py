"""The whole book, on a real PostgreSQL: one incident where tracking breaks, no alert per account, restated after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from services.health import app, reading
from services.health.alert_reading import export_alerts
from shared import topics
from shared.db import Connection
from shared.events import model_of
from shared.runtime.api import EVERYBODY, Batch, Signal, Worker
from shared.runtime.unit import UnitOfWork
from shared.runtime.wire import short_name
from tests.support.bench_worker import PARTITIONS, a_database, a_signal

ACCOUNTS = [f"acct_{n}" for n in range(24)]
START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
_ids, _offsets = count(), count(1_000_000)


def at(day: float) -> datetime:
    return START + timedelta(days=day)


class World:
    """The worker with its internal topic: what partitions tell each other comes back as signals."""

    def __init__(self, worker: Worker, db: Connection, url: str = "") -> None:
        self.worker, self.db, self.url = worker, db, url
        self.heard: list[Signal] = []
        self.now, self.live, self.clocked = START, True, True
        self.told: list[tuple[str, dict[str, Any]]] = []
        self._seq = 0

    def _unit(self) -> UnitOfWork:
        self._seq += 1
        clocks = dict.fromkeys(range(PARTITIONS), self.now if self.clocked else None)
        return UnitOfWork("health", self.db, seq=self._seq, clocks=clocks, live=range(PARTITIONS) if self.live else (),
                          partitions=PARTITIONS)  # fmt: skip

    async def hear(self, *signals: Signal) -> None:
        self.heard += [one for one in signals if one.topic != topics.INTERNAL["health"].name]
        async with self.db.transaction():
            unit = self._unit()
            await self.worker.handle(Batch(signals), unit)
        for done in unit.on_commit:
            done()
        await self._pass_on(unit)

    async def wait(self, until: float) -> None:
        """Tick at that time until there is nothing more to do."""
        assert self.worker.tick is not None
        self.now = at(until)
        for turn in count():
            assert turn < 50, "it never comes to rest"
            async with self.db.transaction():
                unit = self._unit()
                moved = await self.worker.tick(dict.fromkeys(range(PARTITIONS), self.now), 1000, unit)
            if not moved and not unit.outbox:
                return
            await self._pass_on(unit)

    async def _pass_on(self, unit: UnitOfWork) -> None:
        inner = []
        for record in (record for partition in sorted(unit.outbox) for record in unit.outbox[partition]):
            headers = dict(record.headers)
            data = model_of(headers["ce_type"].decode()).model_validate_json(record.value)
            name = short_name(headers["ce_type"].decode())
            if record.topic != topics.INTERNAL["health"].name:
                self.told.append((name, data.model_dump(mode="json")))
                continue
            inner.append(
                Signal(
                    topic=record.topic, partition=record.partition, offset=next(_offsets), type=name,
                    id=headers["ce_id"].decode(), source="hune.health", account_id=headers["ce_subject"].decode(),
                    data=data, occurred_at=self.now, received_at=self.now,
                )
            )  # fmt: skip
        if inner:
            await self.hear(*inner)

    def alerts(self, what: str = "opened") -> list[tuple[str, str]]:
        return [(data["account_id"], data["rule"]) for name, data in self.told if name == f"alert.{what}"]


@pytest_asyncio.fixture
async def world(postgres: str) -> AsyncIterator[World]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    yield World(worker, connection, postgres)
    await connection.close()


def used(account: str, day: float, feature: str, user: str = "u1", source: str = "segment") -> Signal:
    return a_signal("usage.tracked", account, id=f"e{next(_ids)}", at=at(day), source=source, event="Used",
                    feature=feature, user_id=user)  # fmt: skip


async def live(world: World, first: int, last: int, without: str | None = None, gone: tuple[str, ...] = ()) -> None:
    """Days of life: everybody uses `export` in the morning, every third `report` besides."""
    for day in range(first, last):
        world.now = at(day + 0.5)
        batch = []
        for number, account in enumerate(ACCOUNTS):
            for feature in ("export", "report") if number % 3 == 0 else ("export",):
                if feature != without and account not in gone:
                    batch += [used(account, day + hour / 24, feature) for hour in (8, 9)]
        if "beacon" not in gone:
            batch.append(used("beacon", day + 0.4, "login"))
        await world.hear(*batch)
        await world.wait(day + 1.02)


async def scores(world: World, day: float) -> dict[str, Any]:
    return {row["account_id"]: row for row in await reading.export_scores([world.db], at(day), {})}


async def test_a_break_is_one_incident_and_no_alert_its_end_restates_and_who_really_stops_is_told(world: World) -> None:
    await live(world, 0, 40)
    await live(world, 40, 44, gone=("beacon",))  # which never used what breaks
    before = await scores(world, 44)
    assert world.alerts() == []
    await live(world, 44, 56, without="export", gone=("beacon",))
    assert [one for one in world.alerts() if one[0] != "beacon"] == [(EVERYBODY, "tracking_break")]
    assert ("beacon", "score_drop") in world.alerts()
    [incident] = [data for name, data in world.told if name == "alert.opened" and data["account_id"] == EVERYBODY]
    assert (incident["kind"], incident["baseline"], incident["evidence"]["feature"]) == ("data", False, "export")
    frozen = await scores(world, 56)
    assert frozen["acct_1"]["score"] == before["acct_1"]["score"]
    parts = {part["measure"]: part for part in frozen["acct_1"]["parts"]}
    assert parts["active_days"]["reason"].startswith("frozen since 2026-02-18")
    assert frozen["acct_1"]["coverage"] < before["acct_1"]["coverage"]
    await live(world, 56, 60, gone=("beacon",))
    assert world.alerts("resolved") == [(EVERYBODY, "tracking_break")]
    assert [one for one in world.alerts() if one[0] != "beacon"] == [(EVERYBODY, "tracking_break")]
    after = await scores(world, 60)
    assert after["acct_1"]["coverage"] == before["acct_1"]["coverage"]
    assert abs(after["acct_1"]["score"] - before["acct_1"]["score"]) <= 2
    told = await world.db.fetchval(
        "select score from health.scores where account_id = 'acct_1' order by told_at desc, n desc limit 1"
    )
    assert told == after["acct_1"]["score"]


async def test_use_that_comes_late_undoes_a_break_that_never_was(world: World) -> None:
    await live(world, 0, 30)
    await live(world, 30, 33, without="export")
    assert world.alerts() == [(EVERYBODY, "tracking_break")]
    await world.hear(*(used(account, day + 0.3, "export") for account in ACCOUNTS for day in (30, 31, 32)))
    await world.wait(33.1)
    assert world.alerts("resolved") == [(EVERYBODY, "tracking_break")]
    assert await world.db.fetchval("select count(*) from health.breaks where breaks <> '[]'") == 0


async def test_a_run_judges_quietly_and_a_silent_source_is_one_incident_that_people_can_take_on(world: World) -> None:
    await live(world, 0, 30)
    await world.wait(30.9)
    assert world.alerts() == []
    await world.wait(34)
    assert world.alerts() == [(EVERYBODY, "source_silent")]
    [incident] = await export_alerts([world.db], at(34), {})
    assert (incident["account_id"], incident["rule"], incident["cause"]) == (EVERYBODY, "source_silent", "segment")
    asked = a_signal("request.made", EVERYBODY, id="r1", at=at(34), demand="alert.acknowledge",
                     parameters={"alert_id": incident["alert_id"], "by": "ann"})  # fmt: skip
    await world.hear(asked)
    assert [data["by"] for name, data in world.told if name == "alert.acknowledged"] == ["ann"]
    frozen = await scores(world, 34)
    assert frozen["beacon"]["parts"][3]["reason"] == "frozen since 2026-02-04: what segment sends does not arrive"
    await live(world, 34, 35)
    assert world.alerts("resolved") == [(EVERYBODY, "source_silent")]
    assert world.alerts() == [(EVERYBODY, "source_silent")]


@pytest.mark.parametrize("live_", [False])
async def test_what_a_run_finds_wakes_nobody(world: World, live_: bool) -> None:
    world.live = live_
    await live(world, 0, 30)
    await live(world, 30, 32, without="export")
    told = [data for name, data in world.told if name == "alert.opened"]
    assert [(data["account_id"], data["baseline"]) for data in told] == [(EVERYBODY, True)]


async def test_as_of_a_moment_is_the_same_later_and_from_the_log_alone(world: World) -> None:
    days = (41.0, 42.5, 44.0, 50.25, 56.0, 60.0)
    then: dict[float, dict[str, Any]] = {}
    for first, last, without in ((0, 41, None), (41, 53, "export"), (53, 60, None)):
        for day in range(first, last):
            await live(world, day, day + 1, without=without)
            # Only what happened by then is known by now.
            then |= {one: await scores(world, one) for one in days if day < one <= day + 1}
    assert any("frozen" in (part["reason"] or "") for part in then[44.0]["acct_1"]["parts"])
    assert any("without" in (part["reason"] or "") for part in then[60.0]["acct_1"]["parts"])
    assert {one: await scores(world, one) for one in days} == then

    log = [replace(one, replay=True) for one in world.heard]
    Random(7).shuffle(log)
    await world.db.close()
    worker = app.build()
    again = World(worker, await a_database(world.url, worker))
    again.clocked = again.live = False
    for place in range(0, len(log), 500):
        await again.hear(*log[place : place + 500])
    assert {one: await scores(again, one) for one in days} == then
    again.clocked = True
    await again.wait(60.02)
    assert {one: await scores(again, one) for one in days} == then
    await again.db.close()


async def test_the_end_of_an_import_is_no_silence_of_a_source(world: World) -> None:
    for day in range(30):
        await world.hear(*(replace(used(account, day + 0.3, "export"), replay=True) for account in ACCOUNTS))
    await world.wait(34)
    assert world.alerts() == []
