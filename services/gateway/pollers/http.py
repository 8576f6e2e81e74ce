"""The tools' APIs over HTTP: tokens, pace, what an answer's status means, and answers of any length in parts."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from services.gateway.pollers.base import Ask, Feed, Stale, Trouble
from services.gateway.pollers.settings import ChorusPoll, Poll, SalesforcePoll, Secrets

PART_BYTES = 256 * 1024
MOST_LINE_BYTES = 16 * 1024 * 1024
MOST_BYTES = 64 * 1024 * 1024
CONNECT_SECONDS = 10
HOUR = 3600.0
LONGEST_WAIT = 6 * HOUR
NOT_ANSWERED = (aiohttp.ClientError, TimeoutError, OSError)


class Access(Protocol):
    """What is shown to a tool."""

    async def headers(self, session: aiohttp.ClientSession) -> Mapping[str, str]: ...

    def forget(self) -> bool:
        """Drop a token that was refused; False if there is no way to another one."""


class Fixed:
    """A token or a password that stays."""

    def __init__(self, authorization: str) -> None:
        self._headers = {"authorization": authorization}

    async def headers(self, session: aiohttp.ClientSession) -> Mapping[str, str]:
        return self._headers

    def forget(self) -> bool:
        return False


class OAuth:
    """Salesforce's token: by client credentials, or by a refresh token where there is one; new when it is refused."""

    def __init__(self, address: str, secrets: Secrets) -> None:
        self._url = f"{address}/services/oauth2/token"
        self._form = {"client_id": secrets.client_id, "client_secret": secrets.client_secret}
        if secrets.refresh_token:
            self._form |= {"grant_type": "refresh_token", "refresh_token": secrets.refresh_token}
        else:
            self._form |= {"grant_type": "client_credentials"}
        self._token: str | None = None
        self._turn = asyncio.Lock()

    async def headers(self, session: aiohttp.ClientSession) -> Mapping[str, str]:
        async with self._turn:
            if self._token is None:
                self._token = await self._ask(session)
            return {"authorization": f"Bearer {self._token}"}

    def forget(self) -> bool:
        had, self._token = self._token is not None, None
        return had

    async def _ask(self, session: aiohttp.ClientSession) -> str:
        async with session.post(self._url, data=self._form, allow_redirects=False) as answer:
            body = await _limited(answer)
            if answer.status == 200:
                with suppress(msgspec.DecodeError):
                    token = msgspec.json.decode(body).get("access_token")
                    if isinstance(token, str) and token:
                        return token
                raise Trouble("failed", "the token's answer holds no access_token")
            raise _trouble(answer.status, answer.headers, body, "the token was refused")


def access_of(poll: Poll, secrets: Secrets) -> Access:
    if isinstance(poll, SalesforcePoll):
        return OAuth(poll.address, secrets)
    if secrets.client_id:
        both = f"{secrets.client_id}:{secrets.client_secret}".encode()
        return Fixed(f"Basic {base64.b64encode(both).decode()}")
    return Fixed(secrets.token if isinstance(poll, ChorusPoll) else f"Bearer {secrets.token}")  # Chorus's is bare


class Pacer:
    """One tool's turns: so many an hour, and none before the time that the tool named."""

    def __init__(
        self,
        calls_per_hour: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._most, self._clock, self._sleep = calls_per_hour, clock, sleep
        self._calls: deque[float] = deque()
        self._not_before = 0.0
        self._queue = asyncio.Lock()

    async def turn(self) -> None:
        async with self._queue:
            while (wait := self._wait(self._clock())) > 0:
                await self._sleep(wait)
            self._calls.append(self._clock())

    def hold(self, seconds: float) -> None:
        self._not_before = max(self._not_before, self._clock() + seconds)

    def _wait(self, now: float) -> float:
        while self._calls and self._calls[0] <= now - HOUR:
            self._calls.popleft()
        full = self._calls[0] + HOUR - now if len(self._calls) >= self._most else 0.0
        return max(full, self._not_before - now)


class Vendor:
    """One tool's API."""

    def __init__(self, poll: Poll, secrets: Secrets, pacer: Pacer | None = None) -> None:
        self._address = poll.address
        self._access = access_of(poll, secrets)
        self._pacer = pacer or Pacer(poll.calls_per_hour)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=poll.timeout_seconds)
        self._session = aiohttp.ClientSession(timeout=limits, headers={"user-agent": "hune"}, trust_env=False)

    async def close(self) -> None:
        await self._session.close()

    async def call(self, feed: Feed, ask: Ask) -> AsyncGenerator[tuple[bytes, bool], None]:
        """The answer in parts, and whether a part is the last one.

        Raises Trouble, and Stale where the place in the list is gone.
        """
        try:
            async with await self._answer(feed, ask) as answer:
                if not ask.is_lines:
                    yield await _limited(answer), True
                    return
                async for part in _lines(answer):
                    yield part
        except NOT_ANSWERED as error:
            raise Trouble("failed", f"no whole answer: {type(error).__name__}") from None

    async def _answer(self, feed: Feed, ask: Ask) -> aiohttp.ClientResponse:
        """An answer of status 200; a token that is refused is asked for anew, once."""
        while True:
            await self._pacer.turn()
            headers = await self._access.headers(self._session)
            query = f"?{urlencode(ask.query)}" if ask.query else ""
            url = URL(f"{self._address}{ask.path}{query}", encoded=True)
            method = "POST" if ask.json is not None else "GET"
            answer = await self._session.request(
                method, url, json=ask.json, headers=dict(headers), allow_redirects=False
            )
            if answer.status == 200:
                return answer
            try:
                body = await _limited(answer)
            finally:
                answer.release()
            if answer.status == 401 and self._access.forget():
                continue
            if feed.is_stale(answer.status, body):
                raise Stale
            trouble = _trouble(answer.status, answer.headers, body, f"HTTP {answer.status}")
            if trouble.kind == "refused" and feed.is_throttled(answer.status, body):
                trouble = Trouble("throttled", str(trouble), trouble.after)
            if trouble.after is not None:
                self._pacer.hold(trouble.after)
            raise trouble


def _trouble(status: int, headers: Mapping[str, str], body: bytes, said: str) -> Trouble:
    after = retry_after(headers.get("retry-after"), datetime.now(UTC))
    if status == 429:
        return Trouble("throttled", f"{said}: too many calls", after)
    if status >= 500 or status == 408:
        return Trouble("failed", said, after)
    return Trouble("refused", f"{said}: {_complaint(body)}".rstrip(": "), after)


def _complaint(body: bytes) -> str:
    """What a tool says of a refusal, shortened: the names of its fields differ."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    told = told[0] if isinstance(told, list) and told else told
    if not isinstance(told, dict):
        return ""
    named = [told.get(name) for name in ("errorCode", "category", "error", "message", "error_description")]
    return " ".join(text for text in named if isinstance(text, str))[:300]


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from a number or a date; None if there is none that can be read."""
    if value is None:
        return None
    with suppress(ValueError):
        return min(max(float(value), 0.0), LONGEST_WAIT)
    with suppress(ValueError, TypeError):
        at = parsedate_to_datetime(value)
        return min(max((at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds(), 0.0), LONGEST_WAIT)
    return None


async def _limited(answer: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for chunk in answer.content.iter_chunked(PART_BYTES):
        parts.append(chunk)
        size += len(chunk)
        if size > MOST_BYTES:
            raise Trouble("failed", f"the answer has more than {MOST_BYTES} bytes")
    return b"".join(parts)


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[bytes, bool]]:
    """Whole lines, some hundred KiB at a time; the last part is what comes after the last cut."""
    waiting = bytearray()
    async for chunk in answer.content.iter_chunked(PART_BYTES):
        waiting += chunk
        if len(waiting) < PART_BYTES:
            continue
        cut = waiting.rfind(b"\n") + 1
        if cut:
            yield bytes(waiting[:cut]), False
            del waiting[:cut]
        elif len(waiting) > MOST_LINE_BYTES:
            raise Trouble("failed", f"a line has more than {MOST_LINE_BYTES} bytes")
    yield bytes(waiting), True
