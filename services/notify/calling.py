"""What a batch says of people at customers, and which messages to them it calls for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from services.notify import outreach, outreach_store, store
from services.notify.outreach_store import NewRow, Told
from services.notify.settings import Notify, Outreach, reached_by
from shared import privacy
from shared.ids import derived_id
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork

CALLING = ("touchpoint.due", "alert.opened", "account.segmented")


class Known(msgspec.Struct, frozen=True):
    """As much of a contact as says whom to write to."""

    contact_id: str
    user_id: str | None = None
    role: str | None = None
    status: str | None = None


class Calls:
    """One batch's. What a run or a replay tells, or what is known from the start, calls for nothing."""

    def __init__(self, rules: Mapping[str, Outreach]) -> None:
        self._rules = rules
        self._events = {one.when.event for one in rules.values()}
        self._people: list[Told] = []
        self._privacy: list[Signal] = []
        self._calling: list[Signal] = []

    @classmethod
    def of(cls, rules: Notify) -> Calls:
        return cls(rules.outreach)

    def hear(self, signal: Signal, unit: UnitOfWork) -> bool:
        """Keep what concerns messages to people; False: nothing does."""
        if signal.type == "contact.changed":
            self._people.append(_told(signal))
        elif signal.type == "privacy.recorded":
            self._privacy.append(signal)
        elif signal.type in self._events and not unit.quiet(signal):
            self._calling.append(signal)
        else:
            return False
        return True

    @property
    def accounts_of_people(self) -> set[str]:
        return {one.account_id for one in self._people}

    async def save(self, unit: UnitOfWork) -> None:
        await outreach_store.save_people(unit.db, self._people)
        hushed = [(one.data.person, one.data.suppressed, one.occurred_at) for one in self._privacy]
        await outreach_store.hush(unit.db, hushed)
        for signal in self._privacy:
            if signal.data.erased_to is not None:
                alias = privacy.alias_of(next(iter(signal.data.cause_ids), signal.id))
                await outreach_store.forget(unit.db, signal.data.person, alias)
        if self._calling:
            accounts = await store.load_accounts(unit.db, {signal.account_id for signal in self._calling})
            rows = [
                _row(name, rules, signal)
                for signal in self._calling
                for name, rules in self._rules.items()
                if outreach.calls(rules.when, signal.type, signal.data, accounts[signal.account_id])
            ]
            await outreach_store.add(unit.db, rows)


def _told(signal: Signal) -> Told:
    data: Any = signal.data
    return Told(
        account_id=signal.account_id,
        contact_id=outreach.own_id(signal.source, data.contact_id),
        partition=signal.partition,
        at=signal.occurred_at,
        user_id=data.user_id,
        role=data.role,
        role_at=signal.occurred_at if data.role is not None else None,
        status=data.status,
        status_at=signal.occurred_at if data.status is not None else None,
    )


def _row(name: str, rules: Outreach, signal: Signal) -> NewRow:
    """An episode of an alert calls once, any other event by itself."""
    destination, alert_id = reached_by(name), getattr(signal.data, "alert_id", None)
    return (
        derived_id("notify", destination, alert_id or signal.id), destination, signal.type, alert_id, signal.account_id,
        signal.partition, outreach.facts(signal.type, signal.data), signal.data.computed_at,
        timedelta(seconds=rules.wait_seconds),
    )  # fmt: skip
