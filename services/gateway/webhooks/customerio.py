"""Customer.io: reporting webhooks (object_type and metric).

| object_type, metric | canonical event |
|---|---|
| email, sms, in_app, push, whatsapp, slack: sent, opened, clicked | message.sent, .opened, .clicked; bulk |
| customer: subscribed, unsubscribed | user.identified, trait `customerio_unsubscribed` false, true |
| other metrics of these (delivered, bounced, converted …) and webhooks to others | accepted, tell nothing |

message_id = delivery_id; `bulk` because nobody writes them one by one. The user is identifiers.id (our user id), else
`customerio:CIO_ID`; the account is found by the user or the e-mail's domain. Id: event_id; own time: timestamp (s).
"""

from __future__ import annotations

from services.gateway.canonical import Canonical
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Delivery,
    Tool,
    Trust,
    Unreadable,
    at,
    email,
    event,
    ident,
    mapping,
    needed,
    object_of,
    person,
    when,
    word,
)

SOURCE = "customerio"
CHANNELS = {"email": "email", "sms": "sms", "in_app": "in_app", "push": None, "whatsapp": None, "slack": None}
MESSAGES = {"sent": "message.sent", "opened": "message.opened", "clicked": "message.clicked"}
HUSHED = frozenset(
    """
    attempted bounced converted deferred delivered drafted dropped failed human_clicked human_opened marketing_opt_out
    received spammed suppressed topic_unsubscribed undeliverable unsubscribed
    """.split()
)
CUSTOMER = frozenset("cio_subscription_preferences_changed subscription_preferences_changed".split())
DROPPED = (
    "data.action_id",
    "data.campaign_id",
    "data.content_id",
    "data.headers",
    "data.identifiers.cio_id beside an id",
    "data.journey_id",
    "data.proxied",
    "data.subject",
    "data.email_address beside identifiers.email",
    "data.recipient beside identifiers.email",
    "data.customer_id beside identifiers.id",
)


def events(delivery: Delivery) -> list[Canonical]:
    payload = object_of(delivery.body)
    thing, metric = word(payload.get("object_type")), word(payload.get("metric"))
    data = mapping(payload.get("data"))
    if thing == "webhook" or (thing == "customer" and metric in CUSTOMER):
        return []
    if thing in CHANNELS and metric in HUSHED:
        return []
    is_customer = thing == "customer" and metric in ("subscribed", "unsubscribed")
    if not is_customer and not (thing in CHANNELS and metric in MESSAGES):
        raise Unreadable(f"object_type {thing[:40]!r} with metric {metric[:40]!r} is not known")
    id = needed(ident(payload.get("event_id")), "event_id")
    own = when(payload.get("timestamp"), "timestamp")
    ours = ident(at(data, "identifiers.id")) or ident(data.get("customer_id"))
    user = ours or person(SOURCE, at(data, "identifiers.cio_id"))
    address = email(at(data, "identifiers.email")) or email(data.get("email_address")) or email(data.get("recipient"))
    if is_customer:
        traits = {"customerio_unsubscribed": metric == "unsubscribed"}
        who = needed(user, "data.identifiers")
        return [event(delivery, SOURCE, "user.identified", id, own, user_id=who, email=address, traits=traits)]
    return [
        event(
            delivery,
            SOURCE,
            MESSAGES[metric],
            id,
            own,
            user_id=user,
            email=address,
            message_id=needed(ident(data.get("delivery_id")), "data.delivery_id"),
            channel=CHANNELS[thing],
            bulk=True,
        )
    ]


def verify(delivery: Delivery, trust: Trust) -> None:
    signatures.versioned(delivery, trust, "X-CIO-Signature", "X-CIO-Timestamp", "")


TOOL = Tool(SOURCE, verify, events, DROPPED)
