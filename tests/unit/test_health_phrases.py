"""Every sentence says the same in both languages."""

from __future__ import annotations

from string import Formatter

import pytest

from services.health import phrases, wording
from services.health.policy import load_policy

TEXTS = {**wording._TEXTS, **phrases._TEXTS}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_sentence_names_the_same_things_in_both_languages(name: str) -> None:
    said = TEXTS[name]
    assert set(said) == {"en", "fr"}
    assert fields(said["en"]) == fields(said["fr"])


def test_no_sentence_is_written_in_two_places() -> None:
    assert set(wording._TEXTS) & set(phrases._TEXTS) == set()


def test_every_rule_that_is_shipped_says_what_to_do_next() -> None:
    rules = load_policy().rules.rules
    assert [name for name, rule in rules.items() if rule.next_step is None] == []
