"""Brings the scores that are wanted into other tools: each destination by itself, batch by batch, under a lease."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver

from services.notify import metrics, store, writeback
from services.notify.sender import OBSERVE_S, disable, show_disabled
from services.notify.settings import Notify, Reach, WriteBack, written_to
from services.notify.sinks import Outcome
from services.notify.slack import NOT_REACHED
from services.notify.text import one_line
from services.notify.webhook import Endpoint, PublicResolver, endpoint_of, sign
from services.notify.writeback import Answer, Call, Tool, Write, Written
from shared import db as database
from shared.errors import Misconfigured
from shared.ids import derived_id
from shared.runtime import failpoints
from shared.times import instant

log = logging.getLogger(__name__)

POLL_S = 1.0
MOST_READ = 4 * 1024 * 1024
NO_ID = "the account has no id of that tool"
STATES = {"sent": "sent", "failed": "failed", "unclear": "unknown"}


class Tokens(Protocol):
    async def get(self, session: aiohttp.ClientSession) -> str:
        """Raises Refused when there is none to be had."""
        ...

    def forget(self) -> None: ...


class Refused(Exception):
    """No token was given; the message says why."""


@dataclass(slots=True)
class Fixed:
    token: str

    async def get(self, session: aiohttp.ClientSession) -> str:
        return self.token

    def forget(self) -> None:
        return


@dataclass(slots=True)
class OAuth:
    """Salesforce's tokens, by refresh token or client credentials: kept until they are refused."""

    url: str
    form: Mapping[str, str]
    token: str = ""

    async def get(self, session: aiohttp.ClientSession) -> str:
        if not self.token:
            async with session.post(f"{self.url}/services/oauth2/token", data=self.form, allow_redirects=False) as got:
                answer = Answer(got.status, dict(got.headers), await got.content.read(MOST_READ))
            said = answer.json()
            said = said if isinstance(said, dict) else {}
            if got.status != 200 or not isinstance(said.get("access_token"), str):
                raise Refused(f"no token: HTTP {got.status} {str(said.get('error', ''))[:100]}".strip())
            self.token = said["access_token"]
        return self.token

    def forget(self) -> None:
        self.token = ""


@dataclass(frozen=True, slots=True)
class Hook:
    """JSON to an address of your own, signed as Standard Webhooks; each value has an id by which a repeat is known."""

    rules: WriteBack
    endpoint: Endpoint
    most: int = 100

    def call(self, writes: Sequence[Write], token: str) -> Call:
        accounts = [
            {
                "id": derived_id("notify", "write", one.account_id, instant(one.computed_at), one.version),
                "account_id": one.account_id,
                "external_id": one.remote_id,
                "score": one.score,
                "band": one.band,
                "reason": one_line(one.why, self.rules.fields.longest_reason),
                "computed_at": instant(one.computed_at),
            }
            for one in writes
        ]
        now = int(time.time())
        id = derived_id("notify", "writes", *(one["id"] for one in accounts))
        body = writeback.encoded({"type": "account.scored", "data": {"accounts": accounts}})
        signed = {"webhook-id": id, "webhook-timestamp": str(now)}
        signed["webhook-signature"] = sign(self.endpoint.key, id, now, body)
        return Call("POST", self.endpoint.url, writeback.JSON | signed, body)

    def read(self, answer: Answer, writes: Sequence[Write]) -> Written:
        return Written(writeback.SENT)


@dataclass(slots=True)
class Outlet:
    """One write-back, ready to be called."""

    name: str
    rules: WriteBack
    tool: Tool
    tokens: Tokens
    session: aiohttp.ClientSession

    @property
    def most(self) -> int:
        return min(self.tool.most, self.rules.batch)

    async def write(self, writes: Sequence[Write], timeout: float) -> Written:
        sent = False
        try:
            async with asyncio.timeout(timeout):
                call = self.tool.call(writes, await self.tokens.get(self.session))
                sent = True
                answer = await self._made(call)
        except Refused as error:
            return Written(Outcome("refused", str(error)))
        except NOT_REACHED as error:
            return Written(Outcome("refused", f"not reached: {type(error).__name__}"))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Written(Outcome("unclear" if sent else "refused", type(error).__name__))
        if answer.status == 401:
            self.tokens.forget()
        return writeback.read(self.tool, answer, writes, time.time())

    async def _made(self, call: Call) -> Answer:
        made = self.session.request(
            call.method, call.url, data=call.body, headers=dict(call.headers), allow_redirects=False
        )
        async with made as got:
            return Answer(got.status, dict(got.headers), await got.content.read(MOST_READ))


def open_outlets(rules: Notify, reach: Reach) -> dict[str, Outlet]:
    """Every write-back by its destination.

    Raises Misconfigured that names the variable.
    """
    found: dict[str, Outlet] = {}
    for name, one in rules.write_back.items():
        tool, tokens = _tool(name, one, reach)
        public = one.tool == "webhook" and not reach.private_webhooks
        found[written_to(name)] = Outlet(name, one, tool, tokens, plain_session(PublicResolver() if public else None))
    return found


def check(rules: Notify, reach: Reach) -> None:
    """Raises Misconfigured that names the variable a write-back lacks."""
    for name, one in rules.write_back.items():
        _tool(name, one, reach)


def _tool(name: str, rules: WriteBack, reach: Reach) -> tuple[Tool, Tokens]:
    def needed(variable: str) -> str:
        value = reach.variable(variable)
        if not value:
            raise Misconfigured(f"notify.yaml: write_back {name} needs {variable}, which is not set")
        return value

    if rules.tool == "webhook":
        url, secret = needed(rules.secret), needed(f"{rules.secret}_SECRET")
        return Hook(rules, endpoint_of(rules.secret, url, secret, private=reach.private_webhooks)), Fixed("")
    tool = writeback.TOOLS[rules.tool](rules)
    if rules.tool != "salesforce":
        token = needed(rules.secret)
        if rules.tool == "customerio" and ":" not in token:
            raise Misconfigured(f"{rules.secret} takes the site id and the Track API key: SITE_ID:API_KEY")
        return tool, Fixed(token)
    form = {"client_id": needed(f"{rules.secret}_ID"), "client_secret": needed(f"{rules.secret}_SECRET")}
    refresh = reach.variable(f"{rules.secret}_REFRESH_TOKEN")
    grant = (
        {"grant_type": "refresh_token", "refresh_token": refresh} if refresh else {"grant_type": "client_credentials"}
    )
    return tool, OAuth(str(rules.url), form | grant)


def plain_session(resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """A new connection for each call, so that an old one which died makes no outcome unclear."""
    connector = aiohttp.TCPConnector(force_close=True, resolver=resolver)
    return aiohttp.ClientSession(connector=connector, trust_env=False)


@dataclass(frozen=True, slots=True)
class Step:
    """A claimed batch, and when the claim ends."""

    writes: tuple[Write, ...]
    fence: int
    failures: int
    give_up: frozenset[str]
    deadline: float


class Writer:
    """Drains the ledger of write-backs, each destination in a task of its own; any number of processes may run one."""

    def __init__(
        self, rules: Notify, outlets: Mapping[str, Outlet], pool: database.Pool,
        reach: Callable[[str], None] = failpoints.reach,
    ) -> None:  # fmt: skip
        self.rules, self.outlets, self.pool, self._reach = rules, outlets, pool, reach

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for destination in self.outlets:
                tasks.create_task(self._follow(destination))

    async def _follow(self, destination: str) -> None:
        seeded, observed_at = False, 0.0
        while True:
            try:
                if time.monotonic() - observed_at > OBSERVE_S:
                    observed_at = time.monotonic()
                    await self._observe(destination)
                if not seeded:
                    await self.seed(destination)
                    seeded = True
                if await self.serve(destination):
                    continue
            except Exception as error:
                if not database.is_transient(error, connected=False):
                    raise
                log.warning("the ledger does not answer", extra={"error": repr(error)})
            await asyncio.sleep(POLL_S)

    async def _observe(self, destination: str) -> None:
        async with self.pool.acquire() as db:
            found = {row["state"]: row["n"] for row in await db.fetch(store.COUNT_WRITES_OF, destination)}
            for state in store.WRITE_STATES:
                metrics.WRITES.labels(destination, state).set(found.get(state, 0))
            await show_disabled(db)

    async def seed(self, destination: str) -> None:
        """What is known of accounts already: a write-back that is new writes all of them."""
        wait = timedelta(seconds=self.outlets[destination].rules.every_seconds)
        async with self.pool.acquire() as db, db.transaction():
            await store.want(db, {destination: wait}, None, rest=False)

    async def serve(self, destination: str) -> bool:
        """One batch into one destination; False when there is nothing to do there now."""
        outlet = self.outlets[destination]
        async with self.pool.acquire() as db, db.transaction():
            step = await self._claim(db, destination, outlet)
        if isinstance(step, bool):
            return step
        self._reach("before_delivery")
        if time.monotonic() > step.deadline:
            return False
        written = await outlet.write(step.writes, self.rules.pace.timeout_seconds)
        self._reach("after_delivery")
        async with self.pool.acquire() as db, db.transaction():
            await self._record(db, destination, outlet, step, written)
        return True

    async def _claim(self, db: database.Connection, destination: str, outlet: Outlet) -> Step | bool:
        started = time.monotonic()
        await db.execute(store.ADD_DESTINATION, destination)
        place = await store.lock_destination(db, destination)
        if place is None:
            return False
        rows = await db.fetch(
            store.LIST_WRITES, destination, outlet.rules.linked_by, outlet.most
        )  # fmt: skip
        if not rows:
            return False
        writes, lost = to_write(rows, outlet.rules)
        if lost:
            await db.execute(store.UNMAP, destination, lost, NO_ID)
        if not writes:
            return True
        if any(row["alone"] for row in rows):
            alone = {row["account_id"] for row in rows if row["alone"]}
            writes = [one for one in writes if one.account_id in alone][:1] or writes
        ids = [one.account_id for one in writes]
        await db.execute(store.BEGIN_WRITES, destination, ids)
        pace = self.rules.pace
        fence = await db.fetchval(store.LEASE, destination, timedelta(seconds=pace.lease_seconds))
        patience = timedelta(hours=pace.give_up_hours)
        since = place.failing_since
        old = {row["account_id"] for row in rows if place.now - row["wanted_at"] > patience}
        give_up = old if since is not None and place.now - since > patience else set()
        return Step(tuple(writes), fence, place.failures, frozenset(give_up), started + pace.lease_seconds / 2)

    async def _record(
        self, db: database.Connection, destination: str, outlet: Outlet, step: Step, written: Written
    ) -> None:
        """Write down what came of it, unless the lease has become somebody else's: then they make the call again."""
        whole, pace = written.whole, self.rules.pace
        metrics.ATTEMPTS.labels(outlet.rules.tool, whole.what).inc()
        healthy = whole.what in ("sent", "failed") or written.one_by_one
        failures = 0 if healthy else step.failures + 1
        pause = 0.0
        if not healthy:
            longest = min(pace.longest_pause_seconds, 0.25 * 2 ** min(failures, 20))
            pause = whole.after if whole.after is not None else longest * random.uniform(0.5, 1.0)
        reason = None if healthy else whole.reason
        released = await db.fetchrow(
            store.RELEASE, destination, step.fence, timedelta(seconds=pause), failures, reason, None, False
        )
        if released is None:
            log.warning("a write-back took longer than its lease", extra={"destination": destination})
            return
        rows = [self._row(one, step, written) for one in step.writes]
        await db.execute(store.FINISH_WRITES, destination, *database.columns(rows, 4))
        if any(written.of(one).what == "refused" for one in step.writes) and healthy and not written.one_by_one:
            again = [one.account_id for one in step.writes if written.of(one).what == "refused"]
            await db.execute(store.LATER, destination, again, timedelta(seconds=pace.settle_seconds))
        await disable(db, destination, whole, released["failing_since"], self.rules)
        if not healthy:
            log.info("a write-back waits", extra={"destination": destination, "reason": reason, "pause_s": pause})

    def _row(self, write: Write, step: Step, written: Written) -> tuple[str, str, str | None, bool]:
        found = written.of(write)
        state = STATES.get(found.what, "pending")
        if state in ("pending", "unknown") and write.account_id in step.give_up and not written.one_by_one:
            return write.account_id, "failed", f"given up: {found.reason}", False
        alone = written.one_by_one and state == "pending"
        return write.account_id, state, found.reason or None, alone


def to_write(rows: Sequence[Mapping[str, Any]], rules: WriteBack) -> tuple[list[Write], list[str]]:
    """The writes of rows, and the accounts of which nobody said what the tool calls them."""
    writes: list[Write] = []
    lost: list[str] = []
    for row in rows:
        id = writeback.remote_id(row["account_id"], row["linked"], rules)
        if id is None:
            lost.append(row["account_id"])
        else:
            writes.append(
                Write(row["account_id"], id, row["score"], row["band"], row["why"], row["computed_at"], row["version"])
            )
    return writes, lost
