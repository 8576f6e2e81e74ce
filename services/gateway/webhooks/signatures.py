"""Proofs of origin, over the raw bytes, in constant time, inside a time window, under any of the live secrets.

Every check returns None or raises Forged with a reason that tells the sender nothing about the secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from services.gateway.keys import from_basic, from_bearer
from services.gateway.webhooks.base import Delivery, Forged, Trust

_HEX = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,17}", re.ASCII)
TOKEN_HEADER = "x-webhook-token"


def header(delivery: Delivery, name: str) -> str:
    value = delivery.headers.get(name.lower())
    if not value:
        raise Forged(f"header {name} is missing")
    return value


def from_hex(text: str, size: int) -> bytes:
    """Exactly `size` bytes in hexadecimal, nothing around or between them."""
    if len(text) != 2 * size or not _HEX.fullmatch(text):
        raise Forged("the signature is not hexadecimal of the right length")
    return bytes.fromhex(text)


def from_base64(text: str, size: int, *, url: bool = False) -> bytes:
    """Exactly `size` bytes (0: any number) in the one canonical spelling of base64; `url`: without padding."""
    padded = text + "=" * (-len(text) % 4) if url else text
    try:
        found = base64.b64decode(padded, altchars=b"-_" if url else None, validate=True)
    except (binascii.Error, ValueError):
        raise Forged("the signature is not base64") from None
    again = (base64.urlsafe_b64encode(found).rstrip(b"=") if url else base64.b64encode(found)).decode()
    if again != text or (size and len(found) != size):
        raise Forged("the signature is not base64 of the right length")
    return found


def check_hmac(trust: Trust, algorithm: str, message: bytes, given: Iterable[bytes]) -> None:
    """Whether one of the given digests is the message's under one of the secrets; all are always compared."""
    if not trust.secrets:
        raise Forged("no secret is set for this tool")
    good = False
    candidates = tuple(given)
    for secret in trust.secrets:
        expected = hmac.digest(secret.encode(), message, algorithm)
        for candidate in candidates:
            good |= hmac.compare_digest(expected, candidate)
    if not good:
        raise Forged("the signature is not ours")


def check_fresh(delivery: Delivery, signed_at: float, trust: Trust) -> None:
    if abs(delivery.received_at.timestamp() - signed_at) > trust.window_seconds:
        raise Forged(f"the signature is more than {trust.window_seconds} s old or ahead")


def epoch(text: str) -> float:
    if not _DIGITS.fullmatch(text):
        raise Forged("the signature's timestamp cannot be read")
    return float(text)


def check_token(delivery: Delivery, tokens: Iterable[str]) -> None:
    """A static secret: in the path or the query, the X-Webhook-Token header, or Authorization (Bearer, Basic)."""
    authorization = delivery.headers.get("authorization")
    given = (
        delivery.token,
        delivery.headers.get(TOKEN_HEADER),
        from_bearer(authorization),
        from_basic(authorization, password=True),
    )
    good = False
    for token in tokens:
        expected = hashlib.sha256(token.encode()).digest()
        for candidate in given:
            found = hashlib.sha256((candidate or "").encode("utf-8", "surrogateescape")).digest()
            good |= hmac.compare_digest(expected, found) and bool(candidate)
    if not good:
        raise Forged("the token is missing or is not ours")


def static_token(delivery: Delivery, trust: Trust) -> None:
    """For tools that sign nothing."""
    check_token(delivery, (*trust.secrets, *trust.tokens))


def zendesk(delivery: Delivery, trust: Trust) -> None:
    """base64(HMAC-SHA256(secret, timestamp + body))."""
    text = header(delivery, "X-Zendesk-Webhook-Signature-Timestamp")
    given = from_base64(header(delivery, "X-Zendesk-Webhook-Signature"), 32)
    check_hmac(trust, "sha256", text.encode() + delivery.body, [given])
    try:
        signed_at = datetime.fromisoformat(text)
        signed_at = signed_at if signed_at.tzinfo else signed_at.replace(tzinfo=UTC)
        check_fresh(delivery, signed_at.timestamp(), trust)
    except (ValueError, OverflowError):
        raise Forged("the signature's timestamp cannot be read") from None


def hub(delivery: Delivery, trust: Trust, name: str, prefix: str, algorithm: str) -> None:
    """PREFIX + hex HMAC(secret, body)."""
    given = header(delivery, name)
    if not given.startswith(prefix):
        raise Forged(f"header {name} does not begin with {prefix}")
    size = hashlib.new(algorithm).digest_size
    check_hmac(trust, algorithm, delivery.body, [from_hex(given.removeprefix(prefix), size)])


_HUBSPOT_DECODES = {
    "%3A": ":", "%2F": "/", "%3F": "?", "%40": "@", "%21": "!", "%24": "$", "%27": "'",
    "%28": "(", "%29": ")", "%2A": "*", "%2C": ",", "%3B": ";",
}  # fmt: skip
_HUBSPOT_ENCODED = re.compile("|".join(_HUBSPOT_DECODES), re.IGNORECASE)


def hubspot_v3(delivery: Delivery, trust: Trust) -> None:
    """base64(HMAC-SHA256(secret, method + URI + body + timestamp in ms))."""
    text = header(delivery, "X-HubSpot-Request-Timestamp")
    given = from_base64(header(delivery, "X-HubSpot-Signature-v3"), 32)
    uri = _HUBSPOT_ENCODED.sub(lambda found: _HUBSPOT_DECODES[found[0].upper()], delivery.url)
    message = delivery.method.encode() + uri.encode() + delivery.body + text.encode()
    check_hmac(trust, "sha256", message, [given])
    check_fresh(delivery, epoch(text) / 1000, trust)


def hubspot_v1(delivery: Delivery, trust: Trust) -> None:
    """hex SHA-256(secret + body): no key in the usual sense and no time, so it can be replayed."""
    if header(delivery, "X-HubSpot-Signature-Version") != "v1":
        raise Forged("header X-HubSpot-Signature-Version is not v1")
    given = from_hex(header(delivery, "X-HubSpot-Signature"), 32)
    good = False
    for secret in trust.secrets:
        good |= hmac.compare_digest(hashlib.sha256(secret.encode() + delivery.body).digest(), given)
    if not good:
        raise Forged("the signature is not ours")


def stripe(delivery: Delivery, trust: Trust) -> None:
    """`t=…,v1=…[,v1=…]`; v1 is hex HMAC-SHA256(secret, t + "." + body)."""
    pairs = [part.strip().partition("=") for part in header(delivery, "Stripe-Signature").split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    given = [from_hex(value, 32) for name, _, value in pairs if name == "v1"]
    if len(times) != 1 or not given:
        raise Forged("header Stripe-Signature holds no t and v1")
    check_hmac(trust, "sha256", times[0].encode() + b"." + delivery.body, given[:8])
    check_fresh(delivery, epoch(times[0]), trust)


def versioned(delivery: Delivery, trust: Trust, signature: str, timestamp: str, prefix: str) -> None:
    """PREFIX + hex HMAC-SHA256(secret, "v0:" + timestamp + ":" + body), as Slack and Customer.io sign."""
    text, given = header(delivery, timestamp), header(delivery, signature)
    if not given.startswith(prefix):
        raise Forged(f"header {signature} does not begin with {prefix}")
    message = b"v0:" + text.encode() + b":" + delivery.body
    check_hmac(trust, "sha256", message, [from_hex(given.removeprefix(prefix), 32)])
    check_fresh(delivery, epoch(text), trust)


def signed_jwt(delivery: Delivery, trust: Trust) -> None:
    """A JWT in Authorization, RS256 and nothing else, with the claims webhook_url and body_sha256.

    The claim webhook_url ties it to our address, body_sha256 to the body, exp (if there) to the time.
    """
    authorization = header(delivery, "Authorization")
    token = from_bearer(authorization) or authorization.strip()
    parts = token.split(".")
    if len(parts) != 3 or len(token) > 16_384:
        raise Forged("Authorization holds no signed JWT")
    algorithm = _json(from_base64(parts[0], 0, url=True)).get("alg")
    if algorithm != "RS256":
        raise Forged("the JWT is not signed by RS256")
    signed, signature = f"{parts[0]}.{parts[1]}".encode(), from_base64(parts[2], 0, url=True)
    if not any(_is_rs256(key, signed, signature) for key in trust.public_keys):
        raise Forged("the JWT's signature is not of the tool's key")
    claims = _json(from_base64(parts[1], 0, url=True))
    digest = hashlib.sha256(delivery.body).digest()
    told = claims.get("body_sha256")
    if not isinstance(told, str) or not hmac.compare_digest(_digest(told), digest):
        raise Forged("the JWT is of another body")
    if not isinstance(claims.get("webhook_url"), str) or claims["webhook_url"] != delivery.url:
        raise Forged("the JWT is of another address")
    _check_times(claims, delivery, trust)


def _check_times(claims: dict[str, Any], delivery: Delivery, trust: Trust) -> None:
    now = delivery.received_at.timestamp()
    for name in ("exp", "nbf", "iat"):
        told = claims.get(name)
        if told is None:
            continue
        if isinstance(told, bool) or not isinstance(told, (int, float)):
            raise Forged(f"the JWT's {name} cannot be read")
        late = now - told > (0 if name == "exp" else float("inf"))
        early = name != "exp" and told - now > trust.window_seconds
        if late or early:
            raise Forged("the JWT is not valid now")


def _digest(told: str) -> bytes:
    """The claim is in hexadecimal; base64 is read as well, as Gong's sample code is silent about it."""
    try:
        return from_hex(told, 32)
    except Forged:
        return from_base64(told, 32)


def _json(text: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Forged("Authorization holds no signed JWT") from None
    if not isinstance(found, dict):
        raise Forged("Authorization holds no signed JWT")
    return found


def _is_rs256(key: str, message: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # late: few installations receive a JWT
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        public_key(key).verify(signature, message, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def public_key(text: str) -> Any:
    """An RSA public key of at least 2,048 bits, in PEM or as the bare base64 that Gong shows.

    Raises ValueError.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

    text = text.strip()
    if text.startswith("-----BEGIN"):
        key = load_pem_public_key(text.replace("\\n", "\n").encode())
    else:
        key = load_der_public_key(base64.b64decode("".join(text.split()), validate=True))
    if not isinstance(key, RSAPublicKey) or key.key_size < 2048:
        raise ValueError("it is no RSA key of 2,048 bits or more")
    return key
