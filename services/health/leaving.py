"""When an account left, by what its events say: notice, the last subscription or contract at 0, the stage `churned`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal

from services.health.facts import Facts, Mark
from services.health.usage import DAY_US, moment

Sign = Literal["notice", "subscription", "contract", "stage"]
LEFT_STAGE = "churned"
GRACE_DAYS = 7
"""Who is back so soon has changed a plan, or paid late, and never left."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """From `at` (µs) it is known that the account leaves; `back_at` is when it was a customer again."""

    at: int
    signs: tuple[Sign, ...]
    back_at: int | None = None


@dataclass(slots=True)
class _Course:
    """What has been said up to now of one account."""

    totals: dict[str, dict[str, Decimal]] = field(default_factory=lambda: {"subscription": {}, "contract": {}})
    stage: str | None = None
    began: int | None = None
    signs: list[Sign] = field(default_factory=list)
    effective_on: str | None = None
    is_gone: bool = False

    def learn(self, kind: str, key: str, mark: Mark) -> Leaving | None:
        """Take in a mark; returns the leaving that it ends."""
        match kind:
            case "notice":
                self.effective_on = mark.data.get("effective_on")
                self._leaves(mark.at, "notice")
            case "subscription":
                return self._amount(mark.at, "subscription", key, Decimal(mark.data["mrr"]))
            case "contract":
                if mark.data.get("arr") is not None:
                    ended = self._amount(mark.at, "contract", key, Decimal(mark.data["arr"]))
                    return ended or self._renewed(mark)
            case "profile" if "stage" in mark.data:
                before, self.stage = self.stage, mark.data["stage"]
                if self.stage == LEFT_STAGE != before:
                    self._leaves(mark.at, "stage")
                elif before == LEFT_STAGE != self.stage:
                    return self._returns(mark.at)
        return None

    def _amount(self, at: int, sign: Literal["subscription", "contract"], key: str, amount: Decimal) -> Leaving | None:
        held = self.totals[sign]
        was_paying = any(held.values())
        held[key] = amount
        if was_paying and not any(held.values()):
            self._leaves(at, sign)
        elif not was_paying and amount and self.is_gone:
            return self._returns(at)
        return None

    def _renewed(self, mark: Mark) -> Leaving | None:
        """A notice is withdrawn by a contract that runs on after the day it was for."""
        ends_on = mark.data.get("ends_on")
        withdrawn = self.began is not None and not self.is_gone and Decimal(mark.data["arr"]) > 0
        if withdrawn and ends_on and ends_on > (self.effective_on or _day(mark.at)):
            return self._returns(mark.at)
        return None

    def _leaves(self, at: int, sign: Sign) -> None:
        self.began = at if self.began is None else self.began
        self.is_gone = self.is_gone or sign != "notice"
        if sign not in self.signs:
            self.signs.append(sign)

    def _returns(self, at: int) -> Leaving | None:
        began, signs = self.began, tuple(self.signs)
        self.began, self.signs, self.is_gone, self.effective_on = None, [], False, None
        return None if began is None else Leaving(began, signs, at)


def _day(us: int) -> str:
    return date.isoformat(moment(us).date())


def leavings(known: Facts) -> list[Leaving]:
    """Every time the account left, the oldest first."""
    return [one for one in _all(known) if one.back_at is None or one.back_at - one.at >= GRACE_DAYS * DAY_US]


def _all(known: Facts) -> Iterator[Leaving]:
    said = [
        (kind, key, mark)
        for (kind, key), marks in known.things.items()
        if kind in ("notice", "subscription", "contract", "profile")
        for mark in marks
    ]
    course = _Course()
    for kind, key, mark in sorted(said, key=lambda one: (one[2].at, one[2].id, one[0], one[1])):
        ended = course.learn(kind, key, mark)
        if ended is not None:
            yield ended
    if course.began is not None:
        yield Leaving(course.began, tuple(course.signs))
