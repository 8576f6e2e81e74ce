"""Which figures the services offer for export, and as of when they are read."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import services
from shared import db

LOAD_CLOCK = "select bool_or(live) as live, max(clock) as clock from hune.partitions"

Export = Callable[..., Awaitable[list[dict[str, Any]]]]


@dataclass(frozen=True, slots=True)
class AsOf:
    """The time of the figures, and why that one."""

    at: datetime
    why: str


def exports() -> dict[str, list[Export]]:
    """Every kind of figure, with the services' ways to read it: several may have alerts."""
    found: dict[str, list[Export]] = {}
    for service in pkgutil.iter_modules(services.__path__):
        name = f"services.{service.name}.reading"
        if service.ispkg and importlib.util.find_spec(name) is not None:
            for kind, read in getattr(importlib.import_module(name), "EXPORTS", {}).items():
                found.setdefault(kind, []).append(read)
    return found


async def default_as_of(databases: Sequence[db.Connection]) -> AsOf:
    """Live: now. Historical: the clock that the runs have brought; before one has ended, now."""
    rows = [await database.fetchrow(LOAD_CLOCK) for database in databases]
    clocks = [row["clock"] for row in rows if row and row["clock"] is not None]
    is_live = any(row["live"] for row in rows if row)
    if clocks and not is_live:
        return AsOf(max(clocks), "where the installation's history ends")
    now: datetime = await databases[0].fetchval("select now()")
    return AsOf(now, "now" if is_live else "now, as no run has ended yet")
