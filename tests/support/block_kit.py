"""Slack's documented limits of messages in Block Kit, for the blocks that Hune uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

MOST_BLOCKS = 50


def faults(text: str, blocks: Sequence[dict[str, Any]]) -> list[str]:
    """What Slack would refuse, and why."""
    found = [] if 0 < len(text) <= 40_000 else [f"text of {len(text)} characters"]
    if len(blocks) > MOST_BLOCKS:
        found.append(f"{len(blocks)} blocks")
    for number, block in enumerate(blocks):
        found += [f"block {number} ({block.get('type')}): {fault}" for fault in _of_block(block)]
    return found


def _of_block(block: dict[str, Any]) -> Iterator[str]:
    match block.get("type"):
        case "header":
            yield from _text(block.get("text"), 150, ("plain_text",))
        case "section":
            if "text" not in block and "fields" not in block:
                yield "neither text nor fields"
            if "text" in block:
                yield from _text(block["text"], 3000)
            fields = block.get("fields", [{"type": "plain_text", "text": "x"}])
            if not 1 <= len(fields) <= 10:
                yield f"{len(fields)} fields"
            for field in fields:
                yield from _text(field, 2000)
        case "context":
            if not 1 <= len(block["elements"]) <= 10:
                yield f"{len(block['elements'])} elements"
            for element in block["elements"]:
                yield from _text(element, 2000)
        case "actions":
            yield from _actions(block["elements"])
        case other:
            yield f"a block of type {other!r}"


def _actions(elements: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not 1 <= len(elements) <= 25:
        yield f"{len(elements)} elements"
    names = [element["action_id"] for element in elements]
    if len(set(names)) < len(names):
        yield f"action_ids {names} are not unique"
    for element in elements:
        if element["type"] != "button":
            yield f"an element of type {element['type']!r}"
        yield from _text(element["text"], 75, ("plain_text",))
        for name, most in (("value", 2000), ("url", 3000), ("action_id", 255)):
            if len(element.get(name, "")) > most:
                yield f"{name} of {len(element[name])} characters"
        if element.get("style", "primary") not in ("primary", "danger"):
            yield f"style {element['style']!r}"


def _text(text: Any, most: int, kinds: Sequence[str] = ("plain_text", "mrkdwn")) -> Iterator[str]:
    if text["type"] not in kinds:
        yield f"text of type {text['type']!r}"
    if not 1 <= len(text["text"]) <= most:
        yield f"text of {len(text['text'])} characters, {most} are allowed"
    if text["type"] == "mrkdwn" and "emoji" in text:
        yield "emoji belongs to plain_text"
