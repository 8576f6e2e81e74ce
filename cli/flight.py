"""What is still in flight: records not read, results not published, redrives not done."""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import asyncpg

from cli.home import spool_of
from cli.offsets import Offsets, Partition
from shared import db, topics
from shared.errors import Misconfigured
from shared.topics import Topic

LOAD_PARTITIONS = """
    select p.service, p.partition, p.offsets, p.head, p.published, p.clock, p.live, p.counts,
           p.head > p.published and exists (select from hune.outbox o
                    where o.service = p.service and o.partition = p.partition and o.last_seq > p.published) as waiting
      from hune.partitions p
"""

COUNT_REDRIVES = "select service, count(*) as n from hune.quarantine where state = 'redrive' group by service"

# By convention a table that ticks work through has both columns.
LIST_DUE_TABLES = """
    select n.nspname as service, format('%I.%I', n.nspname, c.relname) as name
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and n.nspname = any($1::text[])
       and (select count(*) from pg_attribute a
             where a.attrelid = c.oid and a.attname in ('next_due_at', 'partition') and not a.attisdropped) = 2
"""

COUNT_DUE = """
    select count(*)
      from {table} due
      join hune.partitions p on p.service = $1 and p.partition = due.partition
     where due.next_due_at <= case when p.live then now() else p.clock end
"""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One lock row: what a service has read and written of one partition."""

    service: str
    partition: int
    offsets: Mapping[str, int]
    head: int
    published: int
    clock: datetime | None
    live: bool
    counts: Mapping[str, int]

    @property
    def unpublished(self) -> int:
        return self.head - self.published


@dataclass(frozen=True, slots=True)
class State:
    """What the databases say at one moment."""

    partitions: tuple[PartitionState, ...]
    redrives: Mapping[str, int]
    due: Mapping[str, int]

    @property
    def services(self) -> list[str]:
        return sorted({row.service for row in self.partitions})


@dataclass(frozen=True, slots=True)
class Flight:
    """What was in flight at one moment; `ends` and `heads` are how far topics and outboxes reached.

    `spooled` counts the bytes that the gateway accepted and Kafka has not got yet.
    """

    unread: Mapping[tuple[str, str], int] = field(default_factory=dict)
    unpublished: Mapping[str, int] = field(default_factory=dict)
    redrives: Mapping[str, int] = field(default_factory=dict)
    due: Mapping[str, int] = field(default_factory=dict)
    unstable: Mapping[str, int] = field(default_factory=dict)
    spooled: int = 0
    ends: Mapping[Partition, int] = field(default_factory=dict)
    heads: Mapping[tuple[str, int], int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        parts = (self.unread, self.unpublished, self.redrives, self.due, self.unstable)
        return sum(sum(part.values()) for part in parts) + (1 if self.spooled else 0)

    def lag(self, services: Iterable[str]) -> dict[str, int]:
        """Records that each service has still to read."""
        lag = dict.fromkeys(services, 0)
        for (service, _), count in self.unread.items():
            lag[service] = lag.get(service, 0) + count
        return lag

    def lines(self) -> list[str]:
        """Say what is in flight, one sentence a line."""
        said = [f"{service} has {n:,} records of {topic} to read" for (service, topic), n in self.unread.items()]
        said += [f"{service} has {n:,} results to publish" for service, n in self.unpublished.items()]
        said += [f"{service} has {n:,} quarantined records to read again" for service, n in self.redrives.items()]
        said += [f"{service} has {n:,} accounts whose time has come" for service, n in self.due.items()]
        said += [f"{topic} has {n:,} records in an open transaction" for topic, n in self.unstable.items()]
        if self.spooled:
            said.append(f"the gateway has {self.spooled:,} bytes in its spool that Kafka has not got yet")
        return said


def topics_of(service: str) -> tuple[Sequence[Topic], Sequence[Topic]]:
    """What a service reads and writes, from its messages.py.

    Raises Misconfigured when the database knows a service that this version does not have.
    """
    name = f"services.{service}.messages"
    try:
        messages = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise Misconfigured(
                f"the database knows a service {service!r} that this version of Hune does not have: upgrade it"
            ) from error
        raise
    return messages.READS, messages.WRITES


async def load_state(databases: Sequence[db.Connection]) -> State:
    """Read every lock row of every database, each database at one moment."""
    rows: list[asyncpg.Record] = []
    redrives: Counter[str] = Counter()
    due: Counter[str] = Counter()
    for database in databases:
        async with database.transaction(isolation="repeatable_read", readonly=True):
            own = await database.fetch(LOAD_PARTITIONS)
            rows += own
            redrives.update({row["service"]: row["n"] for row in await database.fetch(COUNT_REDRIVES)})
            due.update(await _count_due(database, {row["service"] for row in own}))
    return State(tuple(_partition_state(row) for row in rows), dict(redrives), {s: n for s, n in due.items() if n})


def _partition_state(row: asyncpg.Record) -> PartitionState:
    return PartitionState(
        service=row["service"],
        partition=row["partition"],
        offsets=row["offsets"],
        head=row["head"],
        # `published` is a lower bound: with no outbox row beyond it, all is published.
        published=row["published"] if row["waiting"] else row["head"],
        clock=row["clock"],
        live=row["live"],
        counts=row["counts"],
    )


async def _count_due(database: db.Connection, services: set[str]) -> Counter[str]:
    due: Counter[str] = Counter()
    for table in await database.fetch(LIST_DUE_TABLES, list(services)):
        due[table["service"]] += await database.fetchval(COUNT_DUE.format(table=table["name"]), table["service"])
    return due


async def measure(state: State, offsets: Offsets, partitions: int, home: Path) -> Flight:
    """Compare what the services had read with how far the topics reach now, and look into the home's spool.

    The state must have been read before: a service that had read all there is now, and had published all it
    wrote, had nothing to do in between.
    """
    from services.gateway.spool import bytes_waiting

    spooled = bytes_waiting(spool_of(home))  # before the topics' ends: what left it since is seen there
    doors = {service: topics_of(service) for service in ("router", *state.services)}
    names = {topic.name for reads, writes in doors.values() for topic in (*reads, *writes)}
    names |= {topics.RAW_EVENTS.name, topics.RAW_REQUESTS.name}
    wanted = [(name, partition) for name in sorted(names) for partition in range(partitions)]
    written, committed = await asyncio.gather(offsets.written_ends(wanted), offsets.committed_ends(wanted))
    unread = await _unread(state, {service: reads for service, (reads, _) in doors.items()}, committed, offsets)
    return Flight(
        unread=unread,
        unpublished=_by_service((row.service, row.unpublished) for row in state.partitions),
        redrives=state.redrives,
        due=state.due,
        unstable=_by_service((topic, end - committed[topic, p]) for (topic, p), end in written.items()),
        spooled=spooled,
        ends=written,
        heads={(row.service, row.partition): row.head for row in state.partitions},
    )


async def has_passed(state: State, goal: Flight, offsets: Offsets) -> bool:
    """Whether the services have since read and published all that there was at the time of `goal`."""
    if any(row.published < goal.heads.get((row.service, row.partition), 0) for row in state.partitions):
        return False
    reads = {service: topics_of(service)[0] for service in ("router", *state.services)}
    return not await _unread(state, reads, goal.ends, offsets)


async def _unread(
    state: State, reads: Mapping[str, Sequence[Topic]], ends: Mapping[Partition, int], offsets: Offsets
) -> dict[tuple[str, str], int]:
    positions: dict[tuple[str, str, int], int] = defaultdict(int)
    for row in state.partitions:
        for topic, offset in row.offsets.items():
            positions[row.service, topic, row.partition] = offset
    behind = [
        (service, topic.name, partition)
        for service, read in reads.items()
        for topic in read
        for name, partition in ends
        if name == topic.name and positions[service, name, partition] < ends[name, partition]
    ]
    if not behind:
        return {}
    # What retention has deleted cannot be read any more: an unread topic begins where its log does.
    starts = await offsets.beginnings({(topic, partition) for _, topic, partition in behind})
    unread: Counter[tuple[str, str]] = Counter()
    for service, topic, partition in behind:
        start = max(positions[service, topic, partition], starts[topic, partition])
        unread[service, topic] += max(ends[topic, partition] - start, 0)
    return {key: count for key, count in unread.items() if count}


def _by_service(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for name, count in counts:
        total[name] += count
    return {name: count for name, count in total.items() if count > 0}
