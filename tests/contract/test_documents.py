"""The generated documents say what the models say, and nothing published is broken."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema

from shared import topics
from shared.contract import __main__ as contract
from shared.contract.channels import carried, published_name, routing
from shared.events import known_types
from tests.support.repository import ROOT, published_schemas

DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text())
NAME = re.compile(r"^[a-zA-Z0-9._-]+$")


def test_no_generated_document_is_stale() -> None:
    assert contract.stale(contract.documents()) == [], "run python -m shared.contract"


def test_no_event_breaks_what_was_published() -> None:
    published = published_schemas()
    assert contract.incompatible(contract.on_disk() if published is None else published) == []


def test_a_removed_event_breaks_what_was_published() -> None:
    assert contract.incompatible({"hune.gone.v1": "{}"}) == ["hune.gone.v1: removed"]


def test_a_changed_event_is_refused_until_somebody_says_that_it_is_unreleased(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = '{"type": "object", "properties": {"gone": {}}}'
    monkeypatch.setattr(contract, "on_disk", lambda: {"hune.usage.tracked.v1": published})
    assert contract.main(["--check"]) == 1
    assert "hune.usage.tracked.v1: gone: removed" in capsys.readouterr().err
    assert contract.main(["--check", "--unreleased"]) == 0


def test_every_event_is_on_a_topic() -> None:
    on_topics = {model for models in carried(routing()).values() for model in models}
    assert set(known_types().values()) - on_topics == set()


def test_asyncapi_has_the_shape_of_its_version() -> None:
    ApplicationSchema.model_validate(DOCUMENT)
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    for kind in ("channels", "operations", *(f"components/{each}" for each in ("messages", "schemas"))):
        assert all(NAME.match(name) for name in _at(kind)), kind
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in ("send", "receive")
        assert list(operation["channel"]) == ["$ref"]
    for message in DOCUMENT["components"]["messages"].values():
        assert {"name", "payload", "headers"} <= message.keys()
        assert {"schemaFormat", "schema"} == message["payload"].keys()


def test_asyncapi_points_at_nothing_that_is_missing() -> None:
    for reference in _references(DOCUMENT):
        file, _, inside = reference.partition("#/")
        if file:
            assert (ROOT / "docs" / file).is_file(), reference
        else:
            assert _at(inside) is not None, reference


def test_asyncapi_has_every_topic_that_carries_events_and_who_uses_it() -> None:
    shown = {channel["address"]: name for name, channel in DOCUMENT["channels"].items()}
    assert set(shown) == {published_name(topic) for topic, models in carried(routing()).items() if models}
    used: dict[tuple[str, str], list[str]] = {}
    for each in DOCUMENT["operations"].values():
        used.setdefault((each["action"], each["channel"]["$ref"]), []).append(each["tags"][0]["name"])
    for topic in topics.ALL:
        if (name := shown.get(published_name(topic))) is not None:
            for action, names in (("send", topic.writers), ("receive", topic.readers)):
                found = used.get((action, f"#/channels/{name}"), [])
                assert found == [one for one in names if one != topics.ANYONE], topic.name


def _at(path: str) -> Any:
    found: Any = DOCUMENT
    for step in path.split("/"):
        found = found[step]
    return found


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [one for value in node.values() for one in _references(value)]
    return [one for value in node for one in _references(value)] if isinstance(node, list) else []
