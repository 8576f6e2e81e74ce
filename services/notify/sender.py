"""Says what the ledger holds: one message at a time in each place, whoever dies in between.

A step is: claim in one transaction (lease, what is to be said, the row `sending`), one call outside, and the outcome in
a second transaction under the same fence. Who takes over after a lease finds the row `sending`: nobody knows whether it
was posted, so it is looked up before it is said again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import cast, get_args
from zoneinfo import ZoneInfo

from services.notify import blocks, domain, metrics, names, store, wording
from services.notify.card import Card
from services.notify.domain import Act, Row, Standing
from services.notify.episodes import Episode
from services.notify.settings import Language, Notify, destination_of
from services.notify.sinks import Letter, Outcome, Sink
from shared import db as database
from shared.ids import derived_id
from shared.runtime import failpoints
from shared.team import Person, Team
from shared.vault.keys import Keys

log = logging.getLogger(__name__)

MOST_AT_ONCE = 32
MOST_DUE, FEW_DUE = 1_000, 50
"""How many rows are looked at for one step: where a digest may gather them, and where none does."""
POLL_S = 1.0
OBSERVE_S = 5.0
PRUNE_S = 3600.0
WAITING = (
    "select state, count(*) as n from notify.deliveries where state in ('pending', 'sending', 'unknown') group by state"
)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads in a place: language and clock."""

    language: Language
    zone: ZoneInfo
    is_person: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A claimed step: what to hand over, under which fence, and when the claim ends."""

    act: Act
    row: Row
    letter: Letter
    fence: int
    failures: int
    give_up: bool
    deadline: float


class Sender:
    """Drains the ledger of all places; any number of processes may run one."""

    def __init__(
        self, rules: Notify, team: Team, sinks: Mapping[str, Sink], pool: database.Pool, *, console_url: str = "",
        keys: Keys | None = None, wake: asyncio.Event | None = None, reach: Callable[[str], None] = failpoints.reach,
    ) -> None:  # fmt: skip
        self.rules, self.team, self.sinks, self.pool = rules, team, sinks, pool
        self.console_url, self.keys = console_url, keys
        self.wake = wake or asyncio.Event()
        self._reach = reach
        self._busy: dict[str, asyncio.Task[bool]] = {}
        self._names = {f"slack:{person.slack_id}": person.name for person in team.people if person.slack_id}
        self._people = {f"slack:{person.slack_id}": person for person in team.people if person.slack_id}
        self._channels = {destination_of(name, channel): channel for name, channel in rules.channels.items()}
        self._observed_at = 0.0
        self._pruned_at: float | None = None

    async def run(self) -> None:
        """Until cancelled; what is being said then is said to its end."""
        pause = 0.1
        try:
            while True:
                try:
                    await self._round()
                    pause = 0.1
                except Exception as error:
                    if not database.is_transient(error, connected=False):
                        raise
                    log.warning("the ledger does not answer", extra={"error": repr(error)})
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 5.0)
        finally:
            if self._busy:
                await asyncio.wait(self._busy.values(), timeout=self.rules.pace.timeout_seconds)

    async def _round(self) -> None:
        self.wake.clear()
        async with self.pool.acquire() as db:
            ready = await db.fetch(store.LIST_READY, 10 * MOST_AT_ONCE, timedelta(seconds=POLL_S))
            await self._observe(db)
        pause = POLL_S
        for destination, wait in ready:
            if wait > 0:
                pause = wait
                break
            if destination not in self._busy and len(self._busy) < MOST_AT_ONCE:
                self._busy[destination] = asyncio.create_task(self.serve(destination))
        if not self._busy:
            await self._woken(pause)
            return
        woken = asyncio.create_task(self._woken(pause))
        done, _ = await asyncio.wait({woken, *self._busy.values()}, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()
        for destination, task in list(self._busy.items()):
            if task in done:
                del self._busy[destination]
                task.result()

    async def _woken(self, pause: float) -> None:
        try:
            await asyncio.wait_for(self.wake.wait(), max(pause, 0.005))
        except TimeoutError:
            return

    async def _observe(self, db: database.Connection) -> None:
        if time.monotonic() - self._observed_at < OBSERVE_S:
            return
        self._observed_at = time.monotonic()
        if self._pruned_at is None or self._observed_at - self._pruned_at >= PRUNE_S:
            self._pruned_at = self._observed_at
            await store.prune(db, timedelta(days=self.rules.keep_days))
        found = {row["state"]: row["n"] for row in await db.fetch(WAITING)}
        for state in ("pending", "sending", "unknown"):
            metrics.WAITING.labels(state).set(found.get(state, 0))
        await show_disabled(db)

    async def serve(self, destination: str) -> bool:
        """One step in one place; False when there is nothing to do there now."""
        async with self.pool.acquire() as db:
            started = time.monotonic()  # not later than the database's now(), from which the lease counts
            async with db.transaction():
                step = await self._claim(db, destination, started)
        if isinstance(step, bool):
            return step
        self._reach("before_delivery")
        if time.monotonic() > step.deadline:  # we slept through half of the lease: somebody else may be at it by now
            return False
        outcome = await self._do(destination, step)
        self._reach("after_delivery")
        async with self.pool.acquire() as db:
            await self._record(db, destination, step, outcome)
        return True

    # -- claim ----------------------------------------------------------------------------------

    async def _claim(self, db: database.Connection, destination: str, started: float) -> Step | bool:
        """The next step, made ours; else whether it is worth looking again at once."""
        place = await store.lock_destination(db, destination)
        if place is None:
            return False
        kind, _, address = destination.partition(":")
        sink = self.sinks.get(kind)
        many = sink is not None and not sink.is_machine and self.rules.digest_over < MOST_DUE
        rows = await store.list_unsettled(db, destination, MOST_DUE if many else FEW_DUE)
        if sink is None:
            await db.execute(store.SUPPRESS, [row.delivery_id for row in rows], [domain.NO_SINK] * len(rows))
            await db.execute(store.LOOK_AGAIN, destination, place.now + timedelta(seconds=60))
            return False
        reader = self.reader(destination)
        episodes = await store.load_episodes(db, {row.alert_id for row in rows if row.alert_id})
        plan = await self._plan(db, place, sink, reader, rows, episodes)
        if plan.suppress:
            await db.execute(
                store.SUPPRESS, [row.delivery_id for row, _ in plan.suppress], [why for _, why in plan.suppress]
            )
        if plan.later:
            await db.execute(
                store.POSTPONE, *database.columns([(r.delivery_id, at, mode) for r, at, mode in plan.later], 3)
            )
        if plan.again:
            await db.execute(store.AGAIN, [row.delivery_id for row in plan.again])
        if plan.act is None:
            due = [plan.look_again_at, *(at for _, at, _ in plan.later), await db.fetchval(store.NEXT_DUE, destination)]
            again = min((at for at in due if at is not None), default=place.now + timedelta(minutes=5))
            changed = bool(plan.suppress or plan.again)
            await db.execute(store.LOOK_AGAIN, destination, None if changed else again)
            return changed
        return await self._begin(db, place, address, reader, plan.act, episodes, started)

    async def _plan(
        self, db: database.Connection, place: store.Place, sink: Sink, reader: Reader, rows: list[Row],
        episodes: Mapping[str, Episode],
    ) -> domain.Plan:  # fmt: skip
        accounts = {row.account_id for row in rows if row.what == "open" and row.account_id}
        following = {row.alert_id for row in rows if row.what in ("update", "thread") and row.alert_id}
        hours = timedelta(hours=self.rules.group_hours)
        mutes = self.rules.inhibit and accounts
        muted = domain.muted(await store.list_open_rules(db, accounts) if mutes else (), episodes.values(), self.rules)
        standing = Standing(
            zone=reader.zone,
            is_person=reader.is_person,
            is_machine=sink.is_machine,
            updates=sink.updates,
            looks_up=sink.looks_up,
            sent_this_week=await db.fetchval(store.COUNT_SENT, place.destination) if reader.is_person else 0,
            last_digest_at=place.last_digest_at,
        )
        return domain.plan(
            rows, episodes, muted,
            await store.load_told(db, place.destination, following) if following else {},
            await store.load_roots(db, place.destination, accounts, hours) if accounts and hours else {},
            standing, self.rules, place.now,
            await store.list_unsaid(db, place.destination, following) if following else (),
        )  # fmt: skip

    async def _begin(
        self, db: database.Connection, place: store.Place, address: str, reader: Reader, act: Act,
        episodes: Mapping[str, Episode], started: float,
    ) -> Step:  # fmt: skip
        """Take the lease and write down what is about to happen."""
        row = act.row
        about: list[Episode]
        if row is None:
            row = await self._gather(db, place, act)
        if row.what == "digest":
            about = await store.list_members(db, row.delivery_id)
        else:
            about = [episodes[row.alert_id or ""]]
        about = [self._with_names(episode) for episode in about]
        accounts = await store.load_accounts(db, {episode.account_id for episode in about})
        cards = tuple(
            Card(episode, accounts[episode.account_id], reader.language, place.now, reader.zone) for episode in about
        )
        if not self.sinks[place.destination.partition(":")[0]].is_machine:
            cards = await names.shown(db, self.keys, cards)
        looks_up = act.what == "look_up"
        thread_ts = row.thread_ts if looks_up else act.thread_ts
        version = about[0].version if row.what != "digest" else 1
        lease = timedelta(seconds=self.rules.pace.lease_seconds)
        fence = await db.fetchval(store.BEGIN, row.delivery_id, version, looks_up, thread_ts, place.destination, lease)
        target = act.target
        letter = Letter(
            delivery_id=row.delivery_id,
            what=row.what,
            address=address,
            channel=target.channel if target is not None else place.channel,
            message=self._message(row, cards, reader.language),
            cards=cards,
            thread_ts=thread_ts,
            ts=target.ts if target is not None else None,
            attempted_at=row.attempted_at,
        )
        patience = timedelta(hours=self.rules.pace.give_up_hours)
        since = place.failing_since
        give_up = since is not None and place.now - since > patience and place.now - row.created_at > patience
        deadline = started + self.rules.pace.lease_seconds / 2
        return Step(act, row, letter, fence, place.failures, give_up, deadline)

    async def _gather(self, db: database.Connection, place: store.Place, act: Act) -> Row:
        """Put rows under a digest of their own."""
        id = derived_id("notify", place.destination, "digest", *(row.delivery_id for row in act.rows))
        await db.execute(store.ADD_DIGEST, id, place.destination, 1)
        await db.execute(store.GATHER, id, [row.delivery_id for row in act.rows])
        return Row(id, 0, "digest", "pending", "single", place.now, place.now)

    def _message(self, row: Row, cards: tuple[Card, ...], language: Language) -> blocks.Message:
        if row.what == "digest":
            return blocks.of_digest(cards, language)
        card = cards[0]
        if row.what == "thread":
            steps = [step for step in card.episode.history if step.version == row.version]
            return blocks.of_step(card, (steps or [card.episode.history[-1]])[0])
        note = wording.text("again", language) if row.reason == "unclear" and row.what == "open" else ""
        return blocks.of_card(card, self.console_url, note)

    def _with_names(self, episode: Episode) -> Episode:
        """Whoever pressed a button in Slack by their name in the team."""
        by = episode.acknowledged_by or ""
        return replace(episode, acknowledged_by=self._names[by]) if by in self._names else episode

    def reader(self, destination: str) -> Reader:
        """Who reads there, by team and configuration."""
        person = self._people.get(destination)
        if person is not None:
            return Reader(_language(person, self.rules), person.hours.zone, True)
        channel = self._channels.get(destination)
        zone = (channel.timezone if channel else None) or self.rules.timezone
        return Reader((channel.language if channel else None) or self.rules.language, ZoneInfo(zone), False)

    # -- do and record --------------------------------------------------------------------------

    async def _do(self, destination: str, step: Step) -> Outcome:
        """Hand it over; several calls it may take, but never the rest of the lease."""
        sink = self.sinks[destination.partition(":")[0]]
        looks_up = step.act.what == "look_up"
        do = sink.look_up if looks_up else sink.update if step.row.what == "update" else sink.post
        try:
            return await asyncio.wait_for(do(step.letter), self.rules.pace.lease_seconds / 2)
        except TimeoutError:
            return Outcome("refused" if looks_up else "unclear", "no answer in time")

    async def _record(self, db: database.Connection, destination: str, step: Step, outcome: Outcome) -> None:
        """Write the outcome down, unless the lease has become somebody else's: then they will find out."""
        pace, sink = self.rules.pace, self.sinks[destination.partition(":")[0]]
        looked_up = step.act.what == "look_up"
        (metrics.LOOKED_UP if looked_up else metrics.ATTEMPTS).labels(sink.name, outcome.what).inc()
        state, reason = _state(step, outcome)
        healthy = outcome.what in ("sent", "missing", "failed")
        failures = 0 if healthy else step.failures + 1
        pause = pace.per_channel_seconds if sink.paced and not looked_up else 0.0
        if not healthy:
            longest = min(pace.longest_pause_seconds, 0.25 * 2 ** min(failures, 20))
            pause = outcome.after if outcome.after is not None else longest * random.uniform(0.5, 1.0)
        digest = step.row.what == "digest" and state == "sent"
        finished = await db.fetchrow(
            store.FINISH, destination, step.fence, timedelta(seconds=pause), failures,
            None if healthy else outcome.reason, outcome.channel, digest, step.row.delivery_id, state, reason,
            outcome.ts, looked_up and state == "sent",
            outcome.thread_ts if state == "sent" else step.letter.thread_ts,
        )  # fmt: skip
        if finished is None:
            log.warning("a message took longer than its lease", extra={"destination": destination})
            return
        if sink.is_machine:
            await disable(db, destination, outcome, finished["failing_since"], self.rules)
        if state == "sent" and step.row.what == "open":
            metrics.SECONDS.labels(sink.name).observe(finished["seconds"])
        if not healthy:
            log.info("a message waits", extra={"destination": destination, "reason": outcome.reason, "pause_s": pause})


def _state(step: Step, outcome: Outcome) -> tuple[str, str | None]:
    """What the row becomes."""
    looked_up = step.act.what == "look_up"
    match outcome.what:
        case "sent":
            return "sent", None
        case "failed":
            return "failed", outcome.reason
        case "missing":
            return "pending", None
        case "refused":
            if step.give_up:
                return "failed", f"given up: {outcome.reason}"
            return ("unknown" if looked_up else "pending"), outcome.reason
        case _:
            return "unknown", outcome.reason


def _language(person: Person, rules: Notify) -> Language:
    found = next((one for one in person.languages if one in get_args(Language)), rules.language)
    return cast(Language, found)


async def show_disabled(db: database.Connection) -> None:
    """Places that may be disabled are few: those of configured webhooks, write-backs and outreaches."""
    for row in await db.fetch(store.LIST_DISABLED):
        if row["destination"].partition(":")[0] in ("webhook", "write", "outreach"):
            metrics.DISABLED.labels(row["destination"]).set(int(row["disabled"]))


async def disable(
    db: database.Connection, destination: str, outcome: Outcome, failing_since: datetime | None, rules: Notify
) -> None:
    """Close a place that said it wants no more, or that failed for too long, and say so."""
    now = await store.now(db)
    long = failing_since is not None and now - failing_since > timedelta(hours=rules.disable_after_hours)
    if outcome.gone or long:
        reason = f"disabled: {outcome.reason}"
        await db.execute(store.DISABLE, destination, reason)
        log.error(
            "a destination is disabled: mend it, then hune notify redrive",
            extra={"destination": destination, "reason": outcome.reason},
        )
