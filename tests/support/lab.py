"""A worker whose only business is to write down what it applied, and a pair of hands on the real topics."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.record.util import calc_crc32c

from cli.offsets import Offsets
from shared import db, topics
from shared.events import inputs, results
from shared.events.base import Event
from shared.events.fast import read_usage
from shared.ids import partition_of
from shared.kafka import MAX_RECORD_BYTES, consumer_options, producer_options
from shared.runtime.api import Batch, Signal, Worker
from shared.runtime.service import Runtime
from shared.runtime.unit import UnitOfWork
from shared.runtime.wire import event_headers
from shared.settings import Settings
from shared.topics import Topic
from tests.support.stack import ROOT, TestStores

PATIENCE = 60.0
Headers = Sequence[tuple[str, bytes | None]]
COUNT = "select sum(value::bigint) from hune.partitions p, jsonb_each_text(counts) where service = $1 and key = $2"


def settings_of(stack: TestStores) -> Settings:
    return Settings(
        kafka_bootstrap_servers=stack.bootstrap_servers,
        database_url=stack.database_url,
        database_urls=stack.database_urls,
        config_dir=ROOT / "config",
        partitions=stack.partitions,
    )


async def eventually(condition: Callable[[], Awaitable[Any]], seconds: float = PATIENCE) -> Any:
    """What the condition gives once it is true; fails with its last value."""
    deadline = time.monotonic() + seconds
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s; last seen: {found!r}"
        await asyncio.sleep(0.02)


def account_in(partition: int, partitions: int, salt: str = "") -> str:
    """An account whose events belong to a partition."""
    salt = salt or uuid.uuid4().hex[:8]
    return next(
        name
        for name in (f"acct-{salt}-{n}" for n in range(10_000))
        if partition_of(name.encode(), partitions) == partition
    )


def a_routed(
    account: str, id: str = "", fact: Event | None = None, at: datetime | None = None, **fields: Any
) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    """Value and headers of a routed record, as the router writes it."""
    what = fact or inputs.UsageTracked(account_id=account, **({"user_id": "u1"} | fields))
    when = at or datetime.now(UTC)
    headers: list[tuple[str, bytes | None]] = list(
        event_headers(what, id=id or uuid.uuid4().hex, source="hune", subject=account, time=when)
    )
    own = next(value for name, value in headers if name == "ce_time")
    return what.model_dump_json(exclude_unset=True).encode(), [*headers, ("ce_owntime", own)]


@dataclass
class Hands:
    """Writes to and reads from Kafka as anybody could."""

    bootstrap_servers: str
    producer: AIOKafkaProducer
    offsets: Offsets

    async def send(
        self, topic: Topic | str, partition: int, value: bytes | None, headers: Headers = (), key: bytes | None = None
    ) -> int:
        """The offset of what was sent."""
        sent = await self.producer.send_and_wait(
            str(topic), value, key=key or b"k", partition=partition, headers=list(headers)
        )
        return int(sent.offset)

    async def send_all(
        self, topic: Topic | str, partition: int, records: Iterable[tuple[bytes | None, Headers]]
    ) -> None:
        """Many records, in order, in a few batches."""
        waiting, batch = [], self.producer.create_batch()
        for value, headers in records:
            if batch.append(key=b"k", value=value, timestamp=None, headers=list(headers)) is None:
                waiting.append(await self.producer.send_batch(batch, str(topic), partition=partition))
                batch = self.producer.create_batch()
                batch.append(key=b"k", value=value, timestamp=None, headers=list(headers))
        waiting.append(await self.producer.send_batch(batch, str(topic), partition=partition))
        await asyncio.gather(*waiting)

    async def send_patched(
        self, topic: Topic | str, partition: int, value: bytes, headers: Headers, was: bytes, becomes: bytes
    ) -> int:
        """One record whose bytes on the wire no client library would write."""
        async with a_producer(self.bootstrap_servers, enable_idempotence=False, acks=1) as plain:
            batch = plain.create_batch()
            batch.append(key=b"k", value=value, timestamp=None, headers=list(headers))
            built = bytes(batch._build()).replace(was, becomes)
            batch._buffer = bytearray(built[:17] + calc_crc32c(built[21:]).to_bytes(4, "big") + built[21:])
            sent = await (await plain.send_batch(batch, str(topic), partition=partition))
            return int(sent.offset)

    async def send_compressed(
        self, topic: Topic | str, partition: int, codec: str, value: bytes, headers: Headers = ()
    ) -> int:
        async with a_producer(self.bootstrap_servers, compression_type=codec) as producer:
            sent = await producer.send_and_wait(str(topic), value, key=b"k", partition=partition, headers=list(headers))
            return int(sent.offset)

    async def end(self, topic: Topic | str, partition: int) -> int:
        return (await self.offsets.committed_ends([(str(topic), partition)]))[str(topic), partition]

    async def ends(self, topic: Topic | str, partitions: int) -> list[int]:
        found = await self.offsets.committed_ends([(str(topic), p) for p in range(partitions)])
        return [found[str(topic), p] for p in range(partitions)]

    async def read(
        self, topic: Topic | str, partitions: int, since: Sequence[int] | None = None
    ) -> list[ConsumerRecord[Any, Any]]:
        """Everything committed, partition by partition."""
        consumer = AIOKafkaConsumer(**consumer_options(self.bootstrap_servers))
        await consumer.start()
        try:
            where = [TopicPartition(str(topic), p) for p in range(partitions)]
            consumer.assign(where)
            starts, ends = await consumer.beginning_offsets(where), await consumer.end_offsets(where)
            for tp in where:
                consumer.seek(tp, max(starts[tp], since[tp.partition] if since else 0))
            found: list[Any] = []
            while any([await consumer.position(tp) < ends[tp] for tp in where]):
                for records in (await consumer.getmany(*where, timeout_ms=100)).values():
                    found += records
            return sorted(found, key=lambda record: (record.partition, record.offset))
        finally:
            await consumer.stop()


@asynccontextmanager
async def a_producer(bootstrap_servers: str, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(**producer_options(bootstrap_servers) | options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def hands_on(stack: TestStores) -> AsyncIterator[Hands]:
    async with a_producer(stack.bootstrap_servers) as producer, Offsets(stack.bootstrap_servers) as offsets:
        yield Hands(stack.bootstrap_servers, producer, offsets)


Before = Callable[[Batch, UnitOfWork], Awaitable[None]]


@dataclass
class Ledger:
    """A worker that applies a signal by writing its id down and emitting one result.

    An event called `boom` makes the handler raise; a survey on a scale not in `scales` is rejected.
    """

    name: str
    reads: Topic
    writes: Topic
    settings: Settings
    pool: asyncpg.Pool
    before: Before | None = None
    after: Before | None = None
    booms: bool = True
    scales: set[str] = field(default_factory=lambda: {"0-10"})
    runtimes: list[Runtime] = field(default_factory=list)

    def worker(self, **options: Any) -> Worker:
        return Worker(
            name=self.name,
            reads=(self.reads,),
            writes=(self.writes,),
            handle=self.handle,
            migrations=Path(),
            fast={inputs.UsageTracked.wire_type(): read_usage},
            **options,
        )

    async def handle(self, batch: Batch, unit: UnitOfWork) -> None:
        if self.before is not None:
            await self.before(batch, unit)
        applied = []
        for signal in batch:
            if self.booms and getattr(signal.data, "event", "") == "boom":
                raise RuntimeError("boom")
            if getattr(signal.data, "scale", None) and signal.data.scale not in self.scales:
                unit.reject(signal, f"scale {signal.data.scale} is not known")
                continue
            applied.append(signal)
        rows = [(signal.id, signal.account_id, signal.partition, signal.type, signal.offset) for signal in applied]
        await unit.db.executemany(f'insert into lab."{self.name}" values (default, $1, $2, $3, $4, $5)', rows)
        for signal in applied:
            if signal.account_id != "*":
                self._emit(signal, unit)
        if self.after is not None:
            await self.after(batch, unit)

    def _emit(self, signal: Signal, unit: UnitOfWork) -> None:
        answer = results.RequestDeclined(
            account_id=signal.account_id, occurred_at=signal.occurred_at, computed_at=unit.now(signal),
            request_id=signal.id, demand=None, reason="noted",
        )  # fmt: skip
        unit.emit(self.writes, answer, account_id=signal.account_id, cause=signal.id, partition=signal.partition)

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Runtime]:
        async with running(self.worker(**options), self.settings) as runtime:
            self.runtimes.append(runtime)
            yield runtime

    async def ids(self) -> list[str]:
        """What was applied, in the order it was."""
        return [row["id"] for row in await self.pool.fetch(f'select id from lab."{self.name}" order by n')]

    async def has(self, id: str) -> bool:
        return bool(await self.pool.fetchval(f'select count(*) from lab."{self.name}" where id = $1', id))

    async def rows(self) -> list[asyncpg.Record]:
        return list(
            await self.pool.fetch("select * from hune.partitions where service = $1 order by partition", self.name)
        )

    async def counts(self) -> Counter[str]:
        return await counts_of(self.pool, self.name)

    async def quarantined(self) -> list[asyncpg.Record]:
        return list(
            await self.pool.fetch(
                "select * from hune.quarantine where service = $1 order by partition, record_offset", self.name
            )
        )

    async def settled(self, hands: Hands, seconds: float = PATIENCE) -> None:
        await settled(self.pool, hands, self.name, [self.reads], self.settings.partitions, seconds)


async def counts_of(pool: asyncpg.Pool, service: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in await pool.fetch("select counts from hune.partitions where service = $1", service):
        total.update(row["counts"])
    return Counter({name: n for name, n in total.items() if n})


async def settled(
    pool: asyncpg.Pool, hands: Hands, service: str, reads: Sequence[Topic], partitions: int, seconds: float = PATIENCE
) -> None:
    """Wait until all there is now is read (past transaction markers, too) and published."""
    wanted = [(topic.name, p) for topic in reads for p in range(partitions)]
    ends = await hands.offsets.committed_ends(wanted)
    begins = await hands.offsets.beginnings(wanted)

    async def done() -> bool:
        rows = {
            r["partition"]: r for r in await pool.fetch("select * from hune.partitions where service = $1", service)
        }
        if any(row["head"] > row["published"] for row in rows.values()):
            return False
        for (topic, p), end in ends.items():
            if end > begins[topic, p] and (p not in rows or rows[p]["offsets"].get(topic, 0) < end):
                return False
        return not await pool.fetchval(
            "select count(*) from hune.quarantine where service = $1 and state = 'redrive'", service
        )

    await eventually(done, seconds)


@asynccontextmanager
async def running(worker: Worker, settings: Settings) -> AsyncIterator[Runtime]:
    """The worker in this process, owning every partition."""
    runtime = Runtime(worker, settings)
    await runtime.start()
    try:

        async def owns_all() -> bool:
            owned = {p for lane in runtime.lanes for p in lane.owned}
            return len(owned) == settings.partitions and runtime.ready()

        await eventually(owns_all)
        yield runtime
    finally:
        await runtime.stop()


@asynccontextmanager
async def a_ledger(
    stack: TestStores, pool: asyncpg.Pool, *, reads: Topic | None = None, name: str = ""
) -> AsyncIterator[Ledger]:
    """A ledger with tables and topics of its own, forgotten afterwards."""
    name = name or f"ledger-{uuid.uuid4().hex[:8]}"
    made = {kind: Topic(f"{topics.PREFIX}.lab.{name}.{kind}", "", "", (), ()) for kind in ("in", "out", "positions")}
    topics.POSITIONS[name] = made["positions"]
    await make_topics(stack, [topic.name for topic in made.values()])
    await pool.execute("create schema if not exists lab")
    await pool.execute(
        f'create table lab."{name}" (n bigint generated always as identity, id text, account text, partition int, '
        "type text, at bigint)"
    )
    try:
        yield Ledger(name, reads or made["in"], made["out"], settings_of(stack), pool)
    finally:
        del topics.POSITIONS[name]
        await pool.execute(f'drop table lab."{name}"')
        for table in ("partitions", "outbox", "quarantine", "seen", "seen_cold", "seen_undated"):
            await pool.execute(f"delete from hune.{table} where service = $1", name)


async def make_topics(stack: TestStores, names: Sequence[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    await admin.start()
    try:
        config = {"max.message.bytes": str(MAX_RECORD_BYTES)}
        await admin.create_topics([NewTopic(name, stack.partitions, 1, topic_configs=config) for name in names])
    finally:
        await admin.close()


@asynccontextmanager
async def a_pool(stack: TestStores) -> AsyncIterator[asyncpg.Pool]:
    pool = await db.create_pool(stack.database_url, 4, "lab")
    try:
        yield pool
    finally:
        await pool.close()


def body_of(record: ConsumerRecord[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.value)
    return found


def header(record: ConsumerRecord[Any, Any], name: str) -> str | None:
    value = dict(record.headers).get(name)
    return None if value is None else value.decode()
