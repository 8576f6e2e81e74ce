"""Stripe: events (API versions before and after 2025-03-31.basil).

| type | canonical event |
|---|---|
| customer.subscription.created, updated, resumed, paused | subscription.changed: mrr, currency, plan, product, seats |
| customer.subscription.deleted | subscription.changed, mrr 0 |
| customer.subscription.updated that sets cancel_at_period_end | also churn.notified: reason, effective_on |
| invoice.paid, invoice.payment_succeeded | invoice.paid: amount_paid |
| invoice.payment_failed | invoice.failed: amount_due, attempt |
| customer.created, customer.updated | account.updated: name, country, currency |

The account is told by external id `stripe` = customer; named by `account_id` in the metadata
(`options.account_metadata`) it is linked to the customer besides. Id: the event's id; own time: created (s).

mrr = Σ over licensed items of price × quantity, brought to a month (year ÷ 12, week × 52/12, day × 365/12), before
discounts and taxes; exact, at most six decimals. Statuses active and past_due count, all others are 0 (a trial pays
nothing yet). Metered items are not told in advance: a subscription of nothing else tells no revenue; a tiered price
holds no amount, so it goes to quarantine. Amounts are minor units: currencies without decimals, and those with three,
are known; ISK and UGX come with two, as Stripe has it.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation, localcontext
from fractions import Fraction
from typing import Any

from services.gateway.canonical import Canonical, OwnTime
from services.gateway.webhooks import signatures
from services.gateway.webhooks.base import (
    Delivery,
    Options,
    Tool,
    Unreadable,
    account_in,
    at,
    currency,
    day,
    email,
    event,
    external,
    first_text,
    ident,
    items,
    mapping,
    needed,
    object_of,
    options_of,
    when,
    whole,
    word,
)
from services.gateway.webhooks.text import plain_text

SOURCE = "stripe"
NO_DECIMALS = frozenset("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split())
THREE_DECIMALS = frozenset("BHD JOD KWD OMR TND".split())
PAYING = ("active", "past_due")
NOT_PAYING = ("trialing", "canceled", "unpaid", "incomplete", "incomplete_expired", "paused")
MONTHS = {"month": Fraction(1), "year": Fraction(1, 12), "week": Fraction(52, 12), "day": Fraction(365, 12)}
SUBSCRIPTION = "customer.subscription."
CHANGES = frozenset(SUBSCRIPTION + name for name in "created updated deleted paused resumed".split())
NOT_USED = (
    "account.", "application_fee.", "balance.", "balance_settings.", "billing.", "billing_portal.", "capability.",
    "cash_balance.", "charge.", "checkout.", "climate.", "coupon.", "credit_note.", "customer.deleted",
    "customer.discount.", "customer.source.", "customer.subscription.pending_update", "customer.subscription.trial",
    "customer.tax_id.", "customer_cash_balance_transaction.", "entitlements.", "file.", "financial_connections.",
    "identity.", "invoice.created", "invoice.deleted", "invoice.finalization_failed", "invoice.finalized",
    "invoice.marked_uncollectible", "invoice.overdue", "invoice.overpaid", "invoice.payment_action_required",
    "invoice.payment_attempt_required", "invoice.sent", "invoice.upcoming", "invoice.updated", "invoice.voided",
    "invoice.will_be_due", "invoice_payment.", "invoiceitem.", "issuing_", "mandate.", "payment_intent.",
    "payment_link.", "payment_method.", "payout.", "person.", "plan.", "price.", "product.", "promotion_code.",
    "quote.", "radar.", "refund.", "reporting.", "review.", "setup_intent.", "sigma.", "source.",
    "subscription_schedule.", "tax.", "tax_rate.", "terminal.", "test_helpers.", "topup.", "transfer.", "treasury.",
)  # fmt: skip
"""Types, or how they begin, that say nothing of a customer's success."""
DROPPED = (
    "api_version",
    "livemode",
    "object",
    "pending_webhooks",
    "request",
    "data.previous_attributes.items",
    "data.previous_attributes.latest_invoice",
    "data.object.account_name",
    "data.object.amount_remaining",
    "data.object.application",
    "data.object.attempted",
    "data.object.automatic_tax",
    "data.object.billing_cycle_anchor",
    "data.object.billing_reason",
    "data.object.canceled_at",
    "data.object.cancellation_details.reason",
    "data.object.collection_method",
    "data.object.created",
    "data.object.days_until_due",
    "data.object.discounts",
    "data.object.ended_at",
    "data.object.items.data[].created",
    "data.object.items.data[].current_period_start",
    "data.object.items.data[].id",
    "data.object.items.data[].metadata",
    "data.object.items.data[].object",
    "data.object.items.data[].price.active",
    "data.object.items.data[].price.billing_scheme",
    "data.object.items.data[].price.created",
    "data.object.items.data[].price.livemode",
    "data.object.items.data[].price.metadata",
    "data.object.items.data[].price.object",
    "data.object.items.data[].price.recurring.meter",
    "data.object.items.data[].price.recurring.trial_period_days",
    "data.object.items.data[].price.tax_behavior",
    "data.object.items.data[].price.type",
    "data.object.items.data[].subscription",
    "data.object.items.object",
    "data.object.items.total_count",
    "data.object.items.url",
    "data.object.latest_invoice",
    "data.object.livemode",
    "data.object.next_payment_attempt",
    "data.object.object",
    "data.object.parent.subscription_details.subscription",
    "data.object.parent.type",
    "data.object.period_end",
    "data.object.period_start",
    "data.object.start_date",
    "data.object.subtotal",
    "data.object.total",
    "data.object.trial_end",
    "data.object.trial_start",
)


class StripeOptions(Options):
    account_metadata: tuple[str, ...] = ("account_id",)


def events(delivery: Delivery) -> list[Canonical]:
    payload = object_of(delivery.body)
    kind, thing = word(payload.get("type")), at(payload, "data.object")
    read = _READ.get(kind) or (_subscription if kind in CHANGES else None)
    if read is None:
        if kind.startswith(NOT_USED):
            return []
        raise Unreadable(f"type {kind[:100]!r} is not known")
    if not isinstance(thing, dict):
        raise Unreadable("data.object is not an object")
    id = needed(ident(payload.get("id")), "id")
    return read(delivery, id, needed(when(payload.get("created"), "created"), "created"), thing, payload)


def _customer_id(thing: dict[str, Any]) -> str:
    """The customer's id; expanded, it is an object."""
    customer = thing.get("customer")
    return needed(ident(customer.get("id") if isinstance(customer, dict) else customer), "data.object.customer")


def _account(delivery: Delivery, *holders: object) -> str | None:
    names = options_of(delivery, StripeOptions).account_metadata
    return next((found for holder in holders if (found := account_in(mapping(holder), names))), None)


def _linked(delivery: Delivery, id: str, own: OwnTime, account: str | None, customer: str) -> list[Canonical]:
    if account is None:
        return []
    links = {SOURCE: customer}
    return [event(delivery, SOURCE, "account.updated", f"{id}:link", own, account_id=account, external_ids=links)]


# -- amounts -----------------------------------------------------------------------------------------


def decimals_of(code: str) -> int:
    return 0 if code in NO_DECIMALS else 3 if code in THREE_DECIMALS else 2


def major(amount: object, code: str | None) -> str | None:
    """Minor units as an amount: 98000 usd is 980.00, 500 jpy is 500."""
    if code is None or isinstance(amount, bool) or not isinstance(amount, int) or abs(amount) >= 10**20:
        return None
    return format(Decimal(amount).scaleb(-decimals_of(code)), "f")


def monthly(subscription: dict[str, Any], code: str) -> str | None:
    """The MRR of a subscription that pays; None when all of it is metered."""
    listed = subscription.get("items")
    if not isinstance(listed, dict) or not isinstance(listed.get("data"), list):
        raise Unreadable("data.object.items is missing")
    if listed.get("has_more") is True:
        raise Unreadable("data.object.items does not hold all items: the amount is not whole")
    parts = [part for item in listed["data"] if (part := _monthly_item(mapping(item))) is not None]
    if not parts:
        return None
    total = sum(parts, Fraction(0)) / 10 ** decimals_of(code)
    with localcontext(prec=60):
        exact = Decimal(total.numerator) / Decimal(total.denominator)
        few = exact.quantize(Decimal(1).scaleb(-decimals_of(code)))
        if few == exact:
            return format(few, "f")
        return format(exact.quantize(Decimal("0.000001")).normalize(), "f")


def _monthly_item(item: dict[str, Any]) -> Fraction | None:
    price = mapping(item.get("price")) or mapping(item.get("plan"))
    terms = mapping(price.get("recurring")) or price
    if terms.get("usage_type") == "metered":
        return None
    interval = word(terms.get("interval"))
    if interval not in MONTHS:
        raise Unreadable("an item's price has no interval of day, week, month or year")
    count = terms.get("interval_count", 1)
    quantity = item.get("quantity", 1)
    if not _is_count(count) or count < 1 or not _is_count(quantity):
        raise Unreadable("an item's quantity or interval_count is no whole number")
    return _unit(price) * Fraction(quantity) * MONTHS[interval] / Fraction(count)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


def _unit(price: dict[str, Any]) -> Fraction:
    """What one costs, in minor units and their fractions."""
    names = ("unit_amount_decimal", "unit_amount", "amount_decimal", "amount")
    told = next((price[name] for name in names if price.get(name) is not None), None)
    if told is None:
        raise Unreadable("an item's price is tiered: it holds no amount")
    try:
        amount = Decimal(str(told))
    except InvalidOperation:
        raise Unreadable("an item's unit_amount is no number") from None
    if isinstance(told, bool) or not amount.is_finite() or not 0 <= amount < 10**20 or amount.adjusted() < -20:
        raise Unreadable("an item's unit_amount is no amount")
    return Fraction(amount)


# -- events ------------------------------------------------------------------------------------------


def _subscription(
    delivery: Delivery, id: str, own: OwnTime, thing: dict[str, Any], payload: dict[str, Any]
) -> list[Canonical]:
    customer = _customer_id(thing)
    account = _account(delivery, thing.get("metadata"), at(thing, "customer.metadata"))
    who: dict[str, Any] = {"account_id": account, "external_ids": {SOURCE: customer}}
    told = _linked(delivery, id, own, account, customer)
    which = needed(ident(thing.get("id")), "data.object.id")
    mrr, code = _revenue(thing, payload)
    if mrr is not None:
        fields = {"subscription_id": which, "mrr": mrr, "currency": code, **_bought(thing)}
        told.append(event(delivery, SOURCE, "subscription.changed", id, own, **who, **fields))
    if _is_notice(thing, payload):
        reasons = mapping(thing.get("cancellation_details"))
        ends = [when(mapping(item).get("current_period_end"), "current_period_end") for item in _items(thing)]
        latest = max((end.at for end in ends if end), default=None)
        leaves = day(thing.get("cancel_at")) or day(thing.get("current_period_end"))
        effective = leaves or (latest.date().isoformat() if latest else None)
        reason = first_text(reasons.get("comment"), reasons.get("feedback"))
        fields = {"contract_id": which, "reason": reason, "effective_on": effective}
        told.append(event(delivery, SOURCE, "churn.notified", f"{id}:notice", own, **who, **fields))
    return told


def _items(subscription: dict[str, Any]) -> list[Any]:
    return items(at(subscription, "items.data"))


def _revenue(thing: dict[str, Any], payload: dict[str, Any]) -> tuple[str | None, str | None]:
    code, status = currency(thing.get("currency")), word(thing.get("status"))
    if code is None:
        price = mapping(at(next(iter(_items(thing)), None), "price"))
        code = currency(price.get("currency"))
    if payload.get("type") == f"{SUBSCRIPTION}deleted" or status in NOT_PAYING:
        return "0", code
    if status not in PAYING:
        raise Unreadable(f"status {status[:40]!r} is not known")
    return monthly(thing, needed(code, "data.object.currency")), code


def _bought(thing: dict[str, Any]) -> dict[str, Any]:
    """Plan, product and seats, where there is one item and so no doubt."""
    listed = [mapping(item) for item in _items(thing)]
    if len(listed) != 1:
        return {}
    price = mapping(listed[0].get("price")) or mapping(listed[0].get("plan"))
    seats = whole(listed[0].get("quantity"))
    product = price.get("product")
    return {
        "plan": ident(price.get("lookup_key")) or ident(price.get("nickname")) or ident(price.get("id")),
        "product": ident(product.get("id") if isinstance(product, dict) else product),
        "seats": seats if seats is not None and seats >= 0 else None,
    }


def _is_notice(thing: dict[str, Any], payload: dict[str, Any]) -> bool:
    """The update by which notice was given: before it the subscription would have gone on."""
    before = mapping(at(payload, "data.previous_attributes"))
    at_end = thing.get("cancel_at_period_end") is True and before.get("cancel_at_period_end") is False
    dated = thing.get("cancel_at") is not None and "cancel_at" in before and before["cancel_at"] is None
    return payload.get("type") == f"{SUBSCRIPTION}updated" and (at_end or dated)


def _invoice(type: str, amount: str, *, failed: bool) -> Any:
    def read(
        delivery: Delivery, id: str, own: OwnTime, thing: dict[str, Any], payload: dict[str, Any]
    ) -> list[Canonical]:
        code, customer = currency(thing.get("currency")), _customer_id(thing)
        details = at(thing, "parent.subscription_details.metadata")
        account = _account(delivery, thing.get("metadata"), details, at(thing, "subscription_details.metadata"))
        attempt = whole(thing.get("attempt_count")) if failed else None
        told = event(
            delivery,
            SOURCE,
            type,
            id,
            own,
            account_id=account,
            external_ids=external(stripe=customer),
            email=email(thing.get("customer_email")),
            invoice_id=needed(ident(thing.get("id")), "data.object.id"),
            amount=major(thing.get(amount), code),
            currency=code,
            attempt=attempt if attempt is not None and attempt >= 1 else None,
        )
        return [*_linked(delivery, id, own, account, customer), told]

    return read


def _customer(
    delivery: Delivery, id: str, own: OwnTime, thing: dict[str, Any], payload: dict[str, Any]
) -> list[Canonical]:
    customer = needed(ident(thing.get("id")), "data.object.id")
    return [
        event(
            delivery,
            SOURCE,
            "account.updated",
            id,
            own,
            account_id=_account(delivery, thing.get("metadata")),
            external_ids={SOURCE: customer},
            email=email(thing.get("email")),
            name=plain_text(thing.get("name")),
            country=plain_text(at(thing, "address.country")),
            currency=currency(thing.get("currency")),
        )
    ]


_READ: dict[str, Any] = {
    "invoice.paid": _invoice("invoice.paid", "amount_paid", failed=False),
    "invoice.payment_succeeded": _invoice("invoice.paid", "amount_paid", failed=False),
    "invoice.payment_failed": _invoice("invoice.failed", "amount_due", failed=True),
    "customer.created": _customer,
    "customer.updated": _customer,
}


TOOL = Tool(SOURCE, signatures.stripe, events, DROPPED)
