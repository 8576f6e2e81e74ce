"""JSON Schemas of the events and of the files in `config/`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from shared.events import Event, InputEvent, known_types

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
CONFIGURATION: Mapping[str, str] = {
    # By name, because what is shared imports no service.
    "alerts": "services.health.rules:Rules",
    "exclusions": "services.router.settings:Exclusions",
    "health": "services.health.settings:Model",
    "revenue": "services.health.settings:RevenueRules",
    "notify": "services.notify.settings:Notify",
    "pollers": "services.gateway.pollers.settings:Pollers",
    "reviews": "services.qbr.settings:Policy",
    "routing": "services.router.settings:Routing",
    "segments": "services.ops.settings:SegmentRules",
    "surveys": "shared.surveys:SurveyRules",
    "team": "shared.team:Team",
    "table": "services.health.tables:TableModel",
    "voc": "services.voc.settings:VocSettings",
    "webhooks": "services.gateway.webhooks.settings:Webhooks",
}


def of_event(model: type[Event]) -> Schema:
    """What a producer may send of an input, what a subscriber gets of a result; unknown fields are welcome."""
    wire_type = model.wire_type()
    return _schema(model, "validation" if issubclass(model, InputEvent) else "serialization", f"event:{wire_type}")


def events() -> dict[str, Schema]:
    """Wire type → schema."""
    return {wire_type: of_event(model) for wire_type, model in sorted(known_types().items())}


def configuration() -> dict[str, Schema]:
    """Name of the YAML file → schema; `table` is of the models that `./hune backtest` takes."""
    return {name: _schema(_model(where), "validation", f"config:{name}") for name, where in CONFIGURATION.items()}


def _model(where: str) -> type[BaseModel]:
    module, _, name = where.partition(":")
    model: type[BaseModel] = getattr(importlib.import_module(module), name)
    return model


class _Plain(GenerateJsonSchema):
    """Without a title for every field, which only repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schema(model: type[BaseModel], mode: JsonSchemaMode, name: str) -> Schema:
    own = model.model_json_schema(mode=mode, schema_generator=_Plain)
    defs = own.pop("$defs", {})
    schema = {"$schema": DIALECT, "$id": f"urn:hune:{name}", "title": own.pop("title"), **own}
    return schema | ({"$defs": defs} if defs else {})
