"""How much one key may send: a token bucket each, so that no key starves another."""

from __future__ import annotations

import math


class TokenBuckets:
    """`rate` tokens a second and `burst` at most, per name; the time is an argument."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str, tokens: float, now: float) -> int:
        """Take the tokens and give 0, or take nothing and give after how many seconds they will be there."""
        level, at = self._levels.get(name, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        if tokens > level:
            self._levels[name] = (level, now)
            return max(1, math.ceil((min(tokens, self._burst) - level) / self._rate))
        self._levels[name] = (level - tokens, now)
        return 0
