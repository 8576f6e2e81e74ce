"""Topics, services and routes fit together: what is declared is done, and nothing goes nowhere."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

from services.__main__ import NAMES
from services.router.settings import Routing
from shared import config, topics
from shared.contract.channels import REPLIES, carried, inputs, published_name, routing
from shared.events import known_types
from shared.events.inputs import ClockSet, RequestMade
from shared.events.merging import AccountFactsMoved
from tests.support.repository import ROOT, python_of, text_of, tree_of

DOORS: dict[str, ModuleType] = {name: importlib.import_module(f"services.{name}.messages") for name in NAMES}
UNROUTED: set[str] = set()
"""Events that concern no domain, on purpose."""
RUNTIME = {*REPLIES, ClockSet, AccountFactsMoved}
"""What the runtime, and `shared.merging`, read and write for every worker."""
ON = carried(routing())
MODELS = {model.__name__: model for model in known_types().values()}


def test_every_service_folder_has_its_doors() -> None:
    assert {path.parent.name for path in ROOT.glob("services/*/messages.py")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_service_opens_the_doors_it_is_declared_for(name: str) -> None:
    positions = set(topics.POSITIONS.values())  # the runtime's own
    assert set(DOORS[name].WRITES) == {topic for topic in topics.ALL if name in topic.writers} - positions
    assert set(DOORS[name].READS) == {topic for topic in topics.ALL if name in topic.readers} - positions


@pytest.mark.parametrize("topic", topics.ALL, ids=str)
def test_a_topic_has_writers_and_readers_that_exist(topic: topics.Topic) -> None:
    assert topic.writers
    assert topic.readers
    assert {*topic.writers, *topic.readers} <= {*NAMES, "cli", topics.ANYONE}


def test_the_command_line_writes_the_topics_it_is_declared_for() -> None:
    text = "".join(text_of(path) for path in python_of("cli"))
    declared = {topic.name for topic in topics.ALL if "cli" in topic.writers}
    assert declared == {topics.RAW_EVENTS.name, topics.RAW_REQUESTS.name}
    assert "topics.RAW_EVENTS" in text
    assert "topics.RAW_REQUESTS" in text


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gateway"])
def test_a_worker_emits_what_its_topics_carry(name: str) -> None:
    named = {MODELS[word] for path in python_of(f"services/{name}") for word in _names_in(path) if word in MODELS}
    written = {model for topic in DOORS[name].WRITES for model in ON[topic]}
    read = {model for topic in DOORS[name].READS for model in ON[topic]}
    assert named - written - read - RUNTIME == set(), "named, but on none of its topics"
    decided = {model for model in written if model not in inputs()} - RUNTIME - {RequestMade}
    assert decided - named == set(), "carried by its topics, but nowhere in the service"


def _names_in(path: Path) -> set[str]:
    nodes = list(ast.walk(tree_of(path)))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {node.id for node in nodes if isinstance(node, ast.Name)}


@pytest.mark.parametrize("name", NAMES)
def test_a_service_tells_which_topics_it_uses(name: str) -> None:
    page = text_of(Path(f"services/{name}/README.md"))
    for topic in (*DOORS[name].READS, *DOORS[name].WRITES):
        own = published_name(topic)
        every = f"{own.rsplit('.', 2)[0]}.*.v1"  # such as cs.results.*.v1
        assert f"`{own}`" in page or f"`{every}`" in page, own


def test_every_input_is_routed_or_unrouted_on_purpose() -> None:
    routes = config.load(ROOT / "config/routing.yaml", Routing).model
    known = {model.type_name for model in inputs()}
    assert set(routes.events) | UNROUTED == known
    assert {name for name, domains in routes.events.items() if not domains} == UNROUTED
    assert set(routes.everybody) <= known


def test_every_demand_goes_to_a_worker_and_who_is_who_to_the_router() -> None:
    routes = config.load(ROOT / "config/routing.yaml", Routing).model
    assert set(routes.requests.values()) == {*topics.WORKERS, "router"}
