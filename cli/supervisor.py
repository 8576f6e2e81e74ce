"""Starts stores and services in order, restarts what dies, stops all in order.

`hune up` runs it detached (`python -m cli.supervisor HOME`), `hune demo` in its own process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cli.home import Home, Phase, RunState, ServiceState, StoreState, spool_of
from cli.vault import GIVEN, key_file
from devstack import ports
from devstack.errors import StackError
from devstack.nursery import Child, Nursery
from devstack.stack import Stack, Store, check_alive
from shared.errors import Misconfigured, PipelineError
from shared.settings import DEFAULT_PARTITIONS
from shared.vault import keys as vault
from shared.vault.keys import Keys

ROOT = Path(__file__).parents[1]
SERVICES = ("gateway", "router", "health", "feedback", "qbr", "ops", "voc", "notify", "console")
FIRST_DELAY, LONGEST_DELAY, LONG_LIFE = 0.2, 5.0, 30.0
GRACE = 10.0
WATCH_EVERY = 0.1
PROBE_EVERY = 2.0
STORE_PATIENCE = 90.0

log = logging.getLogger("hune.supervisor")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next start: doubling, forgotten after a long life."""

    delay: float = 0.0

    def after_death(self, lived: float) -> Backoff:
        if lived >= LONG_LIFE or self.delay == 0.0:
            return Backoff(FIRST_DELAY)
        return Backoff(min(self.delay * 2, LONGEST_DELAY))


def present_services(root: Path = ROOT) -> list[str]:
    """The services of this build: those that `python -m services NAME` can run."""
    return [
        name
        for name in SERVICES
        if any((root / "services" / name / file).exists() for file in ("app.py", "__main__.py"))
    ]


class ServiceProcess:
    """One service: its process, how often it died and whether it is ready."""

    def __init__(self, name: str, port: int, home: Home, env: Mapping[str, str], nursery: Nursery) -> None:
        self.name = name
        self.port = port
        self._env = {**env, "HUNE_PROBES_PORT": str(port)}
        self.restarts = 0
        self.ready = False
        self.log = home.logs / f"{name}.log"
        self._nursery = nursery
        self._process: Child | None = None
        self._backoff = Backoff()
        self._started = self._due = 0.0
        self.next_probe = 0.0
        self.was_ready = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        self._process = self._nursery.spawn(self.name, self.log, self._env)
        self._started = time.monotonic()
        self.next_probe = 0.0

    def watch(self) -> str | None:
        """Notice a death and start again when the back-off is over; say what happened, if anything did."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            self._backoff = self._backoff.after_death(now - self._started)
            self._due = now + self._backoff.delay
            self._process, self.ready = None, False
            self.restarts += 1
            return f"{self.name} ended with code {code}; it starts again in {self._backoff.delay:.1f} s"
        if self._process is None and self._started and now >= self._due:
            self.start()
            return f"{self.name} starts again as process {self.pid}"
        return None

    def move(self, port: int, **env: str) -> None:
        """Start the next time with another probes' port, or other settings."""
        self.port = port
        self._env |= {"HUNE_PROBES_PORT": str(port), **env}

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, grace: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(grace, 0.0))
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop in time and was killed", self.name)
            self._process.kill()
            self._process.wait()

    def state(self) -> ServiceState:
        return ServiceState(self.name, self.pid, self.restarts, self.ready, self.port)


class WatchedStore:
    """Kafka or PostgreSQL of the stack: restarted on its own port when it dies."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.restarts = 0
        self._backoff = Backoff()
        self._started = time.monotonic()
        self._due: float | None = None

    def watch(self) -> str | None:
        """Notice a death and start again when the back-off is over; say what happened, if anything did."""
        now, name = time.monotonic(), self.store.name
        if self._due is None:
            code = self.store.exit_code()
            if code is None:
                return None
            self._backoff = self._backoff.after_death(now - self._started)
            self._due = now + self._backoff.delay
            self.restarts += 1
            return f"{name} ended with code {code}; it starts again in {self._backoff.delay:.1f} s"
        if now >= self._due:
            self.store.spawn()
            self._started, self._due = now, None
            return f"{name} starts again as process {self.store.pid}"
        return None


class Supervisor:
    """Everything that runs in one home.

    `start` returns when stores, tables and topics are there and every service was started;
    `watch` runs until `stop_requested` is set; `stop` ends all of it.
    """

    def __init__(self, home: Home, env: Mapping[str, str] = os.environ, say: Say | None = None) -> None:
        self.home = home
        self.stop_requested = asyncio.Event()
        self._env = env
        self._say = say or (lambda text: log.info(text))
        self._stack = Stack(home.path, env)
        self._nursery = Nursery("services", ROOT, home.logs / "nursery.log")
        self._stores: list[WatchedStore] = []
        self._services: list[ServiceProcess] = []
        self._phase: Phase = "starting"
        self._doing = ""
        self._partitions = 0
        self._gateway_port = 0
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._probes: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> RunState:
        kafka, postgres = self._stack.kafka, self._stack.postgres
        restarts = {watched.store.name: watched.restarts for watched in self._stores}
        up = self._phase == "serving"
        return RunState(
            phase=self._phase,
            supervisor=os.getpid(),
            started_at=self._started_at,
            doing=self._doing,
            kafka=StoreState(self._stack.bootstrap_servers, kafka.pid if kafka else None, restarts.get("kafka", 0))
            if up
            else None,
            postgres=StoreState(
                self._stack.database_url, postgres.pid if postgres else None, restarts.get("postgres", 0)
            )
            if up
            else None,
            database_urls=self._stack.database_urls if up else (),
            gateway_url=f"http://127.0.0.1:{self._gateway_port}" if up and self._gateway_port else "",
            partitions=self._partitions,
            services=tuple(service.state() for service in self._services),
        )

    async def start(self) -> None:
        """Bring everything up; on failure everything is stopped again before the error goes on."""
        try:
            await self._start()
        except BaseException as error:
            await self._end("failed", str(error) or type(error).__name__)
            raise

    async def _start(self) -> None:
        self._stack.launch(report=self._tell_jars)
        self._nursery.start()
        self._doing_now("starting Kafka and PostgreSQL")
        postgres = [store for store in self._stack.stores if store.name == "postgres"]
        kafka = [store for store in self._stack.stores if store.name == "kafka"]
        await asyncio.gather(self._make_tables(postgres), self._until_ready(kafka))
        await self._make_topics()
        self._stores = [WatchedStore(store) for store in self._stack.stores]
        self._start_services()
        self._phase = "serving"
        self._doing_now("waiting for the services")

    async def watch(self) -> None:
        """Restart what dies, on the same ports, until asked to stop."""
        while not self.stop_requested.is_set():
            watched: list[WatchedStore | ServiceProcess] = [*self._stores, *self._services]
            self._leave_taken_ports()
            happened = [text for each in watched if (text := each.watch())]
            self._begin_probes()
            for text in happened:
                self._say(text)
            if happened:
                self._publish()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop_requested.wait(), WATCH_EVERY)

    async def stop(self) -> None:
        await self._end("stopped", "")

    async def run(self) -> None:
        """Start, watch until SIGTERM or SIGINT, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop_requested.set)
        await self.start()
        try:
            await self.watch()
        finally:
            await self.stop()

    async def until_ready(self, patience: float) -> list[str]:
        """Wait until every service is ready; return the names of those that are not in time."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and not self.stop_requested.is_set():
            if all(service.ready for service in self._services):
                break
            await asyncio.sleep(0.05)
        return [service.name for service in self._services if not service.ready]

    async def _make_tables(self, stores: list[Store]) -> None:
        from shared.db.migrate import migrate

        await self._until_ready(stores)
        urls = list(dict.fromkeys((self._stack.database_url, *self._stack.database_urls)))
        self._partitions = await choose_partitions(urls[0], self._env)
        if await is_new(urls[0]):
            self._make_vault()
        await migrate(urls, self._partitions)

    def _make_vault(self) -> None:
        """A new installation has a contact vault; one that was begun without goes on so until it is told otherwise."""
        path = key_file(self.home.path)
        if not path.exists() and not any(self._env.get(name, "").strip() for name in GIVEN):
            vault.write(path, Keys.make())

    def _vault_env(self) -> dict[str, str]:
        path = key_file(self.home.path)
        given = any(self._env.get(name, "").strip() for name in GIVEN)
        return {} if given or not path.exists() else {vault.FILE_VARIABLE: str(path)}

    async def _make_topics(self) -> None:
        from shared.kafka import apply_topics

        self._doing_now("creating topics")
        await apply_topics(self._stack.bootstrap_servers, self._partitions)

    async def _until_ready(self, stores: list[Store]) -> None:
        deadline = time.monotonic() + STORE_PATIENCE
        for store in stores:
            while not await asyncio.to_thread(store.is_ready):
                check_alive(store)
                if time.monotonic() > deadline:
                    raise StackError(f"{store.name} did not answer within {STORE_PATIENCE:.0f} s; see {store.log}")
                await asyncio.sleep(0.05)

    def _start_services(self) -> None:
        names = present_services()
        self._doing_now(f"starting {', '.join(names)}" if names else "no service in this build")
        self._gateway_port = choose_gateway_port(self._env) if "gateway" in names else 0
        env = {
            **self._env,
            "HUNE_HOME": str(self.home.path),
            "HUNE_KAFKA_BOOTSTRAP_SERVERS": self._stack.bootstrap_servers,
            "HUNE_DATABASE_URL": self._stack.database_url,
            "HUNE_DATABASE_URLS": ",".join(self._stack.database_urls),
            "HUNE_PARTITIONS": str(self._partitions),
            "HUNE_GATEWAY_PORT": str(self._gateway_port),
            "HUNE_GATEWAY_SPOOL_DIR": self._env.get("HUNE_GATEWAY_SPOOL_DIR") or str(spool_of(self.home.path)),
            "PYTHONUNBUFFERED": "1",
            **self._vault_env(),
        }
        for name, port in zip(names, ports.choose(len(names)), strict=True):
            service = ServiceProcess(name, port, self.home, env, self._nursery)
            service.start()
            self._services.append(service)

    def _leave_taken_ports(self) -> None:
        """A port that was free when it was chosen may be somebody else's by the time it is bound."""
        for service in self._services:
            if service.pid is not None or service.was_ready or not service.restarts:
                continue
            if not ports.is_free(service.port):
                service.move(ports.choose(1)[0])
            asked = self._env.get("HUNE_GATEWAY_PORT", "").strip()
            if service.name == "gateway" and not asked and not ports.is_free(self._gateway_port):
                self._gateway_port = ports.choose(1)[0]
                service.move(service.port, HUNE_GATEWAY_PORT=str(self._gateway_port))

    def _begin_probes(self) -> None:
        now = time.monotonic()
        for service in self._services:
            if service.pid is not None and now >= service.next_probe:
                service.next_probe = now + (PROBE_EVERY if service.ready else 0.3)
                task = asyncio.create_task(self._probe(service))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)

    async def _probe(self, service: ServiceProcess) -> None:
        pid = service.pid
        ready = await answers_ready(service.port)
        if service.pid == pid and ready != service.ready:
            service.ready = ready
            service.was_ready = service.was_ready or ready
            if all(other.ready for other in self._services):
                self._doing = ""
            self._publish()

    async def _end(self, phase: Phase, why: str) -> None:
        """Services first (they finish their batch), then Kafka, then PostgreSQL."""
        self._phase = "stopping"
        self._doing_now("stopping")
        for task in self._probes:
            task.cancel()
        for service in self._services:
            service.ask_to_stop()
        deadline = time.monotonic() + GRACE
        for service in self._services:
            await asyncio.to_thread(service.wait, deadline - time.monotonic())
        self._nursery.stop()
        last = self.state
        self._stack.stop_stores()
        if self._stack.is_claimed:
            self.home.write_state(replace(last, phase=phase, doing=why, services=()))
        self._stack.stop()

    def _doing_now(self, what: str) -> None:
        self._doing = what
        self._say(what)
        self._publish()

    def _tell_jars(self, there: int, total: int, megabytes: float) -> None:
        self._say(f"fetching Kafka: {there} of {total} jars, {megabytes:.0f} MB")

    def _publish(self) -> None:
        if self._stack.is_claimed:  # else the state is another supervisor's
            self.home.write_state(self.state)


async def choose_partitions(database_url: str, env: Mapping[str, str]) -> int:
    """HUNE_PARTITIONS, else what this installation was made with, else the default."""
    from shared import db

    asked = env.get("HUNE_PARTITIONS", "").strip()
    if asked:
        if not asked.isdigit() or int(asked) < 1:
            raise Misconfigured(f"HUNE_PARTITIONS is {asked!r}; it takes a whole number such as {DEFAULT_PARTITIONS}")
        return int(asked)
    connection = await db.connect(database_url)
    try:
        if await connection.fetchval("select to_regclass('hune.installation')") is None:
            return DEFAULT_PARTITIONS
        return int(await connection.fetchval("select partitions from hune.installation") or DEFAULT_PARTITIONS)
    finally:
        await connection.close()


async def is_new(database_url: str) -> bool:
    """Whether no Hune has been in the database yet."""
    from shared import db

    connection = await db.connect(database_url)
    try:
        return await connection.fetchval("select to_regclass('hune.installation')") is None
    finally:
        await connection.close()


def choose_gateway_port(env: Mapping[str, str], default: int = 8080) -> int:
    """The port asked for, which must be free; else 8080, else any free one."""
    asked = env.get("HUNE_GATEWAY_PORT", "").strip()
    if asked:
        if not asked.isdigit() or not ports.is_free(int(asked)):
            raise Misconfigured(
                f"HUNE_GATEWAY_PORT is {asked} and another program has that port; end it or choose another port"
            )
        return int(asked)
    return ports.choose(1, prefer=(default,))[0]


async def answers_ready(port: int, timeout: float = 1.5) -> bool:
    """Whether GET /readyz on the probes' port says 200."""
    writer = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            status = await reader.readline()
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
    return status.split()[1:2] == [b"200"]


def main() -> None:
    """Run detached for the home named on the command line; `hune up` reads how it went from the state."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    home = Home(Path(sys.argv[1]))
    try:
        asyncio.run(Supervisor(home).run())
    except PipelineError as error:
        log.error("%s", error)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
