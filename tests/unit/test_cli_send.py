"""Where a line of a file goes, and what is remembered of the file."""

import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from cli import files
from cli.files import Memory
from cli.progress import bar
from cli.send import Latest, chunks, place
from shared import topics

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def a_line(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_events_are_keyed_by_user_then_account_then_id() -> None:
    assert place(a_line(id="e", user_id="u", account_id="a")).key == b"u"
    assert place(a_line(id="e", account_id="a")).key == b"a"
    assert place(a_line(event_id="e")).key == b"e"
    assert place(a_line(id="e", user_id=42)).key == b"42"
    assert place(a_line(id="e", user_id="", account_id=None)).key == b"e"


@pytest.mark.parametrize(
    "line",
    [
        a_line(id="r", type="request.made", account_id="a", demand="health.score"),
        a_line(id="r", type="hune.request.made.v1", account_id="a", text="how are they?"),
        a_line(id="r", account_id="a", demand="health.score"),
        a_line(id="r", account_id="a", user_id="u", text="how are they?"),
    ],
)
def test_requests_go_to_their_own_topic_keyed_by_account(line: bytes) -> None:
    assert (place(line).topic, place(line).key) == (topics.RAW_REQUESTS, b"a")


def test_request_about_nobody_is_keyed_by_its_id() -> None:
    assert place(a_line(id="r", demand="ops.segmentation")).key == b"r"


def test_text_of_an_event_makes_no_request_of_it() -> None:
    assert place(a_line(id="e", type="feedback.given", text="nice")).topic is topics.RAW_EVENTS
    assert place(a_line(id="e", event="clicked", text="Save")).topic is topics.RAW_EVENTS


def test_structured_cloudevents_are_placed_by_their_data() -> None:
    placed = place(
        a_line(
            specversion="1.0", id="e", source="s", type="hune.usage.tracked.v1", time="2024-01-01T00:00:00Z",
            data={"account_id": "a"},
        )
    )  # fmt: skip
    assert placed.structured
    assert placed.key == b"a"
    assert placed.time == "2024-01-01T00:00:00Z"


@pytest.mark.parametrize("line", [b"[1]", b'"text"', b"42", b"null"])
def test_json_that_is_no_object_is_sent_and_named(line: bytes) -> None:
    assert place(line).fault == "not a JSON object"


@pytest.mark.parametrize("line", [b"{", b"nonsense", b'{"id": }', b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_json_is_sent_and_named(line: bytes) -> None:
    placed = place(line)
    assert placed.topic is topics.RAW_EVENTS
    assert placed.key is None
    assert placed.fault


def test_clock_of_a_run_is_the_latest_time_whatever_its_offset() -> None:
    latest = Latest(NOW)
    for text in ("2024-05-01T10:00:00Z", "2024-05-01T11:30:00+02:00", "1714557600", "yesterday", "2024-04-30"):
        latest.see(text)
    assert latest.at == datetime(2024, 5, 1, 10, tzinfo=UTC)


def test_clock_of_a_run_leaves_out_what_the_router_refuses_as_future() -> None:
    latest = Latest(NOW)
    latest.see("2025-01-02T00:00:01Z")
    assert latest.at is None
    latest.see("2025-01-02T00:00:00Z")
    assert latest.at == datetime(2025, 1, 2, tzinfo=UTC)


def test_chunks_go_on_from_where_one_ended() -> None:
    text = b"".join(b"%d\n" % number for number in range(100)) + b"last"
    first, *rest = chunks(io.BytesIO(text), 0, lines=30, size=1 << 20)
    again = list(chunks(io.BytesIO(text), first.end, lines=30, size=1 << 20))
    assert again == rest
    assert b"".join(first.lines + [line for chunk in rest for line in chunk.lines]) == text
    assert rest[-1].end == len(text)


def test_chunks_of_long_lines_stay_small() -> None:
    lines = list(chunks(io.BytesIO(b"x" * 999 + b"\n" + b"y" * 999 + b"\n" + b"z\n"), 0, lines=100, size=1000))
    assert [len(chunk.lines) for chunk in lines] == [1, 1, 1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.touch(), "is empty"),
    ],
)
def test_what_is_no_file_to_read_is_one_sentence(tmp_path: Path, make: object, said: str) -> None:
    path = tmp_path / "events.ndjson"
    make(path)  # type: ignore[operator]
    with pytest.raises(click.ClickException, match=said):
        files.check(path)


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    with files.opened(path) as source:
        assert list(source.lines) == [b"one\n", b"two\n"]


def test_broken_gzip_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson.gz"
    path.write_bytes(gzip.compress(b"one\n" * 10_000)[:-20])
    with pytest.raises(click.ClickException, match="broken gzip"), files.opened(path) as source:
        list(source.lines)


def test_memory_of_a_file_survives_the_process(tmp_path: Path) -> None:
    assert Memory(tmp_path, "a").load() == {}
    Memory(tmp_path, "a").save({"lines": 3})
    assert Memory(tmp_path, "a").load() == {"lines": 3}


def test_bar_shows_share_count_and_speed() -> None:
    assert bar("sending f", 0.5, 1000, 20_000) == "sending f [############------------]  50%  1,000 lines  20,000/s"
    assert "[------------------------]   0%" in bar("sending f", -1, 0, 0)
