"""Text that strangers typed, made safe for a message: no commands, no links, no tricks, cut between characters."""

from __future__ import annotations

import unicodedata

JOINER = "\u200d"
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_TRICKS = frozenset(
    "\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
"""Signs that nobody sees and that turn, hide or split what stands around them."""


def clean(text: str) -> str:
    """Without control characters, half characters and invisible signs; line ends become `\\n`, tabs blanks."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return "".join(sign for sign in text if sign == "\n" or not _is_unseen(sign))


def _is_unseen(sign: str) -> bool:
    return sign in _TRICKS or unicodedata.category(sign) in ("Cc", "Cs")


def one_line(text: str, most: int = 4000) -> str:
    """Clean, on one line, without blanks at its ends: fit for a header."""
    return cut(" ".join(clean(text[: 8 * most]).split()), most)


def cut(text: str, most: int) -> str:
    """At most `most` code points, an ellipsis last if any were left out; never inside what reads as one character."""
    if len(text) <= most:
        return text
    if most < 1:
        return ""
    end = most - 1
    while end > 0 and _belongs(text, end):
        end -= 1
    if end == 0:  # one character longer than all the room there is
        return "…"
    return text[:end].rstrip() + "…"


def plain(text: str, most: int) -> str:
    """For Slack's `plain_text`, where nothing is a command."""
    return cut(clean(text[: 8 * most]), most)


def escaped(text: str, most: int) -> str:
    """For Slack's `mrkdwn`: `&`, `<` and `>` as entities, so that no mention and no link can be written."""
    safe = clean(text[: 8 * most])
    room = most
    while len(found := cut(safe, room).translate(_ENTITIES)) > most:
        room = min(room - 1, room - (len(found) - most) // 4)
    return found


def _belongs(text: str, at: int) -> bool:
    """Whether the sign at `at` continues the character before it (on the safe side of Unicode's annex 29)."""
    before, sign = text[at - 1], text[at]
    return (
        _extends(sign)
        or before == JOINER
        or unicodedata.combining(before) == 9  # a virama ties the next consonant to it
        or (before == "\r" and sign == "\n")
        or (_is_jamo(sign) and (_is_jamo(before) or "\uac00" <= before <= "\ud7a3"))
        or (_is_flag(sign) and _flags_before(text, at) % 2 == 1)
    )


def _extends(sign: str) -> bool:
    code = ord(sign)
    return (
        sign == JOINER
        or sign == "\u200c"
        or unicodedata.category(sign) in ("Mn", "Me", "Mc")
        or 0x1F3FB <= code <= 0x1F3FF  # skin tones
        or 0xE0020 <= code <= 0xE007F  # flags of regions
        or code in (0xFF9E, 0xFF9F)
    )


def _is_jamo(sign: str) -> bool:
    return "\u1100" <= sign <= "\u11ff" or "\ua960" <= sign <= "\ua97f" or "\ud7b0" <= sign <= "\ud7ff"


def _is_flag(sign: str) -> bool:
    return 0x1F1E6 <= ord(sign) <= 0x1F1FF


def _flags_before(text: str, at: int) -> int:
    count = 0
    while at - count > 0 and _is_flag(text[at - count - 1]):
        count += 1
    return count
