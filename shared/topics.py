"""Every topic: what it holds, who writes it, who reads it, how long it is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass

PREFIX = os.environ.get("HUNE_TOPIC_PREFIX", "cs")
WORKERS = ("health", "feedback", "qbr", "ops", "voc")
REKEYING = ("health", "feedback", "qbr", "ops")
"""Workers that send events to themselves under another key."""
MORE_READERS = {
    "ops": ("health", "feedback", "qbr", "notify"),
    "health": ("notify",),
    "router": ("notify",),
    "voc": ("health",),
}
"""Who else reads a service's results than the gateway and anyone."""
ALSO_ROUTED = {"ops": ("notify",)}
"""Who else reads what is routed to a service."""
FOREVER = -1
DAY_MS = 24 * 3600 * 1000
WEEK_MS = 7 * DAY_MS
ANYONE = "anyone"


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic; `retention_ms` -1 keeps for ever, `compacted` keeps the latest per key."""

    name: str
    holds: str
    key: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    retention_ms: int = FOREVER
    compacted: bool = False
    broker_time: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def kept(self) -> str:
        if self.compacted:
            return "the latest per key"
        return "for ever" if self.retention_ms == FOREVER else f"{self.retention_ms // DAY_MS} d"


def _name(suffix: str) -> str:
    return f"{PREFIX}.{suffix}.v1"


RAW_EVENTS = Topic(
    _name("raw.events"), "something happened", "source-native entity (user, else account)",
    writers=("gateway", "cli", ANYONE), readers=("router",), broker_time=True,
)  # fmt: skip
RAW_REQUESTS = Topic(
    _name("raw.requests"), "somebody asks for something", "account, else request id",
    writers=("gateway", "cli", ANYONE), readers=("router",), broker_time=True,
)  # fmt: skip
ROUTED = {
    worker: Topic(
        _name(f"routed.{worker}"), f"what concerns {worker}", "account_id",
        writers=("router",), readers=(worker, *ALSO_ROUTED.get(worker, ())), retention_ms=WEEK_MS,
    )
    for worker in WORKERS
}  # fmt: skip
RESULTS = {
    service: Topic(
        _name(f"results.{service}"), f"what {service} decided", "account_id",
        writers=(service,), readers=("gateway", *MORE_READERS.get(service, ()), ANYONE),
    )
    for service in ("router", *WORKERS)
}  # fmt: skip
ALERTS = Topic(
    _name("alerts"), "alert opened, escalated, reminded, resolved", "account_id",
    writers=("health",), readers=("notify", ANYONE),
)  # fmt: skip
STATE_ACCOUNTS = Topic(
    _name("state.accounts"), "latest score, band, segment, stage, owner, ARR, notice date per account", "account_id",
    writers=("health",), readers=("gateway", "notify", ANYONE), compacted=True,
)  # fmt: skip
INTERNAL = {
    worker: Topic(
        _name(f"internal.{worker}"), f"{worker}'s own re-keyed events", "the new key",
        writers=(worker,), readers=(worker,), retention_ms=WEEK_MS,
    )
    for worker in REKEYING
}  # fmt: skip
POSITIONS = {
    service: Topic(
        _name(f"internal.positions.{service}"), f"how far {service}'s outbox is published", "partition",
        writers=(service,), readers=(service,), compacted=True,
    )
    for service in ("router", *WORKERS)
}  # fmt: skip

ALL: tuple[Topic, ...] = (
    RAW_EVENTS, RAW_REQUESTS, *ROUTED.values(), *RESULTS.values(), ALERTS, STATE_ACCOUNTS,
    *INTERNAL.values(), *POSITIONS.values(),
)  # fmt: skip
BY_NAME = {topic.name: topic for topic in ALL}
