"""An ASGI application that does nothing: it reads the body and answers what the gateway answers, on the same server."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

BODY = b'{"success": true}'
HEADERS = [(b"content-length", str(len(BODY)).encode()), (b"content-type", b"application/json")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(app, host="127.0.0.1", port=port, http="httptools", loop="asyncio", lifespan="off", ws="none",
                access_log=False, log_config=None, server_header=False)  # fmt: skip
