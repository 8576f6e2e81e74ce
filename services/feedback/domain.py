"""What an account's persons say, kept as tallies; changes of its scores; the analysis. Pure.

What an answer is and how a score is computed is in `shared.surveys`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.surveys import (
    Answer,
    Figure,
    Measure,
    Statement,
    SurveyRules,
    all_answers,
    answers_of,
    figure,
    is_unhappy,
    latest_per_person,
    misfit,
    months,
    tallies,
)
from shared.times import instant

Voice = tuple[str, str]
"""Who speaks: ("user", user id), or ("answer", name) for the answers without a person under one name."""
KINDS = ("nps", "csat", "ces")
MOST_UNHAPPY = 50


@dataclass(slots=True)
class Standing:
    """Tallies of one account's voices, and the statements needed to move them.

    `hear` takes statements in any order; the tallies end where a count of all statements would.
    """

    rules: SurveyRules
    counts: dict[Measure, Counter[int]] = field(default_factory=dict)
    names: dict[str, dict[tuple[datetime, str, str], Statement]] = field(default_factory=dict)
    persons: dict[str, set[str]] = field(default_factory=dict)

    def remember(self, statement: Statement) -> bool:
        """Know a statement that the tallies already hold; False: it was known."""
        group = self.names.setdefault(statement.name, {})
        if statement.order in group:
            return False
        group[statement.order] = statement
        if statement.user_id is not None and statement.what == "answered":
            self.persons.setdefault(statement.user_id, set()).add(statement.name)
        return True

    def hear(self, statement: Statement) -> set[Measure]:
        """Add a statement; the measures whose tallies moved."""
        voices = self._voices(statement)
        before = self._contribution(voices)
        self.remember(statement)
        after = self._contribution(voices)
        after.subtract(before)
        moved = {key: by for key, by in after.items() if by}
        for (measure, point), by in moved.items():
            histogram = self.counts.setdefault(measure, Counter())
            histogram[point] += by
            if not histogram[point]:
                del histogram[point]
        return {measure for measure, _ in moved}

    def recount(self) -> None:
        """Make the tallies from the statements alone."""
        everything = (one for group in self.names.values() for one in group.values())
        self.counts = tallies(latest_per_person(all_answers(everything, self.rules)))

    def refusal(self, statement: Statement) -> str | None:
        """Why a correction cannot be of any answer known under its name; None also when none is known yet."""
        given = [one for one in self.names.get(statement.name, {}).values() if one.what == "answered"]
        if statement.score is None or not given:
            return None
        reasons = [misfit(str(one.kind), statement.score, one.scale, self.rules) for one in given]
        return reasons[0] if all(reasons) else None

    def _voices(self, statement: Statement) -> set[Voice]:
        said = [*self.names.get(statement.name, {}).values(), statement]
        users = {one.user_id for one in said if one.what == "answered" and one.user_id is not None}
        return {("answer", statement.name), *(("user", user) for user in users)}

    def _contribution(self, voices: Iterable[Voice]) -> Counter[tuple[Measure, int]]:
        answers: list[Answer] = []
        for sort, who in voices:
            user = who if sort == "user" else None
            names = self.persons.get(who, ()) if sort == "user" else (who,)
            for name in names:
                group = self.names.get(name, {}).values()
                answers += [answer for answer in answers_of(group, self.rules) if answer.user_id == user]
        return Counter((answer.measure, answer.score) for answer in latest_per_person(answers))


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is asked of an account's answers: up to `at`, from `since` on, of one kind or all."""

    at: datetime
    since: datetime | None = None
    kind: str | None = None


def within(answers: Iterable[Answer], since: datetime | None) -> list[Answer]:
    return [answer for answer in answers if since is None or answer.at >= since]


def figures(counts: Mapping[Measure, Mapping[int, int]], rules: SurveyRules, kind: str | None) -> list[Figure]:
    """One figure per measure present, NPS first; a kind asked for that nobody answered is shown with its reason."""
    wanted = [measure for measure in counts if kind in (None, measure.kind)]
    if not wanted:
        kind = kind or "nps"
        wanted = [Measure(kind, rules.of(kind).default_scale)]
    wanted.sort(key=lambda measure: (KINDS.index(measure.kind), measure.scale))
    return [figure(measure, counts.get(measure, {}), rules) for measure in wanted]


def analyse(statements: Iterable[Statement], ask: Analysis, rules: SurveyRules) -> dict[str, Any]:
    """The answer to `feedback.analysis`: scores over all answers, by month, and who is unhappy now."""
    standing = all_answers(statements, rules, ask.at)
    answers = within((one for one in standing if ask.kind in (None, one.measure.kind)), ask.since)
    now = latest_per_person(answers)
    return {
        "since": None if ask.since is None else instant(ask.since),
        "answers": len(answers),
        "persons": len({answer.user_id for answer in now if answer.user_id is not None}),
        "without_person": sum(answer.user_id is None for answer in now),
        "window": "latest answer per person up to as_of" if ask.since is None else "latest per person since `since`",
        "scores": [one.row() for one in figures(tallies(now), rules, ask.kind)],
        "by_month": by_month(answers, ask.at, rules),
        "unhappy": unhappy(now, rules),
    }


def by_month(answers: list[Answer], at: datetime, rules: SurveyRules) -> list[dict[str, Any]]:
    """Each month on its own: the latest answer per person within it; the month of `at` is not complete."""
    if not answers:
        return []
    rows = []
    first, last = min(answer.at for answer in answers), max(answer.at for answer in answers)
    for name, start, end in months(first, last, rules.zone):
        counts = tallies(latest_per_person(answer for answer in answers if start <= answer.at < end))
        rows += [{"month": name, "complete": end <= at, **one.row()} for one in figures(counts, rules, None) if one.n]
    return rows


def unhappy(now: list[Answer], rules: SurveyRules) -> list[dict[str, Any]]:
    """Who stands at detractor, dissatisfied or effort now, the latest first."""
    found = sorted((one for one in now if is_unhappy(one, rules)), key=lambda one: one.order, reverse=True)
    return [
        {
            "user_id": one.user_id,
            "kind": one.measure.kind,
            "scale": one.measure.scale,
            "score": one.score,
            "answered_at": instant(one.at),
            "event_id": one.event_id,
        }
        for one in found[:MOST_UNHAPPY]
    ]


def segment_at(history: Iterable[tuple[datetime, str, str | None]], at: datetime) -> str | None:
    """The segment in force: of (effective, event id, segment) the latest not after `at`."""
    known = [entry for entry in history if entry[0] <= at]
    return max(known, key=lambda entry: entry[:2])[2] if known else None
