"""Partitions count their accounts' values, tell each other, and rank by them: what is told is what is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from services.health import app, domain, reading
from services.health.counting import keys_of
from shared import topics
from shared.events.results import PeersCounted
from shared.runtime.api import Signal
from shared.runtime.unit import partition_for
from tests.support.bench_worker import PARTITIONS, Runner, Said, a_database, a_signal, day
from tests.unit.test_health_peers import SEATS

pytestmark = pytest.mark.asyncio
ROOT = Path(__file__).parents[2]
ACCOUNTS = 12
_ids = count()


@pytest_asyncio.fixture
async def health(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runner]:
    for path in (ROOT / "config").glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    measure = SEATS | {"percentile": {"among": "segment", "best": "lowest", "peers": 5}}
    (tmp_path / "health.yaml").write_text(yaml.safe_dump({"measures": {"load": measure}}))
    monkeypatch.setenv("HUNE_CONFIG_DIR", str(tmp_path))
    worker = app.build()
    runner = Runner(worker, await a_database(postgres, worker))
    yield runner
    await runner.db.close()


async def deliver(runner: Runner, said: Said) -> list[tuple[str, dict[str, Any]]]:
    """Every partition hears what each counted; what else was said."""
    counted = {data["of_partition"]: data for type, data in said.events if type == "health.peers_counted"}
    for data in counted.values():
        event = PeersCounted.model_validate(data)
        for key in keys_of(PARTITIONS):
            signal = Signal(
                topics.INTERNAL["health"].name, partition_for(key, PARTITIONS), 0, "health.peers_counted",
                f"c{next(_ids)}", "hune.health", key, event, day(event.day.day), day(event.day.day),
            )  # fmt: skip
            assert (await runner.handle([signal])).rejected == []
    return [(type, data) for type, data in said.events if type != "health.peers_counted"]


async def settle(runner: Runner) -> list[dict[str, Any]]:
    """Tick until nothing is left to do; the changes that were told."""
    told: list[dict[str, Any]] = []
    for turn in count():
        assert turn < 100, "it never comes to rest"
        said = await runner.tick(limit=5)
        told += [data for type, data in await deliver(runner, said) if type == "health_score.changed"]
        if said.moved == 0:
            return told
    raise AssertionError


async def shown(runner: Runner) -> dict[str, int | None]:
    rows = await runner.db.fetch("select account_id, (memory -> 'score' ->> 'score')::int from health.accounts")
    return {row[0]: row[1] for row in rows}


async def read(runner: Runner, at: float) -> dict[str, int | None]:
    return {row["account_id"]: row["score"] for row in await reading.export_scores([runner.db], day(at), {})}


def tickets(account: str, number: int, at: float) -> list[Signal]:
    return [
        a_signal("ticket.opened", account, id=f"t{account}{n}{at}", at=day(at), ticket_id=f"{n}{at}", severity="p3")
        for n in range(number)
    ]


async def test_ranks_are_told_once_all_partitions_counted_and_agree_with_what_is_read(health: Runner) -> None:
    health.clock, health.live = day(20.5), True
    names = [f"acme-{n}" for n in range(ACCOUNTS)]
    assert {partition_for(name, PARTITIONS) for name in names} == set(range(PARTITIONS))
    for number, name in enumerate(names):
        segmented = a_signal("account.updated", name, id=f"s{name}", at=day(3), traits={"segment": "smb"})
        await health.handle([segmented, *tickets(name, 1 + number, 10)])
    told = await settle(health)
    assert all(one["baseline"] for one in told)
    ranks = await shown(health)
    assert ranks == await read(health, 20.5)
    known = [score for score in ranks.values() if score is not None]
    assert len(known) == ACCOUNTS
    assert ranks["acme-0"] == max(known)
    assert ranks["acme-11"] == min(known)

    await health.handle(tickets("acme-0", 40, 20.4))
    worse = await shown(health)
    assert worse["acme-0"] == 0
    assert {name: worse[name] for name in names[1:]} == {name: ranks[name] for name in names[1:]}
    assert worse == await read(health, 20.5)

    health.clock = day(21.5)
    await settle(health)
    assert await shown(health) == await read(health, 21.5)
    health.clock = day(22.5)
    await settle(health)
    assert await shown(health) == await read(health, 22.5)
    explained = await reading.explain([health.db], "acme-1", day(20.5))
    assert explained["score"] == worse["acme-1"], "a past day is ranked by the peers of that day"
    assert await health.db.fetchval("select count(*) from health.peer_values") == 0


async def test_an_account_that_cannot_be_looked_at_is_set_aside_and_the_others_go_on(
    health: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    health.clock = None
    for name in ("good", "bad", "fine"):
        await health.handle(tickets(name, 1, 10))
    health.clock, health.live = day(20.5), True
    assess = domain.assess

    def broken(known: Any, *said: Any, **named: Any) -> Any:
        if known.account_id == "bad":
            raise ZeroDivisionError("no such luck")
        return assess(known, *said, **named)

    monkeypatch.setattr(domain, "assess", broken)
    said = await health.tick()
    assert {data["account_id"] for data in said.of("account.state")} == {"good", "fine"}
    row = await health.db.fetchrow("select * from health_api.set_aside_v1")
    assert (row["account_id"], row["reason"]) == ("bad", "ZeroDivisionError: no such luck")
    monkeypatch.setattr(domain, "assess", assess)
    assert (await health.tick()).of("account.state") == [], "not before an hour"
    health.clock = day(20.55)
    assert {data["account_id"] for data in (await health.tick()).of("account.state")} == {"bad"}
    assert await health.db.fetchval("select count(*) from health_api.set_aside_v1") == 0
