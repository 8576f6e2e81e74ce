"""Messages in Slack's Block Kit, within its documented limits. What strangers typed stands in `plain_text` only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.notify import wording
from services.notify.card import Card, digest_headline, digest_lines
from services.notify.episodes import Step
from services.notify.settings import Language
from services.notify.text import escaped, one_line, plain

SECTION, HEADER, FIELDS, FIELD, BUTTON, VALUE, URL, TEXT = 3000, 150, 10, 2000, 75, 2000, 3000, 4000
DIGEST_LINES, LINES_A_BLOCK = 40, 5
SNOOZE_DAYS = 7

Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """What to post: blocks, and the text that a notification shows."""

    text: str
    blocks: tuple[Block, ...]


def of_card(card: Card, console_url: str = "", note: str = "") -> Message:
    """The message of an episode, the same when it is posted and when it is changed."""
    episode, language = card.episode, card.language
    blocks: list[Block] = [_header(card.headline), _section(episode.why)]
    facts = [_text(f"{name}\n{value}", FIELD) for name, value in card.facts[:FIELDS]]
    if facts:
        blocks.append({"type": "section", "fields": facts})
    if card.reasons:
        blocks.append(_section("\n".join(wording.label(name, value, language) for name, value in card.reasons)))
    if card.evidence:
        blocks.append(
            _section("\n".join([f"{wording.word('evidence', language)}", *(f"• {line}" for line in card.evidence)]))
        )
    if episode.next_step and episode.is_open:
        blocks.append(_section(f"→ {episode.next_step}"))
    blocks.append(_context([*card.status, *([note] if note else [])]))
    buttons = [button for button in _buttons(card, console_url) if len(button.get("value", "")) <= VALUE]
    if buttons:
        blocks.append({"type": "actions", "elements": buttons})
    return Message(escaped(f"{card.headline}: {one_line(episode.why)}", TEXT), tuple(blocks))


def of_step(card: Card, step: Step) -> Message:
    """A line of history, for the thread."""
    name = f"{step.what}.said"
    severity = wording.word(step.severity, card.language)
    said = wording.text(name, card.language, title=one_line(card.episode.title), severity=severity)
    why = one_line(step.why)
    text = f"{card.sign} {said}" + (f"\n{why}" if why and step.what == "escalated" else "")
    return Message(escaped(text, TEXT), (_section(text),))


def of_digest(cards: Sequence[Card], language: Language) -> Message:
    """Many episodes in one message, an account a line."""
    headline, lines = digest_headline(cards, language), digest_lines(cards)
    shown = lines[:DIGEST_LINES]
    blocks = [_header(headline)]
    for start in range(0, len(shown), LINES_A_BLOCK):
        blocks.append(
            _section(
                "\n".join(plain(line, SECTION // LINES_A_BLOCK - 1) for line in shown[start : start + LINES_A_BLOCK])
            )
        )
    if len(lines) > len(shown):
        blocks.append(_context([wording.text("more", language, n=len(lines) - len(shown))]))
    return Message(escaped(f"{headline}: {'; '.join(lines[:3])}", TEXT), tuple(blocks))


def of_note(text: str) -> Message:
    return Message(escaped(text, TEXT), (_section(text),))


def _buttons(card: Card, console_url: str) -> list[Block]:
    """Acknowledge and snooze while it lasts, rate always; each names what the gateway makes a request of."""
    episode, language = card.episode, card.language
    about = {"account_id": episode.account_id, "alert_id": episode.alert_id}
    found: list[Block] = []
    if episode.is_open:
        if episode.acknowledged_by is None:
            found.append(_button("ack_alert", wording.word("acknowledge", language), about) | {"style": "primary"})
        found.append(_button("snooze_alert", wording.word("snooze", language), about | {"days": SNOOZE_DAYS}))
    if console_url:
        url = f"{console_url}/accounts/{_path(episode.account_id)}"
        if len(url) <= URL:
            found.append(_button("open_account", wording.word("open", language), None) | {"url": url})
    # Within a block no action_id may stand twice; the gateway takes either for the demand alert.rate.
    found.append(_button("rate_alert", wording.word("useful", language), about | {"useful": True}))
    found.append(_button("alert.rate", wording.word("useless", language), about | {"useful": False}))
    return found


def _button(action_id: str, label: str, value: dict[str, Any] | None) -> Block:
    button: Block = {"type": "button", "action_id": action_id, "text": _text(label, BUTTON)}
    if value is not None:
        button["value"] = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return button


def _path(account_id: str) -> str:
    """One segment of an address: everything but letters, digits, `-`, `.`, `_` and `~` by its bytes."""
    kept = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
    return "".join(chr(byte) if byte in kept else f"%{byte:02X}" for byte in account_id.encode("utf-8", "replace"))


def _header(text: str) -> Block:
    return {"type": "header", "text": _text(one_line(text), HEADER)}


def _section(text: str) -> Block:
    return {"type": "section", "text": _text(text, SECTION)}


def _context(lines: Sequence[str]) -> Block:
    return {"type": "context", "elements": [_text(" · ".join(lines), FIELD)]}


def _text(text: str, most: int) -> Block:
    return {"type": "plain_text", "text": plain(text, most) or "-", "emoji": False}
