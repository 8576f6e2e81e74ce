"""Feedback as the runtime runs it."""

from __future__ import annotations

from pathlib import Path

from services.feedback import merging, messages
from services.feedback.handlers import Feedback
from services.feedback.settings import load_rules
from shared.merging import Merging
from shared.runtime.api import Worker
from shared.settings import config_dir

HERE = Path(__file__).parent


def build() -> Worker:
    """Read the configuration and put the worker together.

    Raises Misconfigured with file, line and field.
    """
    feedback = Feedback(load_rules(config_dir()))
    return Worker(
        name="feedback",
        reads=messages.READS,
        writes=messages.WRITES,
        handle=Merging("feedback", feedback.on_signals, merging.FACTS, wake=merging.wake).handle,
        tick=feedback.tick,
        migrations=HERE / "migrations",
    )
