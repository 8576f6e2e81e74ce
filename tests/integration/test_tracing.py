"""Traces on real Kafka and PostgreSQL: a client's trace is found again on every topic, and in the spans."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from services.router import app
from shared import topics
from tests.support.lab import a_ledger, a_pool, account_in, body_of, hands_on, header, running, settings_of, settled
from tests.support.stack import TestStores

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install 'hune[otel]'")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.runtime import tracing

pytestmark = pytest.mark.asyncio
HEALTH = topics.ROUTED["health"]


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.install(provider)
    try:
        yield exporter
    finally:
        tracing.uninstall()


def a_trace(flags: str) -> tuple[str, bytes]:
    """The id of a trace, and the `traceparent` of a span in it."""
    trace = uuid.uuid4().hex
    return trace, f"00-{trace}-00f067aa0ba902b7-{flags}".encode()


async def test_a_trace_goes_from_raw_to_routed_to_result_and_its_batches_are_linked(
    stack: TestStores, spans: InMemorySpanExporter
) -> None:
    settings, account = settings_of(stack), account_in(0, stack.partitions)
    sampled, unsampled = a_trace("01"), a_trace("00")
    parents: dict[str, bytes | None] = {
        f"{account}-sampled": sampled[1],
        f"{account}-unsampled": unsampled[1],
        f"{account}-wrong": b"00-not-a-trace",
        f"{account}-none": None,
    }
    async with a_pool(stack) as pool, hands_on(stack) as hands, a_ledger(stack, pool, reads=HEALTH) as ledger:
        ledger.booms = False
        since = await hands.ends(HEALTH, stack.partitions)
        for id, parent in parents.items():
            body = json.dumps({"id": id, "type": "usage.tracked", "account_id": account}).encode()
            await hands.send(topics.RAW_EVENTS, 0, body, [("traceparent", parent)] if parent else [])
        async with running(app.build(settings), settings):
            await settled(pool, hands, "router", [topics.RAW_EVENTS], stack.partitions)
        async with ledger.running():
            await ledger.settled(hands)
        records = await hands.read(HEALTH, stack.partitions, since)
        routed = {header(r, "ce_id"): header(r, "traceparent") for r in records}
        records = await hands.read(ledger.writes, stack.partitions)
        told = {body_of(r)["request_id"]: header(r, "traceparent") for r in records}
    carried = {id: parent.decode() if parent and b"not" not in parent else None for id, parent in parents.items()}
    assert {id: routed[id] for id in parents} == carried
    assert {id: told[id] for id in parents} == carried
    found = [
        (span.name, link.context.trace_id)
        for span in spans.get_finished_spans()
        for link in span.links
        if link.context.trace_id in (int(sampled[0], 16), int(unsampled[0], 16))
    ]
    assert sorted(found) == sorted(
        [("router batch", int(sampled[0], 16)), (f"{ledger.name} batch", int(sampled[0], 16))]
    ), "once by each service, and none of a trace that is not sampled"
    assert all(span.status.is_ok or span.status.is_unset for span in spans.get_finished_spans())
