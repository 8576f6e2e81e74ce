"""What every tier may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stack import TestStores, running_stores


@pytest.fixture(scope="session")
def stack() -> Iterator[TestStores]:
    """One Kafka and one PostgreSQL for the whole session, with tables and topics."""
    with running_stores() as stores:
        yield stores
