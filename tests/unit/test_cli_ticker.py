from cli.ticker import row_of

OPENED = b'{"alert_id": "a", "account_id": "acme", "occurred_at": "2026-05-14T08:00:00Z", "baseline": %s}'


def test_an_alert_is_shown_when_it_opens_and_when_it_ends() -> None:
    opened = row_of("hune.alert.opened.v1", OPENED % b"false")
    ended = row_of("hune.alert.resolved.v1", OPENED % b"false")
    assert opened is not None
    assert ended is not None
    assert (opened["state"], opened["opened_at"]) == ("open", "2026-05-14T08:00:00Z")
    assert ended["state"] == "resolved"


def test_what_a_first_import_found_is_not_shown() -> None:
    assert row_of("hune.alert.opened.v1", OPENED % b"true") is None


def test_other_events_of_the_topic_are_passed_over() -> None:
    assert row_of("hune.alert.escalated.v1", OPENED % b"false") is None
