"""Persons who asked to be forgotten: what of theirs is dropped, and how the services hear of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.router.reader import CLOCK, REQUEST, RawEvent
from services.router.store import BEGINNING, OVERLAP
from shared import privacy, topics
from shared.events import inputs, results
from shared.ids import derived_id
from shared.runtime.api import EVERYBODY
from shared.runtime.unit import UnitOfWork
from shared.runtime.wire import Headers, Outgoing, pack_headers, unpack_headers
from shared.vault import store, withheld
from shared.vault.keys import Keys

AGAIN_AFTER = timedelta(minutes=1)
HOLDERS = ("router", "import", "notify")
"""Whose quarantine holds what nobody could read."""
REASON = "asked to be forgotten"

SAVE = """
    insert into router.privacy as known (user_id, suppressed, erased_to, asked_at, partition, value, headers)
    values ($1, coalesce($2, false), $3, $4, $5, $6, $7)
    on conflict (user_id) do update
       set suppressed = coalesce($2, known.suppressed), erased_to = greatest(known.erased_to, excluded.erased_to),
           requests = known.requests + 1, asked_at = excluded.asked_at, changed_at = clock_timestamp(),
           partition = excluded.partition,
           value = coalesce(excluded.value, known.value), headers = coalesce(excluded.headers, known.headers)
"""
LOAD = "select user_id, suppressed, erased_to, changed_at from router.privacy where changed_at > $1 order by changed_at"
TELL_AGAIN = """
    with due as (
        select user_id from router.privacy
         where value is not null and partition = any($1::int[]) and changed_at < $2 limit $3 for update
    ), told as (
        select p.user_id, p.partition, p.value, p.headers from router.privacy p join due using (user_id)
    ), cleared as (
        update router.privacy p set value = null, headers = null from due where p.user_id = due.user_id
    )
    select * from told
"""
FORGET_MEMBERSHIPS = "delete from router.memberships where user_id = $1"
FORGET_PARKED = """
    delete from router.parked
     where partition = any($1::int[]) and (entity = $2 or convert_from(value, 'UTF8')::jsonb ->> 'user_id' = $3)
 returning partition
"""


@dataclass(frozen=True, slots=True)
class Gone:
    """What was asked about a person: drop what comes, and what happened up to `erased_to`."""

    suppressed: bool = False
    erased_to: datetime | None = None

    def covers(self, occurred_at: datetime) -> bool:
        return self.suppressed or (self.erased_to is not None and occurred_at <= self.erased_to)

    def after(self, regulation: str, at: datetime) -> Gone:
        """Deleting says nothing of what comes later; the other regulations do."""
        suppressed = self.suppressed if regulation == "delete" else regulation in privacy.SUPPRESSING
        ends = [end for end in (self.erased_to, at if regulation in privacy.ERASING else None) if end is not None]
        return Gone(suppressed, max(ends, default=None))


class Register:
    """Who is gone, in memory; every process looks up now and then what the others were told.

    What a batch adds stays even if the batch is done again: it says the same again.
    """

    def __init__(self, keys: Keys | None = None) -> None:
        self._keys = keys
        self._gone: dict[str, Gone] = {}
        self._known_to = BEGINNING

    async def begin(self, events: Sequence[RawEvent], unit: UnitOfWork) -> None:
        """Before a batch: read what there is, at first and when it brings a request."""
        if self._known_to is BEGINNING or any(type(event.data) is inputs.PrivacyRequested for event in events):
            await self._look(unit)

    def drops(self, event: RawEvent, unit: UnitOfWork) -> bool:
        """Whether the event is of somebody who is gone, and was dropped."""
        if not self._gone or event.user_id not in self._gone:
            return False
        if event.wire_type in (REQUEST, CLOCK) or type(event.data) is inputs.PrivacyRequested:
            return False
        if not self._gone[event.user_id].covers(event.occurred_at):
            return False
        _count(event.partition, 1, unit)
        return True

    def hear(self, event: RawEvent) -> None:
        asked = event.data
        assert isinstance(asked, inputs.PrivacyRequested)
        before = self._gone.get(asked.user_id, Gone())
        self._gone[asked.user_id] = before.after(asked.regulation, event.occurred_at)

    async def save(self, requests: Sequence[tuple[RawEvent, Headers]], unit: UnitOfWork) -> None:
        """After a batch: write down who is gone, and drop what is kept of them."""
        for event, headers in requests:
            asked = event.data
            assert isinstance(asked, inputs.PrivacyRequested)
            erases = asked.regulation in privacy.ERASING
            suppressed = None if asked.regulation == "delete" else asked.regulation in privacy.SUPPRESSING
            await unit.db.execute(
                SAVE, asked.user_id, suppressed, event.occurred_at if erases else None, event.occurred_at,
                event.partition, event.value if erases else None, pack_headers(headers) if erases else None,
            )  # fmt: skip
            self._record(event, asked, unit)
            if erases:
                await unit.db.execute(FORGET_MEMBERSHIPS, asked.user_id)
                known = await store.values_of(unit.db, self._keys, asked.user_id) if self._keys else []
                for word in (asked.user_id, *known):
                    await privacy.forget_quarantined(unit.db, HOLDERS, word)
                if self._keys:
                    words = [asked.user_id, *known]
                    await withheld.forget(unit.db, self._keys, HOLDERS, words, event.received_at)
                await store.erase(unit.db, asked.user_id, event.received_at)
                await _forget_parked(asked.user_id, unit.counts, unit)

    def _record(self, event: RawEvent, asked: inputs.PrivacyRequested, unit: UnitOfWork) -> None:
        """Tell whoever keeps a door of its own."""
        gone, person = self._gone[asked.user_id], privacy.person_of(asked.user_id)
        recorded = results.PrivacyRecorded(
            account_id=None, person=person, suppressed=gone.suppressed, erased_to=gone.erased_to,
            cause_ids=(event.id,), occurred_at=event.occurred_at, computed_at=event.received_at,
        )  # fmt: skip
        unit.emit(topics.RESULTS["router"], recorded, account_id=person, cause=event.id, partition=event.partition)

    async def tick(
        self, clocks: Mapping[int, datetime], now: datetime, limit: int, outputs: Sequence[str], unit: UnitOfWork
    ) -> None:
        """Hear what other partitions were told, and tell the services once more.

        Another partition may have routed an event of the person while the request was on its way to it.
        """
        for user_id, gone in (await self._look(unit)).items():
            if gone.erased_to is not None:
                await _forget_parked(user_id, clocks, unit)
        for row in await unit.db.fetch(TELL_AGAIN, list(clocks), now - AGAIN_AFTER, limit):
            headers: Headers = [("ce_subject", EVERYBODY.encode())]
            for name, value in unpack_headers(row["headers"]):
                if value is not None:
                    again = derived_id("privacy", value.decode()).encode()
                    headers.append((name, again if name == "ce_id" else value))
            for topic in outputs:
                for partition in range(unit.partitions):
                    unit.send(row["partition"], Outgoing(topic, partition, EVERYBODY.encode(), row["value"], headers))

    async def _look(self, unit: UnitOfWork) -> dict[str, Gone]:
        rows = await unit.db.fetch(LOAD, max(self._known_to - OVERLAP, BEGINNING))
        found = {row["user_id"]: Gone(row["suppressed"], row["erased_to"]) for row in rows}
        self._gone |= found
        self._known_to = rows[-1]["changed_at"] if rows else max(self._known_to, BEGINNING + OVERLAP)
        return found


async def _forget_parked(user_id: str, partitions: Collection[int], unit: UnitOfWork) -> None:
    rows = await unit.db.fetch(FORGET_PARKED, list(partitions), f"user:{user_id}", user_id)
    for partition, n in Counter(row["partition"] for row in rows).items():
        unit.count(partition, "parked", -n)
        _count(partition, n, unit)


def _count(partition: int, n: int, unit: UnitOfWork) -> None:
    unit.count(partition, "excluded", n)
    unit.count(partition, f"reason:excluded:{REASON}", n)
