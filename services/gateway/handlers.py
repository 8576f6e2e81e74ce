"""What the gateway reads: answers to requests, kept for whoever asks how a request stands. The first one counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from services.gateway import store
from services.gateway.messages import READS
from shared.events import Event, ResultEvent, known_types
from shared.events.results import RequestAnswered, RequestDeclined, RequestUnclear
from shared.runtime.api import Batch, Signal, Worker

if TYPE_CHECKING:
    from shared.runtime.unit import UnitOfWork

STATUS = {"request.answered": "answered", "request.declined": "declined", "request.unclear": "unclear"}


async def on_signals(batch: Batch, unit: UnitOfWork) -> None:
    first: dict[str, Signal] = {}
    for signal in batch:
        if signal.type not in STATUS:
            unit.ignore(signal, "not an answer")
        elif signal.data.request_id in first:
            unit.ignore(signal, "answered before")
        else:
            first[signal.data.request_id] = signal
    if not first:
        return
    new = await store.save_answers(unit.db, columns_of([answer_of(signal) for signal in first.values()]))
    for request_id, signal in first.items():
        if request_id not in new:
            unit.ignore(signal, "answered before")


def answer_of(signal: Signal) -> tuple[Any, ...]:
    """One row of gateway.answers."""
    data = signal.data
    demand, confidence, as_of, answer = signal.demand, signal.confidence, None, None
    reason: str | None = None
    candidates: Sequence[str] = ()
    if isinstance(data, RequestAnswered):
        demand, as_of, answer = data.demand, data.as_of, data.answer
    elif isinstance(data, RequestDeclined):
        demand, reason = data.demand or demand, data.reason
    elif isinstance(data, RequestUnclear):
        confidence, reason, candidates = data.confidence, data.reason, data.candidates
    return (
        data.request_id,
        signal.partition,
        STATUS[signal.type],
        demand,
        data.account_id,
        confidence,
        as_of,
        None if answer is None else _json(answer),
        reason,
        _json(list(candidates)),
        signal.received_at,
    )


def columns_of(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def build() -> Worker:
    """The worker named `gateway` that the runtime runs inside the gateway's process."""
    return Worker(
        name="gateway",
        reads=READS,
        writes=(),
        handle=on_signals,
        migrations=Path(__file__).parent / "migrations",
        dedupe=False,  # a row per request already tells a repetition
        fast={wire: _unread for wire, model in known_types().items() if _is_no_answer(model)},
    )


def _is_no_answer(model: type[Event]) -> bool:
    return issubclass(model, ResultEvent) and model.type_name not in STATUS


def _unread(body: bytes) -> None:
    """Results that are no answers pass by undecoded."""
