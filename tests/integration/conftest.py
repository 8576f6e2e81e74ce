"""What integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.bench_worker import a_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """One PostgreSQL without Kafka, for tests that make the schema they need themselves."""
    with a_postgres() as url:
        yield url
