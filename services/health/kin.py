"""What accounts tell their parents of themselves, and what a parent's score becomes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.health import families, shares, store
from services.health.domain import Policy
from services.health.families import FamilyScore, Member
from services.health.settings import Family
from services.health.store import Child, Kin
from shared import topics
from shared.events import results
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork

INTERNAL, RESULTS = topics.INTERNAL["health"], topics.RESULTS["health"]


Heard = Sequence[Signal]


@dataclass(frozen=True, slots=True)
class Own:
    """An account as it was told last: what it brings of its own, and whose child it is."""

    member: Member
    partition: int
    parent_id: str | None
    at: datetime
    baseline: bool


@dataclass(slots=True)
class Turn:
    """What one account's turn came to: in what light, and because of whom."""

    at: datetime
    baseline: bool
    causes: tuple[str, ...] = ()


async def follow(own: Sequence[Own], heard: Sequence[Signal], unit: UnitOfWork, policy: Policy) -> None:
    """Take in what members have become, tell of parents whose score moved, and pass it on to theirs."""
    rule = policy.model.family
    if rule is None:
        for signal in heard:
            unit.ignore(signal, "no score of families is configured any more")
        return
    places = {one.member.account_id: one.partition for one in own}
    places |= {signal.account_id: signal.partition for signal in heard}
    if not places:
        return
    known = await store.load_kin(unit.db, places)
    turns: dict[str, Turn] = {}
    for one in own:
        kin = known[one.member.account_id]
        if one.parent_id or kin.parent_id or kin.children or kin.had_relatives:
            _become(kin, one, rule, unit, policy)
            turns[kin.account_id] = Turn(one.at, one.baseline)
    for signal in heard:
        kin, data = known[signal.account_id], signal.data
        if _hear(kin, signal, rule, unit, policy):
            at = unit.clock(signal.partition) or signal.received_at
            turns[kin.account_id] = Turn(at, data.baseline, (signal.id,))
    for account_id, turn in turns.items():
        _tell(known[account_id], turn, rule, unit, policy)
    changed = [known[account_id] for account_id in turns]
    if changed:
        await store.save_kin(unit.db, changed)


async def hand_over(
    places: Mapping[str, int], targets: Mapping[str, str], since: Mapping[str, datetime], unit: UnitOfWork
) -> None:
    """Merged accounts leave their parents, and their children become those of the accounts that they became."""
    known = await store.load_kin(unit.db, places)
    there = [known[name] for name in sorted(places) if known[name].had_relatives]
    for kin in there:
        at = since[kin.account_id]
        if kin.parent_id:
            _send(kin, kin.parent_id, at, unit, left=True, baseline=True)
        for name, child in sorted(kin.children.items()):
            said = child.member
            event = results.ChildScored(
                child_id=name, points=said.points, band=said.band, arr=said.arr, below=child.below, baseline=True
            )
            kin.turn += 1
            unit.emit(
                INTERNAL, event, account_id=targets[kin.account_id], cause=f"{kin.account_id}:{kin.turn}",
                kind="health.child_scored", occurred_at=at, partition=kin.partition,
            )  # fmt: skip
        kin.parent_id, kin.children = None, {}
    if there:
        await store.save_kin(unit.db, there)


def _become(kin: Kin, own: Own, rule: Family, unit: UnitOfWork, policy: Policy) -> None:
    """An account's own score, ARR or parent is another."""
    before = _score(kin, rule, policy)
    kin.own = own.member
    _credit(kin, kin.account_id, before, _score(kin, rule, policy))
    parent_id = None if own.parent_id == kin.account_id else own.parent_id
    if kin.parent_id and kin.parent_id != parent_id:
        _send(kin, kin.parent_id, own.at, unit, left=True, baseline=own.baseline)
    if kin.parent_id != parent_id:
        kin.parent_id, kin.sent = parent_id, None


def _hear(kin: Kin, signal: Signal, rule: Family, unit: UnitOfWork, policy: Policy) -> bool:
    """What a child says of itself; False where it cannot be a child."""
    said = signal.data
    before = _score(kin, rule, policy)
    looping = said.child_id == kin.account_id or kin.account_id in said.below
    if said.left or looping:
        kin.children.pop(said.child_id, None)
    else:
        member = Member(said.child_id, said.points, said.band, said.arr)
        kin.children[said.child_id] = Child(member, said.below)
    _credit(kin, said.child_id, before, _score(kin, rule, policy))
    if looping:
        unit.ignore(signal, "an account below its own child: parents in a ring count for nobody")
    return True


def _score(kin: Kin, rule: Family, policy: Policy) -> FamilyScore | None:
    """None: it has no children, so no family's score."""
    if not kin.children:
        return None
    children = [kin.children[name].member for name in sorted(kin.children)]
    return families.score_of(kin.own, children, rule, policy.model.bands)


def _credit(kin: Kin, member: str, before: FamilyScore | None, after: FamilyScore | None) -> None:
    """Remember by how much a member moved the exact score since it was told."""
    if after is None or after.points is None or before is None or before.points is None:
        kin.pending = {}
    elif after.points != before.points:
        kin.pending[member] = kin.pending.get(member, 0.0) + after.points - before.points


def _tell(kin: Kin, turn: Turn, rule: Family, unit: UnitOfWork, policy: Policy) -> None:
    score = _score(kin, rule, policy)
    points = None if score is None else score.points
    if score is not None and (score.score, score.band) != (kin.told_score, kin.told_band):
        _emit(kin, score, turn, rule, unit, policy)
    elif score is None and kin.told_band is not None:
        gone = FamilyScore(None, "unknown", 0, 0, "it has no children any more")
        _emit(kin, gone, turn, rule, unit, policy)
        kin.told_score = kin.told_band = None
    kin.exact = points
    if kin.parent_id:
        _send(kin, kin.parent_id, turn.at, unit, baseline=turn.baseline, score=score)


def _emit(kin: Kin, score: FamilyScore, turn: Turn, rule: Family, unit: UnitOfWork, policy: Policy) -> None:
    told = {name: points for name, points in kin.pending.items() if points}
    change = None if kin.told_exact is None or score.points is None else score.points - kin.told_exact
    if change is None:
        told = {}
    elif told:  # rounding to the largest
        largest = max(told, key=lambda name: abs(told[name]))
        told[largest] += change - math.fsum(told.values())
    kin.turn += 1
    event = results.FamilyScoreChanged(
        account_id=kin.account_id,
        cause_ids=turn.causes,
        occurred_at=turn.at,
        computed_at=turn.at,
        config_hash=policy.digest,
        previous_score=kin.told_score,
        previous_band=kin.told_band,
        score=score.score,
        band=score.band,
        exact=score.points,
        by=rule.by,
        members=score.members,
        scored=score.scored,
        reason=score.reason,
        shares=tuple(
            results.ShareOfChange(cause=name, points=points, kind="member")
            for name, points in shares.largest_first(told)
        ),
        baseline=turn.baseline,
    )
    unit.emit(
        RESULTS, event, account_id=kin.account_id, cause=f"{kin.account_id}:{kin.turn}", partition=kin.partition
    )  # fmt: skip
    kin.told_score, kin.told_band, kin.told_exact, kin.pending = score.score, score.band, score.points, {}


def _send(
    kin: Kin, parent_id: str, at: datetime, unit: UnitOfWork, *, baseline: bool, left: bool = False,
    score: FamilyScore | None = None,
) -> None:  # fmt: skip
    """Tell a parent what its child has become, if that is news; a family's score stands for its parent."""
    members = [kin.own, *(child.member for child in kin.children.values())]
    below = sorted({*kin.children, *(name for child in kin.children.values() for name in child.below)})
    event = results.ChildScored(
        child_id=kin.account_id,
        points=kin.own.points if score is None else score.points,
        band=kin.own.band if score is None else score.band,
        arr=families.total_arr(members),
        below=tuple(below),
        baseline=baseline,
        left=left,
    )
    said = event.model_dump_json(exclude={"baseline"})
    if said == kin.sent and not left:
        return
    kin.turn += 1
    kin.sent = None if left else said
    unit.emit(
        INTERNAL, event, account_id=parent_id, cause=f"{kin.account_id}:{kin.turn}",
        kind="health.child_scored", occurred_at=at, partition=kin.partition,
    )  # fmt: skip
