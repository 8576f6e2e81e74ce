"""Incidents of data over the whole book: what of the rules holds, in words, and which days are to be read otherwise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from services.health import phrases, tracking
from services.health.alerts import Finding, Words
from services.health.episodes import Name
from services.health.rules import Rules, SourceSilent, TrackingBreak
from services.health.settings import Language
from services.health.tracking import Break, Day, Silence
from shared.times import instant

Hours = Mapping[tuple[str, bool], Iterable[tuple[date, int]]]
"""Days and bits of their hours, by source and whether it is use of the product."""


@dataclass(frozen=True, slots=True)
class Found:
    """Which incidents hold, and all breaks there have been."""

    holding: Mapping[Name, Finding]
    breaks: tuple[Break, ...]


def found(
    days: Mapping[date, Day], hours: Hours, until: datetime, rules: Rules, language: Language,
    known: Collection[Break] = (), judged: int = tracking.JUDGED_DAYS,
) -> Found:  # fmt: skip
    """What holds by the counts up to a whole hour; `known` are the breaks as they were decided before."""
    holding: dict[Name, Finding] = {}
    breaks: dict[Break, None] = {}
    last = until.date() - timedelta(days=1)
    for name, rule in rules.rules.items():
        if isinstance(rule, TrackingBreak) and rule.enabled:
            for one in tracking.breaks(days, last, rule, known, judged):
                breaks[one] = None
                if one.until is None:
                    tell = partial(_of_feature, one, days, last, language)
                    holding[name, one.name] = Finding(name, one.name, True, tell)
        elif isinstance(rule, SourceSilent) and rule.enabled:
            for silence, source, used in _silences(hours, until, rule):
                span = tracking.days_of(silence)
                if used and span is not None and span[0] < until.date():
                    breaks[Break("source", source, *span)] = None
                if silence.until is None:
                    tell = partial(_of_source, source, silence, used, language)
                    holding[name, source] = Finding(name, source, True, tell)
    first = until.date() - timedelta(days=tracking.KEPT_DAYS)
    breaks |= {one: None for one in known if one.what == "source" and one.until is not None and one.since < first}
    return Found(holding, tuple(sorted(breaks, key=lambda one: (one.since, one.what, one.name))))


def _silences(hours: Hours, until: datetime, rule: SourceSilent) -> Iterable[tuple[Silence, str, bool]]:
    """Of all that a source sends, then of its use: so that is what is told."""
    now = tracking.hour_of(until)
    for source in sorted({name for name, _ in hours}):
        use = tracking.hours_of(hours.get((source, True), ()))
        rest = tracking.hours_of(hours.get((source, False), ()))
        for used, heard in ((False, use | rest), (True, use)):
            for one in tracking.silences(heard, now, rule):
                yield one, source, used


def _of_feature(one: Break, days: Mapping[date, Day], last: date, language: Language) -> Words:
    broken = {one.since + timedelta(days=n) for n in range((last - one.since).days + 1)}
    seen, expected = tracking.usual(one.name, last, days, broken) or (0, 0.0)
    said: dict[str, Any] = {"it": one.name, "n": seen, "usual": round(expected), "day": one.since, "last": last}
    evidence = {"feature": one.name, "since": one.since.isoformat(), "day": last.isoformat(), "accounts": seen,
                "accounts_usual": round(expected, 6)}  # fmt: skip
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
