"""The published schemas and the models accept the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from shared.contract import schemas
from shared.events import Event, InputEvent, known_types
from tests.support.repository import text_of, tracked

MODELS = sorted(known_types().items())
EVENTS = schemas.events()
FILES = [path for path in tracked() if path.parts[0] == "config" and path.suffix == ".yaml"]
WORDS = {"date-time": "2026-01-31T12:00:00Z", "date": "2026-01-31", "time": "09:00:00"}
PATTERNS = {"^[A-Z]{3}$": "EUR", r"^\d{1,3}-\d{1,3}$": "0-10"}


def an_example(schema: Mapping[str, Any], defs: Mapping[str, Any], whole: bool) -> Any:
    """Something that fits: all fields, or the required ones alone."""
    if "$ref" in schema:
        return an_example(defs[schema["$ref"].rpartition("/")[2]], defs, whole)
    if "anyOf" in schema:
        return an_example(schema["anyOf"][0], defs, whole)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        fields = schema.get("properties", {})
        wanted = fields if whole else schema.get("required", [])
        return {name: an_example(fields[name], defs, whole) for name in wanted}
    if kind == "array":
        return [an_example(schema["items"], defs, whole)] if whole else []
    if kind == "string":
        return WORDS.get(schema.get("format", "")) or _text(schema.get("pattern"))
    return {"integer": 2000, "number": 1.5, "boolean": True}.get(str(kind), "anything")


def _text(pattern: str | None) -> str:
    return "1.5" if pattern is None else PATTERNS.get(pattern, "1.5")


@pytest.mark.parametrize("wire_type", EVENTS)
def test_the_schema_is_one(wire_type: str) -> None:
    Draft202012Validator.check_schema(EVENTS[wire_type])
    assert EVENTS[wire_type]["$id"] == f"urn:hune:event:{wire_type}"


@pytest.mark.parametrize("whole", [True, False], ids=["all fields", "required fields"])
@pytest.mark.parametrize(("wire_type", "model"), MODELS, ids=[name for name, _ in MODELS])
def test_what_fits_the_schema_fits_the_model_and_back(wire_type: str, model: type[Event], whole: bool) -> None:
    schema = EVENTS[wire_type]
    validator = Draft202012Validator(schema)
    example = an_example(schema, schema.get("$defs", {}), whole) | {"a field nobody knows": 1}
    validator.validate(example)
    read = model.model_validate_json(json.dumps(example))
    validator.validate(json.loads(read.model_dump_json(exclude_unset=issubclass(model, InputEvent))))


@pytest.mark.parametrize(("wire_type", "model"), MODELS, ids=[name for name, _ in MODELS])
def test_what_lacks_a_required_field_fits_neither(wire_type: str, model: type[Event]) -> None:
    schema = EVENTS[wire_type]
    whole = an_example(schema, schema.get("$defs", {}), whole=True)
    for name in schema.get("required", []):
        lacking = {key: value for key, value in whole.items() if key != name}
        assert not Draft202012Validator(schema).is_valid(lacking)
        with pytest.raises(ValidationError, match=name):
            model.model_validate_json(json.dumps(lacking))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_shipped_configuration_fits_its_schema(path: Path) -> None:
    written = yaml.safe_load(text_of(path))
    kind = path.stem
    if path.parent.name == "examples":  # of a flat table, or of events
        columns = all(measure["kind"] == "column" for measure in written["measures"].values())
        kind = "table" if columns else "health"
    schema = schemas.configuration()[kind]
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(json.dumps(written, default=str)))


def test_every_schema_of_a_configuration_has_its_shipped_file() -> None:
    assert set(schemas.CONFIGURATION) == {path.stem for path in FILES if path.parent.name == "config"} | {"table"}
