"""Ports that stay ours while a store restarts."""

from __future__ import annotations

import random
import socket

from devstack.errors import StackError

# Below Linux's ephemeral range (32768 and up): a client that retries while the store is down could
# otherwise be given the store's own port as its source, connect to itself and keep the port taken.
LOWEST, HIGHEST = 20_000, 32_000


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose(count: int, prefer: tuple[int, ...] = ()) -> list[int]:
    """Return `count` different free ports, those of `prefer` first."""
    chosen = [port for port in prefer if is_free(port)][:count]
    candidates = random.sample(range(LOWEST, HIGHEST), 2_000)
    for port in candidates:
        if len(chosen) == count:
            return chosen
        if port not in chosen and is_free(port):
            chosen.append(port)
    if len(chosen) < count:
        raise StackError(
            f"no free port between {LOWEST} and {HIGHEST} on 127.0.0.1; end what holds them and start again"
        )
    return chosen
