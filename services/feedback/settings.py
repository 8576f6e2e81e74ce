"""Feedback's knobs: `config/surveys.yaml`."""

from __future__ import annotations

from pathlib import Path

from shared.config import Loaded, load
from shared.surveys import SurveyRules

FILE = "surveys.yaml"


def load_rules(config_dir: Path) -> Loaded[SurveyRules]:
    """How survey answers become scores.

    Raises Misconfigured with file, line and field.
    """
    return load(config_dir / FILE, SurveyRules)
