"""A model made ready for scoring: for each profile its measures in order, their weights, and the tree of groups."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.health.settings import Bands, Cap, Measure, Model, Percentile, Profile, Scale

DEFAULT = "default"
"""The profile of whoever no other one fits."""
Scaled = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A scale that needs the values of others: what it is worth is known for an account at a moment alone."""

    rule: Percentile

    def __call__(self, value: float) -> float:
        raise AssertionError("a rank needs peers")


@dataclass(frozen=True, slots=True)
class Node:
    """A group: its weight among its siblings, its measures as (index, weight), and the groups below it."""

    name: str
    weight: float
    measures: tuple[tuple[int, float], ...]
    groups: tuple[Node, ...]

    def mean(self, points: Sequence[float | None]) -> float | None:
        """Σ weight × points / Σ weight over what is known here; None when nothing is."""
        known = [(weight, value) for index, weight in self.measures if (value := points[index]) is not None]
        for group in self.groups:
            value = group.mean(points)
            if value is not None:
                known.append((group.weight, value))
        return weighted_mean(known)


@dataclass(frozen=True, slots=True)
class Plan:
    """One profile's way to a score; `tree` is None where all measures weigh on the score at once.

    `weights` are what each measure weighs when all are known: in a tree, percent of the score.
    """

    profile: str
    names: tuple[str, ...]
    measures: tuple[Measure, ...]
    scales: tuple[Scaled, ...]
    groups: tuple[str, ...]
    weights: tuple[float, ...]
    tree: Node | None
    bands: Bands
    coverage_floor: float
    caps: tuple[tuple[str, Cap], ...]

    def mean(self, points: Sequence[float | None]) -> float | None:
        """The score before caps; None when nothing is known."""
        if self.tree is not None:
            return self.tree.mean(points)
        return weighted_mean(
            [(weight, value) for weight, value in zip(self.weights, points, strict=True) if value is not None]
        )


def weighted_mean(known: Sequence[tuple[float, float]]) -> float | None:
    """Σ weight × points / Σ weight of (weight, points)."""
    total = math.fsum([weight for weight, _ in known])
    if not total:
        return None
    # rounding may leave the mean of equal points a hair outside their range
    return min(100.0, max(0.0, math.fsum([weight * points for weight, points in known]) / total))


def points_between(value: float, worst: float, best: float) -> float:
    """0 at or beyond worst, 100 at or beyond best, linear between; worst > best counts downwards."""
    return 100.0 * min(1.0, max(0.0, (value - worst) / (best - worst)))


def _straight(worst: float, best: float) -> Scaled:
    span = best - worst

    def points(value: float) -> float:
        share = (value - worst) / span
        if share <= 0:
            return 0.0
        return 100.0 if share >= 1 else 100.0 * share

    return points


def points_from(value: float, edges: Sequence[float], points: Sequence[float]) -> float:
    """The points of the last edge that the value reaches; below the first, the first's."""
    return points[max(0, bisect.bisect_right(edges, value) - 1)]


def points_above(value: float, edges: Sequence[float], points: Sequence[float]) -> float:
    """The points of the last edge that the value exceeds; up to the first, the first's."""
    return points[max(0, bisect.bisect_left(edges, value) - 1)]


def scaled(scale: Scale) -> Scaled:
    """The points of a value on a scale."""
    if scale.percentile is not None:
        return Ranked(scale.percentile)
    if scale.worst is not None and scale.best is not None:
        return _straight(scale.worst, scale.best)
    steps = scale.at_least or scale.above or {}
    edges = sorted(steps)
    from_edge = points_from if scale.at_least else points_above
    return partial(from_edge, edges=edges, points=[steps[edge] for edge in edges])


def plans_of(model: Model) -> dict[str, Plan]:
    """A plan for each profile by its name, and for whoever fits none."""
    found = {DEFAULT: _plan(model, DEFAULT, None)}
    return found | {name: _plan(model, name, profile) for name, profile in model.profiles.items()}


def _plan(model: Model, name: str, profile: Profile | None) -> Plan:
    own: Mapping[str, float] = profile.weights if profile else {}
    chosen = [
        (measure_name, measure, own.get(measure_name, measure.weight))
        for measure_name, measure in model.measures.items()
        if own.get(measure_name, 1)
    ]
    scales: Mapping[str, Scale] = profile.scales if profile else {}
    groups = tuple(measure.group for _, measure, _ in chosen)
    weights = [weight for _, _, weight in chosen]
    tree = None
    if model.groups:
        group_weights: Mapping[str, float] = profile.groups if profile else {}
        tree = _tree("", 1.0, model.groups, group_weights, groups, weights)
        weights = list(_nominal(tree, len(weights)))
    return Plan(
        profile=name,
        names=tuple(measure_name for measure_name, _, _ in chosen),
        measures=tuple(measure for _, measure, _ in chosen),
        scales=tuple(scaled(scales.get(measure_name, measure)) for measure_name, measure, _ in chosen),
        groups=groups,
        weights=tuple(weights),
        tree=tree,
        bands=(profile and profile.bands) or model.bands,
        coverage_floor=model.coverage_floor if profile is None or profile.coverage_floor is None
        else profile.coverage_floor,
        caps=tuple(model.caps.items()),
    )  # fmt: skip


def _tree(name: str, weight: float, below: Mapping[str, object], other: Mapping[str, float],
          groups: Sequence[str], weights: Sequence[float]) -> Node:  # fmt: skip
    """The group with all below it that holds a measure; groups without any are left out."""
    own = tuple((index, weights[index]) for index, group in enumerate(groups) if group == name)
    nodes = []
    for child, said in below.items():
        node = _tree(child, other.get(child, said.weight), said.groups, other, groups, weights)  # type: ignore[attr-defined]
        if node.measures or node.groups:
            nodes.append(node)
    return Node(name, weight, own, tuple(nodes))


def _nominal(tree: Node, size: int) -> list[float]:
    """Percent of the score that each measure makes when everything is known."""
    found = [0.0] * size

    def walk(node: Node, share: float) -> None:
        total = math.fsum([*(weight for _, weight in node.measures), *(group.weight for group in node.groups)])
        for index, weight in node.measures:
            found[index] = share * weight / total
        for group in node.groups:
            walk(group, share * group.weight / total)

    walk(tree, 100.0)
    return found
