"""Formulas of revenue: exact ratios, each a value or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)
"""Wide enough that sums and products of sane amounts never round."""
PLACES = Decimal("0.000001")
CENT = Decimal("0.01")
HUNDRED = Decimal(100)
MONTHS = 12
NO_OPENING = "no recurring revenue at the start"
NO_CUSTOMERS = "no customer at the start"


@dataclass(frozen=True, slots=True)
class Amount:
    """Money or a ratio; `value` None says why in `reason`."""

    value: Decimal | None
    reason: str | None = None


def known(value: Decimal | int) -> Amount:
    return Amount(Decimal(value))


def plus(*parts: Amount) -> Amount:
    """A sum; what is not known of one part is not known of the whole."""
    total = Decimal(0)
    for part in parts:
        if part.value is None:
            return part
        total = EXACT.add(total, part.value)
    return Amount(total)


def minus(left: Amount, right: Amount) -> Amount:
    if left.value is None or right.value is None:
        return left if left.value is None else right
    return Amount(EXACT.subtract(left.value, right.value))


def ratio(part: Amount, whole: Amount, none: str, scale: Decimal = HUNDRED) -> Amount:
    """scale × part ÷ whole; a whole of 0 gives the reason `none`."""
    if part.value is None or whole.value is None:
        return Amount(None, part.reason if part.value is None else whole.reason)
    if not whole.value:
        return Amount(None, none)
    return Amount(EXACT.divide(EXACT.multiply(scale, part.value), whole.value))


def nrr(start: Amount, expansion: Amount, contraction: Amount, churned: Amount) -> Amount:
    """Σ closing ÷ Σ opening of the opening customers, in %: churn counts once."""
    return ratio(minus(plus(start, expansion), plus(contraction, churned)), start, NO_OPENING)


def grr(start: Amount, contraction: Amount, churned: Amount) -> Amount:
    """Σ min(closing, opening) ÷ Σ opening, in %: never above 100."""
    return ratio(minus(start, plus(contraction, churned)), start, NO_OPENING)


def quick_ratio(new: Amount, expansion: Amount, contraction: Amount, churned: Amount) -> Amount:
    """(new + expansion) ÷ (contraction + churned); who came back is not new."""
    return ratio(plus(new, expansion), plus(contraction, churned), "no loss", Decimal(1))


def retention(start: int, kept: int) -> Amount:
    return ratio(known(kept), known(start), NO_CUSTOMERS)


def churn(retained: Amount) -> Amount:
    return minus(known(HUNDRED), retained)


def annualised(monthly: Amount) -> Amount:
    """1 − (1 − m)¹², in %."""
    if monthly.value is None:
        return monthly
    stays = EXACT.power(EXACT.subtract(1, EXACT.divide(monthly.value, HUNDRED)), MONTHS)
    return Amount(EXACT.multiply(HUNDRED, EXACT.subtract(1, stays)))


def ltv(start: Amount, customers: int, margin_pct: Decimal | None, churn_pct: Amount) -> Amount:
    """Margin on the mean monthly revenue of a customer ÷ monthly logo churn."""
    if margin_pct is None:
        return Amount(None, "no gross_margin_pct is set in config/revenue.yaml")
    arpa = ratio(start, known(customers), NO_CUSTOMERS, Decimal(1))
    return ratio(arpa, churn_pct, "nobody left", margin_pct)


@dataclass(frozen=True, slots=True)
class Roi:
    """What Customer Success brought for its cost, as a profit in % and as so many back for 1."""

    gain: Decimal
    cost: Decimal
    profit_pct: Amount
    ratio: Amount


def roi(saved: Decimal, cost: Decimal, expanded: Decimal = Decimal(0), margin_pct: Decimal = HUNDRED) -> Roi:
    """(margin × (saved + expanded) − cost) ÷ cost, and margin × (saved + expanded) ÷ cost."""
    gain = EXACT.divide(EXACT.multiply(EXACT.add(saved, expanded), margin_pct), HUNDRED)
    none = "a cost of 0 has no return"
    profit = ratio(minus(known(gain), known(cost)), known(cost), none)
    return Roi(gain, cost, profit, ratio(known(gain), known(cost), none, Decimal(1)))


def six(amount: Amount) -> float | None:
    """A percentage or ratio as it is told."""
    return None if amount.value is None else float(amount.value.quantize(PLACES, context=EXACT))


def money(amount: Amount) -> str | None:
    """An exact amount as text: cents, and more places only where there are any."""
    if amount.value is None:
        return None
    cents = amount.value.quantize(CENT, context=EXACT)
    return format(cents if cents == amount.value else amount.value.normalize(EXACT), "f")


def reasons(amounts: Mapping[str, Amount]) -> dict[str, str]:
    """`NAME_reason` for each that has no value."""
    return {f"{name}_reason": amount.reason or "" for name, amount in amounts.items() if amount.value is None}
