"""The runtime on real Kafka and PostgreSQL: whatever breaks, each record counts once and each result is read once."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from devstack import ports
from shared import topics
from shared.errors import Misconfigured
from shared.events import inputs
from shared.kafka import producer_options
from shared.runtime import lane as lanes
from shared.runtime import relay as relays
from shared.runtime import service as services
from shared.runtime.relay import Position, Publisher, Relay, Rows, fence, read_positions
from shared.runtime.service import Runtime
from shared.runtime.wire import ROUTER_PARTITION, Outgoing, event_headers
from tests.support.lab import (
    Hands,
    Ledger,
    a_ledger,
    a_pool,
    a_routed,
    account_in,
    body_of,
    eventually,
    hands_on,
    header,
    running,
)
from tests.support.stack import TestStores

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture(scope="module")
async def pool(stack: TestStores) -> AsyncIterator[asyncpg.Pool]:
    async with a_pool(stack) as pool:
        yield pool


@pytest_asyncio.fixture(scope="module")
async def hands(stack: TestStores) -> AsyncIterator[Hands]:
    async with hands_on(stack) as hands:
        yield hands


@pytest_asyncio.fixture
async def ledger(stack: TestStores, pool: asyncpg.Pool) -> AsyncIterator[Ledger]:
    async with a_ledger(stack, pool) as ledger:
        yield ledger


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which the process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


async def feed(
    hands: Hands, ledger: Ledger, count: int, partition: int = 0, prefix: str = "e", **fields: Any
) -> list[str]:
    account = account_in(partition, ledger.settings.partitions)
    ids = [f"{prefix}{n:04d}" for n in range(count)]
    await hands.send_all(ledger.reads, partition, [a_routed(account, id, **fields) for id in ids])
    return ids


async def results_of(hands: Hands, ledger: Ledger) -> list[str]:
    """The ids of the events that results were published for, in order of publication."""
    return [body_of(r)["request_id"] for r in await hands.read(ledger.writes, ledger.settings.partitions)]


def a_clock(router_partition: int, run: str | None, at: datetime | None, live: bool = False) -> tuple[bytes, Any]:
    clock = inputs.ClockSet(run=run, at=at, live=live)
    headers = event_headers(
        clock, id=f"{run}/{router_partition}", source="hune.router", subject="clock", time=datetime.now(UTC),
        extra=[(ROUTER_PARTITION, str(router_partition).encode())],
    )  # fmt: skip
    return clock.model_dump_json().encode(), headers


# -- a batch, once ---------------------------------------------------------------------------------


async def test_records_a_handler_cannot_apply_are_put_aside_alone(hands: Hands, ledger: Ledger) -> None:
    account = account_in(1, ledger.settings.partitions)
    records = [a_routed(account, f"e{n:03d}", event="boom" if n % 37 == 5 else "used") for n in range(200)]
    await hands.send_all(ledger.reads, 1, records)
    async with ledger.running():
        await ledger.settled(hands)
        good = [f"e{n:03d}" for n in range(200) if n % 37 != 5]
        assert await ledger.ids() == good, "neighbours in order, each once"
        assert await results_of(hands, ledger) == good
        held = await ledger.quarantined()
        assert [row["record_offset"] for row in held] == [n for n in range(200) if n % 37 == 5]
        assert all(row["value"] == records[row["record_offset"]][0] for row in held)
        assert {row["error"] for row in held} == {"RuntimeError: boom"}
        assert await ledger.counts() == {"read": 200, "applied": len(good), "quarantined": len(held)}


async def test_a_redriven_record_is_applied_once_and_its_repeat_is_a_duplicate(hands: Hands, ledger: Ledger) -> None:
    account = account_in(0, ledger.settings.partitions)
    record = a_routed(account, "bad", event="boom")
    await hands.send_all(ledger.reads, 0, [record, a_routed(account, "good")])
    async with ledger.running():
        await ledger.settled(hands)
        assert await ledger.ids() == ["good"]
        await redrive(ledger)
        await ledger.settled(hands)
        (row,) = await ledger.quarantined()
        assert (row["state"], row["attempts"]) == ("held", 2), "it still cannot be applied"
        ledger.booms = False
        for _ in range(2):
            await redrive(ledger)
            await ledger.settled(hands)
        assert await ledger.ids() == ["good", "bad"]
        assert await results_of(hands, ledger) == ["good", "bad"]
        await hands.send_all(ledger.reads, 0, [record])
        await ledger.settled(hands)
        assert await ledger.ids() == ["good", "bad"]
        assert await ledger.counts() == {"read": 3, "applied": 2, "duplicate": 1}


async def redrive(ledger: Ledger) -> None:
    await ledger.pool.execute(
        "update hune.quarantine set state = 'redrive' where service = $1 and state = 'held'", ledger.name
    )


async def test_connections_killed_by_the_dozen_lose_and_double_nothing(hands: Hands, ledger: Ledger) -> None:
    kills = 0

    async def storm() -> None:
        nonlocal kills
        while True:
            kills += await ledger.pool.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = $1",
                f"hune-{ledger.name}",
            )
            await asyncio.sleep(0.03)

    async def linger(batch: Any, unit: Any) -> None:
        await asyncio.sleep(0.02)  # in the middle of the transaction

    ledger.after = linger
    async with ledger.running():
        storming = asyncio.create_task(storm())
        sent: list[str] = []
        try:
            for n in range(10):
                sent += await feed(hands, ledger, 50, n % 4, prefix=f"s{n}-")
                await asyncio.sleep(0.1)
        finally:
            storming.cancel()
        await ledger.settled(hands)
        assert kills > 10, "the storm must have struck"
        assert sorted(await ledger.ids()) == sorted(sent)
        assert sorted(await results_of(hands, ledger)) == sorted(sent)
        assert await ledger.counts() == {"read": 500, "applied": 500}


# -- the unclear COMMIT ----------------------------------------------------------------------------


class Cutter:
    """A PostgreSQL address that cuts the connection at COMMIT: before it arrives, or after it was carried out."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = host, port
        self.cuts = 0
        self.after = 0
        """How many COMMITs to let through to the server before hiding its answer."""
        self.before = 0
        """How many COMMITs to swallow."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self.upstream)
        answer_is_lost = False

        def cut() -> None:
            writer.close()
            up_writer.close()

        async def upwards() -> None:
            nonlocal answer_is_lost
            while data := await reader.read(65536):
                if b"COMMIT;" in data and self.before:
                    self.before -= 1
                    self.cuts += 1
                    break
                if b"COMMIT;" in data and self.after:
                    self.after -= 1
                    answer_is_lost = True
                up_writer.write(data)
                await up_writer.drain()
            cut()

        async def downwards() -> None:
            while data := await up_reader.read(65536):
                if answer_is_lost:
                    self.cuts += 1
                    break
                writer.write(data)
                await writer.drain()
            cut()

        with suppress(ConnectionError):
            await asyncio.gather(upwards(), downwards())
        cut()


@asynccontextmanager
async def a_cutter(url: str) -> AsyncIterator[tuple[Cutter, str]]:
    parts = urlsplit(url)
    cutter = Cutter(parts.hostname or "", parts.port or 5432)
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield cutter, url.replace(f":{parts.port}/", f":{port}/")
    finally:
        server.close()


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_commit_whose_answer_is_cut_off_counts_once(hands: Hands, ledger: Ledger, side: str) -> None:
    async with a_cutter(ledger.settings.database_url) as (cutter, url):
        settings = replace(ledger.settings, database_url=url, database_urls=(url,))
        async with running(ledger.worker(), settings):
            sent: list[str] = []
            for n in range(8):
                setattr(cutter, side, 1)
                sent += await feed(hands, ledger, 5, 0, prefix=f"c{n}-")
                await eventually(partial(ledger.has, sent[-1]), 20)
            await ledger.settled(hands)
        assert cutter.cuts >= 8
    assert await ledger.ids() == sent
    assert await results_of(hands, ledger) == sent
    assert await ledger.counts() == {"read": 40, "applied": 40}


async def test_a_commit_that_arrives_late_is_found_to_be_our_own(
    hands: Hands, ledger: Ledger, exits: list[int]
) -> None:
    """The version moved under us but the epoch is ours: nobody took the partition, so it goes on within seconds."""
    async with ledger.running():
        sent = await feed(hands, ledger, 3, 2, prefix="a")
        await ledger.settled(hands)
        await ledger.pool.execute(
            "update hune.partitions set version = version + 1 where service = $1 and partition = 2", ledger.name
        )
        sent += await feed(hands, ledger, 3, 2, prefix="b")
        await eventually(lambda: ledger.has("b0002"), 30)
        await ledger.settled(hands)
        assert await ledger.ids() == sent
        assert await results_of(hands, ledger) == sent
    assert not exits


# -- owners and zombies ----------------------------------------------------------------------------


async def test_a_zombie_writes_nothing_and_publishes_nothing(hands: Hands, ledger: Ledger) -> None:
    async with ledger.running() as runtime:
        await feed(hands, ledger, 3, 1, prefix="mine")
        await ledger.settled(hands)
        before = (await ledger.rows())[1]
        await ledger.pool.execute(
            "update hune.partitions set epoch = epoch + 1 where service = $1 and partition = 1", ledger.name
        )
        await feed(hands, ledger, 3, 1, prefix="theirs")
        others = await feed(hands, ledger, 3, 3, prefix="other")

        async def dropped() -> bool:
            return 1 not in runtime.lanes[0].owned

        await eventually(dropped)
        await eventually(lambda: ledger.has(others[-1]))
        after = (await ledger.rows())[1]
        assert (after["offsets"], after["head"], after["counts"]) == (
            before["offsets"],
            before["head"],
            before["counts"],
        )
        assert not [id for id in await ledger.ids() if id.startswith("theirs")]
        assert not runtime.ready()


async def test_a_new_owner_goes_on_where_the_old_one_stood(hands: Hands, ledger: Ledger) -> None:
    sent: list[str] = []
    for n in range(3):
        async with ledger.running():
            sent += await feed(hands, ledger, 20, n, prefix=f"r{n}-")
            if n < 2:  # leave in the middle of things
                await eventually(partial(ledger.has, sent[-20]))
            else:
                await ledger.settled(hands)
    assert sorted(await ledger.ids()) == sorted(sent)
    assert sorted(await results_of(hands, ledger)) == sorted(sent)
    assert {row["epoch"] for row in await ledger.rows()} == {3}


# -- the relay -------------------------------------------------------------------------------------


async def test_a_relay_that_dies_after_its_kafka_commit_publishes_nothing_twice(
    hands: Hands, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = ["after_kafka_commit", "before_kafka_commit", "after_kafka_commit", "after_kafka_commit"]

    def crash(point: str) -> None:
        if planned and point == planned[0]:
            planned.pop(0)
            raise RuntimeError(f"died at {point}")

    monkeypatch.setattr(relays, "reach", crash)
    async with ledger.running():
        sent: list[str] = []
        while planned:
            sent += await feed(hands, ledger, 10, 0, prefix=f"k{len(sent):04d}-")
            await eventually(partial(ledger.has, sent[-1]))
            assert len(sent) < 5_000, "it must have died each time"
        await ledger.settled(hands)
    assert await results_of(hands, ledger) == sent


async def test_results_left_in_the_outbox_are_published_by_the_next_owner_in_order(
    hands: Hands, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: Publisher) -> None:
        raise RuntimeError("Kafka is away")

    with monkeypatch.context() as patched:
        patched.setattr(Publisher, "_publish", never)
        async with ledger.running():
            sent = []
            for n in range(5):
                sent += await feed(hands, ledger, 10, 2, prefix=f"o{n}-")
                await eventually(partial(ledger.has, sent[-1]))
    rows = await ledger.pool.fetch(
        "select first_seq, last_seq from hune.outbox where service = $1 order by last_seq", ledger.name
    )
    assert len(rows) >= 5
    assert [row["first_seq"] for row in rows[1:]] == [row["last_seq"] + 1 for row in rows[:-1]], "gapless"
    assert await results_of(hands, ledger) == []
    async with ledger.running():
        await ledger.settled(hands)
        assert await results_of(hands, ledger) == sent
        assert await ledger.pool.fetchval("select count(*) from hune.outbox where service = $1", ledger.name) == 0


async def test_a_former_owner_that_wakes_in_the_middle_of_its_commit_publishes_nothing(
    hands: Hands, ledger: Ledger
) -> None:
    place, epoch, asked = 1, 1, 0
    records = [Outgoing(ledger.writes.name, place, b"k", b'{"request_id":"%d"}' % n, []) for n in range(10)]

    async def read_rows(after: int, most: int) -> Rows:
        return [(after + 1, records[after:])]

    async def still_ours(some: Sequence[Relay]) -> set[int]:
        nonlocal asked
        asked += 1
        return {relay.partition for relay in some if relay.epoch == epoch}

    former, owner = (Publisher(ledger.name, hands.bootstrap_servers, still_ours) for _ in range(2))
    assert await former.positions([place]) == {}
    assert former._producer is not None
    commit, stalled, goes_on = former._producer.commit_transaction, asyncio.Event(), asyncio.Event()

    async def late() -> None:
        stalled.set()
        await goes_on.wait()
        await commit()

    former._producer.commit_transaction = late
    former.add(Relay(place, 1, 0, len(records), read_rows))
    await stalled.wait()
    epoch = 2
    await fence(hands.bootstrap_servers, [former.transactional_id])
    assert await owner.positions([place]) == {}, "what the former owner had open is ended"
    owner.add(mine := Relay(place, 2, 0, len(records), read_rows))
    before = asked
    goes_on.set()

    async def gone() -> bool:
        return not former._relays and not mine.behind

    await eventually(gone)
    assert asked > before, "it asked whether the partition is still its own"
    await asyncio.gather(former.stop(), owner.stop())
    assert await results_of(hands, ledger) == [str(n) for n in range(10)]


async def test_a_process_that_the_group_never_lets_in_ends(
    hands: Hands, ledger: Ledger, exits: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "UNOWNED_S", 0.1)
    monkeypatch.setattr(services, "OBSERVE_S", 0.1)
    runtime = Runtime(ledger.worker(), ledger.settings)
    await runtime.prepare()  # and its client never comes to anything
    try:
        await eventually(lambda: asyncio.sleep(0, bool(exits)))
        assert "the group never let us in" in caplog.text
    finally:
        await runtime.stop()


async def test_a_process_stays_while_kafka_is_away(
    hands: Hands, ledger: Ledger, exits: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "UNOWNED_S", 0.1)
    monkeypatch.setattr(services, "OBSERVE_S", 0.1)
    (nobody_there,) = ports.choose(1)
    runtime = Runtime(ledger.worker(), replace(ledger.settings, kafka_bootstrap_servers=f"127.0.0.1:{nobody_there}"))
    with caplog.at_level(logging.INFO):
        await runtime.prepare()
        try:
            await eventually(lambda: asyncio.sleep(0, caplog.text.count("Kafka does not answer") >= 2))
        finally:
            await runtime.stop()
    assert exits == []


async def test_a_transaction_that_never_ends_ends_the_process(
    hands: Hands, ledger: Ledger, exits: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(self: Publisher) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(services, "STANDSTILL_S", 0.5)
    monkeypatch.setattr(services, "OBSERVE_S", 0.1)
    monkeypatch.setattr(relays, "STOP_S", 0.1)
    monkeypatch.setattr(Publisher, "_publish", never)
    async with ledger.running():
        await feed(hands, ledger, 3, 0)
        await eventually(lambda: asyncio.sleep(0, bool(exits)))
    assert "none is published" in caplog.text


async def test_the_last_position_is_found_behind_any_number_of_markers(hands: Hands, ledger: Ledger) -> None:
    topic, key = topics.POSITIONS[ledger.name].name, f"{ledger.name}/0".encode()
    async with AIOKafkaProducer(
        **producer_options(hands.bootstrap_servers), transactional_id=f"lab.{ledger.name}"
    ) as producer:
        async with producer.transaction():
            await producer.send(topic, b"41", key=key, partition=0)
        for _ in range(90):  # more than the tail that is read first; each leaves a record or two that say nothing
            await producer.begin_transaction()
            await (await producer.send(topic, b"99", key=key, partition=0))
            await producer.abort_transaction()
    assert await read_positions(hands.bootstrap_servers, ledger.name, [0, 1]) == {0: (41, None)}


async def test_stores_that_do_not_fit_together_are_refused(
    hands: Hands, ledger: Ledger, exits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with ledger.running() as runtime:
        await feed(hands, ledger, 5, 0)
        await ledger.settled(hands)
        row = dict((await ledger.rows())[0])
        assert row["head"] == 5
        with pytest.raises(Misconfigured, match="up to 9, PostgreSQL knows only 5: PostgreSQL was set back"):
            runtime._check_position(row, Position(9, None))
        with pytest.raises(Misconfigured, match=r"published up to 5.*Kafka was set back"):
            runtime._check_position(row, Position(0, None))
    # as a process: the backup of PostgreSQL that was restored knows less than Kafka holds
    await ledger.pool.execute("update hune.partitions set head = 3, published = 3 where service = $1", ledger.name)
    said = await ends_with(ledger, exits, caplog)
    assert "PostgreSQL was set back" in said
    assert ledger.name in said


async def test_stores_of_two_installations_are_refused(
    hands: Hands, ledger: Ledger, exits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with ledger.running():
        await feed(hands, ledger, 5, 0)
        await ledger.settled(hands)
    whose = await ledger.pool.fetchval("select id from hune.installation")
    other = uuid4()
    await ledger.pool.execute("update hune.installation set id = $1", other)
    try:
        said = await ends_with(ledger, exits, caplog)
    finally:
        await ledger.pool.execute("update hune.installation set id = $1", whose)
    assert f"installation {whose}, PostgreSQL belongs to {other}" in said


async def ends_with(ledger: Ledger, exits: list[int], caplog: pytest.LogCaptureFixture) -> str:
    """What the worker says when it refuses to start."""
    caplog.clear()
    runtime = Runtime(ledger.worker(), ledger.settings)

    async def over() -> bool:
        return bool(exits)

    with caplog.at_level(logging.CRITICAL):
        await runtime.start()
        try:
            await eventually(over)
        finally:
            await runtime.stop()
    assert set(exits) == {2}
    return caplog.text


async def delete_before(hands: Hands, ledger: Ledger, offset: int) -> None:
    """What retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=hands.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(ledger.reads.name, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def test_records_gone_before_they_were_read_are_counted_not_jumped_over(
    hands: Hands, ledger: Ledger, exits: list[int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ledger.running():
        await feed(hands, ledger, 10, 0, prefix="old")
        await ledger.settled(hands)
    await feed(hands, ledger, 30, 0, prefix="lost")
    await delete_before(hands, ledger, 33)
    said = await ends_with(ledger, exits, caplog)
    assert "23 records from 10 on are gone from Kafka" in said
    assert "HUNE_ACCEPT_LOSS=1" in said
    assert len(await ledger.ids()) == 10
    monkeypatch.setenv("HUNE_ACCEPT_LOSS", "1")
    async with ledger.running():
        await ledger.settled(hands)
    assert await ledger.ids() == [f"old{n:04d}" for n in range(10)] + [f"lost{n:04d}" for n in range(23, 30)]


async def test_records_deleted_under_a_running_worker_end_it_rather_than_be_jumped_over(
    hands: Hands, ledger: Ledger, exits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with ledger.running() as runtime:
        await feed(hands, ledger, 5, 0)
        await ledger.settled(hands)
        await delete_before(hands, ledger, 4)
        runtime._subscriber.consumer.seek(TopicPartition(ledger.reads.name, 0), 2)  # as if it had come no further

        async def over() -> bool:
            return bool(exits)

        await eventually(over)
    assert set(exits) == {70}
    assert "Kafka no longer holds what comes next" in caplog.text


async def test_a_consumer_that_fetches_no_more_ends_the_process(
    hands: Hands, ledger: Ledger, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "STANDSTILL_S", 2.0)
    monkeypatch.setattr(services, "OBSERVE_S", 0.2)
    async with ledger.running() as runtime:
        await feed(hands, ledger, 5, 0)
        await ledger.settled(hands)
        await asyncio.sleep(3)
        assert not exits, "with nothing to fetch nobody is deaf"
        runtime._subscriber.consumer._fetcher._fetch_task.cancel()
        for n in range(3):  # what was asked for before may still come
            await feed(hands, ledger, 5, 0, prefix=f"unheard{n}")
            await asyncio.sleep(0.5)

        async def over() -> bool:
            return bool(exits)

        await eventually(over)
    assert set(exits) == {70}


async def test_a_log_that_ends_before_what_was_read_is_refused(
    hands: Hands, ledger: Ledger, exits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with ledger.running():
        await feed(hands, ledger, 2, 0)
        await ledger.settled(hands)
    await ledger.pool.execute(
        "update hune.partitions set offsets = $2 where service = $1 and partition = 0",
        ledger.name, {ledger.reads.name: 500},
    )  # fmt: skip
    assert "ends at 2, " in await ends_with(ledger, exits, caplog)


# -- the circuit -----------------------------------------------------------------------------------


async def test_a_worker_that_can_read_nothing_any_more_stops_and_pages(
    hands: Hands, ledger: Ledger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "CIRCUIT_S", 0.2)
    account = account_in(0, ledger.settings.partitions)
    async with ledger.running() as runtime:
        _, headers = a_routed(account, "x")
        good = [a_routed(account, f"good{n}") for n in range(5)]
        await hands.send_all(ledger.reads, 0, [*good, *((b"{", headers) for _ in range(3_000))])

        async def halted() -> bool:
            return runtime.lanes[0].halted

        await eventually(halted)
        assert not runtime.ready()
        assert runtime.lives(), "a restart would not help"
    held = len(await ledger.quarantined())
    assert held < 3_000, "the rest stays in Kafka for a version that reads it"
    (row, *_) = [row for row in await ledger.rows() if row["partition"] == 0]
    assert row["offsets"].get(ledger.reads.name, 0) <= 5 + held
    assert "nearly everything is unreadable" in caplog.text


async def test_a_handler_that_fails_for_everything_stops_and_goes_on_once_it_is_well(
    hands: Hands, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "CIRCUIT_S", 0.2)
    monkeypatch.setattr(lanes, "FAILURES_IN_A_ROW", 5)
    async with ledger.running() as runtime:
        sent = await feed(hands, ledger, 60, 0, event="boom")

        async def halted() -> bool:
            return runtime.lanes[0].halted

        await eventually(halted)
        assert not runtime.ready()
        ledger.booms = False
        await ledger.settled(hands)
        assert runtime.ready()
        await redrive(ledger)
        await ledger.settled(hands)
    held = await ledger.quarantined()
    assert [row["state"] for row in held] == ["applied"] * 5
    assert sorted(await ledger.ids()) == sent, "each once"
    assert await ledger.counts() == {"read": 60, "applied": 60}


# -- markers, clocks -------------------------------------------------------------------------------


async def test_lag_reaches_zero_behind_transaction_markers(hands: Hands, ledger: Ledger) -> None:
    account = account_in(0, ledger.settings.partitions)
    async with (
        ledger.running() as runtime,
        AIOKafkaProducer(
            **producer_options(hands.bootstrap_servers), transactional_id=f"feed.{ledger.name}"
        ) as producer,
    ):
        for n in range(3):
            async with producer.transaction():
                value, headers = a_routed(account, f"t{n}")
                await producer.send(ledger.reads.name, value, key=b"k", headers=headers, partition=0)
        await producer.begin_transaction()
        value, headers = a_routed(account, "never")
        await (await producer.send(ledger.reads.name, value, key=b"k", headers=headers, partition=0))
        await producer.abort_transaction()
        await ledger.settled(hands)
        assert await ledger.ids() == ["t0", "t1", "t2"]
        (row, *_) = await ledger.rows()
        assert row["offsets"][ledger.reads.name] == await hands.end(ledger.reads, 0) == 8
        owned = [o for lane in runtime.lanes for o in lane.owned.values()]
        assert runtime._lag(owned) == 0


async def test_the_clock_moves_when_every_router_partition_has_spoken_and_never_back(
    hands: Hands, ledger: Ledger
) -> None:
    t1, t2 = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)

    async def clock() -> datetime | None:
        await ledger.settled(hands)
        found: datetime | None = (await ledger.rows())[0]["clock"]
        return found

    async def is_live() -> bool:
        return bool((await ledger.rows())[0]["live"])

    async def tell(partitions: list[int], run: str, at: datetime) -> None:
        await hands.send_all(ledger.reads, 0, [a_clock(p, run, at) for p in partitions])

    partitions = list(range(ledger.settings.partitions))
    async with ledger.running():
        await tell(partitions[:-1], "run-1", t1)
        await tell([0, 0, 77, -1], "run-1", t1)  # repeats and strangers are no further voices
        assert await clock() is None
        await tell(partitions[-1:], "run-1", t1)
        assert await clock() == t1
        await tell(partitions, "run-2", t2)
        assert await clock() == t2
        await tell(partitions, "run-3", t1)
        assert await clock() == t2, "time never goes back"
        assert not await is_live()
        await hands.send_all(ledger.reads, 0, [a_clock(2, None, None, live=True)])
        await ledger.settled(hands)
        assert await is_live()
        await tell(partitions, "run-4", t2 + timedelta(days=1))
        await ledger.settled(hands)
        seen: list[Any] = []

        async def look(batch: Any, unit: Any) -> None:
            seen.append((unit.clock(0), unit.is_live(0)))

        ledger.before = look
        await feed(hands, ledger, 1, 0, prefix="now")
        await ledger.settled(hands)
    ((now, live),) = seen
    assert live
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=5), "a late run moves no clock: it is PostgreSQL's now"


async def test_a_clock_record_that_is_not_the_routers_moves_nothing(hands: Hands, ledger: Ledger) -> None:
    value, headers = a_clock(0, None, None, live=True)
    forged = [(name, b"somebody" if name == "ce_source" else content) for name, content in headers]
    unnumbered = [(name, content) for name, content in headers if name != ROUTER_PARTITION]
    worded = [(name, b"one" if name == ROUTER_PARTITION else content) for name, content in headers]
    async with ledger.running():
        await hands.send_all(
            ledger.reads, 0, [(value, forged), (value, unnumbered), (value, worded), (b'{"live": "perhaps"}', headers)]
        )
        await ledger.settled(hands)
        assert not any(row["live"] for row in await ledger.rows())
        assert len(await ledger.quarantined()) == 4


async def test_what_is_old_at_receipt_or_of_a_run_acts_nowhere_outside(hands: Hands, ledger: Ledger) -> None:
    account, quiet = account_in(0, ledger.settings.partitions), {}

    async def look(batch: Any, unit: Any) -> None:
        quiet.update({signal.id: unit.quiet(signal) for signal in batch})

    ledger.before = look
    now = datetime.now(UTC)
    replayed, headers = a_routed(account, "replayed")
    received = f"{int((now - timedelta(days=30)).timestamp() * 1000)}".encode()
    old_then, old_headers = a_routed(account, "old-but-fresh-then", at=now - timedelta(days=30, hours=1))
    async with ledger.running():
        await hands.send_all(
            ledger.reads,
            0,
            [
                a_routed(account, "fresh"),
                a_routed(account, "yesterday", at=now - timedelta(hours=23)),
                a_routed(account, "old", at=now - timedelta(hours=25)),
                (replayed, [*headers, ("ce_mode", b"replay"), ("ce_run", b"r1")]),
                (old_then, [*old_headers, ("ce_recordedtime", received)]),
            ],
        )
        await ledger.settled(hands)
    assert quiet == {
        "fresh": False, "yesterday": False, "old": True, "replayed": True, "old-but-fresh-then": False,
    }  # fmt: skip


async def test_results_are_in_order_per_account_and_carry_their_cause(hands: Hands, ledger: Ledger) -> None:
    async with ledger.running():
        sent = await feed(hands, ledger, 300, 3, prefix="ordered")
        await ledger.settled(hands)
    records = await hands.read(ledger.writes, ledger.settings.partitions)
    assert [body_of(record)["request_id"] for record in records] == sent
    assert len({header(record, "ce_id") for record in records}) == len(sent)
    assert {record.partition for record in records} == {3}


async def test_a_result_that_kafka_would_never_take_is_refused_before_it_blocks_the_relay(
    hands: Hands, ledger: Ledger
) -> None:
    async def huge(batch: Any, unit: Any) -> None:
        for signal in batch:
            if signal.id == "huge":
                unit.send(0, Outgoing(ledger.writes.name, 0, b"k", b"x" * (2 * 1024 * 1024), []))

    ledger.after = huge
    account = account_in(0, ledger.settings.partitions)
    async with ledger.running():
        await hands.send_all(ledger.reads, 0, [a_routed(account, id) for id in ("one", "huge", "two")])
        await ledger.settled(hands)
        assert await results_of(hands, ledger) == ["one", "two"]
        (held,) = await ledger.quarantined()
        assert "bytes" in held["reason"]


async def test_it_settles_within_a_moment_of_the_last_record(hands: Hands, ledger: Ledger) -> None:
    async with ledger.running():
        await feed(hands, ledger, 1, 0, prefix="warm")
        await ledger.settled(hands)
        began = time.monotonic()
        await feed(hands, ledger, 1, 0, prefix="timed")
        await eventually(lambda: ledger.has("timed0000"))
        assert time.monotonic() - began < 10
    assert services.BARRIER_S < 15, "a revoke must end before the group's rebalance timeout"


# -- ids that are kept for a while only --------------------------------------------------------------


async def test_what_is_older_than_the_ids_that_are_kept_is_suppressed_not_counted_twice(
    hands: Hands, ledger: Ledger
) -> None:
    ledger.settings = replace(ledger.settings, dedupe_days=30)
    account, now = account_in(0, ledger.settings.partitions), datetime.now(UTC)
    ages = {"old": 40, "young": 20, "new": 0}
    records = [a_routed(account, name, at=now - timedelta(days=days)) for name, days in ages.items()]
    left = "select count(*) from hune.seen where service = $1 and partition = 0"
    async with ledger.running():
        await hands.send_all(ledger.reads, 0, records)
        await ledger.settled(hands)
        assert await ledger.ids() == list(ages), "before there is a time nothing is too old"
        await hands.send_all(ledger.reads, 0, [a_clock(0, None, None, live=True)])

        async def pruned() -> bool:
            return bool(await ledger.pool.fetchval(left, ledger.name) == 2)

        await eventually(pruned)
        await hands.send_all(ledger.reads, 0, [*records, a_routed(account, "older", at=now - timedelta(days=41))])
        await ledger.settled(hands)
        assert await ledger.ids() == list(ages)
        counts = await ledger.counts()
    assert counts == {"read": 7, "applied": 3, "duplicate": 2, "suppressed": 2}
