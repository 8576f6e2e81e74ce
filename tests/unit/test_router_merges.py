"""Merged accounts: whose an event is by its own time, which merges cannot be, and what people ask to be changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router import actions
from services.router.domain import AMBIGUOUS, IdentityBook, Link, Membership, Resolved, Unresolved
from services.router.merges import AFTER, Merge, became, refusal, straight_to, survivor
from shared.requests import Unusable

T = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ZENDESK = ("zendesk", "42")
CHAIN = {"a": Merge("b", T, T), "b": Merge("c", T + 2 * DAY, T + 2 * DAY)}


def a_book(merges: Mapping[str, Merge] = CHAIN) -> IdentityBook:
    return IdentityBook(merges=merges)


def test_an_event_resolves_by_its_own_time_along_a_chain_of_merges() -> None:
    assert [became("a", T + days * DAY, CHAIN) for days in (-1, 0, 1, 2)] == ["a", "b", "b", "c"]
    assert survivor("a", CHAIN) == survivor("b", CHAIN) == survivor("c", CHAIN) == "c"


def test_a_later_merge_of_the_first_account_waits_for_its_own_time() -> None:
    merges = {"a": Merge("b", T + 5 * DAY, T), "b": Merge("c", T, T)}
    assert became("a", T + DAY, merges) == "a"
    assert became("a", T + 5 * DAY, merges) == "c"


def test_who_names_the_merged_account_goes_straight_to_the_other_a_day_after_the_merge_was_heard_of() -> None:
    told_late = {"a": Merge("b", T, T + 30 * DAY)}
    assert straight_to("a", T + 30 * DAY, told_late) == "a"
    assert straight_to("a", T + 30 * DAY + AFTER, told_late) == "b"
    assert straight_to("a", T + 4 * DAY, CHAIN) == "c"


@given(st.integers(-100, 100), st.integers(-100, 100), st.integers(0, 100))
def test_no_repeat_of_what_came_before_the_merge_goes_another_way(own: int, since: int, heard: int) -> None:
    """An event may be dated a day after its receipt at most, so before the merge was heard of it went to `a`."""
    merges = {"a": Merge("b", T + since * DAY / 10, T + heard * DAY / 10)}
    at = T + own * DAY / 10
    received_before_the_merge = at - AFTER < merges["a"].known_at
    if received_before_the_merge:
        assert straight_to("a", at, merges) == "a"


@pytest.mark.parametrize(
    ("merged", "into", "says"),
    [
        ("x", "x", "into itself"),
        ("a", "c", "was merged into 'b' before"),
        ("c", "a", "cannot be merged into 'a': that became b → c by merges"),
        ("c", "b", "cannot be merged into 'b': that became c by merges"),
    ],
)
def test_a_merge_that_cannot_be_says_why(merged: str, into: str, says: str) -> None:
    assert says in (refusal(merged, into, CHAIN) or "")


def test_the_same_merge_again_and_one_into_a_merged_account_are_fine() -> None:
    assert refusal("a", "b", CHAIN) is None
    assert refusal("x", "a", CHAIN) is None


accounts = st.sampled_from("abcdef")


@given(st.lists(st.tuples(accounts, accounts), max_size=30))
def test_whatever_is_asked_accepted_merges_never_form_a_circle(asked: Sequence[tuple[str, str]]) -> None:
    merges: dict[str, Merge] = {}
    for merged, into in asked:
        if refusal(merged, into, merges) is None:
            merges[merged] = Merge(into, T, T)
    for name in "abcdef":
        assert survivor(name, merges) not in merges  # it ends


def test_a_user_of_both_accounts_is_ambiguous_until_they_are_one() -> None:
    book = a_book({"beta": Merge("acme", T + DAY, T)})
    for account in ("acme", "beta"):
        book.join("u", account, T)
    before = book.resolve("u", (), T)
    assert isinstance(before, Unresolved)
    assert before.reason == AMBIGUOUS
    assert book.resolve("u", (), T + DAY) == Resolved("acme")


@given(st.permutations(["join", "link", "merge"]), st.integers(-3, 3))
def test_memberships_and_links_move_whichever_was_told_first(order: Sequence[str], days: int) -> None:
    book = IdentityBook()
    for step in order:
        if step == "join":
            book.join("u", "beta", T - 9 * DAY)
        elif step == "link":
            book.link(*ZENDESK, "beta", T - 9 * DAY)
        else:
            book.merges = {"beta": Merge("acme", T, T + 9 * DAY)}
    expected = Resolved("acme" if days >= 0 else "beta")
    assert book.resolve("u", (), T + days * DAY) == expected
    assert book.resolve(None, (ZENDESK,), T + days * DAY) == expected


def test_who_leaves_the_surviving_account_leaves_the_merged_one_too() -> None:
    book = a_book({"beta": Merge("acme", T, T)})
    book.join("u", "beta", T - DAY)
    assert book.leave("u", "acme", T + DAY) == [Membership("beta", T - DAY, T + DAY)]


def asked(demand: str, account: str | None = "acme", **parameters: Any) -> actions.Asked:
    return actions.read(demand, account, parameters, T, T)


def test_requests_are_read_with_the_requests_own_time_as_the_default() -> None:
    link = asked("account.link", namespace="zendesk", external_id="42")
    assert link == actions.LinkAsked("zendesk", "42", "acme", T)
    merge = asked("account.merge", merged_account_id="beta", valid_from="2025-12-01T00:00:00Z")
    assert merge == actions.MergeAsked("beta", "acme", datetime(2025, 12, 1, tzinfo=UTC))
    assert asked("account.split", member="u") == actions.SplitAsked("acme", T, user_id="u")
    split = asked("account.split", namespace="zendesk", external_id="42")
    assert split == actions.SplitAsked("acme", T, external=ZENDESK)


@pytest.mark.parametrize(
    ("demand", "parameters", "says"),
    [
        ("account.link", {"namespace": "zendesk"}, "needs parameter external_id"),
        ("account.merge", {}, "needs parameter merged_account_id"),
        ("account.merge", {"merged_account_id": 5}, "parameter merged_account_id takes a text"),
        ("account.merge", {"merged_account_id": "b", "valid_from": "soon"}, "parameter valid_from"),
        ("account.merge", {"merged_account_id": "b", "valid_from": "2026-01-03T00:00:00Z"}, "24 hours ahead"),
        ("account.split", {}, "needs parameter member"),
        ("account.split", {"namespace": "zendesk"}, "needs parameter external_id"),
    ],
)
def test_what_is_missing_or_wrong_is_named(demand: str, parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(Unusable, match=says):
        asked(demand, **parameters)


def test_a_request_without_an_account_names_what_it_needs() -> None:
    with pytest.raises(Unusable, match=r"account\.link is about one account"):
        asked("account.link", None, namespace="zendesk", external_id="42")


def test_a_link_is_news_once_and_refused_where_another_begins_at_that_moment() -> None:
    ask = actions.LinkAsked(*ZENDESK, "acme", T)
    assert actions.linked([], ask)
    assert not actions.linked([Link("acme", T - DAY)], ask)
    with pytest.raises(Unusable, match="means account 'beta' from 2026-01-01T00:00:00Z on already"):
        actions.linked([Link("beta", T)], ask)


def test_a_split_link_means_nobody_from_then_on_and_the_same_before() -> None:
    links = [Link("acme", T - DAY)]
    links.append(actions.split_link(links, actions.SplitAsked("acme", T, external=ZENDESK), "acme"))
    book = IdentityBook(links={ZENDESK: links})
    assert book.resolve(None, (ZENDESK,), T - DAY) == Resolved("acme")
    assert isinstance(book.resolve(None, (ZENDESK,), T), Unresolved)


def test_nothing_is_split_that_was_never_joined() -> None:
    with pytest.raises(Unusable, match="does not mean account 'acme'"):
        actions.split_link([], actions.SplitAsked("acme", T, external=ZENDESK), None)
    with pytest.raises(Unusable, match="user 'u' does not belong to account 'acme'"):
        actions.split_member([], actions.SplitAsked("acme", T, user_id="u"))
