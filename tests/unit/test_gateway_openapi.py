"""Requests made from /openapi.json itself, as documented and a little or wholly different: never a 5xx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.app import Gateway, make_app
from services.gateway.keys import KeyRing
from services.gateway.openapi import document
from services.gateway.settings import GatewaySettings
from services.gateway.store import hash_of
from tests.unit.test_gateway_http import BASIC, KEY, NOWHERE, Kept

CALM = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
ODD_TIMES = [
    "2026-06-01T00:00:00Z", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00", "2026-06-01", "24:00", "",
]  # fmt: skip
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\x00", "x" * 300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.binary(max_size=40) | st.sampled_from([b"", b"{", b"[]", b"null", b'"\\ud800"', b"NaN", b"[" * 5_000])
CALLS = [
    pytest.param(path, method, call, id=f"{method} {path}")
    for path, methods in document()["paths"].items()
    for method, call in methods.items()
]


def made_from(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, as far as the document uses JSON Schema."""
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "string" if schema.get("format") == "date-time":
            return st.sampled_from(ODD_TIMES)
        case "string":
            most = min(schema.get("maxLength", 40), 300)
            return st.text(min_size=schema.get("minLength", 0), max_size=most)
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False)
        case "array":
            return st.lists(made_from(schema["items"]), min_size=schema.get("minItems", 0), max_size=4)
        case "object" if "properties" in schema:
            fields = {name: made_from(field) for name, field in schema["properties"].items()}
            needed = {name: fields.pop(name) for name in schema.get("required", [])}
            return st.fixed_dictionaries(needed, optional=fields)
        case "object":
            return st.dictionaries(st.text(max_size=8), JUNK, max_size=4)
        case _:
            return JUNK


@st.composite
def bodies(draw: st.DrawFn, schema: dict[str, Any]) -> bytes:
    """A body of the schema, perhaps with one value in it replaced, or something else altogether."""
    kind = draw(st.sampled_from(["as documented", "altered", "other"]))
    if kind == "other":
        return draw(BODIES)
    value = draw(made_from(schema))
    spots = list(_spots(value))
    if kind == "altered" and spots:
        container, key = draw(st.sampled_from(spots))
        container[key] = draw(JUNK)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _spots(value[key])


class Stores:
    """No databases: nothing is known, everything is taken."""

    control, all = None, ()

    async def open(self) -> None: ...

    async def submit(self, request: Any) -> None: ...

    async def status(self, id: str, wait_seconds: float) -> None: ...


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def app() -> Any:
    async def keys() -> list[dict[str, Any]]:
        return [{"name": "all", "hash": hash_of(KEY), "scopes": ["ingest", "requests", "accounts", "privacy"]}]

    gateway = Gateway(NOWHERE, GatewaySettings(rate=10**9, burst=10**9), ingest=Kept())
    gateway.keys = KeyRing(keys)
    gateway.databases = gateway.desk = Stores()  # type: ignore[assignment]
    return make_app(gateway, worker=False)


@pytest.mark.parametrize(("path", "method", "call"), CALLS)
def test_no_request_of_the_document_s_making_fails_on_our_side(
    path: str, method: str, call: dict[str, Any], app: Any, loop: asyncio.AbstractEventLoop
) -> None:
    content: dict[str, Any] = call.get("requestBody", {}).get("content", {})
    media: dict[str, Any] = next(iter(content.values()), {})
    schema = media.get("schema", {})
    places = call.get("parameters", [])

    @CALM
    @given(
        bodies(schema), st.fixed_dictionaries({place["name"]: made_from(place["schema"]) | JUNK for place in places})
    )
    def ask(body: bytes, given: dict[str, Any]) -> None:
        url, query = path, {}
        for place in places:
            value = given[place["name"]]
            text = value if isinstance(value, str) else json.dumps(value)
            text = text.encode("utf-8", "replace").decode()
            if place["in"] == "path":
                url = url.replace(f"{{{place['name']}}}", quote(text, safe="") or "x")
            else:
                query[place["name"]] = text

        async def answer() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
                return await client.request(method, url, params=query, content=body or None, auth=BASIC)

        assert loop.run_until_complete(answer()).status_code < 500

    ask()
