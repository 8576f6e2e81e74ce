"""Voice as the runtime runs it."""

from __future__ import annotations

from pathlib import Path

from services.voc import messages
from services.voc.handlers import Voice
from services.voc.settings import load_rules
from shared.runtime.api import Worker
from shared.settings import config_dir

HERE = Path(__file__).parent


def build() -> Worker:
    """Read the configuration and put the worker together.

    Raises Misconfigured with file, line and field.
    """
    voice = Voice(load_rules(config_dir()))
    return Worker(
        name="voc",
        reads=messages.READS,
        writes=messages.WRITES,
        handle=voice.on_signals,
        tick=voice.tick,
        migrations=HERE / "migrations",
    )
