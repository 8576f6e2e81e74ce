"""What of a merged account goes to the surviving one: everything that was said; its scores are then counted anew."""

from __future__ import annotations

from collections.abc import Mapping

from services.feedback import store
from shared.merging import Facts
from shared.runtime.unit import UnitOfWork

FACTS = (Facts("feedback.statements"), Facts("feedback.invitations"))


async def wake(unit: UnitOfWork, accounts: Mapping[str, int]) -> None:
    await store.save_behind(unit.db, accounts)
