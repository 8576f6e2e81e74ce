"""What becomes of alerts, snoozes, ids and people of an account that became part of another."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from services.notify import outreach_store
from services.notify.settings import Reach
from services.notify.writer import Writer, open_outlets
from shared.events.inputs import AccountMerged
from shared.runtime.api import Signal
from tests.support.bench_worker import a_signal
from tests.support.notify_world import World, a_world, now, opened, resolved, words
from tests.support.tool_stub import a_stub

HUBSPOT, CARE = "write:crm", "outreach:care"
_numbers = itertools.count()


@pytest_asyncio.fixture
async def world(postgres: str) -> AsyncIterator[World]:
    async with a_world(postgres) as made:
        yield made


def merged(account: str, into: str) -> tuple[Signal, Signal]:
    """As the router tells it: to both accounts."""
    made = AccountMerged(account_id=into, merged_account_id=account)
    told = a_signal("account.merged", into, id=f"m-{account}", at=now(), **made.model_dump())
    return told, msgspec.structs.replace(told, account_id=account)


def linked(account: str, at: datetime, **ids: str) -> Signal:
    return a_signal("account.updated", account, id=f"l-{next(_numbers)}", at=at, occurred_at=at, external_ids=ids)


def scored(account: str, score: int) -> Signal:
    part = {"score": score, "band": "red", "exact": score, "coverage": 0.9, "parts": []}
    at = now()
    return a_signal("health_score.changed", account, id=f"h-{next(_numbers)}", at=at, occurred_at=at, computed_at=at,
                    previous=None, current=part, shares=[], why=f"Score {score}")  # fmt: skip


def contact(account: str, at: datetime, **data: Any) -> Signal:
    return a_signal("contact.changed", account, id=f"c-{next(_numbers)}", at=at, contact_id="u-1", **data)


async def links(world: World) -> dict[str, str]:
    rows = await world.pool.fetch("select account_id, external_id from notify.links where namespace = 'hubspot'")
    return {row["account_id"]: row["external_id"] for row in rows if row["external_id"]}


async def test_alerts_of_a_merged_account_end_with_it_told_or_not_and_mute_nothing_more(world: World) -> None:
    muting = world.with_rules(inhibit=[{"rule": "band_red", "mutes": ["gone_silent"]}])
    done: dict[str, Any] = {
        "alert_id": "a1",
        "by": "lea",
        "occurred_at": now(),
        "computed_at": now(),
        "service": "health",
        "rule": "band_red",
    }
    await muting.hear(opened("old", "a1"))
    await muting.say()
    await muting.hear(a_signal("alert.snoozed", "old", id="k1", at=now(), until=now() + timedelta(days=9), **done))
    await muting.hear(opened("old", "a2", rule="gone_silent"), opened("old", "a3", rule="other"))
    over = {"baseline": True, "why": "The account became part of new"}
    await muting.hear(*merged("old", "new"), *(resolved("old", alert, **over) for alert in ("a1", "a2", "a3")))
    await muting.say()
    roots = [one for one in world.slack.posted if one.thread_ts is None]
    assert len(roots) == 1, "what was not told yet is not told any more"
    assert "✅" in words(roots[0].shown)
    assert "snoozed" not in words(roots[0].shown)
    states = {(row["alert_id"], row["what"]): row["state"] for row in await world.rows()}
    assert states["a1", "open"] == "sent"
    assert {states[alert, "open"] for alert in ("a2", "a3")} == {"suppressed"}
    assert "pending" not in states.values()
    assert {row["account_id"] for row in await world.rows()} == {"old"}, "the ledger keeps whom it was told of"
    await muting.hear(opened("new", "b1", rule="gone_silent"))
    await muting.say()
    assert len([one for one in world.slack.posted if one.thread_ts is None]) == 2, "the survivor is muted by nothing"


@pytest.mark.parametrize("late", [False, True], ids=["ids first", "ids last"])
async def test_ids_in_other_tools_are_the_survivors_where_it_has_none(world: World, late: bool) -> None:
    ago = now() - timedelta(days=1)
    ids = [linked("old", ago, hubspot="7"), linked("both", ago, hubspot="8"), linked("new", ago, hubspot="9")]
    merges = [*merged("mid", "last"), *merged("old", "mid"), *merged("both", "new")]
    for signal in [*merges, *ids] if late else [*ids, *merges]:
        await world.hear(signal)
    assert await links(world) == {"last": "7", "new": "9"}
    await world.hear(*ids, *merges)
    assert await links(world) == {"last": "7", "new": "9"}, "heard again it is the same"
    await world.hear(linked("old", now(), hubspot="71"), linked("mid", ago, hubspot="70"))
    assert await links(world) == {"last": "71", "new": "9"}, "the later of what was said of those"
    await world.hear(linked("last", ago - timedelta(days=300), hubspot="1"))
    assert await links(world) == {"last": "1", "new": "9"}, "what was said of the survivor itself holds"


async def test_the_score_of_the_survivor_is_written_where_the_merged_accounts_was(world: World) -> None:
    variables = {"CRM": "token"}
    async with a_stub() as stub:
        there = world.with_rules(write_back={"crm": {"tool": "hubspot", "secret": "CRM", "url": stub.url}})
        outlets = open_outlets(there.rules, Reach(private_webhooks=True, variables=variables))
        writer = Writer(there.rules, outlets, world.pool)

        async def write() -> None:
            await world.pool.execute("update notify.writes set due_at = now() - interval '1 second'")
            await world.pool.execute("update notify.destinations set next_at = now(), lease_until = null")
            while await writer.serve(HUBSPOT):
                pass

        try:
            await there.hear(linked("old", now(), hubspot="7"), scored("new", 71))
            await write()
            assert stub.asked == [], "the survivor has no id there"
            await there.hear(scored("old", 22))
            await there.hear(*merged("old", "new"))
            await write()
        finally:
            for outlet in outlets.values():
                await outlet.session.close()
    (asked,) = stub.asked
    (written,) = asked.body["inputs"]
    assert (written["id"], written["properties"]["hune_health_score"]) == ("7", "71")
    states = await world.pool.fetch("select account_id, state from notify.writes")
    assert {row["account_id"]: row["state"] for row in states} == {"new": "sent", "old": "unmapped"}


async def test_people_are_the_survivors_and_what_they_were_sent_counts_there(world: World) -> None:
    there = world.with_rules(outreach={"care": {
        "tool": "customerio", "send": "event", "template": "t", "secret": "KEY", "when": {"event": "touchpoint.due"},
    }})  # fmt: skip
    ago = now() - timedelta(days=1)
    await there.hear(contact("old", ago, role="champion"), contact("new", now(), role="user"))
    await world.pool.execute(
        "insert into notify.outreach (delivery_id, destination, cause, account_id, partition, facts, contact_id, state,"
        " called_at, due_at, created_at, sent_at) values ('d', $1, 'touchpoint.due', 'old', 0, '{}', 'u-1', 'sent',"
        " $2, $2, $2, $2)", CARE, ago,
    )  # fmt: skip
    await there.hear(*merged("old", "new"))
    await there.hear(contact("old", ago + timedelta(hours=1), status="left"))
    async with world.pool.acquire() as db:
        (person,) = await outreach_store.list_people(db, "new", CARE)
    assert (person.contact_id, person.role, person.left, person.sent_at) == ("u-1", "user", True, ago)
