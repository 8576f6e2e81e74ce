"""What parents are told live is what follows from the tree, whatever moved in which order; shares sum to the change."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.health import families, kin, store
from services.health.domain import Policy
from services.health.families import Member
from services.health.policy import load_policy
from services.health.scoring import band_of
from services.health.settings import Family
from services.health.store import Kin
from tests.unit.test_health_scoring import T

BASE = load_policy()


class World:
    """Parents and children with the database in memory and the internal topic as a list."""

    def __init__(self, rule: Family) -> None:
        model = BASE.model.model_copy(update={"family": rule})
        self.policy = Policy(model, BASE.rules, "c")
        self.rows: dict[str, Kin] = {}
        self.own: dict[str, Member] = {}  # what was told last of accounts that may have no relatives yet
        self.told: list[Any] = []
        self.ignored: list[str] = []
        self.ids: set[str] = set()
        self.queue: list[Any] = []
        self.db = None

    async def load(self, _: Any, places: Mapping[str, int]) -> dict[str, Kin]:
        nobody = {name: Kin(name, 0, self.own.get(name, Member(name, None, "unknown", None))) for name in places}
        found = {name: copy.deepcopy(self.rows.get(name, nobody[name])) for name in places}
        for one in found.values():
            one.stored = frozenset(one.children)
        return found

    async def save(self, _: Any, rows: Sequence[Kin]) -> None:
        self.rows |= {one.account_id: replace(copy.deepcopy(one), had_relatives=True) for one in rows}

    def clock(self, partition: int) -> Any:
        return T

    def ignore(self, signal: Any, reason: str) -> None:
        self.ignored.append(reason)

    def emit(self, topic: Any, event: Any, *, account_id: str, cause: str, kind: str = "", **_: Any) -> None:
        id = f"{cause}/{kind}/{account_id}/{event.type_name}"
        assert id not in self.ids, "one id twice"
        self.ids.add(id)
        if topic is kin.INTERNAL:
            said = SimpleNamespace(account_id=account_id, data=event, id=id, partition=0, received_at=T)
            self.queue.append(said)
        else:
            self.told.append(event)

    def say(self, name: str, points: float | None, parent: str | None, arr: Any = None) -> None:
        band = "unknown" if points is None else band_of(points, self.policy.model.bands)
        self.own[name] = Member(name, points, band, arr)
        asyncio.run(self._say([kin.Own(self.own[name], 0, parent, T, False)]))

    async def _say(self, own: Sequence[kin.Own]) -> None:
        unit: Any = self
        await kin.follow(own, [], unit, self.policy)
        for _ in range(500):
            if not self.queue:
                return
            heard, self.queue = self.queue[:1], self.queue[1:]
            await kin.follow([], heard, unit, self.policy)
        raise AssertionError("they never stop telling each other")


@pytest.fixture(autouse=True, scope="module")
def in_memory() -> Any:
    load, save = store.load_kin, store.save_kin
    store.load_kin = lambda world, places: world.load(None, places)  # type: ignore[assignment]
    store.save_kin = lambda world, rows: world.save(None, rows)  # type: ignore[assignment]
    yield
    store.load_kin, store.save_kin = load, save


def a_world(**rule: str) -> World:
    world = World(Family.model_validate({"by": "mean", **rule}))
    world.db = world  # type: ignore[assignment]
    return world


NAMES = "abcdefg"
STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.none() | st.integers(0, 100), st.none() | st.sampled_from(NAMES)), max_size=14
)
RULES = st.sampled_from(["mean", "worst", "share_in_band"])


@settings(deadline=None, max_examples=60)
@given(STEPS, RULES, st.sampled_from(["as_a_child", "when_alone", "never"]))
def test_what_is_told_live_is_what_the_tree_says_and_shares_sum_to_each_change(
    steps: list[tuple[str, int | None, str | None]], by: str, own: str
) -> None:
    world = a_world(by=by, own=own)
    standing: dict[str, tuple[float | None, str | None]] = {}
    for name, points, parent in steps:
        links = {child: up for child, (_, up) in standing.items() if up} | ({name: parent} if parent else {})
        if families.in_cycles(links):
            continue
        standing[name] = (points, parent)
        world.say(name, points, parent)
    accounts = [
        (Member(name, points, "unknown" if points is None else band_of(points, world.policy.model.bands), None), parent)
        for name, (points, parent) in standing.items()
    ]
    rule, bands = world.policy.model.family, world.policy.model.bands
    assert rule is not None
    expected = {one.account_id: one.score for one in families.standings(accounts, rule, bands)}
    last = {event.account_id: event for event in world.told}
    for name, score in expected.items():
        assert world.rows[name].exact == pytest.approx(score.points)
        if score.points is not None:
            assert (last[name].score, last[name].band) == (score.score, score.band)
    for name in {event.account_id for event in world.told} - expected.keys():
        assert last[name].members == 0
    for name in last:
        for before, after in pairwise([event for event in world.told if event.account_id == name]):
            assert after.previous_score in (before.score, None)
            if after.shares:
                change = math.fsum(share.points for share in after.shares)
                assert change == pytest.approx(after.exact - before.exact, abs=1e-9)


def test_a_ring_ends_and_the_link_that_closes_it_is_refused() -> None:
    world = a_world()
    for name, points, parent in (("a", 100, None), ("b", 20, "a"), ("c", 40, "b"), ("a", 100, "c")):
        world.say(name, points, parent)
    assert world.rows["c"].children == {}
    assert world.ignored == ["an account below its own child: parents in a ring count for nobody"]
    world.say("a", 0, "c")
    assert world.rows["a"].exact == pytest.approx(15)
    world.say("a", 0, "a")
    assert world.rows["a"].parent_id is None


def test_what_did_not_change_is_not_told_again() -> None:
    world = a_world()
    world.say("a", 50, None)
    world.say("b", 60, "a")
    told, sent = len(world.told), len(world.ids)
    world.say("b", 60, "a")
    assert (len(world.told), len(world.ids)) == (told, sent)
