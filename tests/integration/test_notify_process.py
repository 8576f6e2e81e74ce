"""Notify as it is run: real Kafka, real PostgreSQL, its process killed between sending and recording."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import yaml

from devstack import ports
from shared import topics
from shared.events import results
from shared.ids import partition_of
from shared.runtime.wire import event_headers
from tests.support.lab import Hands, eventually, hands_on
from tests.support.slack_double import TOKEN, SlackDouble, a_slack
from tests.support.stack import ROOT, TestStores

CHANNEL = "C0PROCESS"
ALERTS = 24
PACE = {"per_channel_seconds": 0, "timeout_seconds": 1, "settle_seconds": 0.2, "lease_seconds": 2}
KILLS = ("after_delivery:kill:5", "before_delivery:kill:5", "after_delivery:kill:5")


async def test_a_killed_process_neither_loses_nor_repeats_a_message(stack: TestStores, tmp_path: Path) -> None:
    run = uuid.uuid4().hex[:8]
    async with a_slack() as slack, hands_on(stack) as hands:
        pool = await asyncpg.create_pool(stack.database_url, min_size=1, max_size=1)
        await _say(stack, hands, run)
        for failpoint in KILLS:
            process = _start(stack, slack, tmp_path, failpoint)
            try:
                assert await asyncio.to_thread(process.wait, 60) == -9
            finally:
                process.kill()
        last = _start(stack, slack, tmp_path, "")
        try:
            await eventually(lambda: _is_told(pool, run))
        finally:
            last.terminate()
            await asyncio.to_thread(last.wait, 30)
        rows = await pool.fetch("select * from notify.deliveries where account_id like $1", f"{run}-%")
        await pool.close()
    posted = Counter(one.delivery_id for one in slack.posted)
    assert {row["delivery_id"]: posted[row["delivery_id"]] for row in rows} == {row["delivery_id"]: 1 for row in rows}
    assert sum(row["found_later"] for row in rows) == 2, "taken by Slack, and its process died before it knew"
    assert slack.refused == []


async def _say(stack: TestStores, hands: Hands, run: str) -> None:
    now = datetime.now(UTC)
    for n in range(ALERTS):
        account = f"{run}-{n}"
        alert = results.AlertOpened(
            account_id=account, alert_id=f"{run}-alert-{n}", service="health", rule="p1_open", kind="risk",
            severity="critical", title=f"P1 ticket open: {n}", why="since 9:00", occurred_at=now, computed_at=now,
        )  # fmt: skip
        headers = event_headers(alert, id=f"{run}-e{n}", source="hune.health", subject=account, time=now)
        partition = partition_of(account.encode(), stack.partitions)
        await hands.send(topics.ALERTS, partition, alert.model_dump_json().encode(), list(headers), account.encode())


def _start(stack: TestStores, slack: SlackDouble, folder: Path, failpoint: str) -> subprocess.Popen[bytes]:
    rules = yaml.safe_load((ROOT / "config/notify.yaml").read_text())
    (folder / "notify.yaml").write_text(yaml.safe_dump(rules | {"pace": PACE, "digest_over": 1000}))
    (folder / "team.yaml").write_text("people: []\n")
    env = stack.env | {
        "HUNE_CONFIG_DIR": str(folder),
        "HUNE_PROBES_PORT": str(ports.choose(1)[0]),
        "HUNE_SLACK_BOT_TOKEN": TOKEN,
        "HUNE_SLACK_CHANNEL": CHANNEL,
        "HUNE_SLACK_BASE_URL": slack.base_url,
        "HUNE_FAILPOINT": failpoint,
    }
    log = (folder / "notify.log").open("ab")
    return subprocess.Popen([sys.executable, "-m", "services", "notify"], cwd=ROOT, env=env, stdout=log, stderr=log)


async def _is_told(pool: asyncpg.Pool, run: str) -> bool:
    told: int = await pool.fetchval(
        "select count(*) from notify.deliveries where account_id like $1 and state = 'sent'", f"{run}-%"
    )
    return told == ALERTS
