"""Merged accounts: the order in which anything is heard changes nothing, in the services and from router to exports."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.feedback import app as feedback
from services.feedback.reading import export_nps
from services.ops import app as ops
from services.ops.reading import export_segments, export_touchpoints
from services.qbr import app as qbr
from services.qbr.reading import export_reviews
from services.router import app as router
from shared import topics
from shared.runtime.api import Signal, Worker
from tests.support.bench_worker import Runner, Said, a_database, a_signal, day
from tests.support.lab import a_pool, account_in, eventually, hands_on, running, settings_of, settled
from tests.support.stack import TestStores

pytestmark = pytest.mark.asyncio

GONE, KEPT, LAST = "gone", "kept", "last"
MERGE_DAY = 10.5


class Owners:
    """A worker whose partitions hear what they tell each other, at once or when the test says so."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.post = runner, list[Signal]()
        self._sent = 0

    async def hear(self, *signals: Signal) -> Said:
        said = await self.runner.handle(signals)
        for data in said.of("account.facts_moved"):
            self._sent += 1
            target = json.loads(data["rows"][0])["account_id"]
            at = datetime.fromisoformat(data["merged_at"])
            data = {name: value for name, value in data.items() if name != "account_id"}
            self.post.append(a_signal("account.facts_moved", target, id=f"moved-{self._sent}", at=at, **data))
        return said

    async def deliver(self, shuffle: random.Random | None = None) -> None:
        while self.post:
            if shuffle:
                shuffle.shuffle(self.post)
            await self.hear(self.post.pop())

    async def tick(self) -> Said:
        return await self.runner.tick()


def merged(gone: str = GONE, kept: str = KEPT, at: float = MERGE_DAY, id: str = "m1") -> Signal:
    """As the merged account's owner hears it."""
    signal = a_signal("account.merged", gone, id=id, at=day(at), merged_account_id=gone)
    data = signal.data.model_copy(update={"account_id": kept})
    return Signal(**{name: getattr(signal, name) for name in Signal.__struct_fields__} | {"data": data})


async def owners_of(worker: Worker, url: str) -> Owners:
    return Owners(Runner(worker, await a_database(url, worker)))


@pytest_asyncio.fixture
async def answers(postgres: str) -> AsyncIterator[Owners]:
    owners = await owners_of(feedback.build(), postgres)
    yield owners
    await owners.runner.db.close()


@pytest_asyncio.fixture
async def reviews(postgres: str) -> AsyncIterator[Owners]:
    owners = await owners_of(qbr.build(), postgres)
    yield owners
    await owners.runner.db.close()


def answered(id: str, score: float, at: float, account: str, **data: Any) -> Signal:
    return a_signal("survey.answered", account, id=id, at=day(at), kind="nps", score=score, **data)


def said_to_both() -> list[Signal]:
    return [
        answered("e1", 9, 1, GONE, user_id="ann"),
        answered("e2", 2, 2, KEPT, user_id="bob"),
        answered("e3", 10, 12, GONE, user_id="cem"),
        a_signal("survey.corrected", GONE, id="e4", at=day(13), answer_id="e1", score=3),
        answered("e5", 10, 14, KEPT, user_id="ann"),
        merged(),
    ]


async def nps(owners: Owners, at: float, **options: Any) -> list[dict[str, Any]]:
    return await export_nps([owners.runner.db], day(at), options)


@pytest.mark.parametrize("seed", range(4))
async def test_answers_count_once_and_for_whom_they_were_at_any_time(answers: Owners, seed: int) -> None:
    shuffle = random.Random(seed)
    answers.runner.clock, answers.runner.live = day(20), True
    signals = said_to_both()
    shuffle.shuffle(signals)
    while signals:
        batch = [signals.pop() for _ in range(min(len(signals), shuffle.randint(1, 3)))]
        await answers.hear(*batch)
        if shuffle.random() < 0.5:
            await answers.deliver(shuffle)
    await answers.deliver(shuffle)
    shown = {change["account_id"]: change for change in (await answers.tick()).of("survey_score.changed")}
    assert shown[KEPT]["current"]["n"] == 3
    rows = {row["account_id"]: row["n"] for row in (await nps(answers, 20, by="account"))[1:]}
    assert rows == {KEPT: 3}
    before = {row["account_id"]: row["n"] for row in (await nps(answers, 10, by="account"))[1:]}
    assert before == {GONE: 1, KEPT: 1}, "before the merge there are two accounts"
    assert (await nps(answers, 20))[0]["n"] == 3


async def test_facts_follow_a_chain_and_nothing_ticks_for_who_is_gone(answers: Owners) -> None:
    answers.runner.clock = day(20)
    await answers.hear(answered("e1", 9, 1, GONE), merged(KEPT, LAST, 11, "m2"))
    await answers.hear(merged())
    late = await answers.hear(answered("e2", 9, 2, GONE))
    assert late.of("survey_score.changed") == []
    await answers.deliver()
    ticked = await answers.tick()
    assert {change["account_id"] for change in ticked.of("survey_score.changed")} == {LAST}
    assert (await nps(answers, 20, by="account"))[1]["n"] == 2
    again = await answers.hear(merged())
    assert again.of("account.facts_moved") == []
    asked = a_signal("request.made", GONE, id="r1", at=day(15), demand="feedback.analysis")
    (declined,) = (await answers.hear(asked)).of("request.declined")
    assert f"ask about {KEPT}" in declined["reason"]


async def test_a_review_pack_counts_the_use_of_both_and_the_merged_account_has_none_to_come(reviews: Owners) -> None:
    reviews.runner.clock = day(20)
    used = [
        a_signal("usage.tracked", account, id=f"u{n}{account}", at=day(n), user_id=f"user-{n}", feature="export")
        for account in (GONE, KEPT)
        for n in (12, 13)
    ]
    segmented = [
        a_signal(
            "account.segmented", account, id=f"s{account}", at=day(0), previous=None, segment="high",
            previous_coverage=None, coverage="named", ultimate_parent_id=account, arr=None, currency="EUR",
            effective_on="2026-01-01", csm=None, reason="", occurred_at=day(0), computed_at=day(0),
        )
        for account in (GONE, KEPT)
    ]  # fmt: skip
    await reviews.hear(*used[:1], *segmented, *used[2:])
    await reviews.hear(merged())
    await reviews.hear(*used[1:2])
    await reviews.deliver()
    await reviews.tick()
    asked = a_signal("request.made", KEPT, id="r1", at=day(19), demand="qbr.review", parameters={"quarter": "2026-Q1"})
    (answer,) = (await reviews.hear(asked)).of("request.answered")
    assert answer["answer"]["pack"]["usage"]["events"] == 4
    rows = await export_reviews([reviews.runner.db], day(20), {})
    assert {row["account_id"] for row in rows} == {KEPT}
    assert await reviews.runner.db.fetchval("select next_due_at from qbr.accounts where account_id = $1", GONE) is None


@pytest_asyncio.fixture
async def tiers(postgres: str) -> AsyncIterator[Owners]:
    owners = await owners_of(ops.build(), postgres)
    yield owners
    await owners.runner.db.close()


async def deliver_all(owners: Owners, said: Said) -> None:
    """What ops' partitions tell each other of revenue and parents, as well."""
    for type, data in said.events:
        if type == "ops.revenue_stated":
            subject = {"child_id": data["child_id"]}
            await owners.hear(
                a_signal(type, KEPT, id=f"{data['event_id']}-r", at=day(15), **{**data, **subject, "account_id": None})
            )
    await owners.deliver()


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 3, 1)])
async def test_contacts_and_revenue_of_both_count_for_the_survivor(tiers: Owners, order: Sequence[int]) -> None:
    tiers.runner.clock, tiers.runner.live = day(20), True
    heard = [
        a_signal("account.updated", GONE, id="a1", at=day(1), arr="30000", currency="EUR", parent_id="other"),
        a_signal("account.updated", KEPT, id="a2", at=day(1), arr="40000", currency="EUR"),
        a_signal("meeting.held", GONE, id="t1", at=day(12), meeting_id="m", person_id="eva"),
        merged(),
        a_signal("csm.changed", GONE, id="c1", at=day(2), role="csm", person_id="eva"),
    ]
    for place in order:
        await deliver_all(tiers, await tiers.hear(heard[place]))
    await deliver_all(tiers, await tiers.tick())
    rows = {row["account_id"]: row for row in await export_segments([tiers.runner.db], day(20), {})}
    assert GONE not in rows
    assert (rows[KEPT]["arr"], rows[KEPT]["deciding_arr"]) == ("70000.00", "70000.00")
    before = {row["account_id"]: row["arr"] for row in await export_segments([tiers.runner.db], day(10), {})}
    assert (before[GONE], before[KEPT]) == ("30000.00", "40000.00")
    (touch,) = [row for row in await export_touchpoints([tiers.runner.db], day(20), {}) if row["account_id"] == KEPT]
    assert touch["last_event_id"] == "t1"
    assert await tiers.runner.db.fetchval("select next_due_at from ops.accounts where account_id = $1", GONE) is None


# -- from router to exports ------------------------------------------------------------------------

NOW = datetime.now(UTC).replace(microsecond=0)


def at(hours: float) -> str:
    return (NOW - timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


def an_event(type: str, hours: float, **fields: Any) -> bytes:
    return json.dumps({"id": uuid.uuid4().hex, "type": type, "timestamp": at(hours), **fields}).encode()


async def test_what_is_told_of_two_accounts_counts_once_for_the_survivor_on_the_real_stores(stack: TestStores) -> None:
    salt = uuid.uuid4().hex[:8]
    kept, gone = account_in(0, stack.partitions, f"{salt}-kept"), account_in(2, stack.partitions, f"{salt}-gone")
    settings = settings_of(stack)
    told = [
        an_event("survey.answered", 30, account_id=gone, user_id="ann", kind="nps", score=9),
        an_event("survey.answered", 29, account_id=kept, user_id="bob", kind="nps", score=3),
        an_event("account.updated", 28, account_id=gone, arr="30000", currency="EUR"),
        an_event("account.updated", 28, account_id=kept, arr="40000", currency="EUR"),
        an_event("usage.tracked", 27, account_id=gone, user_id="ann", feature="export"),
        an_event("account.merged", 20, account_id=kept, merged_account_id=gone),
        an_event("survey.answered", 10, account_id=gone, user_id="cem", kind="nps", score=10),
        an_event("usage.tracked", 9, account_id=gone, user_id="cem", feature="export"),
        an_event("usage.tracked", 9, user_id="ann", feature="export"),
        an_event("meeting.held", 8, account_id=gone, meeting_id="m1", person_id="eva"),
    ]
    async with AsyncExitStack() as all_of_them:
        pool = await all_of_them.enter_async_context(a_pool(stack))
        hands = await all_of_them.enter_async_context(hands_on(stack))
        for worker in (router.build(settings), feedback.build(), qbr.build(), ops.build()):
            await all_of_them.enter_async_context(running(worker, settings))

        async def answers(when: datetime) -> dict[str, int]:
            async with pool.acquire() as db:
                rows = await export_nps([db], when, {"by": "account"})
            return {row["account_id"]: row["n"] for row in rows if salt in row.get("account_id", "")}

        async def used(account: str) -> int | None:
            found: int | None = await pool.fetchval(
                "select sum(events)::int from qbr.usage_days where account_id = $1", account
            )
            return found

        async def segments(when: datetime) -> dict[str, str | None]:
            async with pool.acquire() as db:
                rows = await export_segments([db], when, {})
            return {row["account_id"]: row["arr"] for row in rows if salt in row["account_id"]}

        async def as_one() -> bool:
            return (await answers(NOW), await used(kept), await segments(NOW)) == ({kept: 3}, 3, {kept: "70000.00"})

        for _ in range(2):  # whatever is sent again changes nothing
            for number, body in enumerate(told):
                await hands.send(topics.RAW_EVENTS, number % stack.partitions, body)
            await eventually(as_one)
            for name, reads in (
                ("router", [topics.RAW_EVENTS]),
                *((name, [topics.ROUTED[name], topics.INTERNAL[name]]) for name in ("feedback", "qbr", "ops")),
            ):
                await settled(pool, hands, name, reads, stack.partitions)
            assert await as_one()
        assert await answers(NOW - timedelta(hours=25)) == {kept: 1, gone: 1}
        assert await segments(NOW - timedelta(hours=25)) == {kept: "40000.00", gone: "30000.00"}
        async with pool.acquire() as db:
            touches = {row["account_id"]: row["last_channel"] for row in await export_touchpoints([db], NOW, {})}
        assert touches[kept] == "meeting"
        assert gone not in touches
        for service in ("feedback", "qbr", "ops"):
            due = await pool.fetchval(f"select next_due_at from {service}.accounts where account_id = $1", gone)
            assert due is None
