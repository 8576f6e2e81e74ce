"""A merged account in a service: its owner closes it and sends its facts to the surviving account's owner, who adds
them. Facts are merged whatever their order, so it does not matter what was heard first.

Around a worker's handler: signals of a closed account are learnt as before there is a clock (facts only, nothing is
decided), and what they taught goes on in the same transaction. The schema of the service has a table `merges`, and each
table of facts the columns `account_id`, `partition` and `merged_at`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.db import Connection
from shared.events.merging import AccountFactsMoved
from shared.runtime.api import Batch, Handle, Signal
from shared.runtime.unit import UnitOfWork, partition_for
from shared.times import instant
from shared.topics import INTERNAL

MERGED, MOVED = "account.merged", "account.facts_moved"
MOST_BYTES = 700_000
"""Of rows in one record; with the room that their quotes take in JSON it stays below 900 kB."""
HERE_ONLY = "told to the owner of the merged account as well"

SAVE_MERGES = """
    insert into {schema}.merges (merged_account_id, account_id, merged_at, event_id, partition)
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::int[])
    on conflict do nothing
    returning merged_account_id
"""
LOAD_CLOSED = """
    select merged_account_id, account_id, merged_at from {schema}.merges where merged_account_id = any($1::text[])
"""
END_TICKS = "update {schema}.accounts set next_due_at = null where account_id = any($1::text[])"
LIST_ROWS = """
    select ({row} || jsonb_build_object('account_id', $2::text, 'partition', $3::int,
                                        'merged_at', greatest(t.merged_at, $4::timestamptz)))::text as row
      from {source} t where t.account_id = $1{fresh}
"""
FRESH = " and t.xmin = pg_current_xact_id()::xid"
"""Written by this very transaction."""
ADD_ROWS = """
    insert into {table}
    select made.* from unnest($1::text[]) as given (row),
           lateral jsonb_populate_record(null::{table}, row::jsonb) as made
    on conflict do nothing
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """A table of facts. `changed`: columns that read otherwise at the survivor, as SQL over the row `t`.

    `add` is how rows ($1, JSON texts) come in, when not just added; it may use $2, a number unlike any other's.
    """

    table: str
    changed: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    add: str | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """What a merged account became, and when."""

    account_id: str
    merged_at: datetime


async def _nothing(unit: UnitOfWork, accounts: Mapping[str, Any]) -> None:
    return None


class Merging:
    """A worker's handler that knows of merged accounts.

    `wake` is told whose facts grew (account → partition), before they are looked at; `close` which closed accounts
    were heard of, each time. `deaf`: types that say nothing to a closed account.
    """

    def __init__(
        self,
        service: str,
        handle: Handle,
        facts: Sequence[Facts],
        *,
        wake: Callable[[UnitOfWork, Mapping[str, int]], Awaitable[None]],
        close: Callable[[UnitOfWork, Mapping[str, Closed]], Awaitable[None]] = _nothing,
        deaf: Collection[str] = (),
    ) -> None:
        self.service, self.facts = service, {one.table: one for one in facts}
        self._handle, self._wake, self._close, self._deaf = handle, wake, close, deaf
        self._topic = INTERNAL[service]

    async def handle(self, batch: Batch, unit: UnitOfWork) -> None:
        """Apply a batch, minding which of its accounts became others."""
        merges = [signal for signal in batch if signal.type == MERGED]
        moved = [signal for signal in batch if signal.type == MOVED]
        rest = [signal for signal in batch if signal.type not in (MERGED, MOVED)] if merges or moved else batch.signals
        new = await self._save(merges, unit)
        closed = await self._load_closed({*batch.account_ids, *new}, unit.db)
        await self._add(moved, unit)
        grown = {signal.account_id: signal.partition for signal in moved if signal.account_id not in closed}
        if grown:
            await self._wake(unit, grown)
        if not closed:
            if rest:
                await self._handle(Batch(rest), unit)
            return
        still_open = [signal for signal in rest if signal.account_id not in closed]
        if still_open:
            await self._handle(Batch(still_open), unit)
        await self._learn([signal for signal in rest if signal.account_id in closed], closed, unit)
        await self._pass_on({name: closed[name] for name in new}, "", unit)
        heard = {signal.account_id for signal in batch if signal.type != MERGED}
        await self._pass_on({name: to for name, to in closed.items() if name in heard and name not in new}, FRESH, unit)
        await self._close(unit, closed)
        await unit.db.execute(END_TICKS.format(schema=self.service), list(closed))

    async def _save(self, merges: Sequence[Signal], unit: UnitOfWork) -> set[str]:
        """Note the merges of accounts that live here; those that are news."""
        mine = []
        for signal in merges:
            if partition_for(signal.data.merged_account_id, unit.partitions) == signal.partition:
                mine.append(signal)
            else:
                unit.ignore(signal, HERE_ONLY)
        if not mine:
            return set()
        rows = await unit.db.fetch(
            SAVE_MERGES.format(schema=self.service),
            [signal.data.merged_account_id for signal in mine],
            [signal.data.account_id for signal in mine],
            [signal.occurred_at for signal in mine],
            [signal.id for signal in mine],
            [signal.partition for signal in mine],
        )
        return {row["merged_account_id"] for row in rows}

    async def _load_closed(self, accounts: Collection[str], db: Connection) -> dict[str, Closed]:
        rows = await db.fetch(LOAD_CLOSED.format(schema=self.service), list(accounts))
        return {row["merged_account_id"]: Closed(row["account_id"], row["merged_at"]) for row in rows}

    async def _learn(self, signals: Sequence[Signal], closed: Mapping[str, Closed], unit: UnitOfWork) -> None:
        """Facts of closed accounts are kept; what is asked of them is declined, what is decided for them ignored."""
        learnt = []
        for signal in signals:
            if signal.type == "request.made":
                to = closed[signal.account_id]
                unit.decline(signal, f"{_over(to)}: ask about {to.account_id}")
            elif signal.type in self._deaf:
                unit.ignore(signal, "the account was merged into another")
            else:
                learnt.append(signal)
        if learnt:
            await self._handle(Batch(learnt), unit.learning())

    async def _pass_on(self, accounts: Mapping[str, Closed], fresh: str, unit: UnitOfWork) -> None:
        """Send facts of closed accounts to those they became: all, or what this transaction wrote."""
        for name, to in sorted(accounts.items()):
            target = partition_for(to.account_id, unit.partitions)
            for facts in self.facts.values():
                changed = "".join(f" || jsonb_build_object('{column}', {sql})" for column, sql in facts.changed.items())
                statement = LIST_ROWS.format(
                    row=f"to_jsonb(t){changed}", source=facts.source or facts.table, fresh=fresh
                )
                rows = [row["row"] for row in await unit.db.fetch(statement, name, to.account_id, target, to.merged_at)]
                for number, some in enumerate(parcels(rows)):
                    event = AccountFactsMoved(
                        merged_account_id=name, merged_at=to.merged_at, table=facts.table, rows=tuple(some)
                    )
                    unit.emit(
                        self._topic, event, account_id=to.account_id, cause=f"{name}:{unit.seq}", ordinal=number,
                        kind=f"{MOVED}:{facts.table}", occurred_at=to.merged_at,
                        partition=partition_for(name, unit.partitions),
                    )  # fmt: skip

    async def _add(self, moved: Sequence[Signal], unit: UnitOfWork) -> None:
        """Add what came. What this installation keeps no more is left out by name."""
        for number, signal in enumerate(moved):
            facts = self.facts.get(signal.data.table)
            if facts is None:
                unit.reject(signal, f"there is no table of facts {signal.data.table!r}")
            elif facts.add is None:
                await unit.db.execute(ADD_ROWS.format(table=facts.table), list(signal.data.rows))
            else:
                more = (unit.seq * 10_000 + number,) if "$2" in facts.add else ()
                await unit.db.execute(facts.add, list(signal.data.rows), *more)


def parcels(rows: Sequence[str], most: int = MOST_BYTES) -> Iterator[list[str]]:
    """The rows in their order, in portions of so many bytes on the wire; one that is larger goes alone."""
    portion: list[str] = []
    size = 0
    for row in rows:
        takes = len(row.encode()) + row.count('"') + row.count("\\") + 3
        if portion and size + takes > most:
            yield portion
            portion, size = [], 0
        portion.append(row)
        size += takes
    if portion:
        yield portion


def _over(to: Closed) -> str:
    return f"merged into {to.account_id} from {instant(to.merged_at)} on"


def merged_into(to: Closed) -> str:
    """The reason with which what was open of a merged account ends."""
    return f"merged into {to.account_id}"
