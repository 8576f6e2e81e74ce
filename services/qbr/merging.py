"""What of a merged account goes to the surviving one: what happened, and its use; reviews are then decided anew."""

from __future__ import annotations

from collections.abc import Mapping

from services.qbr import store
from shared.merging import Facts
from shared.runtime.unit import UnitOfWork

# Use is packed by transaction: what comes from elsewhere gets numbers below those of the account's own transactions.
ADD_USAGE = """
    insert into qbr.usage_days
    select made.* from unnest($1::text[]) with ordinality as given (row, n),
           lateral jsonb_populate_record(null::qbr.usage_days,
                                         row::jsonb || jsonb_build_object('seq', -($2::bigint * 1000000 + n))) as made
"""
FACTS = (Facts("qbr.facts"), Facts("qbr.usage_days", add=ADD_USAGE))


async def wake(unit: UnitOfWork, accounts: Mapping[str, int]) -> None:
    await store.save_due_now(unit.db, accounts)
