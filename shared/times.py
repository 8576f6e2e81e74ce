"""Times as text, the same on every door: RFC 3339 in UTC with Z. Time zones by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator


def instant(at: datetime) -> str:
    """`2026-01-31T12:00:00Z`, with microseconds only where there are any."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def read_instant(text: object) -> datetime:
    """Read a time with its zone, or a date for its first instant in UTC.

    Raises ValueError that says what is wrong with it.
    """
    try:
        at = datetime.fromisoformat(str(text).strip())
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time; write 2026-01-31T12:00:00Z or 2026-01-31") from error
    if at.tzinfo is None:
        if len(str(text).strip()) > len("2026-01-31"):
            raise ValueError(f"{text!r} has no time zone; add Z for UTC")
        at = at.replace(tzinfo=UTC)
    return at.astimezone(UTC)


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone of the IANA data base, such as Europe/Paris") from error
    return name


ZoneName = Annotated[str, AfterValidator(_known_zone)]
"""A field that names a time zone."""
