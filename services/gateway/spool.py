"""The spool: records on disk, fsynced, while Kafka is away, and read back in the order they were accepted.

A folder of segments, each a row of frames `mark, length, CRC-32, payload`; the payload is msgpack of (topic, key,
value, headers). Everybody who appends while an fsync runs shares the next one. A segment is deleted once all of it is
on Kafka; a gateway that is killed before sends it again. What a kill or a full disk leaves half written was answered
to nobody: the reader stops there, and a segment that saw a failed write is never written to again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from services.gateway import metrics
from services.gateway.canonical import Record
from shared.errors import Misconfigured

log = logging.getLogger(__name__)

MARK = b"\xa7HS1"
HEAD = struct.Struct("<4sII")
SEGMENT_BYTES = 8 * 1024 * 1024
SUFFIX, DAMAGED = ".spool", ".damaged"

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[str, bytes, bytes, list[tuple[str, bytes]]]).decode


class NotDurable(Exception):
    """The records are not known to be kept. `certain`: none of them is or will be written."""

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.certain = certain


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of the spool; its name tells its place in the order and when it was begun."""

    path: Path
    size: int

    @property
    def number(self) -> int:
        return int(self.path.stem.partition("-")[0])

    @property
    def begun_at(self) -> float:
        return int(self.path.stem.partition("-")[2]) / 1000


def frame_of(record: Record) -> bytes:
    payload = _pack((record.topic, record.key, record.value, record.headers))
    return HEAD.pack(MARK, len(payload), zlib.crc32(payload)) + payload


def read_frames(data: bytes) -> tuple[list[Record], int]:
    """The records of a segment, and how many bytes between them could not be read.

    Bytes after the last readable frame are a write that never ended, not damage.
    """
    records: list[Record] = []
    at = damaged = 0
    while at < len(data):
        payload = _payload_at(data, at)
        if payload is not None:
            records.append(Record(*_unpack(payload)))
            at += HEAD.size + len(payload)
            continue
        following = data.find(MARK, at + 1)
        while following != -1 and _payload_at(data, following) is None:
            following = data.find(MARK, following + 1)
        if following == -1:
            break
        damaged, at = damaged + following - at, following
    return records, damaged


def _payload_at(data: bytes, at: int) -> bytes | None:
    if len(data) - at < HEAD.size:
        return None
    mark, length, crc = HEAD.unpack_from(data, at)
    start = at + HEAD.size
    payload = data[start : start + length] if mark == MARK and len(data) - start >= length else None
    return payload if payload is not None and zlib.crc32(payload) == crc else None


def bytes_waiting(folder: Path) -> int:
    """How much a folder's spool holds, seen from another process."""
    total = 0
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


class Spool:
    """One gateway's spool; `append` is ordered by its calls, its future is done after the fsync."""

    def __init__(self, folder: Path, *, quota: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder, self._quota, self._segment_bytes = folder, quota, segment_bytes
        self._sealed: deque[Segment] = deque()
        self._file: int | None = None
        self._active: Segment | None = None
        self._number = 0
        self._waiting: list[bytes] = []
        self._round: asyncio.Future[None] | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._lock: int | None = None
        self._bytes = 0

    def open(self) -> None:
        """Take the folder and find what the last process left.

        Raises Misconfigured when it cannot be written or another gateway has it.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(
                f"HUNE_GATEWAY_SPOOL_DIR {self._folder} is in use by another gateway; give each its own"
            ) from None
        except OSError as error:
            raise Misconfigured(f"HUNE_GATEWAY_SPOOL_DIR {self._folder} cannot be used: {error.strerror}") from None
        found = sorted(self._folder.glob(f"*{SUFFIX}"))
        for path in found:
            segment = Segment(path, path.stat().st_size)
            self._number = max(self._number, segment.number)
            if segment.size:
                self._sealed.append(segment)
                self._bytes += segment.size
            else:
                path.unlink()

    async def close(self) -> None:
        """Finish what was appended, then let the folder go."""
        await self.flushed()
        self._seal()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def is_empty(self) -> bool:
        busy = self._waiting or self._turn.locked() or (self._flusher is not None and not self._flusher.done())
        return not (busy or self._sealed or self._active)

    @property
    def is_full(self) -> bool:
        return self._bytes >= self._quota

    @property
    def size(self) -> int:
        """Bytes on disk and on their way there."""
        return self._bytes

    def age(self) -> float:
        """Seconds since the oldest segment was begun; 0 when there is none."""
        oldest = self._sealed[0] if self._sealed else self._active
        return max(0.0, time.time() - oldest.begun_at) if oldest is not None else 0.0

    def append(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """Write the records after all that was appended before; the future, shared by many, is done when they are safe.

        Raises NotDurable when the quota is used up.
        """
        frames = b"".join([frame_of(record) for record in records])
        if self._bytes + len(frames) > self._quota:
            raise NotDurable("Kafka is away and the spool is full", certain=True)
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        self._bytes += len(frames)
        self._waiting.append(frames)
        metrics.SPOOLED.inc(len(records))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return self._round

    async def flushed(self) -> None:
        while self._flusher is not None and not self._flusher.done():
            await asyncio.wait({self._flusher})

    async def _flush(self) -> None:
        while self._waiting:
            async with self._turn:
                data, round = b"".join(self._waiting), self._round
                self._waiting, self._round = [], None
                assert round is not None
                try:
                    await asyncio.to_thread(self._write, data)
                except OSError as error:
                    log.error("the spool cannot be written", extra={"error": error.strerror})
                    self._bytes -= len(data)
                    self._seal()
                    round.set_exception(NotDurable(f"the spool cannot be written: {error.strerror}", certain=False))
                    round.exception()
                else:
                    round.set_result(None)

    def _write(self, data: bytes) -> None:
        if self._active is not None and self._active.size >= self._segment_bytes:
            self._seal()
        if self._file is None or self._active is None:
            self._begin()
        assert self._file is not None
        assert self._active is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)
        self._active = Segment(self._active.path, self._active.size + len(data))

    def _begin(self) -> None:
        path = self._folder / f"{self._number + 1:012d}-{int(time.time() * 1000)}{SUFFIX}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number += 1
        self._active = Segment(path, 0)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the file's name must survive, too
        finally:
            os.close(folder)

    def _seal(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._active is not None:
            if self._active.size:
                self._sealed.append(self._active)
            else:
                with contextlib.suppress(OSError):
                    self._active.path.unlink()
            self._active = None

    async def oldest(self) -> Segment | None:
        """The segment to read next; what is being written is closed for it if there is no other."""
        if not self._sealed:
            async with self._turn:
                self._seal()
        return self._sealed[0] if self._sealed else None

    async def read(self, segment: Segment) -> list[Record]:
        records, damaged = await asyncio.to_thread(lambda: read_frames(segment.path.read_bytes()))
        if damaged:
            metrics.SPOOL_DAMAGED.inc(damaged)
            kept = segment.path.with_suffix(DAMAGED)
            log.critical("part of the spool cannot be read; a copy stays", extra={"file": kept.name, "bytes": damaged})
            with contextlib.suppress(FileExistsError):
                os.link(segment.path, kept)
        return records

    def drop(self, segment: Segment) -> None:
        """Forget a segment that is on Kafka."""
        segment.path.unlink(missing_ok=True)
        self._sealed.remove(segment)
        self._bytes -= segment.size
