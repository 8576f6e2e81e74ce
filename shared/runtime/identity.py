"""What makes two records the same event: source, id and the time that the client itself gave.

Nothing here may change once ids are stored: another hash or another hour would make every one of them unknown.
"""

from __future__ import annotations

import re
from datetime import date

from xxhash import xxh3_64_intdigest

UNDATED = -1
"""The hour of an event that tells no time of its own."""

_SEED = 0x48554E45
_SECOND = 1_000_000
_HOUR = 3600 * _SECOND
_EPOCH_DAY = date(1970, 1, 1).toordinal()

_RFC3339 = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)"
    r"(?:[Tt ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?"
    r" ?(?:[Zz]|UTC|GMT|([+-])(\d\d)(?::?(\d\d))?)?)?",
    re.ASCII,
)
# Without the leap second, which belongs to the next minute and perhaps to the next hour.
_REST = re.compile(r"([0-5]\d)(?:\.(\d+))?(?:Z|\+00:00)", re.ASCII)
_NUMBER = re.compile(r"(-?)(\d{1,20})(?:\.(\d{1,18}))?", re.ASCII)
# An epoch below 10^11 counts seconds (until the year 5138), below 10^14 milliseconds, and so on.
_UNITS = ((10**11, _SECOND, 1), (10**14, 1000, 1), (10**17, 1, 1), (10**20, 1, 1000))

_UUID7 = re.compile(r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-7[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_KSUID = re.compile(r"[0-9A-Za-z]{27}")
_CROCKFORD = {letter: value for value, letter in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_BASE62 = {
    letter: value for value, letter in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
}
_KSUID_EPOCH = 1_400_000_000
_PLAUSIBLE = (1_262_304_000, 4_102_444_800)  # 2010 to 2100, in epoch seconds
_PLAUSIBLE_KSUID = (1_483_228_800, 2_208_988_800)  # 2017 to 2040: any 27 letters and digits read as some KSUID

_MOST_MINUTES = 200_000
_minutes: dict[str, tuple[int, int]] = {}  # `2026-11-22T17:22:` → microseconds, hour
_rests: dict[str, int] = {}  # `01Z`, `01.250Z` → microseconds; at most some 130,000 texts are that short


def identity(source: str, event_id: str, own_time: str | None) -> tuple[int, int]:
    """The 64-bit hash of an event's identity, and the UTC hour (since 1970) of its own time or UNDATED.

    The own time counts as an instant: `10:00Z` and `11:00+01:00` are the same, and no readable time is none.
    Hours before 1970 count as hour 0. An undated id that carries a time inside is filed under that.
    """
    if own_time:
        minute, rest = _minutes.get(own_time[:17]), _rests.get(own_time[17:])
        if minute is not None and rest is not None:
            start, hour = minute
            return xxh3_64_intdigest(f"{source}\0{event_id}\0{start + rest}".encode(), _SEED), hour
        instant = instant_of(own_time)
        if instant is not None:
            hour = max(instant // _HOUR, 0)
            return xxh3_64_intdigest(f"{source}\0{event_id}\0{instant}".encode(), _SEED), hour
    return xxh3_64_intdigest(f"{source}\0{event_id}".encode(), _SEED), hour_inside(event_id)


def instant_of(text: str) -> int | None:
    """Microseconds since 1970 of an RFC 3339 time (no offset: UTC) or of epoch seconds, milli-, micro- or nanoseconds.

    Finer digits are cut off. None if the text is none of these.
    """
    minute = _minutes.get(text[:17])
    if minute is not None:
        rest = _rest_of(text)
        if rest is not None:
            return minute[0] + rest
    text = text.strip()
    number = _NUMBER.fullmatch(text)
    if number is not None:
        return _epoch(*number.groups())
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    year, month, day, hours, minutes, seconds, fraction, sign, off_hours, off_minutes = found.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    h, m, s = int(hours or 0), int(minutes or 0), int(seconds or 0)
    away = int(off_hours or 0) * 60 + int(off_minutes or 0)
    if h > 23 or m > 59 or s > 60 or int(off_hours or 0) > 23 or int(off_minutes or 0) > 59:
        return None
    start = (days * 1440 + h * 60 + m - (-away if sign == "-" else away)) * 60 * _SECOND
    if text[16:17] == ":" and _REST.fullmatch(text, 17):
        if len(_minutes) >= _MOST_MINUTES:
            _minutes.clear()
        _minutes[text[:17]] = start, max(start // _HOUR, 0)
    return start + s * _SECOND + int((fraction or "")[:6].ljust(6, "0"))


def hour_inside(event_id: str) -> int:
    """The UTC hour inside a UUIDv7, a ULID or a KSUID, else UNDATED.

    A random id taken for one of them would only be filed in an odd place: the same id always has the same hour.
    """
    if len(event_id) == 36 and event_id[14] == "7" and _UUID7.fullmatch(event_id):
        seconds, plausible = int(event_id[:8] + event_id[9:13], 16) // 1000, _PLAUSIBLE
    elif len(event_id) == 26 and _ULID.fullmatch(event_id):
        seconds, plausible = _in_base(event_id[:10], _CROCKFORD) // 1000, _PLAUSIBLE
    elif len(event_id) == 27 and _KSUID.fullmatch(event_id):
        seconds, plausible = (_in_base(event_id, _BASE62) >> 128) + _KSUID_EPOCH, _PLAUSIBLE_KSUID
    else:
        return UNDATED
    return seconds // 3600 if plausible[0] <= seconds < plausible[1] else UNDATED


def _rest_of(text: str) -> int | None:
    """Microseconds into its minute of a time in UTC with whole minutes before its 17th letter."""
    found = _REST.fullmatch(text, 17)
    if found is None:
        return None
    seconds, fraction = found.groups()
    rest = int(seconds) * _SECOND + (int(fraction[:6].ljust(6, "0")) if fraction else 0)
    if len(text) <= 24:  # milliseconds at most: finer ones hardly come again
        _rests[text[17:]] = rest
    return rest


def _epoch(sign: str, whole: str, fraction: str | None) -> int | None:
    fraction = fraction or ""
    for limit, times, over in _UNITS:
        if int(whole) < limit:
            microseconds: int = int(whole + fraction) * times // (over * 10 ** len(fraction))
            return -microseconds if sign else microseconds
    return None


def _in_base(text: str, digits: dict[str, int]) -> int:
    value = 0
    for letter in text:
        value = value * len(digits) + digits[letter]
    return value
