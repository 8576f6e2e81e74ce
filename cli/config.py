"""`hune config`: is the configuration valid, and what would another one change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel

from cli import output
from cli.reading import AsOf, default_as_of
from cli.support import open_snapshots, run
from cli.times import TIME
from services.health import reading
from services.health.comparing import BANDS, Comparison, Moved
from shared import config
from shared.contract.schemas import CONFIGURATION
from shared.errors import Misconfigured
from shared.settings import config_dir
from shared.times import instant

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SHOWN = 20


@click.group("config")
def command() -> None:
    """Check the configuration, or see what another one would change."""


@command.command("check")
@click.argument("files", nargs=-1, type=FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file.")
def check(files: Sequence[Path], as_json: bool) -> None:
    """Validate FILES, or every YAML file of the configuration's folder."""
    rows = [checked(path) for path in (files or sorted(config_dir().glob("*.yaml")))]
    if not rows:
        raise click.ClickException(f"{config_dir()} has no YAML file; set HUNE_CONFIG_DIR to the folder")
    for row in rows:
        if as_json:
            click.echo(output.json_line(row))
        elif row["errors"]:
            click.echo("\n".join(row["errors"]), err=True)
        else:
            click.echo(f"{row['file']}: valid, {row['digest']}")
    if any(row["errors"] for row in rows):
        raise SystemExit(2)


def checked(path: Path) -> dict[str, Any]:
    """What a file is, its digest, and every error with file, line and field."""
    row: dict[str, Any] = {"file": str(path), "kind": None, "digest": None, "errors": []}
    try:
        row["kind"] = kind_of(path)
        row["digest"] = config.load(path, _model(row["kind"])).digest
    except Misconfigured as error:
        row["errors"] = str(error).splitlines()
    return row


def kind_of(path: Path) -> str:
    """Which file of the configuration this is: by its name, else by what it holds.

    Raises Misconfigured for a file that nobody reads.
    """
    if path.stem in CONFIGURATION:
        return path.stem
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None
    measures = content.get("measures") if isinstance(content, dict) else None
    if isinstance(measures, dict):
        columns = any(isinstance(one, dict) and one.get("kind") == "column" for one in measures.values())
        return "table" if columns else "health"
    known = ", ".join(sorted(f"{name}.yaml" for name in CONFIGURATION))
    raise Misconfigured(f"{path}: nobody reads a file of this name; there are: {known}")


def _model(kind: str) -> type[BaseModel]:
    module, _, name = CONFIGURATION[kind].partition(":")
    model: type[BaseModel] = getattr(import_module(module), name)
    return model


@command.command("diff")
@click.option("--against", type=FILE, required=True, metavar="FILE", help="Another health.yaml.")
@click.option("--config", "ours", type=FILE, help="Instead of the installation's health.yaml.")
@click.option("--as-of", type=TIME, metavar="T", help="The time of the scores (default: the installation's clock).")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def diff(against: Path, ours: Path | None, as_of: datetime | None, as_json: bool) -> None:
    """Score the whole book by another file, too, and show who would change band. Nothing is stored."""
    found, when = run(_compare(against, ours, as_of))
    click.echo(f"as of {instant(when.at)} ({when.why})", err=True)
    click.echo(output.json_line(found) if as_json else described(found))


async def _compare(against: Path, ours: Path | None, as_of: datetime | None) -> tuple[dict[str, Any], AsOf]:
    from cli.home import open_stores

    async with open_stores(need_kafka=False) as stores, open_snapshots(stores) as databases:
        when = AsOf(as_of, "as asked") if as_of else await default_as_of(databases)
        mine, theirs, found = await reading.compare(databases, when.at, against, ours)
        return as_row(found, mine.digest, theirs.digest, when.at), when


def as_row(found: Comparison, ours: str, theirs: str, at: datetime) -> dict[str, Any]:
    return {
        "as_of": instant(at),
        "config_hash": ours,
        "against_hash": theirs,
        "accounts": found.accounts,
        "bands": {band: {"now": found.before[band], "then": found.after[band]} for band in BANDS},
        "mean_change": None if found.mean_change is None else round(found.mean_change, 6),
        "moved": [_moved(one) for one in found.moved],
    }


def _moved(one: Moved) -> dict[str, Any]:
    return {
        "account_id": one.account_id,
        "name": one.name,
        "arr": None if one.arr is None else format(one.arr, "f"),
        "now": {"score": one.before.score, "band": one.before.band, "profile": one.before.profile},
        "then": {"score": one.after.score, "band": one.after.band, "profile": one.after.profile},
        "terms": [{"measure": name, "points": round(points, 6)} for name, points in one.terms],
    }


def described(found: Mapping[str, Any]) -> str:
    """The dry run for reading."""
    lines = [("BAND", "NOW", "THEN")]
    lines += [(band, str(n["now"]), str(n["then"])) for band, n in found["bands"].items()]
    moved = found["moved"]
    change = found["mean_change"]
    head = [
        output.table(lines),
        "",
        f"{len(moved):,} of {found['accounts']:,} accounts would change band"
        + ("" if change is None else f"; the mean score by {change:+.1f}"),
    ]
    return "\n".join([*head, *(["", output.table(list(_rows(moved)))] if moved else [])])


def _rows(moved: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    yield "ACCOUNT", "ARR", "NOW", "THEN", "MOST BY"
    for one in moved[:SHOWN]:
        terms = ", ".join(f"{term['measure']} {term['points']:+.1f}" for term in one["terms"][:3])
        yield (
            one["name"] or one["account_id"],
            one["arr"] or "-",
            _said(one["now"]),
            _said(one["then"]),
            terms or "caps, bands or coverage",
        )
    if len(moved) > SHOWN:
        yield f"and {len(moved) - SHOWN:,} more", "", "", "", "--json has all"


def _said(score: Mapping[str, Any]) -> str:
    return score["band"] if score["score"] is None else f"{score['score']} {score['band']}"
