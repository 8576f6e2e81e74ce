"""The contact vault in a whole installation: what is personal is nowhere but there, and after a deletion nowhere."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from services.router import app as router
from shared import db, topics
from shared.errors import Misconfigured
from shared.kafka import consumer_options
from shared.settings import Settings
from shared.vault import keys as vault
from shared.vault import store, withheld
from shared.vault.keys import Keys
from shared.vault.sealing import Contact, Sealer
from tests.support.bench_worker import a_database
from tests.support.stack import Installation, installation

ROOT = Path(__file__).parents[2]
KEYS = Keys(b"r" * 32, (b"w" * 32,))
NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=1)
HOLD = """
    insert into hune.quarantine (id, service, topic, partition, record_offset, value, headers, broker_time, reason)
    values ($1, 'router', 't', 0, 0, $2, '', now(), 'unknown')
"""
ADA, BOB, CAROL = "ada.lovelace@acme.example", "bob@acme.example", "carol@acme.example"
EVERY_COLUMN = """
    select table_schema as schema, table_name as name from information_schema.tables
     where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')
"""


# -- the tables ------------------------------------------------------------------------------------


@asynccontextmanager
async def a_vault(postgres: str) -> AsyncIterator[db.Connection]:
    settings = Settings("", postgres, (postgres,), ROOT / "config")
    connection = await a_database(postgres, router.build(settings))
    try:
        yield connection
    finally:
        await connection.close()


def a_contact(person: str, value: str, kind: str = "email") -> Contact:
    contacts: list[Contact] = []
    Sealer(KEYS).seal("user.identified", {"user_id": person, "traits": {kind: value}}, contacts)
    return next(contact for contact in contacts if contact.value == value)


async def keep(vault: db.Connection, *contacts: Contact, at: datetime = NOW) -> None:
    await store.save(vault, KEYS, [(contact, at) for contact in contacts])


async def known(vault: db.Connection, *contacts: Contact) -> list[str]:
    found = await store.resolve(vault, KEYS, [contact.token for contact in contacts])
    return [found.get(contact.token, "-") for contact in contacts]


async def test_a_deleted_person_is_unknown_and_comes_back_only_with_what_they_send_later(postgres: str) -> None:
    async with a_vault(postgres) as tables:
        ada, phone, bob = a_contact("u1", ADA), a_contact("u1", "020 7946 0958", "phone"), a_contact("u2", BOB)
        await keep(tables, ada, phone, bob)
        await keep(tables, ada, bob)  # again changes nothing
        assert await known(tables, ada, phone, bob) == [ADA, "020 7946 0958", BOB]
        async with tables.transaction():
            await store.erase(tables, "u1", NOW)
        assert await known(tables, ada, phone, bob) == ["-", "-", BOB]
        await keep(tables, ada, phone)  # a replay
        assert await known(tables, ada, phone) == ["-", "-"]
        await keep(tables, ada, at=LATER)
        assert await known(tables, ada) == [ADA]
        async with tables.transaction():
            await store.erase(tables, "u1", NOW)  # the same request, read again
        assert await known(tables, ada) == [ADA]
        await keep(tables, bob, at=LATER)
        assert await store.revealed(tables, KEYS, {"a": f"to {bob.token}@acme.example", "b": phone.token}) == {
            "a": f"to {BOB}",
            "b": store.DELETED,
        }


async def test_an_address_goes_with_the_person_whoever_else_has_it_and_other_values_stay(postgres: str) -> None:
    async with a_vault(postgres) as tables:
        mine, also = a_contact("u1", ADA), a_contact("delighted:5", ADA)
        reference = Sealer(KEYS).reference(ADA)
        phone, plain = a_contact("delighted:5", "020 7946 0958", "phone"), a_contact(reference, "Ada", "name")
        await keep(tables, mine, also, phone, plain)
        assert mine.token == also.token
        assert await store.persons_of(tables, mine.token) == ["delighted:5", "u1"]
        async with tables.transaction():
            await store.erase(tables, "u1", NOW)
        assert await known(tables, mine, phone, plain) == ["-", "020 7946 0958", "-"]


async def test_the_key_can_be_changed_and_another_installation_s_is_refused(postgres: str) -> None:
    async with a_vault(postgres) as tables:
        ada = a_contact("u1", ADA)
        await store.check(tables, KEYS)
        await keep(tables, ada)
        changed = KEYS.changed()
        await store.check(tables, changed)
        assert await store.rewrap(tables, changed) == 1
        assert await store.rewrap(tables, changed) == 0
        assert await store.resolve(tables, changed.alone(), [ada.token]) == {ada.token: ADA}
        with pytest.raises(store.Unreadable):
            await store.resolve(tables, KEYS, [ada.token])
        with pytest.raises(Misconfigured, match="everybody would become"):
            await store.check(tables, Keys.make())


async def test_what_nobody_could_read_goes_with_anybody_whom_it_names(postgres: str) -> None:
    async with a_vault(postgres) as tables:
        ours, form = b"<note>by ada.lovelace@acme.example\x00</note>", b"who=ada.lovelace%40acme.example"
        bodies = [ours, form, b'{"to": "bob@acme.example"}', *[b"%d" % n for n in range(2 * withheld.CHUNK)]]
        kept = [withheld.withhold(KEYS, f"id-{n}", body) for n, body in enumerate(bodies)]
        await keep(tables, *[contact for _, contact in kept])
        assert [await withheld.opened(tables, KEYS, body) for body, _ in kept] == bodies
        assert await withheld.opened(tables, KEYS, b"as it came") == b"as it came"
        with pytest.raises(store.Unreadable, match="not here"):
            await withheld.opened(tables, None, kept[0][0])
        for body, _ in kept[:3]:
            await tables.execute(HOLD, body.decode(), body)
        async with tables.transaction():
            assert await withheld.forget(tables, KEYS, ["router"], ["u1", ADA], NOW) == 2
        assert await tables.fetchval("select array_agg(value) from hune.quarantine") == [kept[2][0]]
        for body, _ in kept[:2]:
            with pytest.raises(store.Unreadable, match="deleted"):
                await withheld.opened(tables, KEYS, body)
        assert await withheld.opened(tables, KEYS, kept[2][0]) == bodies[2]
        await keep(tables, kept[0][1])  # from a journal
        with pytest.raises(store.Unreadable):
            await withheld.opened(tables, KEYS, kept[0][0])


async def test_a_reference_to_an_address_opens_nothing(postgres: str) -> None:
    async with a_vault(postgres) as tables:
        ada = a_contact("u1", ADA)
        await keep(tables, ada)
        with pytest.raises(store.Unreadable):
            await withheld.opened(tables, KEYS, b'{"withheld":"%b"}' % ada.token.encode())


# -- a whole installation --------------------------------------------------------------------------


PERSONAL = (
    ADA, "Ada Lovelace", "+44 20 7946 0958", "203.0.113.77", BOB, "Bob Builder", CAROL, "198.51.100.9",
)  # fmt: skip
TEXT = "Please write to ada.lovelace@acme.example"


async def everything(whole: Installation) -> dict[str, bytes]:
    """All that is stored: each topic's records, each table's rows, the spool's files."""
    state = whole.home.state()
    assert state is not None
    assert state.kafka is not None
    assert state.postgres is not None
    found = {topic.name: b"" for topic in topics.ALL}
    consumer = AIOKafkaConsumer(**consumer_options(state.kafka.address))
    await consumer.start()
    try:
        places = [TopicPartition(topic, n) for topic in found for n in range(state.partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < ends[place] for place in places]):
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    parts = [record.key or b"", record.value or b"", *[value or b"" for _, value in record.headers]]
                    found[place.topic] += b"\n".join((*parts, b""))
    finally:
        await consumer.stop()
    connection = await db.connect(state.postgres.address)
    try:
        for table in await connection.fetch(EVERY_COLUMN):
            name = f"{table['schema']}.{table['name']}"
            rows = await connection.fetch(f"select to_jsonb(t)::text as row from {name} as t")
            found[name] = "\n".join(row["row"] for row in rows).encode()
            found[name] += b"".join(
                bytes.fromhex(hexed) for hexed in re.findall(r"\\\\x([0-9a-f]+)", found[name].decode())
            )
    finally:
        await connection.close()
    for path in sorted((whole.home.path / "spool").rglob("*")):
        if path.is_file():
            found[path.name] = path.read_bytes()
    return found


def where(found: dict[str, bytes], *words: str) -> set[tuple[str, str]]:
    return {(name, word) for name, content in found.items() for word in words if word.encode() in content}


async def send(whole: Installation) -> None:
    """Names, addresses and numbers through every kind of door."""
    state = whole.home.state()
    assert state is not None
    key = json.loads(whole.hune("keys", "create", "app", "--json").stdout)["key"]
    token = json.loads(whole.hune("keys", "create", "nps", "--scope", "webhook:delighted", "--json").stdout)["key"]
    company = {"type": "group", "groupId": "acct-1", "traits": {"name": "Acme", "domain": "acme.example"}}
    ada = {"email": ADA, "name": "Ada Lovelace", "phone": "+44 20 7946 0958"}
    batch = [
        company,
        {"type": "identify", "userId": "u-ada", "traits": ada, "context": {"ip": "203.0.113.77", "groupId": "acct-1"}},
        {"type": "track", "userId": "u-ada", "event": "Export", "properties": {"ip": "203.0.113.77", "rows": 3}},
        {"type": "identify", "userId": BOB, "traits": {"name": "Bob Builder", "email": BOB}},
        {"type": "track", "userId": BOB, "event": "Export", "context": {"groupId": "acct-1"}},
    ]
    said = {"person": {"id": "44", "email": ADA, "name": "Ada Lovelace"}, "survey_type": "nps", "score": 2}
    answer = {"id": "r1", "comment": TEXT, "created_at": int(NOW.timestamp()), "permalink": "x", **said}
    survey = {"event_type": "survey_response.created", "event_id": "e1", "event_data": answer}
    strange = {"event_type": "survey_response.teleported", "event_id": "e2", "who": f"Ada Lovelace <{ADA}>"}
    async with httpx.AsyncClient(base_url=state.gateway_url, auth=(key, "")) as client:
        for body in ({"batch": [{"messageId": str(uuid.uuid4()), **message} for message in batch]},):
            (await client.post("/v1/batch", json=body)).raise_for_status()
        (await client.post(f"/webhooks/delighted/{token}", json=survey)).raise_for_status()
        (await client.post(f"/webhooks/delighted/{token}", json=strange)).raise_for_status()
    lines = [
        {"id": "f1", "user_id": CAROL, "event": "Export", "account_id": "acct-1", "properties": {"ip": "198.51.100.9"}}
    ]
    (whole.home.path / "lines.ndjson").write_text("\n".join(map(json.dumps, lines)))
    (whole.home.path / "rows.csv").write_text(f"user_id,account_id\n{CAROL},acct-1\n")
    whole.hune("send", str(whole.home.path / "lines.ndjson"))
    whole.hune("import", str(whole.home.path / "rows.csv"), "--as", "user.identified")
    (whole.home.path / "bad.csv").write_text(f"account_id,survey_id,score\nacct-1,s1,{BOB}\nacct-1,s1,9\n")
    whole.hune("import", str(whole.home.path / "bad.csv"), "--as", "survey.answered", "--set", "kind=nps")


def rows_of(whole: Installation, kind: str, *more: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in whole.hune("export", kind, *more).stdout.splitlines()]


def test_what_is_personal_is_in_the_vault_alone_and_after_a_deletion_nowhere() -> None:
    with installation() as whole:
        file = whole.home.path / vault.FILE_NAME
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        asyncio.run(send(whole))
        whole.hune("settle")
        found = asyncio.run(everything(whole))
        assert {name for name, word in where(found, *PERSONAL)} <= {name for name, _ in where(found, TEXT)}
        assert where({name: content.replace(TEXT.encode(), b"") for name, content in found.items()}, *PERSONAL) == set()
        (person,) = [row for row in rows_of(whole, "nps", "--by", "person") if row["scope"] == "person"]
        assert (person["account_id"], person["user_id"]) == ("acct-1", "delighted:44")  # found by the domain

        held = [json.loads(line) for line in whole.hune("quarantine", "list", "--json").stdout.splitlines()]
        assert {row["service"] for row in held} == {"router", "import"}
        shown = {row["service"]: whole.hune("quarantine", "show", row["id"]).stdout for row in held}
        assert ADA in shown["router"]
        assert BOB in shown["import"]

        users = {row["user_id"] for row in rows_of(whole, "scores", "--by", "user") if row["user_id"]}
        assert {"u-ada", BOB, CAROL} <= users
        opaque = {row["user_id"] for row in rows_of(whole, "scores", "--by", "user", "--references") if row["user_id"]}
        assert "u-ada" in opaque
        assert not {BOB, CAROL} & opaque
        sealed = Sealer(Keys.from_text(file.read_text(), "it"))
        reference = sealed.reference(ADA)
        asked = whole.hune("privacy", "delete", ADA).stdout
        assert "delighted:44, u-ada" in asked
        whole.hune("settle")
        assert json.loads(whole.hune("privacy", "status", "u-ada", "--json").stdout)["erased_to"] is not None
        assert json.loads(whole.hune("privacy", "status", ADA, "--json").stdout)["erased_to"] is not None
        whole.hune("privacy", "delete", BOB)
        whole.hune("settle")
        assert "nothing is in quarantine" in whole.hune("quarantine", "list").stdout
        assert asyncio.run(left(whole, sealed, reference)) == {CAROL, "198.51.100.9"}


async def left(whole: Installation, sealer: Sealer, reference: str) -> set[str]:
    """What the vault still tells of all tokens that are anywhere."""
    found = await everything(whole)
    assert reference.encode() in found[topics.RAW_EVENTS.name], "what Kafka holds stays, and says nothing"
    tokens = {token.decode() for content in found.values() for token in re.findall(rb"hv_[a-z2-7]{26}", content)}
    state = whole.home.state()
    assert state is not None
    assert state.postgres is not None
    connection = await db.connect(state.postgres.address)
    try:
        keys = Keys.from_text((whole.home.path / vault.FILE_NAME).read_text(), "it")
        return set((await store.resolve(connection, keys, tokens)).values())
    finally:
        await connection.close()
