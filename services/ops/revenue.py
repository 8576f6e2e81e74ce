"""An account's annual recurring revenue and the group it belongs to, at any moment; all of it figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from services.ops.settings import SegmentRules

CENT = Decimal("0.01")
MONTHS = 12


@dataclass(frozen=True, slots=True)
class RevenueStatement:
    """What one event said of an account's revenue; `amount` is per year, and None clears it if it is stated."""

    account_id: str
    kind: str
    ref: str
    at: datetime
    event_id: str
    states_amount: bool
    amount: Decimal | None = None
    currency: str | None = None
    starts_on: date | None = None
    ends_on: date | None = None
    auto_renew: bool | None = None


@dataclass(frozen=True, slots=True)
class ParentStatement:
    """From `at` on the account belongs to `parent_id`; None makes it stand alone."""

    account_id: str
    parent_id: str | None
    at: datetime
    event_id: str


@dataclass(frozen=True, slots=True)
class RateStatement:
    """In `year` one `currency` is `rate` of the reporting currency."""

    currency: str
    year: int
    rate: Decimal
    at: datetime
    event_id: str


@dataclass(frozen=True, slots=True)
class Arr:
    """In the reporting currency; None with the reason why it is not known."""

    amount: Decimal | None
    source: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Root:
    """The ultimate parent, the way up to it, and what was wrong on it."""

    account_id: str
    path: tuple[str, ...]
    reason: str | None = None


Rates = Mapping[tuple[str, int], Decimal]


def rates_at(statements: Iterable[RateStatement], at: datetime, rules: SegmentRules) -> dict[tuple[str, int], Decimal]:
    """Rates known at a moment: the configured ones, then what events said, the latest per currency and year."""
    rates = {(currency, year): rate for currency, years in rules.rates.items() for year, rate in years.items()}
    past = (one for one in statements if one.at <= at)
    for one in sorted(past, key=lambda one: (one.at, one.event_id)):
        rates[one.currency, one.year] = one.rate
    return rates


def arr_at(statements: Iterable[RevenueStatement], at: datetime, rates: Rates, rules: SegmentRules) -> Arr:
    """An account's own ARR: of the first source that states any, the sum of its contracts or subscriptions."""
    refs: dict[str, dict[str, list[RevenueStatement]]] = {}
    for one in statements:
        if one.at <= at:
            refs.setdefault(one.kind, {}).setdefault(one.ref, []).append(one)
    today = at.astimezone(rules.zone).date()
    for kind in rules.arr_sources:
        standing = [_standing(said, today) for _, said in sorted(refs.get(kind, {}).items())]
        amounts = [(amount, currency) for amount, currency in standing if amount is not None]
        if amounts:
            return _sum(kind, amounts, today.year, rates, rules)
    return Arr(None, None, "no contract, subscription or ARR field is known")


def group_arr(arrs: Mapping[str, Arr], rules: SegmentRules) -> Arr:
    """The sum over a group; an account without any revenue adds none, an amount that cannot be converted hides it."""
    for account_id, arr in sorted(arrs.items()):
        if arr.amount is None and arr.source is not None:
            return Arr(None, arr.source, f"{account_id}: {arr.reason}")
    known = {account_id: arr for account_id, arr in arrs.items() if arr.amount is not None}
    if not known:
        return Arr(None, None, "no contract, subscription or ARR field is known")
    total = sum((arr.amount for arr in known.values() if arr.amount is not None), Decimal(0))
    sources = "+".join(kind for kind in rules.arr_sources if any(arr.source == kind for arr in known.values()))
    if len(arrs) == 1:
        return Arr(total, sources, next(iter(known.values())).reason)
    return Arr(total, sources, f"sum of {len(known)} of {len(arrs)} accounts of the group")


def parents_at(statements: Iterable[ParentStatement], at: datetime) -> dict[str, str | None]:
    """Each account's direct parent at a moment."""
    past = (one for one in statements if one.at <= at)
    return {one.account_id: one.parent_id for one in sorted(past, key=lambda one: (one.at, one.event_id))}


def root_of(account_id: str, parents: Mapping[str, str | None]) -> Root:
    """Walk up to the ultimate parent; in a loop every account on it stands alone, so its link is ignored."""
    path = [account_id]
    while (parent := parents.get(path[-1])) is not None:
        if parent in path:
            loop = path[path.index(parent) :]
            names = " → ".join((*loop, parent))
            head = account_id if account_id in loop else parent
            return Root(head, tuple(path[: path.index(head) + 1]), f"the parents form a loop ({names}); it is ignored")
        path.append(parent)
    return Root(path[-1], tuple(path))


def groups(accounts: Iterable[str], parents: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Root → the accounts below it and itself, sorted."""
    found: dict[str, list[str]] = {}
    for account_id in sorted(set(accounts)):
        found.setdefault(root_of(account_id, parents).account_id, []).append(account_id)
    return found


def _standing(said: Sequence[RevenueStatement], today: date) -> tuple[Decimal | None, str | None]:
    """The amount of one contract or subscription: each field as stated last; not begun or ended for good is 0."""
    amount: Decimal | None = None
    currency: str | None = None
    starts_on: date | None = None
    ends_on: date | None = None
    auto_renew: bool | None = None
    for one in sorted(said, key=lambda one: (one.at, one.event_id)):
        if one.states_amount:
            amount = one.amount
        currency = one.currency or currency
        starts_on = one.starts_on or starts_on
        ends_on = one.ends_on or ends_on
        auto_renew = auto_renew if one.auto_renew is None else one.auto_renew
    over = ends_on is not None and ends_on < today and auto_renew is False
    if amount is not None and (over or (starts_on is not None and starts_on > today)):
        return Decimal(0), currency
    return amount, currency


def _sum(kind: str, amounts: Sequence[tuple[Decimal, str | None]], year: int, rates: Rates, rules: SegmentRules) -> Arr:
    total, notes = Decimal(0), []
    for amount, currency in amounts:
        if currency is None or currency == rules.reporting_currency or not amount:
            total += amount
            continue
        known = [of for code, of in rates if code == currency and of <= year]
        if not known:
            return Arr(None, kind, f"no rate of {currency} in {rules.reporting_currency} for {year} (send fx.rate)")
        total += amount * rates[currency, max(known)]
        if max(known) != year:
            notes.append(f"{currency} at its rate of {max(known)}")
    count = f"{len(amounts)} {kind}s" if len(amounts) > 1 else f"the {kind}"
    what = "the account's ARR field" if kind == "account" else count
    return Arr(total.quantize(CENT), kind, "; ".join((what, *sorted(set(notes)))))
