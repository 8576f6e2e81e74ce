"""Reads what the business set: `health.yaml`, `alerts.yaml` and `revenue.yaml` of the configuration's folder."""

from __future__ import annotations

from pathlib import Path

from services.health.domain import Policy
from services.health.rules import Rules
from services.health.settings import RevenueRules, load_model, load_revenue_rules
from shared import config
from shared.settings import config_dir


def load_policy(model: Path | str | None = None, rules: Path | str | None = None) -> Policy:
    """The policy as files say it; raises Misconfigured naming file, line and field."""
    folder = config_dir()
    score = load_model(model or folder / "health.yaml")
    alerts = config.load(rules or folder / "alerts.yaml", Rules)
    return Policy(score.model, alerts.model, config.digest_of(score.model, alerts.model))


def load_revenue(path: Path | str | None = None) -> RevenueRules:
    """How revenue is counted; raises Misconfigured naming file, line and field."""
    return load_revenue_rules(path or config_dir() / "revenue.yaml").model
