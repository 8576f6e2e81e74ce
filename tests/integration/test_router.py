"""The router on real Kafka and PostgreSQL: whose event it is, whom it concerns, and that it stays as it came."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import yaml

from services.router import app, store
from services.router.handlers import Router
from shared import topics
from shared.events import inputs
from shared.ids import partition_of
from shared.runtime import lane
from shared.runtime.wire import event_headers, pack_headers
from tests.support.lab import (
    Hands,
    Headers,
    a_pool,
    account_in,
    body_of,
    counts_of,
    eventually,
    hands_on,
    header,
    running,
    settings_of,
    settled,
)
from tests.support.stack import ROOT, TestStores

pytestmark = pytest.mark.asyncio

RAW, REQUESTS, RESULTS = topics.RAW_EVENTS, topics.RAW_REQUESTS, topics.RESULTS["router"]
NOW = datetime.now(UTC).replace(microsecond=0)
EXCLUDED = [
    {"reason": "our own staff", "user_id": ["*@staff.example"]},
    {"reason": "impersonation", "property": {"path": "context.impersonated", "equals": True}},
]
OUTCOMES = ("routed", "parked", "quarantined", "excluded", "unclear", "unrouted")


def at(hours: float) -> str:
    """So many hours ago."""
    return (NOW - timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:10]}"


@dataclass
class Desk:
    """A running router, and what it has written since the test began."""

    pool: asyncpg.Pool
    hands: Hands
    stack: TestStores
    router: Router
    since: dict[str, list[int]]

    async def tell(self, partition: int, type: str = "usage.tracked", headers: Headers = (), **fields: Any) -> str:
        """Send a plain event; its id."""
        id = fields.pop("id", None) or unique("e")
        body = json.dumps({"id": id, "type": type, **fields}).encode()
        await self.hands.send(RAW, partition, body, headers)
        return str(id)

    async def ask(self, partition: int = 0, **fields: Any) -> str:
        id = unique("r")
        await self.hands.send(REQUESTS, partition, json.dumps({"id": id, **fields}).encode())
        return id

    async def settled(self) -> None:
        await settled(self.pool, self.hands, "router", [RAW, REQUESTS], self.stack.partitions)

    async def wrote(self, topic: topics.Topic) -> list[Any]:
        await self.settled()
        return await self.hands.read(topic, self.stack.partitions, self.since[topic.name])

    async def routed(self, domain: str = "health") -> dict[str, str]:
        """Event id → account, of this test's own."""
        return {
            header(r, "ce_id") or "": header(r, "ce_subject") or "" for r in await self.wrote(topics.ROUTED[domain])
        }

    async def order(self, ids: Sequence[str], domain: str = "health") -> list[str | None]:
        """These ids in the order in which they were routed (all of one partition)."""
        return [i for i in (header(r, "ce_id") for r in await self.wrote(topics.ROUTED[domain])) if i in set(ids)]

    async def parked(self, *ids: str) -> list[tuple[str, str]]:
        """(reason, entity) of these that wait, in order."""
        await self.settled()
        rows = await self.pool.fetch("select reason, entity, value, headers from router.parked order by seq")
        mine = [r for r in rows if any(id.encode() in r["headers"] for id in ids)]
        return [(row["reason"], row["entity"]) for row in mine]


@pytest_asyncio.fixture(scope="module")
async def whole(stack: TestStores, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with a_pool(stack) as pool, hands_on(stack) as hands:
        settings = replace(settings_of(stack), config_dir=tmp_path_factory.mktemp("config"))
        routing = yaml.safe_load((ROOT / "config/routing.yaml").read_text())
        routing["events"]["entitlement.changed"] = []
        (settings.config_dir / "routing.yaml").write_text(yaml.safe_dump(routing))
        (settings.config_dir / "exclusions.yaml").write_text(yaml.safe_dump({"rules": EXCLUDED}))
        worker = app.build(settings)
        router: Any = worker.handle.__self__  # type: ignore[attr-defined]
        async with running(worker, settings):
            desk = Desk(pool, hands, stack, router, {})
            await desk.settled()
            yield desk
            counts = await counts_of(pool, "router")
            assert counts["read"] == sum(counts[outcome] for outcome in OUTCOMES), "the account balances at rest"


@pytest_asyncio.fixture
async def desk(whole: Desk) -> Desk:
    await whole.settled()
    written = (RESULTS, *topics.ROUTED.values())
    whole.since = {t.name: await whole.hands.ends(t, whole.stack.partitions) for t in written}
    return whole


# -- forwarding ------------------------------------------------------------------------------------


async def test_an_event_goes_unchanged_to_every_domain_it_concerns(desk: Desk) -> None:
    account = account_in(2, 4)
    body = b'{ "account_id":"%s","ticket_id":"t1",  "severity":"p1", "unknown":{"kept":true}}' % account.encode()
    own = at(3).replace("Z", "+00:00")
    headers = [
        ("ce_specversion", b"1.0"), ("ce_id", b"ticket-1"), ("ce_source", b"zendesk/eu"),
        ("ce_type", b"hune.ticket.opened.v1"), ("ce_time", at(2).encode()), ("ce_owntime", own.encode()),
        ("ce_mode", b"replay"), ("ce_run", b"run-7"), ("x-secret", b"stays here"),
    ]  # fmt: skip
    await desk.hands.send(RAW, 0, body, headers)
    for domain in ("health", "qbr", "voc"):
        (record,) = [r for r in await desk.wrote(topics.ROUTED[domain]) if header(r, "ce_id") == "ticket-1"]
        assert (record.value, record.key, record.partition) == (body, account.encode(), 2)
        carried = dict(record.headers)
        recorded = int(carried.pop("ce_recordedtime"))
        assert abs(recorded / 1000 - datetime.now(UTC).timestamp()) < 300
        assert carried == {
            "ce_specversion": b"1.0", "ce_id": b"ticket-1", "ce_source": b"zendesk/eu",
            "ce_type": b"hune.ticket.opened.v1", "ce_time": at(2).encode(), "ce_owntime": own.encode(),
            "ce_mode": b"replay", "ce_run": b"run-7", "ce_subject": account.encode(),
            "content-type": b"application/json",
        }  # fmt: skip
    for domain in ("feedback", "ops"):
        assert "ticket-1" not in await desk.routed(domain)


async def test_plain_binary_and_structured_records_are_the_same_event(desk: Desk) -> None:
    account, id, when = account_in(1, 4), unique("same"), at(1)
    data: dict[str, Any] = {"account_id": account, "user_id": unique("u"), "event": "opened"}
    attributes = {"specversion": "1.0", "id": id, "source": "hune", "type": "hune.usage.tracked.v1", "time": when}
    await desk.tell(0, id=id, timestamp=when, **data)
    await desk.hands.send(RAW, 0, json.dumps(data).encode(), [(f"ce_{k}", v.encode()) for k, v in attributes.items()])
    await desk.hands.send(
        RAW, 0, json.dumps(attributes | {"data": data}).encode(), [("content-type", b"application/cloudevents+json")]
    )
    records = [r for r in await desk.wrote(topics.ROUTED["health"]) if header(r, "ce_id") == id]
    names = ("ce_id", "ce_source", "ce_type", "ce_time", "ce_owntime", "ce_subject")
    assert len(records) == 3
    assert len({tuple(header(record, name) for name in names) for record in records}) == 1


async def test_an_account_goes_to_its_partition_and_keeps_its_order(desk: Desk) -> None:
    account, user = account_in(3, 4), unique("u")
    sent = [await desk.tell(1, account_id=account, user_id=user, timestamp=at(n % 7)) for n in range(60)]
    assert await desk.order(sent) == sent
    assert await desk.order(sent, "qbr") == sent
    assert partition_of(account.encode(), 4) == 3


async def test_what_concerns_everybody_reaches_every_partition(desk: Desk) -> None:
    id = await desk.tell(0, "fx.rate", currency="USD", rate="0.9", year=2026)
    for domain in ("health", "ops", "voc"):
        copies = [r for r in await desk.wrote(topics.ROUTED[domain]) if header(r, "ce_id") == id]
        assert sorted(record.partition for record in copies) == [0, 1, 2, 3]
        assert {header(record, "ce_subject") for record in copies} == {"*"}


async def test_a_merge_is_told_to_both_accounts(desk: Desk) -> None:
    kept, gone = account_in(0, 4), account_in(2, 4)
    id = await desk.tell(1, "account.merged", account_id=kept, merged_account_id=gone)
    copies = [r for r in await desk.wrote(topics.ROUTED["voc"]) if header(r, "ce_id") == id]
    assert {(header(r, "ce_subject"), r.partition) for r in copies} == {(kept, 0), (gone, 2)}


async def test_a_merge_within_a_partition_is_told_once(desk: Desk) -> None:
    kept, gone = account_in(0, 4), account_in(0, 4)
    id = await desk.tell(1, "account.merged", account_id=kept, merged_account_id=gone)
    copies = [r for r in await desk.wrote(topics.ROUTED["voc"]) if header(r, "ce_id") == id]
    assert [(header(r, "ce_subject"), r.partition) for r in copies] == [(kept, 0)]


async def test_a_merge_that_would_close_a_circle_is_quarantined_and_read_once_more_changes_nothing(desk: Desk) -> None:
    first, second, user = unique("first"), unique("second"), unique("u")
    merge: dict[str, Any] = {"account_id": second, "merged_account_id": first, "timestamp": at(4)}
    id = await desk.tell(0, "account.merged", id=unique("m"), **merge)
    back = await desk.tell(1, "account.merged", account_id=first, merged_account_id=second, timestamp=at(3))
    await desk.settled()
    await desk.tell(2, "account.merged", id=id, **merge)
    assert set(await desk.routed("voc")) == {id}
    reasons = await desk.pool.fetch("select reason, value from hune.quarantine where service = 'router'")
    (reason,) = [row["reason"] for row in reasons if back.encode() in (row["value"] or b"")]
    assert "cannot be merged into" in reason
    await desk.tell(3, "user.identified", account_id=first, user_id=user, timestamp=at(9))
    await desk.settled()
    early = await desk.tell(3, user_id=user, timestamp=at(5))
    late = await desk.tell(3, user_id=user, timestamp=at(2))
    named = await desk.tell(3, account_id=first, timestamp=at(1))
    routed = await desk.routed()
    assert (routed[early], routed[late], routed[named]) == (first, second, first)


async def test_a_merge_releases_who_waited_for_being_ambiguous(desk: Desk) -> None:
    kept, gone, user = unique("kept"), unique("gone"), unique("u")
    for account in (kept, gone):
        await desk.tell(0, "user.identified", account_id=account, user_id=user, timestamp=at(9))
    await desk.settled()
    id = await desk.tell(1, user_id=user, timestamp=at(1))
    assert await desk.parked(id) == [("ambiguous_account", f"user:{user}")]
    await desk.tell(2, "account.merged", account_id=kept, merged_account_id=gone, timestamp=at(2))

    async def released() -> bool:
        return (await desk.routed()).get(id) == kept

    assert await eventually(released)


async def test_what_no_domain_wants_is_counted_and_goes_nowhere(desk: Desk) -> None:
    before = await counts_of(desk.pool, "router")
    id = await desk.tell(0, "entitlement.changed", account_id="acme")
    assert id not in await desk.routed()
    assert (await counts_of(desk.pool, "router"))["unrouted"] == before["unrouted"] + 1


async def test_excluded_events_are_counted_by_their_reason(desk: Desk) -> None:
    before = await counts_of(desk.pool, "router")
    staff = await desk.tell(0, account_id="acme", user_id="ann@staff.example")
    posing = await desk.tell(0, account_id="acme", user_id="bob", context={"impersonated": True})
    real = await desk.tell(0, account_id="acme", user_id="bob", context={"impersonated": False})
    routed = await desk.routed()
    assert real in routed
    assert not {staff, posing} & set(routed)
    after = await counts_of(desk.pool, "router")
    assert after["excluded"] - before["excluded"] == 2
    for reason in ("our own staff", "impersonation"):
        name = f"reason:excluded:{reason}"
        assert after[name] - before[name] == 1


# -- whose -----------------------------------------------------------------------------------------


async def test_a_user_of_one_account_needs_not_name_it(desk: Desk) -> None:
    user, account = unique("u"), unique("acct")
    await desk.tell(1, account_id=account, user_id=user, timestamp=at(5))
    nameless = await desk.tell(1, user_id=user, timestamp=at(1))
    by_group = await desk.tell(1, user_id=user, context={"groupId": "by-group"}, timestamp=at(1))
    routed = await desk.routed()
    assert routed[nameless] == account
    assert routed[by_group] == "by-group"


async def test_a_user_of_several_accounts_waits_as_ambiguous(desk: Desk) -> None:
    user = unique("u")
    for account in ("one", "two"):
        await desk.tell(1, "user.identified", account_id=unique(account), user_id=user, timestamp=at(9))
    first, second = await desk.tell(1, user_id=user), await desk.tell(1, user_id=user)
    assert not {first, second} & set(await desk.routed())
    assert await desk.parked(first, second) == [("ambiguous_account", f"user:{user}")] * 2


async def test_a_user_who_moves_changes_the_future_only(desk: Desk) -> None:
    user, old, new = unique("u"), unique("old"), unique("new")
    await desk.tell(1, "user.identified", account_id=old, user_id=user, timestamp=at(20))
    await desk.tell(1, "user.deactivated", account_id=old, user_id=user, timestamp=at(10))
    await desk.tell(1, "user.identified", account_id=new, user_id=user, timestamp=at(10))
    before, after = (
        await desk.tell(1, user_id=user, timestamp=at(11)),
        await desk.tell(1, user_id=user, timestamp=at(9)),
    )
    routed = await desk.routed()
    assert (routed[before], routed[after]) == (old, new)


async def test_a_link_counts_from_its_own_time(desk: Desk) -> None:
    old, new, org = unique("old"), unique("new"), {"zendesk": unique("org")}
    await desk.tell(2, "account.updated", account_id=old, external_ids=org, timestamp=at(20))
    await desk.tell(2, "account.updated", account_id=new, external_ids=org, timestamp=at(10))
    tickets = {hours: await desk.tell(2, "ticket.opened", ticket_id=unique("t"), external_ids=org, timestamp=at(hours))
               for hours in (15, 5)}  # fmt: skip
    routed = await desk.routed()
    assert (routed[tickets[15]], routed[tickets[5]]) == (old, new)


async def test_a_repeat_goes_where_the_event_went_whatever_was_learnt_since(desk: Desk) -> None:
    old, new, org = unique("old"), unique("new"), {"hubspot": unique("company")}
    await desk.tell(2, "account.updated", account_id=old, external_ids=org, timestamp=at(20))
    ticket: dict[str, Any] = {"ticket_id": unique("t"), "external_ids": org, "timestamp": at(5)}
    id = await desk.tell(2, "ticket.opened", **ticket)
    assert (await desk.routed())[id] == old
    await desk.tell(2, "account.updated", account_id=new, external_ids=org, timestamp=at(10))
    other = await desk.tell(2, "ticket.opened", **ticket)
    await desk.tell(2, "ticket.opened", id=id, **ticket)
    subjects = [
        (header(r, "ce_id"), header(r, "ce_subject"))
        for r in await desk.wrote(topics.ROUTED["health"])
        if header(r, "ce_id") in (id, other)
    ]
    assert sorted(subjects) == sorted([(id, old), (id, old), (other, new)])


async def test_a_companys_mail_domain_links_and_a_free_mailers_never(desk: Desk) -> None:
    company, domain = unique("co"), f"{uuid.uuid4().hex[:8]}.example"
    await desk.tell(3, "account.updated", account_id=company, domain=domain, timestamp=at(9))
    await desk.tell(3, "account.updated", account_id=unique("cheeky"), domain="gmail.com", timestamp=at(9))
    linked = await desk.tell(3, user_id=unique("u"), email=f"Ann@{domain.upper()}")
    free = await desk.tell(3, user_id=unique("u"), email="ann@gmail.com")
    routed = await desk.routed()
    assert routed[linked] == company
    assert free not in routed
    ((reason, _),) = await desk.parked(free)
    assert reason == "unknown_user"
    assert not await desk.pool.fetchval("select count(*) from router.links where external_id = 'gmail.com'")


# -- waiting ---------------------------------------------------------------------------------------


async def test_who_waits_is_released_in_order_before_what_made_them_known(desk: Desk) -> None:
    user, account = unique("u"), account_in(1, 4)
    early = [await desk.tell(1, user_id=user, timestamp=at(9 - n)) for n in range(5)]
    assert await desk.parked(*early) == [("unknown_user", f"user:{user}")] * 5
    identify = await desk.tell(1, "user.identified", account_id=account, user_id=user, timestamp=at(3))
    late = [await desk.tell(1, user_id=user, timestamp=at(2)) for _ in range(3)]
    whole = [*early, identify, *late]
    assert await desk.order(whole) == whole
    assert await desk.parked(*whole) == []
    assert set((await desk.routed()).values()) >= {account}


async def test_all_of_it_in_one_batch_is_the_same(desk: Desk) -> None:
    """Sent together, so that parking and release meet in one transaction."""
    user, account = unique("u"), account_in(1, 4)
    ids = [unique("b") for _ in range(8)]
    bodies = [{"id": id, "user_id": user, "timestamp": at(9)} for id in ids]
    bodies[4] |= {"type": "user.identified", "account_id": account}
    await desk.hands.send_all(RAW, 1, [(json.dumps(body).encode(), ()) for body in bodies])
    assert await desk.order(ids) == ids
    assert await desk.parked(*ids) == []


async def test_a_link_asserted_in_another_partition_releases_too(desk: Desk) -> None:
    account, org = unique("acct"), unique("org")
    waiting = [
        await desk.tell(0, "ticket.opened", ticket_id=unique("t"), external_ids={"zendesk": org}, timestamp=at(4))
        for _ in range(3)
    ]
    assert await desk.parked(*waiting) == [("unknown_organisation", f"zendesk:{org}")] * 3
    await desk.tell(3, "account.updated", account_id=account, external_ids={"zendesk": org}, timestamp=at(9))

    async def all_released() -> bool:
        return not await desk.parked(*waiting)

    await eventually(all_released)
    assert await desk.order(waiting) == waiting
    routed = await desk.routed()
    assert {routed[id] for id in waiting} == {account}


async def test_a_membership_learnt_in_another_partition_releases_too(desk: Desk) -> None:
    account, user = unique("acct"), unique("u")
    waiting = [await desk.tell(0, user_id=user, timestamp=at(4)) for _ in range(2)]
    assert len(await desk.parked(*waiting)) == 2
    await desk.tell(2, "user.identified", account_id=account, user_id=user, timestamp=at(5))

    async def all_released() -> bool:
        return not await desk.parked(*waiting)

    await eventually(all_released)
    assert {(await desk.routed())[id] for id in waiting} == {account}


async def test_those_who_stay_ambiguous_hide_nobody_behind_them(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep looks at a page at a time; a page full of those that cannot be released is not the end of it."""
    monkeypatch.setattr(lane, "LEAST_IN_TICK", 2)
    monkeypatch.setattr(lane, "MOST_IN_TICK", 2)
    for n in range(5):
        user = unique(f"a{n}")
        for account in ("one", "two"):
            await desk.tell(0, "user.identified", account_id=unique(account), user_id=user, timestamp=at(9))
        await desk.tell(0, user_id=user)
    last = unique("z")
    waiting = await desk.tell(0, user_id=last, timestamp=at(4))
    assert len(await desk.parked(waiting)) == 1
    account = unique("acct")
    await desk.pool.execute(
        "insert into router.memberships (user_id, account_id, valid_from, asserted_at) "
        "values ($1, $2, now() - interval '2 days', now() - interval '1 day')",
        last, account,
    )  # fmt: skip
    await desk.pool.execute("update router.memberships set asserted_at = now() - interval '1 day'")
    desk.router._swept_at.clear()

    async def released() -> bool:
        return not await desk.parked(waiting)

    await eventually(released)
    assert (await desk.routed())[waiting] == account


async def test_a_parked_event_that_cannot_be_read_any_more_stops_nobody(desk: Desk) -> None:
    user, account = unique("u"), account_in(1, 4)
    entity = f"user:{user}"
    first = await desk.tell(1, user_id=user, timestamp=at(4))
    await desk.settled()
    await desk.pool.execute(
        "insert into router.parked (partition, entity, topic, record_offset, value, headers, broker_time, reason, "
        "waits_for) values (1, $1, $2, $3, $4, $5, now(), 'unknown_user', $6)",
        entity, RAW.name, 10**9, b"{", pack_headers([("ce_id", b"x")]), [entity],
    )  # fmt: skip
    second = await desk.tell(1, user_id=user, timestamp=at(4))
    await desk.settled()
    await desk.tell(1, "user.identified", account_id=account, user_id=user, timestamp=at(5))
    assert await desk.order([first, second]) == [first, second]
    held = await desk.pool.fetchrow("select * from hune.quarantine where id = $1", f"router:{RAW.name}:1:{10**9}")
    assert held["value"] == b"{"
    assert "missing" in held["reason"]
    # it was never read from Kafka: take it out of the account again
    await desk.pool.execute("delete from hune.quarantine where id = $1", held["id"])


async def test_what_waited_too_long_goes_to_quarantine_and_may_wait_anew(desk: Desk) -> None:
    user = unique("u")
    old, young = [await desk.tell(2, user_id=user, timestamp=at(4)) for _ in range(2)]
    assert len(await desk.parked(old, young)) == 2
    await desk.pool.execute(
        "update router.parked set parked_at = parked_at - interval '31 days' where seq = (select min(seq) from "
        "router.parked where entity = $1)", f"user:{user}",
    )  # fmt: skip
    desk.router._swept_at.clear()

    async def given_up() -> bool:
        return len(await desk.parked(old, young)) == 1

    await eventually(given_up)
    assert len(await desk.parked(young)) == 1
    held = await desk.pool.fetchrow("select id, reason from hune.quarantine where reason like 'for 30 days%'")
    assert "unknown_user" in held["reason"]
    await desk.pool.execute("update hune.quarantine set state = 'redrive' where id = $1", held["id"])

    async def waits_anew() -> bool:
        return len(await desk.parked(old, young)) == 2

    await eventually(waits_anew)


# -- time ------------------------------------------------------------------------------------------


def clocks_of(records: Sequence[Any], run: str | None) -> list[tuple[int, int]]:
    """(partition, router partition) of each record that tells this time."""
    return sorted(
        (record.partition, int(header(record, "ce_routerpartition") or -1))
        for record in records
        if header(record, "ce_type") == "hune.clock.v1" and body_of(record)["run"] == run
    )


async def test_the_end_of_a_run_reaches_every_partition_of_every_domain_from_each_of_the_routers(desk: Desk) -> None:
    run = unique("run")
    clock = inputs.ClockSet(run=run, at=NOW)
    extra = [("ce_mode", b"replay"), ("ce_run", run.encode())]
    for partition in range(4):
        headers = event_headers(clock, id=f"{run}-{partition}", source="hune", subject=run, time=NOW, extra=extra)
        await desk.hands.send(RAW, partition, clock.model_dump_json(exclude_unset=True).encode(), headers)
    every = [(to, voice) for to in range(4) for voice in range(4)]
    for domain in topics.WORKERS:
        assert clocks_of(await desk.wrote(topics.ROUTED[domain]), run) == every


async def test_the_clock_comes_behind_everything_its_partition_has_sent(desk: Desk) -> None:
    account, run = account_in(2, 4), unique("run")
    ids = [await desk.tell(1, account_id=account, headers=[("ce_x", b"")], timestamp=at(3)) for _ in range(5)]
    await desk.tell(1, "clock", run=run, at=at(1))
    records = [r for r in await desk.wrote(topics.ROUTED["health"]) if r.partition == 2]
    told = [header(r, "ce_id") if header(r, "ce_id") in ids else "clock" for r in records]
    assert told[-6:] == [*ids, "clock"]


async def test_life_begins_once_with_the_first_live_event(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.pool.execute("update hune.installation set live_since = null")
    desk.router._live = False
    run = [("ce_mode", b"replay"), ("ce_run", b"r")]
    attributes = {"specversion": "1.0", "id": unique("x"), "source": "s", "type": "hune.usage.tracked.v1"}
    replayed = [(f"ce_{k}", v.encode()) for k, v in attributes.items()] + run
    await desk.hands.send(RAW, 0, b'{"account_id": "acme"}', replayed)
    await desk.ask(account_id="acme", demand="health.score")
    assert clocks_of(await desk.wrote(topics.ROUTED["health"]), None) == [], "neither a run nor a request begins it"

    fails = [True, True]
    save = store.save_accounts

    async def interrupted(*arguments: Any) -> None:
        if fails:
            fails.pop()
            raise asyncpg.SerializationError("try again")
        await save(*arguments)

    monkeypatch.setattr(store, "save_accounts", interrupted)
    for partition in range(4):
        for _ in range(3):
            await desk.tell(partition, account_id=unique("acct"), timestamp=at(1))
    await desk.settled()
    assert not fails, "the first transactions must have been rolled back"
    for domain in topics.WORKERS:
        told = clocks_of(await desk.wrote(topics.ROUTED[domain]), None)
        assert [to for to, _ in told] == [0, 1, 2, 3]
        assert len({voice for _, voice in told}) == 1
    assert await desk.pool.fetchval("select live_since is not null from hune.installation")


# -- requests --------------------------------------------------------------------------------------


async def replies(desk: Desk, id: str) -> list[tuple[str | None, dict[str, Any]]]:
    return [
        (header(r, "ce_type"), body_of(r)) for r in await desk.wrote(RESULTS) if header(r, "ce_correlationid") == id
    ]


async def test_a_demand_nobody_carries_out_is_declined_by_name(desk: Desk) -> None:
    id = await desk.ask(demand="moon.phase", account_id="acme")
    ((type, body),) = await replies(desk, id)
    assert type == "hune.request.declined.v1"
    assert "'moon.phase' is not known; known: account.assign" in body["reason"]


async def test_people_link_split_and_merge_by_request(desk: Desk) -> None:
    kept, gone = unique("kept"), unique("gone")
    ticket: dict[str, Any] = {"ticket_id": "t"}
    organisation = {"namespace": "zendesk", "external_id": unique("z")}
    for account in (kept, gone):
        await desk.tell(0, "account.updated", account_id=account, timestamp=at(9))
    await desk.settled()
    link = await desk.ask(demand="account.link", account_id=gone, parameters=organisation | {"valid_from": at(8)})
    merge = await desk.ask(
        demand="account.merge", account_id=kept, parameters={"merged_account_id": gone, "valid_from": at(5)}
    )
    answers = {id: (await replies(desk, id))[0] for id in (link, merge)}
    assert {type for type, _ in answers.values()} == {"hune.request.answered.v1"}
    assert answers[merge][1]["answer"]["merged_account_id"] == gone
    (told,) = {header(r, "ce_id") for r in await desk.wrote(topics.ROUTED["voc"]) if gone in str(r.value)
               and header(r, "ce_type") == "hune.account.merged.v1"}  # fmt: skip
    assert told
    external: dict[str, Any] = {"external_ids": {organisation["namespace"]: organisation["external_id"]}}
    before = await desk.tell(1, "ticket.opened", **ticket, **external, timestamp=at(6))
    after = await desk.tell(1, "ticket.opened", **ticket, **external, timestamp=at(4))
    routed = await desk.routed()
    assert (routed[before], routed[after]) == (gone, kept)
    split = await desk.ask(demand="account.split", account_id=gone, parameters=organisation | {"valid_from": at(2)})
    assert (await replies(desk, split))[0][1]["answer"]["account_id"] == kept, "what is asked of it is the survivor's"
    alone = await desk.tell(1, "ticket.opened", **ticket, **external, timestamp=at(1))
    assert await desk.parked(alone) == [("unknown_organisation", f"zendesk:{organisation['external_id']}")]
    again = await desk.ask(demand="account.merge", account_id=gone, parameters={"merged_account_id": kept})
    ((type, body),) = await replies(desk, again)
    assert (type, body["demand"]) == ("hune.request.declined.v1", "account.merge")
    assert "into itself" in body["reason"]


async def test_a_request_about_nobody_known_is_unclear_and_never_parked(desk: Desk) -> None:
    id = await desk.ask(demand="health.score", account_id=unique("nobody"))
    ((type, body),) = await replies(desk, id)
    assert type == "hune.request.unclear.v1"
    assert "is not known" in body["reason"]
    assert body["candidates"] == ["health.score"]
    assert await desk.parked(id) == []


@pytest.mark.parametrize(
    ("text", "demand"),
    [
        ("What is the health score of Boréale Logistics?", "health.score"),
        ("Prépare la revue trimestrielle de Boréale Logistics", "qbr.review"),
    ],
)
async def test_a_request_in_words_finds_its_demand_and_account(desk: Desk, text: str, demand: str) -> None:
    account = "boreale-1"
    await desk.tell(0, "account.updated", account_id=account, name="Boréale Logistics", timestamp=at(9))
    await desk.settled()
    id = await desk.ask(text=text)
    domain = demand.partition(".")[0]
    (record,) = [r for r in await desk.wrote(topics.ROUTED[domain]) if header(r, "ce_id") == id]
    assert (header(record, "ce_demand"), header(record, "ce_subject")) == (demand, account)
    assert 0.6 <= float(header(record, "ce_confidence") or 0) <= 1
    assert body_of(record)["text"] == text


async def test_a_request_about_the_whole_book_is_keyed_by_itself(desk: Desk) -> None:
    id = await desk.ask(demand="feedback.analysis", parameters={"kind": "nps"})
    (record,) = [r for r in await desk.wrote(topics.ROUTED["feedback"]) if header(r, "ce_id") == id]
    assert (header(record, "ce_subject"), header(record, "ce_demand")) == (id, "feedback.analysis")
    assert record.partition == partition_of(id.encode(), 4)
    assert header(record, "ce_confidence") == "1.0000"


async def test_words_that_mean_nothing_are_unclear_with_the_nearest_demands(desk: Desk) -> None:
    id = await desk.ask(text="the quick brown fox")
    ((type, body),) = await replies(desk, id)
    assert type == "hune.request.unclear.v1"
    assert body["confidence"] < 0.6
