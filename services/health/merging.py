"""What of a merged account goes to the surviving one: all of its use and whatever else is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from services.health import guidance, guiding, kin, phrases, store, telling
from services.health.domain import Memory, Policy
from services.health.episodes import NOTHING
from services.health.store import Account
from shared import topics
from shared.events import results
from shared.merging import Closed, Facts
from shared.runtime.unit import UnitOfWork, partition_for

PACKED, MARKS = 256_000, 1_000
"""Bytes of use and marks of one thing in a row that is sent."""
WHOSE = {"merged_from": "case when t.merged_from = '' then t.account_id else t.merged_from end"}
SOME_MARKS = f"""
    (select h.xmin, h.account_id, h.kind, h.key, h.partition, h.merged_from, h.merged_at, part.marks
       from health.things h,
            lateral (select jsonb_agg(mark order by n) as marks
                       from jsonb_array_elements(h.marks) with ordinality as one (mark, n)
                      group by (n - 1) / {MARKS}) part)
"""
# A thing that goes on changing is sent again as a whole: what is known of it stays.
ADD_MARKS = """
    insert into health.things as known (account_id, kind, key, partition, marks, merged_from, merged_at)
    select t.account_id, t.kind, t.key, min(t.partition), jsonb_agg(mark), t.merged_from, max(t.merged_at)
      from unnest($1::text[]) as given (row),
           lateral jsonb_populate_record(null::health.things, row::jsonb) as t,
           lateral jsonb_array_elements(t.marks) as one (mark)
     group by t.account_id, t.kind, t.key, t.merged_from
    on conflict (account_id, kind, key, merged_from) do update
        set until = null,
            marks = known.marks || coalesce(
                (select jsonb_agg(mark)
                   from jsonb_array_elements(excluded.marks) as new (mark)
                  where not exists (select from jsonb_array_elements(known.marks) as old (mark)
                                     where old.mark ->> 1 = new.mark ->> 1 and old.mark ->> 2 = new.mark ->> 2)),
                '[]')
"""
SOME_USE = f"""
    (select u.xmin, u.account_id, u.day, u.partition, u.merged_from, u.merged_at,
            translate(encode(substring(u.body from part * {PACKED} + 1 for {PACKED}), 'base64'), E'\\n', '') as packed
       from health.usage u, lateral generate_series(0, (length(u.body) - 1) / {PACKED}) as part)
"""
ADD_USE = """
    insert into health.usage (account_id, day, partition, n, body, merged_from, merged_at)
    select t.account_id, t.day, t.partition, length(body) / 32, body, t.merged_from, t.merged_at
      from unnest($1::text[]) as given (row),
           lateral jsonb_to_record(row::jsonb) as t (account_id text, day date, partition int, packed text,
                                                     merged_from text, merged_at timestamptz),
           lateral decode(t.packed, 'base64') as body
"""
FACTS = (
    Facts("health.users"),
    Facts("health.usage", changed=WHOSE, source=SOME_USE, add=ADD_USE),
    Facts("health.things", changed=WHOSE, source=SOME_MARKS, add=ADD_MARKS),
)


async def wake(unit: UnitOfWork, accounts: Mapping[str, int]) -> None:
    await store.save_grown(unit.db, accounts)


class Closing:
    """Tells what becomes of a merged account, once: its alerts are over, its state has no score any more."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    async def close(self, unit: UnitOfWork, accounts: Mapping[str, Closed]) -> None:
        memories = await store.load_memories(unit.db, accounts)
        told = {name: memory for name, memory in memories.items() if memory.state and not memory.state.get(MERGED_INTO)}
        if not told:
            return
        rows = await store.load_accounts(unit.db, told)
        ended = []
        for name, memory in sorted(told.items()):
            at = unit.clock(rows[name].partition) or accounts[name].merged_at
            ended += self._tell(rows[name], memory, accounts[name], at, unit)
        if ended:
            await store.save_alerts(unit.db, ended, self.policy.digest)
        gone = [
            (rows[name], memory, accounts[name], unit.clock(rows[name].partition) or accounts[name].merged_at)
            for name, memory in sorted(told.items())
        ]
        await guiding.close(gone, unit, self.policy)
        # Of no configuration: a change of it scores the others anew.
        last = [
            (replace(rows[name], config_hash=None), _last(memory, accounts[name]))
            for name, memory in sorted(told.items())
        ]
        await store.save_accounts(unit.db, last)
        if self.policy.model.family is not None:
            places = {name: rows[name].partition for name in told}
            targets = {name: accounts[name].account_id for name in told}
            await kin.hand_over(places, targets, {name: accounts[name].merged_at for name in told}, unit)

    def _tell(
        self, row: Account, memory: Memory, to: Closed, at: datetime, unit: UnitOfWork
    ) -> list[telling.EndedEpisode]:
        cause = telling.Cause(f"{row.account_id}:merged", to.merged_at, (), at, baseline=True)
        why = phrases.text("merged", self.policy.model.language, into=to.account_id)
        ended = [telling.end(row, episode, why, cause, unit, self.policy) for episode in memory.open]
        state = results.AccountState(account_id=row.account_id, as_of=at, **_state(memory, to))
        unit.emit(
            topics.STATE_ACCOUNTS, state, account_id=row.account_id, cause=cause.id, partition=row.partition
        )  # fmt: skip
        return ended


MERGED_INTO = "merged_into"


def _state(memory: Memory, to: Closed) -> dict[str, object]:
    gone = {"score": None, "band": "unknown", "shown_band": "unknown", "arr": None, "notice_on": None}
    return {**(memory.state or {}), **gone, MERGED_INTO: to.account_id}


def _last(memory: Memory, to: Closed) -> Memory:
    return replace(memory, score=None, state=_state(memory, to), open=(), hush=NOTHING, band=None,
                   in_band=None, guidance=guidance.NOTHING)  # fmt: skip


async def pass_on(heard: kin.Heard, unit: UnitOfWork) -> None:
    """Let the survivor hear what children tell an account that became another."""
    into = await store.load_merges(unit.db, {signal.account_id for signal in heard})
    for signal in heard:
        to = into.get(signal.account_id)
        if to is not None:
            unit.emit(
                kin.INTERNAL, signal.data, account_id=to, cause=signal.id, kind="health.child_scored",
                occurred_at=signal.occurred_at, partition=partition_for(signal.account_id, unit.partitions),
            )  # fmt: skip
