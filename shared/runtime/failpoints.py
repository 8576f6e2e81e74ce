"""Named places where a test may kill or stop the process: `HUNE_FAILPOINT=before_commit:kill:3`.

The third part says at which visit (default the first). Unset, a visit costs one look at an empty dict.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from shared.errors import Misconfigured

POINTS = (
    "before_lock",
    "before_commit",
    "after_commit",
    "before_publish",
    "before_kafka_commit",
    "after_kafka_commit",
    "inside_tick",
    "after_release",
    "between_stores",
    "before_delivery",
    "after_delivery",
)
_ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def parse(text: str) -> dict[str, tuple[signal.Signals, int]]:
    """Point → (signal, at which visit).

    Raises Misconfigured.
    """
    armed = {}
    for part in filter(None, text.split(",")):
        point, _, rest = part.partition(":")
        action, _, visit = rest.partition(":")
        if point not in POINTS or (action or "kill") not in _ACTIONS or not (visit or "1").isdigit():
            raise Misconfigured(f"HUNE_FAILPOINT {part!r}: write POINT:kill|stop:VISIT with one of {', '.join(POINTS)}")
        armed[point] = (_ACTIONS[action or "kill"], int(visit or "1"))
    return armed


class Failpoints:
    """Counts visits and strikes once."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._armed = parse(env.get("HUNE_FAILPOINT", ""))

    def reach(self, point: str) -> None:
        if not self._armed or point not in self._armed:
            return
        action, visits = self._armed[point]
        if visits > 1:
            self._armed[point] = (action, visits - 1)
            return
        del self._armed[point]
        os.kill(os.getpid(), action)


reach = Failpoints().reach
