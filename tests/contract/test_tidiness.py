"""The repository is in order: formatted, typed, and free of what belongs to somebody's machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT, text_of, tracked

BIN = Path(sys.executable).parent
TEXTS = [path for path in tracked() if path.suffix not in (".gz", ".png", ".pdf") and path.name != "requirements.lock"]
PAGES = [path for path in TEXTS if path.suffix == ".md"]
HERE = Path(__file__).relative_to(ROOT)

HOSTS = re.compile(r"https?://([\w.-]+)")
KNOWN_HOSTS = re.compile(
    r"(127\.0\.0\.1|localhost|gateway|[\w.-]*\bexample(\.\w+)?|(www\.)?(apache|json-schema|cloudevents|asyncapi)\.(org|io|com)"
    r"|chorus\.ai|data\.mixpanel\.com"  # the tools' own, which the pollers ask
    r"|www\.w3\.org|schemas\.xmlsoap\.org|soap\.sforce\.com"
    r"|[\w.-]+\.(hubapi\.com|hubspot\.com|salesforce\.com|intercom\.(io|com)|customer\.io))"
)
MACHINES = re.compile(r"(?<![\w.~}])/(home|root|work|Users|mnt|workspace)/\w")
PROCESS = re.compile(
    r"\b(sub-?agents?|(coding|ai|llm) (agents?|assistants?)|this session|(another|other|previous) sessions?"
    r"|work items?|co-authored-by|generated (with|by) (ai|an? llm))\b",
    re.IGNORECASE,
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|ya?ml|md|sql|toml|json))`")


@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test_the_code_is_clean(command: list[str]) -> None:
    files = [str(path) for path in tracked() if path.suffix == ".py"]
    found = subprocess.run(
        [BIN / command[0], *command[1:], *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_no_file_names_a_host_of_ours() -> None:
    named = {(str(path), host) for path in TEXTS for host in HOSTS.findall(text_of(path))}
    assert [where for where in sorted(named) if not KNOWN_HOSTS.fullmatch(where[1])] == []


def test_the_lock_names_no_index() -> None:
    lock = text_of(Path("requirements.lock"))
    assert "--hash=sha256:" in lock
    assert re.findall(r"(?m)^\s*(?:-i|--(?:extra-)?index-url|--find-links)\b.*|https?://\S+", lock) == []


@pytest.mark.parametrize("pattern", [MACHINES, PROCESS], ids=["a machine's folders", "how it was written"])
def test_texts_speak_of_the_product_alone(pattern: re.Pattern[str]) -> None:
    lines = [
        (str(path), line.strip())
        for path in TEXTS
        if path != HERE
        for line in text_of(path).splitlines()
        if pattern.search(line)
    ]
    assert lines == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(text_of(page)):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), link
        assert not anchor or anchor in _anchors(file), link


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ +(.+)$", page.read_text())
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    folders = (ROOT, (ROOT / page).parent)
    named = [name for name in PATH.findall(text_of(page)) if not any((folder / name).exists() for folder in folders)]
    assert named == []


def test_the_changelog_begins_with_this_version() -> None:
    version = re.search(r'(?m)^version = "(.+)"$', text_of(Path("pyproject.toml")))
    first = re.search(r"(?m)^## (\S+)", text_of(Path("CHANGELOG.md")))
    assert version is not None
    assert first is not None
    assert first[1] == version[1]
