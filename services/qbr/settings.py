"""The knobs of reviews: `config/reviews.yaml`, and `config/surveys.yaml` for what a survey score is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from shared.config import Loaded, load
from shared.events.qbr import ReviewKind
from shared.surveys import SurveyRules
from shared.times import ZoneName

Days = Annotated[int, Field(ge=0, le=366)]


class Cadence(BaseModel):
    """How often a segment is reviewed; a meeting of any kind in `counts` is that review."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ReviewKind
    every: Literal["quarter", "half_year"]
    counts: tuple[ReviewKind, ...]


class Policy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    reporting_zone: ZoneName
    cadence: dict[str, Cadence | None]
    prepare_days: Days
    grace_days: Days
    target_completion: Annotated[float, Field(ge=0, le=100)]
    top_features: Annotated[int, Field(ge=1, le=1000)]

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.reporting_zone)

    def counts(self, kind: str) -> tuple[str, ...]:
        """Kinds of meeting that hold a review of this kind."""
        found = {one for cadence in self.cadence.values() if cadence and cadence.kind == kind for one in cadence.counts}
        return tuple(sorted(found)) or (kind,)


def load_policy(config_dir: Path) -> Loaded[Policy]:
    """Raises Misconfigured with file, line and field."""
    return load(config_dir / "reviews.yaml", Policy)


def load_surveys(config_dir: Path) -> Loaded[SurveyRules]:
    """Raises Misconfigured with file, line and field."""
    return load(config_dir / "surveys.yaml", SurveyRules)
