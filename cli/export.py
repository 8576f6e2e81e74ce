"""`hune export`: figures and decisions as JSON lines or CSV, each with one stated time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from cli import output
from cli.reading import AsOf, default_as_of, exports
from cli.support import Stores, nearest, open_snapshots, run
from cli.times import TIME
from cli.vault import revealed
from shared.times import instant

FORMATS = ("json", "csv", "parquet")


async def rows(stores: Stores, kind: str, as_of: datetime | None = None, **options: Any) -> list[dict[str, Any]]:
    """One kind of figures as of a time (default: live, now; historical, the clock).

    Raises click.BadParameter when no service offers that kind.
    """
    return (await _read(stores, kind, as_of, options))[0]


async def _read(
    stores: Stores, kind: str, as_of: datetime | None, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], AsOf]:
    offered = exports()
    if kind not in offered:
        raise click.BadParameter(f"there is no {kind!r} to export; {_kinds(kind)}", param_hint="KIND")
    async with open_snapshots(stores) as databases:
        when = AsOf(as_of, "as asked") if as_of else await default_as_of(databases)
        given = {name: value for name, value in options.items() if value is not None}
        try:
            return [row for read in offered[kind] for row in await read(databases, when.at, given)], when
        except ValueError as error:
            raise click.UsageError(str(error)) from error


def _kinds(kind: str) -> str:
    known = sorted(exports())
    close = nearest(kind, known)
    return close if close.startswith("there are") else f"{close} There are: {', '.join(known)}"


@click.command("export")
@click.argument("kind")
@click.option("--as-of", type=TIME, metavar="T", help="The time of the figures (default: the installation's clock).")
@click.option("--since", type=TIME, metavar="T", help="Only what happened from then on, where the kind is a list.")
@click.option("--by", metavar="UNIT", help="Another cut: month, segment, …, where the kind has it.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="json", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--contacts/--references", default=True, help="E-mail addresses, or the references of the contact vault.")
def command(
    kind: str,
    as_of: datetime | None,
    since: datetime | None,
    by: str | None,
    format_: str,
    as_json: bool,
    contacts: bool,
) -> None:
    """Write one KIND of figures to stdout, one JSON object a line.

    Kinds: accounts, usage, scores, alerts, nps, segments, reviews, themes and others; an unknown one lists what
    there is.
    """
    if format_ == "parquet":
        raise click.BadParameter("Parquet is not written yet; use csv or json", param_hint="--format")
    if as_of and since and since > as_of:
        raise click.BadParameter("--since is after --as-of: nothing can be in between", param_hint="--since")
    found, when = run(_export(kind, as_of, {"since": since, "by": by}, contacts=contacts))
    click.echo(f"as of {instant(when.at)} ({when.why})", err=True)
    text = output.csv_text(found) if format_ == "csv" and not as_json else output.ndjson(found)
    click.echo(text, nl=False)


async def _export(
    kind: str, as_of: datetime | None, options: dict[str, Any], *, contacts: bool = True
) -> tuple[list[dict[str, Any]], AsOf]:
    from cli.home import open_stores

    if kind not in exports():
        raise click.BadParameter(f"there is no {kind!r} to export; {_kinds(kind)}", param_hint="KIND")
    async with open_stores(need_kafka=False) as stores:
        found, when = await _read(stores, kind, as_of, options)
        return (await revealed(stores, found) if contacts else found), when
