"""Route a batch: learn who is who, find each event's account, send it to the domains it concerns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from services.router import actions, domain, store
from services.router.domain import Resolved, Unresolved
from services.router.gone import Register
from services.router.merges import Merge, refusal, straight_to
from services.router.plan import Plan, hash_of
from services.router.reader import CLOCK, REQUEST, USAGE, RawEvent, raw_reader
from services.router.requests import Requests
from services.router.sending import REMEMBERED, headers_of, place_of, told_of
from services.router.settings import Exclusions, Routing
from services.router.store import BEGINNING, OVERLAP, Parked, ToPark
from shared import privacy, topics
from shared.events import inputs, known_types
from shared.runtime.api import EVERYBODY, Batch
from shared.runtime.failpoints import reach
from shared.runtime.unit import UnitOfWork
from shared.runtime.wire import (
    CLOCK_SOURCE,
    ROUTER_PARTITION,
    ClockMark,
    Outgoing,
    Own,
    Record,
    Refused,
    event_headers,
    short_name,
    unpack_headers,
)
from shared.vault import store as vault
from shared.vault.keys import Keys, fields
from shared.vault.sealing import Sealer

SWEEP = timedelta(minutes=5)
NOWHERE = (-1, "")
_anything = msgspec.json.Decoder().decode


class Router:
    """The handler with what it may remember between batches: only facts that are committed."""

    def __init__(self, routing: Routing, exclusions: Exclusions, keys: Keys | None = None) -> None:
        sealer = Sealer(keys, fields()) if keys is not None else None
        self.routing, self.exclusions, self._keys = routing, exclusions.sealed(sealer), keys
        self.read = raw_reader(routing, sealer)
        self._outputs = {
            wire_type: tuple(topics.ROUTED[domain].name for domain in domains)
            for wire_type in known_types()
            if (domains := routing.events.get(short_name(wire_type)))
        }
        self._of_use = self._outputs.get(USAGE, ())
        self._may_settle = bool(self._of_use) and not exclusions.rules
        self._known_accounts: set[str] = set()
        self._accounts_of: dict[str, frozenset[str]] = {}
        self._merges: dict[str, Merge] = {}
        self._merges_to: int | None = None
        self._live = False
        self._gone = Register(keys)
        self._requests = Requests(routing, self._outputs)
        self._swept_at: dict[int, datetime] = {}
        self._sweep: tuple[list[int], tuple[int, str]] = ([], NOWHERE)

    # -- batches --------------------------------------------------------------------------------

    async def handle(self, batch: Batch, unit: UnitOfWork) -> None:
        events: Sequence[RawEvent] = batch.signals  # type: ignore[assignment]
        await self._gone.begin(events, unit)
        plan = await self._load(events, unit)
        routed: Counter[int] = Counter()
        for event in events:
            if self._gone.drops(event, unit):
                continue
            if event.contacts:
                plan.contacts += [(contact, event.received_at) for contact in event.contacts]
            if event.data is None and self._is_settled(event):
                self._copy(event, event.account_id, self._of_use, unit)  # type: ignore[arg-type]
                routed[event.partition] += 1
            elif event.wire_type == REQUEST:
                await self._requests.handle(event, plan, unit)
            elif event.wire_type == CLOCK:
                self._pass_on_clock(event, unit)
            else:
                if not self._live and event.mode is None and not plan.begins_life:
                    plan.begins_life = True
                    await self._begin_life(event, unit)
                self._event(event, plan, unit)
        for partition, n in routed.items():
            unit.count(partition, "routed", n)
        await self._save(plan, unit)

    def _is_settled(self, event: RawEvent) -> bool:
        """Whether nothing can be learnt from this use of the product: who it is about is known, and belongs there."""
        account, user = event.account_id, event.user_id
        return (
            account in self._known_accounts
            and account not in self._merges
            and (user is None or account in self._accounts_of.get(user, ()))
            and (self._live or event.mode is not None)
            and self._may_settle
        )

    async def _load(self, events: Sequence[RawEvent], unit: UnitOfWork) -> Plan:
        users: set[str] = set()
        external: set[tuple[str, str]] = set()
        entities: set[tuple[int, str]] = set()
        hashes: list[int] = []
        asked: list[int] = []
        deciding = False
        for event in events:
            deciding = deciding or _decides_merge(event)
            user, account = event.user_id, event.account_id
            if account is None or event.data is not None:
                if event.wire_type == REQUEST:
                    asked.append(hash_of(event))
                if event.wire_type in (REQUEST, CLOCK):
                    continue
                named = self._external(event)
                external.update(named)
                if user:
                    users.add(user)
                    entities.add((event.partition, f"user:{user}"))
                entities.update((event.partition, f"{ns}:{value}") for ns, value in named)
                if account is None:
                    hashes.append(hash_of(event))
            elif user and account not in self._accounts_of.get(user, ()):
                users.add(user)
                entities.add((event.partition, f"user:{user}"))
        plan = Plan()
        if users or external:
            plan.book = await store.load_identity(unit.db, users, external)
        if entities:
            for parked in await store.list_parked(unit.db, entities):
                plan.waiting.setdefault((parked.partition, parked.entity), []).append(parked)
        if hashes:
            plan.chosen = await store.load_choices(unit.db, hashes)
        if asked:
            plan.understood = await store.load_requests(unit.db, asked)
        if deciding:
            await unit.db.execute(store.LOCK_MERGES)
        if deciding or self._merges_to is None:
            await self._refresh_merges(unit)
        plan.book.merges = self._merges
        return plan

    async def _refresh_merges(self, unit: UnitOfWork) -> None:
        """Learn what others decided: their transactions are committed when ours can see them."""
        found, self._merges_to = await store.list_merges(unit.db, self._merges_to or 0)
        self._merges.update(found)

    async def _save(self, plan: Plan, unit: UnitOfWork) -> None:
        await store.save_accounts(unit.db, plan.accounts)
        await store.save_memberships(unit.db, plan.memberships)
        await store.save_links(unit.db, plan.links)
        await store.save_merges(unit.db, plan.merges)
        await store.save_choices(unit.db, plan.choices)
        await store.save_requests(unit.db, plan.asked)
        await store.release(unit.db, plan.released)
        if plan.released:
            reach("after_release")
        await store.save_parked(unit.db, plan.parked)
        if plan.contacts and self._keys is not None:
            await vault.save(unit.db, self._keys, plan.contacts)
        await self._gone.save(plan.asked_about, unit)
        if plan.merges:
            unit.on_commit.append(lambda: self._merges.update(plan.merges))
        if plan.accounts or plan.memberships:
            unit.on_commit.append(lambda: self._remember(plan))

    def _remember(self, plan: Plan) -> None:
        if len(self._known_accounts) > REMEMBERED:
            self._known_accounts.clear()
        if len(self._accounts_of) > REMEMBERED:
            self._accounts_of.clear()
        self._known_accounts.update(plan.accounts)
        for user, _ in plan.memberships:
            self._accounts_of[user] = frozenset(plan.book.memberships[user])

    # -- one event ------------------------------------------------------------------------------

    def _event(self, event: RawEvent, plan: Plan, unit: UnitOfWork) -> None:
        if isinstance(event.data, inputs.PrivacyRequested):
            self._forget(event, event.data, plan, unit)
            return
        if self.exclusions.rules and self._excluded(event, unit):
            return
        if type(event.data) is inputs.AccountMerged and not self._merge(event, plan, unit):
            return
        if event.account_id is not None:
            self._learn(event, plan, unit)
            self._forward(event, straight_to(event.account_id, event.occurred_at, plan.book.merges), plan, unit)
            return
        if event.type in self.routing.everybody:
            self._broadcast(event, unit)
            return
        if isinstance(event.data, inputs.UserDeactivated):
            self._note_left(event, plan)
        entity = _entity(event, self._external(event))
        found = self._resolve(event, plan)
        if entity is not None and (event.partition, entity) in plan.waiting:
            self._release((event.partition, entity), plan, unit)
        place = (event.partition, entity or "nobody")
        if isinstance(found, Resolved) and place not in plan.waiting and place not in plan.blocked:
            self._forward(event, found.account_id, plan, unit)
        elif isinstance(found, Resolved):
            self._park(event, Unresolved(domain.BEHIND, ()), plan, unit)
        else:
            self._park(event, found, plan, unit)

    def _merge(self, event: RawEvent, plan: Plan, unit: UnitOfWork) -> bool:
        """Note a merge; False when it goes no further: it cannot be, or says again what is known."""
        assert isinstance(event.data, inputs.AccountMerged)
        merged, into = event.data.merged_account_id, event.data.account_id
        reason = refusal(merged, into, plan.book.merges)
        if reason is not None:
            unit.reject(event, reason)  # type: ignore[arg-type]  # it has the place of a signal
            return False
        before = plan.book.merges.get(merged)
        if before is not None and before.valid_from != event.occurred_at:
            unit.count(event.partition, "unrouted")
            return False
        if before is None:
            plan.accept(merged, Merge(into, event.occurred_at, event.received_at))
        return True

    def _resolve(self, event: RawEvent, plan: Plan) -> Resolved | Unresolved:
        """Decided once per event: what was chosen before is chosen again."""
        hashed = hash_of(event)
        before = plan.chosen.get(hashed) or plan.choices.get(hashed)
        if before is not None:
            return Resolved(before)
        found = plan.book.resolve(event.user_id, self._external(event), event.occurred_at)
        if isinstance(found, Resolved):
            plan.choices[hashed] = found.account_id
        return found

    def _learn(self, event: RawEvent, plan: Plan, unit: UnitOfWork) -> None:
        """An event that names its account may tell who belongs to it; whoever waited for that goes first."""
        account, user = event.account_id, event.user_id
        assert account is not None
        data = event.data
        if account not in self._known_accounts and account not in plan.accounts:
            plan.accounts[account] = None
        if data is None:
            if user and account not in self._accounts_of.get(user, ()):
                known = plan.book.memberships.get(user, {})
                if account not in known and len(known) < 2:
                    self._join(event, user, account, plan, unit)
            return
        if isinstance(data, inputs.AccountUpdated):
            if data.name:
                plan.accounts[account] = data.name
            for namespace, external_id in sorted(data.external_ids.items()):
                self._link(event, namespace, external_id, account, plan, unit)
            if data.domain and data.domain.lower() not in domain.FREE_MAIL:
                self._link(event, "email_domain", data.domain.lower(), account, plan, unit)
        if isinstance(data, inputs.UserDeactivated):
            self._note_left(event, plan)
        elif user:
            self._join(event, user, account, plan, unit)

    def _join(self, event: RawEvent, user: str, account: str, plan: Plan, unit: UnitOfWork) -> None:
        if plan.book.join(user, account, event.occurred_at):
            plan.memberships[user, account] = plan.book.memberships[user][account]
            self._release((event.partition, f"user:{user}"), plan, unit)

    def _link(self, event: RawEvent, ns: str, external_id: str, account: str, plan: Plan, unit: UnitOfWork) -> None:
        if plan.book.link(ns, external_id, account, event.occurred_at):
            plan.links.append((ns, external_id, account, event.occurred_at))
            self._release((event.partition, f"{ns}:{external_id}"), plan, unit)

    def _note_left(self, event: RawEvent, plan: Plan) -> None:
        if event.user_id:
            for ended in plan.book.leave(event.user_id, event.account_id, event.occurred_at):
                plan.memberships[event.user_id, ended.account_id] = ended

    def _forget(self, event: RawEvent, asked: inputs.PrivacyRequested, plan: Plan, unit: UnitOfWork) -> None:
        """From this event on; the services hear of it in every partition, whatever account it names."""
        self._gone.hear(event)
        plan.asked_about.append((event, headers_of(event)))
        if asked.regulation in privacy.ERASING:
            for account_id in plan.book.memberships.pop(asked.user_id, {}):
                plan.memberships.pop((asked.user_id, account_id), None)
            self._accounts_of.pop(asked.user_id, None)
        self._broadcast(event, unit)

    def _excluded(self, event: RawEvent, unit: UnitOfWork) -> bool:
        body = _anything(event.value)
        name = body.get("event") or event.type if isinstance(body, dict) else event.type
        for rule in self.exclusions.rules:
            if rule.matches(event.account_id, event.user_id, str(name), body):
                unit.count(event.partition, "excluded")
                unit.count(event.partition, f"reason:excluded:{rule.reason}")
                return True
        return False

    # -- parking --------------------------------------------------------------------------------

    def _park(self, event: RawEvent, why: Unresolved, plan: Plan, unit: UnitOfWork) -> None:
        entity = _entity(event, self._external(event)) or "nobody"
        headers = headers_of(event)
        if event.own_time is None:
            headers.append(("ce_owntime", b""))
        plan.parked.append(ToPark(event, headers, entity, why.reason, why.waits_for))
        plan.blocked.add((event.partition, entity))
        unit.count(event.partition, "parked")

    def _release(self, entity: tuple[int, str], plan: Plan, unit: UnitOfWork) -> None:
        """Send what waits for this entity, in its order, as far as its accounts are known now."""
        waiting = plan.waiting.get(entity, [])
        while waiting:
            parked = waiting[0]
            event = self._unpark(parked)
            if isinstance(event, Refused):
                unit.refused.append(event)
            else:
                found = self._resolve(event, plan)
                if not isinstance(found, Resolved):
                    return
                if not self._gone.drops(event, unit):
                    self._forward(event, found.account_id, plan, unit)
            waiting.pop(0)
            plan.released.append(parked)
            unit.count(parked.partition, "parked", -1)
        plan.waiting.pop(entity, None)
        self._release_new(entity, plan, unit)

    def _release_new(self, entity: tuple[int, str], plan: Plan, unit: UnitOfWork) -> None:
        """The same for what this very batch has parked."""
        if entity not in plan.blocked:
            return
        still: list[ToPark] = []
        held = False
        for parked in plan.parked:
            if (parked.event.partition, parked.entity) != entity or held:
                still.append(parked)
                continue
            found = self._resolve(parked.event, plan)
            if isinstance(found, Resolved):
                unit.count(parked.event.partition, "parked", -1)
                self._forward(parked.event, found.account_id, plan, unit)
            else:
                held = True
                still.append(parked)
        plan.parked = still
        if not held:
            plan.blocked.discard(entity)

    def _unpark(self, parked: Parked) -> RawEvent | Refused:
        """Read it once more; a newer version may refuse what an older one let wait."""
        item = self.read(_record_of(parked))
        assert not isinstance(item, ClockMark)
        return item.signal if isinstance(item, Own) else item  # type: ignore[return-value]

    async def tick(self, clocks: Mapping[int, datetime], limit: int, unit: UnitOfWork) -> int:
        """Release what waited for links that other partitions asserted."""
        await self._refresh_merges(unit)
        now = await unit.db.fetchval("select clock_timestamp()")
        outputs = self._outputs.get(inputs.PrivacyRequested.wire_type(), ())
        await self._gone.tick(clocks, now, limit, outputs, unit)
        fresh = [p for p in clocks if now - self._swept_at.get(p, BEGINNING) > SWEEP]
        since = BEGINNING if fresh else now - OVERLAP
        given_up = await self._give_up(fresh, now, limit, unit) if fresh else 0
        after = self._sweep[1] if fresh and self._sweep[0] == fresh else NOWHERE
        arrived = await store.list_arrived(unit.db, fresh or list(clocks), since, after, limit)
        unit.on_commit.append(lambda: self._note_swept(fresh, arrived, limit, now))
        if not arrived:
            return given_up
        plan = Plan()
        for parked in await store.list_parked(unit.db, arrived):
            plan.waiting.setdefault((parked.partition, parked.entity), []).append(parked)
        events = [self._unpark(parked) for waiting in plan.waiting.values() for parked in waiting]
        loaded = await self._load([event for event in events if not isinstance(event, Refused)], unit)
        plan.book, plan.chosen = loaded.book, loaded.chosen
        for entity in list(plan.waiting):
            self._release(entity, plan, unit)
        await self._save(plan, unit)
        return len(plan.released) + given_up

    async def _give_up(self, partitions: Sequence[int], now: datetime, limit: int, unit: UnitOfWork) -> int:
        """What has waited too long goes to quarantine: somebody should look at it, and may redrive it."""
        days = self.routing.parking_days
        expired = await store.list_expired(unit.db, partitions, now - timedelta(days=days), limit)
        for parked in expired:
            reason = f"for {days} days nobody has told whose this is ({parked.row['reason']})"
            unit.refused.append(Refused(_record_of(parked), reason))
            unit.count(parked.partition, "parked", -1)
        await store.release(unit.db, expired)
        return len(expired)

    def _note_swept(self, swept: list[int], arrived: Sequence[tuple[int, str]], limit: int, at: datetime) -> None:
        """A full page is not the end of a sweep: what stays (ambiguous) must not hide what comes after it."""
        self._sweep = (swept, arrived[-1]) if swept and len(arrived) >= limit else ([], NOWHERE)
        if len(arrived) < limit:
            self._swept_at.update(dict.fromkeys(swept, at))

    # -- out ------------------------------------------------------------------------------------

    def _forward(self, event: RawEvent, account_id: str, plan: Plan, unit: UnitOfWork) -> None:
        outputs = self._outputs.get(event.wire_type)
        if not outputs:
            unit.count(event.partition, "unrouted")
            return
        if account_id not in self._known_accounts and account_id not in plan.accounts:
            plan.accounts[account_id] = None
        if type(event.data) is inputs.AccountMerged:
            for account in told_of(event.data, unit.partitions):
                plan.accounts.setdefault(account, None)
                self._copy(event, account, outputs, unit)
        else:
            self._copy(event, account_id, outputs, unit)
        unit.count(event.partition, "routed")

    def _copy(self, event: RawEvent, account_id: str, outputs: tuple[str, ...], unit: UnitOfWork) -> None:
        key, to, subject = place_of(account_id, unit.partitions)
        headers = headers_of(event)
        headers.append(subject)
        record = Outgoing(outputs[0], to, key, event.value, headers, outputs[1:])
        unit.outbox.setdefault(event.partition, []).append(record)

    def _broadcast(self, event: RawEvent, unit: UnitOfWork) -> None:
        """What concerns no account in particular goes to every partition, about everybody."""
        outputs = self._outputs.get(event.wire_type, ())
        headers = [*headers_of(event), ("ce_subject", EVERYBODY.encode())]
        for topic in outputs:
            for partition in range(unit.partitions):
                unit.send(event.partition, Outgoing(topic, partition, EVERYBODY.encode(), event.value, headers))
        unit.count(event.partition, "routed" if outputs else "unrouted")

    def _pass_on_clock(self, event: RawEvent, unit: UnitOfWork) -> None:
        """To every partition of every domain, behind everything this partition has sent so far."""
        assert isinstance(event.data, inputs.ClockSet)
        self._tell_time(event.data, event, unit)
        unit.count(event.partition, "read", -1)

    def _tell_time(self, clock: inputs.ClockSet, event: RawEvent, unit: UnitOfWork) -> None:
        headers = event_headers(
            clock, id=f"{event.id}/{event.partition}", source=CLOCK_SOURCE, subject="clock", time=event.occurred_at,
            extra=[(ROUTER_PARTITION, str(event.partition).encode())],
        )  # fmt: skip
        value = clock.model_dump_json().encode()
        for topic in topics.ROUTED.values():
            for partition in range(unit.partitions):
                unit.send(event.partition, Outgoing(topic.name, partition, b"clock", value, headers))

    async def _begin_life(self, event: RawEvent, unit: UnitOfWork) -> None:
        """The first live event ends historical time for good."""
        if not await unit.db.fetchval(store.IS_LIVE) and await unit.db.fetchval(store.BEGIN_LIFE):
            self._tell_time(inputs.ClockSet(live=True), event, unit)
        unit.on_commit.append(self._lives)

    def _lives(self) -> None:
        self._live = True

    def _external(self, event: RawEvent) -> list[tuple[str, str]]:
        if event.data is None and b'"external_ids"' not in event.value and b'"email"' not in event.value:
            return []
        body = _anything(event.value)
        return domain.external_ids(body) if isinstance(body, dict) else []


def _record_of(parked: Parked) -> Record:
    row = parked.row
    received_ms, headers = int(row["broker_time"].timestamp() * 1000), unpack_headers(row["headers"])
    return Record(row["topic"], parked.partition, row["record_offset"], received_ms, None, row["value"], headers)


def _decides_merge(event: RawEvent) -> bool:
    data = event.data
    return type(data) is inputs.AccountMerged or (type(data) is inputs.RequestMade and data.demand == actions.MERGE)


def _entity(event: RawEvent, external: Sequence[tuple[str, str]]) -> str | None:
    """Who an event without an account is about: what waits, waits in this one's queue."""
    if event.user_id:
        return f"user:{event.user_id}"
    return f"{external[0][0]}:{external[0][1]}" if external else None
