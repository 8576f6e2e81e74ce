"""Homes: where an installation's data, logs and running state are on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from devstack.stack import Stack, given_urls, is_locked, lock_holder
from shared.errors import Misconfigured

Phase = Literal["starting", "serving", "stopping", "stopped", "failed"]
LOCK_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service as the supervisor sees it; `restarts` counts deaths that nobody asked for."""

    name: str
    pid: int | None
    restarts: int
    ready: bool
    probes_port: int


@dataclass(frozen=True, slots=True)
class StoreState:
    """Kafka or PostgreSQL; without a pid it is not ours."""

    address: str
    pid: int | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class RunState:
    """What a supervisor says of itself, rewritten whenever something changes.

    `serving`: stores, tables and topics are there and the services were started; each tells its own readiness.
    """

    phase: Phase
    supervisor: int
    started_at: str
    doing: str = ""
    kafka: StoreState | None = None
    postgres: StoreState | None = None
    database_urls: tuple[str, ...] = ()
    gateway_url: str = ""
    partitions: int = 0
    services: tuple[ServiceState, ...] = field(default_factory=tuple)

    @classmethod
    def from_json(cls, text: str) -> RunState:
        data: dict[str, Any] = json.loads(text)
        data["services"] = tuple(ServiceState(**service) for service in data["services"])
        data["database_urls"] = tuple(data["database_urls"])
        for store in ("kafka", "postgres"):
            data[store] = StoreState(**data[store]) if data[store] else None
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Home:
    """One installation's folder."""

    path: Path

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def state_file(self) -> Path:
        return self.path / "run" / "state.json"

    @property
    def is_running(self) -> bool:
        return is_locked(self.path)

    @property
    def exists(self) -> bool:
        return self.state_file.exists()

    def state(self) -> RunState | None:
        """The latest state any supervisor wrote here; ask `is_running` whether it still holds."""
        try:
            return RunState.from_json(self.state_file.read_text())
        except FileNotFoundError:
            return None

    def write_state(self, state: RunState) -> None:
        """Replace the state as a whole. It holds a password: only its owner may read it."""
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix="state.", dir=self.state_file.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(state), file, indent=1)
        os.replace(draft, self.state_file)

    def __str__(self) -> str:
        return str(self.path)


def spool_of(home: Path) -> Path:
    """Where the gateway of a home keeps what Kafka does not take."""
    return home / "spool"


def main_home(env: Mapping[str, str] = os.environ) -> Home:
    """The home of `up`, `send` and `import`: HUNE_HOME, else the user's data folder."""
    if env.get("HUNE_HOME", "").strip():
        return Home(Path(env["HUNE_HOME"]).expanduser().absolute())
    data = env.get("XDG_DATA_HOME", "").strip() or "~/.local/share"
    return Home(Path(data).expanduser().absolute() / "hune")


def demo_home(env: Mapping[str, str] = os.environ) -> Home:
    return Home(main_home(env).path / "demo")


def find_home(env: Mapping[str, str] = os.environ) -> Home:
    """Return the running home, else the last used one.

    Raises Misconfigured when there is none yet.
    """
    homes = [home for home in (main_home(env), demo_home(env)) if home.exists]
    if not homes:
        raise Misconfigured(f"there is no Hune in {main_home(env)} yet; start one with `hune up` or `hune demo`")
    running = [home for home in homes if home.is_running]
    return (running or sorted(homes, key=lambda home: home.state_file.stat().st_mtime, reverse=True))[0]


@dataclass(frozen=True, slots=True)
class OpenStores:
    """Addresses that answer for as long as `open_stores` is open.

    `database_url` is the control database, `database_urls` hold the workers' state; without need of Kafka
    `bootstrap_servers` is empty when Kafka is not running. `home` is None when all addresses were given.
    """

    bootstrap_servers: str
    database_url: str
    database_urls: tuple[str, ...]
    home: Path


@asynccontextmanager
async def open_stores(
    need_kafka: bool = False, env: Mapping[str, str] = os.environ, *, quiet: bool = False
) -> AsyncIterator[OpenStores]:
    """Reach the stores: given addresses first, then the running home, then the last used one's database alone.

    Says on stderr which home it reads. Raises Misconfigured when Kafka is needed and not running.
    """
    given = _given(env)
    if given is not None and (given.bootstrap_servers or not need_kafka):
        _note("reading the stores named in HUNE_DATABASE_URL", quiet)
        yield given
        return
    home = find_home(env)
    state = await _supervised(home)
    if state is not None:
        _note(f"home: {home}", quiet)
        yield _running(state, home)
        return
    if need_kafka:
        raise Misconfigured(f"Hune is not running in {home}; start it with `hune up`")
    stack = Stack(home.path, env)
    try:
        stack.launch(kafka=False, lock_patience=LOCK_PATIENCE)
        stack.wait()
        _note(f"home: {home} (stopped; its database runs for this command alone)", quiet)
        yield OpenStores("", stack.database_url, stack.database_urls, home.path)
    finally:
        stack.stop()


def _note(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, file=sys.stderr)


def _given(env: Mapping[str, str]) -> OpenStores | None:
    urls = given_urls(env)
    if not urls:
        return None
    control = env.get("HUNE_DATABASE_URL", "").strip() or urls[0]
    return OpenStores(env.get("HUNE_KAFKA_BOOTSTRAP_SERVERS", "").strip(), control, urls, main_home(env).path)


def _running(state: RunState, home: Home) -> OpenStores:
    assert state.kafka is not None
    assert state.postgres is not None
    return OpenStores(state.kafka.address, state.postgres.address, state.database_urls, home.path)


async def _supervised(home: Home) -> RunState | None:
    """The state of the supervisor of this home, once its stores serve; None when none runs."""
    while True:
        state = home.state()
        if state is None or not home.is_running or lock_holder(home.path) != state.supervisor:
            return None
        if state.phase == "serving":
            return state
        if state.phase != "starting":
            raise Misconfigured(f"Hune in {home} is {state.phase}; see {home.logs / 'supervisor.log'}")
        await asyncio.sleep(0.2)
