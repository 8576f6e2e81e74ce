"""Voice's SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.voc.analysis import from_json, to_json
from services.voc.domain import Rate, Relabel, Statement, Worth
from shared.db import Connection, columns

STATEMENT = """account_id, item_id, what, occurred_at, origin, event_id, source, words, title, wish, user_id,
               product_area, severity, survey, score, scale, given_language, reading, rule"""

SAVE_STATEMENTS = f"""
    insert into voc.statements ({STATEMENT}, partition)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
                         $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
                         $15::float8[], $16::text[], $17::text[], $18::jsonb[], $19::text[], $20::int[])
    on conflict do nothing
"""
# All statements of the items touched, and of the other items that share a wish with them.
LOAD_TOUCHED = f"""
    with names as (
        select * from unnest($1::text[], $2::text[]) as name (account_id, item_id)
    ), wishes as (
        select * from unnest($3::text[], $4::text[]) as asked (account_id, wish)
    ), touched as (
        select account_id, item_id from names
        union
        select account_id, item_id from voc.statements join wishes using (account_id, wish)
    )
    select {STATEMENT} from voc.statements join touched using (account_id, item_id)
"""
LOAD_STATEMENTS = f"select {STATEMENT} from voc.statements where account_id = any($1)"
EACH_STATEMENT = f"select {STATEMENT} from voc_api.statements_v1 where occurred_at <= $1 order by account_id"
LIST_STALE = f"""
    select {STATEMENT}, partition from voc.statements
     where partition = any($1) and rule is not null and words is not null and (rule < $2 or rule > $2)
     order by account_id, item_id, occurred_at, origin, event_id
     limit $3
"""
SAVE_READINGS = """
    update voc.statements set reading = fresh.reading, rule = fresh.rule
      from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::jsonb[], $7::text[])
           as fresh (account_id, item_id, occurred_at, origin, event_id, reading, rule)
     where (statements.account_id, statements.item_id, statements.occurred_at, statements.origin, statements.event_id)
         = (fresh.account_id, fresh.item_id, fresh.occurred_at, fresh.origin, fresh.event_id)
"""
LOAD_RELABELS = """
    select account_id, item_id, request_id, decided_at, themes, by
      from voc.relabels join unnest($1::text[], $2::text[]) as name (account_id, item_id) using (account_id, item_id)
"""
LOAD_ALL_RELABELS = """
    select account_id, item_id, request_id, decided_at, themes, by from voc.relabels where account_id = any($1)
"""
LIST_RELABELS = """
    select account_id, item_id, request_id, decided_at, themes, by from voc_api.relabels_v1 where decided_at <= $1
"""
SAVE_RELABELS = """
    insert into voc.relabels (account_id, item_id, request_id, decided_at, themes, by, partition)
    values ($1, $2, $3, $4, $5, $6, $7)
    on conflict do nothing
"""
SAVE_WORTHS = """
    insert into voc.worths (account_id, holding, occurred_at, event_id, amount, currency, partition)
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::numeric[], $6::text[], $7::int[])
    on conflict do nothing
"""
LOAD_WORTHS = """
    select account_id, holding, occurred_at, event_id, amount, currency from voc.worths where account_id = any($1)
"""
LIST_WORTHS = """
    select account_id, holding, occurred_at, event_id, amount, currency from voc_api.worths_v1 where occurred_at <= $1
"""
SAVE_RATES = """
    insert into voc.rates (currency, year, occurred_at, event_id, rate, partition)
    select * from unnest($1::text[], $2::int[], $3::timestamptz[], $4::text[], $5::numeric[], $6::int[])
    on conflict do nothing
"""
LIST_RATES = "select currency, year, occurred_at, event_id, rate from voc_api.rates_v1"
SAVE_MERGES = """
    insert into voc.merges (merged_account_id, account_id, occurred_at, event_id, partition)
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::int[])
    on conflict do nothing
"""
LIST_MERGES = """
    select merged_account_id, account_id from voc_api.merges_v1 where occurred_at <= $1
     order by occurred_at, event_id
"""
LOAD_ERASED = "select account_id, user_id from voc.erased where account_id = any($1) or account_id = '*'"
SAVE_ERASED = """
    insert into voc.erased (account_id, user_id, occurred_at, partition)
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::int[])
    on conflict do nothing
"""
ERASE = """
    update voc.statements set words = case when words = '' then '' end, user_id = null
      from unnest($1::text[], $2::text[], $3::int[]) as person (account_id, user_id, partition)
     where statements.user_id = person.user_id
       and (statements.account_id = person.account_id
            or person.account_id = '*' and statements.partition = person.partition)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A statement with the partition it is kept under."""

    statement: Statement
    partition: int


def _statement(row: Mapping[str, Any]) -> Statement:
    stored, rule = row["reading"], row["rule"]
    return Statement(
        row["account_id"], row["item_id"], row["what"], row["occurred_at"], row["origin"], row["event_id"],
        row["source"], row["words"], row["title"], row["wish"], row["user_id"], row["product_area"], row["severity"],
        row["survey"], row["score"], row["scale"], row["given_language"],
        None if stored is None else from_json(stored, rule),
    )  # fmt: skip


def _relabel(row: Mapping[str, Any]) -> Relabel:
    return Relabel(
        row["account_id"], row["item_id"], row["request_id"], row["decided_at"], tuple(row["themes"]), row["by"]
    )


def _worth(row: Mapping[str, Any]) -> Worth:
    return Worth(row["account_id"], row["holding"], row["occurred_at"], row["event_id"], row["amount"], row["currency"])


async def save_statements(db: Connection, kept: Sequence[Kept]) -> None:
    rows = [
        (
            one.account_id, one.item_id, one.what, one.at, one.origin, one.event_id, one.source, one.text, one.title,
            one.wish, one.user_id, one.product_area, one.severity, one.survey, one.score, one.scale,
            one.given_language, None if one.reading is None else to_json(one.reading),
            None if one.reading is None else one.reading.rule, row.partition,
        )
        for row in kept
        for one in (row.statement,)
    ]  # fmt: skip
    await db.execute(SAVE_STATEMENTS, *columns(rows, 20))


async def load_touched(
    db: Connection, items: Collection[tuple[str, str]], wishes: Collection[tuple[str, str]]
) -> list[Statement]:
    """Statements of the items by (account, item), and of all items that ask for the wishes by (account, key)."""
    rows = await db.fetch(LOAD_TOUCHED, *columns(sorted(items), 2), *columns(sorted(wishes), 2))
    return [_statement(row) for row in rows]


async def load_statements(db: Connection, account_ids: Collection[str]) -> list[Statement]:
    return [_statement(row) for row in await db.fetch(LOAD_STATEMENTS, list(account_ids))]


async def each_statement(db: Connection, as_of: datetime) -> AsyncIterator[Statement]:
    async for row in db.cursor(EACH_STATEMENT, as_of, prefetch=1000):
        yield _statement(row)


async def list_stale(db: Connection, partitions: Collection[int], rule: str, limit: int) -> list[Kept]:
    """Statements read by other rules than these."""
    rows = await db.fetch(LIST_STALE, list(partitions), rule, limit)
    return [Kept(_statement(row), row["partition"]) for row in rows]


async def save_readings(db: Connection, statements: Iterable[Statement]) -> None:
    rows = [
        (one.account_id, one.item_id, one.at, one.origin, one.event_id, to_json(one.reading), one.reading.rule)
        for one in statements
        if one.reading is not None
    ]
    await db.execute(SAVE_READINGS, *columns(rows, 7))


async def load_relabels(db: Connection, items: Collection[tuple[str, str]]) -> list[Relabel]:
    return [_relabel(row) for row in await db.fetch(LOAD_RELABELS, *columns(sorted(items), 2))]


async def load_all_relabels(db: Connection, account_ids: Collection[str]) -> list[Relabel]:
    return [_relabel(row) for row in await db.fetch(LOAD_ALL_RELABELS, list(account_ids))]


async def list_relabels(db: Connection, as_of: datetime) -> list[Relabel]:
    return [_relabel(row) for row in await db.fetch(LIST_RELABELS, as_of)]


async def save_relabels(db: Connection, relabels: Sequence[tuple[Relabel, int]]) -> None:
    rows = [
        (one.account_id, one.item_id, one.request_id, one.decided_at, list(one.themes), one.by, partition)
        for one, partition in relabels
    ]
    await db.executemany(SAVE_RELABELS, rows)


async def save_worths(db: Connection, worths: Sequence[tuple[Worth, int]]) -> None:
    rows = [(one.account_id, one.holding, one.at, one.event_id, one.amount, one.currency, at) for one, at in worths]
    await db.execute(SAVE_WORTHS, *columns(rows, 7))


async def load_worths(db: Connection, account_ids: Collection[str]) -> list[Worth]:
    return [_worth(row) for row in await db.fetch(LOAD_WORTHS, list(account_ids))]


async def list_worths(db: Connection, as_of: datetime) -> list[Worth]:
    return [_worth(row) for row in await db.fetch(LIST_WORTHS, as_of)]


async def save_rates(db: Connection, rates: Sequence[tuple[Rate, int]]) -> None:
    rows = [(one.currency, one.year, one.at, one.event_id, one.rate, partition) for one, partition in rates]
    await db.execute(SAVE_RATES, *columns(rows, 6))


async def list_rates(db: Connection) -> list[Rate]:
    rows = await db.fetch(LIST_RATES)
    return [Rate(row["currency"], row["year"], row["occurred_at"], row["event_id"], row["rate"]) for row in rows]


async def save_merges(db: Connection, merges: Sequence[tuple[str, str, datetime, str, int]]) -> None:
    await db.execute(SAVE_MERGES, *columns(merges, 5))


async def list_merges(db: Connection, as_of: datetime) -> list[tuple[str, str]]:
    """(merged account, what it became), in order of time."""
    rows = await db.fetch(LIST_MERGES, as_of)
    return [(row["merged_account_id"], row["account_id"]) for row in rows]


async def load_erased(db: Connection, account_ids: Collection[str]) -> set[tuple[str, str]]:
    return {(row["account_id"], row["user_id"]) for row in await db.fetch(LOAD_ERASED, list(account_ids))}


async def save_erased(db: Connection, persons: Sequence[tuple[str, str, datetime, int]]) -> None:
    """Remember whose words must not be kept, and drop those that are."""
    await db.execute(SAVE_ERASED, *columns(persons, 4))
    await db.execute(ERASE, *columns([(account, user, p) for account, user, _, p in persons], 3))
