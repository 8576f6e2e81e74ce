"""What people do about alerts, against a real PostgreSQL: requests in, events, answers and exports out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.health import app, reading
from services.health.alert_reading import export_alerts
from services.health.rehearsal_reading import rehearse_alerts
from shared.errors import Misconfigured
from shared.runtime.api import Signal
from tests.support.bench_worker import Runner, Said, a_database, a_signal, day

_ids = iter(range(1_000_000))


@pytest_asyncio.fixture
async def runner(postgres: str) -> AsyncIterator[Runner]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    running = Runner(worker, connection)
    running.clock, running.live = day(0.5), True
    yield running
    await connection.close()


def asks(demand: str, account: str | None = "acme", at: float = 0.5, **parameters: Any) -> Signal:
    number = next(_ids)
    said: dict[str, Any] = {"account_id": account, "parameters": parameters}
    return a_signal("request.made", account or f"r{number}", id=f"r{number}", at=day(at), demand=demand, **said)


def ticket(id: str = "t", at: float = 0.5, **said: Any) -> Signal:
    return a_signal("ticket.opened", id=f"{id}-{at}", at=day(at), ticket_id=id, severity="p1", **said)


async def opened(runner: Runner) -> str:
    """The id of an alert about a P1 ticket, opened at noon of day 0."""
    [alert] = (await runner.handle([ticket()])).of("alert.opened")
    return str(alert["alert_id"])


async def ticked(runner: Runner, at: float) -> Said:
    runner.clock = day(at)
    return await runner.tick()


async def test_acknowledging_is_told_once_and_kept(runner: Runner) -> None:
    alert = await opened(runner)
    ask = asks("alert.acknowledge", alert_id=alert, by="ann", note="on it")
    said = await runner.handle([ask, asks("alert.acknowledge", alert_id=alert, by="bob")])
    [told] = said.of("alert.acknowledged")
    assert (told["alert_id"], told["by"], told["note"], told["cause_ids"]) == (alert, "ann", "on it", [ask.id])
    first, second = said.of("request.answered")
    assert (first["answer"]["done"], first["answer"]["already"]) == ("acknowledged", False)
    assert (second["answer"]["already"], second["answer"]["alert"]["acknowledged_by"]) == (True, "ann")
    [row] = await export_alerts([runner.db], day(1), {})
    assert (row["acknowledged_by"], row["acknowledged_at"]) == ("ann", "2026-01-01T12:00:00Z")
    [answer] = (await runner.handle([asks("health.alerts")])).of("request.answered")
    assert answer["answer"]["alerts"][0]["acknowledged_by"] == "ann"


async def test_a_snooze_ends_at_its_hour_by_tick_with_a_reminder(runner: Runner) -> None:
    alert = await opened(runner)
    [told] = (await runner.handle([asks("alert.snooze", alert_id=alert, until="2026-01-01T18:00:00Z")])).of(
        "alert.snoozed"
    )
    assert told["until"] == "2026-01-01T18:00:00Z"
    [row] = await export_alerts([runner.db], day(0.6), {})
    assert row["snoozed_until"] == "2026-01-01T18:00:00Z"
    assert (await ticked(runner, 0.7)).events == []
    [again] = (await ticked(runner, 0.76)).of("alert.reminded")
    assert (again["alert_id"], again["opened_at"]) == (alert, "2026-01-01T12:00:00Z")
    assert again["why"].startswith("Still there after its snooze. Ticket t (P1) is open since")
    assert (await ticked(runner, 0.8)).of("alert.reminded") == []
    [row] = await export_alerts([runner.db], day(0.8), {})
    assert row["snoozed_until"] is None


async def test_closing_by_hand_is_told_with_who_did_it_and_holds_while_the_cause_lasts(runner: Runner) -> None:
    alert = await opened(runner)
    [told] = (await runner.handle([asks("alert.resolve", alert_id=alert, by="ann", note="known")])).of("alert.resolved")
    assert (told["alert_id"], told["by"], told["note"], told["baseline"]) == (alert, "ann", "known", False)
    assert told["why"] == "Closed by ann: P1 ticket open: t"
    comment = a_signal("ticket.commented", id="e9", at=day(0.5), ticket_id="t")
    assert (await runner.handle([comment])).of("alert.opened") == []
    runner.clock = day(0.6)
    solved = a_signal("ticket.solved", id="e10", at=day(0.51), ticket_id="t")
    reopened = a_signal("ticket.updated", id="e11", at=day(0.52), ticket_id="t", status="open")
    assert len((await runner.handle([solved, reopened])).of("alert.opened")) == 1
    rows = await export_alerts([runner.db], day(1), {})
    assert [(row["state"], row["resolved_by"]) for row in rows if row["alert_id"] == alert] == [("resolved", "ann")]


async def test_ratings_are_kept_also_of_what_is_over_and_reported_per_rule(runner: Runner) -> None:
    alert = await opened(runner)
    runner.clock = day(0.51)
    await runner.handle([a_signal("ticket.solved", id="e2", at=day(0.51), ticket_id="t")])
    late = asks("alert.acknowledge", alert_id=alert)
    said = await runner.handle([asks("alert.rate", alert_id=alert, useful=True, verdict="acted", by="ann"), late])
    [rated] = said.of("alert.rated")
    assert (rated["useful"], rated["verdict"], rated["rule"]) == (True, "acted", "p1_open")
    [declined] = said.of("request.declined")
    assert declined["reason"] == f"alert {alert!r} (P1 ticket open: t) was over at 2026-01-01T12:14:24Z"
    [row] = await export_alerts([runner.db], day(1), {"by": "rule"})
    assert (row["rule"], row["opened"], row["rated"], row["useful_pct"]) == ("p1_open", 1, 1, 100.0)


async def test_an_alert_that_grows_is_escalated_and_exported_as_it_stood(runner: Runner) -> None:
    for n in range(5):
        said = await runner.handle([a_signal("ticket.opened", id=f"a{n}", at=day(0.5), ticket_id=f"t{n}")])
    [storm] = said.of("alert.opened")
    runner.clock = day(0.6)
    more = [a_signal("ticket.opened", id=f"b{n}", at=day(0.6), ticket_id=f"u{n}") for n in range(6)]
    [grown] = (await runner.handle(more)).of("alert.escalated")
    assert (grown["alert_id"], grown["previous_severity"], grown["severity"]) == (storm["alert_id"], "high", "critical")
    assert (grown["baseline"], grown["opened_at"]) == (False, "2026-01-01T12:00:00Z")
    for at, severity in ((0.55, "high"), (0.65, "critical")):
        [row] = [row for row in await export_alerts([runner.db], day(at), {}) if row["rule"] == "ticket_storm"]
        assert (row["severity"], row["opened_severity"]) == (severity, "high")


async def test_requests_that_cannot_be_carried_out_are_declined_with_the_reason(runner: Runner) -> None:
    await opened(runner)
    said = await runner.handle([
        asks("alert.snooze", alert_id="nope"),
        asks("alert.snooze"),
        asks("alert.snooze", "nobody", alert_id="a"),
        asks("alert.snooze", None, alert_id="a"),
        asks("alert.shout"),
    ])  # fmt: skip
    assert {one["reason"].partition(";")[0].partition(":")[0] for one in said.of("request.declined")} == {
        "account 'acme' has no alert 'nope'",
        "parameter alert_id is missing",
        "account 'nobody' is not known",
        "alert.snooze answers for one account at a time",
        "health does not answer alert.shout yet",
    }


async def test_actions_and_facts_of_one_batch_are_told_in_their_order(runner: Runner) -> None:
    alert = await opened(runner)
    runner.clock = day(0.6)
    batch = [
        asks("alert.resolve", alert_id=alert),
        a_signal("ticket.solved", id="e2", at=day(0.51), ticket_id="t"),
        ticket("t2", at=0.52),
        asks("alert.acknowledge", alert_id=alert),
        ticket("t", at=0.53),
    ]
    together = await runner.handle(batch)
    told = [(name, data["evidence"]["ticket_id"]) for name, data in together.events if name.startswith("alert.")]
    assert told == [("alert.resolved", "t"), ("alert.opened", "t2"), ("alert.opened", "t")]
    [declined] = together.of("request.declined")
    assert declined["reason"].endswith("was over at 2026-01-01T14:24:00Z")


async def test_an_override_is_told_shown_beside_the_computed_score_and_ends_by_tick(runner: Runner) -> None:
    uses = [
        a_signal("usage.tracked", id=f"u{n}-{user}", at=day(-n), user_id=user, feature="f", replay=True)
        for n in range(100)
        for user in ("ann", "bob", "cid")
    ]
    await runner.handle(uses)
    await runner.tick()
    said: dict[str, Any] = {"score": 20, "reason": "the sponsor told me", "by": "ann", "until": "2026-01-03T00:00:00Z"}
    told = await runner.handle([asks("score.override", **said)])
    [answer] = told.of("request.answered")
    assert (answer["answer"]["override"]["score"], answer["answer"]["override"]["in_effect"]) == (20, True)
    [change] = told.of("health_score.changed")
    override = change["current"]["override"]
    assert (change["current"]["score"], change["current"]["band"], override["band"]) == (20, "red", "green")
    assert (override["by"], override["reason"], override["until"]) == (
        "ann", "the sponsor told me", "2026-01-03T00:00:00Z",
    )  # fmt: skip
    assert sum(share["points"] for share in change["shares"]) == pytest.approx(
        change["current"]["exact"] - change["previous"]["exact"], abs=1e-9
    )
    assert [alert["rule"] for alert in told.of("alert.opened")] == ["band_red"]
    for at, score in ((0.6, 20), (0.4, override["score"]), (2.1, override["score"])):
        [row] = await reading.export_scores([runner.db], day(at), {})
        assert row["score"] == pytest.approx(score, abs=5 if at > 2 else 0)
        assert (row["override"] is not None) == (at == 0.6)
    over = await ticked(runner, 2.0)
    assert [one["why"].partition(":")[0] for one in over.of("health_score.changed")] == ["The override by ann is over"]
    assert [one["rule"] for one in over.of("alert.resolved")] == ["band_red"]
    refused = await runner.handle([asks("score.override", score=20), asks("score.override", "nobody", **said)])
    reasons = sorted(one["reason"] for one in refused.of("request.declined"))
    assert reasons[0].startswith("account 'nobody' is not known")
    assert reasons[1].startswith("parameter by is missing")


async def test_a_rehearsal_tells_what_was_told_and_what_other_rules_would_have(runner: Runner, tmp_path: Path) -> None:
    await runner.handle([a_signal("csm.changed", id="o", at=day(0.1), person_id="ann")])
    await opened(runner)
    runner.clock = day(3)
    await runner.handle([a_signal("ticket.solved", id="e2", at=day(2), ticket_id="t")])
    rows = await export_alerts([runner.db], day(3), {})
    found = await rehearse_alerts([runner.db], day(0.2), day(3))
    assert [(one["rule"], one["opened_at"], one["resolved_at"]) for one in found["alerts"]] == [
        ("p1_open", "2026-01-01T12:00:00Z", "2026-01-03T00:00:00Z")
    ]
    assert [(row["rule"], row["opened_at"]) for row in rows] == [("p1_open", "2026-01-01T12:00:00Z")]
    assert {(row["csm"], row["week"]): row["alerts"] for row in found["weeks"]} == {("ann", "2026-W01"): 1}
    deaf = tmp_path / "deaf.yaml"
    deaf.write_text("rules: {}")
    other = await rehearse_alerts([runner.db], day(0.2), day(3), deaf)
    assert (other["summary"]["alerts"], other["current"]["alerts"]) == (0, 1)
    deaf.write_text("nothing: {}")
    with pytest.raises(Misconfigured, match=r"has neither rules .* nor measures"):
        await rehearse_alerts([runner.db], day(0.2), day(3), deaf)


def segmented(tier: str, at: float, account: str = "acme") -> Signal:
    return a_signal(
        "account.segmented", account, id=f"{account}-{tier}-{at}", at=day(at), computed_at=day(at), previous=None,
        occurred_at=day(at), segment=tier, previous_coverage=None, coverage="named", ultimate_parent_id=account,
        arr="60000", currency="EUR", effective_on="2026-01-01", csm="ann", reason="ARR",
    )  # fmt: skip


async def test_the_tier_that_ops_decided_stands_in_states_and_alerts_and_in_no_figure(runner: Runner) -> None:
    await runner.handle([segmented("low", 0.1), segmented("unheard-of", 0.1, "other")])
    await runner.handle([a_signal("account.updated", id="p", at=day(0.2), name="Acme")])
    before = await reading.export_accounts([runner.db], day(3), {})
    said = await runner.handle([ticket()])
    assert said.of("alert.opened")[0]["context"]["segment"] == "low"
    assert (await runner.handle([segmented("high", 0.45), segmented("mid", 0.3)])).events == []
    [state] = (await runner.tick()).of("account.state")
    assert (state["account_id"], state["segment"]) == ("acme", "high")
    assert (await runner.handle([segmented("high", 0.48)])).events == []
    assert (await runner.tick()).events == []
    assert [row["segment"] for row in before] == [None]
    stated = a_signal("account.updated", id="q", at=day(0.5), traits={"segment": "strategic"})
    [state] = (await runner.handle([stated])).of("account.state")
    assert state["segment"] == "strategic"
