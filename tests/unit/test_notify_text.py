"""What customers type cannot command, link, hide or break a message, and fits it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notify.text import clean, cut, escaped, one_line, plain

FAMILY = "👨‍👩‍👧"
FLAG = "🇫🇷"
CLUSTERS = [
    "e\u0301",
    FAMILY,
    FLAG,
    "👍🏽",
    "한",
    "\u1112\u1161\u11ab",
    "क्षि",
    "x",
    " ",
    "❤️",
    "a\u0300\u0301\u0302",
    "🏴\U000e0067\U000e007f",
]
TRICKY = st.text(
    st.one_of(st.characters(), st.sampled_from("<>&!@#*_~`|\u202e\u2066\u200b\u200d\ufeff\x00\x1b\r\n\t\ud800")),
    max_size=300,
)


@given(TRICKY, st.integers(1, 200))
def test_nothing_in_escaped_text_is_a_command(text: str, most: int) -> None:
    safe = escaped(text, most)
    assert len(safe) <= most
    assert "<" not in safe
    assert ">" not in safe
    assert safe.count("&") == sum(safe.count(entity) for entity in ("&amp;", "&lt;", "&gt;"))


@pytest.mark.parametrize(
    "text", ["<!channel>", "<@U123>", "<http://evil.example|Reset>", "<!subteam^S1|x>", "&lt;!here&gt;"]
)
def test_a_mention_is_only_text(text: str) -> None:
    assert escaped(text, 100) == text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@given(TRICKY)
def test_what_nobody_sees_is_taken_out(text: str) -> None:
    left = clean(text)
    assert all(sign == "\n" or unicodedata.category(sign) not in ("Cc", "Cs") for sign in left)
    assert not set(left) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u200b\ufeff")
    assert clean(left) == left
    left.encode("utf-8")


@given(TRICKY)
def test_a_header_has_one_line(text: str) -> None:
    assert not set(one_line(text)) & set("\r\n\x00\u2028\u2029\x85")


@given(st.lists(st.sampled_from(CLUSTERS), max_size=40), st.integers(0, 60))
def test_a_cut_never_goes_through_a_character(clusters: list[str], most: int) -> None:
    text = "".join(clusters)
    left = cut(text, most)
    assert len(left) <= max(most, 0)
    if left == text:
        return
    borders, at = {0}, 0
    for cluster in clusters:
        at += len(cluster)
        borders.add(at)
    kept = left.removesuffix("…")
    assert text.startswith(kept)
    assert any(len(kept) <= border and not text[len(kept) : border].strip() for border in borders)


def test_a_cut_leaves_as_much_as_fits() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcdef", 6) == "abcdef"
    assert cut(FAMILY * 2, 6) == FAMILY + "…"
    assert cut(FLAG * 3, 5) == FLAG * 2 + "…"
    assert cut("z" + "\u0301" * 500, 10) == "…", "one character longer than all the room"
    assert plain("a\tb\u202ec", 10) == "a bc"
