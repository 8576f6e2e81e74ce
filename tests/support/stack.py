"""A real Kafka and a real PostgreSQL for tests, and whole installations in folders of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.home import Home
from devstack import Stack, ports
from devstack.stack import purge
from tests.support.containers import a_kafka_container, a_postgres_container

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
KINDS = ("devstack", "containers", "given")
GIVEN = ("HUNE_KAFKA_BOOTSTRAP_SERVERS", "HUNE_DATABASE_URL", "HUNE_DATABASE_URLS")


@dataclass(frozen=True, slots=True)
class TestStores:
    """Stores with tables and topics, with the addresses that `open_stores` gives."""

    __test__ = False

    bootstrap_servers: str
    database_url: str
    database_urls: tuple[str, ...]
    home: Path
    partitions: int
    stack: Stack

    @property
    def env(self) -> dict[str, str]:
        """The environment in which services and commands use these stores."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HUNE_HOME": str(self.home),
            "HUNE_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "HUNE_DATABASE_URL": self.database_url,
            "HUNE_DATABASE_URLS": ",".join(self.database_urls),
            "HUNE_PARTITIONS": str(self.partitions),
        }


@contextlib.contextmanager
def chosen_addresses() -> Iterator[dict[str, str]]:
    """The environment for a Stack: with addresses, where the stores are containers or given."""
    kind = chosen_stack()
    if kind == "devstack":
        yield clean_environment()
    elif kind == "given":
        missing = [name for name in GIVEN[:2] if not os.environ.get(name)]
        if missing and os.environ.get("HUNE_TEST_STACK"):
            raise ValueError(f"HUNE_TEST_STACK is given, but {' and '.join(missing)} is not set")
        yield dict(os.environ)
    else:
        with a_kafka_container() as kafka, a_postgres_container() as database:
            yield clean_environment() | {"HUNE_KAFKA_BOOTSTRAP_SERVERS": kafka, "HUNE_DATABASE_URL": database}


def chosen_stack() -> str:
    """What HUNE_TEST_STACK says; without it, addresses in the environment if there are any, else the devstack."""
    kind = os.environ.get("HUNE_TEST_STACK", "").strip()
    if kind not in ("", *KINDS):
        raise ValueError(f"HUNE_TEST_STACK is {kind!r}; it takes {', '.join(KINDS)}")
    return kind or ("given" if any(os.environ.get(name) for name in GIVEN[:2]) else "devstack")


@contextlib.contextmanager
def running_stores(partitions: int = PARTITIONS) -> Iterator[TestStores]:
    """Start the stores that HUNE_TEST_STACK names in a temporary home, and make tables and topics."""
    from shared.db.migrate import migrate
    from shared.kafka import apply_topics

    with temporary_home() as home, chosen_addresses() as env, Stack(home, env) as stack:
        asyncio.run(migrate(list(dict.fromkeys((stack.database_url, *stack.database_urls))), partitions))
        asyncio.run(apply_topics(stack.bootstrap_servers, partitions))
        yield TestStores(stack.bootstrap_servers, stack.database_url, stack.database_urls, home, partitions, stack)


@dataclass(frozen=True, slots=True)
class Installation:
    """A whole `hune up` in a home of its own; commands run against it as a user runs them."""

    home: Home
    env: dict[str, str]

    def hune(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=ROOT,
            env=self.env,
            check=check,
            capture_output=True,
            text=True,
        )


def clean_environment() -> dict[str, str]:
    """This environment without addresses of given stores."""
    return {name: value for name, value in os.environ.items() if name not in GIVEN} | {"PYTHONPATH": str(ROOT)}


def bare_environment(home: Path) -> dict[str, str]:
    """The same for a home of its own."""
    return clean_environment() | {
        "HUNE_HOME": str(home),
        "HUNE_PARTITIONS": str(PARTITIONS),
        "HUNE_GATEWAY_PORT": str(ports.choose(1)[0]),
    }


@contextlib.contextmanager
def installation(**settings: str) -> Iterator[Installation]:
    """`hune up` in a temporary home, with `settings` as further HUNE_ variables, and `hune down` at the end."""
    with temporary_home() as path:
        whole = Installation(Home(path), bare_environment(path) | settings)
        try:
            started = whole.hune("up", check=False)
            if started.returncode != 0:
                raise AssertionError(started.stderr + started.stdout)
            yield whole
        finally:
            whole.hune("down", check=False)


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder that is gone afterwards; its logs are printed when the test fails in it."""
    home = Path(tempfile.mkdtemp(prefix="hune-test-"))
    try:
        yield home
    except BaseException:
        for log in sorted(home.glob("logs/*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
        raise
    finally:
        purge(home)
        shutil.rmtree(home, ignore_errors=True)
