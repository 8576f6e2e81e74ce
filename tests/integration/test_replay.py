"""The log is the truth: sent again it changes nothing, and from it alone every figure comes out again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from cli import export, output, settle
from cli.raw import Run, open_writer
from services.gateway import keys
from shared import db, topics
from tests.support import oracle
from tests.support.chaos_feed import Feed
from tests.support.chaos_mix import Mix, Sending, now
from tests.support.chaos_run import ROUTED
from tests.support.chaos_stack import ChaosStack
from tests.support.oracle import Raw
from tests.support.stack import temporary_home

RAW = [topics.RAW_EVENTS.name, topics.RAW_REQUESTS.name]
RESULTS = [topic.name for topic in topics.RESULTS.values()]
WITHIN_S = 300.0
EVENTS = 2_500
# Figures: functions of the events and T. Decisions (tiers, reviews, alerts) are recorded when made.
FIGURES: dict[str, list[dict[str, str]]] = {
    "accounts": [{}],
    "usage": [{}, {"by": "month"}],
    "scores": [{}],
    "nps": [{}, {"by": "account"}, {"by": "month"}, {"by": "person"}],
    "themes": [{}, {"by": "parent"}],
    "verbatims": [{}],
    "feature_requests": [{}],
}
WORKERS = dict.fromkeys(("router", *ROUTED), 1)


@asynccontextmanager
async def an_installation(home: Path, members: dict[str, int] = WORKERS) -> AsyncIterator[ChaosStack]:
    stack = ChaosStack(home, 2, members)
    try:
        await stack.start()
        await stack.until_ready()
        yield stack
    finally:
        await stack.stop()


async def settled(stack: ChaosStack) -> None:
    report = await settle.settle(stack, WITHIN_S)
    assert report.settled, "\n".join(report.flight.lines())


async def figures(stack: ChaosStack, at: datetime) -> dict[str, str]:
    """Every canonical export at T, as text."""
    found = {}
    for kind, cuts in FIGURES.items():
        for cut in cuts:
            rows = await export.rows(stack, kind, at, **cut)
            found[f"{kind} {cut.get('by', '')}".strip()] = output.ndjson(rows)
    return found


def differing(one: dict[str, str], other: dict[str, str]) -> dict[str, tuple[str, str]]:
    """The first line of each export that is not the same, of both."""
    found = {}
    for kind, text in one.items():
        if text != other[kind]:
            pairs = zip([*text.splitlines(), ""], [*other[kind].splitlines(), ""], strict=False)
            found[kind] = next(((a, b) for a, b in pairs if a != b), ("", "more lines"))
    return found


@dataclass(frozen=True)
class Seen:
    """What an installation says at a moment."""

    figures: dict[str, str]
    alerts: list[Raw]
    results: list[Raw]


@dataclass(frozen=True)
class Past:
    """What a live installation was told, what it said of it as of T, and what after it was told all of it again."""

    log: list[Raw]
    at: datetime
    before: Seen
    after: Seen


def timed(sendings: Sequence[Sending]) -> list[Sending]:
    """Without events that tell no time: those happened when they were received, which a replay cannot repeat."""
    found = []
    for one in sendings:
        event = oracle.read(Raw(one.topic, 0, 0, oracle.micros(now()), one.value, dict(one.headers)))
        if one.door == "batch" or event is None or event.own is not None or event.type == oracle.REQUEST:
            found.append(one)
    return found


async def send_again(stack: ChaosStack, log: Sequence[Raw], run: Run | None = None, at: datetime | None = None) -> None:
    """Each record as it lies in the log; of a run, which then moves the clock."""
    by_name = {topic.name: topic for topic in (topics.RAW_EVENTS, topics.RAW_REQUESTS)}
    async with open_writer(stack.bootstrap_servers, stack.partitions) as writer:
        for raw in log:
            headers = [*raw.headers.items(), *(run.headers if run else [])]
            writer.add_to(by_name[raw.topic], raw.partition, None, raw.value, headers)
        await writer.flush()
        if run and at:
            await writer.end_run(run, at)


async def seen(stack: ChaosStack, at: datetime) -> Seen:
    return Seen(await figures(stack, at), await stack.read([topics.ALERTS.name]), await stack.read(RESULTS))


@pytest.fixture(scope="module")
async def past() -> Past:
    base = now()
    mix = Mix(21, base, base, 60)
    with temporary_home() as home:
        async with an_installation(home, {**WORKERS, "gateway": 1}) as stack:
            control = await db.connect(stack.database_url)
            key = await keys.create_key(control, "replay")
            await control.close()
            feed = Feed(stack.bootstrap_servers, stack.gateway_url, key, stack.partitions)
            await feed.run(mix.prelude())
            await stack.until_live()
            await feed.run(timed(mix.sendings(EVENTS)))
            await settled(stack)
            at = now()
            log, before = await stack.read(RAW), await seen(stack, at)
            await send_again(stack, log)
            await settled(stack)
            assert len(await stack.read(RAW)) == 2 * len(log)
            return Past(log, at, before, await seen(stack, at))


async def test_the_whole_log_sent_again_changes_no_export_and_alerts_nobody(past: Past) -> None:
    assert len(past.before.alerts) > 20
    assert differing(past.before.figures, past.after.figures) == {}
    assert past.after.alerts == past.before.alerts
    assert past.after.results == past.before.results


@pytest.mark.parametrize("order", ["as it lies", "shuffled"])
async def test_the_log_alone_gives_the_same_figures_in_an_empty_installation(order: str, past: Past) -> None:
    log, run = list(past.log), Run("the-whole-log")
    if order == "shuffled":
        random.Random(5).shuffle(log)
    with temporary_home() as home:
        async with an_installation(home) as stack:
            # In its order as history, shuffled as live traffic.
            await send_again(stack, log, run if order == "as it lies" else None, past.at)
            await settled(stack)
            assert differing(past.before.figures, await figures(stack, past.at)) == {}


def test_a_figure_that_differs_is_found() -> None:
    same = {"usage": "1\n2\n"}
    assert differing(same, same) == {}
    assert differing(same, {"usage": "1\n3\n"}) == {"usage": ("2", "3")}
    assert differing(same, {"usage": "1\n2\n3\n"})
