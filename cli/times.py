"""Times on the command line: RFC 3339, or a date for its first instant in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from shared.times import read_instant

_EPOCH = re.compile(r"\d{9,10}(\.\d+)?|\d{12,13}")

if TYPE_CHECKING:
    TimeType = click.ParamType[datetime]
else:
    TimeType = click.ParamType


def loose_time(text: str) -> datetime:
    """Read a time found in a file: ISO 8601 (no zone: UTC), a date, or Unix seconds or milliseconds.

    Raises ValueError that says what is wrong with it.
    """
    text = text.strip()
    if _EPOCH.fullmatch(text):
        number = float(text)
        return datetime.fromtimestamp(number / 1000 if number >= 1e11 else number, UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time; write 2024-10-24T08:00:00Z, 2024-10-24 or Unix seconds") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Time(TimeType):
    """An option that takes a time; click names the option in the error."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return read_instant(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


TIME = Time()
