"""The decisions: load → decide → save → emit, for accounts whose time has come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.ops import segments, store, touch
from services.ops.revenue import (
    Arr,
    RateStatement,
    RevenueStatement,
    Root,
    arr_at,
    group_arr,
    groups,
    parents_at,
    rates_at,
    root_of,
)
from services.ops.segments import Decision
from services.ops.settings import SegmentRules
from services.ops.store import Account, Family, Place
from services.ops.touch import Touch
from shared import topics
from shared.events.ops import AccountSegmented, Coverage, GroupSegmented, TouchpointDue
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork
from shared.team import Assignment, Team, written

RESULTS, INTERNAL = topics.RESULTS["ops"], topics.INTERNAL["ops"]


@dataclass(slots=True)
class Known:
    """Everything that the decisions about some accounts rest on."""

    family: Family
    revenue: dict[Place, list[RevenueStatement]]
    rates: dict[int, list[RateStatement]]
    histories: dict[str, list[Decision]]
    assignments: dict[str, list[Assignment]]
    traits: dict[str, dict[str, str | None]]
    touches: dict[str, list[Touch]]
    decided: list[tuple[int, str, Decision]] = field(default_factory=list)


class Review:
    """Decides under one configuration."""

    def __init__(self, rules: SegmentRules, team: Team, digest: str) -> None:
        self.rules, self.team, self.digest = rules, team, digest
        self._written = written(team)

    async def run(self, due: Mapping[str, Account], clocks: Mapping[int, datetime], unit: UnitOfWork) -> None:
        """Decide tiers and coverage, tell the accounts below, remind of contacts, and set when to look again."""
        known = await self.load(due.values(), {a.account_id: clocks[a.partition] for a in due.values()}, unit)
        for account_id in sorted(due):
            account = due[account_id]
            self._look_at(account, known, clocks[account.partition], unit)
        await store.save_decisions(unit.db, known.decided)
        await store.save_accounts(unit.db, due.values())

    async def take_over(self, signals: Sequence[Signal], unit: UnitOfWork) -> None:
        """Accounts below a parent take the tier that was decided for their group."""
        places = {(signal.partition, signal.account_id) for signal in signals}
        accounts = await store.load_accounts(unit.db, places)
        at = {signal.account_id: unit.now(signal) for signal in signals}
        known = await self.load(accounts.values(), at, unit)
        for signal in signals:
            account = accounts.get(signal.account_id)
            if account is None or not self._has_a_parent(account, known, unit.now(signal)):
                unit.ignore(signal, "the account left the group")
                continue
            given = _given(signal)
            coverage, _ = self.cover(account.account_id, given.tier, known, unit.now(signal))
            decision = segments.adopt(known.histories.setdefault(account.account_id, []), given, coverage)
            if decision is None:
                unit.ignore(signal, "changes nothing for the account")
                continue
            self.record(account, decision, known, unit, cause=signal.id, now=unit.now(signal))
        await store.save_decisions(unit.db, known.decided)
        await store.save_accounts(unit.db, accounts.values())
        await store.save_awake(unit.db, {(a.partition, a.account_id) for a in accounts.values()})

    async def load(self, accounts: Iterable[Account], at: Mapping[str, datetime], unit: UnitOfWork) -> Known:
        accounts = list(accounts)
        places = {(account.partition, account.account_id) for account in accounts}
        family = await store.load_family(unit.db, places)
        partitions = {partition for partition, _ in places}
        groups_too = {(partition, name) for partition in partitions for name in family.accounts(partition)}
        ids = [account.account_id for account in accounts]
        return Known(
            family,
            await store.load_revenue(unit.db, places | groups_too),
            await store.load_rates(unit.db, partitions),
            await store.load_decisions(unit.db, ids),
            await store.load_assignments(unit.db, ids),
            await store.load_traits(unit.db, {id: at[id] for id in ids}),
            await store.load_touches(unit.db, {id: at[id] for id in ids}, self.rules.reply_window_days),
        )

    def assignments_of(self, account_id: str, known: Known) -> list[Assignment]:
        return [*self._written.get(account_id, ()), *known.assignments.get(account_id, ())]

    def cover(self, account_id: str, tier: str | None, known: Known, at: datetime) -> tuple[Coverage, str | None]:
        traits = known.traits.get(account_id, {})
        return segments.cover(
            tier, self.assignments_of(account_id, known), at, self.team, self.rules,
            traits.get("language"), traits.get("product"),
        )  # fmt: skip

    def root(self, account: Account, known: Known, at: datetime) -> Root:
        return root_of(account.account_id, parents_at(known.family.of(account.partition), at))

    def members(self, account: Account, known: Known, at: datetime) -> list[str]:
        """The account and everybody below it at a moment."""
        statements = known.family.of(account.partition)
        if not statements:
            return [account.account_id]
        everybody = {account.account_id, *known.family.accounts(account.partition)}
        return groups(everybody, parents_at(statements, at)).get(account.account_id, [account.account_id])

    def group(self, account: Account, known: Known, at: datetime) -> dict[str, Arr]:
        """The ARR of the account and of everybody below it at a moment, as told to its partition."""
        rates = rates_at(known.rates.get(account.partition, ()), at, self.rules)
        return {
            name: arr_at(known.revenue.get((account.partition, name), ()), at, rates, self.rules)
            for name in self.members(account, known, at)
        }

    def record(
        self, account: Account, decision: Decision, known: Known, unit: UnitOfWork, *, cause: str, now: datetime
    ) -> None:
        """Keep a decision, and publish it if it changed the tier or the coverage."""
        history = known.histories.setdefault(account.account_id, [])
        before = history[-1] if history else None
        history.append(decision)
        known.decided.append((account.partition, account.account_id, decision))
        if before is not None and (before.tier, before.coverage) == (decision.tier, decision.coverage):
            return
        _, csm = self.cover(account.account_id, decision.tier, known, now)
        account.emitted += 1
        event = AccountSegmented(
            account_id=account.account_id,
            cause_ids=(cause,),
            occurred_at=self._takes_effect(before, decision),
            computed_at=now,
            config_hash=self.digest,
            revision=decision.revision,
            previous=before.tier if before else None,
            segment=decision.tier,
            previous_coverage=before.coverage if before else None,
            coverage=decision.coverage,
            ultimate_parent_id=decision.root_id,
            arr=decision.arr,
            currency=self.rules.reporting_currency,
            effective_on=decision.effective_on,
            csm=csm,
            reason=decision.reason,
            baseline=not unit.is_live(account.partition),
        )
        unit.emit(
            RESULTS, event, account_id=account.account_id, cause=cause, ordinal=account.emitted,
            partition=account.partition,
        )  # fmt: skip

    def _look_at(self, account: Account, known: Known, at: datetime, unit: UnitOfWork) -> None:
        cause = f"{account.account_id}@{at.isoformat()}"
        root = self.root(account, known, at)
        if root.account_id == account.account_id:
            told = self._decide(account, root, known, at, unit, cause)
            self._tell_members(account, known, at, unit, cause, anew=told)
        self._check_coverage(account, known, at, unit, cause)
        reminder = self._remind(account, known, at, unit, cause)
        quarter = segments.next_quarter_start(at, self.rules)
        account.next_due_at = min(quarter, reminder) if reminder else quarter

    def _decide(self, account: Account, root: Root, known: Known, at: datetime, unit: UnitOfWork, cause: str) -> bool:
        history = known.histories.setdefault(account.account_id, [])
        cut = segments.cut_for(history, at, self.rules)
        arr = group_arr(self.group(account, known, cut), self.rules)
        decision = segments.decide(history, arr, at, account.account_id, "queue", self.rules)
        if decision is None:
            return False
        coverage, _ = self.cover(account.account_id, decision.tier, known, at)
        reason = f"{decision.reason}; {root.reason}" if root.reason else decision.reason
        self.record(account, replace(decision, coverage=coverage, reason=reason), known, unit, cause=cause, now=at)
        return True

    def _tell_members(
        self, account: Account, known: Known, at: datetime, unit: UnitOfWork, cause: str, *, anew: bool
    ) -> None:
        history = known.histories.get(account.account_id)
        members = [name for name in self.members(account, known, at) if name != account.account_id]
        if not history or not (members or account.members):
            return
        standing = history[-1]
        for member in members if anew else sorted(set(members) - set(account.members)):
            event = GroupSegmented(
                root_id=account.account_id,
                tier=standing.tier,
                arr=standing.arr,
                reason=f"as its ultimate parent {account.account_id}: {standing.reason}",
                effective_on=standing.effective_on,
                period=standing.period,
                cut_at=standing.cut_at,
                decided_at=standing.decided_at,
                revision=standing.revision,
            )
            unit.emit(
                INTERNAL, event, account_id=member, cause=f"{cause}#{standing.revision}", occurred_at=at,
                partition=account.partition,
            )  # fmt: skip
        account.members = members

    def _check_coverage(self, account: Account, known: Known, at: datetime, unit: UnitOfWork, cause: str) -> None:
        history = known.histories.get(account.account_id)
        if not history:
            return
        last = history[-1]
        coverage, who = self.cover(account.account_id, last.tier, known, at)
        if coverage == last.coverage:
            return
        decision = replace(
            last, coverage=coverage, kind="coverage", decided_at=at, revision=last.revision + 1,
            reason=f"now {coverage}" + (f" ({who})" if who else "") + f"; {last.tier}: {last.reason}",
        )  # fmt: skip
        self.record(account, decision, known, unit, cause=cause, now=at)

    def _remind(self, account: Account, known: Known, at: datetime, unit: UnitOfWork, cause: str) -> datetime | None:
        """Say once that a contact is due; the moment to look again if it is not yet."""
        history = known.histories.get(account.account_id)
        if not history:
            return None
        tier = self.rules.tier(history[-1].tier)
        last = touch.latest(known.touches.get(account.account_id, ()), at, self.rules)
        due = touch.next_touch(last, tier, history[0].effective_on, self.rules)
        if due.due_on is None or tier is None or tier.cadence_days is None:
            return None
        today = at.astimezone(self.rules.zone).date()
        if today < due.due_on:
            return segments.first_instant(due.due_on, self.rules)
        if account.reminded_on == due.due_on:
            return None
        account.reminded_on = due.due_on
        account.emitted += 1
        _, who = self.cover(account.account_id, tier.name, known, at)
        event = TouchpointDue(
            account_id=account.account_id,
            cause_ids=(last.event_id,) if last else (),
            occurred_at=at,
            computed_at=at,
            config_hash=self.digest,
            segment=tier.name,
            cadence_days=tier.cadence_days,
            due_on=due.due_on,
            days_late=(today - due.due_on).days,
            last_two_way_at=last.at if last else None,
            last_person_id=last.person_id if last else None,
            last_channel=last.channel if last else None,
            person_id=who,
            reason=due.reason,
            baseline=not unit.is_live(account.partition),
        )
        unit.emit(
            RESULTS, event, account_id=account.account_id, cause=cause, ordinal=account.emitted,
            partition=account.partition,
        )  # fmt: skip
        return None

    def _has_a_parent(self, account: Account, known: Known, at: datetime) -> bool:
        return parents_at(known.family.of(account.partition), at).get(account.account_id) is not None

    def _takes_effect(self, before: Decision | None, decision: Decision) -> datetime:
        """A new quarter's tier from its first instant on; anything else when it was decided."""
        if before is not None and before.period < decision.period == decision.effective_on:
            return segments.first_instant(decision.effective_on, self.rules)
        return decision.decided_at


def _given(signal: Signal) -> Decision:
    data = signal.data
    return Decision(
        tier=data.tier, coverage="queue", arr=data.arr, reason=data.reason, effective_on=data.effective_on,
        period=data.period, cut_at=data.cut_at, decided_at=data.decided_at, kind="group", root_id=data.root_id,
        revision=data.revision,
    )  # fmt: skip
