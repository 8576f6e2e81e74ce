"""Incidents of data over the whole book: what of the rules holds, in words, and which days are to be read otherwise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from services.health import phrases, tracking
from services.health.alerts import Finding, Words
from services.health.episodes import Name
from services.health.rules import Rules, SourceSilent, TrackingBreak
from services.health.settings import Language
from services.health.tracking import Break, Day, Silence
from shared.times import instant

Hours = Mapping[tuple[str, bool], Collection[tuple[date, int, int]]]
"""Days, bits of their hours, and of those what came live, by source and whether it is use of the product."""


@dataclass(frozen=True, slots=True)
class Found:
    """Which incidents hold, and all breaks there have been."""

    holding: Mapping[Name, Finding]
    breaks: tuple[Break, ...]


def found(
    days: Mapping[date, Day], hours: Hours, until: datetime, rules: Rules, language: Language,
    judged: int = tracking.JUDGED_DAYS,
) -> Found:  # fmt: skip
    """What holds by the counts up to a whole hour, of so many days: a function of them alone, whoever asks and when."""
    holding: dict[Name, Finding] = {}
    breaks: dict[Break, None] = {}
    last = until.date() - timedelta(days=1)
    for name, rule in rules.rules.items():
        if isinstance(rule, TrackingBreak) and rule.enabled:
            for one in tracking.breaks(days, last, rule, judged):
                breaks[one] = None
                if one.until is None:
                    tell = partial(_of_feature, one, days, last, language)
                    holding[name, one.name] = Finding(name, one.name, True, tell)
        elif isinstance(rule, SourceSilent) and rule.enabled:
            for silence, source, used, live in _silences(hours, until, rule, judged):
                span = tracking.days_of(silence)
                if used and span is not None and span[0] < until.date():
                    breaks[Break("source", source, *span)] = None
                if silence.until is None and live:  # the end of an import is no silence
                    tell = partial(_of_source, source, silence, used, language)
                    holding[name, source] = Finding(name, source, True, tell)
    return Found(holding, tuple(sorted(breaks, key=lambda one: (one.since, one.what, one.name))))


def breaks_at(days: Mapping[date, Day], hours: Hours, at: datetime, rules: Rules) -> tuple[Break, ...]:
    """Where data broke on the way, by what happened up to T."""
    return found(days, hours, at.astimezone(UTC).replace(minute=0, second=0, microsecond=0), rules, "en").breaks


def _silences(
    hours: Hours, until: datetime, rule: SourceSilent, judged: int
) -> Iterable[tuple[Silence, str, bool, bool]]:
    """Of all that a source sends, then of its use (so that is what is told); whether its last word came live."""
    now, first = tracking.hour_of(until), until.date() - timedelta(days=judged + 7 * tracking.REACH_WEEKS)
    for source in sorted({name for name, _ in hours}):
        known = {used: [one for one in hours.get((source, used), ()) if one[0] >= first] for used in (True, False)}
        for used, masks in ((False, known[True] + known[False]), (True, known[True])):
            heard = tracking.hours_of((day, mask) for day, mask, _ in masks)
            live = tracking.hours_of((day, mask) for day, _, mask in masks)
            for one in tracking.silences({hour for hour in heard if hour < now}, now, rule):
                yield one, source, used, one.last in live


def _of_feature(one: Break, days: Mapping[date, Day], last: date, language: Language) -> Words:
    level = tracking.level_of(one, days, last)
    said: dict[str, Any] = {"it": one.name, "n": level.seen, "usual": round(level.expected), "day": one.since,
                            "last": last}  # fmt: skip
    evidence = {"feature": one.name, "since": one.since.isoformat(), "day": last.isoformat(), "accounts": level.seen,
                "accounts_usual": round(level.expected, 6)}  # fmt: skip
    return Words(phrases.text("tracking_break.title", language, **said),
                 phrases.text("tracking_break.why", language, **said), evidence)  # fmt: skip


def _of_source(source: str, silence: Silence, used: bool, language: Language) -> Words:
    last = tracking.time_of(silence.last)
    said: dict[str, Any] = {"it": source, "last": f"{last:%Y-%m-%d %H}:00", "missed": round(silence.missed),
                            "week": round(silence.a_week)}  # fmt: skip
    why = phrases.text("source_silent.why", language, **said)
    evidence = {"source": source, "last_hour": instant(last), "hours_missed": round(silence.missed, 6),
                "hours_a_week": round(silence.a_week, 6), "use": used}  # fmt: skip
    mute = phrases.text("source_silent.mute", language) if used else ""
    return Words(phrases.text("source_silent.title", language, **said), why + mute, evidence)
