"""Forgetting a person, store by store: what is left names nobody, and what comes later is known to be theirs."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.feedback import app as feedback
from services.health import app as health
from services.ops import app as ops
from services.qbr import app as qbr
from services.voc import app as voc
from shared import db, privacy
from shared.runtime.api import EVERYBODY, Signal
from tests.support.bench_worker import PARTITIONS, Runner, a_database, a_signal, day

ANN, BOB = "ann-7é", "bob-8"
LISTS = {"voc.erased.user_id"}
"""Whose words must not be kept: a list of persons must name them."""
COLUMNS = """
    select table_schema, table_name, column_name, data_type from information_schema.columns
     where table_schema = any($1::text[]) and data_type in ('text', 'jsonb', 'bytea', 'ARRAY')
       and (table_schema, table_name) in (select schemaname, tablename from pg_tables)
     order by 1, 2, 3
"""
QUARANTINED = """
    insert into hune.quarantine (id, service, topic, partition, record_offset, value, headers, broker_time, reason)
    values ($1, $2, 't', 0, 0, $3, '', now(), 'unreadable')
"""


@asynccontextmanager
async def a_runner(postgres: str, app: Any) -> AsyncIterator[Runner]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    try:
        runner = Runner(worker, connection)
        runner.clock, runner.live = day(50), True
        yield runner
    finally:
        await connection.close()


def forget(user: str, regulation: str = "delete") -> list[Signal]:
    """The request as the router tells it: one copy in every partition."""
    one = a_signal("privacy.requested", id="p1", at=day(40), user_id=user, regulation=regulation)
    replaced = {name: getattr(one, name) for name in one.__struct_fields__} | {"account_id": EVERYBODY}
    return [Signal(**replaced | {"partition": partition}) for partition in range(PARTITIONS)]


async def where_named(connection: db.Connection, schema: str, user: str) -> list[str]:
    """Every column of the service's tables, and of the runtime's, in which the person's id is found."""
    found = []
    for row in await connection.fetch(COLUMNS, [schema, "hune"]):
        table, column = f"{row['table_schema']}.{row['table_name']}", row["column_name"]
        for value in await connection.fetch(f"select {column} as value from {table}"):
            text = value["value"]
            text = text.decode(errors="replace") if isinstance(text, bytes) else json.dumps(text, ensure_ascii=False)
            if user in text:
                found.append(f"{table}.{column}")
    return sorted(set(found))


def said_by(user: str, n: int) -> list[Signal]:
    """Everything that names a user or a contact, in one account."""
    return [
        a_signal("usage.tracked", id=f"u{n}", at=day(30), user_id=user, event="export"),
        a_signal("survey.answered", id=f"s{n}", at=day(31), user_id=user, kind="nps", score=2, comment="Too slow!"),
        a_signal("survey.sent", id=f"i{n}", at=day(29), recipient_id=user, kind="nps", survey_id="q1"),
        a_signal("feedback.given", id=f"f{n}", at=day(32), user_id=user, text="Too slow!"),
        a_signal("feature.requested", id=f"w{n}", at=day(32), user_id=user, title="Dark mode"),
        a_signal("touchpoint.logged", id=f"t{n}", at=day(33), kind="call", contact_id=user, two_way=True),
    ]


def of(worker: str, signals: Sequence[Signal]) -> list[Signal]:
    wanted = {
        "health": ("usage.tracked", "survey.answered"),
        "feedback": ("survey.answered", "survey.sent"),
        "qbr": ("usage.tracked", "survey.answered"),
        "ops": ("touchpoint.logged",),
        "voc": ("survey.answered", "feedback.given", "feature.requested"),
    }[worker]
    return [signal for signal in signals if signal.type in wanted]


@pytest.mark.parametrize("app", [health, feedback, qbr, ops, voc], ids=lambda app: app.__name__.split(".")[1])
async def test_no_table_names_a_deleted_person_and_the_others_stay(postgres: str, app: Any) -> None:
    async with a_runner(postgres, app) as runner:
        name = runner.worker.name
        await runner.handle(of(name, [*said_by(ANN, 1), *said_by(BOB, 2)]))
        for id, user in (("ann", ANN), ("bob", BOB)):
            await runner.db.execute(QUARANTINED, id, name, f'{{"who": {json.dumps(user)}, oops'.encode())
            await runner.db.execute(QUARANTINED, f"{id}-form", name, f"who={user}&x=1".encode())
        before, bob = await where_named(runner.db, name, ANN), await where_named(runner.db, name, BOB)
        assert len(before) > 0
        assert "hune.quarantine.value" in before
        await runner.handle(forget(ANN))
        assert set(await where_named(runner.db, name, ANN)) <= LISTS
        assert await where_named(runner.db, name, BOB) == bob


async def test_words_of_a_deleted_person_are_gone_from_what_health_knows(postgres: str) -> None:
    async with a_runner(postgres, health) as runner:
        await runner.handle(of("health", said_by(ANN, 1)))
        await runner.handle(forget(ANN))
        marks = await runner.db.fetchval("select marks::text from health.things where kind = 'answer'")
        assert "Too slow" not in marks
        assert '"score": 2' in marks


async def test_suppression_alone_erases_nothing(postgres: str) -> None:
    async with a_runner(postgres, feedback) as runner:
        await runner.handle(of("feedback", said_by(ANN, 1)))
        said = await runner.handle(forget(ANN, "suppress"))
        assert set(said.counts) == {f"ignored:{privacy.NOTHING_TO_ERASE}"}
        assert await where_named(runner.db, "feedback", ANN) != []


@pytest.mark.parametrize(
    ("user", "text", "found"),
    [
        ("user-1", "user-1", True),
        ("user-1", "id=user-1&x", True),
        ("user-1", "user-10", False),
        ("user-1", "an-user-1", False),
        ("a.b+c@x.example", '{"u": "a.b+c@x.example"}', True),
        ("a.b+c@x.example", '{"u": "aXb+c@x.example"}', False),
        ("é(1)", json.dumps("é(1)"), True),
        ("é(1)", '"é(1)"', True),
        ("a\\b1", json.dumps("a\\b1"), True),
        ("1", "1", False),
        ("1", '{"id":"1"}', True),
        ("a@x.example", "email=a%40x.example&n=1", True),
    ],
)
async def test_an_id_is_found_as_a_word_of_its_own(postgres: str, user: str, text: str, found: bool) -> None:
    connection = await db.connect(postgres)
    try:
        pattern = privacy.whole_word(user)
        assert await connection.fetchval("select encode($1::bytea, 'escape') ~ $2", text.encode(), pattern) is found
        assert privacy.naming([user, "nobody-else"])(text.encode()) is found
    finally:
        await connection.close()


def test_an_alias_does_not_tell_who_it_was() -> None:
    assert ANN not in privacy.alias_of(str(uuid.uuid4()))
    assert privacy.alias_of("p1") == privacy.alias_of("p1") != privacy.alias_of("p2")
