"""The checker can fail: a record lost, doubled or out of place is found in an otherwise perfect world."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import chaos_checks as checks
from tests.support import chaos_report, oracle
from tests.support.chaos_checks import Routed
from tests.support.chaos_feed import ids_of
from tests.support.chaos_mix import WISHES, WORDINGS, Mix, now
from tests.support.chaos_run import RELEASE, Progress, reasons, unproven
from tests.support.oracle import Book, Raw, Step

BASE = now()
AT = oracle.micros(BASE + timedelta(minutes=1))
LABELS = {**WORDINGS, **dict.fromkeys(WISHES, ("some.theme",))}
MIX = Mix(11, BASE, BASE, 40)
SENT = [one for one in [*MIX.prelude(), *MIX.sendings(2_000)] if one.door == "kafka"]
LOG = [Raw(one.topic, 0, n, AT, one.value, dict(one.headers)) for n, one in enumerate(SENT)]
BOOK = Book.of(LOG)
Change = Callable[[list[Any]], None]
LOST: Change = lambda records: records.pop(len(records) // 2)  # noqa: E731
DOUBLED: Change = lambda records: records.append(records[len(records) // 2])  # noqa: E731


def changed(records: Sequence[Any], change: Change) -> list[Any]:
    copy = list(records)
    change(copy)
    return copy


def routed_of(domain: str) -> list[Raw]:
    """The topic of a domain as it should be."""
    records: list[Raw] = []
    for event in BOOK.events:
        account = BOOK.account_of(event)
        if account is None or domain not in oracle.ROUTES[event.type].split():
            continue
        headers = {
            "ce_id": event.id, "ce_source": event.source, "ce_type": f"hune.{event.type}.v1", "ce_subject": account,
            "ce_time": str(oracle.text_of(event.at)), "ce_recordedtime": str(event.received // 1000),
        }  # fmt: skip
        if event.own is not None:
            headers["ce_owntime"] = str(oracle.text_of(event.own))
        body = json.dumps(event.data).encode()
        encoded = {name: value.encode() for name, value in headers.items()}
        records.append(Raw(f"cs.routed.{domain}.v1", 0, len(records), event.received, body, encoded))
    return records


ROUTED = {domain: routed_of(domain) for domain in oracle.DOMAINS}


def a_result(kind: str, n: int, **data: Any) -> Raw:
    headers = {"ce_id": f"{kind}-{n}".encode(), "ce_type": f"hune.{kind}.v1".encode()}
    return Raw("cs.results.x.v1", 0, n, AT, json.dumps(data).encode(), headers)


def scores() -> list[Raw]:
    return [
        a_result(
            "health_score.changed", n, account_id=f"a{n % 3}", previous=None if n < 3 else {"score": n - 3},
            current={"score": n},
        )
        for n in range(30)
    ]  # fmt: skip


def alert_of(step: Step, n: int) -> Raw:
    evidence = {"ticket_id" if step.rule == "p1_open" else "answer_id": step.cause}
    return a_result(
        f"alert.{step.what}", n, alert_id=f"{step.account}/{step.rule}/{step.cause}", account_id=step.account,
        rule=step.rule, evidence=evidence, cause_ids=[step.event_id],
    )  # fmt: skip


# Each cause opens at most once here, so that one alert is one id.
TICKETS = [checks.signal(raw) for raw in ROUTED["health"] if b"ticket." in raw.headers["ce_type"]]
STEPS = oracle.episodes(TICKETS)
ALERTS = [alert_of(step, n) for n, step in enumerate(STEPS)]


def test_a_perfect_world_gives_no_complaints() -> None:
    assert checks.all_accepted(BOOK, ids_of(SENT)) == []
    assert [told for domain in oracle.DOMAINS for told in Routed.of(domain, ROUTED[domain]).as_told(BOOK)] == []
    assert checks.each_once(scores()) == []
    assert checks.chained(scores(), "health_score.changed", ["account_id"], "previous", "current") == []
    assert checks.exports_agree(exports(), BOOK, AT, LABELS) == []
    assert len(STEPS) > 10
    assert len(BOOK.requests) > 5


@pytest.mark.parametrize("change", [LOST, DOUBLED])
@pytest.mark.parametrize("domain", oracle.DOMAINS)
def test_a_routed_record_lost_or_doubled_is_found(domain: str, change: Change) -> None:
    assert Routed.of(domain, changed(ROUTED[domain], change)).as_told(BOOK)


def test_an_accepted_event_that_is_not_in_the_log_is_found() -> None:
    # Any one whose repeat is not in the log either.
    lost = next(event.id for event in BOOK.events if sum(one.id == event.id for one in BOOK.events) == 1)
    log = [raw for raw in LOG if (event := oracle.read(raw)) is None or event.id != lost]
    assert checks.all_accepted(Book.of(log), ids_of(SENT))


def test_a_doubled_result_is_found() -> None:
    assert checks.each_once(changed(scores(), DOUBLED))


@pytest.mark.parametrize("change", [LOST, lambda records: records.insert(9, records.pop(12))])
def test_a_chain_with_a_link_lost_or_out_of_place_is_found(change: Change) -> None:
    records = changed(scores(), change)
    assert checks.chained(records, "health_score.changed", ["account_id"], "previous", "current")


def test_a_score_told_last_that_is_not_the_exported_one_is_found() -> None:
    told = [a_result("health_score.changed", 0, account_id="a", previous=None, current={"score": 50, "band": "amber"})]
    state = [a_result("account.state", 0, account_id="a", score=50, band="amber")]
    assert checks.scores_as_told(told, state, [{"account_id": "a", "score": 50, "band": "amber"}]) == []
    assert checks.scores_as_told(told, state, [{"account_id": "a", "score": 51, "band": "amber"}])
    assert checks.scores_as_told(told, [], [{"account_id": "a", "score": 50, "band": "amber"}])


def test_requests_without_a_reply_or_with_two_are_found() -> None:
    replies = [a_result("request.answered", n, request_id=name) for n, name in enumerate(BOOK.requests)]
    assert checks.answered_once(replies, BOOK) == []
    assert checks.answered_once(changed(replies, LOST), BOOK)
    assert checks.answered_once([*replies, a_result("request.declined", 0, request_id=next(iter(BOOK.requests)))], BOOK)


@pytest.mark.parametrize("change", [LOST, lambda alerts: alerts.reverse(), DOUBLED])
def test_alerts_lost_doubled_or_out_of_order_are_found(change: Change) -> None:
    assert checks.alerts_as_ruled(ALERTS, TICKETS) == []
    assert checks.alternating(ALERTS) == []
    wrong = changed(ALERTS, change)
    assert checks.alerts_as_ruled(wrong, TICKETS) + checks.alternating(wrong)


def test_what_comes_and_goes_is_told_twice_a_month_and_the_third_time_is_missed_by_nobody() -> None:
    account, opened = next((a, e) for a, e in TICKETS if e.type == "ticket.opened" and e.data.get("severity") == "p1")
    solved = replace(opened, id="solved", type="ticket.solved")
    log = [
        (account, replace(event, id=f"{event.id}/{turn}", at=opened.at + turn * 10 + solves, received=opened.received))
        for turn in range(3)
        for solves, event in enumerate((opened, solved))
    ]
    steps = [(step.what, step.event_id) for step in oracle.episodes(log[:-1])]
    assert [what for what, _ in steps] == ["opened", "resolved"] * 2
    cause = opened.data["ticket_id"]
    assert oracle.flapping(log[:-1]) == {(account, "p1_open", cause)}
    assert oracle.flapping(log) == set()


def test_an_alert_by_another_event_is_found() -> None:
    other = alert_of(replace(STEPS[0], event_id="another"), 0)
    assert checks.alerts_as_ruled([other, *ALERTS[1:]], TICKETS)


def test_a_review_pack_that_counts_otherwise_is_found() -> None:
    asked = {f"check-{name}": name for name in oracle.reviewed(BOOK, AT)}

    def packs(more: int) -> list[Raw]:
        found = []
        for n, (id, account) in enumerate(asked.items()):
            row = oracle.reviewed(BOOK, AT)[account]
            pack = {
                "usage": {"events": row["events"] + more, "users": row["users"]},
                "tickets": {"opened": row["opened"], "open_at_end": row["open"]},
                "touchpoints": {"two_way": row["contacts"]},
            }
            found.append(a_result("request.answered", n, request_id=id, answer={"pack": pack}))
        return found

    assert checks.packs_agree(packs(0), asked, BOOK, AT) == []
    assert checks.packs_agree(packs(1), asked, BOOK, AT)
    assert checks.packs_agree(packs(0)[1:], asked, BOOK, AT)


def exports() -> dict[str, list[dict[str, Any]]]:
    """Every export as it should be, by the oracle."""
    overall = oracle.nps_overall(BOOK, AT)
    assert overall is not None
    segments = [
        {name: str(value) if name.endswith("arr") and value is not None else value for name, value in row.items()}
        for row in oracle.segments(BOOK, AT).values()
    ]
    open_alarms = [
        {
            "account_id": account, "rule": rule, "state": "open",
            "evidence": {"ticket_id" if rule == "p1_open" else "answer_id": cause},
        }
        for account, rule, cause in oracle.open_alarms(BOOK, AT)
    ]  # fmt: skip
    return {
        "usage": oracle.usage(BOOK, AT),
        "usage by month": oracle.usage_by_month(BOOK, AT),
        "accounts": oracle.accounts(BOOK, AT),
        "nps": [overall],
        "segments": segments,
        "touchpoints": [
            {"account_id": account, "last_two_way_at": at} for account, at in oracle.last_contact(BOOK, AT).items()
        ],
        "verbatims": [
            {"account_id": account, "item_id": item, "text": text}
            for (account, item), text in oracle.comments(BOOK, AT).items()
        ],
        "themes": [{"theme": theme, "items": n} for theme, n in oracle.themes(BOOK, AT, LABELS).items()],
        "feature_requests": [{"title": title, **row} for title, row in oracle.wishes(BOOK, AT).items()],
        "alerts": open_alarms,
    }


@pytest.mark.parametrize("kind", sorted(exports()))
def test_an_export_that_lacks_a_row_or_has_a_wrong_one_is_found(kind: str) -> None:
    perfect = exports()
    assert checks.exports_agree(perfect | {kind: perfect[kind][1:]}, BOOK, AT, LABELS)
    first, rest = perfect[kind][0], perfect[kind][1:]
    wrong = {name: value + 1 if type(value) is int else f"{value}0" for name, value in first.items()}
    if kind != "alerts":
        assert checks.exports_agree(
            perfect | {kind: [{**wrong, "scope": "all", "kind": "nps"}, *rest]}, BOOK, AT, LABELS
        )


def test_accounts_that_do_not_add_up_are_found() -> None:
    looks = [Routed.of(domain, records) for domain, records in ROUTED.items()]

    def accounts(**router: Any) -> dict[str, dict[str, Any]]:
        told = {"read": BOOK.records, "quarantined": BOOK.unreadable, "parked": BOOK.parked(), "balanced": True}
        found: dict[str, dict[str, Any]] = {"router": told | router}
        for look in looks:
            told = {"read": look.records, "duplicate": look.repeats}
            found[look.domain] = {**told, "quarantined": 0, "balanced": True}
        return found

    assert checks.adds_up(accounts(), BOOK, looks) == []
    assert checks.adds_up(accounts(balanced=False), BOOK, looks)
    assert checks.adds_up(accounts(read=BOOK.records + 1), BOOK, looks)
    assert checks.adds_up(accounts(parked=BOOK.parked() - 1), BOOK, looks)
    lost = Routed.of("voc", changed(ROUTED["voc"], LOST))
    assert checks.adds_up(accounts(), BOOK, [lost])


# -- what a long run says of itself --------------------------------------------------------------


def a_progress(**changed: Any) -> Progress:
    return replace(Progress(5, BASE.isoformat()), **changed)


def test_a_run_is_looked_at_whenever_its_rounds_have_doubled_and_at_its_end() -> None:
    assert [n for n in range(1, 26) if RELEASE.is_looked_at(n)] == [1, 2, 4, 8, 16, 25]


def test_a_report_says_that_a_run_was_cut_and_how_far_it_was_looked_at() -> None:
    said = chaos_report.render(a_progress(finished=13, looks=[1, 2, 4, 8, 13], events=520_000), RELEASE, [])
    assert "13 of 25 rounds" in said
    assert "520,000 different events" in said
    assert "**Cut: 12 of 25 rounds were not run.** **0 lost, 0 double** in the first 13 rounds." in said


def test_a_report_does_not_call_a_violated_run_clean() -> None:
    said = chaos_report.render(a_progress(finished=25, looks=[1], complaints=["3 × lost"]), RELEASE, [])
    assert "VIOLATED" in said
    assert "3 × lost" in said
    assert "0 lost" not in said


def test_a_report_says_what_ended_a_round() -> None:
    trouble = reasons(ExceptionGroup("storm", [AssertionError("not settled:\nhealth 3"), OSError("gone")]))
    assert trouble == ["AssertionError: not settled:", "OSError: gone"]
    said = chaos_report.render(a_progress(finished=4, looks=[4], ended_by="; ".join(trouble)), RELEASE, [])
    assert "A round ended by AssertionError: not settled:; OSError: gone." in said


def test_rounds_that_nobody_looked_at_are_not_proven() -> None:
    assert "13 rounds are over, looked at after [8]" in unproven(a_progress(finished=13, looks=[8]), RELEASE)


def test_a_progress_is_what_it_was_when_it_is_loaded_again(tmp_path: Path) -> None:
    kept = a_progress(finished=2, looks=[1, 2], happened=Counter({"kill voc": 3}), asked=["look-0"])
    kept.save(tmp_path / "chaos.json")
    assert Progress.load(tmp_path / "chaos.json", 6) == kept
