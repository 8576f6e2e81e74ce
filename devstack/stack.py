"""Kafka and PostgreSQL of one home, or those whose addresses are given."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from devstack import jars, ports
from devstack.errors import StackError
from devstack.kafka import Kafka
from devstack.postgres import Postgres, outside

PATIENCE = 60.0
LEAST_FREE_MB = 300
CONTENTS = (
    "kafka", "kafka.new", "postgres", "postgres.new", "postgres.initial", "postgres.password",
    "data", "state", "logs", "run", "spool", "vault.key",
)  # fmt: skip
Store = Kafka | Postgres


class Stack:
    """The stores of one home.

    Start and stop it in the main thread: the children end with the thread that started them.
    `kafka` and `postgres` are our children, or None where an address is given in the environment
    (`HUNE_KAFKA_BOOTSTRAP_SERVERS`, `HUNE_DATABASE_URL`) and nothing is started for it.
    """

    def __init__(self, home: Path, env: Mapping[str, str] = os.environ) -> None:
        self.home = home
        self.kafka: Kafka | None = None
        self.postgres: Postgres | None = None
        self._given_kafka = env.get("HUNE_KAFKA_BOOTSTRAP_SERVERS", "").strip()
        self._given_urls = given_urls(env)
        self._given_control = env.get("HUNE_DATABASE_URL", "").strip()
        self._lock: IO[str] | None = None

    @property
    def bootstrap_servers(self) -> str:
        if self.kafka is not None:
            return self.kafka.bootstrap_servers
        if not self._given_kafka:
            raise StackError(f"Kafka of {self.home} is not running")
        return self._given_kafka

    @property
    def database_url(self) -> str:
        """The control database."""
        return (self.postgres is None and self._given_control) or self.database_urls[0]

    @property
    def database_urls(self) -> tuple[str, ...]:
        if self.postgres is not None:
            return (self.postgres.url,)
        if not self._given_urls:
            raise StackError(f"PostgreSQL of {self.home} is not running")
        return self._given_urls

    @property
    def stores(self) -> tuple[Store, ...]:
        return tuple(store for store in (self.postgres, self.kafka) if store is not None)

    def start(self, *, kafka: bool = True, report: jars.Report | None = None) -> None:
        """Start what is not given and wait until it serves; `kafka=False` starts the database alone."""
        try:
            self.launch(kafka=kafka, report=report)
            self.wait()
        except BaseException:
            self.stop()
            raise

    def launch(self, *, kafka: bool = True, report: jars.Report | None = None, lock_patience: float = 1.0) -> None:
        """Start what is not given, without waiting until it serves; `stop` is due even when this raises."""
        self._claim(lock_patience)
        try:
            self._check_disk()
            wants_kafka = kafka and not self._given_kafka
            class_path = jars.ensure(report) if wants_kafka else ""
            chosen = self._choose_ports()
            if not self._given_urls:
                self.postgres = Postgres(self.home, chosen["postgres"])
                self.postgres.prepare()
            if wants_kafka:
                self.kafka = Kafka(self.home, chosen["kafka"], chosen["controller"], class_path)
                self.kafka.prepare()
            for store in self.stores:
                store.spawn()
        except BaseException:
            self.stop_stores()
            raise

    def wait(self, patience: float = PATIENCE) -> None:
        """Wait until every store serves.

        Raises StackError that names the store which died or took too long, and its log.
        """
        deadline = time.monotonic() + patience
        waiting = list(self.stores)
        while waiting:
            waiting = [store for store in waiting if not store.is_ready()]
            for store in waiting:
                check_alive(store)
                if time.monotonic() > deadline:
                    raise StackError(f"{store.name} did not answer within {patience:.0f} s; see {store.log}")
            if waiting:
                time.sleep(0.05)

    @property
    def is_claimed(self) -> bool:
        """Whether the home is ours: from `launch` to `stop`."""
        return self._lock is not None

    def stop_stores(self) -> None:
        """Stop Kafka, then PostgreSQL; the home stays ours."""
        for store in reversed(self.stores):
            store.stop()

    def stop(self) -> None:
        """Stop Kafka, then PostgreSQL, and let go of the home."""
        self.stop_stores()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _claim(self, patience: float) -> None:
        run = self.home / "run"
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            run.mkdir(exist_ok=True)
            (self.home / "logs").mkdir(exist_ok=True)
            lock = (run / "lock").open("a+")
        except OSError as error:
            raise StackError(
                f"the home {self.home} cannot be written: {error.strerror}; set HUNE_HOME to another folder"
            ) from error
        deadline = time.monotonic() + patience
        while not _try_lock(lock):
            if time.monotonic() >= deadline:
                lock.close()
                raise StackError(
                    f"the home {self.home} is in use by process {lock_holder(self.home)}; end it with `hune down` first"
                )
            time.sleep(0.05)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self.home).free // 1_000_000
        if free < LEAST_FREE_MB:
            raise StackError(
                f"the disk of {self.home} has {free} MB left and the stores need {LEAST_FREE_MB}; "
                "make room, or set HUNE_HOME to a folder on another disk"
            )

    def _choose_ports(self) -> dict[str, int]:
        """The ports of the last run where they are free, so that addresses last; others where not."""
        remembered = self.home / "run" / "ports.json"
        before: dict[str, int] = json.loads(remembered.read_text()) if remembered.exists() else {}
        names = ("kafka", "controller", "postgres")
        chosen = {name: before[name] for name in names if name in before and ports.is_free(before[name])}
        absent = [name for name in names if name not in chosen]
        fresh = [port for port in ports.choose(len(absent) + len(chosen)) if port not in chosen.values()]
        chosen |= dict(zip(absent, fresh, strict=False))
        remembered.write_text(json.dumps(chosen))
        return chosen


def purge(home: Path) -> None:
    """Delete a stopped home's data: only what a home holds, should the folder hold anything else."""
    if is_locked(home):
        raise StackError(f"the home {home} is in use by process {lock_holder(home)}; stop it first with `hune down`")
    shutil.rmtree(outside(home), ignore_errors=True)
    for entry in CONTENTS:
        path = home / entry
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if home.is_dir() and not any(home.iterdir()):
        home.rmdir()


def is_locked(home: Path) -> bool:
    """Whether some process runs in this home now."""
    path = home / "run" / "lock"
    if not path.exists():
        return False
    with path.open("a+") as lock:
        return not _try_lock(lock)


def lock_holder(home: Path) -> int:
    """The process that took the home last; 0 when none ever did."""
    path = home / "run" / "lock"
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else 0


def given_urls(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The databases of the workers' state that the environment names."""
    several = [url.strip() for url in env.get("HUNE_DATABASE_URLS", "").split(",") if url.strip()]
    return tuple(several) or tuple(url for url in (env.get("HUNE_DATABASE_URL", "").strip(),) if url)


def check_alive(store: Store) -> None:
    code = store.exit_code()
    if code is None:
        return
    from devstack.processes import tail

    said = tail(store.log)
    why = "its disk is full" if "No space left" in said else (said or "it said nothing")
    raise StackError(f"{store.name} ended with code {code} at start: {why}; see {store.log}")


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
