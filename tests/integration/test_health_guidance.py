"""Features that green peers use are recommended across partitions, told once, dismissed by request, and exported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from services.health import app, reading
from services.health.counting import keys_of
from services.health.guidance_reading import export_recommendations
from shared import topics
from shared.events.results import FeaturesCounted
from shared.runtime.api import Signal
from shared.runtime.unit import partition_for
from tests.support.bench_worker import PARTITIONS, Runner, Said, a_database, a_signal, day

pytestmark = pytest.mark.asyncio
ROOT = Path(__file__).parents[2]
COUNTED = "health.features_counted"
PEERS = [f"peer-{n}" for n in range(6)]
MEASURE = {
    "kind": "usage_recency", "label": {"en": "last use", "fr": "dernier usage"}, "group": "usage", "weight": 1,
    "worst": 30, "best": 3,
}  # fmt: skip
_ids = count()


async def a_runner(postgres: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **guidance: Any) -> Runner:
    for path in (ROOT / "config").glob("*.yaml"):
        (folder / path.name).write_text(path.read_text())
    (folder / "health.yaml").write_text(yaml.safe_dump({"measures": {"use": MEASURE}, "guidance": guidance}))
    monkeypatch.setenv("HUNE_CONFIG_DIR", str(folder))
    worker = app.build()
    return Runner(worker, await a_database(postgres, worker))


@pytest_asyncio.fixture
async def health(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runner]:
    runner = await a_runner(postgres, tmp_path, monkeypatch)
    runner.clock, runner.live = day(120.5), True
    yield runner
    await runner.db.close()


def used(account: str, at: float, feature: str) -> Signal:
    return a_signal("usage.tracked", account, id=f"u{next(_ids)}", at=day(at), user_id="ann", feature=feature)


def customer(name: str, *features: str, segment: str = "mid", since: float = 60) -> list[Signal]:
    """An account that has `search` and `export`, and uses what is given until noon of day 120."""
    return [
        a_signal("account.updated", name, id=f"p{name}", at=day(since), traits={"segment": segment}),
        a_signal("entitlement.changed", name, id=f"e{name}", at=day(since), product="p",
                 features=["search", "export"], seats=5),
        used(name, since, features[0]),
        *(used(name, 120.4, feature) for feature in features),
    ]  # fmt: skip


def asks(demand: str, account: str = "acme", **parameters: Any) -> Signal:
    number = next(_ids)
    said: dict[str, Any] = {"account_id": account, "parameters": parameters}
    return a_signal("request.made", account, id=f"r{number}", at=day(120.6), demand=demand, **said)


async def deliver(runner: Runner, said: Said) -> None:
    """Every partition hears what each counted."""
    for data in {data["of_partition"]: data for data in said.of(COUNTED)}.values():
        event = FeaturesCounted.model_validate(data)
        for key in keys_of(PARTITIONS):
            at = day(event.day.toordinal() - day(0).date().toordinal())
            signal = Signal(topics.INTERNAL["health"].name, partition_for(key, PARTITIONS), 0, COUNTED,
                            f"c{next(_ids)}", "hune.health", key, event, at, at)  # fmt: skip
            assert (await runner.handle([signal])).rejected == []


async def settle(runner: Runner, at: float | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Tick until nothing is left to do; what was told of recommendations."""
    if at is not None:
        runner.clock = day(at)
    told: list[tuple[str, dict[str, Any]]] = []
    for turn in count():
        assert turn < 50, "it never comes to rest"
        said = await runner.tick(limit=4)
        await deliver(runner, said)
        told += [(type, data) for type, data in said.events if type.startswith("recommendation.")]
        if said.moved == 0:
            return told
    raise AssertionError


async def a_book(runner: Runner) -> dict[str, Any]:
    """Six green peers of two partitions use both features, acme one, before there is a clock: what is told of it."""
    assert {partition_for(name, PARTITIONS) for name in PEERS} == set(range(PARTITIONS))
    at, runner.clock = runner.clock, None
    for name in PEERS:
        await runner.handle(customer(name, "search", "export"))
    await runner.handle(customer("acme", "search"))
    runner.clock = at
    [(type, made)] = await settle(runner)
    assert type == "recommendation.made"
    return made


async def test_what_green_peers_use_is_recommended_once_with_its_numbers(health: Runner) -> None:
    made = await a_book(health)
    assert (made["account_id"], made["feature"], made["peers"], made["peers_using"]) == ("acme", "export", 6, 6)
    assert made["baseline"], "the first comparison wakes nobody"
    assert made["why"].startswith("6 of 6 other green accounts of segment mid")
    assert await settle(health) == []
    assert await settle(health, 121.5) == []
    [row] = await export_recommendations([health.db], day(121), {})
    assert (row["state"], row["recommendation_id"], row["ended_at"]) == ("open", made["recommendation_id"], None)
    assert await export_recommendations([health.db], day(120), {}) == []
    found = await reading.explain([health.db], "acme", day(121))
    assert found["next_step"] == made["next_step"]
    assert [one["feature"] for one in found["recommendations"]] == ["export"]
    [answer] = (await health.handle([asks("health.score")])).of("request.answered")
    assert answer["answer"]["next_step"] == made["next_step"]
    assert [one["feature"] for one in answer["answer"]["recommendations"]] == ["export"]
    health.clock = day(135.5)
    changes = [one for one in (await health.tick()).of("health_score.changed") if one["account_id"] == "acme"]
    assert changes[-1]["next_step"]


async def test_a_dismissal_is_told_once_and_rests_for_its_time(health: Runner) -> None:
    await a_book(health)
    ask = asks("recommendation.dismiss", feature="export", by="ann-7é", note="not for them")
    said = await health.handle([ask, asks("recommendation.dismiss", feature="export")])
    [told] = said.of("recommendation.dismissed")
    assert (told["by"], told["note"], told["cause_ids"]) == ("ann-7é", "not for them", [ask.id])
    first, second = said.of("request.answered")
    assert (first["answer"]["already"], second["answer"]["already"]) == (False, True)
    wrong = await health.handle([asks("recommendation.dismiss", feature="import"), asks("recommendation.dismiss")])
    reasons = [one["reason"] for one in wrong.of("request.declined")]
    assert reasons[0] == "'import' is not recommended to account 'acme'; recommended is: nothing"
    assert "recommendation_id or feature" in reasons[1]
    await everybody_goes_on(health, 150)
    assert await settle(health, 150.5) == []
    forgotten = a_signal("privacy.requested", id="f", at=day(150), user_id="ann-7é", regulation="delete")
    replaced = {name: getattr(forgotten, name) for name in forgotten.__struct_fields__} | {"account_id": "*"}
    await health.handle([Signal(**replaced | {"partition": partition}) for partition in range(PARTITIONS)])
    [row] = await export_recommendations([health.db], day(151), {})
    assert (row["state"], row["note"]) == ("dismissed", "not for them")
    assert row["ended_by"].startswith("deleted-")
    for at in (180.0, 209.9):
        await everybody_goes_on(health, at)
        assert await settle(health, at + 0.05) == []
    await everybody_goes_on(health, 211)
    [(type, again)] = await settle(health, 211.5)
    assert (type, again["feature"], again["baseline"]) == ("recommendation.made", "export", False)


async def everybody_goes_on(runner: Runner, at: float) -> None:
    await runner.handle([used(name, at, feature) for name in PEERS for feature in ("search", "export")])
    await runner.handle([used("acme", at, "search")])


async def test_use_on_two_days_adopts_and_a_lost_entitlement_withdraws(health: Runner) -> None:
    await a_book(health)
    await health.handle([used("acme", 120.9, "export"), used("acme", 122, "export")])
    [(type, told)] = await settle(health, 122.5)
    assert (type, told["days_used"], told["baseline"]) == ("recommendation.adopted", 2, False)
    [row] = await export_recommendations([health.db], day(123), {})
    assert (row["state"], row["ended_at"]) == ("adopted", "2026-05-03T12:00:00Z")
    [row] = await export_recommendations([health.db], day(121), {})
    assert row["state"] == "open"


async def test_a_run_tells_baselines_and_the_same_book_twice_tells_nothing_twice(health: Runner) -> None:
    health.live = False
    made = await a_book(health)
    assert made["baseline"]
    health.live = True
    assert await settle(health, 120.6) == []
    await health.handle(customer("late", "search"))
    assert [(type, data["account_id"], data["baseline"]) for type, data in await settle(health, 121.5)] == [
        ("recommendation.made", "late", True)
    ]


async def test_a_merged_account_has_nothing_recommended_any_more(health: Runner) -> None:
    await a_book(health)
    merge = a_signal("account.merged", "acme", id="m", at=day(120.55), merged_account_id="acme",
                     account_id="peer-0")  # fmt: skip
    said = await health.handle([merge])
    [told] = said.of("recommendation.withdrawn")
    assert (told["reason"], told["baseline"]) == ("merged", True)
    assert await health.db.fetchval("select count(*) from health.features where account_id = 'acme'") == 0


async def test_without_entitlements_nothing_is_counted_or_told(health: Runner) -> None:
    for name in PEERS:
        await health.handle([used(name, 60, "search"), used(name, 120.4, "export")])
    while (said := await health.tick(limit=4)).moved:
        assert said.of(COUNTED) == []
    assert await health.db.fetchval("select count(*) from health.features") == 0
