"""Two accounts that became one: health's figures are those of an installation that only ever heard of the survivor."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio

from services.health import app, merging, reading
from services.health.backtest_reading import read_history
from shared.runtime.api import Signal
from tests.integration.test_merging import GONE, KEPT, LAST, MERGE_DAY, Owners, merged, owners_of
from tests.support.bench_worker import a_signal, day

pytestmark = pytest.mark.asyncio
Spec = tuple[str, str, str, float, dict[str, Any]]
"""Type, account, id, day, data."""
EXPORTS: dict[str, dict[str, Any]] = {
    "usage": {}, "scores": {}, "accounts": {}, "adoption": {}, "revenue": {"by": "account"}, "time_to_value": {},
}  # fmt: skip


@pytest_asyncio.fixture
async def fresh(postgres: str) -> AsyncIterator[Callable[[], Any]]:
    """A worker on an empty database, as often as it is asked for."""
    made: list[Owners] = []

    async def build() -> Owners:
        for old in made:
            await old.runner.db.close()
        made[:] = [await owners_of(app.build(), postgres)]
        return made[0]

    yield build
    for one in made:
        await one.runner.db.close()


def said_of_both(chance: random.Random) -> list[Spec]:
    specs: list[Spec] = []
    for number in range(60):
        account, at = chance.choice((GONE, KEPT)), chance.uniform(0, 19.5)
        kind = chance.choice(
            ["usage.tracked"] * 4
            + ["ticket.opened", "survey.answered", "subscription.changed", "account.updated", "invoice.failed"]
        )
        options: dict[str, dict[str, Any]] = {
            "usage.tracked": {"user_id": f"u{number % 5}", "feature": f"f{number % 3}"},
            "ticket.opened": {"ticket_id": f"t{number}", "severity": "p2"},
            "survey.answered": {"kind": "nps", "score": number % 11, "user_id": f"u{number % 5}"},
            "subscription.changed": {"subscription_id": f"s{number % 2}", "mrr": str(number), "currency": "EUR"},
            "account.updated": {"name": f"name {number}", "seats": number},
            "invoice.failed": {"invoice_id": f"i{number}"},
        }
        specs.append((kind, account, f"e{number}", at, options[kind]))
        if kind == "ticket.opened" and chance.random() < 0.7:
            specs.append(("ticket.solved", account, f"x{number}", min(19.6, at + 3), {"ticket_id": f"t{number}"}))
    return specs


def signals_of(specs: Sequence[Spec], only: str | None = None) -> list[Signal]:
    return [a_signal(kind, only or account, id=id, at=day(at), **data) for kind, account, id, at, data in specs]


async def hear_all(owners: Owners, signals: list[Signal], chance: random.Random) -> None:
    owners.runner.clock, owners.runner.live = day(20), True
    chance.shuffle(signals)
    while signals:
        await owners.hear(*(signals.pop() for _ in range(min(len(signals), chance.randint(1, 9)))))
        if chance.random() < 0.3:
            await owners.deliver(chance)
        if chance.random() < 0.2:
            await owners.tick()
    await owners.deliver(chance)
    await owners.tick()


async def figures(owners: Owners, at: float) -> dict[str, Any]:
    db = owners.runner.db
    found: dict[str, Any] = {
        name: await reading.EXPORTS[name]([db], day(at), options) for name, options in EXPORTS.items()
    }
    book = await read_history([db], day(at))
    found["history"] = {
        one.account_id: (
            {key: sorted(mark.id for mark in marks) for key, marks in one.things.items()},
            sum(part.size for part in one.usage),
        )
        for one in book
    }
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_the_survivors_figures_are_those_of_one_account(fresh: Callable[[], Any], seed: int) -> None:
    chance = random.Random(seed)
    specs = said_of_both(chance)
    owners = await fresh()
    await hear_all(owners, [*signals_of(specs), merged()], chance)
    as_merged, before = await figures(owners, 20), await figures(owners, MERGE_DAY - 0.5)
    told = await owners.runner.db.fetchval(
        "select (memory -> 'score' ->> 'score')::int from health.accounts where account_id = $1", KEPT
    )
    assert [told] == [row["score"] for row in as_merged["scores"]], "the survivor was looked at again"
    apart = await fresh()
    await hear_all(apart, signals_of(specs), chance)
    assert before == await figures(apart, MERGE_DAY - 0.5), "before the merge there are two accounts"
    one = await fresh()
    await hear_all(one, signals_of(specs, only=KEPT), chance)
    assert as_merged == await figures(one, 20)


async def test_a_merged_account_is_closed_with_its_alerts_and_decides_nothing_more(fresh: Callable[[], Any]) -> None:
    owners = await fresh()
    owners.runner.clock, owners.runner.live = day(10.6), True
    ticket = a_signal("ticket.opened", GONE, id="t1", at=day(10.4), ticket_id="1", severity="p1")
    opened = (await owners.hear(ticket)).of("alert.opened")
    assert opened
    closing = await owners.hear(merged())
    assert {one["alert_id"] for one in closing.of("alert.resolved")} == {one["alert_id"] for one in opened}
    assert f"merged into {KEPT}" in closing.of("alert.resolved")[0]["why"]
    (state,) = closing.of("account.state")
    assert (state["account_id"], state["merged_into"], state["score"]) == (GONE, KEPT, None)
    await owners.deliver()
    baseline = await owners.tick()
    assert {one["account_id"] for one in baseline.of("alert.opened")} == {KEPT}
    assert all(one["baseline"] for one in baseline.of("alert.opened"))
    solved = a_signal("ticket.solved", GONE, id="t2", at=day(10.55), ticket_id="1")
    assert {type for type, _ in (await owners.hear(solved)).events} == {"account.facts_moved"}
    await owners.deliver()
    after = await owners.tick()
    assert {one["account_id"] for one in after.of("alert.resolved")} == {KEPT}
    open_now = await reading.EXPORTS["alerts"]([owners.runner.db], day(10.6), {})
    assert not [row for row in open_now if row.get("state") == "open"]
    again = await owners.hear(merged())
    assert again.events == []
    kept = await owners.runner.db.fetchrow(
        "select config_hash, next_due_at from health.accounts where account_id = $1", GONE
    )
    assert list(kept) == [None, None], "neither time nor another configuration brings it back"


async def test_large_facts_go_in_parts_through_a_chain_and_arrive_whole(fresh: Callable[[], Any]) -> None:
    owners = await fresh()
    owners.runner.clock, owners.runner.live = day(20), True
    used = [
        a_signal("usage.tracked", GONE, id=f"u{n}", at=day(5 + n / 20_000), user_id=f"u{n % 7}", feature="export")
        for n in range(8_200)
    ]
    named = [a_signal("account.updated", GONE, id=f"n{n}", at=day(6 + n / 3_000), name=f"n {n}") for n in range(1_200)]
    assert len(used) * 32 > merging.PACKED
    await owners.hear(*used, *named)
    await owners.hear(merged(KEPT, LAST, 11, "m2"))
    await owners.hear(merged())
    await owners.deliver(random.Random(1))
    await owners.tick()
    (row,) = await reading.EXPORTS["usage"]([owners.runner.db], day(20), {})
    assert (row["account_id"], row["events"], row["users"]) == (LAST, 8_200, 7)
    (known,) = await read_history([owners.runner.db], day(20))
    assert len(known.things["profile", ""]) == 1_200
    (row,) = await reading.EXPORTS["accounts"]([owners.runner.db], day(10.7), {})
    assert (row["account_id"], row["name"]) == (KEPT, "n 1199"), "between the merges it is the first survivor's"
