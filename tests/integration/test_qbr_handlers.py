"""Reviews against a real PostgreSQL: what they publish, answer and export."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from services.qbr import app
from services.qbr.reading import export_reviews
from shared.runtime.api import Signal
from tests.support.bench_worker import Runner, a_database, a_signal, day

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def runner(postgres: str) -> AsyncIterator[Runner]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    yield Runner(worker, connection)
    await connection.close()


def used(id: str, at: datetime, account: str = "acme", user: str = "ann", feature: str = "board") -> Signal:
    return a_signal("usage.tracked", account, id=id, at=at, user_id=user, feature=feature)


def segmented(id: str, at: datetime, segment: str, account: str = "acme") -> Signal:
    return a_signal(
        "account.segmented", account, id=id, at=at, occurred_at=at, computed_at=at, previous=None, segment=segment,
        previous_coverage=None, coverage="named", ultimate_parent_id=account, arr=None, currency="EUR",
        effective_on=at.date(), csm=None, reason="its ARR",
    )  # fmt: skip


def asked(id: str, at: datetime, demand: str = "qbr.review", account: str | None = "acme", **parameters: Any) -> Signal:
    return a_signal(
        "request.made", account or id, id=id, at=at, demand=demand, account_id=account, parameters=parameters
    )


def kinds(events: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    return [(type, data.get("period", "")) for type, data in events]


async def test_history_is_learnt_and_the_first_tick_plans_the_current_period_only(runner: Runner) -> None:
    past = a_signal("meeting.held", id="m1", at=day(20), meeting_id="m1", kind="qbr")
    learnt = await runner.handle([segmented("s1", day(0), "high"), past, used("u1", day(100))])
    assert learnt.events == []
    runner.clock = day(130)
    ticked = await runner.tick()
    assert kinds(ticked.events) == [("review.scheduled", "2026-Q2"), ("review.held", "2026-Q1")]
    assert all(data["baseline"] for _, data in ticked.events)
    assert (ticked.moved, (await runner.tick()).moved) == (1, 0)


async def test_a_review_goes_from_due_through_prepared_to_missed_once_each(runner: Runner) -> None:
    await runner.handle([segmented("s1", day(0), "high"), used("u1", day(10)), used("u2", day(80), user="bob")])
    told = []
    for clock in (60, 76, 77, 89.9, 90, 103.9, 104, 105):
        runner.clock = day(clock)
        told += kinds((await runner.tick()).events)
    assert told == [
        ("review.scheduled", "2026-Q1"),
        ("review.prepared", "2026-Q1"),
        ("review.scheduled", "2026-Q2"),
        ("review.missed", "2026-Q1"),
    ]


async def test_the_prepared_pack_holds_the_figures_and_their_events(runner: Runner) -> None:
    await runner.handle([segmented("s1", day(0), "high"), used("u1", day(10)), used("u2", day(70), user="bob")])
    runner.clock = day(76)
    pack = (await runner.tick()).of("review.prepared")[0]["pack"]
    assert [(row["month"], row["events"]) for row in pack["usage"]["by_month"]] == [
        ("2026-01", 1), ("2026-02", 0), ("2026-03", 1),
    ]  # fmt: skip
    assert pack["usage"]["users"] == 2
    assert pack["usage"]["source"]["first"] == {"event_id": "u1", "at": "2026-01-11T00:00:00Z"}
    assert pack["revenue"] == {"value": None, "reason": "revenue figures are not kept yet"}


async def test_live_meetings_move_a_review_event_by_event_wherever_the_batch_ends(runner: Runner) -> None:
    story = [
        segmented("s1", day(0), "high"),
        a_signal("meeting.scheduled", id="e1", at=day(30), meeting_id="m", kind="qbr", scheduled_for=day(60)),
        a_signal("meeting.rescheduled", id="e2", at=day(31), meeting_id="m", kind="qbr", scheduled_for=day(65)),
        a_signal("meeting.held", id="e3", at=day(32), meeting_id="m", kind="qbr", sponsor_attended=True),
    ]
    runner.clock, runner.live = day(33), True
    at_once = (await runner.handle(story)).events
    tables = "truncate qbr.facts, qbr.segments, qbr.accounts, qbr.reviews, qbr.review_log"
    await runner.db.execute(tables)
    one_by_one = [event for signal in story for event in (await runner.handle([signal])).events]
    assert at_once == one_by_one
    types = [type.removeprefix("review.") for type, _ in at_once]
    assert types == ["scheduled", "scheduled", "rescheduled", "held"]
    assert (at_once[-1][1]["held_at"], at_once[-1][1]["sponsor_attended"]) == ("2026-02-02T00:00:00Z", True)
    assert at_once[2][1]["previous_for"] == "2026-03-02T00:00:00Z"


async def test_requests_are_answered_or_declined_never_silent(runner: Runner) -> None:
    runner.clock, runner.live = day(100), True
    await runner.handle([segmented("s1", day(0), "high"), used("u1", day(50)), used("u2", day(95))])
    said = await runner.handle([
        asked("r1", day(100)),
        asked("r2", day(100), quarter="2026-Q1"),
        asked("r3", day(100), quarter="spring"),
        asked("r4", day(100), quarter="2026-Q4"),
        asked("r5", day(100), account=None),
        asked("r6", day(100), "qbr.success_plan"),
        asked("r7", day(100), "qbr.ebr"),
        asked("r8", day(100), "plan.update"),
        asked("r9", day(100), as_of="2026-02-20T12:00:00Z"),
    ])  # fmt: skip
    answers = {reply["request_id"]: reply["answer"] for reply in said.of("request.answered")}
    reasons = {reply["request_id"]: reply["reason"] for reply in said.of("request.declined")}
    assert {id: (answer["quarter"], answer["pack"]["usage"]["events"]) for id, answer in answers.items()} == {
        "r1": ("2026-Q2", 1), "r2": ("2026-Q1", 1), "r9": ("2026-Q1", 1),
    }  # fmt: skip
    assert answers["r1"]["completion"]["due"] == 1
    assert sorted(reasons) == ["r3", "r4", "r5", "r6", "r7", "r8"]
    assert reasons["r3"] == "parameter quarter 'spring' is not one; write 2026-Q3"
    assert reasons["r4"] == "quarter 2026-Q4 has not begun; ask for one up to now"
    assert "name account_id" in reasons["r5"]


async def test_people_schedule_and_hold_reviews(runner: Runner) -> None:
    runner.clock, runner.live = day(10), True
    await runner.handle([segmented("s1", day(0), "high")])
    dated = await runner.handle([asked("r1", day(10), "review.schedule", scheduled_for="2026-02-10T09:00:00Z")])
    assert [type for type, _ in dated.events] == ["request.answered", "review.scheduled"]
    assert dated.events[0][1]["answer"]["review"]["scheduled_for"] == "2026-02-10T09:00:00Z"
    runner.clock = day(41)
    holds = [asked("r2", day(41), "review.hold", sponsor_attended=False), asked("r3", day(41), "review.hold")]
    held = await runner.handle(holds)
    assert [type for type, _ in held.events] == [
        "request.answered", "request.answered", "review.prepared", "review.held", "review.held",
    ]  # fmt: skip
    unusable = [asked("r4", day(41), "review.schedule"), asked("r5", day(41), "review.hold", review_id="x")]
    refused = await runner.handle(unusable)
    assert len(refused.of("request.declined")) == 2


async def test_export_shows_reviews_as_they_stood_and_completion_by_quarter(runner: Runner) -> None:
    await runner.handle([
        segmented("s1", day(0), "high"),
        segmented("s2", day(0), "high", "beta"),
        segmented("s3", day(0), "mid", "cato"),
    ])  # fmt: skip
    runner.clock, runner.live = day(5), True
    await runner.tick()
    runner.clock = day(20)
    await runner.handle([a_signal("meeting.held", id="m1", at=day(20), meeting_id="m1", kind="qbr")])
    runner.clock = day(110)
    await runner.tick()

    async def rows(at: float, **options: Any) -> list[dict[str, Any]]:
        return await export_reviews([runner.db], day(at), options)

    assert [(row["account_id"], row["status"]) for row in await rows(6)] == [
        ("acme", "scheduled"), ("beta", "scheduled"), ("cato", "scheduled"),
    ]  # fmt: skip
    assert [(row["account_id"], row["period"], row["status"], row["segment"]) for row in await rows(111)] == [
        ("acme", "2026-Q1", "held", "high"), ("acme", "2026-Q2", "scheduled", "high"),
        ("beta", "2026-Q1", "missed", "high"), ("beta", "2026-Q2", "scheduled", "high"),
        ("cato", "2026-H1", "scheduled", "mid"),
    ]  # fmt: skip
    assert await rows(111, by="quarter") == [
        {"scope": "quarter", "quarter": "2026-Q1", "rate": 50.0, "due": 2, "held": 1, "missed": 1, "open": 0,
         "rescheduled": 0, "target": 90.0},
        {"scope": "quarter", "quarter": "2026-Q2", "rate": 0.0, "due": 3, "held": 0, "missed": 0, "open": 3,
         "rescheduled": 0, "target": 90.0},
    ]  # fmt: skip
    assert [row["account_id"] for row in await rows(111, quarter="2026-Q1")] == ["acme", "beta"]
    assert [row["account_id"] for row in await rows(111, since=day(21))] == ["acme", "beta", "beta"]


async def test_any_order_and_batching_ends_in_the_same_pack(runner: Runner) -> None:
    chance = random.Random(7)
    signals: list[Signal] = []
    for number in range(150):
        at, account = day(chance.uniform(0, 100)), chance.choice(["acme", "beta"])
        sort = chance.random()
        if sort < 0.7:
            user, feature = chance.choice(["ann", "bob", "cyd"]), chance.choice(["board", "sync", "report"])
            signals.append(used(f"e{number}", at, account, user, feature))
        elif sort < 0.85:
            type = chance.choice(["ticket.opened", "ticket.solved", "ticket.updated"])
            ticket = f"t{chance.randrange(8)}"
            signals.append(a_signal(type, account, id=f"e{number}", at=at, ticket_id=ticket))
        else:
            answer: dict[str, Any] = {"score": chance.randrange(11), "user_id": chance.choice(["ann", "bob"])}
            signals.append(a_signal("survey.answered", account, id=f"e{number}", at=at, kind="nps", **answer))
    packs = []
    for _ in range(3):
        await runner.db.execute("truncate qbr.usage_days, qbr.facts")
        chance.shuffle(signals)
        start = 0
        while start < len(signals):
            step = chance.randrange(1, 40)
            await runner.handle(signals[start : start + step])
            start += step
        runner.clock = day(101)
        answers = await runner.handle([
            asked(f"{account}{as_of}", day(101), account=account, quarter="2026-Q1", as_of=f"{as_of}T07:31:00Z")
            for account in ("acme", "beta") for as_of in ("2026-02-14", "2026-04-10")
        ])  # fmt: skip
        packs.append([reply["answer"]["pack"] for reply in answers.of("request.answered")])
    assert packs[0] == packs[1] == packs[2]
    assert packs[0][0]["usage"]["events"] > 0
