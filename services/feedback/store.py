"""Feedback's SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.feedback.domain import Standing
from shared.db import Connection, columns
from shared.surveys import Measure, Statement, SurveyRules

ERASE = (
    "update feedback.statements set user_id = $3 where partition = $1 and user_id = $2",
    "update feedback.invitations set recipient_id = $3 where partition = $1 and recipient_id = $2",
)
"""Partition, user, alias."""
STATEMENT = "answer_id, named, what, user_id, kind, score, scale, occurred_at, source, event_id"

SAVE_STATEMENTS = """
    insert into feedback.statements
           (account_id, answer_id, named, what, user_id, kind, score, scale, survey_id, product_area,
            occurred_at, source, event_id, partition)
    select * from unnest($1::text[], $2::text[], $3::bool[], $4::text[], $5::text[], $6::text[], $7::float8[],
                         $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::text[], $13::text[], $14::int[])
    on conflict do nothing
"""
SAVE_INVITATIONS = """
    insert into feedback.invitations
           (account_id, what, survey_id, kind, recipient_id, occurred_at, source, event_id, partition)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[],
                         $8::text[], $9::int[])
    on conflict do nothing
"""
SAVE_SEGMENTS = """
    insert into feedback.segments (account_id, segment, effective_at, event_id, partition)
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::int[])
    on conflict do nothing
"""
SAVE_BEHIND = """
    insert into feedback.accounts (account_id, next_due_at, partition)
    select account_id, '-infinity', partition from unnest($1::text[], $2::int[]) as known (account_id, partition)
    on conflict (account_id) do update set next_due_at = excluded.next_due_at
"""
SAVE_CAUGHT_UP = "update feedback.accounts set next_due_at = null where account_id = any($1)"
LIST_BEHIND = "select account_id from feedback.accounts where account_id = any($1) and next_due_at is not null"
LIST_DUE = """
    select account_id, accounts.partition
      from feedback.accounts join unnest($1::int[], $2::timestamptz[]) as clocks (partition, clock)
        on accounts.partition = clocks.partition and accounts.next_due_at <= clocks.clock
     order by account_id
     limit $3
"""
LOAD_TALLIES = """
    select account_id, kind, scale, histogram, shown, revision from feedback.tallies where account_id = any($1)
"""
SAVE_TALLIES = """
    insert into feedback.tallies (account_id, kind, scale, histogram, shown, revision, partition)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::jsonb[], $6::int[], $7::int[])
    on conflict (account_id, kind, scale) do update
       set histogram = excluded.histogram, shown = excluded.shown, revision = excluded.revision
"""
LOAD_STATEMENTS = f"""
    select account_id, {STATEMENT} from feedback.statements
     where account_id = any($1) and (merged_at is null or $2::timestamptz is null or merged_at <= $2)
"""
# Of each (account, answer) touched: all that was said under its name and, for every person who answered there
# or answers now, all that was said under the names of that person's other answers.
LOAD_TOUCHED = f"""
    with names as (
        select * from unnest($1::text[], $2::text[]) as name (account_id, answer_id)
    ), users as (
        select * from unnest($3::text[], $4::text[]) as speaker (account_id, user_id)
        union
        select account_id, user_id from feedback.statements join names using (account_id, answer_id)
         where what = 'answered' and user_id is not null
    ), touched as (
        select account_id, answer_id from names
        union
        select account_id, answer_id from feedback.statements join users using (account_id, user_id)
         where what = 'answered'
    )
    select account_id, {STATEMENT} from feedback.statements join touched using (account_id, answer_id)
"""
EACH_STATEMENT = f"""
    select account_id, {STATEMENT} from feedback_api.statements_v1 said
     where occurred_at <= $1 and (merged_at is null or merged_at <= $1)
       and not exists (select from feedback_api.merges_v1 gone
                        where gone.merged_account_id = said.account_id and gone.merged_at <= $1)
     order by account_id
"""
LIST_SEGMENTS = """
    select account_id, segment, effective_at, event_id from feedback_api.segments_v1 where effective_at <= $1
"""


@dataclass(frozen=True, slots=True)
class StatementRow:
    """A statement with what is kept beside it."""

    account_id: str
    partition: int
    statement: Statement
    survey_id: str | None = None
    product_area: str | None = None


@dataclass(slots=True)
class Shown:
    """What was published last of an account's measure, and how many times."""

    figure: dict[str, Any] | None = None
    revision: int = 0


def _statement(row: Mapping[str, Any]) -> Statement:
    return Statement(
        row["answer_id"], row["what"], row["occurred_at"], row["source"], row["event_id"], row["named"],
        row["user_id"], row["kind"], row["score"], row["scale"],
    )  # fmt: skip


async def save_statements(db: Connection, rows: Sequence[StatementRow]) -> None:
    table = [
        (
            row.account_id, one.name, one.named, one.what, one.user_id, one.kind, one.score, one.scale, row.survey_id,
            row.product_area, one.at, one.source, one.event_id, row.partition,
        )
        for row in rows
        for one in (row.statement,)
    ]  # fmt: skip
    await db.execute(SAVE_STATEMENTS, *columns(table, 14))


async def save_invitations(db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    await db.execute(SAVE_INVITATIONS, *columns(rows, 9))


async def save_segments(db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    await db.execute(SAVE_SEGMENTS, *columns(rows, 5))


async def save_behind(db: Connection, accounts: Mapping[str, int]) -> None:
    await db.execute(SAVE_BEHIND, list(accounts), list(accounts.values()))


async def save_caught_up(db: Connection, account_ids: Collection[str]) -> None:
    await db.execute(SAVE_CAUGHT_UP, list(account_ids))


async def list_behind(db: Connection, account_ids: Collection[str]) -> set[str]:
    return {row["account_id"] for row in await db.fetch(LIST_BEHIND, list(account_ids))}


async def list_due(db: Connection, clocks: Mapping[int, datetime], limit: int) -> dict[str, int]:
    rows = await db.fetch(LIST_DUE, list(clocks), list(clocks.values()), limit)
    return {row["account_id"]: row["partition"] for row in rows}


async def load_tallies(
    db: Connection, account_ids: Collection[str]
) -> tuple[dict[str, dict[Measure, Counter[int]]], dict[tuple[str, Measure], Shown]]:
    """Tallies by account, and what was shown of each."""
    counts: dict[str, dict[Measure, Counter[int]]] = {}
    shown: dict[tuple[str, Measure], Shown] = {}
    for row in await db.fetch(LOAD_TALLIES, list(account_ids)):
        measure = Measure(row["kind"], row["scale"])
        histogram = Counter({int(point): count for point, count in row["histogram"].items()})
        counts.setdefault(row["account_id"], {})[measure] = histogram
        shown[row["account_id"], measure] = Shown(row["shown"], row["revision"])
    return counts, shown


async def save_tallies(
    db: Connection,
    standings: Mapping[str, Standing],
    shown: Mapping[tuple[str, Measure], Shown],
    partitions: Mapping[str, int],
) -> None:
    table = []
    for account_id, standing in standings.items():
        for measure, histogram in standing.counts.items():
            last = shown.get((account_id, measure), Shown())
            points = {str(point): count for point, count in sorted(histogram.items())}
            table.append(
                (account_id, measure.kind, measure.scale, points, last.figure, last.revision, partitions[account_id])
            )
    await db.execute(SAVE_TALLIES, *columns(table, 7))


async def load_statements(
    db: Connection, account_ids: Collection[str], rules: SurveyRules, at: datetime | None = None
) -> dict[str, Standing]:
    """Everything that was said at these accounts and, up to `at`, at those merged into them; no tallies yet."""
    standings = {account_id: Standing(rules) for account_id in account_ids}
    for row in await db.fetch(LOAD_STATEMENTS, list(account_ids), at):
        standings[row["account_id"]].remember(_statement(row))
    return standings


async def load_touched(db: Connection, rows: Sequence[StatementRow], standings: Mapping[str, Standing]) -> None:
    """Into the standings, what was said before about the answers and by the persons of these statements."""
    names = {(row.account_id, row.statement.name) for row in rows}
    users = {(row.account_id, row.statement.user_id) for row in rows if row.statement.user_id is not None}
    table = await db.fetch(
        LOAD_TOUCHED,
        [account_id for account_id, _ in names],
        [name for _, name in names],
        [account_id for account_id, _ in users],
        [user for _, user in users],
    )
    for row in table:
        standings[row["account_id"]].remember(_statement(row))


async def each_account(db: Connection, as_of: datetime) -> AsyncIterator[tuple[str, list[Statement]]]:
    """Account by account, what was said up to a time; one account in memory at once."""
    async with db.transaction(readonly=True):
        account_id: str | None = None
        said: list[Statement] = []
        async for row in db.cursor(EACH_STATEMENT, as_of, prefetch=2000):
            if row["account_id"] != account_id:
                if account_id is not None:
                    yield account_id, said
                account_id, said = row["account_id"], []
            said.append(_statement(row))
        if account_id is not None:
            yield account_id, said


async def list_segments(db: Connection, as_of: datetime) -> dict[str, list[tuple[datetime, str, str | None]]]:
    """The segments an account was in: (effective, event id, segment)."""
    found: dict[str, list[tuple[datetime, str, str | None]]] = {}
    for row in await db.fetch(LIST_SEGMENTS, as_of):
        entry = row["effective_at"], row["event_id"], row["segment"]
        found.setdefault(row["account_id"], []).append(entry)
    return found


def accounts_of(rows: Iterable[StatementRow]) -> dict[str, int]:
    return {row.account_id: row.partition for row in rows}
