"""Router and health worker against what else there is that reads, computes and writes exactly once."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack import jars, java
from devstack.errors import StackError
from shared import topics
from tests.benchmarks.lab import Lab
from tests.benchmarks.report import Figure, Outcome
from tests.benchmarks.throughput import _routes as routes_to
from tests.benchmarks.traffic import Sent, Traffic

HERE = Path(__file__).parent / "peers"
RAW, ROUTED, RESULTS = "exact.raw", "exact.routed", "exact.results"
ABOUT = """
Who also promises that each record counts once. All read the same kind of records from as many partitions, with the
broker's own acknowledgements, and none has to tell repeats by their ids, as Hune's processes do all the while:

- *librdkafka*: a loop on confluent-kafka, one transactional producer with the offsets in its transactions, 5,000
  records at a time. It reads with the shipped router's reader and writes the same records with the same headers.
- *Kafka Streams*, `exactly_once_v2`, one thread, its commit interval (100 ms) and cache as they come. As a router it
  parses with Jackson and writes the same records; as the health worker it aggregates per account into RocksDB with a
  changelog: totals, open tickets, answers, use per day and who used it, one score, without the twelve families,
  profiles, alerts and history that Hune keeps.
- *Quix Streams*, `exactly-once`, its settings as they come, the same aggregate.

Each begins on a backlog and is measured after its first records, Java after enough of them to have compiled what is
hot, to the end of its last transaction. CPU is that of the worker's process: RocksDB is inside the others', and Hune's
PostgreSQL beside it has its own column.
"""


@dataclass(frozen=True, slots=True)
class Size:
    repetitions: int
    accounts: int
    events: int
    warm: int
    quix: int


QUICK = Size(3, 2_000, 30_000, 30_000, 5_000)
FULL = Size(5, 10_000, 200_000, 200_000, 30_000)


@dataclass(frozen=True, slots=True)
class Peers:
    """How the others are run; None: not here, and `why` says so."""

    librdkafka: bool
    streams: list[str] | None
    quix: str | None
    why: list[str]


async def measure(lab: Lab, size: Size, say: Any) -> Outcome:
    peers = await asyncio.to_thread(find, lab.stack.home)
    outcome, traffic = Outcome("peers", ABOUT), Traffic(seed=13)
    for reason in peers.why:
        print(f"NOT MEASURED  {reason}", file=sys.stderr, flush=True)
        outcome.about += f"\n**Not measured: {reason}.**\n"
    routes = routes_to({domain: f"exact.{domain}" for domain in topics.WORKERS})
    await lab.make_topics(*(f"exact.{domain}" for domain in topics.WORKERS), RAW, ROUTED, RESULTS)
    book = traffic.book(size.accounts, size.warm + size.events)
    await lab.feed(RAW, traffic.raw(book))
    await lab.feed(ROUTED, traffic.routed(book))
    await lab.feed(lab.topic(topics.RAW_EVENTS), traffic.everybody(size.accounts))
    await lab.work_off("router")
    await lab.work_off("health")
    found: dict[str, list[float]] = {}

    def keep(program: str, what: str, numbers: dict[str, Any]) -> None:
        outcome.rows.append({"what": what, "program": program, **numbers})
        found.setdefault(f"{what} {program}", []).append(numbers["events_per_second"])

    for repetition in range(size.repetitions):
        label = f"{repetition + 1}/{size.repetitions}"
        given: dict[str, Any] = {"topic": RAW, "warm": size.warm, "events": size.events, "routes": routes}
        if peers.librdkafka:
            say(f"peers {label}: librdkafka, routing")
            group = f"exact.librdkafka.{repetition}"
            few = {"warm": 5_000, "events": size.warm + size.events - 5_000}
            keep("librdkafka", "router", await lab.peer(
                "librdkafka_router", group=group, partitions=lab.partitions, **given | few
            ))  # fmt: skip
        if peers.streams:
            say(f"peers {label}: Kafka Streams, routing")
            keep("Kafka Streams", "router", await _streams(lab, peers.streams, f"router.{repetition}", given))
        say(f"peers {label}: hune")
        records: list[Sent] = list(traffic.raw(traffic.book(size.accounts, size.events)))
        await lab.feed(lab.topic(topics.RAW_EVENTS), records)
        keep("hune", "router", (await lab.work_off("router")).as_numbers())
        keep("hune", "health", (await lab.work_off("health")).as_numbers())
        given = {"topic": ROUTED, "warm": size.warm, "events": size.events, "results": RESULTS}
        if peers.streams:
            say(f"peers {label}: Kafka Streams, aggregating")
            keep("Kafka Streams", "health", await _streams(lab, peers.streams, f"health.{repetition}", given))
        if peers.quix:
            say(f"peers {label}: Quix Streams, aggregating")
            given |= {"warm": 1_000, "events": size.quix, "state": str(lab.stack.home / "quix")}
            keep("Quix Streams", "health", await lab.peer(
                "quix_health", python=peers.quix, group=f"exact.quix.{repetition}", **given
            ))  # fmt: skip
    outcome.figures = [
        Figure(f"{what} ÷ {program}, exactly once", _ratios(found, what, program), "×", floor, aim)
        for what, program, floor, aim in (
            ("router", "librdkafka", 0.6, 1.0),
            ("router", "Kafka Streams", 1.0, 1.5),
            ("health", "Kafka Streams", 0.7, 1.5),
            ("health", "Quix Streams", None, None),
        )
        if f"{what} {program}" in found
    ]
    return outcome


def _ratios(found: dict[str, list[float]], what: str, program: str) -> tuple[float, ...]:
    return tuple(ours / theirs for ours, theirs in zip(found[f"{what} hune"], found[f"{what} {program}"], strict=True))


async def _streams(lab: Lab, command: list[str], name: str, given: dict[str, Any]) -> dict[str, Any]:
    group = f"exact.streams.{name}"
    options = given | {
        "mode": name.partition(".")[0], "bootstrap_servers": lab.bootstrap_servers, "group": group,
        "state": str(lab.stack.home / "streams"),
    }  # fmt: skip
    return await lab.result_of(*command, json.dumps(options))


# -- what is here to compare with ----------------------------------------------------------------


def find(home: Path) -> Peers:
    """What can run here; builds what must be built."""
    why, streams, quix = [], None, None
    librdkafka = importlib.util.find_spec("confluent_kafka") is not None
    if not librdkafka:
        why.append("librdkafka, because confluent-kafka is not installed: `uv pip install 'hune[bench]'`")
    try:
        streams = _build_streams(home / "streams-classes")
    except (StackError, OSError, subprocess.SubprocessError) as error:
        why.append(f"Kafka Streams, because {_first_line(error)}")
    try:
        quix = str(_quix_environment())
    except (StackError, OSError, subprocess.SubprocessError) as error:
        why.append(f"Quix Streams, because {_first_line(error)}")
    return Peers(librdkafka, streams, quix, why)


def _build_streams(classes: Path) -> list[str]:
    """The command that runs the Java program, once it is compiled."""
    compiler = shutil.which("javac")
    if compiler is None:
        raise StackError("there is no javac here; install a JDK 17 or newer")
    path = f"{jars.ensure()}:{jars.ensure(pins=HERE / 'streams-jars.json')}"
    _run(compiler, "--release", "17", "-cp", path, "-d", str(classes), str(HERE / "Streams.java"))
    return [str(java.find()), "-Xms512m", "-Xmx1g", "-cp", f"{classes}:{path}", "Streams"]


def _quix_environment() -> Path:
    """Python in an environment that has Quix Streams: it wants an older pydantic than ours."""
    folder = jars.cache_folder() / "quix"
    python, done = folder / "bin" / "python", folder / "done"
    wanted = (HERE / "quix-requirements.txt").read_text()
    if not done.exists() or done.read_text() != wanted:
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        if uv is None:
            raise StackError("there is no uv here to make its environment with")
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        requirements = str(HERE / "quix-requirements.txt")
        _run(uv, "pip", "install", "--quiet", "--python", str(python), "-r", requirements)
        done.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise StackError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[:300]}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
