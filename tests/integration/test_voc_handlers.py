"""Voice against a real PostgreSQL: what it publishes, answers and exports."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from services.voc import app, handlers
from services.voc.reading import export_feature_requests, export_themes, export_verbatims
from shared.runtime.api import Signal
from tests.support.bench_worker import Runner, a_database, a_signal, day

pytestmark = pytest.mark.asyncio

FIRST, LATER, END = day(1), day(90), day(99)


@pytest_asyncio.fixture
async def runner(postgres: str) -> AsyncIterator[Runner]:
    worker = app.build()
    connection = await a_database(postgres, worker)
    runner = Runner(worker, connection)
    runner.clock, runner.live = day(100), True
    yield runner
    await connection.close()


def feedback(id: str, text: str, at: datetime, account: str = "acme", **data: Any) -> Signal:
    return a_signal("feedback.given", account, id=id, at=at, text=text, **data)


def wish(id: str, title: str, user: str | None, account: str = "acme", at: datetime = FIRST, **data: Any) -> Signal:
    return a_signal("feature.requested", account, id=id, at=at, title=title, user_id=user, **data)


def asked(id: str, demand: str, account: str = "acme", at: datetime = LATER, **parameters: Any) -> Signal:
    return a_signal("request.made", account, id=id, at=at, demand=demand, parameters=parameters)


async def themes(runner: Runner, at: datetime = END, **options: Any) -> dict[str, dict[str, Any]]:
    async with runner.db.transaction():
        return {row["theme"]: row for row in await export_themes([runner.db], at, options)}


async def test_a_comment_is_published_with_its_themes_and_mood(runner: Runner) -> None:
    said = await runner.handle(
        [feedback("e1", "L'export Excel est beaucoup trop lent.", day(1), user_id="ann", product_area="reports")]
    )
    (item,) = said.of("voice_item.recorded")
    assert (item["item_id"], item["change"], item["source"]) == ("feedback:e1", "recorded", "feedback")
    assert (item["language"], item["mood"], item["user_id"], item["product_area"]) == (
        "fr", "negative", "ann", "reports",
    )  # fmt: skip
    assert set(item["themes"]) == {"features.export_import", "reliability.speed"}
    assert item["quote"] == "L'export Excel est beaucoup trop lent."
    assert item["rule_version"]


async def test_a_high_score_whose_words_look_for_alternatives_is_flagged(runner: Runner) -> None:
    said = await runner.handle(
        [
            a_signal(
                "survey.answered", id="e1", at=day(1), kind="nps", score=9, comment="We are evaluating alternatives."
            ),
            a_signal("survey.answered", id="e2", at=day(1), kind="nps", score=3, comment="Fantastic tool, we love it!"),
            a_signal("survey.answered", id="e3", at=day(1), kind="nps", score=9, comment="Fantastic tool, we love it!"),
        ]
    )
    assert [item["mismatch"] for item in said.of("voice_item.recorded")] == [
        "risk_behind_high_score", "praise_behind_low_score", None,
    ]  # fmt: skip


async def test_a_correction_restates_and_a_retraction_takes_back_from_its_own_time_on(runner: Runner) -> None:
    said = await runner.handle(
        [
            a_signal("survey.answered", id="e1", at=day(1), kind="nps", score=2, answer_id="a1", comment="Too slow."),
            a_signal("survey.corrected", id="e2", at=day(2), answer_id="a1", comment="The price is too high."),
            a_signal("survey.corrected", id="e3", at=day(3), answer_id="a1", score=4),
            a_signal("survey.retracted", id="e4", at=day(4), answer_id="a1"),
        ]
    )
    changes = said.of("voice_item.recorded")
    assert [change["change"] for change in changes] == ["recorded", "corrected", "corrected", "retracted"]
    assert [change["score"] for change in changes] == [2, 2, 4, 4]
    assert set(await themes(runner, day(1.5))) == {"reliability.speed", "(unlabelled)"}
    assert set(await themes(runner, day(3.5))) == {"commercial.price", "(unlabelled)"}
    assert set(await themes(runner, day(5))) == {"(unlabelled)"}


async def test_any_order_and_any_split_into_batches_exports_the_same_bytes(runner: Runner, postgres: str) -> None:
    events = [
        feedback("e1", "Support never answers.", day(1), user_id="ann"),
        feedback("e2", "Le prix est trop élevé.", day(40), "beta"),
        a_signal(
            "survey.answered", id="e3", at=day(50), kind="csat", score=5, answer_id="a1", comment="Great support!"
        ),
        a_signal("survey.corrected", id="e4", at=day(51), answer_id="a1", comment="Great product, slow support."),
        a_signal(
            "survey.answered", id="e5", at=day(50), kind="nps", score=1, answer_id="a2", comment="Bugs everywhere"
        ),
        a_signal("survey.retracted", id="e6", at=day(52), answer_id="a2"),
        wish("e7", "Dark mode", "ann"),
        wish("e8", "dark modes!", "bob"),
        wish("e9", "Please add a dark mode", "cid", "beta", severity="p2"),
        a_signal("account.updated", id="e10", at=day(1), arr="1000"),
        a_signal("subscription.changed", id="e11", at=day(60), mrr="200"),
        a_signal("account.updated", "beta", id="e12", at=day(1), arr="60000", currency="USD"),
        a_signal("fx.rate", id="e13", at=day(1), currency="USD", rate="0.5", year=2026),
    ]
    seen = set()
    for seed in range(4):
        shuffled, cuts = list(events), random.Random(seed)
        cuts.shuffle(shuffled)
        connection = await a_database(postgres, runner.worker)
        one = Runner(runner.worker, connection)
        one.clock, one.live = day(100), True
        while shuffled:
            size = cuts.randint(1, 5)
            await one.handle(shuffled[:size])
            del shuffled[:size]
        async with connection.transaction():
            exports = [
                await export([connection], day(99), {})
                for export in (export_themes, export_feature_requests, export_verbatims)
            ]
        seen.add(msgspec.json.encode(exports))
        await connection.close()
    assert len(seen) == 1
    (wished,) = exports[1]
    assert (wished["accounts"], wished["people"], wished["votes"], wished["arr"]) == (2, 3, 3, "32400")
    assert (wished["breadth"], wished["severity"]) == (2, "p2")


async def test_ten_voters_of_one_account_count_its_revenue_once(runner: Runner) -> None:
    await runner.handle(
        [a_signal("account.updated", id="arr", at=day(0), arr="90000")]
        + [wish(f"e{number}", "Bulk edit of contacts", f"user{number}") for number in range(10)]
    )
    async with runner.db.transaction():
        (row,) = await export_feature_requests([runner.db], day(99), {})
    assert (row["accounts"], row["people"], row["votes"], row["arr"]) == (1, 10, 10, "90000")
    assert (await themes(runner))["features.automation"]["arr"] == "90000"


async def test_each_vote_publishes_the_accounts_wish_with_its_people(runner: Runner) -> None:
    await runner.handle(
        [a_signal("subscription.changed", id="s1", at=day(0), mrr="100"), wish("e1", "Dark mode", "ann")]
    )
    said = await runner.handle([wish("e2", "DARK MODES", "bob", at=day(2))])
    (update,) = said.of("feature_request.updated")
    assert (update["title"], update["people"], update["votes"], update["arr"]) == (
        "Dark mode",
        ["ann", "bob"],
        2,
        "1200",
    )


async def test_a_persons_label_stands_beside_the_rules_and_is_never_overwritten(runner: Runner) -> None:
    await runner.handle(
        [a_signal("survey.answered", id="e1", at=day(1), kind="nps", score=5, answer_id="a1", comment="Slow.")]
    )
    said = await runner.handle(
        [asked("r1", "theme.relabel", at=day(2), item_id="survey:a1", themes=["service.support_speed"])]
    )
    (item,) = said.of("voice_item.recorded")
    assert (item["change"], item["themes"]) == ("relabelled", ["service.support_speed"])
    assert [label["theme"] for label in item["rule_themes"]] == ["reliability.speed"]
    assert said.of("request.answered")[0]["answer"]["themes"] == ["service.support_speed"]
    await runner.handle([a_signal("survey.corrected", id="e2", at=day(3), answer_id="a1", comment="Too expensive.")])
    assert set(await themes(runner, day(1.5))) == {"reliability.speed", "(unlabelled)"}
    assert set(await themes(runner, day(4))) == {"service.support_speed", "(unlabelled)"}


async def test_a_relabel_that_names_nothing_known_is_declined_with_what_there_is(runner: Runner) -> None:
    await runner.handle([feedback("e1", "Slow.", day(1))])
    said = await runner.handle(
        [
            asked("r1", "theme.relabel", item_id="feedback:zz", themes=[]),
            asked("r2", "theme.relabel", item_id="feedback:e1", themes=["nonsense"]),
            asked("r3", "theme.relabel", themes=[]),
        ]
    )
    reasons = [event["reason"] for event in said.of("request.declined")]
    assert "has no comment 'feedback:zz'" in reasons[0]
    assert "there is no theme 'nonsense'" in reasons[1]
    assert "reliability.speed" in reasons[1]
    assert "item_id" in reasons[2]


async def test_the_demands_of_voice_are_answered_for_an_account_and_declined_with_a_reason_else(runner: Runner) -> None:
    await runner.handle(
        [
            a_signal("account.updated", id="arr", at=day(0), arr="7000"),
            feedback("e1", "Great support!", day(85), user_id="ann"),
            feedback("e2", "xyzzy", day(86)),
            feedback("e3", "Das Produkt ist nicht sehr gut und wir haben es nicht mehr auf dem Schirm", day(86)),
            wish("e4", "Dark mode", "ann", at=day(20)),
        ]
    )
    whole_book = a_signal("request.made", "r4", id="r4", at=day(90), demand="voc.programme")
    whole_book = msgspec.structs.replace(whole_book, data=whole_book.data.model_copy(update={"account_id": None}))
    said = await runner.handle(
        [
            asked("r1", "voc.product_feedback"),
            asked("r2", "voc.programme"),
            asked("r3", "voc.advisory_board"),
            whole_book,
        ]
    )
    product, programme = (event["answer"] for event in said.of("request.answered"))
    assert (product["items"], product["arr"]) == (4, "7000")
    support = next(row for row in product["themes"] if row["theme"] == "service.support_quality")
    assert (support["items_last_30d"], support["items_prev_30d"], support["trend"]) == (1, 0, 1)
    assert product["feature_requests"][0]["people"] == ["ann"]
    assert programme["by_source"] == {"feedback": 3, "request": 1}
    assert programme["unlabelled_share"] == 0.5
    assert programme["coverage"]["languages"] == 0.75
    assert programme["by_language"]["de"] == 1
    reasons = [event["reason"] for event in said.of("request.declined")]
    assert reasons == [handlers.NO_BOARD, handlers.WHOLE_BOOK]


async def test_erasing_a_person_drops_their_words_and_name_and_keeps_the_counts(runner: Runner) -> None:
    await runner.handle([feedback("e1", "Too slow.", day(1), user_id="ann"), feedback("e2", "Too slow.", day(1))])
    before = await themes(runner)
    await runner.handle([a_signal("privacy.requested", id="p1", at=day(2), user_id="ann", regulation="delete")])
    said = await runner.handle([feedback("e3", "Way too slow, says Ann.", day(1), user_id="ann")])
    (late,) = said.of("voice_item.recorded")
    assert (late["quote"], late["user_id"]) == (None, None)
    async with runner.db.transaction():
        rows = await export_verbatims([runner.db], day(99), {})
    assert [row["text"] for row in rows] == [None, "Too slow.", None]
    assert {row["user_id"] for row in rows} == {None}
    assert (await themes(runner))["reliability.speed"]["items"] == before["reliability.speed"]["items"] + 1


async def test_words_of_the_answering_team_are_not_the_customers(runner: Runner) -> None:
    said = await runner.handle(
        [
            a_signal("ticket.opened", id="e1", at=day(1), ticket_id="t1", subject="Export broken", text="It fails."),
            a_signal("ticket.commented", id="e2", at=day(1), ticket_id="t1", author="agent", text="We are sorry!"),
            a_signal("ticket.commented", id="e3", at=day(2), ticket_id="t1", author="customer", text="Still broken."),
        ]
    )
    assert [item["item_id"] for item in said.of("voice_item.recorded")] == ["ticket:t1", "ticket:t1:e3"]
    assert said.counts == {"ignored:words of the answering team": 1}


async def test_merged_accounts_count_as_one_customer_from_the_merger_on(runner: Runner) -> None:
    await runner.handle(
        [
            feedback("e1", "Too slow.", day(1)),
            feedback("e2", "Too slow.", day(1), "beta"),
            a_signal("account.merged", id="m1", at=day(10), merged_account_id="beta"),
        ]
    )
    assert (await themes(runner, day(9)))["reliability.speed"]["accounts"] == 2
    assert (await themes(runner, day(11)))["reliability.speed"]["accounts"] == 1


async def test_newer_rules_read_again_what_older_ones_read(runner: Runner) -> None:
    await runner.handle([feedback("e1", "The geocoder is slow.", day(1))])
    await runner.db.execute(
        "update voc.statements set rule = 'old', reading = jsonb_set(reading, '{labels}', '[]'::jsonb)"
    )
    said = await runner.tick()
    (item,) = said.of("voice_item.recorded")
    assert (said.moved, item["change"], item["themes"]) == (1, "reread", ["reliability.speed"])
    assert (await runner.tick()).moved == 0


async def test_a_runs_comments_are_published_as_baseline(runner: Runner) -> None:
    signal = msgspec.structs.replace(feedback("e1", "Too slow.", day(1)), replay=True)
    (item,) = (await runner.handle([signal])).of("voice_item.recorded")
    assert item["baseline"] is True
