"""Whether the databases that a process was given are those of one installation, all of them, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from shared.errors import Misconfigured
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a process was told of the installation."""

    partitions: int
    databases: int


def urls_of(settings: Settings) -> list[str]:
    """Every database once, the control database first: the number of each is its place here."""
    return list(dict.fromkeys((settings.database_url, *settings.database_urls)))


async def load(db: Any) -> Any:
    """The row of `hune.installation`; None where no Hune, or only an older one, has made its tables."""
    try:
        return await db.fetchrow("select id, partitions, databases, number from hune.installation")
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        return None


def check(rows: Mapping[int, Any], settings: Settings) -> None:
    """Look at the databases in use, number → row of `hune.installation`.

    Raises Misconfigured that names the variable and what the installation was made with.
    """
    wanted = Wanted(settings.partitions, len(urls_of(settings)))
    first = next(iter(rows.values()))
    for number, row in rows.items():
        if row is None:
            raise Misconfigured(
                f"database {number + 1} of {wanted.databases} lacks the tables of this version: "
                "`hune db migrate` makes them"
            )
        check_row(number, row, wanted, first["id"])


def check_row(number: int, row: Any, wanted: Wanted, installation: object) -> None:
    """The same for one database, `installation` being the id that it must have."""
    if row["partitions"] != wanted.partitions:
        raise Misconfigured(
            f"HUNE_PARTITIONS is {wanted.partitions}, but this installation was made with {row['partitions']}: "
            f"set it back to {row['partitions']}, or replay the log into a new installation"
        )
    if row["databases"] != wanted.databases:
        raise Misconfigured(
            f"HUNE_DATABASE_URL and HUNE_DATABASE_URLS name {wanted.databases} databases, but this installation was "
            f"made with {row['databases']}: name the same ones in the same order, or replay the log into a new one"
        )
    if row["id"] != installation:
        raise Misconfigured(
            f"database {number + 1} of {wanted.databases} belongs to another installation: name those that this one "
            "was made with, in the same order"
        )
    if row["number"] is not None and row["number"] != number:
        raise Misconfigured(
            f"database {number + 1} of {wanted.databases} is number {row['number'] + 1} of this installation: "
            "name them in HUNE_DATABASE_URLS in the order in which it was made"
        )
