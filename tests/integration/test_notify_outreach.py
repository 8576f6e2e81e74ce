"""Messages to people at customers, over HTTP against a stub of the tool: who gets one, once, and who never does."""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.notify import store
from services.notify.messenger import DIED, MAYBE, Messenger, open_lines
from services.notify.reading import export_outreach, standing
from services.notify.settings import Reach
from shared.errors import Misconfigured
from shared.privacy import person_of
from shared.runtime.api import Signal
from tests.support.bench_worker import a_signal
from tests.support.notify_world import Killed, World, a_state, a_world, now, opened, resolved, small
from tests.support.tool_stub import Asked, Stub, a_stub

INTERCOM = {"tool": "intercom", "send": "in_app", "admin_id": "394051", "body": "Hello {account}, due {due_on}"}
EVENT = {"tool": "customerio", "send": "event", "template": "hune_check_in"}
IN_APP = {"tool": "customerio", "send": "in_app", "template": "welcome"}
DUE, OPENED = {"event": "touchpoint.due"}, {"event": "alert.opened", "rules": ["gone_silent"]}
CARE = "outreach:care"
_numbers = itertools.count()


@pytest_asyncio.fixture
async def world(postgres: str) -> AsyncIterator[World]:
    async with a_world(postgres) as made:
        yield made


@dataclass
class Desk:
    """A world with one outreach, and what may be done to it."""

    world: World
    messenger: Messenger

    async def send(self, rounds: int = 4) -> None:
        """Everything that there is to say, as if its waits were over."""
        for _ in range(rounds):
            await self.once()
            while await self.messenger.serve(CARE):
                pass

    async def once(self) -> bool:
        await self.world.pool.execute("update notify.outreach set due_at = now() - interval '1 second'")
        await self.world.pool.execute("update notify.destinations set next_at = now(), lease_until = null")
        return await self.messenger.serve(CARE)

    async def rows(self) -> list[tuple[str, str | None]]:
        found = await self.world.pool.fetch("select state, reason from notify.outreach order by seq")
        return [(row["state"], row["reason"]) for row in found]


@asynccontextmanager
async def a_desk(world: World, stub: Stub, kind: dict[str, Any], when: Any = None, **more: Any) -> AsyncIterator[Desk]:
    rules = kind | {"secret": "KEY", "url": stub.url, "when": when or DUE, "wait_seconds": 0} | more
    there = world.with_rules(outreach={"care": rules})
    lines = open_lines(there.rules, Reach(variables={"KEY": "site:key" if kind is EVENT else "token"}))
    try:
        yield Desk(there, Messenger(there.rules, lines, world.pool, reach=lambda point: there.reach(point)))
    finally:
        for line in lines.values():
            await line.session.close()


def contact(account: str, id: str, at: datetime | None = None, source: str = "hune", **data: Any) -> Signal:
    at = at or now()
    said = {"contact_id": id, "role": "champion"} | data
    return a_signal("contact.changed", account, id=f"c-{next(_numbers)}", at=at, source=source, **said)


def covered(account: str, coverage: str = "automated", before: str | None = None, **data: Any) -> Signal:
    said: dict[str, Any] = {
        "previous": None, "segment": "low", "previous_coverage": before, "coverage": coverage,
        "ultimate_parent_id": account, "arr": None, "currency": "EUR", "effective_on": date(2026, 11, 1), "csm": None,
        "reason": "", "occurred_at": now(), "computed_at": now(),
    }  # fmt: skip
    return a_signal("account.segmented", account, id=f"s-{next(_numbers)}", at=now(), **(said | data))


def due(account: str = "acme", id: str = "", at: datetime | None = None, **data: Any) -> Signal:
    at = at or now()
    meta = {name: data.pop(name) for name in ("replay", "received_at") if name in data}
    said: dict[str, Any] = {
        "segment": "low", "cadence_days": 90, "due_on": date(2026, 11, 22), "days_late": 0, "last_two_way_at": None,
        "last_person_id": None, "last_channel": None, "person_id": None, "reason": "", "occurred_at": at,
        "computed_at": at,
    }  # fmt: skip
    return a_signal("touchpoint.due", account, id=id or f"t-{next(_numbers)}", at=at, **meta, **(said | data))


async def known(desk: Desk, *accounts: str, person: str = "u-{}") -> None:
    for name in accounts:
        await desk.world.hear(contact(name, person.format(name)), covered(name), small(a_state(name, "ana")))


def wrote(stub: Stub) -> list[Asked]:
    return [one for one in stub.asked if one.path != "/contacts/search"]


def at_intercom(stub: Stub, account: str = "acme", **flags: Any) -> None:
    person = {"type": "contact", "id": f"ic-{account}", "external_id": f"u-{account}", "role": "user"} | flags
    stub.found["/contacts/search"] = (200, {"type": "list", "data": [person], "total_count": 1})


async def test_a_person_whom_automation_covers_hears_once_through_intercom(world: World) -> None:
    async with a_stub((200, {"id": "2001"})) as stub, a_desk(world, stub, INTERCOM) as desk:
        at_intercom(stub)
        await known(desk, "acme")
        event = due()
        await desk.world.hear(event)
        await desk.world.hear(event)
        await desk.send()
        asked, said = stub.asked
        assert (asked.method, asked.path) == ("POST", "/contacts/search")
        assert asked.body == {"query": {"field": "external_id", "operator": "=", "value": "u-acme"}}
        assert (said.method, said.path) == ("POST", "/messages")
        assert {one.headers["authorization"] for one in stub.asked} == {"Bearer token"}
        assert said.body == {
            "message_type": "inapp", "body": "Hello acme, due 2026-11-22", "from": {"type": "admin", "id": "394051"},
            "to": {"type": "user", "id": "ic-acme"},
        }  # fmt: skip
        async with world.pool.acquire() as db:
            (row,) = await export_outreach([db], now(), {})
            assert (row["destination"], row["state"], row["contact_id"]) == (CARE, "sent", "u-acme")
            counted = {one["destination"]: one["deliveries"] for one in await standing(db)}
            assert counted == {CARE: {"sent": 1}}


async def test_nobody_hears_of_runs_of_what_is_known_from_the_start_or_of_accounts_with_a_person(world: World) -> None:
    async with a_stub() as stub, a_desk(world, stub, EVENT) as desk:
        await known(desk, "acme")
        await desk.world.hear(contact("named", "u-1"), covered("named", "named"))
        old = now() - timedelta(hours=25)
        await desk.world.hear(due(replay=True), due(baseline=True), due("named"), due("unknown"))
        await desk.world.hear(due(at=old, received_at=now()))
        assert await desk.rows() == []
        await desk.world.hear(due(at=old))
        await desk.send()
        assert (stub.asked, await desk.rows()) == ([], [("suppressed", "older than old_after_hours")])


async def test_an_event_of_unclear_outcome_is_sent_again_under_the_same_id(world: World) -> None:
    async with a_stub(500, "hang") as stub, a_desk(world, stub, EVENT) as desk:
        await known(desk, "acme")
        await desk.world.hear(due())
        await desk.send()
        assert await desk.rows() == [("sent", None)]
    assert len(stub.asked) == 3
    assert stub.asked[0].body == stub.asked[1].body == stub.asked[2].body
    first = stub.asked[0]
    assert (first.path, len(first.body["id"])) == ("/api/v2/entity", 26)
    assert first.headers["authorization"] == f"Basic {base64.b64encode(b'site:key').decode()}"
    assert first.body["identifiers"] == {"id": "u-acme"}
    assert first.body["attributes"] == {
        "account_id": "acme", "account": "acme", "segment": "low", "event": "touchpoint.due", "due_on": "2026-11-22",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [INTERCOM, IN_APP], ids=["intercom", "customerio"])
async def test_what_may_have_arrived_is_left_to_a_person(world: World, kind: dict[str, Any]) -> None:
    async with a_stub("hang") as stub, a_desk(world, stub, kind) as desk:
        at_intercom(stub)
        await known(desk, "acme")
        await desk.world.hear(due())
        await desk.send()
        assert await desk.rows() == [("unknown", f"TimeoutError: {MAYBE}")]
        assert len(wrote(stub)) == 1
        async with world.pool.acquire() as db:
            assert await store.redrive(db, CARE) == 1
        await desk.send()
        assert await desk.rows() == [("sent", None)]


@pytest.mark.parametrize(("kind", "calls", "state"), [(INTERCOM, 1, ("unknown", DIED)), (EVENT, 2, ("sent", None))])
async def test_a_process_that_died_between_call_and_record_repeats_only_what_can_be_told_apart(
    world: World, kind: dict[str, Any], calls: int, state: tuple[str, str | None]
) -> None:
    def die(point: str) -> None:
        if point == "after_delivery":
            raise Killed

    async with a_stub() as stub, a_desk(world, stub, kind) as desk:
        at_intercom(stub)
        await known(desk, "acme")
        await desk.world.hear(due())
        with pytest.raises(Killed):
            await Messenger(desk.world.rules, desk.messenger.lines, world.pool, reach=die).serve(CARE)
        await desk.send()
        assert await desk.rows() == [state]
    assert len(wrote(stub)) == calls


async def test_two_processes_say_it_once(world: World) -> None:
    async with a_stub() as stub, a_desk(world, stub, EVENT) as desk:
        await known(desk, "acme")
        await desk.world.hear(due())
        other = Messenger(desk.world.rules, desk.messenger.lines, world.pool)
        line = desk.messenger.lines[CARE]
        async with world.pool.acquire() as db, db.transaction():
            step = await desk.messenger._claim(db, CARE, line)
        assert not isinstance(step, bool)
        assert not await other.serve(CARE), "the lease is the first one's"
        outcome = await line.send(step.message, 1)
        async with world.pool.acquire() as db, db.transaction():
            await desk.messenger._record(db, CARE, line, step, outcome)
        await desk.send()
    assert len(stub.asked) == 1


async def test_who_asked_not_to_be_written_to_is_not_and_who_is_deleted_is_named_no_more(world: World) -> None:
    async with a_stub() as stub, a_desk(world, stub, EVENT, every_days=1) as desk:
        await known(desk, "acme")
        await desk.world.hear(due())
        await desk.send()
        await desk.world.hear(recorded("u-acme", suppressed=True))
        await desk.world.hear(due(), recorded("u-acme", suppressed=False, at=now() - timedelta(days=2)))
        await desk.send()
        assert await desk.rows() == [
            ("sent", None), ("suppressed", "the account's champion asked not to be written to"),
        ]  # fmt: skip
        await desk.world.hear(recorded("u-acme", suppressed=True, erased_to=now()))
        await desk.world.hear(due())
        await desk.send()
        assert (await desk.rows())[-1][1] == (
            "nobody of the account is known as champion, admin, sponsor, user (contact.changed tells)"
        )
        left = await world.pool.fetch("select contact_id from notify.outreach where contact_id is not null")
        assert [row["contact_id"].startswith("deleted-") for row in left] == [True]
        assert await world.pool.fetchval("select count(*) from notify.people") == 0
    assert len(stub.asked) == 1


def recorded(user: str, suppressed: bool, at: datetime | None = None, **data: Any) -> Signal:
    at = at or now()
    said: dict[str, Any] = {"person": person_of(user), "suppressed": suppressed, "erased_to": None, "cause_ids": ("p",),
            "occurred_at": at, "computed_at": at}  # fmt: skip
    return a_signal("privacy.recorded", person_of(user), id=f"p-{next(_numbers)}", at=at, **(said | data))


async def test_who_unsubscribed_at_intercom_gets_no_mail(world: World) -> None:
    kind = INTERCOM | {"send": "email", "subject": "News"}
    async with a_stub() as stub, a_desk(world, stub, kind) as desk:
        at_intercom(stub, unsubscribed_from_emails=True)
        await known(desk, "acme")
        await desk.world.hear(due())
        await desk.send()
        assert await desk.rows() == [("suppressed", "Intercom says unsubscribed_from_emails")]
        assert wrote(stub) == []


async def test_a_crms_number_of_a_person_is_never_taken_for_ours(world: World) -> None:
    async with a_stub() as stub, a_desk(world, stub, EVENT) as desk:
        await desk.world.hear(contact("acme", "42", source="hubspot"), covered("acme"), due())
        await desk.send()
        assert await desk.rows() == [("suppressed", "the account's champion is known by hubspot's number alone")]
        await desk.world.hear(contact("acme", "42", source="hubspot", user_id="u-7"), due())
        await desk.send()
    assert [one.body["identifiers"] for one in stub.asked] == [{"id": "u-7"}]


async def test_an_alert_that_is_over_before_it_was_told_is_not_told(world: World) -> None:
    async with a_stub() as stub, a_desk(world, stub, EVENT, OPENED) as desk:
        await known(desk, "acme")
        await desk.world.hear(opened("acme", "one", rule="gone_silent"), opened("acme", "other", rule="band_red"))
        await desk.world.hear(resolved("acme", "one", rule="gone_silent"))
        await desk.world.hear(opened("acme", "two", rule="gone_silent"))
        await desk.send()
        assert await desk.rows() == [("suppressed", "over before it was told"), ("sent", None)]
    assert [one.body["attributes"]["rule"] for one in stub.asked] == ["gone_silent"]


async def test_a_person_is_written_to_once_in_so_many_days_and_left_alone_once_somebody_else_cares(
    world: World,
) -> None:
    async with a_stub() as stub, a_desk(world, stub, EVENT) as desk:
        await known(desk, "acme")
        await desk.world.hear(due())
        await desk.send()
        await desk.world.hear(due())
        await desk.send()
        await world.pool.execute("update notify.outreach set sent_at = sent_at - interval '31 days'")
        await desk.world.hear(due())
        await desk.send()
        await world.pool.execute("update notify.outreach set sent_at = sent_at - interval '31 days'")
        await desk.world.hear(due())
        await desk.world.hear(covered("acme", "named", "automated"))
        await desk.send()
        assert [state for state, _ in await desk.rows()] == ["sent", "suppressed", "sent", "suppressed"]
        assert (await desk.rows())[-1][1] == "the account is covered otherwise now"
    assert len(stub.asked) == 2


async def test_only_so_many_go_out_in_a_day_and_the_rest_waits_or_grows_too_old(world: World) -> None:
    accounts = [f"a{n}" for n in range(4)]
    async with a_stub() as stub, a_desk(world, stub, EVENT, most_per_day=2) as desk:
        await known(desk, *accounts)
        await desk.world.hear(*(due(name) for name in accounts))
        await desk.send()
        assert len(stub.asked) == 2
        wait = await world.pool.fetchval("select min(due_at) from notify.outreach where state = 'pending'")
        assert wait > now() + timedelta(hours=23)
        await world.pool.execute("update notify.outreach set attempted_at = attempted_at - interval '2 days'")
        await world.pool.execute(
            "update notify.outreach set created_at = created_at - interval '25 hours' where account_id = 'a3'"
        )
        await desk.send()
        assert [state for state, _ in await desk.rows()] == ["sent", "sent", "sent", "suppressed"]


async def test_retry_after_is_kept_and_what_is_refused_is_tried_until_it_is_given_up(world: World) -> None:
    async with a_stub(429, 401) as stub, a_desk(world, stub, EVENT) as desk:
        stub.headers = {"Retry-After": "40"}
        await known(desk, "acme")
        await desk.world.hear(due())
        await desk.once()
        wait = await world.pool.fetchval(
            "select extract(epoch from next_at - now()) from notify.destinations where destination = $1", CARE
        )
        assert 30 < wait <= 40
        assert not await desk.messenger.serve(CARE)
        await desk.once()
        assert await desk.rows() == [("pending", "HTTP 401")]
        await world.pool.execute("update notify.outreach set created_at = created_at - interval '25 hours'")
        stub.answers = [401]
        patient = desk.world.with_rules(old_after_hours=48)
        await world.pool.execute("update notify.destinations set next_at = now()")
        await Messenger(patient.rules, desk.messenger.lines, world.pool).serve(CARE)
        assert await desk.rows() == [("failed", "given up: HTTP 401")]


async def test_an_outreach_without_its_variable_is_named(world: World) -> None:
    rules = world.with_rules(outreach={"care": EVENT | {"secret": "KEY", "when": DUE}}).rules
    with pytest.raises(Misconfigured, match="outreach care needs KEY, which is not set"):
        open_lines(rules, Reach(variables={}))
    with pytest.raises(Misconfigured, match="SITE_ID:API_KEY"):
        open_lines(rules, Reach(variables={"KEY": "no colon"}))
