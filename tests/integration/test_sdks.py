"""The vendors' own SDKs, unmodified, against the gateway: every event once on the topic, also over a kill.

They run where they are installed (`pip install 'hune[sdks]'`), and are skipped elsewhere.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from devstack.ports import choose
from shared import topics
from tests.integration.test_gateway import ROOT, a_key, settings  # noqa: F401  (a fixture)
from tests.support.lab import hands_on
from tests.support.stack import TestStores

pytestmark = pytest.mark.asyncio

EVENTS = 60
Send = Callable[[str, str, str], None]


def by_segment(url: str, key: str, event: str) -> None:
    client = pytest.importorskip("segment.analytics.client").Client(key, host=url, upload_interval=0.05, upload_size=5)
    for n in range(EVENTS):
        client.track(f"user-{n % 7}", event, {"n": n})
        time.sleep(0.02)
    client.shutdown()


def by_rudderstack(url: str, key: str, event: str) -> None:
    module = pytest.importorskip("rudderstack.analytics.client")
    client = module.Client(key, host=url, upload_interval=0.05, upload_size=5)
    for n in range(EVENTS):
        client.track(f"user-{n % 7}", event, {"n": n})
        time.sleep(0.02)
    client.shutdown()


def by_posthog(url: str, key: str, event: str) -> None:
    client = pytest.importorskip("posthog").Posthog(key, host=url, flush_interval=0.05, flush_at=5, max_retries=10)
    for n in range(EVENTS):
        client.capture(event, distinct_id=f"user-{n % 7}", properties={"n": n})
        time.sleep(0.02)
    client.shutdown()


def by_snowplow(url: str, key: str, event: str) -> None:
    tracker = pytest.importorskip("snowplow_tracker")
    emitter = tracker.Emitter(f"{url.removeprefix('http://')}/k/{key}", protocol="http", method="post", batch_size=5)
    subject = tracker.Subject().set_user_id("user-1")
    sender = tracker.Tracker(namespace="t", emitters=[emitter], subject=subject)
    for n in range(EVENTS):
        sender.track(tracker.StructuredEvent(category="c", action=event, value=float(n)))
        time.sleep(0.02)
    sender.flush()


def by_mixpanel(url: str, key: str, event: str) -> None:
    module = pytest.importorskip("mixpanel")
    consumer = module.BufferedConsumer(max_size=20, events_url=f"{url}/track", people_url=f"{url}/engage")
    client = module.Mixpanel(key, consumer=consumer)
    for n in range(EVENTS):
        client.track(f"user-{n % 7}", event, {"n": n})
    consumer.flush()


def by_amplitude(url: str, key: str, event: str) -> None:
    module = pytest.importorskip("amplitude")
    client = module.Amplitude(key)
    client.configuration.server_url = f"{url}/2/httpapi"
    client.configuration.flush_interval_millis = 100
    for n in range(EVENTS):
        client.track(module.BaseEvent(event, user_id=f"user-{n % 7}", event_properties={"n": n}))
    for future in client.flush() or ():
        if future is not None:
            future.result(30)
    client.shutdown()


def needing(package: str, send: Send) -> Any:
    absent = importlib.util.find_spec(package) is None
    return pytest.param(send, id=package, marks=pytest.mark.skipif(absent, reason=f"{package} is not installed"))


class Doorman:
    """The gateway as a process on a port of its own; it can be killed and started again on it."""

    def __init__(self, stack: TestStores, **more: str) -> None:
        door, probes = choose(2)
        self.url, self._probes = f"http://127.0.0.1:{door}", f"http://127.0.0.1:{probes}/readyz"
        self._env = stack.env | {"HUNE_GATEWAY_PORT": str(door), "HUNE_PROBES_PORT": str(probes)} | more
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "services", "gateway"]
        self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=self._env)
        deadline = time.monotonic() + 60
        async with httpx.AsyncClient() as client:
            while True:
                assert time.monotonic() < deadline, "the gateway did not get ready"
                try:
                    if (await client.get(self._probes)).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def a_doorman(stack: TestStores, **more: str) -> AsyncIterator[Doorman]:
    doorman = Doorman(stack, **more)
    try:
        await doorman.start()
        yield doorman
    finally:
        await doorman.kill()


@pytest.mark.parametrize("send", [
    needing("segment", by_segment), needing("rudderstack", by_rudderstack), needing("posthog", by_posthog),
    needing("snowplow_tracker", by_snowplow), needing("mixpanel", by_mixpanel), needing("amplitude", by_amplitude),
])  # fmt: skip
async def test_an_sdk_s_events_are_on_the_topic_each_under_one_id(
    settings: Any,  # noqa: F811
    stack: TestStores,
    tmp_path: Any,
    send: Send,
) -> None:
    """Mixpanel's SDK gives up at once over http, and Amplitude's when its process ends: they see no kill."""
    event, killed = f"event-{uuid.uuid4()}", send not in (by_mixpanel, by_amplitude)
    key = await a_key(settings)
    async with hands_on(stack) as hands:
        since = await hands.ends(topics.RAW_EVENTS, stack.partitions)
        async with a_doorman(stack, HUNE_GATEWAY_SPOOL_DIR=str(tmp_path)) as doorman:
            sending = asyncio.create_task(asyncio.to_thread(send, doorman.url, key, event))
            if killed:
                await asyncio.wait({sending}, timeout=0.5)
                await doorman.kill()
                await doorman.start()
            await asyncio.wait_for(sending, 120)
            kept = [
                record
                for record in await hands.read(topics.RAW_EVENTS, stack.partitions, since)
                if event.encode() in record.value
            ]
    ids = {(headers["ce_source"], headers["ce_id"]) for headers in (dict(record.headers) for record in kept)}
    assert len(ids) == EVENTS
    numbers = {number_of(msgspec.json.decode(record.value)["properties"]) for record in kept}
    assert numbers == set(range(EVENTS))


def number_of(properties: dict[str, Any]) -> int:
    """Snowplow's structured event has a value in place of properties of ours."""
    found = properties.get("n", properties.get("value", properties.get("se_va")))
    assert found is not None, properties
    return int(float(found))
