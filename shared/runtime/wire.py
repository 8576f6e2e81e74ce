"""Records on the wire: CloudEvents attributes in Kafka headers, and the outbox's packed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec
from cramjam import lz4
from pydantic import ValidationError

from shared.errors import Poison
from shared.events import model_of
from shared.events.base import WIRE_PREFIX, Event
from shared.events.inputs import ClockSet
from shared.runtime.api import Signal
from shared.runtime.fetching import UNREADABLE, Fetched

Headers = list[tuple[str, bytes]]
Record: TypeAlias = Fetched
ROUTER_PARTITION = "ce_routerpartition"
CLOCK_SOURCE = "hune.router"
_NEEDED = ("ce_type", "ce_id", "ce_source", "ce_subject", "ce_time")


class Outgoing(msgspec.Struct, array_like=True, gc=False):
    """A record to publish; `partition` is chosen by the key's hash. The same goes to the topics `also` names."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: Headers
    also: tuple[str, ...] = ()


class Refused(NamedTuple):
    """A record that no retry will make readable."""

    record: Record
    reason: str
    error: str = ""


class ClockMark(NamedTuple):
    """A router partition says how far time has come: a run ended at `at`, or life began."""

    record: Record
    router_partition: int
    run: str | None
    at: datetime | None
    live: bool


class Own(msgspec.Struct, gc=False):
    """A signal with what identifies it: the client's own time, as sent."""

    record: Record
    signal: Signal
    own_time: str | None


Item = Own | ClockMark | Refused


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Outgoing]).decode


def pack(records: Sequence[Outgoing]) -> bytes:
    """One outbox row: the records of one transaction and partition, compressed: they are much alike, and a tenth of
    the bytes is a tenth of the log that PostgreSQL writes for them."""
    return bytes(lz4.compress_block(_pack(records)))


def unpack(body: bytes) -> list[Outgoing]:
    return _unpack(bytes(lz4.decompress_block(body)))


_pack_headers = msgspec.msgpack.Encoder().encode
_unpack_headers = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]]).decode


def pack_headers(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    return _pack_headers(list(headers))


def unpack_headers(body: bytes) -> list[tuple[str, bytes | None]]:
    return _unpack_headers(body)


def rfc3339(moment: datetime) -> str:
    """`2026-11-22T10:00:00Z`, with microseconds only where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@lru_cache(maxsize=4096)
def from_ms(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def moment_of(text: str) -> datetime:
    """Parse an RFC 3339 time; one without an offset is taken as UTC.

    Raises ValueError.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is UTC:
        return moment
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@lru_cache(maxsize=1024)
def short_name(wire_type: str) -> str:
    """`usage.tracked` of `hune.usage.tracked.v1`."""
    return wire_type.removeprefix(WIRE_PREFIX).rpartition(".v")[0]


def signal_reader(fast: Mapping[str, Callable[[bytes], Event]]) -> Callable[[Record], Item]:
    """Make the reader of routed and result records for one worker."""
    decoders: dict[str, Callable[[bytes], Any]] = dict(fast)

    def decoder_of(wire_type: str) -> Callable[[bytes], Any]:
        decode = decoders.get(wire_type)
        if decode is None:
            decode = decoders[wire_type] = model_of(wire_type).model_validate_json
        return decode

    def read(record: Record) -> Item:
        try:
            return _read(record, decoder_of)
        except Poison as error:
            return Refused(record, str(error))
        except (ValidationError, msgspec.ValidationError) as error:
            return Refused(record, "the data does not fit its type", describe(error))
        except Exception as error:  # whatever a stranger's bytes make raise is theirs, and ends no process
            return Refused(record, "the record cannot be read", f"{type(error).__name__}: {error}")

    return read


def _read(record: Record, decoder_of: Callable[[str], Callable[[bytes], Any]]) -> Item:
    headers = dict(record.headers)
    get = headers.get
    named, id, source, subject, time = map(get, _NEEDED)
    if not (named and id and source and subject and time):
        refuse_batch(headers)
        name = next(name for name in _NEEDED if not get(name))
        raise Poison(f"header {name} is missing or empty: this is not a CloudEvents record")
    if not record.value:
        raise Poison("the record is empty")
    wire_type = named.decode()
    data = decoder_of(wire_type)(record.value)
    if type(data) is ClockSet:
        return _mark(record, headers, data)
    recorded, own_time, confidence = get("ce_recordedtime"), get("ce_owntime"), get("ce_confidence")
    run, demand = get("ce_run"), get("ce_demand")
    signal = Signal(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        type=short_name(wire_type),
        id=id.decode(),
        source=source.decode(),
        account_id=subject.decode(),
        data=data,
        occurred_at=moment_of(time.decode()),
        received_at=from_ms(int(recorded) if recorded else record.timestamp),
        replay="ce_mode" in headers,
        run=run.decode() if run else None,
        demand=demand.decode() if demand else None,
        confidence=float(confidence) if confidence else None,
    )
    return Own(record, signal, own_time.decode() if own_time else None)


def _mark(record: Record, headers: Mapping[str, bytes | None], clock: ClockSet) -> ClockMark:
    """Time is told by the router alone."""
    if headers["ce_source"] != CLOCK_SOURCE.encode():
        raise Poison("a clock record of somebody else's: only the router tells a worker the time")
    return ClockMark(record, int(headers[ROUTER_PARTITION] or b""), clock.run, clock.at, clock.live)


def refuse_batch(headers: Mapping[str, bytes | None]) -> None:
    """Raises Poison when the record stands for a batch that could not be unpacked."""
    if UNREADABLE in headers:
        why = (headers[UNREADABLE] or b"").decode("utf-8", "replace")
        raise Poison(f"a batch of records cannot be unpacked ({why}); its raw bytes are kept whole")


def describe(error: ValidationError | msgspec.ValidationError) -> str:
    """Name the fields that are wrong, and how, without repeating their values."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(step) for step in detail['loc']) or 'data'}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False)
        )
    return str(error)


def event_headers(
    event: Event, *, id: str, source: str, subject: str, time: datetime, extra: Sequence[tuple[str, bytes]] = ()
) -> Headers:
    """CloudEvents 1.0 attributes of one of our own events, in Kafka's binary mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", event.wire_type().encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", rfc3339(time).encode()),
        ("content-type", b"application/json"),
        *extra,
    ]
