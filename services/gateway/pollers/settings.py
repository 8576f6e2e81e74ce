"""config/pollers.yaml: which tools are asked, how often, and by which secrets.

The file names environment variables; the secrets themselves are in these variables only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from services.gateway.pollers import chorus, hubspot, mixpanel, salesforce
from services.gateway.pollers.base import Feed
from services.gateway.webhooks.settings import Webhooks
from shared import config
from shared.errors import Misconfigured

FILE = "pollers.yaml"
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,100}")
_PROPERTY = re.compile(r"[a-z][a-z0-9_]{0,199}")


def _is_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("names an environment variable such as HUNE_POLL_HUBSPOT_TOKEN, not a secret")
    return name


Variable = Annotated[str, AfterValidator(_is_variable)]


class Poll(BaseModel):
    """What every tool has. `since` is where the first round begins; `overlap_seconds` are read again in each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    address: str
    feeds: tuple[str, ...]
    every_seconds: int = Field(default=60, ge=1, le=7 * 24 * 3600)
    overlap_seconds: int = Field(default=900, ge=0, le=90 * 24 * 3600)
    calls_per_hour: int = Field(default=3600, ge=1)
    timeout_seconds: int = Field(default=60, ge=1, le=600)
    since: date | None = None

    @field_validator("address")
    @classmethod
    def _address(cls, given: str) -> str:
        if given and not re.fullmatch(r"https://[^\s?#/]+|http://(127\.0\.0\.1|localhost)(:\d+)?", given.rstrip("/")):
            raise ValueError("takes an address such as https://api.example.com, without a path")
        return given.rstrip("/")

    @field_validator("feeds")
    @classmethod
    def _feeds(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        known = cls.model_fields["feeds"].default
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no feed of this tool; there are {', '.join(known)}")
        return given

    def begins(self) -> datetime | None:
        return datetime.combine(self.since, time(), UTC) if self.since else None


class SalesforcePoll(Poll):
    """`address` is the organisation's own (My Domain), which gives the token too."""

    address: str = ""
    feeds: tuple[str, ...] = tuple(salesforce.FEEDS)
    client_id: Variable = "HUNE_POLL_SALESFORCE_CLIENT_ID"
    client_secret: Variable = "HUNE_POLL_SALESFORCE_CLIENT_SECRET"
    refresh_token: Variable = "HUNE_POLL_SALESFORCE_REFRESH_TOKEN"
    version: str = Field(default="61.0", pattern=r"^\d{2,3}\.0$")
    multi_currency: bool = False
    fields: dict[str, tuple[str, ...]] = {}

    @field_validator("fields")
    @classmethod
    def _fields(cls, given: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        _known_feeds(given, salesforce.FEEDS)
        odd = [name for names in given.values() for name in names if not salesforce.FIELD.fullmatch(name)]
        if odd:
            raise ValueError(f"{odd[0]!r} is no API name of a field such as ARR__c")
        return given


class HubspotPoll(Poll):
    address: str = "https://api.hubapi.com"
    feeds: tuple[str, ...] = hubspot.FEEDS
    calls_per_hour: int = Field(default=10_000, ge=1)
    token: Variable = "HUNE_POLL_HUBSPOT_TOKEN"
    properties: dict[str, tuple[str, ...]] = {}
    company_property: dict[str, str] = hubspot.COMPANY_PROPERTIES

    @field_validator("properties")
    @classmethod
    def _properties(cls, given: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        _known_feeds(given, hubspot.FEEDS)
        odd = [name for names in given.values() for name in names if not _PROPERTY.fullmatch(name)]
        if odd:
            raise ValueError(f"{odd[0]!r} is no internal name of a property such as annual_value")
        return given

    @field_validator("company_property")
    @classmethod
    def _company(cls, given: dict[str, str]) -> dict[str, str]:
        _known_feeds(given, tuple(hubspot.COMPANY_PROPERTIES))
        return {**hubspot.COMPANY_PROPERTIES, **given}


class ChorusPoll(Poll):
    address: str = "https://chorus.ai"
    feeds: tuple[str, ...] = chorus.FEEDS
    every_seconds: int = Field(default=900, ge=1, le=7 * 24 * 3600)
    overlap_seconds: int = Field(default=3 * 24 * 3600, ge=0, le=90 * 24 * 3600)
    token: Variable = "HUNE_POLL_CHORUS_TOKEN"
    crm: str = Field(default="salesforce", pattern=r"^[a-z][a-z0-9_]{0,40}$")


class MixpanelPoll(Poll):
    address: str = "https://data.mixpanel.com"
    feeds: tuple[str, ...] = mixpanel.FEEDS
    every_seconds: int = Field(default=3600, ge=1, le=7 * 24 * 3600)
    overlap_seconds: int = Field(default=24 * 3600, ge=0, le=90 * 24 * 3600)
    calls_per_hour: int = Field(default=50, ge=1)
    username: Variable = "HUNE_POLL_MIXPANEL_USERNAME"
    secret: Variable = "HUNE_POLL_MIXPANEL_SECRET"
    project_id: str | None = Field(default=None, pattern=r"^\d+$")
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, given: str) -> str:
        try:
            ZoneInfo(given)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{given!r} is no time zone such as Europe/Paris") from None
        return given


def _known_feeds(given: Mapping[str, Any], known: Sequence[str] | Mapping[str, Any]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is no feed that takes this; there are {', '.join(known)}")


class Pollers(BaseModel):
    """The file; a tool that it does not enable is not asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    salesforce: SalesforcePoll = SalesforcePoll()
    hubspot: HubspotPoll = HubspotPoll()
    chorus: ChorusPoll = ChorusPoll()
    mixpanel: MixpanelPoll = MixpanelPoll()

    def enabled(self) -> dict[str, Poll]:
        tools: dict[str, Poll] = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: poll for name, poll in tools.items() if poll.enabled}


def load(folder: Path) -> Pollers:
    """Read the file; without one nothing is asked.

    Raises Misconfigured.
    """
    path = folder / FILE
    return config.load(path, Pollers).model if path.exists() else Pollers()


def feeds_of(pollers: Pollers, webhooks: Webhooks) -> list[Feed]:
    """Every feed that is configured, of the tools that are not enabled too."""
    sf, hub, ch, mp = pollers.salesforce, pollers.hubspot, pollers.chorus, pollers.mixpanel
    found: list[Feed] = [
        salesforce.SalesforceFeed(
            name, webhooks.tools.salesforce.options, sf.version, sf.fields.get(name, ()), sf.multi_currency
        )
        for name in sf.feeds
    ]
    found += [
        hubspot.HubspotFeed(
            name, webhooks.tools.hubspot.options, hub.properties.get(name, ()), hub.company_property.get(name)
        )
        for name in hub.feeds
    ]
    found += [chorus.ChorusFeed(name, ch.crm) for name in ch.feeds]
    found += [mixpanel.MixpanelFeed(name, mp.project_id, mp.timezone) for name in mp.feeds]
    return found


@dataclass(frozen=True, slots=True)
class Secrets:
    """What we show to a tool; which of them it uses is the tool's."""

    token: str = ""
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""

    def __repr__(self) -> str:
        return "Secrets(…)"


def secrets_of(tool: str, poll: Poll, env: Mapping[str, str] = os.environ) -> Secrets:
    """The enabled tool's secrets.

    Raises Misconfigured that names the variable.
    """

    def read(variable: str, *, needed: bool = True) -> str:
        value = env.get(variable, "").strip()
        if needed and not value:
            raise Misconfigured(f"{FILE} enables {tool}, and {variable} is empty; see docs/connect/{tool}.md")
        return value

    if not poll.address:
        raise Misconfigured(f"{FILE} enables {tool} and gives no address; see docs/connect/{tool}.md")
    if isinstance(poll, SalesforcePoll):
        return Secrets(
            client_id=read(poll.client_id),
            client_secret=read(poll.client_secret),
            refresh_token=read(poll.refresh_token, needed=False),
        )
    if isinstance(poll, MixpanelPoll):
        return Secrets(client_id=read(poll.username), client_secret=read(poll.secret, needed=False))
    assert isinstance(poll, HubspotPoll | ChorusPoll)
    return Secrets(token=read(poll.token))
