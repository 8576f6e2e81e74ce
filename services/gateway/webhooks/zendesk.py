"""Zendesk: event webhooks, and the satisfaction rating that a trigger webhook sends.

| Zendesk | canonical event |
|---|---|
| ticket.created | ticket.opened: severity from priority, subject, text = description |
| ticket.status_changed to SOLVED | ticket.solved |
| ticket.status_changed to NEW, OPEN / PENDING, HOLD / CLOSED | ticket.updated, status open / pending / closed |
| ticket.priority_changed, subject_changed, organization_changed | ticket.updated with what changed |
| ticket.comment_added (public), messaging_ticket.message_added | ticket.commented, author customer or agent |
| organization.created, name_changed, external_id_changed | account.updated; its external_id is our account |
| satisfaction_rating good, bad | survey.answered csat, 1 or 0 on 0-1; offered: survey.sent |

Priority URGENT is p1, HIGH p2, NORMAL p3, LOW p4. The account is told by external id `zendesk` = organisation; the
user is `zendesk:REQUESTER`. Id and own time: the event's `id` and `time`; of a rating its id, and `updated_at`.
Internal notes, and the types in `NOT_USED`, are accepted and tell nothing.
"""

from __future__ import annotations

from typing import Any

from services.gateway.canonical import Canonical, OwnTime
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Delivery,
    Tool,
    Unreadable,
    email,
    event,
    external,
    ident,
    mapping,
    needed,
    object_of,
    person,
    when,
    word,
)
from services.gateway.webhooks.text import plain_text

SOURCE = "zendesk"
PREFIX = "zen:event-type:"
SEVERITIES = {"URGENT": "p1", "HIGH": "p2", "NORMAL": "p3", "LOW": "p4"}
STATUSES = {"NEW": "open", "OPEN": "open", "PENDING": "pending", "HOLD": "pending", "CLOSED": "closed"}
AUTHORS = {"end_user": "customer", "agent": "agent"}
NOT_USED = frozenset(
    PREFIX + name
    for name in """
    ticket.agent_assignment_changed ticket.attachment_linked_to_comment ticket.attachment_redacted_from_comment
    ticket.brand_changed ticket.comment_made_private ticket.comment_redacted ticket.custom_field_changed
    ticket.custom_status_changed ticket.description_changed ticket.external_id_changed ticket.email_ccs_changed
    ticket.followers_changed ticket.form_changed ticket.group_assignment_changed ticket.problem_link_changed
    ticket.requester_changed ticket.submitter_changed ticket.tags_changed ticket.task_due_at_changed
    ticket.marked_as_spam ticket.merged ticket.permanently_deleted ticket.soft_deleted ticket.type_changed
    ticket.undeleted ticket.schedule_changed ticket.sla_policy_changed
    organization.custom_field_changed organization.deleted organization.tags_changed
    """.split()
)
DROPPED = (
    "account_id",
    "subject",
    "zendesk_event_version",
    "detail.actor_id",
    "detail.assignee_id",
    "detail.brand_id",
    "detail.created_at",
    "detail.custom_status",
    "detail.form_id",
    "detail.group_id",
    "detail.is_public",
    "detail.shared_comments",
    "detail.shared_tickets",
    "detail.status",
    "detail.submitter_id",
    "detail.tags",
    "detail.type",
    "detail.updated_at",
    "detail.via",
    "event.meta",
    "event.previous",
    "event.actor.name",
    "event.comment.author.id",
    "event.comment.author.name",
    "event.comment.id",
    "event.message.id",
    "satisfaction_rating.assignee_id",
    "satisfaction_rating.created_at",
    "satisfaction_rating.group_id",
    "satisfaction_rating.reason",
    "satisfaction_rating.reason_id",
    "satisfaction_rating.ticket_id",
    "satisfaction_rating.url",
)


def events(delivery: Delivery) -> list[Canonical]:
    payload = object_of(delivery.body)
    if isinstance(payload.get("satisfaction_rating"), dict):
        return _rating(delivery, payload)
    kind = word(payload.get("type"))
    if kind in NOT_USED:
        return []
    if kind.removeprefix(PREFIX) not in _READ:
        raise Unreadable(f"type {kind[:100]!r} is not known")
    id = needed(ident(payload.get("id")), "id")
    own = needed(when(payload.get("time"), "time"), "time")
    detail, change = mapping(payload.get("detail")), mapping(payload.get("event"))
    return _READ[kind.removeprefix(PREFIX)](delivery, id, own, detail, change)


def _ticket(
    delivery: Delivery, type: str, id: str, own: OwnTime, detail: dict[str, Any], organisation: object = "", **more: Any
) -> list[Canonical]:
    where = organisation if organisation != "" else detail.get("organization_id")
    return [
        event(
            delivery,
            SOURCE,
            type,
            id,
            own,
            user_id=person(SOURCE, detail.get("requester_id")),
            external_ids=external(zendesk=where),
            ticket_id=needed(ident(detail.get("id")), "detail.id"),
            **more,
        )
    ]


def _severity(value: object) -> str | None:
    return SEVERITIES.get(word(value).upper())


def _created(d: Delivery, id: str, own: OwnTime, detail: dict[str, Any], change: dict[str, Any]) -> list[Canonical]:
    return _ticket(
        d,
        "ticket.opened",
        id,
        own,
        detail,
        severity=_severity(detail.get("priority")),
        subject=plain_text(detail.get("subject")),
        text=plain_text(detail.get("description")),
    )


def _status(d: Delivery, id: str, own: OwnTime, detail: dict[str, Any], change: dict[str, Any]) -> list[Canonical]:
    name = word(change.get("current")).upper()
    if name == "SOLVED":
        return _ticket(d, "ticket.solved", id, own, detail)
    if name == "DELETED":
        return []
    if name not in STATUSES:
        raise Unreadable(f"event.current {name[:40]!r} is no status that is known")
    return _ticket(d, "ticket.updated", id, own, detail, status=STATUSES[name])


def _priority(d: Delivery, id: str, own: OwnTime, detail: dict[str, Any], change: dict[str, Any]) -> list[Canonical]:
    severity = _severity(change.get("current"))
    return _ticket(d, "ticket.updated", id, own, detail, severity=severity) if severity else []


def _subject(d: Delivery, id: str, own: OwnTime, detail: dict[str, Any], change: dict[str, Any]) -> list[Canonical]:
    return _ticket(d, "ticket.updated", id, own, detail, subject=plain_text(change.get("current")))


def _moved(d: Delivery, id: str, own: OwnTime, detail: dict[str, Any], change: dict[str, Any]) -> list[Canonical]:
    return _ticket(d, "ticket.updated", id, own, detail, organisation=change.get("current"))


def _commented(d: Delivery, id: str, own: OwnTime, detail: dict[str, Any], change: dict[str, Any]) -> list[Canonical]:
    comment = mapping(change.get("comment"))
    if comment.get("is_public") is False:
        return []
    staff = mapping(comment.get("author")).get("is_staff")
    author = {True: "agent", False: "customer"}.get(staff) if isinstance(staff, bool) else None
    return _ticket(d, "ticket.commented", id, own, detail, author=author, text=plain_text(comment.get("body")))


def _messaged(d: Delivery, id: str, own: OwnTime, detail: dict[str, Any], change: dict[str, Any]) -> list[Canonical]:
    actor = mapping(change.get("actor"))
    author = AUTHORS.get(word(actor.get("type")))
    if author is None:
        return []
    who = {**detail, "requester_id": actor.get("id") if author == "customer" else None}
    text = plain_text(mapping(change.get("message")).get("body"))
    return _ticket(d, "ticket.commented", id, own, who, author=author, text=text)


def _organisation(
    d: Delivery, id: str, own: OwnTime, detail: dict[str, Any], change: dict[str, Any]
) -> list[Canonical]:
    where = needed(ident(detail.get("id")), "detail.id")
    account, name = ident(detail.get("external_id")), plain_text(detail.get("name"))
    return [event(d, SOURCE, "account.updated", id, own, account_id=account, external_ids={SOURCE: where}, name=name)]


_READ = {
    "ticket.created": _created,
    "ticket.status_changed": _status,
    "ticket.priority_changed": _priority,
    "ticket.subject_changed": _subject,
    "ticket.organization_changed": _moved,
    "ticket.comment_added": _commented,
    "messaging_ticket.message_added": _messaged,
    "organization.created": _organisation,
    "organization.name_changed": _organisation,
    "organization.external_id_changed": _organisation,
}


def _rating(delivery: Delivery, payload: dict[str, Any]) -> list[Canonical]:
    """The trigger's template may add `organization_id` and `requester_email` beside the rating."""
    rating = payload["satisfaction_rating"]
    id = needed(ident(rating.get("id")), "satisfaction_rating.id")
    own = when(rating.get("updated_at"), "satisfaction_rating.updated_at")
    score = word(rating.get("score")).lower()
    common: dict[str, Any] = {
        "user_id": person(SOURCE, rating.get("requester_id")),
        "external_ids": external(zendesk=payload.get("organization_id")),
        "email": email(payload.get("requester_email")),
        "kind": "csat",
    }
    if score in ("good", "bad"):
        answer: dict[str, Any] = {"score": 1 if score == "good" else 0, "scale": "0-1", "answer_id": id}
        comment = plain_text(rating.get("comment"))
        kind = "survey.answered"
        return [event(delivery, SOURCE, kind, f"satisfaction_rating:{id}", own, **common, **answer, comment=comment)]
    if score == "offered":
        return [event(delivery, SOURCE, "survey.sent", f"satisfaction_rating:{id}:offered", own, **common)]
    if score == "unoffered":
        return []
    raise Unreadable(f"satisfaction_rating.score {score[:40]!r} is not known")


TOOL = Tool(SOURCE, signatures.zendesk, events, DROPPED)
