"""The body of a request: plain or compressed, never more in memory than the limit, however small it travels."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable

from services.gateway.canonical import Refused

_ANY_ZLIB = zlib.MAX_WBITS | 32
_ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True, "deflate": True}


async def read_body(chunks: AsyncIterable[bytes], encoding: str, limit: int, seconds: float) -> bytes:
    """Read and decompress a body of at most `limit` bytes within `seconds`.

    Raises Refused: 408 too slow, 413 too large, 415 unknown encoding, 400 broken compression.
    """
    compressed = _ENCODINGS.get(encoding.strip().lower())
    if compressed is None:
        raise Refused(f"Content-Encoding {encoding[:40]!r} is not known; send gzip or none", status=415)
    try:
        async with asyncio.timeout(seconds):
            return await (_inflate(chunks, limit) if compressed else _collect(chunks, limit))
    except TimeoutError:
        raise Refused(f"the body did not arrive within {seconds:g} s", status=408) from None


async def _collect(chunks: AsyncIterable[bytes], limit: int) -> bytes:
    parts, size = [], 0
    async for chunk in chunks:
        size += len(chunk)
        _check(size, limit)
        parts.append(chunk)
    return b"".join(parts)


async def _inflate(chunks: AsyncIterable[bytes], limit: int) -> bytes:
    """Decompress while reading; a gzip body may have several members."""
    parts, size, sent = [], 0, 0
    inflater = zlib.decompressobj(_ANY_ZLIB)
    fresh = True
    try:
        async for chunk in chunks:
            sent += len(chunk)
            _check(sent, limit)
            rest = chunk
            while rest:
                if inflater.eof:
                    inflater, fresh = zlib.decompressobj(_ANY_ZLIB), True
                part = inflater.decompress(rest, limit - size + 1)
                fresh = False
                size += len(part)
                _check(size, limit)
                parts.append(part)
                rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    except zlib.error:
        raise Refused("the body is not valid gzip; check Content-Encoding") from None
    if not fresh and not inflater.eof:
        raise Refused("the gzip body is cut off; send it again")
    return b"".join(parts)


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise Refused(f"the body has more than {limit} bytes (decompressed); send less at once", status=413)
