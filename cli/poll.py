"""`hune poll`: how far the feeds of polled tools are, and reading one again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from cli import output
from cli.support import control_url, run
from cli.times import TIME
from services.gateway.pollers.settings import Pollers, load
from services.gateway.pollers.store import list_polls, rewind
from shared import db
from shared.settings import config_dir


@click.group("poll")
def command() -> None:
    """Show how far the tools that the gateway asks are read, or have a feed read again."""


@command.command("status")
@click.option("--json", "json_", is_flag=True, help="One JSON object a line.")
def status(json_: bool) -> None:
    """Show every feed: its state, the last whole round, the cursor, how far that is behind, and what is wrong.

    Exits with 1 while a feed that is enabled fails.
    """
    rows = report(load(config_dir()), run(_load()))
    if json_:
        click.echo(output.ndjson(rows), nl=False)
    elif not rows:
        click.echo("no tool is asked; config/pollers.yaml enables them")
    else:
        click.echo(_table(rows))
    if any(row["state"] == "failing" for row in rows):
        raise SystemExit(1)


@command.command("rewind")
@click.argument("feed", metavar="TOOL.FEED")
@click.option("--to", type=TIME, required=True, metavar="T", help="From when on it is read again.")
def rewind_(feed: str, to: datetime) -> None:
    """Have the feed read again from T on; what was delivered before counts once."""
    tool, _, name = feed.partition(".")
    pollers = load(config_dir())
    known = [f"{tool}.{one}" for tool in type(pollers).model_fields for one in getattr(pollers, tool).feeds]
    if feed not in known:
        raise click.BadParameter(f"there is no feed {feed!r}; there are {', '.join(known)}", param_hint="TOOL.FEED")
    run(_rewind(tool, name, to))
    click.echo(f"{feed} is read again from {output.plain(to)} on")


def report(pollers: Pollers, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each feed that is enabled or was ever read."""
    enabled = pollers.enabled()
    wanted = {(tool, feed) for tool, poll in enabled.items() for feed in poll.feeds}
    known = {(row["tool"], row["feed"]): row for row in rows}
    return [
        _row(tool, feed, known.get((tool, feed)), (tool, feed) in wanted) for tool, feed in sorted(wanted | {*known})
    ]


def _row(tool: str, feed: str, row: Mapping[str, Any] | None, is_enabled: bool) -> dict[str, Any]:
    found: Mapping[str, Any] = row or {}
    position = found.get("position")
    return {
        "feed": f"{tool}.{feed}",
        "state": _state(found, is_enabled),
        "succeeded_at": output.plain(found.get("succeeded_at")),
        "cursor": output.plain(position),
        "lag_s": round((found["now"] - position).total_seconds()) if position is not None else None,
        "records": found.get("records", 0),
        "unread": found.get("unread", 0),
        "failures": found.get("failures", 0),
        "error": found.get("error"),
        "error_at": output.plain(found.get("error_at")),
        "next_at": output.plain(found.get("due_at")) if is_enabled else None,
        "holder": found.get("holder"),
    }


def _state(row: Mapping[str, Any], is_enabled: bool) -> str:
    if not is_enabled:
        return "off"
    if row.get("error"):
        return "failing"
    if row.get("holder"):
        return "reading"
    return "waiting" if row.get("succeeded_at") else "new"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [("FEED", "STATE", "LAST ROUND", "CURSOR", "BEHIND", "RECORDS", "UNREAD", "ERROR")]
    for row in rows:
        behind = "-" if row["lag_s"] is None else f"{row['lag_s']} s"
        shown = (row["feed"], row["state"], row["succeeded_at"], row["cursor"], behind, row["records"], row["unread"])
        lines.append((*("-" if one is None else str(one) for one in shown), row["error"] or ""))  # type: ignore[arg-type]
    return output.table(lines)


async def _load() -> list[Mapping[str, Any]]:
    from cli.home import open_stores

    async with open_stores(need_kafka=False, quiet=True) as stores:
        control = await db.connect(control_url(stores))
        try:
            return await list_polls(control)
        finally:
            await control.close()


async def _rewind(tool: str, feed: str, to: datetime) -> None:
    from cli.home import open_stores

    async with open_stores(need_kafka=False, quiet=True) as stores:
        control = await db.connect(control_url(stores))
        try:
            await rewind(control, tool, feed, to.astimezone(UTC))
        finally:
            await control.close()
