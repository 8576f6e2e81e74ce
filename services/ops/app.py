"""Ops as the runtime runs it."""

from __future__ import annotations

from pathlib import Path

from services.ops import merging, messages
from services.ops.handlers import Ops
from services.ops.settings import load_segment_rules
from shared.merging import Merging
from shared.runtime.api import Worker
from shared.settings import config_dir
from shared.team import load_team

HERE = Path(__file__).parent


def build() -> Worker:
    """Read the configuration and put the worker together.

    Raises Misconfigured with file, line and field.
    """
    folder = config_dir()
    ops = Ops(load_segment_rules(folder), load_team(folder))
    handle = Merging(
        "ops", ops.on_signals, merging.FACTS, wake=merging.wake, close=merging.close, deaf=merging.DEAF
    ).handle
    return Worker(
        name="ops",
        reads=messages.READS,
        writes=messages.WRITES,
        handle=handle,
        tick=ops.tick,
        migrations=HERE / "migrations",
    )
