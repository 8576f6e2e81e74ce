"""What it costs to tell duplicates apart, as a share of all that an event costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.benchmarks import seen
from tests.benchmarks.lab import Lab
from tests.benchmarks.report import Figure, Outcome
from tests.benchmarks.throughput import QUICK as FEW
from tests.benchmarks.throughput import Backlog, work_off_some

MOST_SHARE = 0.2
ABOUT = """
The store of ids on live traffic with 90 days of history (95 % of this hour, 4 % of the last day, 1 % of the last 90
days), in batches of 5,000, worker and PostgreSQL together; ÷ worker and PostgreSQL together of a whole event in the
health worker.
"""


@dataclass(frozen=True, slots=True)
class Size:
    ids_an_hour: int
    batches: int


QUICK = Size(2_000, 40)
FULL = Size(20_000, 100)


async def measure(lab: Lab, backlog: Backlog, size: Size, say: Any) -> Outcome:
    if not backlog.health:
        say("dedupe: what a whole event costs")
        backlog = await work_off_some(lab, FEW)
    say(f"dedupe: 90 days of {size.ids_an_hour:,} ids an hour")
    with seen.postgres() as (url, pid):
        spent = await seen.with_history(url, pid, per_hour=size.ids_an_hour, batches=size.batches)
    alone = spent.worker_us + spent.postgres_us + spent.identity_us
    shares = tuple(alone / (cost.worker_us + cost.postgres_us) for cost in backlog.health)
    return Outcome("dedupe", ABOUT, [
        Figure("dedupe's share of an event's CPU", shares, "", MOST_SHARE, more=False),
        Figure("dedupe, 90 days of history", (alone,), "µs/event with PostgreSQL", more=False),
    ], [spent.as_numbers()])  # fmt: skip
