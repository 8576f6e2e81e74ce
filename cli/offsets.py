"""The ends of topics, asked of each broker in one request."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.offset import OffsetRequest

from shared.access import refuse_wrong_access
from shared.errors import Misconfigured, Transient
from shared.kafka import client_options

Partition = tuple[str, int]

COMMITTED = 1
UNCOMMITTED = 0
LATEST = -1
EARLIEST = -2
RETRY_S = 0.1
GIVE_UP_S = 15.0


class Offsets:
    """A connection that answers where partitions begin and end.

    aiokafka's consumers ask the same, but one of them has one isolation level and learns topic by topic.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._servers = bootstrap_servers
        self._client: Any = AIOKafkaClient(**client_options(bootstrap_servers))
        self._learning = asyncio.Lock()

    async def __aenter__(self) -> Self:
        quiet = logging.getLogger("aiokafka")
        quiet.setLevel(max(quiet.level, logging.CRITICAL))
        try:
            await self._client.bootstrap()
        except KafkaError as error:
            await self._client.close()
            await refuse_wrong_access(self._servers)
            raise Transient(f"Kafka does not answer at {self._servers}: {error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def partitions_of(self, topics: Collection[str]) -> dict[str, int]:
        """How many partitions each topic has; a topic that does not exist is left out."""
        async with self._learning:  # a second caller must not take a half-learnt answer for a whole one
            await self._client.set_topics(topics)
        found = {topic: self._client.cluster.partitions_for_topic(topic) for topic in topics}
        return {topic: len(partitions) for topic, partitions in found.items() if partitions}

    async def committed_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The last stable offsets: how far a `read_committed` consumer can read."""
        return await self._ask(partitions, LATEST, COMMITTED)

    async def written_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The high watermarks: beyond the last stable offset while a transaction is open."""
        return await self._ask(partitions, LATEST, UNCOMMITTED)

    async def beginnings(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return await self._ask(partitions, EARLIEST, UNCOMMITTED)

    async def _ask(self, partitions: Iterable[Partition], timestamp: int, isolation: int) -> dict[Partition, int]:
        wanted = list(partitions)
        await self._known({topic for topic, _ in wanted})
        deadline = asyncio.get_running_loop().time() + GIVE_UP_S
        while True:
            try:
                return await self._ask_once(wanted, timestamp, isolation)
            except KafkaError as error:
                if asyncio.get_running_loop().time() > deadline or not error.retriable:
                    raise Transient(f"Kafka at {self._servers} does not say where its topics end: {error!r}") from error
            await asyncio.sleep(RETRY_S)
            await self._client.force_metadata_update()

    async def _known(self, topics: set[str]) -> None:
        missing = topics - set(await self.partitions_of(topics))
        if missing:
            raise Misconfigured(f"Kafka has no topic {', '.join(sorted(missing))}; `hune topics apply` makes them")

    async def _ask_once(self, wanted: list[Partition], timestamp: int, isolation: int) -> dict[Partition, int]:
        by_leader: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for topic, partition in wanted:
            leader = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
            if leader is None or leader == -1:
                raise LeaderNotAvailableError(f"{topic}/{partition}")
            by_leader[leader][topic].append((partition, timestamp))
        answers = await asyncio.gather(*(self._of_leader(leader, ask, isolation) for leader, ask in by_leader.items()))
        return {partition: end for answer in answers for partition, end in answer.items()}

    async def _of_leader(
        self, leader: int, ask: Mapping[str, list[tuple[int, int]]], isolation: int
    ) -> dict[Partition, int]:
        response = await self._client.send(leader, OffsetRequest(-1, isolation, list(ask.items())))
        ends = {}
        for topic, answers in response.topics:
            for partition, code, _, offset, *_ in answers:
                if code:
                    raise for_code(code)(f"{topic}/{partition}")
                ends[topic, partition] = offset
        return ends
