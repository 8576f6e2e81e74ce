"""The backtest of the log reads what health has learnt from events, notice of leaving included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest_asyncio

from cli import backtest_log
from services.health import app, leaving
from services.health.backtest_reading import read_history
from services.health.usage import moment
from shared.runtime.api import Signal
from tests.support.bench_worker import Runner, a_database, a_signal

START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest_asyncio.fixture
async def runner(postgres: str) -> AsyncIterator[Runner]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    yield Runner(worker, connection)
    await connection.close()


def said(type_: str, account: str, day: float, **data: Any) -> Signal:
    at = START + timedelta(days=day)
    return a_signal(type_, account, id=f"{account}{type_}{day}", at=at, replay=True, **data)


def a_year(account: str, notice: int | None) -> list[Signal]:
    use = range(0, notice - 40 if notice else 360, 3)
    told = [said("usage.tracked", account, day + 0.5, user_id="ann", event="open", feature="search") for day in use]
    told.append(said("subscription.changed", account, 0, mrr="100", currency="EUR"))
    return told if notice is None else [*told, said("churn.notified", account, notice, reason="price")]


async def test_a_history_is_read_and_judged(runner: Runner) -> None:
    notices = {"a": 150, "b": 175, "c": 200, "d": None, "e": None, "f": None}
    signals = [signal for account, notice in notices.items() for signal in a_year(account, notice)]
    await runner.handle(signals[::-1])
    end = START + timedelta(days=360)
    book = await read_history([runner.db], end)
    assert [known.account_id for known in book] == list(notices)
    left = {known.account_id: [(moment(one.at) - START).days for one in leaving.leavings(known)] for known in book}
    assert left == {account: [notice] if notice else [] for account, notice in notices.items()}
    found = backtest_log.looked_back(book, end, 60, None)
    assert found["signs"] == {"notice": 3}
    assert (found["alerts"]["left"], found["accounts"]) == (3, 6)
    assert found["auc"] > 0.5
    before = await read_history([runner.db], START + timedelta(days=149.5))
    assert [leaving.leavings(known) for known in before] == [[]] * 6
    assert sum(events.size for known in before for events in known.usage) < sum(
        events.size for known in book for events in known.usage
    )
