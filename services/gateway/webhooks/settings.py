"""config/webhooks.yaml: which tools may call, by which secrets, and what of theirs becomes which field.

The file names environment variables; the secrets themselves are in these variables only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from services.gateway.webhooks import NAMES
from services.gateway.webhooks.asknicely import AskNicelyOptions
from services.gateway.webhooks.base import Options, Trust
from services.gateway.webhooks.delighted import DelightedOptions
from services.gateway.webhooks.hubspot import HubspotOptions
from services.gateway.webhooks.intercom import IntercomOptions
from services.gateway.webhooks.mixpanel import MixpanelOptions
from services.gateway.webhooks.salesforce import SalesforceOptions
from services.gateway.webhooks.signatures import public_key
from services.gateway.webhooks.slack import SlackOptions
from services.gateway.webhooks.stripe import StripeOptions
from shared import config
from shared.errors import Misconfigured

FILE = "webhooks.yaml"
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,100}")
SHORTEST_TOKEN = 22
"""128 bits in base64."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolConfig(_Strict):
    """One tool. `secrets`, `tokens` and `public_keys` name environment variables; two may live at once."""

    enabled: bool = True
    secrets: tuple[str, ...] = Field(default=(), max_length=2)
    tokens: tuple[str, ...] = Field(default=(), max_length=2)
    public_keys: tuple[str, ...] = Field(default=(), max_length=2)
    window_seconds: int = Field(default=300, ge=1, le=7 * 24 * 3600)
    options: Options = Options()

    @field_validator("secrets", "tokens", "public_keys")
    @classmethod
    def _variables(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for name in given:
            if not _VARIABLE.fullmatch(name):
                raise ValueError("names an environment variable such as HUNE_WEBHOOK_ZENDESK_SECRET, not a secret")
        return given


class AskNicelyConfig(ToolConfig):
    options: AskNicelyOptions = AskNicelyOptions()


class DelightedConfig(ToolConfig):
    options: DelightedOptions = DelightedOptions()


class HubspotConfig(ToolConfig):
    options: HubspotOptions = HubspotOptions()


class IntercomConfig(ToolConfig):
    options: IntercomOptions = IntercomOptions()


class MixpanelConfig(ToolConfig):
    options: MixpanelOptions = MixpanelOptions()


class SalesforceConfig(ToolConfig):
    options: SalesforceOptions = SalesforceOptions()


class SlackConfig(ToolConfig):
    options: SlackOptions = SlackOptions()


class StripeConfig(ToolConfig):
    options: StripeOptions = StripeOptions()


def variables(tool: str, kind: str) -> tuple[str, str]:
    """The two variables that a tool's secrets (tokens, public keys) are in unless the file says otherwise."""
    stem = f"HUNE_WEBHOOK_{tool.upper()}_{kind}"
    return stem, f"{stem}_2"


class Tools(_Strict):
    amplitude: ToolConfig = ToolConfig()
    asknicely: AskNicelyConfig = AskNicelyConfig()
    customerio: ToolConfig = ToolConfig()
    delighted: DelightedConfig = DelightedConfig()
    gong: ToolConfig = ToolConfig()
    hubspot: HubspotConfig = HubspotConfig()
    intercom: IntercomConfig = IntercomConfig()
    mixpanel: MixpanelConfig = MixpanelConfig()
    salesforce: SalesforceConfig = SalesforceConfig()
    segment: ToolConfig = ToolConfig()
    slack: SlackConfig = SlackConfig()
    stripe: StripeConfig = StripeConfig()
    zendesk: ToolConfig = ToolConfig()


class Webhooks(_Strict):
    """The file."""

    public_url: str | None = Field(default=None, description="our address as the tools call it, without a path")
    tools: Tools = Tools()

    @model_validator(mode="before")
    @classmethod
    def _no_null_tools(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @field_validator("public_url")
    @classmethod
    def _address(cls, given: str | None) -> str | None:
        if given is not None and not re.fullmatch(r"https?://[^\s?#]+", given):
            raise ValueError("takes an address such as https://hune.example.com")
        return given.rstrip("/") if given else None

    def of(self, tool: str) -> ToolConfig:
        found: ToolConfig = getattr(self.tools, tool)
        return found


def load(folder: Path) -> Webhooks:
    """Read the file; without one everything is at its default.

    Raises Misconfigured.
    """
    path = folder / FILE
    return config.load(path, Webhooks).model if path.exists() else Webhooks()


def trusts(webhooks: Webhooks, env: Mapping[str, str] = os.environ) -> dict[str, Trust]:
    """What each enabled tool proves itself by; empty where no secret is set.

    Raises Misconfigured that names the variable.
    """
    found = {name: _trust(name, webhooks.of(name), env) for name in NAMES if webhooks.of(name).enabled}
    if webhooks.public_url is None:
        for name, trust in found.items():
            if (name == "hubspot" and trust.secrets) or trust.public_keys:
                raise Misconfigured(
                    f"{FILE}: public_url is empty, and {name} signs the address that it calls; "
                    "set it to ours as the tool knows it, such as https://hune.example.com"
                )
    return found


def _trust(tool: str, given: ToolConfig, env: Mapping[str, str]) -> Trust:
    def read(kind: str, names: tuple[str, ...]) -> dict[str, str]:
        listed = names or variables(tool, kind)
        return {name: value for name in listed if (value := env.get(name, "").strip())}

    tokens, keys = read("TOKEN", given.tokens), read("PUBLIC_KEY", given.public_keys)
    for name, token in tokens.items():
        if len(token) < SHORTEST_TOKEN or not re.fullmatch(r"[A-Za-z0-9_.~-]+", token):
            raise Misconfigured(
                f"{name} takes {SHORTEST_TOKEN} or more letters and digits that may be in a path; "
                "make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
            )
    for name, key in keys.items():
        try:
            public_key(key)
        except ValueError as error:
            raise Misconfigured(f"{name} is no public key that can be used: {error}; copy it from the tool") from None
    return Trust(
        secrets=tuple(read("SECRET", given.secrets).values()),
        tokens=tuple(tokens.values()),
        public_keys=tuple(keys.values()),
        window_seconds=given.window_seconds,
        options=given.options,
    )
