"""What each tool is asked and how its answers are read, without any of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from services.notify.settings import Notify, WriteBack
from services.notify.writeback import (
    Answer,
    CustomerIo,
    HubSpot,
    Intercom,
    Salesforce,
    Tool,
    Write,
    Written,
    pause_of,
    read,
    remote_id,
)
from services.notify.writer import to_write

AT = datetime(2026, 11, 22, 9, tzinfo=UTC)


def rules(tool: str = "hubspot", **given: Any) -> WriteBack:
    return WriteBack.model_validate({"tool": tool, "secret": "CRM", "url": "https://crm.example.com"} | given)


def a_write(account: str = "a", score: int | None = 38, why: str = "Fell") -> Write:
    return Write(account, f"r-{account}", score, "red", why, AT)


def answered(status: int, body: Any = None, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode())


def the_answer(tool: Tool, answer: Answer, writes: list[Write]) -> Written:
    return read(tool, answer, writes, AT.timestamp())


def test_a_reason_is_cut_and_a_score_that_is_not_known_clears_the_field() -> None:
    hubspot = HubSpot(rules(fields={"score": "s", "band": None, "reason": "r", "longest_reason": 5}))
    call = hubspot.call([a_write(score=None, why="one\ntwo three")], "t")
    assert json.loads(call.body)["inputs"][0]["properties"] == {"s": "", "r": "one…"}


def test_hubspot_takes_a_unique_property_instead_of_its_own_ids() -> None:
    call = HubSpot(rules(id_property="hune_id")).call([a_write()], "t")
    assert json.loads(call.body)["inputs"][0]["idProperty"] == "hune_id"


def test_a_request_that_is_shown_hides_its_secret() -> None:
    shown = HubSpot(rules()).call([a_write()], "TOPSECRET").shown()
    assert "TOPSECRET" not in json.dumps(shown)
    assert shown["url"] == "https://crm.example.com/crm/v3/objects/companies/batch/update"


def test_an_id_cannot_leave_its_place_in_an_address() -> None:
    call = Intercom(rules("intercom")).call([Write("a", "../users?x=1", 1, "red", "", AT)], "t")
    assert call.url == "https://crm.example.com/companies/..%2Fusers%3Fx%3D1"


@pytest.mark.parametrize(
    ("status", "what", "alone"),
    [(200, "sent", False), (429, "refused", False), (503, "refused", False), (500, "unclear", False),
     (401, "refused", False), (403, "refused", False), (307, "refused", False), (400, "refused", True),
     (404, "refused", True), (410, "failed", False)],
)  # fmt: skip
def test_every_status_says_what_becomes_of_a_batch(status: int, what: str, alone: bool) -> None:
    written = the_answer(HubSpot(rules()), answered(status), [a_write("a"), a_write("b")])
    assert (written.whole.what, written.one_by_one) == (what, alone)


def test_one_that_is_refused_alone_has_failed_with_the_tools_words() -> None:
    error = [{"errorCode": "INVALID_FIELD", "message": "No such column 'x'"}]
    written = the_answer(Salesforce(rules("salesforce")), answered(400, error), [a_write()])
    assert (written.whole.what, written.whole.reason) == ("failed", "HTTP 400: INVALID_FIELD No such column 'x'")


@pytest.mark.parametrize("body", [None, [], {"x": 1}, [{"success": True}] * 3])
def test_an_answer_that_says_less_than_it_should_is_unclear(body: Any) -> None:
    assert (
        the_answer(Salesforce(rules("salesforce")), answered(200, body), [a_write(), a_write("b")]).whole.what
        == "unclear"
    )


def test_whom_hubspot_forgets_to_name_goes_alone() -> None:
    answer = answered(207, {"results": [{"id": "r-a"}], "errors": [{"category": "X", "message": "?", "context": {}}]})
    written = the_answer(HubSpot(rules()), answer, [a_write("a"), a_write("b")])
    assert written.one_by_one
    assert [written.of(a_write(name)).what for name in "ab"] == ["sent", "refused"]
    assert the_answer(HubSpot(rules()), answered(207, {"results": []}), [a_write("a")]).whole.what == "failed"


@pytest.mark.parametrize("place", [None, 7, "x"])
def test_an_error_of_customerio_without_its_place_is_unclear(place: Any) -> None:
    answer = answered(207, {"errors": [{"batch_index": place}]})
    assert the_answer(CustomerIo(rules("customerio")), answer, [a_write()]).whole.what == "unclear"


def test_the_pause_is_what_the_tool_says() -> None:
    assert pause_of({"Retry-After": "40"}, 0) == 40
    assert pause_of({"X-RateLimit-Reset": "1030"}, now=1000) == 30
    assert pause_of({"X-RateLimit-Reset": "900"}, now=1000) == 0
    assert pause_of({"Retry-After": "Wed, 21 Oct"}, 0) is None
    assert pause_of({}, 0) is None


@pytest.mark.parametrize(
    ("given", "account", "linked", "id"),
    [({}, "a", "7", "7"), ({}, "a", None, None), ({}, "a", "", None),
     ({"id_from": "account_id"}, "a", "7", "a"),
     ({"id_from": "account_id", "id_prefix": "hubspot:"}, "hubspot:12", None, "12"),
     ({"id_from": "account_id", "id_prefix": "hubspot:"}, "other", "7", None),
     ({"id_from": "account_id", "id_prefix": "hubspot:"}, "hubspot:", None, None)],
)  # fmt: skip
def test_an_account_is_found_by_what_was_said_and_never_guessed(
    given: dict[str, Any], account: str, linked: str | None, id: str | None
) -> None:
    assert remote_id(account, linked, rules(**given)) == id
    row = {"account_id": account, "linked": linked, "score": 1, "band": "red", "why": "", "computed_at": AT,
           "version": 1}  # fmt: skip
    writes, lost = to_write([row], rules(**given))
    assert ([one.remote_id for one in writes], lost) == (([id], []) if id else ([], [account]))


@pytest.mark.parametrize(
    "given",
    [{"tool": "salesforce", "url": None}, {"tool": "x"}, {"batch": 0}, {"url": "https://a.example.com/path"},
     {"fields": {"score": None, "band": None, "reason": None}}],
)  # fmt: skip
def test_what_will_not_do_is_said_at_the_start(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Notify.model_validate({"write_back": {"crm": {"tool": "hubspot", "secret": "CRM"} | given}})
