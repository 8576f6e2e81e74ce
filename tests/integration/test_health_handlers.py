"""Health against a real PostgreSQL: what it tells, records, answers and exports."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.health import app, reading
from services.health.alert_reading import export_alerts
from shared.runtime.api import Signal
from tests.support.bench_worker import Runner, Said, a_database, a_signal, day


@pytest_asyncio.fixture
async def runner(postgres: str) -> AsyncIterator[Runner]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    yield Runner(worker, connection)
    await connection.close()


def use(id: str, at: datetime, account: str = "acme", user: str = "ann", **more: Any) -> Signal:
    return a_signal("usage.tracked", account, id=id, at=at, user_id=user, feature="search", **more)


def history(days: int, account: str = "acme", last: int = 0) -> list[Signal]:
    """A run: three people, every day until day `last`."""
    return [
        use(f"{account}-{n}-{user}", day(last - n), account, user, replay=True)
        for n in range(days)
        for user in ("ann", "bob", "cid")
    ]


async def ticks(runner: Runner) -> list[Said]:
    said = [await runner.tick()]
    while said[-1].moved:
        said.append(await runner.tick())
    return said


async def lived(runner: Runner) -> None:
    """An account with a good past, assessed live at noon of day 0."""
    assert (await runner.handle(history(100))).events == []
    runner.clock = day(0.5)
    await ticks(runner)
    runner.live = True


async def test_a_run_is_learnt_silently_and_told_once_as_a_baseline(runner: Runner) -> None:
    await runner.handle(history(100) + history(60, "gone", last=-40))
    runner.clock = day(0.5)
    first, *rest = await ticks(runner)
    assert first.moved == 2
    assert {(c["account_id"], c["current"]["band"], c["baseline"]) for c in first.of("health_score.changed")} == {
        ("acme", "green", True), ("gone", "red", True),
    }  # fmt: skip
    opened = {alert["rule"]: alert for alert in first.of("alert.opened")}
    assert set(opened) == {"gone_silent", "band_red"}
    assert all(alert["baseline"] for alert in opened.values())
    assert sorted(opened["gone_silent"]["evidence"]["people"]) == ["ann", "bob", "cid"]
    assert [said.events for said in rest] == [[]] * len(rest)


async def test_a_p1_is_an_alert_and_a_score_in_the_same_batch_and_ends_with_the_ticket(runner: Runner) -> None:
    await lived(runner)
    runner.clock = day(0.6)
    said = await runner.handle(
        [a_signal("ticket.opened", id="e1", at=day(0.6), ticket_id="t", severity="p1", subject="Down")]
    )
    [alert] = said.of("alert.opened")
    assert (alert["rule"], alert["severity"], alert["baseline"], alert["cause_ids"]) == (
        "p1_open",
        "critical",
        False,
        ["e1"],
    )
    [change] = said.of("health_score.changed")
    assert [share["cause"] for share in change["shares"]] == ["open_tickets", "reopened"]
    assert sum(share["points"] for share in change["shares"]) == pytest.approx(
        change["current"]["exact"] - change["previous"]["exact"], abs=1e-9
    )
    runner.clock = day(0.62)
    over = await runner.handle([a_signal("ticket.solved", id="e2", at=day(0.61), ticket_id="t")])
    [resolved] = over.of("alert.resolved")
    assert resolved["alert_id"] == alert["alert_id"]
    [after] = over.of("health_score.changed")
    assert after["previous"] == change["current"]
    [row] = await export_alerts([runner.db], day(1), {})
    assert (row["alert_id"], row["state"], row["evidence"]["ticket_id"]) == (alert["alert_id"], "resolved", "t")
    [row] = await export_alerts([runner.db], day(0.605), {})
    assert row["state"] == "open"


async def test_only_the_first_use_of_a_day_is_news(runner: Runner) -> None:
    await runner.handle(history(100, last=-5))
    runner.clock, runner.live = day(0.5), True
    await ticks(runner)
    first = await runner.handle([use("e1", day(0.5), user="ann"), use("e2", day(0.5), user="bob")])
    assert [change["cause_ids"] for change in first.of("health_score.changed")] == [["e1"]]
    assert (await runner.handle([use("e3", day(0.5), user="cid")])).events == []
    late = await runner.handle([use("e4", day(-0.1), user="new")])
    assert [change["cause_ids"] for change in late.of("health_score.changed")] == [["e4"]]


async def test_a_later_run_restates_and_wakes_nobody(runner: Runner) -> None:
    await lived(runner)
    said = await runner.handle(
        [
            a_signal(
                "ticket.opened", id="e1", at=day(-9), received_at=day(0.6), ticket_id="t", severity="p1", replay=True
            )
        ]
    )
    assert said.events == []
    runner.clock = day(0.7)
    [told, *_] = await ticks(runner)
    assert [alert["baseline"] for alert in told.of("alert.opened")] == [True]
    news = await runner.handle([a_signal("ticket.opened", id="e2", at=day(0.7), ticket_id="t2", severity="p1")])
    assert {alert["rule"]: alert["baseline"] for alert in news.of("alert.opened")}["p1_open"] is False


async def test_a_jump_to_now_is_a_baseline_but_what_came_live_before_it_is_news(runner: Runner) -> None:
    await runner.handle(history(100))
    runner.clock = day(0.5)
    await ticks(runner)
    live = a_signal("ticket.opened", id="e1", at=day(70), ticket_id="t", severity="p1")
    assert (await runner.handle([live])).events == []
    runner.clock, runner.live = day(70.1), True
    [told, *_] = await ticks(runner)
    rang = {alert["rule"]: alert["baseline"] for alert in told.of("alert.opened")}
    assert rang == {"gone_silent": True, "band_red": True, "p1_open": False}


async def test_the_first_live_fact_of_a_new_installation_is_news(runner: Runner) -> None:
    await runner.handle([a_signal("ticket.opened", id="e1", at=day(0), ticket_id="t", severity="p1")])
    runner.clock, runner.live = day(0.01), True
    [told, *_] = await ticks(runner)
    assert [(alert["rule"], alert["baseline"]) for alert in told.of("alert.opened")] == [("p1_open", False)]


async def test_time_alone_moves_the_score_at_the_accounts_midnight(runner: Runner) -> None:
    await lived(runner)
    runner.clock = day(0.9)
    assert (await runner.tick()).moved == 0
    runner.clock = day(20.5)
    [told, *_] = await ticks(runner)
    [change] = told.of("health_score.changed")
    assert change["current"]["score"] < change["previous"]["score"]
    assert change["why"].startswith("Fell ")


def mixed(rng: random.Random) -> list[Signal]:
    """A day of everything for three accounts."""
    signals = []
    for n in range(60):
        account, at = rng.choice(["a", "b", "c"]), day(0.5) + timedelta(minutes=n)
        kind = rng.randrange(6)
        if kind <= 2:
            back = rng.choice([0, 0, 0, 20])
            signals.append(use(f"e{n}", at - timedelta(hours=back), account, rng.choice(["ann", "dan"])))
        elif kind == 3:
            name = rng.choice(["ticket.opened", "ticket.solved"])
            signals.append(a_signal(name, account, id=f"e{n}", at=at, ticket_id=f"t{n % 2}", severity="p1"))
        elif kind == 4:
            signals.append(
                a_signal("survey.answered", account, id=f"e{n}", at=at, kind="nps", score=n % 11, user_id="u")
            )
        else:
            run = a_signal("invoice.failed", account, id=f"e{n}", at=at, invoice_id=f"i{n}", replay=n % 2 == 0)
            signals.append(run)
    return signals


async def told(runner: Runner, signals: Sequence[Signal], sizes: Iterator[int]) -> list[tuple[str, str]]:
    await runner.handle(history(40, "a") + history(40, "b", last=-35))
    runner.clock = day(0.4)
    await ticks(runner)
    runner.clock, runner.live = day(0.6), True
    await ticks(runner)
    events: list[tuple[str, str]] = []
    rest = list(signals)
    while rest:
        size = next(sizes)
        batch, rest = rest[:size], rest[size:]
        said = await runner.handle(batch)
        events += [(id, str(data)) for id, (_, data) in zip(said.ids, said.events, strict=True)]
    return sorted(events)


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_told_does_not_depend_on_where_batches_end(postgres: str, seed: int) -> None:
    rng, found = random.Random(seed), []
    signals = mixed(rng)
    for sizes in (iter(lambda: 1, 0), iter(lambda: 1000, 0), iter(lambda: rng.randrange(1, 20), 0)):
        worker = app.build()
        connection = await a_database(postgres, worker)
        found.append(await told(Runner(worker, connection), signals, sizes))
        await connection.close()
    assert len(found[0]) > 10
    assert found[0] == found[1] == found[2]
    ids = [id for id, _ in found[0]]
    assert len(ids) == len(set(ids))


async def exported(runner: Runner, at: datetime) -> list[list[dict[str, Any]]]:
    dbs = [runner.db]
    return [
        await reading.export_usage(dbs, at, {}),
        await reading.export_usage(dbs, at, {"by": "month"}),
        await reading.export_scores(dbs, at, {}),
        await reading.export_accounts(dbs, at, {}),
    ]


async def test_figures_are_the_same_in_any_order_and_split_at_any_moment(postgres: str) -> None:
    rng, found = random.Random(7), []
    signals = history(50, "a") + mixed(rng)
    for seed in (None, 1, 2):
        worker = app.build()
        connection = await a_database(postgres, worker)
        runner, rest = Runner(worker, connection), list(signals)
        if seed:
            random.Random(seed).shuffle(rest)
        while rest:
            size = rng.randrange(1, 80)
            await runner.handle(rest[:size])
            rest = rest[size:]
        runner.clock = day(1)
        await ticks(runner)
        found.append([await exported(runner, at) for at in (day(-20.3), day(0.51), day(2))])
        await connection.close()
    assert found[0] == found[1] == found[2]
    assert found[0][0][0][0]["events"] < found[0][1][0][0]["events"] < found[0][2][0][0]["events"]


async def test_the_score_told_is_the_score_recomputed(runner: Runner) -> None:
    await lived(runner)
    said = await runner.handle([a_signal("ticket.opened", id="e1", at=day(0.5), ticket_id="t", severity="p2")])
    [change] = said.of("health_score.changed")
    [row] = await reading.export_scores([runner.db], day(0.5), {})
    assert (row["score"], row["band"], row["config_hash"]) == (
        change["current"]["score"], change["current"]["band"], change["config_hash"],
    )  # fmt: skip
    why = await reading.explain([runner.db], "acme", day(0.5))
    assert why["score"] == row["score"]
    assert sum(share["points"] for share in why["change"]["shares"]) == pytest.approx(
        why["exact"] - why["change"]["exact"], abs=1e-5
    )


def request(demand: str, account: str | None = "acme", **parameters: Any) -> Signal:
    said: dict[str, Any] = {"account_id": account, "parameters": parameters}
    return a_signal("request.made", account or "none", id=f"{demand}-{account}", at=day(0.5), demand=demand, **said)


async def test_requests_are_answered_as_of_now_or_declined_with_a_reason(runner: Runner) -> None:
    await lived(runner)
    await runner.handle([a_signal("ticket.opened", id="e1", at=day(0.5), ticket_id="t", severity="p1")])
    said = await runner.handle([request(f"health.{what}") for what in ("score", "indicators", "alerts")])
    score, indicators, alerts = said.of("request.answered")
    assert (score["answer"]["band"], score["as_of"]) == ("green", "2026-01-01T12:00:00Z")
    assert {one["measure"] for one in indicators["answer"]["indicators"]} >= {"active_days", "open_tickets", "nps"}
    assert [alert["rule"] for alert in alerts["answer"]["alerts"]] == ["p1_open"]
    said = await runner.handle(
        [request("health.score", "nobody"), request("health.score", None), request("alert.shout"),
         request("health.alerts", as_of="2025-01-01T00:00:00Z")]
    )  # fmt: skip
    reasons = {refused["reason"] for refused in said.of("request.declined")}
    assert "account 'nobody' is not known: no event has named it" in reasons
    assert "health.score answers for one account at a time: name it in account_id" in reasons
    assert "health does not answer alert.shout yet" in reasons
    assert len(reasons) == 4


async def test_what_cannot_be_is_rejected_and_its_neighbours_go_on(runner: Runner) -> None:
    await lived(runner)
    said = await runner.handle(
        [
            a_signal("survey.answered", id="e1", at=day(0.5), kind="nps", score=99),
            a_signal("message.sent", id="e2", at=day(0.5), message_id="m"),
            a_signal("survey.answered", id="e3", at=day(0.5), kind="nps", score=2),
        ]
    )
    assert said.rejected == ["score 99 is outside the scale 0-10"]
    assert said.counts == {"ignored:of no consequence for health": 1}
    assert [alert["rule"] for alert in said.of("alert.opened")] == ["detractor"]


async def test_closed_days_are_joined_without_changing_a_figure(runner: Runner) -> None:
    for signal in history(20):
        await runner.handle([signal])
    runner.clock = day(0.5)
    before = await exported(runner, day(1))
    assert await runner.db.fetchval("select count(*) from health.usage") == 60
    await ticks(runner)
    assert await runner.db.fetchval("select count(*) from health.usage") < 50
    assert await exported(runner, day(1)) == before


async def test_text_that_postgresql_cannot_hold_stops_nobody(runner: Runner) -> None:
    runner.clock, runner.live = day(0.5), True
    await runner.handle([a_signal("usage.tracked", id="e1", at=day(0.5), user_id="a\0b", feature="f\0")])
    await runner.handle([a_signal("ticket.opened", id="e2", at=day(0.5), ticket_id="t\0", severity="p1", subject="\0")])
    [row] = await reading.export_usage([runner.db], day(1), {})
    assert row["users"] == 1
