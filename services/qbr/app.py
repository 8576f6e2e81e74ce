"""Reviews as the runtime runs it."""

from __future__ import annotations

from pathlib import Path

from services.qbr import merging, messages
from services.qbr.handlers import Reviews
from services.qbr.settings import load_policy, load_surveys
from shared.events.fast import read_usage
from shared.events.inputs import UsageTracked
from shared.merging import Merging
from shared.runtime.api import Worker
from shared.settings import config_dir

HERE = Path(__file__).parent


def build() -> Worker:
    """Read the configuration and put the worker together.

    Raises Misconfigured with file, line and field.
    """
    config = config_dir()
    reviews = Reviews(load_policy(config), load_surveys(config))
    return Worker(
        name="qbr",
        reads=messages.READS,
        writes=messages.WRITES,
        handle=Merging("qbr", reviews.on_signals, merging.FACTS, wake=merging.wake).handle,
        tick=reviews.tick,
        migrations=HERE / "migrations",
        fast={UsageTracked.wire_type(): read_usage},
    )
