"""Builds the health worker."""

from __future__ import annotations

from pathlib import Path

from services.health import merging, messages
from services.health.handlers import Handlers
from services.health.policy import load_policy
from shared.events.fast import read_usage
from shared.events.inputs import UsageTracked
from shared.merging import Merging
from shared.runtime.api import Worker


def build() -> Worker:
    policy = load_policy()
    handlers = Handlers(policy)
    close = merging.Closing(policy).close
    return Worker(
        name="health",
        reads=messages.READS,
        writes=messages.WRITES,
        handle=Merging("health", handlers.on_signals, merging.FACTS, wake=merging.wake, close=close).handle,
        tick=handlers.on_tick,
        migrations=Path(__file__).parent / "migrations",
        fast={UsageTracked.wire_type(): read_usage},
    )
