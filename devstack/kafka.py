"""One Apache Kafka broker in KRaft mode as our child."""

from __future__ import annotations

import base64
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from pathlib import Path

from devstack import jars, java, processes
from devstack.errors import StackError

HEAP = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC")
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "delete.topic.enable": "true",
    "message.max.bytes": 2 * 1024 * 1024,
    # One broker: the internal topics have nowhere else to be.
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 12,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # A service that was off for a year finds its place again.
    "offsets.retention.minutes": 2**31 - 1,
    "transactional.id.expiration.ms": 2**31 - 1,
    # A killed process is noticed, and its open transaction ended, within seconds.
    "broker.session.timeout.ms": 2000,
    "broker.heartbeat.interval.ms": 500,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    # Small and quiet.
    "num.network.threads": 2,
    "num.io.threads": 4,
    "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
    "log.index.size.max.bytes": 2 * 1024 * 1024,
}


class Kafka:
    """A broker whose data, ports and log belong to one home."""

    name = "kafka"
    format_options: tuple[str, ...] = ()

    def __init__(self, home: Path, port: int, controller_port: int, class_path: str) -> None:
        self.port = port
        self.log = home / "logs" / "kafka.log"
        self._controller_port = controller_port
        self._class_path = class_path
        self._data = home / "kafka"
        self._properties = home / "run" / "kafka.properties"
        self._pid_file = home / "run" / "kafka.pid"
        self._java = java.find()
        self._archive = java.archive_of(self._java, class_path, jars.cache_folder())
        self._process: subprocess.Popen[bytes] | None = None
        self._formatting: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def prepare(self) -> None:
        """Begin to format the data folder of a new home; `spawn` waits for it.

        A half-formatted folder keeps another name, so that a killed run leaves nothing behind that looks whole.
        """
        if self._pid_file.exists():
            processes.outlast(int(self._pid_file.read_text() or 0), str(self._properties), signal.SIGTERM)
        self._properties.parent.mkdir(parents=True, exist_ok=True)
        if (self._data / "meta.properties").exists():
            return
        draft = self._draft
        shutil.rmtree(draft, ignore_errors=True)
        self._write_properties(draft)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One word with "=": every 64th id begins with "-", which the tool would take for an option.
        tool = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(self._properties),
                *self.format_options)  # fmt: skip
        with processes.open_log(self.log) as log:
            self._formatting = processes.spawn(
                [self._java, *self._archive.use, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp",
                 self._class_path, *tool], log=log,
            )  # fmt: skip

    def spawn(self) -> None:
        """Start the broker, again if it has died; `is_ready` tells when it serves."""
        if self._formatting is not None:
            if self._formatting.wait() != 0:
                raise StackError(f"Kafka could not format {self._data}: {processes.tail(self.log)}")
            self._draft.rename(self._data)
            self._formatting = None
        self._write_properties(self._data)
        with processes.open_log(self.log) as log:
            self._process = processes.spawn(
                [self._java, *self._archive.use_or_make, *HEAP, "-cp", self._class_path, "kafka.Kafka",
                 self._properties], log=log,
            )  # fmt: skip
        self._pid_file.write_text(str(self._process.pid))

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else None

    def is_ready(self) -> bool:
        return knows_a_broker("127.0.0.1", self.port)

    def stop(self, grace: float = 30.0) -> None:
        if self._formatting is not None:
            processes.stop(self._formatting)
        if self._process is not None:
            self._archive.keep(processes.stop(self._process, signal.SIGTERM, grace))
            self._pid_file.unlink(missing_ok=True)

    @property
    def _draft(self) -> Path:
        return self._data.with_name("kafka.new")

    def _settings(self, data: Path) -> dict[str, object]:
        return SETTINGS | {
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": data,
        }

    def _write_properties(self, data: Path) -> None:
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in self._settings(data).items()))


def knows_a_broker(host: str, port: int, timeout: float = 1.0) -> bool:
    """Ask for metadata without topics: only a broker that serves names itself in the answer.

    The port alone opens earlier, and after a crash the broker is fenced for a while.
    """
    client = b"hune"
    request = struct.pack(">hhih", 3, 5, 1, len(client)) + client + struct.pack(">ib", 0, 0)  # metadata v5, no topics
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answers:
                size = answers.read(4)
                answer = answers.read(struct.unpack(">i", size)[0]) if len(size) == 4 else b""
    except OSError:
        return False
    # correlation id, throttle time, then the array of brokers
    return len(answer) >= 12 and struct.unpack(">i", answer[8:12])[0] > 0
