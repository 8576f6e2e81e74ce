"""What partitions tell each other: who belongs to whom, what children are worth, and the rates of a year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count

from services.ops import store
from services.ops.revenue import ParentStatement, RateStatement, RevenueStatement, parents_at, root_of
from services.ops.store import Family, Place
from shared import topics
from shared.events.ops import ParentStated, RateStated, RevenueStated
from shared.ids import partition_of
from shared.runtime.api import Signal
from shared.runtime.unit import UnitOfWork

INTERNAL = topics.INTERNAL["ops"]
ALL_TIME = datetime.max.replace(tzinfo=UTC)


async def tell(
    revenue: Sequence[tuple[int, RevenueStatement, bool]],
    parents: Sequence[tuple[Signal, ParentStatement]],
    told_parents: Sequence[tuple[Signal, ParentStatement]],
    rates: Sequence[tuple[Signal, RateStatement]],
    unit: UnitOfWork,
) -> None:
    """Pass on what other partitions must know; facts are saved already."""
    for signal, rate in rates:
        if signal.type == "fx.rate":
            _tell_rate(signal, rate, unit)
    spoken = [(partition, one) for partition, one, home in revenue if home]
    links = [(signal.partition, one) for signal, one in (*parents, *told_parents)]
    places = {(partition, one.account_id) for partition, one in spoken}
    places |= {(partition, one.account_id) for partition, one in links}
    places |= {(partition, one.parent_id) for partition, one in links if one.parent_id}
    if not places:
        return
    family = await store.load_family(unit.db, places)
    for signal, link in parents:
        _tell_parent(signal, link, family, unit)
    if links:
        await store.wake_known(unit.db, _relatives(links, family))
    await _tell_revenue(spoken, links, family, unit)


def _tell_rate(signal: Signal, rate: RateStatement, unit: UnitOfWork) -> None:
    event = RateStated(
        currency=rate.currency, year=rate.year, rate=rate.rate, stated_at=rate.at, event_id=rate.event_id
    )
    for partition in range(unit.partitions):
        if partition != signal.partition:
            unit.emit(
                INTERNAL, event, account_id=f"fx:{rate.currency}", cause=signal.id,
                kind=f"ops.rate_stated:{partition}", occurred_at=rate.at,
                key=key_to(partition, unit.partitions), partition=signal.partition,
            )  # fmt: skip


def _tell_parent(signal: Signal, link: ParentStatement, family: Family, unit: UnitOfWork) -> None:
    """Every partition learns of links, but not of the nulls of accounts that never had a parent."""
    known = [one for one in family.of(signal.partition) if one.account_id == link.account_id]
    if all(one.parent_id is None for one in known):
        return
    # The first link also tells the nulls kept back so far; what was told before has the same id and is dropped.
    for one in sorted(known, key=lambda one: (one.at, one.event_id)):
        event = ParentStated(parent_id=one.parent_id, stated_at=one.at, event_id=one.event_id)
        for partition in range(unit.partitions):
            if partition != signal.partition:
                unit.emit(
                    INTERNAL, event, account_id=one.account_id, cause=one.event_id,
                    kind=f"ops.parent_stated:{partition}", occurred_at=one.at,
                    key=key_to(partition, unit.partitions), partition=signal.partition,
                )  # fmt: skip


async def _tell_revenue(
    spoken: Sequence[tuple[int, RevenueStatement]],
    links: Sequence[tuple[int, ParentStatement]],
    family: Family,
    unit: UnitOfWork,
) -> None:
    """A child's revenue goes to its ultimate parent: what is new, or all of it when that parent changed."""
    roots = {partition: parents_at(family.of(partition), ALL_TIME) for partition in family.statements}
    moved: dict[str, str] = {}
    if links:
        for account in (await store.load_accounts(unit.db, _relatives(links, family))).values():
            root = root_of(account.account_id, roots.get(account.partition, {})).account_id
            if root != (account.root_id or account.account_id):
                moved[account.account_id] = root
        if moved:
            await store.save_roots(unit.db, moved)
            await _tell_everything({account: root for account, root in moved.items() if root != account}, unit)
    for partition, one in spoken:
        root = root_of(one.account_id, roots.get(partition, {})).account_id
        if root != one.account_id and one.account_id not in moved:
            _send(partition, root, [one], unit)


async def _tell_everything(roots: Mapping[str, str], unit: UnitOfWork) -> None:
    """Tell new ultimate parents all that was ever said of their children's revenue."""
    # An account's own partition speaks for it; copies that its former parents hold elsewhere do not.
    places = {(partition_of(account_id.encode(), unit.partitions), account_id) for account_id in roots}
    if places:
        for (partition, account_id), statements in sorted((await store.load_revenue(unit.db, places)).items()):
            _send(partition, roots[account_id], statements, unit)


def _send(partition: int, root_id: str, statements: Sequence[RevenueStatement], unit: UnitOfWork) -> None:
    for one in sorted(statements, key=lambda one: (one.at, one.event_id)):
        event = RevenueStated(
            child_id=one.account_id, kind=one.kind, ref=one.ref, stated_at=one.at, event_id=one.event_id,
            states_amount=one.states_amount, amount=one.amount, currency=one.currency, starts_on=one.starts_on,
            ends_on=one.ends_on, auto_renew=one.auto_renew,
        )  # fmt: skip
        unit.emit(
            INTERNAL, event, account_id=root_id, cause=one.event_id,
            kind=f"ops.revenue_stated:{one.account_id}:{one.kind}:{one.ref}", occurred_at=one.at, partition=partition,
        )  # fmt: skip


def _relatives(links: Sequence[tuple[int, ParentStatement]], family: Family) -> set[Place]:
    """Everybody above and below the accounts whose parent was stated."""
    found: set[Place] = set()
    for partition in {partition for partition, _ in links}:
        found |= {(partition, account_id) for account_id in family.accounts(partition)}
        found |= {(partition, one.account_id) for where, one in links if where == partition}
    return found


@lru_cache(maxsize=4096)
def key_to(partition: int, partitions: int) -> str:
    """A key that Kafka's default partitioner sends to this partition."""
    return next(
        key for number in count() if partition_of((key := f"to-{partition}-{number}").encode(), partitions) == partition
    )
