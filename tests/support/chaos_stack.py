"""An installation whose members can be killed, stopped, multiplied and rigged one by one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import OffsetAndMetadata

from cli.supervisor import Backoff, answers_ready
from devstack import Stack, ports, processes
from devstack.postgres import Postgres
from devstack.stack import Store
from shared.db.migrate import migrate
from shared.kafka import apply_topics
from tests.support.oracle import Raw
from tests.support.stack import ROOT

PATIENCE = 300.0
# Sentences of the services' logs that tell of faults.
ZOMBIES = "partitions have another owner"
RETRIES = "trying the batch again"
RELAYS = "relay starts over"
EXITS = ("the worker stops", "partitions are assigned but lost", "results wait and none is published")


@dataclass
class Member:
    """One process of a service. `wanted`: it is started again when it ends."""

    service: str
    number: int
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = True
    starts: int = 0
    started: float = 0.0
    due: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    deaths: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.service}-{self.number}"

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} has never been started"
        return self.process.pid

    def is_stopped(self) -> bool:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state == "T"


class ChaosStack:
    """Stores and members of one home. Use it in the main thread: children end with the thread that started them.

    With several `servers` the workers' databases are on as many PostgreSQL servers, the control database on the first.
    """

    def __init__(self, home: Path, partitions: int, members: Mapping[str, int], servers: int = 1) -> None:
        self.home, self.partitions = home, partitions
        env = {name: value for name, value in os.environ.items() if not name.startswith("HUNE_")}
        self.stack = Stack(home, env)
        self.others = [Postgres(home / f"server-{k}", ports.choose(1)[0]) for k in range(2, servers + 1)]
        self.members: list[Member] = []
        self.store_restarts: Counter[str] = Counter()
        self.gateway_port = 0
        self._env = env
        self.options: dict[str, str] = {}
        """Settings of the members beyond the addresses."""
        self._counts = members
        self._away: set[str] = set()
        self._watching: asyncio.Task[None] | None = None

    # What the command line needs to know of an installation.
    @property
    def bootstrap_servers(self) -> str:
        return self.stack.bootstrap_servers

    @property
    def database_url(self) -> str:
        return self.stack.database_url

    @property
    def database_urls(self) -> tuple[str, ...]:
        """The workers' databases, the control database first."""
        return (self.stack.database_url, *(server.url for server in self.others))

    @property
    def stores(self) -> tuple[Store, ...]:
        return (*self.stack.stores, *self.others)

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    async def start(self) -> None:
        self.stack.launch()
        self.stack.wait(PATIENCE)
        for number, server in enumerate(self.others, 2):
            server.name = f"postgres-{number}"
            server.log.parent.parent.mkdir(exist_ok=True)
            server.prepare()
            server.spawn()
        await until(lambda: all(server.is_ready() for server in self.others), "the other servers serve")
        await migrate(self.database_urls, self.partitions)
        await apply_topics(self.bootstrap_servers, self.partitions)
        count = sum(self._counts.values())
        self.gateway_port, *probes = ports.choose(count + 1)
        for service, members in self._counts.items():
            for number in range(1, members + 1):
                log = self.home / "logs" / f"{service}-{number}.log"
                self.members.append(Member(service, number, probes.pop(), log))
        for member in self.members:
            self.spawn(member)
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for member in self.members:
            self.kill(member)
        for member in self.members:
            if member.process is not None:
                member.process.wait()
        for server in self.others:
            server.stop()
        self.stack.stop()

    def add(self, service: str) -> Member:
        """One member more."""
        number = max(member.number for member in self.of(service)) + 1
        log = self.home / "logs" / f"{service}-{number}.log"
        member = Member(service, number, ports.choose(1)[0], log)
        self.members.append(member)
        self.spawn(member)
        return member

    def spawn(self, member: Member, failpoint: str = "") -> None:
        env = {
            **self._env,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "HUNE_HOME": str(self.home),
            "HUNE_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "HUNE_DATABASE_URL": self.database_url,
            "HUNE_DATABASE_URLS": ",".join(self.database_urls),
            "HUNE_PARTITIONS": str(self.partitions),
            "HUNE_GATEWAY_PORT": str(self.gateway_port),
            "HUNE_PROBES_PORT": str(member.port),
            **self.options,
        }
        if failpoint:
            env["HUNE_FAILPOINT"] = failpoint
        command = [sys.executable, "-m", "services", member.service]
        with processes.open_log(member.log) as log:
            member.process = processes.spawn(command, log=log, env=env, cwd=ROOT, last_signal=signal.SIGKILL)
        member.wanted, member.due, member.started = True, None, time.monotonic()
        member.starts += 1

    async def _watch(self) -> None:
        """Start again whatever ended, as the supervisor does."""
        while True:
            await asyncio.sleep(0.1)
            for member in self.members:
                self._start_again(member)
            for store in self.stores:
                if store.exit_code() is not None and store.name not in self._away:
                    self.store_restarts[store.name] += 1
                    store.spawn()

    def _start_again(self, member: Member) -> None:
        """After a pause that grows with every early death: what cannot start must not take the time of what can."""
        if not member.wanted or member.process is None or member.process.poll() is None:
            return
        now = time.monotonic()
        if member.due is None:
            member.deaths.append(member.process.returncode)
            member.backoff = member.backoff.after_death(now - member.started)
            member.due = now + member.backoff.delay
        elif now >= member.due:
            self.spawn(member)

    def of(self, service: str) -> list[Member]:
        return [member for member in self.members if member.service == service]

    # -- faults -----------------------------------------------------------------------------------

    def kill(self, member: Member) -> None:
        if member.process is not None:
            member.process.kill()

    async def end(self, member: Member) -> None:
        """Ask it to leave, and do not start it again."""
        member.wanted = False
        if member.process is not None:
            member.process.send_signal(signal.SIGTERM)
            try:
                await until(lambda: not member.is_up, f"{member.name} ends", 40)
            except AssertionError:
                member.process.kill()
                raise

    async def freeze(self, member: Member, seconds: float) -> None:
        assert member.process is not None
        member.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        member.process.send_signal(signal.SIGCONT)

    async def rig(self, member: Member, point: str, action: str, visit: int, *, seconds: float, frozen: float) -> bool:
        """Start it anew so that it kills or stops itself at a named point; whether it came there in time."""
        await self.end(member)
        self.spawn(member, f"{point}:{action}:{visit}")
        process = member.process
        assert process is not None
        try:
            await self._until_reached(member, process, action, seconds)
        except AssertionError:
            if process.poll() is None:
                process.kill()
            return False
        if action == "stop":
            await asyncio.sleep(frozen)
            process.send_signal(signal.SIGCONT)
        return True

    async def _until_reached(
        self, member: Member, process: subprocess.Popen[bytes], action: str, seconds: float
    ) -> None:
        """Wait for it to kill or stop itself; time in which a store is away does not count."""
        waited = 0.0
        while not (member.is_stopped() if action == "stop" else process.poll() is not None):
            await asyncio.sleep(0.1)
            waited += 0.0 if self._away else 0.1
            assert process.poll() is None or action == "kill", f"{member.name} ended before it stopped itself"
            assert waited < seconds, f"{member.name} did not come there in {seconds:.0f} s"

    async def lose(self, store: Store, seconds: float) -> None:
        """Kill a store and keep it away for so long."""
        self._away.add(store.name)
        try:
            assert store.pid is not None
            os.kill(store.pid, signal.SIGKILL)
            await until(lambda: store.exit_code() is not None, f"{store.name} dies")
            await asyncio.sleep(seconds)
            self.store_restarts[store.name] += 1
            store.spawn()
            await until_async(lambda: self._serves(store), f"{store.name} serves again")
        finally:
            self._away.discard(store.name)

    async def _serves(self, store: Store) -> bool:
        """PostgreSQL refuses to start while children of the killed one are still there."""
        if store.exit_code() is not None:
            store.spawn()
        return await asyncio.to_thread(store.is_ready)

    async def mislead(self, service: str, topics: list[str]) -> None:
        """With all members gone, say in Kafka's group that everything has been read."""
        async with self.without(service):
            group = f"cs.{service}"
            places = [TopicPartition(topic, p) for topic in topics for p in range(self.partitions)]

            async def commit() -> None:
                consumer = AIOKafkaConsumer(
                    bootstrap_servers=self.bootstrap_servers, group_id=group, enable_auto_commit=False
                )
                try:
                    await consumer.start()
                    consumer.assign(places)
                    ends = await consumer.end_offsets(places)
                    await consumer.commit({tp: OffsetAndMetadata(end, "") for tp, end in ends.items()})
                finally:
                    await consumer.stop()
                assert set(await self._group_offsets(group)) == set(places), "the group's offsets are at the end"

            await retried(commit)

    async def forget(self, service: str) -> None:
        """With all members gone, delete the group and every offset it has in Kafka."""
        async with self.without(service):
            group = f"cs.{service}"

            async def delete() -> None:
                async with self._admin() as admin:
                    node = await admin.find_coordinator(group)
                    answer = await admin._send_request(DeleteGroupsRequest([group]), node)
                codes = [code for _, code in answer.results]
                assert codes in ([0], [69]), f"group {group}: {codes}"  # done, or there was none

            await retried(delete)
            assert not await self._group_offsets(group), "the group has no offsets left"

    @contextlib.asynccontextmanager
    async def without(self, service: str) -> AsyncIterator[None]:
        for member in self.of(service):
            await self.end(member)
        try:
            yield
        finally:
            for member in self.of(service):
                self.spawn(member)

    async def _group_offsets(self, group: str) -> dict[TopicPartition, int]:
        async def load() -> dict[TopicPartition, int]:
            async with self._admin() as admin:
                found = await admin.list_consumer_group_offsets(group)
            return {tp: entry.offset for tp, entry in found.items() if entry.offset >= 0}

        offsets: dict[TopicPartition, int] = await retried(load)
        return offsets

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """A client of its own for each question: one that has lost its broker does not find it again."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    # -- looking ----------------------------------------------------------------------------------

    async def until_ready(self) -> None:
        waiting = [member for member in self.members if member.wanted]

        async def ready() -> bool:
            waiting[:] = [member for member in waiting if not await answers_ready(member.port)]
            return not waiting

        try:
            await until_async(ready, "every member is ready")
        except AssertionError as error:
            names = ", ".join(f"{member.name} (pid {member.pid}, port {member.port})" for member in waiting)
            raise AssertionError(f"{error}: {names}") from None

    async def until_live(self) -> None:
        """Until every partition of every worker knows that life has begun."""

        async def live() -> bool:
            rows = await self.fetch("select service, partition, live from hune.partitions")
            workers = {"health", "feedback", "qbr", "ops", "voc"}
            alive = [row for row in rows if row["service"] in workers and row["live"]]
            return len(alive) == len(workers) * self.partitions

        await until_async(live, "every partition is live")

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        """The rows that every database has."""
        return [row for url in self.database_urls for row in await self._in(url, query, *arguments)]

    async def _in(self, url: str, query: str, *arguments: object) -> list[Any]:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def read(self, topics: list[str]) -> list[Raw]:
        """Everything in some topics that a `read_committed` consumer sees, by topic and partition."""
        found = [raw async for raw in self.records(topics)]
        return sorted(found, key=lambda raw: (raw.topic, raw.partition, raw.offset))

    async def records(self, topics: list[str]) -> AsyncIterator[Raw]:
        """The same one by one, in order per partition."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",  # a later seek would race with a reset to the end
            enable_auto_commit=False,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        await consumer.start()
        try:
            places = [TopicPartition(topic, p) for topic in topics for p in range(self.partitions)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            while any([await consumer.position(tp) < ends[tp] for tp in places]):
                for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                    for r in records:
                        headers = dict(r.headers)
                        yield Raw(tp.topic, tp.partition, r.offset, r.timestamp * 1000, r.value or b"", headers)
        finally:
            await consumer.stop()

    def said(self, sentence: str) -> int:
        """How often the members' logs hold a sentence."""
        found = 0
        for log in (self.home / "logs").glob("*-*.log*"):
            for line in log.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, AttributeError):
                    found += json.loads(line).get("message") == sentence
        return found


async def until(holds: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    async def look() -> bool:
        return holds()

    await until_async(look, what, seconds)


async def until_async(holds: Callable[[], Awaitable[bool]], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if await holds():
                return
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(0.05)


async def retried(work: Callable[[], Awaitable[Any]], seconds: float = PATIENCE) -> Any:
    """Kafka says for a moment that it is not ready, or that a group still has members."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            async with asyncio.timeout(20):
                return await work()
        except Exception:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.3)
