"""Revenue against a real PostgreSQL: what health learns of subscriptions and rates, and what is exported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from services.health import app, reading
from services.health.revenue_reading import read_return
from shared.errors import Misconfigured
from shared.runtime.api import EVERYBODY, Signal
from tests.support.bench_worker import Runner, a_database, a_signal

T = datetime(2024, 4, 10, tzinfo=UTC)


@pytest_asyncio.fixture
async def runner(postgres: str) -> AsyncIterator[Runner]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    yield Runner(worker, connection)
    await connection.close()


def when(month: int, day: int = 10) -> datetime:
    return datetime(2024, month, day, tzinfo=UTC)


def pays(account: str, at: datetime, mrr: str, **more: Any) -> Signal:
    return a_signal("subscription.changed", account, id=f"{account}{at}{more}", at=at, mrr=mrr, replay=True, **more)


def rate(at: datetime, value: str, **more: Any) -> Signal:
    return a_signal("fx.rate", EVERYBODY, id=f"fx{at}", at=at, currency="USD", rate=value, year=2024, **more)


BOOK = [
    pays("acme", when(1), "100"),
    pays("acme", when(1), "50", subscription_id="s2", currency="USD"),
    pays("beta", when(1), "30.50"),
    pays("acme", when(2), "140"),
    pays("acme", when(3), "20", subscription_id="s2"),
    pays("beta", when(2), "0"),
    pays("beta", when(4), "31", product="core"),
]


async def test_months_and_movements_come_from_what_was_learnt(runner: Runner) -> None:
    await runner.handle(BOOK[4:])
    await runner.handle([rate(when(1), "0.5"), rate(when(4, 20), "9"), *BOOK[:4]])
    months = {row["month"]: row for row in await reading.EXPORTS["revenue"]([runner.db], T, {"by": "month"})}
    assert [(m, r["start_mrr"], r["end_mrr"], r["complete"]) for m, r in months.items()] == [
        ("2024-01", "0.00", "155.50", True),
        ("2024-02", "155.50", "165.00", True),
        ("2024-03", "165.00", "150.00", True),
        ("2024-04", "150.00", "181.00", False),
    ]
    february = months["2024-02"]
    assert (february["nrr_pct"], february["grr_pct"], february["quick_ratio"]) == (106.109325, 80.385852, 1.311475)
    assert (february["customers_start"], february["customers_kept"]) == (2, 1)
    moves = await reading.EXPORTS["revenue"]([runner.db], T, {"by": "account", "since": when(3, 1)})
    assert moves == [
        {"account_id": "acme", "month": "2024-03", "kind": "contraction", "amount": "15.00"},
        {"account_id": "beta", "month": "2024-04", "kind": "returning", "amount": "31.00"},
    ]
    # a rate is about no account: none is made of it
    assert [row["account_id"] for row in await reading.export_accounts([runner.db], T, {})] == ["acme", "beta"]


async def test_an_earlier_time_shows_what_was_known_to_hold_then(runner: Runner) -> None:
    await runner.handle([*BOOK, rate(when(2), "0.5")])
    [january] = await reading.EXPORTS["revenue"]([runner.db], when(1, 31), {})
    assert january["end_mrr"] is None
    assert "no rate of USD in EUR for 2024" in january["end_mrr_reason"]
    with pytest.raises(Misconfigured, match="by 'weekday'; it takes --by month"):
        await reading.EXPORTS["revenue"]([runner.db], T, {"by": "weekday"})


async def test_the_other_cuts_read_the_same_book(runner: Runner) -> None:
    named = [
        a_signal("account.updated", "acme", id="n1", at=when(1), traits={"segment": "high"}),
        a_signal("account.updated", "beta", id="n2", at=when(1), parent_id="acme"),
    ]
    await runner.handle([*BOOK, *named, rate(when(1), "0.5")])
    export = reading.EXPORTS["revenue"]
    segments = await export([runner.db], T, {"by": "segment"})
    assert [row["segment"] for row in segments] == ["high"] * 4 + [None] * 4
    cohorts = await export([runner.db], T, {"by": "cohort"})
    assert {row["cohort"] for row in cohorts} == {"2024-01"}
    ratios = await export([runner.db], T, {"by": "ratios"})
    assert [row["logo_churn_pct"] for row in ratios] == [None, 50.0, 0.0, 0.0]


async def test_the_return_of_the_book_counts_who_was_at_risk_and_stayed(runner: Runner) -> None:
    await runner.handle([*BOOK, rate(when(1), "0.5")])
    with pytest.raises(Misconfigured, match="--cost"):
        await read_return([runner.db], T, None, None)
    await runner.db.execute(
        """insert into health.alerts (alert_id, account_id, partition, rule, cause, kind, severity, title, why,
                                      evidence, baseline, config_hash, opened_at, resolved_at)
           values ('a1', 'acme', 0, 'r', '', 'risk', 'high', '', '', '{}', false, '', $1, $2)""",
        when(2),
        when(3),
    )
    found = await read_return([runner.db], T, Decimal(100), None)
    assert (found["saved"], found["customers_saved"]) == (Decimal(1800), 1)
    assert found["expanded"] == 0
