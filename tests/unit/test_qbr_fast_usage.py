"""The quick decoder of usage agrees with the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.events.fast import read_usage
from shared.events.inputs import UsageTracked

FIELDS = ("account_id", "user_id", "event", "feature", "product")
values = st.one_of(
    st.none(), st.text(max_size=4), st.just("x" * 257), st.integers(), st.booleans(), st.lists(st.none())
)


def outcome(read: Any, body: bytes) -> Any:
    try:
        found = read(body)
    except ValidationError:
        return "refused"
    return tuple(getattr(found, field) for field in FIELDS), found.properties


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from((*FIELDS, "properties", "unknown")), values))
def test_what_one_accepts_or_refuses_so_does_the_other(event: dict[str, Any]) -> None:
    body = json.dumps(event).encode()
    assert outcome(read_usage, body) == outcome(UsageTracked.model_validate_json, body)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"x"', b'{"event":', b'{"feature": "\xff"}', b'{"a":' * 300 + b"1" + b"}" * 300]
)
def test_what_is_no_event_is_refused_by_both(body: bytes) -> None:
    assert outcome(read_usage, body) == outcome(UsageTracked.model_validate_json, body)
