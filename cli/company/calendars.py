"""The days of the story, and how much of a working day each is in a country."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

DAYS_A_MONTH = 30.4375
OFFSETS = {"FR": 1, "DE": 1, "ES": 1, "NL": 1, "GB": 0, "US": -5}
ZONES = {
    "FR": "Europe/Paris",
    "DE": "Europe/Berlin",
    "ES": "Europe/Madrid",
    "NL": "Europe/Amsterdam",
    "GB": "Europe/London",
    "US": "America/New_York",
}
FIXED = {
    "FR": {(1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25)},
    "DE": {(1, 1), (5, 1), (10, 3), (12, 24), (12, 25), (12, 26), (12, 31)},
    "ES": {(1, 1), (1, 6), (5, 1), (8, 15), (10, 12), (11, 1), (12, 6), (12, 8), (12, 25)},
    "NL": {(1, 1), (4, 27), (12, 25), (12, 26)},
    "GB": {(1, 1), (12, 25), (12, 26)},
    "US": {(1, 1), (6, 19), (7, 4), (11, 11), (12, 25)},
}
EASTER_DAYS = {"FR": (1, 39, 50), "DE": (-2, 1, 39, 50), "ES": (-2,), "NL": (1, 39, 50), "GB": (-2, 1), "US": ()}
AUGUST = {"FR": 0.6, "ES": 0.6, "DE": 0.85, "NL": 0.85, "GB": 0.9, "US": 0.95}
YEAR_END, HOLIDAY, WEEKEND = 0.3, 0.04, 0.03


@dataclass(frozen=True, slots=True)
class Span:
    """Whole UTC days, the last of them yesterday; day 0 is the first."""

    first: date
    days: int

    @classmethod
    def until(cls, until: datetime, months: int) -> Span:
        days = round(months * DAYS_A_MONTH)
        return cls(until.astimezone(UTC).date() - timedelta(days=days), days)

    def day(self, index: int) -> date:
        return self.first + timedelta(days=index)

    def index(self, ago: float) -> int:
        """The day that lies so many days before today (1: yesterday)."""
        return self.days - round(ago)

    @property
    def today(self) -> date:
        return self.day(self.days)


@lru_cache(maxsize=64)
def openness(span: Span, country: str, is_business: bool) -> Sequence[float]:
    """Of each day of the span, the share of its usual work that gets done."""
    return tuple(_open(span.day(index), country, is_business) for index in range(span.days + 1))


def _open(day: date, country: str, is_business: bool) -> float:
    if not is_business:
        return 1.0 if day.weekday() >= 5 else 0.9
    if day.weekday() >= 5:
        return WEEKEND
    if is_holiday(day, country):
        return HOLIDAY
    if (day.month, day.day) >= (12, 23) or (day.month, day.day) <= (1, 2):
        return YEAR_END
    return AUGUST[country] if day.month == 8 else 1.0


def is_holiday(day: date, country: str) -> bool:
    if (day.month, day.day) in FIXED[country]:
        return True
    if country == "US" and day.month == 11 and 22 <= day.day <= 29:
        return (day.weekday() == 3 and day.day <= 28) or (day.weekday() == 4 and day.day >= 23)
    return (day - easter(day.year)).days in EASTER_DAYS[country]


@lru_cache(maxsize=16)
def easter(year: int) -> date:
    """Easter Sunday, by Butcher's rule."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    h = (19 * a + b - d - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    i, k = divmod(c, 4)
    n = (32 + 2 * e + 2 * i - h - k) % 7
    month, day = divmod(h + n - 7 * ((a + 11 * h + 22 * n) // 451) + 114, 31)
    return date(year, month, day + 1)
