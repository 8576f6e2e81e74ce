"""The HTTP door: what an event costs in `/v1/batch`, beside an application of the same server that does nothing."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]

from devstack import processes
from devstack.ports import choose
from services.gateway import keys
from shared import topics
from tests.benchmarks.lab import ROOT, Lab
from tests.benchmarks.report import Figure, Outcome

EVENTS = 100
CALLERS = 8
FLOOR, AIM = 0.2, 0.4
UNLIMITED = "1000000000"
PATIENCE = 60.0
ABOUT = f"""
`POST /v1/batch` with {EVENTS} events as Segment's Python SDK sends them, {CALLERS} callers at once, each waiting for
its answer; the gateway answers when Kafka has acknowledged, and the topic is counted afterwards. The same bytes are
posted to a bare ASGI application on the same server, which reads the body and answers. In turns; the ratio is of CPU
time of the serving process per event, because clients and broker share the cores; what the gateway costs while nobody
calls (its reader of answers) is measured before and taken off. The gateway's rate limit is lifted.
"""


@dataclass(frozen=True, slots=True)
class Size:
    repetitions: int
    calls: int


QUICK = Size(5, 600)
FULL = Size(9, 2_000)
IDLE_S = 3.0
BARE_TIMES = 5  # CPU time is told in ticks of 10 ms, of which the bare application uses few


@dataclass(frozen=True, slots=True)
class Run:
    """What one stretch of calls cost the serving process."""

    program: str
    events: int
    seconds: float
    cpu: float
    idle: float
    p50_ms: float
    p99_ms: float

    @property
    def us(self) -> float:
        return max(self.cpu - self.idle * self.seconds, 1e-9) / self.events * 1e6

    @property
    def per_second(self) -> float:
        return self.events / self.seconds

    def as_numbers(self) -> dict[str, Any]:
        return {
            "program": self.program,
            "events": self.events,
            "events_per_second": round(self.per_second),
            "us_per_event": round(self.us, 2),
            "p50_ms": round(self.p50_ms, 2),
            "p99_ms": round(self.p99_ms, 2),
        }


async def measure(lab: Lab, size: Size, say: Any) -> Outcome:
    key = await keys.create_key(lab.db, f"bench-{uuid.uuid4()}")
    outcome, ours, bare = Outcome("gateway", ABOUT), list[Run](), list[Run]()
    raw = lab.topic(topics.RAW_EVENTS)
    async with _gateway(lab) as (gateway, port), _bare(lab) as (peer, peer_port):
        await _drive("gateway", gateway, port, _calls(key, size.calls // 4))
        await _drive("bare", peer, peer_port, _calls(key, size.calls // 4))
        idle = await _idle(gateway)
        for repetition in range(size.repetitions):
            calls = _calls(key, size.calls)
            bare.append(await _drive("bare", peer, peer_port, calls * BARE_TIMES))
            before = await lab.ends(raw)
            ours.append(await _drive("gateway", gateway, port, calls, idle))
            kept = sum((await lab.ends(raw)).values()) - sum(before.values())
            if kept != ours[-1].events:
                raise RuntimeError(f"{ours[-1].events} events were accepted and {kept} are on {raw}")
            say(f"gateway {repetition + 1}/{size.repetitions}: {ours[-1].us:.1f} µs/event, bare {bare[-1].us:.2f}")
    outcome.rows = [run.as_numbers() for pair in zip(bare, ours, strict=True) for run in pair]
    pairs = list(zip(ours, bare, strict=True))
    outcome.figures = [
        Figure("gateway ÷ bare app, events per CPU second", tuple(b.us / a.us for a, b in pairs), "×", FLOOR, AIM),
        Figure("gateway CPU while nobody calls", (idle * 100,), "% of a core", more=False),
        Figure("gateway CPU", tuple(run.us for run in ours), "µs/event", more=False),
        Figure("gateway, accepted", tuple(run.per_second for run in ours), "events/s"),
        Figure("gateway ÷ bare app, events/s", tuple(a.per_second / b.per_second for a, b in pairs), "×"),
        Figure("gateway, call of 100 events, p99", tuple(run.p99_ms for run in ours), "ms", more=False),
    ]
    return outcome


def _calls(key: str, count: int) -> list[bytes]:
    """Whole requests; no two events have the same id."""
    return [_request(key, _batch(key)) for _ in range(count)]


def _batch(key: str) -> bytes:
    messages = [
        {
            "integrations": {},
            "anonymousId": None,
            "properties": {"feature": f"feature-{n % 40}", "plan": "pro", "rows": n},
            "timestamp": "2026-06-01T00:00:00.123000+00:00",
            "context": {"library": {"name": "analytics-python", "version": "2.4.0"}, "groupId": f"acct-{n % 60}"},
            "userId": f"user-{n * 37 % 1000}",
            "type": "track",
            "event": "Report Exported",
            "messageId": str(uuid.uuid4()),
        }
        for n in range(EVENTS)
    ]
    return json.dumps({"batch": messages, "sentAt": "2026-06-01T00:00:01.000000+00:00", "writeKey": key}).encode()


def _request(key: str, body: bytes) -> bytes:
    credentials = base64.b64encode(f"{key}:".encode()).decode()
    head = (
        "POST /v1/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Basic {credentials}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _drive(program: str, process: psutil.Process, port: int, calls: Sequence[bytes], idle: float = 0.0) -> Run:
    """Send all calls, a few at a time; raises unless each is answered 200."""
    waiting, took = iter(calls), list[float]()

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for call in waiting:
            began = time.perf_counter()
            writer.write(call)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{program} answered {head[:200]!r}")
            await reader.readexactly(_length(head))
            took.append((time.perf_counter() - began) * 1000)
        writer.close()

    before, began = _cpu(process), time.monotonic()
    await asyncio.gather(*[caller() for _ in range(CALLERS)])
    seconds, cpu = time.monotonic() - began, _cpu(process) - before
    took.sort()
    return Run(program, len(calls) * EVENTS, seconds, cpu, idle, took[len(took) // 2], took[int(len(took) * 0.99)])


async def _idle(process: psutil.Process) -> float:
    """CPU seconds a second while nobody calls."""
    await asyncio.sleep(1.0)  # what the calls before left to do
    before, began = _cpu(process), time.monotonic()
    await asyncio.sleep(IDLE_S)
    return (_cpu(process) - before) / (time.monotonic() - began)


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@asynccontextmanager
async def _gateway(lab: Lab) -> AsyncIterator[tuple[psutil.Process, int]]:
    door, probes = choose(2)
    env = {
        "HUNE_GATEWAY_PORT": str(door),
        "HUNE_PROBES_PORT": str(probes),
        "HUNE_GATEWAY_RATE": UNLIMITED,
        "HUNE_GATEWAY_BURST": UNLIMITED,
        "HUNE_GATEWAY_SPOOL_DIR": str(lab.stack.home / "spool"),
        "HUNE_GATEWAY_SPOOL_SECONDS": "60",
    }
    async with _process(lab, "gateway", ["-m", "services", "gateway"], env) as process:
        await _until_answers(probes, "/readyz")
        yield process, door


@asynccontextmanager
async def _bare(lab: Lab) -> AsyncIterator[tuple[psutil.Process, int]]:
    port = choose(1)[0]
    async with _process(lab, "bare", ["-m", "tests.benchmarks.peers.bare_asgi", str(port)], {}) as process:
        await _until_answers(port, "/")
        yield process, port


@asynccontextmanager
async def _process(lab: Lab, name: str, command: list[str], env: dict[str, str]) -> AsyncIterator[psutil.Process]:
    with processes.open_log(lab.stack.home / "logs" / f"{name}.log") as log:
        process = processes.spawn(
            [sys.executable, *command], log=log, env=lab.env | env, cwd=ROOT, last_signal=signal.SIGKILL
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        await asyncio.to_thread(processes.stop, process, signal.SIGTERM, 20.0)


async def _until_answers(port: int, path: str) -> None:
    deadline = time.monotonic() + PATIENCE
    for wait in itertools.repeat(0.05):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            head = await reader.read(100)
            writer.close()
            if head.startswith(b"HTTP/1.1 200"):
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing answers {path} on port {port}")
        await asyncio.sleep(wait)
