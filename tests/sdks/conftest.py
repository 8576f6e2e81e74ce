"""The vendors' SDKs in an environment of their own, as the locks beside this file name them, made on the first run.

Where the packages cannot be had within a few minutes, or there is no Node, the tests that need them are skipped and
say so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.stack import ROOT

HERE = Path(__file__).parent
MADE = ROOT / ".venv-sdks"
PATIENCE_SECONDS = 240
OLDEST_NODE = 18


@dataclass(frozen=True, slots=True)
class Sdks:
    """The command that begins a sender of a language, or why there is none."""

    python: list[str] | str
    node: list[str] | str

    def command(self, sdk: str) -> list[str]:
        begin = self.node if sdk.endswith("-node") else self.python
        if isinstance(begin, str):
            pytest.skip(begin)
        return [*begin, sdk]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "NODE_PATH": str(MADE / "node_modules")}


@pytest.fixture(scope="session")
def sdks() -> Sdks:
    with ThreadPoolExecutor() as pool:
        python, node = pool.submit(_python), pool.submit(_node)
        return Sdks(python.result(), node.result())


def _python() -> list[str] | str:
    lock, folder = HERE / "requirements.lock", MADE / "python"
    interpreter = folder / "bin" / "python"

    def make() -> None:
        venv.create(folder, with_pip=True, clear=True)
        _run([str(interpreter), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries=2",
              "--require-hashes", "-r", str(lock)])  # fmt: skip

    why = _made(folder, lock, make)
    return why or [str(interpreter), str(HERE / "senders.py")]


def _node() -> list[str] | str:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "NOT TESTED: there is no node or npm here"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    if int(version.strip().removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        return f"NOT TESTED: node is {version.strip()}, the SDKs need {OLDEST_NODE}"

    def make() -> None:
        MADE.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, MADE / name)
        _run([npm, "install", "--no-save", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund",
              "--fetch-retries=1", "--prefix", str(MADE)])  # fmt: skip

    why = _made(MADE / "node_modules", HERE / "package-lock.json", make)
    return why or [node, str(HERE / "senders.cjs")]


def _made(folder: Path, lock: Path, make: Callable[[], None]) -> str | None:
    """Make the environment unless it is what the lock says; why it cannot be made, if so."""
    stamp = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    made = folder / "hune.stamp"
    if made.exists() and made.read_text() == stamp:
        return None
    try:
        make()
    except (OSError, subprocess.SubprocessError) as error:
        return f"NOT TESTED: the packages of {lock.name} cannot be had here ({type(error).__name__})"
    made.write_text(stamp)
    return None


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_SECONDS)
