"""PostgreSQL: connections with our codecs, and forward-only migrations."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec

Connection = asyncpg.Connection[asyncpg.Record]
Pool = asyncpg.Pool[asyncpg.Record]

TRANSIENT = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.InternalClientError,
)


def is_transient(error: BaseException, db: Connection | None) -> bool:
    """Whether trying again may help.

    When a connection dies inside a transaction asyncpg's failing rollback masks the real error, so a
    closed connection decides before the exception's type does.
    """
    return (db is not None and db.is_closed()) or isinstance(error, TRANSIENT)


async def prepare_connection(db: Any) -> None:
    """Read and write jsonb as Python values."""
    await db.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: msgspec.json.encode(value).decode(),
        decoder=msgspec.json.decode,
    )


async def connect(url: str) -> Connection:
    db: Connection = await asyncpg.connect(url, timeout=10)
    await prepare_connection(db)
    return db


async def create_pool(url: str, size: int, name: str) -> Pool:
    """Open a pool of `size` connections that shows as `name` in pg_stat_activity."""
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        init=prepare_connection,
        timeout=10,
        command_timeout=120,
        server_settings={"application_name": f"hune-{name}", "jit": "off"},
    )
