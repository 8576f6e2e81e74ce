"""Scores of accounts that have children: how they follow from the children's and their own."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from services.health.scoring import Band, band_of
from services.health.settings import Bands, Family


@dataclass(frozen=True, slots=True)
class Member:
    """What one account brings into its parent's score; `points` None: it has no score."""

    account_id: str
    points: float | None
    band: Band
    arr: Decimal | None


@dataclass(frozen=True, slots=True)
class FamilyScore:
    """0 to 100, 100 = healthy; None with a reason. `members` count, `scored` have a say."""

    points: float | None
    band: Band
    members: int
    scored: int
    reason: str | None = None

    @property
    def score(self) -> int | None:
        return None if self.points is None else math.floor(self.points + 0.5)


def score_of(own: Member, children: Collection[Member], rule: Family, bands: Bands) -> FamilyScore:
    """The score of a parent: of its children, and of its own as the rule says."""
    counted = list(children)
    alone = not any(child.points is not None for child in children)
    if rule.own == "as_a_child" or (rule.own == "when_alone" and alone):
        counted.append(own)
    scored = [one for one in counted if one.points is not None]
    points, reason = _rolled_up(scored, rule)
    band: Band = "unknown" if points is None else band_of(math.floor(points + 0.5), bands)
    return FamilyScore(points, band, len(counted), len(scored), reason)


def _rolled_up(scored: list[Member], rule: Family) -> tuple[float | None, str | None]:
    if not scored:
        return None, "no member has a score"
    points = [(one.points or 0.0, one) for one in scored]
    match rule.by:
        case "worst":
            return min(value for value, _ in points), None
        case "share_in_band":
            return 100.0 * sum(one.band == rule.band for one in scored) / len(scored), None
        case "arr_weighted":
            weighed = [(float(one.arr), value) for value, one in points if one.arr]
            if not weighed:
                return None, "no scored member has an ARR to weigh by"
            return math.fsum(w * v for w, v in weighed) / math.fsum(w for w, _ in weighed), None
    return math.fsum(value for value, _ in points) / len(points), None


def in_cycles(parents: Mapping[str, str]) -> frozenset[str]:
    """Accounts that are their own ancestors."""
    found: set[str] = set()
    done: set[str] = set()
    for start in parents:
        path: list[str] = []
        seen: set[str] = set()
        one: str | None = start
        while one is not None and one not in done and one not in seen:
            path.append(one)
            seen.add(one)
            one = parents.get(one)
        if one is not None and one in seen:
            found.update(path[path.index(one) :])
        done.update(path)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Standing:
    """A parent with its score, its children, and the ARR of all below it and its own."""

    account_id: str
    parent_id: str | None
    own: Member
    children: tuple[str, ...]
    score: FamilyScore
    arr: Decimal | None
    in_cycle: bool = False


def standings(accounts: Collection[tuple[Member, str | None]], rule: Family, bands: Bands) -> list[Standing]:
    """Every account that has children, in the order of ids; in a tree a child's family score stands for it.

    A link that belongs to a cycle counts for nobody: those accounts are told apart.
    """
    known = {member.account_id: member for member, _ in accounts}
    parents = {member.account_id: parent for member, parent in accounts if parent}
    looping = in_cycles(parents)
    below: dict[str, list[str]] = {}
    for child, parent in parents.items():
        if child not in looping:
            below.setdefault(parent, []).append(child)
    made: dict[str, tuple[Member, FamilyScore | None]] = {}
    for account_id in _children_first(below, known):
        own = known.get(account_id) or Member(account_id, None, "unknown", None)
        children = [made[child][0] for child in sorted(below.get(account_id, ()))]
        if not children:
            made[account_id] = own, None
            continue
        score = score_of(own, children, rule, bands)
        made[account_id] = Member(account_id, score.points, score.band, total_arr([own, *children])), score
    found = []
    for account_id in sorted(made):
        standing, family = made[account_id]
        own = known.get(account_id) or Member(account_id, None, "unknown", None)
        if account_id in looping:
            said = FamilyScore(None, "unknown", 0, 0, "its parents lead back to itself")
            found.append(Standing(account_id, parents.get(account_id), own, (), said, own.arr, in_cycle=True))
        elif family is not None:
            children_ids = tuple(sorted(below[account_id]))
            found.append(
                Standing(account_id, parents.get(account_id), own, children_ids, family, standing.arr)
            )  # fmt: skip
    return found


def total_arr(members: Iterable[Member]) -> Decimal | None:
    known = [one.arr for one in members if one.arr is not None]
    return sum(known, Decimal(0)) if known else None


def _children_first(below: Mapping[str, list[str]], known: Mapping[str, Member]) -> list[str]:
    """Every account after all that are below it."""
    order: list[str] = []
    seen: set[str] = set()
    for start in sorted({*known, *below}):
        stack = [(start, False)]
        while stack:
            one, done = stack.pop()
            if done:
                order.append(one)
            elif one not in seen:
                seen.add(one)
                stack.append((one, True))
                stack += [(child, False) for child in below.get(one, ())]
    return order
