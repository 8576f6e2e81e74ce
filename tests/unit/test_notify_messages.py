"""A message says what is known, invents nothing, and is one that Slack takes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.webhooks import slack
from services.gateway.webhooks.base import Delivery
from services.notify import blocks, sample
from services.notify.card import Card, plain
from services.notify.episodes import Account, Context, Episode, Remedy, Step, Touch, Weighing
from services.notify.settings import Language
from tests.support import block_kit

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
WILD = st.text(st.characters(codec="utf-8"), max_size=30)
LONG = st.one_of(WILD, st.sampled_from(["x" * 3500, "<!channel>" * 400, "é👨‍👩‍👧" * 600, "", "\n" * 50]))
ID = st.text(st.characters(codec="utf-8"), min_size=1, max_size=256)


def an_episode(**given: Any) -> Episode:
    return replace(sample.card(NOW, "en").episode, **given)


CONTEXTS = st.builds(
    Context, arr=st.none() | st.sampled_from(["1", "60000.5"]), band=st.sampled_from(["red", "odd"]),
    score=st.none() | st.integers(0, 100), coverage=st.floats(0, 1), restored_score=st.none() | st.integers(0, 100),
    contacts=st.lists(st.tuples(LONG, LONG), max_size=3).map(tuple), rule=LONG, touch=st.none(), owner=LONG,
    name=st.none() | LONG, segment=LONG, notice_on=st.none(), caps=st.lists(LONG, max_size=3).map(tuple),
    parts=st.lists(st.builds(Weighing, LONG, LONG, st.floats(0, 100)), max_size=3).map(tuple),
    restore=st.lists(
        st.builds(Remedy, LONG, LONG, st.none() | LONG, st.floats(0, 100), st.floats(0, 100)), max_size=3
    ).map(tuple),
)  # fmt: skip
CARDS = st.builds(
    Card,
    st.builds(
        an_episode, alert_id=ID, account_id=ID, rule=LONG, title=LONG, why=LONG, next_step=st.none() | LONG,
        severity=st.sampled_from(["low", "medium", "high", "critical", "odd"]),
        evidence=st.dictionaries(WILD, st.none() | LONG | st.floats() | st.lists(LONG, max_size=6), max_size=14),
        state=st.sampled_from(["open", "resolved"]), acknowledged_by=st.none() | LONG, context=st.none() | CONTEXTS,
    ),
    st.builds(
        Account, account_id=ID, name=st.none() | LONG, score=st.none() | st.integers(0, 100),
        band=st.none() | st.sampled_from(["red", "green", "new"]), segment=st.none() | LONG, owner=st.none() | LONG,
        arr=st.none() | st.sampled_from(["1", "60000.5", "lots"]),
        notice_on=st.none() | st.sampled_from(["2026-12-31", "?"]),
    ),
    st.sampled_from(["en", "fr"]), st.just(NOW),
)  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(CARDS, st.sampled_from(["", "https://console.example.com"]))
def test_slack_takes_whatever_an_alert_says(card: Card, console: str) -> None:
    message = blocks.of_card(card, console)
    assert block_kit.faults(message.text, message.blocks) == []
    json.dumps(message.blocks).encode()
    step = blocks.of_step(card, Step(2, "escalated", NOW, card.episode.severity, card.episode.why))
    assert block_kit.faults(step.text, step.blocks) == []


@settings(deadline=None, max_examples=12)
@given(st.lists(CARDS, min_size=1, max_size=4), st.sampled_from([1, 40, 41, 150]))
def test_slack_takes_a_digest_of_any_length(cards: list[Card], n: int) -> None:
    many = [replace(cards[k % len(cards)], account=Account(f"acct-{k}", name="n" * (k % 200))) for k in range(n)]
    message = blocks.of_digest([*cards, *many], "en")
    assert block_kit.faults(message.text, message.blocks) == []


@pytest.mark.parametrize("kind", ["header", "section", "context", "actions"])
def test_the_check_of_limits_finds_what_is_too_long(kind: str) -> None:
    text = {"type": "plain_text", "text": "x" * 3001}
    block: dict[str, Any] = {
        "type": kind,
        "text": text,
        "elements": [{"type": "button", "action_id": "a", **text, "text": text}],
    }
    if kind == "context":
        block["elements"] = [text]
    assert block_kit.faults("x", [block])


def test_a_full_message_has_all_that_is_known() -> None:
    said = plain(sample.card(NOW, "en"))
    for part in ("Sample & Co", "72 green → 38 red", "60,000", "2026-12-31 (in 39 days)", "by lea (call)", "92%",
                 "tickets −18.0, usage −16.0", "4711", "“nothing works since Monday”", "ada, grace", "band_red",
                 "Call the main contact", "grace (champion)", "Open tickets 3 (−19.5)", "score_below: enter 40",
                 "brings it to 45: Active days 40% → 62%"):  # fmt: skip
        assert part in " ".join(said.split()), part


def test_what_the_alert_said_of_its_account_is_told_where_nothing_else_is_known() -> None:
    card = Card(an_episode(), Account("sample-account"), "en", NOW)
    said = " ".join(plain(card).split())
    for part in ("Sample & Co", "72 green → 38 red", "60,000", "in 39 days", "by lea (call)", "Owner: lea", "92%"):
        assert part in said, part


def test_the_later_contact_is_told_and_an_alert_that_is_over_asks_for_nothing() -> None:
    card = sample.card(NOW, "en")
    later = replace(card, account=replace(card.account, touch=Touch(NOW, "ann", None)))
    assert dict(later.facts)["Last two-way contact"] == "2026-11-22 by ann"
    over = replace(card, episode=an_episode(state="resolved", resolved_at=NOW))
    assert "Smallest change" not in plain(over)


def test_a_measure_whose_points_do_not_follow_from_its_value_is_told_in_points() -> None:
    card = sample.card(NOW, "en")
    assert card.episode.context is not None
    context = replace(card.episode.context, restore=(Remedy("NPS", "12", None, 20.4, 47.2),))
    assert "NPS 20 → 48 points" in plain(replace(card, episode=an_episode(context=context)))


def test_what_is_not_known_is_left_out() -> None:
    card = Card(an_episode(evidence={}, next_step=None, context=None), Account("acme"), "en", NOW)
    message = blocks.of_card(card)
    assert [block["type"] for block in message.blocks] == ["header", "section", "context", "actions"]
    assert "None" not in json.dumps(message.blocks)


def test_a_change_of_score_from_another_day_is_not_the_alerts() -> None:
    card = sample.card(NOW, "en")
    other = replace(card, episode=replace(card.episode, cause_ids=("another",), context=None))
    assert other.score == "38 red"
    assert other.moved is None


@pytest.mark.parametrize(("language", "words"), [("en", "What moved it"), ("fr", "Ce qui a pesé")])
def test_a_reader_gets_their_language(language: Language, words: str) -> None:
    assert words in plain(sample.card(NOW, language))


def test_customer_text_never_stands_in_mrkdwn() -> None:
    message = blocks.of_card(replace(sample.card(NOW, "en"), account=Account("acme", name="<!channel>")))
    assert "mrkdwn" not in json.dumps(message.blocks)
    assert "<!channel>" not in message.text


def test_what_is_over_has_no_buttons_but_ratings() -> None:
    over = replace(sample.card(NOW, "en"), episode=an_episode(state="resolved", resolved_at=NOW))
    assert _buttons(over) == ["rate_alert", "alert.rate"]


@pytest.mark.parametrize(
    ("button", "demand", "parameters"),
    [
        ("ack_alert", "alert.acknowledge", {}),
        ("snooze_alert", "alert.snooze", {"days": 7}),
        ("rate_alert", "alert.rate", {"useful": True}),
        ("alert.rate", "alert.rate", {"useful": False}),
    ],
)
def test_a_button_is_a_request_that_the_gateway_understands(
    button: str, demand: str, parameters: dict[str, Any]
) -> None:
    (event,) = slack.events(_press(button))
    assert (event.type, event.key) == ("request.made", "sample-account")
    assert event.body["demand"] == demand
    assert event.body["parameters"].items() >= {"alert_id": "sample", "slack_user_id": "U1", **parameters}.items()


def test_a_button_that_opens_a_page_is_no_request() -> None:
    assert slack.events(_press("open_account")) == []


def _buttons(card: Card) -> list[str]:
    return [element["action_id"] for block in blocks.of_card(card).blocks for element in block.get("elements", ())
            if "action_id" in element]  # fmt: skip


def _press(action_id: str) -> Delivery:
    from urllib.parse import urlencode

    made = blocks.of_card(sample.card(NOW, "en"), "https://console.example.com")
    (button,) = [one for block in made.blocks for one in block.get("elements", ()) if one.get("action_id") == action_id]
    action = {"action_id": action_id, "block_id": "b", "action_ts": "1795339200.000100", "value": button.get("value")}
    payload = {
        "type": "block_actions", "team": {"id": "T1"}, "user": {"id": "U1"},
        "container": {"type": "message", "channel_id": "C1", "message_ts": "1795339200.000001"}, "actions": [action],
    }  # fmt: skip
    return Delivery(urlencode({"payload": json.dumps(payload)}).encode())


def test_evidence_is_what_the_sentence_does_not_say() -> None:
    evidence = {"score": 12, "enter": 40.0, "leave": 47.0, "quote": "too slow", "tickets": ["7", "8"]}
    card = Card(an_episode(evidence=evidence), Account("acme"), "fr", NOW)
    assert card.evidence == ["citation : “too slow”", "tickets : 7, 8"]
