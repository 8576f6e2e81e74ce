"""Unpack fetched records without ever losing one, where aiokafka would.

aiokafka raises while it unpacks a header key that is not UTF-8, or a batch it cannot uncompress. Then the records
of other partitions that the same call had already taken are lost, though the consumer stands behind them, and the
bad partition is fetched again for ever. And where Kafka has deleted what was not read yet it jumps to what is left.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from aiokafka.consumer import fetcher
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

log = logging.getLogger(__name__)

UNREADABLE = "hune-unreadable"
"""Header of a record that stands for a whole batch which nobody can unpack; its value is the batch's raw bytes."""

_LENGTH = struct.Struct(">i")
_OVERHEAD = 12


class Fetched(msgspec.Struct, gc=False):
    """A record as the consumers of this process hand it out: what is used of aiokafka's, at a third of its cost."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Unpacked(NamedTuple):
    """A record as aiokafka's own reader gives it."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Batches:
    """aiokafka's reader of a fetched block, whose batches never raise."""

    __slots__ = ("_at", "_block", "_inner")

    def __init__(self, block: bytes) -> None:
        self._block, self._inner, self._at = block, MemoryRecords(block), 0

    def has_next(self) -> bool:
        return bool(self._inner.has_next())

    def size_in_bytes(self) -> int:
        return int(self._inner.size_in_bytes())

    def next_batch(self) -> Batch | None:
        batch = self._inner.next_batch()
        if batch is None:
            return None
        start = self._at
        self._at += _OVERHEAD + _LENGTH.unpack_from(self._block, start + 8)[0]
        return Batch(batch, memoryview(self._block)[start : self._at])


class Batch:
    """One batch: quickly if it is well, by our own reader if a header's key is odd, else as one unreadable record."""

    __slots__ = ("_batch", "_raw")

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch, self._raw = batch, raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        if not self._batch.validate_crc():
            log.critical("a fetched batch is damaged", extra={"offset": self._batch.base_offset})
            os._exit(70)
        return True

    def __next__(self) -> Any:
        return next(iter(self._batch))

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except Exception as error:
            return iter(self._tolerantly(f"{type(error).__name__}: {error}"))

    def _tolerantly(self, reason: str) -> list[Unpacked]:
        raw = bytes(self._raw)
        try:
            return unpack(raw)
        except Exception as error:
            log.error("a batch cannot be unpacked", extra={"error": repr(error), "first": reason})
            headers: list[tuple[str, bytes | None]] = [(UNREADABLE, reason.encode("utf-8", "replace"))]
            return [Unpacked(self._batch.next_offset - 1, _timestamp(raw), 1, None, raw, headers)]


def unpack(raw: bytes) -> list[Unpacked]:
    """The records of a batch; header keys that are not UTF-8 show their odd bytes as `\\xff`.

    Raises whatever a batch that cannot be unpacked makes the codec or the reader raise.
    """
    batch = _DefaultRecordBatchPy(raw)
    batch._maybe_uncompress()
    buffer, at = batch._buffer, batch._pos
    records = []
    for _ in range(batch._num_records):
        length, at = decode_varint(buffer, at)
        end = at + length
        delta, at = decode_varint(buffer, at + 1)
        offset, at = decode_varint(buffer, at)
        key, at = _bytes(buffer, at)
        value, at = _bytes(buffer, at)
        count, at = decode_varint(buffer, at)
        headers: list[tuple[str, bytes | None]] = []
        for _ in range(count):
            name, at = _bytes(buffer, at)
            content, at = _bytes(buffer, at)
            headers.append(((name or b"").decode("utf-8", "backslashreplace"), content))
        if at != end or at > len(buffer):
            raise ValueError(f"a record of {length} bytes ends at {at}, not at {end}")
        logged = batch.timestamp_type == batch.LOG_APPEND_TIME
        timestamp = batch.max_timestamp if logged else batch.first_timestamp + delta
        records.append(Unpacked(batch.base_offset + offset, timestamp, batch.timestamp_type, key, value, headers))
    return records


def _bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(buffer, at)
    return (None, at) if length < 0 else (bytes(buffer[at : at + length]), at + length)


def _timestamp(raw: bytes) -> int:
    try:
        return max(int(_DefaultRecordBatchPy(raw).max_timestamp), 0)
    except struct.error:
        return 0


_await_reset = TopicPartitionState.await_reset


def _never_jump(self: Any, strategy: Any) -> None:
    """A position out of range: end here, for the start that follows counts what is lost and says so."""
    if self.has_valid_position:
        log.critical("Kafka no longer holds what comes next", extra={"offset": self._position})
        os._exit(70)
    _await_reset(self, strategy)


def _fetched(self: Any, tp: Any, record: Any) -> Fetched:
    return Fetched(tp.topic, tp.partition, record.offset, record.timestamp, record.key, record.value, record.headers)


def install() -> None:
    """Make the consumers of this process unpack so."""
    fetcher.PartitionRecords._consumer_record = _fetched
    fetcher.MemoryRecords = Batches
    TopicPartitionState.await_reset = _never_jump
