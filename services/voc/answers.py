"""What voice answers and exports: rows of plain JSON from comments and wishes (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.voc import domain
from services.voc.analysis import NOT_COVERED
from services.voc.domain import AccountWish, Item, Policy, Revenue, ThemeCount, Wish
from shared.times import instant

SOURCES = ("survey", "ticket", "call", "csm", "feedback", "request", "message", "meeting", "churn")
LATEST = 10


def money(amount: Decimal | None) -> str | None:
    """A decimal string without needless zeros."""
    if amount is None:
        return None
    plain = format(amount.normalize(), "f")
    return "0" if plain in ("-0", "0") else plain


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def theme_row(row: ThemeCount, policy: Policy) -> dict[str, Any]:
    days = policy.trend_days
    return {
        "theme": row.theme, "parent": row.parent, "items": row.items, "accounts": row.accounts, "arr": money(row.arr),
        "currency": policy.reporting_currency, "accounts_without_arr": row.accounts_without_arr,
        "sentiment": row.sentiment, f"items_last_{days}d": row.last, f"items_prev_{days}d": row.before,
        "trend": row.trend, "trend_ratio": row.trend_ratio,
    }  # fmt: skip


def wish_row(row: Wish, policy: Policy) -> dict[str, Any]:
    """The parts of a wish's impact, side by side; no sum hides them."""
    return {
        "request_key": row.key, "title": row.title, "accounts": len(row.accounts), "account_ids": list(row.accounts),
        "people": row.people, "votes": row.votes, "arr": money(row.arr), "currency": policy.reporting_currency,
        "accounts_without_arr": row.accounts_without_arr, "breadth": row.breadth, "segments": dict(row.segments),
        "severity": row.severity, "severities": dict(row.severities), "product_areas": list(row.product_areas),
        "first_asked_at": instant(row.first_at), "last_asked_at": instant(row.last_at),
    }  # fmt: skip


def account_wish_row(wish: AccountWish) -> dict[str, Any]:
    return {
        "request_key": wish.key, "title": wish.title, "people": list(wish.people), "votes": wish.votes,
        "severity": wish.severity, "product_area": wish.product_area,
        "first_asked_at": instant(wish.first_at), "last_asked_at": instant(wish.last_at),
    }  # fmt: skip


def item_row(item: Item, text: str | None) -> dict[str, Any]:
    reading = item.reading
    return {
        "account_id": item.account_id, "item_id": item.item_id, "source": item.source, "said_at": instant(item.said_at),
        "user_id": item.user_id, "product_area": item.product_area, "language": reading.language, "kind": reading.kind,
        "severity": item.severity, "severity_given": item.severity_given, "sentiment": reading.sentiment,
        "mood": reading.label, "themes": list(item.themes), "rule_themes": [label.theme for label in reading.labels],
        "human_themes": None if item.human is None else list(item.human), "unlabelled": _unlabelled(item),
        "score": item.score, "mismatch": item.mismatch, "rule_version": reading.rule, "text": text,
    }  # fmt: skip


def _unlabelled(item: Item) -> str | None:
    return None if item.themes else ("labelled as no theme" if item.human is not None else item.reading.unlabelled)


def product_feedback(
    account_id: str, items: Sequence[Item], revenue: Revenue, at: datetime, policy: Policy
) -> dict[str, Any]:
    """What one account says of the product: themes, wishes, words that belie the score, the latest comments."""
    latest = sorted(items, key=lambda item: (item.said_at, item.item_id), reverse=True)[:LATEST]
    return {
        "account_id": account_id,
        **_sums(items),
        "arr": money(revenue.arr),
        "arr_reason": revenue.reason,
        "currency": policy.reporting_currency,
        "themes": [theme_row(row, policy) for row in domain.theme_counts(items, {account_id: revenue}, at, policy)],
        "kinds": _counts(item.reading.kind for item in items),
        "feature_requests": [account_wish_row(wish) for wish in domain.wishes_of(items)],
        "mismatches": [
            {"item_id": item.item_id, "score": item.score, "mismatch": item.mismatch, "said_at": instant(item.said_at)}
            for item in items
            if item.mismatch is not None
        ],
        "latest": [item_row(item, domain.quote_of(item.text, policy.quote_chars)) for item in latest],
        "reason": None if items else "no comment of this account is known",
    }


def programme(account_id: str, items: Sequence[Item], at: datetime, policy: Policy) -> dict[str, Any]:
    """How well one account is heard: by source, theme and mood, and how much the rules could not read."""
    covered = [item for item in items if item.reading.unlabelled != NOT_COVERED]
    heard = _counts(item.source for item in items)
    rows = domain.theme_counts(items, {}, at, policy)
    return {
        "account_id": account_id,
        **_sums(items),
        "by_source": heard,
        "by_language": _counts(item.reading.language for item in items),
        "by_mood": _counts(item.reading.label or "unknown" for item in items),
        "by_kind": _counts(item.reading.kind for item in items),
        "by_theme": {row.theme: row.items for row in rows},
        "by_parent": {row.theme: row.items for row in domain.theme_counts(items, {}, at, policy, "parent")},
        "unlabelled_share": share(sum(not item.themes for item in items), len(items)),
        "human_labelled": sum(item.human is not None for item in items),
        "coverage": {
            "languages": share(len(covered), len(items)),
            "people": len({item.user_id for item in items if item.user_id}),
            "sources_heard": sorted(heard),
            "sources_silent": [source for source in SOURCES if source not in heard],
            "first_heard_at": instant(min(item.said_at for item in items)) if items else None,
            "last_heard_at": instant(max(item.said_at for item in items)) if items else None,
        },
        "rule_versions": _counts(item.reading.rule for item in items),
        "reason": None if items else "no comment of this account is known",
    }


def _sums(items: Sequence[Item]) -> Mapping[str, Any]:
    moods = [item.reading.sentiment for item in items if item.reading.sentiment is not None]
    return {"items": len(items), "sentiment": domain.mean(moods)}


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
