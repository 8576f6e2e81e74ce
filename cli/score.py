"""`hune score`: one account's score, and why."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cli import output
from cli.reading import AsOf, default_as_of
from cli.support import Stores, open_databases, run
from cli.times import TIME
from services.health import reading
from shared.times import instant


async def explain(
    stores: Stores, account_id: str, as_of: datetime | None = None, config: Path | None = None
) -> tuple[Any, AsOf]:
    """The account's score with its parts, as of a time and under a configuration (default: the installation's)."""
    async with open_databases(stores) as databases, AsyncExitStack() as snapshots:
        for database in databases:
            snapshot = database.transaction(isolation="repeatable_read", readonly=True)
            await snapshots.enter_async_context(snapshot)
        when = AsOf(as_of, "as asked") if as_of else await default_as_of(databases)
        return await reading.explain(databases, account_id, when.at, config), when


@click.command("score")
@click.argument("account")
@click.option("--as-of", type=TIME, metavar="T", help="The time of the score (default: the installation's clock).")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Score with this file.")
@click.option("--explain", "explain_", is_flag=True, help="Every part: value, points, weight, reason.")
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
def command(account: str, as_of: datetime | None, config: Path | None, explain_: bool, json_: bool) -> None:
    """Show the score of ACCOUNT and what it is made of."""
    found, when = run(_explain(account, as_of, config))
    click.echo(f"as of {instant(when.at)} ({when.why})", err=True)
    if not found:
        raise click.ClickException(f"account {account!r} is not known; `hune export accounts` names them")
    click.echo(output.json_line(found) if json_ else described(found, whole=explain_))


async def _explain(account: str, as_of: datetime | None, config: Path | None) -> tuple[Any, AsOf]:
    from cli.home import open_stores

    async with open_stores(need_kafka=False) as stores:
        return await explain(stores, account, as_of, config)


def described(found: Mapping[str, Any], whole: bool) -> str:
    """The score for reading; with `whole` also its parts."""
    head = [f"{found.get('account_id')}: {_points(found.get('score'))}, {found.get('band')}"]
    if isinstance(found.get("why"), str):
        head.append(found["why"])
    if not whole:
        return "\n".join(head)
    shown = {"account_id", "score", "band", "why", "parts"}
    facts = [(name.replace("_", " "), value) for name, value in found.items() if name not in shown]
    head += [f"{name}: {_text(value)}" for name, value in facts if value is not None]
    return "\n".join([*head, "", _parts(found.get("parts") or ())])


def _parts(parts: Any) -> str:
    lines = [("MEASURE", "GROUP", "VALUE", "POINTS", "WEIGHT", "REASON")]
    lines += [
        (
            str(part["measure"]),
            str(part["group"]),
            _text(part["value"]),
            _points(part["points"]),
            _text(part["weight"]),
            part.get("reason") or "",
        )
        for part in parts
    ]
    return output.table(lines)


def _points(value: Any) -> str:
    return "not known" if value is None else _text(value)


def _text(value: Any) -> str:
    plain = output.plain(value)
    if plain is None:
        return "-"
    if isinstance(plain, float):
        return f"{plain:.6g}"
    return output.json_line(plain) if isinstance(plain, dict | list) else str(plain)
