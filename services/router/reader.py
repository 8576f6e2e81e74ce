"""Raw records as they come: CloudEvents in Kafka's binary or structured mode, or plain JSON objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

import msgspec
from pydantic import ValidationError
from pydantic_core import from_json

from services.router.settings import Routing, find
from shared.errors import Poison
from shared.events import inputs, model_of, wire_type_of
from shared.events.base import Event, InputEvent
from shared.runtime.unit import MOST_BYTES
from shared.runtime.wire import (
    Item,
    Own,
    Record,
    Refused,
    describe,
    from_ms,
    moment_of,
    refuse_batch,
    rfc3339,
    short_name,
)
from shared.vault.sealing import Contact, Sealer

SOURCE = "hune"
HOUR_MS = 3600 * 1000
FUTURE_MS = 24 * HOUR_MS
USAGE = inputs.UsageTracked.wire_type()
REQUEST = inputs.RequestMade.wire_type()
CLOCK = inputs.ClockSet.wire_type()
LONGEST_ID = 256
LONGEST_TIME = 64
LARGEST = MOST_BYTES - 16 * 1024
DEEP = 100
_ESCAPES = re.compile(rb"\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class RawEvent(msgspec.Struct, gc=False):
    """One raw record, read and checked; `account_id` is the account it names itself, if any."""

    topic: str
    partition: int
    offset: int
    wire_type: str
    id: str
    source: str
    own_time: str | None
    occurred_at: datetime
    received_ms: int
    account_id: str | None
    user_id: str | None
    value: bytes
    mode: bytes | None
    run: bytes | None
    data: Event | None
    """The decoded fact; None for usage, which is checked but not decoded."""
    time: str | None
    """`occurred_at` as it came, if that is RFC 3339 in UTC."""
    contacts: Sequence[Contact] = ()
    """What was personal in it: a producer of its own does not come through a door that keeps it."""

    @property
    def type(self) -> str:
        return short_name(self.wire_type)

    @property
    def received_at(self) -> datetime:
        return from_ms(self.received_ms)


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)]


class _Plain(msgspec.Struct, gc=False):
    """A plain JSON object, or the data of a usage event: what every door may send."""

    id: str | int | None = None
    event_id: str | None = None
    messageId: str | None = None
    type: str | None = None
    account_id: _Name | None = None
    user_id: _Name | None = None
    event: _Name | None = None
    feature: _Name | None = None
    product: _Name | None = None
    timestamp: str | float | int | None = None
    originalTimestamp: str | None = None
    specversion: str | None = None
    context: msgspec.Raw = msgspec.Raw()
    groups: msgspec.Raw = msgspec.Raw()
    properties: msgspec.Raw = msgspec.Raw()


class _Structured(msgspec.Struct):
    """CloudEvents in structured mode."""

    id: str
    source: str
    type: str
    specversion: str
    time: str | None = None
    owntime: str | None = None
    data: msgspec.Raw = msgspec.Raw()


_NO_HEADERS: dict[str, bytes | None] = {}
_plain = msgspec.json.Decoder(_Plain).decode
_structured = msgspec.json.Decoder(_Structured).decode
_anything = msgspec.json.Decoder().decode


def raw_reader(routing: Routing, sealer: Sealer | None = None) -> Callable[[Record], Item]:
    """Make the reader of the raw topics; with a sealer what is personal becomes references here at the latest."""
    paths = routing.account_paths[1:] if routing.account_paths[:1] == ("account_id",) else routing.account_paths

    def read(record: Record) -> Item:
        try:
            return Own(record, _read(record, paths, sealer), None)  # type: ignore[arg-type]
        except Poison as error:
            return Refused(record, str(error))
        except (ValidationError, msgspec.ValidationError) as error:
            return Refused(record, "the data does not fit its type", describe(error))
        except UnicodeDecodeError as error:
            return Refused(record, "the record is not UTF-8", str(error))
        except Exception as error:  # whatever a stranger's bytes make raise is theirs, and ends no process
            return Refused(record, "the record cannot be read as JSON", f"{type(error).__name__}: {error}")

    return read


def _read(record: Record, paths: tuple[str, ...], sealer: Sealer | None = None) -> RawEvent:
    value = record.value
    if not value:
        raise Poison("the record is empty")
    if not record.headers:
        _refuse_unfit(value)
        return _from_plain(record, value, _NO_HEADERS, paths, sealer)
    headers = dict(record.headers)
    refuse_batch(headers)
    _refuse_unfit(value)
    if "ce_type" in headers or "ce_id" in headers:
        return _binary(record, value, headers, paths, sealer)
    if b"cloudevents" in (headers.get("content-type") or b""):
        return _from_structured(record, value, headers, paths, sealer)
    return _from_plain(record, value, headers, paths, sealer)


def _refuse_unfit(value: bytes) -> None:
    """What no domain could take, though some parser reads it: said once, here, rather than by each of them."""
    if len(value) > LARGEST:
        raise Poison(f"the record takes {len(value):,} bytes; at most {LARGEST:,} can be passed on")
    if not value.isascii():
        value.decode()
    # Text that UTF-8 and PostgreSQL cannot hold: half of a surrogate pair (decoding raises), NUL.
    if b"\\" in value and _ESCAPES.search(value) and _NUL.search(msgspec.json.encode(_anything(value))):
        raise Poison("the text holds a NUL character (\\u0000), which cannot be stored")
    if value.count(b"[") + value.count(b"{") > DEEP:
        from_json(value, allow_inf_nan=False)


def _binary(
    record: Record, value: bytes, headers: dict[str, bytes | None], paths: tuple[str, ...], sealer: Sealer | None
) -> RawEvent:
    def need(name: str) -> str:
        header = headers.get(name)
        if not header:
            raise Poison(f"header {name} is missing or empty")
        if b"\0" in header:
            raise Poison(f"header {name} holds a NUL character")
        return header.decode()

    time = headers.get("ce_time")
    own = headers.get("ce_owntime", time)
    own_time = own.decode() if own else None
    wire_type, id, source = need("ce_type"), need("ce_id"), need("ce_source")
    at = time.decode() if time else None
    return _build(record, headers, paths, wire_type, id, source, own_time, at, value, None, sealer)


def _from_structured(
    record: Record, value: bytes, headers: dict[str, bytes | None], paths: tuple[str, ...], sealer: Sealer | None
) -> RawEvent:
    event = _structured(value)
    own_time, data = event.owntime or event.time, bytes(event.data) or b"{}"
    return _build(record, headers, paths, event.type, event.id, event.source, own_time, event.time, data, None, sealer)


def _from_plain(
    record: Record, value: bytes, headers: dict[str, bytes | None], paths: tuple[str, ...], sealer: Sealer | None
) -> RawEvent:
    body = _plain(value)
    if body.specversion is not None:
        return _from_structured(record, value, headers, paths, sealer)
    identity = body.id if body.id is not None else body.event_id or body.messageId
    if identity is None or identity == "":
        raise Poison("id is missing: give the event an `id` (or `event_id`, `messageId`)")
    time = None if body.timestamp is None else str(body.timestamp)
    default = REQUEST if record.topic.endswith("raw.requests.v1") else USAGE
    wire_type = wire_type_of(body.type) if body.type else default
    own_time = body.originalTimestamp or time
    return _build(record, headers, paths, wire_type, str(identity), SOURCE, own_time, time, value, body, sealer)


def _build(
    record: Record,
    headers: dict[str, bytes | None],
    paths: tuple[str, ...],
    wire_type: str,
    id: str,
    source: str,
    own_time: str | None,
    time: str | None,
    value: bytes,
    body: _Plain | None,
    sealer: Sealer | None = None,
) -> RawEvent:
    if not 0 < len(id) <= LONGEST_ID or not 0 < len(source) <= LONGEST_ID:
        raise Poison(f"id and source take 1 to {LONGEST_ID} characters")
    if own_time is not None and len(own_time) > LONGEST_TIME:
        raise Poison(f"the event's own time takes at most {LONGEST_TIME} characters")
    data: Event | None = None
    contacts: Sequence[Contact] = ()
    if sealer is not None:
        sealed = sealer.seal_record(short_name(wire_type), None, value)
        if sealed is not None:
            value, body, contacts = sealed.value, None, sealed.contacts
    if wire_type == USAGE:
        body = body or _plain(value)
        account_id, user_id = body.account_id, body.user_id
    else:
        _anything(value)  # refuses NaN, Infinity, 1e400 and endless integers, which pydantic lets pass; about 1 µs
        data = model_of(wire_type).model_validate_json(value)
        account_id, user_id = (data.account_id, data.user_id) if isinstance(data, InputEvent) else (None, None)
        if not isinstance(data, InputEvent):
            raise Poison(f"type {wire_type!r} is a result: raw topics take events and requests")
    if account_id is None and paths:
        account_id = _named_account(value, paths)
    occurred_at = from_ms(record.timestamp) if time is None else moment(time)
    if occurred_at > _surely_past(record.timestamp // HOUR_MS) and (
        occurred_at.timestamp() * 1000 > record.timestamp + FUTURE_MS
    ):
        raise Poison(f"the event is dated {rfc3339(occurred_at)}, more than 24 hours after it was received")
    if isinstance(data, inputs.ClockSet):
        _check_clock(data, record.timestamp)
    return RawEvent(
        record.topic,
        record.partition,
        record.offset,
        wire_type,
        id,
        source,
        own_time,
        occurred_at,
        record.timestamp,
        account_id,
        user_id,
        value,
        _word(headers, "ce_mode") if "ce_mode" in headers else None,
        _word(headers, "ce_run") if "ce_run" in headers else None,
        data,
        time if time is not None and time[-1:] == "Z" and time[10:11] == "T" else None,
        contacts,
    )


@lru_cache(maxsize=1024)
def _surely_past(hour: int) -> datetime:
    """Up to this no time is too far ahead for what was received in that hour (since 1970)."""
    return from_ms(hour * HOUR_MS + FUTURE_MS)


def _word(headers: dict[str, bytes | None], name: str) -> bytes | None:
    content = headers.get(name)
    if content and (len(content) > LONGEST_ID or not content.decode().isprintable()):
        raise Poison(f"header {name} takes at most {LONGEST_ID} printable characters")
    return content or None


def _check_clock(clock: inputs.ClockSet, received_ms: int) -> None:
    """The end of a run is told by whoever sent the run; when life begins is for the router to say."""
    if clock.live or clock.run is None or clock.at is None:
        raise Poison("a clock record names the `run` that ended and its latest time `at`, and nothing else")
    if clock.at.timestamp() * 1000 > received_ms + FUTURE_MS:
        raise Poison(f"the run's end is dated {rfc3339(clock.at)}, more than 24 hours after it was received")


def _named_account(value: bytes, paths: tuple[str, ...]) -> str | None:
    body = _anything(value)
    for path in paths:
        found = find(body, path)
        if isinstance(found, str | int) and not isinstance(found, bool) and 0 < len(str(found)) <= LONGEST_ID:
            return str(found)
    return None


def moment(text: str) -> datetime:
    """RFC 3339, or seconds or milliseconds since 1970; one without an offset is UTC.

    Raises Poison.
    """
    try:
        return moment_of(text)
    except (ValueError, OverflowError):
        pass
    try:
        number = float(text)
        return datetime.fromtimestamp(number / 1000 if abs(number) >= 1e11 else number, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Poison(f"timestamp {text[:40]!r} is neither RFC 3339 nor seconds since 1970") from error
