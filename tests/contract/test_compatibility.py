"""What may change in a published schema, by example."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contract.compatibility import breaks

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
PLAN = {"enum": ["red", "green"], "type": "string"}


def an_event(required: tuple[str, ...] = (), defs: Schema | None = None, **properties: Any) -> Schema:
    event: Schema = {"type": "object", "properties": properties, "required": list(required)}
    return event | ({"$defs": defs} if defs else {})


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}], "default": None}


REFUSED_OF_ALL = [
    ("a removed field", an_event(a=TEXT, b=TEXT), an_event(a=TEXT), "b: removed"),
    ("a narrowed type", an_event(a={"type": "number"}), an_event(a={"type": "integer"}), "a: no longer takes number"),
    ("another type", an_event(a=TEXT), an_event(a={"type": "integer"}), "a: no longer takes string"),
    ("null no longer", an_event(a=or_null(TEXT)), an_event(a=TEXT), "a: no longer takes null"),
    ("a choice less", an_event(a={"anyOf": [TEXT, {"type": "number"}]}), an_event(a=TEXT), "a: no longer takes number"),
    ("anything no longer", an_event(a={}), an_event(a=TEXT), "a: no longer takes array, boolean, integer"),
    ("newly required", an_event(a=TEXT), an_event(("a",), a=TEXT), "a: required now"),
    ("new and required", an_event(a=TEXT), an_event(("b",), a=TEXT, b=TEXT), "b: required now"),
    ("a value less", an_event(a=PLAN), an_event(a={"const": "red", "type": "string"}), "a: no longer takes 'green'"),
    ("only listed values", an_event(a=TEXT), an_event(a=PLAN), "a: no longer takes other values than those listed"),
    (
        "a higher minimum",
        an_event(a={"type": "integer"}),
        an_event(a={"type": "integer", "minimum": 0}),
        "minimum is 0",
    ),
    ("a shorter text", an_event(a=TEXT), an_event(a=TEXT | {"maxLength": 9}), "a: maxLength is 9 now"),
    ("a new pattern", an_event(a=TEXT), an_event(a=TEXT | {"pattern": "^x"}), "a: pattern is ^x now"),
    (
        "narrowed items",
        an_event(a={"type": "array", "items": or_null(TEXT)}),
        an_event(a={"type": "array", "items": TEXT}),
        "a[]: no longer takes null",
    ),
    (
        "narrowed values of a mapping",
        an_event(a={"type": "object", "additionalProperties": {"type": "number"}}),
        an_event(a={"type": "object", "additionalProperties": {"type": "integer"}}),
        "a.*: no longer takes number",
    ),
    (
        "deep inside a shared part",
        an_event(defs={"Score": an_event(x=TEXT)}, a=or_null({"$ref": "#/$defs/Score"})),
        an_event(defs={"Points": an_event(y=TEXT)}, a=or_null({"$ref": "#/$defs/Points"})),
        "a.x: removed",
    ),
]
WELCOME_OF_ALL = [
    ("nothing", an_event(("a",), a=TEXT), an_event(("a",), a=TEXT)),
    ("a new optional field", an_event(a=TEXT), an_event(a=TEXT, b=or_null(TEXT))),
    ("a value more", an_event(a={"const": "red", "type": "string"}), an_event(a=PLAN)),
    ("a lower minimum", an_event(a={"type": "integer", "minimum": 1}), an_event(a={"type": "integer", "minimum": 0})),
    (
        "a part under another name",
        an_event(defs={"A": an_event(x=TEXT)}, a={"$ref": "#/$defs/A"}),
        an_event(defs={"B": an_event(x=TEXT)}, a={"$ref": "#/$defs/B"}),
    ),
    ("words", an_event(a=TEXT | {"description": "old"}), an_event(a=TEXT | {"description": "new"})),
]
REFUSED_OF_RESULTS = [
    ("a wider type", an_event(a={"type": "integer"}), an_event(a={"type": "number"})),
    ("null", an_event(a=TEXT), an_event(a=or_null(TEXT))),
    ("missing", an_event(("a",), a=TEXT), an_event(a=TEXT)),
    ("missing inside", an_event(a=an_event(("x",), x=TEXT)), an_event(a=an_event(x=TEXT))),
]


@pytest.mark.parametrize(
    ("old", "new", "problem"), [case[1:] for case in REFUSED_OF_ALL], ids=[case[0] for case in REFUSED_OF_ALL]
)
@pytest.mark.parametrize("written", [False, True])
def test_what_fitted_must_go_on_fitting(old: Schema, new: Schema, problem: str, written: bool) -> None:
    found = breaks(old, new, written=written)
    assert any(problem in one for one in found), found


@pytest.mark.parametrize(
    ("old", "new"), [case[1:] for case in WELCOME_OF_ALL], ids=[case[0] for case in WELCOME_OF_ALL]
)
@pytest.mark.parametrize("written", [False, True])
def test_additions_are_welcome(old: Schema, new: Schema, written: bool) -> None:
    assert breaks(old, new, written=written) == []


@pytest.mark.parametrize(
    ("old", "new"), [case[1:] for case in REFUSED_OF_RESULTS], ids=[case[0] for case in REFUSED_OF_RESULTS]
)
def test_results_keep_their_types_and_inputs_may_widen(old: Schema, new: Schema) -> None:
    assert breaks(old, new, written=False) == []
    assert len(breaks(old, new, written=True)) == 1


def test_a_schema_that_holds_itself_can_be_compared() -> None:
    tree = an_event(
        defs={"Tree": an_event(child=or_null({"$ref": "#/$defs/Tree"}), x=TEXT)}, a={"$ref": "#/$defs/Tree"}
    )
    pruned = an_event(defs={"Tree": an_event(child=or_null({"$ref": "#/$defs/Tree"}))}, a={"$ref": "#/$defs/Tree"})
    assert breaks(tree, tree, written=True) == []
    assert breaks(tree, pruned, written=False) == ["a.x: removed"]
