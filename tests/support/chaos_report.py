"""What a full chaos run says of itself, for `docs/benchmarks/`."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.support.chaos_run import Progress, Tier

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "chaos-release.md"
INVARIANTS = (
    "every record that was acknowledged is in the log, and nothing else is",
    "each is routed to the domains it concerns as often as it lies in the log, and counted once by each",
    "usage, accounts, NPS, segments, contacts, comments, themes and wishes are those of a plain fold over the log",
    "on every result topic each id comes once for a `read_committed` reader",
    "each `previous` is the `current` before it; the last one told is the one exported",
    "alerts open and close in turn; two rules say what their fold over the routed log says, by the same events",
    "each request has one reply",
    "the accounting of every service adds up",
)


def write(progress: Progress, tier: Tier, missing: Sequence[str], page: Path = PAGE) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(progress, tier, missing))


def render(progress: Progress, tier: Tier, missing: Sequence[str]) -> str:
    kinds: Counter[str] = Counter()
    for fault, n in progress.happened.items():
        kinds[fault] += n
    lines = [
        "# Chaos, release tier",
        "",
        f"Seed {progress.seed}, {progress.finished} rounds of {tier.events:,} events and {tier.faults} faults; "
        f"{progress.seconds / 3600:.1f} h on {os.cpu_count()} cores ({platform.machine()}).",
        f"{progress.events:,} different events, a fifth of them sent again, late and in any order.",
        "",
        "After every round, once settled:",
        "",
        *[f"- {text}" for text in INVARIANTS],
        "",
        "**0 lost, 0 double.**" if not missing else f"Not proven: {'; '.join(missing)}",
        "",
        f"## {sum(kinds.values()):,} faults that happened",
        "",
        "| fault | times |",
        "|---|---|",
        *[f"| {name} | {n} |" for name, n in sorted(kinds.items())],
        "",
        f"Rigged places that were not reached in time: {len(progress.missed)}.",
        "",
        "| proof | |",
        "|---|---|",
        *[f"| {name} | {n:,} |" for name, n in progress.proof.items()],
        "",
        "Made by `./hune test chaos --tier release`.",
        "",
    ]
    return "\n".join(lines)
