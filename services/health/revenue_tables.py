"""Revenue as tables: months, movements, and the ratios that a board asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.health import ratios
from services.health.ratios import Amount
from services.health.revenue import Book, Period, Window, trailing_year
from services.health.settings import RevenueRules
from services.health.usage import moment

Row = dict[str, Any]


def by_month(book: Book, since: datetime | None = None) -> list[Row]:
    return [month_row(book.period(window)) for window in book.months(since)]


def by_account(book: Book, since: datetime | None = None) -> list[Row]:
    """Every movement of every month: whose, which, how much."""
    rows = []
    for window in book.months(since):
        for movement in book.period(window).movements:
            amount = book.rates.worth(movement.amount, window.year)
            row: Row = {"account_id": movement.customer, "month": window.label, "kind": movement.kind}
            rows.append(row | {"amount": ratios.money(amount)} | ratios.reasons({"amount": amount}))
    return rows


def by_label(book: Book, name: str, labels: Mapping[str, str | None], since: datetime | None = None) -> list[Row]:
    """Months of each group of accounts from its first customer on; whoever has no label is in the group null."""
    groups: dict[str | None, set[str]] = {}
    for account_id in book.accounts:
        groups.setdefault(labels.get(account_id), set()).add(account_id)
    return [
        {name: label, **row}
        for label in sorted(groups, key=lambda label: (label is None, label or ""))
        for row in by_month(book.only(groups[label]), since)
    ]


def cohorts(book: Book) -> dict[str, str]:
    """The month in which the customer of each account first paid."""
    customer_of = book.customers(book.until + 1)
    first: dict[str, int] = {}
    for account_id, at in book.first_paid.items():
        customer = customer_of.get(account_id, account_id)
        first[customer] = min(at, first.get(customer, at))
    return {
        account_id: f"{moment(first[customer]).astimezone(book.rules.zone):%Y-%m}"
        for account_id in book.accounts
        if (customer := customer_of.get(account_id, account_id)) in first
    }


def of_customers(book: Book, labels: Mapping[str, str | None]) -> dict[str, str | None]:
    """Each account labelled as its customer is."""
    customer_of = book.customers(book.until + 1)
    return {account_id: labels.get(customer_of.get(account_id, account_id)) for account_id in book.accounts}


def month_row(period: Period) -> Row:
    moved = period.moved
    money = {
        "start_mrr": period.opening,
        "expansion": moved["expansion"],
        "contraction": moved["contraction"],
        "churned": moved["churned"],
        "new": moved["new"],
        "returning": moved["returning"],
        "end_mrr": period.closing,
    }
    rates = {
        "nrr_pct": _nrr(period),
        "grr_pct": _grr(period),
        "logo_retention_pct": ratios.retention(period.customers_start, period.customers_kept),
        "quick_ratio": ratios.quick_ratio(moved["new"], moved["expansion"], moved["contraction"], moved["churned"]),
    }
    return {
        "month": period.window.label,
        **{name: ratios.money(amount) for name, amount in money.items()},
        **{name: ratios.six(amount) for name, amount in rates.items()},
        "customers_start": period.customers_start,
        "customers_kept": period.customers_kept,
        "complete": period.window.complete,
        **ratios.reasons(money | rates),
    }


def _nrr(period: Period) -> Amount:
    moved = period.moved
    return ratios.nrr(period.opening, moved["expansion"], moved["contraction"], moved["churned"])


def _grr(period: Period) -> Amount:
    return ratios.grr(period.opening, period.moved["contraction"], period.moved["churned"])


@dataclass(frozen=True, slots=True)
class Target:
    """A figure held against what good looks like."""

    figure: str
    wanted: str
    bar: Decimal
    above: bool

    def row(self, value: Amount) -> Row:
        met = None
        if value.value is not None:
            met = value.value > self.bar if self.above else value.value < self.bar
        return {"figure": self.figure, "wanted": self.wanted, "met": met}


def targets(rules: RevenueRules) -> tuple[Target, ...]:
    wanted = rules.target
    return tuple(
        Target(figure, f"{'>' if above else '<'} {bar.normalize():f} %", bar, above)
        for figure, bar, above in (
            ("nrr_12m_pct", wanted.nrr_above, True),
            ("grr_12m_pct", wanted.grr_above, True),
            ("logo_retention_12m_pct", wanted.logo_retention_above, True),
            ("expansion_12m_pct", wanted.expansion_above, True),
            ("logo_churn_pct", wanted.monthly_churn_below, False),
        )
    )


def by_ratios(book: Book, since: datetime | None = None) -> list[Row]:
    """Per month: churn also per year, where growth came from, LTV, the last twelve months, and the targets."""
    first = next(iter(book.months()), None)
    return [_ratio_row(book, window, first) for window in book.months(since)] if first else []


def _ratio_row(book: Book, window: Window, first: Window) -> Row:
    period, rules = book.period(window), book.rules
    moved, opening = period.moved, period.opening
    logo_churn = ratios.churn(ratios.retention(period.customers_start, period.customers_kept))
    revenue_churn = ratios.churn(_grr(period))
    gains = book.gains(period)
    money: dict[str, Amount] = {
        **{str(cause): amount for cause, amount in gains.items()},
        "netted": ratios.minus(ratios.plus(*gains.values()), moved["expansion"]),
        "ltv": ratios.ltv(opening, period.customers_start, rules.gross_margin_pct, logo_churn),
    }
    rates: dict[str, Amount] = {
        "nrr_pct": _nrr(period),
        "grr_pct": _grr(period),
        "logo_churn_pct": logo_churn,
        "logo_churn_annual_pct": ratios.annualised(logo_churn),
        "revenue_churn_pct": revenue_churn,
        "revenue_churn_annual_pct": ratios.annualised(revenue_churn),
        "expansion_of_opening_pct": ratios.ratio(moved["expansion"], opening, ratios.NO_OPENING),
        "expansion_of_total_pct": ratios.ratio(moved["expansion"], period.closing, "no recurring revenue at the end"),
        **_last_year(book, trailing_year(window, rules.zone), first),
    }
    return {
        "month": window.label,
        "complete": window.complete,
        "level": rules.level,
        "business_model": rules.business_model,
        **{name: ratios.six(amount) for name, amount in rates.items()},
        **{name: ratios.money(_cents(amount) if name == "ltv" else amount) for name, amount in money.items()},
        "targets": [target.row(rates[target.figure]) for target in targets(rules)],
        **ratios.reasons({**rates, **money}),
    }


def _cents(amount: Amount) -> Amount:
    return amount if amount.value is None else Amount(amount.value.quantize(ratios.CENT, context=ratios.EXACT))


def _last_year(book: Book, window: Window, first: Window) -> dict[str, Amount]:
    names = ("nrr_12m_pct", "grr_12m_pct", "logo_retention_12m_pct", "expansion_12m_pct")
    if window.start < first.start:
        return dict.fromkeys(names, Amount(None, "less than twelve months of history"))
    period = book.period(window)
    figures = (
        _nrr(period),
        _grr(period),
        ratios.retention(period.customers_start, period.customers_kept),
        ratios.ratio(period.moved["expansion"], period.opening, ratios.NO_OPENING),
    )
    return dict(zip(names, figures, strict=True))


@dataclass(frozen=True, slots=True)
class Brought:
    """What Customer Success is credited with in the year up to T; attributed, as there is no group to compare with."""

    saved: Amount
    expanded: Amount
    customers_saved: int


def brought(book: Book, start: int, at_risk: Collection[str]) -> Brought:
    """Twelve times the MRR of accounts that were at risk and pay still, and of expansion since `start`."""
    saved = [account_id for account_id in sorted(at_risk) if account_id in book.first_paid and book.held(account_id)]
    year = moment(book.until).astimezone(book.rules.zone).year
    grown = book.period(Window("year", start, book.until + 1, year)).moved["expansion"]
    return Brought(_yearly(book.worth(saved)), _yearly(grown), len(saved))


def _yearly(monthly: Amount) -> Amount:
    if monthly.value is None:
        return monthly
    return Amount(ratios.EXACT.multiply(monthly.value, ratios.MONTHS))
