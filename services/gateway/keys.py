"""Write keys: made and revoked by the CLI, checked at the door against a cache that a database outage outlives."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from services.gateway import store, webhooks
from shared.db import TRANSIENT
from shared.errors import Misconfigured

log = logging.getLogger(__name__)

PREFIX = "hk_"
INGEST, REQUESTS, ACCOUNTS, PRIVACY = "ingest", "requests", "accounts", "privacy"
SCOPES = (INGEST, REQUESTS)
"""What a key may do unless told otherwise; reading accounts and forgetting persons have to be asked for."""
WEBHOOK_SCOPES = tuple(f"webhook:{tool}" for tool in webhooks.NAMES)
REFRESH_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 0.2


async def create_key(db: store.Database, name: str, scopes: Sequence[str] = SCOPES) -> str:
    """Make a key; what is returned is shown once, as only its hash is stored.

    Raises Misconfigured when the name is taken or a scope is not known.
    """
    unknown = set(scopes) - {*SCOPES, ACCOUNTS, PRIVACY, *WEBHOOK_SCOPES}
    if unknown or not scopes:
        known = " or ".join((*SCOPES, ACCOUNTS, PRIVACY, "webhook:TOOL"))
        raise Misconfigured(f"scope {', '.join(sorted(unknown)) or '(none)'} is not known; use {known}")
    if not name.strip() or len(name) > 100:
        raise Misconfigured("a key's name has 1 to 100 characters")
    key = PREFIX + secrets.token_urlsafe(32)
    if not await store.save_key(db, name, key, scopes):
        raise Misconfigured(f"a key named {name!r} exists or existed; choose another name")
    return key


async def list_keys(db: store.Database) -> list[dict[str, Any]]:
    return [dict(row) for row in await store.list_keys(db)]


async def revoke_key(db: store.Database, name: str) -> bool:
    """Revoke the key; the gateways refuse it within about a second. False if there is no such live key."""
    return await store.revoke_key(db, name)


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    hash: bytes
    scopes: frozenset[str]


def from_basic(authorization: str | None, *, password: bool = False) -> str | None:
    """The user of Basic authentication, which is where most SDKs put the key, or its password."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, _, secret = text.partition(":")
    return (secret if password else user) or None


def from_bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class KeysUnknown(Exception):
    """The key is not in the cache and the database cannot be asked: neither yes nor no."""


class KeyRing:
    """All live keys in memory, read again every second; lookups cost no round trip."""

    def __init__(self, load: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]) -> None:
        self._load = load
        self._keys: dict[bytes, Key] = {}
        self._read_at = -float("inf")
        self._reachable = False
        self._reading: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> bool:
        return self._read_at > -float("inf")

    async def check(self, key: str) -> Key | None:
        """The key, or None when it is unknown or revoked.

        Raises KeysUnknown when that cannot be told.
        """
        digest = store.hash_of(key)
        found = self._find(digest)
        if found is None:
            # It may have been made a moment ago. All who ask for an unknown key share one read every 200 ms.
            asked_at = time.monotonic()
            await asyncio.sleep(max(0.0, self._read_at + LOOK_AGAIN_SECONDS - asked_at))
            while self._read_at < asked_at and await self.refresh():
                pass
            found = self._find(digest)
        if found is None and not self._reachable:
            raise KeysUnknown
        return found

    def _find(self, digest: bytes) -> Key | None:
        found = self._keys.get(digest)
        return found if found is not None and hmac.compare_digest(found.hash, digest) else None

    async def refresh(self) -> bool:
        """Read the keys again; whoever asks meanwhile waits for the same read. False if that failed."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        await asyncio.shield(self._reading)
        return self._reachable

    async def _read(self) -> None:
        started = time.monotonic()
        try:
            rows = await self._load()
        except (*TRANSIENT, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if self._reachable:
                log.warning("keys could not be read; known ones go on working", extra={"error": type(error).__name__})
            self._reachable = False
            return
        self._keys = {
            bytes(row["hash"]): Key(row["name"], bytes(row["hash"]), frozenset(row["scopes"])) for row in rows
        }
        self._read_at, self._reachable = started, True

    async def run(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)
