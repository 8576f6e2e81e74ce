"""The vault's tables, in the control database: kept, looked up, destroyed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import Misconfigured
from shared.vault.keys import Keys, Unreadable, lock, new_key, unlock
from shared.vault.sealing import EMAIL, REFERENCE, TOKEN, Contact, replaced, tokens_in

if TYPE_CHECKING:
    from shared.db import Connection

DELETED = "(deleted person)"
_LOCK = 0x56415554

# Keeping and destroying exclude each other: what is kept knows of every deletion.
KEEP = f"select pg_advisory_xact_lock_shared({_LOCK})"
DESTROY = f"select pg_advisory_xact_lock({_LOCK})"

LIST_FORGOTTEN = "select who, at from hune.forgotten where who = any($1::bytea[])"
SAVE_PEOPLE = """
    insert into hune.people (person, key) select * from unnest($1::text[], $2::bytea[]) as row (person, key)
        on conflict do nothing
"""
LOAD_PEOPLE = "select person, key from hune.people where person = any($1::text[])"
SAVE_CONTACTS = """
    insert into hune.contacts (person, token, kind, sealed, seen_at)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[])
           as row (person, token, kind, sealed, seen_at)
     order by person, token
        on conflict do nothing
"""
LOAD_CONTACTS = """
    select c.token, c.person, c.sealed, p.key
      from hune.contacts c join hune.people p using (person)
     where c.token = any($1::text[])
     order by c.seen_at
"""
OF_PERSON = "select token, kind from hune.contacts where person = $1"
PERSONS_OF = "select person from hune.contacts where token = $1 and kind = 'email'"
KNOWN_BY = """
    select p.person from hune.people p where exists (select from unnest($1::text[]) t where strpos(p.person, t) > 0)
"""
FORGET = """
    insert into hune.forgotten (who, at)
    select who, greatest($2, clock_timestamp()) from unnest($1::bytea[]) as row (who)
        on conflict (who) do update set at = greatest(hune.forgotten.at, excluded.at)
"""
DESTROY_PEOPLE = "delete from hune.people where person = any($1::text[])"
DESTROY_TOKENS = "delete from hune.contacts where token = any($1::text[])"
LAST_FORGOTTEN = "select count(*) as n, max(at) as at from hune.forgotten"
LOAD_ALL = "select person, key from hune.people where person > $1 order by person limit $2 for update"
SAVE_KEY = "update hune.people set key = $2 where person = $1"
CHECK = "insert into hune.vault (fingerprint) values ($1) on conflict do nothing"


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


async def check(db: Connection, keys: Keys) -> None:
    """See that these are the keys that this installation's references were made with.

    Raises Misconfigured.
    """
    await db.execute(CHECK, keys.fingerprint)
    if await db.fetchval("select fingerprint from hune.vault") != keys.fingerprint:
        raise Misconfigured(
            "the key of the contact vault is not the one that this installation was begun with: everybody would become "
            "somebody else. Put the old one back (HUNE_VAULT_KEY or the file that HUNE_VAULT_KEY_FILE names)"
        )


async def save(db: Connection, keys: Keys, seen: Sequence[tuple[Contact, datetime]]) -> None:
    """Keep contacts, each with when it was received; what is known stays, what came before a deletion is dropped."""
    async with db.transaction():
        await db.execute(KEEP)
        whose = {text: _hash(text) for contact, _ in seen for text in (contact.person, contact.token)}
        rows = await db.fetch(LIST_FORGOTTEN, list(whose.values()))
        forgotten = {row["who"]: row["at"] for row in rows}
        fresh: dict[tuple[str, str], tuple[Contact, datetime]] = {}
        for contact, at in seen:
            ends = [forgotten.get(whose[text]) for text in (contact.person, contact.token)]
            if all(end is None or at > end for end in ends):
                fresh.setdefault((contact.person, contact.token), (contact, at))
        if not fresh:
            return
        persons = sorted({person for person, _ in fresh})
        await db.execute(SAVE_PEOPLE, persons, [keys.wrap(new_key(), person) for person in persons])
        locks = {
            row["person"]: AESGCM(keys.unwrap(row["key"], row["person"]))
            for row in await db.fetch(LOAD_PEOPLE, persons)
        }
        kept = [
            (c.person, c.token, c.kind, lock(locks[c.person], c.value.encode("utf-8", "replace"), c.token), at)
            for c, at in fresh.values()
        ]
        await db.execute(SAVE_CONTACTS, *(list(column) for column in zip(*kept, strict=True)))


async def resolve(db: Connection, keys: Keys, tokens: Collection[str]) -> dict[str, str]:
    """What tokens stand for; those of deleted persons are missing."""
    if not tokens:
        return {}
    found: dict[str, str] = {}
    for row in await db.fetch(LOAD_CONTACTS, list(tokens)):
        if row["token"] not in found:
            key = AESGCM(keys.unwrap(row["key"], row["person"]))
            found[row["token"]] = unlock(key, row["sealed"], row["token"]).decode()
    return found


async def revealed(db: Connection, keys: Keys | None, value: Any) -> Any:
    """A text, or anything JSON holds, with names and addresses for references; without keys as it is."""
    if keys is None:
        return value
    tokens = tokens_in(value)
    return replaced(value, await resolve(db, keys, tokens), DELETED) if tokens else value


async def persons_of(db: Connection, token: str) -> list[str]:
    """The user ids under which an address is known."""
    return sorted({row["person"] for row in await db.fetch(PERSONS_OF, token)})


async def values_of(db: Connection, keys: Keys, user_id: str) -> list[str]:
    """Everything personal that is kept of somebody."""
    tokens = [row["token"] for row in await db.fetch(OF_PERSON, user_id)]
    return sorted(set((await resolve(db, keys, tokens)).values()))


async def addresses_of(db: Connection, user_id: str) -> list[str]:
    """The tokens of a person's e-mail addresses."""
    return sorted(row["token"] for row in await db.fetch(OF_PERSON, user_id) if row["kind"] == EMAIL)


async def erase(db: Connection, user_id: str, at: datetime) -> None:
    """Destroy a person's key, and the addresses that were theirs whoever else has them.

    What was received before is not kept again. A request that was carried out before, at the time `at`, does nothing:
    the person may have come back since.
    """
    await db.execute(DESTROY)
    before = await db.fetchrow(LIST_FORGOTTEN, [_hash(user_id)])
    if before is not None and before["at"] >= at:
        return
    rows = await db.fetch(OF_PERSON, user_id)
    own = TOKEN.findall(user_id) if REFERENCE.search(user_id) else []
    addresses = sorted({*own, *(row["token"] for row in rows if row["kind"] == EMAIL)})
    others = [row["person"] for row in await db.fetch(KNOWN_BY, addresses)] if addresses else []
    persons = sorted({user_id, *others})
    await db.execute(FORGET, [_hash(text) for text in (*persons, *addresses)], at)
    await db.execute(DESTROY_TOKENS, addresses)
    await db.execute(DESTROY_PEOPLE, persons)


async def forgotten_mark(db: Connection) -> tuple[int, datetime | None]:
    """Another value after each deletion."""
    row: Mapping[str, Any] = await db.fetchrow(LAST_FORGOTTEN)
    return row["n"], row["at"]


async def rewrap(db: Connection, keys: Keys, batch: int = 1_000) -> int:
    """Close every person's key with the wrapping key in use; gives how many were closed with an older one."""
    changed, after = 0, ""
    while True:
        async with db.transaction():
            rows = await db.fetch(LOAD_ALL, after, batch)
            for row in rows:
                if not keys.is_current(row["key"]):
                    await db.execute(
                        SAVE_KEY, row["person"], keys.wrap(keys.unwrap(row["key"], row["person"]), row["person"])
                    )
                    changed += 1
        if len(rows) < batch:
            return changed
        after = rows[-1]["person"]


__all__ = [
    "DELETED",
    "Unreadable",
    "addresses_of",
    "check",
    "erase",
    "forgotten_mark",
    "persons_of",
    "resolve",
    "revealed",
    "rewrap",
    "save",
    "values_of",
]
