"""What the business sets: the score (`config/health.yaml`), how revenue is counted (`config/revenue.yaml`), and
models of flat tables for the backtest. The alerts are in `rules.py`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared import config
from shared.events.base import Currency
from shared.times import ZoneName

Missing = Literal["ignore", "neutral", "zero", "last_known"]
UseOf = Literal["days", "users", "features"]
Language = Literal["en", "fr"]
Days = Annotated[int, Field(ge=1, le=3660)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Words(Settings):
    """The same words in each language that people read."""

    en: str
    fr: str

    def to(self, language: Language) -> str:
        return self.fr if language == "fr" else self.en


class Measure(Settings):
    """`worst` earns 0 points and `best` 100, straight between; worst above best turns the scale round."""

    label: Words
    group: str
    weight: Annotated[float, Field(gt=0)]
    worst: float
    best: float
    missing: Missing = "ignore"
    last_known_days: Days = 30

    @model_validator(mode="after")
    def _ends_differ(self) -> Self:
        if self.worst == self.best:
            raise ValueError(f"worst and best are both {self.best:g}: a scale needs two different ends")
        return self

    @property
    def horizon_days(self) -> int:
        """After so many days without a new fact the value no longer changes."""
        return max(1, int(max(self.worst, self.best)) + 1)


class Trend(Settings):
    """Use in the last window of complete days, over the mean of the windows before it.

    Below `floor` (mean of the windows before) a ratio would be noise and is not given.
    """

    of: UseOf
    window_days: Days = 30
    baseline_windows: Annotated[int, Field(ge=1, le=12)] = 3
    floor: Annotated[float, Field(ge=0)] = 1.0

    @property
    def reach_days(self) -> int:
        return self.window_days * (self.baseline_windows + 1)


class UsageTrend(Measure):
    kind: Literal["usage_trend"]
    trend: Trend

    @property
    def horizon_days(self) -> int:
        return self.trend.reach_days + 1


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
    weights: dict[Literal["p1", "p2", "p3", "p4"], Annotated[float, Field(ge=0)]]
    double_after_days: Days = 14
    cap_days: Days = 60
    known_days: Days = 365

    @property
    def horizon_days(self) -> int:
        return max(self.cap_days, self.known_days) + 1


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


AnyMeasure = Annotated[
    UsageTrend | UsageRecency | OpenTickets | ReopenedTickets | SurveyAnswers | UnpaidInvoices | Sponsors | LastTouch,
    Field(discriminator="kind"),
]


class Bands(Settings):
    """Red below `amber`, green from `green` on."""

    amber: Annotated[float, Field(ge=0, le=100)] = 40
    green: Annotated[float, Field(ge=0, le=100)] = 70

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.amber >= self.green:
            raise ValueError(f"amber starts at {self.amber:g} and green at {self.green:g}: green must start higher")
        return self


class Model(Settings):
    """How a score comes about. Coverage is the share of weight that is measured, not assumed."""

    language: Language = "en"
    coverage_floor: Annotated[float, Field(ge=0, le=1)] = 0.5
    bands: Bands = Bands()
    measures: Annotated[dict[str, AnyMeasure], Field(min_length=1)]

    @property
    def history_days(self) -> int:
        """How many days of use before today a score can depend on."""
        reach = [
            measure.trend.reach_days + (measure.last_known_days if measure.missing == "last_known" else 0)
            for measure in self.measures.values()
            if isinstance(measure, UsageTrend)
        ]
        return max(reach, default=1)

    @property
    def horizon_days(self) -> int:
        return max(
            measure.horizon_days + (measure.last_known_days if measure.missing == "last_known" else 0)
            for measure in self.measures.values()
        )


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


OTHERWISE = "*"
Points = Annotated[float, Field(ge=0, le=100)]


class Column(Settings):
    """One column of a flat table: numbers between `worst` and `best`, or words by what each is worth.

    In `values` the word `*` stands for every other one.
    """

    kind: Literal["column"]
    column: Annotated[str, Field(min_length=1)]
    label: Words | None = None
    group: str = "table"
    weight: Annotated[float, Field(gt=0)]
    worst: float | None = None
    best: float | None = None
    values: Annotated[dict[str, Points], Field(min_length=1)] | None = None
    missing: Literal["ignore", "neutral", "zero"] = "ignore"

    @field_validator("values", mode="before")
    @classmethod
    def _words_are_text(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if any(isinstance(word, bool) for word in values):
            raise ValueError("YAML reads Yes, No, True, False, on and off as truth values: put them in quotes")
        return {word if isinstance(word, str) else f"{word}": points for word, points in values.items()}

    @model_validator(mode="after")
    def _has_one_scale(self) -> Self:
        ends = [end for end in (self.worst, self.best) if end is not None]
        if len(ends) != (2 if self.values is None else 0):
            raise ValueError("write either both worst and best (for numbers) or values (points for each word)")
        if len(ends) == 2 and ends[0] == ends[1]:
            raise ValueError(f"worst and best are both {ends[0]:g}: a scale needs two different ends")
        return self


class TableModel(Settings):
    """How a row of a flat table is scored: as `Model`, of columns."""

    language: Language = "en"
    coverage_floor: Annotated[float, Field(ge=0, le=1)] = 0.5
    bands: Bands = Bands()
    measures: Annotated[dict[str, Column], Field(min_length=1)]


def load_model(path: Path | str) -> config.Loaded[Model]:
    return config.load(path, Model)


def load_revenue_rules(path: Path | str) -> config.Loaded[RevenueRules]:
    return config.load(path, RevenueRules)


def load_table_model(path: Path | str) -> config.Loaded[TableModel]:
    return config.load(path, TableModel)
