"""Snowplow's tracker protocol over POST: `/com.snowplowanalytics.snowplow/tp2`, which carries no key.

The key is a part of the path: `/k/KEY/com.snowplowanalytics.snowplow/tp2`.

| e | canonical event |
|---|---|
| se (structured) | usage.tracked, event = se_ac, feature = se_ca; label, property, value as properties |
| ue (self-describing) | usage.tracked, event = the schema's name, properties = its data |
| pv, pp, others | usage.tracked `page_viewed` (feature = page), `page_ping`, else the type's letters |

The user is `uid` (else `duid`, `nuid`); the id is `eid`; the time is `ttm` (true, as it is), else `dtm` (the
device's, its skew taken out by `stm`). An account is told by a `company_id` or `account_id` in an entity's or in the
event's data; the application's id (`aid`) is passed on as the property `app_id`. Not passed on: device, browser, IP.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

import msgspec

from services.gateway.adapters.base import Door, Incoming, Opened, Words, read_each
from services.gateway.canonical import (
    Canonical,
    MissingIds,
    OwnTime,
    Refused,
    decode,
    from_epoch,
    identifier,
    own_time,
    rfc3339,
    short_text,
    skewed,
    tracked,
)
from services.gateway.settings import Limits

SOURCE = "snowplow"
_VOLATILE = frozenset({"stm"})
_STRUCTURED = {"se_la": "label", "se_pr": "property", "se_va": "value"}
_NAMES = {"pv": "page_viewed", "pp": "page_ping"}
WORDS = Words(lambda count: b"ok", lambda status, reason, index: reason.encode(), "text/plain")


class _Envelope(msgspec.Struct):
    data: list[msgspec.Raw]


def open_payload(incoming: Incoming) -> Opened:
    envelope = decode(incoming.body, _Envelope)

    def read(received_at: datetime, limits: Limits) -> list[Canonical]:
        return read_each(envelope.data, limits, lambda message, ids: event_of(message, received_at, ids))

    return Opened(None, read)


def event_of(message: dict[str, Any], received_at: datetime, ids: MissingIds) -> Canonical:
    kind = message.get("e")
    if not isinstance(kind, str) or not kind:
        raise Refused("e is missing; send the event's type such as se")
    user_id = next((found for name in ("uid", "duid", "nuid") if (found := identifier(message.get(name), name))), None)
    event, feature, properties = _content(kind, message)
    for entity in _entities(message):
        for name in ("company_id", "account_id"):
            if name in entity and name not in properties:
                properties[name] = entity[name]
    app = message.get("aid")
    if app and "app_id" not in properties:
        properties["app_id"] = app
    true, device = _time(message, "ttm"), _time(message, "dtm")
    sent = _time(message, "stm")
    own = true or device
    occurred_at = received_at
    if own is not None:
        occurred_at = own.at if true else skewed(own.at, sent.at if sent else None, received_at)
    return tracked(
        source=SOURCE,
        id=identifier(message.get("eid"), "eid") or ids.id_of(message, _VOLATILE),
        user_id=user_id,
        event=event,
        own=own,
        occurred_at=occurred_at,
        properties=properties,
        feature=feature,
    )


def _content(kind: str, message: dict[str, Any]) -> tuple[str, str | None, dict[str, Any]]:
    if kind == "se":
        event = identifier(message.get("se_ac"), "se_ac")
        if event is None:
            raise Refused("se_ac is missing; send the action's name")
        properties = {name: message[field] for field, name in _STRUCTURED.items() if message.get(field) is not None}
        return event, short_text(message.get("se_ca")), properties
    if kind == "ue":
        outer = _json(message, "ue_pr", "ue_px")
        inner = outer.get("data") if isinstance(outer, dict) else None
        if not isinstance(inner, dict):
            raise Refused("ue_pr holds no self-describing event; send schema and data")
        data = inner.get("data")
        return _schema_name(inner.get("schema")), None, dict(data) if isinstance(data, dict) else {}
    properties = {"url": message["url"]} if isinstance(message.get("url"), str) else {}
    return _NAMES.get(kind, kind[:256]), short_text(message.get("page")), properties


def _schema_name(schema: object) -> str:
    """`link_click` of `iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1`."""
    parts = schema.split("/") if isinstance(schema, str) else []
    if len(parts) < 2 or not 0 < len(parts[1]) <= 256:
        raise Refused("the self-describing event's schema is no Iglu URI; send iglu:vendor/name/jsonschema/1-0-0")
    return parts[1]


def _entities(message: dict[str, Any]) -> list[dict[str, Any]]:
    if not message.get("co") and not message.get("cx"):
        return []
    contexts = _json(message, "co", "cx")
    entities = contexts.get("data") if isinstance(contexts, dict) else None
    found = (
        [entity.get("data") for entity in entities if isinstance(entity, dict)] if isinstance(entities, list) else []
    )
    return [data for data in found if isinstance(data, dict)]


def _json(message: dict[str, Any], plain: str, encoded: str) -> Any:
    """A field of JSON as text, or its twin in URL-safe base64."""
    text = message.get(plain)
    if isinstance(text, str):
        return decode(text.encode())
    text = message.get(encoded)
    if not isinstance(text, str):
        raise Refused(f"{plain} is missing; send it, or {encoded} in base64")
    try:
        return decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        raise Refused(f"{encoded} is not base64; send {plain}") from None


def _time(message: dict[str, Any], field: str) -> OwnTime | None:
    """Times are ms since 1970, as text."""
    value = message.get(field)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        at = from_epoch(int(value))
        return OwnTime(rfc3339(at), at)
    return own_time(value, field)


DOOR = Door("snowplow", ("/com.snowplowanalytics.snowplow/tp2",), open_payload, WORDS)
