"""What else happened, as facts with their own time, and the folds over them: tickets, touches, fields. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import mean, median
from typing import Any

from services.qbr.domain import Said
from shared.surveys import Statement, What
from shared.times import read_instant

# What is kept of each type: the field that names its subject (absent: the event's id), and the other fields.
KEPT: Mapping[str, tuple[str | None, tuple[str, ...]]] = {
    "ticket.opened": ("ticket_id", ("severity",)),
    "ticket.updated": ("ticket_id", ("severity", "status")),
    "ticket.solved": ("ticket_id", ()),
    "survey.answered": ("answer_id", ("answer_id", "user_id", "kind", "score", "scale")),
    "survey.corrected": ("answer_id", ("answer_id", "score")),
    "survey.retracted": ("answer_id", ("answer_id",)),
    "meeting.scheduled": ("meeting_id", ("kind", "scheduled_for")),
    "meeting.rescheduled": ("meeting_id", ("kind", "scheduled_for")),
    "meeting.cancelled": ("meeting_id", ("kind",)),
    "meeting.no_show": ("meeting_id", ("kind",)),
    "meeting.held": ("meeting_id", ("kind", "sponsor_attended")),
    "call.held": ("call_id", ("duration_s",)),
    "training.held": ("training_id", ()),
    "touchpoint.logged": ("touchpoint_id", ("channel", "two_way")),
    "message.sent": ("message_id", ("channel", "bulk")),
    "message.received": ("message_id", ("channel", "bulk")),
    "contract.changed": ("contract_id", ("starts_on", "ends_on", "notice_on", "auto_renew", "paused", "seats")),
    "churn.notified": ("contract_id", ("effective_on",)),
    "subscription.changed": ("subscription_id", ("mrr", "currency", "plan", "product", "seats")),
    "csm.changed": (None, ("person_id", "role")),
    "account.updated": (None, ("name", "plan", "stage", "seats")),
    "outcome.verified": (None, ("objective", "value", "unit")),
}
SATISFACTION = ("survey.answered", "survey.corrected", "survey.retracted")
TWO_WAY = ("meeting.held", "call.held", "training.held")
ONE_WAY = ("message.sent", "message.received")


@dataclass(frozen=True, slots=True)
class Fact:
    """One event, reduced to what reviews need of it."""

    type: str
    subject: str
    at: datetime
    source: str
    event_id: str
    data: Mapping[str, Any]

    @property
    def order(self) -> tuple[datetime, str, str]:
        return self.at, self.source, self.event_id


def of_type(facts: Iterable[Fact], *types: str) -> list[Fact]:
    return sorted((fact for fact in facts if fact.type in types), key=lambda fact: fact.order)


def field_at(facts: Iterable[Fact], name: str, *types: str) -> Fact | None:
    """The latest fact that says something of a field; an explicit null says that it is empty."""
    said = [fact for fact in of_type(facts, *types) if name in fact.data]
    return said[-1] if said else None


def is_two_way(fact: Fact) -> bool:
    """Whether people on both sides took part: a meeting, call or training held, or a touchpoint logged as such."""
    return fact.type in TWO_WAY or (fact.type == "touchpoint.logged" and fact.data.get("two_way") is True)


def channel_of(fact: Fact) -> str:
    if fact.type == "touchpoint.logged":
        return str(fact.data.get("channel", "other"))
    return fact.type.partition(".")[0]


def said_of_meeting(fact: Fact) -> Said:
    planned = fact.data.get("scheduled_for")
    return Said(
        meeting_id=fact.subject,
        what=fact.type.removeprefix("meeting."),
        kind=str(fact.data.get("kind", "call")),
        at=fact.at,
        event_id=fact.event_id,
        scheduled_for=read_instant(planned) if planned else None,
        sponsor_attended=fact.data.get("sponsor_attended"),
    )


def statement_of(fact: Fact) -> Statement:
    what: What = {"survey.answered": "answered", "survey.corrected": "corrected"}.get(fact.type, "retracted")  # type: ignore[assignment]
    data = fact.data
    return Statement(
        fact.subject, what, fact.at, fact.source, fact.event_id, data.get("answer_id") is not None,
        data.get("user_id"), data.get("kind"), data.get("score"), data.get("scale"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket at a time: `solved_at` null while it is open; `opened` and `solved` are the facts that say so."""

    ticket_id: str
    severity: str | None
    opened: Fact | None
    solved: Fact | None

    @property
    def hours_to_solve(self) -> float | None:
        if self.opened is None or self.solved is None or self.solved.at < self.opened.at:
            return None
        return (self.solved.at - self.opened.at).total_seconds() / 3600


def tickets_of(facts: Iterable[Fact]) -> list[Ticket]:
    """Tickets by id: opened first, solved last unless opened again since; the severity named last."""
    groups: dict[str, list[Fact]] = {}
    for fact in of_type(facts, "ticket.opened", "ticket.updated", "ticket.solved"):
        groups.setdefault(fact.subject, []).append(fact)
    return [_ticket(name, group) for name, group in sorted(groups.items())]


def _ticket(name: str, group: Sequence[Fact]) -> Ticket:
    opened = next((fact for fact in group if fact.type == "ticket.opened"), None)
    solved: Fact | None = None
    severity: str | None = None
    for fact in group:
        severity = fact.data.get("severity") or severity
        status = fact.data.get("status")
        if fact.type == "ticket.solved" or status in ("solved", "closed"):
            solved = solved or fact
        elif status in ("open", "pending"):
            solved = None
    return Ticket(name, severity, opened, solved)


def hours(values: Iterable[float | None]) -> dict[str, Any]:
    """Median and mean, with how many are known."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return {"n": 0, "median": None, "mean": None, "reason": "no ticket was both opened and solved"}
    return {"n": len(known), "median": round(median(known), 6), "mean": round(mean(known), 6)}
