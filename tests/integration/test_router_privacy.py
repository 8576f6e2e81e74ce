"""Who asked to be forgotten: the router drops what is theirs, tells every service, and forgets what waits."""

from __future__ import annotations

import hashlib
import json

import pytest

from services.gateway.app import Gateway, build
from services.gateway.canonical import Record
from services.gateway.settings import GatewaySettings
from services.gateway.store import list_gone
from shared import topics
from tests.integration.test_router import RAW, Desk, at, desk, unique, whole  # noqa: F401  (fixtures)
from tests.support.lab import account_in, counts_of, eventually, header, running, settings_of

pytestmark = pytest.mark.asyncio


async def ask(desk: Desk, partition: int, user: str, regulation: str) -> str:  # noqa: F811
    return await desk.tell(partition, "privacy.requested", user_id=user, regulation=regulation, account_id="acme")


async def test_a_suppressed_person_s_events_go_no_further_until_they_are_taken_again(desk: Desk) -> None:  # noqa: F811
    account, ann = account_in(1, 4), unique("ann")
    before = await desk.tell(0, account_id=account, user_id=ann, event="a")
    asked = await ask(desk, 0, ann, "suppress")
    during = await desk.tell(0, account_id=account, user_id=ann, event="b")
    other = await desk.tell(0, account_id=account, user_id=unique("bob"), event="b")
    await ask(desk, 0, ann, "unsuppress")
    after = await desk.tell(0, account_id=account, user_id=ann, event="c")
    routed = await desk.routed()
    assert {before, other, after} <= set(routed)
    assert during not in routed
    for domain in ("health", "feedback", "qbr", "ops", "voc"):
        copies = [r for r in await desk.wrote(topics.ROUTED[domain]) if header(r, "ce_id") == asked]
        assert [header(r, "ce_subject") for r in copies] == ["*"] * 4


async def test_a_deleted_person_s_past_does_not_come_back_and_waits_nowhere(desk: Desk) -> None:  # noqa: F811
    account, ann = account_in(1, 4), unique("ann")
    waiting = await desk.tell(2, user_id=ann, event="a", timestamp=at(3))
    assert await desk.parked(waiting)
    await desk.hands.send(RAW, 2, b'{"user_id": %s, broken' % json.dumps(ann).encode())
    await desk.settled()
    held = "select count(*) from hune.quarantine where service = 'router' and position($1::bytea in value) > 0"
    assert await desk.pool.fetchval(held, ann.encode()) == 1
    await ask(desk, 0, ann, "delete")
    await desk.settled()
    assert await desk.pool.fetchval(held, ann.encode()) == 0

    async def none_waits() -> bool:
        return not await desk.parked(waiting)

    await eventually(none_waits)
    old = await desk.tell(0, account_id=account, user_id=ann, event="b", timestamp=at(2))
    new = await desk.tell(0, account_id=account, user_id=ann, event="c")
    routed = await desk.routed()
    assert new in routed
    assert old not in routed
    assert waiting not in routed
    counts = await counts_of(desk.pool, "router")
    assert counts["reason:excluded:asked to be forgotten"] >= 2


async def test_the_gateway_hears_who_is_suppressed_and_takes_nothing_of_them(desk: Desk) -> None:  # noqa: F811
    ann = unique("ann")
    settings = settings_of(desk.stack)
    gateway = Gateway(settings, GatewaySettings())
    await gateway.databases.open()
    async with running(build(), settings):
        for regulation, told in (("suppress", True), ("unsuppress", False)):
            await ask(desk, 0, ann, regulation)

            async def heard(told: bool = told) -> bool:
                gone = await list_gone(gateway.databases.control)
                return (hashlib.sha256(ann.encode()).digest() in gone) is told

            await eventually(heard)
            gateway.gone = frozenset(await list_gone(gateway.databases.control))
            record = Record(RAW.name, ann.encode(), b"{}", [("ce_type", b"hune.usage.tracked.v1")])
            assert gateway.taken([record], "segment") == ([] if told else [record])
    await gateway.databases.close()
