from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cli import book


def an_account(account_id: str, score: int | None = 50, band: str = "amber", arr: str | None = None) -> dict[str, Any]:
    return {"account_id": account_id, "name": None, "score": score, "band": band, "arr": arr}


def an_alert(account_id: str, severity: str = "medium", **changes: Any) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "severity": severity,
        "kind": "risk",
        "state": "open",
        "rule": "gone_silent",
        "title": "No use for 35 days",
        "why": "Last used on 2024-09-19",
        "next_step": "Call the sponsor.",
        "evidence": {"days": 35, "people": ["a", "b"]},
        "opened_at": "2024-10-24T00:00:00Z",
    } | changes


def test_the_most_severe_is_called_first_then_the_largest() -> None:
    accounts = [an_account("small", arr="1000"), an_account("large", arr="9000"), an_account("quiet", 90, "green")]
    alerts = [an_alert("small"), an_alert("large"), an_alert("quiet", "critical")]
    assert [call.account_id for call in book.to_call(accounts, alerts)] == ["quiet", "large", "small"]


def test_without_alerts_the_weak_are_called_and_the_healthy_left_alone() -> None:
    accounts = [an_account("fine", 90, "green"), an_account("weak", 20, "red"), an_account("new", None, "unknown")]
    assert [call.account_id for call in book.to_call(accounts, [])] == ["weak"]


def test_resolved_alerts_and_opportunities_call_nobody() -> None:
    accounts = [an_account("a", 90, "green")]
    alerts = [an_alert("a", state="resolved"), an_alert("a", kind="opportunity")]
    assert book.to_call(accounts, alerts) == []


def test_an_account_is_called_once_whatever_its_alerts() -> None:
    calls = book.to_call([an_account("a")], [an_alert("a"), an_alert("a", "high", title="Half as much use")])
    assert [call.why for call in calls] == ["Half as much use: Last used on 2024-09-19"]


def test_unknown_revenue_is_not_shown_as_nothing() -> None:
    assert book.total_arr([an_account("a"), an_account("b")]) is None
    assert book.total_arr([an_account("a", arr="1200.50"), an_account("b")]) == Decimal("1200.50")
    amber, everything = book.by_band([an_account("a"), an_account("b")]).splitlines()[1:]
    assert amber.split() == ["amber", "2", "100%", "-"]
    assert everything.split() == ["all", "2", "-"]


def test_an_alert_in_plain_text_says_what_why_and_what_to_do() -> None:
    alert, account = an_alert("acme.com", "high"), an_account("acme.com", 38, "red", "60000")
    text = book.describe_alert(alert, account, datetime(2024, 10, 25, tzinfo=UTC))
    for part in ("high", "acme.com", "No use for 35 days", "Last used", "a, b", "Call the sponsor.", "38 red"):
        assert part in text


def test_the_alert_shown_is_open_before_resolved() -> None:
    old, new = an_alert("a", "critical", state="resolved"), an_alert("b", "low")
    assert book.most_telling([old, new], []) == new
    assert book.most_telling([], []) is None


def test_of_alerts_alike_the_one_of_the_largest_account_is_shown() -> None:
    small, large = an_alert("small"), an_alert("large")
    accounts = [an_account("small", arr="0"), an_account("large", arr="9000")]
    assert book.most_telling([large, small], accounts) == large == book.most_telling([small, large], accounts)


def test_what_is_worth_showing_is_the_best_of_each_green_account_the_largest_first() -> None:
    accounts = [
        an_account("small", 90, "green", "1000"),
        an_account("large", 90, "green", "9000"),
        an_account("weak", 30, "red", "99000"),
    ]

    def one(account_id: str, feature: str, low: float, state: str = "open") -> dict[str, Any]:
        return {"account_id": account_id, "feature": feature, "share_low": low, "state": state, "why": "Others do."}

    rows = [one("small", "a", 0.5), one("large", "b", 0.4), one("large", "c", 0.6), one("large", "d", 0.9, "adopted")]
    shown = book.to_show(accounts, [*rows, one("weak", "e", 0.9)])
    assert [(row["account_id"], row["feature"]) for row in shown] == [("large", "c"), ("small", "a")]
    assert book.describe_recommendation(shown[0]) == "large: c\n   Others do."
