"""One vendor's Python SDK, as its documentation says, sending events whose ids and times are the same each time.

Runs where the SDKs are installed: `python senders.py SDK URL KEY ACCOUNT`.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

EVENTS = 60
PAUSE_SECONDS = 0.02
BEGAN = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)


def events(account: str) -> Iterator[tuple[str, str, datetime, dict[str, Any]]]:
    """User, id, time and properties of each event; a pause between two, so that a kill falls among them."""
    for n in range(EVENTS):
        id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{account}-{n}"))
        yield f"{account}-user-{n % 7}", id, BEGAN + timedelta(seconds=n), {"n": n, "company_id": account}
        time.sleep(PAUSE_SECONDS)


def by_segment(url: str, key: str, account: str) -> None:
    from segment.analytics.client import Client

    client = Client(key, host=url, upload_interval=0.05, upload_size=5)
    for user, id, at, properties in events(account):
        client.track(user, "Used", properties, {"groupId": account}, at, message_id=id)
    client.shutdown()


def by_rudderstack(url: str, key: str, account: str) -> None:
    from rudderstack.analytics.client import Client

    client = Client(key, host=url, upload_interval=0.05, upload_size=5)
    for user, id, at, properties in events(account):
        client.track(user, "Used", properties, {"groupId": account}, at, message_id=id)
    client.shutdown()


def by_posthog(url: str, key: str, account: str) -> None:
    from posthog import Posthog

    client = Posthog(key, host=url, flush_interval=0.05, flush_at=5, max_retries=10)
    for user, id, at, properties in events(account):
        client.capture("Used", distinct_id=user, properties=properties, timestamp=at, uuid=id)
    client.shutdown()


def by_snowplow(url: str, key: str, account: str) -> None:
    from snowplow_tracker import Emitter, SelfDescribing, SelfDescribingJson, Subject, Tracker

    emitter = Emitter(f"{url.removeprefix('http://')}/k/{key}", protocol="http", method="post", batch_size=5)
    tracker = Tracker(namespace="t", emitters=[emitter])
    for user, _, at, properties in events(account):  # this SDK makes its ids itself
        used = SelfDescribingJson("iglu:com.example/used/jsonschema/1-0-0", properties)
        subject = Subject().set_user_id(user)
        tracker.track(SelfDescribing(used, event_subject=subject, true_timestamp=at.timestamp() * 1000))
    tracker.flush()


def by_mixpanel(url: str, key: str, account: str) -> None:
    from mixpanel import BufferedConsumer, Mixpanel

    consumer = BufferedConsumer(max_size=20, events_url=f"{url}/track", people_url=f"{url}/engage")
    client = Mixpanel(key, consumer=consumer)
    for user, id, at, properties in events(account):
        client.track(user, "Used", {**properties, "$insert_id": id, "time": int(at.timestamp())})
    consumer.flush()


def by_amplitude(url: str, key: str, account: str) -> None:
    from amplitude import Amplitude, BaseEvent

    client = Amplitude(key)
    client.configuration.server_url = f"{url}/2/httpapi"
    client.configuration.flush_interval_millis = 100
    for user, id, at, properties in events(account):
        event = BaseEvent("Used", user_id=user, event_properties=properties, insert_id=id)
        event.time = int(at.timestamp() * 1000)
        client.track(event)
    for future in client.flush() or ():
        if future is not None:
            future.result(30)
    client.shutdown()


SENDERS = {
    "segment": by_segment,
    "rudderstack": by_rudderstack,
    "posthog": by_posthog,
    "snowplow": by_snowplow,
    "mixpanel": by_mixpanel,
    "amplitude": by_amplitude,
}

if __name__ == "__main__":
    sdk, *rest = sys.argv[1:]
    SENDERS[sdk](*rest)
