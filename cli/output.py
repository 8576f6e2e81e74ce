"""How figures leave the house: one canonical JSON object a line, or CSV that no spreadsheet executes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from shared.times import instant

PLACES = 6
Row = Mapping[str, Any]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def plain(value: Any) -> Any:
    """A JSON value: times in UTC with Z, money as a decimal string, other fractions to six places."""
    match value:
        case bool() | None | str() | int():
            return value
        case float():
            return round(value, PLACES) + 0.0  # + 0.0 turns -0.0 into 0.0
        case Decimal():
            return format(value, "f")
        case datetime():
            return instant(value)
        case date():
            return value.isoformat()
        case Mapping():
            return {str(key): plain(part) for key, part in value.items()}
        case Sequence() | set() | frozenset():
            return [plain(part) for part in value]
        case _:
            return str(value)


def json_text(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def json_line(row: Row) -> str:
    return json_text(row)


def ndjson(rows: Iterable[Row]) -> str:
    return "".join(json_line(row) + "\n" for row in rows)


def guarded(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would take for a formula; a decimal number is none."""
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def cell(value: Any) -> str | int | float:
    """One CSV cell: numbers as numbers, nothing for null, nested values as JSON."""
    value = plain(value)
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return value
        case str():
            return guarded(value)
        case _:
            return json_text(value)


def csv_text(rows: Sequence[Row]) -> str:
    """RFC 4180 with a header; the columns are the rows' fields in order of first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        return ""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([guarded(name) for name in columns])
    writer.writerows([cell(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned for reading, two blanks apart."""
    if not rows:
        return ""
    widths = [max(len(part) for part in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
