"""Comments as a fold, counts by theme, wishes and revenue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.voc import domain
from services.voc.analysis import analyse, from_json, to_json
from services.voc.answers import money
from services.voc.domain import Item, Rate, Relabel, Statement, Worth
from services.voc.settings import VocSettings, rules_of

RULES = rules_of(VocSettings())
POLICY = RULES.policy
START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = ["Too slow.", "Great support!", "Trop cher.", "We are evaluating alternatives.", "", None]


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def a_statement(text: str | None, day: float, what: Any = "said", item: str = "i1", **more: Any) -> Statement:
    event_id = more.pop("event_id", f"{what}{day}{item}")
    reading = analyse(text, "survey", RULES.lexicon) if text and text.strip() else None
    return Statement(
        more.pop("account_id", "acme"), item, what, at(day), "hune", event_id, more.pop("source", "survey"), text=text,
        reading=reading, **more,
    )  # fmt: skip


def an_item(text: str, day: float = 1, account_id: str = "acme", **more: Any) -> Item:
    statement = a_statement(text, day, account_id=account_id, item=f"{account_id}{day}{text}", **more)
    item = domain.item_at([statement], (), None, POLICY)
    assert item is not None
    return item


def item_at(statements: Sequence[Statement], day: float | None = None, relabels: Sequence[Relabel] = ()) -> Item | None:
    return domain.item_at(statements, relabels, None if day is None else at(day), POLICY)


statements = st.lists(
    st.builds(
        a_statement,
        st.sampled_from(WORDS),
        st.integers(0, 9),
        st.sampled_from(["said", "corrected", "retracted"]),
        event_id=st.uuids().map(str),
        score=st.sampled_from([None, 0.0, 3.0, 9.0]),
        survey=st.just("nps"),
    ),
    max_size=8,
)


@given(statements, st.randoms(use_true_random=False), st.integers(0, 10))
def test_a_comment_at_any_time_depends_on_what_was_said_and_never_on_the_order_of_arrival(
    said: list[Statement], random: Any, day: int
) -> None:
    shuffled = list(said)
    random.shuffle(shuffled)
    assert item_at(said, day) == item_at(shuffled, day)


@given(statements, st.integers(0, 10))
def test_what_is_said_later_does_not_change_the_past(said: list[Statement], day: int) -> None:
    assert item_at(said, day) == item_at([one for one in said if one.at <= at(day)])


@given(statements)
def test_a_retraction_after_everything_hides_the_comment(said: list[Statement]) -> None:
    assert item_at([*said, a_statement(None, 20, "retracted")]) is None


def test_a_correction_counts_from_its_own_time_and_keeps_what_it_does_not_name() -> None:
    said = [
        a_statement("Too slow.", 1, survey="nps", score=2, user_id="ann"),
        a_statement("Too expensive.", 3, "corrected"),
        a_statement(None, 5, "corrected", score=9),
    ]
    before, between, after = item_at(said, 2), item_at(said, 4), item_at(said, 6)
    assert before is not None
    assert between is not None
    assert after is not None
    assert (before.themes, before.score) == (("reliability.speed",), 2)
    assert (between.themes, between.score, between.user_id) == (("commercial.price",), 2, "ann")
    assert (after.text, after.score, after.said_at) == ("Too expensive.", 9, at(1))


def test_a_correction_dated_before_its_answer_still_corrects_it() -> None:
    item = item_at([a_statement("Too slow.", 2), a_statement("Great!", 1, "corrected")])
    assert item is not None
    assert item.text == "Great!"


def test_an_answer_given_again_after_its_retraction_stands() -> None:
    item = item_at([a_statement("Slow.", 1), a_statement(None, 2, "retracted"), a_statement("Fast.", 3)])
    assert item is not None
    assert item.text == "Fast."


def test_a_correction_may_bring_the_first_words_and_take_the_last_away() -> None:
    said = [a_statement(None, 1), a_statement("Slow.", 2, "corrected"), a_statement("", 3, "corrected")]
    assert item_at(said, 1) is None
    assert item_at(said, 2) is not None
    assert item_at(said, 3) is None


def test_a_persons_labels_count_from_their_time_and_survive_corrections() -> None:
    labels = [Relabel("acme", "i1", "r1", at(2), ("security.privacy",))]
    said = [a_statement("Too slow.", 1), a_statement("Too expensive.", 3, "corrected")]
    before, after = item_at(said, 1.5, labels), item_at(said, 4, labels)
    assert before is not None
    assert after is not None
    assert before.themes == ("reliability.speed",)
    assert after.themes == ("security.privacy",)
    assert [label.theme for label in after.reading.labels] == ["commercial.price"]


@pytest.mark.parametrize(
    ("survey", "score", "scale", "text", "mismatch"),
    [
        ("nps", 9, None, "We are evaluating alternatives.", "risk_behind_high_score"),
        ("nps", 10, None, "Nous regardons ailleurs, dommage.", "risk_behind_high_score"),
        ("nps", 9, None, "Terrible support, it never works.", "complaint_behind_high_score"),
        ("nps", 3, None, "Fantastic tool, we love it!", "praise_behind_low_score"),
        ("csat", 1, "1-5", "Un outil génial, merci !", "praise_behind_low_score"),
        ("ces", 7, "1-7", "We are switching to another vendor.", "risk_behind_high_score"),
        ("nps", 9, None, "Fantastic tool, we love it!", None),
        ("nps", 6, None, "We are evaluating alternatives.", None),
        ("nps", 11, None, "We are evaluating alternatives.", None),
        (None, None, None, "We are evaluating alternatives.", None),
    ],
)
def test_words_that_belie_the_score_are_flagged(
    survey: str | None, score: float | None, scale: str | None, text: str, mismatch: str | None
) -> None:
    assert an_item(text, survey=survey, score=score, scale=scale).mismatch == mismatch


def test_reading_survives_storage() -> None:
    reading = analyse("L'export plante, c'est bloquant.", "ticket", RULES.lexicon)
    assert from_json(to_json(reading), reading.rule) == reading


# -- themes ---------------------------------------------------------------------------------------


def rows(items: list[Item], arr: dict[str, int], day: float, level: str = "theme") -> dict[str, domain.ThemeCount]:
    revenue = {account_id: domain.Revenue(Decimal(amount)) for account_id, amount in arr.items()}
    return {row.theme: row for row in domain.theme_counts(items, revenue, at(day), POLICY, level)}


def test_a_theme_counts_an_accounts_revenue_once_and_says_whose_is_unknown() -> None:
    items = [an_item("Too slow.", day) for day in range(5)] + [
        an_item("Slow.", 1, "beta"),
        an_item("Slow.", 1, "gamma"),
    ]
    row = rows(items, {"acme": 1000, "beta": 10}, 10)["reliability.speed"]
    assert (row.items, row.accounts, row.arr, row.accounts_without_arr) == (7, 3, Decimal(1010), 1)


def test_revenue_that_nobody_knows_is_null_and_not_zero() -> None:
    row = rows([an_item("Too slow.")], {}, 10)["reliability.speed"]
    assert (row.arr, row.accounts_without_arr) == (None, 1)


def test_the_trend_compares_the_last_days_with_as_many_before() -> None:
    items = [an_item("Slow.", day) for day in (10, 20, 30, 31, 59, 60)]
    row = rows(items, {}, 60)["reliability.speed"]
    assert (row.last, row.before, row.trend, row.trend_ratio) == (3, 3, 0, 0.0)
    assert rows(items, {}, 25)["reliability.speed"].trend_ratio is None


def test_comments_without_a_theme_are_a_row_of_their_own_even_when_there_are_none() -> None:
    found = rows([an_item("xyzzy"), an_item("Slow.")], {}, 5)
    assert found["(unlabelled)"].items == 1
    assert rows([], {}, 5)["(unlabelled)"].items == 0


def test_a_comment_with_two_themes_of_one_parent_counts_once_for_the_parent() -> None:
    item = an_item("The export fails and the dashboard is missing.")
    assert len([theme for theme in item.themes if theme.startswith("features.")]) >= 2
    assert rows([item], {}, 5, "parent")["features"].items == 1


@given(st.permutations([(text, day, account) for text in WORDS[:4] for day in (1, 35) for account in ("a", "b")]))
def test_counts_by_theme_do_not_depend_on_the_order(facts: list[tuple[str, int, str]]) -> None:
    items = [an_item(text, day, account) for text, day, account in facts]
    assert domain.theme_counts(items, {}, at(40), POLICY) == domain.theme_counts(
        sorted(items, key=lambda item: item.item_id), {}, at(40), POLICY
    )


# -- wishes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "same"),
    [
        ("Dark mode", "Please add a dark mode!"),
        ("Dark mode", "DARK  MODES"),
        ("Feature request: dark mode", "dark mode"),
        ("Export PDF", "Pouvoir avoir un export en PDF"),
        ("Tableau de bord partagé", "Tableaux de bord partagés"),
    ],
)
def test_titles_that_differ_in_form_only_are_one_wish(title: str, same: str) -> None:
    assert domain.wish_key(title) == domain.wish_key(same)


@pytest.mark.parametrize(
    ("title", "other"),
    [
        ("Import from Salesforce", "Export from Salesforce"),
        ("Dark mode", "Mode switch"),
        ("!", "?"),
        ("日本語", "中文"),
    ],
)
def test_different_titles_are_different_wishes(title: str, other: str) -> None:
    assert domain.wish_key(title) != domain.wish_key(other)


def a_wish(title: str, account: str, user: str | None, day: float = 1, severity: str | None = None) -> Item:
    return an_item(
        title, day, account, source="request", title=title, wish=domain.wish_key(title), user_id=user,
        severity=severity, event_id=f"{title}{account}{user}{day}",
    )  # fmt: skip


def test_a_wish_counts_each_account_once_and_keeps_every_person() -> None:
    items = [a_wish("Dark mode", "acme", f"u{number}", number) for number in range(10)]
    items += [a_wish("Dark modes", "beta", "ann", severity="p2"), a_wish("Dark mode", "gamma", None)]
    revenue = {"acme": domain.Revenue(Decimal(90000)), "beta": domain.Revenue(Decimal(6000))}
    (wish,) = domain.all_wishes(domain.wishes_of(items), revenue, POLICY)
    assert (wish.accounts, wish.people, wish.votes) == (("acme", "beta", "gamma"), 11, 12)
    assert (wish.arr, wish.accounts_without_arr, wish.breadth) == (Decimal(96000), 1, 2)
    assert wish.segments == {"high": 1, "mid": 1, "low": 0, "unknown": 1}
    assert (wish.severity, wish.severities["p2"]) == ("p2", 1)


# -- revenue --------------------------------------------------------------------------------------


def worth(holding: str, day: float, amount: int | None, currency: str | None = None) -> Worth:
    return Worth("acme", holding, at(day), f"{holding}{day}", None if amount is None else Decimal(amount), currency)


@pytest.mark.parametrize(
    ("facts", "arr"),
    [
        ([], None),
        ([worth("account", 1, 1000)], 1000),
        ([worth("account", 1, 1000), worth("account", 2, 2000)], 2000),
        ([worth("account", 1, 1000), worth("subscription:a", 2, 1200)], 1200),
        ([worth("subscription:a", 1, 1200), worth("account", 2, 1000)], 1000),
        ([worth("subscription:a", 1, 1200), worth("subscription:b", 2, 600)], 1800),
        ([worth("subscription:a", 1, 1200), worth("subscription:a", 2, 0)], 0),
        ([worth("account", 1, 1000), worth("account", 2, None)], None),
        ([worth("subscription:a", 1, 1200), worth("account", 2, None)], 1200),
        ([worth("account", 20, 1000)], None),
    ],
)
def test_revenue_is_the_latest_known_of_account_and_subscriptions(facts: list[Worth], arr: int | None) -> None:
    assert domain.revenue_at(facts, [], at(10), POLICY).arr == (None if arr is None else Decimal(arr))
    assert domain.revenue_at(list(reversed(facts)), [], at(10), POLICY).arr == (None if arr is None else Decimal(arr))


def test_a_foreign_currency_needs_its_rate_of_the_year_and_says_so() -> None:
    facts = [worth("account", 1, 1000, "USD")]
    assert domain.revenue_at(facts, [], at(10), POLICY).reason == "no fx.rate of USD is known"
    rates = [Rate("USD", 2025, at(0), "r1", Decimal("0.5")), Rate("USD", 2026, at(0), "r2", Decimal("0.8"))]
    assert domain.revenue_at(facts, rates, at(10), POLICY).arr == Decimal(800)


@pytest.mark.parametrize(
    ("amount", "text"), [("1000.00", "1000"), ("0E+3", "0"), ("12.50", "12.5"), ("1E+5", "100000")]
)
def test_money_is_a_plain_decimal_string(amount: str, text: str) -> None:
    assert money(Decimal(amount)) == text


def test_mergers_are_followed_to_the_end_and_never_in_circles() -> None:
    assert domain.merged("a", {"a": "b", "b": "c"}) == "c"
    assert domain.merged("a", {"a": "b", "b": "a"}) == "b"


def test_a_quote_is_one_line_cut_between_words() -> None:
    assert domain.quote_of("one\ntwo  three", 9) == "one two…"
    assert domain.quote_of("one", 0) is None
