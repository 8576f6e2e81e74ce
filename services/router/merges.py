"""Which account became which by a merge, and from when on: pure.

A merge changes the future only: what an account did before it stays its own, until its facts are counted with the
other's. An event that names nobody and finds the merged account by its user or an external id goes to the surviving
one from the merge's own time on, and what it chose is kept. An event that names the merged account goes straight to
the surviving one only from a day after the merge was heard of: nothing dated then can have been routed before, so
that a repeat goes the way its first copy went; until then the workers hand its facts on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

AFTER = timedelta(hours=24)
"""No event is dated further than this after its receipt."""


@dataclass(frozen=True, slots=True)
class Merge:
    """What an account became at `valid_from`; the router heard of it at `known_at`."""

    account_id: str
    valid_from: datetime
    known_at: datetime


Merges = Mapping[str, Merge]
"""By merged account."""


def became(account_id: str, at: datetime, merges: Merges) -> str:
    """The account that this one is at a moment, however many merges led there."""
    while (merge := merges.get(account_id)) is not None and at >= merge.valid_from:
        account_id = merge.account_id
    return account_id


def straight_to(account_id: str, at: datetime, merges: Merges) -> str:
    """The account to which an event of this own time goes that names one."""
    while (merge := merges.get(account_id)) is not None and at >= max(merge.valid_from, merge.known_at + AFTER):
        account_id = merge.account_id
    return account_id


def survivor(account_id: str, merges: Merges) -> str:
    """What the account is in the end."""
    while (merge := merges.get(account_id)) is not None:
        account_id = merge.account_id
    return account_id


def refusal(merged: str, into: str, merges: Merges) -> str | None:
    """Why an account cannot be merged into another; None: it can, or it is already."""
    if merged == into:
        return f"account {merged!r} cannot be merged into itself"
    known = merges.get(merged)
    if known is not None and known.account_id != into:
        return f"account {merged!r} was merged into {known.account_id!r} before; merge that one instead"
    way = [into]
    while known is None and (step := merges.get(way[-1])) is not None:
        way.append(step.account_id)
        if step.account_id == merged:
            return f"account {merged!r} cannot be merged into {into!r}: that became {' → '.join(way[1:])} by merges"
    return None
