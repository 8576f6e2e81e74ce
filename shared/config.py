"""YAML in `config/` → validated models, stamped with a digest of what they say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.errors import Misconfigured

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[M]):
    """A validated file; `digest` depends on its meaning, not on its comments or the order of its keys."""

    model: M
    digest: str
    path: Path


def load(path: Path | str, model: type[M]) -> Loaded[M]:
    """Read and validate one file.

    Raises Misconfigured with one line per error: file, line, field and what is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read ({error.strerror}); set HUNE_CONFIG_DIR to its folder") from error
    return parse(text, model, path)


def parse(text: str, model: type[M], path: Path = Path("config.yaml")) -> Loaded[M]:
    """Validate the text of a file; `path` names it in errors."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _refuse_repeated_keys(root, path)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise Misconfigured(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from error
    try:
        found = model.model_validate({} if content is None else content)
    except ValidationError as error:
        lines = [_describe(path, root, detail) for detail in error.errors(include_url=False)]
        raise Misconfigured("\n".join(lines)) from error
    return Loaded(found, digest_of(found), path)


def digest_of(*models: BaseModel) -> str:
    """12 hexadecimal digits of what models say, defaults included."""
    said = [model.model_dump(mode="json") for model in models]
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _describe(path: Path, root: yaml.Node | None, error: ErrorDetails) -> str:
    node, field = root, []
    for step in error["loc"]:  # a step that is not in the file is a union's tag, or the key that is missing
        below = _child(node, step)
        if below is not None:
            node = below
        if below is not None or (error["type"] == "missing" and step == error["loc"][-1]):
            field.append(str(step))
    line = f":{node.start_mark.line + 1}" if node is not None else ""
    return f"{path}{line}: {'.'.join(field) or 'the file'}: {error['msg'].removeprefix('Value error, ')}"


def _child(node: yaml.Node | None, step: int | str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return _node(node.value[step])
    return None


def _node(value: Any) -> yaml.Node:
    assert isinstance(value, yaml.Node)
    return value


def _refuse_repeated_keys(node: yaml.Node, path: Path) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, path)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise Misconfigured(f"{path}:{key.start_mark.line + 1}: {key.value}: written twice; keep one")
        seen.add(key.value)
        _refuse_repeated_keys(value, path)
