"""What the spool confirmed is there again, whatever happened to the end of its files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.canonical import Record
from services.gateway.spool import DAMAGED, NotDurable, Segment, Spool, frame_of, read_frames
from shared.errors import Misconfigured

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
RECORDS = st.lists(
    st.builds(
        Record,
        st.sampled_from(["cs.raw.events.v1", "cs.raw.requests.v1"]),
        st.binary(max_size=20),
        st.binary(max_size=60) | st.just(b"\xa7HS1" * 3),
        st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=8)), max_size=3),
    ),
    max_size=8,
)


def a_record(n: int, size: int = 10) -> Record:
    return Record("cs.raw.events.v1", b"u", n.to_bytes(2) + b"x" * size, [("ce_id", str(n).encode())])


@CALM
@given(RECORDS, st.data())
def test_a_file_cut_off_anywhere_gives_all_records_before_the_cut(records: list[Record], data: st.DataObject) -> None:
    frames = [frame_of(record) for record in records]
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [sum(map(len, frames[: n + 1])) for n in range(len(frames))]
    assert read_frames(whole[:cut]) == (records[: sum(end <= cut for end in ends)], 0)


@CALM
@given(RECORDS.filter(lambda records: len(records) > 1), st.data())
def test_a_damaged_byte_costs_its_record_and_no_other(records: list[Record], data: st.DataObject) -> None:
    frames = [frame_of(record) for record in records]
    hit = data.draw(st.integers(0, len(frames) - 2))
    broken = bytearray(frames[hit])
    broken[data.draw(st.integers(0, len(broken) - 1))] ^= 0x55
    whole = b"".join([*frames[:hit], bytes(broken), *frames[hit + 1 :]])
    assert read_frames(whole) == (records[:hit] + records[hit + 1 :], len(broken))


def names(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "lock")


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\x00\x01xx", b"\x00\x09xx"))


async def all_of(spool: Spool) -> list[Record]:
    records: list[Record] = []
    while (segment := await spool.oldest()) is not None:
        records += await spool.read(segment)
        spool.drop(segment)
    return records


async def test_appends_of_many_share_an_fsync_and_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    real = os.fdatasync

    def counted(file: int) -> None:
        syncs.append(file)
        real(file)

    monkeypatch.setattr(os, "fdatasync", counted)
    spool = Spool(tmp_path, quota=1_000_000)
    spool.open()
    await asyncio.gather(*[asyncio.shield(spool.append([a_record(n)])) for n in range(300)])
    assert len(syncs) <= 3
    assert await all_of(spool) == [a_record(n) for n in range(300)]
    assert spool.is_empty
    assert spool.size == 0
    await spool.close()


async def test_segments_follow_each_other_and_what_comes_while_one_is_read_waits_in_the_next(tmp_path: Path) -> None:
    spool = Spool(tmp_path, quota=1_000_000, segment_bytes=200)
    spool.open()
    for n in range(20):
        await spool.append([a_record(n, 50)])
    first = await spool.oldest()
    assert first is not None
    await spool.append([a_record(20)])
    assert len(names(tmp_path)) > 3
    assert await all_of(spool) == [*[a_record(n, 50) for n in range(20)], a_record(20)]
    await spool.close()


async def test_after_a_failed_write_only_that_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, quota=1_000_000)
    spool.open()
    await spool.append([a_record(1)])
    real = os.write

    def half(file: int, data: memoryview) -> int:
        real(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(NotDurable, match="No space left") as caught:
        await spool.append([a_record(2)])
    assert not caught.value.certain
    monkeypatch.setattr(os, "write", real)
    await spool.append([a_record(3)])
    assert await all_of(spool) == [a_record(1), a_record(3)]
    await spool.close()


async def test_a_damaged_segment_is_told_and_a_copy_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path, quota=1_000_000)
    spool.open()
    await spool.append([a_record(1), a_record(2)])
    await spool.close()
    damage(*names(tmp_path))
    spool = Spool(tmp_path, quota=1_000_000)
    spool.open()
    assert await all_of(spool) == [a_record(2)]
    assert [path.suffix for path in names(tmp_path)] == [DAMAGED]
    await spool.close()


async def test_one_folder_has_one_gateway(tmp_path: Path) -> None:
    first = Spool(tmp_path, quota=1_000)
    first.open()
    with pytest.raises(Misconfigured, match="another gateway"):
        Spool(tmp_path, quota=1_000).open()
    await first.close()
    Spool(tmp_path, quota=1_000).open()


def test_a_segment_s_name_tells_its_place_and_time() -> None:
    segment = Segment(Path("000000000012-1790000000500.spool"), 1)
    assert (segment.number, segment.begun_at) == (12, 1_790_000_000.5)
