"""Slack, with its own SDK: the Web API for an app, an incoming webhook as the simple mode."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from services.notify.sinks import Letter, Outcome

EVENT_TYPE = "hune_delivery"
LOOK_BACK = timedelta(seconds=60)
PAGE, MOST_PAGES = 200, 20

NEVER = frozenset(
    "invalid_blocks invalid_blocks_format msg_too_long msg_blocks_too_long no_text invalid_arguments invalid_arg_name "
    "invalid_array_arg invalid_metadata_format invalid_metadata_schema metadata_too_large "
    "too_many_attachments message_not_found cant_update_message edit_window_closed".split()
)
"""Errors after which this very message will not be taken, whatever anybody mends."""
ORPHANED = frozenset(("thread_not_found", "cannot_reply_to_message", "invalid_thread_ts"))
UNCLEAR = frozenset(("internal_error", "fatal_error", "service_unavailable", "request_timeout"))
"""Slack's own words for errors after which part of the work may have been done."""
# A connection that was never made carried nothing; whatever else breaks may have broken after Slack took the message.
NOT_REACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def a_session(timeout: float) -> aiohttp.ClientSession:
    """A new connection for each call: one that was kept may be dead, and then nobody knows what became of the call."""
    limits = aiohttp.ClientTimeout(total=timeout)
    return aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(force_close=True))


class SlackApp:
    """Posts and changes messages as a Slack app, and finds by their metadata those it may have posted."""

    name, updates, looks_up, is_machine, paced = "slack", True, True, False, True

    def __init__(self, token: str, base_url: str, timeout: float) -> None:
        self._session = a_session(timeout)
        # The SDK's default retries a broken connection by itself, which may post twice.
        options: dict[str, Any] = {"base_url": base_url} if base_url else {}
        self._client = AsyncWebClient(token=token, session=self._session, retry_handlers=[], **options)

    async def post(self, letter: Letter) -> Outcome:
        channel = letter.channel
        try:
            if channel is None:
                channel = await self._channel(letter.address)
        except Exception as error:  # nothing was posted yet
            return as_refused(outcome_of(error))
        found = await self._post(letter, channel, letter.thread_ts)
        if found.reason not in ORPHANED or letter.thread_ts is None:
            return found
        if letter.what == "open":  # somebody took away what it would have stood under
            return await self._post(letter, channel, None)
        return Outcome("failed", found.reason)

    async def _post(self, letter: Letter, channel: str, thread_ts: str | None) -> Outcome:
        try:
            answer = await self._client.chat_postMessage(
                channel=channel,
                text=letter.message.text,
                blocks=list(letter.message.blocks),
                thread_ts=thread_ts,
                unfurl_links=False,
                unfurl_media=False,
                metadata={"event_type": EVENT_TYPE, "event_payload": {"delivery_id": letter.delivery_id}},
            )
        except Exception as error:
            return outcome_of(error)
        return Outcome("sent", channel=answer["channel"], ts=answer["ts"], thread_ts=thread_ts)

    async def update(self, letter: Letter) -> Outcome:
        try:
            answer = await self._client.chat_update(
                channel=letter.channel or "",
                ts=letter.ts or "",
                text=letter.message.text,
                blocks=list(letter.message.blocks),
            )
        except Exception as error:
            return outcome_of(error)
        return Outcome("sent", channel=answer["channel"], ts=answer["ts"], thread_ts=letter.thread_ts)

    async def look_up(self, letter: Letter) -> Outcome:
        """Search what was posted since the attempt for this delivery's metadata."""
        assert letter.attempted_at is not None
        oldest = f"{(letter.attempted_at - LOOK_BACK).timestamp():.6f}"
        cursor = ""
        try:
            channel = letter.channel or await self._channel(letter.address)
            for _ in range(MOST_PAGES):
                ask: dict[str, Any] = {
                    "channel": channel,
                    "oldest": oldest,
                    "limit": PAGE,
                    "include_all_metadata": True,
                }
                ask |= {"cursor": cursor} if cursor else {}
                if letter.thread_ts:
                    answer = await self._client.conversations_replies(ts=letter.thread_ts, **ask)
                else:
                    answer = await self._client.conversations_history(**ask)
                messages: list[dict[str, Any]] = answer.get("messages") or []
                for message in messages:
                    if _delivery_of(message) == letter.delivery_id:
                        return Outcome("sent", channel=channel, ts=message["ts"], thread_ts=letter.thread_ts)
                cursor = (answer.get("response_metadata") or {}).get("next_cursor") or ""
                if not cursor:
                    return Outcome("missing", channel=channel)
        except Exception as error:
            found = outcome_of(error)
            return Outcome("missing") if found.reason in ORPHANED else as_refused(found)
        return Outcome("refused", reason="too many messages since to look through")

    async def close(self) -> None:
        await self._session.close()

    async def _channel(self, address: str) -> str:
        """A person's own conversation; any other address is a channel already. Asking twice opens nothing twice."""
        if address[0] not in "UW":
            return address
        answer = await self._client.conversations_open(users=[address])
        found: str = answer["channel"]["id"]
        return found


class SlackWebhook:
    """Posts to an incoming webhook: nothing can be changed or found again."""

    name, updates, looks_up, is_machine, paced = "hook", False, False, False, True

    def __init__(self, urls: dict[str, str], timeout: float) -> None:
        self._urls, self._session, self._timeout = urls, a_session(timeout), timeout

    async def post(self, letter: Letter) -> Outcome:
        client = AsyncWebhookClient(self._urls[letter.address], session=self._session, retry_handlers=[])
        # Interactivity needs an app: without one a button would answer with an error.
        blocks = [block for block in letter.message.blocks if block["type"] != "actions"]
        try:
            answer = await client.send(text=letter.message.text, blocks=blocks, unfurl_links=False, unfurl_media=False)
        except Exception as error:
            return outcome_of(error)
        if answer.status_code == 200 and answer.body == "ok":
            return Outcome("sent")
        if answer.status_code == 429:
            return Outcome("refused", "rate_limited", after=retry_after(answer.headers))
        if answer.status_code >= 500 or answer.status_code == 200:
            return Outcome("unclear", f"HTTP {answer.status_code}")
        return Outcome("failed" if answer.body in NEVER else "refused", answer.body[:200])

    async def update(self, letter: Letter) -> Outcome:
        return Outcome("failed", "nothing can be changed there")

    async def look_up(self, letter: Letter) -> Outcome:
        return Outcome("failed", "nothing can be found there")

    async def close(self) -> None:
        await self._session.close()


def outcome_of(error: Exception) -> Outcome:
    """What an error of the SDK says of a call."""
    if isinstance(error, SlackApiError):
        response: Any = error.response
        status = getattr(response, "status_code", None) or getattr(response, "status", None) or 0
        data = getattr(response, "data", None)
        code = data.get("error", "") if isinstance(data, dict) else ""
        if status == 429 or code in ("ratelimited", "rate_limited"):
            return Outcome("refused", "rate_limited", after=retry_after(getattr(response, "headers", {})))
        if status >= 500 or code in UNCLEAR or not code:
            return Outcome("unclear", code or f"HTTP {status}")
        return Outcome("failed" if code in NEVER else "refused", code)
    if isinstance(error, NOT_REACHED):
        return Outcome("refused", f"not reached: {type(error).__name__}")
    if isinstance(error, asyncio.TimeoutError):
        return Outcome("unclear", "no answer in time")
    return Outcome("unclear", type(error).__name__)


def as_refused(outcome: Outcome) -> Outcome:
    """Of a call that posts nothing: whatever went wrong, it can be asked again."""
    return Outcome("refused", outcome.reason, after=outcome.after)


def retry_after(headers: Any) -> float:
    found = next((value for name, value in dict(headers or {}).items() if str(name).lower() == "retry-after"), "")
    try:
        return max(0.0, float(found))
    except ValueError:
        return 30.0


def _delivery_of(message: dict[str, Any]) -> str | None:
    metadata = message.get("metadata") or {}
    if metadata.get("event_type") != EVENT_TYPE:
        return None
    found: str | None = (metadata.get("event_payload") or {}).get("delivery_id")
    return found
