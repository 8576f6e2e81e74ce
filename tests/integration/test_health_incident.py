"""Over Kafka: a feature's events stop for everybody, and one incident is all that is told until they are back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from cli import export, output
from cli.raw import Run, open_writer
from shared import topics
from shared.ids import derived_id
from shared.runtime.api import EVERYBODY
from tests.integration.test_replay import an_installation, settled
from tests.support.chaos_stack import ChaosStack
from tests.support.stack import temporary_home

START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
ACCOUNTS = [f"acct_{n}" for n in range(24)]
WITHIN_S = 240.0


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def use(days: Iterable[int], without: str | None = None, stopped: str | None = None) -> Iterator[dict[str, Any]]:
    """Everybody uses `export`, every third `report` besides; one account logs in and does nothing else."""
    for day in days:
        who = [(account, "export") for account in ACCOUNTS] + [(account, "report") for account in ACCOUNTS[::3]]
        for account, feature in [*who, ("beacon", "login")]:
            if feature != without and account != stopped:
                yield {
                    "id": derived_id("use", account, feature, str(day)), "account_id": account, "user_id": "u1",
                    "event": "Used", "feature": feature, "timestamp": at(day + 0.35).isoformat(),
                }  # fmt: skip


async def history(stack: ChaosStack, until: float, events: Iterable[dict[str, Any]]) -> None:
    """A run of so much history, which moves the clock to its end."""
    run = Run(f"until-{until}")
    async with open_writer(stack.bootstrap_servers, stack.partitions) as writer:
        for one in events:
            writer.add(topics.RAW_EVENTS, one["account_id"].encode(), json.dumps(one).encode(), run.headers)
        await writer.flush()
        await writer.end_run(run, at(until))
    await settled(stack)


async def alerts(stack: ChaosStack) -> list[tuple[str, str, str]]:
    """What became of alerts: (what, account, rule)."""
    return [
        (raw.headers["ce_type"].decode().split(".")[2], data["account_id"], data["rule"])
        for raw in await stack.read([topics.ALERTS.name])
        if (data := json.loads(raw.value))
    ]


async def until(stack: ChaosStack, holds: Callable[[list[tuple[str, str, str]]], bool]) -> list[tuple[str, str, str]]:
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while not holds(told := await alerts(stack)):
        assert asyncio.get_running_loop().time() < deadline, told
        await asyncio.sleep(0.5)
    return told


async def scores(stack: ChaosStack, day: float) -> str:
    return output.ndjson(await export.rows(stack, "scores", at(day)))


def of(text: str, account: str) -> dict[str, Any]:
    [row] = [row for line in text.splitlines() if (row := json.loads(line))["account_id"] == account]
    return {**row, "reasons": {part["measure"]: part["reason"] for part in row["parts"]}}


async def told_as_exported(stack: ChaosStack, day: float) -> bool:
    states = {}
    for raw in await stack.read([topics.STATE_ACCOUNTS.name]):
        data = json.loads(raw.value)
        states[data["account_id"]] = data["score"]
    rows = [json.loads(line) for line in (await scores(stack, day)).splitlines()]
    return all(states[row["account_id"]] == row["score"] for row in rows)


async def test_one_incident_no_alert_of_an_account_and_scores_are_restated_when_it_is_over() -> None:
    broke, over = ("opened", EVERYBODY, "tracking_break"), ("resolved", EVERYBODY, "tracking_break")
    with temporary_home() as home:
        async with an_installation(home, {"router": 1, "health": 1}) as stack:
            await history(stack, 42.1, use(range(42)))
            sound = of(await scores(stack, 42.1), "acct_1")
            await history(stack, 44.1, use(range(42, 44), without="export", stopped="beacon"))
            await until(stack, lambda told: broke in told)
            await settled(stack)
            frozen = await scores(stack, 44.1)
            assert of(frozen, "acct_1")["score"] == sound["score"]
            assert of(frozen, "acct_1")["reasons"]["active_days"].startswith("frozen since 2026-02-16")

            # For so long that its figures alone would alert of every account: only who really stopped is told of.
            await history(stack, 60.1, use(range(44, 60), without="export", stopped="beacon"))
            told = await until(stack, lambda told: any(account == "beacon" for _, account, _ in told))
            assert [one for one in told if one[1] != "beacon"] == [broke]

            await history(stack, 64.1, use(range(60, 64), stopped="beacon"))
            told = await until(stack, lambda told: over in told)
            deadline = asyncio.get_running_loop().time() + WITHIN_S
            while not await told_as_exported(stack, 64.1):
                assert asyncio.get_running_loop().time() < deadline, "what was told is not what is exported"
                await asyncio.sleep(0.5)
            after = await scores(stack, 64.1)
            assert of(after, "acct_1")["reasons"]["active_days"].startswith("without 2026-02-16")
            assert [one for one in await alerts(stack) if one[1] != "beacon"] == [broke, over]
            # What was exported as of a day of the break stays what it was.
            assert await scores(stack, 44.1) == frozen
