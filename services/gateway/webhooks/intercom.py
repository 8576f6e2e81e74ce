"""Intercom: webhook notifications. A conversation is a ticket.

| topic | canonical event |
|---|---|
| conversation.user.created | ticket.opened: subject, text = the first message without HTML |
| conversation.user.replied / admin.replied | ticket.commented by customer / agent, text = the latest part |
| conversation.admin.closed | ticket.solved |
| conversation.admin.opened, unsnoozed / snoozed | ticket.updated, status open / pending |
| conversation.rating.added | survey.answered csat 1-5, comment = remark |
| contact.user.created, contact.created, contact.signed_up, contact.email.updated, user.created | user.identified, one for each of its companies |
| contact.deleted, contact.archived, user.deleted | user.deactivated |
| company.created, company.updated | account.updated: `company_id` is our account, linked to Intercom's id |

The user is the contact's external_id (our user id), else `intercom:ID`. The account is told by external id `intercom`
= the conversation's custom attribute `company_id` (another one: `options.company_attribute`), or named by its
attribute `account_id`; else by the author's e-mail domain. Id: the notification's `id`, which redeliveries keep; own
time: of the conversation, its part, its rating, else of the notification. Times are s.
`NOT_USED` topics are accepted and tell nothing.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.gateway.canonical import Canonical, OwnTime
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Delivery,
    Options,
    Tool,
    Trust,
    Unreadable,
    at,
    email,
    event,
    external,
    ident,
    items,
    mapping,
    needed,
    number,
    object_of,
    options_of,
    person,
    when,
    whole,
    word,
)
from services.gateway.webhooks.text import html_text, plain_text

SOURCE = "intercom"
NOT_USED = frozenset(
    """
    ping conversation.admin.assigned conversation.admin.noted conversation.admin.single.created conversation.deleted
    conversation.read conversation.priority.updated conversation.admin.open.assigned conversation.contact.attached
    conversation.contact.detached conversation_part.tag.created conversation_part.redacted conversation.operator.replied
    conversation.rating.remark.added contact.tag.created contact.tag.deleted contact.user.tag.created
    contact.user.tag.deleted contact.lead.tag.created contact.lead.tag.deleted contact.lead.created
    contact.lead.added_email contact.unsubscribed contact.subscribed contact.unsubscribed_from_sms contact.merged
    user.unsubscribed user.unsubscribed_from_sms user.tag.created user.tag.deleted contact.added_email contact.updated
    contact.user.updated contact.lead.updated user.email.updated visitor.signed_up company.deleted
    company.contact.attached company.contact.detached admin.added_to_workspace admin.removed_from_workspace
    admin.away_mode_updated admin.logged_in admin.logged_out admin.activity_log_event.created event.created
    content_stat.email content_stat.chat content_stat.post content_stat.push content_stat.tour content_stat.survey
    """.split()
)
DROPPED = (
    "type",
    "app_id",
    "delivered_at",
    "delivery_attempts",
    "delivery_status",
    "first_sent_at",
    "links",
    "self",
    "data.type",
    "data.item.type",
    "data.item.admin_assignee_id",
    "data.item.first_contact_reply",
    "data.item.linked_objects",
    "data.item.open",
    "data.item.priority",
    "data.item.read",
    "data.item.sla_applied",
    "data.item.snoozed_until",
    "data.item.state",
    "data.item.statistics",
    "data.item.tags",
    "data.item.team_assignee_id",
    "data.item.teammates",
    "data.item.ticket",
    "data.item.topics",
    "data.item.updated_at",
    "data.item.waiting_since",
    "data.item.contacts.type",
    "data.item.contacts.contacts[].type",
    "data.item.conversation_parts.total_count",
    "data.item.conversation_parts.type",
    "data.item.conversation_parts.conversation_parts[].type",
    "data.item.conversation_parts.conversation_parts[].id",
    "data.item.conversation_parts.conversation_parts[].part_type",
    "data.item.conversation_parts.conversation_parts[].author",
    "data.item.conversation_rating.contact",
    "data.item.conversation_rating.teammate",
    "data.item.source.attachments",
    "data.item.source.author.id",
    "data.item.source.author.name",
    "data.item.source.delivered_as",
    "data.item.source.id",
    "data.item.source.redacted",
    "data.item.source.type",
    "data.item.source.url",
    "data.item.companies.type",
    "data.item.companies.data[].type",
    "data.item.monthly_spend",
    "data.item.session_count",
    "data.item.user_count",
)


class IntercomOptions(Options):
    company_attribute: str = "company_id"
    account_attribute: str = "account_id"


def events(delivery: Delivery) -> list[Canonical]:
    payload = object_of(delivery.body)
    topic = word(payload.get("topic"))
    if topic in NOT_USED:
        return []
    read = _READ.get(topic)
    if read is None:
        raise Unreadable(f"topic {topic[:100]!r} is not known")
    id = needed(ident(payload.get("id")), "id")
    item = at(payload, "data.item")
    if not isinstance(item, dict):
        raise Unreadable("data.item is not an object")
    return read(delivery, id, when(payload.get("created_at"), "created_at"), item)


def _conversation(
    delivery: Delivery, type: str, id: str, own: OwnTime | None, item: dict[str, Any], **more: Any
) -> list[Canonical]:
    options = options_of(delivery, IntercomOptions)
    attributes = mapping(item.get("custom_attributes"))
    contact = next(map(mapping, items(at(item, "contacts.contacts"))), {})
    author = mapping(at(item, "source.author"))
    by_customer = word(author.get("type")) in ("", "user", "lead", "contact")
    return [
        event(
            delivery,
            SOURCE,
            type,
            id,
            own,
            user_id=ident(contact.get("external_id")) or person(SOURCE, contact.get("id")),
            account_id=ident(attributes.get(options.account_attribute)),
            external_ids=external(intercom=attributes.get(options.company_attribute)),
            email=email(author.get("email")) if by_customer else None,
            **more,
        )
    ]


def _ticket_id(item: dict[str, Any]) -> str:
    return needed(ident(item.get("id")), "data.item.id")


def _opened(d: Delivery, id: str, sent: OwnTime | None, item: dict[str, Any]) -> list[Canonical]:
    own = when(item.get("created_at"), "data.item.created_at") or sent
    subject = html_text(at(item, "source.subject")) or html_text(item.get("title"))
    text = html_text(at(item, "source.body"))
    return _conversation(d, "ticket.opened", id, own, item, ticket_id=_ticket_id(item), subject=subject, text=text)


def _latest(item: dict[str, Any]) -> dict[str, Any]:
    parts = items(at(item, "conversation_parts.conversation_parts"))
    return mapping(parts[-1]) if parts else {}


def _replied(author: str) -> Callable[..., list[Canonical]]:
    def read(d: Delivery, id: str, sent: OwnTime | None, item: dict[str, Any]) -> list[Canonical]:
        part = _latest(item)
        own = when(part.get("created_at"), "the part's created_at") or sent
        fields = {"ticket_id": _ticket_id(item), "author": author, "text": html_text(part.get("body"))}
        return _conversation(d, "ticket.commented", id, own, item, **fields)

    return read


def _became(type: str, status: str | None = None) -> Callable[..., list[Canonical]]:
    def read(d: Delivery, id: str, sent: OwnTime | None, item: dict[str, Any]) -> list[Canonical]:
        own = when(_latest(item).get("created_at"), "the part's created_at") or sent
        return _conversation(d, type, id, own, item, ticket_id=_ticket_id(item), status=status)

    return read


def _rated(d: Delivery, id: str, sent: OwnTime | None, item: dict[str, Any]) -> list[Canonical]:
    rating = mapping(item.get("conversation_rating"))
    own = when(rating.get("created_at"), "conversation_rating.created_at") or sent
    score = needed(number(rating.get("rating")), "conversation_rating.rating")
    fields = {"kind": "csat", "scale": "1-5", "answer_id": f"conversation:{_ticket_id(item)}"}
    return _conversation(
        d, "survey.answered", id, own, item, score=score, comment=plain_text(rating.get("remark")), **fields
    )


def _contact(item: dict[str, Any]) -> str:
    """`external_id`, in the older model of users `user_id`, is our own id."""
    own = ident(item.get("external_id")) or ident(item.get("user_id"))
    return needed(own or person(SOURCE, item.get("id")), "data.item.id")


def _identified(d: Delivery, id: str, sent: OwnTime | None, item: dict[str, Any]) -> list[Canonical]:
    fields: dict[str, Any] = {
        "user_id": _contact(item),
        "email": email(item.get("email")),
        "traits": {name: item[name] for name in ("name", "role") if isinstance(item.get(name), str)} or None,
    }
    companies: dict[str, tuple[str | None, dict[str, str]]] = {}
    for company in items(at(item, "companies.data") or at(item, "companies.companies")):
        account, link = ident(at(company, "company_id")), ident(at(company, "id"))
        if account or link:
            companies.setdefault(f"{id}:{link or account}", (account, external(intercom=link)))
    return [
        event(d, SOURCE, "user.identified", which, sent, account_id=account, external_ids=links, **fields)
        for which, (account, links) in (companies or {id: (None, {})}).items()
    ]


def _left(d: Delivery, id: str, sent: OwnTime | None, item: dict[str, Any]) -> list[Canonical]:
    return [event(d, SOURCE, "user.deactivated", id, sent, user_id=_contact(item))]


def _company(d: Delivery, id: str, sent: OwnTime | None, item: dict[str, Any]) -> list[Canonical]:
    """Both ids of the company mean the account: Intercom's own, and ours as conversations may name it."""
    account, link = ident(item.get("company_id")), ident(item.get("id"))
    if account is None and link is None:
        raise Unreadable("data.item holds neither company_id nor id")
    fields: dict[str, Any] = {
        "name": plain_text(item.get("name")),
        "plan": ident(at(item, "plan.name")),
        "industry": plain_text(item.get("industry")),
        "traits": {"employees": whole(item["size"])} if whole(item.get("size")) is not None else None,
    }
    told = [
        event(
            d, SOURCE, "account.updated", id, sent, account_id=account, external_ids=external(intercom=link), **fields
        )
    ]
    if account is not None and link is not None:
        ours = {SOURCE: account}
        told.append(
            event(d, SOURCE, "account.updated", f"{id}:company_id", sent, account_id=account, external_ids=ours)
        )
    return told


_READ: dict[str, Callable[..., list[Canonical]]] = {
    "conversation.user.created": _opened,
    "conversation.user.replied": _replied("customer"),
    "conversation.admin.replied": _replied("agent"),
    "conversation.admin.closed": _became("ticket.solved"),
    "conversation.admin.opened": _became("ticket.updated", "open"),
    "conversation.admin.unsnoozed": _became("ticket.updated", "open"),
    "conversation.admin.snoozed": _became("ticket.updated", "pending"),
    "conversation.rating.added": _rated,
    "contact.user.created": _identified,
    "contact.created": _identified,
    "contact.signed_up": _identified,
    "contact.lead.signed_up": _identified,
    "contact.email.updated": _identified,
    "user.created": _identified,
    "contact.deleted": _left,
    "contact.archived": _left,
    "contact.archive": _left,
    "user.deleted": _left,
    "company.created": _company,
    "company.updated": _company,
}


def verify(delivery: Delivery, trust: Trust) -> None:
    signatures.hub(delivery, trust, "X-Hub-Signature", "sha1=", "sha1")


TOOL = Tool(SOURCE, verify, events, DROPPED)
