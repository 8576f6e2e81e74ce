"""Scores written back into other tools: how each takes them, and what its answer says of each account.

Pure: what to call (`Tool.call`) and how to read what came back (`Tool.read`). A write sets the latest value, so one of
unclear outcome is simply made again. Nothing here creates a company that a tool does
not have, but Customer.io's objects.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from services.notify.settings import Fields, WriteBack
from services.notify.sinks import Outcome
from services.notify.text import one_line

SENT = Outcome("sent")
BUSY = frozenset(("UNABLE_TO_LOCK_ROW", "REQUEST_LIMIT_EXCEEDED", "SERVER_UNAVAILABLE", "QUERY_TIMEOUT"))
"""Salesforce's words for what goes by itself."""
MOST_REASON = 300


@dataclass(frozen=True, slots=True)
class Write:
    """The value wanted for one account; `remote_id` is what the tool calls it."""

    account_id: str
    remote_id: str
    score: int | None
    band: str
    why: str
    computed_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    def shown(self) -> dict[str, Any]:
        """Without its secrets, for people."""
        body = json.loads(self.body) if self.body else None
        hidden = {name: "…" if name == "authorization" else value for name, value in self.headers.items()}
        return {"method": self.method, "url": self.url, "headers": hidden, "body": body}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a call: as a whole, and of the accounts that fared otherwise.

    `one_by_one`: the batch was refused for something in it, so each is to be tried alone.
    """

    whole: Outcome
    apart: Mapping[str, Outcome] = field(default_factory=dict)
    one_by_one: bool = False

    def of(self, write: Write) -> Outcome:
        return self.apart.get(write.account_id, self.whole)


class Tool(Protocol):
    """A tool: `most` accounts in one call; `namespace` of the external ids it knows companies by."""

    @property
    def most(self) -> int: ...

    def call(self, writes: Sequence[Write], token: str) -> Call: ...

    def read(self, answer: Answer, writes: Sequence[Write]) -> Written:
        """Of a 2xx answer."""
        ...


def read(tool: Tool, answer: Answer, writes: Sequence[Write], now: float) -> Written:
    """What an answer says of a call, whatever the tool; `now` in seconds since 1970."""
    whole = judged(answer, now)
    if whole.what == "sent":
        return tool.read(answer, writes)
    if whole.what == "failed" and not whole.gone and len(writes) > 1:
        return Written(Outcome("refused", whole.reason, after=0.0), one_by_one=True)
    return Written(whole)


def judged(answer: Answer, now: float) -> Outcome:
    """What the status of an answer says, whatever was asked."""
    if 200 <= answer.status < 300:
        return SENT
    reason = f"HTTP {answer.status}{_said(answer)}"
    if answer.status == 410:
        return Outcome("failed", reason, gone=True)
    if answer.status == 429 or answer.status == 503:
        return Outcome("refused", reason, after=pause_of(answer.headers, now))
    if answer.status >= 500:
        return Outcome("unclear", reason)
    if answer.status in (401, 403, 408) or 300 <= answer.status < 400:  # what people can mend, or time
        return Outcome("refused", reason)
    return Outcome("failed", reason)


def pause_of(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait: `Retry-After`, else Intercom's `X-RateLimit-Reset`; None when the tool does not say."""
    said = {name.lower(): value for name, value in headers.items()}
    try:
        if "retry-after" in said:
            return max(0.0, float(said["retry-after"]))
        if "x-ratelimit-reset" in said:
            return max(0.0, float(said["x-ratelimit-reset"]) - now)
    except ValueError:
        pass
    return None


def _said(answer: Answer) -> str:
    body = answer.json()
    first = body[0] if isinstance(body, list) and body else body
    if not isinstance(first, dict):
        return ""
    errors = first.get("errors")
    inner = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else first
    code = inner.get("errorCode") or inner.get("category") or inner.get("code") or ""
    message = inner.get("message") or ""
    return one_line(": " + " ".join(str(one) for one in (code, message) if one), MOST_REASON) if code or message else ""


def values(write: Write, fields: Fields, nothing: Any = None) -> dict[str, Any]:
    """Field → value; `nothing` is how the tool is told that there is none."""
    found: dict[str, Any] = {}
    if fields.score:
        found[fields.score] = nothing if write.score is None else write.score
    if fields.band:
        found[fields.band] = write.band
    if fields.reason:
        found[fields.reason] = one_line(write.why, fields.longest_reason)
    return found


def encoded(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


JSON = {"content-type": "application/json", "user-agent": "hune"}


@dataclass(frozen=True, slots=True)
class HubSpot:
    """`POST /crm/v3/objects/companies/batch/update`: 100 companies; 207 names those it could not (HubSpot docs:

    api-reference/legacy/crm/objects/companies/batch/update-companies).
    """

    rules: WriteBack
    most: int = 100

    def call(self, writes: Sequence[Write], token: str) -> Call:
        unique = {"idProperty": self.rules.id_property} if self.rules.id_property else {}
        inputs = [{"id": one.remote_id, **unique, "properties": _texts(one, self.rules.fields)} for one in writes]
        base = self.rules.url or "https://api.hubapi.com"
        head = JSON | {"authorization": f"Bearer {token}"}
        return Call("POST", f"{base}/crm/v3/objects/companies/batch/update", head, encoded({"inputs": inputs}))

    def read(self, answer: Answer, writes: Sequence[Write]) -> Written:
        if answer.status != 207:
            return Written(SENT)
        body = answer.json()
        if not isinstance(body, dict):
            return Written(Outcome("unclear", "an answer that is no JSON"))
        done = {str(one.get("id")) for one in body.get("results") or ()}
        errors = body.get("errors") or []
        named = {str(id): error for error in errors for ids in (error.get("context") or {}).values() for id in ids}
        apart: dict[str, Outcome] = {}
        unnamed = False
        for one in writes:
            if one.remote_id in named:
                error = named[one.remote_id]
                words = f"{error.get('category', '')}: {error.get('message', '')}"
                apart[one.account_id] = Outcome("failed", one_line(words, MOST_REASON))
            elif one.remote_id not in done and len(done) + len(named) < len(writes):
                unnamed = True
                apart[one.account_id] = Outcome("refused", "HTTP 207: not among what was done", after=0.0)
        if unnamed and len(writes) == 1:
            return Written(Outcome("failed", "HTTP 207: not among what was done"))
        return Written(SENT, apart, one_by_one=unnamed)


def _texts(write: Write, fields: Fields) -> dict[str, str]:
    """HubSpot takes every value as text; an empty one clears the property."""
    return {name: str(value) for name, value in values(write, fields, nothing="").items()}


@dataclass(frozen=True, slots=True)
class Salesforce:
    """`PATCH /services/data/vXX.X/composite/sobjects`, `allOrNone` false: a SaveResult for each, in order

    (REST API guide, resources-composite-sobjects-collections-update; up to 200).
    """

    rules: WriteBack
    most: int = 200

    def call(self, writes: Sequence[Write], token: str) -> Call:
        kind = {"attributes": {"type": "Account"}}
        records = [{**kind, "id": one.remote_id, **values(one, self.rules.fields)} for one in writes]
        url = f"{self.rules.url}/services/data/v{self.rules.api_version or '62.0'}/composite/sobjects"
        head = JSON | {"authorization": f"Bearer {token}"}
        return Call("PATCH", url, head, encoded({"allOrNone": False, "records": records}))

    def read(self, answer: Answer, writes: Sequence[Write]) -> Written:
        rows = answer.json()
        if not isinstance(rows, list) or len(rows) != len(writes):
            return Written(Outcome("unclear", "an answer without a result for each account"))
        apart: dict[str, Outcome] = {}
        for one, row in zip(writes, rows, strict=True):
            if not row.get("success"):
                error = (row.get("errors") or [{}])[0]
                code = str(error.get("statusCode", ""))
                words = one_line(f"{code}: {error.get('message', '')}", MOST_REASON)
                apart[one.account_id] = Outcome("refused" if code in BUSY else "failed", words)
        return Written(SENT, apart)


@dataclass(frozen=True, slots=True)
class Intercom:
    """`PUT /companies/{id}` with `custom_attributes`, one company a call (reference, update-a-company)."""

    rules: WriteBack
    most: int = 1

    def call(self, writes: Sequence[Write], token: str) -> Call:
        (one,) = writes
        base = self.rules.url or "https://api.intercom.io"
        version = {"intercom-version": self.rules.api_version or "2.11"}
        head = JSON | version | {"authorization": f"Bearer {token}"}
        body = {"custom_attributes": values(one, self.rules.fields)}
        return Call("PUT", f"{base}/companies/{quote(one.remote_id, safe='')}", head, encoded(body))

    def read(self, answer: Answer, writes: Sequence[Write]) -> Written:
        return Written(SENT)


@dataclass(frozen=True, slots=True)
class CustomerIo:
    """`POST /api/v2/batch` of the Track API, objects by `identify`; 207 names by `batch_index` those it refused

    (docs.customer.io/api/track, 500 KB a request).
    """

    rules: WriteBack
    most: int = 100

    def call(self, writes: Sequence[Write], token: str) -> Call:
        kind = self.rules.object_type_id or "1"
        batch = [
            {
                "type": "object",
                "action": "identify",
                "identifiers": {"object_type_id": kind, "object_id": one.remote_id},
                "attributes": values(one, self.rules.fields),
            }
            for one in writes
        ]
        base = self.rules.url or "https://track.customer.io"
        head = JSON | {"authorization": f"Basic {base64.b64encode(token.encode()).decode()}"}
        return Call("POST", f"{base}/api/v2/batch", head, encoded({"batch": batch}))

    def read(self, answer: Answer, writes: Sequence[Write]) -> Written:
        body = answer.json() if answer.status == 207 else None
        apart: dict[str, Outcome] = {}
        for error in (body or {}).get("errors") or ():
            place = error.get("batch_index")
            if not isinstance(place, int) or not 0 <= place < len(writes):
                return Written(Outcome("unclear", "HTTP 207: an error that names no account"))
            words = f"{error.get('reason', '')} {error.get('field', '')}: {error.get('message', '')}"
            apart[writes[place].account_id] = Outcome("failed", one_line(words, MOST_REASON))
        return Written(SENT, apart)


TOOLS: Mapping[str, type[HubSpot] | type[Salesforce] | type[Intercom] | type[CustomerIo]] = {
    "hubspot": HubSpot, "salesforce": Salesforce, "intercom": Intercom, "customerio": CustomerIo,
}  # fmt: skip


def remote_id(account_id: str, linked: str | None, rules: WriteBack) -> str | None:
    """What the tool calls an account; None: nobody said, and nothing is guessed."""
    if rules.id_from == "link":
        return linked or None
    return account_id.removeprefix(rules.id_prefix) or None if account_id.startswith(rules.id_prefix) else None
