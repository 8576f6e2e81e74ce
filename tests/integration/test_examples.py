"""The subscribers that the examples show work as they stand, and get what the page promises."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devstack import jars
from shared import topics
from shared.events import results
from shared.ids import partition_of
from shared.runtime.wire import event_headers
from tests.support.lab import a_producer, account_in, eventually
from tests.support.stack import ROOT, TestStores

EXAMPLES = ROOT / "examples"
CLIENTS = ("python", "node", "java", "kcat")
ALERTS = 4
OLDEST_JAVA, OLDEST_NODE = 11, 14


@dataclass(frozen=True, slots=True)
class Told:
    """What was published: (event id, account, what a program prints of it), and the id of what was taken back."""

    run: str
    lines: list[tuple[str, str, str]]
    taken_back: str

    def of(self, account: str) -> list[str]:
        return [line for _, whose, line in self.lines if whose == account]


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_subscriber_reads_each_alert_once_in_order_from_the_beginning(
    stack: TestStores, tmp_path: Path, client: str
) -> None:
    command = _command(client, stack.bootstrap_servers, f"my-{uuid.uuid4().hex[:8]}")
    told = await _publish(stack)
    async with _running(command, tmp_path / "out") as out:

        async def said() -> list[str] | None:
            lines = [line for line in out.read_text().splitlines() if told.run in line]
            return lines if len(lines) >= len(told.lines) and _ends(lines, told) else None

        lines = await eventually(said)
    assert len(lines) == len(told.lines), "once each, and nothing that was taken back"
    for account in {whose for _, whose, _ in told.lines}:
        mine = [_as_printed(client, line) for line in lines if f"{account} " in line]
        assert mine == told.of(account), "in the order in which they were decided"


def _ends(lines: list[str], told: Told) -> bool:
    return all(any(f"{id} " in line or f"ce_id={id}," in line for line in lines) for id, _, _ in told.lines)


def _as_printed(client: str, line: str) -> str:
    """kcat prints headers, key and JSON as they are; the programs pick the same five words."""
    if client != "kcat":
        return line
    headers, key, body = line.split(" ", 2)
    said = dict(pair.partition("=")[::2] for pair in headers.split(","))
    alert = json.loads(body)
    assert key == alert["account_id"]
    kind = said["ce_type"].removeprefix("hune.").removesuffix(".v1")
    return f"{said['ce_id']} {kind} {key} {alert['severity']} {alert['title']}"


async def _publish(stack: TestStores) -> Told:
    """Alerts of two accounts, with fields of a later version; among them a transaction that is aborted."""
    run, now = uuid.uuid4().hex[:8], datetime.now(UTC)
    accounts = [account_in(partition, stack.partitions, run) for partition in (0, 1)]
    lines: list[tuple[str, str, str]] = []
    async with a_producer(stack.bootstrap_servers, transactional_id=f"test-{run}") as producer:

        async def send(id: str, account: str, title: str) -> None:
            alert = results.AlertOpened(
                account_id=account, alert_id=id, service="health", rule="p1_open", kind="risk", severity="high",
                title=title, why="", occurred_at=now, computed_at=now, baseline=True,
            )  # fmt: skip
            headers = event_headers(alert, id=id, source="hune.health", subject=account, time=now)
            body = json.dumps(alert.model_dump(mode="json") | {"of_a_later_version": {"deep": [1, None]}}).encode()
            where = partition_of(account.encode(), stack.partitions)
            await producer.send(str(topics.ALERTS), body, account.encode(), where, headers=list(headers))

        for n in range(ALERTS):
            async with producer.transaction():
                for account in accounts:
                    id = f"{run}-{account[-1]}-{n}"
                    await send(id, account, f"number {n}")
                    lines.append((id, account, f"{id} alert.opened {account} high number {n}"))
            if n == 1:
                await producer.begin_transaction()
                await send(f"{run}-aborted", accounts[0], "taken back")
                await producer.flush()
                await producer.abort_transaction()
    return Told(run, lines, f"{run}-aborted")


@asynccontextmanager
async def _running(command: list[str], out: Path) -> AsyncIterator[Path]:
    process = _started(command, out)
    try:
        yield out
    except AssertionError as error:
        raise AssertionError(f"{error}; it said: {out.with_suffix('.err').read_text()[-2000:]}") from error
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            process.kill()


def _started(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"NODE_PATH": str(_node_modules())}
    with out.open("wb") as said, out.with_suffix(".err").open("wb") as complained:
        return subprocess.Popen(command, stdout=said, stderr=complained, env=environment)


def _command(client: str, broker: str, group: str) -> list[str]:
    match client:
        case "python":
            return [sys.executable, str(EXAMPLES / "alerts.py"), broker, group]
        case "node":
            return [_node(), str(EXAMPLES / "alerts.js"), broker, group]
        case "java":
            return [_java(), "-cp", jars.ensure(), str(EXAMPLES / "Alerts.java"), broker, group]
        case _:
            if shutil.which("kcat") is None:
                pytest.skip("NOT TESTED: kcat is not installed here")
            page = (EXAMPLES / "README.md").read_text()
            (line,) = [line for line in page.splitlines() if line.startswith("kcat ")]
            return ["kcat", "-u", *shlex.split(line.replace("localhost:9092", broker).replace("my-alerts", group))[1:]]


def _node_modules() -> Path:
    """kafkajs as the lock names it, beside the other packages that are fetched once."""
    return jars.cache_folder() / "npm-examples" / "node_modules"


def _node() -> str:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("NOT TESTED: there is no node or npm here")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    if int(version.strip().removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"NOT TESTED: node is {version.strip()}, kafkajs needs {OLDEST_NODE}")
    folder, lock = _node_modules().parent, (EXAMPLES / "package-lock.json").read_bytes()
    stamp = folder / "node_modules" / "hune.lock"
    if not stamp.exists() or stamp.read_bytes() != lock:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(EXAMPLES / name, folder / name)
        try:
            subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"NOT TESTED: kafkajs cannot be had here ({type(error).__name__})")
        stamp.write_bytes(lock)
    return node


def _java() -> str:
    """A Java with its compiler; the one that Kafka runs on has none."""
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        pytest.skip("NOT TESTED: there is no Java with its compiler (a JDK) here")
    said = subprocess.run(["javac", "-version"], capture_output=True, text=True, check=True, timeout=60)
    version = (said.stdout or said.stderr).split()[-1]
    if int(version.partition(".")[0]) < OLDEST_JAVA:
        pytest.skip(f"NOT TESTED: Java is {version}, the example needs {OLDEST_JAVA}")
    return java
