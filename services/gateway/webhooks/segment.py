"""Segment: a Webhooks (Actions) destination that sends each call on, as `/v1/{call}` would have it.

The table of what becomes what is `services/gateway/segment.py`'s, and so are id (messageId), own time
(originalTimestamp) and source: a call that also comes by its SDK counts once.

Segment signs only the first event of a batch: lists are taken under a token in the URL alone, never by X-Signature,
which for them never fits the whole body.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.gateway import segment
from services.gateway.canonical import Canonical, Refused, decode
from services.gateway.settings import Limits
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import Delivery, Forged, Tool, Trust, Unreadable, each, storable

DROPPED = (
    "channel",
    "context.ip",
    "context.page",
    "context.userAgent",
    "integrations",
    "projectId",
    "receivedAt",
    "version",
    "writeKey",
)
LIMITS = Limits()
NUL = rb"\u0000"


def events(delivery: Delivery) -> list[Canonical]:
    body = delivery.body.lstrip()
    try:
        messages: list[Any] = decode(body, list[msgspec.Raw]) if body.startswith(b"[") else [msgspec.Raw(body)]
    except Refused as refused:
        raise Unreadable(refused.reason) from None
    if not messages:
        raise Unreadable("the payload is an empty list")
    return each(messages, lambda message: _read(delivery, message))


def _read(delivery: Delivery, message: msgspec.Raw) -> list[Canonical]:
    try:
        if NUL in bytes(message):
            message = msgspec.Raw(msgspec.json.encode(storable(decode(bytes(message), Any))))
        envelope = segment.Envelope(None, [message], len(bytes(message)), None)
        return segment.read_events(envelope, delivery.received_at, LIMITS)
    except Refused as refused:
        raise Unreadable(refused.reason) from None


def verify(delivery: Delivery, trust: Trust) -> None:
    """hex HMAC-SHA1(secret, body); or a token in the URL."""
    if trust.tokens and delivery.token:
        signatures.check_token(delivery, trust.tokens)
        return
    if delivery.body.lstrip().startswith(b"["):
        raise Forged("Segment signs only the first event of a batch: turn batching off, or put a token in the URL")
    signatures.hub(delivery, trust, "X-Signature", "", "sha1")


TOOL = Tool("segment", verify, events, DROPPED, takes_token=True)
