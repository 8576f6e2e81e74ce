"""What a column says of who leaves: groups of numbers or of words, whose shares that left differ beyond chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from services.health.tables import number_in

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
MOST_CUTS = 50
MOST_GROUPS = 8
FEWEST_ROWS = 20
"""A group of fewer rows says too little to have points of its own."""
CAUTION = 10.0
"""So many rows of the mean share are added to each group: small ones are pulled to the mean."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A column as read: which of its `words` each row says, and their numbers (NaN where empty) if all are some."""

    name: str
    words: tuple[str, ...]
    codes: Ints
    numbers: Floats | None
    empty: Bools

    @classmethod
    def read(cls, name: str, texts: Sequence[str]) -> Cells:
        words, codes = np.unique(np.array(texts, object), return_inverse=True)
        found: list[str] = words.tolist()
        numbers = [number_in(word) if word else math.nan for word in found]
        known = None if None in numbers else np.array(numbers, np.float64)[codes]
        return cls(name, tuple(found), codes, known, np.array([not word for word in found], bool)[codes])


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are worth the same: `holds` are words, or the lowest and the highest of the numbers."""

    n: int
    gone: int
    holds: tuple[str, ...] | tuple[float, float]

    @property
    def rate(self) -> float:
        return self.gone / self.n


@dataclass(frozen=True, slots=True)
class Shape:
    """What one column says: its groups in the order of the scale, and one of the empty cells, if there are enough."""

    column: str
    is_numeric: bool
    groups: tuple[Group, ...]
    empty: Group | None
    base: float

    def odds(self, group: Group | None) -> float:
        """Log odds of leaving, above those of everybody."""
        if group is None:
            return 0.0
        rate = (group.gone + CAUTION * self.base) / (group.n + CAUTION)
        return math.log(rate / (1 - rate)) - math.log(self.base / (1 - self.base))

    def of_rows(self, cells: Cells) -> Floats:
        """The log odds of each row; 0 where a cell says nothing."""
        blank = self.odds(self.empty)
        if self.is_numeric:
            assert cells.numbers is not None
            odds = np.array([self.odds(group) for group in self.groups])
            if not odds.size:
                return np.where(cells.empty, blank, 0.0)
            place = np.searchsorted(np.array(self.edges), cells.numbers, side="right")
            return np.where(cells.empty, blank, odds[np.minimum(place, odds.size - 1)])
        worth = {"": blank} | {str(word): self.odds(group) for group in self.groups for word in group.holds}
        return np.array([worth.get(word, 0.0) for word in cells.words])[cells.codes]

    @property
    def edges(self) -> list[float]:
        """Where a group of numbers ends and the next begins, in as few digits as tell them apart."""
        return [between(float(one.holds[1]), float(other.holds[0])) for one, other in pairwise(self.groups)]

    @property
    def starts(self) -> list[float]:
        """Where each group of numbers begins; the first takes in all below."""
        return [min(0.0, float(self.groups[0].holds[0])), *self.edges] if self.groups else []


def shape_of(cells: Cells, left: Bools, where: Bools, *, empty_says: bool = True) -> Shape:
    """The groups of a column, by the rows `where` alone."""
    base = float(left[where].mean())
    price = math.log(max(int(where.sum()), 2))
    there = where & ~cells.empty
    blank = _of_empty(cells, left, where, price) if empty_says else None
    if cells.numbers is not None:
        groups = monotone(_cuts(cells.numbers[there], left[there]), price + 2 * math.log(2))  # of two directions
        return Shape(cells.name, True, groups, blank, base)
    counts = np.bincount(cells.codes[there], minlength=len(cells.words)).tolist()
    gone = np.bincount(cells.codes[there & left], minlength=len(cells.words)).tolist()
    frequent = [
        Group(n, lost, (word,)) for word, n, lost in zip(cells.words, counts, gone, strict=True) if n >= FEWEST_ROWS
    ]
    ranked = sorted(frequent, key=lambda group: (-group.rate, group.holds))
    # Words are put in order by the very outcome: of k words of pure chance the best cut gains (k − 1) × 2 ÷ π.
    return Shape(cells.name, False, merged(ranked, price + (len(ranked) - 1) * 2 / math.pi), blank, base)


def _of_empty(cells: Cells, left: Bools, where: Bools, price: float) -> Group | None:
    """The empty cells, if there are enough of them and they tell more than they cost."""
    blank, other = (
        Group(int(rows.sum()), int(left[rows].sum()), ("",)) for rows in (cells.empty & where, where & ~cells.empty)
    )
    if blank.n < FEWEST_ROWS:
        return None
    return blank if other.n and len(merged([blank, other], price)) > 1 else None


def _cuts(numbers: Floats, left: Bools) -> list[Group]:
    """Neighbouring numbers in at most 50 groups of about as many rows, none of fewer than 20 where that can be."""
    values, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    gone = np.bincount(inverse, weights=left, minlength=len(values)).astype(np.int64)
    least = max(FEWEST_ROWS, math.ceil(len(numbers) / MOST_CUTS))
    groups: list[Group] = []
    for value, n, lost in zip(values.tolist(), counts.tolist(), gone.tolist(), strict=True):
        if groups and groups[-1].n < least:
            groups[-1] = _joined(groups[-1], Group(n, lost, (value, value)))
        else:
            groups.append(Group(n, lost, (value, value)))
    if len(groups) > 1 and groups[-1].n < FEWEST_ROWS:
        groups[-2:] = [_joined(groups[-2], groups[-1])]
    return groups


def _joined(one: Group, other: Group) -> Group:
    holds = (one.holds[0], other.holds[1]) if isinstance(one.holds[0], float) else (*one.holds, *other.holds)
    return Group(one.n + other.n, one.gone + other.gone, holds)


def monotone(groups: Sequence[Group], price: float) -> tuple[Group, ...]:
    """Groups whose share that left only rises, or only falls: whichever is likelier."""
    rising = merged(pooled(groups, lambda one, other: one.rate > other.rate), price)
    falling = merged(pooled(groups, lambda one, other: one.rate < other.rate), price)
    return max(rising, falling, key=lambda found: (sum(map(_likelihood, found)), -len(found)))


def pooled(groups: Sequence[Group], violates: Callable[[Group, Group], bool]) -> list[Group]:
    """Pool adjacent violators: the monotone shares that are nearest to the groups' own."""
    found: list[Group] = []
    for group in groups:
        found.append(group)
        while len(found) > 1 and violates(found[-2], found[-1]):
            found[-2:] = [_joined(found[-2], found[-1])]
    return found


def merged(groups: Sequence[Group], price: float) -> tuple[Group, ...]:
    """Take away the border that tells least, until each tells more than its price and there are 8 groups at most."""
    found = list(groups)
    while len(found) > 1:
        losses = [
            2 * (_likelihood(one) + _likelihood(other) - _likelihood(_joined(one, other)))
            for one, other in pairwise(found)
        ]
        least = min(range(len(losses)), key=losses.__getitem__)
        if losses[least] >= price and len(found) <= MOST_GROUPS:
            break
        found[least : least + 2] = [_joined(found[least], found[least + 1])]
    return tuple(found)


def _likelihood(group: Group) -> float:
    """Log likelihood of a group under its own share."""
    stayed = group.n - group.gone
    gone = group.gone * math.log(group.gone / group.n) if group.gone else 0.0
    return gone + (stayed * math.log(stayed / group.n) if stayed else 0.0)


def between(low: float, high: float) -> float:
    """The number in (low, high] with the fewest digits; of those the nearest to the middle."""
    middle = (low + high) / 2
    for places in range(-math.floor(math.log10(max(abs(high), abs(low), 1))) - 1, 16):
        unit = 10.0**-places
        near = math.floor(middle / unit + 0.5)
        for steps in (near, near + 1, near - 1):
            edge = round(steps * unit, max(places, 0))
            if low < edge <= high:
                return edge
    return high
