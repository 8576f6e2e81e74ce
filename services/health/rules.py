"""When an alert opens and when it is over: `config/alerts.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.health.settings import Days, Settings, Trend, Words
from shared import config

Severity = Literal["low", "medium", "high", "critical"]


class Rule(Settings):
    """One kind of episode; `next_step` is what the reader should do."""

    kind: Literal["risk", "opportunity", "data"] = "risk"
    severity: Severity = "medium"
    enabled: bool = True
    next_step: Words | None = None


class ScoreBelow(Rule):
    when: Literal["score_below"]
    enter: float = 40
    leave: float = 45

    @model_validator(mode="after")
    def _leaves_above(self) -> Self:
        if self.leave < self.enter:
            raise ValueError(f"leave ({self.leave:g}) is below enter ({self.enter:g}): the alert would flap")
        return self


class ScoreDrop(Rule):
    """At least `points` below the best score shown in the last `days`; over at half of that."""

    when: Literal["score_drop"]
    points: Annotated[float, Field(gt=0)] = 15
    days: Days = 30


class ScoreUnknown(Rule):
    """There was a score, and now too little is known for one."""

    when: Literal["score_unknown"]


class TicketOpen(Rule):
    when: Literal["ticket_open"]
    severities: tuple[Literal["p1", "p2", "p3", "p4"], ...] = ("p1",)


class TicketStorm(Rule):
    """At least `tickets` opened in the last `days`; over below `leave`."""

    when: Literal["ticket_storm"]
    tickets: Annotated[int, Field(ge=2)] = 5
    days: Days = 7
    leave: Annotated[int, Field(ge=1)] = 3


class Detractor(Rule):
    """Somebody's latest NPS answer is at most `score`, given in the last `days`."""

    when: Literal["detractor"]
    score: float = 6
    days: Days = 30


class Promoter(Rule):
    """Somebody's latest NPS answer is at least `score`, given in the last `days`."""

    when: Literal["promoter"]
    score: float = 9
    days: Days = 30


class UsageDip(Rule):
    """Use is below `enter` of what was usual; over at `leave`."""

    when: Literal["usage_dip"]
    trend: Trend
    enter: Annotated[float, Field(gt=0, lt=1)] = 0.5
    leave: Annotated[float, Field(gt=0)] = 0.75


class UsageGrowth(Rule):
    """Use is above `enter` of what was usual; over at `leave`."""

    when: Literal["usage_growth"]
    trend: Trend
    enter: Annotated[float, Field(gt=1)] = 1.5
    leave: Annotated[float, Field(gt=0)] = 1.2


class Silent(Rule):
    """No use for `days`, after some use in the `before_days` before; over with the next use."""

    when: Literal["silent"]
    days: Days = 30
    before_days: Days = 90


class PaymentFailed(Rule):
    when: Literal["payment_failed"]


class SponsorLeft(Rule):
    """A champion or sponsor left in the last `days`."""

    when: Literal["sponsor_left"]
    days: Days = 90


AnyRule = Annotated[
    ScoreBelow
    | ScoreDrop
    | ScoreUnknown
    | TicketOpen
    | TicketStorm
    | Detractor
    | Promoter
    | UsageDip
    | UsageGrowth
    | Silent
    | PaymentFailed
    | SponsorLeft,
    Field(discriminator="when"),
]


class Rules(Settings):
    """The alerts there are, by the name they carry."""

    rules: dict[str, AnyRule]

    @property
    def memory_days(self) -> int:
        """How far back a rule looks at scores that were shown."""
        return max((rule.days for rule in self.rules.values() if isinstance(rule, ScoreDrop)), default=0)

    @property
    def history_days(self) -> int:
        trends = [rule.trend for rule in self.rules.values() if isinstance(rule, UsageDip | UsageGrowth)]
        return max((trend.reach_days for trend in trends), default=1)

    @property
    def horizon_days(self) -> int:
        windows = [getattr(rule, "days", 1) for rule in self.rules.values()]
        return max([self.history_days, *windows]) + 1


def load_rules(path: Path | str) -> config.Loaded[Rules]:
    return config.load(path, Rules)
