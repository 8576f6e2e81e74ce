"""When an alert opens and when it is over: `config/alerts.yaml`."""

from __future__ import annotations

from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.health.settings import Days, Settings, Trend, Words

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")


class Confirm(Settings):
    """An episode opens only when its rule held on `days` of the last `of_days` days, today among them."""

    days: Annotated[int, Field(ge=1)]
    of_days: Annotated[int, Field(ge=1, le=366)]

    @model_validator(mode="after")
    def _can_happen(self) -> Self:
        if self.days > self.of_days:
            raise ValueError(f"{self.days} of {self.of_days} days cannot be: days must not exceed of_days")
        return self


class Unheard(Settings):
    """An episode that nobody acknowledges for so many days becomes so severe."""

    days: Days
    severity: Severity = "critical"


class Worse(Settings):
    """At this value, or beyond it, the episode is so severe."""

    at: float
    severity: Severity = "critical"


class Rule(Settings):
    """One kind of episode; `next_step` is what the reader should do.

    `unless` names rules whose open episodes keep this one from opening. `cooldown_days` after an episode the next of
    the same cause may open, or at once when it is more severe.
    """

    kind: Literal["risk", "opportunity", "data"] = "risk"
    severity: Severity = "medium"
    enabled: bool = True
    next_step: Words | None = None
    confirm: Confirm | None = None
    cooldown_days: Annotated[int, Field(ge=0, le=3660)] = 0
    unless: tuple[str, ...] = ()
    unheard: Unheard | None = None


class ScoreBelow(Rule):
    when: Literal["score_below"]
    enter: float = 40
    leave: float = 45
    worse: Worse | None = None

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
    worse: Worse | None = None


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
    worse: Worse | None = None


class Detractor(Rule):
    """Somebody's latest NPS answer is at most `score`, given in the last `days`."""

    when: Literal["detractor"]
    score: float = 6
    days: Days = 30


class Promoter(Rule):
    """Somebody's latest NPS answer is at least `score`, given in the last `days`, and the account has been green for
    `green_days`."""

    when: Literal["promoter"]
    score: float = 9
    days: Days = 30
    green_days: Annotated[int, Field(ge=0, le=3660)] = 0


class UsageDip(Rule):
    """Use is below `enter` of what was usual; over at `leave`."""

    when: Literal["usage_dip"]
    trend: Trend
    enter: Annotated[float, Field(gt=0, lt=1)] = 0.5
    leave: Annotated[float, Field(gt=0)] = 0.75
    worse: Worse | None = None


class UsageGrowth(Rule):
    """Use is above `enter` of what was usual; over at `leave`."""

    when: Literal["usage_growth"]
    trend: Trend
    enter: Annotated[float, Field(gt=1)] = 1.5
    leave: Annotated[float, Field(gt=0)] = 1.2


class NewPeople(Rule):
    """In the last `days` complete days at least `people` used it who had not in the `before_days` before.

    Over below half of them. A new customer, of whom fewer than `before` people used it before, has new people anyway.
    """

    when: Literal["new_people"]
    people: Annotated[int, Field(ge=2)] = 5
    days: Days = 14
    before_days: Days = 90
    before: Annotated[int, Field(ge=1)] = 3

    @property
    def reach_days(self) -> int:
        return self.days + self.before_days


class Silent(Rule):
    """No use for `days`, after some use in the `before_days` before; over with the next use."""

    when: Literal["silent"]
    days: Days = 30
    before_days: Days = 90


class PaymentFailed(Rule):
    when: Literal["payment_failed"]


class NoticeNear(Rule):
    """The next deadline of a contract (its notice, else its end) is at most `days` ahead, and the band is not green."""

    when: Literal["notice_near"]
    days: Days = 60
    worse: Worse | None = None


class LicenceFull(Rule):
    """People who used it in the last `days` complete days ÷ seats is above `enter`; over at `leave`."""

    when: Literal["licence_full"]
    days: Days = 30
    enter: Annotated[float, Field(gt=0)] = 0.9
    leave: Annotated[float, Field(gt=0)] = 0.8
    worse: Worse | None = None

    @model_validator(mode="after")
    def _leaves_below(self) -> Self:
        if self.leave > self.enter:
            raise ValueError(f"leave ({self.leave:g}) is above enter ({self.enter:g}): the alert would flap")
        return self


class RevenueDisagrees(Rule):
    """Green although the MRR fell by at least `fall` within `days`, or red although it grew by at least `growth`."""

    when: Literal["revenue_disagrees"]
    days: Days = 90
    fall: Annotated[float, Field(gt=0, le=1)] = 0.1
    growth: Annotated[float, Field(gt=0)] = 0.1


class SponsorLeft(Rule):
    """A champion or sponsor left in the last `days`."""

    when: Literal["sponsor_left"]
    days: Days = 90


class TrackingBreak(Rule):
    """A feature's use falls across all accounts at once: what used it on a day is at most `enter` of what is usual.

    Usual is the second lowest of the same days of the last four weeks, less where the other features say that the day
    is a quiet one; it must come to at least `accounts`. By chance up to three such days happen with at most `chance`.
    Over from `leave` on, or given up as a feature that is no more after `at_most_days`.
    """

    when: Literal["tracking_break"]
    accounts: Annotated[float, Field(ge=3)] = 10
    enter: Annotated[float, Field(ge=0, lt=1)] = 0.25
    leave: Annotated[float, Field(gt=0, le=1)] = 0.5
    chance: Annotated[float, Field(gt=0, lt=1)] = 0.000001
    at_most_days: Annotated[int, Field(ge=1, le=28)] = 21

    @model_validator(mode="after")
    def _leaves_above(self) -> Self:
        if self.leave < self.enter:
            raise ValueError(f"leave ({self.leave:g}) is below enter ({self.enter:g}): the alert would flap")
        return self


class SourceSilent(Rule):
    """A source has missed `share` of what it sends in a week, or `most` hours of it, and at least `missed` hours.

    By its own rhythm: in how many of the last four weeks it sent in the same hour of the week. One that is not punctual
    must be as silent by chance with at most `chance`. Never before `hours` of silence, and given up as a source that is
    no more after `at_most_days`.
    """

    when: Literal["source_silent"]
    share: Annotated[float, Field(gt=0, le=4)] = 0.25
    missed: Annotated[float, Field(ge=1)] = 2
    hours: Annotated[int, Field(ge=2)] = 12
    most: Annotated[float, Field(ge=1)] = 36
    chance: Annotated[float, Field(gt=0, lt=1)] = 0.000001
    at_most_days: Annotated[int, Field(ge=2, le=28)] = 21


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
    | NewPeople
    | Silent
    | PaymentFailed
    | SponsorLeft
    | NoticeNear
    | LicenceFull
    | RevenueDisagrees
    | TrackingBreak
    | SourceSilent,
    Field(discriminator="when"),
]


class Rules(Settings):
    """The alerts there are, by the name they carry."""

    rules: dict[str, AnyRule]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, rule in self.rules.items():
            for other in rule.unless:
                if other not in self.rules or other == name:
                    known = ", ".join(sorted(self.rules.keys() - {name}))
                    raise ValueError(f"{name}: unless names {other!r}, which is no other rule; there are: {known}")
        self.order  # noqa: B018  # raises where rules silence each other in a ring
        return self

    @cached_property
    def order(self) -> dict[str, int]:
        """Rules in an order in which those named in `unless` come first."""
        try:
            ordered = TopologicalSorter({name: sorted(rule.unless) for name, rule in self.rules.items()}).static_order()
            return {name: place for place, name in enumerate(ordered)}
        except CycleError as error:
            raise ValueError(
                f"rules silence each other in a ring through unless: {' < '.join(error.args[1])}"
            ) from None

    @cached_property
    def looks_ahead(self) -> bool:
        """Whether a day to come opens an episode by itself."""
        return any(isinstance(rule, NoticeNear) and rule.enabled for rule in self.rules.values())

    @cached_property
    def judges_data(self) -> bool:
        """Whether the data of the whole book is judged; if not, nothing is counted for it."""
        return any(rule.enabled for rule in self.rules.values() if isinstance(rule, TrackingBreak | SourceSilent))

    @property
    def memory_days(self) -> int:
        """How far back a rule looks at scores that were shown."""
        return max((rule.days for rule in self.rules.values() if isinstance(rule, ScoreDrop)), default=0)

    @property
    def history_days(self) -> int:
        reach = [rule.trend.reach_days for rule in self.rules.values() if isinstance(rule, UsageDip | UsageGrowth)]
        reach += [rule.reach_days for rule in self.rules.values() if isinstance(rule, NewPeople)]
        reach += [rule.days for rule in self.rules.values() if isinstance(rule, LicenceFull)]
        return max(reach, default=1)

    @property
    def horizon_days(self) -> int:
        windows = [getattr(rule, "days", 1) for rule in self.rules.values()]
        windows += [rule.confirm.of_days for rule in self.rules.values() if rule.confirm]
        return max([self.history_days, *windows]) + 1
