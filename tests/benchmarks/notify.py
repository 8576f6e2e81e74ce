"""From an alert in Kafka to its message in Slack, through the shipped notify process."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from shared import topics
from shared.events import Event, results
from shared.ids import partition_of
from shared.runtime.wire import event_headers
from tests.benchmarks.lab import ROOT, Lab, Running
from tests.benchmarks.latency import share
from tests.benchmarks.report import Figure, Outcome
from tests.benchmarks.traffic import Sent
from tests.support.slack_double import TOKEN, SlackDouble, a_slack

RATE = 50
CHANNELS = 200
ACCOUNTS = 2_000
MOST_MS = 5_000
STEP_S = 0.01
PATIENCE_S = 120.0
ABOUT = f"""
{RATE} alerts a second of {ACCOUNTS:,} accounts, whose owners have {CHANNELS} channels: from the moment an alert is
handed to the producer to the moment a Slack double has taken its message over HTTP. The double answers at once and
limits nothing. Rules as shipped, the 2 s of `group_wait_seconds` included, but for: no pause between messages in a
channel, and no digests.
"""


@dataclass(frozen=True, slots=True)
class Size:
    repetitions: int
    seconds: float


QUICK = Size(1, 10.0)
FULL = Size(3, 60.0)


async def measure(lab: Lab, size: Size, say: Any) -> Outcome:
    outcome = Outcome("notify", ABOUT)
    found: list[tuple[float, float]] = []
    before = dict(lab.options)
    with tempfile.TemporaryDirectory(prefix="hune-bench-notify-") as folder:
        async with a_slack() as slack:
            lab.options |= {
                "HUNE_CONFIG_DIR": str(_rules(Path(folder))), "HUNE_SLACK_BOT_TOKEN": TOKEN,
                "HUNE_SLACK_CHANNEL": "C0OTHERS", "HUNE_SLACK_BASE_URL": slack.base_url,
            }  # fmt: skip
            try:
                async with lab.service("notify") as notify:
                    await notify.ready()
                    await lab.feed(lab.topic(topics.STATE_ACCOUNTS), _states(lab))
                    await _until(lab, "select count(*) from notify.accounts where state is not null", ACCOUNTS)
                    for repetition in range(size.repetitions):
                        say(f"notify {repetition + 1}/{size.repetitions}: {RATE} alerts/s for {size.seconds:g} s")
                        row = await _run(lab, notify, slack, size.seconds)
                        found.append((row["p50_ms"], row["p99_ms"]))
                        outcome.rows.append(row)
            finally:
                lab.options = before
    p50s, p99s = zip(*found, strict=True)
    outcome.figures += [
        Figure("alert → Slack, p50", p50s, "ms", more=False),
        Figure("alert → Slack, p99", p99s, "ms", MOST_MS, more=False),
    ]
    return outcome


async def _run(lab: Lab, notify: Running, slack: SlackDouble, seconds: float) -> dict[str, Any]:
    run, total, done, began = uuid.uuid4().hex[:8], int(RATE * seconds), 0, time.monotonic()
    cpu = sum(notify.process.cpu_times()[:2])
    sent: dict[str, float] = {}
    while done < total:
        due = min(total, int((time.monotonic() - began) * RATE))
        now = time.monotonic()
        alerts = [_alert(lab, run, number) for number in range(done, due)]
        sent.update((f"{run}-{number}", now) for number in range(done, due))
        if alerts:
            await lab.send(lab.topic(topics.ALERTS), alerts)
        done = due
        await asyncio.sleep(STEP_S)
    told = f"select count(*) from notify.deliveries where what = 'open' and state = 'sent' and alert_id like '{run}-%'"
    await _until(lab, told, total)
    rows = await lab.db.fetch("select delivery_id, alert_id from notify.deliveries where alert_id like $1", f"{run}-%")
    alert_of = {row["delivery_id"]: row["alert_id"] for row in rows}
    taken = [(alert_of[one.delivery_id or ""], one.at) for one in slack.posted if one.delivery_id in alert_of]
    times = sorted((at - sent[alert]) * 1e3 for alert, at in taken)
    return {
        "alerts": total, "messages": len(times), "channels": len({one.channel for one in slack.posted}),
        "double": len(taken) - len({alert for alert, _ in taken}),
        "p50_ms": share(times, 0.5), "p90_ms": share(times, 0.9), "p99_ms": share(times, 0.99),
        "most_ms": share(times, 1.0),
        "cpu_ms_per_alert": round((sum(notify.process.cpu_times()[:2]) - cpu) / total * 1e3, 1),
    }  # fmt: skip


async def _until(lab: Lab, count: str, goal: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (n := await lab.db.fetchval(count)) < goal:
        if time.monotonic() > deadline:
            raise RuntimeError(f"notify did not finish in {PATIENCE_S:.0f} s: {n} of {goal}")
        await asyncio.sleep(0.1)


def _rules(folder: Path) -> Path:
    rules = yaml.safe_load((ROOT / "config/notify.yaml").read_text())
    channels = {f"c{n}": {"slack": f"C{n:04}"} for n in range(CHANNELS)}
    routes = [{"to": [f"c{n}"], "owners": [f"o{n}"]} for n in range(CHANNELS)]
    pace = (rules.get("pace") or {}) | {"per_channel_seconds": 0}
    told = rules | {"channels": channels, "routes": routes, "pace": pace, "digest_over": 100_000}
    (folder / "notify.yaml").write_text(yaml.safe_dump(told))
    (folder / "team.yaml").write_text("people: []\n")
    return folder


def _states(lab: Lab) -> Iterator[Sent]:
    now = datetime.now(UTC)
    for number in range(ACCOUNTS):
        account = f"b-{number}"
        state = results.AccountState(
            account_id=account, name=f"Account {number}", score=38, band="red", segment=None, stage=None,
            owner=f"o{number % CHANNELS}", arr=None, notice_on=None, as_of=now,
        )  # fmt: skip
        yield _record(lab, state, f"state-{number}", account, now)


def _alert(lab: Lab, run: str, number: int) -> Sent:
    now, account = datetime.now(UTC), f"b-{number % ACCOUNTS}"
    alert = results.AlertOpened(
        account_id=account, alert_id=f"{run}-{number}", service="health", rule="p1_open", kind="risk",
        severity="critical", title=f"P1 ticket open: {number}", why="since 9:00", occurred_at=now, computed_at=now,
    )  # fmt: skip
    return _record(lab, alert, f"{run}-e{number}", account, now)


def _record(lab: Lab, event: Event, id: str, account: str, at: datetime) -> Sent:
    headers = event_headers(event, id=id, source="hune.health", subject=account, time=at)
    key = account.encode()
    return Sent(partition_of(key, lab.partitions), key, event.model_dump_json().encode(), list(headers))
