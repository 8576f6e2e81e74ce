"""The doors of the tools: `POST /webhooks/{tool}`."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from services.gateway import keys, metrics
from services.gateway.answers import RETRY_AFTER_SECONDS, respond
from services.gateway.body import read_body
from services.gateway.canonical import Refused
from services.gateway.gateway import Denied, Gateway
from services.gateway.spool import NotDurable
from services.gateway.webhooks.base import Answer, Delivery, Forged, Tool, say_refused
from services.gateway.webhooks.tools import TOOLS
from services.gateway.webhooks.translate import records_of


async def take_webhook(request: Request) -> Response:
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
    return respond(status, answer.body, answer.media_type, retry_after)


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
