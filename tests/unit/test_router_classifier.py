"""Text requests: the demand and the account, or an honest "unclear"."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.account_index import AccountIndex, fold, within_one_edit
from services.router.classifier import DEMANDS, an_index, classify
from tests.support import requests_report as report

BOOK = report.accounts()


def test_two_hundred_phrasings_cover_every_demand_in_both_sets() -> None:
    dev, holdout = report.phrasings("dev"), report.phrasings("holdout")
    assert len(dev) + len(holdout) >= 200
    for rows in (dev, holdout):
        assert {row["demand"] for row in rows if row["demand"]} == set(DEMANDS)
    assert not {row["text"] for row in dev} & {row["text"] for row in holdout}


def test_phrasings_never_seen_by_the_rules_are_understood() -> None:
    assert report.demand_accuracy(report.judge("holdout")) >= 0.85


def test_a_misunderstood_phrasing_is_unclear_rather_than_wrong() -> None:
    judged = [one for one in report.judge("holdout") if one.demand]
    assert sum(one.got.demand not in (one.demand, None) for one in judged) / len(judged) <= 0.03


def test_phrasings_the_rules_were_written_on_stay_understood() -> None:
    assert report.demand_accuracy(report.judge("dev")) >= 0.97


@pytest.mark.parametrize("name", ["dev", "holdout"])
def test_out_of_scope_texts_are_unclear(name: str) -> None:
    assert [one.text for one in report.judge(name) if one.demand is None and one.got.demand] == []


@pytest.mark.parametrize("name", ["dev", "holdout"])
def test_the_account_that_is_named_is_found(name: str) -> None:
    assert report.account_accuracy(report.judge(name)) >= 0.97


def test_the_published_accuracy_is_the_measured_one() -> None:
    assert report.PAGE.read_text() == report.render()


@pytest.mark.parametrize("row", report.phrasings("dev")[::5], ids=lambda row: row["text"][:30])
def test_accents_do_not_matter(row: dict[str, Any]) -> None:
    got, plain = (classify(text, BOOK) for text in (row["text"], _without_accents(row["text"])))
    assert (got.demand, got.account_id) == (plain.demand, plain.account_id)


def _without_accents(text: str) -> str:
    return "".join(char if char.isascii() else (fold(char).upper() if char.isupper() else fold(char)) for char in text)


def test_a_typo_costs_confidence_but_not_the_demand() -> None:
    clean, typo = (classify(text, BOOK) for text in ("health score of Globex", "helth scroe of Globex"))
    assert typo.demand == clean.demand == "health.score"
    assert typo.confidence < clean.confidence


def test_word_order_does_not_matter() -> None:
    texts = ("last contact with Globex", "Globex last contact", "contact, last, Globex")
    assert {classify(text, BOOK).demand for text in texts} == {"ops.touchpoint"}


def test_a_demand_that_is_ruled_out_does_not_count() -> None:
    assert classify("not the health score but the NPS of Globex", BOOK).demand == "feedback.analysis"
    assert classify("la QBR de Globex, pas l'EBR", BOOK).demand == "qbr.review"
    assert classify("don't send any survey to Globex", BOOK).demand is None


def test_a_statement_that_something_is_missing_is_no_exclusion() -> None:
    assert classify("we have not talked to Globex", BOOK).demand == "ops.touchpoint"


def test_below_the_bar_the_nearest_demands_are_named() -> None:
    got = classify("the health of something", BOOK)
    assert got.demand is None
    assert got.candidates == ("health.score",)
    assert 0 < got.confidence < 0.6


def test_the_bar_is_the_callers_choice() -> None:
    assert classify("the health of something", BOOK, bar=0.3).demand == "health.score"


def test_words_of_an_accounts_name_say_nothing_about_the_demand() -> None:
    assert classify("QBR with The Survey Company", BOOK).demand == "qbr.review"
    assert classify("segment of Score Media", BOOK).demand == "ops.segmentation"


@pytest.mark.parametrize(
    ("text", "account_id"),
    [
        ("score of acct_0002", "acct_0002"),
        ("score of ACCT_0002", "acct_0002"),
        ("comment va Orange ?", "acct_0002"),
        ("is it orange or green", None),
        ("next review of Next Review Ltd", "acct_0003"),
        ("the next review", None),
        ("NPS de Stark et Fils", "acct_0020"),
        ("l'atelier numerique : score", "acct_0019"),
        ("health of Globx", "acct_0007"),
        ("health of Northwind", "acct_0011"),
        ("health of Acme", None),
        ("compare Globex and Blue Harbor", None),
        ("Globex's score", "acct_0007"),
    ],
)
def test_accounts_are_found_by_id_name_part_and_typo(text: str, account_id: str | None) -> None:
    assert classify(text, BOOK).account_id == account_id


def test_a_name_that_two_accounts_share_names_both_and_neither() -> None:
    got = classify("health of Acme", BOOK)
    assert got.account_id is None
    assert set(got.account_candidates) == {"acct_0001", "acct_0023"}


def test_two_accounts_in_one_text_are_candidates() -> None:
    got = classify("compare the scores of Globex and Blue Harbor", BOOK)
    assert got.account_id is None
    assert set(got.account_candidates) == {"acct_0007", "acct_0022"}


def test_a_bare_number_is_an_id_only_when_called_so() -> None:
    index = an_index([("48", "Lumen")])
    assert classify("loops closed within 48 hours", index).account_id is None
    assert classify("alerts of account 48", index).account_id == "48"


def test_renaming_an_account_forgets_its_old_name() -> None:
    index = an_index([("a1", "Vermillon Conseil")])
    index.add("a1", "Turquoise Conseil")
    assert classify("score of Vermillon Conseil", index).account_id is None
    assert classify("score of Turquoise Conseil", index).account_id == "a1"
    assert len(index) == 1


def test_adding_accounts_one_by_one_equals_building_at_once() -> None:
    pairs = [(f"a{i}", f"Maison {name}") for i, name in enumerate(("Ganteaume", "Kerbrat", "Lozach", "Trividic"))]
    grown = AccountIndex(common=BOOK.common)
    for account_id, name in reversed(pairs):
        grown.add(account_id, name)
    for account_id, name in pairs:
        assert classify(f"alertes de {name}", grown).account_id == account_id


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_gets_the_same_verdict_twice_and_never_an_error(text: str) -> None:
    first = classify(text, BOOK)
    assert first == classify(text, BOOK)
    assert 0 <= first.confidence <= 1
    assert first.demand is None or first.demand == first.candidates[0]


@given(st.text(alphabet="abcd", min_size=1, max_size=7), st.data())
def test_one_edit_is_recognised_in_both_directions(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(word) - 1))
    edited = data.draw(
        st.sampled_from([word[:at] + "x" + word[at:], word[:at] + word[at + 1 :], word[:at] + "x" + word[at + 1 :]])
    )
    assert within_one_edit(word, edited)
    assert within_one_edit(edited, word)
    assert not within_one_edit(word, "xx" + word)
