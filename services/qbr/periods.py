"""Quarters and half-years of the reporting zone. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Every = Literal["quarter", "half_year"]
INSTANT = timedelta(microseconds=1)
_QUARTER = re.compile(r"(?:(\d{4})[- ]?[QT]([1-4])|[QT]([1-4])[- ]?(\d{4}))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Period:
    """A quarter (`2026-Q3`) or half-year (`2026-H2`) of the reporting zone, up to the next one's first instant."""

    name: str
    starts_at: datetime
    ends_at: datetime


def period_of(at: datetime, every: Every, zone: ZoneInfo) -> Period:
    local = at.astimezone(zone)
    months = 3 if every == "quarter" else 6
    return _period(local.year, (local.month - 1) // months, months, zone)


def quarter_named(text: str, zone: ZoneInfo) -> Period:
    """Read `2026-Q3`, `2026Q3` or `Q3 2026`.

    Raises ValueError that shows how to write it.
    """
    found = _QUARTER.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"quarter {text!r} is not one; write 2026-Q3")
    year, number = (found[1], found[2]) if found[1] else (found[4], found[3])
    if not 1970 <= int(year) <= 2200:
        raise ValueError(f"quarter {text!r} is out of range; write one from 1970 to 2200")
    return _period(int(year), int(number) - 1, 3, zone)


def before(period: Period, zone: ZoneInfo) -> Period:
    """The period of the same length that ends where this one starts."""
    every: Every = "quarter" if "Q" in period.name else "half_year"
    return period_of(period.starts_at - timedelta(days=1), every, zone)


def _period(year: int, index: int, months: int, zone: ZoneInfo) -> Period:
    following = index + 1
    start = datetime(year, index * months + 1, 1, tzinfo=zone)
    end = datetime(year + following * months // 12, following * months % 12 + 1, 1, tzinfo=zone)
    return Period(f"{year}-{'Q' if months == 3 else 'H'}{following}", start, end)
