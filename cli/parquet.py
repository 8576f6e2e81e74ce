"""Parquet as the lines of a CSV, so that everything after the reading is the same. Needs the optional pyarrow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

ROWS_AT_ONCE = 5_000


def is_parquet(path: Path, head: bytes) -> bool:
    return path.suffix == ".parquet" or head == b"PAR1"


class Lines(io.RawIOBase):
    """A header row and a line per row, made while they are read."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise click.ClickException(
                f"{path} is Parquet, and pyarrow, which reads it, is not installed here: "
                "`pip install 'hune[parquet]'` adds it; or write the file as CSV."
            ) from None
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise click.ClickException(f"{path} is no Parquet that can be read: {error}.") from error
        self._total, self._read = max(self._file.metadata.num_rows, 1), 0
        self._chunks = self._made()
        self._rest = b""

    @property
    def share(self) -> float:
        return min(float(self._read) / float(self._total), 0.99)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        n = min(len(buffer), len(self._rest))
        buffer[:n], self._rest = self._rest[:n], self._rest[n:]
        return n

    def _made(self) -> Iterator[bytes]:
        names = self._file.schema_arrow.names
        yield _line([names])
        for batch in self._file.iter_batches(ROWS_AT_ONCE):
            rows = batch.to_pylist()
            self._read += len(rows)
            yield _line([[cell(row[name]) for name in names] for row in rows])


def _line(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def cell(value: Any) -> str:
    """A value as a CSV of the same warehouse would hold it; null is empty, a time without a zone stays without."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ";".join(cell(item) for item in value)
    return json.dumps(value, ensure_ascii=False, default=cell) if isinstance(value, list | dict) else str(value)
