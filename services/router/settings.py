"""The router's knobs: `config/routing.yaml` and `config/exclusions.yaml`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.router import actions
from shared.events import known_types
from shared.events.inputs import ClockSet, RequestMade
from shared.topics import WORKERS
from shared.vault.sealing import Sealer


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Routing(_Strict):
    """Which domains an event concerns, which domain answers a demand, where an event names its account."""

    account_paths: tuple[str, ...]
    events: dict[str, tuple[str, ...]]
    everybody: tuple[str, ...] = ()
    requests: dict[str, str]
    understanding_bar: float = Field(ge=0, le=1)
    parking_days: int = Field(30, ge=1, le=3650)

    @field_validator("events")
    @classmethod
    def _known_events(cls, events: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        known = {model.type_name for model in known_types().values()} - {ClockSet.type_name, RequestMade.type_name}
        for name, domains in events.items():
            if name not in known:
                raise ValueError(f"{name!r} is no event type; see docs/schemas")
            for domain in domains:
                if domain not in WORKERS:
                    raise ValueError(f"{name}: {domain!r} is no domain; the domains are {', '.join(WORKERS)}")
        return events

    @field_validator("requests")
    @classmethod
    def _known_domains(cls, requests: dict[str, str]) -> dict[str, str]:
        for demand, domain in requests.items():
            if domain == "router" and demand not in actions.DEMANDS:
                raise ValueError(f"{demand}: the router itself carries out {', '.join(actions.DEMANDS)} only")
            if domain not in (*WORKERS, "router"):
                raise ValueError(f"{demand}: {domain!r} is no domain; the domains are {', '.join(WORKERS)}")
        return requests


class PropertyRule(_Strict):
    path: str
    equals: Any


class Exclusion(_Strict):
    """Matches when everything it names matches."""

    reason: str
    account_id: tuple[str, ...] = ()
    user_id: tuple[str, ...] = ()
    event: tuple[str, ...] = ()
    property: PropertyRule | None = None

    def matches(self, account_id: str | None, user_id: str | None, event: str, body: Any) -> bool:
        named = ((self.account_id, account_id), (self.user_id, user_id), (self.event, event))
        for patterns, value in named:
            if patterns and not any(fnmatchcase(value or "", pattern) for pattern in patterns):
                return False
        return self.property is None or find(body, self.property.path) == self.property.equals


class Exclusions(_Strict):
    rules: tuple[Exclusion, ...] = ()

    def sealed(self, sealer: Sealer | None) -> Exclusions:
        """The same with references for addresses, as events have them; `*@domain` fits both."""
        if sealer is None:
            return self
        rules = tuple(
            rule.model_copy(
                update={
                    "account_id": tuple(_sealed(pattern, sealer) for pattern in rule.account_id),
                    "user_id": tuple(_sealed(pattern, sealer) for pattern in rule.user_id),
                }
            )
            for rule in self.rules
        )
        return self.model_copy(update={"rules": rules})


def _sealed(pattern: str, sealer: Sealer) -> str:
    return pattern if any(sign in pattern for sign in "*?[") else sealer.reference(pattern)


def find(body: Any, path: str) -> Any:
    """The value at a dotted path, or None."""
    for step in path.split("."):
        if not isinstance(body, dict):
            return None
        body = body.get(step)
    return body
