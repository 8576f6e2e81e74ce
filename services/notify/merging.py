"""What of a merged account goes to the surviving one: its ids in other tools, and whom one may write to there.

Its open alerts are resolved by health, which tells so on cs.alerts.v1. What was told of it stays in the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from services.notify import store
from shared.db import Connection, columns
from shared.runtime.unit import partition_for

SAVE = """
    insert into notify.merges (merged_account_id, account_id, partition)
    select * from unnest($1::text[], $2::text[], $3::int[]) on conflict do nothing
"""
ENDS = """
    with recursive way as (
        select merged_account_id, account_id, partition, 1 as step
          from notify.merges where merged_account_id = any($1::text[])
        union all
        select way.merged_account_id, m.account_id, m.partition, way.step + 1
          from way join notify.merges m on m.merged_account_id = way.account_id)
    select distinct on (merged_account_id) merged_account_id, account_id, partition
      from way order by merged_account_id, step desc
"""
"""Whom each merged account ended in; the router lets no circle come to be."""
TAKE_LINKS = """
    with gone as (select * from notify.links where account_id = any($1::text[]) and external_id <> '' for update)
    update notify.links l set external_id = '' from gone
     where (l.account_id, l.namespace) = (gone.account_id, gone.namespace)
    returning gone.account_id, gone.namespace, gone.external_id, gone.said_at
"""
COPY_PEOPLE = """
    insert into notify.people as known (account_id, contact_id, partition, user_id, role, role_at, status, status_at,
                                        hashes)
    select $2::text, contact_id, $3::int, user_id, role, role_at, status, status_at, hashes
      from notify.people where account_id = $1
    on conflict (account_id, contact_id) do update
       set user_id = coalesce(known.user_id, excluded.user_id),
           role = case when excluded.role_at > known.role_at or known.role is null then excluded.role
                       else known.role end,
           role_at = greatest(known.role_at, excluded.role_at),
           status = case when excluded.status_at > known.status_at or known.status is null then excluded.status
                         else known.status end,
           status_at = greatest(known.status_at, excluded.status_at),
           hashes = array(select distinct unnest(known.hashes || excluded.hashes) order by 1)
"""
CENTURY = timedelta(days=36_525)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def move(db: Connection, merged: Mapping[str, str], spoken_of: Collection[str], partitions: int) -> None:
    """Learn who became part of whom, and pass on what is known of those among the accounts that were spoken of."""
    if merged:
        rows = [(name, to, partition_for(to, partitions)) for name, to in sorted(merged.items())]
        await db.execute(SAVE, *columns(rows, 3))
    elif not spoken_of:
        return
    found = await db.fetch(ENDS, sorted({*merged, *spoken_of}))
    ends = {row["merged_account_id"]: (row["account_id"], row["partition"]) for row in found}
    if not ends:
        return
    taken = await db.fetch(TAKE_LINKS, sorted(ends))
    await store.save_links(
        db,
        [(*ends[row["account_id"]], row["namespace"], row["external_id"], _yielding(row["said_at"])) for row in taken],
    )
    for name, (to, partition) in sorted(ends.items()):
        await db.execute(COPY_PEOPLE, name, to, partition)


def _yielding(at: datetime) -> datetime:
    """Older than anything that was said of the survivor itself, in the same order among themselves."""
    return at if at < EPOCH else at - CENTURY
