"""What a batch is about to remember, saved at its end with everything that it sends."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from services.router.domain import IdentityBook, Membership
from services.router.merges import Merge
from services.router.reader import RawEvent
from services.router.store import Parked, ToPark, Understood
from shared.runtime.seen import identity
from shared.runtime.wire import Headers
from shared.vault.sealing import Contact


@dataclass(slots=True)
class Plan:
    """What one batch has to remember besides its records."""

    book: IdentityBook = field(default_factory=IdentityBook)
    memberships: dict[tuple[str, str], Membership] = field(default_factory=dict)
    links: list[tuple[str, str, str | None, datetime]] = field(default_factory=list)
    merges: dict[str, Merge] = field(default_factory=dict)
    accounts: dict[str, str | None] = field(default_factory=dict)
    chosen: dict[int, str] = field(default_factory=dict)
    choices: dict[int, str] = field(default_factory=dict)
    understood: dict[int, Understood] = field(default_factory=dict)
    asked: dict[int, Understood] = field(default_factory=dict)
    waiting: dict[tuple[int, str], list[Parked]] = field(default_factory=dict)
    released: list[Parked] = field(default_factory=list)
    parked: list[ToPark] = field(default_factory=list)
    blocked: set[tuple[int, str]] = field(default_factory=set)
    asked_about: list[tuple[RawEvent, Headers]] = field(default_factory=list)
    contacts: list[tuple[Contact, datetime]] = field(default_factory=list)
    begins_life: bool = False

    def accept(self, merged: str, merge: Merge) -> None:
        self.merges[merged] = merge
        self.book.merges = {**self.book.merges, merged: merge}


def hash_of(event: RawEvent) -> int:
    hashed, _ = identity(event.source, event.id, event.own_time)
    return hashed - (1 << 64) if hashed >= 1 << 63 else hashed
