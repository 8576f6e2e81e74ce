"""`hune keys`: write keys for the gateway's doors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from cli import output
from cli.support import Result, control_url, run
from services.gateway import keys as gateway_keys
from shared import db


@click.group("keys")
def command() -> None:
    """Make, list and revoke the keys that may send events and requests."""


@command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help="ingest, requests, accounts, privacy, or webhook:TOOL (a token for its address). Default: the first two.",
)
@click.option("--json", "json_", is_flag=True, help='As JSON: {"key": …}.')
def create(name: str, scopes: Sequence[str], json_: bool) -> None:
    """Make a key called NAME and show it, this once."""
    scopes = scopes or gateway_keys.SCOPES
    key = run(_with_control(lambda control: gateway_keys.create_key(control, name, scopes)))
    if json_:
        click.echo(output.json_line({"key": key}))
        return
    click.echo(key)
    click.echo("keep it now: only its hash is stored, it cannot be shown again", err=True)


@command.command("list")
@click.option("--json", "json_", is_flag=True, help="One JSON object a line.")
def list_(json_: bool) -> None:
    """List the keys there are, without their secrets."""
    rows = [_without_secret(row) for row in run(_with_control(gateway_keys.list_keys))]
    if json_:
        click.echo(output.ndjson(rows), nl=False)
    elif not rows:
        click.echo("there are no keys; `hune keys create NAME` makes one")
    else:
        names = list(rows[0])
        lines = [tuple(name.replace("_", " ").upper() for name in names)]
        lines += [tuple(_text(output.plain(row[name])) for name in names) for row in rows]
        click.echo(output.table(lines))


@command.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke the key called NAME; the gateways refuse it within about a second."""
    if not run(_with_control(lambda control: gateway_keys.revoke_key(control, name))):
        raise click.BadParameter(f"there is no live key {name!r}; `hune keys list` names them", param_hint="NAME")
    click.echo(f"revoked {name}")


def _without_secret(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, bytes | memoryview)}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return "-" if value is None else str(value)


async def _with_control(work: Callable[[db.Connection], Awaitable[Result]]) -> Result:
    from cli.home import open_stores

    async with open_stores(need_kafka=False) as stores:
        control = await db.connect(control_url(stores))
        try:
            return await work(control)
        finally:
            await control.close()
