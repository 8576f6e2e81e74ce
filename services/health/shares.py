"""Whose share of a change is whose: every cause's exact part in it, for any number of causes.

Where only points moved, a cause's share is its weight × Δ. Else it is the Shapley value: the mean, over all orders
in which the causes could have come, of what each one's coming added to the score. Causes are the measures whose
points changed or that came or went, caps, another profile, another configuration, an override. Above 10 causes that
do not simply add up the orders are those that keep groups together (Owen's value, and Winter's for groups in groups).
The shares sum to the change; what did not change is no cause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from services.health.plan import Node, Plan
from services.health.scoring import NEUTRAL, Part, Score

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Block = int | tuple["Block", ...]
MOST_EXACT = 10
MOST_SIBLINGS = 5
CAP, PROFILE, CONFIG, OVERRIDE = "cap:", "profile", "config", "override"


def shares_of(before: Score, after: Score, old: Plan, new: Plan) -> dict[str, float]:
    """What each cause contributed between two scores made by these plans; nothing when either has no score."""
    start, end = before.shown, after.shown
    if start is None or end is None:
        return {}
    simple = old is new and before.caps == after.caps and before.override is None and after.override is None
    shares = _of_points(before.parts, after.parts, new) if simple else None
    if shares and before.caps and not _clears(before, after, shares):
        shares = None
    if shares is None:
        shares = _of_game(_game(before, after, old, new))
    return _settled(shares, end - start)


def kind_of(cause: str) -> str:
    """`measure`, `cap`, `profile`, `config` or `override`."""
    if cause in (PROFILE, CONFIG, OVERRIDE):
        return cause
    return "cap" if cause.startswith(CAP) else "measure"


def largest_first(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: (-abs(item[1]), item[0]))


def _clears(before: Score, after: Score, shares: Mapping[str, float]) -> bool:
    """Whether no order of the causes comes near the caps that hold: the closed forms are exact then."""
    if before.uncapped is None:
        return False
    moved = [
        one.points is not None and other.points is not None
        for one, other in zip(before.parts, after.parts, strict=True)
        if one.points != other.points
    ]
    top = before.uncapped + math.fsum(max(0.0, share) for share in shares.values())
    return (all(moved) or len(moved) == 1) and top <= min(at for _, at in before.caps)


def _settled(shares: dict[str, float], change: float) -> dict[str, float]:
    """Give what rounding left over to the largest share."""
    if shares:
        largest = max(shares, key=lambda name: abs(shares[name]))
        shares[largest] += change - math.fsum(shares.values())
    return shares


def _of_points(before: Sequence[Part], after: Sequence[Part], plan: Plan) -> dict[str, float] | None:
    """The closed forms; None where only a game tells."""
    changed = [
        number for number, (one, other) in enumerate(zip(before, after, strict=True)) if one.points != other.points
    ]
    if len(changed) == 1:
        start, end = _mean_or_neutral(plan, before), _mean_or_neutral(plan, after)
        return {plan.names[changed[0]]: end - start}
    came_or_went = [n for n in changed if before[n].points is None or after[n].points is None]
    if not came_or_went:
        effective = _effective(plan, after)
        return {plan.names[n]: effective[n] * (_points(after[n]) - _points(before[n])) for n in changed}
    if plan.tree is not None or len(came_or_went) > MOST_EXACT:
        return None
    return _of_flat(before, after, plan, changed, came_or_went)


def _points(part: Part) -> float:
    assert part.points is not None
    return part.points


def _mean_or_neutral(plan: Plan, parts: Sequence[Part]) -> float:
    value = plan.mean([part.points for part in parts])
    return NEUTRAL if value is None else value


def _effective(plan: Plan, parts: Sequence[Part]) -> list[float]:
    """What a point of each measure moves the score by, as things are known."""
    found = [0.0] * len(parts)
    if plan.tree is None:
        total = math.fsum(w for w, part in zip(plan.weights, parts, strict=True) if part.points is not None)
        return [w / total if part.points is not None else 0.0 for w, part in zip(plan.weights, parts, strict=True)]

    def walk(node: Node, share: float) -> None:
        own = [(n, weight) for n, weight in node.measures if parts[n].points is not None]
        below = [group for group in node.groups if _is_known(group, parts)]
        total = math.fsum([*(weight for _, weight in own), *(group.weight for group in below)])
        for n, weight in own:
            found[n] = share * weight / total
        for group in below:
            walk(group, share * group.weight / total)

    walk(plan.tree, 1.0)
    return found


def _is_known(node: Node, parts: Sequence[Part]) -> bool:
    return any(parts[n].points is not None for n, _ in node.measures) or any(_is_known(g, parts) for g in node.groups)


def _of_flat(
    before: Sequence[Part], after: Sequence[Part], plan: Plan, changed: Sequence[int], came_or_went: Sequence[int]
) -> dict[str, float]:
    """Shapley values of a weighted mean: orders differ only in when measures come or go.

    A measure that keeps its weight adds weight × Δ ÷ the weights there are when its turn comes. Of p that come or go,
    when s of the others were before, any measure that only moved was before with the chance (s + 1) ÷ (p + 1).
    """
    moved = [n for n in changed if n not in set(came_or_went)]
    still = [(plan.weights[n], part.points) for n, part in enumerate(before)
             if part.points is not None and n not in came_or_went]  # fmt: skip
    weight, weighted = math.fsum(w for w, _ in still), math.fsum(w * p for w, p in still)
    deltas = {n: plan.weights[n] * (_points(after[n]) - _points(before[n])) for n in moved}
    delta, count = math.fsum(deltas.values()), len(came_or_went)
    sums = [(weight, weighted)]
    for n in came_or_went:
        (w0, p0), (w1, p1) = _say(plan.weights[n], before[n]), _say(plan.weights[n], after[n])
        sums = [*((w + w0, p + p0) for w, p in sums), *((w + w1, p + p1) for w, p in sums)]

    def mean(subset: int, sooner: float) -> float:
        w, p = sums[subset]
        return (p + delta * sooner) / w if w > 1e-12 else NEUTRAL

    found = {}
    for player, n in enumerate(came_or_went):
        bit, terms = 1 << player, []
        for subset in range(len(sums)):
            if not subset & bit:
                size = subset.bit_count()
                sooner = (size + 1) / (count + 1)
                gain = mean(subset | bit, sooner) - mean(subset, sooner)
                terms.append(gain / (count * math.comb(count - 1, size)))
        found[plan.names[n]] = math.fsum(terms)
    if deltas:
        per = math.fsum(
            1 / (w * (count + 1) * math.comb(count, subset.bit_count())) for subset, (w, _) in enumerate(sums)
        )
        found |= {plan.names[n]: each * per for n, each in deltas.items()}
    return found


def _say(weight: float, part: Part) -> tuple[float, float]:
    return (0.0, 0.0) if part.points is None else (weight, weight * part.points)


@dataclass(frozen=True, slots=True)
class _Side:
    """A plan with its measures' columns, their points before and after as it sees them, and its override."""

    plan: Plan
    columns: NDArray[np.int64]
    old: Floats
    new: Floats

    def means(self, came: Bools) -> Floats:
        """The mean of each row of measures that have changed."""
        points = np.where(came[:, self.columns], self.new, self.old)
        if self.plan.tree is None:
            value, known = _combined([(weight, points[:, n]) for n, weight in enumerate(self.plan.weights)])
        else:
            value, known = _means(self.plan.tree, points)
        return np.where(known, value, NEUTRAL)


def _means(node: Node, points: Floats) -> tuple[Floats, Bools]:
    terms = [(weight, points[:, n]) for n, weight in node.measures]
    for group in node.groups:
        value, known = _means(group, points)
        terms.append((group.weight, np.where(known, value, np.nan)))
    return _combined(terms)


def _combined(terms: Sequence[tuple[float, Floats]]) -> tuple[Floats, Bools]:
    rows = len(terms[0][1])
    total, weighted = np.zeros(rows), np.zeros(rows)
    for weight, points in terms:
        known = ~np.isnan(points)
        total += weight * known
        weighted += weight * np.where(known, points, 0.0)
    there = total > 1e-12
    return np.divide(weighted, total, out=np.full(rows, NEUTRAL), where=there), there


@dataclass(frozen=True, slots=True)
class _Game:
    """The causes of a change, and the score when only some of them had come."""

    causes: list[str]
    paths: list[tuple[str, ...]]
    before: _Side
    after: _Side
    columns: list[int | None]
    """Each column's cause, if its points are one."""
    structure: int | None = None
    caps: list[tuple[float, float, int | None]] = field(default_factory=list)
    """Where a cap was and is (infinite: nowhere), and its cause."""
    override: tuple[float | None, float | None, int | None] = (None, None, None)

    def values(self, came: Bools) -> Floats:
        """The score of each row of causes that had come."""
        rows = len(came)
        by_column = np.zeros((rows, len(self.columns)), np.bool_)
        for column, cause in enumerate(self.columns):
            if cause is not None:
                by_column[:, column] = came[:, cause]
        if self.structure is None:
            found = self.after.means(by_column)
        else:
            found = np.where(came[:, self.structure], self.after.means(by_column), self.before.means(by_column))
        for old, new, cause in self.caps:
            found = np.minimum(found, new if cause is None else np.where(came[:, cause], new, old))
        old_override, new_override, cause = self.override
        if cause is None:
            return found if new_override is None else np.full(rows, new_override)
        then = found if old_override is None else np.full(rows, old_override)
        now = found if new_override is None else np.full(rows, new_override)
        return np.where(came[:, cause], now, then)


def _game(before: Score, after: Score, old: Plan, new: Plan) -> _Game:
    then = {part.measure: part for part in before.parts}
    now = {part.measure: part for part in after.parts}
    names = list(dict.fromkeys([*new.names, *old.names]))
    restructured = old is not new
    causes: list[str] = []
    paths: list[tuple[str, ...]] = []
    columns: list[int | None] = []
    places = _paths(new)
    for name in names:
        is_cause = name in then and name in now and then[name].points != now[name].points
        if is_cause and restructured and then[name].value == now[name].value:
            is_cause = False  # the same value is worth something else: the plan's doing
        columns.append(len(causes) if is_cause else None)
        if is_cause:
            causes.append(name)
            paths.append(places.get(name, ()))

    def cause(name: str) -> int:
        causes.append(name)
        paths.append(())
        return len(causes) - 1

    structure = None
    if restructured:
        structure = cause(CONFIG if before.config != after.config else PROFILE)
    held, holds = dict(before.caps), dict(after.caps)
    caps: list[tuple[float, float, int | None]] = [
        (held.get(name, math.inf), holds.get(name, math.inf),
         None if held.get(name) == holds.get(name) else cause(CAP + name))
        for name in dict.fromkeys([*holds, *held])
    ]  # fmt: skip
    overridden = cause(OVERRIDE) if before.override != after.override else None
    index = {name: n for n, name in enumerate(names)}
    return _Game(
        causes, paths, _side(old, index, then, now, columns, is_after=False),
        _side(new, index, then, now, columns, is_after=True), columns, structure, caps,
        (before.override, after.override, overridden),
    )  # fmt: skip


def _side(
    plan: Plan, index: Mapping[str, int], then: Mapping[str, Part], now: Mapping[str, Part],
    causes: Sequence[int | None], *, is_after: bool,
) -> _Side:  # fmt: skip
    def points(parts: Mapping[str, Part], name: str) -> float:
        own = parts if causes[index[name]] is not None else (now if is_after else then)
        part = own.get(name)
        return math.nan if part is None or part.points is None else part.points

    return _Side(
        plan,
        np.array([index[name] for name in plan.names], np.int64),
        np.array([points(then, name) for name in plan.names], np.float64),
        np.array([points(now, name) for name in plan.names], np.float64),
    )


def _paths(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The groups above each measure, the widest first."""
    if plan.tree is None:
        return {name: (group,) for name, group in zip(plan.names, plan.groups, strict=True)}
    found: dict[str, tuple[str, ...]] = {}

    def walk(node: Node, above: tuple[str, ...]) -> None:
        for n, _ in node.measures:
            found[plan.names[n]] = above
        for group in node.groups:
            walk(group, (*above, group.name))

    walk(plan.tree, ())
    return found


def _of_game(game: _Game) -> dict[str, float]:
    count = len(game.causes)
    if not count:
        return {}
    if count <= MOST_EXACT:
        values = game.values(_subsets(count))
        return {name: _shapley(values, player, count) for player, name in enumerate(game.causes)}
    shares: dict[str, float] = {}
    _walk(_blocks(list(range(count)), game.paths, 0), np.zeros((1, count), np.bool_), np.ones(1), game, shares)
    return shares


@lru_cache(maxsize=16)
def _subsets(count: int) -> Bools:
    found: Bools = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1 == 1
    return found


def _shapley(values: Floats, player: int, players: int) -> float:
    without, chance = _coalitions(player, players)
    return float(np.dot(chance, values[without | (1 << player)] - values[without]))


@lru_cache(maxsize=256)
def _coalitions(player: int, players: int) -> tuple[NDArray[np.int64], Floats]:
    """Subsets without the player, and the chance that just those came before it."""
    subsets = np.arange(1 << players)
    without = subsets[(subsets >> player) & 1 == 0]
    sizes = np.array([subset.bit_count() for subset in without.tolist()])
    return without, _chances(players)[sizes]


@lru_cache(maxsize=64)
def _chances(players: int) -> Floats:
    """Of each size, the chance that one certain subset of the others came before a player."""
    return np.array([1 / (players * math.comb(players - 1, size)) for size in range(players)])


def _blocks(players: Sequence[int], paths: Sequence[tuple[str, ...]], depth: int) -> Block:
    """Causes by group, groups of groups; wide ones are halved until they are narrow."""
    found: dict[str | int, list[int]] = {}
    for player in players:
        path = paths[player]
        found.setdefault(path[depth] if depth < len(path) else player, []).append(player)
    children: list[Block] = [
        key if isinstance(key, int) else _blocks(members, paths, depth + 1) for key, members in found.items()
    ]
    return _narrow(children)


def _narrow(children: Sequence[Block]) -> Block:
    if len(children) == 1:
        return children[0]
    if len(children) <= MOST_SIBLINGS:
        return tuple(children)
    middle = len(children) // 2
    return (_narrow(children[:middle]), _narrow(children[middle:]))


def _members(block: Block) -> list[int]:
    return [block] if isinstance(block, int) else [player for child in block for player in _members(child)]


def _walk(block: Block, came: Bools, chances: Floats, game: _Game, shares: dict[str, float]) -> None:
    """Each cause's mean gain over the orders that keep blocks together: `came` before this block, how likely."""
    if isinstance(block, int):
        then = came.copy()
        then[:, block] = True
        shares[game.causes[block]] = float(np.dot(chances, game.values(then) - game.values(came)))
        return
    for child in block:
        others = [_members(other) for other in block if other is not child]
        mine = np.zeros((1 << len(others), came.shape[1]), np.bool_)
        subsets = _subsets(len(others))
        for number, members in enumerate(others):
            mine[:, members] |= subsets[:, number : number + 1]
        each = _chances(len(block))[subsets.sum(axis=1)]
        before = (came[:, None, :] | mine[None, :, :]).reshape(-1, came.shape[1])
        _walk(child, before, np.outer(chances, each).ravel(), game, shares)
