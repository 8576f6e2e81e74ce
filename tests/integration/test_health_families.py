"""Scores of parents follow their children's over the internal topic; what is read of them agrees; other models, too."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from services.health import app, reading
from shared import topics
from shared.db import Connection
from shared.errors import Misconfigured
from shared.events import model_of
from shared.runtime.api import Batch, Signal, Worker
from shared.runtime.unit import UnitOfWork
from shared.runtime.wire import short_name
from tests.integration.test_merging import merged
from tests.support.bench_worker import PARTITIONS, a_database, a_signal, day

ROOT = Path(__file__).parents[2]
_offsets = count(1_000_000)


class World:
    """The worker with its internal topic: what accounts tell each other comes back as signals."""

    def __init__(self, worker: Worker, db: Connection) -> None:
        self.worker, self.db = worker, db
        self.results: list[tuple[str, dict[str, Any]]] = []
        self.ignored: list[str] = []
        self._seq = 0
        self._seen: set[str] = set()

    async def hear(self, *signals: Signal) -> None:
        queue = [list(signals)]
        for turn in count():
            if not queue:
                return
            assert turn < 50, "the partitions never stop telling each other"
            batch = queue.pop(0)
            async with self.db.transaction():
                self._seq += 1
                unit = UnitOfWork(
                    "health", self.db, seq=self._seq, clocks=dict.fromkeys(range(PARTITIONS), day(0.5)),
                    live=range(PARTITIONS), partitions=PARTITIONS,
                )  # fmt: skip
                await self.worker.handle(Batch(batch), unit)
            self.ignored += [reason for counts in unit.counts.values() for reason in counts]
            if internal := self._collect(unit):
                queue.append(internal)

    def _collect(self, unit: UnitOfWork) -> list[Signal]:
        internal = []
        for record in (record for partition in sorted(unit.outbox) for record in unit.outbox[partition]):
            headers = dict(record.headers)
            id, wire_type = headers["ce_id"].decode(), headers["ce_type"].decode()
            data = model_of(wire_type).model_validate_json(record.value)
            if record.topic != topics.INTERNAL["health"].name:
                self.results.append((short_name(wire_type), data.model_dump(mode="json")))
                continue
            assert id not in self._seen, "two internal events with one id"
            self._seen.add(id)
            internal.append(
                Signal(
                    topic=record.topic, partition=record.partition, offset=next(_offsets), type=short_name(wire_type),
                    id=id, source="hune.health", account_id=headers["ce_subject"].decode(), data=data,
                    occurred_at=day(0.5), received_at=day(0.5),
                )
            )  # fmt: skip
        return internal

    def families(self, account_id: str) -> list[dict[str, Any]]:
        return [data for type, data in self.results if type == "family_score.changed"
                and data["account_id"] == account_id]  # fmt: skip


@pytest_asyncio.fixture
async def world(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A model that one answer is enough for, and of which families are the plain mean of all members."""
    for path in (ROOT / "config").glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    nps = {"kind": "survey", "of": "nps", "half_life_days": 3660, "expires_days": 3660, "group": "voice", "weight": 1,
           "worst": 0, "best": 10, "label": {"en": "NPS", "fr": "NPS"}}  # fmt: skip
    model = {"measures": {"nps": nps}, "family": {"by": "mean", "own": "as_a_child"}}
    (tmp_path / "health.yaml").write_text(yaml.safe_dump(model))
    monkeypatch.setenv("HUNE_CONFIG_DIR", str(tmp_path))
    worker = app.build()
    connection = await a_database(postgres, worker)
    yield World(worker, connection)
    await connection.close()


_ids = count()


def answer(account: str, score: int) -> Signal:
    id = f"a{next(_ids):06}"
    at = day(0.4) + timedelta(seconds=next(_ids))
    return a_signal("survey.answered", account, id=id, at=at, kind="nps", score=score, user_id="ann", answer_id=id)


def parent(account: str, parent_id: str | None) -> Signal:
    at = day(0.4) + timedelta(seconds=next(_ids))
    return a_signal("account.updated", account, id=f"p{next(_ids):06}", at=at, parent_id=parent_id)


async def test_a_tree_rolls_up_and_a_child_that_moves_rescores_both_parents(world: World) -> None:
    await world.hear(*(answer(name, score) for name, score in (("top", 10), ("north", 8), ("south", 2), ("leaf", 6))))
    await world.hear(parent("north", "top"), parent("south", "top"), parent("leaf", "north"))
    assert world.families("north")[-1]["exact"] == 70
    assert world.families("top")[-1]["exact"] == pytest.approx((100 + 70 + 20) / 3)
    await world.hear(parent("leaf", "south"))
    north, south, top = (world.families(name)[-1] for name in ("north", "south", "top"))
    assert (north["score"], north["reason"]) == (None, "it has no children any more")
    assert south["exact"] == 40
    assert top["exact"] == pytest.approx((100 + 80 + 40) / 3)
    await world.hear(answer("leaf", 10))
    assert world.families("south")[-1]["exact"] == 60
    assert world.families("top")[-1]["exact"] == pytest.approx((100 + 80 + 60) / 3)
    for name in ("north", "south", "top"):
        told = world.families(name)
        for before, after in pairwise(told):
            assert after["previous_score"] == before["score"]
            if after["shares"]:
                change = math.fsum(share["points"] for share in after["shares"])
                assert change == pytest.approx(after["exact"] - before["exact"], abs=1e-9)
    rows = {row["account_id"]: row for row in await reading.export_families([world.db], day(0.5), {})}
    assert {name: row["exact"] for name, row in rows.items()} == {"top": 80, "south": 60}
    assert rows["top"]["children"] == ["north", "south"]


async def test_a_merged_account_leaves_its_parent_and_hands_its_children_over(world: World) -> None:
    await world.hear(*(answer(name, score) for name, score in (("top", 10), ("old", 4), ("new", 6), ("leaf", 2))))
    await world.hear(parent("old", "top"), parent("leaf", "old"))
    assert world.families("old")[-1]["exact"] == 30
    assert world.families("top")[-1]["exact"] == 65
    await world.hear(merged("old", "new", 0.45, "m1"))
    assert world.families("top")[-1]["reason"] == "it has no children any more"
    assert world.families("new")[-1]["members"] == 2
    told = len(world.families("old"))
    await world.hear(answer("leaf", 10))
    assert len(world.families("old")) == told
    assert world.families("new")[-1]["members"] == 2
    rows = {row["account_id"]: row for row in await reading.export_families([world.db], day(0.5), {})}
    assert rows["new"]["children"] == ["leaf"]
    await world.hear(parent("leaf", "top"))
    assert world.families("new")[-1]["reason"] == "it has no children any more"
    assert world.families("top")[-1]["exact"] == 100


async def test_a_ring_of_parents_is_refused_and_ends(world: World) -> None:
    await world.hear(answer("a", 10), answer("b", 2), answer("c", 4))
    await world.hear(parent("b", "a"))
    await world.hear(parent("c", "b"))
    assert world.families("a")[-1]["exact"] == pytest.approx((100 + 30) / 2)
    await world.hear(parent("a", "c"))
    assert [reason for reason in world.ignored if "ring" in reason]
    rows = {row["account_id"]: row for row in await reading.export_families([world.db], day(0.5), {})}
    assert {name for name, row in rows.items() if row["in_cycle"]} == {"a", "b", "c"}
    assert rows["a"]["reason"] == "its parents lead back to itself"
    await world.hear(parent("a", "a"))
    rows = {row["account_id"]: row for row in await reading.export_families([world.db], day(0.5), {})}
    assert {name: (row["exact"], row["in_cycle"]) for name, row in rows.items()} == {
        "a": (65, False), "b": (30, False),
    }  # fmt: skip
    assert world.families("a")[-1]["exact"] == 65


async def test_other_models_and_parts_of_the_use_are_read_from_the_same_facts(world: World, tmp_path: Path) -> None:
    uses = [
        a_signal("usage.tracked", "acme", id=f"u{n}", at=day(0.1) + timedelta(minutes=n), feature="search",
                 user_id="ann" if n % 2 else "bob", product="crm" if n < 5 else "erp")
        for n in range(8)
    ]  # fmt: skip
    await world.hear(*uses, answer("acme", 9), answer("calm", 3))
    other = tmp_path / "other.yaml"
    said = yaml.safe_load((tmp_path / "health.yaml").read_text())
    said["measures"]["nps"]["best"] = 20
    other.write_text(yaml.safe_dump(said))
    ours, theirs, found = await reading.compare([world.db], day(0.5), other)
    assert ours.digest != theirs.digest
    assert [(one.account_id, one.before.score, one.after.score) for one in found.moved] == [("acme", 90, 45)]
    assert found.before["green"] == 1
    assert found.after["green"] == 0
    told = await reading.explain([world.db], "acme", day(0.5), other)
    assert (told["score"], told["shown"]["score"]) == (45, 90)
    assert told["shown"]["config_hash"] == ours.digest
    then = await reading.explain([world.db], "acme", day(0.5), other, of_then=True)
    assert (then["score"], then["config_hash"]) == (90, ours.digest)
    with pytest.raises(Misconfigured, match="no score of 'acme' had been told"):
        await reading.explain([world.db], "acme", day(-3), of_then=True)
    products = await reading.export_scores([world.db], day(0.5), {"by": "product"})
    assert [(row["account_id"], row["product"], row["score"]) for row in products] == [
        ("acme", "crm", 90), ("acme", "erp", 90),
    ]  # fmt: skip
    people = await reading.export_scores([world.db], day(0.5), {"by": "user"})
    assert {(row["account_id"], row["user_id"]): row["score"] for row in people} == {
        ("acme", "ann"): 90, ("acme", "bob"): None, ("acme", None): 90,
    }  # fmt: skip
    adopted = await reading.export_adoption([world.db], day(0.5), {})
    assert [(row["month"], row["feature"], row["events"], row["users"], row["accounts"]) for row in adopted] == [
        ("2026-01", "search", 8, 2, 1)
    ]
    [times] = await reading.export_time_to_value([world.db], day(0.5), {})
    assert (times["n"], times["reached"], times["open_share"]) == (2, 1, 0.5)


async def test_a_new_configuration_is_a_cause_of_its_own(world: World, tmp_path: Path) -> None:
    await world.hear(answer("acme", 9))
    await world.hear(answer("acme", 8))
    said = yaml.safe_load((tmp_path / "health.yaml").read_text())
    said["measures"]["nps"]["best"] = 20
    (tmp_path / "health.yaml").write_text(yaml.safe_dump(said))
    later = World(app.build(), world.db)
    later._seq = 100
    await later.hear(answer("acme", 8))
    change = next(data for type, data in later.results if type == "health_score.changed")
    assert (change["previous"]["score"], change["current"]["score"], change["baseline"]) == (80, 40, True)
    assert [(share["cause"], share["kind"]) for share in change["shares"]] == [("config", "config")]
    assert change["shares"][0]["points"] == pytest.approx(-40)
