"""What the command line reads of voice: themes, feature requests and comments of the whole book."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from services.voc import answers, domain, store
from services.voc.domain import Item, Policy, Rate, Relabel, Revenue, Worth
from services.voc.settings import load_rules
from shared.db import Connection
from shared.settings import config_dir

LEVELS = ("theme", "parent")


@dataclass(frozen=True, slots=True)
class Book:
    """Every comment that stands at a time, under the accounts as merged by then, with what those are worth."""

    items: list[Item]
    revenue: dict[str, Revenue]


async def export_themes(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per theme that was named (`by: parent`: per parent), and one of the comments without any.

    `since` counts only comments said from then on. Raises ValueError that names an option it cannot use.
    """
    policy = _policy(options)
    level = options.get("by") or "theme"
    if level not in LEVELS:
        raise ValueError(f"by is {level!r}; it takes {', '.join(LEVELS)}")
    book = await _book(dbs, as_of, policy, options.get("since"))
    counts = domain.theme_counts(book.items, book.revenue, as_of, policy, level)
    return [answers.theme_row(row, policy) for row in counts]


async def export_feature_requests(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per wish: an account counts once however many of its people ask."""
    policy = _policy(options)
    book = await _book(dbs, as_of, policy, options.get("since"))
    wishes = domain.all_wishes(domain.wishes_of(book.items), book.revenue, policy)
    return [answers.wish_row(row, policy) for row in wishes]


async def export_verbatims(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every comment with its words and labels, in order of time."""
    book = await _book(dbs, as_of, _policy(options), options.get("since"))
    ordered = sorted(book.items, key=lambda item: (item.said_at, item.account_id, item.item_id))
    return [answers.item_row(item, item.text) for item in ordered]


async def _book(dbs: Sequence[Connection], as_of: datetime, policy: Policy, since: datetime | None) -> Book:
    merges: dict[str, str] = {}
    worths: dict[str, list[Worth]] = {}
    rates: list[Rate] = []
    for db in dbs:
        merges |= dict(await store.list_merges(db, as_of))
        rates += await store.list_rates(db)
    items: list[Item] = []
    for db in dbs:
        for worth in await store.list_worths(db, as_of):
            worths.setdefault(domain.merged(worth.account_id, merges), []).append(worth)
        labels: dict[str, list[Relabel]] = {}
        for relabel in await store.list_relabels(db, as_of):
            labels.setdefault(relabel.account_id, []).append(relabel)
        async for group in _accounts(db, as_of):
            found = domain.items_of(group, labels.get(group[0].account_id, ()), as_of, policy)
            items += [item for item in found if since is None or item.said_at >= since]
    if merges:
        items = [replace(item, account_id=domain.merged(item.account_id, merges)) for item in items]
    revenue = {account_id: domain.revenue_at(facts, rates, as_of, policy) for account_id, facts in worths.items()}
    return Book(items, revenue)


async def _accounts(db: Connection, as_of: datetime) -> AsyncIterator[list[domain.Statement]]:
    """Statements, one account at a time."""
    group: list[domain.Statement] = []
    async for statement in store.each_statement(db, as_of):
        if group and group[0].account_id != statement.account_id:
            yield group
            group = []
        group.append(statement)
    if group:
        yield group


def _policy(options: Mapping[str, Any]) -> Policy:
    policy: Policy | None = options.get("policy")
    return policy or load_rules(config_dir()).policy


EXPORTS = {"themes": export_themes, "feature_requests": export_feature_requests, "verbatims": export_verbatims}
