"""Names and addresses for the references of the contact vault, at the last moment before people read them.

The ledger keeps references, and nothing that is found here is stored. Ids stay: buttons and links carry them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from services.notify import wording
from services.notify.card import Card
from shared.db import Connection
from shared.vault.keys import Keys, Unreadable
from shared.vault.sealing import replaced, tokens_in
from shared.vault.store import resolve

log = logging.getLogger(__name__)

IDS = frozenset(("account_id", "alert_id", "event_id", "cause_ids"))


async def shown(db: Connection, keys: Keys | None, cards: Iterable[Card]) -> tuple[Card, ...]:
    """The cards as a person may read them; who was deleted is called so. Without the vault's key as they are."""
    cards = tuple(cards)
    if keys is None:
        return cards
    cards = tuple(_named(card) for card in cards)
    tokens: set[str] = set()

    def see(text: str) -> str:
        tokens.update(tokens_in(text))
        return text

    for card in cards:
        _each(card, see)
    if not tokens:
        return cards
    try:
        values = await resolve(db, keys, tokens)
    except Unreadable as error:
        log.error("the contact vault's key opens nothing", extra={"error": str(error)})
        return cards
    return tuple(fill(card, values) for card in cards)


def fill(card: Card, values: Mapping[str, str]) -> Card:
    """The card with values for tokens, in everything but ids."""
    gone = wording.word("gone", card.language)
    filled: Card = _each(card, lambda text: replaced(text, values, gone))
    return filled


def _named(card: Card) -> Card:
    """An account without a name is called by its id, which may be a person's address."""
    context, account = card.episode.context, card.account
    if account.name or (context and context.name) or not tokens_in(account.account_id):
        return card
    return replace(card, account=replace(account, name=account.account_id))


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """The same with each text changed."""
    if isinstance(value, str):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        kept = {one.name: getattr(value, one.name) for one in fields(value) if one.name not in IDS}
        return replace(value, **{name: _each(part, change) for name, part in kept.items()})
    if isinstance(value, Mapping):
        return {name: _each(part, change) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_each(part, change) for part in value)
    return value
