"""Made-up records of polled tools, and an account of each tool's that lists them as its API does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)


def salesforce_account(id: str = "001A", at: str = "2026-05-04T09:00:00.000+0000", **more: Any) -> dict[str, Any]:
    return {
        "attributes": {"type": "Account", "url": f"/services/data/v61.0/sobjects/Account/{id}"},
        "Id": id, "SystemModstamp": at, "Name": "Nine Ltd", "Industry": "Retail", "BillingCountry": "FR",
        "CurrencyIsoCode": "EUR", "ARR__c": 120000.5, **more,
    }  # fmt: skip


def salesforce_opportunity(id: str = "006A", account: str | None = "001A", **more: Any) -> dict[str, Any]:
    return {
        "attributes": {"type": "Opportunity", "url": f"/services/data/v61.0/sobjects/Opportunity/{id}"},
        "Id": id, "SystemModstamp": "2026-05-04T09:10:00.000+0000", "AccountId": account,
        "StageName": "Negotiation/Review", "Amount": 72000.10, "CloseDate": "2026-06-30", "Type": "Renewal",
        "IsClosed": False, "IsWon": False, "CurrencyIsoCode": "USD", **more,
    }  # fmt: skip


def salesforce_contact(id: str = "003A", **more: Any) -> dict[str, Any]:
    return {
        "attributes": {"type": "Contact", "url": f"/services/data/v61.0/sobjects/Contact/{id}"},
        "Id": id, "SystemModstamp": "2026-05-04T09:20:00.000+0000", "AccountId": "001A", "Title": "Head of Ops",
        "Email": "ann@nine.example", **more,
    }  # fmt: skip


def salesforce_task(id: str = "00TA", kind: str = "Call", **more: Any) -> dict[str, Any]:
    return {
        "attributes": {"type": "Task", "url": f"/services/data/v61.0/sobjects/Task/{id}"},
        "Id": id, "SystemModstamp": "2026-05-04T09:40:00.000+0000", "AccountId": "001A", "WhoId": "003A",
        "OwnerId": "005A", "TaskSubtype": kind, "CallType": "Outbound", "CallDurationInSeconds": 300, "IsClosed": True,
        "CompletedDateTime": "2026-05-04T09:30:00.000+0000", "CreatedDate": "2026-05-03T08:00:00.000+0000", **more,
    }  # fmt: skip


def hubspot(kind: str, id: str, at: str = "2026-05-04T09:00:00.123Z", **properties: Any) -> dict[str, Any]:
    changed = "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"
    return {
        "id": id,
        "properties": {"createdate": "2026-01-02T08:00:00Z", "hs_object_id": id, changed: at, **properties},
        "createdAt": "2026-01-02T08:00:00Z", "updatedAt": at, "archived": False,
    }  # fmt: skip


def hubspot_company(id: str = "501", **more: Any) -> dict[str, Any]:
    told = {"name": "Nine Ltd", "domain": "nine.example", "industry": "RETAIL", "country": "France",
            "lifecyclestage": "customer", "annual_value": "120000.5", **more}  # fmt: skip
    return hubspot("companies", id, **told)


def hubspot_deal(id: str = "601", company: str | None = "501", **more: Any) -> dict[str, Any]:
    told = {"dealname": "Renewal", "dealstage": "closedwon", "amount": "72000.10", "deal_currency_code": "EUR",
            "closedate": "2026-06-30T10:00:00Z", "dealtype": "renewal", "hs_primary_associated_company": company,
            **more}  # fmt: skip
    return hubspot("deals", id, **told)


def hubspot_contact(id: str = "701", **more: Any) -> dict[str, Any]:
    told = {"firstname": "Ann", "lastname": "Nine", "email": "ann@nine.example", "jobtitle": "Head of Ops",
            "associatedcompanyid": "501", **more}  # fmt: skip
    return hubspot("contacts", id, **told)


def hubspot_ticket(id: str = "801", **more: Any) -> dict[str, Any]:
    told = {"subject": "Export fails", "content": "<p>The export <b>fails</b></p>", "hs_ticket_priority": "HIGH",
            "hs_pipeline_stage": "4", "closed_date": "2026-05-04T08:59:00Z", "hs_primary_company_id": "501",
            **more}  # fmt: skip
    return hubspot("tickets", id, **told)


def chorus(id: str = "E1", kind: str = "meeting", **more: Any) -> dict[str, Any]:
    return {
        "engagement_id": id, "engagement_type": kind, "account_id": "001A", "account_name": "Nine Ltd",
        "opportunity_id": "006A", "opportunity_name": "Renewal", "subject": "Check-in", "date_time": 1777885200.0,
        "duration": 1500.5, "url": "https://chorus.example/E1", "user_id": 110022, "user_name": "Cleo",
        "user_email": "cleo@us.example", "initiator": "organizer", "languages": ["en"], "no_show": False,
        "processing_state": "completed", "num_cust_questions": 4, "num_engaging_questions": 6,
        "meeting_summary": "They were happy", "action_items": ["send a quote"],
        "participants": [
            {"person_id": 1, "type": "rep", "name": "Cleo", "email": "cleo@us.example", "company_name": "Us"},
            {"person_id": 2, "type": "cust", "name": "Ann", "email": "ann@nine.example", "company_name": "Nine",
             "title": "Head of Ops"},
        ],
        "tracker_matches": [{"id": "t1", "name": "Pricing", "type": "topic", "num_matches": 2}], **more,
    }  # fmt: skip


def mixpanel(id: str | None = "aa01", event: str = "Report Exported", **more: Any) -> dict[str, Any]:
    properties = {
        "time": 1777885200, "distinct_id": "user-14", "$insert_id": id, "company_id": "acct-4", "format": "csv",
        "$browser": "Firefox", "$city": "Lyon", "$device_id": "d1", "mp_country_code": "FR",
        "mp_processing_time_ms": 1777885212345, **more,
    }  # fmt: skip
    return {"event": event, "properties": {name: value for name, value in properties.items() if value is not None}}


RECORDS: Mapping[tuple[str, str], list[dict[str, Any]]] = {
    ("salesforce", "accounts"): [salesforce_account(), salesforce_account("001B", Name=None, Industry=None)],
    ("salesforce", "opportunities"): [
        salesforce_opportunity(),
        salesforce_opportunity("006B", "001B", IsClosed=True, IsWon=True, Amount=None, Type="Upsell"),
        salesforce_opportunity("006C", None, IsClosed=True),
    ],
    ("salesforce", "contacts"): [salesforce_contact(), salesforce_contact("003B", AccountId="001B", Email=None)],
    ("salesforce", "tasks"): [
        salesforce_task(),
        salesforce_task("00TB", "Email", AccountId="001B", CallDurationInSeconds=None),
        salesforce_task("00TC", CompletedDateTime=None, WhoId=None),
    ],
    ("hubspot", "companies"): [hubspot_company(), hubspot_company("502", name=None, domain=None)],
    ("hubspot", "deals"): [hubspot_deal(), hubspot_deal("602", "502", dealstage="open"), hubspot_deal("603", None)],
    ("hubspot", "contacts"): [hubspot_contact(), hubspot_contact("702", associatedcompanyid=None, jobtitle=None)],
    ("hubspot", "tickets"): [
        hubspot_ticket(),
        hubspot_ticket("802", hs_pipeline_stage="1", closed_date=None, hs_primary_company_id="502"),
    ],
    ("chorus", "engagements"): [
        chorus(),
        chorus("E2", "dialer", account_id="001B", languages=["en", "fr"], duration=None),
        chorus("E3", account_id="", no_show=True),
    ],
    ("mixpanel", "events"): [
        mixpanel(),
        mixpanel("aa02", company_id="acct-5", distinct_id="user-15"),
        mixpanel("aa03", "$mp_web_page_view", current_url_path="/reports"),
    ],
}


def records(tool: str, feed: str) -> list[dict[str, Any]]:
    return deepcopy(RECORDS[tool, feed])


def as_json(record: Any) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def spread(tool: str, feed: str, count: int, until: datetime = NOW, width: timedelta = timedelta(hours=8)) -> list[Any]:
    """So many records of a feed, one after the other over the time before `until`, of two accounts."""
    found = []
    for n in range(count):
        at = until - width + n * (width / max(1, count))
        record = records(tool, feed)[n % 2]
        if tool == "salesforce":
            record |= {"Id": f"{record['Id'][:3]}{n:05}", "SystemModstamp": f"{at:%Y-%m-%dT%H:%M:%S}.000+0000"}
            if feed == "tasks":
                record["CompletedDateTime"] = record["SystemModstamp"]
        elif tool == "hubspot":
            changed = "lastmodifieddate" if feed == "contacts" else "hs_lastmodifieddate"
            stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
            record |= {"id": str(1000 + n), "updatedAt": stamp}
            record["properties"] |= {"hs_object_id": str(1000 + n), changed: stamp}
        elif tool == "chorus":
            record |= {"engagement_id": f"E{n:05}", "date_time": at.timestamp()}
        else:
            record["properties"] |= {"$insert_id": f"i{n:05}", "time": int(at.timestamp())}
        found.append(record)
    return found


def time_of(tool: str, feed: str, record: Any) -> datetime:
    """When the tool's list says that a record is."""
    if tool == "salesforce":
        return datetime.fromisoformat(record["SystemModstamp"])
    if tool == "hubspot":
        return datetime.fromisoformat(record["updatedAt"])
    seconds = record["date_time"] if tool == "chorus" else record["properties"]["time"]
    return datetime.fromtimestamp(seconds, UTC)


def id_of(tool: str, record: Any) -> str:
    if tool == "mixpanel":
        return str(record["properties"]["$insert_id"])
    return str(record[{"salesforce": "Id", "hubspot": "id", "chorus": "engagement_id"}[tool]])


class Account:
    """A tool's account: answers an API call from its records, `per_page` at a time, as its documents say."""

    def __init__(self, tool: str, lists: Mapping[str, list[Any]], per_page: int = 3, most: int = 10_000) -> None:
        self.tool, self.lists, self.per_page, self.most = tool, {k: list(v) for k, v in lists.items()}, per_page, most
        self._locators: dict[str, tuple[str, list[Any], int]] = {}

    def answer(self, path: str, query: Mapping[str, str], body: Any) -> bytes:
        found = getattr(self, f"_{self.tool}")(path, query, body)
        return found if isinstance(found, bytes) else as_json(found)

    def _window(self, feed: str, start: datetime, end: datetime) -> list[Any]:
        return [one for one in self.lists[feed] if start <= time_of(self.tool, feed, one) < end]

    def _salesforce(self, path: str, query: Mapping[str, str], body: Any) -> Any:
        if "q" in query:
            words = query["q"].replace(",", " ").split()
            named = {"Account": "accounts", "Opportunity": "opportunities", "Contact": "contacts", "Task": "tasks"}
            feed, asked = named[words[words.index("FROM") + 1]], words[1 : words.index("FROM")]
            start, end = (datetime.fromisoformat(words[n + 1]) for n, word in enumerate(words) if word in (">=", "<"))
            found = [
                {name: value for name, value in one.items() if name in asked or name == "attributes"}
                for one in sorted(self._window(feed, start, end), key=lambda one: (one["SystemModstamp"], one["Id"]))
            ]
            at, locator = 0, f"01g{len(self._locators):05}"
        else:
            locator, _, text = path.rpartition("/")[2].partition("-")
            feed, found, _ = self._locators[locator]
            at = int(text)
        self._locators[locator] = (feed, found, at)
        more = at + self.per_page
        answer = {"totalSize": len(found), "done": more >= len(found), "records": found[at:more]}
        if more < len(found):
            answer["nextRecordsUrl"] = f"/services/data/v61.0/query/{locator}-{more}"
        return answer

    def _hubspot(self, path: str, query: Mapping[str, str], body: Any) -> Any:
        feed = path.split("/")[4]
        limits = {each["operator"]: int(each["value"]) for each in body["filterGroups"][0]["filters"]}
        start, end = (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=limits[name]) for name in ("GTE", "LT"))
        found = [one for one in self._window(feed, start, end) if int(one["id"]) > limits.get("GT", 0)]
        found.sort(key=lambda one: int(one["id"]))
        at = int(body.get("after", 0))
        assert at + self.per_page <= self.most, "HubSpot refuses what is beyond the 10,000th"
        answer: dict[str, Any] = {"total": len(found), "results": found[at : at + self.per_page]}
        if at + self.per_page < len(found):
            answer["paging"] = {"next": {"after": str(at + self.per_page)}}
        return answer

    def _chorus(self, path: str, query: Mapping[str, str], body: Any) -> Any:
        start, end = (datetime.fromisoformat(query[name]) for name in ("min_date", "max_date"))
        found = self._window("engagements", start, end)
        at = int(query.get("continuation_key", 0))
        more = at + self.per_page
        key = str(more) if at < len(found) else None  # it ends with an empty page
        return {"engagements": found[at:more], "continuation_key": key}

    def _mixpanel(self, path: str, query: Mapping[str, str], body: Any) -> bytes:
        assert query["from_date"] == query["to_date"]
        start = datetime.fromisoformat(query["from_date"]).replace(tzinfo=UTC)
        found = self._window("events", start, start + timedelta(days=1))
        return b"".join(as_json(one) + b"\n" for one in found)
