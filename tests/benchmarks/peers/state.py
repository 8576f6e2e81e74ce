"""What a one-at-a-time health worker keeps, in the simplest tables that tell the same: an id table against repeats,
an account's totals, its use per day, who used it, its tickets and answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from pydantic import AwareDatetime, BaseModel, ConfigDict

TABLES = """
    create schema if not exists peer;
    create table if not exists peer.seen (id text primary key);
    create table if not exists peer.accounts (
        account_id text primary key, events bigint not null, open_tickets int not null, answers int not null,
        points bigint not null, last_seen_at timestamptz not null
    );
    create table if not exists peer.usage (
        account_id text, day date, events bigint not null, primary key (account_id, day)
    );
    create table if not exists peer.users (account_id text, day date, user_id text, primary key (account_id, day, user_id));
    create table if not exists peer.offsets (partition int primary key, next_offset bigint not null);
    create table if not exists peer.outbox (id bigint generated always as identity primary key, key text, body bytea);
"""  # noqa: E501
SEE = "insert into peer.seen values ($1) on conflict do nothing returning id"
SAVE_ACCOUNT = """
    insert into peer.accounts as a values ($1, 1, greatest($2, 0), $3, $4, $5)
    on conflict (account_id) do update
       set events = a.events + 1, open_tickets = greatest(a.open_tickets + $2, 0), answers = a.answers + $3,
           points = a.points + $4, last_seen_at = greatest(a.last_seen_at, $5)
    returning events - 10 * open_tickets + points
"""
SAVE_USAGE = """
    insert into peer.usage as u values ($1, $2::timestamptz::date, 1)
    on conflict (account_id, day) do update set events = u.events + 1
"""
SAVE_USER = "insert into peer.users values ($1, $2::timestamptz::date, $3) on conflict do nothing"
SAVE_OFFSET = """
    insert into peer.offsets values ($1, $2) on conflict (partition) do update set next_offset = excluded.next_offset
"""
SAVE_RESULT = "insert into peer.outbox (key, body) values ($1, $2)"
STATEMENTS = (SEE, SAVE_ACCOUNT, SAVE_USAGE, SAVE_USER, SAVE_OFFSET, SAVE_RESULT)


class Event(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    account_id: str
    user_id: str | None = None
    timestamp: AwareDatetime
    score: float | None = None


class Result(BaseModel):
    account_id: str
    score: float
    cause_id: str


async def apply(fetch: Callable[..., Awaitable[Any]], event: Event) -> Result | None:
    """One event into the tables; None if it had been seen."""
    if await fetch(SEE, event.id) is None:
        return None
    opened = {"ticket.opened": 1, "ticket.solved": -1}.get(event.type, 0)
    answered = event.score is not None
    score = await fetch(SAVE_ACCOUNT, event.account_id, opened, int(answered), int(event.score or 0), event.timestamp)
    if event.type == "usage.tracked":
        await fetch(SAVE_USAGE, event.account_id, event.timestamp)
        if event.user_id:
            await fetch(SAVE_USER, event.account_id, event.timestamp, event.user_id)
    return Result(account_id=event.account_id, score=float(score), cause_id=event.id)


def read(body: bytes) -> Event:
    return Event.model_validate_json(body)


def write(result: Result) -> bytes:
    return msgspec.json.encode(result.model_dump())
