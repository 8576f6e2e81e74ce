"""Whose event it is: memberships and links by the event's own time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.domain import (
    AMBIGUOUS,
    NOBODY,
    UNKNOWN_ORGANISATION,
    UNKNOWN_USER,
    IdentityBook,
    Link,
    Membership,
    Resolved,
    Unresolved,
    account_at,
    accounts_at,
    email_domain,
    external_ids,
)

T = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ZENDESK = ("zendesk", "42")


def test_a_sole_membership_names_the_account() -> None:
    book = IdentityBook()
    assert book.join("u", "acme", T)
    assert book.resolve("u", (), T + DAY) == Resolved("acme")


def test_a_membership_learnt_later_holds_for_what_came_before_it() -> None:
    book = IdentityBook()
    book.join("u", "acme", T)
    assert book.resolve("u", (), T - DAY) == Resolved("acme")


def test_several_memberships_are_ambiguous_until_all_but_one_ended() -> None:
    book = IdentityBook()
    book.join("u", "acme", T)
    book.join("u", "beta", T)
    found = book.resolve("u", (), T + DAY)
    assert isinstance(found, Unresolved)
    assert found.reason == AMBIGUOUS
    assert found.waits_for == ("user:u",)
    book.leave("u", "beta", T + 2 * DAY)
    assert book.resolve("u", (), T + 3 * DAY) == Resolved("acme")
    assert isinstance(book.resolve("u", (), T + DAY), Unresolved), "what happened before is as ambiguous as it was"


def test_a_user_who_moves_changes_the_future_only() -> None:
    book = IdentityBook()
    book.join("u", "acme", T)
    book.leave("u", "acme", T + 10 * DAY)
    book.join("u", "beta", T + 10 * DAY)
    assert book.resolve("u", (), T + 9 * DAY) == Resolved("acme")
    assert book.resolve("u", (), T + 10 * DAY) == Resolved("beta")


def test_who_left_for_nowhere_is_nobodys() -> None:
    book = IdentityBook()
    book.join("u", "acme", T)
    book.leave("u", None, T + DAY)
    found = book.resolve("u", (), T + 2 * DAY)
    assert isinstance(found, Unresolved)
    assert found.reason == UNKNOWN_USER


def test_a_link_means_its_account_from_its_own_time_on() -> None:
    book = IdentityBook()
    assert book.link(*ZENDESK, "acme", T)
    assert not book.link(*ZENDESK, "acme", T + DAY), "no news"
    assert book.link(*ZENDESK, "beta", T + 10 * DAY)
    assert book.resolve(None, [ZENDESK], T + 9 * DAY) == Resolved("acme")
    assert book.resolve(None, [ZENDESK], T + 10 * DAY) == Resolved("beta")
    assert book.resolve(None, [ZENDESK], T - DAY) == Resolved("acme")


def test_a_membership_goes_before_a_link_and_a_link_settles_an_ambiguous_user() -> None:
    book = IdentityBook()
    book.link(*ZENDESK, "linked", T)
    book.join("u", "acme", T)
    assert book.resolve("u", [ZENDESK], T) == Resolved("acme")
    book.join("u", "beta", T)
    assert book.resolve("u", [ZENDESK], T) == Resolved("linked")


@pytest.mark.parametrize(
    ("user", "external", "reason", "waits"),
    [
        ("u", [], UNKNOWN_USER, ("user:u",)),
        (None, [ZENDESK], UNKNOWN_ORGANISATION, ("zendesk:42",)),
        ("u", [ZENDESK], UNKNOWN_USER, ("user:u", "zendesk:42")),
        (None, [], NOBODY, ()),
    ],
)
def test_what_cannot_be_resolved_says_why_and_what_would_help(
    user: str | None, external: list[tuple[str, str]], reason: str, waits: tuple[str, ...]
) -> None:
    assert IdentityBook().resolve(user, external, T) == Unresolved(reason, waits)


def test_an_earlier_join_moves_the_beginning_back() -> None:
    book = IdentityBook()
    assert book.join("u", "acme", T)
    assert not book.join("u", "acme", T + DAY)
    assert book.join("u", "acme", T - DAY)
    assert book.memberships["u"]["acme"] == Membership("acme", T - DAY)


@pytest.mark.parametrize(
    ("email", "domain"),
    [
        ("ann@acme.com", "acme.com"),
        ("Ann@ACME.com ", "acme.com"),
        ("opaque-ref-7@acme.co.uk", "acme.co.uk"),
        ("ann@gmail.com", None),
        ("ann@Orange.fr", None),
        ("ann@localhost", None),
        ("ann", None),
        (None, None),
        (["ann@acme.com"], None),
    ],
)
def test_only_a_companys_mail_domain_names_a_company(email: object, domain: str | None) -> None:
    assert email_domain(email) == domain


def test_external_ids_come_in_a_fixed_order_and_the_mail_domain_last() -> None:
    body = {"external_ids": {"zendesk": 42, "hubspot": "7", "odd": None}, "traits": {"email": "ann@acme.com"}}
    assert external_ids(body) == [("hubspot", "7"), ("zendesk", "42"), ("email_domain", "acme.com")]
    assert external_ids({"external_ids": "no", "traits": "no"}) == []


TIMES = st.integers(0, 20).map(lambda days: T + days * DAY)


@given(st.lists(st.tuples(TIMES, st.sampled_from("abc")), min_size=1, max_size=8), TIMES)
def test_an_account_by_link_is_the_latest_one_that_had_begun(links: list[tuple[datetime, str]], at: datetime) -> None:
    known = [Link(account, begins) for begins, account in {begins: (begins, a) for begins, a in links}.values()]
    past = [link for link in known if link.valid_from <= at]
    chosen = max(past, key=lambda link: link.valid_from) if past else min(known, key=lambda link: link.valid_from)
    assert account_at(known, at) == chosen.account_id
    assert account_at(list(reversed(known)), at) == chosen.account_id


@given(st.dictionaries(st.sampled_from("abcd"), st.tuples(TIMES, st.none() | TIMES), max_size=4), TIMES)
def test_current_members_are_those_within_their_time(
    spans: dict[str, tuple[datetime, datetime | None]], at: datetime
) -> None:
    known = [Membership(name, begins, ends) for name, (begins, ends) in spans.items()]
    current = {m.account_id for m in known if m.valid_from <= at and (m.valid_to is None or at < m.valid_to)}
    found = accounts_at(known, at)
    assert found == sorted(set(found))
    if current:
        assert set(found) == current
    else:
        assert all(spans[name][0] > at for name in found)
