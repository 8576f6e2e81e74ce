"""One installation over two servers with three processes of a service: what comes out is what one would have said."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from devstack.stack import purge
from services.health import app
from shared.db import connect
from shared.db.migrate import migrate
from shared.errors import Misconfigured
from tests.support import chaos_run
from tests.support.bench_worker import Runner, a_database, a_signal, day
from tests.support.chaos_feed import Feed
from tests.support.chaos_stack import ChaosStack, until
from tests.support.stack import ROOT, clean_environment, temporary_home

TIER = chaos_run.Tier("databases", rounds=1, events=2_000, faults=0, accounts=40)
MEMBERS = {"gateway": 1, "router": 3, "health": 3, "feedback": 1, "qbr": 1, "ops": 3, "voc": 1}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def run() -> AsyncIterator[chaos_run.Run]:
    with temporary_home() as home:
        whole = chaos_run.Run(TIER, 7, home)
        whole.stack = ChaosStack(home, TIER.partitions, MEMBERS, servers=2)
        try:
            await whole.stack.start()
            await whole.stack.until_ready()
            yield whole
        finally:
            await whole.stack.stop()
            for number in range(2, 2 + len(whole.stack.others)):
                purge(home / f"server-{number}")


async def test_two_servers_and_killed_processes_say_what_the_oracle_says(run: chaos_run.Run) -> None:
    stack = run.stack
    key = await run._key()
    run.progress.bases.append(run.progress.born)
    mix = run.mix(0)
    feed = Feed(stack.bootstrap_servers, stack.gateway_url, key, TIER.partitions)
    await feed.run(mix.prelude())
    await stack.until_live()
    sendings = mix.sendings(TIER.events)
    share = 0.0
    feeding = asyncio.create_task(feed.run(sendings, lambda: share))
    killed = [stack.of(service)[number] for number, service in enumerate(("router", "health", "ops"))]
    for member in killed:
        share += 0.2
        stack.kill(member)
        await until(lambda member=member: member.starts > 1, f"{member.name} is started again")  # type: ignore[misc]
    await stack.lose(stack.others[0], 0.5)
    share = 1.0
    await feeding
    await stack.until_ready()
    await run._settle()
    run.progress.finished = 1
    await run._look(key)  # raises with every figure and decision that is not the oracle's
    assert all(member.deaths for member in killed)
    assert stack.store_restarts["postgres-2"] == 1
    ports = {url.rpartition("/")[0].rpartition(":")[2] for url in stack.database_urls}
    assert len(ports) == 2, "two servers"
    for url in stack.database_urls:
        connection = await connect(url)
        try:
            rows = await connection.fetch(
                "select partition, count(*) filter (where (counts ->> 'applied')::int > 0) as n"
                "  from hune.partitions where service = 'health' group by partition"
            )
            words = await connection.fetchval("select count(*) from health.words")
        finally:
            await connection.close()
        number = stack.database_urls.index(url)
        assert {row["partition"] for row in rows} == set(range(number, TIER.partitions, 2))
        assert sum(row["n"] for row in rows) > 0
        assert words > 0


async def test_status_tells_of_given_stores_without_a_home(run: chaos_run.Run, tmp_path: Path) -> None:
    env = addresses(run) | {"HUNE_HOME": str(tmp_path)}
    deadline = time.monotonic() + 60
    while True:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "cli", "status", "--json"],
            cwd=ROOT, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        if found["in_flight"] == 0:  # what health counts by the clock may be on its way
            break
        assert time.monotonic() < deadline, found
    assert all(account["balanced"] for account in found["accounting"].values())
    assert found["kafka"]["bootstrap_servers"] == run.stack.bootstrap_servers


def addresses(run: chaos_run.Run) -> dict[str, str]:
    stack = run.stack
    return clean_environment() | {
        "HUNE_KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "HUNE_DATABASE_URL": stack.database_url,
        "HUNE_DATABASE_URLS": ",".join(stack.database_urls),
        "HUNE_PARTITIONS": str(stack.partitions),
    }


def starting(run: chaos_run.Run, service: str, **changed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services", service],
        cwd=ROOT, env=addresses(run) | changed, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


async def test_another_number_of_partitions_is_refused_at_start(run: chaos_run.Run) -> None:
    done = await asyncio.to_thread(starting, run, "health", HUNE_PARTITIONS="8")
    assert done.returncode == 2
    assert "HUNE_PARTITIONS is 8, but this installation was made with 4: set it back to 4" in done.stderr


@pytest.mark.parametrize("change", ["fewer", "swapped"])
async def test_other_databases_are_refused_at_start(run: chaos_run.Run, change: str) -> None:
    first, second = run.stack.database_urls
    settings = {
        "fewer": {"HUNE_DATABASE_URLS": first},
        "swapped": {"HUNE_DATABASE_URL": second, "HUNE_DATABASE_URLS": f"{second},{first}"},
    }[change]
    done = await asyncio.to_thread(starting, run, "health", **settings)
    assert done.returncode == 2
    assert {"fewer": "name 1 databases, but this installation was made with 2", "swapped": "is number 2"}[
        change
    ] in done.stderr
    assert "order" in done.stderr, "the way out is named"


async def test_a_database_of_another_installation_is_refused(run: chaos_run.Run) -> None:
    first, _ = run.stack.database_urls
    other = f"{first}_other"
    await run.stack._in(first, f"create database {other.rpartition('/')[2]}")
    with pytest.raises(Misconfigured, match="another installation"):
        await migrate([other, first], TIER.partitions)


async def test_a_name_that_one_database_knows_is_still_told_to_the_other(run: chaos_run.Run) -> None:
    first, _ = run.stack.database_urls
    worker, said = app.build(), []
    for number in (0, 1):
        name = f"words_{number}"
        await run.stack._in(first, f"create database {name}")
        connection = await a_database(f"{first.rpartition('/')[0]}/{name}", worker)
        try:
            runner = Runner(worker, connection, database=number)
            for turn in (0, 1, 2):  # known once a later transaction finds it there
                use = a_signal(
                    "usage.tracked",
                    f"account-{number}",
                    id=f"{number}-{turn}",
                    at=day(0),
                    user_id="ann",
                    feature="search",
                )
                await runner.handle([use])
            said.append({row["word"] for row in await connection.fetch("select word from health.words")})
        finally:
            await connection.close()
    assert "search" in said[0]
    assert said[0] == said[1]
