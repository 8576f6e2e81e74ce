"""What a request asks for: its account and its parameters, read with errors that name them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from shared.runtime.api import Signal
from shared.times import read_instant


class Unusable(Exception):
    """A parameter that cannot be used; the text names it and what it takes."""


def account_of(signal: Signal) -> str | None:
    """The account asked about, as the router found it: the one named, or what that became by merges."""
    named: str | None = signal.data.account_id
    return signal.account_id if signal.account_id not in ("", signal.id) else named


def text(parameters: Mapping[str, Any], name: str, allowed: Collection[str] = ()) -> str | None:
    """A parameter that is a word, one of `allowed` if any are.

    Raises Unusable.
    """
    value = parameters.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > 256:
        raise Unusable(f"parameter {name} takes a text of 1 to 256 characters")
    if allowed and value not in allowed:
        raise Unusable(f"parameter {name} is {value!r}; it takes {', '.join(sorted(allowed))}")
    return value


def time(parameters: Mapping[str, Any], name: str) -> datetime | None:
    """A parameter that is a time.

    Raises Unusable.
    """
    value = parameters.get(name)
    if value is None:
        return None
    try:
        return read_instant(value)
    except ValueError as error:
        raise Unusable(f"parameter {name}: {error}") from error


def flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    """A parameter that is true or false.

    Raises Unusable.
    """
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise Unusable(f"parameter {name} takes true or false")
    return value
