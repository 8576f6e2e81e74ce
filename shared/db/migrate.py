"""Forward-only, numbered migrations per service, under an advisory lock, on every database."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared import db
from shared.db.installation import Wanted, check_row, load
from shared.errors import Misconfigured
from shared.settings import DEFAULT_PARTITIONS

ROOT = Path(__file__).parents[2]
_LOCK = 0x48554E45
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

BOOK = """
    create schema if not exists hune;
    create table if not exists hune.migrations (
        schema     text not null,
        number     int not null,
        name       text not null,
        applied_at timestamptz not null default now(),
        primary key (schema, number)
    )
"""


@dataclass(frozen=True, slots=True)
class Migration:
    schema: str
    number: int
    path: Path


def migrations() -> list[Migration]:
    """Every migration of the repository: the runtime's first, then the services' by name."""
    folders = [("hune", ROOT / "shared/db/migrations")]
    folders += sorted((path.parent.name, path) for path in (ROOT / "services").glob("*/migrations"))
    found: list[Migration] = []
    for schema, folder in folders:
        for path in sorted(folder.glob("*.sql")):
            name = _NAME.fullmatch(path.name)
            if name is None:
                raise Misconfigured(f"{path}: a migration is called 0001_what_it_does.sql")
            if found and (found[-1].schema, found[-1].number) == (schema, int(name[1])):
                raise Misconfigured(f"{path}: {found[-1].path.name} has that number already; give it the next one")
            found.append(Migration(schema, int(name[1]), path))
    return found


async def migrate(database_urls: Sequence[str], partitions: int = DEFAULT_PARTITIONS) -> None:
    """Bring every database to this version, and record the installation's identity in each.

    Raises Misconfigured when a database was made by a newer version, for another number of partitions or
    databases, for another installation, or as another one of this installation's.
    """
    installation, wanted = uuid.uuid4(), Wanted(partitions, len(database_urls))
    for number, url in enumerate(database_urls):
        connection = await db.connect(url)
        try:
            await connection.execute("select pg_advisory_lock($1)", _LOCK)
            await _apply(connection)
            installation = await _identify(connection, installation, number, wanted)
        finally:
            await connection.close()


async def _apply(connection: db.Connection) -> None:
    await connection.execute(BOOK)
    rows = await connection.fetch("select schema, number from hune.migrations")
    done = {(row["schema"], row["number"]) for row in rows}
    known = migrations()
    newer = done - {(migration.schema, migration.number) for migration in known}
    if newer:
        schema, number = max(newer)
        raise Misconfigured(f"the database holds migration {schema} {number}, made by a newer Hune: upgrade this one")
    for migration in known:
        if (migration.schema, migration.number) in done:
            continue
        async with connection.transaction():
            await connection.execute(f"create schema if not exists {migration.schema}")
            await connection.execute(migration.path.read_text())
            await connection.execute(
                "insert into hune.migrations (schema, number, name) values ($1, $2, $3)",
                migration.schema,
                migration.number,
                migration.path.name,
            )


async def _identify(connection: db.Connection, new: uuid.UUID, number: int, wanted: Wanted) -> uuid.UUID:
    await connection.execute(
        "insert into hune.installation (id, partitions, databases, number) values ($1, $2, $3, $4)"
        " on conflict do nothing",
        new,
        wanted.partitions,
        wanted.databases,
        number,
    )
    await connection.execute("update hune.installation set number = $1 where number is null", number)
    row = await load(connection)
    check_row(number, row, wanted, new if number else row["id"])
    identity: uuid.UUID = row["id"]
    return identity
