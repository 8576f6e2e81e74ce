"""The unit of work: what a handler may say about a batch, committed in one transaction or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from datetime import datetime, timedelta
from functools import lru_cache

from pydantic import JsonValue

from shared.db import Connection
from shared.errors import Poison
from shared.events import ResultEvent, results
from shared.events.base import Event
from shared.ids import derived_id, partition_of
from shared.kafka import MAX_RECORD_BYTES
from shared.runtime.api import Signal
from shared.runtime.wire import Headers, Outgoing, Refused, event_headers
from shared.topics import RESULTS, Topic

MOST_BYTES = MAX_RECORD_BYTES - 16 * 1024
ACTS_OUTSIDE_FOR = timedelta(hours=24)


@lru_cache(maxsize=262_144)
def partition_for(key: str, partitions: int) -> int:
    return partition_of(key.encode(), partitions)


class UnitOfWork:
    """One transaction over some partitions of one database, number `database` of the workers'.

    Signals that the handler neither ignores nor rejects count as applied. `seq` is unique and increasing
    over the transactions of each of the unit's partitions; `on_commit` runs once it is certain.
    """

    def __init__(
        self,
        service: str,
        db: Connection,
        *,
        seq: int,
        clocks: Mapping[int, datetime | None],
        live: Iterable[int],
        partitions: int,
        database: int = 0,
    ) -> None:
        self.service = service
        self.db = db
        self.database = database
        self.partitions = partitions
        self.outbox: dict[int, list[Outgoing]] = {}
        self.counts: dict[int, Counter[str]] = {partition: Counter() for partition in clocks}
        self.refused: list[Refused] = []
        self.on_commit: list[Callable[[], None]] = []
        self.rejected: dict[tuple[str, int, int], tuple[str, str]] = {}
        self.seq = seq
        self._clocks = clocks
        self._live = frozenset(live)

    def clock(self, partition: int) -> datetime | None:
        """What time it is there: PostgreSQL's once live, the latest run's end before, else unknown."""
        return self._clocks[partition]

    def learning(self) -> UnitOfWork:
        """The same transaction where nobody knows the time yet: facts are learnt, nothing is decided."""
        unit = copy(self)
        unit._clocks, unit._live = dict.fromkeys(self._clocks), frozenset()
        return unit

    def is_live(self, partition: int) -> bool:
        return partition in self._live

    def quiet(self, signal: Signal) -> bool:
        """Whether nothing may act outside for this signal: it is of a run, or was old at its receipt."""
        return signal.replay or signal.received_at - signal.occurred_at > ACTS_OUTSIDE_FOR

    def now(self, signal: Signal) -> datetime:
        """The time to stamp on what the signal causes."""
        return self._clocks[signal.partition] or signal.received_at

    def emit(
        self,
        topic: Topic,
        event: Event,
        *,
        account_id: str,
        cause: str,
        kind: str = "",
        ordinal: int = 0,
        occurred_at: datetime | None = None,
        key: str | None = None,
        partition: int | None = None,
        extra: Headers | None = None,
    ) -> str:
        """Write a result record in this transaction and return its id, computed from its cause.

        `partition` is whose outbox carries it (default: the account's own partition).
        """
        identity = derived_id(self.service, cause, kind or event.type_name, account_id, ordinal)
        when = occurred_at or getattr(event, "occurred_at", None) or getattr(event, "as_of", None)
        assert when is not None, f"{event.type_name} has no time of its own: pass occurred_at"
        headers = event_headers(
            event, id=identity, source=f"hune.{self.service}", subject=account_id, time=when, extra=extra or ()
        )
        routing_key = key or account_id
        to = partition_for(routing_key, self.partitions)
        record = Outgoing(topic.name, to, routing_key.encode(), event.model_dump_json().encode(), headers)
        self.send(to if partition is None else partition, record)
        return identity

    def send(self, owner: int, record: Outgoing) -> None:
        """Put a finished record into the outbox of the partition `owner`.

        Raises Poison when Kafka would never take it: the relay could not pass it.
        """
        size = len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
        if size > MOST_BYTES:
            raise Poison(f"a record for {record.topic} would take {size:,} bytes; {MOST_BYTES:,} fit")
        self.outbox.setdefault(owner, []).append(record)

    def ignore(self, signal: Signal, reason: str) -> None:
        """Count the signal as read but of no consequence, by reason."""
        self.count(signal.partition, f"ignored:{reason}")

    def reject(self, signal: Signal, reason: str, error: str = "") -> None:
        """Put the signal's record into quarantine."""
        self.rejected[signal.topic, signal.partition, signal.offset] = (reason, error)

    def count(self, partition: int, outcome: str, n: int = 1) -> None:
        self.counts[partition][outcome] += n

    def answer(self, signal: Signal, answer: dict[str, JsonValue], as_of: datetime | None) -> None:
        """Answer a request; the answer's id derives from the request's."""
        self._reply(
            signal,
            results.RequestAnswered(
                account_id=signal.about,
                cause_ids=(signal.id,),
                occurred_at=signal.occurred_at,
                computed_at=self.now(signal),
                request_id=signal.id,
                demand=signal.demand or "",
                as_of=as_of,
                answer=answer,
            ),
        )

    def decline(self, signal: Signal, reason: str) -> None:
        """Say why a request is not answered."""
        self._reply(
            signal,
            results.RequestDeclined(
                account_id=signal.about,
                cause_ids=(signal.id,),
                occurred_at=signal.occurred_at,
                computed_at=self.now(signal),
                request_id=signal.id,
                demand=signal.demand,
                reason=reason,
            ),
        )

    def _reply(self, signal: Signal, event: ResultEvent) -> None:
        extra = [("ce_correlationid", signal.id.encode())]
        if signal.confidence is not None:
            extra.append(("ce_confidence", str(signal.confidence).encode()))
        self.emit(
            RESULTS[self.service],
            event,
            account_id=signal.account_id,
            cause=signal.id,
            kind="reply",
            partition=signal.partition,
            extra=extra,
        )
