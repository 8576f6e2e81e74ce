"""What happened at the customer's: the canonical events that every tool's payload becomes."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, JsonValue

from shared.events.base import Currency, Identifier, InputEvent, Money, Text

Severity = Literal["p1", "p2", "p3", "p4"]
SurveyKind = Literal["nps", "csat", "ces"]
Properties = dict[str, JsonValue]


class UsageTracked(InputEvent, type="usage.tracked"):
    """Somebody used something of the product."""

    event: Identifier = "feature_used"
    feature: Identifier | None = None
    product: Identifier | None = None
    properties: Any = None


class UserIdentified(InputEvent, type="user.identified"):
    """Who a user is: traits, and with an account the membership in it."""

    user_id: Identifier
    traits: Properties = {}


class UserDeactivated(InputEvent, type="user.deactivated"):
    user_id: Identifier


class AccountUpdated(InputEvent, type="account.updated"):
    """What an account is; an absent field says nothing, an explicit null clears it."""

    name: Text | None = None
    parent_id: Identifier | None = None
    domain: Identifier | None = None
    plan: Identifier | None = None
    product: Identifier | None = None
    business_model: Literal["b2b", "b2c"] | None = None
    stage: Identifier | None = None
    industry: Text | None = None
    country: Text | None = None
    language: Identifier | None = None
    timezone: Identifier | None = None
    seats: Annotated[int, Field(ge=0)] | None = None
    arr: Annotated[Money, Field(ge=0)] | None = None
    currency: Currency | None = None
    external_ids: dict[str, Identifier] = {}
    traits: Properties = {}


class AccountMerged(InputEvent, type="account.merged"):
    """`merged_account_id` is from now on the same customer as `account_id`."""

    account_id: Identifier
    merged_account_id: Identifier


class ContractChanged(InputEvent, type="contract.changed"):
    """The terms from `occurred_at` on; the clock of a renewal is `notice_on`."""

    contract_id: Identifier | None = None
    starts_on: date | None = None
    ends_on: date | None = None
    notice_on: date | None = None
    auto_renew: bool | None = None
    paused: bool | None = None
    arr: Annotated[Money, Field(ge=0)] | None = None
    currency: Currency | None = None
    seats: Annotated[int, Field(ge=0)] | None = None


class ChurnNotified(InputEvent, type="churn.notified"):
    """Notice was given; the customer leaves on `effective_on`."""

    contract_id: Identifier | None = None
    reason: Text | None = None
    effective_on: date | None = None


class EntitlementChanged(InputEvent, type="entitlement.changed"):
    """What the account may use from now on; `seats` 0 ends it."""

    product: Identifier | None = None
    features: tuple[Identifier, ...] | None = None
    seats: Annotated[int, Field(ge=0)] | None = None


class CsmChanged(InputEvent, type="csm.changed"):
    """Who looks after the account in a role; a null person leaves it to the queue."""

    person_id: Identifier | None
    role: Literal["csm", "am", "renewals", "onboarding", "manager"] = "csm"


class _Ticket(InputEvent):
    ticket_id: Identifier
    severity: Severity | None = None
    subject: Text | None = None
    text: Text | None = None
    language: Identifier | None = None
    product_area: Identifier | None = None


class TicketOpened(_Ticket, type="ticket.opened"):
    pass


class TicketUpdated(_Ticket, type="ticket.updated"):
    """A field of the ticket changed; `status` open again after solved counts as reopened."""

    status: Literal["open", "pending", "solved", "closed"] | None = None


class TicketCommented(_Ticket, type="ticket.commented"):
    author: Literal["customer", "agent"] | None = None


class TicketSolved(_Ticket, type="ticket.solved"):
    pass


class SurveySent(InputEvent, type="survey.sent"):
    survey_id: Identifier | None = None
    kind: SurveyKind
    recipient_id: Identifier | None = None


class SurveyAnswered(InputEvent, type="survey.answered"):
    """One answer. `answer_id` (absent: the event's id) is what a correction or retraction names."""

    kind: SurveyKind
    score: Annotated[float, Field(allow_inf_nan=False)]
    scale: Annotated[str, Field(pattern=r"^\d{1,3}-\d{1,3}$")] | None = None
    answer_id: Identifier | None = None
    survey_id: Identifier | None = None
    comment: Text | None = None
    language: Identifier | None = None
    product_area: Identifier | None = None


class SurveyCorrected(InputEvent, type="survey.corrected"):
    """The answer `answer_id` now reads so; what is absent stays as it was."""

    answer_id: Identifier
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    comment: Text | None = None


class SurveyRetracted(InputEvent, type="survey.retracted"):
    answer_id: Identifier


class SurveyBounced(InputEvent, type="survey.bounced"):
    survey_id: Identifier | None = None
    recipient_id: Identifier | None = None


class SurveyOptedOut(InputEvent, type="survey.opted_out"):
    recipient_id: Identifier | None = None


class SubscriptionChanged(InputEvent, type="subscription.changed"):
    """The monthly recurring revenue from `occurred_at` on; 0 ends it. No id: the account's one."""

    subscription_id: Identifier | None = None
    mrr: Annotated[Money, Field(ge=0)]
    currency: Currency | None = None
    plan: Identifier | None = None
    product: Identifier | None = None
    seats: Annotated[int, Field(ge=0)] | None = None


class InvoicePaid(InputEvent, type="invoice.paid"):
    invoice_id: Identifier
    amount: Money | None = None
    currency: Currency | None = None


class InvoiceFailed(InputEvent, type="invoice.failed"):
    invoice_id: Identifier
    amount: Money | None = None
    currency: Currency | None = None
    attempt: Annotated[int, Field(ge=1)] | None = None


class OpportunityChanged(InputEvent, type="opportunity.changed"):
    opportunity_id: Identifier
    kind: Literal["new", "renewal", "expansion"] | None = None
    stage: Identifier | None = None
    amount: Money | None = None
    currency: Currency | None = None
    closes_on: date | None = None
    won: bool | None = None


class ContactChanged(InputEvent, type="contact.changed"):
    """A person at the customer's: their role, and whether they are still there."""

    contact_id: Identifier
    role: Literal["champion", "sponsor", "admin", "billing", "user", "other"] | None = None
    status: Literal["active", "left"] | None = None
    title: Text | None = None


class _Message(InputEvent):
    message_id: Identifier
    channel: Literal["email", "chat", "in_app", "sms", "phone"] | None = None
    person_id: Identifier | None = None
    contact_id: Identifier | None = None
    bulk: bool = False
    text: Text | None = None


class MessageSent(_Message, type="message.sent"):
    pass


class MessageReceived(_Message, type="message.received"):
    pass


class MessageOpened(_Message, type="message.opened"):
    pass


class MessageClicked(_Message, type="message.clicked"):
    pass


class _Meeting(InputEvent):
    meeting_id: Identifier
    kind: Literal["call", "check_in", "qbr", "ebr", "kick_off", "training", "other"] = "call"
    person_id: Identifier | None = None
    attendees: tuple[Identifier, ...] = ()
    sponsor_attended: bool | None = None
    text: Text | None = None
    language: Identifier | None = None


class MeetingScheduled(_Meeting, type="meeting.scheduled"):
    scheduled_for: AwareDatetime | None = None


class MeetingRescheduled(_Meeting, type="meeting.rescheduled"):
    scheduled_for: AwareDatetime


class MeetingCancelled(_Meeting, type="meeting.cancelled"):
    pass


class MeetingHeld(_Meeting, type="meeting.held"):
    pass


class MeetingNoShow(_Meeting, type="meeting.no_show"):
    pass


class CallHeld(InputEvent, type="call.held"):
    call_id: Identifier
    person_id: Identifier | None = None
    attendees: tuple[Identifier, ...] = ()
    duration_s: Annotated[int, Field(ge=0)] | None = None
    text: Text | None = None
    language: Identifier | None = None


class TrainingHeld(InputEvent, type="training.held"):
    training_id: Identifier
    attendees: tuple[Identifier, ...] = ()


class FeedbackGiven(InputEvent, type="feedback.given"):
    """A comment in the customer's words, from wherever it came."""

    feedback_id: Identifier | None = None
    text: Text
    via: Literal["in_app", "csm", "board", "community", "other"] = "other"
    product_area: Identifier | None = None
    language: Identifier | None = None


class FeatureRequested(InputEvent, type="feature.requested"):
    """A wish for the product; the same `title` from several people of one account counts once."""

    request_id: Identifier | None = None
    title: Text
    text: Text | None = None
    product_area: Identifier | None = None
    severity: Severity | None = None
    language: Identifier | None = None


class TouchpointLogged(InputEvent, type="touchpoint.logged"):
    """A contact that a person wrote down; it counts when it went both ways."""

    touchpoint_id: Identifier | None = None
    channel: Literal["email", "call", "meeting", "chat", "in_app", "visit", "other"] = "other"
    two_way: bool
    person_id: Identifier | None = None
    note: Text | None = None


class SentimentLogged(InputEvent, type="sentiment.logged"):
    """The CSM's pulse: an opinion that stands beside the score, never in it."""

    pulse: Literal["green", "amber", "red"]
    person_id: Identifier | None = None
    note: Text | None = None
    expires_on: date | None = None


class OutcomeVerified(InputEvent, type="outcome.verified"):
    """The customer confirmed a result worth something to them."""

    objective: Text
    value: Money | None = None
    unit: Text | None = None
    verified_by: Identifier | None = None


class IncidentOpened(InputEvent, type="incident.opened"):
    incident_id: Identifier
    title: Text | None = None
    features: tuple[Identifier, ...] = ()


class IncidentResolved(InputEvent, type="incident.resolved"):
    incident_id: Identifier


class FxRate(InputEvent, type="fx.rate"):
    """The constant rate of a year: one `currency` is `rate` of the reporting currency."""

    currency: Currency
    rate: Annotated[Money, Field(gt=0)]
    year: Annotated[int, Field(ge=1970, le=2200)]


class PrivacyRequested(InputEvent, type="privacy.requested"):
    user_id: Identifier
    regulation: Literal["suppress", "unsuppress", "delete", "suppress_with_delete"]


class RequestMade(InputEvent, type="request.made"):
    """Somebody asks for something: a demand by name, or in words; or a person's action.

    `demand` is one of the routing table's names (`health.score`) or an action (`alert.acknowledge`).
    """

    demand: Identifier | None = None
    text: Text | None = None
    parameters: Properties = {}


class ClockSet(InputEvent, type="clock"):
    """How far time has come: the end of a run at `at`, or the first live event."""

    run: Identifier | None = None
    at: AwareDatetime | None = None
    live: bool = False
