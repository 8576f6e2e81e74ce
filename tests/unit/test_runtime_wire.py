"""The reader of routed records: it gives a signal, a clock's mark or a refusal, and never raises."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from shared import db
from shared.errors import Poison
from shared.events import inputs
from shared.events.fast import read_usage
from shared.runtime.ownership import After
from shared.runtime.transaction import _move_clock
from shared.runtime.unit import MOST_BYTES, UnitOfWork
from shared.runtime.wire import (
    ClockMark,
    Outgoing,
    Own,
    Refused,
    event_headers,
    pack,
    pack_headers,
    signal_reader,
    unpack,
    unpack_headers,
)

READ = signal_reader({inputs.UsageTracked.wire_type(): read_usage})
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def record(value: bytes | None, headers: Any) -> Any:
    return ConsumerRecord("t", 1, 2, 1_780_000_000_000, 1, b"k", value, None, 1, 1, tuple(headers))


def usage_headers(**changes: bytes | None) -> list[tuple[str, bytes | None]]:
    event = inputs.UsageTracked(account_id="acme")
    whole: dict[str, bytes | None] = dict(event_headers(event, id="e", source="hune", subject="acme", time=NOW))
    return list((whole | changes).items())


def test_a_routed_record_becomes_a_signal() -> None:
    item = READ(record(b'{"user_id": "u"}', usage_headers(ce_owntime=b"2026", ce_mode=b"replay", ce_run=b"r")))
    assert isinstance(item, Own)
    signal = item.signal
    assert (signal.type, signal.id, signal.account_id, signal.run) == ("usage.tracked", "e", "acme", "r")
    assert signal.replay
    assert signal.occurred_at == NOW
    assert item.own_time == "2026"


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_source", "ce_subject", "ce_time"])
@pytest.mark.parametrize("content", [None, b""])
def test_a_missing_attribute_is_named(name: str, content: bytes | None) -> None:
    item = READ(record(b"{}", usage_headers(**{name: content})))
    assert isinstance(item, Refused)
    assert name in item.reason


@given(st.none() | st.binary(max_size=100), st.dictionaries(st.sampled_from(
    ["ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "ce_recordedtime", "ce_confidence", "ce_run",
     "ce_routerpartition", "ce_demand", "ce_owntime"]), st.none() | st.binary(max_size=30)))  # fmt: skip
def test_no_bytes_make_it_raise(value: bytes | None, changes: dict[str, bytes | None]) -> None:
    assert isinstance(READ(record(value, usage_headers(**changes))), Own | Refused)


def test_only_the_router_tells_the_time() -> None:
    clock = inputs.ClockSet(run="r", at=NOW)
    headers = event_headers(
        clock, id="c", source="hune.router", subject="clock", time=NOW, extra=[("ce_routerpartition", b"3")]
    )
    mark = READ(record(clock.model_dump_json().encode(), headers))
    assert isinstance(mark, ClockMark)
    assert (mark.router_partition, mark.run, mark.at) == (3, "r", NOW)
    forged = [(name, b"hune" if name == "ce_source" else content) for name, content in headers]
    assert isinstance(READ(record(clock.model_dump_json().encode(), forged)), Refused)


@given(st.permutations([0, 1, 2, 3, 3, 0, 9, -1]))
def test_the_clock_moves_with_the_last_of_the_voices_whatever_their_order(voices: list[int]) -> None:
    after = After({}, 0, 0, None, False, {}, Counter())
    heard: set[int] = set()
    for voice in voices:
        _move_clock(after, ClockMark(record(b"", ()), voice, "r", NOW, False), 4)
        heard |= {voice} & set(range(4))
        if len(heard) == 4:
            break
        assert after.clock is None
    assert after.clock == NOW


_words = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
_headers = st.lists(st.tuples(_words, st.none() | st.binary(max_size=9)))


@given(_headers)
def test_quarantined_headers_come_back_as_they_were(headers: list[tuple[str, bytes | None]]) -> None:
    assert unpack_headers(pack_headers(headers)) == headers


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 99), st.binary(), st.binary())))
def test_an_outbox_row_comes_back_as_it_was(rows: list[tuple[str, int, bytes, bytes]]) -> None:
    records = [Outgoing(*row, [("ce_id", b"x")]) for row in rows]
    try:
        packed = pack(records)
    except UnicodeEncodeError:  # half a surrogate pair is no topic's name
        return
    assert unpack(packed) == records


def test_a_record_that_kafka_would_never_take_is_refused_where_it_is_made() -> None:
    unit = UnitOfWork("lab", None, seq=1, clocks={0: None}, live=(), partitions=4)
    unit.send(0, Outgoing("t", 0, b"k", b"x" * (MOST_BYTES - 10), []))
    with pytest.raises(Poison, match=r"t would take .* bytes"):
        unit.send(0, Outgoing("t", 0, b"k", b"x" * MOST_BYTES, [("h", b"more")]))


def test_an_odd_os_error_of_a_handler_is_no_reason_to_try_for_ever() -> None:
    assert db.is_transient(ConnectionResetError(), connected=True)
    assert db.is_transient(TimeoutError(), connected=True)
    assert db.is_transient(OSError(111, "refused"), connected=False)
    assert not db.is_transient(OSError(75, "value too large for defined data type"), connected=True)
    assert not db.is_transient(ValueError(), connected=True)


def test_msgspec_and_the_reader_agree_that_headers_may_be_null() -> None:
    assert msgspec.msgpack.decode(pack_headers([("a", None)])) == [["a", None]]
