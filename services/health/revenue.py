"""Recurring revenue: what is paid at any moment, how it moved from one moment to another, month by month.

Everything is a fold over statements sorted by (own time, event id), so the order of arrival and repeats never matter.
A window compares two states: what comes and goes within it is not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from functools import cached_property
from itertools import groupby
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from services.health.ratios import EXACT, Amount
from services.health.settings import RevenueRules
from services.health.usage import DAY_US, micros, moment

Kind = Literal["expansion", "contraction", "churned", "new", "returning"]
Cause = Literal["upsell", "cross_sell", "price", "unexplained"]
KINDS: tuple[Kind, ...] = ("expansion", "contraction", "churned", "new", "returning")
CAUSES: tuple[Cause, ...] = ("upsell", "cross_sell", "price", "unexplained")
Indexes = NDArray[np.int64]
Links = Mapping[str, str | None]
Totals = Mapping[str, Decimal]
Steps = Sequence[tuple[int, "Held"]]
ZERO = Decimal(0)
NEVER = -(1 << 62)


class Statement(NamedTuple):
    """From `at` (µs) on a subscription brings `mrr` a month; what is None is as it was stated before."""

    account_id: str
    subscription: str
    at: int
    event_id: str
    mrr: Decimal
    currency: str | None = None
    product: str | None = None
    plan: str | None = None
    seats: int | None = None


class ParentStatement(NamedTuple):
    """From `at` (µs) on the account belongs to `parent_id`; None makes it stand alone."""

    account_id: str
    at: int
    event_id: str
    parent_id: str | None


class RateStatement(NamedTuple):
    """In `year` one `currency` is `rate` of the reporting currency; said at `at` (µs)."""

    currency: str
    year: int
    at: int
    event_id: str
    rate: Decimal


class Holding(NamedTuple):
    """A subscription as it stands."""

    mrr: Decimal
    currency: str
    product: str | None
    plan: str | None
    seats: int | None


Held = Mapping[str, Holding]
"""What an account pays for, by subscription; nothing that brings 0 is in it."""
NOTHING: Held = {}
Change = tuple[str, Held, Held]
"""An account, what it paid for before, and what after."""


class Pot:
    """A sum in several currencies; `blocked` ones made it impossible to tell."""

    __slots__ = ("blocked", "native")

    def __init__(self) -> None:
        self.native: dict[str, Decimal] = {}
        self.blocked: set[str] = set()

    def add(self, currency: str, amount: Decimal) -> None:
        self.native[currency] = EXACT.add(self.native.get(currency, ZERO), amount)

    def put(self, amounts: Totals) -> None:
        for currency, amount in amounts.items():
            self.add(currency, amount)

    def take(self, other: Pot) -> None:
        self.blocked |= other.blocked
        self.put(other.native)


class Rates:
    """What is known of currencies: the configured rates, then what was stated, the latest per currency and year."""

    def __init__(self, rules: RevenueRules, statements: Iterable[RateStatement] = ()) -> None:
        self.reporting = rules.reporting_currency
        self._rates = {(code, year): rate for code, years in rules.rates.items() for year, rate in years.items()}
        for one in sorted(statements, key=lambda one: (one.at, one.event_id, one.rate)):
            self._rates[one.currency, one.year] = one.rate
        self._years: dict[str, list[int]] = {}
        for currency, year in sorted(self._rates):
            self._years.setdefault(currency, []).append(year)

    def of(self, currency: str, year: int) -> Decimal | None:
        """The year's rate, else the one of the last year before it that has one."""
        if currency == self.reporting:
            return Decimal(1)
        years = [known for known in self._years.get(currency, ()) if known <= year]
        return self._rates[currency, years[-1]] if years else None

    def worth(self, pot: Pot, year: int) -> Amount:
        total, unknown = ZERO, set(pot.blocked)
        for currency, amount in pot.native.items():
            rate = self.of(currency, year) if amount else Decimal(1)
            if rate is None:
                unknown.add(currency)
            else:
                total = EXACT.add(total, EXACT.multiply(amount, rate))
        if unknown:
            names = ", ".join(sorted(unknown))
            fix = "send fx.rate, or set rates in config/revenue.yaml"
            return Amount(None, f"no rate of {names} in {self.reporting} for {year}: {fix}")
        return Amount(total)


@dataclass(frozen=True, slots=True)
class Movement:
    """How a customer's revenue moved in a window; amounts are never below 0."""

    customer: str
    kind: Kind
    amount: Pot


@dataclass(frozen=True, slots=True)
class Window:
    """From the state just before `start` to the state just before `end` (µs), converted at the rates of `year`."""

    label: str
    start: int
    end: int
    year: int
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Period:
    """What became of a window."""

    window: Window
    opening: Amount
    closing: Amount
    moved: Mapping[Kind, Amount]
    customers_start: int
    customers_kept: int
    movements: tuple[Movement, ...]
    stayed: tuple[Sequence[Change], ...]
    """The accounts of each customer who paid before and after, not the same."""


def first_instant(year: int, month: int, zone: ZoneInfo) -> int:
    return micros(datetime(year, month, 1, tzinfo=zone))


def months(first: int, until: int, zone: ZoneInfo) -> Iterator[Window]:
    """Calendar months from that of `first` to that of `until`, which ends there, itself included."""
    start, last = moment(first).astimezone(zone), moment(until).astimezone(zone)
    year, month = start.year, start.month
    while (year, month) <= (last.year, last.month):
        label, begin = f"{year:04}-{month:02}", first_instant(year, month, zone)
        running = (year, month) == (last.year, last.month)
        following = (year + month // 12, month % 12 + 1)
        end = until + 1 if running else first_instant(*following, zone)
        yield Window(label, begin, end, year, not running)
        year, month = following


def steps_of(statements: Iterable[Statement], rules: RevenueRules) -> list[tuple[int, Held]]:
    """What one account pays for from which moment on."""
    steps: list[tuple[int, Held]] = []
    standing: dict[str, Holding] = {}
    for at, said in groupby(sorted(statements, key=_order), key=lambda one: one.at):
        for one in said:
            before = standing.get(one.subscription)
            currency = one.currency or (before.currency if before else rules.reporting_currency)
            standing[one.subscription] = Holding(
                one.mrr,
                currency,
                one.product or (before.product if before else None),
                one.plan or (before.plan if before else None),
                one.seats if one.seats is not None or before is None else before.seats,
            )
        held = {name: holding for name, holding in standing.items() if holding.mrr}
        if held != (steps[-1][1] if steps else NOTHING):
            steps.append((at, held))
    return _bridged(steps, rules.grace_days * DAY_US) if rules.grace_days else steps


def _order(one: Statement) -> tuple[int, str, str, Decimal, str, str, str, int]:
    seats = -1 if one.seats is None else one.seats
    return one.at, one.event_id, one.subscription, one.mrr, one.currency or "", one.product or "", one.plan or "", seats


def _bridged(steps: Sequence[tuple[int, Held]], grace_us: int) -> list[tuple[int, Held]]:
    """Without the gaps that were no longer than the grace: until the return it was as before."""
    kept: list[tuple[int, Held]] = []
    for number, (at, held) in enumerate(steps):
        back = steps[number + 1][0] if number + 1 < len(steps) else None
        if held or not kept or back is None or back - at > grace_us:
            kept.append((at, held))
    return kept


def roots(names: Iterable[str], parents: Links) -> dict[str, str]:
    """The ultimate parent of each; whoever is in a loop of parents stands alone."""
    found: dict[str, str] = {}
    for name in names:
        path = [name]
        while path[-1] not in found and (parent := parents.get(path[-1])) is not None and parent not in path:
            path.append(parent)
        parent = parents.get(path[-1])
        if path[-1] not in found and parent is not None:  # the way ended in a loop
            loop = path[path.index(parent) :]
            found.update({member: member for member in loop})
            path = path[: len(path) - len(loop) + 1]
        top = found.get(path[-1], path[-1])
        found.update(dict.fromkeys(path, top))
    return found


class Book:
    """Who paid what when, by every statement up to T; states of any moment come from arrays."""

    def __init__(
        self,
        statements: Iterable[Statement],
        at: datetime,
        rules: RevenueRules,
        rates: Iterable[RateStatement] = (),
        parents: Iterable[ParentStatement] = (),
    ) -> None:
        self.rules, self.until = rules, micros(at)
        self.rates = Rates(rules, (one for one in rates if one.at <= self.until))
        self._links = sorted(
            (one for one in parents if one.at <= self.until),
            key=lambda one: (one.at, one.event_id, one.parent_id or ""),
        )
        said: dict[str, list[Statement]] = {}
        for one in statements:
            if one.at <= self.until:
                said.setdefault(one.account_id, []).append(one)
        self._fill({account_id: steps_of(said[account_id], rules) for account_id in sorted(said)})

    def only(self, account_ids: Collection[str]) -> Book:
        """The same book with these accounts alone."""
        part = copy(self)
        part.__dict__.pop("_columns", None)
        part.__dict__.pop("_now", None)
        part._fill({account_id: self._history[account_id] for account_id in self.accounts if account_id in account_ids})
        return part

    def _fill(self, history: Mapping[str, Steps]) -> None:
        """Lay the steps of all accounts out one after the other; each begins with having nothing."""
        self._history, self.accounts = history, list(history)
        self.first_paid = {account_id: steps[0][0] for account_id, steps in history.items() if steps}
        self._number = {account_id: number for number, account_id in enumerate(history)}
        self._steps: list[Held] = []
        times: list[int] = []
        offsets: list[int] = []
        for steps in history.values():
            offsets.append(len(times))
            times.append(NEVER)
            self._steps.append(NOTHING)
            for at, held in steps:
                times.append(at)
                self._steps.append(held)
        self._times, self._offsets = np.array(times, np.int64), np.array(offsets, np.int64)
        self._pays = np.array([bool(held) for held in self._steps], bool)

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.object_]]:
        """What each step brings in each currency."""
        columns: dict[str, NDArray[np.object_]] = {}
        for number, held in enumerate(self._steps):
            for currency, amount in totals(held).items():
                column = columns.get(currency)
                if column is None:
                    column = columns[currency] = np.full(len(self._steps), ZERO, object)
                column[number] = amount
        return columns

    def months(self, since: datetime | None = None) -> list[Window]:
        """From the month in which anything was first paid, or that of `since`, to T's."""
        if not self.first_paid:
            return []
        first = min(self.first_paid.values())
        return list(months(max(first, micros(since)) if since else first, self.until, self.rules.zone))

    def held(self, account_id: str) -> Held:
        """What an account pays for at T."""
        return self._steps[int(self._now[self._number[account_id]])]

    def worth(self, account_ids: Iterable[str]) -> Amount:
        """What accounts pay a month at T, at the rates of T's year."""
        pot = Pot()
        for account_id in account_ids:
            for holding in self.held(account_id).values() if account_id in self._number else ():
                pot.add(holding.currency, holding.mrr)
        return self.rates.worth(pot, moment(self.until).astimezone(self.rules.zone).year)

    @cached_property
    def _now(self) -> Indexes:
        return self._standing(self.until + 1)

    def _standing(self, before: int) -> Indexes:
        """Each account's last step before a moment."""
        if not self.accounts:
            return np.empty(0, np.int64)
        counts: Indexes = np.add.reduceat(self._times < before, self._offsets, dtype=np.int64)
        return self._offsets + counts - 1

    def customers(self, before: int) -> dict[str, str]:
        """Account → its customer, as groups stood just before a moment; those who are their own are left out."""
        if self.rules.level != "parent":
            return {}
        links: dict[str, str | None] = {}
        for one in self._links:
            if one.at < before:
                links[one.account_id] = one.parent_id
        return {name: top for name, top in roots(self.accounts, links).items() if top != name}

    def period(self, window: Window) -> Period:
        """What became of a window."""
        start, end = self._standing(window.start), self._standing(window.end)
        customer_of = self.customers(window.end)
        started = self._paying(start, customer_of)
        kept = started & self._paying(end, customer_of)
        moved = [
            (customer, members, tuple(self._movements(customer, members, window)))
            for customer, members in self._moved(start, end, customer_of)
        ]
        movements = tuple(movement for _, _, found in moved for movement in found)
        pots: dict[Kind, Pot] = {kind: Pot() for kind in KINDS}
        for movement in movements:
            pots[movement.kind].take(movement.amount)
        return Period(
            window=window,
            opening=self.rates.worth(self._sum(start), window.year),
            closing=self.rates.worth(self._sum(end), window.year),
            moved={kind: self.rates.worth(pot, window.year) for kind, pot in pots.items()},
            customers_start=len(started),
            customers_kept=len(kept),
            movements=movements,
            stayed=tuple(members for _, members, _ in moved if paid(members, 1) and paid(members, 2)),
        )

    def gains(self, period: Period) -> dict[Cause, Amount]:
        """Why subscriptions of customers who stayed went up, before losses at the same customer are taken off."""
        pots: dict[Cause, Pot] = {cause: Pot() for cause in CAUSES}
        for members in period.stayed:
            self._explain(members, period.window.year, pots)
        return {cause: self.rates.worth(pot, period.window.year) for cause, pot in pots.items()}

    def _sum(self, steps: Indexes) -> Pot:
        pot = Pot()
        with localcontext(EXACT):
            for currency, column in self._columns.items():
                pot.native[currency] = column[steps].sum() if len(steps) else ZERO
        return pot

    def _paying(self, steps: Indexes, customer_of: Mapping[str, str]) -> set[int] | set[str]:
        paying = set(np.flatnonzero(self._pays[steps]).tolist())
        if not customer_of:
            return paying
        return {customer_of.get(name := self.accounts[number], name) for number in paying}

    def _moved(
        self, start: Indexes, end: Indexes, customer_of: Mapping[str, str]
    ) -> Iterator[tuple[str, list[Change]]]:
        """Customers of whom a step came in between, with the states of all their accounts."""
        members: dict[str, list[int]] = {}
        if customer_of:
            for number, name in enumerate(self.accounts):
                members.setdefault(customer_of.get(name, name), []).append(number)
        changed = [self.accounts[number] for number in np.flatnonzero(start != end).tolist()]
        for customer in sorted({customer_of.get(name, name) for name in changed}):
            numbers = members[customer] if customer_of else [self._number[customer]]
            yield customer, [(self.accounts[n], self._steps[start[n]], self._steps[end[n]]) for n in numbers]

    def _movements(self, customer: str, members: Sequence[Change], window: Window) -> Iterator[Movement]:
        was_paying, pays = paid(members, 1), paid(members, 2)
        if not was_paying and not pays:
            return
        up, down = Pot(), Pot()
        for before, after in self._units(members):
            self._net(before, after, window.year, up, down)
        if not was_paying:
            earlier = any(self.first_paid.get(name, window.end) < window.start for name, _, _ in members)
            yield Movement(customer, "returning" if earlier else "new", up)
        elif not pays:
            yield Movement(customer, "churned", down)
        else:
            if up.native or up.blocked:
                yield Movement(customer, "expansion", up)
            if down.native or down.blocked:
                yield Movement(customer, "contraction", down)

    def _units(self, members: Sequence[Change]) -> Iterator[tuple[Totals, Totals]]:
        """Within what gains and losses cancel out: a subscription, or all that a customer has."""
        if self.rules.level == "contract":
            for _, before, after in members:
                for name in sorted({*before, *after}):
                    yield _one(before.get(name)), _one(after.get(name))
        elif len(members) == 1:
            [(_, before, after)] = members
            yield totals(before), totals(after)
        else:
            was, now = Pot(), Pot()
            for _, before, after in members:
                was.put(totals(before))
                now.put(totals(after))
            yield was.native, now.native

    def _net(self, before: Totals, after: Totals, year: int, up: Pot, down: Pot) -> None:
        """Put what a unit gained into `up`, or what it lost into `down`."""
        moved: dict[str, Decimal] = {}
        for currency in {*before, *after}:
            amount = EXACT.subtract(after.get(currency, ZERO), before.get(currency, ZERO))
            if amount:
                moved[currency] = amount
        signs = {amount > 0 for amount in moved.values()}
        if len(signs) == 1:  # the sign is known whatever the rates
            pot = up if True in signs else down
            for currency, amount in moved.items():
                pot.add(currency, amount.copy_abs())
        elif signs:
            change = Pot()
            change.put(moved)
            worth = self.rates.worth(change, year)
            if worth.value is None:
                unknown = {currency for currency in moved if self.rates.of(currency, year) is None}
                up.blocked |= unknown
                down.blocked |= unknown
            elif worth.value:
                (up if worth.value > 0 else down).add(self.rates.reporting, worth.value.copy_abs())

    def _explain(self, members: Sequence[Change], year: int, gains: Mapping[Cause, Pot]) -> None:
        products = {holding.product for _, before, _ in members for holding in before.values()}
        for _, before, after in members:
            for name, now in after.items():
                was = before.get(name)
                self._net(_one(was), _one(now), year, gains[_cause(was, now, products)], Pot())


def paid(members: Sequence[Change], state: Literal[1, 2]) -> bool:
    return any(member[state] for member in members)


def totals(held: Held) -> Totals:
    """What is paid in each currency."""
    if len(held) == 1:
        [one] = held.values()
        return {one.currency: one.mrr}
    pot = Pot()
    for holding in held.values():
        pot.add(holding.currency, holding.mrr)
    return pot.native


def _one(holding: Holding | None) -> Totals:
    return {holding.currency: holding.mrr} if holding else {}


def _cause(was: Holding | None, now: Holding, products: Collection[str | None]) -> Cause:
    """Why a subscription brings more: another product, more of the same, or a higher price for the same."""
    if was is None:
        if now.product is None:
            return "unexplained"
        return "upsell" if now.product in products else "cross_sell"
    if was.seats is not None and now.seats is not None and now.seats > was.seats:
        return "upsell"
    if (was.plan, was.product) != (now.plan, now.product):
        return "upsell"
    if now.seats is None and now.plan is None:
        return "unexplained"
    return "price"


def trailing_year(window: Window, zone: ZoneInfo) -> Window:
    """The twelve months that end with a month."""
    year, month = int(window.label[:4]), int(window.label[5:])
    start = first_instant(year - (month < 12), month % 12 + 1, zone)
    return Window(window.label, start, window.end, window.year, window.complete)


def year_before(at: datetime) -> datetime:
    return at - timedelta(days=365)
