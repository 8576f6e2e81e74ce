"""Counts the distributions of a day: each partition its own accounts, bit by bit, and tells all partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import count

import msgspec

from services.health import peers, store
from services.health.domain import Policy
from services.health.peers import Recorded, Tables, Values
from shared import topics
from shared.db import Connection
from shared.events import results
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork, partition_for

PEERS_COUNTED = results.PeersCounted.type_name
KEPT_DAYS = 8

LOAD_COUNTS = """
    select partition, day, after_account, done
      from health.peer_counts
     where partition = any($1::int[]) and model = $2 and day = any($3::date[])
"""
SAVE_COUNT = """
    insert into health.peer_counts (partition, model, day, after_account, done) values ($1, $2, $3, $4, $5)
    on conflict (partition, model, day) do update set after_account = excluded.after_account, done = excluded.done
"""
LIST_ACCOUNTS = """
    select account_id from health.accounts
     where partition = $1 and account_id > $2 and not exists (
           select from health.merges m where m.merged_account_id = account_id)
     order by account_id limit $3
"""
SAVE_VALUES = """
    insert into health.peer_values (partition, model, day, account_id, measure, segment, value)
    select $1, $2, $3, * from unnest($4::text[], $5::text[], $6::text[], $7::float8[])
    on conflict do nothing
"""
TAKE_VALUES = """
    delete from health.peer_values where partition = $1 and model = $2 and day = $3
    returning measure, segment, value
"""
SAVE_PEERS = """
    insert into health.peers (partition, model, day, of_partition, partitions, tables)
    select partition, model, day, of_partition, partitions, tables::jsonb
      from unnest($1::int[], $2::text[], $3::date[], $4::int[], $5::int[], $6::text[])
        as new (partition, model, day, of_partition, partitions, tables)
    on conflict do nothing
"""
FORGET = (
    "delete from health.peers where partition = $1 and day < $2",
    "delete from health.peer_counts where partition = $1 and day < $2",
    "delete from health.peer_values where partition = $1 and day < $2",
)
LOAD_PEERS = """
    select partitions, tables::text from health.peers where partition = $1 and model = $2 and day = $3
     order by of_partition
"""
# Those who were looked at before their peers were counted; nobody is woken for it.
LOOK_AGAIN = """
    update health.accounts set next_due_at = 'epoch', pending = true
     where partition = $1 and assessed_at is not null and next_due_at is not null
"""

_read_tables = msgspec.json.Decoder(dict[str, dict[str, Values]]).decode


@lru_cache(maxsize=8)
def keys_of(partitions: int) -> tuple[str, ...]:
    """A key for each partition, by which all can be told the same."""
    found: dict[int, str] = {}
    for number in count():
        key = f"hune.peers.{number}"
        found.setdefault(partition_for(key, partitions), key)
        if len(found) == partitions:
            return tuple(found[partition] for partition in range(partitions))
    raise AssertionError("numbers do not end")


class Counting:
    """Of one worker; what is known of a partition's day is read once."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._known: dict[int, Recorded] = {}
        self._done: dict[int, date] = {}

    async def peers_of(self, partition: int, at: datetime, db: Connection) -> Recorded:
        """The distributions that scores of now read."""
        day, digest = peers.day_for(at), self.policy.model.digest
        known = self._known.get(partition)
        if known is None or known.day != day:
            rows = await db.fetch(LOAD_PEERS, partition, digest, day)
            complete = bool(rows) and len(rows) == rows[0]["partitions"]
            tables = peers.merged([_read_tables(row["tables"]) for row in rows]) if complete else None
            known = Recorded(digest, day, tables)
            if complete:
                self._known[partition] = known
        return known

    async def hear(self, signals: Sequence[Signal], unit: UnitOfWork) -> None:
        """Keep what a partition counted, and have accounts looked at again if a day is complete only now."""
        said = [(one.partition, one.data) for one in signals if not self._is_older(one, unit)]
        bodies = [msgspec.json.encode(data.model_dump(mode="json")["measures"]) for _, data in said]
        await unit.db.execute(
            SAVE_PEERS,
            [partition for partition, _ in said],
            [data.model for _, data in said],
            [data.day for _, data in said],
            [data.of_partition for _, data in said],
            [data.partitions for _, data in said],
            [body.decode() for body in bodies],
        )
        for partition in sorted({partition for partition, _ in said}):
            at = unit.clock(partition)
            if at is None or not any(data.day == peers.day_for(at) for there, data in said if there == partition):
                continue
            if (await self.peers_of(partition, at, unit.db)).tables is not None:
                await unit.db.execute(LOOK_AGAIN, partition)
            self._known.pop(partition, None)  # what is not committed yet is not remembered

    def _is_older(self, signal: Signal, unit: UnitOfWork) -> bool:
        if signal.data.model == self.policy.model.digest:
            return False
        unit.ignore(signal, "peers counted under another configuration")
        return True

    async def count(self, clocks: Mapping[int, datetime], limit: int, unit: UnitOfWork) -> int:
        """Read the next accounts' values for the distributions of yesterday and today; how many were read."""
        digest = self.policy.model.digest
        days = {partition: peers.day_for(at) for partition, at in clocks.items()}
        waiting = [partition for partition in sorted(clocks) if self._done.get(partition) != days[partition]]
        if not waiting or not self.policy.model.ranked:
            return 0
        wanted = {day + timedelta(days=more) for day in days.values() for more in (0, 1)}
        rows = await unit.db.fetch(LOAD_COUNTS, waiting, digest, sorted(wanted))
        counts = {(row["partition"], row["day"]): (row["after_account"], row["done"]) for row in rows}
        for partition in waiting:
            for day in (days[partition], days[partition] + timedelta(days=1)):
                after, done = counts.get((partition, day), ("", False))
                if not done:
                    return await self._count(partition, day, after, limit, unit)
            self._done[partition] = days[partition]
        return 0

    async def _count(self, partition: int, day: date, after: str, limit: int, unit: UnitOfWork) -> int:
        digest, model = self.policy.model.digest, self.policy.model
        names = [row[0] for row in await unit.db.fetch(LIST_ACCOUNTS, partition, after, limit)]
        if names:
            at = peers.first_instant(day)
            known, _ = await store.load_facts(unit.db, names, at=at, since=(at - self.policy.history).date())
            said = [(name, *one) for name in names for one in peers.readings(known[name], day, model)]
            if said:
                columns = [list(column) for column in zip(*said, strict=True)]
                await unit.db.execute(SAVE_VALUES, partition, digest, day, *columns)
        done = len(names) < limit
        await unit.db.execute(SAVE_COUNT, partition, digest, day, names[-1] if names else after, done)
        if done:
            rows = await unit.db.fetch(TAKE_VALUES, partition, digest, day)
            self._tell(partition, day, peers.tables_of(tuple(row) for row in rows), unit)
            for statement in FORGET:
                await unit.db.execute(statement, partition, day - timedelta(days=KEPT_DAYS))
        return limit if done else len(names)  # there may be more to count at once

    def _tell(self, partition: int, day: date, tables: Tables, unit: UnitOfWork) -> None:
        event = results.PeersCounted(
            of_partition=partition,
            partitions=unit.partitions,
            day=day,
            model=self.policy.model.digest,
            measures={
                name: {segment: results.PeerValues(n=one.n, values=one.values) for segment, one in of.items()}
                for name, of in tables.items()
            },
        )
        for key in keys_of(unit.partitions):
            unit.emit(
                topics.INTERNAL["health"], event, account_id=key, cause=f"{partition}:{day}:{event.model}",
                occurred_at=datetime.combine(day, datetime.min.time(), UTC), partition=partition,
            )  # fmt: skip
