"""From a table's row to an event: which column is which field, and what a cell's text means there."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, BinaryIO, Union, get_args, get_origin

import click
from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from cli.support import nearest
from cli.times import loose_time
from shared.events import InputEvent, known_types
from shared.ids import derived_id
from shared.runtime.wire import describe, short_name
from shared.times import instant

LIST_SEPARATOR = ";"
NOT_IMPORTED = ("clock",)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadRow(ValueError):
    """This row does not become an event; the text names the field and what is wrong."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a type: how its text is read, and whether parts of it may be named (`traits.industry`)."""

    name: str
    kind: Any
    adapter: TypeAdapter[Any]

    @property
    def is_object(self) -> bool:
        return _holds(self.kind, dict) or self.kind is Any

    @property
    def parts_are_text(self) -> bool:
        """Whether every part must be text, as with `external_ids`."""
        parts = get_args(self.kind)
        return len(parts) == 2 and _holds(parts[1], str)

    def read(self, text: str) -> Any:
        """Turn a cell into what the model takes; the model itself judges the value."""
        if _holds(self.kind, dict):
            return _json(self.name, text)
        if _holds(self.kind, tuple):
            return [part.strip() for part in text.split(LIST_SEPARATOR) if part.strip()]
        if _holds(self.kind, datetime):
            return loose_time(text)
        return text


def _holds(kind: Any, wanted: type) -> bool:
    """Whether an annotation is, or has as one of its choices, the wanted type."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return any(_holds(part, wanted) for part in get_args(kind))
    if origin is Annotated:
        return _holds(get_args(kind)[0], wanted)
    return kind is wanted or origin is wanted


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRow(f"{name}: {text!r} is not a JSON object") from error


def importable() -> dict[str, type[InputEvent]]:
    """What a table's rows can become, by short name."""
    named = {short_name(wire_type): model for wire_type, model in known_types().items()}
    return {
        name: model
        for name, model in sorted(named.items())
        if issubclass(model, InputEvent) and name not in NOT_IMPORTED
    }


def model_of(type_name: str) -> type[InputEvent]:
    """Find the model.

    Raises click.BadParameter with the nearest types.
    """
    models = importable()
    name = short_name(type_name) if type_name.startswith("hune.") else type_name
    if name not in models:
        raise click.BadParameter(f"there is no type {type_name!r}; {nearest(name, models)}", param_hint="--as")
    return models[name]


def fields_of(model: type[InputEvent]) -> dict[str, Field]:
    """The model's fields, and those that every event has beside it."""
    fields = {name: _field(name, info) for name, info in model.model_fields.items()}
    fields["id"] = Field("id", str, TypeAdapter(str))
    fields["timestamp"] = Field("timestamp", datetime, TypeAdapter(AwareDatetime))
    return fields


def _field(name: str, info: FieldInfo) -> Field:
    annotation: Any = info.annotation
    whole: Any = Annotated[annotation, *info.metadata] if info.metadata else annotation
    return Field(name, _optional(annotation), TypeAdapter(whole))


def _optional(annotation: Any) -> Any:
    """`int` of `int | None`."""
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        return parts[0] if len(parts) == 1 else annotation
    return annotation


def pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """Read `field=value,field=value`; a value with a comma is quoted as in CSV: `"comment=so, so"`.

    Raises click.BadParameter for a part without `=`, or a field named twice.
    """
    found: dict[str, str] = {}
    for value in values:
        for part in next(csv.reader([value], skipinitialspace=True), []):
            name, equals, rest = part.partition("=")
            name = name.strip()
            if not equals or not name:
                raise click.BadParameter(f"{part!r} is not of the form field=…", param_hint=option)
            if name in found:
                raise click.BadParameter(f"field {name!r} is named twice", param_hint=option)
            found[name] = rest.strip()
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows of one table become events of one type; a field's path is `("traits", "industry")`."""

    type_name: str
    model: type[InputEvent]
    header: tuple[str, ...]
    columns: tuple[tuple[tuple[str, ...], Field, int], ...]
    constants: Mapping[str, str]
    set_values: tuple[tuple[tuple[str, ...], Field, str], ...]


@dataclass(frozen=True, slots=True)
class ImportedEvent:
    """One row as an event: its plain JSON, and what the record needs beside it."""

    body: dict[str, Any]
    key: str
    is_undated: bool


def plan(type_name: str, maps: Mapping[str, str], sets: Mapping[str, str], header: Sequence[str]) -> Plan:
    """Check what was asked against the type and the table's header.

    With no `--map` at all the columns that are called like fields are taken. Raises click.BadParameter that
    names the nearest field or column.
    """
    model = model_of(type_name)
    name = model.type_name
    fields = fields_of(model)
    if not maps:
        maps = {field: field for field in fields if field in header and field not in sets}
    both = sorted(set(maps) & set(sets))
    if both:
        raise click.BadParameter(f"{both[0]!r} is in --map and in --set; keep one", param_hint="--set")
    columns = []
    for field_name, column in maps.items():
        path, field = _find(field_name, fields, name, "--map")
        columns.append((path, field, _index(column, header)))
    values = []
    for field_name, text in sets.items():
        path, field = _find(field_name, fields, name, "--set")
        if len(path) == 1:
            _check_constant(field, text)
        values.append((path, field, text))
    given = {path[0] for path, *_ in (*columns, *values)}
    for field_name, info in model.model_fields.items():
        if info.is_required() and field_name not in given:
            raise click.BadParameter(
                f"{name} needs {field_name}: add --map {field_name}=COLUMN or --set {field_name}=VALUE",
                param_hint="--map",
            )
    return Plan(name, model, tuple(header), tuple(columns), dict(sets), tuple(values))


def _find(name: str, fields: Mapping[str, Field], type_name: str, option: str) -> tuple[tuple[str, ...], Field]:
    head, _, rest = name.partition(".")
    field = fields.get(head)
    if field is None:
        raise click.BadParameter(f"{type_name} has no field {head!r}; {nearest(head, fields)}", param_hint=option)
    if rest and not field.is_object:
        raise click.BadParameter(f"field {head!r} of {type_name} has no parts", param_hint=option)
    return (head, rest) if rest else (head,), field


def _index(column: str, header: Sequence[str]) -> int:
    found = [index for index, name in enumerate(header) if name == column]
    if not found:
        raise click.BadParameter(f"the file has no column {column!r}; {nearest(column, header)}", param_hint="--map")
    if len(found) > 1:
        raise click.BadParameter(f"the file has {len(found)} columns {column!r}; name them apart", param_hint="--map")
    return found[0]


def _check_constant(field: Field, text: str) -> None:
    try:
        field.adapter.validate_python(field.read(text))
    except ValidationError as error:
        said = "; ".join(detail["msg"] for detail in error.errors(include_url=False))
        raise click.BadParameter(f"{field.name}={text!r}: {said}", param_hint="--set") from error
    except ValueError as error:
        raise click.BadParameter(f"{field.name}: {error}", param_hint="--set") from error


class Rows:
    """Turns a table's rows into events; equal rows are told apart by their ordinal."""

    def __init__(self, plan: Plan, first_import: datetime) -> None:
        self._plan = plan
        self._first_import = first_import
        self._constants = json.dumps(sorted(plan.constants.items()), ensure_ascii=False)
        self._required = [name for name, info in plan.model.model_fields.items() if info.is_required()]
        self._equal: Counter[bytes] = Counter()

    def event(self, cells: Sequence[str]) -> ImportedEvent:
        """Make the event of a row.

        Raises BadRow that names the field.
        """
        derived = self._derived_id(cells)
        data = self._data(cells)
        own_id, own_time = data.pop("id", None), data.pop("timestamp", None)
        for name in self._required:
            if name not in data:
                raise BadRow(f"{name}: the cell is empty")
        try:
            event = self._plan.model.model_validate(data)
        except ValidationError as error:
            raise BadRow(describe(error)) from error
        at = own_time or self._first_import
        body = {"id": own_id or derived, "type": self._plan.type_name, "timestamp": instant(at)}
        body |= event.model_dump(mode="json", exclude_unset=True)
        return ImportedEvent(body, event.user_id or event.account_id or body["id"], own_time is None)

    def _data(self, cells: Sequence[str]) -> dict[str, Any]:
        """The row's fields as the model takes them; an empty cell says nothing."""
        data: dict[str, Any] = {}
        for path, field, text in self._plan.set_values:
            self._put(data, path, field, text)
        for path, field, index in self._plan.columns:
            self._put(data, path, field, cells[index])
        return data

    def _put(self, data: dict[str, Any], path: tuple[str, ...], field: Field, text: str) -> None:
        text = text.strip()
        if not text:
            return
        if len(path) == 2:
            data.setdefault(path[0], {})[path[1]] = text if field.parts_are_text else scalar(text)
            return
        try:
            data[path[0]] = field.read(text)
        except BadRow:
            raise
        except (ValueError, OverflowError) as error:
            raise BadRow(f"{field.name}: {error}") from error

    def _derived_id(self, cells: Sequence[str]) -> str:
        """From the type with its constants, the row by column name, and its ordinal among equal rows."""
        row = json.dumps(sorted(zip(self._plan.header, cells, strict=True)))
        digest = hashlib.blake2b(row.encode(), digest_size=16).digest()
        self._equal[digest] += 1
        return derived_id("import", self._plan.type_name, self._constants, row, self._equal[digest])


def scalar(text: str) -> str | int | float | bool:
    """What a cell means inside free-form properties: a plain number, true or false, else text."""
    if _NUMBER.fullmatch(text) and len(text) <= 15:
        return float(text) if "." in text else int(text)
    return {"true": True, "false": False}.get(text, text)


@dataclass(frozen=True, slots=True)
class Row:
    """A row with the number of its first line; `cells` is None when it could not be cut, `fault` says why."""

    number: int
    raw: str
    cells: tuple[str, ...] | None = None
    fault: str = ""


class Table:
    """A CSV file (UTF-8, a header row, quoted cells over several lines): `header`, then rows."""

    def __init__(self, path: Path, file: BinaryIO, delimiter: str = ",") -> None:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._tape = _Tape(text)
        self._reader = csv.reader(self._tape, delimiter=delimiter, strict=True)
        self.header = self._header(path, delimiter)

    def _header(self, path: Path, delimiter: str) -> tuple[str, ...]:
        try:
            cells = next(self._reader, [])
        except csv.Error as error:
            raise click.ClickException(f"{path}: the header row is broken CSV: {error}.") from error
        header = tuple(name.strip() for name in cells)
        if not any(header):
            raise click.ClickException(f"{path} has no header row; its first line names the columns.")
        if any(_SURROGATE.search(name) for name in header):
            raise click.ClickException(f"{path} is not UTF-8; convert it first.")
        if len(header) == 1:
            for other in (";", "\t", "|"):
                if other in header[0] and other != delimiter:
                    raise click.ClickException(f"{path} has cells separated by {other!r}; add --delimiter {other!r}.")
        self._tape.take()
        return header

    def __iter__(self) -> Iterator[Row]:
        while True:
            number = self._reader.line_num + 1
            try:
                cells = tuple(next(self._reader))
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(number, self._tape.take(), fault=f"broken CSV: {error}")
                continue
            raw = self._tape.take()
            if not cells:
                continue
            yield self._judged(number, cells, raw)

    def _judged(self, number: int, cells: tuple[str, ...], raw: str) -> Row:
        if len(cells) != len(self.header):
            return Row(number, raw, fault=f"{len(cells)} cells where the header has {len(self.header)}")
        if any(_SURROGATE.search(cell) for cell in cells):
            return Row(number, raw, fault="not UTF-8")
        return Row(number, raw, cells)


class _Tape:
    """Hands lines to the CSV reader and keeps those of the row in hand."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._held: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._held.append(line)
        return line

    def take(self) -> str:
        held, self._held = "".join(self._held), []
        return held.rstrip("\r\n")
