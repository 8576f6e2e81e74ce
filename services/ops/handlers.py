"""Ops: learn facts as they come, decide at ticks, answer what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.ops import answers, relatives, store
from services.ops.revenue import MONTHS, ParentStatement, RateStatement, RevenueStatement
from services.ops.review import Review
from services.ops.settings import SegmentRules
from services.ops.store import Place
from services.ops.touch import Touch
from shared import privacy
from shared.config import Loaded
from shared.runtime.api import Batch, Signal
from shared.runtime.unit import UnitOfWork
from shared.team import Assignment, Team

NO_USE = "says nothing about revenue, owners or contacts"


@dataclass(slots=True)
class Inbox:
    """A batch by what is to be done with it; facts carry the partition they were heard in."""

    revenue: list[tuple[int, RevenueStatement, bool]] = field(default_factory=list)
    parents: list[tuple[Signal, ParentStatement]] = field(default_factory=list)
    told_parents: list[tuple[Signal, ParentStatement]] = field(default_factory=list)
    rates: list[tuple[Signal, RateStatement]] = field(default_factory=list)
    assignments: list[tuple[int, Assignment]] = field(default_factory=list)
    touches: list[tuple[int, Touch]] = field(default_factory=list)
    traits: list[tuple[str, str, str | None, datetime, str, int]] = field(default_factory=list)
    groups: list[Signal] = field(default_factory=list)
    asked: list[Signal] = field(default_factory=list)
    awake: set[Place] = field(default_factory=set)
    privacy: list[Signal] = field(default_factory=list)


class Ops:
    """The handlers under one configuration."""

    def __init__(self, rules: Loaded[SegmentRules], team: Loaded[Team]) -> None:
        self.rules, self.team = rules.model, team.model
        self.review = Review(rules.model, team.model, rules.digest)
        self.digest = rules.digest

    async def on_signals(self, batch: Batch, unit: UnitOfWork) -> None:
        inbox = Inbox()
        for signal in batch:
            if not self._sort(signal, inbox):
                unit.ignore(signal, NO_USE)
        await self._save(inbox, unit)
        await relatives.tell(inbox.revenue, inbox.parents, inbox.told_parents, inbox.rates, unit)
        if inbox.groups:
            await self.review.take_over(inbox.groups, unit)
        if inbox.asked:
            await answers.Answers(self.rules, self.team, self.digest, self.review).reply(inbox.asked, unit)
        await privacy.erase(unit, inbox.privacy, store.ERASE)

    async def tick(self, clocks: Mapping[int, datetime], limit: int, unit: UnitOfWork) -> int:
        """Decide and remind for the accounts whose time has come."""
        due = await store.list_due(unit.db, clocks, limit)
        if due:
            await self.review.run(due, clocks, unit)
        return len(due)

    async def _save(self, inbox: Inbox, unit: UnitOfWork) -> None:
        if inbox.revenue:
            await store.save_revenue(unit.db, inbox.revenue)
        links = [(signal.partition, one) for signal, one in (*inbox.parents, *inbox.told_parents)]
        if links:
            await store.save_parents(unit.db, links)
        if inbox.rates:
            await store.save_rates(unit.db, [(signal.partition, one) for signal, one in inbox.rates])
            await store.wake_all(unit.db, {signal.partition for signal, _ in inbox.rates})
        if inbox.assignments:
            await store.save_assignments(unit.db, inbox.assignments)
        if inbox.touches:
            await store.save_touches(unit.db, inbox.touches)
        if inbox.traits:
            await store.save_traits(unit.db, inbox.traits)
        if inbox.awake:
            await store.save_awake(unit.db, inbox.awake)

    def _sort(self, signal: Signal, inbox: Inbox) -> bool:
        """Put the signal where it belongs; False when it says nothing here."""
        here = (signal.partition, signal.account_id)
        match signal.type:
            case "account.updated":
                used = _account(signal, inbox)
            case "contract.changed" | "subscription.changed":
                inbox.revenue.append((signal.partition, _revenue(signal), True))
                used = True
            case "csm.changed":
                data = signal.data
                one = Assignment(signal.account_id, data.role, data.person_id, signal.occurred_at, signal.id)
                inbox.assignments.append((signal.partition, one))
                used = True
            case "touchpoint.logged" | "meeting.held" | "call.held" | "message.sent" | "message.received":
                touch = _touch(signal)
                if touch is not None:
                    inbox.touches.append((signal.partition, touch))
                used = touch is not None
            case _:
                return self._sort_rest(signal, inbox)
        if used:
            inbox.awake.add(here)
        return used

    def _sort_rest(self, signal: Signal, inbox: Inbox) -> bool:
        """What comes from no account: rates, other partitions, requests."""
        data: Any = signal.data
        match signal.type:
            case "fx.rate":
                rate = RateStatement(data.currency, data.year, data.rate, signal.occurred_at, signal.id)
                inbox.rates.append((signal, rate))
            case "ops.rate_stated":
                rate = RateStatement(data.currency, data.year, data.rate, data.stated_at, data.event_id)
                inbox.rates.append((signal, rate))
            case "ops.parent_stated":
                link = ParentStatement(signal.account_id, data.parent_id, data.stated_at, data.event_id)
                inbox.told_parents.append((signal, link))
            case "ops.revenue_stated":
                inbox.revenue.append((signal.partition, _childs_revenue(data), False))
                inbox.awake.add((signal.partition, signal.account_id))
            case "ops.group_segmented":
                inbox.groups.append(signal)
            case "request.made":
                inbox.asked.append(signal)
            case privacy.REQUESTED:
                inbox.privacy.append(signal)
            case _:
                return False
        return True


def _account(signal: Signal, inbox: Inbox) -> bool:
    """An absent field says nothing, an explicit null clears it."""
    data, said = signal.data, signal.data.model_fields_set
    at, id, partition = signal.occurred_at, signal.id, signal.partition
    if "arr" in said:
        one = RevenueStatement(
            signal.account_id, "account", "", at, id, states_amount=True, amount=data.arr, currency=data.currency
        )
        inbox.revenue.append((partition, one, True))
    elif data.currency is not None:
        stated = RevenueStatement(signal.account_id, "account", "", at, id, False, currency=data.currency)
        inbox.revenue.append((partition, stated, True))
    if "parent_id" in said:
        inbox.parents.append((signal, ParentStatement(signal.account_id, data.parent_id, at, id)))
    for name in ("language", "product"):
        if name in said:
            inbox.traits.append((signal.account_id, name, getattr(data, name), at, id, partition))
    return bool(said & {"arr", "currency", "parent_id", "language", "product"})


def _revenue(signal: Signal) -> RevenueStatement:
    data = signal.data
    if signal.type == "subscription.changed":
        return RevenueStatement(
            signal.account_id, "subscription", data.subscription_id or "", signal.occurred_at, signal.id,
            states_amount=True, amount=data.mrr * Decimal(MONTHS), currency=data.currency,
        )  # fmt: skip
    return RevenueStatement(
        signal.account_id, "contract", data.contract_id or "", signal.occurred_at, signal.id,
        states_amount="arr" in data.model_fields_set, amount=data.arr, currency=data.currency,
        starts_on=data.starts_on, ends_on=data.ends_on, auto_renew=data.auto_renew,
    )  # fmt: skip


def _childs_revenue(data: Any) -> RevenueStatement:
    return RevenueStatement(
        data.child_id, data.kind, data.ref, data.stated_at, data.event_id, data.states_amount, data.amount,
        data.currency, data.starts_on, data.ends_on, data.auto_renew,
    )  # fmt: skip


def _touch(signal: Signal) -> Touch | None:
    """None for a contact that a person wrote down as one-way."""
    data = signal.data
    at, id = signal.occurred_at, signal.id
    match signal.type:
        case "touchpoint.logged":
            if not data.two_way:
                return None
            ref = data.touchpoint_id or signal.id
            return Touch(signal.account_id, "touchpoint", ref, at, id, data.channel, data.person_id)
        case "meeting.held":
            return Touch(signal.account_id, "meeting", data.meeting_id, at, id, "meeting", data.person_id)
        case "call.held":
            return Touch(signal.account_id, "call", data.call_id, at, id, "call", data.person_id)
    kind = "sent" if signal.type == "message.sent" else "received"
    channel = data.channel or "email"
    return Touch(signal.account_id, kind, data.message_id, at, id, channel, data.person_id, data.contact_id)
