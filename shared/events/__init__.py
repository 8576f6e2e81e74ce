"""The contract: every event that Hune reads or writes, as pydantic models."""

from shared.events import feedback, inputs, merging, ops, qbr, results, voc
from shared.events.base import (
    Event,
    InputEvent,
    ResultEvent,
    known_types,
    model_of,
    wire_type_of,
)

__all__ = [
    "Event",
    "InputEvent",
    "ResultEvent",
    "feedback",
    "inputs",
    "known_types",
    "merging",
    "model_of",
    "ops",
    "qbr",
    "results",
    "voc",
    "wire_type_of",
]
