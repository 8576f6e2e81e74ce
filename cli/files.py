"""Files that people give: opened, measured, and remembered by their content."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from cli.parquet import Lines

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"


class Source:
    """A file being read: `lines` are its plain bytes, `share` how much of the stored file has been read."""

    delimiter: str | None = None
    """What separates cells where the file itself settles it."""

    def __init__(self, path: Path, stored: BinaryIO) -> None:
        self._stored = stored
        self._size = max(path.stat().st_size, 1)
        zipped = stored.read(2) == GZIP
        stored.seek(0)
        self.lines: BinaryIO = (
            cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=stored), 1 << 20)) if zipped else stored
        )

    @property
    def share(self) -> float:
        return min(self._stored.tell() / self._size, 0.99)  # the whole is done when Kafka has it


class Columns:
    """A file of columns, being read as comma-separated lines."""

    delimiter: str | None = ","

    def __init__(self, lines: Lines) -> None:
        self._made = lines
        self.lines: BinaryIO = cast("BinaryIO", io.BufferedReader(lines, 1 << 20))

    @property
    def share(self) -> float:
        return self._made.share


def check(path: Path) -> Path:
    """See that there is a file to read.

    Raises click.ClickException that says why not.
    """
    if not path.exists():
        raise click.ClickException(f"{path} does not exist.")
    if path.is_dir():
        raise click.ClickException(f"{path} is a folder; name a file in it.")
    if not path.is_file():
        raise click.ClickException(f"{path} is not a plain file; write its content to one first.")
    if path.stat().st_size == 0:
        raise click.ClickException(f"{path} is empty: there is nothing to send.")
    return path


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a plain or gzipped file.

    Raises click.ClickException when it cannot be read, or its compressed data is broken.
    """
    try:
        with check(path).open("rb") as stored:
            yield Source(path, stored)
    except (gzip.BadGzipFile, EOFError) as error:
        raise click.ClickException(f"{path} is broken gzip ({error}); what came before is sent.") from error
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror or error}.") from error


def content_hash(path: Path) -> str:
    try:
        with check(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror or error}.") from error


class Memory:
    """What is remembered of a file between two runs of a command, in the home's `state` folder."""

    def __init__(self, home: Path, name: str) -> None:
        self._path = home / "state" / "files" / f"{name}.json"

    def load(self) -> dict[str, Any]:
        try:
            known: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise click.ClickException(f"{self._path} is not JSON; remove it to start that file anew.") from error
        return known

    def save(self, known: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps(known))
        os.replace(draft, self._path)
