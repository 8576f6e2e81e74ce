"""What no adapter could read, whole in the vault: it may hold anybody's values, and nobody can say where.

The record that goes on holds a reference in its place. Each has a key of its own, which a deletion of a person whom it
names destroys: what is in Kafka or in quarantine then stands for nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared import privacy
from shared.vault.keys import Keys, Unreadable, unlock
from shared.vault.sealing import TOKEN, Contact, token_of
from shared.vault.store import DESTROY, FORGET

if TYPE_CHECKING:
    from shared.db import Connection

KIND = "withheld"
CHUNK = 200
_BODY = re.compile(rb'\{"withheld":"(%s)"\}' % TOKEN.pattern.encode())

LOAD = """
    select c.token, c.person, c.sealed, p.key
      from hune.contacts c join hune.people p using (person)
     where c.kind = 'withheld' and c.token = $1
"""
LIST = """
    select c.token, c.person, c.sealed, p.key
      from hune.contacts c join hune.people p using (person)
     where c.kind = 'withheld' and c.token > $1
     order by c.token limit $2
"""
DESTROY_WITHHELD = "delete from hune.people where person = any($1::text[])"
FORGET_QUARANTINED = """
    delete from hune.quarantine
     where service = any($1::text[])
       and exists (select from unnest($2::text[]) as token where position(convert_to(token, 'UTF8') in value) > 0)
"""


def withhold(keys: Keys, id: str, body: bytes) -> tuple[bytes, Contact]:
    """What goes on in the place of a body, and the body for the vault; the same for the same `id`."""
    token = token_of(keys.digest(KIND, id))
    contact = Contact(f"{KIND} {id}", token, KIND, base64.b64encode(body).decode())
    return msgspec.json.encode({KIND: token}), contact


def is_withheld(body: bytes) -> bool:
    return _BODY.fullmatch(body) is not None


async def opened(db: Connection, keys: Keys | None, body: bytes) -> bytes:
    """The body that this one stands for; itself if it stands for none.

    Raises Unreadable without the vault's key, or when somebody whom it named was deleted.
    """
    found = _BODY.fullmatch(body)
    if found is None:
        return body
    if keys is None:
        raise Unreadable("its content is in the contact vault, whose key is not here")
    row = await db.fetchrow(LOAD, found[1].decode())
    if row is None:
        raise Unreadable("its content is not in the contact vault: somebody whom it named was deleted")
    return _content(keys, row)


async def forget(db: Connection, keys: Keys, services: Collection[str], words: Collection[str], at: datetime) -> int:
    """Destroy what names one of `words` as a word of its own, and what is quarantined of it; gives how many."""
    await db.execute(DESTROY)
    gone: dict[str, str] = {}
    names, after = privacy.naming(words), ""
    while rows := await db.fetch(LIST, after, CHUNK):
        gone |= {row["token"]: row["person"] for row in rows if names(_content(keys, row))}
        after = rows[-1]["token"]
    if gone:
        await db.execute(FORGET, [hashlib.sha256(token.encode()).digest() for token in gone], at)
        await db.execute(DESTROY_WITHHELD, list(gone.values()))
        await db.execute(FORGET_QUARANTINED, list(services), list(gone))
    return len(gone)


def _content(keys: Keys, row: Mapping[str, Any]) -> bytes:
    key = AESGCM(keys.unwrap(row["key"], row["person"]))
    return base64.b64decode(unlock(key, row["sealed"], row["token"]))
