"""`hune send`: a file of JSON lines to the raw topics, untouched, fast, resumable and safe to repeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click
import msgspec

from cli import files
from cli.files import Memory, Source
from cli.progress import Progress
from cli.raw import LONGEST_VALUE, RawWriter, Run, open_writer
from cli.support import Installation, Stores, control_url, load_installation, run
from cli.times import loose_time
from cli.vault import load_keys
from shared import db, topics
from shared.events import wire_type_of
from shared.ids import derived_id
from shared.runtime.wire import Headers, short_name
from shared.times import instant
from shared.topics import Topic
from shared.vault import store as vault
from shared.vault.keys import fields
from shared.vault.sealing import Contact, Sealer

CHUNK_LINES = 20_000
CHUNK_BYTES = 8 << 20
SHOWN = 20
REQUEST_TYPES = ("request.made", "hune.request.made.v1")
STRUCTURED: Headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
FUTURE = timedelta(hours=24)

Step = Callable[[int, float], None]


class _Line(msgspec.Struct, gc=False):
    """The few fields of a line that say where it goes; whatever they hold, the router judges."""

    type: Any = None
    id: Any = None
    event_id: Any = None
    messageId: Any = None
    account_id: Any = None
    user_id: Any = None
    event: Any = None
    feature: Any = None
    demand: Any = None
    text: Any = None
    timestamp: Any = None
    specversion: Any = None
    time: Any = None
    data: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class Placed(NamedTuple):
    """Where a line goes, when it happened if it says so, and what is wrong with it."""

    topic: Topic
    key: bytes | None
    time: str | None = None
    structured: bool = False
    fault: str | None = None


@dataclass(slots=True)
class SendSummary:
    """What was sent; `bad` lines are sent too, for the router to quarantine, `too_long` ones cannot be."""

    path: Path
    run: str | None = None
    resumed_at: int = 0
    records: int = 0
    requests: int = 0
    size: int = 0
    bad_count: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    too_long: list[tuple[int, int]] = field(default_factory=list)
    undated: int = 0
    at: datetime | None = None
    seconds: float = 0.0

    def lines(self) -> list[str]:
        rate = self.records / max(self.seconds, 1e-3)
        said = [f"sent {self.records:,} lines of {self.path} in {self.seconds:.1f} s ({rate:,.0f}/s)"]
        if self.resumed_at:
            said.append(f"went on after line {self.resumed_at:,}, where the last attempt had stopped")
        if self.requests:
            said.append(f"{self.requests:,} of them are requests")
        if self.run and self.at:
            said.append(f"run {self.run} ended at {instant(self.at)}")
        if self.run and self.undated:
            said.append(f"{self.undated:,} lines have no time: they count as of their receipt")
        if self.bad_count:
            said.append(f"{self.bad_count:,} lines are not JSON objects; `hune quarantine list` will show them:")
            said += [f"  line {number:,}: {fault}" for number, fault in self.bad]
        said += [
            f"NOT sent: line {number:,} has {size:,} bytes, a record holds {LONGEST_VALUE:,}"
            for number, size in self.too_long
        ]
        return said


def place(line: bytes) -> Placed:
    """Read from a line which topic and key it belongs to."""
    try:
        head = _decode(line)
    except msgspec.ValidationError:
        return Placed(topics.RAW_EVENTS, None, fault="not a JSON object")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Placed(topics.RAW_EVENTS, None, fault=f"not JSON: {error}")
    if head.specversion is not None:
        return _place_structured(head)
    identity = _text(head.id) or _text(head.event_id) or _text(head.messageId)
    return _place(head, _text(head.timestamp), identity, structured=False)


def _place_structured(head: _Line) -> Placed:
    if isinstance(head.data, dict):
        for name in ("account_id", "user_id", "demand", "text"):
            setattr(head, name, head.data.get(name))
    return _place(head, _text(head.time), _text(head.id), structured=True)


def _place(head: _Line, time: str | None, identity: str | None, *, structured: bool) -> Placed:
    account, user = _text(head.account_id), _text(head.user_id)
    if _is_request(head):
        topic, key = topics.RAW_REQUESTS, account or identity
    else:
        topic, key = topics.RAW_EVENTS, user or account or identity
    return Placed(topic, key.encode() if key else None, time, structured)


def _type_of(line: bytes, topic: Topic) -> str:
    if topic is topics.RAW_REQUESTS:
        return "request.made"
    given = _decode(line).type
    return short_name(wire_type_of(given)) if isinstance(given, str) and given else "usage.tracked"


def _is_request(head: _Line) -> bool:
    if head.type is not None:
        return head.type in REQUEST_TYPES
    asks = head.demand is not None or head.text is not None
    return asks and head.event is None and head.feature is None


def _text(value: Any) -> str | None:
    """An id as text: producers write numbers too."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class Latest:
    """The latest time seen, without those that the router will refuse as of the future."""

    def __init__(self, now: datetime, at: datetime | None = None) -> None:
        self._limit = now + FUTURE
        self._seen = ""
        self.at = at

    def see(self, text: str) -> None:
        if text == self._seen:
            return
        self._seen = text
        try:
            moment = loose_time(text)
        except (ValueError, OverflowError):
            return  # the router judges it
        if moment <= self._limit and (self.at is None or moment > self.at):
            self.at = moment


class Chunk(NamedTuple):
    lines: list[bytes]
    end: int
    """Where the next chunk begins, in plain bytes."""


def chunks(file: BinaryIO, start: int, lines: int, size: int) -> Iterator[Chunk]:
    """Cut a file into chunks of whole lines, from byte `start` on."""
    file.seek(start)
    end, taken, held = start, [], 0
    for line in file:
        taken.append(line)
        held += len(line)
        if len(taken) >= lines or held >= size:
            end += held
            yield Chunk(taken, end)
            taken, held = [], 0
    if taken:
        yield Chunk(taken, end + held)


async def send_file(
    stores: Stores, path: Path, *, replay: bool = False, rate: int | None = None, progress: Step | None = None
) -> SendSummary:
    """Send a file of JSON lines; as a run with `replay`, which ends by moving the clock.

    Each line's bytes become one record; where there is a contact vault, with references for what is personal. An
    interrupted call goes on where Kafka had acknowledged everything.
    """
    content = await asyncio.to_thread(files.content_hash, path)
    control = await db.connect(control_url(stores))
    try:
        installation = await load_installation(control)
    finally:
        await control.close()
    mode = "replay" if replay else "live"
    memory = Memory(stores.home, f"send-{mode}-{installation.id[:8]}-{content[:32]}")
    the_run = Run(derived_id("run", installation.id, content)) if replay else None
    with files.opened(path) as source:
        return await _Sending(stores, path, memory, the_run, rate, progress).all(source, installation)


class _Sending:
    def __init__(
        self, stores: Stores, path: Path, memory: Memory, the_run: Run | None, rate: int | None, progress: Step | None
    ) -> None:
        self._stores = stores
        self._memory = memory
        self._run = the_run
        self._rate = rate
        self._progress = progress
        self._headers: Headers = the_run.headers if the_run else []
        self._now = datetime.now(UTC)
        self._keys = load_keys(stores.home)
        self._sealer = Sealer(self._keys, fields()) if self._keys is not None else None
        self._contacts: list[tuple[Contact, datetime]] = []
        self._summary = SendSummary(path, the_run.id if the_run else None)

    async def all(self, source: Source, installation: Installation) -> SendSummary:
        started, summary = time.monotonic(), self._summary
        known = self._memory.load()
        number = summary.resumed_at = known.get("lines", 0)
        first = known.setdefault("first_sent_at", self._now.isoformat())
        latest = Latest(self._now, datetime.fromisoformat(known["at"]) if known.get("at") else None)
        lines = CHUNK_LINES if self._rate is None else max(1, min(CHUNK_LINES, self._rate // 10))
        async with open_writer(self._stores.bootstrap_servers, installation.partitions) as writer:
            for chunk in chunks(source.lines, known.get("bytes", 0), lines, CHUNK_BYTES):
                for line in chunk.lines:
                    number += 1
                    self._add(writer, number, line, latest)
                await self._keep()
                await writer.flush()
                known |= {"lines": number, "bytes": chunk.end, "at": latest.at.isoformat() if latest.at else None}
                self._memory.save(known)
                await self._keep_pace(started)
                if self._progress:
                    self._progress(number, source.share)
            if number == 0:
                raise click.ClickException(f"{summary.path} is empty: there is nothing to send.")
            if self._run:
                summary.at = latest.at or datetime.fromisoformat(first)
                await writer.end_run(self._run, summary.at)
        self._memory.save({"first_sent_at": first})
        if self._progress:
            self._progress(number, 1.0)
        summary.seconds = time.monotonic() - started
        return summary

    def _add(self, writer: RawWriter, number: int, line: bytes, latest: Latest) -> None:
        summary = self._summary
        value = line.rstrip(b"\r\n")
        if number == 1:
            value = value.removeprefix(b"\xef\xbb\xbf")
        if not value.strip():
            return
        if len(value) > LONGEST_VALUE:
            summary.too_long.append((number, len(value)))
            return
        topic, key, at, structured, fault = place(value)
        if fault:
            summary.bad_count += 1
            if len(summary.bad) < SHOWN:
                summary.bad.append((number, fault))
        elif at is None:
            summary.undated += 1
        else:
            latest.see(at)
        if self._sealer is not None and not fault:
            key, value = self._sealed(self._sealer, topic, key, value, structured)
        writer.add(topic, key, value, [*self._headers, *STRUCTURED] if structured else self._headers)
        summary.records += 1
        summary.requests += topic is topics.RAW_REQUESTS
        summary.size += len(value)

    def _sealed(
        self, sealer: Sealer, topic: Topic, key: bytes | None, value: bytes, structured: bool
    ) -> tuple[bytes | None, bytes]:
        """Key and line with references for what is personal; what it was is kept with the chunk."""
        if not sealer.may_hold(value):
            return key, value
        type = _type_of(value, topic)
        sealed = sealer.seal_structured(type, key, value) if structured else sealer.seal_record(type, key, value)
        if sealed is None:
            return key, value
        self._contacts += [(contact, self._now) for contact in sealed.contacts]
        return sealed.key, sealed.value

    async def _keep(self) -> None:
        """What was personal in the chunk goes to the vault before the chunk goes to Kafka's acknowledgement."""
        if not self._contacts or self._keys is None:
            return
        control = await db.connect(control_url(self._stores))
        try:
            await vault.save(control, self._keys, self._contacts)
        finally:
            await control.close()
        self._contacts = []

    async def _keep_pace(self, started: float) -> None:
        if self._rate is not None:
            ahead = self._summary.records / self._rate - (time.monotonic() - started)
            await asyncio.sleep(max(ahead, 0))


@click.command("send")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replay", is_flag=True, help="These events are history: they act nowhere outside and move the clock.")
@click.option("--rate", type=click.IntRange(min=1), help="Lines a second at most.")
def command(file: Path, replay: bool, rate: int | None) -> None:
    """Send FILE, JSON objects one a line (.gz too), to the raw topics.

    Safe to repeat: the same id and time is the same event. Interrupted, the same command goes on.
    """
    files.check(file)
    summary = run(_send(file, replay, rate))
    for line in summary.lines():
        click.echo(line)
    if summary.too_long:
        raise SystemExit(1)


async def _send(file: Path, replay: bool, rate: int | None) -> SendSummary:
    from cli.home import open_stores

    async with open_stores(need_kafka=True) as stores:
        progress = Progress(f"sending {file.name}")
        try:
            return await send_file(stores, file, replay=replay, rate=rate, progress=progress)
        finally:
            progress.close()
