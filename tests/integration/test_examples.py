"""The subscriber that the examples show works as it stands, and gets what the page promises."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

from shared import topics
from shared.events import results
from shared.ids import partition_of
from shared.runtime.wire import event_headers
from tests.support.lab import eventually, hands_on
from tests.support.stack import ROOT, TestStores


async def test_twenty_lines_of_python_read_every_alert_in_order(stack: TestStores, tmp_path: Path) -> None:
    run, now = uuid.uuid4().hex[:8], datetime.now(UTC)
    account = f"{run}-acme"
    async with hands_on(stack) as hands:
        for n in range(5):
            alert = results.AlertOpened(
                account_id=account, alert_id=f"{run}-{n}", service="health", rule="p1_open", kind="risk",
                severity="high", title=f"number {n}", why="", occurred_at=now, computed_at=now, baseline=True,
            )  # fmt: skip
            headers = event_headers(alert, id=f"{run}-e{n}", source="hune.health", subject=account, time=now)
            where = partition_of(account.encode(), stack.partitions)
            await hands.send(topics.ALERTS, where, alert.model_dump_json().encode(), list(headers), account.encode())
    out = tmp_path / "out"
    process = _start(stack, out)
    try:

        async def said() -> list[str] | None:
            lines = [line for line in out.read_text().splitlines() if account in line]
            return lines if len(lines) >= 5 else None

        lines = await eventually(said)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)
    assert lines == [f"{run}-e{n} alert.opened {account} high number {n}" for n in range(5)]


def _start(stack: TestStores, out: Path) -> subprocess.Popen[bytes]:
    program = [sys.executable, str(ROOT / "examples/alerts.py"), stack.bootstrap_servers]
    with out.open("wb") as file:
        return subprocess.Popen(program, stdout=file, stderr=subprocess.STDOUT)
