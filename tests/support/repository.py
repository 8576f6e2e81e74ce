"""What is in the repository: its tracked files, its Python as trees, what its last release published."""

from __future__ import annotations

import ast
import io
import subprocess
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = ("services", "shared", "cli", "devstack")
SKIPPED = {".venv", ".git", "__pycache__"}


def _git(*arguments: str) -> bytes | None:
    """What git says; None outside a checkout, or when it says no."""
    try:
        found = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return found.stdout if found.returncode == 0 else None


@cache
def tracked() -> tuple[Path, ...]:
    """Every tracked file that is there, relative to the root; outside a checkout every file."""
    listed = _git("ls-files", "-z")
    if listed is None:
        there = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        return tuple(sorted(path for path in there if not SKIPPED & set(path.parts)))
    names = (Path(name) for name in listed.decode().split("\0") if name)
    return tuple(name for name in names if (ROOT / name).is_file())


@cache
def text_of(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def python_of(*folders: str) -> Iterator[Path]:
    """Tracked Python files below the folders, and the launcher with all of ours."""
    wanted = folders or OURS
    for path in tracked():
        if path.suffix == ".py" and any(path.is_relative_to(folder) for folder in wanted):
            yield path
    if not folders:
        yield Path("hune")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path), str(path))


def published_schemas() -> dict[str, str] | None:
    """`docs/schemas` of the last release, before the first one of the last commit; None where git cannot tell."""
    release = _git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    archive = _git("archive", (release or b"HEAD").decode().strip(), "docs/schemas")
    if archive is None:
        return None
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files.getmembers():
            path, body = Path(member.name), files.extractfile(member)
            if body is not None and path.parent == Path("docs/schemas"):
                found[path.stem] = body.read().decode()
    return found
