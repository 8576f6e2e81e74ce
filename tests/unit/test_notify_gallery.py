"""The messages that docs/messages.md shows are those that are sent, and Slack takes each."""

from __future__ import annotations

import pytest

from tests.support import block_kit, gallery


def test_the_page_shows_what_is_sent() -> None:
    assert gallery.PAGE.read_text() == gallery.page(), "stale: python -m tests.support.gallery"


@pytest.mark.parametrize("shown", gallery.gallery(), ids=lambda shown: shown.title)
def test_slack_takes_what_the_page_shows(shown: gallery.Shown) -> None:
    assert block_kit.faults(shown.message.text, shown.message.blocks) == []


def test_every_text_of_a_message_is_drawn() -> None:
    for shown in gallery.gallery():
        drawn = " ".join(" ".join(gallery.drawn(shown.message)).split())
        for block in shown.message.blocks:
            for part in (block.get("text"), *block.get("fields", ()), *block.get("elements", ())):
                text = part and (part["text"] if isinstance(part["text"], str) else part["text"]["text"])
                for line in (text or "").split("\n"):
                    if "fields" not in block:
                        assert " ".join(line.split()) in drawn, line
