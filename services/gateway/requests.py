"""Requests over HTTP: accepted once per id, known from the 202 on, answered when a service has answered."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
import pydantic

from services.gateway import store
from services.gateway.canonical import Canonical, Record, Refused, decode, own_time, record_of, rfc3339
from services.gateway.ingest import Durable
from services.gateway.spool import NotDurable
from shared.events.inputs import RequestMade
from shared.topics import RAW_REQUESTS

MAX_BYTES = 32 * 1024
MAX_WAIT_SECONDS = 30.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks; `fingerprint` tells a repetition from another request under the same id."""

    id: str
    fingerprint: bytes
    record: Record
    demand: str | None
    account_id: str | None


def read_request(body: bytes, received_at: datetime) -> Request:
    """Read the body of POST /v1/requests.

    Raises Refused naming the field.
    """
    if len(body) > MAX_BYTES:
        raise Refused(f"the request has {len(body)} bytes; at most {MAX_BYTES}", status=413)
    fields = decode(body)
    if not isinstance(fields, dict):
        raise Refused('the request is not a JSON object; send {"demand": "health.score", "account_id": "acct_42"}')
    try:
        made = RequestMade.model_validate(fields)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Refused(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    if made.demand is None and not (made.text or "").strip():
        raise Refused("demand and text are missing; send one of them, such as demand health.score")
    given = fields.get("id")
    if given is not None and (not isinstance(given, str) or not 1 <= len(given) <= 256 or not given.isprintable()):
        raise Refused("id takes a string of 1 to 256 printable characters; leave it out to get one")
    own = own_time(fields.get("timestamp"), "timestamp")
    id = given or str(uuid.uuid4())
    data = made.model_dump(mode="json", exclude_defaults=True)
    event = Canonical(
        type="request.made",
        id=id,
        body=data,
        key=made.account_id or id,
        occurred_at=own.at if own else received_at,
        own_time=own.text if own else None,
    )
    fingerprint = hashlib.sha256(msgspec.json.encode(data, order="sorted")).digest()
    return Request(id, fingerprint, record_of(event, RAW_REQUESTS.name), made.demand, made.account_id)


class Conflict(Exception):
    """The id stands for another request already."""


class Databases(Protocol):
    """The control database first, and every database that may hold answers."""

    @property
    def control(self) -> store.Database: ...

    @property
    def all(self) -> Sequence[store.Database]: ...


class Desk:
    """Takes requests and tells how they stand."""

    def __init__(self, databases: Databases, ingest: Durable) -> None:
        self._databases, self._ingest = databases, ingest
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._poller: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> None:
        """Make the request known, then durable. Sent again under its id it does nothing more.

        Raises Conflict, NotDurable.
        """
        db, known = self._databases.control, (request.id, request.fingerprint, request.demand, request.account_id)
        if not await store.save_request(db, *known):
            before = await store.load_request(db, request.id)
            if before is not None and bytes(before["fingerprint"]) != request.fingerprint:
                raise Conflict
            if before is not None and before["produced_at"] is not None:
                return
        try:
            await self._ingest.publish([request.record])
        except NotDurable as error:
            if error.certain:
                await store.drop_unproduced(db, request.id)
            raise
        await store.mark_produced(db, *known)

    async def status(self, id: str, wait_seconds: float = 0.0) -> dict[str, Any] | None:
        """How the request stands, after waiting for its answer at most so long; None if nobody knows it."""
        deadline = time.monotonic() + wait_seconds
        status = await self._status(id)
        while status is not None and status["status"] == "pending" and (left := deadline - time.monotonic()) > 0:
            await self._answered(id, left)
            status = await self._status(id)
        return status

    async def _status(self, id: str) -> dict[str, Any] | None:
        answers = [row for db in self._databases.all for row in await store.load_answers(db, [id])]
        if answers:
            return _told(min(answers, key=lambda row: row["received_at"]))
        pending = await store.load_request(self._databases.control, id)
        return _told(pending) if pending is not None else None

    async def _answered(self, id: str, seconds: float) -> None:
        """Wait until there is an answer or the time is over; all who wait share one query per round."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(id, set()).add(future)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            await asyncio.wait({future, self._poller}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting = self._waiting.get(id, set())
            waiting.discard(future)
            if not waiting:
                self._waiting.pop(id, None)
        if self._poller.done() and not self._poller.cancelled() and (error := self._poller.exception()) is not None:
            raise error

    async def _poll(self) -> None:
        while self._waiting:
            for db in self._databases.all:
                for row in await store.load_answers(db, list(self._waiting)):
                    for future in self._waiting.get(row["request_id"], ()):
                        if not future.done():
                            future.set_result(None)
            await asyncio.sleep(POLL_SECONDS)


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """The public face of an answer's row, or of a request's row while there is none."""
    as_of, candidates = row.get("as_of"), row.get("candidates")
    told = {
        "id": row.get("request_id") or row.get("id"),
        "status": row.get("status") or "pending",
        "demand": row.get("demand"),
        "account_id": row.get("account_id"),
        "confidence": row.get("confidence"),
        "as_of": rfc3339(as_of) if as_of else None,
        "answer": row.get("answer"),
        "reason": row.get("reason"),
    }
    return {**told, "candidates": list(candidates)} if candidates else told
