"""Reads the policy: `health.yaml` and `alerts.yaml` of the configuration's folder."""

from __future__ import annotations

import os
from pathlib import Path

from services.health.domain import Policy
from services.health.settings import load_model, load_rules
from shared import config

CONFIG_DIR = Path(__file__).parents[2] / "config"


def load_policy(model: Path | str | None = None, rules: Path | str | None = None) -> Policy:
    """The policy as files say it; raises Misconfigured naming file, line and field."""
    folder = Path(os.environ.get("HUNE_CONFIG_DIR", CONFIG_DIR))
    score = load_model(model or folder / "health.yaml")
    alerts = load_rules(rules or folder / "alerts.yaml")
    return Policy(score.model, alerts.model, config.digest_of(score.model, alerts.model))
