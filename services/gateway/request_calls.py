"""The doors of one's own programs: requests and their answers, accounts, regulations."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from services.gateway import keys, metrics, store
from services.gateway.answers import RETRY_AFTER_SECONDS, error_body, respond
from services.gateway.body import read_body
from services.gateway.canonical import MAX_ID, Refused, record_of
from services.gateway.gateway import Denied, Gateway
from services.gateway.handlers import account_told
from services.gateway.regulations import MAX_BYTES as MAX_REGULATION
from services.gateway.regulations import read_regulation
from services.gateway.requests import MAX_BYTES, MAX_WAIT_SECONDS, Conflict, read_request
from services.gateway.spool import NotDurable
from shared.db import TRANSIENT

log = logging.getLogger(__name__)


def _request_key(request: Request) -> str | None:
    authorization = request.headers.get("authorization")
    return keys.from_basic(authorization) or keys.from_bearer(authorization)


def answering(work: Any, label: str = "requests") -> Any:
    async def endpoint(request: Request) -> Response:
        gateway: Gateway = request.app.state.gateway
        retry_after = None
        try:
            with gateway.slot():
                status, body = await work(gateway, request)
        except Refused as refused:
            status, body = refused.status, error_body(refused.reason)
        except Denied as denied:
            retry_after = denied.retry_after
            status, body = denied.status, error_body(denied.reason)
        except TRANSIENT as error:
            log.warning("the database cannot be used", extra={"error": type(error).__name__})
            retry_after = RETRY_AFTER_SECONDS
            status, body = 503, error_body("the database cannot be reached; send again")
        metrics.REQUESTS.labels(label, status).inc()
        return respond(status, body, retry_after=retry_after)

    return endpoint


async def make_request(gateway: Gateway, request: Request) -> tuple[int, bytes]:
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


async def request_status(gateway: Gateway, request: Request) -> tuple[int, bytes]:
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


async def tell_account(gateway: Gateway, request: Request) -> tuple[int, bytes]:
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


async def regulate(gateway: Gateway, request: Request) -> tuple[int, bytes]:
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
