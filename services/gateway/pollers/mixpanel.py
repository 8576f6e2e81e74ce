"""Mixpanel: the raw export, one day a call, NDJSON of any length.

| event | canonical event |
|---|---|
| any | usage.tracked, as of `/import` (`adapters/mixpanel.py`): $mp_web_page_view is page_viewed |
| $identify, $create_alias | user.identified with properties.previousId |

Id: $insert_id, own time: time (s); the same event by `/track` and by the export counts once. Mixpanel repeats events in
an export: without $insert_id, equal lines are one event. Not passed on: the properties that begin with `$` or `mp_`.
Days are the project's: of a project made before 2023 they, and `time`, are in its `timezone`, else UTC. An export that
Mixpanel breaks off ends in a cut line, or in `terminated early`: the whole day is asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

import msgspec

from services.gateway.adapters.mixpanel import event_of
from services.gateway.canonical import Canonical, MissingIds, check_message, own_time
from services.gateway.pollers.base import Ask, Feed, Page, Reading, Step, Torn, reading_of
from services.gateway.settings import Limits
from services.gateway.webhooks.base import Unreadable, object_of

SOURCE = "mixpanel"
FEEDS = ("events",)
LIMITS = Limits(event_bytes=1024 * 1024)
BROKEN_OFF = b"terminated early"
DROPPED: Mapping[str, tuple[str, ...]] = {
    "events": (
        "properties.$browser",
        "properties.$city",
        "properties.$device_id",
        "properties.mp_country_code",
        "properties.mp_processing_time_ms",
    )
}


@dataclass(frozen=True, slots=True)
class MixpanelFeed(Feed):
    name: str = "events"
    project_id: str | None = None
    timezone: str = "UTC"
    history_days: int | None = 30
    tool: ClassVar[str] = SOURCE

    def first(self, start: datetime, until: datetime) -> Step:
        return self._day(start, until)

    def _day(self, at: datetime, until: datetime) -> Step:
        """The project's whole day that holds the instant."""
        zone = ZoneInfo(self.timezone)
        day = at.astimezone(zone).date()
        start, end = (datetime.combine(day + timedelta(days=n), time(), zone).astimezone(UTC) for n in (0, 1))
        return Step(start, end, until)

    def ask(self, step: Step) -> Ask:
        day = step.start.astimezone(ZoneInfo(self.timezone)).date().isoformat()
        query = {"from_date": day, "to_date": day}
        if self.project_id:
            query["project_id"] = self.project_id
        return Ask("/api/2.0/export", query, is_lines=True)

    def read(self, step: Step, body: bytes, *, is_last: bool) -> Page:
        lines = body.split(b"\n")
        if is_last:
            _check_end(lines)
        told = [self._reading(line) for line in lines if line.strip()]
        if not is_last:
            return Page(tuple(told))
        following = self._day(step.end, step.until) if step.end <= step.until else None
        return Page(tuple(told), following, min(step.end, step.until))

    def _reading(self, line: bytes) -> Reading:
        return reading_of(line, self.events)

    def events(self, body: bytes) -> list[Canonical]:
        check_message(msgspec.Raw(body), LIMITS)
        message = object_of(body)
        properties = message.get("properties")
        if not isinstance(properties, dict) or properties.get("time") is None:
            raise Unreadable("properties.time is missing")
        if self.timezone != "UTC":
            message = {**message, "properties": {**properties, "time": self._corrected(properties["time"])}}
        return [event_of(message, datetime(1970, 1, 1, tzinfo=UTC), MissingIds())]

    def _corrected(self, seconds: object) -> object:
        """The instant of a time that counts the seconds of the project's wall clock."""
        own = own_time(seconds, "time")
        if own is None or isinstance(seconds, str):
            return seconds
        return own.at.replace(tzinfo=ZoneInfo(self.timezone)).timestamp()


def _check_end(lines: list[bytes]) -> None:
    """Raise Torn for an export that was broken off."""
    last = lines[-1].strip()
    if last:
        try:
            msgspec.json.decode(last)
        except msgspec.DecodeError:
            raise Torn("the export ends in the middle of a line") from None
    filled = next((line.strip() for line in reversed(lines) if line.strip()), b"")
    if filled == BROKEN_OFF:
        raise Torn("Mixpanel broke the export off")
