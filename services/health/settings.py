"""What the business sets: the score (`config/health.yaml`) and how revenue is counted (`config/revenue.yaml`).

The alerts are in `rules.py`, models of flat tables in `tables.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from services.health.plan import DEFAULT, Plan, plans_of
from services.health.usage import UseOf
from shared import config
from shared.events.base import Currency
from shared.times import ZoneName

Missing = Literal["ignore", "neutral", "zero", "last_known"]
Language = Literal["en", "fr"]
Days = Annotated[int, Field(ge=1, le=3660)]
TicketSeverity = Literal["p1", "p2", "p3", "p4"]
VoiceOfCustomer = Literal["survey", "ticket", "call", "feedback", "request", "message", "meeting", "churn"]
CUSTOMERS: tuple[VoiceOfCustomer, ...] = get_args(VoiceOfCustomer)


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Words(Settings):
    """The same words in each language that people read."""

    en: str
    fr: str

    def to(self, language: Language) -> str:
        return self.fr if language == "fr" else self.en


Points = Annotated[float, Field(ge=0, le=100)]
Steps = Annotated[dict[float, Points], Field(min_length=1)]


class Percentile(Settings):
    """Points are the percent of the peers that are worse, those that are equal counting half.

    Peers are the accounts of the same segment, or all; of fewer than `peers` with a value nothing can be told.
    """

    among: Literal["segment", "everybody"] = "segment"
    best: Literal["highest", "lowest"] = "highest"
    peers: Annotated[int, Field(ge=2)] = 20


class Scale(Settings):
    """What a value is worth, in one of four ways.

    `worst` earns 0 points and `best` 100, straight between; worst above best turns the scale round. `at_least` gives
    the points of the last step that the value reaches, `above` of the last that it exceeds. `percentile` gives its
    rank.
    """

    worst: float | None = None
    best: float | None = None
    at_least: Steps | None = None
    above: Steps | None = None
    percentile: Percentile | None = None

    @model_validator(mode="after")
    def _is_one_scale(self) -> Self:
        ends = [end for end in (self.worst, self.best) if end is not None]
        others = (self.at_least, self.above, self.percentile)
        if len(ends) == 1 or (len(ends) == 2) + sum(one is not None for one in others) != 1:
            raise ValueError("write one scale: worst and best, or at_least, or above, or percentile")
        if len(ends) == 2 and ends[0] == ends[1]:
            raise ValueError(f"worst and best are both {ends[0]:g}: a scale needs two different ends")
        return self


class Measure(Scale):
    """One question to the facts; its value earns points on its scale. What a missing value means is `missing`.

    A `last_known` value fades to neutral by half each `last_known_half_life_days`; without them it does not fade.
    """

    label: Words
    group: str
    weight: Annotated[float, Field(gt=0)]
    missing: Missing = "ignore"
    last_known_days: Days = 30
    last_known_half_life_days: Days | None = None

    @property
    def horizon_days(self) -> int:
        """After so many days without a new fact the value no longer changes."""
        return 1

    @property
    def history_days(self) -> int:
        """How many days of use before today the value can depend on."""
        return 1


class Trend(Settings):
    """Use in the last window of complete days, over the mean of the windows before it.

    Below `floor` (mean of the windows before) a ratio would be noise and is not given. With `weekdays` each day is
    compared with the same days of the week, so that a window with one weekend more is no fall.
    """

    of: UseOf
    window_days: Days = 30
    baseline_windows: Annotated[int, Field(ge=1, le=12)] = 3
    floor: Annotated[float, Field(ge=0)] = 1.0
    weekdays: bool = False

    @property
    def reach_days(self) -> int:
        return self.window_days * (self.baseline_windows + 1)


class UsageTrend(Measure):
    kind: Literal["usage_trend"]
    trend: Trend

    @property
    def horizon_days(self) -> int:
        return self.trend.reach_days + 1

    @property
    def history_days(self) -> int:
        return self.trend.reach_days


class _Window(Measure):
    """A figure over the last complete days; nobody used it for `known_days`: unknown, not bad."""

    window_days: Days = 30
    known_days: Days = 120

    @property
    def horizon_days(self) -> int:
        return max(self.window_days, self.known_days) + 1

    @property
    def history_days(self) -> int:
        return self.window_days


class UsageVolume(_Window):
    """Events, users, days or features in the window, in all or per active user or seat."""

    kind: Literal["usage_volume"]
    of: UseOf = "events"
    per: Literal["account", "user", "seat"] = "account"


class Stickiness(_Window):
    """Mean users of a day (or of a week) ÷ users of the whole window; with fewer than `floor` users it is noise."""

    kind: Literal["stickiness"]
    of: Literal["days", "weeks"] = "days"
    floor: Annotated[int, Field(ge=1)] = 5

    @model_validator(mode="after")
    def _has_whole_weeks(self) -> Self:
        if self.of == "weeks" and self.window_days % 7:
            raise ValueError(f"window_days {self.window_days} is no number of whole weeks: take 28")
        return self


class Breadth(_Window):
    """Features used at least `times` ÷ features entitled; without entitlements those of `features` count."""

    kind: Literal["breadth"]
    times: Annotated[int, Field(ge=1)] = 1
    features: tuple[str, ...] = ()


class Core(Settings):
    """What counts as a core action: use of one of the features, or one of the events (of `product`). Neither: all."""

    features: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    product: str | None = None


class CoreActions(_Window):
    """Core actions a week, in all or per active user (depth)."""

    kind: Literal["core_actions"]
    core: Core = Core()
    per: Literal["account", "user"] = "account"
    window_days: Days = 28


class CoreUsers(_Window):
    """Share of the active users who did at least `times` core actions in the window (depth by a bar)."""

    kind: Literal["core_users"]
    core: Core = Core()
    times: Annotated[int, Field(ge=1)] = 10
    window_days: Days = 28


class Licences(_Window):
    """Users in the window ÷ seats (of the entitlements, else the subscriptions, else the profile)."""

    kind: Literal["licences"]
    window_days: Days = 28


class UsageRecency(Measure):
    """Whole days since the last day with any use."""

    kind: Literal["usage_recency"]
    known_days: Days = 120

    @property
    def horizon_days(self) -> int:
        return self.known_days + 1


class OpenTickets(Measure):
    """Σ weight of the severity × (1 + whole days open, at most `cap_days`, ÷ `double_after_days`)."""

    kind: Literal["open_tickets"]
    weights: dict[TicketSeverity, Annotated[float, Field(ge=0)]]
    double_after_days: Days = 14
    cap_days: Days = 60
    known_days: Days = 365

    @property
    def horizon_days(self) -> int:
        return max(self.cap_days, self.known_days) + 1


class TicketCount(Measure):
    """Open tickets of these severities that are at least so many days old."""

    kind: Literal["ticket_count"]
    severities: Annotated[tuple[TicketSeverity, ...], Field(min_length=1)] = ("p1", "p2", "p3", "p4")
    days_open: Annotated[int, Field(ge=0)] = 0
    known_days: Days = 365

    @property
    def horizon_days(self) -> int:
        return max(self.days_open, self.known_days) + 1


class TimeToSolve(Measure):
    """Median hours from opening to solution of the tickets solved in the last window."""

    kind: Literal["time_to_solve"]
    severities: Annotated[tuple[TicketSeverity, ...], Field(min_length=1)] = ("p1", "p2", "p3", "p4")
    window_days: Days = 90

    @property
    def horizon_days(self) -> int:
        return self.window_days + 1


class ReopenedTickets(Measure):
    """How often tickets were opened again in the last window."""

    kind: Literal["reopened_tickets"]
    window_days: Days = 30
    known_days: Days = 365

    @property
    def horizon_days(self) -> int:
        return max(self.window_days, self.known_days) + 1


class SurveyAnswers(Measure):
    """The latest answer of each person, each fading to neutral; NPS 0 to 10, CSAT 0 to 100 %, CES 1 to 7."""

    kind: Literal["survey"]
    of: Literal["nps", "csat", "ces"]
    half_life_days: Days = 90
    expires_days: Days = 365

    @property
    def horizon_days(self) -> int:
        return self.expires_days + 1


class Sentiment(Measure):
    """How customers' comments sound (-1 to 1), as voice reads them: newer ones weigh more, by half each half-life.

    The points fade to neutral with the age of the newest. What a CSM thinks is no customer's word.
    """

    kind: Literal["sentiment"]
    sources: Annotated[tuple[VoiceOfCustomer, ...], Field(min_length=1)] = CUSTOMERS
    floor: Annotated[int, Field(ge=1)] = 1
    half_life_days: Days = 60
    expires_days: Days = 180

    @property
    def horizon_days(self) -> int:
        return self.expires_days + 1


class UnpaidInvoices(Measure):
    """Invoices whose payment failed and has not come since."""

    kind: Literal["unpaid_invoices"]
    known_days: Days = 365

    @property
    def horizon_days(self) -> int:
        return self.known_days + 1


class Sponsors(Measure):
    """Champions and sponsors who are still there."""

    kind: Literal["sponsors"]


class LastTouch(Measure):
    """Whole days since the last contact that went both ways."""

    kind: Literal["last_touch"]
    known_days: Days = 365

    @property
    def horizon_days(self) -> int:
        return self.known_days + 1


class LastOutcome(Measure):
    """Whole days since the customer last confirmed a result."""

    kind: Literal["last_outcome"]
    known_days: Days = 730

    @property
    def horizon_days(self) -> int:
        return self.known_days + 1


class Renewal(Measure):
    """Whole days to the nearest notice deadline, else to the nearest end of a contract."""

    kind: Literal["renewal"]


class MrrTrend(Measure):
    """Monthly recurring revenue now ÷ what it was `window_days` ago."""

    kind: Literal["mrr_trend"]
    window_days: Days = 90

    @property
    def horizon_days(self) -> int:
        return self.window_days + 1


AnyMeasure = Annotated[
    UsageTrend
    | UsageRecency
    | UsageVolume
    | Stickiness
    | Breadth
    | CoreActions
    | CoreUsers
    | Licences
    | OpenTickets
    | TicketCount
    | TimeToSolve
    | ReopenedTickets
    | SurveyAnswers
    | Sentiment
    | UnpaidInvoices
    | Sponsors
    | LastTouch
    | LastOutcome
    | Renewal
    | MrrTrend,
    Field(discriminator="kind"),
]


class Bands(Settings):
    """Red below `amber`, green from `green` on. A band that is shown stays until it is left for good: red up to
    `leave_red`, green down to `leave_green`."""

    amber: Points = 40
    green: Points = 70
    leave_red: Points | None = None
    leave_green: Points | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.amber >= self.green:
            raise ValueError(f"amber starts at {self.amber:g} and green at {self.green:g}: green must start higher")
        if self.leave_red is not None and not self.amber <= self.leave_red <= self.green:
            raise ValueError(f"leave_red is {self.leave_red:g}: red is left between {self.amber:g} and {self.green:g}")
        if self.leave_green is not None and not self.amber <= self.leave_green <= self.green:
            raise ValueError(
                f"leave_green is {self.leave_green:g}: green is left between {self.amber:g} and {self.green:g}"
            )
        return self


class Group(Settings):
    """Measures and groups that weigh together; `weight` is among its siblings."""

    weight: Annotated[float, Field(gt=0)]
    label: Words | None = None
    groups: dict[str, Group] = {}


class When(Settings):
    """Whom a profile is for: one of the names of each field that is written."""

    segment: tuple[str, ...] = ()
    stage: tuple[str, ...] = ()
    product: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.segment or self.stage or self.product):
            raise ValueError("name a segment, a stage or a product: a profile for everybody is the model itself")
        return self


class Profile(Settings):
    """Another way to a score for some accounts: other weights (0 leaves a measure out), scales and bands."""

    when: When
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    groups: dict[str, Annotated[float, Field(gt=0)]] = {}
    scales: dict[str, Scale] = {}
    bands: Bands | None = None
    coverage_floor: Annotated[float, Field(ge=0, le=1)] | None = None


class OpenTicketsThere(Settings):
    """So severe a ticket is open for at least so many days."""

    open_tickets: Annotated[tuple[TicketSeverity, ...], Field(min_length=1)]
    days_open: Annotated[int, Field(ge=0)] = 0


class MeasureSays(Settings):
    """A measure's value or points are beyond a limit, or it is not known."""

    measure: str
    value_below: float | None = None
    value_above: float | None = None
    points_below: Points | None = None
    unknown: Literal[True] | None = None

    @model_validator(mode="after")
    def _has_one_limit(self) -> Self:
        limits = (self.value_below, self.value_above, self.points_below, self.unknown)
        if sum(limit is not None for limit in limits) != 1:
            raise ValueError("write one limit: value_below, value_above, points_below, or unknown: true")
        return self


class Family(Settings):
    """The score of a parent account, from its children's and its own.

    `share_in_band` is the percentage of them in `band`. `own`: the parent's own score counts `as_a_child`, only
    `when_alone` (no child has a score), or `never`.
    """

    by: Literal["mean", "arr_weighted", "share_in_band", "worst"] = "mean"
    band: Literal["red", "amber", "green"] = "green"
    own: Literal["as_a_child", "when_alone", "never"] = "as_a_child"


class Adopted(Settings):
    """A recommended feature is adopted once it is used on `days` local days of the last `within_days`."""

    days: Annotated[int, Field(ge=1)] = 2
    within_days: Days = 30

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.days > self.within_days:
            raise ValueError(f"days is {self.days}: there are only {self.within_days} days within within_days")
        return self


class Guidance(Settings):
    """Which features to recommend: entitled, not used for `window_days`, and used by the green accounts of the segment.

    `share` of at least `green_peers` of them use it; what was recommended is withdrawn below `leave_share`.
    """

    window_days: Days = 90
    green_peers: Annotated[int, Field(ge=2)] = 5
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    leave_share: Annotated[float, Field(ge=0, le=1)] = 0.35
    most_open: Annotated[int, Field(ge=1, le=20)] = 3
    least_age_days: Annotated[int, Field(ge=0, le=3660)] = 30
    cooldown_days: Days = 90
    expires_days: Days = 180
    adopted: Adopted = Adopted()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.leave_share > self.share:
            raise ValueError(f"leave_share {self.leave_share:g} is above share {self.share:g}: it must not be")
        if self.adopted.within_days > self.window_days:
            raise ValueError(
                f"adopted looks back {self.adopted.within_days} days and window_days is {self.window_days}"
            )
        return self

    @property
    def history_days(self) -> int:
        return max(self.window_days, self.least_age_days)


class Cap(Settings):
    """The score is at most `at` while this holds."""

    label: Words
    at: Points
    when: OpenTicketsThere | MeasureSays


class Model(Settings):
    """How a score comes about. Coverage is the share of weight that is measured, not assumed."""

    language: Language = "en"
    coverage_floor: Annotated[float, Field(ge=0, le=1)] = 0.5
    bands: Bands = Bands()
    measures: Annotated[dict[str, AnyMeasure], Field(min_length=1)]
    groups: dict[str, Group] = {}
    profiles: dict[str, Profile] = {}
    caps: dict[str, Cap] = {}
    first_value: Core = Core()
    family: Family | None = None
    guidance: Guidance | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        wrong = list(_disagreements(self))
        if wrong:
            details = [
                InitErrorDetails(type=PydanticCustomError("name", "{said}", {"said": said}), loc=where, input=None)
                for where, said in wrong
            ]
            raise ValidationError.from_exception_data(type(self).__name__, details)
        return self

    @cached_property
    def plans(self) -> Mapping[str, Plan]:
        """How each profile scores, by its name."""
        return plans_of(self)

    @cached_property
    def digest(self) -> str:
        return config.digest_of(self)

    @cached_property
    def looks_ahead(self) -> bool:
        """Whether something to come moves a score day by day."""
        return any(isinstance(measure, Renewal) for measure in self.measures.values())

    @cached_property
    def ranked(self) -> Mapping[str, frozenset[str]]:
        """Measures that are ranked among other accounts, with among whom."""
        found: dict[str, set[str]] = {}
        scales = [
            *self.measures.items(),
            *(one for profile in self.profiles.values() for one in profile.scales.items()),
        ]
        for name, scale in scales:
            if scale.percentile is not None:
                found.setdefault(name, set()).add(scale.percentile.among)
        return {name: frozenset(among) for name, among in found.items()}

    @cached_property
    def listens(self) -> bool:
        """Whether what voice tells moves a score."""
        return any(isinstance(measure, Sentiment) for measure in self.measures.values())

    @property
    def history_days(self) -> int:
        """How many days of use before today a score, or a recommendation, can depend on."""
        score = max(measure.history_days + self._looks_back(measure) for measure in self.measures.values())
        return score if self.guidance is None else max(score, self.guidance.history_days)

    @property
    def horizon_days(self) -> int:
        return max(measure.horizon_days + self._looks_back(measure) for measure in self.measures.values())

    @staticmethod
    def _looks_back(measure: Measure) -> int:
        return measure.last_known_days if measure.missing == "last_known" else 0


Where = tuple[int | str, ...]
RESERVED = ("profile", "config", "override")
"""What a change can be due to besides measures."""


def _disagreements(model: Model) -> Iterator[tuple[Where, str]]:
    """What names in one place that is not there in another, with the place."""
    groups: dict[str, Where] = {}
    yield from _repeated(model.groups, ("groups",), groups)
    for name, measure in model.measures.items():
        if name in RESERVED or ":" in name:
            yield ("measures", name), f"a measure cannot be called {name!r}: changes that are no measure's are"
        if model.groups and measure.group not in groups:
            yield ("measures", name, "group"), f"there is no group {measure.group!r}; there are: {_names(groups)}"
    for name in model.ranked:
        if isinstance(model.measures.get(name), SurveyAnswers | Sentiment):
            yield ("measures", name), "its points fade with age, which a percentile cannot: write worst and best"
    for name, where in groups.items():
        if not any(measure.group in _all_below(model.groups, name) for measure in model.measures.values()):
            yield where, f"no measure is in the group {name!r}"
    for name, cap in model.caps.items():
        if isinstance(cap.when, MeasureSays) and cap.when.measure not in model.measures:
            known = _names(model.measures)
            yield ("caps", name, "when", "measure"), f"there is no measure {cap.when.measure!r}; there are: {known}"
    for name, profile in model.profiles.items():
        if name == DEFAULT:
            yield ("profiles", name), f"{DEFAULT!r} is what a profile is called that nobody wrote"
        for field in ("weights", "scales"):
            for measure_name in getattr(profile, field):
                if measure_name not in model.measures:
                    known = _names(model.measures)
                    yield (
                        ("profiles", name, field, measure_name),
                        f"there is no measure {measure_name!r}; there are: {known}",
                    )
        for group in profile.groups:
            if group not in groups:
                yield ("profiles", name, "groups", group), f"there is no group {group!r}; there are: {_names(groups)}"
        if not any(profile.weights.get(measure_name, 1) for measure_name in model.measures):
            yield ("profiles", name, "weights"), "all weights are 0: nothing is left to score"


def _repeated(groups: Mapping[str, Group], where: Where, seen: dict[str, Where]) -> Iterator[tuple[Where, str]]:
    for name, group in groups.items():
        if name in seen:
            yield (*where, name), f"there are two groups {name!r}; rename one"
        seen[name] = (*where, name)
        yield from _repeated(group.groups, (*where, name, "groups"), seen)


def _all_below(groups: Mapping[str, Group], wanted: str, *, inside: bool = False) -> set[str]:
    """The names of a group and of all groups in it."""
    found: set[str] = set()
    for name, group in groups.items():
        within = inside or name == wanted
        found |= {name} if within else set()
        found |= _all_below(group.groups, wanted, inside=within)
    return found


def _names(known: Iterable[str]) -> str:
    return ", ".join(sorted(known)) or "none"


Percent = Annotated[Decimal, Field(ge=0)]
Level = Literal["contract", "account", "parent"]


class Targets(Settings):
    """What good looks like in a year, over the customers there were at its start; churn is per month."""

    nrr_above: Percent
    grr_above: Percent
    logo_retention_above: Percent
    expansion_above: Percent
    monthly_churn_below: Percent
    roi: tuple[Annotated[Decimal, Field(gt=0)], Annotated[Decimal, Field(gt=0)]]


class RevenueRules(Settings):
    """How recurring revenue is counted; `level` is within what gains and losses cancel out."""

    reporting_currency: Currency = "EUR"
    timezone: ZoneName = "UTC"
    rates: dict[Currency, dict[int, Annotated[Decimal, Field(gt=0)]]] = {}
    level: Level = "account"
    grace_days: Annotated[int, Field(ge=0, le=3660)] = 0
    gross_margin_pct: Annotated[Decimal, Field(gt=0, le=100)] | None = None
    cs_cost_per_year: Annotated[Decimal, Field(gt=0)] | None = None
    business_model: str
    targets: dict[str, Targets]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.business_model not in self.targets:
            known = ", ".join(sorted(self.targets))
            raise ValueError(f"business_model {self.business_model!r} has no targets; there are: {known}")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def target(self) -> Targets:
        return self.targets[self.business_model]


def read_model(text: str | None) -> Model | None:
    """A model as it was kept; None when it is not there, or of a kind that no longer is."""
    try:
        return None if text is None else Model.model_validate_json(text)
    except ValidationError:
        return None


def load_model(path: Path | str) -> config.Loaded[Model]:
    return config.load(path, Model)


def load_revenue_rules(path: Path | str) -> config.Loaded[RevenueRules]:
    return config.load(path, RevenueRules)
