"""Messages to customers as they are sent: real Kafka and PostgreSQL, the process killed between call and record."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import asyncpg

from devstack import ports
from shared import topics
from shared.events import inputs, ops
from shared.events.base import Event
from shared.ids import partition_of
from shared.runtime.wire import event_headers
from tests.support.lab import Hands, eventually, hands_on
from tests.support.stack import ROOT, TestStores
from tests.support.tool_stub import Stub, a_stub

ACCOUNTS = 8
SEGMENTED: dict[str, Any] = {
    "previous": None, "segment": "low", "previous_coverage": None, "coverage": "automated", "arr": None,
    "currency": "EUR", "effective_on": date(2026, 11, 1), "csm": None, "reason": "",
}  # fmt: skip
DUE: dict[str, Any] = {
    "segment": "low", "cadence_days": 90, "due_on": date(2026, 11, 22), "days_late": 0, "last_two_way_at": None,
    "last_person_id": None, "last_channel": None, "person_id": None, "reason": "",
}  # fmt: skip


async def test_a_killed_process_writes_to_no_customer_twice(stack: TestStores, tmp_path: Path) -> None:
    run, now = uuid.uuid4().hex[:8], datetime.now(UTC)
    accounts = [f"{run}-{n}" for n in range(ACCOUNTS)]
    when = {"occurred_at": now, "computed_at": now}
    async with a_stub() as stub, hands_on(stack) as hands:
        pool = await asyncpg.create_pool(stack.database_url, min_size=1, max_size=1)
        _configure(tmp_path, stub)
        for name in accounts:
            known = inputs.ContactChanged(account_id=name, contact_id=f"u-{name}", role="admin")
            await _tell(stack, hands, topics.ROUTED["ops"], name, known, now)
            tier = ops.AccountSegmented(account_id=name, ultimate_parent_id=name, **SEGMENTED, **when)
            await _tell(stack, hands, topics.RESULTS["ops"], name, tier, now)
        process = _start(stack, tmp_path, "after_delivery:kill:5")
        try:
            await eventually(lambda: _count(pool, "people", run, ACCOUNTS))
            for name in accounts:
                due = ops.TouchpointDue(account_id=name, **DUE, **when)
                await _tell(stack, hands, topics.RESULTS["ops"], name, due, now)
            assert await asyncio.to_thread(process.wait, 60) == -9
        finally:
            process.kill()
        process = _start(stack, tmp_path, "")
        try:
            settled = "outreach where state in ('sent', 'unknown') and account_id like $1"
            await eventually(lambda: _is(pool, settled, f"{run}-%", 2 * ACCOUNTS))
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 30)
        rows = await pool.fetch("select * from notify.outreach where account_id like $1", f"{run}-%")
        shown = await asyncio.to_thread(_dry_run, stack, tmp_path, accounts[0])
        await pool.close()
    events = [one.body for one in stub.asked if one.path == "/api/v2/entity"]
    ids = {(one["identifiers"]["id"], one["id"]) for one in events}
    assert len(ids) == len({person for person, _ in ids}) == ACCOUNTS, "whatever came again had the same id"
    messages = Counter(one.body["identifiers"]["id"] for one in stub.asked if one.path == "/v1/send/in_app")
    assert set(messages.values()) <= {1}, "what cannot be told apart came once"
    assert len(messages) == ACCOUNTS
    states = Counter((row["destination"], row["state"]) for row in rows)
    assert states["outreach:event", "sent"] == ACCOUNTS
    repeated, left = len(events) - ACCOUNTS, states["outreach:inapp", "unknown"]
    assert repeated + left >= 1, "the kill fell between a call and its record"
    assert states["outreach:inapp", "sent"] == ACCOUNTS - left
    assert shown["contact_id"] == f"u-{accounts[0]}"
    assert shown["requests"][0]["body"]["identifiers"] == {"id": f"u-{accounts[0]}"}
    assert "site:key" not in json.dumps(shown)


def _configure(folder: Path, stub: Stub) -> None:
    common = {"tool": "customerio", "url": stub.url, "when": {"event": "touchpoint.due"}, "wait_seconds": 0}
    pace = {"per_channel_seconds": 0, "timeout_seconds": 1, "settle_seconds": 0.2, "lease_seconds": 2}
    outreach = {
        "event": common | {"secret": "CIO_TRACK", "send": "event", "template": "hune_check_in"},
        "inapp": common | {"secret": "CIO_APP", "send": "in_app", "template": "7"},
        "later": common | {"secret": "CIO_TRACK", "send": "event", "template": "x", "when": {"event": "alert.opened"}},
    }
    (folder / "notify.yaml").write_text(json.dumps({"pace": pace, "outreach": outreach}))
    (folder / "team.yaml").write_text("people: []\n")


def _environment(stack: TestStores, folder: Path) -> dict[str, str]:
    return stack.env | {"HUNE_CONFIG_DIR": str(folder), "CIO_TRACK": "site:key", "CIO_APP": "appkey"}


def _start(stack: TestStores, folder: Path, failpoint: str) -> subprocess.Popen[bytes]:
    env = _environment(stack, folder) | {"HUNE_PROBES_PORT": str(ports.choose(1)[0]), "HUNE_FAILPOINT": failpoint}
    log = (folder / "notify.log").open("ab")
    return subprocess.Popen([sys.executable, "-m", "services", "notify"], cwd=ROOT, env=env, stdout=log, stderr=log)


def _dry_run(stack: TestStores, folder: Path, account: str) -> Any:
    """By an outreach that has written to nobody yet."""
    command = [sys.executable, "-m", "cli", "notify", "test", "--channel", "later", "--account", account, "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, env=_environment(stack, folder), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


async def _tell(stack: TestStores, hands: Hands, topic: topics.Topic, account: str, event: Event, at: datetime) -> None:
    headers: Sequence[tuple[str, bytes | None]] = list(
        event_headers(event, id=uuid.uuid4().hex, source="hune", subject=account, time=at)
    )
    partition = partition_of(account.encode(), stack.partitions)
    body = event.model_dump_json(exclude_unset=isinstance(event, inputs.ContactChanged)).encode()
    await hands.send(topic, partition, body, headers, account.encode())


async def _count(pool: asyncpg.Pool, table: str, run: str, wanted: int) -> bool:
    return await _is(pool, f"{table} where account_id like $1", f"{run}-%", wanted)


async def _is(pool: asyncpg.Pool, what: str, pattern: str, wanted: int) -> bool:
    found: int = await pool.fetchval(f"select count(*) from notify.{what}", pattern)
    return found == wanted
