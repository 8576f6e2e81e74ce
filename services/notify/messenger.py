"""Brings messages to people at customers into the tools that know them: each destination by itself, under a lease."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from services.notify import metrics, outreach, outreach_store, store
from services.notify.outreach import Chosen, Contact, Declined, Message, Way
from services.notify.sender import OBSERVE_S, disable, show_disabled
from services.notify.settings import Notify, Outreach, Reach, reached_by
from services.notify.sinks import Outcome
from services.notify.slack import NOT_REACHED
from services.notify.writeback import Answer, Call
from services.notify.writer import MOST_READ, POLL_S, plain_session
from shared import db as database
from shared.errors import Misconfigured
from shared.runtime import failpoints

log = logging.getLogger(__name__)

DIED = "the process ended between the call and its answer; it may have arrived, so it is not sent again"
MAYBE = "it may have arrived, so it is not sent again"
OVER = "over before it was told"
OLD = "older than old_after_hours"
ELSEWHERE = "the account is covered otherwise now"


@dataclass(slots=True)
class Line:
    """One outreach, ready to be called."""

    name: str
    rules: Outreach
    way: Way
    token: str
    session: aiohttp.ClientSession

    async def send(self, message: Message, timeout: float) -> Outcome | Declined:
        said = False
        try:
            async with asyncio.timeout(timeout):
                contact = await self._contact(message)
                if contact is not None and not isinstance(contact, Contact):
                    return contact
                call = self.way.call(message, contact, self.token)
                said = True
                return self.way.read(await self._made(call), time.time())
        except NOT_REACHED as error:
            return Outcome("refused", f"not reached: {type(error).__name__}")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Outcome("unclear" if said else "refused", type(error).__name__)

    async def _contact(self, message: Message) -> Contact | Declined | Outcome | None:
        asking = self.way.ask(message, self.token)
        return None if asking is None else self.way.asked(await self._made(asking), message, time.time())

    async def _made(self, call: Call) -> Answer:
        made = self.session.request(
            call.method, call.url, data=call.body or None, headers=dict(call.headers), allow_redirects=False
        )
        async with made as got:
            return Answer(got.status, dict(got.headers), await got.content.read(MOST_READ))


def open_lines(rules: Notify, reach: Reach) -> dict[str, Line]:
    """Every outreach by its destination.

    Raises Misconfigured that names the variable.
    """
    return {
        reached_by(name): Line(name, one, outreach.way_of(one), _token(name, one, reach), plain_session())
        for name, one in rules.outreach.items()
    }


def check(rules: Notify, reach: Reach) -> None:
    """Raises Misconfigured that names the variable an outreach lacks."""
    for name, one in rules.outreach.items():
        _token(name, one, reach)


def _token(name: str, rules: Outreach, reach: Reach) -> str:
    token = reach.variable(rules.secret)
    if not token:
        raise Misconfigured(f"notify.yaml: outreach {name} needs {rules.secret}, which is not set")
    if rules.send == "event" and ":" not in token:
        raise Misconfigured(f"{rules.secret} takes the site id and the Track API key: SITE_ID:API_KEY")
    if rules.tool == "customerio" and rules.send == "in_app" and ":" in token:
        raise Misconfigured(f"{rules.secret} takes an App API key, which has no colon; the Track API's is another")
    return token


@dataclass(frozen=True, slots=True)
class Step:
    """A claimed message, and when the claim ends."""

    message: Message
    created_at: datetime
    fence: int
    failures: int
    deadline: float


class Messenger:
    """Drains the ledger of messages to people; any number of processes may run one."""

    def __init__(
        self, rules: Notify, lines: Mapping[str, Line], pool: database.Pool,
        reach: Callable[[str], None] = failpoints.reach,
    ) -> None:  # fmt: skip
        self.rules, self.lines, self.pool, self._reach = rules, lines, pool, reach

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for destination in self.lines:
                tasks.create_task(self._follow(destination))

    async def _follow(self, destination: str) -> None:
        observed_at = 0.0
        while True:
            try:
                if time.monotonic() - observed_at > OBSERVE_S:
                    observed_at = time.monotonic()
                    await self._observe(destination)
                if await self.serve(destination):
                    continue
            except Exception as error:
                if not database.is_transient(error, connected=False):
                    raise
                log.warning("the ledger does not answer", extra={"error": repr(error)})
            await asyncio.sleep(POLL_S)

    async def _observe(self, destination: str) -> None:
        async with self.pool.acquire() as db:
            found = {row["state"]: row["n"] for row in await db.fetch(outreach_store.COUNT_OF, destination)}
            for state in outreach_store.STATES:
                metrics.OUTREACH.labels(destination, state).set(found.get(state, 0))
            await show_disabled(db)

    async def serve(self, destination: str) -> bool:
        """One message; False when there is nothing to say there now."""
        line = self.lines[destination]
        async with self.pool.acquire() as db, db.transaction():
            step = await self._claim(db, destination, line)
        if isinstance(step, bool):
            return step
        self._reach("before_delivery")
        if time.monotonic() > step.deadline:
            return False
        outcome = await line.send(step.message, self.rules.pace.timeout_seconds)
        self._reach("after_delivery")
        async with self.pool.acquire() as db, db.transaction():
            await self._record(db, destination, line, step, outcome)
        return True

    async def _claim(self, db: database.Connection, destination: str, line: Line) -> Step | bool:
        started, pace = time.monotonic(), self.rules.pace
        await db.execute(outreach_store.ADD_DESTINATION, destination)
        place = await store.lock_destination(db, destination)
        row = await db.fetchrow(outreach_store.NEXT, destination) if place is not None else None
        if place is None or row is None:
            return False
        if row["state"] == "sending" and not line.way.repeatable:
            await db.execute(outreach_store.SETTLE, row["delivery_id"], "unknown", DIED, None)
            log.warning("a message to a customer may have arrived", extra={"delivery_id": row["delivery_id"]})
            return True
        if row["attempts"] == 0 and await self._is_full(db, destination, line.rules):
            return False
        found = await self._worded(db, destination, line.rules, row)
        if isinstance(found, str):
            await db.execute(outreach_store.SETTLE, row["delivery_id"], "suppressed", found, None)
            return True
        message, contact_id = found
        await db.execute(outreach_store.BEGIN, row["delivery_id"], contact_id)
        fence = await db.fetchval(store.LEASE, destination, timedelta(seconds=pace.lease_seconds))
        return Step(message, row["created_at"], fence, place.failures, started + pace.lease_seconds / 2)

    async def _is_full(self, db: database.Connection, destination: str, rules: Outreach) -> bool:
        """Whether the day's messages are said: the rest waits, or grows too old."""
        day = await db.fetchrow(outreach_store.LAST_DAY, destination)
        if day["n"] < rules.most_per_day:
            return False
        await db.execute(outreach_store.PUT_OFF, destination, day["oldest"] + timedelta(days=1))
        return True

    async def _worded(
        self, db: database.Connection, destination: str, rules: Outreach, row: Mapping[str, Any]
    ) -> tuple[Message, str] | str:
        """The message and whom it is for, as all stands now; else why there is none."""
        if row["now"] - row["created_at"] > timedelta(hours=self.rules.old_after_hours):
            return OLD
        if row["episode"] == "resolved":
            return OVER
        account = (await store.load_accounts(db, {row["account_id"]}))[row["account_id"]]
        if not outreach.covers(rules.when, account):
            return ELSEWHERE
        people = await outreach_store.list_people(db, row["account_id"], destination, row["contact_id"])
        choice = outreach.chosen(people, rules, row["now"])
        if isinstance(choice, str):
            return choice
        message = worded(row["delivery_id"], row["called_at"], rules, row["facts"], account, choice)
        return message if isinstance(message, str) else (message, choice.person.contact_id)

    async def _record(
        self, db: database.Connection, destination: str, line: Line, step: Step, said: Outcome | Declined
    ) -> None:
        """Write down what came of it, unless the lease has become somebody else's."""
        pace = self.rules.pace
        outcome = Outcome("failed", said.reason) if isinstance(said, Declined) else said
        metrics.ATTEMPTS.labels(line.rules.tool, outcome.what).inc()
        healthy = outcome.what in ("sent", "failed") and not outcome.gone
        failures, pause = 0, pace.per_channel_seconds
        if not healthy:
            failures = step.failures + 1
            longest = min(pace.longest_pause_seconds, 0.25 * 2 ** min(failures, 20))
            pause = outcome.after if outcome.after is not None else longest * random.uniform(0.5, 1.0)
        reason = None if healthy else outcome.reason
        released = await db.fetchrow(
            store.RELEASE, destination, step.fence, timedelta(seconds=pause), failures, reason, None, False
        )
        if released is None:
            log.warning("a message took longer than its lease", extra={"destination": destination})
            return
        state, why = self._state(line, step, said, await store.now(db))
        await db.execute(outreach_store.FINISH, step.message.delivery_id, state, why, outcome.ts)
        await disable(db, destination, outcome, released["failing_since"], self.rules)
        if not healthy:
            log.info("a message waits", extra={"destination": destination, "reason": reason, "pause_s": pause})

    def _state(self, line: Line, step: Step, said: Outcome | Declined, now: datetime) -> tuple[str, str | None]:
        if isinstance(said, Declined):
            return "suppressed", said.reason
        if said.what == "unclear" and not line.way.repeatable:
            return "unknown", f"{said.reason}: {MAYBE}"
        if said.what in ("refused", "unclear"):
            if now - step.created_at > timedelta(hours=self.rules.pace.give_up_hours):
                return "failed", f"given up: {said.reason}"
            return "pending", said.reason or None
        return said.what, said.reason or None


def worded(
    delivery_id: str, at: datetime, rules: Outreach, facts: Mapping[str, str], account: Any, choice: Chosen
) -> Message | str:
    """The message to one person; else why it cannot be written."""
    texts = outreach.written(rules, facts, account)
    if isinstance(texts, str):
        return texts
    told = outreach.for_template(facts, account)
    return Message(delivery_id, at, choice.address, told, subject=texts[0], body=texts[1])
