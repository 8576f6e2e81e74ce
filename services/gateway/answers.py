"""What every door answers with."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

RETRY_AFTER_SECONDS = 2
JSON = "application/json"


def respond(status: int, body: bytes, media_type: str = JSON, retry_after: int | None = None) -> Response:
    headers = {"retry-after": str(retry_after)} if retry_after else {}
    if status == 401:
        headers["www-authenticate"] = 'Basic realm="hune"'
    return Response(body, status, headers, media_type)


def error_body(reason: str) -> bytes:
    return msgspec.json.encode({"success": False, "error": reason})


def headers_of(status: int, body: bytes, media_type: str, retry_after: int | None) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", media_type.encode())]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="hune"'))
    return headers
