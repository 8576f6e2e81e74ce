"""A Docker engine, if one answers, and this repository's compose file run by it under a name and on ports of its own.

HUNE_TEST_CONTAINERS may name a folder of scripts (`up.sh`, `images.sh`, `compose-plugin.sh`, `env.sh`, `down.sh`) that
make an engine and stand-in images where no image registry can be reached; any other value means the engine must answer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devstack import ports

ROOT = Path(__file__).parents[2]

BESIDE = ROOT.parent / "shared" / "containers"
IMAGES = ("apache/kafka:4.1.1", "postgres:18", "python:3.11-slim")
KAFKA_OF_TESTCONTAINERS = "confluentinc/cp-kafka:8.1.1"  # the image whose scripts testcontainers knows
KAFKA_SETTINGS = {
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_MESSAGE_MAX_BYTES": "2097152",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    "KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": "1000",
}
START_S, BUILD_S, SCRIPT_S = 300, 600, 1200


class NoEngine(Exception):
    """No Docker here, or not enough of it; the text says what is missing and how to get it."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Docker as this environment reaches it."""

    env: Mapping[str, str]

    def docker(
        self, *arguments: str, env: Mapping[str, str] | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", *arguments],
            cwd=ROOT, env={**self.env, **(env or {})}, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done

    def has(self, image: str) -> bool:
        return self.docker("image", "inspect", image, check=False).returncode == 0


@contextlib.contextmanager
def an_engine() -> Iterator[Engine]:
    """The engine that answers, else one that the scripts start and stop.

    Raises NoEngine when there is none, or when it has neither the images nor a way to get them.
    """
    scripts = _scripts()
    env = {**os.environ, **_settings_of(scripts)} if scripts else dict(os.environ)
    started = scripts is not None and not _answers(env)
    if scripts is not None:
        for script in ("up.sh", "images.sh", "compose-plugin.sh"):
            _run_script(scripts / script)
    if not _answers(env):
        raise NoEngine("no Docker engine answers; start one, or name a folder of scripts in HUNE_TEST_CONTAINERS")
    engine = Engine(env)
    try:
        if engine.docker("compose", "version", check=False).returncode != 0:
            raise NoEngine("this Docker has no compose plugin (`docker compose version`)")
        for image in IMAGES:
            if not engine.has(image) and engine.docker("pull", image, check=False, timeout=300).returncode != 0:
                raise NoEngine(f"the image {image} is not here and cannot be pulled")
        yield engine
    finally:
        if started and scripts is not None:
            _run_script(scripts / "down.sh")


@contextlib.contextmanager
def a_kafka_container() -> Iterator[str]:
    """The bootstrap servers of a Kafka of this test's own."""
    from testcontainers.community.kafka import KafkaContainer

    # As root, for testcontainers appends to a script of the image that may be read-only there.
    kafka = KafkaContainer(KAFKA_OF_TESTCONTAINERS, user="root").with_kraft()
    for name, value in KAFKA_SETTINGS.items():
        kafka = kafka.with_env(name, value)
    with kafka:
        yield kafka.get_bootstrap_server()


@contextlib.contextmanager
def a_postgres_container() -> Iterator[str]:
    """The address of a PostgreSQL of this test's own."""
    from testcontainers.community.postgres import PostgresContainer

    server = PostgresContainer("postgres:18", username="hune", password="hune", dbname="hune", driver=None)
    with server.with_command("postgres -c max_connections=200 -c jit=off -c timezone=UTC"):
        yield server.get_connection_url()


def _scripts() -> Path | None:
    asked = os.environ.get("HUNE_TEST_CONTAINERS", "").strip()
    if asked and Path(asked).is_dir():
        return Path(asked)
    return BESIDE if asked and BESIDE.is_dir() and not _answers(os.environ) else None


def _settings_of(scripts: Path) -> dict[str, str]:
    """What `env.sh` sets for whoever sources it."""
    command = ["bash", "-c", f". '{scripts}/env.sh' && env -0"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in said.split("\0") if "=" in line)


def _run_script(script: Path) -> None:
    done = subprocess.run([script], capture_output=True, text=True, check=False, timeout=SCRIPT_S)
    if done.returncode != 0:
        raise NoEngine(f"{script.name} failed: {(done.stderr or done.stdout)[-1000:]}")


def _answers(env: Mapping[str, str]) -> bool:
    if shutil.which("docker", path=env.get("PATH")) is None:
        return False
    try:
        asked = subprocess.run(["docker", "version"], env=dict(env), capture_output=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


@dataclass(frozen=True, slots=True)
class Composed:
    """docker-compose.yml of this repository, running; its data is its own."""

    engine: Engine
    project: str
    env: Mapping[str, str] = field(default_factory=dict)

    def compose(self, *arguments: str, check: bool = True, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        return self.engine.docker(
            "compose", "--project-name", self.project, *arguments, env=self.env, check=check, timeout=timeout
        )

    def up(self) -> None:
        """Start what is not running and wait until all of it is healthy."""
        done = self.compose(
            "up", "--detach", "--wait", "--wait-timeout", str(START_S), check=False, timeout=START_S + 60
        )
        if done.returncode != 0:
            logs = self.compose("logs", "--no-color", "--tail", "40", check=False).stdout
            state = self.compose("ps", "--all", check=False).stdout
            raise AssertionError(f"{done.stderr[-3000:]}\n{state}\n{logs[-12000:]}")

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.env['GATEWAY_PORT']}"

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.env['KAFKA_PORT']}"

    @property
    def database_url(self) -> str:
        return f"postgresql://hune:{self.env['POSTGRES_PASSWORD']}@127.0.0.1:{self.env['POSTGRES_PORT']}/hune"

    def hune(self, *arguments: str) -> str:
        """The command line of this machine, against the published ports."""
        env = dict(os.environ) | {
            "PYTHONPATH": str(ROOT),
            "HUNE_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "HUNE_DATABASE_URL": self.database_url,
            "HUNE_DATABASE_URLS": "",
            "HUNE_HOME": self.env["HOME_FOR_TEST"],
        }
        done = subprocess.run(
            [sys.executable, "-m", "cli", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout


@contextlib.contextmanager
def composed(engine: Engine) -> Iterator[Composed]:
    """`docker compose build`, `up --wait`, and at the end `down` with its volumes."""
    chosen = ports.choose(3)
    with tempfile.TemporaryDirectory(prefix="hune-test-", ignore_cleanup_errors=True) as home:
        env = dict(zip(("GATEWAY_PORT", "KAFKA_PORT", "POSTGRES_PORT"), map(str, chosen), strict=True))
        env |= {"POSTGRES_PASSWORD": "not-the-default", "PARTITIONS": "4", "TAG": "test", "HOME_FOR_TEST": home}
        whole = Composed(engine, f"hune-test-{os.getpid()}", env)
        try:
            whole.compose("build", timeout=BUILD_S)
            whole.up()
            yield whole
        finally:
            whole.compose("down", "--volumes", "--timeout", "20", check=False)
