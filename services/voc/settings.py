"""Voice's knobs: `config/voc.yaml`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.voc.domain import Policy
from services.voc.language import COVERED
from services.voc.lexicon import Lexicon, compile_lexicon
from services.voc.themes import KINDS
from shared.config import load
from shared.errors import Misconfigured

FILE = "voc.yaml"
LISTS = Path(__file__).parent / "lexicon"
ThemeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=120)]


class _Knobs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OwnTheme(_Knobs):
    """A theme of the company's own, or more words for one that is shipped."""

    kind: str | None = None
    risk: bool = False
    affirmed: bool = False
    en: tuple[Word, ...] = ()
    fr: tuple[Word, ...] = ()

    @model_validator(mode="after")
    def _known_kind(self) -> OwnTheme:
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it takes {', '.join(KINDS)}")
        return self


class Mismatch(_Knobs):
    """When the words belie the score: bars on the score (0 to 1 of its scale) and on the sentiment (-1 to 1)."""

    high_score_from: float = Field(0.85, ge=0, le=1)
    low_score_to: float = Field(0.6, ge=0, le=1)
    praise_from: float = Field(0.35, ge=0, le=1)
    complaint_to: float = Field(-0.35, ge=-1, le=0)


class Segments(_Knobs):
    """Yearly revenue from which an account counts as mid and as high touch, for the breadth of a wish."""

    mid_from: Decimal = Decimal(5000)
    high_above: Decimal = Decimal(50000)


class VocSettings(_Knobs):
    """`config/voc.yaml`."""

    reporting_currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "EUR"
    trend_days: int = Field(30, ge=1, le=366)
    quote_chars: int = Field(140, ge=0, le=2000)
    mismatch: Mismatch = Mismatch()
    segments: Segments = Segments()
    themes: dict[ThemeName, OwnTheme] = {}


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything a reading depends on, with the digest that is stamped on what it produced."""

    lexicon: Lexicon
    policy: Policy
    digest: str


def load_rules(config_dir: Path) -> Rules:
    """The word lists and the policy.

    Raises Misconfigured with file, line and field, or the theme and the fix.
    """
    loaded = load(config_dir / FILE, VocSettings)
    try:
        return rules_of(loaded.model, loaded.digest)
    except Misconfigured as error:
        raise Misconfigured(f"{loaded.path}: {error}") from error


def shipped() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The word lists of this version: moods by language, and the taxonomy."""
    moods = {language: yaml.safe_load((LISTS / f"sentiment.{language}.yaml").read_text()) for language in COVERED}
    return moods, yaml.safe_load((LISTS / "themes.yaml").read_text())


def rules_of(settings: VocSettings, digest: str = "") -> Rules:
    moods, taxonomy = shipped()
    own = {name: theme.model_dump(mode="json", exclude_defaults=True) for name, theme in settings.themes.items()}
    lexicon = compile_lexicon(moods, taxonomy, own)
    policy = Policy(
        reporting_currency=settings.reporting_currency,
        trend_days=settings.trend_days,
        quote_chars=settings.quote_chars,
        high_score_from=settings.mismatch.high_score_from,
        low_score_to=settings.mismatch.low_score_to,
        praise_from=settings.mismatch.praise_from,
        complaint_to=settings.mismatch.complaint_to,
        mid_from=settings.segments.mid_from,
        high_above=settings.segments.high_above,
        risk_themes=frozenset(theme.name for theme in lexicon.themes.values() if theme.risk),
        themes=tuple(sorted(lexicon.themes)),
    )
    return Rules(lexicon, policy, hashlib.sha256(f"{digest}/{lexicon.digest}".encode()).hexdigest()[:12])
