"""Figures with their floor and aim, the machine they came from, and the page that shows both."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from devstack import jars

DOCS = Path(__file__).parents[2] / "docs/benchmarks"
NUMBERS = DOCS / "results.json"
PAGE = DOCS / "README.md"
TITLES = {
    "peers": "Against others that count each record once",
    "scaling": "One, two and three processes",
    "notify": "From an alert to its message in Slack",
}
"""The benchmarks with a page of their own."""
_HEAD = ("| figure | median | min–max | floor | aim | |", "|---|---|---|---|---|---|")


@dataclass(frozen=True, slots=True)
class Figure:
    """One promise and what came of it; the median of the repetitions is what counts.

    `floor` must hold and `aim` is what we are after; `more` says which way is better.
    """

    name: str
    values: tuple[float, ...]
    unit: str
    floor: float | None = None
    aim: float | None = None
    more: bool = True

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if self.floor is None:
            return ""
        if not self._reaches(self.floor):
            return "BELOW"
        return "PASS, aim reached" if self.aim is not None and self._reaches(self.aim) else "PASS"

    def _reaches(self, mark: float) -> bool:
        return self.median >= mark if self.more else self.median <= mark


@dataclass(slots=True)
class Outcome:
    """What one benchmark found: figures, and rows of raw numbers per repetition."""

    name: str
    about: str
    figures: list[Figure] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the numbers came from."""

    at: str
    cores: int
    memory_gb: int
    load_at_start: tuple[float, ...]
    system: str
    python: str
    kafka: str
    postgresql: str
    packages: Mapping[str, str]

    def with_postgresql(self, version: str) -> Machine:
        return replace(self, postgresql=version)

    @classmethod
    def here(cls, postgresql: str = "") -> Machine:
        return cls(
            at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
            memory_gb=round(psutil.virtual_memory().total / 2**30),
            load_at_start=tuple(round(load, 2) for load in os.getloadavg()),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=platform.python_version(),
            kafka=next(jar.version for jar in jars.listed() if jar.artifact == "kafka-clients"),
            postgresql=postgresql,
            packages={name: metadata.version(name) for name in ("aiokafka", "asyncpg", "faststream", "msgspec")},
        )

    @property
    def is_busy(self) -> bool:
        return self.load_at_start[0] > self.cores / 2


def write(outcomes: Sequence[Outcome], machine: Machine, size: str, seconds: float) -> Path:
    """Write the page and the raw numbers."""
    DOCS.mkdir(parents=True, exist_ok=True)
    numbers = {
        "machine": asdict(machine),
        "size": size,
        "seconds": round(seconds),
        "benchmarks": {
            outcome.name: {
                "figures": [
                    asdict(figure) | {"median": figure.median, "verdict": figure.verdict} for figure in outcome.figures
                ],
                "rows": outcome.rows,
            }
            for outcome in outcomes
        },
    }
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")
    PAGE.write_text(page(outcomes, machine, size, seconds))
    return PAGE


def write_alone(outcome: Outcome, machine: Machine, size: str, seconds: float) -> Path:
    """A benchmark with a page of its own, NAME.md."""
    DOCS.mkdir(parents=True, exist_ok=True)
    path = DOCS / f"{outcome.name}.md"
    lines = [
        f"# {TITLES[outcome.name]}",
        "",
        *_origin(machine, size, seconds, f" {outcome.name}", "medians of the repetitions, and each of them below."),
        "",
        *outcome.about.strip().splitlines(),
        "",
        *_HEAD,
        *[_figure_row(figure) for figure in outcome.figures],
        "",
        *_table(outcome.rows),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def _origin(machine: Machine, size: str, seconds: float, names: str, rest: str) -> list[str]:
    busy = " **Other work ran on the machine: read ratios, not rates.**" if machine.is_busy else ""
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    return [
        f"Written by `./hune bench{'' if size == 'full' else ' --quick'}{names}` on {machine.at} in "
        f"{seconds / 60:.0f} min; {rest}",
        "",
        f"Machine: {machine.cores} cores, {machine.memory_gb} GB, {machine.system}; load average at start "
        f"{', '.join(f'{load:g}' for load in machine.load_at_start)}.{busy}",
        f"Python {machine.python}, Kafka {machine.kafka}, PostgreSQL {machine.postgresql}, {packages}.",
        "Clients, broker and database share these cores, so every figure is all of them together.",
    ]


def page(outcomes: Sequence[Outcome], machine: Machine, size: str, seconds: float) -> str:
    lines = [
        "# Benchmarks",
        "",
        *_origin(machine, size, seconds, "", "the raw numbers are in [results.json](results.json)."),
        "",
        "The processes are those that `hune up` starts, with the shipped configuration (12 partitions). What is "
        "compared runs in turns on the same broker and database; figures are medians (least to most) of the "
        "repetitions. A floor must hold, an aim is what we are after.",
        "",
        "On pages of their own: [others that count each record once](peers.md), [several processes](scaling.md), "
        "[from an alert to Slack](notify.md), [where the time goes](profile.md), [chaos](chaos-release.md), "
        "[long outages](outages.md), [an hour without Kafka](outage-hour.md), "
        "[a storm of alerts](storm-release.md).",
        "",
        *_HEAD,
    ]
    for outcome in outcomes:
        lines += [_figure_row(figure) for figure in outcome.figures]
    for outcome in outcomes:
        lines += ["", f"## {outcome.name}", "", *outcome.about.strip().splitlines()]
        if outcome.rows:
            lines += ["", *_table(outcome.rows)]
    return "\n".join(lines) + "\n"


def in_words(figure: Figure) -> str:
    """One line for the terminal."""
    spread = f" ({_number(min(figure.values))}–{_number(max(figure.values))})" if len(figure.values) > 1 else ""
    marks = [f"floor {_mark(figure, figure.floor)}" if figure.floor is not None else ""]
    marks.append(f"aim {_mark(figure, figure.aim)}" if figure.aim is not None else "")
    stands = ", ".join(mark for mark in marks if mark)
    return f"{figure.verdict or '·':18s} {figure.name}: {_number(figure.median)} {figure.unit}{spread}" + (
        f"  [{stands}]" if stands else ""
    )


def _figure_row(figure: Figure) -> str:
    spread = f"{_number(min(figure.values))}–{_number(max(figure.values))}"
    return (
        f"| {figure.name} | {_number(figure.median)} {figure.unit} | {spread} | {_mark(figure, figure.floor)} "
        f"| {_mark(figure, figure.aim)} | {figure.verdict} |"
    )


def _mark(figure: Figure, mark: float | None) -> str:
    return "" if mark is None else f"{'≥' if figure.more else '≤'} {_number(mark)} {figure.unit}".strip()


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    head = "| " + " | ".join(column.replace("_", " ") for column in columns) + " |"
    body = ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return [head, "|" + "---|" * len(columns), *body]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return _number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
