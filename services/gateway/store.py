"""The gateway's SQL: keys and accepted requests in the control database, answers beside each partition."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from shared.db import Connection, Pool

Database: TypeAlias = "Connection | Pool"

LOAD_KEYS = "select name, hash, scopes from gateway.keys where revoked_at is null"
LIST_KEYS = "select name, scopes, created_at, revoked_at from gateway.keys order by created_at, name"
SAVE_KEY = """
    insert into gateway.keys (name, hash, scopes) values ($1, $2, $3)
        on conflict do nothing
 returning name
"""
REVOKE_KEY = "update gateway.keys set revoked_at = now() where name = $1 and revoked_at is null returning name"

SAVE_REQUEST = """
    insert into gateway.requests (id, fingerprint, demand, account_id) values ($1, $2, $3, $4)
        on conflict (id) do nothing
 returning id
"""
LOAD_REQUEST = "select id, fingerprint, demand, account_id, produced_at from gateway.requests where id = $1"
MARK_PRODUCED = """
    insert into gateway.requests (id, fingerprint, demand, account_id, produced_at) values ($1, $2, $3, $4, now())
        on conflict (id) do update set produced_at = now()
"""
DROP_UNPRODUCED = "delete from gateway.requests where id = $1 and produced_at is null"

SAVE_ANSWERS = """
    insert into gateway.answers
           (request_id, partition, status, demand, account_id, confidence, as_of, answer, reason, candidates,
            received_at)
    select request_id, partition, status, demand, account_id, confidence, as_of, answer::jsonb, reason,
           array(select jsonb_array_elements_text(candidates::jsonb)), received_at
      from unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::timestamptz[],
                  $8::text[], $9::text[], $10::text[], $11::timestamptz[])
           as row (request_id, partition, status, demand, account_id, confidence, as_of, answer, reason, candidates,
                   received_at)
        on conflict (request_id) do nothing
 returning request_id
"""
LOAD_ANSWERS = """
    select request_id, status, demand, account_id, confidence, as_of, answer, reason, candidates, received_at
      from gateway.answers
     where request_id = any($1)
"""
SAVE_ACCOUNTS = """
    insert into gateway.accounts as known (account_id, partition, state, change)
    select account_id, partition, state::jsonb, change::jsonb
      from unnest($1::text[], $2::int[], $3::text[], $4::text[]) as row (account_id, partition, state, change)
        on conflict (account_id) do update
       set partition = excluded.partition,
           state = coalesce(excluded.state, known.state),
           change = coalesce(excluded.change, known.change)
"""
LOAD_ACCOUNT = "select state, change from gateway.accounts where account_id = $1"
SAVE_GONE = """
    insert into gateway.gone (person, partition, suppressed) values ($1, $2, $3)
        on conflict (person) do update set suppressed = excluded.suppressed
"""
LIST_GONE = "select person from gateway.gone where suppressed"
DROP_OLD_REQUESTS = "delete from gateway.requests where received_at < now() - make_interval(days => $1)"
DROP_OLD_ANSWERS = "delete from gateway.answers where received_at < now() - make_interval(days => $1)"


def hash_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


async def load_keys(db: Database) -> list[Any]:
    return list(await db.fetch(LOAD_KEYS))


async def list_keys(db: Database) -> list[Any]:
    return list(await db.fetch(LIST_KEYS))


async def save_key(db: Database, name: str, key: str, scopes: Sequence[str]) -> bool:
    """Store the key's hash; False if the name or the key is taken."""
    return await db.fetchval(SAVE_KEY, name, hash_of(key), list(scopes)) is not None


async def revoke_key(db: Database, name: str) -> bool:
    return await db.fetchval(REVOKE_KEY, name) is not None


async def save_request(db: Database, id: str, fingerprint: bytes, demand: str | None, account_id: str | None) -> bool:
    """Write the request down as pending; False if the id is known already."""
    return await db.fetchval(SAVE_REQUEST, id, fingerprint, demand, account_id) is not None


async def load_request(db: Database, id: str) -> Any | None:
    return await db.fetchrow(LOAD_REQUEST, id)


async def mark_produced(db: Database, id: str, fingerprint: bytes, demand: str | None, account_id: str | None) -> None:
    await db.execute(MARK_PRODUCED, id, fingerprint, demand, account_id)


async def drop_unproduced(db: Database, id: str) -> None:
    await db.execute(DROP_UNPRODUCED, id)


async def save_answers(db: Database, columns: Sequence[Sequence[Any]]) -> set[str]:
    """Write answers, given as the columns of SAVE_ANSWERS; gives the ids that had none before."""
    return {row["request_id"] for row in await db.fetch(SAVE_ANSWERS, *columns)}


async def load_answers(db: Database, ids: Collection[str]) -> list[Any]:
    return list(await db.fetch(LOAD_ANSWERS, list(ids)))


async def save_accounts(db: Database, columns: Sequence[Sequence[Any]]) -> None:
    """Write what is newer of accounts, given as the columns of SAVE_ACCOUNTS; null leaves what is known."""
    await db.execute(SAVE_ACCOUNTS, *columns)


async def load_account(db: Database, account_id: str) -> Any | None:
    return await db.fetchrow(LOAD_ACCOUNT, account_id)


async def save_gone(db: Database, person: bytes, partition: int, suppressed: bool) -> None:
    await db.execute(SAVE_GONE, person, partition, suppressed)


async def list_gone(db: Database) -> set[bytes]:
    """SHA-256 of the ids of suppressed persons."""
    return {row["person"] for row in await db.fetch(LIST_GONE)}


async def drop_old(db: Database, days: int) -> None:
    await db.execute(DROP_OLD_REQUESTS, days)
    await db.execute(DROP_OLD_ANSWERS, days)
