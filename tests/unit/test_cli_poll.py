"""What `hune poll status` says of each feed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cli.poll import _table, report
from services.gateway.pollers.settings import Pollers

NOW = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)


def a_row(tool: str, feed: str, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("position", "succeeded_at", "error", "error_at", "holder"))
    return {
        "tool": tool,
        "feed": feed,
        **empty,
        "failures": 0,
        "records": 0,
        "unread": 0,
        "due_at": NOW,
        "now": NOW,
        **more,
    }


def states(pollers: Pollers, *rows: dict[str, Any]) -> dict[str, str]:
    return {row["feed"]: row["state"] for row in report(pollers, rows)}


POLLERS = Pollers.model_validate(
    {"hubspot": {"enabled": True, "feeds": ["companies", "deals", "contacts"]}, "chorus": {"enabled": True}}
)


def test_every_enabled_feed_has_a_state_and_so_has_one_that_was_read_before() -> None:
    found = states(
        POLLERS,
        a_row("hubspot", "companies", succeeded_at=NOW, position=NOW),
        a_row("hubspot", "deals", error="HTTP 401", failures=3, succeeded_at=NOW),
        a_row("hubspot", "contacts", holder="one"),
        a_row("salesforce", "tasks", succeeded_at=NOW, error="HTTP 500"),
    )
    assert found == {
        "chorus.engagements": "new",
        "hubspot.companies": "waiting",
        "hubspot.contacts": "reading",
        "hubspot.deals": "failing",
        "salesforce.tasks": "off",
    }
    assert states(Pollers()) == {}


def test_it_says_how_far_the_cursor_is_behind_and_what_is_wrong() -> None:
    row = a_row("hubspot", "deals", position=NOW - timedelta(hours=2), error="HTTP 401", records=12, unread=1)
    (_, _, _, found) = report(POLLERS, [row])
    assert (found["lag_s"], found["records"], found["unread"], found["cursor"]) == (7200, 12, 1, "2026-05-04T08:00:00Z")
    shown = _table([found])
    assert "7200 s" in shown
    assert "HTTP 401" in shown
