"""What a full chaos run says of itself, for `docs/benchmarks/`.

`python -m tests.support.chaos_report HOME` writes it of a run that was interrupted.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.chaos_run import RELEASE, Progress, Tier, unproven

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
    happened = sum(progress.happened.values())
    lines = [
        "# Chaos, release tier",
        "",
        f"Seed {progress.seed}; {progress.finished} of {tier.rounds} rounds of {tier.events:,} events and "
        f"{tier.faults} faults; {progress.seconds / 3600:.1f} h on {os.cpu_count()} cores ({platform.machine()}).",
        f"{progress.events:,} different events, a fifth of them sent again, late and in any order; "
        f"{happened:,} faults. Interrupted and gone on with: {progress.interruptions} times.",
        "",
        verdict(progress, tier, missing),
        "",
        f"Looked at, once settled, after {listed(progress.looks)} rounds, each time at all that was there by then:",
        "",
        *[f"- {text}" for text in INVARIANTS],
        "",
        *[f"    {line}" for line in progress.complaints],
        *([""] if progress.complaints else []),
        f"## {happened:,} faults that happened",
        "",
        "| fault | times |",
        "|---|---|",
        *[f"| {name} | {n} |" for name, n in sorted(progress.happened.items())],
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


def verdict(progress: Progress, tier: Tier, missing: Sequence[str]) -> str:
    if progress.complaints:
        return f"**VIOLATED: {len(progress.complaints)} complaints, below.**"
    ended = f" A round ended by {progress.ended_by}." if progress.ended_by else ""
    looked = max(progress.looks, default=0)
    found = f"**0 lost, 0 double** in the first {looked} rounds." if looked else "**Nothing was looked at.**"
    if progress.finished < tier.rounds:
        left = tier.rounds - progress.finished
        found = f"**Cut: {left} of {tier.rounds} rounds were not run.** {found}"
    return found + ended + (f" Not proven: {'; '.join(missing)}." if missing else "")


def listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "no"


if __name__ == "__main__":
    kept = Progress.load(Path(sys.argv[1]) / "chaos.json", 0)
    write(kept, RELEASE, unproven(kept, RELEASE))
