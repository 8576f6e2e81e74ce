"""PostgreSQL: connections with our codecs, and forward-only migrations."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import msgspec

from shared.errors import Misconfigured

Connection: TypeAlias = asyncpg.Connection
Pool: TypeAlias = asyncpg.Pool

# When a connection dies inside a transaction asyncpg's failing rollback masks the real error: look at whether the
# connection is closed before looking at the exception's type.
TRANSIENT = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.InternalClientError,
    asyncpg.InsufficientPrivilegeError,  # of our role, never of a record
)


# A generic plan made while a table was tiny is kept when it has grown, and then costs fifty times as much.
SESSION = {"jit": "off", "plan_cache_mode": "force_custom_plan"}


# A frozen process must not keep the rows that its successor waits for; no handler thinks that long between statements.
IDLE_IN_TRANSACTION_S = 60


def is_closed(connection: Any) -> bool:
    """Whether a connection of a pool is dead; then the pool may have taken it back already, and says so by raising."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


def is_transient(error: Exception, connected: bool) -> bool:
    """Whether the same work may succeed later; once connected, an odd OSError is what the data made some call raise.

    Before that it cannot be the work's fault: not even a password that no longer holds.
    """
    if not connected and isinstance(error, asyncpg.PostgresError):
        return True
    if connected and isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, TRANSIENT)


async def prepare_connection(db: Any) -> None:
    """Read and write jsonb as Python values."""
    await db.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: msgspec.json.encode(value).decode(),
        decoder=msgspec.json.decode,
    )


def columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as the arrays that a statement unnests; `width` of them also when there are no rows."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


@contextlib.contextmanager
def said_clearly(url: str) -> Iterator[None]:
    """What no second try can help.

    Raises Misconfigured for it, naming the database without its password.
    """
    at = urlsplit(url)
    where = f"PostgreSQL at {at.hostname}:{at.port or 5432}"
    try:
        yield
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise Misconfigured(f"{where} refuses {at.username!r}: {error}; see HUNE_DATABASE_URL") from error
    except asyncpg.InvalidCatalogNameError as error:
        raise Misconfigured(f"{where}: {error}; see the end of HUNE_DATABASE_URL") from error
    except ssl.SSLCertVerificationError as error:
        raise Misconfigured(
            f"{where} shows a certificate that does not hold: {error.verify_message}; "
            "sslrootcert=FILE in HUNE_DATABASE_URL takes the file of those who signed it"
        ) from error
    except ConnectionError as error:
        if "rejected SSL upgrade" not in str(error):
            raise
        raise Misconfigured(f"{where} does not speak TLS; see sslmode in HUNE_DATABASE_URL") from error


async def connect(url: str) -> Connection:
    with said_clearly(url):
        db: Connection = await asyncpg.connect(url, timeout=10, server_settings=SESSION)
    await prepare_connection(db)
    return db


async def create_pool(url: str, size: int, name: str) -> Pool:
    """Open a pool of `size` connections that shows as `name` in pg_stat_activity."""
    with said_clearly(url):
        pool: Pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            init=prepare_connection,
            timeout=10,
            command_timeout=120,
            server_settings={
                "application_name": f"hune-{name}",
                "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
                **SESSION,
            },
        )
    return pool
