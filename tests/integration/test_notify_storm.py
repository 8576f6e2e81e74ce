"""A storm: notify's senders die between any two steps while Slack fails in every way; each message is there once."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from random import Random

import asyncpg

from services.notify import app
from services.notify.settings import Reach
from tests.support.notify_world import FAST, Killed, World, a_state, a_world, escalated, opened, small, words
from tests.support.slack_double import FAULTS, TOKEN

SEED = 8
RELEASE = os.environ.get("HUNE_CHAOS_TIER") == "release"
EPISODES, KILLS, CHANNELS, UNLIKE = (10_000, 200, 40, 50) if RELEASE else (300, 20, 8, 5)
"""`KILLS`: how many between the call and the record of its outcome; about as many come before the call."""
PATIENCE = 4 * 3600 if RELEASE else 120
LEASE = {"lease_seconds": 5, "timeout_seconds": 1} if RELEASE else {"lease_seconds": 1}
AT_ONCE = 50
MOST_WAITING = 10 * AT_ONCE
LOOK_S = 1.0 if RELEASE else 0.05
PAGE = Path(__file__).parents[2] / "docs/benchmarks/storm-release.md"


async def test_a_storm_of_kills_and_faults_says_everything_once_and_in_order(postgres: str) -> None:
    async with a_world(postgres) as world:
        await _weather(world)


async def _weather(world: World) -> None:
    random, began = Random(SEED), time.monotonic()
    names = [f"C{n:04}" for n in range(CHANNELS)]
    storm = world.with_rules(
        channels={name.lower(): {"slack": name} for name in names},
        routes=[{"to": [name.lower()], "owners": [name]} for name in names],
        digest_over=100_000, group_hours=0, pace=FAST | LEASE,
    )  # fmt: skip
    found = app.ways(storm.rules, Reach(slack_token=TOKEN, slack_base_url=world.slack.base_url))
    owners = {f"acct-{n}": names[n % CHANNELS] for n in range(CHANNELS * 5)}
    deaths = Counter[str]()

    def reach(point: str) -> None:
        if deaths["after_delivery"] < KILLS and random.random() < min(0.15, 2 * KILLS / EPISODES):
            deaths[point] += 1
            raise Killed(point)

    storm.places, storm.reach = found.places, reach
    await storm.hear(*[small(a_state(account, owner)) for account, owner in owners.items()])
    calm, faults = False, itertools.cycle(FAULTS)

    def fault(method: str, n: int) -> str | None:
        return None if calm or random.random() > 0.25 else next(faults)

    world.slack.fault = fault
    sending = [asyncio.create_task(_restarted(storm)) for _ in range(2)]
    try:
        wanted = await _feed(storm, list(owners), random, deaths)
        await _until(lambda: _enough(world, deaths))
        calm = True
        await _until(lambda: _settled(world))
    finally:
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
    rows = await world.rows()
    _check(world, wanted, owners, rows)
    assert deaths["before_delivery"] > 0
    assert deaths["after_delivery"] >= KILLS
    assert world.slack.unlike >= UNLIKE, "accepted, but never told so"
    assert set(world.slack.faults) == set(FAULTS)
    if RELEASE:
        PAGE.write_text(_page(world, wanted, deaths, rows, time.monotonic() - began))


async def _feed(storm: World, accounts: list[str], random: Random, deaths: Counter[str]) -> dict[str, list[str]]:
    """Episodes that open and get worse while they are told; alert → what was said of it."""
    wanted: dict[str, list[str]] = {}
    waiting: dict[str, str] = {}
    for start in range(0, EPISODES, AT_ONCE):
        batch = [(random.choice(accounts), f"alert-{n}") for n in range(start, min(start + AT_ONCE, EPISODES))]
        await storm.hear(*[opened(account, alert, severity="low", title=alert) for account, alert in batch])
        for account, alert in batch:
            wanted[alert] = ["opened"]
            waiting[alert] = account
        worse = random.sample(sorted(waiting), len(waiting) // 10)  # some told by now, some not
        await storm.hear(*[escalated(waiting.pop(alert), alert, title=alert) for alert in worse])
        for alert in worse:
            wanted[alert].append("escalated")
        await _until(lambda: _at_most(storm, MOST_WAITING))
        if RELEASE and start % 500 == 0:
            told = f"{start + AT_ONCE} episodes, {len(storm.slack.posted)} messages, {storm.slack.unlike} unlike"
            print(told, dict(deaths), flush=True)
    return wanted


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await holds():
        assert time.monotonic() < deadline, "the storm does not end"
        await asyncio.sleep(LOOK_S)


async def _at_most(world: World, n: int) -> bool:
    left: int = await world.pool.fetchval(
        "select count(*) from notify.deliveries where state in ('pending', 'sending', 'unknown')"
    )
    return left <= n


async def _settled(world: World) -> bool:
    return await _at_most(world, 0)


async def _enough(world: World, deaths: Counter[str]) -> bool:
    """All deaths that are to be, or nothing left to die of."""
    return deaths["after_delivery"] >= KILLS or await _settled(world)


async def _restarted(storm: World) -> None:
    """A sender that is started again whenever it dies; then nothing of it lives on."""
    while True:
        sender = storm.sender()
        try:
            await sender.run()
        except Killed:
            for task in sender._busy.values():
                task.cancel()
            await asyncio.gather(*sender._busy.values(), return_exceptions=True)


def _check(world: World, wanted: dict[str, list[str]], owners: dict[str, str], rows: list[asyncpg.Record]) -> None:
    assert {row["state"] for row in rows} <= {"sent", "suppressed"}
    posted = Counter(one.delivery_id for one in world.slack.posted)
    assert [delivery for delivery, n in posted.items() if n > 1] == [], "none twice"
    opening = {row["alert_id"]: row for row in rows if row["what"] == "open"}
    assert set(opening) == set(wanted)
    assert [alert for alert, row in opening.items() if posted[row["delivery_id"]] != 1] == [], "none missing"
    by_id = {one.delivery_id: one for one in world.slack.posted}
    for alert, said in wanted.items():
        message = by_id[opening[alert]["delivery_id"]]
        assert ("critical" in words(message.shown)) == ("escalated" in said), alert
    order: dict[str, list[int]] = {}
    seq = {row["delivery_id"]: row for row in rows}
    for one in world.slack.posted:
        row = seq[one.delivery_id or ""]
        assert one.channel == owners[row["account_id"]]
        order.setdefault(row["account_id"], []).append(row["seq"])
    assert [account for account, found in order.items() if found != sorted(found)] == [], "in order per account"
    assert world.slack.refused == []


def _page(
    world: World, wanted: dict[str, list[str]], deaths: Counter[str], rows: list[asyncpg.Record], seconds: float
) -> str:
    slack, states = world.slack, Counter((row["what"], row["state"]) for row in rows)
    kinds = ["open", "thread", "update"]
    ledger = "\n".join(f"| {what} | {states[what, 'sent']:,} | {states[what, 'suppressed']:,} |" for what in kinds)
    faults = "\n".join(f"| {name} | {n:,} |" for name, n in sorted(slack.faults.items()))
    before, after, minutes = deaths["before_delivery"], deaths["after_delivery"], seconds / 60
    calls = ", ".join(f"{n:,} `{method}`" for method, n in sorted(slack.calls.items()))
    return f"""# A storm over Slack, release tier

Seed {SEED} of the choices; {date.today()}; {minutes:.0f} minutes on {os.cpu_count()} cores, beside other work. Two
senders, {CHANNELS} channels, a Slack double over HTTP behind the real SDK's base URL, a quarter of its calls failing,
real PostgreSQL.
Again: `HUNE_CHAOS_TIER=release .venv/bin/python -m pytest -s tests/integration/test_notify_storm.py`.

**{len(wanted):,} alert episodes, {after:,} kills between the call and its record, {before:,} between claim and call;
{slack.unlike:,} messages were accepted without the sender being told so: 0 double, 0 missing,** in order per account.
{sum(row["found_later"] for row in rows):,} were found by look-up. Calls: {calls}.

A kill here ends a sender, its calls under way included, at one of two points of its code; nothing after it is done.
`tests/integration/test_notify_process.py` kills the real process with `kill -9` at the same points.

| ledger | sent | suppressed: newer than it was told |
|---|---|---|
{ledger}

| fault of the double (`_after`: the message was taken first) | times |
|---|---|
{faults}
"""
