"""What ops answers and which actions of a person it carries out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, get_args

from services.ops import segments, store, touch
from services.ops.revenue import Arr, group_arr
from services.ops.review import Known, Review
from services.ops.segments import Decision
from services.ops.settings import SegmentRules
from services.ops.store import Account
from services.ops.touch import Touch
from shared import requests, topics
from shared.events.ops import AccountAssigned
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork
from shared.team import Assignment, Role, Team, owner_at
from shared.times import instant

NOT_YET = {
    "ops.playbook": "playbooks do not run yet; ops.touchpoint says when an account is due and ops.segmentation how "
    "it is covered",
    "playbook.start": "playbooks do not run yet, so none can be started",
    "playbook.cancel": "playbooks do not run yet, so there is none to cancel",
    "task.complete": "tasks are not kept yet, so there is none to complete",
    "task.skip": "tasks are not kept yet, so there is none to skip",
}
WHOLE_BOOK = {
    "ops.segmentation": "ops.segmentation answers for one account: name account_id; for the whole book use "
    "`hune export segments`",
    "ops.touchpoint": "ops.touchpoint answers for one account: name account_id; for the whole book use "
    "`hune export touchpoints`",
    "account.assign": "account.assign needs an account: name account_id",
}
RECENT = 20
HISTORY = 12


class Answers:
    """Replies under one configuration."""

    def __init__(self, rules: SegmentRules, team: Team, digest: str, review: Review) -> None:
        self.rules, self.team, self.digest, self.review = rules, team, digest, review

    async def reply(self, asked: Sequence[Signal], unit: UnitOfWork) -> None:
        meant: list[tuple[Signal, str, datetime]] = []
        for signal in asked:
            demand = signal.demand or signal.data.demand or ""
            account_id = requests.account_of(signal)
            if demand not in WHOLE_BOOK:
                known = "it answers ops.segmentation and ops.touchpoint and carries out account.assign"
                unit.decline(signal, NOT_YET.get(demand) or f"ops does not know {demand!r}; {known}")
            elif account_id is None:
                unit.decline(signal, WHOLE_BOOK[demand])
            else:
                try:
                    at = requests.time(signal.data.parameters, "as_of") or unit.now(signal)
                    meant.append((signal, account_id, at))
                except requests.Unusable as error:
                    unit.decline(signal, str(error))
        for signal, account_id, at in meant:
            await self._reply_about(signal, account_id, at, unit)

    async def _reply_about(self, signal: Signal, account_id: str, at: datetime, unit: UnitOfWork) -> None:
        accounts = await store.load_accounts(unit.db, [(signal.partition, account_id)])
        account = accounts.get(account_id)
        demand = signal.demand or signal.data.demand
        if demand == "account.assign":
            await self._assign(signal, account or Account(account_id, signal.partition), unit)
        elif account is None:
            unit.decline(signal, f"ops knows nothing of account {account_id!r}: no revenue, owner or contact was told")
        elif demand == "ops.touchpoint":
            unit.answer(signal, await self._touchpoint(account, at, unit), at)
        else:
            unit.answer(signal, await self._segmentation(account, at, unit), at)

    async def _segmentation(self, account: Account, at: datetime, unit: UnitOfWork) -> dict[str, Any]:
        known = await self.review.load([account], {account.account_id: at}, unit)
        history = [one for one in known.histories.get(account.account_id, []) if one.decided_at <= at]
        last = history[-1] if history else None
        root = self.review.root(account, known, at)
        group = self.review.group(account, known, at)
        own = group[account.account_id]
        tier = self.rules.tier(last.tier) if last else None
        coverage, csm = self.review.cover(account.account_id, last.tier if last else None, known, at)
        owner = owner_at(self.review.assignments_of(account.account_id, known), "csm", at, self.team)
        return {
            "account_id": account.account_id,
            "segment": last.tier if last else None,
            "coverage": coverage,
            "csm": csm,
            "csm_reason": owner.reason,
            "reason": last.reason if last else _undecided(own, root.account_id == account.account_id),
            "effective_on": last.effective_on.isoformat() if last else None,
            "decided_at": instant(last.decided_at) if last else None,
            "next_decision_on": segments.next_quarter_start(at, self.rules).date().isoformat(),
            "ultimate_parent_id": root.account_id,
            "hierarchy_note": root.reason,
            "currency": self.rules.reporting_currency,
            "own_arr": _arr(own),
            "deciding_arr": self._deciding(root.account_id == account.account_id, group, last),
            "cadence_days": tier.cadence_days if tier else None,
            "answer_within_hours": tier.answer_within_hours if tier else None,
            "review": tier.review if tier else None,
            "history": [_line(one) for one in history[-HISTORY:]],
            "config_hash": self.digest,
        }

    def _deciding(self, is_root: bool, group: dict[str, Arr], last: Decision | None) -> dict[str, Any]:
        """The root's sum at the moment asked about; below it, what the root told with its last decision."""
        if is_root:
            return {**_arr(group_arr(group, self.rules)), "accounts": len(group)}
        if last is None:
            return {"amount": None, "source": None, "reason": "the ultimate parent has not decided yet"}
        amount = None if last.arr is None else format(last.arr, "f")
        return {"amount": amount, "source": None, "reason": f"as decided on {instant(last.decided_at)}"}

    async def _touchpoint(self, account: Account, at: datetime, unit: UnitOfWork) -> dict[str, Any]:
        account_id = account.account_id
        known = await self.review.load([account], {account_id: at}, unit)
        history = [one for one in known.histories.get(account_id, []) if one.decided_at <= at]
        tier = self.rules.tier(history[-1].tier) if history else None
        everything = (await store.load_all_touches(unit.db, [account_id], at)).get(account_id, [])
        counted = touch.two_way(everything, self.rules)
        last = touch.latest(everything, at, self.rules)
        due = touch.next_touch(last, tier, history[0].effective_on if history else None, self.rules)
        _, who = self.review.cover(account_id, tier.name if tier else None, known, at)
        today = at.astimezone(self.rules.zone).date()
        return {
            "account_id": account_id,
            "last_two_way": _contact(last) if last else None,
            "next_due_on": due.due_on.isoformat() if due.due_on else None,
            "days_late": max(0, (today - due.due_on).days) if due.due_on else None,
            "reason": due.reason,
            "segment": tier.name if tier else None,
            "cadence_days": tier.cadence_days if tier else None,
            "person_id": who,
            "two_way": len(counted),
            "one_way": sum(one.kind == "sent" for one in everything),
            "recent": [_contact(one) for one in reversed(counted[-RECENT:])],
            "config_hash": self.digest,
        }

    async def _assign(self, signal: Signal, account: Account, unit: UnitOfWork) -> None:
        """Give a role to somebody, or (parameter `segment`) approve a tier at once."""
        try:
            parameters = signal.data.parameters
            role = requests.text(parameters, "role", get_args(Role)) or "csm"
            person_id = requests.text(parameters, "person_id")
            segment = requests.text(parameters, "segment", [tier.name for tier in self.rules.tiers])
        except requests.Unusable as error:
            unit.decline(signal, str(error))
            return
        if person_id is not None and self.team.people and not self.team.knows(person_id):
            known = ", ".join(sorted([*(one.id for one in self.team.people), *(one.id for one in self.team.pools)]))
            unit.decline(signal, f"parameter person_id is {person_id!r}; team.yaml knows {known}")
            return
        if segment is None and "person_id" not in parameters:
            unit.decline(signal, "account.assign needs parameter person_id (null for the queue) or segment")
            return
        await store.save_awake(unit.db, {(account.partition, account.account_id)})
        known_now = await self.review.load([account], {account.account_id: unit.now(signal)}, unit)
        answer: dict[str, Any] = {"account_id": account.account_id}
        if "person_id" in parameters:
            answer |= await self._give(signal, account, role, person_id, known_now, unit)
        if segment is not None:
            answer |= await self._approve(signal, account, segment, known_now, unit)
        unit.answer(signal, answer, unit.now(signal))

    async def _give(
        self, signal: Signal, account: Account, role: str, person_id: str | None, known: Known, unit: UnitOfWork
    ) -> dict[str, Any]:
        held = self.review.assignments_of(account.account_id, known)
        before = owner_at(held, role, signal.occurred_at, self.team).assigned
        given = Assignment(account.account_id, role, person_id, signal.occurred_at, signal.id)
        await store.save_assignments(unit.db, [(account.partition, given)])
        known.assignments.setdefault(account.account_id, []).append(given)
        event = AccountAssigned(
            account_id=account.account_id,
            cause_ids=(signal.id,),
            occurred_at=signal.occurred_at,
            computed_at=unit.now(signal),
            role=role,
            previous=before,
            person_id=person_id,
            reason="asked for by account.assign",
        )
        unit.emit(
            topics.RESULTS["ops"], event, account_id=account.account_id, cause=signal.id, partition=account.partition
        )
        return {"role": role, "previous": before, "person_id": person_id}

    async def _approve(
        self, signal: Signal, account: Account, segment: str, known: Known, unit: UnitOfWork
    ) -> dict[str, Any]:
        now = unit.now(signal)
        history = known.histories.setdefault(account.account_id, [])
        root = self.review.root(account, known, now).account_id
        coverage, _ = self.review.cover(account.account_id, segment, known, now)
        arr = group_arr(self.review.group(account, known, now), self.rules)
        today = now.astimezone(self.rules.zone).date()
        decision = Decision(
            tier=segment, coverage=coverage, arr=arr.amount if root == account.account_id else None,
            reason=f"approved by request {signal.id}", effective_on=today,
            period=segments.quarter_start(now, self.rules).date(), cut_at=now, decided_at=now, kind="approved",
            root_id=root, revision=1,
        )  # fmt: skip
        decision = replace(decision, revision=history[-1].revision + 1 if history else 1)
        row = (await store.load_accounts(unit.db, [(account.partition, account.account_id)]))[account.account_id]
        self.review.record(row, decision, known, unit, cause=signal.id, now=now)
        await store.save_decisions(unit.db, known.decided)
        await store.save_accounts(unit.db, [row])
        await store.save_awake(unit.db, {(account.partition, account.account_id)})
        return {"segment": segment, "coverage": coverage, "effective_on": today.isoformat()}


def _arr(arr: Arr) -> dict[str, Any]:
    amount = None if arr.amount is None else format(arr.amount, "f")
    return {"amount": amount, "source": arr.source, "reason": arr.reason}


def _line(one: Decision) -> dict[str, Any]:
    return {
        "segment": one.tier, "coverage": one.coverage, "effective_on": one.effective_on.isoformat(),
        "decided_at": instant(one.decided_at), "kind": one.kind, "reason": one.reason,
    }  # fmt: skip


def _contact(one: Touch) -> dict[str, Any]:
    return {
        "at": instant(one.at), "kind": "reply" if one.kind == "received" else one.kind, "channel": one.channel,
        "person_id": one.person_id, "contact_id": one.contact_id, "event_id": one.event_id,
    }  # fmt: skip


def _undecided(own: Arr, is_root: bool) -> str:
    if not is_root:
        return "waits for the decision about its ultimate parent"
    return own.reason if own.amount is None else "not decided yet: the next tick does"
