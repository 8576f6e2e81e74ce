"""The doors of the SDKs: from a call's bytes to where its events are safe."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from services.gateway import keys, metrics
from services.gateway.adapters.base import Door, Incoming, Words
from services.gateway.answers import RETRY_AFTER_SECONDS, headers_of
from services.gateway.body import read_body
from services.gateway.canonical import Refused
from services.gateway.gateway import Denied, Gateway
from services.gateway.spool import NotDurable

log = logging.getLogger(__name__)
_NOTHING: Mapping[str, str] = {}


class DoorApp:
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
        headers = headers_of(status, body, call.words.media_type, retry_after)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


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
