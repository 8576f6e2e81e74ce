"""A process that stands still inside its transaction gives up the rows that another one waits for."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from shared import db


async def test_a_frozen_transaction_ends_and_the_row_goes_to_whoever_waits(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "IDLE_IN_TRANSACTION_S", 1)
    frozen, heir = await db.create_pool(postgres, 1, "frozen"), await db.create_pool(postgres, 1, "heir")
    try:
        await frozen.execute("create table if not exists frozen_rows (id int primary key)")
        await frozen.execute("insert into frozen_rows values (1) on conflict do nothing")
        async with frozen.acquire() as connection, heir.acquire() as other:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("select from frozen_rows for update")
            async with asyncio.timeout(10):
                await other.execute("update frozen_rows set id = 2")
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
                await connection.execute("update frozen_rows set id = 3")
            assert db.is_closed(connection)
        assert await heir.fetchval("select id from frozen_rows") == 2
    finally:
        frozen.terminate()
        heir.terminate()
