"""Forgetting a person: what every service does when `privacy.requested` reaches it, each with its own statements.

A person's id becomes an alias that leads nowhere, so that counts of people stay right; what they wrote is dropped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from shared.ids import derived_id

if TYPE_CHECKING:
    from shared.db import Connection
    from shared.runtime.api import Signal
    from shared.runtime.unit import UnitOfWork

REQUESTED = "privacy.requested"
ERASING = frozenset(("delete", "suppress_with_delete"))
SUPPRESSING = frozenset(("suppress", "suppress_with_delete"))
NOTHING_TO_ERASE = "erases nothing"
SHORT = 4
_SPECIAL = frozenset(r"\.^$*+?()[]{}|-")
_EDGE = "[^A-Za-z0-9_.@:-]"

# Records nobody could read hold the person's id in whatever form a tool writes it: as a whole word of the bytes.
FORGET_QUARANTINED = """
    delete from hune.quarantine
     where service = any($1::text[]) and value is not null and encode(value, 'escape') ~ $2
"""


def alias_of(event_id: str) -> str:
    """What a person is called from then on; not to be computed from who it was."""
    return f"deleted-{derived_id('privacy', event_id)}"


def person_of(user_id: str) -> str:
    """How results name a person who asked: the SHA-256 of the id."""
    return hashlib.sha256(user_id.encode()).hexdigest()


def whole_word(user_id: str) -> str:
    """A PostgreSQL pattern for an id as a word of its own in `encode(bytes, 'escape')`.

    It is looked for as UTF-8, as JSON's escapes and as a form's; a very short one only as a JSON string, because as a
    word it may be anything.
    """
    either = "|".join(sorted({_literal(_as_escape(spelling)) for spelling in _spellings(user_id)}))
    return f"(^|{_EDGE})({either})($|{_EDGE})" if len(user_id) >= SHORT else f'"({either})"'


def naming(words: Collection[str]) -> Callable[[bytes], bool]:
    """The same of bytes at hand: whether one of the words is among them."""
    patterns, edge = [], _EDGE.encode()
    for word in words:
        either = b"|".join(sorted({re.escape(spelling.encode()) for spelling in _spellings(word)}))
        before, after = (b"(?:^|%b)" % edge, b"(?:$|%b)" % edge) if len(word) >= SHORT else (b'"', b'"')
        patterns.append(b"%b(?:%b)%b" % (before, either, after))
    found = re.compile(b"|".join(patterns) or b"(?!)")
    return lambda body: found.search(body) is not None


def _spellings(word: str) -> set[str]:
    return {word, json.dumps(word)[1:-1], quote(word, safe=""), quote_plus(word)}


def _as_escape(text: str) -> str:
    """The text as `encode(…, 'escape')` writes its UTF-8."""
    signs = []
    for byte in text.encode():
        signs.append("\\\\" if byte == 0x5C else f"\\{byte:03o}" if byte > 127 or byte == 0 else chr(byte))
    return "".join(signs)


def _literal(text: str) -> str:
    return "".join(f"\\{sign}" if sign in _SPECIAL else sign for sign in text)


async def erase(unit: UnitOfWork, requests: Sequence[Signal], statements: Sequence[str]) -> None:
    """Carry out requests in this transaction: each statement takes partition, user and alias."""
    for signal in requests:
        if signal.data.regulation not in ERASING:
            unit.ignore(signal, NOTHING_TO_ERASE)
            continue
        user = signal.data.user_id
        for statement in statements:
            await unit.db.execute(statement, signal.partition, user, alias_of(signal.id))
        await forget_quarantined(unit.db, [unit.service], user)


async def forget_quarantined(db: Connection, services: Sequence[str], user_id: str) -> None:
    await db.execute(FORGET_QUARANTINED, list(services), whole_word(user_id))
