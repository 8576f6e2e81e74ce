"""The SQL of messages to people at customers: who is known there, who asked for silence, and the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.notify.outreach import Person
from shared.db import Connection, columns
from shared.privacy import person_of

SAVE_PEOPLE = """
    insert into notify.people as known (account_id, contact_id, partition, user_id, role, role_at, status, status_at,
                                        hashes)
    select account_id, contact_id, partition, user_id, role, role_at, status, status_at, string_to_array(hashes, ' ')
      from unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::timestamptz[], $7::text[],
                  $8::timestamptz[], $9::text[])
           as new (account_id, contact_id, partition, user_id, role, role_at, status, status_at, hashes)
    on conflict (account_id, contact_id) do update
       set user_id = coalesce(excluded.user_id, known.user_id),
           role = case when known.role_at > excluded.role_at or excluded.role is null then known.role
                       else excluded.role end,
           role_at = greatest(known.role_at, excluded.role_at),
           status = case when known.status_at > excluded.status_at or excluded.status is null then known.status
                         else excluded.status end,
           status_at = greatest(known.status_at, excluded.status_at),
           hashes = array(select distinct unnest(known.hashes || excluded.hashes) order by 1)
"""
HUSH = """
    insert into notify.hushed as known (person, suppressed, said_at)
    select * from unnest($1::text[], $2::bool[], $3::timestamptz[])
    on conflict (person) do update set suppressed = excluded.suppressed, said_at = excluded.said_at
     where known.said_at <= excluded.said_at
"""
FORGET = (
    "delete from notify.people where hashes && array[$1::text]",
    """
    update notify.outreach set contact_id = $2
     where contact_id is not null and encode(sha256(convert_to(contact_id, 'UTF8')), 'hex') = $1
    """,
)
"""A person of whom the SHA-256 is known; the ledger names an alias from then on."""

ADD = """
    insert into notify.outreach (delivery_id, destination, cause, alert_id, account_id, partition, facts, called_at,
                                 created_at, due_at)
    select id, destination, cause, alert_id, account_id, partition, facts, at, at, now() + wait
      from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::jsonb[], $8::timestamptz[],
                  $9::interval[])
           as new (id, destination, cause, alert_id, account_id, partition, facts, at, wait)
    on conflict do nothing
"""
ADD_DESTINATION = "insert into notify.destinations (destination) values ($1) on conflict do nothing"
NEXT = """
    select o.*, now() as now, e.state as episode
      from notify.outreach o left join notify.episodes e using (alert_id)
     where o.destination = $1 and o.state in ('pending', 'sending') and o.due_at <= now()
     order by o.seq limit 1
"""
LIST_PEOPLE = """
    select p.contact_id, p.role, p.user_id, p.status is not distinct from 'left' as left,
           exists (select from notify.hushed h where h.person = any(p.hashes) and h.suppressed) as hushed,
           (select max(coalesce(o.sent_at, o.attempted_at)) from notify.outreach o
             where o.destination = $2 and o.contact_id = p.contact_id
              and (o.account_id = p.account_id
                   or o.account_id in (select m.merged_account_id from notify.merges m
                                        where m.account_id = p.account_id))
               and o.state in ('sent', 'unknown')) as sent_at
      from notify.people p where p.account_id = $1 and (p.contact_id = $3 or $3 is null)
"""
LAST_DAY = """
    select count(*) as n, min(attempted_at) as oldest from notify.outreach
     where destination = $1 and state in ('sent', 'unknown') and attempted_at > now() - interval '1 day'
"""
PUT_OFF = """
    update notify.outreach set due_at = greatest(due_at, $2) where destination = $1 and state = 'pending'
"""
BEGIN = """
    update notify.outreach set state = 'sending', contact_id = $2, attempts = attempts + 1, attempted_at = now()
     where delivery_id = $1
"""
SETTLE = (
    "update notify.outreach set state = $2, reason = $3, contact_id = coalesce($4, contact_id) where delivery_id = $1"
)
FINISH = """
    update notify.outreach
       set state = $2, reason = $3, remote_id = $4, sent_at = case when $2 = 'sent' then now() end
     where delivery_id = $1
"""
STATES = ("pending", "sending", "sent", "unknown", "failed", "suppressed")
COUNT_OF = "select state, count(*) as n from notify.outreach where destination = $1 group by state"
COUNT = "select destination, state, count(*) as n from notify.outreach group by destination, state"
NewRow = tuple[str, str, str, str | None, str, int, dict[str, str], datetime, timedelta]
"""Id, destination, type of the cause, alert, account, partition, facts, time of the cause and wait."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an event said of a contact; what it did not say is None."""

    account_id: str
    contact_id: str
    partition: int
    at: datetime
    user_id: str | None = None
    role: str | None = None
    role_at: datetime | None = None
    status: str | None = None
    status_at: datetime | None = None

    def then(self, later: Told) -> Told:
        merged = replace(self, at=later.at, user_id=later.user_id or self.user_id)
        if later.role is not None:
            merged = replace(merged, role=later.role, role_at=later.role_at)
        if later.status is not None:
            merged = replace(merged, status=later.status, status_at=later.status_at)
        return merged


async def save_people(db: Connection, told: Iterable[Told]) -> None:
    merged: dict[tuple[str, str], Told] = {}
    for one in sorted(told, key=lambda one: one.at):
        key = one.account_id, one.contact_id
        merged[key] = merged[key].then(one) if key in merged else one
    rows = [
        (
            one.account_id, one.contact_id, one.partition, one.user_id, one.role, one.role_at, one.status,
            one.status_at, " ".join(sorted({person_of(id) for id in (one.contact_id, one.user_id) if id})),
        )
        for _, one in sorted(merged.items())
    ]  # fmt: skip
    if rows:
        await db.execute(SAVE_PEOPLE, *columns(rows, 9))


async def hush(db: Connection, rows: Sequence[tuple[str, bool, datetime]]) -> None:
    latest: dict[str, tuple[str, bool, datetime]] = {}
    for row in sorted(rows, key=lambda row: row[2]):
        latest[row[0]] = row
    if latest:
        await db.execute(HUSH, *columns([latest[person] for person in sorted(latest)], 3))


async def forget(db: Connection, person: str, alias: str) -> None:
    await db.execute(FORGET[0], person)
    await db.execute(FORGET[1], person, alias)


async def add(db: Connection, rows: Sequence[NewRow]) -> None:
    if rows:
        await db.execute(ADD, *columns(rows, 9))


async def list_people(db: Connection, account_id: str, destination: str, contact_id: str | None = None) -> list[Person]:
    rows = await db.fetch(LIST_PEOPLE, account_id, destination, contact_id)
    return [Person(**dict(row)) for row in rows]
