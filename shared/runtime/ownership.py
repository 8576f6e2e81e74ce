"""The lock row: who owns a partition, how far it has read and written, and what time it is there."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from shared.db import Connection
from shared.runtime.seen import Seen
from shared.runtime.wire import Record

if TYPE_CHECKING:
    from shared.runtime.relay import Relay


class Lost(Exception):
    """Somebody else owns these partitions now: what we were about to write is theirs to write."""

    def __init__(self, partitions: Sequence[int]) -> None:
        super().__init__(f"partitions {sorted(partitions)} have another owner")
        self.partitions = partitions


@dataclass(slots=True)
class Owned:
    """What the owner of one (service, partition) knows; it changes only after a COMMIT."""

    partition: int
    epoch: int
    version: int
    offsets: dict[str, int]
    head: int
    published: int
    clock: datetime | None
    live: bool
    marks: dict[str, list[int]]
    counts: Counter[str]
    seen: Seen
    relay: Relay
    since: float = field(default_factory=time.time)
    queue: deque[Record] = field(default_factory=deque)
    fetched: dict[str, int] = field(default_factory=dict)
    """Topic → the offset after the last record that was queued."""


ACQUIRE = """
    insert into hune.partitions as row (service, partition, epoch, owner, relays)
    select $1, unnest($2::int[]), 1, $3, array[$4::text]
    on conflict (service, partition) do update
       set epoch = row.epoch + 1, owner = excluded.owner, updated_at = now(),
           relays = array_remove(row.relays, $4::text) || $4::text
    returning partition, epoch, version, offsets, head, published, clock, live, marks, counts, relays
"""

FENCED = """
    update hune.partitions p
       set relays = array[$4::text]
      from unnest($2::int[], $3::bigint[]) as mine (partition, epoch)
     where p.service = $1 and p.partition = mine.partition and p.epoch = mine.epoch
"""

LOCK = """
    select p.partition, now() as now
      from hune.partitions p
      join unnest($2::int[], $3::bigint[], $4::bigint[]) as mine (partition, epoch, version)
        on p.partition = mine.partition and p.epoch = mine.epoch and p.version = mine.version
     where p.service = $1
     order by p.partition
       for update of p
"""

SAVE = """
    update hune.partitions p
       set version = $2, offsets = new.offsets, head = new.head, published = new.published, clock = new.clock,
           live = new.live, marks = new.marks, counts = new.counts, updated_at = now()
      from unnest($3::int[], $4::text[]::jsonb[], $5::bigint[], $6::bigint[], $7::timestamptz[], $8::boolean[],
                  $9::text[]::jsonb[], $10::text[]::jsonb[])
        as new (partition, offsets, head, published, clock, live, marks, counts)
     where p.service = $1 and p.partition = new.partition
"""

PEEK = "select partition, epoch, version from hune.partitions where service = $1 and partition = any($2::int[])"


async def acquire(db: Connection, service: str, partitions: Sequence[int], owner: str, relay: str) -> list[Any]:
    """Take the partitions over: from now on every write of a former owner is refused.

    `relay` is the transactional id that publishes for the new owner; the rows' `relays` are its and those that a
    former owner may still publish under.
    """
    rows: list[Any] = await db.fetch(ACQUIRE, service, sorted(partitions), owner, relay)
    return rows


async def fenced(db: Connection, service: str, rows: Sequence[Any], relay: str) -> None:
    """Nobody but `relay` can publish for these acquired rows any more."""
    await db.execute(FENCED, service, [row["partition"] for row in rows], [row["epoch"] for row in rows], relay)


async def lock(db: Connection, service: str, owned: Sequence[Owned]) -> datetime:
    """Compare and lock the rows of this transaction; returns PostgreSQL's time.

    Raises Lost when another owner has taken some of them.
    """
    rows = await db.fetch(
        LOCK, service, [o.partition for o in owned], [o.epoch for o in owned], [o.version for o in owned]
    )
    if len(rows) != len(owned):
        mine = {row["partition"] for row in rows}
        raise Lost([o.partition for o in owned if o.partition not in mine])
    now: datetime = rows[0]["now"]
    return now


async def save(db: Connection, service: str, version: int, after: Mapping[int, After]) -> None:
    """Write what the partitions will be once this transaction commits."""
    rows = [after[partition] for partition in sorted(after)]
    await db.execute(
        SAVE,
        service,
        version,
        sorted(after),
        [json.dumps(row.offsets) for row in rows],
        [row.head for row in rows],
        [row.published for row in rows],
        [row.clock for row in rows],
        [row.live for row in rows],
        [json.dumps(row.marks) for row in rows],
        [json.dumps(row.counts) for row in rows],
    )


async def standing(db: Connection, service: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Partition → (epoch, version) as stored: settles whether an unclear COMMIT happened."""
    rows = await db.fetch(PEEK, service, partitions)
    return {row["partition"]: (row["epoch"], row["version"]) for row in rows}


@dataclass(slots=True)
class After:
    """A partition as it will be if the transaction commits."""

    offsets: dict[str, int]
    head: int
    published: int
    clock: datetime | None
    live: bool
    marks: dict[str, list[int]]
    counts: Counter[str]

    @classmethod
    def of(cls, owned: Owned) -> After:
        return cls(
            dict(owned.offsets),
            owned.head,
            owned.published,
            owned.clock,
            owned.live,
            {run: list(seen) for run, seen in owned.marks.items()},
            Counter(owned.counts),
        )

    def become(self, owned: Owned, version: int) -> None:
        """The transaction committed: this is what is known now."""
        owned.version = version
        owned.offsets, owned.head, owned.published = self.offsets, self.head, max(self.published, owned.published)
        owned.clock, owned.live, owned.marks, owned.counts = self.clock, self.live, self.marks, self.counts
