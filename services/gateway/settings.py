"""The gateway's knobs: limits of what one caller may send, and how long anything may take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from shared.errors import Misconfigured

KIB = 1024
MIB = 1024 * KIB
PREFIX = "HUNE_GATEWAY_"
MAX_EVENT_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What a single call may hold; `body_bytes` counts after decompression."""

    event_bytes: int = 32 * KIB
    batch_bytes: int = 500 * KIB
    body_bytes: int = 5 * MIB
    batch_events: int = 2_500
    depth: int = 32
    keys: int = 1_000


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Each field is read from `HUNE_GATEWAY_<FIELD>`; a limit of `Limits` likewise from `HUNE_GATEWAY_MAX_<FIELD>`.

    `rate` and `burst` are events per second and key. With a `spool_dir`, what Kafka does not acknowledge within
    `spool_seconds` goes there, `spool_bytes` at most; without one it is refused after `ack_seconds`.
    """

    limits: Limits = Limits()
    rate: int = 20_000
    burst: int = 100_000
    in_flight: int = 256
    in_flight_per_key: int = 128
    queue_bytes: int = 64 * MIB
    ack_seconds: int = 5
    body_seconds: int = 30
    drain_seconds: int = 10
    keep_answers_days: int = 30
    spool_bytes: int = 2048 * MIB
    spool_seconds: int = 2
    spool_dir: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> GatewaySettings:
        """Read the knobs.

        Raises Misconfigured that names the variable and what it takes.
        """
        defaults = Limits()
        limits = Limits(
            **{
                field.name: _number(env, f"{PREFIX}MAX_{field.name.upper()}", getattr(defaults, field.name))
                for field in fields(Limits)
            }
        )
        if limits.event_bytes > MAX_EVENT_BYTES:
            raise Misconfigured(f"{PREFIX}MAX_EVENT_BYTES is {limits.event_bytes}; a record holds {MAX_EVENT_BYTES}")
        knobs = {
            field.name: _number(env, PREFIX + field.name.upper(), field.default)
            for field in fields(cls)
            if field.name not in ("limits", "spool_dir")
        }
        folder = env.get(f"{PREFIX}SPOOL_DIR", "").strip()
        settings = cls(limits=limits, spool_dir=Path(folder) if folder else None, **knobs)
        if settings.burst < limits.batch_events:
            raise Misconfigured(
                f"{PREFIX}BURST is {settings.burst}; at least {limits.batch_events}, or a full batch never passes"
            )
        return settings


def _number(env: Mapping[str, str], name: str, default: object) -> int:
    text = env.get(name, "").strip() or str(default)
    if not text.isdigit() or int(text) == 0:
        raise Misconfigured(f"{name} is {text!r}; it takes a whole number above 0 such as {default}")
    return int(text)
