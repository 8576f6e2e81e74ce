"""The vendors' own SDKs, unmodified, from their calls to what the product says of use: each event once.

All send at the same time while the gateway is killed, and once more the same; Mixpanel's SDK, which gives up at once
over http, and Amplitude's, which does when its process ends, see no kill.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.sdks.conftest import Sdks
from tests.sdks.senders import EVENTS
from tests.support.stack import Installation, installation

PATIENT = ("segment", "rudderstack", "posthog", "snowplow", "segment-node", "rudderstack-node")
HASTY = ("mixpanel", "amplitude")
ALL = (*PATIENT, *HASTY)
WITHOUT_IDS = ("snowplow",)
"""Their SDK takes no id: what an application tracks again is another event. What the SDK itself sends again is not."""
PATIENCE_SECONDS = 180.0
TAKEN = re.compile(r"^hune_gateway_events_total\{[^}]*\} (\S+)$", re.MULTILINE)

Use = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Told:
    """Account → events and users, after the SDKs have sent and after they have sent the same again."""

    once: Use
    twice: Use
    restarts: int


class Senders:
    """The SDKs that are here, each a process, each with an account of its own."""

    def __init__(self, sdks: Sdks, url: str, key: str) -> None:
        self._sdks, self._rest = sdks, (url, key)

    def start(self, names: Sequence[str]) -> dict[str, subprocess.Popen[str]]:
        running = {}
        for name in names:
            try:
                command = self._sdks.command(name)
            except pytest.skip.Exception:
                continue
            running[name] = subprocess.Popen(
                [*command, *self._rest, name], env=self._sdks.environment, stderr=subprocess.PIPE, text=True
            )
        return running

    @staticmethod
    def finish(running: dict[str, subprocess.Popen[str]]) -> None:
        try:
            for name, process in running.items():
                _, said = process.communicate(timeout=PATIENCE_SECONDS)
                assert process.returncode == 0, f"{name}: {said}"
        finally:
            for process in running.values():
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def told(sdks: Sdks) -> Iterator[Told]:
    with installation() as whole:
        key = json.loads(whole.hune("keys", "create", "sdks", "--json").stdout)["key"]
        url = status(whole)["gateway"]["url"]
        senders = Senders(sdks, url, key)
        running = senders.start(PATIENT)
        if running:
            until(lambda: taken(url) >= EVENTS, "the first events are in")
            os.kill(gateway(whole)["pid"], signal.SIGKILL)
        senders.finish(running)
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the gateway is back")
        senders.finish(senders.start(HASTY))
        once = use(whole)
        senders.finish(senders.start(ALL))
        yield Told(once, use(whole), gateway(whole)["restarts"])


def status(whole: Installation) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(whole.hune("status", "--json").stdout)
    return found


def gateway(whole: Installation) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in status(whole)["services"] if each["name"] == "gateway")
    return found


def taken(url: str) -> float:
    return sum(float(number) for number in TAKEN.findall(httpx.get(f"{url}/metrics").text))


def use(whole: Installation) -> Use:
    whole.hune("settle", "--timeout", "120")
    rows = [json.loads(line) for line in whole.hune("export", "usage", "--json").stdout.splitlines()]
    return {row["account_id"]: (row["events"], row["users"]) for row in rows}


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("sdk", ALL)
def test_every_event_counts_once_though_the_gateway_is_killed(sdk: str, sdks: Sdks, told: Told) -> None:
    sdks.command(sdk)
    assert told.once[sdk] == (EVENTS, 7)
    assert sdk in HASTY or told.restarts >= 1, "the fault did not happen"


@pytest.mark.parametrize("sdk", ALL)
def test_the_same_sent_again_changes_nothing(sdk: str, sdks: Sdks, told: Told) -> None:
    sdks.command(sdk)
    assert told.twice[sdk] == ((2 * EVENTS, 7) if sdk in WITHOUT_IDS else told.once[sdk])
