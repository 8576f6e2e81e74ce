"""What the gateway reads: answers to requests (the first counts), how accounts stand (the latest), and who is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from services.gateway import store
from services.gateway.messages import READS
from shared.events import Event, ResultEvent, known_types
from shared.events.results import AccountState, HealthScoreChanged, RequestAnswered, RequestDeclined, RequestUnclear
from shared.runtime.api import Batch, Signal, Worker

if TYPE_CHECKING:
    from shared.runtime.unit import UnitOfWork

STATUS = {"request.answered": "answered", "request.declined": "declined", "request.unclear": "unclear"}


ACCOUNT = ("account.state", "health_score.changed")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """As much of an account's state as is told."""

    name: str | None = None
    score: int | None = None
    band: str | None = None
    shown_band: str | None = None
    segment: str | None = None
    stage: str | None = None
    owner: str | None = None
    arr: str | None = None
    notice_on: str | None = None
    as_of: datetime


class Share(msgspec.Struct, frozen=True):
    cause: str
    points: float


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Why a score moved last."""

    why: str
    occurred_at: datetime
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """What a batch says of an account, as JSON; None where it says nothing."""

    account_id: str
    partition: int
    state: str | None = None
    change: str | None = None


async def on_signals(batch: Batch, unit: UnitOfWork) -> None:
    first: dict[str, Signal] = {}
    accounts: dict[str, Account] = {}
    for signal in batch:
        if signal.type in ACCOUNT:
            known = accounts.get(signal.account_id, Account(signal.account_id, signal.partition))
            said = _json(signal.data)
            is_state = signal.type == "account.state"
            accounts[signal.account_id] = replace(known, state=said) if is_state else replace(known, change=said)
        elif signal.type == "privacy.recorded":
            person = bytes.fromhex(signal.data.person)
            await store.save_gone(unit.db, person, signal.partition, signal.data.suppressed)
        elif signal.type not in STATUS:
            unit.ignore(signal, "not an answer")
        elif signal.data.request_id in first:
            unit.ignore(signal, "answered before")
        else:
            first[signal.data.request_id] = signal
    if accounts:
        rows = [(each.account_id, each.partition, each.state, each.change) for each in accounts.values()]
        await store.save_accounts(unit.db, columns_of(rows))
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


def account_told(account_id: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The public face of an account's row; nulls are what nobody knows yet."""
    state, change = row["state"] or {}, row["change"]
    told = {name: state.get(name) for name in State.__struct_fields__}
    reason = None
    if change is not None:
        reason = {"why": change["why"], "at": change["occurred_at"], "shares": change["shares"]}
    return {"account_id": account_id, **told, "reason": reason}


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
        fast={wire: decode for wire, model in known_types().items() if (decode := _decoder_of(model)) is not None},
    )


_FAST: dict[str, Callable[[bytes], Any]] = {
    AccountState.type_name: msgspec.json.Decoder(State).decode,
    HealthScoreChanged.type_name: msgspec.json.Decoder(Change).decode,
}


def _decoder_of(model: type[Event]) -> Callable[[bytes], Any] | None:
    is_no_answer = issubclass(model, ResultEvent) and model.type_name not in (*STATUS, "privacy.recorded")
    return _FAST.get(model.type_name) or (_unread if is_no_answer else None)


def _unread(body: bytes) -> None:
    """Results that are no answers pass by undecoded."""
