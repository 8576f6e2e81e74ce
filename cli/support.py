"""What the data commands share: running, reaching the stores, and errors in one sentence."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import asyncpg
import click

from shared import db
from shared.errors import Misconfigured, Transient

Result = TypeVar("Result")


class Stores(Protocol):
    """Where Kafka and PostgreSQL are; `database_urls` hold the workers' state, the first also the control tables."""

    @property
    def bootstrap_servers(self) -> str: ...

    @property
    def database_urls(self) -> Sequence[str]: ...

    @property
    def home(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class Installation:
    id: str
    partitions: int


def control_url(stores: Stores) -> str:
    return getattr(stores, "database_url", None) or stores.database_urls[0]


def all_urls(stores: Stores) -> list[str]:
    """Every database once, the control database first."""
    return list(dict.fromkeys((control_url(stores), *stores.database_urls)))


@asynccontextmanager
async def open_databases(stores: Stores) -> AsyncIterator[list[db.Connection]]:
    """Connect to every database, the control database first."""
    async with AsyncExitStack() as stack:
        connections = []
        for url in all_urls(stores):
            connection = await db.connect(url)
            stack.push_async_callback(connection.close)
            connections.append(connection)
        yield connections


@asynccontextmanager
async def open_snapshots(stores: Stores) -> AsyncIterator[list[db.Connection]]:
    """The same, each in one read-only transaction: all that is read is of one moment per database."""
    async with open_databases(stores) as databases, AsyncExitStack() as snapshots:
        for database in databases:
            snapshot = database.transaction(isolation="repeatable_read", readonly=True)
            await snapshots.enter_async_context(snapshot)
        yield databases


async def load_installation(control: db.Connection) -> Installation:
    """Read which installation this is.

    Raises Misconfigured when the tables are not there yet.
    """
    try:
        row = await control.fetchrow("select id, partitions from hune.installation")
    except asyncpg.UndefinedTableError:
        row = None
    if row is None:
        raise Misconfigured("the database holds no Hune yet; `hune up` makes its tables and topics")
    return Installation(str(row["id"]), row["partitions"])


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work.

    Raises PipelineError, in one sentence, for what the world gets wrong.
    """
    try:
        return asyncio.run(work)
    except asyncpg.UndefinedTableError as error:
        raise Misconfigured(f"{error}; `hune up` makes the tables of every service") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise Misconfigured(f"{error}; `hune db roles` says which role may do what") from error
    except (asyncpg.PostgresConnectionError, asyncpg.InvalidAuthorizationSpecificationError, OSError) as error:
        raise Transient(f"PostgreSQL does not answer: {error or type(error).__name__}; `hune status`") from error
    except KeyboardInterrupt:
        raise click.Abort from None


def nearest(word: str, known: Collection[str]) -> str:
    """End an error about an unknown word: the nearest ones, else all there are."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    folded = {name.casefold(): name for name in known}
    if word.casefold() in folded:
        close = [folded[word.casefold()]]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there are: {', '.join(sorted(known))}"
