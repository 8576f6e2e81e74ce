"""`hune quarantine`: what could not be read or applied, why, and reading it again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from cli import output, unread
from cli.support import Stores, nearest, open_databases, run
from shared import db
from shared.runtime.wire import unpack_headers
from shared.times import instant
from shared.vault.keys import Unreadable

WAIT_S = 60.0
LOOK_S = 0.2
IMPORT = "import"
SHOWN_BYTES = 4096
FIX_IMPORT = (
    "correct that line in the file and import it again; rows that were applied do not count twice "
    "if the file gives them a time of their own"
)

LIST = """
    select id, service, topic, partition, record_offset, reason, error, state, refused_at, attempts
      from hune.quarantine
     where ($1::text is null or service = $1) and ($2 or state <> 'applied')
     order by refused_at, id
     limit $3
"""

LOAD = "select * from hune.quarantine where id = $1"

LIST_IDS = """
    select id from hune.quarantine
     where state = 'held' and ($1::text is null or service = $1) and service <> 'import'
     order by refused_at, id
"""

LIST_KNOWN_IDS = "select id from hune.quarantine order by refused_at desc limit 1000"

ASK = "update hune.quarantine set state = 'redrive' where id = any($1::text[]) and state = 'held' returning id"

OUTCOMES = "select id, state, attempts, reason, error from hune.quarantine where id = any($1::text[])"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record: `applied`, `held` again, or `waiting` when nobody read it in time."""

    id: str
    state: str
    reason: str = ""
    error: str = ""

    def line(self) -> str:
        match self.state:
            case "applied":
                return f"{self.id}: applied"
            case "waiting":
                return f"{self.id}: not read yet; its service does so as soon as it runs (`hune status`)"
            case _:
                return f"{self.id}: held again: {self.reason}{f' ({self.error})' if self.error else ''}"


async def held(
    stores: Stores, service: str | None = None, include_applied: bool = False, limit: int = 1_000_000
) -> list[dict[str, Any]]:
    """What is in quarantine, oldest first, over all databases."""
    async with open_databases(stores) as databases:
        found = [
            dict(row) for database in databases for row in await database.fetch(LIST, service, include_applied, limit)
        ]
    return sorted(found, key=lambda row: (row["refused_at"], row["id"]))[:limit]


async def load(stores: Stores, id: str) -> dict[str, Any]:
    """One quarantined record whole.

    Raises click.BadParameter with the nearest ids.
    """
    async with open_databases(stores) as databases:
        for database in databases:
            row = await database.fetchrow(LOAD, id)
            if row is not None:
                return {**row, "value": await _content(stores, row["value"])}
        raise _unknown(id, [row["id"] for database in databases for row in await database.fetch(LIST_KNOWN_IDS)])


async def _content(stores: Stores, value: bytes | None) -> bytes | None:
    """What the record's body stands for, where the contact vault tells it here."""
    try:
        return value and await unread.content_of(stores, value)
    except Unreadable:
        return value


def _unknown(id: str, known: Collection[str]) -> click.BadParameter:
    hint = nearest(id, known) if known else "the quarantine is empty"
    hint = "`hune quarantine list` names them" if len(hint) > 300 else hint
    return click.BadParameter(f"there is no quarantined record {id!r}; {hint}", param_hint="ID")


async def redrive(
    stores: Stores,
    ids: Sequence[str] = (),
    *,
    service: str | None = None,
    timeout: float = WAIT_S,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Have records read again by the service that refused them (no ids: all it holds) and wait for each.

    Raises click.BadParameter for an id that is not held, or was held by an import.
    """
    async with open_databases(stores) as databases:
        homes: list[tuple[db.Connection, list[str]]] = []
        outcomes: list[Outcome] = []
        await _check(databases, ids)
        for database in databases:
            own = list(ids) if ids else [row["id"] for row in await database.fetch(LIST_IDS, service)]
            for delivery in await unread.redrive(stores, database, own):
                own.remove(delivery.id)
                state = "applied" if delivery.error is None else "held"
                outcomes.append(Outcome(delivery.id, state, delivery.error or ""))
                on_outcome(outcomes[-1])
            rows = await database.fetch(ASK, own)
            homes.append((database, [row["id"] for row in rows]))
        for database, own in homes:
            outcomes += await _wait(database, own, timeout, on_outcome)
        return outcomes


async def _check(databases: Sequence[db.Connection], ids: Sequence[str]) -> None:
    rows = [row for database in databases for row in await database.fetch(OUTCOMES, list(ids))]
    states = {row["id"]: row["state"] for row in rows}
    for id in ids:
        if id not in states:
            known = [row["id"] for database in databases for row in await database.fetch(LIST_KNOWN_IDS)]
            raise _unknown(id, known)
        if id.startswith(f"{IMPORT}:"):
            raise click.BadParameter(f"{id} is a row of a file: {FIX_IMPORT}", param_hint="ID")
        if states[id] == "applied":
            raise click.BadParameter(f"{id} has been applied already", param_hint="ID")


async def _wait(
    database: db.Connection, ids: Sequence[str], timeout: float, on_outcome: Callable[[Outcome], None]
) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    waiting = set(ids)
    outcomes: list[Outcome] = []
    while waiting:
        for row in await database.fetch(OUTCOMES, sorted(waiting)):
            is_over = loop.time() > deadline
            if row["state"] == "redrive" and not is_over:
                continue
            state = "waiting" if row["state"] == "redrive" else row["state"]
            outcome = Outcome(row["id"], state, row["reason"], row["error"] or "")
            waiting.discard(outcome.id)
            outcomes.append(outcome)
            on_outcome(outcome)
        if waiting:
            await asyncio.sleep(LOOK_S)
    return outcomes


def fix_of(row: dict[str, Any]) -> str:
    """What a person can do about a quarantined record."""
    if row["service"] == IMPORT:
        return FIX_IMPORT
    if row["state"] == "redrive":
        return "it is being read again"
    if row["state"] == "applied":
        return "nothing: it has been applied"
    return (
        "send a corrected event from its source, or, when what refused it has been mended "
        f"(a newer Hune, a changed configuration), `hune quarantine redrive {row['id']}`"
    )


def body_of(value: bytes | None) -> str:
    """The bytes as text where they are text, else in hexadecimal."""
    if value is None:
        return "(none)"
    cut = value[:SHOWN_BYTES]
    more = f" … ({len(value):,} bytes)" if len(value) > len(cut) else ""
    try:
        text = cut.decode("utf-8", "strict" if not more else "ignore")
    except UnicodeDecodeError:
        return f"hex {cut.hex(' ')}{more}"
    if any(character < " " and character not in "\t\r\n" for character in text):
        return f"hex {cut.hex(' ')}{more}"
    return text + more


def described(row: dict[str, Any]) -> str:
    """A quarantined record for reading."""
    where = f"{row['topic']}/{row['partition']} offset {row['record_offset']}"
    if row["service"] == IMPORT:
        where = f"{row['topic']} line {row['record_offset']}"
    pairs = [
        ("id", row["id"]),
        ("refused by", row["service"]),
        ("reason", row["reason"]),
        ("error", row["error"] or ""),
        ("record", where),
        ("received at", instant(row["broker_time"])),
        ("refused at", f"{instant(row['refused_at'])} (attempt {row['attempts']})"),
        ("state", row["state"]),
        ("key", body_of(row["key"])),
    ]
    lines = [f"{name:12} {value}" for name, value in pairs if value]
    lines += [f"{'header':12} {name}: {body_of(value)}" for name, value in unpack_headers(row["headers"])]
    return "\n".join([*lines, f"{'fix':12} {fix_of(row)}", "", body_of(row["value"])])


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A quarantined record as JSON: bytes as text, or as hexadecimal when they are none."""
    plain = {name: value for name, value in row.items() if name not in ("headers", "key", "value")}
    if "headers" in row:
        plain["headers"] = [[name, body_of(value)] for name, value in unpack_headers(row["headers"])]
        plain |= {"key": body_of(row["key"]) if row["key"] is not None else None, "body": body_of(row["value"])}
    return {name: _z(value) for name, value in plain.items()} | {"fix": fix_of(row)}


def _z(value: Any) -> Any:
    return instant(value) if isinstance(value, datetime) else value


@click.group("quarantine")
def command() -> None:
    """Look at what could not be applied, and have it read again."""


@command.command("list")
@click.option("--service", help="Only what this service refused.")
@click.option("--all", "include_applied", is_flag=True, help="Also what has been applied since.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--json", "json_", is_flag=True, help="One JSON object a line.")
def list_(service: str | None, include_applied: bool, limit: int, json_: bool) -> None:
    """List what is in quarantine, oldest first."""
    rows = run(_with_stores(lambda stores: held(stores, service, include_applied, limit)))
    if json_:
        click.echo(output.ndjson([as_json(row) for row in rows]), nl=False)
        return
    if not rows:
        click.echo("nothing is in quarantine")
        return
    lines = [("ID", "REFUSED AT", "STATE", "REASON")]
    for row in rows:
        why = f"{row['reason']}: {row['error']}" if row["error"] else row["reason"]
        lines.append((row["id"], instant(row["refused_at"])[:19] + "Z", row["state"], _short(why)))
    click.echo(output.table(lines))
    if len(rows) == limit:
        click.echo(f"the oldest {limit:,}; --limit shows more", err=True)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:119]}…"


@command.command("show")
@click.argument("id")
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
def show(id: str, json_: bool) -> None:
    """Show one record: why it was refused, its headers and bytes, and what to do."""
    row = run(_with_stores(lambda stores: load(stores, id)))
    click.echo(output.json_line(as_json(row)) if json_ else described(row))


@command.command("redrive")
@click.argument("ids", nargs=-1, metavar="[ID]…")
@click.option("--all", "everything", is_flag=True, help="Everything that is held.")
@click.option("--service", help="Everything that this service holds.")
@click.option("--timeout", type=click.FloatRange(min=0), default=WAIT_S, show_default=True, help="Seconds to wait.")
def redrive_(ids: Sequence[str], everything: bool, service: str | None, timeout: float) -> None:
    """Read records again where they were refused; exits with 1 when some are still held."""
    if sum((bool(ids), everything, service is not None)) != 1:
        raise click.UsageError("name one or more IDs, or --all, or --service SERVICE")

    def show_it(outcome: Outcome) -> None:
        click.echo(outcome.line())

    async def work(stores: Stores) -> list[Outcome]:
        return await redrive(stores, ids, service=service, timeout=timeout, on_outcome=show_it)

    outcomes = run(_with_stores(work, need_kafka=True))
    applied = sum(outcome.state == "applied" for outcome in outcomes)
    click.echo(f"{applied:,} of {len(outcomes):,} applied" if outcomes else "nothing is held")
    sys.exit(0 if applied == len(outcomes) else 1)


async def _with_stores(work: Callable[[Stores], Any], need_kafka: bool = False) -> Any:
    from cli.home import open_stores

    async with open_stores(need_kafka=need_kafka) as stores:
        return await work(stores)
