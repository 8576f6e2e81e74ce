"""Our own HTTP interface as OpenAPI 3.1, written by hand and compared with the routes by a test.

The other families' interfaces are their vendors'.
"""

from __future__ import annotations

from typing import Any

from services.gateway.segment import BATCHES, CALLS
from services.gateway.webhooks import NAMES

_TEXT = {"type": "string", "minLength": 1, "maxLength": 256}
_OBJECT = {"type": "object", "additionalProperties": True}
_TIME = {"type": "string", "format": "date-time"}
BANDS = ("red", "amber", "green", "unknown")
_REQUIRED = {
    "track": ["event"],
    "group": ["groupId"],
    "alias": ["userId", "previousId"],
}
_FIELDS = {
    "messageId": _TEXT,
    "userId": _TEXT,
    "anonymousId": _TEXT,
    "timestamp": _TIME,
    "originalTimestamp": _TIME,
    "sentAt": _TIME,
    "context": _OBJECT,
    "properties": _OBJECT,
    "traits": _OBJECT,
    "event": _TEXT,
    "name": {"type": "string"},
    "groupId": _TEXT,
    "previousId": _TEXT,
}
_REFUSALS = {
    "400": "the index of the message that is at fault, and the fix",
    "401": "no key, or one that is unknown or revoked",
    "403": "the key lacks the scope",
    "408": "the body came too slowly",
    "413": "too large; the index of the message that is at fault",
    "415": "an unknown Content-Encoding",
    "429": "too much from this key; Retry-After says when to come back",
    "503": "not durable; send the same again after Retry-After",
}


def _answers(success: str, schema: dict[str, Any], status: str = "200", **more: str) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers: dict[str, Any] = {
        code: {"description": text, "content": error} for code, text in (_REFUSALS | more).items()
    }
    answers[status] = {"description": success, "content": {"application/json": {"schema": schema}}}
    return answers


def _post(summary: str, schema: dict[str, Any], responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "security": [{"basic": []}, {}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": responses,
    }


def _segment_paths() -> dict[str, Any]:
    success = {"type": "object", "properties": {"success": {"const": True}}, "required": ["success"]}
    key = {"writeKey": {"type": "string"}}
    paths: dict[str, Any] = {}
    for call in CALLS:
        schema = {"type": "object", "properties": {**_FIELDS, **key}, "required": _REQUIRED.get(call, [])}
        paths[f"/v1/{call}"] = {"post": _post(f"One {call} call", schema, _answers("on Kafka", success))}
    message = {"type": "object", "properties": {"type": {"enum": list(CALLS)}, **_FIELDS}, "required": ["type"]}
    batch = {
        "type": "object",
        "properties": {"batch": {"type": "array", "items": message}, "sentAt": _TIME, "context": _OBJECT, **key},
        "required": ["batch"],
    }
    for call in BATCHES:
        paths[f"/v1/{call}"] = {"post": _post("Several calls, all or none", batch, _answers("on Kafka", success))}
    return paths


def _request_paths() -> dict[str, Any]:
    request = {
        "type": "object",
        "properties": {
            "id": _TEXT,
            "demand": _TEXT,
            "text": {"type": "string", "maxLength": 20_000},
            "account_id": _TEXT,
            "user_id": _TEXT,
            "parameters": _OBJECT,
            "timestamp": _TIME,
        },
        "anyOf": [{"required": ["demand"]}, {"required": ["text"]}],
    }
    accepted = {"type": "object", "properties": {"id": _TEXT}, "required": ["id"]}
    make = _post(
        "Ask for something, or act: a demand such as health.score, or words",
        request,
        _answers("known and on Kafka", accepted, "202", **{"409": "the id stands for another request"}),
    )
    status = {
        "summary": "How a request stands",
        "security": [{"basic": []}],
        "parameters": [
            {"name": "id", "in": "path", "required": True, "schema": _TEXT},
            {
                "name": "wait",
                "in": "query",
                "description": "seconds to wait for the answer",
                "schema": {"type": "number", "minimum": 0, "maximum": 30},
            },
        ],
        "responses": _answers("how it stands", {"$ref": "#/components/schemas/Request"}, **{"404": "no such request"}),
    }
    return {"/v1/requests": {"post": {**make, "security": [{"basic": []}]}}, "/v1/requests/{id}": {"get": status}}


def _account_paths() -> dict[str, Any]:
    get = {
        "summary": "How an account stands: its state, and why its score moved last",
        "security": [{"basic": []}],
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": _TEXT}],
        "responses": _answers("how it stands", {"$ref": "#/components/schemas/Account"}, **{"404": "no such account"}),
    }
    return {"/v1/accounts/{id}": {"get": get}}


def _regulation_paths() -> dict[str, Any]:
    regulation = {
        "type": "object",
        "properties": {
            "regulationType": {"type": "string"},
            "subjectType": {"const": "USER_ID"},
            "subjectIds": {"type": "array", "items": _TEXT, "minItems": 1},
            "users": {"type": "array", "items": _OBJECT, "minItems": 1},
        },
        "required": ["regulationType"],
    }
    ids = {"type": "object", "properties": {"ids": {"type": "array", "items": _TEXT}}, "required": ["ids"]}
    call = {"post": _post("Have persons suppressed or deleted", regulation, _answers("accepted", ids))}
    return {"/v1/regulations": call, "/v2/regulations": call}


def _webhook_paths() -> dict[str, Any]:
    tool = {"name": "tool", "in": "path", "required": True, "schema": {"enum": list(NAMES)}}
    token = {"name": "token", "in": "path", "required": True, "schema": {"type": "string"}}
    body = {"required": True, "content": {"*/*": {"schema": {}}}}
    more = {"404": "no such tool, or no secret of it is set"}
    answers = _answers("on Kafka; the body is what the tool expects", {}, **more)
    call = {"summary": "A delivery of a tool, under its own signature", "requestBody": body, "responses": answers}
    return {
        "/webhooks/{tool}": {"post": {**call, "parameters": [tool]}},
        "/webhooks/{tool}/{token}": {"post": {**call, "parameters": [tool, token]}},
    }


def document() -> dict[str, Any]:
    def maybe(kind: str, **more: Any) -> dict[str, Any]:
        return {"type": [kind, "null"], **more}

    return {
        "openapi": "3.1.0",
        "info": {"title": "Hune gateway", "version": "1"},
        "paths": _segment_paths() | _request_paths() | _account_paths() | _regulation_paths() | _webhook_paths(),
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "user: the key; password: empty"}
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {
                        "success": {"const": False},
                        "error": {"type": "string"},
                        "index": {"type": "integer", "description": "which message of the batch, from 0"},
                    },
                    "required": ["success", "error"],
                },
                "Account": {
                    "type": "object",
                    "properties": {
                        "account_id": {"type": "string"},
                        **{name: maybe("string") for name in ("name", "segment", "stage", "owner", "arr", "notice_on")},
                        "score": maybe("integer"),
                        **{name: {"enum": [*BANDS, None]} for name in ("band", "shown_band")},
                        "as_of": maybe("string", format="date-time"),
                        "reason": maybe("object"),
                    },
                    "required": ["account_id", "score", "band", "as_of", "reason"],
                },
                "Request": {
                    "type": "object",
                    "properties": {
                        "id": {"type": "string"},
                        "status": {"enum": ["pending", "answered", "declined", "unclear"]},
                        "demand": maybe("string"),
                        "account_id": maybe("string"),
                        "confidence": maybe("number"),
                        "as_of": maybe("string", format="date-time"),
                        "answer": maybe("object"),
                        "reason": maybe("string"),
                        "candidates": {"type": "array", "items": {"type": "string"}},
                    },
                    "required": [
                        "id", "status", "demand", "account_id", "confidence", "as_of", "answer", "reason",
                    ],
                },
            },
        },
    }  # fmt: skip
