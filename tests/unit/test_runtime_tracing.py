"""A client's trace goes on in what comes of its event, and a transaction is linked to the traces in it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install 'hune[otel]'")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.router.reader import raw_reader
from services.router.sending import headers_of
from services.router.settings import Routing
from shared import config, topics
from shared.events import results
from shared.runtime import lane, ownership, tracing, transaction
from shared.runtime.api import Batch, Worker
from shared.runtime.ownership import Owned
from shared.runtime.transaction import Attempt, Work
from shared.runtime.unit import UnitOfWork
from shared.runtime.wire import Outgoing, Own, Record
from tests.support.repository import ROOT

NOW = datetime.now(UTC)
read = raw_reader(config.load(ROOT / "config/routing.yaml", Routing).model)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.install(provider)
    try:
        yield exporter
    finally:
        tracing.uninstall()


@pytest.fixture(autouse=True)
def no_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lock(*_: Any) -> datetime:
        return NOW

    async def save(*_: Any) -> None: ...

    monkeypatch.setattr(ownership, "lock", lock)
    monkeypatch.setattr(ownership, "save", save)


class Nowhere:
    """A connection that takes everything."""

    async def execute(self, *_: Any) -> None: ...


def an_event(id: str, parent: bytes | None, name: str = "traceparent") -> Own:
    body = b'{"id": "%s", "type": "usage.tracked", "account_id": "acme"}' % id.encode()
    headers = [(name, parent)] if parent else []
    item = read(Record("cs.raw.events.v1", 0, 0, int(NOW.timestamp() * 1000), b"k", body, headers))
    assert isinstance(item, Own)
    return item


def a_parent(flags: str = "01") -> tuple[int, bytes]:
    """The number of a trace, and a `traceparent` of it."""
    trace = uuid.uuid4().hex
    return int(trace, 16), f"00-{trace}-00f067aa0ba902b7-{flags}".encode()


async def route_and_tell(batch: Batch, unit: UnitOfWork) -> None:
    """Each event passed on as the router does it, and one result of it."""
    for event in batch:
        signal: Any = event
        headers = [*headers_of(signal), ("ce_subject", b"acme")]
        unit.outbox.setdefault(0, []).append(Outgoing("cs.routed.health.v1", 0, b"acme", signal.value, headers))
        answer = results.RequestDeclined(
            account_id="acme", occurred_at=NOW, computed_at=NOW, request_id=signal.id, demand=None, reason="noted"
        )
        unit.emit(topics.RESULTS["router"], answer, account_id="acme", cause=signal.id)


def attempt_at(*events: Own, handle: Any = route_and_tell) -> Attempt:
    """As the lane makes it."""
    relay: Any = SimpleNamespace(position=0, offer=lambda first, records: None)
    none: Any = None
    owned = Owned(0, 1, 1, {}, 0, 0, None, True, {}, Counter(), none, relay)
    worker = Worker("router", (topics.RAW_EVENTS,), (), handle, Path(), dedupe=False)
    attempt: Attempt = vars(lane)["Attempt"](worker, Work(list(events), [owned]), 1)
    return attempt


def written(attempt: Attempt) -> Mapping[str, list[bytes | None]]:
    """Topic → the `traceparent` of each record, in order."""
    found: dict[str, list[bytes | None]] = {}
    for _, records in attempt._outbox.values():
        for record in records:
            found.setdefault(record.topic, []).append(dict(record.headers).get("traceparent"))
    return found


async def test_what_comes_of_an_event_carries_its_trace(spans: InMemorySpanExporter) -> None:
    sampled, unsampled, attribute = a_parent(), a_parent("00"), a_parent()
    attempt = attempt_at(
        an_event("a", sampled[1]),
        an_event("b", unsampled[1]),
        an_event("c", b"00-no-trace"),
        an_event("d", None),
        an_event("e", attribute[1], "ce_traceparent"),
    )
    await attempt.run(Nowhere())
    attempt.finish()
    carried = [sampled[1], unsampled[1], None, None, attribute[1]]
    assert written(attempt) == {"cs.routed.health.v1": carried, topics.RESULTS["router"].name: carried}


async def test_a_transaction_is_one_span_linked_to_the_sampled_traces_in_it(spans: InMemorySpanExporter) -> None:
    one, two, unsampled = a_parent(), a_parent(), a_parent("00")
    attempt = attempt_at(an_event("a", one[1]), an_event("b", two[1]), an_event("c", unsampled[1]))
    await attempt.run(Nowhere())
    assert spans.get_finished_spans() == (), "it is over when it is committed"
    attempt.finish()
    (span,) = spans.get_finished_spans()
    assert span.name == "router batch"
    assert [link.context.trace_id for link in span.links] == [one[0], two[0]]
    assert dict(span.attributes or {}).items() >= {"messaging.batch.message_count": 3, "hune.written": 6}.items()


async def test_records_of_no_sampled_trace_make_no_span(spans: InMemorySpanExporter) -> None:
    attempt = attempt_at(an_event("a", a_parent("00")[1]), an_event("b", None))
    await attempt.run(Nowhere())
    attempt.finish()
    assert spans.get_finished_spans() == ()


async def test_an_attempt_that_fails_ends_its_span_as_failed_and_leaves_nothing_to_the_next(
    spans: InMemorySpanExporter,
) -> None:
    async def breaks(batch: Batch, unit: UnitOfWork) -> None:
        raise ConnectionError("gone")

    attempt = attempt_at(an_event("a", a_parent()[1]), handle=breaks)
    with pytest.raises(ConnectionError):
        await attempt.run(Nowhere())
    attempt.abort()
    (span,) = spans.get_finished_spans()
    assert not span.status.is_ok
    assert tracing._carried.get() == {}


async def test_switched_off_the_usual_classes_are_used_and_nothing_is_imported() -> None:
    assert (vars(lane)["Attempt"], vars(transaction)["UnitOfWork"]) == (Attempt, UnitOfWork)
    names = "shared.runtime.tracing", "opentelemetry.sdk"
    look = f"import sys, shared.runtime.process, services.router.app; print([n for n in {names} if n in sys.modules])"
    command = [sys.executable, "-c", look]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
