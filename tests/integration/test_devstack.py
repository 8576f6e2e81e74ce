"""The embedded stores and the supervisor, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest

from cli.home import Home, RunState
from devstack import Stack, StackError, ports, processes
from devstack.postgres import MAJOR, find_binaries, outside, place_for_nobody
from devstack.stack import purge
from tests.support.stack import TestStores, bare_environment, temporary_home

Found = TypeVar("Found")
TWO_SERVICES = """
import http.server, os

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(os.environ["HUNE_PROBES_PORT"])), Ready).serve_forever()
"""
SUPERVISE = """
import pathlib, sys
from cli import supervisor
supervisor.ROOT = pathlib.Path(sys.argv[2])
supervisor.present_services = lambda: ["router", "health"]
supervisor.main()
"""


def eventually(look: Callable[[], Found | None], seconds: float = 60.0) -> Found:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, look
        time.sleep(0.05)
    return found


async def scalar(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_the_stores_are_what_they_say(stack: TestStores) -> None:
    assert str(await scalar(stack.database_url, "show server_version")).startswith(f"{MAJOR}.")
    assert await scalar(stack.database_url, "show synchronous_commit") == "on"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await scalar(stack.database_url.replace("hune:", "hune:x", 1), "select 1")


def test_a_home_serves_one_run_at_a_time(stack: TestStores) -> None:
    if stack.stack.postgres is None:
        pytest.skip("the stores were given")
    with pytest.raises(StackError, match=rf"in use by process {os.getpid()}"):
        Stack(stack.home).launch(lock_patience=0)


def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(StackError, match=f"written by PostgreSQL 16 and this is PostgreSQL {MAJOR}"):
        Stack(tmp_path, env={}).start(kafka=False)


def test_a_folder_that_cannot_be_a_home_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="HUNE_HOME"):
        Stack(tmp_path / "file").start()


def test_given_addresses_start_nothing(tmp_path: Path) -> None:
    env = {"HUNE_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "HUNE_DATABASE_URL": "postgresql://a"}
    with Stack(tmp_path, env=env) as given:
        assert given.stores == ()
        assert (given.bootstrap_servers, given.database_url) == ("kafka:9092", "postgresql://a")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_without_user_namespaces_runs_postgresql_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with temporary_home() as home:
        monkeypatch.setattr("devstack.postgres.choose_place", lambda home: place_for_nobody(home, find_binaries()))
        alone = Stack(home, env={})
        alone.start(kafka=False)
        try:
            assert alone.postgres is not None
            assert Path(f"/proc/{alone.postgres.pid}").stat().st_uid == processes.NOBODY
        finally:
            alone.stop()
            purge(home)
        assert not outside(home).exists()


Supervised = tuple[Home, Callable[[], subprocess.Popen[bytes]]]


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    """A home, and a way to start a supervisor of two small services in it."""
    root = tmp_path / "root"
    (root / "services").mkdir(parents=True)
    (root / "services" / "__init__.py").touch()
    (root / "services" / "__main__.py").write_text(TWO_SERVICES)
    started: list[subprocess.Popen[bytes]] = []
    with temporary_home() as path:
        env = bare_environment(path) | {"HUNE_PARTITIONS": "2"}

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen([sys.executable, "-c", SUPERVISE, str(path), str(root)], env=env)
            started.append(process)
            return process

        try:
            yield Home(path), start
        finally:
            for process in started:
                processes.stop(process, grace=30)


def ready_state(home: Home, supervisor: int) -> RunState | None:
    state = home.state()
    if state is None or state.supervisor != supervisor or state.phase != "serving":
        return None
    return state if all(service.ready for service in state.services) else None


def children_of(home: Home) -> list[int]:
    """Every process that mentions the home in its command line or works in it."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if processes.is_alive(pid, str(home.path))]


async def test_what_dies_comes_back_where_it_was_and_nothing_outlives_the_supervisor(
    supervised: Supervised,
) -> None:
    home, start = supervised
    first = start()
    before = eventually(lambda: ready_state(home, first.pid))
    assert before.kafka is not None
    assert before.postgres is not None
    await scalar(before.postgres.address, "create table kept as select 42 as n")

    for pid in (before.services[0].pid, before.kafka.pid, before.postgres.pid):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def all_back() -> RunState | None:
        now = ready_state(home, first.pid)
        if now is None or now.kafka is None or now.postgres is None:
            return None
        restarts = (now.services[0].restarts, now.kafka.restarts, now.postgres.restarts)
        return now if restarts == (1, 1, 1) else None

    after = eventually(all_back)
    assert after.kafka is not None
    assert after.postgres is not None
    assert (after.kafka.address, after.postgres.address) == (before.kafka.address, before.postgres.address)
    assert [service.probes_port for service in after.services] == [each.probes_port for each in before.services]
    assert after.services[1].restarts == 0

    first.kill()
    first.wait()
    eventually(lambda: not children_of(home), seconds=20)
    assert not home.is_running

    second = start()
    again = eventually(lambda: ready_state(home, second.pid))
    assert again.postgres is not None
    assert await scalar(again.postgres.address, "select n from kept") == 42
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=40) == 0
    state = home.state()
    assert state is not None
    assert state.phase == "stopped"
    assert not children_of(home)


def test_a_taken_port_is_not_chosen() -> None:
    first, second = ports.choose(2)
    assert first != second
    assert ports.choose(1, prefer=(first,)) == [first]
