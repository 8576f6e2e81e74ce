"""A running worker whose password Kafka takes no more says so and ends; it does not hammer at the door."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from shared import topics
from shared.errors import Misconfigured
from shared.runtime import service
from shared.runtime.api import Batch, Worker
from shared.runtime.service import Runtime
from shared.runtime.unit import UnitOfWork
from shared.settings import Settings

SASL = {"HUNE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "HUNE_KAFKA_USERNAME": "u", "HUNE_KAFKA_PASSWORD": "p"}
WRONG = "Kafka at kafka:9092 refuses HUNE_KAFKA_USERNAME 'u'; see HUNE_KAFKA_PASSWORD"


async def nothing(batch: Batch, unit: UnitOfWork) -> None: ...


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(service, "OBSERVE_S", 0)
    url = "postgresql://localhost/none"
    worker = Worker("health", (topics.ROUTED["health"],), (), nothing, Path())
    return Runtime(worker, Settings("kafka:9092", url, (url,), Path()))


class Door:
    """Stands in for the look at Kafka; counts how often somebody knocks."""

    def __init__(self, refuses: bool) -> None:
        self.knocks, self.refuses = 0, refuses

    async def __call__(self, bootstrap_servers: str) -> None:
        self.knocks += 1
        if self.refuses:
            raise Misconfigured(WRONG)


async def test_a_password_that_kafka_takes_no_more_is_said_once_and_ends_the_process(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    door, codes = Door(refuses=True), list[int]()
    monkeypatch.setattr(service, "ACCESS_S", -1)
    monkeypatch.setattr(service, "refuse_wrong_access", door)
    monkeypatch.setattr(os, "_exit", codes.append)
    for name, value in SASL.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.CRITICAL):
        async with asyncio.timeout(10):
            await runtime._guard(runtime._watch())
    assert codes == [2]
    assert door.knocks == 1
    assert [record.getMessage() for record in caplog.records] == [WRONG]


@pytest.mark.parametrize(("access", "every", "knocks"), [(SASL, 3600, 0), ({}, -1, 0)], ids=["not yet", "in the clear"])
async def test_between_looks_and_in_the_clear_nobody_knocks(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, access: dict[str, str], every: float, knocks: int
) -> None:
    door, rounds = Door(refuses=False), asyncio.Semaphore(0)
    monkeypatch.setattr(service, "ACCESS_S", every)
    monkeypatch.setattr(service, "refuse_wrong_access", door)
    for name, value in access.items():
        monkeypatch.setenv(name, value)

    async def observed() -> None:
        rounds.release()

    monkeypatch.setattr(runtime, "_observe_waiting", observed)
    watching = asyncio.create_task(runtime._watch())
    async with asyncio.timeout(10):
        for _ in range(20):
            await rounds.acquire()
    watching.cancel()
    assert door.knocks == knocks
