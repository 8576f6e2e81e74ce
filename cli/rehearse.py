"""`hune rehearse`: what other rules would have done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from cli import output
from cli.reading import default_as_of
from cli.support import open_snapshots, run
from cli.times import TIME
from services.health import rehearsal
from services.health.rehearsal_reading import rehearse_alerts
from shared.errors import Misconfigured
from shared.times import instant

DAYS = 90
MOST_SHOWN = 12


@click.command("rehearse")
@click.option("--alerts", is_flag=True, required=True, help="Go through the history and count what would have rung.")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Rules or a model to try.")
@click.option("--from", "start", type=TIME, metavar="T", help=f"Where to begin (default: {DAYS} days before the end).")
@click.option("--to", "end", type=TIME, metavar="T", help="Where to end (default: the installation's clock).")
@click.option("--budget", type=click.IntRange(1), default=rehearsal.BUDGET, show_default=True, metavar="N",
              help="So many alerts a person gets to in a week.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(
    alerts: bool, config: Path | None, start: datetime | None, end: datetime | None, budget: int, as_json: bool
) -> None:
    """Show what each CSM would have received per week, and what was told before each customer left."""
    found = run(_rehearse(config, start, end, budget))
    click.echo(output.json_line(found) if as_json else described(found))


async def _rehearse(config: Path | None, start: datetime | None, end: datetime | None, budget: int) -> Any:
    from cli.home import open_stores

    async with open_stores(need_kafka=False) as stores, open_snapshots(stores) as databases:
        end = end or (await default_as_of(databases)).at
        start = start or end - timedelta(days=DAYS)
        if start >= end:
            raise Misconfigured(f"--from {instant(start)} is not before --to {instant(end)}")
        return await rehearse_alerts(databases, start, end, config, budget)


def described(found: Mapping[str, Any]) -> str:
    """For reading: the figures, each person's weeks, each rule, and who left."""
    lines = [f"{found['from'][:10]} to {found['to'][:10]}, {found['accounts']} accounts, {found['config_hash']}", ""]
    lines += _figures(found["summary"], found.get("current"))
    lines += ["", _weeks(found["weeks"]), "", _rules(found["rules"])]
    if found["left"]:
        lines += ["", _left(found["left"])]
    return "\n".join(lines)


def _figures(said: Mapping[str, Any], current: Mapping[str, Any] | None) -> list[str]:
    names = {
        "alerts": "alerts told",
        "escalated": "of which grew (nobody acknowledging)",
        "alerts_per_csm_week": "alerts per CSM and week",
        "most_in_a_week": "most in a week of one CSM",
        "csm_weeks_over_budget": f"weeks above {said['budget']} (of {said['csm_weeks']})",
        "left": "customers who left",
        "missed": "of which nothing was told before",
        "median_days_before": "median days from the first alert to leaving",
    }
    rows = [("", "WITH IT", "NOW") if current else ("", "")]
    for name, label in names.items():
        row = (label, _text(said[name]))
        rows.append((*row, _text(current[name])) if current else row)
    return [output.table(rows)]


def _weeks(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "nobody would have heard anything"
    weeks = sorted({row["week"] for row in rows})[-MOST_SHOWN:]
    alerts = {(row["csm"], row["week"]): row["alerts"] for row in rows}
    owners = sorted({row["csm"] for row in rows})
    head = ("CSM", *(week[5:] for week in weeks))
    return output.table([head, *((owner, *(str(alerts[owner, week]) for week in weeks)) for owner in owners)])


def _rules(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("RULE", "ALERTS", "ACCOUNTS", "BEFORE LEAVING")
    body = [(row["rule"], str(row["alerts"]), str(row["accounts"]), str(row["before_leaving"])) for row in rows]
    return output.table([head, *body])


def _left(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("LEFT", "ACCOUNT", "CSM", "DAYS BEFORE", "RULES")
    body = [
        (row["left_at"][:10], row["name"] or row["account_id"], row["csm"], _text(row["days_before"], "missed"),
         ", ".join(row["rules"]))
        for row in rows
    ]  # fmt: skip
    return output.table([head, *body])


def _text(value: Any, unknown: str = "-") -> str:
    if value is None:
        return unknown
    return f"{value:.1f}" if isinstance(value, float) else str(value)
