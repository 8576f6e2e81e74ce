"""The ways in: which paths a family of SDKs uses, where its key is, and in which words it wants the answer.

Every path is served with and without a trailing slash, and under `/k/KEY` for protocols that carry no key.
"""

from __future__ import annotations

from services.gateway import segment
from services.gateway.adapters import amplitude, customerio, mixpanel, posthog, snowplow
from services.gateway.adapters.base import SEGMENT_WORDS, Door, Incoming, Opened


def _open_segment(incoming: Incoming) -> Opened:
    envelope = segment.open_envelope(incoming.call, incoming.body)
    return Opened(
        envelope.write_key,
        read=lambda at, limits: segment.read_events(envelope, at, limits),
        quick=lambda at, limits: segment.read_records(envelope, at, limits),
    )


def _open_batch(incoming: Incoming) -> Opened:
    """`/batch` is PostHog's and Amplitude's; Amplitude calls its list `events`."""
    return amplitude.open_events(incoming) if amplitude.is_amplitude(incoming.body) else posthog.open_capture(incoming)


SEGMENT = Door(
    name="segment",
    paths=tuple(f"/v1/{call}" for call in (*segment.BATCHES, *segment.CALLS)),
    open=_open_segment,
    words=SEGMENT_WORDS,
)
DOORS: tuple[Door, ...] = (
    SEGMENT,
    Door("posthog", ("/batch",), _open_batch, posthog.WORDS),
    posthog.DOOR,
    amplitude.DOOR,
    mixpanel.DOOR,
    snowplow.DOOR,
    *customerio.DOORS,
)
