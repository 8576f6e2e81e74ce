"""Messages to people at customers, through a tool that knows them: what calls for one, who gets it, what is said.

Pure. The tool has the addresses; nothing here has one. What may have arrived is never sent again, unless the tool can
tell that it is the same: to a customer rather nothing than twice.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote
from uuid import UUID

from services.notify.episodes import Account, rank
from services.notify.settings import Outreach, When
from services.notify.sinks import Outcome
from services.notify.text import one_line
from services.notify.writeback import JSON, SENT, Answer, Call, encoded, judged

TOOLS = frozenset(
    """
    amplitude asknicely chorus customerio delighted gong hubspot intercom mixpanel posthog salesforce segment snowplow
    stripe zendesk
    """.split()
)
"""Tools whose own numbers of people are marked by their name, `hubspot:42`."""
ASKING = {"accept": "application/json", "user-agent": "hune"}
REFERENCE = "hv_"
MOST_NAME = 200
BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

NO_NAME = "its text names the account, whose name is not known"
HUSHED = "asked not to be written to"
LEFT = "has left"


@dataclass(frozen=True, slots=True)
class Person:
    """Who is known at an account, by the ids that events give them; `sent_at`: their last message from there."""

    contact_id: str
    role: str | None
    user_id: str | None = None
    left: bool = False
    hushed: bool = False
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A person as a tool knows them: by its `own` number, or by the id that they have with us."""

    id: str
    own: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    person: Person
    address: Address


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be said: `facts` for the far end's template, `body` and `subject` where the text is ours."""

    delivery_id: str
    at: datetime
    to: Address
    facts: Mapping[str, str]
    subject: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom the tool means by an address."""

    id: str
    role: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The tool knows that this person is not to get it."""

    reason: str


NOBODY = Declined("Intercom knows nobody by that id")


class Way(Protocol):
    """How a tool takes a message. `repeatable`: the same message twice arrives once."""

    @property
    def repeatable(self) -> bool: ...

    def ask(self, message: Message, token: str) -> Call | None:
        """What to ask first; None: nothing."""
        ...

    def asked(self, answer: Answer, message: Message, now: float) -> Contact | Declined | Outcome: ...

    def call(self, message: Message, contact: Contact | None, token: str) -> Call: ...

    def read(self, answer: Answer, now: float) -> Outcome: ...


# -- what calls for a message ----------------------------------------------------------------


def calls(when: When, type: str, data: Any, account: Account) -> bool:
    """Whether an event calls for a message, by what it tells and what is known of its account."""
    if type != when.event or getattr(data, "baseline", False):
        return False
    if type == "account.segmented":
        here = data.coverage in when.coverage and data.segment in (when.segments or (data.segment,))
        before = data.previous_coverage in when.coverage and data.previous in (when.segments or (data.previous,))
        return here and not before
    if type == "alert.opened":
        fits_alert = (
            (not when.kinds or data.kind in when.kinds)
            and (not when.rules or data.rule in when.rules)
            and rank(data.severity) >= rank(when.severity_from)
        )
        if not fits_alert:
            return False
    return covers(when, account)


def covers(when: When, account: Account) -> bool:
    return account.coverage_model in when.coverage and (not when.segments or account.segment in when.segments)


def facts(type: str, data: Any) -> dict[str, str]:
    """What a message may name of its event."""
    told = {"event": type, "rule": getattr(data, "rule", None), "due_on": getattr(data, "due_on", None)}
    return {name: str(value) for name, value in told.items() if value is not None}


# -- who gets it -----------------------------------------------------------------------------


def chosen(people: Sequence[Person], rules: Outreach, now: datetime) -> Chosen | str:
    """The first person in the order of roles whom the tool can know; else why there is none."""
    wanted = [one for one in people if one.role in rules.to]
    if not wanted:
        return f"nobody of the account is known as {', '.join(rules.to)} (contact.changed tells)"
    why: list[str] = []
    for person in sorted(wanted, key=lambda one: (rules.to.index(_role(one)), one.contact_id)):
        if person.left or person.hushed:
            why.append(f"the account's {person.role} {LEFT if person.left else HUSHED}")
            continue
        address = address_of(person, rules.tool)
        if isinstance(address, str):
            why.append(f"the account's {person.role} {address}")
        elif person.sent_at is not None and now - person.sent_at < timedelta(days=rules.every_days):
            return f"the account's {person.role} was written to less than {rules.every_days} days ago"
        else:
            return Chosen(person, address)
    return why[0]


def _role(person: Person) -> Any:
    return person.role


def address_of(person: Person, tool: str) -> Address | str:
    """What the tool calls a person, or why nobody can say."""
    why = ""
    for id in (person.user_id, person.contact_id):
        if not id:
            continue
        prefix, _, rest = id.partition(":")
        if REFERENCE in id:
            why = why or f"is known by an address alone, which only the contact vault has; {tool} needs a user id"
        elif prefix == tool and rest:
            return Address(rest, own=True)
        elif prefix in TOOLS and rest:
            why = why or f"is known by {prefix}'s number alone"
        else:
            return Address(id)
    return why


def own_id(source: str, contact_id: str) -> str:
    """A contact's id as it is kept: a tool's own number is marked as such, since elsewhere it is somebody else's."""
    return f"{source}:{contact_id}" if source in TOOLS and not contact_id.startswith(f"{source}:") else contact_id


# -- what is said ----------------------------------------------------------------------------


def written(rules: Outreach, told: Mapping[str, str], account: Account) -> tuple[str, str] | str:
    """Subject and body, what strangers typed made safe; else why it cannot be written."""
    name = one_line(account.name or "", MOST_NAME)
    texts = rules.subject or "", rules.body or ""
    if (not name or REFERENCE in name) and any("{account}" in text for text in texts):
        return NO_NAME
    if "due_on" not in told and any("{due_on}" in text for text in texts):
        return f"its text names {{due_on}}, which {told.get('event')} does not tell"
    words = {"account": name, "due_on": told.get("due_on", "")}
    subject = one_line(texts[0].format_map(words))
    return subject, texts[1].format_map({word: html.escape(value) for word, value in words.items()})


def for_template(told: Mapping[str, str], account: Account) -> dict[str, str]:
    """What the far end's own template may name."""
    known = {"account_id": account.account_id, "account": one_line(account.name or "", MOST_NAME)}
    return {name: value for name, value in (known | {"segment": account.segment or ""} | dict(told)).items() if value}


# -- how the tools take it -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Intercom:
    """`POST /messages` from an admin to a contact, who is looked up first for their number and their wishes.

    `POST /contacts/search` by the id that we gave them, or `GET /contacts/{id}` by Intercom's own number (reference:
    messages/createmessage, contacts/searchcontacts). Intercom cannot tell a repeat: nothing unclear is sent again.
    """

    rules: Outreach
    repeatable: bool = False

    def ask(self, message: Message, token: str) -> Call | None:
        if message.to.own:
            return Call("GET", f"{self._base}/contacts/{quote(message.to.id, safe='')}", self._head(token, ASKING), b"")
        query = {"query": {"field": "external_id", "operator": "=", "value": message.to.id}}
        return Call("POST", f"{self._base}/contacts/search", self._head(token), encoded(query))

    def asked(self, answer: Answer, message: Message, now: float) -> Contact | Declined | Outcome:
        if answer.status in (404, 410):  # 410: merged into another contact
            return NOBODY
        outcome = judged(answer, now)
        if outcome.what != "sent":  # nothing was said yet, so nothing is unclear
            return Outcome("refused", outcome.reason, after=outcome.after) if outcome.what == "unclear" else outcome
        found = self._meant(answer.json(), message.to)
        if found is None:
            return NOBODY
        if self.rules.send == "email":
            for flag in ("unsubscribed_from_emails", "has_hard_bounced", "marked_email_as_spam"):
                if found.get(flag) is True:
                    return Declined(f"Intercom says {flag}")
        return Contact(str(found["id"]), "lead" if found.get("role") == "lead" else "user")

    @staticmethod
    def _meant(body: Any, to: Address) -> dict[str, Any] | None:
        """The one contact that surely is the person."""
        some = [body] if to.own else (body.get("data") if isinstance(body, dict) else None)
        name = "id" if to.own else "external_id"
        fits = [one for one in some or () if isinstance(one, dict) and one.get("id") and str(one.get(name)) == to.id]
        return fits[0] if len(fits) == 1 else None

    def call(self, message: Message, contact: Contact | None, token: str) -> Call:
        assert contact is not None
        said: dict[str, Any] = {"message_type": "inapp", "body": message.body}
        if self.rules.send == "email":
            said = {"message_type": "email", "subject": message.subject, "body": message.body, "template": "plain"}
        said |= {
            "from": {"type": "admin", "id": self.rules.admin_id},
            "to": {"type": contact.role, "id": contact.id},
        }
        return Call("POST", f"{self._base}/messages", self._head(token), encoded(said))

    def read(self, answer: Answer, now: float) -> Outcome:
        if answer.status == 404:  # a contact that was made just now cannot be written to yet
            return Outcome("refused", judged(answer, now).reason)
        return _careful(answer, now, "id")

    @property
    def _base(self) -> str:
        return self.rules.url or "https://api.intercom.io"

    def _head(self, token: str, kind: Mapping[str, str] = JSON) -> dict[str, str]:
        version = self.rules.api_version or "2.11"
        return {**kind, "intercom-version": version, "authorization": f"Bearer {token}"}


@dataclass(frozen=True, slots=True)
class CustomerIoInApp:
    """`POST /v1/send/in_app` of the App API: a transactional in-app message, which needs no address

    (docs.customer.io/integrations/api/app/tag/send-messages/sendinapp). No repeat can be told, so none is made.
    """

    rules: Outreach
    repeatable: bool = False

    def ask(self, message: Message, token: str) -> Call | None:
        return None

    def asked(self, answer: Answer, message: Message, now: float) -> Contact | Declined | Outcome:
        raise AssertionError("nothing was asked")

    def call(self, message: Message, contact: Contact | None, token: str) -> Call:
        body = {
            "transactional_message_id": _number_or_name(str(self.rules.template)),
            "identifiers": _identifiers(message.to),
            "message_data": dict(message.facts),
        }
        base = self.rules.url or "https://api.customer.io"
        return Call("POST", f"{base}/v1/send/in_app", JSON | {"authorization": f"Bearer {token}"}, encoded(body))

    def read(self, answer: Answer, now: float) -> Outcome:
        return _careful(answer, now, "delivery_id")


@dataclass(frozen=True, slots=True)
class CustomerIoEvent:
    """`POST /api/v2/entity` of the Track API: an event of the person, which triggers a campaign of Customer.io's.

    Its `id`, a ULID, lets Customer.io drop repeats (docs.customer.io/integrations/api/track, person: event).
    """

    rules: Outreach
    repeatable: bool = True

    def ask(self, message: Message, token: str) -> Call | None:
        return None

    def asked(self, answer: Answer, message: Message, now: float) -> Contact | Declined | Outcome:
        raise AssertionError("nothing was asked")

    def call(self, message: Message, contact: Contact | None, token: str) -> Call:
        body = {
            "type": "person",
            "action": "event",
            "identifiers": _identifiers(message.to),
            "name": self.rules.template,
            "id": ulid(message.at, message.delivery_id),
            "timestamp": int(message.at.timestamp()),
            "attributes": dict(message.facts),
        }
        base = self.rules.url or "https://track.customer.io"
        head = JSON | {"authorization": f"Basic {base64.b64encode(token.encode()).decode()}"}
        return Call("POST", f"{base}/api/v2/entity", head, encoded(body))

    def read(self, answer: Answer, now: float) -> Outcome:
        return judged(answer, now)


def way_of(rules: Outreach) -> Way:
    if rules.tool == "intercom":
        return Intercom(rules)
    return CustomerIoEvent(rules) if rules.send == "event" else CustomerIoInApp(rules)


def ulid(at: datetime, delivery_id: str) -> str:
    """A ULID that is the same for the same message: its time, and 80 bits of its id."""
    number = int(at.timestamp() * 1000) << 80 | UUID(delivery_id).int & (1 << 80) - 1
    return "".join(BASE32[number >> shift & 31] for shift in range(125, -1, -5))


def _identifiers(to: Address) -> dict[str, str]:
    return {"cio_id" if to.own else "id": to.id}


def _number_or_name(template: str) -> int | str:
    return int(template) if template.isascii() and template.isdigit() else template


def _careful(answer: Answer, now: float, id: str) -> Outcome:
    """Where no repeat can be told, a 503 that does not say when to come again may have been taken."""
    outcome = judged(answer, now)
    if answer.status == 503 and outcome.after is None:
        return Outcome("unclear", outcome.reason)
    body = answer.json()
    if outcome.what == "sent" and isinstance(body, dict) and body.get(id):
        return Outcome("sent", ts=str(body[id]))
    return SENT if outcome.what == "sent" else outcome
