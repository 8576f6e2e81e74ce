"""The integration tests with their stores in containers: the same assertions, other servers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.containers import KAFKA_OF_TESTCONTAINERS, ROOT, Engine

FILES = ("test_router.py", "test_voc_handlers.py")
"""One that needs Kafka and PostgreSQL, one that needs PostgreSQL alone; all of them take longer than this tier may."""


def test_integration_tests_pass_on_stores_in_containers(engine: Engine) -> None:
    if not engine.has(KAFKA_OF_TESTCONTAINERS):
        pulled = engine.docker("pull", KAFKA_OF_TESTCONTAINERS, check=False, timeout=300)
        if pulled.returncode != 0:
            pytest.skip(f"{KAFKA_OF_TESTCONTAINERS} is not here and cannot be pulled")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning",
         *(f"tests/integration/{name}" for name in FILES)],
        cwd=ROOT, env={**engine.env, "HUNE_TEST_STACK": "containers", "TESTCONTAINERS_RYUK_DISABLED": "true"},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout
