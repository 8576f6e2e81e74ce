"""The engine, or a loud reason why nothing here was tested."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.containers import Composed, Engine, NoEngine, an_engine, composed

NO_TESTS = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which nothing was tested does not end like one in which everything passed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == 0 and reporter is not None and not reporter.stats.get("passed"):
        session.exitstatus = NO_TESTS


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with ExitStack() as stack:
        try:
            found = stack.enter_context(an_engine())
        except NoEngine as missing:
            if os.environ.get("HUNE_TEST_CONTAINERS"):
                raise
            pytest.skip(f"NOT TESTED: {missing}")
        yield found


@pytest.fixture(scope="session")
def whole(engine: Engine) -> Iterator[Composed]:
    with composed(engine) as running:
        yield running
