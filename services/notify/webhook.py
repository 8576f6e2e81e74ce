"""Outgoing webhooks in Standard Webhooks form: signed, and never into a network of one's own."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from services.notify.card import Card
from services.notify.sinks import Letter, Outcome
from services.notify.slack import NOT_REACHED, retry_after
from shared.errors import Misconfigured
from shared.times import instant

PORTS = frozenset((443, 8443))
MOST_READ = 4096
TUNNELS = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""IPv6 ranges that carry an IPv4 address which may be anything."""


class Forbidden(OSError):
    """The host leads into a network that is not the public one."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a webhook goes, and the key that signs it."""

    url: str
    key: bytes


def endpoint_of(variable: str, url: str, secret: str, *, private: bool) -> Endpoint:
    """Check an address and its secret.

    Raises Misconfigured that names the variable.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or 443
    except ValueError:
        port = 0
    if not parts.hostname or parts.username or (not private and (parts.scheme != "https" or port not in PORTS)):
        raise Misconfigured(f"{variable} takes an address such as https://hooks.example.com/hune (port 443 or 8443)")
    if _is_number(parts.hostname) and not private and not is_public(parts.hostname):
        raise Misconfigured(f"{variable} leads into a private network; HUNE_WEBHOOKS_PRIVATE=1 allows that")
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) < 24:
        raise Misconfigured(f"{variable}_SECRET takes whsec_ and at least 24 random bytes in base64")
    return Endpoint(url, key)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, and hides no other one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if any(ip in net for net in TUNNELS):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class PublicResolver(AbstractResolver):
    """Resolves once; the connection is made to what was checked, so that a name cannot change in between."""

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not all(is_public(one["host"]) for one in found):
            raise Forbidden(f"{host} leads into a private network")
        return found

    async def close(self) -> None:
        await self._inner.close()


def sign(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature: `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64."""
    digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhooks:
    """Posts each delivery with its id, under which the receiver drops repeats."""

    name, updates, looks_up, is_machine, paced = "webhook", False, False, True, False

    def __init__(
        self, endpoints: dict[str, Endpoint], timeout: float, *, resolver: AbstractResolver | None = None
    ) -> None:
        self._endpoints = endpoints
        connector = aiohttp.TCPConnector(force_close=True, resolver=resolver, use_dns_cache=False)
        limits = aiohttp.ClientTimeout(total=timeout)
        self._session = aiohttp.ClientSession(timeout=limits, connector=connector, trust_env=False)

    async def post(self, letter: Letter) -> Outcome:
        endpoint, now = self._endpoints[letter.address], int(time.time())
        body = json.dumps(payload(letter), ensure_ascii=False, separators=(",", ":")).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": "hune",
            "webhook-id": letter.delivery_id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(endpoint.key, letter.delivery_id, now, body),
        }
        try:
            async with self._session.post(endpoint.url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.content.read(MOST_READ)
                return _outcome(answer.status, answer.headers)
        except NOT_REACHED as error:
            return Outcome("refused", f"not reached: {getattr(error, 'os_error', None) or type(error).__name__}")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Outcome("unclear", type(error).__name__)

    async def update(self, letter: Letter) -> Outcome:
        return Outcome("failed", "nothing can be changed there")

    async def look_up(self, letter: Letter) -> Outcome:
        return Outcome("failed", "nothing can be found there")

    async def close(self) -> None:
        await self._session.close()


def _outcome(status: int, headers: Any) -> Outcome:
    if 200 <= status < 300:
        return Outcome("sent")
    if status == 410:
        return Outcome("failed", "HTTP 410: the receiver wants no more of it", gone=True)
    after = retry_after(headers) if status in (429, 503) and "retry-after" in headers else None
    return Outcome("refused", f"HTTP {status}", after=after)


def payload(letter: Letter) -> dict[str, Any]:
    """What a receiver gets: the episode as it stands, and what is known of its account."""
    card = letter.cards[0]
    episode, account = card.episode, card.account
    what = episode.history[-1].what if letter.what == "thread" and episode.history else "opened"
    known = {"name": account.name, "score": account.score, "band": account.band, "segment": account.segment,
             "owner": account.owner, "arr": account.arr, "notice_on": account.notice_on}  # fmt: skip
    return {
        "type": f"alert.{what}",
        "timestamp": instant(card.now),
        "data": {
            "alert_id": episode.alert_id, "account_id": episode.account_id, "service": episode.service,
            "rule": episode.rule, "kind": episode.kind, "severity": episode.severity, "state": episode.state,
            "version": episode.version, "title": episode.title, "why": episode.why, "next_step": episode.next_step,
            "evidence": dict(episode.evidence), "opened_at": instant(episode.opened_at),
            "resolved_at": _instant(card), "account": known,
        },
    }  # fmt: skip


def _instant(card: Card) -> str | None:
    return instant(card.episode.resolved_at) if card.episode.resolved_at is not None else None
