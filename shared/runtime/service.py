"""A worker as a process: FastStream's batch subscriber feeds the lanes, the group decides what is ours."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.prometheus import KafkaPrometheusMiddleware
from prometheus_client import REGISTRY

from shared import db as database
from shared import topics
from shared.access import Access, refuse_wrong_access
from shared.db import installation
from shared.errors import Misconfigured, Transient
from shared.kafka import answers
from shared.observability import metrics
from shared.runtime import fetching, ownership
from shared.runtime.api import Worker
from shared.runtime.lane import Lane
from shared.runtime.ownership import Owned
from shared.runtime.relay import Position, Publisher, ReadRows, Relay, Rows, fence
from shared.runtime.seen import Seen
from shared.runtime.wire import Record, signal_reader, unpack
from shared.settings import Settings

log = logging.getLogger(__name__)

POOL_SIZE = 4
SEEN_IN_MEMORY = 6_000_000
BARRIER_S = 5.0
STANDSTILL_S = 60.0
NOWHERE = Position(0, None)
UNOWNED_S = 60.0
OBSERVE_S = 2.0
ACCESS_S = 30.0
"""aiokafka tries for ever, and says nothing, when a password holds no more."""

READ_OUTBOX = """
    select first_seq, records from hune.outbox
     where service = $1 and partition = $2 and last_seq > $3
     order by last_seq limit 100
"""
HELD = "select count(*) from hune.quarantine where service = $1 and state <> 'applied'"


class Runtime:
    """Runs one worker in this process until `stop`."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        self.worker, self.settings = worker, settings
        self.lanes: list[Lane] = []
        self.broker = KafkaBroker(
            settings.kafka_bootstrap_servers,
            client_id="hune",
            security=Access.from_env().faststream(),
            allow_auto_create_topics=False,
            consumer_only=True,
            graceful_timeout=5,
            apply_types=False,
            logger=None,
            middlewares=[KafkaPrometheusMiddleware(registry=REGISTRY, app_name=worker.name)]
            if os.environ.get("HUNE_FASTSTREAM_METRICS")
            else [],
        )
        self._pools: list[database.Pool] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._acquiring: asyncio.Task[None] | None = None
        self._beside: asyncio.Task[None] | None = None
        self._assigned: set[int] = set()
        self._generation = 0
        self._installation = ""
        self._publisher = Publisher(worker.name, settings.kafka_bootstrap_servers, self._still_ours)
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._unowned_since: float | None = None
        self._aside: set[asyncio.Task[None]] = set()
        self._stopping = False
        fetching.install()
        self._subscriber = self._subscribe()

    # -- FastStream -----------------------------------------------------------------------------

    def _subscribe(self) -> Any:
        async def parse(records: Sequence[Record], original: Any = None) -> KafkaMessage:
            self._take_in(records)
            return KafkaMessage(
                body=b"", headers={}, message_id="", raw_message=tuple(records), consumer=self._subscriber.consumer
            )

        async def decode(message: KafkaMessage, original: Any = None) -> bytes:
            return b""

        subscriber = self.broker.subscriber(
            *[topic.name for topic in self.worker.reads],
            batch=True,
            group_id=f"{topics.PREFIX}.{self.worker.name}",
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            ack_policy=AckPolicy.MANUAL,
            partition_assignment_strategy=(RangePartitionAssignor,),
            max_records=5_000,
            batch_timeout_ms=100,
            max_partition_fetch_bytes=1024 * 1024,
            fetch_max_bytes=8 * 1024 * 1024,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=2_000,
            rebalance_timeout_ms=15_000,
            max_poll_interval_ms=3_600_000,
            listener=_Listener(self),
            parser=parse,
            decoder=decode,
        )

        @subscriber
        async def consume(body: Any) -> None:
            for lane in self.lanes:
                await lane.room()

        return subscriber

    def _take_in(self, records: Sequence[Record]) -> None:
        """Queue records at once, in the task that polled them, so that the position never runs ahead unseen.

        The parser is where FastStream hands records over first; it must not raise, for FastStream would
        log that and go on with the next ones.
        """
        try:
            for _, some in groupby(records, _where):
                chunk = list(some)
                if not self._is_stale(chunk):
                    self._lane(chunk[0].partition).take_in(chunk)
        except BaseException:
            log.critical("records could not be queued", exc_info=True)
            os._exit(70)

    def _is_stale(self, chunk: Sequence[Record]) -> bool:
        """Whether the consumer was sent back after these were fetched: then they come again."""
        position = self._position_now(*_where(chunk[0]))
        return position is None or position <= chunk[-1].offset

    def _position_now(self, topic: str, partition: int) -> int | None:
        consumer = self._subscriber.consumer
        assignment = consumer and consumer._subscription.subscription and consumer._subscription.subscription.assignment
        tp = TopicPartition(topic, partition)
        if not assignment or tp not in assignment.tps:
            return None
        state = assignment.state_value(tp)
        return state._position if state is not None and state.has_valid_position else None

    async def _position(self, topic: str, partition: int) -> int | None:
        return self._position_now(topic, partition)

    def _lane(self, partition: int) -> Lane:
        return self.lanes[partition % len(self.lanes)]

    # -- life -----------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Connect to the databases and start the lanes.

        Raises Misconfigured when the stores do not fit together.
        """
        urls = (self.settings.database_url,) if self.worker.control_only else self.settings.database_urls
        self._pools = []
        try:
            for url in urls:
                self._pools.append(await database.create_pool(url, POOL_SIZE, self.worker.name))
            numbers, rows = installation.urls_of(self.settings), {}
            for url, pool in zip(urls, self._pools, strict=True):
                async with pool.acquire() as connection:
                    rows[numbers.index(url)] = await installation.load(connection)
        except BaseException:
            for pool in self._pools:
                pool.terminate()
            raise
        installation.check(rows, self.settings)
        self._installation = str(next(iter(rows.values()))["id"])
        self._publisher.installation = self._installation
        reader = self.worker.read or signal_reader(self.worker.fast)
        for number, pool in enumerate(self._pools):
            lane = Lane(self.worker, pool, reader, self.settings.partitions, number)
            lane.position, lane.on_lost = self._position, self._on_lost
            self.lanes.append(lane)
            self._tasks.append(asyncio.create_task(self._guard(lane.run()), name=f"lane {self.worker.name}"))
        self._tasks.append(asyncio.create_task(self._guard(self._watch()), name="watchdog"))
        if self.worker.beside is not None:
            self._beside = asyncio.create_task(self._guard(self.worker.beside(self.settings)), name="beside")

    async def start(self) -> None:
        """Prepare, then join the group."""
        await self.prepare()
        await self.broker.start()

    async def stop(self) -> None:
        """Finish what is in hand and leave."""
        self._stopping = True
        for lane in self.lanes:
            lane.stop()
        if self._acquiring is not None:
            self._acquiring.cancel()
        if self._beside is not None:
            self._beside.cancel()
        lanes = [task for task in self._tasks if task.get_name() != "watchdog"]
        if lanes:
            await asyncio.wait(lanes, timeout=10)
        await self._publisher.stop()
        await self.broker.stop()
        if self._beside is not None:
            await asyncio.wait([self._beside], timeout=10)
        for task in self._tasks:
            task.cancel()
        for pool in self._pools:
            try:
                await asyncio.wait_for(pool.close(), 5)
            except TimeoutError:
                pool.terminate()

    def ready(self) -> bool:
        """Whether the group has spoken, everything assigned is owned and no lane has halted."""
        owned = {partition for lane in self.lanes for partition in lane.owned}
        return self._generation > 0 and self._assigned == owned and not any(lane.halted for lane in self.lanes)

    def lives(self) -> bool:
        """Whether work that waits makes progress; a store that is away does not count against us for a while."""
        return not any(lane.stands_still(STANDSTILL_S) for lane in self.lanes)

    async def _guard(self, work: Any) -> None:
        """The unknown ends the process: the supervisor starts a clean one."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Misconfigured as error:
            log.critical(str(error), extra={"worker": self.worker.name})
            os._exit(2)
        except BaseException:
            log.critical("the worker stops", exc_info=True, extra={"worker": self.worker.name})
            os._exit(70)

    # -- ownership ------------------------------------------------------------------------------

    async def revoked(self, partitions: set[int]) -> None:
        self._assigned -= partitions
        if self._acquiring is not None:
            self._acquiring.cancel()
        for lane in self.lanes:
            gone = await lane.remove(sorted(partitions), BARRIER_S)
            await self._publisher.remove([owned.relay for owned in gone])

    def assigned(self, tps: Iterable[TopicPartition]) -> None:
        metrics.REBALANCES.labels(self.worker.name).inc()
        self._generation += 1
        tps = list(tps)
        self._assigned = {tp.partition for tp in tps}
        if tps:
            self._subscriber.consumer.pause(*tps)
        self._acquiring = asyncio.create_task(self._guard(self._acquire(self._generation)), name="acquire")

    def _on_lost(self, gone: Sequence[Owned]) -> None:
        """A former owner notices late; the group will say whose they are, else the watchdog ends us."""
        task = asyncio.create_task(self._guard(self._after_loss(gone, self._generation)), name="after loss")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _after_loss(self, gone: Sequence[Owned], generation: int) -> None:
        """Publish no more; take back at once what nobody else has taken: our own COMMIT came late."""
        await self._publisher.remove([owned.relay for owned in gone])
        ours = await self._standing(gone)
        if len(ours) < len(gone) or self._stopping or generation != self._generation or not ours <= self._assigned:
            return
        if self._acquiring is not None:
            await asyncio.wait([self._acquiring])
        if generation == self._generation:
            reads = [topic.name for topic in self.worker.reads]
            self._subscriber.consumer.pause(*(TopicPartition(topic, p) for topic in reads for p in ours))
            self._acquiring = asyncio.create_task(self._guard(self._acquire(generation)), name="acquire")

    async def _still_ours(self, some: Sequence[Owned] | Sequence[Relay]) -> set[int]:
        """The partitions among these whose epoch is still ours."""
        stored: dict[int, tuple[int, int]] = {}
        for index, pool in enumerate(self._pools):
            here = [one.partition for one in some if one.partition % len(self._pools) == index]
            if here:
                async with pool.acquire() as connection:
                    stored |= await ownership.standing(connection, self.worker.name, here)
        return {one.partition for one in some if stored[one.partition][0] == one.epoch}

    async def _standing(self, gone: Sequence[Owned]) -> set[int]:
        """The partitions among these whose epoch is still ours, once PostgreSQL says so."""
        while not self._stopping:
            try:
                return await self._still_ours(gone)
            except Exception as error:
                log.info("PostgreSQL does not answer yet", extra={"error": repr(error)})
                await asyncio.sleep(1)
        return set()

    async def _acquire(self, generation: int) -> None:
        delay = 0.1
        while not self._stopping and generation == self._generation:
            try:
                for index, lane in enumerate(self.lanes):
                    mine = sorted(p for p in self._assigned if p % len(self.lanes) == index and p not in lane.owned)
                    if mine:
                        await self._acquire_in(lane, self._pools[index], mine, generation)
                return
            except (asyncio.CancelledError, Misconfigured):
                raise
            except Exception as error:
                log.warning(
                    "partitions cannot be taken over yet", extra={"worker": self.worker.name, "error": repr(error)}
                )
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)

    async def _acquire_in(self, lane: Lane, pool: database.Pool, partitions: list[int], generation: int) -> None:
        name, relay, found = self.worker.name, self._publisher.transactional_id, {}
        async with pool.acquire() as connection, connection.transaction():
            rows = await ownership.acquire(connection, name, partitions, self._owner, relay)
        if self.worker.writes:
            former = {other for row in rows for other in row["relays"]} - {relay}
            await fence(self.settings.kafka_bootstrap_servers, former)
            found = await self._publisher.positions(partitions)
            if former:
                async with pool.acquire() as connection:
                    await ownership.fenced(connection, name, rows, relay)
        for row in rows:
            self._check_position(row, found.get(row["partition"], NOWHERE))
        starts = await self._where_to_start(rows)
        if generation != self._generation or not set(partitions) <= self._assigned:
            return
        for row in rows:
            partition = row["partition"]
            self._own(lane, row, found.get(partition, NOWHERE).seq, _rows_of(pool, name, partition), starts)

    def _own(
        self, lane: Lane, row: Any, position: int, read_rows: ReadRows, starts: Mapping[TopicPartition, int]
    ) -> None:
        partition = row["partition"]
        relay = Relay(partition, row["epoch"], max(position, 0), row["head"], read_rows)
        owned = Owned(
            partition=partition,
            epoch=row["epoch"],
            version=row["version"],
            offsets=row["offsets"],
            head=row["head"],
            published=row["published"],
            clock=row["clock"],
            live=row["live"],
            marks=row["marks"],
            counts=Counter(row["counts"]),
            seen=Seen(
                self.worker.name,
                partition,
                SEEN_IN_MEMORY // self.settings.partitions,
                self.settings.dedupe_days,
            ),
            relay=relay,
        )
        if self.worker.writes:
            self._publisher.add(relay)
        consumer = self._subscriber.consumer
        here = [TopicPartition(topic.name, partition) for topic in self.worker.reads]
        for tp in here:
            consumer.seek(tp, starts[tp])
        lane.add(owned)
        consumer.resume(*here)

    def _check_position(self, row: Any, on_kafka: Position) -> None:
        """Refuse to go on when one of the two stores was set back, or belongs to another installation.

        Raises Misconfigured that says which.
        """
        name, partition, position = self.worker.name, row["partition"], on_kafka.seq
        if on_kafka.installation not in (None, self._installation):
            raise Misconfigured(
                f"Kafka holds {name}'s results of installation {on_kafka.installation}, PostgreSQL belongs to "
                f"{self._installation}: check HUNE_KAFKA_BOOTSTRAP_SERVERS and HUNE_DATABASE_URL, one of them is "
                "another installation's"
            )
        if position > row["head"]:
            raise Misconfigured(
                f"Kafka holds {name}'s results of partition {partition} up to {position}, PostgreSQL knows only "
                f"{row['head']}: PostgreSQL was set back; restore a newer backup, or start both stores empty"
            )
        if position < row["published"]:
            raise Misconfigured(
                f"PostgreSQL knows {name}'s results of partition {partition} as published up to {row['published']}, "
                f"Kafka holds them up to {position}: Kafka was set back; restore it, or start both stores empty"
            )

    async def _where_to_start(self, rows: Sequence[Any]) -> dict[TopicPartition, int]:
        """Where PostgreSQL says we are; a topic never read begins where its log does.

        Refuses to jump over records that Kafka no longer holds, or to wait for ones it never will.
        Raises Misconfigured that counts them.
        """
        consumer = self._subscriber.consumer
        for topic in self.worker.reads:
            count = len(consumer.partitions_for_topic(topic.name) or ())
            if not count:
                raise Transient(f"Kafka does not say yet how many partitions {topic.name} has")
            if count != self.settings.partitions:
                raise Misconfigured(
                    f"topic {topic.name} has {count} partitions, this installation {self.settings.partitions}: "
                    "this Kafka belongs to another installation"
                )
        stored = {
            TopicPartition(topic.name, row["partition"]): row["offsets"].get(topic.name)
            for row in rows
            for topic in self.worker.reads
        }
        starts, ends = await consumer.beginning_offsets(list(stored)), await consumer.end_offsets(list(stored))
        begin: dict[TopicPartition, int] = {}
        for tp, offset in stored.items():
            begin[tp] = starts[tp] if offset is None else max(offset, starts[tp])
            if offset is None:
                continue
            if starts[tp] > offset and not os.environ.get("HUNE_ACCEPT_LOSS"):
                raise Misconfigured(
                    f"{tp.topic} partition {tp.partition}: {starts[tp] - offset} records from {offset} on are "
                    f"gone from Kafka before {self.worker.name} read them; replay them with `hune send --replay`, "
                    f"or start with HUNE_ACCEPT_LOSS=1 to go on without them"
                )
            if ends[tp] < offset:
                raise Misconfigured(
                    f"{tp.topic} partition {tp.partition} ends at {ends[tp]}, {self.worker.name} has read up to "
                    f"{offset}: Kafka was set back; restore it, or start both stores empty"
                )
        return begin

    # -- watching -------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Report, and end a process that stands still while there is work, or that Kafka lets in no more."""
        access, looked = Access.from_env(), time.monotonic()
        while True:
            await asyncio.sleep(OBSERVE_S)
            if access.is_checked and time.monotonic() - looked > ACCESS_S:
                await refuse_wrong_access(self.settings.kafka_bootstrap_servers)
                looked = time.monotonic()
            name = self.worker.name
            owned = [o for lane in self.lanes for o in lane.owned.values()]
            metrics.OWNED.labels(name).set(len(owned))
            metrics.QUEUED.labels(name).set(sum(len(o.queue) for o in owned))
            metrics.OUTBOX.labels(name).set(sum(o.relay.behind for o in owned))
            waiting = [o.relay.last_progress for o in owned if o.relay.behind]
            metrics.OUTBOX_AGE.labels(name).set(time.monotonic() - min(waiting) if waiting else 0)
            metrics.LAG.labels(name).set(self._lag(owned))
            await self._observe_waiting()
            await self._end_if_unowned()
            self._end_if_standing_still(owned)
            await self._end_if_deaf(owned)

    def _lag(self, owned: Sequence[Owned]) -> int:
        """Records up to the last stable offset the consumer heard of, less what is applied."""
        consumer, lag = self._subscriber.consumer, 0
        for o in owned:
            for topic in self.worker.reads:
                tp = TopicPartition(topic.name, o.partition)
                stable = consumer.last_stable_offset(tp) if consumer and tp in consumer.assignment() else None
                if stable is not None and stable > 0:
                    lag += max(0, stable - o.offsets.get(topic.name, 0))
        return lag

    async def _observe_waiting(self) -> None:
        name = self.worker.name
        try:
            held = 0
            for pool in self._pools:
                async with pool.acquire(timeout=1) as connection:
                    held += await connection.fetchval(HELD, name)
            metrics.QUARANTINED.labels(name).set(held)
            if self.worker.parked is not None:
                async with self._pools[0].acquire(timeout=1) as connection:
                    metrics.PARKED.labels(name).set(await connection.fetchval(self.worker.parked))
        except Exception as error:
            log.debug("quarantined and parked records not counted", extra={"error": repr(error)})

    async def _end_if_unowned(self) -> None:
        """Assigned by the group but not owned, and nobody is acquiring, or never heard of by the group at all.

        Not while Kafka is away: a clean process would be let in no sooner, and the gateway's door is in this one.
        """
        owned = {partition for lane in self.lanes for partition in lane.owned}
        acquiring = self._acquiring is not None and not self._acquiring.done()
        if self._generation and (self._assigned <= owned or acquiring):
            self._unowned_since = None
            return
        since = self._unowned_since = self._unowned_since or time.monotonic()
        if time.monotonic() - since > UNOWNED_S:
            if not await answers(self.settings.kafka_bootstrap_servers):
                self._unowned_since = None
                log.info("Kafka does not answer", extra={"worker": self.worker.name})
                return
            said = "partitions are assigned but lost" if self._generation else "the group never let us in"
            log.critical(said, extra={"worker": self.worker.name, "partitions": sorted(self._assigned - owned)})
            os._exit(70)

    def _end_if_standing_still(self, owned: Sequence[Owned]) -> None:
        """A clean process is the cure for a client library that has stopped for good."""
        stuck = [o.partition for o in owned if o.relay.behind and o.relay.stuck_for > STANDSTILL_S]
        if stuck or self._publisher.open_for > STANDSTILL_S:
            log.critical("results wait and none is published", extra={"partitions": stuck})
            os._exit(70)

    async def _end_if_deaf(self, owned: Sequence[Owned]) -> None:
        """The same for one that fetches no more though there is room, and Kafka is there and has more."""
        consumer, name = self._subscriber.consumer, self.worker.name
        if any(lane.is_busy for lane in self.lanes):
            return
        since = time.time() - STANDSTILL_S
        for o in owned:
            for topic in self.worker.reads:
                tp = TopicPartition(topic.name, o.partition)
                position = self._position_now(topic.name, o.partition)
                if position is None or tp in consumer.paused() or o.since > since:
                    continue
                if (consumer.last_poll_timestamp(tp) or 0) / 1000 > since:
                    continue
                try:
                    ends = await asyncio.wait_for(consumer.end_offsets([tp]), 5)
                except Exception as error:
                    log.info("Kafka does not answer", extra={"error": repr(error)})
                    return
                if ends[tp] > position == self._position_now(topic.name, o.partition):
                    log.critical("records wait and none is fetched", extra={"worker": name, "partition": o.partition})
                    os._exit(70)


def _rows_of(pool: database.Pool, service: str, partition: int) -> ReadRows:
    """A reader of one partition's outbox."""

    async def read_rows(after: int, most: int) -> Rows:
        rows: Rows = []
        count = 0
        async with pool.acquire() as connection:
            for row in await connection.fetch(READ_OUTBOX, service, partition, after):
                rows.append((row["first_seq"], unpack(row["records"])))
                count += len(rows[-1][1])
                if count >= most:
                    break
        return rows

    return read_rows


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Exceptions here would be swallowed by aiokafka: they end the process instead."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        try:
            await self._runtime.revoked({tp.partition for tp in revoked})
        except Exception:
            log.critical("partitions could not be given up", exc_info=True)
            os._exit(70)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        try:
            self._runtime.assigned(assigned)
        except Exception:
            log.critical("partitions could not be taken over", exc_info=True)
            os._exit(70)


_where: Callable[[Record], tuple[str, int]] = attrgetter("topic", "partition")
