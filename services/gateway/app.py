"""The gateway's process: the HTTP door, the producer behind it and the worker that reads answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.gateway.answers import JSON, RETRY_AFTER_SECONDS, error_body, respond
from services.gateway.doors import DOORS
from services.gateway.event_calls import DoorApp
from services.gateway.gateway import Gateway
from services.gateway.handlers import build
from services.gateway.openapi import document
from services.gateway.request_calls import answering, make_request, regulate, request_status, tell_account
from services.gateway.serving import impatient, server_of
from services.gateway.settings import GatewaySettings
from services.gateway.webhook_calls import take_webhook
from shared.errors import Misconfigured
from shared.observability import logs
from shared.settings import Settings

__all__ = ["Gateway", "build", "impatient", "main", "make_app"]

log = logging.getLogger(__name__)


class _Front:
    """The application: ordinary calls at a door's own paths go straight to it, all others through the framework."""

    def __init__(self, rest: Starlette, straight: Mapping[tuple[str, str], DoorApp]) -> None:
        self.rest, self._straight = rest, straight

    @property
    def state(self) -> Any:
        return self.rest.state

    @property
    def router(self) -> Any:
        return self.rest.router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = self._straight.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (door or self.rest)(scope, receive, send)


async def _openapi(request: Request) -> Response:
    return respond(200, msgspec.json.encode(document()))


async def _livez(request: Request) -> Response:
    return Response("ok", media_type="text/plain")


async def _readyz(request: Request) -> Response:
    reason = request.app.state.gateway.not_ready()
    return Response(reason or "ok", 503 if reason else 200, media_type="text/plain")


async def _metrics(request: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


PROBES = (
    Route("/livez", _livez),
    Route("/readyz", _readyz),
    Route("/metrics", _metrics),
)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {404: "no such path; see /openapi.json", 405: "this path takes another method; see /openapi.json"}
    headers = dict(error.headers or {})
    body = error_body(reasons.get(error.status_code, error.detail))
    return Response(body, error.status_code, headers, JSON)


async def _gone(request: Request, error: Exception) -> Response:
    return respond(400, error_body("the caller hung up"))


def _shown(request: Request) -> str:
    """The path without what may be a secret in it."""
    path = request.url.path
    for name in ("key", "token"):
        if secret := request.path_params.get(name):
            path = path.replace(secret, f"{{{name}}}")
    return path


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("a call failed for a reason of ours", extra={"error": type(error).__name__, "path": _shown(request)})
    return respond(503, error_body("failed on our side; send again"), retry_after=RETRY_AFTER_SECONDS)


def _with_slash(path: str) -> tuple[str, ...]:
    return path, path.rstrip("/") + "/"


def make_app(gateway: Gateway, *, worker: bool = True) -> _Front:
    """The ASGI application; its lifespan starts and stops the gateway."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await gateway.start(worker=worker)
        try:
            yield
        finally:
            await gateway.stop()

    doors = [(door, DoorApp(gateway, door)) for door in DOORS]
    routes = [
        Route(path, entered, methods=list(door.methods))
        for door, entered in doors
        for prefix in ("", "/k/{key}")
        for stem in door.paths
        for path in _with_slash(prefix + stem)
    ]
    straight = {
        ("POST", path): entered
        for door, entered in reversed(doors)
        for stem in door.paths
        for path in _with_slash(stem)
        if "{" not in stem and "POST" in door.methods
    }
    for stem in ("/webhooks/{tool}", "/webhooks/{tool}/{token}"):
        routes += [Route(path, take_webhook, methods=["POST"]) for path in _with_slash(stem)]
    for path in _with_slash("/v1/requests"):
        routes.append(Route(path, answering(make_request), methods=["POST"]))
    routes += [
        Route("/v1/requests/{id}", answering(request_status), methods=["GET"]),
        Route("/v1/regulations", answering(regulate, "regulations"), methods=["POST"]),
        Route("/v2/regulations", answering(regulate, "regulations"), methods=["POST"]),
        Route("/v1/accounts/{id:path}", answering(tell_account, "accounts"), methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        *PROBES,
    ]
    handlers: Any = {HTTPException: _http_error, ClientDisconnect: _gone, Exception: _unexpected}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    return _Front(app, straight)


def _probes_app(gateway: Gateway) -> Starlette:
    app = Starlette(routes=list(PROBES))
    app.state.gateway = gateway
    return app


async def serve(settings: Settings, knobs: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT: then take no more calls, finish those in flight, flush, leave."""
    gateway = Gateway(settings, knobs)
    door = server_of(
        make_app(gateway),
        settings.gateway_host,
        settings.gateway_port,
        timeout_graceful_shutdown=knobs.drain_seconds,
        timeout_keep_alive=75,
        http=impatient(knobs.body_seconds),
    )
    probes = server_of(_probes_app(gateway), settings.probes_host, settings.probes_port, lifespan="off")

    def leave() -> None:
        gateway.draining = True
        door.should_exit = True

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, leave)
    companion = asyncio.create_task(probes.serve()) if settings.probes_port else None
    try:
        await door.serve()
    except SystemExit:
        raise Misconfigured(f"HUNE_GATEWAY_PORT {settings.gateway_port} cannot be used; choose a free one") from None
    finally:
        probes.should_exit = True
        if companion is not None:
            await companion
    if gateway.fatal is not None:
        raise Misconfigured(gateway.fatal)


def main() -> None:
    """Run the gateway in this process.

    Raises Misconfigured when it must not start.
    """
    logs.configure()
    asyncio.run(serve(Settings.from_env(), GatewaySettings.from_env()))
