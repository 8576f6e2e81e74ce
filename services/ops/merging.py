"""What of a merged account goes to the surviving one: its contacts, and owners and traits where that one has none.

Its revenue is not moved: the account becomes a child of the survivor, so the sums of the hierarchy hold it.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.ops import relatives, store
from services.ops.revenue import ParentStatement
from shared.events.inputs import AccountMerged
from shared.merging import MERGED, Closed, Facts
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork, partition_for

# Older than anything of the survivor's own, in their own order: they hold where nothing else was said.
YIELDING = {"occurred_at": "t.occurred_at - interval '100 years'"}
FACTS = (
    Facts("ops.touches"),
    Facts("ops.assignments", changed=YIELDING),
    Facts("ops.traits", changed=YIELDING),
)
DEAF = ("ops.group_segmented",)
LAST = "~merged:"
"""Sorts behind the ids of what was said at the same time."""


async def wake(unit: UnitOfWork, accounts: Mapping[str, int]) -> None:
    await store.save_awake(unit.db, {(partition, account_id) for account_id, partition in accounts.items()})


async def close(unit: UnitOfWork, accounts: Mapping[str, Closed]) -> None:
    """Below the survivor from the merge on, whatever else is said of the account's parent."""
    places = {(partition_for(name, unit.partitions), name) for name in accounts}
    family = await store.load_family(unit.db, places)
    links: list[tuple[Signal, ParentStatement]] = []
    for partition, name in sorted(places):
        to = accounts[name]
        said = [one for one in family.of(partition) if one.account_id == name and not one.event_id.startswith(LAST)]
        later = [(one.at, one.event_id) for one in said if one.at > to.merged_at]
        for at, event_id in sorted([(to.merged_at, ""), *later]):
            link = ParentStatement(name, to.account_id, at, f"{LAST}{event_id or name}")
            links.append((_voice(partition, name, to, link), link))
    await store.save_parents(unit.db, [(signal.partition, link) for signal, link in links])
    await relatives.tell([], links, [], [], unit)


def _voice(partition: int, name: str, to: Closed, link: ParentStatement) -> Signal:
    told = AccountMerged(account_id=to.account_id, merged_account_id=name)
    return Signal("", partition, 0, MERGED, link.event_id, "hune.ops", name, told, link.at, link.at)
