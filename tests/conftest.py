"""What every tier may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.stack import TestStores, running_stores

# How long an example takes says more about the machine than about the code.
settings.register_profile("hune", deadline=None)
settings.load_profile("hune")


@pytest.fixture(scope="session")
def stack() -> Iterator[TestStores]:
    """One Kafka and one PostgreSQL for the whole session, with tables and topics."""
    with running_stores() as stores:
        yield stores
