"""Notify's handlers and sender on a real PostgreSQL, with a Slack over HTTP and time that can be moved on."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from services.notify import app
from services.notify.domain import Places
from services.notify.handlers import Handlers, State
from services.notify.sender import Sender
from services.notify.settings import Notify, Reach
from services.notify.sinks import Sink
from shared import db as database
from shared.runtime.api import Batch, Signal
from shared.runtime.unit import UnitOfWork
from shared.team import Team
from shared.vault.keys import Keys
from tests.support.bench_worker import PARTITIONS, a_database, a_signal
from tests.support.slack_double import TOKEN, SlackDouble, a_slack

ALERTS = "C0ALERTS"
FAST = {
    "per_channel_seconds": 0, "timeout_seconds": 0.5, "settle_seconds": 0.05, "lease_seconds": 5,
    "longest_pause_seconds": 0.1,
}  # fmt: skip
_numbers = itertools.count()


class Killed(BaseException):
    """Stands for the end of the process: nothing after it is done."""


@dataclass
class World:
    """The worker's handlers and its sender, under one configuration."""

    pool: asyncpg.Pool
    slack: SlackDouble
    rules: Notify
    team: Team
    places: Places
    reach: Callable[[str], None] = lambda point: None
    keys: Keys | None = None
    sinks: dict[str, Sink] = field(default_factory=dict)
    _seq: int = 0

    def with_rules(self, **rules: Any) -> World:
        given = self.rules.model_dump(by_alias=True) | rules
        return replace(self, rules=Notify.model_validate(given))

    async def hear(self, *signals: Signal) -> None:
        self._seq += 1
        async with self.pool.acquire() as db, db.transaction():
            none = dict.fromkeys(range(PARTITIONS))
            unit = UnitOfWork("notify", db, seq=self._seq, clocks=none, live=(), partitions=PARTITIONS)
            await Handlers(self.rules, self.team, self.places).on_signals(Batch(signals), unit)

    def sender(self) -> Sender:
        return Sender(self.rules, self.team, self.sinks, self.pool, keys=self.keys, reach=self.reach)

    async def say(self, destination: str = f"slack:{ALERTS}") -> None:
        """Everything that there is to say in a place now."""
        while await self.sender().serve(destination):
            pass

    async def rows(self, state: str | None = None) -> list[asyncpg.Record]:
        found = await self.pool.fetch("select * from notify.deliveries order by seq")
        return [row for row in found if state in (None, row["state"])]

    async def later(self, **times: Any) -> None:
        """As if the time had passed."""
        by = timedelta(**times)
        await self.pool.execute("update notify.deliveries set due_at = due_at - $1::interval", by)
        await self.pool.execute(
            "update notify.destinations set next_at = next_at - $1::interval, look_at = look_at - $1::interval, "
            "last_digest_at = last_digest_at - $1::interval",
            by,
        )


@asynccontextmanager
async def a_world(postgres: str) -> AsyncIterator[World]:
    rules = Notify.model_validate({"group_wait_seconds": 0, "pace": FAST})
    async with a_slack() as slack:
        reach = Reach(slack_token=TOKEN, slack_channel=ALERTS, slack_base_url=slack.base_url)
        found = app.ways(rules, reach)
        await (await a_database(postgres, app.build())).close()
        pool = await database.create_pool(postgres, 4, "test")
        sinks = app.open_sinks(rules, reach, found)
        try:
            yield World(pool, slack, rules, Team(), found.places, sinks=sinks)
        finally:
            for sink in sinks.values():
                await sink.close()
            await pool.close()


def now() -> datetime:
    return datetime.now(UTC)


def opened(account: str = "acme", alert: str = "", at: datetime | None = None, **data: Any) -> Signal:
    return an_alert("alert.opened", account, alert or f"alert-{next(_numbers)}", at, **data)


def an_alert(type: str, account: str, alert: str, at: datetime | None = None, **data: Any) -> Signal:
    at = at or now()
    said: dict[str, Any] = {
        "alert_id": alert, "service": "health", "rule": "band_red", "kind": "risk", "severity": "high",
        "title": "Health is red: 38", "why": "Score 38. Tickets 3", "evidence": {"score": 38},
        "occurred_at": at, "computed_at": at,
    }  # fmt: skip
    if type != "alert.opened":
        said["opened_at"] = at
    return a_signal(type, account, id=f"e-{next(_numbers)}", at=at, **(said | data))


def resolved(account: str, alert: str, **data: Any) -> Signal:
    return an_alert("alert.resolved", account, alert, **data)


def escalated(account: str, alert: str, **data: Any) -> Signal:
    return an_alert("alert.escalated", account, alert, **({"severity": "critical", "title": "Worse"} | data))


def words(blocks: list[dict[str, Any]]) -> str:
    found: list[str] = []
    for block in blocks:
        for part in (block.get("text"), *block.get("fields", ()), *block.get("elements", ())):
            if part:
                found.append(part["text"] if isinstance(part["text"], str) else part["text"]["text"])
    return "\n".join(found)


def a_state(account: str, owner: str, arr: str | None = None) -> Signal:
    return a_signal("account.state", account, id=f"s-{account}", at=now(), name=account, score=38, band="red",
                    segment=None, stage=None, owner=owner, arr=arr, notice_on=None, as_of=now())  # fmt: skip


def small(signal: Signal) -> Signal:
    """Its data as notify's own decoder reads it."""
    return msgspec.structs.replace(signal, data=msgspec.json.decode(signal.data.model_dump_json().encode(), type=State))
