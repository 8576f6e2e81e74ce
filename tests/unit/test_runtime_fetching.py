"""Batches that aiokafka cannot unpack: read by our own reader, or kept whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from shared.runtime.fetching import UNREADABLE, Batches, unpack

Row = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def a_batch(rows: Sequence[Row], codec: int = 0, base: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, 1, 0, 0, 10_000_000)
    for n, (key, value, headers) in enumerate(rows):
        builder.append(n, 1_000 + n, key, value, headers)
    built = bytearray(builder.build())
    built[:8] = base.to_bytes(8, "big")
    return bytes(built)


def patched(batch: bytes, was: bytes, becomes: bytes) -> bytes:
    changed = batch.replace(was, becomes)
    checked: bytes = changed[:17] + calc_crc32c(changed[21:]).to_bytes(4, "big") + changed[21:]
    return checked


def everything(block: bytes) -> list[Any]:
    batches, found = Batches(block), []
    while batches.has_next():
        batch = batches.next_batch()
        assert batch is not None
        assert batch.validate_crc()
        found += list(batch)
    return found


def plain(records: Any) -> list[tuple[Any, ...]]:
    return [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, list(r.headers)) for r in records]


_bytes = st.none() | st.binary(max_size=40)
_rows = st.lists(st.tuples(_bytes, _bytes, st.lists(st.tuples(st.text(max_size=10), _bytes), max_size=3)), min_size=1)


@given(_rows, st.sampled_from([0, 1, 2, 3, 4]), st.integers(0, 2**40))
def test_our_reader_reads_what_aiokafkas_does(rows: list[Row], codec: int, base: int) -> None:
    raw = a_batch(rows, codec, base)
    theirs = MemoryRecords(raw).next_batch()
    assert theirs is not None
    expected = plain(theirs)
    assert plain(unpack(raw)) == expected
    assert plain(everything(raw)) == expected
    assert [offset for offset, *_ in expected] == list(range(base, base + len(rows)))


@pytest.mark.parametrize("place", [0, 3, 9])
def test_a_header_key_that_is_no_text_spoils_neither_its_record_nor_its_neighbours(place: int) -> None:
    rows: list[Row] = [(b"k", b"v%d" % n, [("XXXX" if n == place else "fine", b"1")]) for n in range(10)]
    raw = patched(a_batch(rows, base=50), b"XXXX", b"\xff\xfe\x80X")
    records = everything(a_batch(rows[:1], base=49) + raw + a_batch(rows[:1], base=60))
    assert [record.offset for record in records] == list(range(49, 61))
    assert list(records[1 + place].headers) == [("\\xff\\xfe\\x80X", b"1")]
    assert [record.value for record in records[1:11]] == [b"v%d" % n for n in range(10)]


def test_a_batch_that_nobody_can_unpack_is_one_record_with_all_its_bytes() -> None:
    raw = a_batch([(b"k", b"v" * 100, [])] * 5, codec=1, base=7)
    broken = patched(raw, raw[-20:-8], b"\0" * 12)
    before, stand_in, after = everything(
        a_batch([(b"k", b"a", [])], base=6) + broken + a_batch([(b"k", b"z", [])], base=12)
    )
    assert (before.value, after.value) == (b"a", b"z")
    assert stand_in.offset == 11, "the last one of those it stands for"
    assert stand_in.value == broken
    assert stand_in.headers[0][0] == UNREADABLE


def test_a_damaged_batch_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    raw = bytearray(a_batch([(b"k", b"value", [])]))
    raw[-3] ^= 1
    batch = Batches(bytes(raw)).next_batch()
    assert batch is not None
    batch.validate_crc()
    assert codes == [70]
