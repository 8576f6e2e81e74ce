"""A progress bar for stderr: redrawn on a terminal, one line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 24
REDRAW_S = 0.1
LINE_S = 10.0


def bar(title: str, share: float, done: int, per_second: float) -> str:
    """One line: `sending usage.ndjson [######------] 50 %  1,000 lines  20,000/s`."""
    share = min(max(share, 0.0), 1.0)
    filled = round(share * WIDTH)
    drawn = "#" * filled + "-" * (WIDTH - filled)
    return f"{title} [{drawn}] {share:4.0%}  {done:,} lines  {per_second:,.0f}/s"


class Progress:
    """Call it with how many lines are done and which share of the file that is."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title = title
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._started = self._drawn = time.monotonic()
        self._any = False

    def __call__(self, done: int, share: float) -> None:
        now = time.monotonic()
        if share < 1 and now - self._drawn < (REDRAW_S if self._tty else LINE_S):
            return
        self._drawn = now
        line = bar(self._title, share, done, done / max(now - self._started, 1e-3))
        self._stream.write(f"\r{line}\x1b[K" if self._tty else f"{line}\n")
        self._stream.flush()
        self._any = True

    def close(self) -> None:
        """Leave the terminal's cursor on a line of its own."""
        if self._tty and self._any:
            self._stream.write("\n")
            self._stream.flush()
