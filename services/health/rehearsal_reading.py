"""What `hune rehearse --alerts` reads and works out: the whole history under rules that may not be in use yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from services.health import rehearsal
from services.health.backtest_reading import read_history
from services.health.book_reading import Counts, count_book
from services.health.domain import Policy
from services.health.facts import Facts
from services.health.policy import load_policy
from shared.db import Connection
from shared.errors import Misconfigured
from shared.times import instant

Row = dict[str, Any]


async def rehearse_alerts(
    dbs: Sequence[Connection], start: datetime, end: datetime, config: Path | None = None,
    budget: int = rehearsal.BUDGET,
) -> Row:  # fmt: skip
    """What each person would have received per week and what had been told before each leave.

    Under `config` (an alerts.yaml or a health.yaml) the figures of the installation's own stand beside as `current`.
    Raises Misconfigured when the file is neither.
    """
    book = await read_history(dbs, end)
    counts = await count_book(dbs, book)
    found = _rehearsed(book, counts, policy_with(config), start, end, budget)
    if config is not None:
        found["current"] = _rehearsed(book, counts, load_policy(), start, end, budget)["summary"]
    return found


def policy_with(config: Path | None) -> Policy:
    """The installation's policy with one file instead of its own."""
    if config is None:
        return load_policy()
    try:
        said = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Misconfigured(f"{config}: cannot be read as YAML: {error}") from error
    if isinstance(said, dict) and "rules" in said:
        return load_policy(rules=config)
    if isinstance(said, dict) and "measures" in said:
        return load_policy(model=config)
    raise Misconfigured(f"{config}: has neither rules (alerts.yaml) nor measures (health.yaml)")


def _rehearsed(
    book: Sequence[Facts], counts: Counts, policy: Policy, start: datetime, end: datetime, budget: int
) -> Row:
    told, breaks = rehearsal.rehearse_data(*counts, policy, start, end)
    left: list[rehearsal.Leave] = []
    for one in book:
        known = one.under(breaks)
        own = rehearsal.rehearse(known, policy, start, end)
        told += own
        left += rehearsal.leaves(known, own, start, end)
    rows = rehearsal.weeks(told, start, end)
    return {
        "from": instant(start),
        "to": instant(end),
        "config_hash": policy.digest,
        "accounts": len(book),
        "summary": rehearsal.summary(told, left, rows, budget),
        "rules": rehearsal.per_rule(told, left),
        "weeks": rows,
        "left": [rehearsal.leave_row(one) for one in sorted(left, key=lambda one: (one.left_at, one.account_id))],
        "alerts": [
            {name: _plain(value) for name, value in asdict(one).items()}
            for one in sorted(told, key=lambda one: (one.opened_at, one.account_id, one.rule))
        ],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant(value)
    return [instant(one) for one in value] if isinstance(value, tuple) else value
