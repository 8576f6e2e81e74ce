"""Notify against a real PostgreSQL and a Slack over HTTP: told once, in order, whatever breaks."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.notify import app, domain, store
from services.notify.domain import Places
from services.notify.settings import Reach
from shared import privacy
from shared.team import Team
from shared.vault import store as vault
from shared.vault.keys import Keys
from shared.vault.sealing import Contact, Sealer
from tests.support.bench_worker import a_signal
from tests.support.notify_world import (
    ALERTS,
    World,
    a_state,
    a_world,
    an_alert,
    escalated,
    now,
    opened,
    resolved,
    small,
    words,
)
from tests.support.slack_double import FAULTS, Posted


@pytest_asyncio.fixture
async def world(postgres: str) -> AsyncIterator[World]:
    async with a_world(postgres) as made:
        yield made


async def test_an_alert_is_told_once_and_changed_in_place(world: World) -> None:
    await world.hear(opened("acme", "a1"))
    await world.say()
    await world.hear(escalated("acme", "a1"))
    await world.say()
    await world.hear(resolved("acme", "a1"))
    await world.say()
    roots = [one for one in world.slack.posted if one.thread_ts is None]
    assert len(roots) == 1
    assert "Health is red: 38" in words(roots[0].blocks)
    assert [("✅" in words(blocks), "Worse" in words(blocks)) for _, blocks in roots[0].changes] == [
        (False, True), (True, True),
    ]  # fmt: skip
    replies = [one.text for one in world.slack.posted if one.thread_ts == roots[0].ts]
    assert replies == ["🔴 Now critical: Worse\nScore 38. Tickets 3", "✅ Over: Worse"]
    assert {row["state"] for row in await world.rows()} == {"sent"}
    assert world.slack.refused == []


async def test_a_message_names_the_person_and_the_ledger_the_reference(world: World) -> None:
    keys, contacts = Keys.make(), list[Contact]()
    address, phone = "ada@acme.example", "+44 20 7946 0958"
    said = Sealer(keys).seal("user.identified", {"user_id": address, "traits": {"phone": phone}}, contacts)
    who, number = said["user_id"], said["traits"]["phone"]
    async with world.pool.acquire() as db:
        await vault.save(db, keys, [(contact, now()) for contact in contacts])
    sealed = replace(world, keys=keys)
    await sealed.hear(opened(who, "a1", why=f"{who} went silent", evidence={"user_id": who, "numbers": [number]}))
    await sealed.say()
    (message,) = world.slack.posted
    assert words(message.shown).count(address) == 3  # the account without a name, the sentence, the evidence
    assert phone in words(message.shown)
    assert "hv_" not in words(message.shown)
    values = [part["value"] for block in message.shown for part in block.get("elements", ()) if "value" in part]
    assert values
    assert all(json.loads(value)["account_id"] == who for value in values)
    kept = await world.pool.fetch("select to_jsonb(e)::text || to_jsonb(d)::text as row from notify.episodes e, "
                                  "notify.deliveries d")  # fmt: skip
    assert kept
    assert not [row for row in kept if address in row["row"] or phone in row["row"]]
    async with world.pool.acquire() as db, db.transaction():
        await vault.erase(db, who, now())
    await sealed.hear(escalated(who, "a1", why=f"{who} went silent"))
    await sealed.say()
    assert "a deleted person went silent" in words(message.shown)
    assert address not in words(message.shown)


async def test_without_the_vault_s_key_a_message_says_what_the_alert_says(world: World) -> None:
    reference = Sealer(Keys.make()).reference("ada@acme.example")
    await world.hear(opened("acme", "a1", why=f"{reference} went silent"))
    await world.say()
    (message,) = world.slack.posted
    assert f"{reference} went silent" in words(message.shown)


async def test_what_people_do_shows_in_the_message(world: World) -> None:
    team = Team.model_validate({"people": [{"id": "lea", "name": "Léa", "slack_id": "U0LEA"}]})
    staffed = replace(world, team=team)
    about: dict[str, Any] = {
        "alert_id": "a1",
        "service": "health",
        "rule": "band_red",
        "occurred_at": now(),
        "computed_at": now(),
    }
    done = about | {"by": "slack:U0LEA"}
    await staffed.hear(opened("acme", "a1"))
    await staffed.say()
    await staffed.hear(a_signal("alert.acknowledged", "acme", id="k1", at=now(), **done))
    await staffed.say()
    (message,) = world.slack.posted
    assert "acknowledged by Léa" in words(message.shown)
    await staffed.hear(a_signal("alert.snoozed", "acme", id="k2", at=now(), until=None, **done))
    await staffed.say()
    assert "snoozed until it changes" in words(message.shown)
    await staffed.hear(an_alert("alert.reminded", "acme", "a1", opened_at=now()))
    await staffed.say()
    assert "snoozed" not in words(message.shown)
    assert [one.text for one in world.slack.posted[1:]] == ["🟠 Still there: Health is red: 38"]


async def test_an_alert_known_from_the_start_is_told_when_it_grows(world: World) -> None:
    await world.hear(opened("acme"))
    await world.hear(opened("other", "a2", baseline=True))
    await world.hear(escalated("other", "a2"))
    await world.say()
    assert ["Worse" in one.text for one in world.slack.posted] == [False, True]


async def test_the_same_event_again_says_nothing_more(world: World) -> None:
    first = opened("acme", "a1")
    await world.hear(first, first)
    await world.hear(first)
    await world.say()
    assert len(world.slack.posted) == 1
    assert len(await world.rows()) == 1


async def test_what_is_over_before_it_was_told_is_not_told(world: World) -> None:
    await world.hear(opened("acme", "a1"))
    await world.hear(resolved("acme", "a1"))
    await world.say()
    assert world.slack.posted == []
    assert {row["state"] for row in await world.rows()} == {"suppressed"}


async def test_what_was_known_from_the_start_becomes_one_digest_and_a_replay_stays_silent(world: World) -> None:
    await world.hear(*[opened(f"acct-{n}", baseline=True) for n in range(200)])
    await world.say()
    assert world.slack.posted == [], "not before the import rests"
    await world.later(seconds=61)
    await world.say()
    (digest,) = world.slack.posted
    assert "200 alerts of 200 accounts" in words(digest.blocks)
    await world.hear(opened("acct-900"))
    await world.say()
    await world.hear(opened("acct-901", baseline=True))
    await world.later(hours=2)
    await world.say()
    assert len(world.slack.posted) == 2
    assert (await world.rows())[-1]["reason"] == domain.BASELINE


async def test_old_news_is_no_news(world: World) -> None:
    await world.hear(opened(at=now() - timedelta(hours=25)))
    assert [(row["state"], row["reason"]) for row in await world.rows()] == [("suppressed", domain.OLD)]


async def test_many_at_once_are_one_digest(world: World) -> None:
    await world.hear(*[opened(f"acct-{n}") for n in range(200)])
    await world.say()
    (digest,) = world.slack.posted
    assert len(digest.blocks) <= 50
    assert [row["what"] for row in await world.rows("sent")] == ["digest"]
    assert len({row["digest_id"] for row in await world.rows("suppressed")}) == 1
    assert world.slack.refused == []


async def test_further_alerts_of_an_account_go_under_its_first(world: World) -> None:
    await world.hear(opened("acme", rule="detractor"))
    await world.say()
    await world.hear(
        opened("acme", rule="usage_dip", severity="medium"), opened("acme", rule="p1", severity="critical")
    )
    await world.say()
    first, lighter, heavier = world.slack.posted
    assert lighter.thread_ts == first.ts
    assert heavier.thread_ts is None


async def test_a_rule_that_says_less_is_muted(world: World) -> None:
    loud = world.with_rules(inhibit=[{"rule": "band_red", "mutes": ["score_drop"]}])
    await loud.hear(opened("acme"), opened("acme", rule="score_drop"), opened("other", rule="score_drop"))
    await loud.say()
    assert len(world.slack.posted) == 2


async def test_nobody_to_tell_is_written_down(world: World) -> None:
    quiet = replace(world, places=Places({}, None, False))
    await quiet.hear(opened())
    assert [(row["destination"], row["reason"]) for row in await world.rows()] == [("none", domain.NO_SINK)]


async def test_an_owner_hears_in_person_within_a_budget(world: World) -> None:
    person = {"id": "lea", "name": "Léa", "slack_id": "U0LEA", "languages": ["fr"], "hours": {"timezone": "UTC"}}
    own = replace(
        world.with_rules(routes=[{"to": ["owner"]}, {"to": ["default"]}], weekly_budget=2, group_hours=0),
        team=Team.model_validate({"people": [person]}),
    )
    for n in range(4):
        state = a_state(f"acct-{n}", "lea", arr="60000")
        await own.hear(small(state), opened(f"acct-{n}"))
        await own.say("slack:U0LEA")
    assert [one.channel for one in world.slack.posted] == ["DU0LEA"] * 2
    assert "60 000" in words(world.slack.posted[0].blocks), "in the reader's language"
    waiting = await world.rows("pending")
    assert [row["mode"] for row in waiting] == ["daily", "daily"]
    await own.later(days=1)
    await own.say("slack:U0LEA")
    assert "2 alertes sur 2 comptes" in words(world.slack.posted[-1].blocks)
    await own.hear(escalated("acct-3", waiting[-1]["alert_id"]))
    await own.say("slack:U0LEA")
    assert "critique" in words(world.slack.posted[-1].blocks), "what gets worse passes the budget"


async def test_retry_after_outlives_the_process(world: World) -> None:
    world.slack.fault, world.slack.retry_after = (lambda method, n: "429"), 30
    await world.hear(opened())
    await world.say()
    assert world.slack.calls["chat.postMessage"] == 1
    world.slack.fault = lambda method, n: None
    await world.say()
    assert world.slack.posted == [], "another process waits as long"
    await world.later(seconds=30)
    await world.say()
    assert len(world.slack.posted) == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_ends_in_one_message(world: World, fault: str) -> None:
    world.slack.fault = lambda method, n: fault if method == "chat.postMessage" and n == 0 else None
    await world.hear(opened())
    for _ in range(5):
        await world.say()
        await world.later(seconds=60)
        await world.pool.execute("update notify.deliveries set attempted_at = attempted_at - interval '1 second'")
    assert len(world.slack.posted) == 1
    (row,) = await world.rows()
    assert (row["state"], row["ts"]) == ("sent", world.slack.posted[0].ts)
    assert world.slack.unlike == (1 if fault.endswith("_after") else 0)
    assert row["found_later"] == fault.endswith("_after")


async def test_what_happens_while_a_post_is_unclear_is_told_after_it(world: World) -> None:
    world.slack.fault = lambda method, n: "reset_after" if method == "chat.postMessage" and n == 0 else None
    await world.hear(opened("acme", "a1"))
    await world.say()
    await world.hear(escalated("acme", "a1"))
    for _ in range(3):
        await world.later(minutes=1)
        await world.pool.execute("update notify.deliveries set attempted_at = attempted_at - interval '1 minute'")
        await world.say()
    message, reply = world.slack.posted
    assert "Worse" in words(message.shown)
    assert reply.thread_ts == message.ts


async def test_a_history_whose_message_somebody_deleted_holds_up_nobody(world: World) -> None:
    await world.hear(opened("acme", "a1"))
    await world.say()
    world.slack.posted.clear()
    await world.hear(escalated("acme", "a1"), opened("other"))
    await world.say()
    assert [one.text.split(":")[0] for one in world.slack.posted] == ["🟠 other · Health is red"]
    states = {(row["what"], row["reason"]) for row in await world.rows("failed")}
    assert states == {("update", "message_not_found"), ("thread", "thread_not_found")}


async def test_a_slack_that_is_down_for_an_hour_loses_nothing(world: World) -> None:
    await world.slack.down()
    await world.hear(opened("acme"), opened("other"))
    await world.say()
    for _ in range(6):
        await world.later(minutes=10)
        await world.say()
    assert {row["state"] for row in await world.rows()} == {"pending"}
    await world.slack.up()
    await world.later(minutes=10)
    await world.say()
    await world.later(minutes=10)
    await world.say()
    assert len(world.slack.posted) == 2


async def test_a_wrong_token_is_told_and_waits_for_a_person(world: World) -> None:
    reach = Reach(slack_token="xoxb-wrong", slack_channel=ALERTS, slack_base_url=world.slack.base_url)
    wrong = replace(world, sinks=app.open_sinks(world.rules, reach, app.ways(world.rules, reach)))
    await world.hear(opened())
    await wrong.say()
    await wrong.sinks["slack"].close()
    assert [(row["state"], row["reason"]) for row in await world.rows()] == [("pending", "invalid_auth")]
    await world.later(minutes=1)
    await world.say()
    assert len(world.slack.posted) == 1


async def test_an_incoming_webhook_is_enough(world: World) -> None:
    rules, reach = world.rules, Reach(slack_webhook=world.slack.hook_url)
    found = app.ways(rules, reach)
    simple = replace(world, places=found.places, sinks=app.open_sinks(rules, reach, found))
    world.slack.fault = lambda method, n: "500_after" if n == 0 else None
    await simple.hear(opened("acme", "a1"))
    for _ in range(3):
        await simple.say("hook:default")
        await simple.later(minutes=1)
        await world.pool.execute("update notify.deliveries set attempted_at = attempted_at - interval '1 minute'")
    await simple.sinks["hook"].close()
    first, second = world.slack.hooked
    assert "actions" not in {block["type"] for block in first["blocks"]}
    assert "nobody knows" in words(second["blocks"]), "it says that it may be there twice"


async def test_what_an_alert_says_of_its_account_is_in_its_message(world: World) -> None:
    context = {
        "name": "Acme & Co", "owner": "lea", "segment": None, "arr": "60000", "score": 38, "band": "red",
        "previous_score": 72, "previous_band": "green", "coverage": 0.9, "notice_on": "2030-01-01",
        "days_to_notice": 40, "last_touch": {"at": now(), "by": "ann", "via": "call"},
        "contacts": [{"contact_id": "grace", "role": "champion"}], "rule": "score_below: enter 40, leave 45",
        "parts": [{"measure": "tickets", "label": "Open tickets", "value": "3", "lost": 19.5}],
        "restore": [{"measure": "tickets", "label": "Open tickets", "value": "3", "to_value": "1", "points": 40,
                     "to_points": 70}],
        "restored_score": 45, "restore_text": "Open tickets from 3 to 1",
    }  # fmt: skip
    await world.hear(opened("acme", "a1", context=context))
    await world.say()
    said = words(world.slack.posted[0].blocks)
    for part in ("Acme & Co", "72 green → 38 red", "by ann (call)", "grace (champion)", "60,000", "90%",
                 "Smallest change that brings it to 45: Open tickets 3 → 1", "Open tickets 3 (−19.5)"):  # fmt: skip
        assert part in said, part


async def test_what_a_person_did_counts_also_when_it_is_heard_before_the_alert(world: World) -> None:
    done: dict[str, Any] = {
        "alert_id": "a1",
        "service": "health",
        "rule": "band_red",
        "by": "léa",
        "occurred_at": now(),
    }
    await world.hear(a_signal("alert.acknowledged", "acme", id="k1", at=now(), **done, computed_at=now()))
    assert await world.rows() == []
    await world.hear(opened("acme", "a1"))
    await world.say()
    (message,) = world.slack.posted
    assert "acknowledged by léa" in words(message.shown)
    assert await world.pool.fetchval("select count(*) from notify.early") == 0


async def test_a_forgotten_person_is_named_no_more_not_even_in_slack(world: World) -> None:
    for user in ("ann-7", "bob-8"):
        quote = f"Too slow, says {user}"
        evidence = {"user_id": user, "quote": quote, "people": ["ann-7", "ann-70"]}
        await world.hear(opened(user, f"of-{user}", why=f"Score 2: “{quote}”", evidence=evidence))
        await world.say()
    person = privacy.person_of("ann-7")
    told: dict[str, Any] = {"person": person, "suppressed": False, "erased_to": now(), "cause_ids": ("p1",)}
    await world.hear(
        a_signal("privacy.recorded", person, id="r1", at=now(), **told | {"account_id": None},
                 occurred_at=now(), computed_at=now())
    )  # fmt: skip
    await world.say()
    anns, bobs = ("\n".join((one.text, words(one.shown))) for one in (_shown(one) for one in world.slack.posted))
    assert "Too slow" not in anns
    assert "Too slow, says bob-8" in bobs
    kept = await world.pool.fetchval("select string_agg(e::text, ' ') from notify.episodes e where alert_id <> 'x'")
    assert "ann-70" in kept
    assert re.search(r"ann-7(?!0)", kept.replace("(of-ann-7,ann-7,", "")) is None, "but for the account's own name"
    assert len(world.slack.posted) == 2


def _shown(one: Posted) -> Posted:
    return replace(one, text=one.changes[-1][0]) if one.changes else one


async def test_what_is_long_over_is_forgotten(world: World) -> None:
    await world.hear(opened("acme", "a1"), opened("other", "a2"))
    await world.say()
    await world.hear(resolved("acme", "a1"))
    await world.say()
    await world.hear(opened("third", "a3"))
    for table, column in (("deliveries", "created_at"), ("episodes", "resolved_at")):
        await world.pool.execute(f"update notify.{table} set {column} = {column} - interval '500 days'")
    async with world.pool.acquire() as db:
        await store.prune(db, timedelta(days=400))
    assert {row["alert_id"] for row in await world.rows()} == {"a2", "a3"}
    assert await world.pool.fetchval("select count(*) from notify.episodes") == 2


async def test_a_cold_start_is_one_digest_per_owner(world: World) -> None:
    people = [{"id": f"p{n}", "name": f"P{n}", "slack_id": f"U{n}", "hours": {"timezone": "UTC"}} for n in range(4)]
    own = replace(world.with_rules(routes=[{"to": ["owner"]}]), team=Team.model_validate({"people": people}))
    accounts = {f"acct-{n}": f"p{n % 4}" for n in range(200)}
    await own.hear(*[small(a_state(account, owner)) for account, owner in accounts.items()])
    await own.hear(*[opened(account, baseline=True) for account in accounts])
    await own.later(seconds=61)
    for n in range(4):
        await own.say(f"slack:U{n}")
    assert sorted(one.channel for one in world.slack.posted) == ["DU0", "DU1", "DU2", "DU3"]
    assert all("50 al" in words(one.blocks) for one in world.slack.posted)
