"""A Slack over HTTP that can fail in every way Slack can; what it accepted and what it answered are logged apart.

It is the far end of the real SDK's base URL. A fault that ends in `_after` happens once the message was taken.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from devstack.ports import choose
from tests.support import block_kit

TOKEN = "xoxb-of-the-double"
FAULTS = (
    "429", "500", "500_after", "not_ok", "not_ok_after", "silent", "silent_after", "reset", "reset_after",
    "garbage_after",
)  # fmt: skip
Fault = Callable[[str, int], str | None]
"""Of a method and the number of its call: which fault, if any."""


@dataclass
class Posted:
    """A message as it stands in a channel."""

    channel: str
    ts: str
    text: str
    blocks: list[dict[str, Any]]
    metadata: dict[str, Any]
    thread_ts: str | None
    at: float
    changes: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)

    @property
    def delivery_id(self) -> str | None:
        found: str | None = self.metadata.get("event_payload", {}).get("delivery_id")
        return found

    @property
    def shown(self) -> list[dict[str, Any]]:
        return self.changes[-1][1] if self.changes else self.blocks


@dataclass
class SlackDouble:
    port: int
    fault: Fault = lambda method, n: None
    retry_after: float = 0.05
    posted: list[Posted] = field(default_factory=list)
    accepted: list[tuple[str, str | None]] = field(default_factory=list)
    """Method and delivery of what was taken."""
    answered: list[tuple[str, str | None, bool]] = field(default_factory=list)
    """Method, delivery and whether the caller was told that it was taken."""
    hooked: list[dict[str, Any]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    """Why a message was no message that Slack takes."""
    _runner: web.AppRunner | None = None
    _ts: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/"

    @property
    def hook_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/T0/B0/x"

    @property
    def unlike(self) -> int:
        """How many posts were taken without the caller being told."""
        told = Counter(delivery for method, delivery, ok in self.answered if ok and method == "chat.postMessage")
        taken = Counter(delivery for method, delivery in self.accepted if method == "chat.postMessage")
        return sum((taken - told).values())

    async def up(self) -> None:
        app = web.Application(client_max_size=1 << 22)
        app.router.add_route("*", "/api/{method}", self._api)
        app.router.add_post("/hook/{rest:.*}", self._hook)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _hook(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self._fail_around("hook", None, request, lambda: self._take_hook(body))

    def _take_hook(self, body: dict[str, Any]) -> web.Response:
        self._check(body["text"], body["blocks"])
        self.hooked.append(body)
        return web.Response(text="ok")

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        body = await _fields(request)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        metadata = body.get("metadata") or {}
        delivery = metadata.get("event_payload", {}).get("delivery_id")
        do: Callable[[dict[str, Any]], dict[str, Any]] | None = {
            "chat.postMessage": self._post,
            "chat.update": self._update,
            "conversations.history": self._history,
            "conversations.replies": self._history,
            "conversations.open": _open,
        }.get(method)
        if do is None:
            return web.json_response({"ok": False, "error": "unknown_method"})
        return await self._fail_around(method, delivery, request, lambda: web.json_response(do(body)))

    async def _fail_around(
        self, method: str, delivery: str | None, request: web.Request, take: Callable[[], web.Response]
    ) -> web.StreamResponse:
        fault = self.fault(method, self.calls[method])
        self.calls[method] += 1
        if fault is not None:
            self.faults[fault] += 1
        answer: web.Response | None = None
        if fault is None or fault.endswith("_after"):
            answer = take()
            if answer.status == 200 and b'"ok": false' not in (answer.body or b""):  # type: ignore[operator]
                self.accepted.append((method, delivery))
        told = fault is None
        self.answered.append((method, delivery, told))
        match (fault or "").removesuffix("_after"):
            case "":
                assert answer is not None
                return answer
            case "429":
                return web.json_response(
                    {"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": f"{self.retry_after}"}
                )
            case "500":
                return web.Response(status=500, text="<html>oops</html>", content_type="text/html")
            case "not_ok":
                return web.json_response({"ok": False, "error": "fatal_error"})
            case "garbage":
                return web.Response(text="{half", content_type="application/json")
            case "silent":
                await asyncio.sleep(30)
            case _:
                assert request.transport is not None
                request.transport.abort()
        return web.Response()

    def _check(self, text: str, blocks: list[dict[str, Any]]) -> None:
        self.refused += block_kit.faults(text, blocks)

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check(body["text"], body["blocks"])
        self._ts += 1
        ts = f"{int(time.time())}.{self._ts:06d}"
        if body["channel"].startswith("U"):
            return {"ok": False, "error": "channel_not_found"}
        if body.get("thread_ts") and body["thread_ts"] not in {one.ts for one in self.posted}:
            return {"ok": False, "error": "thread_not_found"}
        posted = Posted(
            body["channel"], ts, body["text"], body["blocks"], body.get("metadata") or {}, body.get("thread_ts"),
            time.monotonic(),
        )  # fmt: skip
        self.posted.append(posted)
        return {"ok": True, "channel": posted.channel, "ts": ts, "message": {}}

    def _update(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check(body["text"], body["blocks"])
        found = [one for one in self.posted if (one.channel, one.ts) == (body["channel"], body["ts"])]
        if not found:
            return {"ok": False, "error": "message_not_found"}
        found[0].changes.append((body["text"], body["blocks"]))
        return {"ok": True, "channel": body["channel"], "ts": body["ts"]}

    def _history(self, body: dict[str, Any]) -> dict[str, Any]:
        """Newest first, a page at a time; metadata only when asked for."""
        thread = body.get("ts")
        found = [
            one
            for one in self.posted
            if one.channel == body["channel"]
            and float(one.ts) >= float(body.get("oldest", 0))
            and (one.thread_ts == thread or (thread is not None and one.ts == thread))
        ]
        start = int(body.get("cursor") or 0)
        page = found[::-1][start : start + 50]
        wants = str(body.get("include_all_metadata", "")).lower() in ("1", "true")
        messages = [{"ts": one.ts, **({"metadata": one.metadata} if wants else {})} for one in page]
        more = str(start + 50) if len(found) > start + 50 else ""
        return {"ok": True, "messages": messages, "response_metadata": {"next_cursor": more}}


def _open(body: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "channel": {"id": f"D{body['users']}"}}


async def _fields(request: web.Request) -> dict[str, Any]:
    """JSON, form or query: the SDK uses all three."""
    if request.content_type == "application/json":
        found: dict[str, Any] = await request.json()
        return found
    fields = {**request.query, **{name: str(value) for name, value in (await request.post()).items()}}
    return {name: json.loads(value) if value[:1] in "[{" else value for name, value in fields.items()}


@asynccontextmanager
async def a_slack(fault: Fault | None = None) -> AsyncIterator[SlackDouble]:
    double = SlackDouble(choose(1)[0])
    if fault is not None:
        double.fault = fault
    await double.up()
    try:
        yield double
    finally:
        await double.down()
