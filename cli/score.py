"""`hune score`: one account's score, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cli import output
from cli.reading import AsOf, default_as_of
from cli.support import Stores, open_snapshots, run
from cli.times import TIME
from cli.vault import named, revealed
from services.health import reading
from shared.times import instant


async def explain(
    stores: Stores,
    account_id: str,
    as_of: datetime | None = None,
    config: Path | None = None,
    *,
    of_then: bool = False,
) -> tuple[Any, AsOf]:
    """The account's score with its parts, as of a time and under a configuration (default: the installation's)."""
    async with open_snapshots(stores) as databases:
        when = AsOf(as_of, "as asked") if as_of else await default_as_of(databases)
        return await reading.explain(databases, account_id, when.at, config, of_then=of_then), when


@click.command("score")
@click.argument("account")
@click.option("--as-of", type=TIME, metavar="T", help="The time of the score (default: the installation's clock).")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Score with this file.")
@click.option("--of-then", is_flag=True, help="Score with the configuration by which it was told then.")
@click.option("--explain", "explain_", is_flag=True, help="Every part: value, points, weight, reason.")
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
def command(
    account: str, as_of: datetime | None, config: Path | None, of_then: bool, explain_: bool, json_: bool
) -> None:
    """Show the score of ACCOUNT and what it is made of."""
    if config and of_then:
        raise click.UsageError("--config and --of-then are two configurations: give one")
    found, when = run(_explain(account, as_of, config, of_then=of_then))
    click.echo(f"as of {instant(when.at)} ({when.why})", err=True)
    click.echo(output.json_line(found) if json_ else described(found, whole=explain_))


async def _explain(account: str, as_of: datetime | None, config: Path | None, *, of_then: bool) -> tuple[Any, AsOf]:
    from cli.home import open_stores

    async with open_stores(need_kafka=False) as stores:
        found, when = await explain(stores, named(stores, account), as_of, config, of_then=of_then)
        return await revealed(stores, found), when


def described(found: Mapping[str, Any], whole: bool) -> str:
    """The score for reading; with `whole` also its parts and what changed it."""
    name = f" ({found['name']})" if found.get("name") else ""
    head = f"{found['account_id']}{name}: {_text(found['score'], 'no score')}, {found['band']}"
    lines = [head, *_sentences(found["why"])]
    if found.get("next_step"):
        lines.append(f"→ {found['next_step']}")
    if whole:
        lines += [
            f"exact {_text(found['exact'])}, from {found['coverage']:.0%} of the weights, "
            f"configuration {found['config_hash']}",
            *_circumstances(found),
            "",
            _parts(found["parts"]),
            "",
            *_change(found["change"]),
            *_recommended(found.get("recommendations", ())),
        ]
    return "\n".join(lines)


def _circumstances(found: Mapping[str, Any]) -> list[str]:
    """The profile, the caps that hold, and what was told then, where there is anything to say of them."""
    lines = []
    if found.get("profile_reason"):
        lines.append(f"profile {found['profile']}: {found['profile_reason']}")
    for cap in found.get("caps", ()):
        lines.append(f"at most {_text(cap['at'])} by cap {cap['cap']} (without caps {_text(found['uncapped'])})")
    shown = found.get("shown")
    if shown and (shown["score"], shown["band"]) != (found["score"], found["band"]):
        told = f"{_text(shown['score'], 'no score')}, {shown['band']}"
        lines.append(f"told on {shown['told_at'][:10]}: {told}, configuration {shown['config_hash']}")
    return lines


def _recommended(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What else the account could use, with the reason."""
    return ["", "recommended:", *(f"  {row['feature']}: {row['why']}" for row in rows)] if rows else []


def _parts(parts: Sequence[Mapping[str, Any]]) -> str:
    lines = [("MEASURE", "GROUP", "VALUE", "POINTS", "WEIGHT", "AS OF", "REASON")]
    lines += [
        (
            part["measure"],
            part["group"],
            _text(part["value"]),
            _text(part["points"]),
            _text(part["weight"]),
            (part["as_of"] or "-")[:10],
            part["reason"] or "",
        )
        for part in parts
    ]
    return output.table(lines)


def _change(change: Mapping[str, Any]) -> list[str]:
    since = f"since {change['since'][:10]} (then {_text(change['score'], 'no score')}, {change['band']})"
    lines = [f"{since}: {' '.join(_sentences(change['why'])) or 'nothing changed'}"]
    return lines + [f"  {share['points']:+.1f}  {share['cause']}" for share in change["shares"]]


def _sentences(why: Any) -> list[str]:
    return [why] if isinstance(why, str) and why else [str(part) for part in why or ()]


def _text(value: Any, unknown: str = "-") -> str:
    if value is None:
        return unknown
    return f"{value:.6g}" if isinstance(value, float) else str(value)
