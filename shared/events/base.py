"""What an event is: a frozen fact with a type, lenient to fields it does not know."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints

from shared.errors import Poison

WIRE_PREFIX = "hune."

Identifier = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256)]
"""An id in the words of the tool it came from: 1 to 256 characters."""
Text = Annotated[str, StringConstraints(strict=True, max_length=20_000)]
Money = Annotated[
    Decimal, PlainSerializer(lambda value: format(value, "f"), return_type=str), Field(allow_inf_nan=False)
]
"""An exact amount; a decimal string on the wire."""
Currency = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Z]{3}$")]

_registry: dict[str, type[Event]] = {}


class Event(BaseModel):
    """A fact in the past tense. Subclasses name their wire type: `class X(Event, type="usage.tracked")`."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")

    type_name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __init_subclass__(cls, *, type: str = "", version: int = 1, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.type_name, cls.version = type, version
        if type:
            _registry[cls.wire_type()] = cls

    @classmethod
    def wire_type(cls) -> str:
        """The CloudEvents type, such as `hune.usage.tracked.v1`."""
        return f"{WIRE_PREFIX}{cls.type_name}.v{cls.version}"


class InputEvent(Event):
    """What a customer's tools tell: who it concerns travels beside the fact."""

    account_id: Identifier | None = None
    user_id: Identifier | None = None


class ResultEvent(Event):
    """What a service decided, with what caused it and under which configuration."""

    account_id: Identifier | None
    cause_ids: tuple[str, ...] = ()
    occurred_at: AwareDatetime
    computed_at: AwareDatetime
    config_hash: str | None = None
    revision: int | None = None


def known_types() -> dict[str, type[Event]]:
    """Every event of the contract by wire type."""
    return dict(_registry)


@lru_cache(maxsize=1024)
def wire_type_of(name: str) -> str:
    """Give the wire type of a short name; a wire type stays as it is."""
    return name if name.startswith(WIRE_PREFIX) else f"{WIRE_PREFIX}{name}.v1"


def model_of(wire_type: str) -> type[Event]:
    """The model of a wire type.

    Raises Poison that names the unknown type, or the versions that are known of it.
    """
    model = _registry.get(wire_type)
    if model is not None:
        return model
    stem = wire_type.rpartition(".v")[0]
    versions = sorted(name for name in _registry if name.rpartition(".v")[0] == stem)
    if versions:
        raise Poison(f"version of {wire_type!r} is not known; known: {', '.join(versions)}")
    raise Poison(f"type {wire_type!r} is not known; see docs/schemas for the types there are")
