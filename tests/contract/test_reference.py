"""The written reference names what there is, all of it, and nothing else."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from cli.main import group
from cli.reading import exports
from services.gateway.settings import PREFIX, GatewaySettings, Limits
from shared.contract import schemas
from tests.support.repository import python_of, text_of, tracked, tree_of

CLI, CONFIGURATION, METRICS = (Path(f"docs/{name}.md") for name in ("cli", "configuration", "metrics"))
PAGES = [path for path in tracked() if path.suffix == ".md"]


def sections(page: Path) -> dict[str, str]:
    """Heading of the second level → what stands under it."""
    parts = re.split(r"^## +(.+)$", text_of(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# -- the command line


def commands(command: click.Command = group, path: tuple[str, ...] = ("hune",)) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield " ".join(path), command
    if not isinstance(command, click.Group):
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, (*path, name))


COMMANDS = dict(commands())


def test_the_page_has_every_command_and_no_other() -> None:
    assert set(sections(CLI)) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_shown_with_its_options_and_an_example(name: str) -> None:
    section = sections(CLI)[name]
    options = [one for one in COMMANDS[name].params if isinstance(one, click.Option) and one.name != "help"]
    assert set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) == {one.opts[0] for one in options}
    for option in options:
        if isinstance(option.type, click.Choice):
            assert [choice for choice in option.type.choices if f"`{choice}`" not in section] == []
    assert f"./{name}" in section


def examples() -> list[tuple[str, str]]:
    """Every call of `./hune` in a block of code."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL):
            found += [(str(page), call) for call in re.findall(r"\./hune( [^|)#\n]*)", block)]
    return found


@pytest.mark.parametrize(("page", "call"), examples())
def test_an_example_is_understood(page: str, call: str) -> None:
    words, command = shlex.split(call), click.Command("none")
    found: click.Command | None = group
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        found = found.get_command(click.Context(found), words.pop(0))
    assert found is not None, f"{page}: hune{call}"
    command = found
    context = click.Context(command)
    parser = command.make_parser(context)
    parser.parse_args(list(words))  # names an option that there is not


def test_every_export_is_described() -> None:
    assert set(re.findall(r"^\| `([a-z_]+)` \| ", sections(CLI)["hune export"], re.MULTILINE)) == set(exports())


# -- settings


def variables() -> set[str]:
    """Every variable that the code reads by name, and those of the gateway, whose names are its fields."""
    names = {
        node.value
        for path in python_of()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    read = {name for name in names if re.fullmatch(r"HUNE_[A-Z_]*[A-Z]", name)}
    knobs = {f"{PREFIX}{field.name.upper()}" for field in fields(GatewaySettings) if field.name != "limits"}
    return read | knobs | {f"{PREFIX}MAX_{field.name.upper()}" for field in fields(Limits)}


def test_every_variable_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"^\| `(HUNE_[A-Z_]+)`", text_of(CONFIGURATION), re.MULTILINE))
    assert documented == variables()


def test_every_page_names_variables_that_there_are() -> None:
    known = variables() | {name for path in python_of("tests") for name in re.findall(r"HUNE_[A-Z_]+", text_of(path))}
    for page in PAGES:
        named = set(re.findall(r"HUNE_[A-Z_]*[A-Z]\b(?!_\{|\{)", text_of(page)))
        assert {one for one in named if not one.startswith("HUNE_WEBHOOK_")} <= known, page  # those carry a tool's name


@pytest.mark.parametrize("name", schemas.CONFIGURATION)
def test_every_field_of_a_configuration_file_is_documented(name: str) -> None:
    section = sections(CONFIGURATION)["Models of tables" if name == "table" else f"config/{name}.yaml"]
    schema = schemas.configuration()[name]
    parts = [schema, *schema.get("$defs", {}).values()]
    wanted = {field for part in parts for field in part.get("properties", {})}
    assert sorted(field for field in wanted if f"`{field}`" not in section) == []
    assert f"schemas/config/{name}.json" in section


# -- metrics


def metrics() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name as exposed → its kind and labels."""
    found = {}
    for path in python_of("services", "shared"):
        for node in ast.walk(tree_of(path)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            kind, name = node.func.id, node.args[0]
            if kind in ("Counter", "Gauge", "Histogram") and isinstance(name, ast.Constant):
                labels = ast.literal_eval(node.args[2]) if len(node.args) > 2 else []
                exposed = f"{str(name.value).removesuffix('_total')}{'_total' if kind == 'Counter' else ''}"
                found[exposed] = (kind.lower(), tuple(labels))
    return found


def test_every_metric_is_measured_somewhere() -> None:
    declared = {
        target.id
        for path in (path for path in python_of("services", "shared") if path.name == "metrics.py")
        for node in tree_of(path).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    used = {
        node.attr
        for path in python_of("services", "shared")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "metrics"
    }
    assert declared - used == {"HANDLED"}  # counted by the function beside it


def test_every_metric_is_documented_with_kind_and_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(hune_[a-z_]+)` \| ([a-z]+) \| ([a-z_, ]*) ?\|", text_of(METRICS), re.MULTILINE)
    documented = {
        name: (kind, tuple(filter(None, (label.strip() for label in labels.split(","))))) for name, kind, labels in rows
    }
    assert documented == metrics()
    assert len(documented) > 15
