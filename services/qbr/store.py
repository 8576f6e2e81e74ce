"""The SQL of reviews."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from services.qbr.domain import Account, Decision, Review, Said
from services.qbr.facts import Fact, said_of_meeting
from services.qbr.usage import DayRow, Draft, Usage, pack
from shared.db import Connection, columns

FACT = "account_id, type, subject, data, occurred_at, source, event_id"
REVIEW = (
    "review_id, account_id, kind, period, starts_at, ends_at, due_at, status, planned, scheduled_for, meeting_id, "
    "held_at, prepared_at, sponsor_attended, rescheduled, no_shows"
)

ERASE = (
    """
    update qbr.facts set data = replace(data::text, to_jsonb($2::text)::text, to_jsonb($3::text)::text)::jsonb
     where partition = $1 and position(to_jsonb($2::text)::text in data::text) > 0
    """,
)
"""Partition, user, alias. The hashes of users in the packed use stay: they are what counts people."""
SAVE_FACTS = """
    insert into qbr.facts (account_id, type, subject, data, occurred_at, source, event_id, partition)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::timestamptz[], $6::text[], $7::text[],
                         $8::int[])
    on conflict do nothing
"""
SAVE_SEGMENTS = """
    insert into qbr.segments (account_id, segment, effective_at, event_id, partition)
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::int[])
    on conflict do nothing
"""
SAVE_DUE = """
    insert into qbr.accounts (account_id, next_due_at, partition)
    select * from unnest($1::text[], $2::timestamptz[], $3::int[])
    on conflict (account_id) do update set next_due_at = excluded.next_due_at
"""
SAVE_DUE_NOW = """
    insert into qbr.accounts (account_id, next_due_at, partition)
    select account_id, '-infinity', partition from unnest($1::text[], $2::int[]) as known (account_id, partition)
    on conflict (account_id) do update set next_due_at = excluded.next_due_at
"""
LIST_DUE = """
    select account_id, accounts.partition
      from qbr.accounts join unnest($1::int[], $2::timestamptz[]) as clocks (partition, clock)
        on accounts.partition = clocks.partition and accounts.next_due_at <= clocks.clock
     order by account_id
     limit $3
"""
LOAD_SEGMENTS = """
    select account_id, segment, effective_at, event_id from qbr.segments where account_id = any($1)
"""
LOAD_MEETINGS = f"select {FACT} from qbr.facts where account_id = any($1) and type like 'meeting.%'"
LOAD_REVIEWS = f"select {REVIEW}, decisions from qbr.reviews where account_id = any($1)"
LOAD_FACTS = f"""
    select {FACT} from qbr.facts
     where account_id = any($1) and occurred_at <= $2 and (merged_at is null or merged_at <= $2)
"""
LOAD_USAGE = """
    select account_id, day, packed, features, first_at, first_id, last_at, last_id
      from qbr.usage_days
     where account_id = any($1) and day >= $2 and day <= $3 and (merged_at is null or merged_at <= $4)
"""
LIST_USED_BEFORE = """
    select account_id from unnest($1::text[]) as asked (account_id)
     where exists (select from qbr.usage_days used where used.account_id = asked.account_id and used.day < $2
                      and (used.merged_at is null or used.merged_at <= $3))
"""
SAVE_REVIEWS = f"""
    insert into qbr.reviews ({REVIEW}, decisions, partition)
    select known.*, given.decisions, given.partition
      from unnest($1::jsonb[], $2::int[], $3::int[]) as given (review, decisions, partition),
           lateral (select {REVIEW} from jsonb_populate_record(null::qbr.reviews, given.review)) as known
    on conflict (review_id) do update
       set due_at = excluded.due_at, status = excluded.status, scheduled_for = excluded.scheduled_for,
           meeting_id = excluded.meeting_id, held_at = excluded.held_at, prepared_at = excluded.prepared_at,
           sponsor_attended = excluded.sponsor_attended, rescheduled = excluded.rescheduled,
           no_shows = excluded.no_shows, decisions = excluded.decisions
"""
SAVE_LOG = """
    insert into qbr.review_log (review_id, n, account_id, what, decided_at, review, partition)
    select * from unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::timestamptz[], $6::jsonb[], $7::int[])
"""
LIST_REVIEWS = """
    select distinct on (review_id) review_id, review, decided_at
      from qbr_api.review_log_v1 where decided_at <= $1
     order by review_id, n desc
"""
LIST_MERGED = "select merged_account_id from qbr_api.merges_v1 where merged_at <= $1"
LIST_SEGMENTS = "select account_id, segment, effective_at, event_id from qbr_api.segments_v1 where effective_at <= $1"

USAGE_COLUMNS = (
    "account_id", "day", "seq", "events", "packed", "features", "first_at", "first_id", "last_at", "last_id",
    "partition",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision with its number in the review's log."""

    decision: Decision
    n: int
    at: datetime
    partition: int


def _fact(row: Mapping[str, Any]) -> Fact:
    return Fact(row["type"], row["subject"], row["occurred_at"], row["source"], row["event_id"], row["data"])


async def save_usage(db: Connection, drafts: Mapping[tuple[str, date], Draft], seq: int) -> None:
    """One row per account and day of this transaction, by COPY."""
    records = [
        (
            account_id, day, seq, len(draft.words) // 2, pack(draft), list(draft.features),
            *draft.first, *draft.last, draft.partition,
        )
        for (account_id, day), draft in drafts.items()
    ]  # fmt: skip
    await db.copy_records_to_table("usage_days", schema_name="qbr", columns=USAGE_COLUMNS, records=records)


async def save_facts(db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    await db.execute(SAVE_FACTS, *columns(rows, 8))


async def save_segments(db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    await db.execute(SAVE_SEGMENTS, *columns(rows, 5))


async def save_due(db: Connection, due: Mapping[str, datetime | None], partitions: Mapping[str, int]) -> None:
    await db.execute(SAVE_DUE, list(due), list(due.values()), [partitions[account_id] for account_id in due])


async def save_due_now(db: Connection, partitions: Mapping[str, int]) -> None:
    await db.execute(SAVE_DUE_NOW, list(partitions), list(partitions.values()))


async def list_due(db: Connection, clocks: Mapping[int, datetime], limit: int) -> dict[str, int]:
    rows = await db.fetch(LIST_DUE, list(clocks), list(clocks.values()), limit)
    return {row["account_id"]: row["partition"] for row in rows}


async def load_accounts(db: Connection, account_ids: Collection[str]) -> tuple[dict[str, Account], dict[str, int]]:
    """What decides the reviews of accounts, and how many decisions each review has in its log."""
    wanted = list(account_ids)
    segments: dict[str, list[tuple[datetime, str, str | None]]] = {}
    for row in await db.fetch(LOAD_SEGMENTS, wanted):
        entry = row["effective_at"], row["event_id"], row["segment"]
        segments.setdefault(row["account_id"], []).append(entry)
    meetings: dict[str, list[Said]] = {}
    for row in await db.fetch(LOAD_MEETINGS, wanted):
        meetings.setdefault(row["account_id"], []).append(said_of_meeting(_fact(row)))
    reviews: dict[str, list[Review]] = {}
    numbers: dict[str, int] = {}
    for row in await db.fetch(LOAD_REVIEWS, wanted):
        reviews.setdefault(row["account_id"], []).append(_review(row))
        numbers[row["review_id"]] = row["decisions"]
    accounts = {
        account_id: Account(
            account_id, segments.get(account_id, []), meetings.get(account_id, []), reviews.get(account_id, [])
        )
        for account_id in wanted
    }
    return accounts, numbers


def _review(row: Mapping[str, Any]) -> Review:
    return Review(**{name: row[name] for name in Review.__dataclass_fields__})


async def load_facts(db: Connection, account_ids: Collection[str], until: datetime) -> dict[str, list[Fact]]:
    facts: dict[str, list[Fact]] = {account_id: [] for account_id in account_ids}
    for row in await db.fetch(LOAD_FACTS, list(account_ids), until):
        facts[row["account_id"]].append(_fact(row))
    return facts


async def load_usage(
    db: Connection, account_ids: Collection[str], first: date, last: date, at: datetime
) -> tuple[dict[str, Usage], set[str]]:
    """The usage of these days, and the accounts that were used before them."""
    rows: dict[str, list[DayRow]] = {account_id: [] for account_id in account_ids}
    for row in await db.fetch(LOAD_USAGE, list(account_ids), first, last, at):
        marks = (row["first_at"], row["first_id"]), (row["last_at"], row["last_id"])
        rows[row["account_id"]].append(DayRow(row["day"], row["packed"], tuple(row["features"]), *marks))
    before = {row["account_id"] for row in await db.fetch(LIST_USED_BEFORE, list(account_ids), first, at)}
    return {account_id: Usage(of) for account_id, of in rows.items()}, before


async def save_decisions(db: Connection, recorded: Sequence[Recorded]) -> None:
    """Every decision into the log, and each review as its last decision left it."""
    log = [
        (
            one.decision.review.review_id, one.n, one.decision.review.account_id, one.decision.what, one.at,
            one.decision.review.row(), one.partition,
        )
        for one in recorded
    ]  # fmt: skip
    await db.execute(SAVE_LOG, *columns(log, 7))
    last = {one.decision.review.review_id: one for one in recorded}
    rows = [(one.decision.review.row(), one.n, one.partition) for one in last.values()]
    await db.execute(SAVE_REVIEWS, *columns(rows, 3))


async def list_reviews(db: Connection, as_of: datetime) -> list[tuple[Review, datetime]]:
    """Each review as it stood at a time, and when it came to stand so; what was open of a merged account is none."""
    merged = {row["merged_account_id"] for row in await db.fetch(LIST_MERGED, as_of)}
    found = [(Review.of_row(row["review"]), row["decided_at"]) for row in await db.fetch(LIST_REVIEWS, as_of)]
    return [(one, at) for one, at in found if one.account_id not in merged or one.status in ("held", "missed")]


async def list_segments(db: Connection, as_of: datetime) -> dict[str, list[tuple[datetime, str, str | None]]]:
    found: dict[str, list[tuple[datetime, str, str | None]]] = {}
    for row in await db.fetch(LIST_SEGMENTS, as_of):
        entry = row["effective_at"], row["event_id"], row["segment"]
        found.setdefault(row["account_id"], []).append(entry)
    return found
