"""Deliveries of the tools, made up: payloads of every kind that an adapter reads, and their signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from services.gateway.webhooks.base import Delivery, Options

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
SECRET, OTHER_SECRET, TOKEN = "a-secret-of-ours", "the-next-secret", "t0ken-t0ken-t0ken-t0ken-22"
PUBLIC_URL = "https://hune.example"


def a_delivery(body: bytes, options: Options | None = None, **headers: str) -> Delivery:
    return Delivery(body, headers, NOW, options=options)


def as_json(payload: Any) -> bytes:
    return json.dumps(payload, ensure_ascii=False).encode()


def as_form(payload: Any) -> bytes:
    return urlencode({"payload": json.dumps(payload)}).encode()


# -- zendesk -----------------------------------------------------------------------------------------


def zendesk_ticket(kind: str = "ticket.created", event: Mapping[str, Any] | None = None, **detail: Any) -> Any:
    return {
        "account_id": 11,
        "id": "01J0ZENDESKEVENT0000000001",
        "subject": "zen:ticket:77",
        "time": "2026-05-04T09:30:00.123456789Z",
        "type": f"zen:event-type:{kind}",
        "zendesk_event_version": "2022-11-06",
        "detail": {
            "actor_id": "901", "assignee_id": "902", "brand_id": "903", "created_at": "2026-05-04T09:30:00Z",
            "custom_status": "904", "description": "<p>The export fails &amp; stops</p>", "external_id": None,
            "form_id": "905", "group_id": "906", "id": "77", "is_public": True, "organization_id": "501",
            "priority": "URGENT", "requester_id": "601", "status": "OPEN", "subject": "Export fails",
            "submitter_id": "601", "tags": ["vip"], "type": "INCIDENT", "updated_at": "2026-05-04T09:30:00Z",
            "via": {"channel": "email"}, **detail,
        },
        "event": {"meta": {"sequence": {"id": "F0", "position": 1}}, **(event or {})},
    }  # fmt: skip


def zendesk_organisation(kind: str = "organization.created", **detail: Any) -> Any:
    return {
        "account_id": 11,
        "id": "01J0ZENDESKEVENT0000000009",
        "subject": "zen:organization:501",
        "time": "2026-05-04T09:31:00Z",
        "type": f"zen:event-type:{kind}",
        "zendesk_event_version": "2022-06-20",
        "detail": {
            "created_at": "2026-05-04T09:31:00Z", "external_id": "acct-9", "group_id": "3", "id": "501",
            "name": "Nine Ltd", "shared_comments": False, "shared_tickets": False,
            "updated_at": "2026-05-04T09:31:00Z", **detail,
        },
        "event": {},
    }  # fmt: skip


def zendesk_rating(score: str = "good", **more: Any) -> Any:
    rating = {
        "id": 3001, "url": "https://x.example/3001", "assignee_id": 902, "group_id": 906, "requester_id": 601,
        "ticket_id": 77, "score": score, "comment": "Quick", "reason": "None given", "reason_id": 0,
        "created_at": "2026-05-04T10:00:00Z", "updated_at": "2026-05-04T10:05:00Z", **more,
    }  # fmt: skip
    return {"satisfaction_rating": rating, "organization_id": "501", "requester_email": "ann@nine.example"}


def zendesk_comment(**comment: Any) -> Any:
    author = {"id": "601", "is_staff": False, "name": "Ann"}
    said = {"author": author, "body": "Any news?", "id": "8", "is_public": True}
    return zendesk_ticket("ticket.comment_added", {"comment": {**said, **comment}})


ZENDESK = [
    zendesk_ticket(),
    zendesk_ticket("ticket.status_changed", {"current": "SOLVED", "previous": "OPEN"}),
    zendesk_ticket("ticket.status_changed", {"current": "OPEN", "previous": "SOLVED"}),
    zendesk_ticket("ticket.priority_changed", {"current": "LOW", "previous": "HIGH"}),
    zendesk_ticket("ticket.subject_changed", {"current": "Export", "previous": "Import"}),
    zendesk_ticket("ticket.organization_changed", {"current": "502", "previous": "501"}),
    zendesk_comment(),
    zendesk_ticket(
        "messaging_ticket.message_added",
        {"actor": {"id": "601", "name": "Ann", "type": "end_user"}, "message": {"body": "Hello?", "id": "m1"}},
    ),
    zendesk_organisation(),
    zendesk_rating(),
    zendesk_rating("bad"),
    zendesk_rating("offered"),
]


# -- intercom ----------------------------------------------------------------------------------------


def intercom(topic: str, item: Mapping[str, Any]) -> Any:
    return {
        "type": "notification_event", "app_id": "app1", "id": f"notif_{topic}", "topic": topic, "links": {},
        "delivery_status": "pending", "delivery_attempts": 1, "delivered_at": 0, "first_sent_at": 1777888801,
        "created_at": 1777888800, "self": None, "data": {"type": "notification_event_data", "item": dict(item)},
    }  # fmt: skip


def intercom_conversation(**more: Any) -> dict[str, Any]:
    contact = {"type": "contact", "id": "6f00", "external_id": "u-1"}
    return {
        "type": "conversation", "id": "4001", "created_at": 1777888700, "updated_at": 1777888750,
        "waiting_since": 1777888700, "snoozed_until": None,
        "source": {
            "type": "conversation", "id": "9", "delivered_as": "customer_initiated", "subject": "<p>Seats</p>",
            "body": "<p>Can we have&nbsp;two more seats?<br>Thanks</p>",
            "author": {"type": "user", "id": "6f00", "name": "Ann", "email": "ann@nine.example"},
            "attachments": [], "url": "https://app.example", "redacted": False,
        },
        "contacts": {"type": "contact.list", "contacts": [contact]},
        "first_contact_reply": {"created_at": 1777888700, "type": "conversation", "url": None},
        "admin_assignee_id": None, "team_assignee_id": None, "open": True, "state": "open", "read": False,
        "tags": {"type": "tag.list", "tags": []}, "priority": "not_priority", "sla_applied": None,
        "statistics": None, "conversation_rating": None, "teammates": {"type": "admin.list", "admins": []},
        "title": None, "custom_attributes": {"company_id": "c-9", "account_id": None}, "topics": {}, "ticket": None,
        "linked_objects": {"type": "list", "data": [], "total_count": 0, "has_more": False},
        "conversation_parts": {
            "type": "conversation_part.list", "total_count": 1,
            "conversation_parts": [
                {
                    "type": "conversation_part", "id": "p1", "part_type": "comment", "body": "<p>Soon?</p>",
                    "created_at": 1777888760, "author": {"type": "user", "id": "6f00"},
                }
            ],
        },
        **more,
    }  # fmt: skip


def intercom_rating(**more: Any) -> dict[str, Any]:
    rating = {
        "rating": 4, "remark": "Fine", "created_at": 1777888790, "teammate": {"type": "admin", "id": "1"},
        "contact": {"type": "contact", "id": "6f00", "external_id": "u-1"}, **more,
    }  # fmt: skip
    return intercom_conversation(conversation_rating=rating)


def intercom_contact(**more: Any) -> dict[str, Any]:
    companies = [{"type": "company", "id": "co1", "company_id": "acct-9"}, {"type": "company", "id": "co2"}]
    return {
        "type": "contact", "id": "6f00", "external_id": None, "role": "user", "email": "ann@nine.example",
        "name": "Ann", "companies": {"type": "list", "data": companies}, **more,
    }  # fmt: skip


def intercom_company(**more: Any) -> dict[str, Any]:
    return {
        "type": "company", "id": "co1", "company_id": "acct-9", "name": "Nine", "plan": {"name": "Pro"},
        "industry": "Rail", "size": 40, "monthly_spend": 900, "session_count": 3, "user_count": 7, **more,
    }  # fmt: skip


_NAMELESS = {"type": "contact.list", "contacts": [{"type": "contact", "id": "6f01", "external_id": None}]}
INTERCOM = [
    intercom("conversation.user.created", intercom_conversation()),
    intercom("conversation.user.created", intercom_conversation(contacts=_NAMELESS, source={}, title="Seats")),
    intercom("conversation.user.replied", intercom_conversation()),
    intercom("conversation.admin.replied", intercom_conversation()),
    intercom("conversation.admin.closed", intercom_conversation(conversation_parts=None)),
    intercom("conversation.admin.snoozed", intercom_conversation()),
    intercom("conversation.admin.opened", intercom_conversation()),
    intercom("conversation.rating.added", intercom_rating()),
    intercom("contact.user.created", intercom_contact()),
    intercom("contact.deleted", intercom_contact(external_id="u-1")),
    intercom("company.created", intercom_company()),
]


# -- hubspot -----------------------------------------------------------------------------------------


def hubspot(kind: str, name: str | None = None, value: Any = None, **more: Any) -> dict[str, Any]:
    entry = {
        "eventId": 100, "subscriptionId": 7, "portalId": 5, "appId": 3, "occurredAt": 1777888800123,
        "subscriptionType": kind, "attemptNumber": 0, "objectId": 12345, "changeSource": "CRM_UI",
        "sourceId": "userId:1", **more,
    }  # fmt: skip
    return entry | ({"propertyName": name, "propertyValue": value} if name else {"changeFlag": "NEW"})


HUBSPOT = [
    [hubspot("company.propertyChange", "name", "Nine"), hubspot("company.propertyChange", "tier", "A", objectId=99)],
    [hubspot("company.propertyChange", "industry", "")],
    [hubspot("deal.propertyChange", "dealstage", "closedwon"), hubspot("deal.propertyChange", "amount", "48000.10")],
    [hubspot("deal.propertyChange", "closedate", "1777888800000")],
    [hubspot("contact.propertyChange", "jobtitle", "Head of Ops")],
    [hubspot("contact.privacyDeletion")],
    [hubspot("ticket.creation"), hubspot("ticket.propertyChange", "hs_ticket_priority", "HIGH")],
    [hubspot("ticket.propertyChange", "content", "<p>It stops</p>")],
]


# -- salesforce --------------------------------------------------------------------------------------


def salesforce_xml(*records: str, organisation: str = "00D000000000001EAA") -> bytes:
    notes = "".join(
        f"<Notification><Id>04l00000000000{n}</Id>{record}</Notification>" for n, record in enumerate(records)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><s:Body>'
        '<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
        f'<OrganizationId>{organisation}</OrganizationId><ActionId>04k</ActionId><SessionId xsi:nil="true"/>'
        f"<EnterpriseUrl>https://e.example</EnterpriseUrl><PartnerUrl>https://p.example</PartnerUrl>{notes}"
        "</notifications></s:Body></s:Envelope>"
    ).encode()


def salesforce_record(kind: str, **fields: str | None) -> str:
    inner = "".join(
        f'<sf:{name} xsi:nil="true"/>' if value is None else f"<sf:{name}>{value}</sf:{name}>"
        for name, value in fields.items()
    )
    return f'<sObject xsi:type="sf:{kind}" xmlns:sf="urn:sobject.enterprise.soap.sforce.com">{inner}</sObject>'


def salesforce_opportunity(**more: str | None) -> str:
    fields = {
        "Id": "006000000000001AAA", "AccountId": "001000000000001AAA", "Amount": "72000.10",
        "CloseDate": "2026-09-30", "IsClosed": "false", "LastModifiedDate": "2026-05-04T09:00:00.000Z",
        "StageName": "Negotiation", "Type": "Renewal",
    }  # fmt: skip
    return salesforce_record("Opportunity", **(fields | more))


def salesforce_change(kind: str = "Opportunity", header: Mapping[str, Any] | None = None, **fields: Any) -> Any:
    return {
        "channel": f"/data/{kind}ChangeEvent",
        "data": {
            "schema": "s1",
            "event": {"replayId": 11},
            "payload": {
                "ChangeEventHeader": {
                    "entityName": kind, "recordIds": ["006000000000001AAA"], "changeType": "UPDATE",
                    "changeOrigin": "x", "transactionKey": "tk-1", "sequenceNumber": 2,
                    "commitTimestamp": 1777888800000, "commitNumber": 9, "commitUser": "005", "nulledFields": [],
                    "diffFields": [], "changedFields": ["StageName"], **(header or {}),
                },
                "LastModifiedDate": "2026-05-04T10:00:00.000Z", **fields,
            },
        },
    }  # fmt: skip


def salesforce_event(name: str = "Renewal_Risk__e", **fields: Any) -> Any:
    payload = {
        "CreatedDate": "2026-05-04T10:00:00.400Z", "CreatedById": "005", "Account_Id__c": "001000000000001AAA",
        "Risk__c": "High", "ARR__c": 96000.5, **fields,
    }  # fmt: skip
    about = {"EventUuid": "5b3c0e0e-0000-4000-8000-000000000001", "replayId": 3, "EventApiName": name}
    return {"channel": f"/event/{name}", "data": {"schema": "s2", "payload": payload, "event": about}}


SALESFORCE = [
    salesforce_change(StageName="Closed Won", Amount=72000.10, IsWon=True, IsClosed=True, AccountId="001A"),
    salesforce_change("Account", {"recordIds": ["001A", "001B"]}, Name="Nine", Industry="Rail", Tier__c="A"),
    salesforce_change("Contact", {"recordIds": ["003A"]}, Title="CTO", AccountId="001A", Email="ann@nine.example"),
    salesforce_change(
        "Case", {"recordIds": ["500A"], "changeType": "CREATE"}, Subject="Down", Description="<b>Down</b>",
        Priority="High", Status="New", AccountId="001A", ContactId="003A", SuppliedEmail="ann@nine.example",
    ),
    salesforce_change("Case", {"recordIds": ["500A"]}, Status="Working", IsClosed=False, AccountId="001A"),
    salesforce_change(StageName="Closed Lost", IsWon=False, IsClosed=True, AccountId="001A"),
    salesforce_change("Contract", {"recordIds": ["800A"]}, StartDate="2026-01-01", EndDate="2026-12-31"),
    salesforce_event(),
]  # fmt: skip


# -- mixpanel, amplitude -----------------------------------------------------------------------------


def mixpanel(action: str = "members", *members: Mapping[str, Any], **more: Any) -> Any:
    ann = {"mixpanel_distinct_id": "u-1", "email": "ann@nine.example", "first_name": "Ann", "company_id": "acct-9"}
    bob = {"mixpanel_distinct_id": "u-2", "email": "bob@ten.example", "first_name": "Bob", "company_id": "acct-10"}
    return {
        "action": action,
        "parameters": {
            "mixpanel_project_id": "1", "mixpanel_cohort_name": "Power users", "mixpanel_cohort_id": "8",
            "mixpanel_cohort_description": "", "mixpanel_session_id": "s1", "mixpanel_integration_id": "4",
            "page_info": {"total_pages": 1, "page_count": 1}, "members": list(members or (ann, bob)), **more,
        },
    }  # fmt: skip


MIXPANEL = [mixpanel(), mixpanel("add_members"), mixpanel("remove_members")]


def amplitude(**more: Any) -> Any:
    return {
        "event_type": "Report Exported", "user_id": "u-1", "device_id": "d-1", "amplitude_id": 1, "app": 2,
        "client_event_time": "2026-05-04 09:00:00.250000", "server_upload_time": "2026-05-04 09:00:01.000000",
        "event_id": 7, "insert_id": "ins-1", "uuid": "uu-1", "event_properties": {"format": "csv", "rows": 3},
        "user_properties": {"plan": "pro"}, "groups": {"company": ["acct-9", "acct-10"]}, "country": "France",
        "platform": "Web", **more,
    }  # fmt: skip


def amplitude_cohort(**more: Any) -> Any:
    return {
        "cohort_name": "Activated", "cohort_id": "co1", "in_cohort": True, "computed_time": "1777888800",
        "message_id": "m1::enter::0", "users": [{"user_id": "u-1"}, {"user_id": "u-2"}], **more,
    }  # fmt: skip


AMPLITUDE = [
    amplitude(),
    amplitude(user_id=None, insert_id=None, groups={}, event_properties={"company_id": "acct-9"}),
    amplitude_cohort(),
]


# -- surveys -----------------------------------------------------------------------------------------


def delighted(kind: str = "survey_response.created", **more: Any) -> Any:
    data = {
        "id": "701", "survey_type": "nps", "score": 0, "comment": None, "permalink": "https://d.example/r",
        "person": {"id": "44", "email": "ann@nine.example", "name": "Ann", "created_at": 1777000000},
        "created_at": 1777888800, "updated_at": 1777888900, "notes": [], "tags": [], "additional_answers": [],
        "person_properties": {"account_id": "acct-9", "Plan": "Pro"}, **more,
    }  # fmt: skip
    return {"event_type": kind, "event_id": f"ev-{kind}", "event_data": data}


def delighted_unsubscribe() -> Any:
    data = {"person_id": "44", "email": "ann@nine.example", "name": "Ann", "unsubscribed_at": 1777888800}
    return {"event_type": "unsubscribe.created", "event_id": "ev-un", "event_data": data}


DELIGHTED = [
    delighted(),
    delighted("survey_response.updated", comment="Easy <b>setup</b>"),
    delighted_unsubscribe(),
]


def asknicely(count: Any = 1, **question: Any) -> Any:
    return {
        "count": count,
        "person": {
            "id": "51", "name": "Ann", "firstname": "Ann", "lastname": "N", "email": "ann@nine.example",
            "created": "1770000000", "segment": "smb", "account_id": "acct-9",
        },
        "question": {
            "id": "900", "score": "0", "comment": "", "sent": "1777888000", "opened": "1777888400",
            "responded": "1777888800", "segment": "smb", "deliverymethod": "email", "survey_template": "Default",
            "review_site": None, "theme": None, "life_cycle": None, "ai_question_1": "x", "scorecard1": "y",
            **question,
        },
    }  # fmt: skip


ASKNICELY = [asknicely(), asknicely(2, comment="Mobile needs work", responded="1777888900")]


# -- customerio, gong --------------------------------------------------------------------------------


def customerio(thing: str = "email", metric: str = "opened", **data: Any) -> Any:
    told = {
        "action_id": 1, "campaign_id": 2, "content_id": 3, "customer_id": "u-1", "delivery_id": "dlv==",
        "headers": None, "identifiers": {"cio_id": "a3", "email": "ann@nine.example", "id": "u-1"},
        "journey_id": "j", "proxied": False, "recipient": "ann@nine.example", "subject": "Hello", **data,
    }  # fmt: skip
    return {"data": told, "event_id": "ev-1", "object_type": thing, "metric": metric, "timestamp": 1777888800}


_BY_CIO = {"identifiers": {"cio_id": "a3", "email": None, "id": None}, "customer_id": None}
CUSTOMERIO = [
    customerio(),
    customerio("sms", "sent", **_BY_CIO),
    customerio("in_app", "clicked", identifiers={}),
    customerio("customer", "unsubscribed", email_address="ann@nine.example", recipient=None, identifiers={}),
]


def gong(test: bool = False, scope: str = "External", **more: Any) -> Any:
    crm = {"objectType": "Account", "objectId": "001A", "fields": [{"name": "Name", "value": "Nine"}]}
    deal = {"objectType": "Opportunity", "objectId": "006A", "fields": []}
    lead = {"objectType": "Contact", "objectId": "003A", "fields": []}
    call = {
        "metaData": {
            "id": "5500", "url": "https://g.example", "title": "Review", "scheduled": "2026-05-04T10:00:00-08:00",
            "started": "2026-05-04T01:00:00-08:00", "duration": 1805, "primaryUserId": "774", "media": "Video",
            "direction": "Conference", "system": "Zoom", "scope": scope, "language": "fra",
        },
        "context": [{"system": "Salesforce", "objects": [crm, deal]}],
        "parties": [
            {
                "id": "p1", "emailAddress": "csm@vendor.example", "name": "Csm", "title": "CSM", "userId": "774",
                "speakerId": "s1", "affiliation": "Internal", "methods": ["Invitee"], "context": [],
            },
            {
                "id": "p2", "emailAddress": "ann@nine.example", "name": "Ann", "title": "Ops", "userId": None,
                "speakerId": "s2", "affiliation": "External", "methods": ["Attendee"],
                "context": [{"system": "HubSpot", "objects": [lead]}],
            },
            {
                "id": "p3", "emailAddress": "bob@ten.example", "name": "Bob", "title": None, "userId": None,
                "speakerId": None, "affiliation": "External", "methods": [], "context": [],
            },
        ],
        "content": {"trackers": [{"name": "Pricing", "count": 2}], "topics": []},
        "interaction": {"speakers": [{"id": "p1", "talkTime": 7.5}]},
        "collaboration": {"publicComments": []}, "media": None, **more,
    }  # fmt: skip
    return {"callData": call, "isTest": test}


_IN_PARTY = gong(context=[])
_IN_PARTY["callData"]["parties"][1]["context"][0]["objects"].append({"objectType": "Company", "objectId": "55"})
GONG = [gong(), gong(context=[]), _IN_PARTY, gong(scope="Internal"), gong(test=True)]


# -- stripe ------------------------------------------------------------------------------------------


def stripe(kind: str, thing: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> Any:
    data: dict[str, Any] = {"object": dict(thing)}
    if previous is not None:
        data["previous_attributes"] = dict(previous)
    return {
        "id": "evt_1", "object": "event", "api_version": "2025-06-30.basil", "created": 1777888800, "data": data,
        "livemode": True, "pending_webhooks": 1, "request": {"id": None, "idempotency_key": None}, "type": kind,
    }  # fmt: skip


def stripe_item(amount: Any = "4900", quantity: int = 20, interval: str = "month", **more: Any) -> Any:
    price: dict[str, Any] = {
        "id": "price_1", "object": "price", "active": True, "billing_scheme": "per_unit", "created": 1,
        "currency": "usd", "livemode": True, "lookup_key": None, "metadata": {}, "nickname": None,
        "product": "prod_1", "tax_behavior": "unspecified", "type": "recurring", "unit_amount": 4900,
        "unit_amount_decimal": amount,
        "recurring": {
            "interval": interval, "interval_count": 1, "meter": None, "trial_period_days": None,
            "usage_type": "licensed",
        },
    }  # fmt: skip
    for name in ("interval_count", "usage_type"):
        if name in more:
            price["recurring"][name] = more.pop(name)
    return {
        "id": "si_1", "object": "subscription_item", "created": 1, "current_period_start": 1, "metadata": {},
        "current_period_end": 1780000000, "price": price | more, "quantity": quantity, "subscription": "sub_1",
    }  # fmt: skip


def stripe_subscription(*items: Any, **more: Any) -> Any:
    return {
        "id": "sub_1", "object": "subscription", "application": None, "automatic_tax": {"enabled": False},
        "billing_cycle_anchor": 1, "cancel_at": None, "cancel_at_period_end": False, "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": "too_expensive", "reason": None},
        "collection_method": "charge_automatically", "created": 1, "currency": "usd", "customer": "cus_9",
        "days_until_due": None, "discounts": [], "ended_at": None,
        "items": {
            "object": "list", "data": list(items or (stripe_item(),)), "has_more": False, "total_count": 1,
            "url": "/v1",
        },
        "latest_invoice": "in_1", "livemode": True, "metadata": {"account_id": "acct-9"}, "start_date": 1,
        "status": "active", "trial_end": None, "trial_start": None, **more,
    }  # fmt: skip


def stripe_invoice(**more: Any) -> Any:
    details = {"subscription": "sub_1", "metadata": {"account_id": "acct-9"}}
    return {
        "id": "in_1", "object": "invoice", "account_name": "Vendor", "amount_due": 98000, "amount_paid": 98000,
        "amount_remaining": 0, "attempt_count": 2, "attempted": True, "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically", "created": 1, "currency": "usd", "customer": "cus_9",
        "customer_email": "billing@nine.example", "next_payment_attempt": 2, "period_end": 3, "period_start": 1,
        "parent": {"type": "subscription_details", "subscription_details": details}, "status": "open",
        "subtotal": 98000, "total": 98000, **more,
    }  # fmt: skip


def stripe_customer(**more: Any) -> Any:
    return {
        "id": "cus_9", "object": "customer", "name": "Nine", "email": "billing@nine.example", "currency": "eur",
        "address": {"country": "FR"}, "metadata": {"account_id": "acct-9"}, **more,
    }  # fmt: skip


STRIPE = [
    stripe("customer.subscription.created", stripe_subscription()),
    stripe("customer.subscription.updated", stripe_subscription(stripe_item(None, unit_amount=4900, currency="usd"),
           currency=None, metadata={}), {"items": {"data": []}, "latest_invoice": "in_0"}),
    stripe("customer.subscription.updated", stripe_subscription(cancel_at_period_end=True),
           {"cancel_at_period_end": False}),
    stripe("customer.subscription.updated", stripe_subscription(cancel_at=1781000000), {"cancel_at": None}),
    stripe("customer.subscription.created", stripe_subscription(stripe_item(usage_type="metered"), stripe_item())),
    stripe("customer.subscription.deleted", stripe_subscription(status="canceled")),
    stripe("invoice.paid", stripe_invoice()),
    stripe("invoice.payment_failed", stripe_invoice()),
    stripe("customer.created", stripe_customer()),
]  # fmt: skip


# -- segment, slack ----------------------------------------------------------------------------------


def segment(kind: str = "track", **more: Any) -> Any:
    named: dict[str, Any] = {"track": {"event": "Report Exported"}, "identify": {"traits": {"plan": "pro"}}}
    return {
        "type": kind, "messageId": f"m-{kind}", "userId": "u-1", "anonymousId": "an-1", "channel": "server",
        "context": {
            "ip": "192.0.2.1", "userAgent": "x", "page": {"url": "https://a.example"}, "groupId": "acct-9",
            "library": {"name": "l", "version": "1"},
        },
        "integrations": {"All": True}, "originalTimestamp": "2026-05-04T09:00:00.000Z", "projectId": "p",
        "receivedAt": "2026-05-04T09:00:02.000Z", "sentAt": "2026-05-04T09:00:01.000Z",
        "timestamp": "2026-05-04T09:00:01.500Z", "version": 2, "writeKey": "wk",
        **({"properties": {"format": "csv"}} if kind == "track" else {}), **named.get(kind, {}), **more,
    }  # fmt: skip


SEGMENT = [
    segment(),
    segment(anonymousId="an-2", userId=None),
    segment("identify"),
    segment("group", groupId="acct-9", traits={"name": "Nine"}),
    segment("track", originalTimestamp=None),
]


def slack(*actions: Any, **more: Any) -> Any:
    button = {
        "action_id": "ack_alert", "block_id": "b1", "text": {"type": "plain_text", "text": "Ok"},
        "value": "alert-1", "type": "button", "action_ts": "1777888800.123456",
    }  # fmt: skip
    return {
        "type": "block_actions", "user": {"id": "U1", "username": "csm", "name": "csm", "team_id": "T1"},
        "api_app_id": "A1", "token": "t", "container": {"type": "message", "message_ts": "1777888700.000200",
                                                       "channel_id": "C1", "is_ephemeral": False},
        "trigger_id": "1.2.3", "team": {"id": "T1", "domain": "d"}, "enterprise": None,
        "is_enterprise_install": False, "channel": {"id": "C1", "name": "alerts"},
        "message": {"text": "Health alert", "ts": "1777888700.000200"}, "state": {"values": {}},
        "response_url": "https://hooks.example/1", "actions": list(actions or (button,)), **more,
    }  # fmt: skip


SLACK = [
    slack(),
    slack(container={}),
    slack({"action_id": "task.complete", "action_ts": "1777888801.000001", "selected_option": {"value": "t-1"}}),
]


PAYLOADS: dict[str, list[Any]] = {
    "amplitude": AMPLITUDE,
    "asknicely": ASKNICELY,
    "customerio": CUSTOMERIO,
    "delighted": DELIGHTED,
    "gong": GONG,
    "hubspot": HUBSPOT,
    "intercom": INTERCOM,
    "mixpanel": MIXPANEL,
    "salesforce": SALESFORCE,
    "segment": SEGMENT,
    "slack": SLACK,
    "stripe": STRIPE,
    "zendesk": ZENDESK,
}


def encoder(tool: str) -> Callable[[Any], bytes]:
    return as_form if tool == "slack" else as_json


def payloads(tool: str) -> list[Any]:
    return deepcopy(PAYLOADS[tool])


# -- signatures --------------------------------------------------------------------------------------


def _hmac(secret: str, message: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(secret.encode(), message, algorithm).digest()


def signed(tool: str, body: bytes, secret: str = SECRET, at: datetime = NOW) -> dict[str, str]:
    """The headers with which a tool signs a body; for tools that sign nothing, a static token."""
    seconds = str(int(at.timestamp()))
    if tool == "zendesk":
        stamp = at.isoformat().replace("+00:00", "Z")
        digest = base64.b64encode(_hmac(secret, stamp.encode() + body)).decode()
        return {"x-zendesk-webhook-signature": digest, "x-zendesk-webhook-signature-timestamp": stamp}
    if tool == "intercom":
        return {"x-hub-signature": f"sha1={_hmac(secret, body, 'sha1').hex()}"}
    if tool == "segment":
        return {"x-signature": _hmac(secret, body, "sha1").hex()}
    if tool == "delighted":
        return {"x-delighted-webhook-signature": f"sha256={_hmac(secret, body).hex()}"}
    if tool == "hubspot":
        stamp = str(int(at.timestamp() * 1000))
        message = b"POST" + f"{PUBLIC_URL}/webhooks/hubspot".encode() + body + stamp.encode()
        digest = base64.b64encode(_hmac(secret, message)).decode()
        return {"x-hubspot-signature-v3": digest, "x-hubspot-request-timestamp": stamp}
    if tool == "stripe":
        return {"stripe-signature": f"t={seconds},v1={_hmac(secret, f'{seconds}.'.encode() + body).hex()}"}
    if tool in ("slack", "customerio"):
        digest = _hmac(secret, f"v0:{seconds}:".encode() + body).hex()
        if tool == "slack":
            return {"x-slack-signature": f"v0={digest}", "x-slack-request-timestamp": seconds}
        return {"x-cio-signature": digest, "x-cio-timestamp": seconds}
    return {"x-webhook-token": secret}


def a_jwt(key: Any, body: bytes, url: str, algorithm: str = "RS256", **claims: Any) -> str:
    """A JWT as Gong signs a delivery; `key` is a private key of `cryptography`."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    told = {"webhook_url": url, "body_sha256": hashlib.sha256(body).hexdigest(), **claims}
    parts = [_url64(as_json({"alg": algorithm, "typ": "JWT"})), _url64(as_json(told))]
    signature = key.sign(".".join(parts).encode(), PKCS1v15(), SHA256())
    return ".".join([*parts, _url64(signature)])


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def a_path(tool: str) -> str:
    return f"/webhooks/{quote(tool)}"
