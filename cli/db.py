"""`hune db`: tables of the databases, and who may touch which."""

from __future__ import annotations

import asyncio

import asyncpg
import click

from cli.support import run
from services.__main__ import NAMES
from shared import db
from shared.db.installation import urls_of
from shared.db.migrate import migrate
from shared.db.roles import CLI, role_of, statements
from shared.errors import Misconfigured, Transient
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
    urls = urls_of(settings)
    run(_migrate(urls, settings.partitions, patience))
    click.echo(f"{len(urls)} database{'s' if len(urls) > 1 else ''}, {settings.partitions} partitions: up to date")


@command.command("roles")
@click.option("--apply", "apply_", is_flag=True, help="Run it on every database instead of printing it.")
def roles_(apply_: bool) -> None:
    """A role per service that may touch its own tables and rows alone: print the SQL, or run it."""
    wanted = list(statements(NAMES))
    if not apply_:
        click.echo("".join(f"{statement};\n" for statement in wanted), nl=False)
        return
    settings = Settings.from_env()
    urls = urls_of(settings)
    run(_execute(urls, wanted))
    names = ", ".join(role_of(name) for name in (*NAMES, CLI))
    click.echo(f"{names} may do what they need; give each a password: `alter role {role_of(NAMES[0])} password '…'`")


async def _execute(urls: list[str], wanted: list[str]) -> None:
    for url in urls:
        connection = await db.connect(url)
        try:
            async with connection.transaction():
                for statement in wanted:
                    await connection.execute(statement)
        except asyncpg.UndefinedTableError as error:
            raise Misconfigured(f"{error}; `hune db migrate` makes the tables first") from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise Misconfigured(f"{error}; run it as the role that owns the tables and may create roles") from error
        finally:
            await connection.close()


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
