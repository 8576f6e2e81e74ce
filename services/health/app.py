"""Builds the health worker."""

from __future__ import annotations

from pathlib import Path

from services.health import messages
from services.health.handlers import Handlers
from services.health.policy import load_policy
from shared.events.fast import read_usage
from shared.events.inputs import UsageTracked
from shared.runtime.api import Worker


def build() -> Worker:
    handlers = Handlers(load_policy())
    return Worker(
        name="health",
        reads=messages.READS,
        writes=messages.WRITES,
        handle=handlers.on_signals,
        tick=handlers.on_tick,
        migrations=Path(__file__).parent / "migrations",
        fast={UsageTracked.wire_type(): read_usage},
    )
