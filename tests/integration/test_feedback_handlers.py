"""Feedback against a real PostgreSQL: what it publishes, answers and exports."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from services.feedback import app
from services.feedback.reading import export_nps
from shared.runtime.api import Signal
from tests.support.bench_worker import Runner, a_database, a_signal, day

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def runner(postgres: str) -> AsyncIterator[Runner]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    yield Runner(worker, connection)
    await connection.close()


def answered(id: str, score: float, at: datetime, account: str = "acme", **data: Any) -> Signal:
    return a_signal("survey.answered", account, id=id, at=at, score=score, **({"kind": "nps"} | data))


async def nps(runner: Runner, at: datetime, **options: Any) -> list[dict[str, Any]]:
    return await export_nps([runner.db], at, options)


async def test_each_answer_moves_the_score_and_the_stream_is_a_chain(runner: Runner) -> None:
    runner.clock, runner.live = day(0), True
    batch = [answered("e1", 9, day(0), user_id="ann"), answered("e2", 3, day(1), user_id="ann")]
    changes = (await runner.handle(batch)).of("survey_score.changed")
    assert [change["current"]["value"] for change in changes] == [100.0, -100.0]
    assert [change["revision"] for change in changes] == [1, 2]
    assert changes[0]["previous"] is None
    assert changes[1]["previous"] == changes[0]["current"]
    later = (await runner.handle([answered("e3", 10, day(2))])).of("survey_score.changed")
    assert later[0]["previous"] == changes[1]["current"]
    assert (later[0]["current"]["n"], later[0]["cause_ids"]) == (2, ["e3"])


async def test_history_is_learnt_silently_and_shown_once_at_the_tick(runner: Runner) -> None:
    quiet = await runner.handle(
        [answered("e1", 9, day(0)), answered("e2", 2, day(1)), answered("e3", 9, day(1), "beta")]
    )
    assert quiet.events == []
    runner.clock = day(5)
    ticked = await runner.tick()
    shown = {change["account_id"]: change for change in ticked.of("survey_score.changed")}
    assert {name: change["current"]["value"] for name, change in shown.items()} == {"acme": 0.0, "beta": 100.0}
    assert all(change["baseline"] for change in shown.values())
    assert (ticked.moved, (await runner.tick()).moved) == (2, 0)


async def test_an_account_behind_its_history_catches_up_before_its_next_answer(runner: Runner) -> None:
    await runner.handle([answered("e1", 9, day(0))])
    runner.clock, runner.live = day(1), True
    changes = (await runner.handle([answered("e2", 2, day(1))])).of("survey_score.changed")
    assert [(change["baseline"], change["current"]["n"]) for change in changes] == [(True, 1), (False, 2)]
    assert (await runner.tick()).events == []


async def test_corrections_and_retractions_flow_through_in_any_order(runner: Runner) -> None:
    runner.clock, runner.live = day(9), True
    early = a_signal("survey.corrected", id="c1", at=day(2), answer_id="x", score=10)
    assert (await runner.handle([early])).events == []
    changes = (await runner.handle([answered("e1", 1, day(1), answer_id="x", user_id="ann")])).of(
        "survey_score.changed"
    )
    assert changes[0]["current"]["value"] == 100.0
    gone = await runner.handle([a_signal("survey.retracted", id="r1", at=day(3), answer_id="x")])
    assert (gone.events[0][1]["current"]["value"], gone.events[0][1]["current"]["reason"]) == (None, "nobody answered")
    assert [(await nps(runner, day(d)))[0]["nps"] for d in (0, 1, 2, 3)] == [None, -100.0, 100.0, None]


async def test_scores_off_the_scale_are_quarantined_and_neighbours_go_on(runner: Runner) -> None:
    runner.clock = day(9)
    said = await runner.handle([
        answered("e1", 12, day(1)),
        answered("e2", 9, day(1), answer_id="x"),
        a_signal("survey.corrected", id="c1", at=day(2), answer_id="x", score=99),
        answered("e3", 3, day(1), kind="csat", scale="1-8"),
    ])  # fmt: skip
    assert len(said.events) == 1
    assert said.rejected[0] == "score 12 is outside scale 0-10 of nps"
    assert "csat is not scored on scale 1-8" in said.rejected[1]
    assert said.rejected[2] == "score 99 is outside scale 0-10 of nps"


async def test_export_rows_overall_first_then_the_cut_asked_for(runner: Runner) -> None:
    await runner.handle([
        answered("e1", 9, day(0), user_id="ann"),
        answered("e2", 3, day(40), user_id="ann"),
        answered("e3", 10, day(41), "beta", user_id="ann"),
        answered("e4", 7, day(41), "beta"),
        answered("e5", 4, day(41), "beta", kind="csat"),
    ])  # fmt: skip
    rows = await nps(runner, day(50))
    assert {key: rows[0][key] for key in ("scope", "kind", "n", "nps", "promoters", "passives", "detractors")} == {
        "scope": "all", "kind": "nps", "n": 3, "nps": 0.0, "promoters": 1, "passives": 1, "detractors": 1,
    }  # fmt: skip
    assert (rows[1]["kind"], rows[1]["value"], rows[1]["scale"]) == ("csat", 100.0, "1-5")
    assert rows[1]["method"] == "top box: share at 4 or above, %"
    assert len(rows) == 2
    by_account = await nps(runner, day(50), kind="nps", by="account")
    assert [(row["scope"], row.get("account_id"), row["nps"]) for row in by_account] == [
        ("all", None, 0.0), ("account", "acme", -100.0), ("account", "beta", 50.0),
    ]  # fmt: skip
    by_month = await nps(runner, day(50), kind="nps", by="month")
    assert [(row["month"], row["n"], row["complete"]) for row in by_month[1:]] == [
        ("2026-01", 1, True), ("2026-02", 3, False),
    ]  # fmt: skip
    persons = await nps(runner, day(50), kind="nps", by="person")
    assert [(row["account_id"], row["user_id"], row["score"], row["answers"]) for row in persons[1:]] == [
        ("acme", "ann", 3, 2), ("beta", "ann", 10, 1),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="by is 'moon'; it takes account, segment, month, person"):
        await nps(runner, day(50), by="moon")


async def test_nobody_yet_is_null_with_a_reason(runner: Runner) -> None:
    rows = await nps(runner, day(0))
    assert [(row["kind"], row["n"], row["nps"], row["reason"]) for row in rows] == [("nps", 0, None, "nobody answered")]


async def test_requests_are_answered_or_declined_never_silent(runner: Runner) -> None:
    runner.clock = day(50)
    await runner.handle([answered("e1", 3, day(1), user_id="ann")])

    def ask(id: str, demand: str, account_id: str | None = "acme", **parameters: Any) -> Signal:
        subject = account_id or id
        return a_signal(
            "request.made", subject, id=id, at=day(50), demand=demand, account_id=account_id, parameters=parameters
        )

    said = await runner.handle([
        ask("r1", "feedback.analysis"),
        ask("r2", "feedback.analysis", as_of="2026-01-01T12:00:00Z"),
        ask("r3", "feedback.analysis", None),
        ask("r4", "feedback.survey"),
        ask("r5", "feedback.closed_loop"),
        ask("r6", "case.assign"),
        ask("r7", "feedback.analysis", kind="mood"),
    ])  # fmt: skip
    answers = {answer["request_id"]: answer for answer in said.of("request.answered")}
    reasons = {reply["request_id"]: reply["reason"] for reply in said.of("request.declined")}
    assert answers["r1"]["answer"]["scores"][0]["value"] == -100.0
    assert answers["r2"]["answer"]["scores"][0]["value"] is None
    assert answers["r2"]["as_of"] == "2026-01-01T12:00:00Z"
    assert sorted(reasons) == ["r3", "r4", "r5", "r6", "r7"]
    assert "hune export nps" in reasons["r3"]
    assert reasons["r7"] == "parameter kind is 'mood'; it takes ces, csat, nps"


async def test_any_order_and_batching_ends_in_the_same_export(runner: Runner) -> None:
    chance = random.Random(4)
    signals = []
    for number in range(120):
        account, name = chance.choice(["acme", "beta"]), f"a{chance.randrange(40)}"
        at, sort = day(chance.randrange(30)), chance.random()
        if sort < 0.7:
            user = chance.choice([None, "ann", "bob", "cyd"])
            kind = chance.choice(["nps", "csat"])
            score = chance.randrange(1, 6)
            signals.append(answered(f"e{number}", score, at, account, answer_id=name, user_id=user, kind=kind))
        elif sort < 0.85:
            signals.append(
                a_signal(
                    "survey.corrected", account, id=f"e{number}", at=at, answer_id=name, score=chance.randrange(1, 6)
                )
            )
        else:
            signals.append(a_signal("survey.retracted", account, id=f"e{number}", at=at, answer_id=name))
    exports, tallies = [], []
    for round in range(3):
        await runner.db.execute("truncate feedback.statements, feedback.tallies, feedback.accounts")
        chance.shuffle(signals)
        runner.clock = None if round == 0 else day(40)
        start = 0
        while start < len(signals):
            step = chance.randrange(1, 30)
            await runner.handle(signals[start : start + step])
            start += step
        runner.clock = day(40)
        await runner.tick()
        exports.append(
            [await nps(runner, at, by=cut) for at in (day(12.5), day(40)) for cut in ("account", "month", "person")]
        )
        rows = await runner.db.fetch(
            "select account_id, kind, scale, shown from feedback.tallies where histogram <> '{}'"
        )
        tallies.append(sorted(map(repr, rows)))
    assert exports[0] == exports[1] == exports[2]
    assert tallies[0] == tallies[1] == tallies[2]
