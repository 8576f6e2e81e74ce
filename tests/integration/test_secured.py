"""TLS, passwords and least rights towards Kafka and PostgreSQL, tried with services as they are started."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import TopicAuthorizationFailedError

from cli.supervisor import answers_ready
from devstack import ports
from shared import topics
from shared.access import Access
from tests.support.secured import PREFIX, Authority, SecuredKafka, a_secured_kafka, password_of
from tests.support.stack import ROOT, clean_environment, temporary_home

SERVICES = ("router", "health")
DATABASE = "secured"


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker and a database that know every service by name, and let each do its own work only."""

    home: Path
    kafka: SecuredKafka
    authority: Authority
    admin_url: str

    def url(self, user: str, password: str = "") -> str:
        host = self.admin_url.rpartition("@")[2]
        return f"postgresql://hune_{user}:{password or password_of(user)}@{host}"

    def env(self, user: str, **changed: str) -> dict[str, str]:
        """A process that is `user` to both stores."""
        return clean_environment() | {
            "HUNE_HOME": str(self.home),
            "HUNE_PARTITIONS": "2",
            "HUNE_KAFKA_BOOTSTRAP_SERVERS": self.kafka.sasl_servers,
            "HUNE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "HUNE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "HUNE_KAFKA_USERNAME": f"{PREFIX}{user}",
            "HUNE_KAFKA_PASSWORD": password_of(user),
            "HUNE_KAFKA_CAFILE": str(self.authority.file),
            "HUNE_DATABASE_URL": self.url(user),
            **changed,
        }

    def administrator(self) -> dict[str, str]:
        """By certificate to Kafka, as the owner of the tables to PostgreSQL."""
        certificate, key = self.authority.issue("administrator")
        return clean_environment() | {
            "HUNE_HOME": str(self.home),
            "HUNE_PARTITIONS": "2",
            "HUNE_KAFKA_BOOTSTRAP_SERVERS": self.kafka.tls_servers,
            "HUNE_KAFKA_SECURITY_PROTOCOL": "SSL",
            "HUNE_KAFKA_CAFILE": str(self.authority.file),
            "HUNE_KAFKA_CERTFILE": str(certificate),
            "HUNE_KAFKA_KEYFILE": str(key),
            "HUNE_DATABASE_URL": self.admin_url,
        }


def hune(env: dict[str, str], *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done


async def give_passwords(url: str) -> None:
    connection = await asyncpg.connect(url)
    for user in (*SERVICES, "cli"):
        await connection.execute(f"alter role hune_{user} password '{password_of(user)}'")
    await connection.close()


async def make_database(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"create database {DATABASE}")
    await connection.close()


@pytest.fixture(scope="module")
def secured(postgres: str) -> Iterator[Secured]:
    with temporary_home() as home, a_secured_kafka(home) as (broker, authority):
        asyncio.run(make_database(postgres))
        found = Secured(home, broker, authority, f"{postgres.rpartition('/')[0]}/{DATABASE}")
        administrator = found.administrator()
        hune(administrator, "db", "migrate")
        hune(administrator, "db", "roles", "--apply")
        hune(administrator, "db", "roles", "--apply")  # again changes nothing
        asyncio.run(give_passwords(found.admin_url))
        hune(administrator, "topics", "apply")
        hune(administrator, "topics", "acls", "--apply")
        yield found


def start(secured: Secured, service: str, port: int) -> tuple[int, subprocess.Popen[bytes]]:
    env = secured.env(service, HUNE_PROBES_PORT=str(port), PYTHONUNBUFFERED="1")
    with (secured.home / "logs" / f"{service}.log").open("ab") as log:
        command = [sys.executable, "-m", "services", service]
        return port, subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)


async def until_ready(started: list[tuple[int, subprocess.Popen[bytes]]]) -> None:
    deadline = time.monotonic() + 60
    for port, process in started:
        while not await answers_ready(port):
            assert process.poll() is None, "a service ended"
            assert time.monotonic() < deadline, "a service is not ready within 60 s"
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def running(secured: Secured) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The services, ready, each with its own user, password and rights."""
    started = {name: start(secured, name, port) for name, port in zip(SERVICES, ports.choose(2), strict=True)}
    try:
        asyncio.run(until_ready([(port, process) for port, process in started.values()]))
        yield {name: process for name, (_, process) in started.items()}
    finally:
        for _, process in started.values():
            process.send_signal(signal.SIGTERM)
        for _, process in started.values():
            process.wait(20)


def test_services_work_with_passwords_tls_and_only_the_rights_they_need(
    secured: Secured, running: dict[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    events = [
        {"id": f"e{n}", "account_id": f"a{n % 3}", "user_id": "ann", "timestamp": "2026-03-01T10:00:00Z"}
        for n in range(300)
    ]
    file = tmp_path / "events.ndjson"
    file.write_text("".join(json.dumps(event) + "\n" for event in [*events, *events[:50]]))
    hune(secured.env("cli"), "send", str(file), "--replay")
    hune(secured.env("cli"), "settle", "--timeout", "60")
    said = hune(secured.env("cli"), "export", "usage", "--json").stdout
    assert {row["account_id"]: row["events"] for row in map(json.loads, said.splitlines())} == {
        "a0": 100, "a1": 100, "a2": 100,
    }  # fmt: skip
    assert all(process.poll() is None for process in running.values())


async def test_a_database_password_that_holds_no_more_blames_no_record(
    secured: Secured, running: dict[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    file, log = tmp_path / "more.ndjson", secured.home / "logs" / "health.log"
    file.write_text('{"id": "later", "account_id": "later", "user_id": "ann", "timestamp": "2026-03-01T11:00:00Z"}\n')
    owner = await asyncpg.connect(secured.admin_url)
    try:
        await owner.execute("alter role hune_health password 'rotated'")
        await owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'hune_health'")
        await asyncio.to_thread(hune, secured.env("cli"), "send", str(file), "--replay")
        deadline = time.monotonic() + 60
        while "InvalidPasswordError" not in log.read_text():
            assert time.monotonic() < deadline, "the old password was never tried"
            await asyncio.sleep(0.1)
        await owner.execute(f"alter role hune_health password '{password_of('health')}'")
        await asyncio.to_thread(hune, secured.env("cli"), "settle", "--timeout", "60")
        assert await owner.fetchval("select count(*) from hune.quarantine") == 0
    finally:
        await owner.close()
    said = await asyncio.to_thread(hune, secured.env("cli"), "export", "usage", "--json")
    assert {row["account_id"]: row["events"] for row in map(json.loads, said.stdout.splitlines())}["later"] == 1
    assert running["health"].poll() is None


def service_ends(secured: Secured, **changed: str) -> str:
    """What `health` says when it refuses to start; it must end by itself, at once and with status 2."""
    env = secured.env("health", HUNE_PROBES_PORT="0", **changed)
    done = subprocess.run(
        [sys.executable, "-m", "services", "health"],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"HUNE_KAFKA_PASSWORD": "wrong"}, ["refuses HUNE_KAFKA_USERNAME 'hune-health'", "HUNE_KAFKA_PASSWORD"]),
        ({"HUNE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}, ["SCRAM-SHA-256", "HUNE_KAFKA_SASL_MECHANISM"]),
        ({"HUNE_KAFKA_CAFILE": ""}, ["certificate that does not hold", "HUNE_KAFKA_CAFILE"]),
        ({"HUNE_KAFKA_PASSWORD": ""}, ["HUNE_KAFKA_PASSWORD is empty"]),
    ],
    ids=["password", "mechanism", "authority", "no password"],
)
def test_what_kafka_does_not_take_is_said_once_and_ends_the_process(
    secured: Secured, changed: dict[str, str], names: list[str]
) -> None:
    said = service_ends(secured, **changed)
    assert [name for name in names if name not in said] == []
    told = hune(secured.env("cli", **changed), "settle", check=False)
    assert told.returncode == 2
    assert [name for name in names if name.replace("hune-health", "hune-cli") not in told.stderr] == []
    assert "secret-of" not in said + told.stderr


def test_a_wrong_password_for_postgresql_is_said_once_and_ends_the_process(secured: Secured) -> None:
    said = service_ends(secured, HUNE_DATABASE_URL=secured.url("health", "wrong"))
    assert "refuses 'hune_health'" in said
    assert "HUNE_DATABASE_URL" in said
    assert "wrong" not in said
    told = hune(secured.env("cli", HUNE_DATABASE_URL=secured.url("cli", "wrong")), "export", "usage", check=False)
    assert told.returncode == 2
    assert "HUNE_DATABASE_URL" in told.stderr


def test_tls_without_our_certificate_is_refused(secured: Secured) -> None:
    env = secured.administrator()
    del env["HUNE_KAFKA_CERTFILE"], env["HUNE_KAFKA_KEYFILE"]
    told = hune(env, "topics", "apply", check=False)
    assert told.returncode == 2
    assert "HUNE_KAFKA_CERTFILE" in told.stderr


def test_tls_to_a_listener_in_the_clear_is_named(secured: Secured) -> None:
    env = secured.administrator() | {"HUNE_KAFKA_BOOTSTRAP_SERVERS": secured.kafka.bootstrap_servers}
    told = hune(env, "topics", "apply", check=False)
    assert told.returncode == 2
    assert "HUNE_KAFKA_SECURITY_PROTOCOL" in told.stderr


async def test_a_role_sees_its_own_tables_and_rows_alone(
    secured: Secured, running: dict[str, subprocess.Popen[bytes]]
) -> None:
    connection = await asyncpg.connect(secured.url("health"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("select * from router.links")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("create table health.mine (a int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("insert into hune.outbox values ('router', 0, 1, 1, ''::bytea)")
        rows = await connection.fetch("select distinct service from hune.partitions")
        assert [row["service"] for row in rows] == ["health"]
    finally:
        await connection.close()


async def test_kafka_lets_a_service_write_only_its_own_topics(secured: Secured) -> None:
    access = Access.from_env(secured.env("health"))
    producer = AIOKafkaProducer(bootstrap_servers=secured.kafka.sasl_servers, **access.options())
    await producer.start()
    try:
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(topics.RESULTS["router"].name, b"forged", partition=0)
        await producer.send_and_wait(topics.POSITIONS["health"].name, b"0", key=b"nobody", partition=0)
    finally:
        await producer.stop()


def test_a_user_without_rights_is_told_so(secured: Secured, tmp_path: Path) -> None:
    file = tmp_path / "one.ndjson"
    file.write_text('{"id": "x", "account_id": "a", "timestamp": "2026-03-01T10:00:00Z"}\n')
    told = hune(secured.env("stranger", HUNE_DATABASE_URL=secured.url("cli")), "send", str(file), check=False)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
