"""OpenTelemetry traces, linked across topics; nothing imports this module unless HUNE_TRACES is set.

A record's `traceparent` (W3C) is carried to what comes of it: from the raw record to the routed ones, from those to
the results that name it as their cause. A transaction that holds records of sampled traces is one span, linked to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from shared.errors import Misconfigured
from shared.runtime import lane, transaction
from shared.runtime.ownership import After
from shared.runtime.transaction import Attempt
from shared.runtime.unit import UnitOfWork
from shared.runtime.wire import Own, Refused

if TYPE_CHECKING:
    from asyncpg import Connection

try:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer
except ImportError as error:
    raise Misconfigured("HUNE_TRACES is set, but OpenTelemetry is not installed: pip install 'hune[otel]'") from error

TRACEPARENT = "traceparent"
_NAMES = frozenset((TRACEPARENT, "ce_traceparent"))
_FORM = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
MOST_LINKS = 128
"""What OpenTelemetry keeps of a span by default."""

_carried: ContextVar[Mapping[str, bytes]] = ContextVar("traceparents of the batch", default={})  # noqa: B039 (not changed)
_tracer: Tracer


def start(service: str) -> None:
    """Trace this process and send the spans where OpenTelemetry's own OTEL_EXPORTER_OTLP_ variables say."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise Misconfigured(
            "HUNE_TRACES is set, but OpenTelemetry's exporter is not installed: pip install 'hune[otel]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": f"hune-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    install(provider)


def install(provider: TracerProvider) -> None:
    """From now on attempts and their units of work are traced."""
    global _tracer
    _tracer = provider.get_tracer("hune")
    _use(TracedAttempt, TracedUnit)


def uninstall() -> None:
    _use(Attempt, UnitOfWork)


def _use(attempt: type[Attempt], unit: type[UnitOfWork]) -> None:
    """The classes that are used are exchanged, so that a process without traces has no question to ask."""
    vars(lane)["Attempt"] = attempt
    vars(transaction)["UnitOfWork"] = unit


class TracedAttempt(Attempt):
    """One span for a transaction with records of sampled traces: from BEGIN until it is known to be committed."""

    _span: Span | None = None

    async def run(self, db: Connection) -> None:
        carried = traceparents(self.work.items)
        links = [link for link in map(_link, carried.values()) if link is not None]
        if links:
            service = self.worker.name
            attributes: dict[str, Any] = {
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.batch.message_count": len(self.work.items),
                "hune.partitions": [o.partition for o in self.work.owned],
                "hune.traces": len(links),
            }
            self._span = _tracer.start_span(
                f"{service} batch", kind=SpanKind.CONSUMER, links=links[:MOST_LINKS], attributes=attributes
            )
        token = _carried.set(carried)
        try:
            await super().run(db)
        finally:
            _carried.reset(token)

    async def _write(
        self, db: Connection, after: dict[int, After], unit: UnitOfWork, refused: Sequence[Refused]
    ) -> None:
        """What was passed on under the event's own id goes on in its trace."""
        carried = _carried.get()
        if carried:
            for records in unit.outbox.values():
                for record in records:
                    headers = dict(record.headers)
                    parent = carried.get(headers.get("ce_id", b"").decode())
                    if parent is not None and TRACEPARENT not in headers:
                        record.headers = [*record.headers, (TRACEPARENT, parent)]
        await super()._write(db, after, unit, refused)

    def finish(self) -> None:
        super().finish()
        if self._span is not None:
            self._span.set_attribute("hune.written", sum(len(records) for _, records in self._outbox.values()))
            self._span.end()
            self._span = None

    def abort(self) -> None:
        super().abort()
        if self._span is not None:
            self._span.set_status(Status(StatusCode.ERROR, "not committed by this attempt"))
            self._span.end()
            self._span = None


class TracedUnit(UnitOfWork):
    """Puts the `traceparent` of its cause on each result."""

    def emit(self, *arguments: Any, cause: str, extra: Any = None, **options: Any) -> str:
        parent = _carried.get().get(cause)
        if parent is not None:
            extra = [*(extra or ()), (TRACEPARENT, parent)]
        return super().emit(*arguments, cause=cause, extra=extra, **options)


def traceparents(items: Any) -> dict[str, bytes]:
    """Event id → `traceparent`, of the records that have a valid one."""
    found = {}
    for item in items:
        if type(item) is Own:
            for name, value in item.record.headers:
                if name in _NAMES and value and _FORM.fullmatch(value):
                    found[item.signal.id] = value
                    break
    return found


def _link(parent: bytes) -> Link | None:
    """To a sampled trace; others are carried on, but are not worth a span."""
    trace, span, flags = (int(part, 16) for part in parent.split(b"-")[1:])
    if not flags & TraceFlags.SAMPLED or not trace or not span:
        return None
    return Link(SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags)))
