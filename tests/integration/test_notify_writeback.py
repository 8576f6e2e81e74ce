"""Scores written into other tools, each over HTTP against a stub that answers as the tool does."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.notify import store
from services.notify.reading import export_writes, standing
from services.notify.settings import Reach
from services.notify.writer import Writer, open_outlets
from shared.errors import Misconfigured
from shared.runtime.api import Signal
from tests.support.bench_worker import a_signal
from tests.support.notify_world import World, a_world, now
from tests.support.tool_stub import Stub, a_stub

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
CRM = "write:crm"


@pytest_asyncio.fixture
async def world(postgres: str) -> AsyncIterator[World]:
    async with a_world(postgres) as made:
        yield made


@dataclass
class Desk:
    """A world with one write-back, and what may be done to it."""

    world: World
    writer: Writer

    async def write(self, rounds: int = 6) -> None:
        """Everything that there is to write, as if its waits were over."""
        for _ in range(rounds):
            await self.once()
            while await self.writer.serve(CRM):
                pass

    async def once(self) -> bool:
        await self.world.pool.execute("update notify.writes set due_at = now() - interval '1 second'")
        await self.world.pool.execute("update notify.destinations set next_at = now(), lease_until = null")
        return await self.writer.serve(CRM)

    async def states(self) -> dict[str, str]:
        rows = await self.world.pool.fetch("select account_id, state from notify.writes order by account_id")
        return {row["account_id"]: row["state"] for row in rows}


@asynccontextmanager
async def a_desk(world: World, stub: Stub, tool: str, **more: Any) -> AsyncIterator[Desk]:
    there = world.with_rules(write_back={"crm": {"tool": tool, "secret": "CRM", "url": stub.url} | more})
    variables = {"CRM": "site:key" if tool == "customerio" else "token", "CRM_ID": "id", "CRM_SECRET": "secret"}
    if tool == "webhook":
        variables = {"CRM": f"{stub.url}/hook", "CRM_SECRET": SECRET}
    outlets = open_outlets(there.rules, Reach(private_webhooks=True, variables=variables))
    try:
        yield Desk(there, Writer(there.rules, outlets, world.pool, reach=lambda point: there.reach(point)))
    finally:
        for outlet in outlets.values():
            await outlet.session.close()


def scored(account: str, score: int | None = 38, at: datetime | None = None, **data: Any) -> Signal:
    at = at or now()
    part: dict[str, Any] = {
        "score": score,
        "band": "red" if score else "unknown",
        "exact": score,
        "coverage": 0.9,
        "parts": [],
    }
    said: dict[str, Any] = {"previous": None, "current": part, "shares": [], "why": f"Score {score}"}
    return a_signal("health_score.changed", account, id=f"{account}-{at}", at=at, occurred_at=at, computed_at=at,
                    **(said | data))  # fmt: skip


def linked(account: str, at: datetime | None = None, /, **ids: str) -> Signal:
    at = at or now()
    return a_signal("account.updated", account, id=f"l-{account}-{at}", at=at, occurred_at=at, external_ids=ids)


async def known(desk: Desk, namespace: str, *accounts: str, score: int | None = 38) -> None:
    await desk.world.hear(*(linked(name, **{namespace: f"r-{name}"}) for name in accounts))
    await desk.world.hear(*(scored(name, score) for name in accounts))


async def test_hubspot_gets_batches_of_a_hundred_with_its_properties(world: World) -> None:
    accounts = [f"a{n:03}" for n in range(130)]
    async with a_stub() as stub, a_desk(world, stub, "hubspot") as desk:
        await known(desk, "hubspot", *accounts)
        await desk.write(1)
    assert [len(one.body["inputs"]) for one in stub.asked] == [100, 30]
    first = stub.asked[0]
    assert (first.method, first.path) == ("POST", "/crm/v3/objects/companies/batch/update")
    assert first.headers["authorization"] == "Bearer token"
    assert first.body["inputs"][0] == {
        "id": "r-a000",
        "properties": {"hune_health_score": "38", "hune_health_band": "red", "hune_health_reason": "Score 38"},
    }
    assert set((await desk.states()).values()) == {"sent"}


async def test_only_the_latest_score_of_an_account_is_written_and_the_same_one_never_twice(world: World) -> None:
    at = now()
    async with a_stub() as stub, a_desk(world, stub, "hubspot") as desk:
        await desk.world.hear(linked("acme", hubspot="1"))
        await desk.world.hear(*(scored("acme", n, at + timedelta(seconds=n)) for n in (50, 40, 60)))
        await desk.world.hear(scored("acme", 30, at))
        assert not await desk.writer.serve(CRM), "not before its wait is over"
        await desk.write(1)
        await desk.world.hear(scored("acme", 60, at + timedelta(seconds=70)))
        await desk.write(1)
    assert [one.body["inputs"][0]["properties"]["hune_health_score"] for one in stub.asked] == ["60"]


async def test_an_account_without_an_id_is_listed_and_written_once_it_has_one(world: World) -> None:
    async with a_stub() as stub, a_desk(world, stub, "hubspot") as desk:
        await known(desk, "zendesk", "acme")
        await desk.write(1)
        assert (stub.asked, await desk.states()) == ([], {"acme": "unmapped"})
        async with world.pool.acquire() as db:
            (row,) = await export_writes([db], now(), {})
            assert row["reason"] == "the account has no id of that tool"
            assert {one["destination"]: one["deliveries"] for one in await standing(db)} == {CRM: {"unmapped": 1}}
        await desk.world.hear(linked("acme", hubspot="77"))
        await desk.write(1)
    assert [one.body["inputs"][0]["id"] for one in stub.asked] == ["77"]


async def test_an_id_that_is_said_of_two_accounts_is_the_later_ones(world: World) -> None:
    at = now()
    async with a_stub() as stub, a_desk(world, stub, "hubspot") as desk:
        await desk.world.hear(linked("old", at - timedelta(days=1), hubspot="7"), linked("new", at, hubspot="7"))
        await desk.world.hear(scored("old", 10), scored("new", 90))
        await desk.write(1)
    assert len(stub.asked[0].body["inputs"]) == 1
    assert stub.asked[0].body["inputs"][0]["properties"]["hune_health_score"] == "90"
    assert await desk.states() == {"new": "sent", "old": "unmapped"}


async def test_hubspots_partial_failure_fails_only_whom_it_names(world: World) -> None:
    error = {"status": "error", "category": "OBJECT_NOT_FOUND", "message": "no such company",
             "context": {"ids": ["r-b"]}}  # fmt: skip
    partly = (207, {"status": "COMPLETE", "numErrors": 1, "results": [{"id": "r-a"}, {"id": "r-c"}], "errors": [error]})
    async with a_stub(partly) as stub, a_desk(world, stub, "hubspot") as desk:
        await known(desk, "hubspot", "a", "b", "c")
        await desk.write()
        assert await desk.states() == {"a": "sent", "b": "failed", "c": "sent"}
        assert len(stub.asked) == 1
        async with world.pool.acquire() as db:
            assert await store.redrive(db, CRM) == 1
        await desk.write()
    assert [one["id"] for one in stub.asked[1].body["inputs"]] == ["r-b"]


async def test_a_batch_that_is_refused_for_one_of_them_goes_one_by_one(world: World) -> None:
    def picky(body: Any) -> Any:
        wrong = any(one["id"] == "r-b" for one in body["inputs"])
        return (400, {"category": "VALIDATION_ERROR", "message": "bad value"}) if wrong else 200

    async with a_stub(usual=picky) as stub, a_desk(world, stub, "hubspot") as desk:
        await known(desk, "hubspot", "a", "b", "c")
        await desk.write()
        assert await desk.states() == {"a": "sent", "b": "failed", "c": "sent"}
        (row,) = await world.pool.fetch("select reason from notify.writes where state = 'failed'")
    assert row["reason"] == "HTTP 400: VALIDATION_ERROR bad value"


async def test_retry_after_is_kept_in_the_database(world: World) -> None:
    async with a_stub(429) as stub, a_desk(world, stub, "hubspot") as desk:
        stub.headers = {"Retry-After": "40"}
        await known(desk, "hubspot", "acme")
        await desk.write(1)
        wait = await world.pool.fetchval("select extract(epoch from next_at - now()) from notify.destinations")
        assert 30 < wait <= 40
        assert not await desk.writer.serve(CRM)
        await desk.write(1)
    assert await desk.states() == {"acme": "sent"}


@pytest.mark.parametrize(
    ("answer", "state"), [(500, "unknown"), ("hang", "unknown"), (401, "pending"), (302, "pending")]
)
async def test_what_is_unclear_or_can_be_mended_is_written_again(world: World, answer: Any, state: str) -> None:
    async with a_stub(answer) as stub, a_desk(world, stub, "hubspot") as desk:
        await known(desk, "hubspot", "acme")
        await desk.once()
        assert await desk.states() == {"acme": state}
        await desk.once()
    assert [one.body for one in stub.asked[:1]] == [one.body for one in stub.asked[1:]], "the same write again"
    assert await desk.states() == {"acme": "sent"}


async def test_a_score_that_moves_while_it_is_written_is_written_after(world: World) -> None:
    async with a_stub() as stub, a_desk(world, stub, "hubspot") as desk:
        await known(desk, "hubspot", "acme")
        await world.pool.execute("update notify.writes set due_at = now()")
        (step,) = [await desk.writer._claim(db, CRM, desk.writer.outlets[CRM]) async for db in begun(world)]
        assert not isinstance(step, bool)
        await desk.world.hear(scored("acme", 20))
        written = await desk.writer.outlets[CRM].write(step.writes, 1)
        async with world.pool.acquire() as db, db.transaction():
            await desk.writer._record(db, CRM, desk.writer.outlets[CRM], step, written)
        await desk.write(1)
    scores = [one.body["inputs"][0]["properties"]["hune_health_score"] for one in stub.asked]
    assert scores == ["38", "20"]


async def begun(world: World) -> AsyncIterator[Any]:
    async with world.pool.acquire() as db, db.transaction():
        yield db


async def test_a_process_that_died_between_call_and_record_writes_again(world: World) -> None:
    class Dead(BaseException):
        pass

    def die(point: str) -> None:
        if point == "after_delivery":
            raise Dead

    async with a_stub() as stub, a_desk(world, stub, "hubspot") as desk:
        await known(desk, "hubspot", "acme")
        await world.pool.execute("update notify.writes set due_at = now()")
        with pytest.raises(Dead):
            await Writer(desk.world.rules, desk.writer.outlets, world.pool, reach=die).serve(CRM)
        assert await desk.states() == {"acme": "sending"}
        await desk.write(1)
    assert stub.asked[0].body == stub.asked[1].body
    assert await desk.states() == {"acme": "sent"}


async def test_salesforce_gets_a_token_and_a_result_for_each_record(world: World) -> None:
    busy = {"success": False, "errors": [{"statusCode": "UNABLE_TO_LOCK_ROW", "message": "busy"}]}
    gone = {"success": False, "errors": [{"statusCode": "ENTITY_IS_DELETED", "message": "deleted"}]}
    good = {"id": "r-a", "success": True, "errors": []}

    def all_good(body: Any) -> Any:
        return 200, [{"id": one["id"], "success": True, "errors": []} for one in body["records"]]

    expired = (401, [{"errorCode": "INVALID_SESSION_ID", "message": "expired"}])
    async with a_stub((200, [good, busy, gone]), expired, usual=all_good) as stub:
        fields = {"score": "Health__c", "band": "Health_Band__c", "reason": None}
        async with a_desk(world, stub, "salesforce", fields=fields) as desk:
            await known(desk, "salesforce", "a", "b", "c", score=None)
            await desk.once()
            assert await desk.states() == {"a": "sent", "b": "pending", "c": "failed"}
            await desk.write()
    token, first = stub.asked[:2]
    assert token.body == {"client_id": "id", "client_secret": "secret", "grant_type": "client_credentials"}
    assert (first.method, first.path) == ("PATCH", "/services/data/v62.0/composite/sobjects")
    assert first.headers["authorization"] == "Bearer T1"
    assert first.body["allOrNone"] is False
    assert first.body["records"][0] == {
        "attributes": {"type": "Account"}, "id": "r-a", "Health__c": None, "Health_Band__c": "unknown",
    }  # fmt: skip
    assert await desk.states() == {"a": "sent", "b": "sent", "c": "failed"}
    assert stub.writes[-1].headers["authorization"] == "Bearer T4", "a new token after a refusal"


async def test_intercom_gets_one_company_a_call_and_its_reset_is_waited_for(world: World) -> None:
    async with a_stub(429) as stub, a_desk(world, stub, "intercom") as desk:
        stub.headers = {"X-RateLimit-Reset": str(int(now().timestamp()) + 30)}
        await known(desk, "intercom", "a", "b/1")
        await desk.write(1)
        wait = await world.pool.fetchval("select extract(epoch from next_at - now()) from notify.destinations")
        assert 20 < wait <= 30
        await desk.write(1)
    first, *_, last = stub.asked
    assert (first.method, first.path, last.path) == ("PUT", "/companies/r-a", "/companies/r-b/1")
    assert first.headers["intercom-version"] == "2.11"
    assert first.body == {
        "custom_attributes": {"hune_health_score": 38, "hune_health_band": "red", "hune_health_reason": "Score 38"}
    }
    assert await desk.states() == {"a": "sent", "b/1": "sent"}


async def test_customerio_gets_objects_under_our_own_ids(world: World) -> None:
    error = {"batch_index": 1, "reason": "invalid", "field": "object_id", "message": "too long"}
    async with a_stub((207, {"errors": [error]})) as stub:
        async with a_desk(world, stub, "customerio", id_from="account_id", object_type_id="2") as desk:
            await desk.world.hear(scored("a"), scored("b"))
            await desk.write()
            assert await desk.states() == {"a": "sent", "b": "failed"}
    (asked,) = stub.asked
    assert (asked.method, asked.path) == ("POST", "/api/v2/batch")
    assert asked.headers["authorization"] == f"Basic {base64.b64encode(b'site:key').decode()}"
    assert asked.body["batch"][0] == {
        "type": "object", "action": "identify", "identifiers": {"object_type_id": "2", "object_id": "a"},
        "attributes": {"hune_health_score": 38, "hune_health_band": "red", "hune_health_reason": "Score 38"},
    }  # fmt: skip


async def test_an_address_of_ones_own_gets_signed_json_and_is_disabled_at_its_word(world: World) -> None:
    async with a_stub(200, 410) as stub:
        async with a_desk(world, stub, "webhook", id_from="account_id", id_prefix="x:", url=None) as desk:
            await desk.world.hear(scored("x:1"), scored("other"))
            await desk.write(1)
            assert await desk.states() == {"other": "unmapped", "x:1": "sent"}
            await desk.world.hear(scored("x:1", 20))
            await desk.write(2)
            assert len(stub.asked) == 2, "nothing more after 410"
            async with world.pool.acquire() as db:
                (row,) = await standing(db)
                assert row["reason"] == "disabled: HTTP 410"
                assert row["disabled_at"] is not None
                assert await store.redrive(db, CRM) == 1
            await desk.write(1)
    assert [one.body["data"]["accounts"][0]["score"] for one in stub.asked] == [38, 20, 20]
    assert stub.asked[0].body["data"]["accounts"][0]["external_id"] == "1"
    assert stub.asked[1].headers["webhook-id"] == stub.asked[2].headers["webhook-id"]


async def test_a_tool_that_is_down_for_too_long_is_disabled(world: World) -> None:
    async with a_stub(usual=500) as stub, a_desk(world, stub, "hubspot") as desk:
        await known(desk, "hubspot", "acme")
        await desk.once()
        await world.pool.execute("update notify.destinations set failing_since = now() - interval '6 days'")
        await desk.once()
        assert not await desk.once()
        assert len(stub.asked) == 2
        async with world.pool.acquire() as db:
            assert (await standing(db))[0]["disabled_at"] is not None


async def test_a_write_back_that_is_new_writes_what_is_known_already(world: World) -> None:
    await world.hear(linked("acme", hubspot="1"), scored("acme"))
    async with a_stub() as stub, a_desk(world, stub, "hubspot") as desk:
        await desk.writer.seed(CRM)
        await desk.write(1)
    assert len(stub.asked) == 1


async def test_a_write_back_without_its_variable_is_named(world: World) -> None:
    rules = world.with_rules(write_back={"crm": {"tool": "hubspot", "secret": "TOKEN"}}).rules
    with pytest.raises(Misconfigured, match="TOKEN"):
        open_outlets(rules, Reach(variables={}))
