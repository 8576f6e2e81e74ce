"""Whether one version of a schema may take the place of another. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Any
"""What JSON Schema calls one: an object, or true (anything) or false (nothing)."""
LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
FORMS = ("pattern", "format")
KINDS = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


def breaks(old: Schema, new: Schema, *, written: bool) -> list[str]:
    """Why `new` must not take the place of `old`; empty when it may.

    Whatever fits `old` must fit `new`: senders go on as they are, and what the log holds stays readable. Subscribers
    to what Hune itself writes (`written`) rely on the types they know as well: a field that is there must not go
    missing or take another type, null included.
    """
    found = list(_Comparison(old, new).lost(old, new, ""))
    if written:
        gained = _Comparison(new, old, only_types=True).lost(new, old, "")
        found += [f"{problem.partition(': ')[0]}: was never missing, null or of this type before" for problem in gained]
    return list(dict.fromkeys(found))


class _Comparison:
    """Finds what fits the schema on the left but not the one on the right."""

    def __init__(self, left: Schema, right: Schema, only_types: bool = False) -> None:
        self._left, self._right = _resolver(left), _resolver(right)
        self._only_types = only_types
        self._open: set[tuple[int, int]] = set()

    def lost(self, left: Schema, right: Schema, path: str) -> Iterator[str]:
        left, right = self._left(left), self._right(right)
        pair = id(left), id(right)
        if pair in self._open:
            return  # a schema that holds itself is being compared already
        self._open.add(pair)
        yield from self._lost(left, right, path)
        self._open.discard(pair)

    def _lost(self, left: Schema, right: Schema, path: str) -> Iterator[str]:
        if choices := _choices(left):
            for choice in choices:
                yield from self.lost(choice, right, path)
        elif options := _choices(right):
            tried = [list(self.lost(left, option, path)) for option in options]
            if all(tried):
                alike = [one for option, one in zip(options, tried, strict=True) if self._alike(left, option)]
                yield from min(alike or tried, key=len)
        else:
            yield from self._lost_of_one(left, right, path)

    def _lost_of_one(self, left: Schema, right: Schema, path: str) -> Iterator[str]:
        before, after = _kinds(left), _kinds(right)
        gone = {kind for kind in before - after if not (kind == "integer" and "number" in after)}
        if gone:
            yield f"{path or 'the event'}: no longer takes {', '.join(sorted(gone))}"
            return
        if not isinstance(right, Mapping):
            return
        left = left if isinstance(left, Mapping) else {}
        if not self._only_types:
            yield from _lost_by_limits(left, right, path or "the event")
        if "object" in before:
            yield from self._lost_by_fields(left, right, path)
        if "array" in before and "items" in right:
            yield from self.lost(left.get("items", True), right["items"], f"{path}[]")

    def _lost_by_fields(self, left: Mapping[str, Any], right: Mapping[str, Any], path: str) -> Iterator[str]:
        before, after = left.get("properties", {}), right.get("properties", {})
        if not self._only_types:
            for name in sorted(before.keys() - after.keys()):
                yield f"{_join(path, name)}: removed"
        for name in sorted(set(right.get("required", ())) - set(left.get("required", ()))):
            yield f"{_join(path, name)}: required now"
        for name in sorted(before.keys() & after.keys()):
            yield from self.lost(before[name], after[name], _join(path, name))
        rest = right.get("additionalProperties", True)
        if rest is not True:
            yield from self.lost(left.get("additionalProperties", True), rest, _join(path, "*"))

    def _alike(self, left: Schema, option: Schema) -> bool:
        return bool(_kinds(left) & _kinds(self._right(option)))


def _lost_by_limits(left: Mapping[str, Any], right: Mapping[str, Any], where: str) -> Iterator[str]:
    allowed, said = _values(right), _values(left)
    if allowed is not None:
        gone = [repr(value) for value in said or () if value not in allowed]
        if said is None or gone:
            yield f"{where}: no longer takes {', '.join(gone) or 'other values than those listed'}"
    for name in LEAST:
        if name in right and right[name] > left.get(name, float("-inf")):
            yield f"{where}: {name} is {right[name]} now"
    for name in MOST:
        if name in right and right[name] < left.get(name, float("inf")):
            yield f"{where}: {name} is {right[name]} now"
    for name in FORMS:
        if name in right and right[name] != left.get(name):
            yield f"{where}: {name} is {right[name]} now"


def _resolver(document: Schema) -> Callable[[Schema], Schema]:
    """Follows references inside one document."""

    def resolve(schema: Schema) -> Schema:
        while reference := _reference(schema):
            found: Schema = document
            for step in reference.removeprefix("#/").split("/"):
                found = found[step]
            schema = found
        return schema

    return resolve


def _reference(schema: Schema) -> str:
    return str(schema.get("$ref", "")) if isinstance(schema, Mapping) else ""


def _choices(schema: Schema) -> list[Schema]:
    return list(schema.get("anyOf") or schema.get("oneOf") or ()) if isinstance(schema, Mapping) else []


def _kinds(schema: Schema) -> frozenset[str]:
    if schema is False:
        return frozenset()
    if not isinstance(schema, Mapping) or "type" not in schema:
        return KINDS
    kind = schema["type"]
    return frozenset([kind] if isinstance(kind, str) else kind)


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
