"""`hune import`: the rows of a CSV or Parquet file as events of one type, sent as a run of history."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from cli import files, mapping, parquet
from cli.files import Memory, Source
from cli.mapping import BadRow, Plan, Row, Rows, Table
from cli.progress import Progress
from cli.raw import LONGEST_VALUE, RawWriter, Run, open_writer
from cli.send import REQUEST_TYPES, SHOWN, Latest, Step
from cli.support import Stores, control_url, load_installation, run
from cli.vault import load_keys
from shared import db, topics
from shared.ids import derived_id
from shared.runtime.wire import pack_headers
from shared.times import instant
from shared.vault import store as vault
from shared.vault.keys import fields
from shared.vault.sealing import Contact, Sealer
from shared.vault.withheld import withhold

SERVICE = "import"
CHUNK_ROWS = 5_000
HOPELESS = 1_000
LONGEST_RAW = 64 * 1024
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
"""Pieces of a row in what is said of it."""

HOLD = """
    insert into hune.quarantine as held (id, service, topic, partition, record_offset, value, headers, broker_time,
                                         reason, error)
    select id, 'import', $1, 0, number, value, $2, now(), $3, error
      from unnest($4::text[], $5::bigint[], $6::bytea[], $7::text[]) as bad (id, number, value, error)
    on conflict (id) do update
       set error = excluded.error, state = 'held', refused_at = now(), attempts = held.attempts + 1
"""

RELEASE = """
    update hune.quarantine set state = 'applied'
     where service = 'import' and state = 'held' and starts_with(id, $1) and id <> all($2::text[])
"""


@dataclass(slots=True)
class ImportSummary:
    """What became of the rows; the bad ones are in quarantine with their line numbers."""

    path: Path
    type_name: str
    run: str
    imported: int = 0
    bad_count: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    undated: int = 0
    first_import: datetime | None = None
    other_mapping: bool = False
    at: datetime | None = None
    seconds: float = 0.0

    def lines(self) -> list[str]:
        said = [f"imported {self.imported:,} rows of {self.path} as {self.type_name} in {self.seconds:.1f} s"]
        if self.at:
            said.append(f"run {self.run} ended at {instant(self.at)}")
        if self.undated and self.first_import:
            said.append(f"{self.undated:,} rows have no time: they count as of {instant(self.first_import)}")
        if self.bad_count:
            said.append(f"{self.bad_count:,} rows are in quarantine (`hune quarantine list --service import`):")
            said += [f"  line {number:,}: {fault}" for number, fault in self.bad]
        if self.other_mapping:
            said.append(
                "this file was imported before with another --map: rows without an id column keep their ids, "
                "so those that were applied then stay as they were"
            )
        return said


async def import_file(
    stores: Stores,
    path: Path,
    type_name: str,
    maps: Mapping[str, str],
    sets: Mapping[str, str],
    *,
    delimiter: str = ",",
    progress: Step | None = None,
) -> ImportSummary:
    """Import a CSV or Parquet file as one run; importing it again changes nothing.

    Raises click.BadParameter when the mapping does not fit the type or the file.
    """
    content = await asyncio.to_thread(files.content_hash, path)
    with opened(path) as source:
        table = Table(path, source.lines, source.delimiter or delimiter)
        plan = mapping.plan(type_name, maps, sets, table.header)
        control = await db.connect(control_url(stores))
        try:
            return await _Importing(stores, path, plan, content, control, progress).all(source, table, maps)
        finally:
            await control.close()


@contextmanager
def opened(path: Path) -> Iterator[Source | files.Columns]:
    """Open a CSV file, or a Parquet file as the CSV it would be."""
    with files.check(path).open("rb") as file:
        head = file.read(4)
    if parquet.is_parquet(path, head):
        lines = parquet.Lines(path)
        yield files.Columns(lines)
        return
    with files.opened(path) as source:
        yield source


class _Importing:
    def __init__(
        self, stores: Stores, path: Path, plan: Plan, content: str, control: db.Connection, progress: Step | None
    ) -> None:
        self._stores = stores
        self._path = path
        self._plan = plan
        self._content = content
        self._control = control
        self._progress = progress
        self._is_request = plan.type_name in REQUEST_TYPES
        self._bad_ids: list[str] = []
        self._keys = load_keys(stores.home)
        self._sealer = Sealer(self._keys, fields()) if self._keys is not None else None

    async def all(self, source: Source | files.Columns, table: Table, maps: Mapping[str, str]) -> ImportSummary:
        started, now = time.monotonic(), datetime.now(UTC)
        plan = self._plan
        installation = await load_installation(self._control)
        sets = json.dumps(sorted(plan.constants.items()), ensure_ascii=False)
        asked = json.dumps([plan.type_name, sorted(maps.items()), sets], ensure_ascii=False)
        first = self._first_import(installation.id, now)
        memory = Memory(
            self._stores.home,
            f"import-{installation.id[:8]}-{self._content[:32]}-{derived_id(plan.type_name, sets)[:8]}",
        )
        known = memory.load()
        the_run = Run(derived_id("run", installation.id, self._content, asked))
        summary = ImportSummary(self._path, plan.type_name, the_run.id, first_import=first)
        summary.other_mapping = known.get("asked", asked) != asked
        rows, latest = Rows(plan, first), Latest(now)
        done = known.get("rows", 0) if known.get("asked") == asked else 0
        async with open_writer(self._stores.bootstrap_servers, installation.partitions) as writer:
            chunk: list[Row] = []
            for row in table:
                chunk.append(row)
                if len(chunk) >= CHUNK_ROWS:
                    await self._take(chunk, done, rows, latest, writer, the_run, summary)
                    memory.save({"asked": asked, "rows": chunk[-1].number})
                    chunk = []
                    if self._progress:
                        self._progress(summary.imported + summary.bad_count, source.share)
            await self._take(chunk, done, rows, latest, writer, the_run, summary)
            if not summary.imported and not summary.bad_count:
                raise click.ClickException(f"{self._path} has a header but no rows: there is nothing to import.")
            if summary.imported:
                summary.at = latest.at or first
                await writer.end_run(the_run, summary.at)
        await self._control.execute(RELEASE, self._hold_id(""), self._bad_ids)
        memory.save({"asked": asked})
        if self._progress:
            self._progress(summary.imported + summary.bad_count, 1.0)
        summary.seconds = time.monotonic() - started
        return summary

    def _first_import(self, installation: str, now: datetime) -> datetime:
        """When this content was first imported here: the time of rows without one."""
        memory = Memory(self._stores.home, f"first-import-{installation[:8]}-{self._content[:32]}")
        known = memory.load()
        if "at" not in known:
            known = {"at": now.replace(microsecond=0).isoformat(), "file": self._path.name}
            memory.save(known)
        return datetime.fromisoformat(known["at"])

    async def _take(
        self,
        chunk: Sequence[Row],
        done: int,
        rows: Rows,
        latest: Latest,
        writer: RawWriter,
        the_run: Run,
        summary: ImportSummary,
    ) -> None:
        """Send what is good of a chunk and hold what is bad; rows up to line `done` were sent before."""
        bad: list[tuple[Row, str]] = []
        contacts: list[tuple[Contact, datetime]] = []
        now = datetime.now(UTC)
        for row in chunk:
            try:
                event, value = _event(row, rows)
            except BadRow as error:
                bad.append((row, str(error)))
                continue
            latest.see(event.body["timestamp"])
            summary.imported += 1
            summary.undated += event.is_undated
            if row.number > done:
                topic = topics.RAW_REQUESTS if self._is_request else topics.RAW_EVENTS
                key: bytes | None = event.key.encode()
                sealed = self._sealer.seal_record(self._plan.type_name, key, value) if self._sealer else None
                if sealed is not None:
                    key, value = sealed.key, sealed.value
                    contacts += [(contact, now) for contact in sealed.contacts]
                writer.add(topic, key, value, the_run.headers)
        summary.bad_count += len(bad)
        summary.bad += [(row.number, fault) for row, fault in bad[: SHOWN - len(summary.bad)]]
        if not summary.imported and summary.bad_count >= HOPELESS:
            number, fault = summary.bad[0]
            raise click.ClickException(
                f"none of the first {summary.bad_count:,} rows can be read, so nothing was sent; "
                f"line {number}: {fault}. Check --as, --map and --set."
            )
        if contacts and self._keys is not None:
            await vault.save(self._control, self._keys, contacts)
        await writer.flush()
        await self._hold(bad)

    async def _hold(self, bad: Sequence[tuple[Row, str]]) -> None:
        if not bad:
            return
        ids = [self._hold_id(str(row.number)) for row, _ in bad]
        self._bad_ids += ids
        values = [row.raw.encode("utf-8", "surrogateescape")[:LONGEST_RAW] for row, _ in bad]
        faults = [f"line {row.number}: {fault}".replace("\x00", "\\0") for row, fault in bad]
        if self._keys is not None:
            whole = [withhold(self._keys, id, value) for id, value in zip(ids, values, strict=True)]
            now = datetime.now(UTC)
            await vault.save(self._control, self._keys, [(contact, now) for _, contact in whole])
            values, faults = [body for body, _ in whole], [QUOTED.sub("'…'", fault) for fault in faults]
        about = {"file": str(self._path), "type": self._plan.type_name, "columns": ",".join(self._plan.header)}
        await self._control.execute(
            HOLD,
            self._path.name,
            pack_headers([(name, text.encode("utf-8", "surrogateescape")) for name, text in about.items()]),
            "the row does not fit the type",
            ids,
            [row.number for row, _ in bad],
            values,
            faults,
        )

    def _hold_id(self, number: str) -> str:
        return f"{SERVICE}:{self._plan.type_name}:{self._content[:12]}:{number}"


def _event(row: Row, rows: Rows) -> tuple[mapping.ImportedEvent, bytes]:
    if row.cells is None:
        raise BadRow(row.fault)
    event = rows.event(row.cells)
    value = msgspec.json.encode(event.body)
    if len(value) > LONGEST_VALUE:
        raise BadRow(f"{len(value):,} bytes, a record holds {LONGEST_VALUE:,}")
    return event, value


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "type_name", required=True, metavar="TYPE", help="What each row is, such as survey.answered.")
@click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN,…", help="Which column is which field.")
@click.option("--set", "sets", multiple=True, metavar="FIELD=VALUE,…", help="What is the same for every row.")
@click.option("--delimiter", default=",", show_default=True, help="What separates cells; \\t is a tabulator.")
def command(file: Path, type_name: str, maps: Sequence[str], sets: Sequence[str], delimiter: str) -> None:
    """Import FILE, CSV with a header row (.gz too) or Parquet, as events of one type.

    Fields are the type's own plus id, account_id, user_id and timestamp; parts of an object as traits.industry.
    Without --map the columns called like fields are taken. Importing the same file again changes nothing.
    """
    delimiter = "\t" if delimiter == "\\t" else delimiter
    if len(delimiter) != 1:
        raise click.BadParameter(f"{delimiter!r} is not one character", param_hint="--delimiter")
    mapped, fixed = mapping.pairs(maps, "--map"), mapping.pairs(sets, "--set")
    with opened(file) as source:  # what is wrong with the command shows before anything is started
        mapping.plan(type_name, mapped, fixed, Table(file, source.lines, source.delimiter or delimiter).header)
    summary = run(_import(file, type_name, mapped, fixed, delimiter))
    for line in summary.lines():
        click.echo(line)


async def _import(file: Path, type_name: str, maps: Any, sets: Any, delimiter: str) -> ImportSummary:
    from cli.home import open_stores

    async with open_stores(need_kafka=True) as stores:
        progress = Progress(f"importing {file.name}")
        try:
            return await import_file(stores, file, type_name, maps, sets, delimiter=delimiter, progress=progress)
        finally:
            progress.close()
