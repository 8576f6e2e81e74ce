"""The gateway's process: the HTTP door, the producer behind it and the worker that reads answers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import uvicorn
from aiokafka.errors import KafkaError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway import keys, metrics, store
from services.gateway.adapters.base import Door, Incoming, Words
from services.gateway.body import read_body
from services.gateway.canonical import MAX_ID, Record, Refused, record_of
from services.gateway.contacts import Contacts, is_gone
from services.gateway.doors import DOORS
from services.gateway.handlers import account_told, build
from services.gateway.ingest import Durable, Ingest
from services.gateway.limiter import TokenBuckets
from services.gateway.openapi import document
from services.gateway.pollers import running
from services.gateway.regulations import MAX_BYTES as MAX_REGULATION
from services.gateway.regulations import read_regulation
from services.gateway.requests import MAX_BYTES, MAX_WAIT_SECONDS, Conflict, Desk, read_request
from services.gateway.requests import Request as Made
from services.gateway.settings import GatewaySettings
from services.gateway.spool import NotDurable, Spool
from services.gateway.webhooks import settings as webhooks
from services.gateway.webhooks.base import Answer, Delivery, Forged, Tool, say_refused
from services.gateway.webhooks.tools import TOOLS
from services.gateway.webhooks.translate import records_of
from shared.access import refuse_wrong_access
from shared.db import TRANSIENT, Pool, create_pool
from shared.errors import Misconfigured
from shared.events.inputs import PrivacyRequested
from shared.observability import logs
from shared.settings import Settings
from shared.vault import keys as vault
from shared.vault.sealing import tokens_in
from shared.vault.store import revealed

__all__ = ["Gateway", "build", "impatient", "main", "make_app"]

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2
SWEEP_SECONDS = 3600.0
JSON = "application/json"
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


def _respond(status: int, body: bytes, media_type: str = JSON, retry_after: int | None = None) -> Response:
    headers = {"retry-after": str(retry_after)} if retry_after else {}
    if status == 401:
        headers["www-authenticate"] = 'Basic realm="hune"'
    return Response(body, status, headers, media_type)


def _error(reason: str) -> bytes:
    return msgspec.json.encode({"success": False, "error": reason})


class _DoorApp:
    """One door as an ASGI application: what a framework does for a request costs as much as thirty events."""

    def __init__(self, gateway: Gateway, door: Door) -> None:
        self._gateway, self._door = gateway, door
        self._events = metrics.EVENTS.labels(door.name)
        self._accepted = metrics.REQUESTS.labels(door.name, 200)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, door, retry_after = _Call(self._door.words), self._door, None
        try:
            with self._gateway.slot():
                count = await _take_in(self._gateway, door, scope, receive, call)
            self._events.inc(count)
            status, body = 200, call.words.accepted(count)
        except Refused as refused:
            status, body = refused.status, call.words.refused(refused.status, refused.reason, refused.index)
        except Denied as denied:
            status, retry_after = denied.status, denied.retry_after
            body = call.words.refused(status, denied.reason, None)
        except NotDurable as lost:
            status, retry_after = 503, RETRY_AFTER_SECONDS
            body = call.words.refused(status, f"{lost}; nothing was confirmed, send the same again", None)
        except ClientDisconnect:
            status, body = 400, call.words.refused(400, "the caller hung up", None)
        except Exception as error:
            log.error("a call failed for a reason of ours", extra={"error": type(error).__name__, "door": door.name})
            status, retry_after = 503, RETRY_AFTER_SECONDS
            body = call.words.refused(status, "failed on our side; send again", None)
        if status == 200:
            self._accepted.inc()
        else:
            metrics.REQUESTS.labels(door.name, status).inc()
        headers = _headers(status, body, call.words.media_type, retry_after)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _headers(status: int, body: bytes, media_type: str, retry_after: int | None) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", media_type.encode())]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="hune"'))
    return headers


class _Front:
    """The application: ordinary calls at a door's own paths go straight to it, all others through the framework."""

    def __init__(self, rest: Starlette, straight: Mapping[tuple[str, str], _DoorApp]) -> None:
        self.rest, self._straight = rest, straight

    @property
    def state(self) -> Any:
        return self.rest.state

    @property
    def router(self) -> Any:
        return self.rest.router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = self._straight.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (door or self.rest)(scope, receive, send)


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


_NOTHING: Mapping[str, str] = {}


class _Call:
    """The words of the answer, which the body of the request may still choose."""

    __slots__ = ("words",)

    def __init__(self, words: Words) -> None:
        self.words = words


async def _take_in(gateway: Gateway, door: Door, scope: Scope, receive: Receive, call: _Call) -> int:
    """From the request's bytes to where they are safe; gives the number of events."""
    knobs, known = gateway.knobs, None
    headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}  # the first one counts
    path = scope.get("path_params", _NOTHING)
    key = path.get("key") or keys.from_basic(headers.get(b"authorization"), password=door.password)
    if key is not None:
        known = await gateway.admit(key, keys.INGEST)
    body = await read_body(
        _chunks(receive), headers.get(b"content-encoding", ""), knobs.limits.body_bytes, knobs.body_seconds
    )
    opened = door.open(
        Incoming(
            method=scope["method"],
            body=body,
            url_path=scope["path"],
            path=path,
            query=QueryParams(scope["query_string"]) if scope["query_string"] else _NOTHING,
            content_type=headers.get(b"content-type", ""),
        )
    )
    call.words = opened.words or call.words
    if known is None:
        known = await gateway.admit(opened.write_key, keys.INGEST)
    with gateway.share(known):
        records = opened.records(datetime.now(UTC), knobs.limits)
        gateway.charge(known, max(1, len(records)))
        started = time.perf_counter()
        try:
            await gateway.publish(records, door.name)
        finally:
            metrics.QUEUED_BYTES.set(gateway.ingest.queued_bytes)
        metrics.ACK_SECONDS.observe(time.perf_counter() - started)
    return len(records)


async def _webhook(request: Request) -> Response:
    """`POST /webhooks/{tool}[/{token}]`: nothing is kept before the delivery has proved where it comes from."""
    gateway: Gateway = request.app.state.gateway
    tool = TOOLS.get(request.path_params["tool"])
    label, body, retry_after = f"webhook.{tool.name}" if tool else "webhook", b"", None
    try:
        if tool is None:
            raise Denied(404, f"no such tool; there are {', '.join(TOOLS)}")
        with gateway.slot():
            limit, seconds = gateway.knobs.limits.body_bytes, gateway.knobs.body_seconds
            body = await read_body(request.stream(), request.headers.get("content-encoding", ""), limit, seconds)
            delivery = _delivery(gateway, tool, request, body)
            count = await _take_delivery(gateway, tool, delivery)
        metrics.EVENTS.labels(label).inc(count)
        status, answer = 200, tool.accepted(delivery)
    except Refused as refused:
        status, answer = refused.status, _refuse(tool, body, refused.status, refused.reason)
    except Denied as denied:
        status, retry_after = denied.status, denied.retry_after
        answer = _refuse(tool, body, status, denied.reason)
    except NotDurable as lost:
        status, retry_after = 503, RETRY_AFTER_SECONDS
        answer = _refuse(tool, body, status, f"{lost}; nothing was confirmed, send the same again")
    metrics.REQUESTS.labels(label, status).inc()
    return _respond(status, answer.body, answer.media_type, retry_after)


def _refuse(tool: Tool | None, body: bytes, status: int, reason: str) -> Answer:
    return (tool.refused if tool else say_refused)(body, status, reason)


def _delivery(gateway: Gateway, tool: Tool, request: Request, body: bytes) -> Delivery:
    path, query = request.scope.get("raw_path") or request.url.path.encode(), request.scope.get("query_string", b"")
    url = (gateway.webhooks.public_url or "") + (path + (b"?" + query if query else b"")).decode("latin-1")
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), value)
    return Delivery(
        body=body,
        headers=headers,
        received_at=datetime.now(UTC),
        method=request.method,
        url=url,
        token=request.path_params.get("token") or request.query_params.get("key"),
        options=gateway.webhooks.of(tool.name).options,
    )


async def _take_delivery(gateway: Gateway, tool: Tool, delivery: Delivery) -> int:
    """From a delivery to Kafka's acknowledgement; gives the number of records."""
    trust = gateway.trusts.get(tool.name)
    token = delivery.token
    if trust is not None and tool.takes_token and token is not None and token.startswith(keys.PREFIX):
        await gateway.admit(token, f"webhook:{tool.name}")
        trust = replace(trust, tokens=(*trust.tokens, token))
    if trust is None or trust.is_empty:
        raise Denied(404, f"webhooks of {tool.name} are not set up here: no secret of theirs is set")
    try:
        tool.verify(delivery, trust)
    except Forged as forged:
        raise Denied(401, str(forged)) from None
    caller = keys.Key(f"webhook:{tool.name}", b"", frozenset())
    with gateway.share(caller):
        records = records_of(tool, delivery)
        gateway.charge(caller, max(1, len(records)))
        started = time.perf_counter()
        try:
            await gateway.publish(records, f"webhook.{tool.name}")
        finally:
            metrics.QUEUED_BYTES.set(gateway.ingest.queued_bytes)
        metrics.ACK_SECONDS.observe(time.perf_counter() - started)
    return len(records)


def _request_key(request: Request) -> str | None:
    authorization = request.headers.get("authorization")
    return keys.from_basic(authorization) or keys.from_bearer(authorization)


def _requests_endpoint(work: Any, label: str = "requests") -> Any:
    async def endpoint(request: Request) -> Response:
        gateway: Gateway = request.app.state.gateway
        retry_after = None
        try:
            with gateway.slot():
                status, body = await work(gateway, request)
        except Refused as refused:
            status, body = refused.status, _error(refused.reason)
        except Denied as denied:
            retry_after = denied.retry_after
            status, body = denied.status, _error(denied.reason)
        except TRANSIENT as error:
            log.warning("the database cannot be used", extra={"error": type(error).__name__})
            retry_after = RETRY_AFTER_SECONDS
            status, body = 503, _error("the database cannot be reached; send again")
        metrics.REQUESTS.labels(label, status).inc()
        return _respond(status, body, retry_after=retry_after)

    return endpoint


async def _make_request(gateway: Gateway, request: Request) -> tuple[int, bytes]:
    key = await gateway.admit(_request_key(request), keys.REQUESTS)
    with gateway.share(key):
        gateway.charge(key, 1)
        body = await read_body(
            request.stream(), request.headers.get("content-encoding", ""), MAX_BYTES, gateway.knobs.body_seconds
        )
        made = read_request(body, datetime.now(UTC))
        await gateway.databases.open()
        try:
            made = await gateway.sealed(made)
            await gateway.desk.submit(made)
        except Conflict:
            raise Refused(
                "this id stands for another request already; choose another or leave it out", status=409
            ) from None
        except NotDurable as lost:
            raise Denied(
                503, f"{lost}; send the same again with id {made.id}", retry_after=RETRY_AFTER_SECONDS
            ) from None
    return 202, msgspec.json.encode({"id": made.id})


async def _request_status(gateway: Gateway, request: Request) -> tuple[int, bytes]:
    key = await gateway.admit(_request_key(request), keys.REQUESTS)
    with gateway.share(key):
        gateway.charge(key, 1)
        text = request.query_params.get("wait", "0")
        try:
            wait = float(text)
        except ValueError:
            wait = -1.0
        if not 0 <= wait <= MAX_WAIT_SECONDS:
            raise Refused(f"wait takes 0 to {MAX_WAIT_SECONDS:g} seconds")
        await gateway.databases.open()
        status = await gateway.desk.status(request.path_params["id"], 0.0 if gateway.draining else wait)
    if status is None:
        raise Denied(404, "no request has this id, or it is older than what is kept")
    return 200, msgspec.json.encode(await gateway.revealed(status))


async def _account(gateway: Gateway, request: Request) -> tuple[int, bytes]:
    """How an account stands, as the results say; the answer names what is not known as null."""
    key = await gateway.admit(_request_key(request), keys.ACCOUNTS)
    with gateway.share(key):
        gateway.charge(key, 1)
        account_id = gateway.named(request.path_params["id"])
        if len(account_id) > MAX_ID or "\x00" in account_id:
            raise Refused(f"an account's id has at most {MAX_ID} characters, none of them NUL")
        await gateway.databases.open()
        for db in gateway.databases.all:
            row = await store.load_account(db, account_id)
            if row is not None:
                return 200, msgspec.json.encode(await gateway.revealed(account_told(account_id, row)))
    raise Denied(404, "no account has this id, or nothing has been computed for it yet")


async def _regulate(gateway: Gateway, request: Request) -> tuple[int, bytes]:
    """Have persons forgotten; they are when the request is on its way, the router carries it out."""
    key = await gateway.admit(_request_key(request), keys.PRIVACY)
    with gateway.share(key):
        body = await read_body(
            request.stream(), request.headers.get("content-encoding", ""), MAX_REGULATION, gateway.knobs.body_seconds
        )
        events = read_regulation(body, datetime.now(UTC))
        gateway.charge(key, len(events))
        try:
            await gateway.publish([record_of(event) for event in events], "regulations")
        except NotDurable as lost:
            raise Denied(503, f"{lost}; send the same again", retry_after=RETRY_AFTER_SECONDS) from None
    ids = [event.id for event in events]
    return 200, msgspec.json.encode({"data": {"regulateId": ids[0]}, "ids": ids})


async def _openapi(request: Request) -> Response:
    return _respond(200, msgspec.json.encode(document()))


async def _livez(request: Request) -> Response:
    return Response("ok", media_type="text/plain")


async def _readyz(request: Request) -> Response:
    reason = request.app.state.gateway.not_ready()
    return Response(reason or "ok", 503 if reason else 200, media_type="text/plain")


async def _metrics(request: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


PROBES = (
    Route("/livez", _livez),
    Route("/readyz", _readyz),
    Route("/metrics", _metrics),
)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {404: "no such path; see /openapi.json", 405: "this path takes another method; see /openapi.json"}
    headers = dict(error.headers or {})
    body = _error(reasons.get(error.status_code, error.detail))
    return Response(body, error.status_code, headers, JSON)


async def _gone(request: Request, error: Exception) -> Response:
    return _respond(400, _error("the caller hung up"))


def _shown(request: Request) -> str:
    """The path without what may be a secret in it."""
    path = request.url.path
    for name in ("key", "token"):
        if secret := request.path_params.get(name):
            path = path.replace(secret, f"{{{name}}}")
    return path


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("a call failed for a reason of ours", extra={"error": type(error).__name__, "path": _shown(request)})
    return _respond(503, _error("failed on our side; send again"), retry_after=RETRY_AFTER_SECONDS)


def _with_slash(path: str) -> tuple[str, ...]:
    return path, path.rstrip("/") + "/"


def make_app(gateway: Gateway, *, worker: bool = True) -> _Front:
    """The ASGI application; its lifespan starts and stops the gateway."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await gateway.start(worker=worker)
        try:
            yield
        finally:
            await gateway.stop()

    doors = [(door, _DoorApp(gateway, door)) for door in DOORS]
    routes = [
        Route(path, entered, methods=list(door.methods))
        for door, entered in doors
        for prefix in ("", "/k/{key}")
        for stem in door.paths
        for path in _with_slash(prefix + stem)
    ]
    straight = {
        ("POST", path): entered
        for door, entered in reversed(doors)
        for stem in door.paths
        for path in _with_slash(stem)
        if "{" not in stem and "POST" in door.methods
    }
    for stem in ("/webhooks/{tool}", "/webhooks/{tool}/{token}"):
        routes += [Route(path, _webhook, methods=["POST"]) for path in _with_slash(stem)]
    for path in _with_slash("/v1/requests"):
        routes.append(Route(path, _requests_endpoint(_make_request), methods=["POST"]))
    routes += [
        Route("/v1/requests/{id}", _requests_endpoint(_request_status), methods=["GET"]),
        Route("/v1/regulations", _requests_endpoint(_regulate, "regulations"), methods=["POST"]),
        Route("/v2/regulations", _requests_endpoint(_regulate, "regulations"), methods=["POST"]),
        Route("/v1/accounts/{id:path}", _requests_endpoint(_account, "accounts"), methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        *PROBES,
    ]
    handlers: Any = {HTTPException: _http_error, ClientDisconnect: _gone, Exception: _unexpected}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    return _Front(app, straight)


def _probes_app(gateway: Gateway) -> Starlette:
    app = Starlette(routes=list(PROBES))
    app.state.gateway = gateway
    return app


def impatient(seconds: float) -> type[HttpToolsProtocol]:
    """HTTP whose callers must send the head of a request within `seconds`, or are cut off; bodies have their own."""

    class Protocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            self._wait()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            super().on_headers_complete()

        def _wait(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Protocol


class _Server(uvicorn.Server):
    """A server that leaves the signals to the process, which has two of them and its own exit status."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Any, host: str, port: int, **options: Any) -> _Server:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        **options,
    )
    return _Server(config)


async def serve(settings: Settings, knobs: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT: then take no more calls, finish those in flight, flush, leave."""
    gateway = Gateway(settings, knobs)
    door = _server(
        make_app(gateway),
        settings.gateway_host,
        settings.gateway_port,
        timeout_graceful_shutdown=knobs.drain_seconds,
        timeout_keep_alive=75,
        http=impatient(knobs.body_seconds),
    )
    probes = _server(_probes_app(gateway), settings.probes_host, settings.probes_port, lifespan="off")

    def leave() -> None:
        gateway.draining = True
        door.should_exit = True

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, leave)
    companion = asyncio.create_task(probes.serve()) if settings.probes_port else None
    try:
        await door.serve()
    except SystemExit:
        raise Misconfigured(f"HUNE_GATEWAY_PORT {settings.gateway_port} cannot be used; choose a free one") from None
    finally:
        probes.should_exit = True
        if companion is not None:
            await companion
    if gateway.fatal is not None:
        raise Misconfigured(gateway.fatal)


def main() -> None:
    """Run the gateway in this process.

    Raises Misconfigured when it must not start.
    """
    logs.configure()
    asyncio.run(serve(Settings.from_env(), GatewaySettings.from_env()))
