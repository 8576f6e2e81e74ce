"""From the first event in the handler to the last one done."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any


def options() -> dict[str, Any]:
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


class Meter:
    """Counts events; at the last one it says what they took and ends the process.

    The first `warm` ones are there to get going and are not counted; `patient`: only `end` ends it.
    """

    def __init__(self, events: int, warm: int = 0, *, patient: bool = False) -> None:
        self.goal, self.done, self.written = events, 0, 0
        self._warm, self._patient = warm, patient
        self._started: tuple[float, float] | None = None

    def begin(self) -> None:
        if self._started is None:
            self._started = time.monotonic(), _cpu()

    def add(self, written: int, events: int = 1) -> None:
        """So many events are done, and so many records of them were written."""
        assert self._started is not None
        self.done += events
        self.written += written
        if self._warm and self.done >= self._warm:
            self._warm = self.done = self.written = 0
            self._started = time.monotonic(), _cpu()
        elif self.done >= self.goal and not self._warm and not self._patient:
            self.end()

    def end(self) -> None:
        """Say what it took and leave."""
        assert self._started is not None
        seconds, cpu = time.monotonic() - self._started[0], _cpu() - self._started[1]
        result = {
            "events": self.done,
            "written": self.written,
            "seconds": round(seconds, 3),
            "events_per_second": round(self.done / seconds, 1),
            "worker_us_per_event": round(cpu / self.done * 1e6, 1),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()
        os._exit(0)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
