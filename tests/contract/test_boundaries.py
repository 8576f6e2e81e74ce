"""Who may import what, and which code touches nothing but its arguments."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import ROOT, python_of, tree_of

DOORS = {"__init__", "app", "handlers", "merging", "messages", "reading", "settings", "store"}
"""The rooms of a service that may touch the world, and `*_reading`, what the command line reads.

Every other file in it is pure, unless it is listed here.
"""
MORE_DOORS = {
    "services/health/book.py": "emits",
    "services/health/book_store.py": "is the store of what holds for the whole book",
    "services/health/counting.py": "emits",
    "services/health/guidance_store.py": "is the store of recommendations",
    "services/health/guiding.py": "counts, tells and emits",
    "services/health/kin.py": "emits",
    "services/health/metrics.py": "counts who is set aside",
    "services/health/policy.py": "finds the configuration's folder",
    "services/health/telling.py": "emits",
    "services/notify/calling.py": "is the handler of what concerns messages to customers",
    "services/notify/mail.py": "speaks with mail servers",
    "services/notify/messenger.py": "calls what is outside",
    "services/notify/metrics.py": "counts what was sent",
    "services/notify/names.py": "asks the contact vault",
    "services/notify/outreach_store.py": "is the store of messages to customers",
    "services/notify/sender.py": "calls what is outside",
    "services/notify/slack.py": "is Slack's door",
    "services/notify/webhook.py": "posts to strangers",
    "services/notify/writer.py": "calls what is outside",
    "services/ops/answers.py": "emits",
    "services/ops/relatives.py": "emits",
    "services/ops/review.py": "emits",
    "services/router/gone.py": "drops and tells",
    "services/router/plan.py": "saves and sends what a batch comes to",
    "services/router/reader.py": "knows Kafka's records",
    "services/router/requests.py": "answers and saves",
    "services/router/sending.py": "sends",
    **dict.fromkeys(
        (
            f"services/gateway/{room}.py"
            for room in (
                "answers",
                "body",
                "contacts",
                "event_calls",
                "gateway",
                "ingest",
                "keys",
                "metrics",
                "request_calls",
                "requests",
                "serving",
                "spool",
                "webhook_calls",
            )
        ),
        "the HTTP door itself",
    ),
    "services/gateway/webhooks/settings.py": "reads secrets from the environment",
    "services/gateway/webhooks/signatures.py": "shares the reading of keys with the door",
    "services/gateway/webhooks/translate.py": "logs what a tool sent that nobody can read",
    "services/gateway/pollers/http.py": "calls the tools",
    "services/gateway/pollers/loop.py": "calls, waits and delivers",
    "services/gateway/pollers/running.py": "is started by the process",
    "services/gateway/pollers/translate.py": "shares with the webhooks what becomes a record",
    "services/gateway/adapters/amplitude.py": "its reply tells the time",
    "services/gateway/adapters/customerio.py": "its protocol has messages without any id",
}
SHARED = ("shared/events", "shared/contract/compatibility.py", "shared/contract/flow.py", "shared/contract/asyncapi.py")
ALONE = ("shared/errors.py", "shared/ids.py", "shared/requests.py", "shared/surveys.py", "shared/times.py")

WORLD = {
    "aiokafka", "asyncio", "asyncpg", "concurrent", "contextvars", "faststream", "http", "httpx", "io", "logging",
    "multiprocessing", "os", "pathlib", "prometheus_client", "random", "secrets", "select", "shutil", "signal",
    "socket", "sqlite3", "ssl", "starlette", "subprocess", "tempfile", "threading", "time", "urllib.request",
    "uvicorn",
}  # fmt: skip
OUR_WORLD = ("shared.db", "shared.kafka", "shared.observability", "shared.runtime", "shared.settings")
HARMLESS = {"shared.runtime.api"}
"""Signals and other data; imports nothing that touches the world."""
CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "open", "print", "input", "getenv", "read_text", "write_text"}


def pure() -> list[Path]:
    services = [path for path in python_of("services") if len(path.parts) > 2]
    inside = [
        path
        for path in services
        if path.stem not in DOORS and not path.stem.endswith("_reading") and str(path) not in MORE_DOORS
    ]
    return [*inside, *python_of(*SHARED), *(Path(name) for name in ALONE)]


def test_every_domain_is_among_the_pure_files() -> None:
    domains = {path.relative_to(ROOT) for path in ROOT.glob("services/*/domain.py")}
    assert len(domains) >= 4
    assert domains <= set(pure())


def test_the_list_of_doors_names_files_that_are_there() -> None:
    assert [name for name in MORE_DOORS if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("path", pure(), ids=str)
def test_pure_code_touches_nothing_but_its_arguments(path: Path) -> None:
    assert list(_touches(path, tree_of(path))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio",
        "import os.path",
        "from time import monotonic",
        "from services.x import store",
        "from services.x.handlers import Handler",
        "from shared.runtime.unit import UnitOfWork",
        "from shared import db",
        "at = datetime.now(UTC)",
        "id = uuid.uuid4()",
        "text = open('x').read()",
    ],
)
def test_what_touches_the_world_is_found(text: str) -> None:
    assert len(list(_touches(Path("services/x/domain.py"), ast.parse(text)))) == 1


def _touches(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"{path}:{node.lineno} imports {one.name}" for one in node.names if _is_world(one.name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
            found = [name for name in names if _is_world(name)]
            if found and not set(names) & HARMLESS:
                yield f"{path}:{node.lineno} imports {found[0]}"
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in CALLS:
                yield f"{path}:{node.lineno} calls {name}"


def _is_world(module: str) -> bool:
    parts = module.split(".")
    if parts[0] == "services":
        room = parts[2] if len(parts) > 2 else "__init__"
        return room in DOORS - {"settings", "__init__"} or f"{'/'.join(parts[:3])}.py" in MORE_DOORS
    if any(module == world or module.startswith(f"{world}.") for world in OUR_WORLD):
        return True
    return parts[0] in WORLD or ".".join(parts[:2]) in WORLD


def test_services_talk_through_topics_and_never_through_imports() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert "0 broken" in found.stdout
