"""Ops' knobs: `config/segments.yaml`."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.config import Loaded, load
from shared.events.base import Currency
from shared.events.ops import Coverage, RevenueKind
from shared.times import ZoneName

FILE = "segments.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ratio(_Part):
    """How many accounts one person can look after well."""

    min: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max {self.max} is below min {self.min}")
        return self


class Tier(_Part):
    """Accounts from a revenue on (`arr_from`) or above it (`arr_over`)."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    arr_over: Annotated[Decimal, Field(ge=0)] | None = None
    arr_from: Annotated[Decimal, Field(ge=0)] | None = None
    accounts_per_csm: Ratio
    cadence_days: Annotated[int, Field(ge=1)] | None = None
    answer_within_hours: Annotated[int, Field(ge=1)] | None = None
    review: str | None = None
    coverage: Coverage = "named"

    @model_validator(mode="after")
    def _has_one_threshold(self) -> Self:
        if (self.arr_over is None) == (self.arr_from is None):
            raise ValueError("write either arr_over or arr_from")
        return self

    @property
    def threshold(self) -> Decimal:
        return self.arr_over if self.arr_over is not None else self.arr_from or Decimal(0)

    def takes(self, arr: Decimal) -> bool:
        return arr > self.threshold if self.arr_over is not None else arr >= self.threshold


class SegmentRules(_Part):
    """The whole file; tiers run from the highest ARR down and the last takes everybody."""

    reporting_currency: Currency = "EUR"
    timezone: ZoneName = "UTC"
    arr_sources: tuple[RevenueKind, ...] = ("account", "contract", "subscription")
    hysteresis: Annotated[Decimal, Field(ge=0, lt=1)] = Decimal("0.10")
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)]
    reply_window_days: Annotated[int, Field(ge=1)] = 30
    rates: dict[Currency, dict[int, Annotated[Decimal, Field(gt=0)]]] = {}

    @model_validator(mode="after")
    def _tiers_descend(self) -> Self:
        for above, below in pairwise(self.tiers):
            if below.threshold >= above.threshold:
                raise ValueError(f"tier {below.name} starts at {below.threshold}, not below {above.name}")
        if not self.tiers[-1].takes(Decimal(0)):
            raise ValueError(f"the last tier, {self.tiers[-1].name}, must take everybody: write arr_from: 0")
        if len({tier.name for tier in self.tiers}) < len(self.tiers):
            raise ValueError("two tiers share a name")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def tier(self, name: str | None) -> Tier | None:
        return next((tier for tier in self.tiers if tier.name == name), None)


def load_segment_rules(config_dir: Path) -> Loaded[SegmentRules]:
    """How accounts are segmented.

    Raises Misconfigured with file, line and field.
    """
    return load(config_dir / FILE, SegmentRules)
