"""Writing down an account's events."""

from __future__ import annotations

from datetime import date
from typing import Any

from cli.company.calendars import Span

LAST_SECOND = 86_399


class Diary:
    """The events of one account within the span; what would lie outside is not written."""

    __slots__ = ("_dates", "_number", "account_id", "pages", "span")

    def __init__(self, account_id: str, span: Span) -> None:
        self.account_id = account_id
        self.span = span
        self.pages: list[dict[str, Any]] = []
        self._number = 0
        self._dates = [span.day(index).isoformat() for index in range(span.days)]

    def write(self, day: float, second: float, type_: str, *, named: bool = True, **fields: Any) -> bool:
        """Note that something happened on a day of the span; `named` False leaves the account out. True when noted."""
        index = int(day)
        if not 0 <= index < self.span.days:
            return False
        self._number += 1
        page = {
            "id": f"{self.account_id}-{self._number}",
            "type": type_,
            "account_id": self.account_id,
            "timestamp": f"{self._dates[index]}T{clock(second)}Z",
            **fields,
        }
        if not named:
            del page["account_id"]
        self.pages.append(page)
        return True

    def use(self, day: int, second: float, user_id: str, feature: str, product: str) -> None:
        """Note a use of a feature: the hot path of `write`."""
        self._number += 1
        self.pages.append(
            {
                "id": f"{self.account_id}-{self._number}",
                "type": "usage.tracked",
                "account_id": self.account_id,
                "user_id": user_id,
                "feature": feature,
                "product": product,
                "timestamp": f"{self._dates[day]}T{clock(second)}Z",
            }
        )

    def date(self, day: float) -> date:
        return self.span.day(int(day))


def clock(second: float) -> str:
    minutes, seconds = divmod(min(max(int(second), 0), LAST_SECOND), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"
