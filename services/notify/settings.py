"""Notify's knobs: `config/notify.yaml` for who hears what, `HUNE_SLACK_*` for how Slack is reached."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.config import Loaded, load
from shared.errors import Misconfigured
from shared.events.base import Identifier
from shared.events.ops import Coverage
from shared.events.results import AlertKind
from shared.times import ZoneName

FILE = "notify.yaml"
DEFAULT, OWNER = "default", "owner"
Language = Literal["en", "fr"]
Severity = Literal["low", "medium", "high", "critical"]
SlackId = Annotated[str, StringConstraints(pattern=r"^[CDGUW][A-Z0-9]{2,}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
Address = Annotated[str, StringConstraints(pattern=r"^[^@\s<>,;:\"]+@[^@\s<>,;:\"]+$", max_length=254)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
ContactRole = Literal["champion", "sponsor", "admin", "billing", "user", "other"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Channel(_Part):
    """A place where messages go: exactly one of `slack`, `incoming_webhook`, `email`, `webhook`."""

    slack: SlackId | None = None
    incoming_webhook: Variable | None = None
    email: Address | None = None
    webhook: Variable | None = None
    language: Language | None = None
    timezone: ZoneName | None = None

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        named = [name for name in ("slack", "incoming_webhook", "email", "webhook") if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError("name one of slack, incoming_webhook, email and webhook")
        return self


class Route(_Part):
    """Who hears of an alert that fits all that is named; the first route that reaches somebody counts."""

    to: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    kinds: tuple[AlertKind, ...] = ()
    severity_from: Severity = "low"
    rules: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    go_on: bool = False


class QuietHours(_Part):
    """When nobody is woken, on the reader's own clock."""

    start: Annotated[time, Field(alias="from")]
    end: Annotated[time, Field(alias="to")]
    weekends: bool = True


class Fields(_Part):
    """What the score's parts are called in a tool; null: it is not written."""

    score: Identifier | None = "hune_health_score"
    band: Identifier | None = "hune_health_band"
    reason: Identifier | None = "hune_health_reason"
    longest_reason: Annotated[int, Field(ge=1, le=10_000)] = 255


class WriteBack(_Part):
    """Writes each account's latest score, band and reason into a tool; `secret` names a variable."""

    tool: Literal["hubspot", "salesforce", "intercom", "customerio", "webhook"]
    secret: Variable
    fields: Fields = Fields()
    id_from: Literal["link", "account_id"] = "link"
    namespace: Identifier | None = None
    id_prefix: str = ""
    id_property: Identifier | None = None
    object_type_id: Identifier | None = None
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+$")] | None = None
    api_version: Identifier | None = None
    batch: Annotated[int, Field(ge=1, le=200)] = 100
    every_seconds: Seconds = 60.0

    @model_validator(mode="after")
    def _fits_the_tool(self) -> Self:
        if self.tool == "salesforce" and self.url is None:
            raise ValueError("salesforce needs url: https://yourdomain.my.salesforce.com")
        if not (self.fields.score or self.fields.band or self.fields.reason):
            raise ValueError("fields: name at least one of score, band and reason")
        return self

    @property
    def linked_by(self) -> str:
        """The namespace of the external ids by which the tool knows accounts."""
        return self.namespace or self.tool


class When(_Part):
    """What calls for a message: everything that is named must hold."""

    event: Literal["touchpoint.due", "alert.opened", "account.segmented"]
    coverage: Annotated[tuple[Coverage, ...], Field(min_length=1)] = ("automated",)
    segments: tuple[str, ...] = ()
    kinds: tuple[AlertKind, ...] = ()
    rules: tuple[str, ...] = ()
    severity_from: Severity = "low"

    @model_validator(mode="after")
    def _asks_what_the_event_tells(self) -> Self:
        if self.event != "alert.opened" and (self.kinds or self.rules or self.severity_from != "low"):
            raise ValueError(f"kinds, rules and severity_from are an alert's; {self.event} has none")
        return self


class Outreach(_Part):
    """A message to a person at the customer's, through a tool that knows them; `secret` names a variable."""

    tool: Literal["intercom", "customerio"]
    secret: Variable
    when: When
    send: Literal["in_app", "email", "event"]
    to: Annotated[tuple[ContactRole, ...], Field(min_length=1)] = ("champion", "admin", "sponsor", "user")
    admin_id: Identifier | None = None
    subject: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    body: Annotated[str, StringConstraints(min_length=1, max_length=10_000)] | None = None
    template: Identifier | None = None
    wait_seconds: Seconds = 60.0
    every_days: Annotated[int, Field(ge=1, le=3650)] = 30
    most_per_day: Annotated[int, Field(ge=1)] = 50
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+$")] | None = None
    api_version: Identifier | None = None

    @model_validator(mode="after")
    def _fits_the_tool(self) -> Self:
        if self.tool == "intercom":
            if self.send == "event":
                raise ValueError("send: Intercom takes in_app and email")
            needed = {"admin_id", "body", *(("subject",) if self.send == "email" else ())}
        else:
            if self.send == "email":
                raise ValueError(
                    "send: Customer.io sends e-mail to an address, and addresses are in the contact vault alone; "
                    "take event, and let a campaign that this event triggers write the e-mail"
                )
            needed = {"template"}
        texts = ("admin_id", "subject", "body", "template")
        lacking = sorted(name for name in needed if getattr(self, name) is None)
        if lacking:
            raise ValueError(f"{self.tool} with send: {self.send} needs {', '.join(lacking)}")
        idle = [name for name in texts if name not in needed and getattr(self, name) is not None]
        if idle:
            raise ValueError(f"{', '.join(idle)}: not used by {self.tool} with send: {self.send}")
        for text in (self.subject, self.body):
            _only_known_words(text or "")
        return self


MESSAGE_WORDS = ("account", "due_on")
"""What a message's text may name in braces."""


def _only_known_words(text: str) -> None:
    try:
        found = [(name, spec, how) for _, name, spec, how in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"{error}; a brace that is to be read is written twice") from error
    for name, spec, how in found:
        if name not in MESSAGE_WORDS or spec or how:
            known = ", ".join(f"{{{word}}}" for word in MESSAGE_WORDS)
            raise ValueError(f"{{{name}}} is nothing that a message can name; there are {known}")


class Inhibition(_Part):
    """While an episode of `rule` is open for an account, new ones of these rules are not told."""

    rule: str
    mutes: Annotated[tuple[str, ...], Field(min_length=1)]


class Pace(_Part):
    """How fast, how patient."""

    per_channel_seconds: Seconds = 1.0
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    settle_seconds: Seconds = 10.0
    lease_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    longest_pause_seconds: Seconds = 300.0
    give_up_hours: Annotated[float, Field(gt=0, le=168)] = 24.0

    @model_validator(mode="after")
    def _lease_outlasts_the_call(self) -> Self:
        if self.lease_seconds < 2 * self.timeout_seconds:
            raise ValueError("lease_seconds must be at least twice timeout_seconds, or two may send the same")
        return self


class Notify(_Part):
    language: Language = "en"
    timezone: ZoneName = "UTC"
    channels: dict[Identifier, Channel] = {}
    routes: tuple[Route, ...] = (Route(to=(DEFAULT,)),)
    group_wait_seconds: Seconds = 2.0
    group_hours: Annotated[float, Field(ge=0, le=168)] = 4.0
    urgent_from: Severity = "critical"
    quiet_hours: QuietHours | None = None
    weekly_budget: Annotated[int, Field(ge=0)] | None = 8
    digest_at: time = time(8)
    digest_over: Annotated[int, Field(ge=1)] = 10
    digest_every_minutes: Annotated[float, Field(ge=0, le=1440)] = 10.0
    cold_start_wait_seconds: Seconds = 60.0
    old_after_hours: Annotated[float, Field(gt=0)] = 24.0
    inhibit: tuple[Inhibition, ...] = ()
    keep_days: Annotated[int, Field(ge=30)] = 400
    pace: Pace = Pace()
    write_back: dict[Identifier, WriteBack] = {}
    outreach: dict[Identifier, Outreach] = {}
    disable_after_hours: Annotated[float, Field(gt=0)] = 120.0

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Self:
        for name in (DEFAULT, OWNER):
            if name in self.channels:
                raise ValueError(f"{name} is no name for a channel: it stands for something else in routes")
        known = {*self.channels, DEFAULT, OWNER}
        lost = sorted({name for route in self.routes for name in route.to} - known)
        if lost:
            raise ValueError(
                f"{', '.join(lost)}: in a route, but not among channels; they are {', '.join(sorted(known))}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Reach:
    """How the outside is reached; without any of it messages stay in the ledger."""

    slack_token: str = ""
    slack_channel: str = ""
    slack_webhook: str = ""
    slack_base_url: str = ""
    console_url: str = ""
    smtp_url: str = ""
    smtp_from: str = ""
    private_webhooks: bool = False
    variables: Mapping[str, str] | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Reach:
        """Read the settings.

        Raises Misconfigured that names the variable.
        """
        found = cls(
            slack_token=env.get("HUNE_SLACK_BOT_TOKEN", "").strip(),
            slack_channel=env.get("HUNE_SLACK_CHANNEL", "").strip(),
            slack_webhook=env.get("HUNE_SLACK_WEBHOOK_URL", "").strip(),
            slack_base_url=env.get("HUNE_SLACK_BASE_URL", "").strip(),
            console_url=env.get("HUNE_CONSOLE_URL", "").strip().rstrip("/"),
            smtp_url=env.get("HUNE_SMTP_URL", "").strip(),
            smtp_from=env.get("HUNE_SMTP_FROM", "").strip(),
            private_webhooks=bool(env.get("HUNE_WEBHOOKS_PRIVATE", "").strip()),
            variables=env,
        )
        if found.slack_channel and not found.slack_token:
            raise Misconfigured("HUNE_SLACK_CHANNEL is set without HUNE_SLACK_BOT_TOKEN; set both, or neither")
        if found.slack_channel.startswith("#"):
            raise Misconfigured(
                "HUNE_SLACK_CHANNEL takes the channel's id such as C0123456789 (in Slack: channel details, at the end)"
            )
        for name, url in (("HUNE_SLACK_WEBHOOK_URL", found.slack_webhook), ("HUNE_CONSOLE_URL", found.console_url)):
            if url and not url.startswith(("https://", "http://")):
                raise Misconfigured(f"{name} is no address; it begins with https://")
        return found

    def variable(self, name: str) -> str:
        return (self.variables or {}).get(name, "").strip()


def destination_of(name: str, channel: Channel) -> str:
    """`slack:C0123`, `hook:name`, `email:address` or `webhook:name`."""
    if channel.slack is not None:
        return f"slack:{channel.slack}"
    if channel.email is not None:
        return f"email:{channel.email}"
    return f"hook:{name}" if channel.incoming_webhook is not None else f"webhook:{name}"


def written_to(name: str) -> str:
    """The destination of a write-back."""
    return f"write:{name}"


def reached_by(name: str) -> str:
    """The destination of an outreach."""
    return f"outreach:{name}"


def load_notify(config_dir: Path) -> Loaded[Notify]:
    """Raises Misconfigured with file, line and field."""
    return load(config_dir / FILE, Notify)
