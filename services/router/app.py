"""Build the router."""

from __future__ import annotations

from pathlib import Path

from services.router import messages
from services.router.handlers import Router
from services.router.settings import Exclusions, Routing
from shared import config
from shared.runtime.api import Worker
from shared.settings import Settings
from shared.vault import keys


def build(settings: Settings | None = None) -> Worker:
    folder = (settings or Settings.from_env()).config_dir
    routing = config.load(folder / "routing.yaml", Routing)
    exclusions = config.load(folder / "exclusions.yaml", Exclusions)
    router = Router(routing.model, exclusions.model, keys.load())
    return Worker(
        name="router",
        reads=messages.READS,
        writes=messages.WRITES,
        handle=router.handle,
        tick=router.tick,
        migrations=Path(__file__).parent / "migrations",
        read=router.read,
        dedupe=False,
        counts_applied=False,
        ticks_before_clock=True,
        control_only=True,
        parked="select count(*) from router.parked",
    )
