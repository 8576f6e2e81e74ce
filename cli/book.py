"""What a morning's reader wants to see of the book: bands, whom to call and why, one alert, one explanation."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from cli.output import table
from services.notify import card

BANDS = ("red", "amber", "green", "unknown")
SEVERITIES = ("critical", "high", "medium", "low")
WIDTH = 96
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One account to call today and the reason to."""

    account_id: str
    name: str | None
    score: int | None
    band: str
    arr: Decimal | None
    why: str
    next_step: str | None = None


def by_band(accounts: Sequence[Row]) -> str:
    """How many accounts are in each band, and their ARR where any is known."""
    rows = [("band", "accounts", "share", "ARR")]
    for band in BANDS:
        members = [account for account in accounts if account["band"] == band]
        if members:
            rows.append((band, str(len(members)), f"{len(members) / len(accounts):.0%}", money(total_arr(members))))
    rows.append(("all", str(len(accounts)), "", money(total_arr(accounts))))
    return table(rows)


def total_arr(accounts: Sequence[Row]) -> Decimal | None:
    known = [Decimal(account["arr"]) for account in accounts if account["arr"] is not None]
    return sum(known, Decimal(0)) if known else None


def money(amount: Decimal | None) -> str:
    return "-" if amount is None else f"{amount:,.0f}".replace(",", " ")


def to_call(accounts: Sequence[Row], alerts: Sequence[Row], limit: int = 5) -> list[Call]:
    """Open risk alerts first (by severity, then ARR), then the lowest scores."""
    known = {account["account_id"]: account for account in accounts}
    risks = [alert for alert in alerts if is_open_risk(alert) and alert["account_id"] in known]
    risks.sort(key=lambda alert: (severity_rank(alert), *urgency(known[alert["account_id"]])))
    calls: dict[str, Call] = {}
    for alert in risks:
        account = known[alert["account_id"]]
        why = f"{alert['title']}: {alert['why']}"
        calls.setdefault(alert["account_id"], call_of(account, why, alert["next_step"]))
    weak = [account for account in accounts if account["band"] in ("red", "amber")]
    for account in sorted(weak, key=urgency):
        calls.setdefault(account["account_id"], call_of(account, "", None))
    return list(calls.values())[:limit]


def to_show(accounts: Sequence[Row], recommendations: Sequence[Row], limit: int = 3) -> list[Row]:
    """Open recommendations of green accounts, the best of each, by ARR."""
    green = {account["account_id"]: account for account in accounts if account["band"] == "green"}
    best: dict[str, Row] = {}
    standing = [one for one in recommendations if one["state"] == "open" and one["account_id"] in green]
    for one in sorted(standing, key=lambda one: (-one["share_low"], one["feature"])):
        best.setdefault(one["account_id"], one)
    return [best[name] for name in sorted(best, key=lambda name: urgency(green[name]))][:limit]


def describe_recommendation(one: Row) -> str:
    return "\n".join([f"{one['account_id']}: {one['feature']}", *_wrapped(one["why"])])


def call_of(account: Row, why: str, next_step: str | None) -> Call:
    arr = None if account["arr"] is None else Decimal(account["arr"])
    return Call(account["account_id"], account["name"], account["score"], account["band"], arr, why, next_step)


def with_reason(call: Call, why: str) -> Call:
    return replace(call, why=why)


def is_open_risk(alert: Row) -> bool:
    return (alert["state"], alert["kind"]) == ("open", "risk")


def severity_rank(alert: Row) -> int:
    return SEVERITIES.index(alert["severity"]) if alert["severity"] in SEVERITIES else len(SEVERITIES)


def urgency(account: Row) -> tuple[Decimal, int, str]:
    arr = Decimal(account["arr"]) if account["arr"] is not None else Decimal(0)
    return (-arr, 101 if account["score"] is None else account["score"], account["account_id"])


def describe_call(number: int, call: Call) -> str:
    name = f"{call.name} ({call.account_id})" if call.name else call.account_id
    arr = f", ARR {money(call.arr)}" if call.arr is not None else ""
    score = "no score" if call.score is None else f"{call.score} {call.band}"
    lines = [f"{number}. {name}: {score}{arr}", *_wrapped(call.why)]
    return "\n".join([*lines, *(_wrapped(f"→ {call.next_step}") if call.next_step else [])])


def describe_alert(alert: Row, account: Row, now: datetime) -> str:
    """An alert in plain text, as the message about it says it."""
    return textwrap.indent(card.plain(card.of_rows(alert, account, now)), "  | ")


def most_telling(alerts: Sequence[Row], accounts: Sequence[Row]) -> Row | None:
    """The alert to show: open before resolved, risk before opportunity, most severe, of the largest ARR, the newest."""
    arr = {account["account_id"]: urgency(account)[0] for account in accounts}
    newest_first = sorted(alerts, key=lambda alert: str(alert["opened_at"]), reverse=True)
    return min(
        newest_first,
        key=lambda one: (
            not is_open_risk(one), one["state"] != "open", severity_rank(one), arr.get(one["account_id"], Decimal(0))
        ),
        default=None,
    )  # fmt: skip


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="   ", subsequent_indent="   ") if text else []
