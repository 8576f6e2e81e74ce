"""Revenue as the command line reads it: from the marks of subscriptions and the rates that were stated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from services.health import ratios, revenue, revenue_tables
from services.health.facts import Mark
from services.health.policy import load_revenue
from services.health.revenue import Book, ParentStatement, RateStatement, Statement
from services.health.settings import RevenueRules
from services.health.store import OF_THEN
from services.health.usage import micros
from shared.db import Connection
from shared.errors import Misconfigured

Row = dict[str, Any]
CUTS = ("month", "account", "segment", "cohort", "ratios")

THINGS = f"""
    select account_id, key, marks::text
      from health_api.things_v1 t
     where kind = $1 and {OF_THEN.format(at="$2::timestamptz")}
"""
RATES = "select currency, year, stated_at, event_id, rate from health_api.rates_v1 where stated_at <= $1"
AT_RISK = """
    select distinct account_id
      from health_api.alerts_v1
     where kind = 'risk' and not baseline and opened_at >= $1 and resolved_at <= $2
"""

_read_marks = msgspec.json.Decoder(tuple[Mark, ...]).decode


async def export_revenue(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """One row per month; by account the movements; by segment and cohort months of each; by ratios the others."""
    cut = options.get("by") or "month"
    if cut not in CUTS:
        raise Misconfigured(f"revenue cannot be cut by {cut!r}; it takes --by {', '.join(CUTS)}")
    rules = load_revenue(options.get("config"))
    profiles = await _profiles(dbs, as_of) if cut == "segment" or rules.level == "parent" else []
    book = await _book(dbs, as_of, rules, profiles)
    return _cut(book, cut, profiles, options.get("since"))


def _cut(book: Book, cut: str, profiles: Sequence[tuple[str, Mark]], since: datetime | None) -> list[Row]:
    match cut:
        case "account":
            return revenue_tables.by_account(book, since)
        case "segment":
            labels = {account_id: mark.data["segment"] for account_id, mark in profiles if "segment" in mark.data}
            return revenue_tables.by_label(book, "segment", revenue_tables.of_customers(book, labels), since)
        case "cohort":
            return revenue_tables.by_label(book, "cohort", revenue_tables.cohorts(book), since)
        case "ratios":
            return revenue_tables.by_ratios(book, since)
    return revenue_tables.by_month(book, since)


async def read_return(
    dbs: Sequence[Connection], as_of: datetime, cost: Decimal | None, margin_pct: Decimal | None
) -> Row:
    """CS ROI of the year up to T: what was at risk and pays still, and what grew.

    Raises Misconfigured when no cost is known, or revenue that cannot be converted.
    """
    rules = load_revenue()
    cost = cost or rules.cs_cost_per_year
    if cost is None:
        raise Misconfigured("no cost: give --cost, or set cs_cost_per_year in config/revenue.yaml")
    profiles = await _profiles(dbs, as_of) if rules.level == "parent" else []
    book = await _book(dbs, as_of, rules, profiles)
    start = revenue.year_before(as_of)
    at_risk = {row[0] for db in dbs for row in await db.fetch(AT_RISK, start, as_of)}
    found = revenue_tables.brought(book, micros(start), at_risk)
    if found.saved.value is None or found.expanded.value is None:
        raise Misconfigured(found.saved.reason or found.expanded.reason or "")
    margin = margin_pct or rules.gross_margin_pct or ratios.HUNDRED
    return {
        "saved": found.saved.value,
        "expanded": found.expanded.value,
        "margin_pct": margin,
        "cost": cost,
        "customers_saved": found.customers_saved,
        "since": start.astimezone(UTC),
        "currency": rules.reporting_currency,
        "target": rules.target.roi,
    }


async def _book(
    dbs: Sequence[Connection], as_of: datetime, rules: RevenueRules, profiles: Sequence[tuple[str, Mark]]
) -> Book:
    statements = [
        one for db in dbs for row in await db.fetch(THINGS, "subscription", as_of) for one in _statements(*row)
    ]
    rates = [
        RateStatement(currency, year, micros(at), event_id, rate)
        for db in dbs
        for currency, year, at, event_id, rate in await db.fetch(RATES, as_of)
    ]
    parents = [
        ParentStatement(account_id, mark.at, mark.id, mark.data["parent_id"])
        for account_id, mark in profiles
        if "parent_id" in mark.data
    ]
    return Book(statements, as_of, rules, rates, parents)


def _statements(account_id: str, subscription: str, marks: str) -> Iterator[Statement]:
    for mark in _read_marks(marks):
        said = mark.data
        yield Statement(
            account_id,
            subscription,
            mark.at,
            mark.id,
            Decimal(said["mrr"]),
            said.get("currency"),
            said.get("product"),
            said.get("plan"),
            said.get("seats"),
        )


async def _profiles(dbs: Sequence[Connection], as_of: datetime) -> list[tuple[str, Mark]]:
    """What was said of accounts by T, the oldest first."""
    until = micros(as_of)
    said = [
        (account_id, mark)
        for db in dbs
        for account_id, _, marks in await db.fetch(THINGS, "profile", as_of)
        for mark in _read_marks(marks)
        if mark.at <= until
    ]
    return sorted(said, key=lambda one: (one[1].at, one[1].id))
