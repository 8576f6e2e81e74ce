"""What counts as the same event."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.runtime.identity import UNDATED, hour_inside, identity, instant_of

HOUR = 3_600_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30), timezones=st.just(UTC))
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def of(own_time: str | None, event_id: str = "a-1", source: str = "hune") -> tuple[int, int]:
    return identity(source, event_id, own_time)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T17:22:01.250Z",
        "2026-11-22T17:22:01.250000Z",
        "2026-11-22T17:22:01.2500009Z",
        "2026-11-22t17:22:01.25z",
        "2026-11-22 17:22:01,250+00:00",
        "2026-11-22T18:22:01.250+01:00",
        "2026-11-22T18:22:01.250+0100",
        "2026-11-22T12:22:01.250-05",
        "2026-11-22T17:22:01.25",
        "20261122T172201.250Z",
        " 2026-11-22 17:22:01.250 UTC ",
        "1795368121.25",
        "1795368121250",
        "1795368121250000",
        "1795368121250000999",
    ],
)
def test_one_instant_written_differently_is_one_identity(text: str) -> None:
    assert of(text) == of("2026-11-22T17:22:01.250Z")
    assert instant_of(text) == 1795368121_250000


def test_another_time_or_id_or_source_is_another_event() -> None:
    same = of("2026-11-22T17:22:01Z")
    others = {
        of("2026-11-22T17:22:01.000001Z"),
        of("2026-11-22T17:22:01Z", event_id="a-2"),
        of("2026-11-22T17:22:01Z", source="stripe"),
        of("2026-11-22T17:22:01Z", event_id="", source="hunea-1"),
        of(None),
    }
    assert len(others) == 5
    assert same not in others
    assert of("2026-11-22T17:22:01Z") == same


@pytest.mark.parametrize(
    "text",
    [None, "", "yesterday", "2026-13-01T00:00:00Z", "2026-02-30", "2026-11-22T24:00:00Z", "2026-11-22T17:61:00Z",
     "2026-11-22T17:22:61Z", "2026-11-22T17:22:01+24:00", "0000-01-01T00:00:00Z", "٢٠٢٦-11-22T17:22:01Z", "1e9",
     "9" * 21, "2026-11-22T17:22:0\uff11Z", "2026-11-22T17:22:01Z2", "--5", "2026-11-22T17:22:01.Z"],
)  # fmt: skip
def test_a_time_that_cannot_be_read_is_none(text: str | None) -> None:
    of("2026-11-22T17:22:01Z")  # its minute is remembered now
    assert of(text) == of(None)
    assert of(text)[1] == UNDATED


@given(moments, offsets, st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]))
def test_the_instant_is_exact_however_it_is_written(moment: datetime, offset: timezone, digits: str) -> None:
    microseconds = (moment - EPOCH) // timedelta(microseconds=1)
    for text in (moment.isoformat(), moment.isoformat().replace("+00:00", "Z"), moment.astimezone(offset).isoformat()):
        for _ in range(2):  # read, then remembered
            assert instant_of(text) == microseconds
            assert of(text) == of(moment.isoformat())
            assert of(text)[1] == microseconds // HOUR
    shorter = moment.isoformat(timespec=digits).replace("+00:00", "Z")
    exact = datetime.fromisoformat(shorter)
    assert of(shorter) == of(exact.isoformat())
    assert of(shorter)[1] == (exact - EPOCH) // timedelta(hours=1)


@given(st.integers(10**8, 10**11 - 1), st.integers(0, 999))
def test_epochs_are_told_apart_by_their_size(seconds: int, milliseconds: int) -> None:
    exact = seconds * 1_000_000 + milliseconds * 1_000
    assert instant_of(f"{seconds}.{milliseconds:03d}") == exact
    assert instant_of(f"{seconds}{milliseconds:03d}") == exact
    assert instant_of(f"{seconds}{milliseconds:03d}000") == exact
    assert instant_of(f"{seconds}{milliseconds:03d}000000") == exact


def test_a_leap_second_is_in_the_hour_that_it_begins() -> None:
    of("2016-12-31T23:59:59Z")
    assert of("2016-12-31T23:59:60Z") == of("2017-01-01T00:00:00Z")


def test_everything_before_1970_is_filed_under_the_first_hour() -> None:
    assert of("1969-12-31T23:59:59Z")[1] == of("0001-01-01T00:00:00Z")[1] == of("-5")[1] == 0
    assert of("1969-12-31T23:59:59Z") == of("-1")
    assert of("1969-12-31T23:59:59Z") != of("1970-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("event_id", "moment"),
    [
        ("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", "2022-02-22T19:22:22Z"),
        ("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "2022-02-22T19:22:22Z"),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "2016-07-30T23:54:10Z"),
        ("0ujtsYcgvSTl8PAuAdqWYSMnLOv", "2017-10-10T04:00:47Z"),
    ],
)
def test_without_a_time_of_its_own_an_event_is_filed_under_the_time_inside_its_id(event_id: str, moment: str) -> None:
    assert of(None, event_id)[1] == of(moment)[1]
    assert of(None, event_id)[0] != of(moment, event_id)[0]


@given(st.uuids(version=4) | st.uuids(version=1))
def test_a_random_uuid_has_no_time_inside(event_id: uuid.UUID) -> None:
    assert hour_inside(str(event_id)) == UNDATED
    assert hour_inside(event_id.hex) == UNDATED


@pytest.mark.parametrize(
    "event_id",
    ["", "evt_1NG8Du2eZvKYlo2CUI79vXWy", "ZZZZZZZZZZZZZZZZZZZZZZZZZZ", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
     "01ARZ3NDEKTSV4RRFFQ69G5FAU", "zzzzzzzzzzzzzzzzzzzzzzzzzzz", "FFFFFFFF-FFFF-7FFF-8FFF-FFFFFFFFFFFF"],
)  # fmt: skip
def test_an_id_that_tells_no_likely_time_has_none(event_id: str) -> None:
    assert hour_inside(event_id) == UNDATED


@given(st.text(), st.text(), st.none() | st.text())
def test_any_text_has_an_identity(source: str, event_id: str, own_time: str | None) -> None:
    number, hour = identity(source, event_id, own_time)
    assert 0 <= number < 2**64
    assert hour >= UNDATED
    assert identity(source, event_id, own_time) == (number, hour)
