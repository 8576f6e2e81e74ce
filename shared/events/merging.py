"""What the owner of a merged account tells the owner of the surviving one."""

from __future__ import annotations

from pydantic import AwareDatetime

from shared.events.base import Event, Identifier


class AccountFactsMoved(Event, type="account.facts_moved"):
    """Internal: facts of an account that became the subject, as rows of one table of the service.

    Each row is the JSON text of the row as it is to be added; `merged_at` is when the account became the other.
    """

    merged_account_id: Identifier
    merged_at: AwareDatetime
    table: str
    rows: tuple[str, ...]
