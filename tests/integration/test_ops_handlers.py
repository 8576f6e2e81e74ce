"""Ops against a real PostgreSQL: what it decides, reminds of, answers and exports, over two partitions."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest_asyncio

from services.ops import app
from services.ops.reading import export_capacity, export_segments, export_touchpoints
from shared import topics
from shared.db import Connection
from shared.events import model_of
from shared.runtime.api import Batch, Signal, Worker
from shared.runtime.unit import UnitOfWork, partition_for
from shared.runtime.wire import Outgoing, moment_of, short_name
from tests.support.bench_worker import PARTITIONS, a_database, a_signal, day

JULY = datetime(2026, 7, 1, 0, 0, 1, tzinfo=UTC)
_offsets = itertools.count(10_000)


class World:
    """The worker with its internal topic: what a transaction tells other partitions comes back as signals."""

    def __init__(self, worker: Worker, db: Connection) -> None:
        self.worker, self.db = worker, db
        self.clock: datetime | None = None
        self.live = True
        self.results: list[tuple[str, str, dict[str, Any]]] = []
        self.ids: list[str] = []
        self._seq = 0
        self._seen: set[str] = set()

    async def hear(self, *signals: Signal) -> None:
        """Apply signals, and then whatever the partitions tell each other because of them."""
        queue = [list(signals)]
        while queue:
            batch = queue.pop(0)
            async with self.db.transaction():
                unit = self._unit()
                await self.worker.handle(Batch(batch), unit)
            self._collect(unit, queue)

    async def tick(self, at: datetime) -> None:
        self.clock = at
        assert self.worker.tick is not None
        moved = 1
        while moved:
            async with self.db.transaction():
                unit = self._unit()
                moved = await self.worker.tick(dict.fromkeys(range(PARTITIONS), at), 1000, unit)
            queue: list[list[Signal]] = []
            self._collect(unit, queue)
            for batch in queue:
                await self.hear(*batch)

    def of(self, type: str, account_id: str | None = None) -> list[dict[str, Any]]:
        return [data for name, who, data in self.results if name == type and account_id in (None, who)]

    async def ask(self, demand: str, subject: str, /, *, id: str = "q1", **parameters: Any) -> dict[str, Any]:
        at = self.clock or day(0)
        await self.hear(a_signal("request.made", subject, id=id, at=at, demand=demand, parameters=parameters))
        return self.results[-1][2]

    def _unit(self) -> UnitOfWork:
        self._seq += 1
        clocks = dict.fromkeys(range(PARTITIONS), self.clock)
        live = range(PARTITIONS) if self.live else ()
        return UnitOfWork("ops", self.db, seq=self._seq, clocks=clocks, live=live, partitions=PARTITIONS)

    def _collect(self, unit: UnitOfWork, queue: list[list[Signal]]) -> None:
        internal: list[Signal] = []
        for record in (record for partition in sorted(unit.outbox) for record in unit.outbox[partition]):
            headers = dict(record.headers)
            id, type = headers["ce_id"].decode(), short_name(headers["ce_type"].decode())
            data = model_of(headers["ce_type"].decode()).model_validate_json(record.value)
            if record.topic == topics.INTERNAL["ops"].name:
                if id not in self._seen:
                    self._seen.add(id)
                    internal.append(_back(record, id, type, data))
            else:
                self.ids.append(id)
                self.results.append((type, headers["ce_subject"].decode(), data.model_dump(mode="json")))
        if internal:
            queue.append(internal)


def _back(record: Outgoing, id: str, type: str, data: Any) -> Signal:
    headers = dict(record.headers)
    at = moment_of(headers["ce_time"].decode())
    return Signal(
        topic=record.topic, partition=record.partition, offset=next(_offsets), type=type, id=id, source="hune.ops",
        account_id=headers["ce_subject"].decode(), data=data, occurred_at=at, received_at=at,
    )  # fmt: skip


@pytest_asyncio.fixture
async def world(postgres: str) -> AsyncIterator[World]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    yield World(worker, connection)
    await connection.close()


def subscription(account: str, mrr: int, at: datetime, **more: Any) -> Signal:
    id = more.pop("id", f"s-{account}-{mrr}-{at.isoformat()}")
    return a_signal("subscription.changed", account, id=id, at=at, mrr=str(mrr), currency="EUR", **more)


def parent(account: str, parent_id: str | None, at: datetime) -> Signal:
    return a_signal("account.updated", account, id=f"p-{account}-{parent_id}-{at}", at=at, parent_id=parent_id)


def csm(account: str, person_id: str | None, at: datetime) -> Signal:
    return a_signal("csm.changed", account, id=f"c-{account}-{person_id}", at=at, person_id=person_id)


def apart(count: int) -> list[str]:
    """Account ids that alternate between the two partitions."""
    found: list[list[str]] = [[], []]
    for number in itertools.count():
        name = f"acct-{number}"
        found[partition_for(name, PARTITIONS)].append(name)
        if min(len(names) for names in found) >= count:
            return [name for pair in zip(*found, strict=False) for name in pair][:count]
    raise AssertionError


async def segments(world: World, at: datetime, **options: Any) -> dict[str, dict[str, Any]]:
    return {row["account_id"]: row for row in await export_segments([world.db], at, options)}


async def test_history_is_learnt_silently_and_decided_at_the_first_tick(world: World) -> None:
    world.live = False
    await world.hear(subscription("acme", 5000, day(1)), csm("acme", "lea", day(1)))
    assert world.results == []
    await world.tick(day(30))
    [event] = world.of("account.segmented")
    assert (event["segment"], event["previous"], event["baseline"]) == ("high", None, True)
    assert (event["arr"], event["csm"], event["coverage"]) == ("60000.00", "lea", "named")
    assert "ARR 60 000 EUR" in event["reason"]
    await world.tick(day(31))
    assert len(world.of("account.segmented")) == 1


async def test_a_tier_changes_at_the_quarters_start_only_and_the_stream_is_a_chain(world: World) -> None:
    await world.hear(subscription("acme", 5000, day(1)))
    await world.tick(day(2))
    await world.hear(subscription("acme", 100, day(100)))
    await world.tick(day(101))  # the second quarter: at its start the ARR was still 60 k
    assert len(world.of("account.segmented")) == 1
    await world.tick(JULY)
    first, second = world.of("account.segmented")
    assert (second["previous"], second["segment"]) == (first["segment"], "low")
    assert second["effective_on"] == "2026-07-01"
    assert second["occurred_at"] == "2026-07-01T00:00:00Z"
    assert len(set(world.ids)) == len(world.ids)


async def test_late_news_of_before_the_quarter_restate_it(world: World) -> None:
    await world.hear(subscription("acme", 5000, day(1)))
    await world.tick(day(2))
    await world.tick(JULY)
    await world.hear(subscription("acme", 100, day(170)))
    await world.tick(datetime(2026, 7, 4, tzinfo=UTC))
    last = world.of("account.segmented")[-1]
    assert (last["segment"], last["effective_on"]) == ("low", "2026-07-01")


async def test_children_in_any_partition_count_for_the_ultimate_parent_and_take_its_tier(world: World) -> None:
    world_id, region, shop, other = apart(4)
    await world.hear(
        parent(shop, region, day(1)), parent(region, world_id, day(1)),
        subscription(shop, 3000, day(2)), subscription(region, 1000, day(2)), subscription(world_id, 500, day(2)),
        subscription(other, 500, day(2)),
    )  # fmt: skip
    await world.tick(day(3))
    await world.tick(day(4))
    tiers = {who: data["segment"] for kind, who, data in world.results if kind == "account.segmented"}
    assert tiers == {world_id: "high", region: "high", shop: "high", other: "mid"}
    rows = await segments(world, day(4))
    assert rows[shop]["ultimate_parent_id"] == world_id
    assert rows[shop]["arr"] == "36000.00"
    assert {rows[name]["deciding_arr"] for name in (world_id, region, shop)} == {"54000.00"}


async def test_a_parent_stated_after_the_revenue_gathers_what_was_told_before(world: World) -> None:
    head, shop = apart(2)
    await world.hear(subscription(shop, 4500, day(1)), subscription(head, 100, day(1)))
    await world.tick(day(2))
    await world.hear(parent(shop, head, day(3)))
    await world.tick(day(4))
    answer = (await world.ask("ops.segmentation", head))["answer"]
    assert answer["deciding_arr"] == {
        "amount": "55200.00", "source": "subscription", "reason": "sum of 2 of 2 accounts of the group", "accounts": 2
    }  # fmt: skip
    # Tiers wait for the quarter: nobody swaps CSMs because a tree was drawn.
    rows = await segments(world, day(4))
    assert (rows[head]["tier"], rows[shop]["tier"]) == ("low", "high")
    await world.tick(JULY)
    rows = await segments(world, JULY)
    assert (rows[head]["tier"], rows[shop]["tier"]) == ("high", "high")


async def test_a_child_that_leaves_decides_for_itself_next_quarter(world: World) -> None:
    head, shop = apart(2)
    await world.hear(parent(shop, head, day(1)), subscription(head, 6000, day(1)), subscription(shop, 10, day(1)))
    await world.tick(day(2))
    assert (await segments(world, day(2)))[shop]["tier"] == "high"
    await world.hear(parent(shop, None, day(5)))
    await world.tick(day(6))
    assert (await segments(world, day(6)))[shop]["tier"] == "high"
    await world.tick(JULY)
    rows = await segments(world, JULY)
    assert (rows[shop]["tier"], rows[shop]["ultimate_parent_id"]) == ("low", shop)
    assert rows[head]["deciding_arr"] == "72000.00"


async def test_a_loop_of_parents_is_ignored_and_named(world: World) -> None:
    one, two = apart(2)
    await world.hear(parent(one, two, day(1)), parent(two, one, day(1)))
    await world.hear(subscription(one, 6000, day(2)), subscription(two, 10, day(2)))
    await world.tick(day(3))
    rows = await segments(world, day(3))
    assert (rows[one]["tier"], rows[two]["tier"]) == ("high", "low")
    assert "loop" in rows[one]["hierarchy_note"]
    assert "loop" in world.of("account.segmented", one)[0]["reason"]


async def test_a_rate_told_to_one_partition_reaches_all(world: World) -> None:
    one, two = apart(2)
    for account in (one, two):
        await world.hear(
            a_signal("subscription.changed", account, id=f"d-{account}", at=day(1), mrr="1000", currency="USD")
        )
    await world.tick(day(2))
    assert world.of("account.segmented") == []
    assert "no rate of USD" in (await segments(world, day(2)))[one]["arr_reason"]
    await world.hear(a_signal("fx.rate", one, id="fx", at=day(3), currency="USD", rate="0.9", year=2026))
    await world.tick(day(4))
    assert {event["arr"] for event in world.of("account.segmented")} == {"10800.00"}
    assert len(world.of("account.segmented")) == 2


async def test_a_contact_is_due_once_per_silence(world: World) -> None:
    await world.hear(subscription("acme", 5000, day(0)), csm("acme", "lea", day(0)))
    await world.tick(day(1))
    await world.hear(a_signal("call.held", "acme", id="call-1", at=day(1.5), call_id="k1", person_id="lea"))
    await world.tick(day(10))
    assert world.of("touchpoint.due") == []
    await world.tick(day(17))
    await world.tick(day(20))
    [due] = world.of("touchpoint.due")
    assert (due["due_on"], due["days_late"], due["person_id"]) == ("2026-01-16", 2, "lea")
    assert due["cause_ids"] == ["call-1"]
    await world.hear(a_signal("message.sent", "acme", id="m1", at=day(21), message_id="m1", channel="email"))
    await world.hear(a_signal("message.received", "acme", id="m2", at=day(22), message_id="m2", channel="email"))
    await world.tick(day(37))
    assert [event["due_on"] for event in world.of("touchpoint.due")] == ["2026-01-16", "2026-02-06"]


async def test_one_way_contacts_are_no_contacts(world: World) -> None:
    await world.hear(subscription("acme", 5000, day(0)))
    await world.hear(
        a_signal("touchpoint.logged", "acme", id="t1", at=day(1), two_way=False, channel="email"),
        a_signal("message.sent", "acme", id="m1", at=day(2), message_id="m1", channel="email"),
    )
    await world.tick(day(3))
    answer = (await world.ask("ops.touchpoint", "acme"))["answer"]
    assert (answer["last_two_way"], answer["one_way"]) == (None, 1)
    assert answer["next_due_on"] == "2026-01-18"


async def test_demands_are_answered_or_declined_with_a_reason(world: World) -> None:
    await world.hear(subscription("acme", 5000, day(0)))
    await world.tick(day(1))
    answer = (await world.ask("ops.segmentation", "acme"))["answer"]
    assert (answer["segment"], answer["next_decision_on"]) == ("high", "2026-04-01")
    assert answer["deciding_arr"]["amount"] == "60000.00"
    assert "playbooks do not run yet" in (await world.ask("ops.playbook", "acme"))["reason"]
    assert "knows nothing of account 'nobody'" in (await world.ask("ops.segmentation", "nobody"))["reason"]
    assert "as_of" in (await world.ask("ops.touchpoint", "acme", as_of="soon"))["reason"]
    assert "does not know 'ops.magic'" in (await world.ask("ops.magic", "acme"))["reason"]


async def test_a_request_without_an_account_points_to_the_export(world: World) -> None:
    signal = a_signal("request.made", "req-1", id="req-1", at=day(1), demand="ops.segmentation", account_id=None)
    await world.hear(signal)
    assert "hune export segments" in world.of("request.declined")[0]["reason"]


async def test_an_action_assigns_and_a_person_may_approve_a_tier_at_once(world: World) -> None:
    await world.hear(subscription("acme", 5000, day(0)))
    await world.tick(day(1))
    given = (await world.ask("account.assign", "acme", id="a1", person_id="lea"))["answer"]
    assert given == {"account_id": "acme", "role": "csm", "previous": None, "person_id": "lea"}
    assert world.of("account.assigned")[0]["person_id"] == "lea"
    await world.tick(day(2))
    assert world.of("account.segmented")[-1]["coverage"] == "named"
    approved = (await world.ask("account.assign", "acme", id="a2", segment="mid"))["answer"]
    assert approved["effective_on"] == "2026-01-03"
    assert world.of("account.segmented")[-1]["segment"] == "mid"
    await world.tick(day(5))
    assert (await segments(world, day(5)))["acme"]["tier"] == "mid"
    assert "takes high, low, mid" in (await world.ask("account.assign", "acme", id="a3", segment="x"))["reason"]
    assert "needs parameter person_id" in (await world.ask("account.assign", "acme", id="a4"))["reason"]


async def test_the_book_at_a_past_moment_is_what_was_known_then(world: World) -> None:
    await world.hear(subscription("acme", 5000, day(1)), subscription("acme", 10, day(9)))
    await world.hear(csm("acme", "lea", day(2)), csm("acme", "sam", day(8)))
    await world.hear(a_signal("meeting.held", "acme", id="m", at=day(4), meeting_id="m"))
    await world.tick(day(10))
    assert await segments(world, day(0)) == {}
    early = (await segments(world, day(5.5)))["acme"]
    assert (early["arr"], early["csm"], early["tier"]) == ("60000.00", "lea", None)
    assert early["reason"] == "no tier was decided by then"
    late = (await segments(world, day(10)))["acme"]
    assert (late["arr"], late["csm"], late["tier"]) == ("120.00", "sam", "low")
    [touched] = await export_touchpoints([world.db], day(3), {})
    assert touched["last_two_way_at"] is None


async def test_capacity_counts_accounts_per_person(world: World) -> None:
    for number in range(3):
        await world.hear(subscription(f"a{number}", 5000, day(1)), csm(f"a{number}", "lea", day(1)))
    await world.hear(subscription("b", 500, day(1)))
    await world.tick(day(2))
    rows = {row["person_id"]: row for row in await export_capacity([world.db], day(2), {})}
    assert (rows["lea"]["accounts_high"], rows["lea"]["load"], rows["lea"]["state"]) == (3, 0.1, "under")
    assert rows["queue"]["accounts_mid"] == 1


async def test_neither_order_nor_batches_change_the_book(world: World, postgres: str) -> None:
    head, shop, lone = apart(3)
    signals = [
        parent(shop, head, day(1)), subscription(head, 900, day(1)), subscription(shop, 3500, day(2)),
        subscription(shop, 100, day(20)), subscription(lone, 700, day(3)), csm(lone, "lea", day(4)),
        csm(lone, "sam", day(6)), parent(shop, None, day(25)), parent(shop, head, day(28)),
        a_signal("message.sent", lone, id="m1", at=day(5), message_id="m1"),
        a_signal("message.received", lone, id="m2", at=day(7), message_id="m2"),
    ]  # fmt: skip
    random_order = random.Random(7)
    seen: list[Any] = []
    for _ in range(3):
        connection = await a_database(postgres, world.worker)
        one = World(world.worker, connection)
        shuffled = random_order.sample(signals, len(signals))
        for batch in _split(shuffled, random_order):
            await one.hear(*batch)
        await one.tick(day(40))
        await one.tick(day(41))
        seen.append([await call([connection], day(41), {}) for call in (export_segments, export_touchpoints)])
        seen[-1].append(await export_segments([connection], day(26), {}))
        await connection.close()
    assert seen[0] == seen[1] == seen[2]
    assert {row["account_id"]: row["tier"] for row in seen[0][0]} == {head: "mid", shop: "mid", lone: "mid"}


def _split(signals: Sequence[Signal], chance: random.Random) -> Iterator[Sequence[Signal]]:
    start = 0
    while start < len(signals):
        end = start + chance.randint(1, 4)
        yield signals[start:end]
        start = end
