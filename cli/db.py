"""`hune db`: tables of the databases, and who may touch which."""

from __future__ import annotations

import asyncio

import asyncpg
import click

from cli.support import run
from shared.db.migrate import migrate
from shared.errors import Transient
from shared.settings import Settings

PAUSE_S = 0.5


@click.group("db")
def command() -> None:
    """Make the tables of this installation, and the roles that services log in with."""


@command.command("migrate")
@click.option("--wait", "patience", type=click.FloatRange(min=0), default=0.0, help="Seconds to wait for PostgreSQL.")
def migrate_(patience: float) -> None:
    """Bring every database that the environment names to this version; what is there already stays."""
    settings = Settings.from_env()
    urls = list(dict.fromkeys((settings.database_url, *settings.database_urls)))
    run(_migrate(urls, settings.partitions, patience))
    click.echo(f"{len(urls)} database{'s' if len(urls) > 1 else ''}, {settings.partitions} partitions: up to date")


async def _migrate(urls: list[str], partitions: int, patience: float) -> None:
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            await migrate(urls, partitions)
            return
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise Transient(f"PostgreSQL does not answer: {error or type(error).__name__}") from error
        await asyncio.sleep(PAUSE_S)
