"""A tool over HTTP: it writes down what it is asked and answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from devstack.ports import choose


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Stub:
    """Answers in turn: a status, a pair of status and body, or `hang` (takes it, then says nothing); then `usual`.

    What is looked up has its answers in `found`, by path; nothing else is there by GET.
    """

    url: str
    answers: list[Any] = field(default_factory=list)
    usual: Any = 200
    asked: list[Asked] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    async def take(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        is_json = request.headers.get("Content-Type", "").startswith("application/json")
        body = json.loads(raw) if is_json else dict(await request.post())
        heads = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.method, request.path, heads, body))
        if request.path == "/services/oauth2/token":
            return web.json_response({"access_token": f"T{len(self.asked)}", "instance_url": self.url})
        if request.method == "GET" or request.raw_path in self.found:
            answer = self.found.get(request.raw_path, 404)
        else:
            answer = self.answers.pop(0) if self.answers else self.usual
        if callable(answer):
            answer = answer(body)
        if answer == "hang":
            await asyncio.sleep(2)
            answer = 200
        status, said = answer if isinstance(answer, tuple) else (answer, {})
        return web.json_response(said, status=status, headers=self.headers if status == 429 else {})

    @property
    def writes(self) -> list[Asked]:
        return [one for one in self.asked if one.path != "/services/oauth2/token"]


@asynccontextmanager
async def a_stub(*answers: Any, usual: Any = 200) -> AsyncIterator[Stub]:
    port = choose(1)[0]
    stub = Stub(f"http://127.0.0.1:{port}", list(answers), usual)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", stub.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield stub
    finally:
        await runner.cleanup()
