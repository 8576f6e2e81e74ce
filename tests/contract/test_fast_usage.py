"""The hot path's decoder and the contract's model are the same to whoever sends events."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.events.fast import read_usage
from shared.events.inputs import UsageTracked

FIELDS = ("account_id", "user_id", "event", "feature", "product", "properties", "unknown")
WORDS = st.text(max_size=4) | st.sampled_from(["x" * 256, "x" * 257, "é" * 256, "😀" * 257])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), WORDS | JSON, max_size=7) | JSON


def by_model(body: bytes) -> dict[str, Any] | None:
    try:
        found = UsageTracked.model_validate_json(body)
    except ValidationError:
        return None
    return {name: repr(getattr(found, name)) for name in FIELDS[:6]}


def by_struct(body: bytes) -> dict[str, Any] | None:
    try:
        found = read_usage(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return {name: repr(getattr(found, name)) for name in FIELDS[:6]}


@given(BODIES, st.booleans())
def test_both_decoders_accept_and_refuse_the_same(body: Any, ascii_only: bool) -> None:
    text = json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert by_struct(text) == by_model(text)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"{}", b"null", b"[]", b'{"event": ""}', b'{"event": null}', b'{"user_id": 7}', b'{"user_id": "a',
        b'{"user_id": "a", "user_id": "b"}', b'{"user_id": "\\ud800"}', b'{"user_id": "\\u0000"}',
        b'{"user_id": "\xff"}',
        b'{"properties": NaN}', b'{"properties": 1e999}', b'{"properties": 01}', b'{"properties": [1,]}',
        b'{"properties": ' + b"9" * 400 + b"}", b'{"x": ' + b"[" * 50 + b"]" * 50 + b"}",
        b'{"x": ' + b"[" * 300 + b"]" * 300 + b"}", b'{"x": ' + b"[" * 150 + b"]" * 150 + b"}", b'{"x": "\xff"}',
        b'{"x": "\xed\xa0\x80"}', b'{"x": {"\xff": 1}}',
        b' {"event": "x"} ', b'{"event": "x"} y', b"{'event': 'x'}", b'{"event": true}', b'{"account_id": {}}',
    ],
)  # fmt: skip
def test_both_decoders_agree_on_odd_texts(text: bytes) -> None:
    assert by_struct(text) == by_model(text)
