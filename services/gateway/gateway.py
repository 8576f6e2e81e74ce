"""What a call needs: who may come, how much, and where records are safe; one per process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
from aiokafka.errors import KafkaError

from services.gateway import keys, metrics, store
from services.gateway.answers import RETRY_AFTER_SECONDS
from services.gateway.canonical import Record
from services.gateway.contacts import Contacts, is_gone
from services.gateway.handlers import build
from services.gateway.ingest import Durable, Ingest
from services.gateway.limiter import TokenBuckets
from services.gateway.pollers import running
from services.gateway.requests import Desk
from services.gateway.requests import Request as Made
from services.gateway.settings import GatewaySettings
from services.gateway.spool import Spool
from services.gateway.webhooks import settings as webhooks
from shared.access import refuse_wrong_access
from shared.db import TRANSIENT, Pool, create_pool
from shared.errors import Misconfigured
from shared.events.inputs import PrivacyRequested
from shared.settings import Settings
from shared.vault import keys as vault
from shared.vault.sealing import tokens_in
from shared.vault.store import revealed

log = logging.getLogger(__name__)
SWEEP_SECONDS = 3600.0
_PRIVACY = ("ce_type", PrivacyRequested.wire_type().encode())


class Denied(Exception):
    """A status other than 200, for the whole call."""

    def __init__(self, status: int, reason: str, *, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class Databases:
    """Pools that open when first needed and again after an outage; the control database comes first."""

    def __init__(self, control_url: str, urls: Sequence[str]) -> None:
        self._urls = list(dict.fromkeys((control_url, *urls)))
        self._pools: list[Pool] = []
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        async with self._opening:
            for url in self._urls[len(self._pools) :]:
                self._pools.append(await create_pool(url, 4, "gateway"))

    async def close(self) -> None:
        for pool in self._pools:
            pool.terminate()

    @property
    def control(self) -> Pool:
        return self._pools[0]

    @property
    def all(self) -> Sequence[Pool]:
        return self._pools


class Gateway:
    """Everything a request needs; one per process."""

    def __init__(self, settings: Settings, knobs: GatewaySettings, ingest: Durable | None = None) -> None:
        self.settings, self.knobs = settings, knobs
        self.databases = Databases(settings.database_url, settings.database_urls)
        self.ingest: Durable = ingest or _ingest(settings, knobs)
        self.keys = keys.KeyRing(self._load_keys)
        self.desk = Desk(self.databases, self.ingest)
        self.buckets = TokenBuckets(knobs.rate, knobs.burst)
        self.webhooks = webhooks.load(settings.config_dir)
        self.trusts = webhooks.trusts(self.webhooks)
        self.polled = running.polled(settings.config_dir, self.webhooks)
        self.gone: frozenset[bytes] = frozenset()
        self.contacts = _contacts(knobs, self.databases)
        self.runtime: Any | None = None
        self.worker = False
        self.fatal: str | None = None
        self.draining = False
        self._in_flight: dict[str, int] = {}
        self._total = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def _load_keys(self) -> Sequence[Any]:
        await self.databases.open()
        return await store.load_keys(self.databases.control)

    async def start(self, *, worker: bool = True) -> None:
        self.worker = worker
        if isinstance(self.ingest, Ingest):
            await self.ingest.start()
        self._tasks = [asyncio.create_task(self.keys.run()), asyncio.create_task(self._sweep())]
        self._tasks.append(asyncio.create_task(self._look_who_is_gone()))
        if self.polled:
            self._tasks.append(asyncio.create_task(self._poll()))
        if self.contacts is not None:
            self._tasks.append(asyncio.create_task(self._keep_contacts(self.contacts)))
        if worker:
            self._tasks.append(asyncio.create_task(self._run_worker()))

    async def stop(self) -> None:
        """Let what was accepted reach Kafka, then close."""
        self.draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.runtime is not None:
            await self.runtime.stop()
        if isinstance(self.ingest, Ingest):
            await self.ingest.stop()
        await self.databases.close()

    async def _run_worker(self) -> None:
        """Start the reader of answers as soon as its stores answer; the door is open meanwhile."""
        from shared.runtime.service import Runtime  # late: FastStream takes half a second to import

        while True:
            runtime = Runtime(build(), self.settings)
            try:
                await refuse_wrong_access(self.settings.kafka_bootstrap_servers)
                await runtime.start()
            except (*TRANSIENT, KafkaError) as error:
                log.warning("answers cannot be read yet", extra={"error": type(error).__name__})
                await runtime.stop()
                await asyncio.sleep(RETRY_AFTER_SECONDS)
            except Misconfigured as error:
                self._give_up(error)
                return
            else:
                self.runtime = runtime
                _spare_the_collector()
                return

    def not_ready(self) -> str | None:
        """Why the process should get no traffic; None when it should."""
        if self.draining:
            return "draining"
        if not self.keys.loaded:
            return "keys not read yet: the control database cannot be reached"
        if not self.ingest.ready:
            return "Kafka cannot be reached, and there is no spool or it is full"
        if self.worker and not self.ingest.spooling and (self.runtime is None or not self.runtime.ready()):
            return "the reader of answers is not running"
        return None

    async def _sweep(self) -> None:
        """Forget requests and answers after the days that the settings name."""
        while True:
            try:
                await self.databases.open()
                for db in self.databases.all:
                    await store.drop_old(db, self.knobs.keep_answers_days)
            except TRANSIENT as error:
                log.warning("old requests stay until the next sweep", extra={"error": type(error).__name__})
            await asyncio.sleep(SWEEP_SECONDS)

    async def _look_who_is_gone(self) -> None:
        """Read who is suppressed, again and again; before the first time, and beyond it, the router drops them."""
        while True:
            try:
                await self.databases.open()
                found = [await store.list_gone(db) for db in self.databases.all]
                self.gone = frozenset().union(*found)
            except (*TRANSIENT, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.debug("who is suppressed could not be read", extra={"error": type(error).__name__})
            await asyncio.sleep(keys.REFRESH_SECONDS)

    async def _poll(self) -> None:
        """Ask the tools that do not call, once the control database can be reached."""
        while True:
            try:
                await self.databases.open()
            except TRANSIENT:
                await asyncio.sleep(RETRY_AFTER_SECONDS)
            else:
                return await running.run(self.polled, self.databases.control, self._keep_polled)

    async def _keep_polled(self, tool: str, records: list[Record]) -> None:
        door = f"poll.{tool}"
        await self.publish(records, door)
        metrics.EVENTS.labels(door).inc(len(records))

    async def _keep_contacts(self, contacts: Contacts) -> None:
        """See that the vault's keys are this installation's, as soon as that can be seen, then look after it."""
        while True:
            try:
                await contacts.check()
                break
            except (*TRANSIENT, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.debug("the vault's keys could not be checked yet", extra={"error": type(error).__name__})
                await asyncio.sleep(RETRY_AFTER_SECONDS)
            except Misconfigured as error:
                self._give_up(error)
                return
        await contacts.run()

    def _give_up(self, error: Misconfigured) -> None:
        log.critical("the gateway stops", extra={"error": str(error)})
        self.fatal = str(error)
        signal.raise_signal(signal.SIGTERM)

    async def publish(self, records: list[Record], door: str) -> None:
        """Records to where they are safe: not those of suppressed persons, and what is personal to the vault.

        Raises NotDurable.
        """
        records = self.taken(records, door)
        if self.contacts is not None:
            records, found = self.contacts.seal(records)
            if found:
                records = self.taken(records, door)
                fresh = [contact for contact in found if not is_gone(contact, self.gone)]
                await self.contacts.keep(fresh, datetime.now(UTC))
        await self.ingest.publish(records)

    def taken(self, records: list[Record], door: str) -> list[Record]:
        """The records without those of suppressed persons; a record of a person has the person's id as its key."""
        if not self.gone:
            return records
        kept = [
            record
            for record in records
            if hashlib.sha256(record.key).digest() not in self.gone or _PRIVACY in record.headers
        ]
        if len(kept) < len(records):
            metrics.SUPPRESSED.labels(door).inc(len(records) - len(kept))
        return kept

    def named(self, id: str) -> str:
        """An id as events have it: an e-mail address by its reference."""
        return self.contacts.sealer.reference(id) if self.contacts is not None else id

    async def sealed(self, made: Made) -> Made:
        """The request with references for whom it is about."""
        if self.contacts is None:
            return made
        (record,), found = self.contacts.seal([made.record])
        await self.contacts.keep(found, datetime.now(UTC))
        return replace(made, record=record, account_id=made.account_id and self.named(made.account_id))

    async def revealed(self, told: dict[str, Any]) -> dict[str, Any]:
        """What is told to who may ask, with addresses for references."""
        if self.contacts is None or not tokens_in(told):
            return told
        async with self.databases.control.acquire() as db:
            found: dict[str, Any] = await revealed(db, self.contacts.keys, told)
        return found

    async def admit(self, key: str | None, scope: str) -> keys.Key:
        """The key's record. Raises Denied: 401, 403, or 503 when the key cannot be checked."""
        if key is None:
            raise Denied(401, "no write key; send it as the user of Basic authentication or as writeKey in the body")
        try:
            found = await self.keys.check(key)
        except keys.KeysUnknown:
            raise Denied(503, "keys cannot be checked now; send again", retry_after=RETRY_AFTER_SECONDS) from None
        if found is None:
            raise Denied(401, "the write key is unknown or revoked; make one with `hune keys create NAME`")
        if scope not in found.scopes:
            raise Denied(403, f"the key may not {scope}; make one that may with `hune keys create NAME`")
        return found

    def charge(self, key: keys.Key, tokens: int) -> None:
        """Take tokens from the key's bucket. Raises Denied 429 with when to come back."""
        seconds = self.buckets.take(key.name, tokens, time.monotonic())
        if seconds:
            raise Denied(429, f"more than {self.knobs.rate} events/s from this key", retry_after=seconds)

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """A place among the calls in flight. Raises Denied 503 when all are taken."""
        if self._total >= self.knobs.in_flight:
            raise Denied(503, "too many calls at once; send again", retry_after=1)
        self._total += 1
        metrics.IN_FLIGHT.set(self._total)
        try:
            yield
        finally:
            self._total -= 1
            metrics.IN_FLIGHT.set(self._total)

    @contextlib.contextmanager
    def share(self, key: keys.Key) -> Iterator[None]:
        """One key's part of the places, so that it cannot take them all. Raises Denied 429."""
        taken = self._in_flight.get(key.name, 0)
        if taken >= self.knobs.in_flight_per_key:
            raise Denied(429, "too many calls at once from this key", retry_after=1)
        self._in_flight[key.name] = taken + 1
        try:
            yield
        finally:
            self._in_flight[key.name] -= 1


def _spare_the_collector() -> None:
    """Events make no cycles: look for garbage seldom, and never again among what the start has left."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _ingest(settings: Settings, knobs: GatewaySettings) -> Ingest:
    spool, seconds = None, knobs.ack_seconds
    if knobs.spool_dir is not None:
        spool, seconds = Spool(knobs.spool_dir, quota=knobs.spool_bytes), min(knobs.spool_seconds, seconds)
        metrics.SPOOL_BYTES.set_function(lambda: spool.size)
        metrics.SPOOL_AGE_SECONDS.set_function(spool.age)
    return Ingest(settings.kafka_bootstrap_servers, ack_seconds=seconds, queue_bytes=knobs.queue_bytes, spool=spool)


def _contacts(knobs: GatewaySettings, databases: Databases) -> Contacts | None:
    keys_of_vault = vault.load()
    return None if keys_of_vault is None else Contacts(keys_of_vault, databases, knobs.spool_dir, vault.fields())
