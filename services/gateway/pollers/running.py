"""The pollers in the gateway's process: what the configuration enables, each feed a task."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from services.gateway.canonical import Record
from services.gateway.pollers.base import Feed
from services.gateway.pollers.loop import Plan, Poller
from services.gateway.pollers.settings import Poll, Secrets, feeds_of, load, secrets_of
from services.gateway.pollers.store import Cursors
from services.gateway.webhooks.settings import Webhooks

if TYPE_CHECKING:
    from services.gateway.store import Database


@dataclass(frozen=True, slots=True)
class Polled:
    """An enabled tool."""

    name: str
    poll: Poll
    secrets: Secrets
    feeds: tuple[Feed, ...]

    @property
    def plan(self) -> Plan:
        return Plan(self.poll.every_seconds, timedelta(seconds=self.poll.overlap_seconds), self.poll.begins())


def polled(config_dir: Path, webhooks: Webhooks, env: Mapping[str, str] = os.environ) -> tuple[Polled, ...]:
    """The tools that config/pollers.yaml enables.

    Raises Misconfigured.
    """
    pollers = load(config_dir)
    feeds = feeds_of(pollers, webhooks)
    return tuple(
        Polled(name, poll, secrets_of(name, poll, env), tuple(feed for feed in feeds if feed.tool == name))
        for name, poll in pollers.enabled().items()
    )


async def run(tools: Sequence[Polled], db: Database, publish: Callable[[str, list[Record]], Awaitable[None]]) -> None:
    """Poll until cancelled. `publish` is given the tool's name, and returns when the records are safe."""
    from services.gateway.pollers.http import Vendor  # late: nobody who polls nothing needs the client

    cursors = Cursors(db, f"{os.getpid()}-{uuid.uuid4()}")
    vendors = {tool.name: Vendor(tool.poll, tool.secrets) for tool in tools}

    def keep(name: str) -> Callable[[list[Record]], Awaitable[None]]:
        return lambda records: publish(name, records)

    pollers = [
        Poller(feed, vendors[tool.name], cursors, keep(tool.name), tool.plan) for tool in tools for feed in tool.feeds
    ]
    tasks = [asyncio.create_task(poller.run()) for poller in pollers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for vendor in vendors.values():
            await vendor.close()
