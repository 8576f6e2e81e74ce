"""Load → decide → save → emit, for a batch of signals and for the passing of time.

Use of the product on the running day changes nothing in a score but the first of the day, so most batches
end with appended use and no scoring. An account is walked signal by signal only when one of its signals
can change something; so no decision depends on where batches end.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from services.health import (
    actions,
    domain,
    episodes,
    facts,
    guidance_store,
    guiding,
    kin,
    merging,
    metrics,
    overrides,
    standstill,
    store,
    telling,
    usage,
)
from services.health.actions import Acted, Action, Declined, Past
from services.health.book import COUNTED, JUDGED, Book
from services.health.counting import PEERS_COUNTED, Counting
from services.health.domain import Decision, Memory, Policy
from services.health.episodes import Episode
from services.health.facts import Facts, Ignore, Key, Learnt, Reject
from services.health.guidance import Turn
from services.health.guiding import FEATURES_COUNTED, Around, Dismissal, Dismissed, Guiding
from services.health.settings import read_model
from services.health.store import Account
from services.health.tracking import Break
from services.health.usage import EVENT, UTC_ZONE, Events, micros
from shared import privacy
from shared.events import results
from shared.requests import Unusable
from shared.runtime.api import EVERYBODY, Batch, Signal
from shared.runtime.unit import UnitOfWork

log = logging.getLogger(__name__)
Asked = Action | Acted | Declined | Dismissal | Dismissed
"""What a person asks to be done, and what it came to."""
Used = tuple[int, int, int, int]
"""A row of use, as `usage.EVENT` has it."""
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
"""Due as soon as there is a clock."""
OF_BOOK = (COUNTED, JUDGED)
CHILD_SCORED = results.ChildScored.type_name
AGAIN_IN = timedelta(hours=1)
"""When an account is tried again that could not be looked at."""
MOST_CACHED = 1_000_000
COMPACT_DAYS = 8


@dataclass(slots=True)
class Use:
    """The batch's events of use as columns, and what is new in names."""

    accounts: dict[str, int] = field(default_factory=dict)
    partitions: list[int] = field(default_factory=list)
    account: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    user: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    action: list[int] = field(default_factory=list)
    quiet: list[bool] = field(default_factory=list)
    words: set[tuple[str, int, str]] = field(default_factory=set)
    users: set[tuple[str, int, int, str]] = field(default_factory=set)

    def events(self) -> Events:
        events: Events = np.empty(len(self.at), EVENT)
        events["at"], events["user"] = self.at, np.array(self.user, np.uint64)
        events["feature"], events["action"] = np.array(self.feature, np.uint64), np.array(self.action, np.uint64)
        return events


@dataclass(slots=True)
class Walk:
    """One account while its signals are gone through in order."""

    row: Account
    facts: Facts
    memory: Memory
    loaded: Account | None
    unsettled: set[Key]
    decided: list[tuple[Decision | Acted | Turn, telling.Cause]] = field(default_factory=list)
    triples: set[tuple[date, int, int]] | None = None
    ended: dict[str, Past] = field(default_factory=dict)
    """Alerts that were over within the batch."""
    fresh: list[Used] = field(default_factory=list)
    """Use that was learnt since the facts were last looked at."""

    @property
    def known(self) -> Facts:
        if self.fresh:
            self.facts = self.facts.with_usage(np.array(self.fresh, EVENT))
            self.fresh = []
        return self.facts

    def end(self, resolved: Sequence[Episode], at: datetime) -> None:
        for one in resolved:
            self.ended[one.alert_id] = Past(one.alert_id, self.row.account_id, one.rule, one.title, at)

    def learn(self, what: Used | Learnt) -> None:
        if isinstance(what, Learnt):
            self.facts = self.known.with_mark(what)
            self.unsettled.add(what.key)
        else:
            self.fresh.append(what)


@dataclass(frozen=True, slots=True)
class Sweep:
    """How far the accounts of some partitions have been looked through for an older configuration."""

    partitions: frozenset[int] = frozenset()
    after: str = ""
    is_done: bool = False


class Names:
    """Names already in the databases, so that they are not written again; bounded, never wrong.

    A name enters only when the database said that an earlier transaction had written it; words are asked of each
    database apart, the users of an account are in one.
    """

    def __init__(self) -> None:
        self.words: defaultdict[int, set[int]] = defaultdict(set)
        self.users: set[tuple[str, int]] = set()
        self.features: dict[str, int] = {}
        self.actions: dict[tuple[str, str | None], int] = {}

    def feature(self, name: str | None) -> int:
        if name is None:
            return 0
        known = self.features.get(name)
        if known is None:
            known = usage.hash_of(name)
            _bounded(self.features)[name] = known
        return known

    def action(self, event: str, product: str | None) -> int:
        known = self.actions.get((event, product))
        if known is None:
            known = usage.action_of(event, product)
            _bounded(self.actions)[event, product] = known
        return known


def _bounded(cache: Any) -> Any:
    if len(cache) >= MOST_CACHED:
        cache.clear()
    return cache


class Handlers:
    """Health's handlers under one policy."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.names = Names()
        self.book = Book(policy)
        self.counting = Counting(policy)
        self.guiding = Guiding(policy)
        self.kept: set[int] = set()
        """Partitions whose database says by what they score."""
        self.sweeps: dict[int, Sweep] = {}
        """By database."""

    async def on_signals(self, batch: Batch, unit: UnitOfWork) -> None:
        """Apply a batch: learn all of it, assess the accounts in which something can have changed."""
        to_forget = [signal for signal in batch if signal.type == privacy.REQUESTED]
        if to_forget:
            batch = Batch([signal for signal in batch if signal.type != privacy.REQUESTED])
        use, others = self._columns(batch, unit)
        events = use.events()
        await self.book.learn(batch, others, events, use.partitions, use.account, unit)
        others = await self._of_book(others, unit)
        others = await _keep_tiers(await _keep_rates(others, unit), unit)
        heard = [signal for signal in others if signal.type == CHILD_SCORED]
        others = [signal for signal in others if signal.type != CHILD_SCORED] if heard else others
        if counted := [signal for signal in others if signal.type == PEERS_COUNTED]:
            await self.counting.hear(counted, unit)
            others = [signal for signal in others if signal.type != PEERS_COUNTED]
        if counted := [signal for signal in others if signal.type == FEATURES_COUNTED]:
            await self.guiding.hear(counted, unit)
            others = [signal for signal in others if signal.type != FEATURES_COUNTED]
        learnt = {id(signal): _learn(signal) for signal in others if signal.type != "request.made"}
        rows = await store.load_accounts(unit.db, {*use.accounts, *(signal.account_id for signal in others)})
        done = self._asked(others, learnt, rows, unit)
        news = self._news(others, rows)
        walked = self._used_news(use, events, rows, unit) | _other_news(news, learnt, rows, unit)
        walks = await self._load(walked, rows, batch, learnt, unit) if walked else {}
        wanted = [asked.alert_id for asked in done.values() if isinstance(asked, Action)]
        past = await store.load_past(unit.db, wanted) if wanted else {}
        for signal in batch if walks else ():
            if (walk := walks.get(signal.account_id)) is None:
                continue
            if isinstance(asked := done.get(id(signal)), Action):
                done[id(signal)] = self._act(walk, signal, asked, past, unit)
            elif isinstance(asked, Dismissal):
                done[id(signal)] = self._dismiss(walk, signal, asked, unit)
            else:
                self._step(walk, signal, learnt.get(id(signal)), unit)
        for signal in others:
            self._settle(signal, learnt.get(id(signal)), done.get(id(signal)), walks, rows, unit)
        await self._save_use(use, events, unit)
        if use.at:
            await self.book.count_again(events, use.partitions, use.account, unit)
        marks = [
            (signal.account_id, signal.partition, said)
            for signal in others
            if isinstance(said := learnt.get(id(signal)), Learnt)
        ]
        if marks:
            await store.save_marks(unit.db, marks)
        waiting = _waiting(use, news, learnt, rows, walks, unit)
        await self._tell(list(walks.values()), waiting, unit)
        await self._tell_family(list(walks.values()), heard, unit)
        await privacy.erase(unit, to_forget, (*store.ERASE, *guidance_store.ERASE))

    async def _of_book(self, others: list[Signal], unit: UnitOfWork) -> list[Signal]:
        """Take in what concerns the whole book, and return the other signals."""
        counts = [signal for signal in others if signal.type in OF_BOOK]
        if counts:
            await self.book.hear(counts, unit)
        asked = [signal for signal in others if signal.type == "request.made" and signal.account_id == EVERYBODY]
        for signal in asked:
            await self.book.answer(signal, unit)
        if not counts and not asked:
            return others
        gone = {id(signal) for signal in (*counts, *asked)}
        return [signal for signal in others if id(signal) not in gone]

    async def on_tick(self, clocks: Mapping[int, datetime], limit: int, unit: UnitOfWork) -> int:
        """Assess accounts whose time has come; the rest of the turn goes to those that another configuration scored."""
        judged = await self.book.tick(clocks, unit)
        due = await store.list_due(unit.db, clocks, limit)
        if len(due) < limit:
            due += await self._outdated(clocks, due, limit - len(due), unit)
        if not due:
            counted = await self.counting.count(clocks, limit, unit) if self.policy.model.ranked else 0
            return judged + counted + await self.guiding.count(clocks, unit)
        rows = {row.account_id: row for row in due}
        first, last = min(clocks[row.partition] for row in due), max(clocks[row.partition] for row in due)
        walks = await self._load_rows(list(rows.values()), first, (), unit)
        around = await self.guiding.around([(walk.row, walk.facts, walk.memory) for walk in walks.values()], unit)
        failed: list[tuple[Account, datetime, Exception]] = []
        for walk in walks.values():
            at = clocks[walk.row.partition]
            try:
                self._look(walk, at, around, unit)
            except Exception as error:  # one account must not keep the others from being looked at
                failed.append((walk.row, at, error))
        if failed:
            for row, _, _ in failed:
                del walks[row.account_id]
            await _set_aside(failed, unit)
        await self.guiding.keep([(walk.row, walk.memory) for walk in walks.values()], around, unit)
        await self._tell(list(walks.values()), [], unit)
        await self._tell_family(list(walks.values()), (), unit)
        day = timedelta(days=1)
        await store.compact_usage(unit.db, list(rows), last.date() - COMPACT_DAYS * day, first.date() - day)
        return len(due)

    async def _outdated(
        self, clocks: Mapping[int, datetime], due: Sequence[Account], limit: int, unit: UnitOfWork
    ) -> list[Account]:
        """The next accounts to be scored again after a change of the configuration; each start looks through once."""
        sweep, partitions = self.sweeps.get(unit.database), frozenset(clocks)
        if sweep is None or sweep.partitions != partitions:
            sweep = Sweep(partitions)
        if sweep.is_done:
            return []
        found = await store.list_outdated(unit.db, partitions, self.policy.digest, sweep.after, limit)
        after = Sweep(partitions, found[-1].account_id if found else sweep.after, len(found) < limit)
        unit.on_commit.append(lambda: self.sweeps.update({unit.database: after}))
        known = {row.account_id for row in due}
        return [row for row in found if row.account_id not in known]

    def _look(self, walk: Walk, at: datetime, around: Around, unit: UnitOfWork) -> None:
        """Assess an account because time has passed, and see what it might use besides."""
        live, cause = unit.is_live(walk.row.partition), f"{walk.row.account_id}:{at.isoformat()}"
        behind = self._behind(walk.row, live=live)
        quiet, known, memory = behind or not live, walk.known, walk.memory
        turn = self.guiding.look(walk.row, known, memory, at, around, cause=cause, baseline=quiet)
        if turn is not None:
            walk.memory = replace(memory, guidance=turn.standing)
            if turn.made or turn.ended:
                walk.decided.append((turn, telling.Cause(cause, at, (), at, baseline=quiet)))
        if behind:
            self._catch_up(walk, at, cause, unit)
        else:
            self._assess(walk, telling.Cause(cause, at, (), at, baseline=not live), unit)

    def _asked(
        self,
        others: Sequence[Signal],
        learnt: dict[int, Learnt | Ignore | Reject],
        rows: Mapping[str, Account],
        unit: UnitOfWork,
    ) -> dict[int, Asked]:
        """Requests to do something: what they ask for, or why it cannot be; an override is learnt like a fact."""
        found: dict[int, Asked] = {}
        for signal in others:
            if signal.type != "request.made" or signal.account_id not in rows:
                continue
            demand, data, clock = telling.demand_of(signal), signal.data, unit.clock(signal.partition)
            try:
                if demand == overrides.DEMAND:
                    at = signal.occurred_at
                    learnt[id(signal)] = overrides.learn(signal.id, at, data.parameters, data.user_id)
                elif demand in actions.DEMANDS and clock is not None:
                    found[id(signal)] = actions.read(demand, data.parameters, data.user_id, clock)
                elif demand == guiding.DEMAND and clock is not None:
                    found[id(signal)] = guiding.read(data.parameters, data.user_id)
            except Unusable as error:
                found[id(signal)] = Declined(str(error))
        return found

    def _news(self, others: Sequence[Signal], rows: Mapping[str, Account]) -> Sequence[Signal]:
        """Without what voice tells where it moves nothing: no measure listens, or only voice knows the account yet."""
        listens = self.policy.model.listens
        return [one for one in others if one.type != facts.VOICE or (listens and one.account_id in rows)]

    def _columns(self, batch: Batch, unit: UnitOfWork) -> tuple[Use, list[Signal]]:
        """Use of the product as columns, and the signals that are something else."""
        use, names, others = Use(), self.names, []
        accounts, known_users, known_words = use.accounts, names.users, names.words[unit.database]
        for signal in batch:
            if signal.type != "usage.tracked":
                others.append(signal)
                continue
            data, account_id = signal.data, signal.account_id
            index = accounts.get(account_id)
            if index is None:
                index = accounts[account_id] = len(accounts)
                use.partitions.append(signal.partition)
            user = usage.hash_of(data.user_id)
            feature, action = names.feature(data.feature), names.action(data.event, data.product)
            use.account.append(index)
            use.at.append(micros(signal.occurred_at))
            use.user.append(user)
            use.feature.append(feature)
            use.action.append(action)
            use.quiet.append(unit.quiet(signal))
            if user and (account_id, user) not in known_users:
                use.users.add((account_id, user, signal.partition, data.user_id))
            if feature and feature not in known_words:
                use.words.add(("feature", feature, data.feature))
            if action not in known_words:
                use.words.add(("action", action, f"{data.event}\x1f{data.product or ''}"))
        return use, others

    def _used_news(self, use: Use, events: Events, rows: Mapping[str, Account], unit: UnitOfWork) -> set[str]:
        """Accounts in which use may change what was told: the first of a day, on a past day, or to come."""
        if not use.accounts:
            return set()
        start, end, active = [], [], []
        for account_id, partition in zip(use.accounts, use.partitions, strict=True):
            clock, row = unit.clock(partition), rows.get(account_id)
            if clock is None:  # nothing is told before there is a clock
                start.append(-(1 << 62))
                end.append(1 << 62)
                active.append(True)
                continue
            zone = _zone(row) if row else UTC_ZONE
            today = clock.astimezone(zone).date()
            start.append(usage.midnight(zone, today))
            end.append(usage.midnight(zone, today + timedelta(days=1)))
            active.append(row is not None and row.last_active_day is not None and row.last_active_day >= today)
        index = np.array(use.account)
        matters = events["at"] < np.array(start)[index]
        matters |= (events["at"] >= np.array(end)[index]) | ~np.array(active)[index]
        matters &= ~np.array(use.quiet)
        names = list(use.accounts)
        return {names[k] for k in np.unique(index[matters]).tolist()}

    async def _load(
        self,
        walked: Collection[str],
        rows: Mapping[str, Account],
        batch: Batch,
        learnt: Mapping[int, Learnt | Ignore | Reject],
        unit: UnitOfWork,
    ) -> dict[str, Walk]:
        partitions = {signal.account_id: signal.partition for signal in batch}
        standing = [rows.get(name) or Account(name, partitions[name]) for name in sorted(walked)]
        clocks = [clock for row in standing if (clock := unit.clock(row.partition))]
        keys = {said.key[1] for said in learnt.values() if isinstance(said, Learnt)}
        return await self._load_rows(standing, min(clocks), keys, unit)

    async def _load_rows(
        self, rows: Sequence[Account], at: datetime, keys: Collection[str], unit: UnitOfWork
    ) -> dict[str, Walk]:
        ids = [row.account_id for row in rows]
        memories = await store.load_memories(unit.db, ids)
        await self._load_older(memories.values(), unit)
        breaks = {
            name: self._recent(memory.breaks, at)
            for name, memory in memories.items()
            if memory.breaks and self.book.is_on
        }
        since = (at - self.policy.history).date()
        if breaks:
            since -= max(standstill.margin(those, at.date()) for those in breaks.values())
        known, unsettled = await store.load_facts(unit.db, ids, at=at, since=since, keys=keys)
        if self.policy.model.ranked:
            for row in rows:
                if (now := unit.clock(row.partition)) is not None:
                    peers = await self.counting.peers_of(row.partition, now, unit.db)
                    known[row.account_id] = replace(known[row.account_id], peers=peers)
        return {
            (name := row.account_id): Walk(
                row,
                known[name].under(breaks.get(name, ())),
                memories.get(name, Memory()),
                row,
                unsettled.get(name, set()),
            )
            for row in rows
        }

    def _recent(self, breaks: Sequence[Break], at: datetime) -> tuple[Break, ...]:
        """Those that a window can still reach."""
        first = (at - self.policy.history - timedelta(days=standstill.HABIT_DAYS)).date()
        return tuple(one for one in breaks if one.until is None or one.until >= first)

    def _act(
        self, walk: Walk, signal: Signal, action: Action, past: Mapping[str, Past], unit: UnitOfWork
    ) -> Acted | Declined:
        """Carry out what a person asks to be done about an alert."""
        clock = unit.clock(signal.partition)
        assert clock is not None, "accounts are walked only when there is a clock"
        acted = actions.act(action, walk.memory, {**past, **walk.ended}, walk.row.account_id, clock)
        if isinstance(acted, Acted):
            if action.what == "resolved" and isinstance(acted.alert, Episode):
                walk.end((acted.alert,), clock)
            cause = telling.Cause(signal.id, signal.occurred_at, (signal.id,), clock, baseline=False)
            walk.decided.append((acted, cause))
            walk.memory = acted.memory
            due = episodes.due_at(walk.memory.open, walk.memory.hush, self.policy.rules, clock)
            if due is not None and (walk.row.next_due_at is None or due < walk.row.next_due_at):
                walk.row = replace(walk.row, next_due_at=due)
        return acted

    def _dismiss(self, walk: Walk, signal: Signal, asked: Dismissal, unit: UnitOfWork) -> Dismissed | Declined:
        """Take a recommendation off an account, as a person asks."""
        clock = unit.clock(signal.partition)
        assert clock is not None, "accounts are walked only when there is a clock"
        try:
            said = guiding.dismiss(asked, walk.memory, self.policy, walk.row.account_id, clock)
        except Unusable as error:
            return Declined(str(error))
        if said.turn is not None:
            walk.memory = replace(walk.memory, guidance=said.turn.standing)
            cause = telling.Cause(signal.id, signal.occurred_at, (signal.id,), clock, baseline=False)
            walk.decided.append((said.turn, cause))
        return said

    def _step(self, walk: Walk, signal: Signal, said: Learnt | Ignore | Reject | None, unit: UnitOfWork) -> None:
        """Learn one signal and decide what it changes."""
        clock = unit.clock(signal.partition)
        assert clock is not None, "accounts are walked only when there is a clock"
        what: Used | Learnt
        if signal.type == "usage.tracked":
            what = self._used(signal)
            matters = self._matters(walk, signal, what, clock)
        elif isinstance(said, Learnt):
            what, matters, walk.triples = said, True, None
        else:
            return
        if _quiet(signal, unit):
            walk.learn(what)
            walk.triples = None
            walk.row = replace(walk.row, pending=True, next_due_at=AT_ONCE)
        elif signal.occurred_at > clock:
            walk.learn(what)
            due = walk.row.next_due_at
            walk.row = replace(walk.row, next_due_at=min(signal.occurred_at, due) if due else signal.occurred_at)
        elif matters:
            live = unit.is_live(signal.partition)
            if self._behind(walk.row, live=live):
                self._catch_up(walk, clock, f"{signal.id}:before", unit)
            walk.learn(what)
            self._assess(walk, telling.Cause(signal.id, signal.occurred_at, (signal.id,), clock, not live), unit)
        else:
            walk.learn(what)

    def _used(self, signal: Signal) -> Used:
        data = signal.data
        return (
            micros(signal.occurred_at),
            usage.hash_of(data.user_id),
            self.names.feature(data.feature),
            self.names.action(data.event, data.product),
        )

    def _matters(self, walk: Walk, signal: Signal, used: Used, clock: datetime) -> bool:
        """Whether the (day, user, feature) of an event of use is new; a score sees nothing finer."""
        zone = _zone(walk.row)
        day = signal.occurred_at.astimezone(zone).date()
        if walk.row.last_active_day == day == clock.astimezone(zone).date():
            return False  # not the first use of the running day
        if walk.triples is None:
            walk.triples = domain.triples(walk.known, clock, zone)
        triple = (day, used[1], used[2])
        new = triple not in walk.triples
        walk.triples.add(triple)
        return new

    def _behind(self, row: Account, *, live: bool) -> bool:
        """Whether something is to be caught up with that must wake nobody: a run, a jump of the clock to
        now, or a new configuration."""
        if row.pending:
            return True
        if row.assessed_at is None:
            return False
        return (live and not row.assessed_live) or row.config_hash != self.policy.digest

    def _catch_up(self, walk: Walk, at: datetime, cause: str, unit: UnitOfWork) -> None:
        """Assess what must wake nobody as a baseline; what came live meanwhile then counts as news."""
        live, row, known = unit.is_live(walk.row.partition), walk.row, walk.known
        if live and not row.pending and row.assessed_at is not None:
            walk.facts = domain.before_life(known, row.assessed_at, at)
        self._assess(walk, telling.Cause(cause, at, (), at, baseline=True), unit)
        if walk.facts is not known:
            walk.facts = known
            self._assess(walk, telling.Cause(f"{cause}:live", at, (), at, baseline=False), unit)

    def _assess(self, walk: Walk, cause: telling.Cause, unit: UnitOfWork) -> None:
        decision = domain.assess(
            walk.known, walk.memory, cause.clock, self.policy, cause=cause.id, baseline=cause.baseline
        )
        walk.decided.append((decision, cause))
        walk.memory = decision.memory
        walk.end(decision.resolved, cause.clock)
        walk.row = replace(
            walk.row,
            timezone=decision.timezone,
            last_active_day=decision.last_active_day,
            next_due_at=decision.due_at,
            pending=False,
            assessed_at=cause.clock,
            assessed_live=unit.is_live(walk.row.partition),
            config_hash=self.policy.digest,
        )

    def _settle(
        self,
        signal: Signal,
        said: Learnt | Ignore | Reject | None,
        done: Asked | None,
        walks: Mapping[str, Walk],
        rows: Mapping[str, Account],
        unit: UnitOfWork,
    ) -> None:
        if isinstance(said, Ignore):
            unit.ignore(signal, said.reason)
        elif isinstance(said, Reject):
            unit.reject(signal, said.reason, said.error)
        elif signal.type == "request.made":
            walk = walks.get(signal.account_id)
            standing = (walk.known, walk.memory) if walk else None
            came = said if isinstance(said, Learnt) else None if isinstance(done, Action | Dismissal) else done
            telling.reply(signal, standing, signal.account_id in rows, came, unit, self.policy)

    async def _save_use(self, use: Use, events: Events, unit: UnitOfWork) -> None:
        if not use.at:
            return
        names, first = list(use.accounts), date(1970, 1, 1).toordinal()
        rows = [
            (names[index], date.fromordinal(first + day), use.partitions[index], len(body) // EVENT.itemsize, body)
            for index, day, body in usage.group(np.array(use.account), events)
        ]
        await store.save_usage(unit.db, rows)
        if use.words:
            new_words = await store.save_words(unit.db, use.words)
            known = _bounded(self.names.words[unit.database])
            known.update(value for kind, value, _ in use.words if (kind, value) not in new_words)
        if use.users:
            new_users = await store.save_users(unit.db, use.users)
            _bounded(self.names.users).update((a, value) for a, value, _, _ in use.users if (a, value) not in new_users)

    async def _tell(self, walks: Sequence[Walk], learnt_only: Sequence[Account], unit: UnitOfWork) -> None:
        """Emit what was decided, and save what was told."""
        people = {
            (walk.row.account_id, person)
            for walk in walks
            for decision, _ in walk.decided
            for person in telling.people_of(decision)
        }
        names = await store.load_users(unit.db, people) if people else {}
        told: list[telling.Told] = []
        for walk in walks:
            for decision, cause in walk.decided:
                told.append(telling.tell(walk.row, decision, cause, names, unit, self.policy))
            walk.memory = telling.with_names(walk.memory, walk.row.account_id, names)
        changed = [
            (walk.row, walk.memory if walk.decided else None)
            for walk in walks
            if walk.decided or walk.row is not walk.loaded
        ]
        changed += [(row, None) for row in learnt_only]
        if changed:
            await store.save_accounts(unit.db, changed)
        if episodes := [episode for one in told for episode in one.episodes]:
            await store.save_alerts(unit.db, episodes, self.policy.digest)
        if guided := [row for one in told for row in one.guided]:
            await guidance_store.save_recommendations(unit.db, guided, self.policy.digest)
        if log := [row for one in told for row in one.log]:
            await store.save_log(unit.db, log)
        if scores := [one.score for one in told if one.score]:
            await store.save_scores(unit.db, scores, self.policy.digest)
            await self._save_model(scores, unit)
        ends = [
            (walk.row.account_id, key, until)
            for walk in walks
            if walk.decided
            for key, until in facts.relevant_until(walk.known, self.policy.horizon).items()
            if key in walk.unsettled
        ]
        if ends:
            await store.save_until(unit.db, ends)

    async def _tell_family(self, walks: Sequence[Walk], heard: Sequence[Signal], unit: UnitOfWork) -> None:
        """Let parents know what became of their children."""
        if self.policy.model.family is None and not heard:
            return
        if gone := [signal for signal in heard if unit.clock(signal.partition) is None]:  # closed accounts only learn
            await merging.pass_on(gone, unit)
            heard = [signal for signal in heard if signal not in gone]
        own = [
            kin.Own(
                store.member_of(walk.row.account_id, walk.memory),
                walk.row.partition,
                (walk.memory.state or {}).get("parent_id"),
                walk.decided[-1][1].clock,
                walk.decided[-1][1].baseline,
            )
            for walk in walks
            if walk.decided
        ]
        await kin.follow(own, heard, unit, self.policy)

    async def _load_older(self, memories: Collection[Memory], unit: UnitOfWork) -> None:
        """Read the models of scores that another configuration made: their weights explain a change."""
        known = {self.policy.model.digest, "", *self.policy.older}
        wanted = {memory.score.config for memory in memories if memory.score is not None} - known
        if not wanted:
            return
        found = await store.load_models(unit.db, wanted)
        for digest in wanted:  # what cannot be read any more is not asked for again
            self.policy.older[digest] = read_model(found.get(digest))

    async def _save_model(self, scores: Sequence[telling.ScoreRow], unit: UnitOfWork) -> None:
        """Keep what the partitions score by; one that an earlier transaction has kept is not written again."""
        model = self.policy.model
        for partition, at in {row[1]: row[2] for row in scores}.items():
            if partition not in self.kept and not await store.save_model(
                unit.db, partition, self.policy.digest, model.digest, model.model_dump_json(), at
            ):
                self.kept.add(partition)


def _zone(row: Account) -> ZoneInfo:
    return UTC_ZONE if row.timezone == "UTC" else ZoneInfo(row.timezone)


async def _set_aside(failed: Sequence[tuple[Account, datetime, Exception]], unit: UnitOfWork) -> None:
    """Note accounts that could not be looked at, with the reason, and try them again later."""
    said = [(row, at, f"{type(error).__name__}: {error}") for row, at, error in failed]
    await store.save_set_aside(unit.db, [(row.account_id, row.partition, at, reason) for row, at, reason in said])
    await store.save_accounts(unit.db, [(replace(row, next_due_at=at + AGAIN_IN), None) for row, at, _ in said])

    def tell() -> None:
        metrics.SET_ASIDE.inc(len(failed))
        for row, _, error in failed:
            log.error("an account is set aside", extra={"account_id": row.account_id}, exc_info=error)

    unit.on_commit.append(tell)


def _quiet(signal: Signal, unit: UnitOfWork) -> bool:
    """Whether it may wake nobody: as it came, or as voice said of what it had read."""
    return unit.quiet(signal) or (signal.type == facts.VOICE and signal.data.baseline)


def _learn(signal: Signal) -> Learnt | Ignore | Reject:
    return facts.learn(signal.type, signal.data, signal.id, signal.occurred_at)


async def _keep_rates(others: Sequence[Signal], unit: UnitOfWork) -> list[Signal]:
    """Save the rates of currencies, which are about no account, and return the other signals."""
    rest, rates = [], []
    for signal in others:
        data = signal.data
        if signal.type != "fx.rate":
            rest.append(signal)
        elif facts.is_sane(data.rate):
            rates.append((signal.partition, data.currency, data.year, signal.occurred_at, signal.id, data.rate))
        else:
            unit.reject(signal, f"rate {data.rate} is no rate: {facts.SANE}")
    if rates:
        await store.save_rates(unit.db, rates)
    return rest


async def _keep_tiers(others: Sequence[Signal], unit: UnitOfWork) -> list[Signal]:
    """Save the tiers that ops decided, to be told with the next look, and return the other signals."""
    tiers = [signal for signal in others if signal.type == "account.segmented"]
    if not tiers:
        return list(others)
    newest: dict[str, tuple[datetime, str, int]] = {}
    for signal in tiers:
        said = signal.occurred_at, signal.data.segment, signal.partition
        newest[signal.account_id] = max(said, newest.get(signal.account_id, said))
    await store.save_tiers(unit.db, newest)
    return [signal for signal in others if signal.type != "account.segmented"]


def _other_news(
    others: Sequence[Signal],
    learnt: Mapping[int, Learnt | Ignore | Reject],
    rows: Mapping[str, Account],
    unit: UnitOfWork,
) -> set[str]:
    """Accounts in which something else happened now, or of which somebody asks."""
    return {
        signal.account_id
        for signal in others
        if unit.clock(signal.partition) is not None
        and (
            (signal.type == "request.made" and signal.account_id in rows)
            or (isinstance(learnt.get(id(signal)), Learnt) and not _quiet(signal, unit))
        )
    }


def _waiting(
    use: Use,
    others: Sequence[Signal],
    learnt: Mapping[int, Learnt | Ignore | Reject],
    rows: Mapping[str, Account],
    walks: Mapping[str, Walk],
    unit: UnitOfWork,
) -> list[Account]:
    """Accounts that learnt something to be assessed at the next tick, as they now stand."""
    told: dict[tuple[str, int, bool], None] = {}
    if use.at:
        names, pairs = list(use.accounts), np.array(use.account) * 2 + np.array(use.quiet)
        for pair in np.unique(pairs).tolist():
            told[names[pair // 2], use.partitions[pair // 2], bool(pair % 2)] = None
    for signal in others:
        if isinstance(learnt.get(id(signal)), Learnt):
            told[signal.account_id, signal.partition, _quiet(signal, unit)] = None
    changed: dict[str, Account] = {}
    for account_id, partition, quiet in told:
        row = changed.get(account_id) or rows.get(account_id)
        if account_id in walks:
            continue
        if row is None:
            changed[account_id] = Account(account_id, partition, next_due_at=AT_ONCE, pending=quiet)
        elif (quiet and not row.pending) or (row.next_due_at != AT_ONCE and (quiet or unit.clock(partition) is None)):
            changed[account_id] = replace(row, next_due_at=AT_ONCE, pending=row.pending or quiet)
    return list(changed.values())
