"""docker-compose.yml as a user starts it, on whatever images this engine has under the names it gives.

Where those are stand-ins this proves the file, the ports, the health checks and our own image, not the official images.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from services.__main__ import NAMES
from tests.support.containers import Composed

NOW = datetime.now(UTC).replace(microsecond=0)
ACCOUNTS = 40


def some_use(first: int, count: int) -> list[dict[str, Any]]:
    """Calls of an SDK: numbered uses by some users of some accounts over the last days, every tenth sent twice."""
    calls = []
    for n in range(first, first + count):
        account, user = f"acct-{n % ACCOUNTS}", f"user-{n % 97}"
        call = {
            "type": "track", "event": f"Did {n % 7}", "messageId": f"use-{n}", "userId": user,
            "context": {"groupId": account}, "timestamp": (NOW - timedelta(minutes=n)).isoformat(),
        }  # fmt: skip
        calls += [call, call] if n % 10 == 0 else [call]
    return calls


def counted(calls: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Account → (events, users), the plain way: each message once."""
    once = {call["messageId"]: call for call in calls}.values()
    events = Counter(call["context"]["groupId"] for call in once)
    users: dict[str, set[str]] = {}
    for call in once:
        users.setdefault(call["context"]["groupId"], set()).add(call["userId"])
    return {account: (events[account], len(users[account])) for account in events}


def post(whole: Composed, key: str, calls: list[dict[str, Any]]) -> None:
    with httpx.Client(base_url=whole.gateway_url, auth=(key, ""), timeout=60) as door:
        for start in range(0, len(calls), 500):
            answer = door.post("/v1/batch", json={"batch": calls[start : start + 500]})
            assert answer.status_code == 200, answer.text


def exported(whole: Composed) -> dict[str, tuple[int, int]]:
    rows = [json.loads(line) for line in whole.hune("export", "usage", "--json").splitlines()]
    return {row["account_id"]: (row["events"], row["users"]) for row in rows}


def containers(whole: Composed) -> dict[str, dict[str, Any]]:
    listed = whole.compose("ps", "--all", "--format", "json").stdout
    return {row["Service"]: row for row in map(json.loads, listed.splitlines())}


@pytest.fixture(scope="module")
def key(whole: Composed) -> str:
    made = whole.compose("run", "--rm", "--quiet-pull", "cli", "keys", "create", "compose", "--json").stdout
    return str(json.loads(made)["key"])


def test_every_service_is_there_and_healthy(whole: Composed) -> None:
    there = containers(whole)
    assert {name: there[name]["Health"] for name in (*NAMES, "kafka", "postgres")} == dict.fromkeys(
        (*NAMES, "kafka", "postgres"), "healthy"
    )
    assert there["setup"]["ExitCode"] == 0
    published = {port["URL"] for row in there.values() for port in row["Publishers"] if port["PublishedPort"]}
    assert published == {"127.0.0.1"}


def test_services_run_without_rights(whole: Composed) -> None:
    said = whole.compose("exec", "router", "sh", "-c", "id -u; touch /app/x 2>&1 || echo refused").stdout
    assert said.split()[0] == "10001"
    assert said.rstrip().endswith("refused")


def test_what_goes_in_comes_out_and_a_kill_of_everything_loses_nothing(whole: Composed, key: str) -> None:
    before, meanwhile, after = some_use(0, 3_000), some_use(3_000, 500), some_use(3_500, 1_000)
    post(whole, key, before)
    whole.compose("kill", "kafka")
    post(whole, key, meanwhile)  # into the gateway's spool
    whole.compose("kill")  # with whatever was in flight; the gateway's 200 means that Kafka or the spool has it
    assert {row["State"] for row in containers(whole).values()} == {"exited"}
    whole.up()
    post(whole, key, after)
    whole.hune("settle", "--timeout", "180")
    assert exported(whole) == counted([*before, *meanwhile, *after])
    inside = json.loads(whole.compose("run", "--rm", "cli", "status", "--json").stdout)
    assert inside["in_flight"] == 0
    assert all(account["balanced"] for account in inside["accounting"].values())


def test_a_service_that_dies_is_started_again_by_the_engine(whole: Composed, key: str) -> None:
    there = containers(whole)["health"]["ID"]
    pid = int(whole.engine.docker("inspect", "--format", "{{.State.Pid}}", there).stdout)
    try:
        os.kill(pid, signal.SIGKILL)  # `docker kill` would count as wanted
    except (ProcessLookupError, PermissionError):
        pytest.skip("this engine's processes cannot be killed from here")
    more = some_use(4_500, 500)
    post(whole, key, more)
    whole.up()
    whole.hune("settle", "--timeout", "180")
    assert int(whole.engine.docker("inspect", "--format", "{{.RestartCount}}", there).stdout) == 1
    assert exported(whole) == counted([*some_use(0, 4_500), *more])
