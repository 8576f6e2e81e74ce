"""One broker and one PostgreSQL for a run, the shipped processes on them, and what they cost."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil  # type: ignore[import-untyped]
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from devstack import processes
from devstack.ports import choose
from devstack.stack import Stack
from shared import db as database
from shared import topics
from shared.db.migrate import migrate
from shared.kafka import consumer_options, producer_options
from shared.settings import DEFAULT_PARTITIONS
from shared.topics import Topic
from tests.benchmarks.traffic import Sent, Traffic

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
POLL_S = 0.02
FIRST = "first"
"""The account of the event that begins an installation's life."""
APPLY_TOPICS = """
import asyncio, sys
from shared.kafka import apply_topics
asyncio.run(apply_topics(sys.argv[1], int(sys.argv[2])))
"""
READ = """
    select coalesce(sum((offsets ->> $2)::bigint), 0) from hune.partitions where service = $1
"""
PUBLISHED = "select coalesce(bool_and(published >= head), true) from hune.partitions where service = $1"
TRANSACTIONS = re.compile(r"^hune_batch_records_count\{[^}]*\} (\S+)$", re.MULTILINE)


INPUT = {"router": topics.RAW_EVENTS, "health": topics.ROUTED["health"]}
OUTPUTS = {
    "router": tuple(topics.ROUTED.values()),
    "health": (topics.RESULTS["health"], topics.ALERTS, topics.STATE_ACCOUNTS),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stretch of work took; CPU in seconds, over the same stretch."""

    events: int
    seconds: float
    worker_cpu: float
    postgres_cpu: float
    wal_bytes: int
    transactions: int
    peak_rss_mb: float

    @property
    def per_second(self) -> float:
        return self.events / self.seconds

    @property
    def worker_us(self) -> float:
        return self.worker_cpu / self.events * 1e6

    @property
    def postgres_us(self) -> float:
        return self.postgres_cpu / self.events * 1e6

    @property
    def events_per_transaction(self) -> float:
        return self.events / max(self.transactions, 1)

    def as_numbers(self) -> dict[str, float]:
        return {
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.per_second),
            "worker_us_per_event": round(self.worker_us, 2),
            "postgres_us_per_event": round(self.postgres_us, 2),
            "wal_bytes_per_event": round(self.wal_bytes / self.events, 1),
            "events_per_transaction": round(self.events_per_transaction),
            "peak_rss_mb": round(self.peak_rss_mb),
        }


class Lab:
    """One installation with the shipped configuration, its producer and observers.

    `name` is the prefix of its topics and its database: several installations may share the stores of a stack.
    """

    def __init__(self, stack: Stack, name: str = topics.PREFIX, partitions: int = DEFAULT_PARTITIONS) -> None:
        self.stack, self.name, self.partitions = stack, name, partitions
        self.bootstrap_servers = stack.bootstrap_servers
        self.database_url = stack.database_url.rpartition("/")[0] + f"/{name}"
        self.db: asyncpg.Connection
        self.producer: Any
        self._observer: Any
        self.options: dict[str, str] = {}
        """Settings of the shipped processes beyond the addresses."""

    @property
    def env(self) -> dict[str, str]:
        """The environment of the shipped processes: addresses, and what a benchmark sets apart."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("HUNE_")}
        return {
            **mine,
            "PYTHONPATH": str(ROOT),
            "HUNE_HOME": str(self.stack.home),
            "HUNE_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "HUNE_DATABASE_URL": self.database_url,
            "HUNE_PARTITIONS": str(self.partitions),
            "HUNE_TOPIC_PREFIX": self.name,
            **self.options,
        }

    async def open(self) -> None:
        admin = await database.connect(self.stack.database_url)
        await admin.execute(f"create database {self.name}")
        await admin.close()
        await migrate([self.database_url], self.partitions)
        await self._run("-c", APPLY_TOPICS, self.bootstrap_servers, str(self.partitions))
        self.db = await database.connect(self.database_url)
        self.producer = AIOKafkaProducer(**producer_options(self.bootstrap_servers))
        await self.producer.start()
        self._observer = AIOKafkaConsumer(**consumer_options(self.bootstrap_servers))
        await self._observer.start()
        await self._until_led()

    async def _until_led(self) -> None:
        """New topics have no leaders for a moment; the client would log every refusal."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                await self.ends(*(self.topic(topic) for topic in topics.ALL))
                return
            except KafkaError:
                await asyncio.sleep(0.2)

    async def close(self) -> None:
        await self.producer.stop()
        await self._observer.stop()
        await self.db.close()

    def topic(self, topic: Topic) -> str:
        """The topic's name in this installation."""
        return topic.name.replace(topics.PREFIX, self.name, 1)

    # -- traffic --------------------------------------------------------------------------------

    async def feed(self, topic: str, records: Iterable[Sent], at_once: int = 20_000) -> int:
        """Write records in large batches and wait until Kafka has them all."""
        count, chunk = 0, list[Sent]()
        for record in records:
            chunk.append(record)
            if len(chunk) >= at_once:
                await self.send(topic, chunk)
                count, chunk = count + len(chunk), []
        await self.send(topic, chunk)
        return count + len(chunk)

    async def feed_at_once(self, topic: str, records: Iterable[Sent]) -> int:
        """Write records that all become visible to `read_committed` readers at the same moment."""
        producer = AIOKafkaProducer(
            **producer_options(self.bootstrap_servers), transactional_id=f"bench.{time.monotonic_ns()}"
        )
        await producer.start()
        try:
            chosen = list(records)
            async with producer.transaction():
                await self.send(topic, chosen, producer)
        finally:
            await producer.stop()
        return len(chosen)

    async def send(self, topic: str, records: Iterable[Sent], producer: Any = None) -> None:
        producer = producer or self.producer
        batches: dict[int, Any] = {}
        sent = []
        for partition, key, value, headers in records:
            batch = batches.get(partition)
            if batch is None:
                batch = batches[partition] = producer.create_batch()
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                batch.close()
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch = batches[partition] = producer.create_batch()
                batch.append(timestamp=None, key=key, value=value, headers=headers)
        for partition, batch in batches.items():
            batch.close()
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sent)

    async def ends(self, *names: str) -> dict[TopicPartition, int]:
        """The last stable offsets."""
        where = [TopicPartition(name, p) for name in names for p in range(self.partitions)]
        found: dict[TopicPartition, int] = await self._observer.end_offsets(where)
        return found

    async def count(self, since: Mapping[TopicPartition, int]) -> dict[str, int]:
        """Committed records per topic after these offsets; transaction markers are none."""
        until = await self._observer.end_offsets(list(since))
        reader = AIOKafkaConsumer(**consumer_options(self.bootstrap_servers))
        await reader.start()
        counts = dict.fromkeys({tp.topic for tp in since}, 0)
        try:
            open_ = [tp for tp in since if since[tp] < until[tp]]
            reader.assign(open_ or list(since))
            for tp in open_:
                reader.seek(tp, since[tp])
            while any([await reader.position(tp) < until[tp] for tp in open_]):
                for tp, records in (await reader.getmany(*open_, timeout_ms=200)).items():
                    counts[tp.topic] += sum(since[tp] <= record.offset < until[tp] for record in records)
        finally:
            await reader.stop()
        return counts

    # -- the shipped processes ------------------------------------------------------------------

    @asynccontextmanager
    async def service(self, name: str) -> AsyncIterator[Running]:
        """Run `python -m services NAME` until the block ends."""
        port = choose(1)[0]
        command = [sys.executable, "-m", "services", name]
        env = self.env | {"HUNE_PROBES_PORT": str(port)}
        log = self.stack.home / "logs" / f"{name}.log"
        with processes.open_log(log) as output:
            process = processes.spawn(command, log=output, env=env, cwd=ROOT, last_signal=signal.SIGKILL)
        try:
            yield Running(name, psutil.Process(process.pid), f"http://127.0.0.1:{port}")
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with code {process.returncode}: {processes.tail(log, 10)}")
        finally:
            await asyncio.to_thread(processes.stop, process, signal.SIGTERM, 20.0)

    async def begin_life(self, traffic: Traffic) -> None:
        """A first live event goes through router and health, so that the installation's time is the present."""
        await self.feed(self.topic(topics.RAW_EVENTS), [traffic.as_raw(traffic.usage(FIRST)) for _ in range(20)])
        for name in ("router", "health"):
            async with self.service(name) as running:
                await running.ready()
                await self.settled(running)

    async def work_off(self, name: str) -> Cost:
        """Start a service on what waits for it and measure from its first transaction to its last published result.

        Starting up and the first transaction are left out.
        """
        topic, outputs = self.topic(INPUT[name]), [self.topic(output) for output in OUTPUTS[name]]
        goal = sum((await self.ends(topic)).values())
        before = await self._read(name, topic)
        async with self.service(name) as running:
            deadline = time.monotonic() + PATIENCE
            while (read := await self._read(name, topic)) == before:
                self.check(running, deadline)
                await asyncio.sleep(POLL_S / 4)
            start = await self.snapshot(running)
            while await self._read(name, topic) < goal:
                self.check(running, deadline)
                await asyncio.sleep(POLL_S)
            ended = time.monotonic()
            seen = await self.ends(*outputs)
            while not await self.is_published(name):
                self.check(running, deadline)
                now = await self.ends(*outputs)
                if now != seen:
                    seen, ended = now, time.monotonic()
                await asyncio.sleep(POLL_S)
            end = await self.snapshot(running)
        return start.until(end, events=goal - read, seconds=ended - start.at)

    async def settled(self, running: Running) -> None:
        """Wait until a running service has read its topic to the end and published what came of it."""
        deadline, topic = time.monotonic() + PATIENCE, self.topic(INPUT[running.name])
        goal = sum((await self.ends(topic)).values())
        while await self._read(running.name, topic) < goal or not await self.is_published(running.name):
            self.check(running, deadline)
            await asyncio.sleep(POLL_S)

    async def read(self, running: Running) -> int:
        """How many records of its input a service has applied."""
        return await self._read(running.name, self.topic(INPUT[running.name]))

    async def snapshot(self, running: Running) -> Snapshot:
        wal = await self.db.fetchval("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
        postgres = postgres_cpu(self.stack.postgres.pid) if self.stack.postgres and self.stack.postgres.pid else 0.0
        times = running.process.cpu_times()
        return Snapshot(
            time.monotonic(),
            times.user + times.system,
            postgres,
            wal,
            await running.transactions(),
            peak_rss_mb(running.process.pid),
        )

    async def _read(self, name: str, topic: str) -> int:
        return int(await self.db.fetchval(READ, name, topic))

    async def is_published(self, name: str) -> bool:
        return bool(await self.db.fetchval(PUBLISHED, name))

    def check(self, running: Running, deadline: float) -> None:
        process, name = running.process, running.name
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"{name} died: {processes.tail(self.stack.home / 'logs' / f'{name}.log', 10)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} did not finish in {PATIENCE:.0f} s")

    async def make_topics(self, *names: str) -> None:
        """Topics of the shape of ours, for the others."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, self.partitions, 1) for name in names])
        finally:
            await admin.close()

    # -- the others -----------------------------------------------------------------------------

    async def peer(self, name: str, *, python: str = sys.executable, **options: Any) -> dict[str, Any]:
        """Run `tests/benchmarks/peers/NAME.py` with options as JSON; its last line is its result."""
        given = {"bootstrap_servers": self.bootstrap_servers, "database_url": self.database_url, **options}
        return await self.result_of(python, "-m", f"tests.benchmarks.peers.{name}", json.dumps(given))

    async def result_of(self, *command: str) -> dict[str, Any]:
        """Run a program to its end; its last line is its result."""
        said = await self._run(*command[1:], program=command[0])
        result: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
        return result

    async def _run(self, *arguments: str, program: str = sys.executable) -> str:
        """Run Python, or another program, on something to its end and return what it printed."""
        process = await asyncio.create_subprocess_exec(
            program, *arguments, cwd=ROOT, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            said, complaint = await asyncio.wait_for(process.communicate(), PATIENCE)
        except BaseException:
            with suppress(ProcessLookupError):
                process.kill()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"{arguments[1]} ended with code {process.returncode}: {complaint.decode()[-2000:]}")
        return said.decode()


@dataclass(frozen=True, slots=True)
class Running:
    """One of the shipped processes and its probes."""

    name: str
    process: psutil.Process
    url: str

    async def ready(self) -> None:
        """Wait until it says that it owns its partitions."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                await self._get("/readyz")
                return
            await asyncio.sleep(0.05)
        raise RuntimeError(f"{self.name} is not ready after 60 s")

    async def transactions(self) -> int:
        """How many transactions with records it has committed."""
        with suppress(OSError):
            found = TRANSACTIONS.search(await self._get("/metrics"))
            return int(float(found[1])) if found else 0
        return 0

    async def _get(self, path: str) -> str:
        def read() -> str:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:
                text: bytes = answer.read()
                return text.decode()

        return await asyncio.to_thread(read)


@dataclass(frozen=True, slots=True)
class Snapshot:
    at: float
    worker_cpu: float
    postgres_cpu: float
    wal: int
    transactions: int
    peak_rss_mb: float

    def until(self, end: Snapshot, *, events: int, seconds: float) -> Cost:
        return Cost(
            events=events,
            seconds=seconds,
            worker_cpu=end.worker_cpu - self.worker_cpu,
            postgres_cpu=end.postgres_cpu - self.postgres_cpu,
            wal_bytes=end.wal - self.wal,
            transactions=end.transactions - self.transactions,
            peak_rss_mb=end.peak_rss_mb,
        )


def postgres_cpu(pid: int) -> float:
    """User and system time of the server and all its processes, also of those that have ended."""
    main = psutil.Process(pid)
    times = main.cpu_times()
    total: float = times.user + times.system + times.children_user + times.children_system
    for child in main.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            spent = child.cpu_times()
            total += spent.user + spent.system
    return total


def peak_rss_mb(pid: int) -> float:
    """The most memory a process has held so far."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
