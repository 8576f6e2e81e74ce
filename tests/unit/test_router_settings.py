"""The router's knobs: what a mistake in YAML says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from services.router.settings import Exclusion, Exclusions, Routing, find
from shared import config
from shared.events import known_types
from shared.events.base import InputEvent
from shared.events.inputs import ClockSet, RequestMade
from shared.topics import WORKERS
from tests.support.stack import ROOT


def routing(**changes: Any) -> Routing:
    return Routing.model_validate(
        {"account_paths": ["account_id"], "events": {}, "requests": {}, "understanding_bar": 0.6} | changes
    )


def test_the_shipped_table_routes_every_event_there_is() -> None:
    shipped = config.load(ROOT / "config/routing.yaml", Routing).model
    inputs = {m.type_name for m in known_types().values() if issubclass(m, InputEvent)}
    assert set(shipped.events) == inputs - {ClockSet.type_name, RequestMade.type_name}
    assert set(shipped.everybody) <= set(shipped.events)


def test_the_shipped_table_gives_every_domain_its_demands() -> None:
    shipped = config.load(ROOT / "config/routing.yaml", Routing).model
    assert set(shipped.requests.values()) == {*WORKERS, "router"}
    for domain in WORKERS:
        assert sum(name.startswith(f"{domain}.") for name in shipped.requests) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"events": {"moon.landed": ["health"]}}, "'moon.landed' is no event type"),
        ({"events": {"clock": ["health"]}}, "'clock' is no event type"),
        ({"events": {"usage.tracked": ["finance"]}}, "usage.tracked: 'finance' is no domain; the domains are health"),
        ({"requests": {"health.score": "finance"}}, "health.score: 'finance' is no domain"),
        ({"requests": {"health.score": "router"}}, "health.score: the router itself carries out account.link"),
        ({"understanding_bar": 1.5}, "understanding_bar"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_mistake_names_the_thing(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        routing(**changes)


def test_exclusions_are_shipped_empty() -> None:
    assert config.load(ROOT / "config/exclusions.yaml", Exclusions).model.rules == ()


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"user_id": ["*@example.com"]}, True),
        ({"user_id": ["*@other.com"]}, False),
        ({"account_id": ["sandbox-*", "acme"]}, True),
        ({"event": ["opened"]}, True),
        ({"user_id": ["*"], "account_id": ["beta"]}, False),
        ({"property": {"path": "context.impersonated", "equals": True}}, True),
        ({"property": {"path": "context.nothing.there", "equals": True}}, False),
        ({"user_id": ["*@example.com"], "property": {"path": "context.impersonated", "equals": False}}, False),
        ({}, True),
    ],
)
def test_a_rule_matches_when_all_it_names_matches(rule: dict[str, Any], holds: bool) -> None:
    exclusion = Exclusion.model_validate({"reason": "staff"} | rule)
    body = {"context": {"impersonated": True}}
    assert exclusion.matches("acme", "ann@example.com", "opened", body) is holds


def test_a_dotted_path_ends_where_there_is_nothing() -> None:
    assert find({"a": {"b": 1}}, "a.b") == 1
    assert find({"a": 1}, "a.b") is None
    assert find([1], "a") is None
