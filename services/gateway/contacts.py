"""Between a door and Kafka: personal values stay in the vault, references go on.

What is new of them is in the vault's tables before the caller hears 200, or, while the database is away, in a journal
beside the spool: fsynced, encrypted line by line, moved to the tables on return.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import msgspec

from services.gateway import metrics
from services.gateway.canonical import UNREAD, Record
from services.gateway.spool import NotDurable
from shared.db import TRANSIENT, Pool
from shared.runtime.wire import short_name
from shared.vault import store
from shared.vault.keys import Keys, Unreadable
from shared.vault.sealing import Contact, Sealer
from shared.vault.withheld import withhold

log = logging.getLogger(__name__)

JOURNAL, DRAINING = "contacts.journal", "contacts.draining"
ABOUT = "contacts journal"
REMEMBERED = 200_000
PATIENCE_SECONDS = 1.5
PAUSE_SECONDS = 2.0
POLL_SECONDS = 1.0
CHUNK = 1_000
MOST_BYTES = 256 * 1024 * 1024

Seen = tuple[Contact, datetime]
AWAY = (*TRANSIENT, asyncpg.PostgresError, asyncpg.InterfaceError)


class Control(Protocol):
    """The databases as far as the vault needs them."""

    async def open(self) -> None: ...

    @property
    def control(self) -> Pool: ...


class Contacts:
    """Seals records and keeps what was in them; one per gateway."""

    def __init__(self, keys: Keys, databases: Control, folder: Path | None, fields: Sequence[str] = ()) -> None:
        self.keys, self.sealer = keys, Sealer(keys, fields)
        self._databases = databases
        self._journal = Journal(keys, folder) if folder is not None else None
        self._kept: set[tuple[str, str]] = set()
        self._mark: Any = None
        self._away_until = 0.0

    def seal(self, records: list[Record]) -> tuple[list[Record], list[Contact]]:
        """The records with references for what is personal, and the contacts that may be new to the vault."""
        records, found = seal_all(self.sealer, records)
        return records, [contact for contact in found if (contact.person, contact.token) not in self._kept]

    async def keep(self, contacts: Sequence[Contact], at: datetime) -> None:
        """Return when the contacts are in the vault or in the journal.

        Raises NotDurable.
        """
        if not contacts:
            return
        fresh = [(contact, at) for contact in dict.fromkeys(contacts)]
        mark = self._mark
        if not await self._save(fresh):
            if self._journal is None:
                raise NotDurable("the contact vault's database cannot be reached", certain=True)
            await self._journal.append(fresh)
        if self._mark == mark:  # else somebody was deleted meanwhile, and what they send next is to be kept anew
            self._remember(contacts)

    async def run(self) -> None:
        """Look for deletions, and move what waits in the journal to the tables."""
        while True:
            try:
                await self.look()
            except AWAY as error:
                log.debug("the vault's tables do not answer", extra={"error": type(error).__name__})
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Once; raises what the database raises."""
        await self._databases.open()
        async with self._databases.control.acquire() as db:
            mark = await store.forgotten_mark(db)
            if mark != self._mark:
                self._mark = mark
                self._kept.clear()
            if self._journal is not None and self._journal.waits:
                for chunk in self._journal.taken():
                    await store.save(db, self.keys, chunk)
                    metrics.CONTACTS_MOVED.inc(len(chunk))
                self._journal.drop()

    async def check(self) -> None:
        """See that the keys are this installation's.

        Raises Misconfigured, or what the database raises.
        """
        await self._databases.open()
        async with self._databases.control.acquire() as db:
            await store.check(db, self.keys)

    async def _save(self, fresh: Sequence[Seen]) -> bool:
        if time.monotonic() < self._away_until:
            return False
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._databases.open()
                async with self._databases.control.acquire() as db:
                    await store.save(db, self.keys, fresh)
        except AWAY as error:
            log.warning("contacts wait for the vault's tables", extra={"error": type(error).__name__})
            self._away_until = time.monotonic() + PAUSE_SECONDS
            return False
        except Unreadable as error:
            raise NotDurable(f"a person's key cannot be opened: {error}", certain=True) from None
        return True

    def _remember(self, contacts: Sequence[Contact]) -> None:
        if len(self._kept) > REMEMBERED:
            self._kept.clear()
        self._kept.update((contact.person, contact.token) for contact in contacts)


class Journal:
    """Contacts on disk: a line each call's, encrypted; a torn or damaged line was answered to nobody."""

    def __init__(self, keys: Keys, folder: Path) -> None:
        self._keys, self._folder = keys, folder
        self._writing = threading.Lock()  # a writer whose caller hung up goes on writing

    @property
    def waits(self) -> bool:
        return any((self._folder / name).exists() for name in (JOURNAL, DRAINING))

    async def append(self, fresh: Sequence[Seen]) -> None:
        """Return when the contacts are on the disk.

        Raises NotDurable.
        """
        plain = msgspec.json.encode([(*contact, at) for contact, at in fresh])
        line = base64.b64encode(self._keys.wrap(plain, ABOUT)) + b"\n"
        try:
            await asyncio.to_thread(self._write, line)
        except OSError as error:
            raise NotDurable(f"contacts cannot be written down: {error.strerror}", certain=True) from None

    def _write(self, line: bytes) -> None:
        with self._writing:
            self._append(line)

    def _append(self, line: bytes) -> None:
        path = self._folder / JOURNAL
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size + len(line) > MOST_BYTES:
                raise OSError(28, "the journal of contacts is full")
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # after a torn line, which stays unreadable by itself
            if os.write(handle, line) != len(line):
                raise OSError(28, "the disk is full")
            os.fsync(handle)
        finally:
            os.close(handle)
        if size == 0:
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def taken(self) -> Iterator[list[Seen]]:
        """What waits, in chunks; new lines go to a file of their own meanwhile."""
        draining = self._folder / DRAINING
        if not draining.exists():
            with self._writing, contextlib.suppress(FileNotFoundError):
                os.rename(self._folder / JOURNAL, draining)
        chunk: list[Seen] = []
        with contextlib.suppress(FileNotFoundError), draining.open("rb") as file:
            for line in file:
                chunk += self._read(line)
                if len(chunk) >= CHUNK:
                    yield chunk
                    chunk = []
        if chunk:
            yield chunk

    def drop(self) -> None:
        (self._folder / DRAINING).unlink(missing_ok=True)

    def _read(self, line: bytes) -> list[Seen]:
        try:
            rows = msgspec.json.decode(
                self._keys.unwrap(base64.b64decode(line.strip()), ABOUT), type=list[tuple[str, str, str, str, datetime]]
            )
        except (Unreadable, ValueError, msgspec.DecodeError):
            if line.strip():
                log.error("a line of the journal of contacts cannot be read")
                metrics.CONTACTS_DAMAGED.inc()
            return []
        return [(Contact(*row[:4]), row[4]) for row in rows]


def seal_all(sealer: Sealer, records: list[Record]) -> tuple[list[Record], list[Contact]]:
    """The records, those that hold something personal replaced, and what they held."""
    names = {record.fields for record in records}
    if all(fields is not None and sealer.is_plain(fields) for fields in names) and b"@" not in b"".join(
        [record.value for record in records]
    ):
        return records, []  # nearly every call, in one look at all of it
    seal, found = sealer.seal_record, []
    for place, record in enumerate(records):
        fields = record.fields
        type = "usage.tracked" if fields is not None else _type_of(record)
        if type.startswith(UNREAD):
            records[place], contact = withheld_of(sealer.keys, record)
            found.append(contact)
            continue
        sealed = seal(type, record.key, record.value, fields)
        if sealed is not None:
            records[place] = Record(record.topic, sealed.key or b"", sealed.value, record.headers)
            found += sealed.contacts
    return records, found


def withheld_of(keys: Keys, record: Record) -> tuple[Record, Contact]:
    """A record that nobody could read with a reference for its body."""
    id = next(value for name, value in record.headers if name == "ce_id").decode()
    body, contact = withhold(keys, id, record.value)
    return Record(record.topic, record.key, body, record.headers), contact


def _type_of(record: Record) -> str:
    return next((_short(value) for name, value in record.headers if name == "ce_type"), "")


@lru_cache(maxsize=1000)
def _short(wire_type: bytes) -> str:
    return short_name(wire_type.decode())


def is_gone(contact: Contact, gone: frozenset[bytes]) -> bool:
    return bool(gone) and hashlib.sha256(contact.person.encode()).digest() in gone
