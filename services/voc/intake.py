"""Which words of which events are a customer's comment (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from services.voc.domain import ACCOUNT, Rate, Statement, Worth, wish_key
from shared.runtime.api import Signal

NO_WORDS = "holds no words"
NOT_THE_CUSTOMERS = "words of the answering team"
MONTHS = 12


@dataclass(frozen=True, slots=True)
class Nothing:
    """The event says nothing that voice keeps, and why."""

    reason: str


def statement_of(signal: Signal) -> Statement | Nothing:
    """What the event says about a comment; not yet read."""
    return TELLERS[signal.type](signal)


def worth_of(signal: Signal) -> Worth | Nothing:
    """The yearly revenue that the event states, if any."""
    data = signal.data
    if signal.type == "subscription.changed":
        return _worth(signal, f"subscription:{data.subscription_id or ''}", data.mrr * MONTHS, data.currency)
    if "arr" not in data.model_fields_set:
        return Nothing("states no revenue")
    return _worth(signal, ACCOUNT, data.arr, data.currency)


def rate_of(signal: Signal) -> Rate:
    data = signal.data
    return Rate(data.currency, data.year, signal.occurred_at, signal.id, data.rate)


def _worth(signal: Signal, holding: str, amount: Decimal | None, currency: str | None) -> Worth:
    return Worth(signal.account_id, holding, signal.occurred_at, signal.id, amount, currency)


def _said(signal: Signal, item_id: str, source: str, text: str | None, **more: Any) -> Statement | Nothing:
    if text is None or not text.strip():
        return Nothing(NO_WORDS)
    return _stated(signal, item_id, source, text, **more)


def _stated(signal: Signal, item_id: str, source: str, text: str | None, **more: Any) -> Statement:
    data = signal.data
    return Statement(
        signal.account_id, item_id, more.pop("what", "said"), signal.occurred_at, signal.source, signal.id, source,
        text=text, user_id=data.user_id, given_language=getattr(data, "language", None),
        product_area=getattr(data, "product_area", None), severity=getattr(data, "severity", None), **more,
    )  # fmt: skip


def _joined(*parts: str | None) -> str | None:
    """Several texts as sentences of one comment."""
    said = [part.strip() for part in parts if part and part.strip()]
    return "\n".join(said) or None


def _survey_answered(signal: Signal) -> Statement | Nothing:
    # Kept without words too: a correction may bring them.
    data = signal.data
    return _stated(
        signal, f"survey:{data.answer_id or signal.id}", "survey", data.comment,
        survey=data.kind, score=data.score, scale=data.scale,
    )  # fmt: skip


def _survey_corrected(signal: Signal) -> Statement | Nothing:
    data = signal.data
    if data.comment is None and data.score is None:
        return Nothing("corrects nothing")
    return _stated(signal, f"survey:{data.answer_id}", "survey", data.comment, what="corrected", score=data.score)


def _survey_retracted(signal: Signal) -> Statement | Nothing:
    return _stated(signal, f"survey:{signal.data.answer_id}", "survey", None, what="retracted")


def _ticket_opened(signal: Signal) -> Statement | Nothing:
    data = signal.data
    return _said(signal, f"ticket:{data.ticket_id}", "ticket", _joined(data.subject, data.text))


def _ticket_updated(signal: Signal) -> Statement | Nothing:
    data = signal.data
    if data.text is None:
        # A changed subject or status alone is no new comment.
        return Nothing(NO_WORDS)
    return _said(signal, f"ticket:{data.ticket_id}", "ticket", _joined(data.subject, data.text))


def _ticket_commented(signal: Signal) -> Statement | Nothing:
    data = signal.data
    if data.author == "agent":
        return Nothing(NOT_THE_CUSTOMERS)
    return _said(signal, f"ticket:{data.ticket_id}:{signal.id}", "ticket", _joined(data.subject, data.text))


def _call_held(signal: Signal) -> Statement | Nothing:
    return _said(signal, f"call:{signal.data.call_id}", "call", signal.data.text)


def _meeting_held(signal: Signal) -> Statement | Nothing:
    return _said(signal, f"meeting:{signal.data.meeting_id}", "meeting", signal.data.text)


def _message_received(signal: Signal) -> Statement | Nothing:
    if signal.data.bulk:
        return Nothing("a bulk message")
    return _said(signal, f"message:{signal.data.message_id}", "message", signal.data.text)


def _feedback_given(signal: Signal) -> Statement | Nothing:
    data = signal.data
    source = "csm" if data.via == "csm" else "feedback"
    return _said(signal, f"feedback:{data.feedback_id or signal.id}", source, data.text)


def _feature_requested(signal: Signal) -> Statement | Nothing:
    data = signal.data
    return _said(
        signal, f"request:{signal.id}", "request", _joined(data.title, data.text),
        title=data.title.strip(), wish=wish_key(data.title),
    )  # fmt: skip


def _touchpoint_logged(signal: Signal) -> Statement | Nothing:
    return _said(signal, f"touchpoint:{signal.data.touchpoint_id or signal.id}", "csm", signal.data.note)


def _sentiment_logged(signal: Signal) -> Statement | Nothing:
    return _said(signal, f"pulse:{signal.id}", "csm", signal.data.note)


def _churn_notified(signal: Signal) -> Statement | Nothing:
    return _said(signal, f"churn:{signal.id}", "churn", signal.data.reason)


TELLERS: Mapping[str, Callable[[Signal], Statement | Nothing]] = {
    "survey.answered": _survey_answered,
    "survey.corrected": _survey_corrected,
    "survey.retracted": _survey_retracted,
    "ticket.opened": _ticket_opened,
    "ticket.updated": _ticket_updated,
    "ticket.commented": _ticket_commented,
    "call.held": _call_held,
    "meeting.held": _meeting_held,
    "message.received": _message_received,
    "feedback.given": _feedback_given,
    "feature.requested": _feature_requested,
    "touchpoint.logged": _touchpoint_logged,
    "sentiment.logged": _sentiment_logged,
    "churn.notified": _churn_notified,
}
STATES_WORTH = frozenset(["account.updated", "subscription.changed"])
