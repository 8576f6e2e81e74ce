"""What the command line reads of feedback: survey scores of the whole book, and cuts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.feedback import domain, store
from services.feedback.domain import KINDS
from services.feedback.settings import load_rules
from shared.db import Connection
from shared.settings import config_dir
from shared.surveys import Answer, Measure, SurveyRules, all_answers, latest_per_person, months, tallies
from shared.times import instant

CUTS = ("account", "segment", "month", "person")
Counts = dict[Measure, Counter[int]]


@dataclass(slots=True)
class Book:
    """Tallies of the whole book and of its cuts; a tally is a sum, so accounts and databases add up."""

    total: Counts = field(default_factory=dict)
    cuts: dict[str, Counts] = field(default_factory=dict)
    persons: list[dict[str, Any]] = field(default_factory=list)

    def add(self, answers: Iterable[Answer], cut: str | None) -> None:
        for measure, histogram in tallies(latest_per_person(answers)).items():
            counts = self.total if cut is None else self.cuts.setdefault(cut, {})
            counts.setdefault(measure, Counter()).update(histogram)


async def export_nps(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Overall rows of the kinds present (or of option `kind`), then by account, segment, month or person if `by` asks.

    Counted are all answers up to `as_of` (from `since` on, if given), the latest per person and account; an answer
    without a person counts by itself. Raises ValueError that names an option it cannot use.
    """
    kind, by = _one_of(options, "kind", KINDS), _one_of(options, "by", CUTS)
    since: datetime | None = options.get("since")
    rules = options.get("rules") or _rules()
    book = Book()
    for db in dbs:
        segments = await store.list_segments(db, as_of) if by == "segment" else {}
        async for account_id, said in store.each_account(db, as_of):
            answers = [
                one for one in domain.within(all_answers(said, rules, as_of), since) if kind in (None, one.measure.kind)
            ]
            book.add(answers, None)
            _cut(book, by, account_id, answers, segments, as_of, rules)
    rows = [_row("all", {}, one.row()) for one in domain.figures(book.total, rules, kind)]
    if by == "person":
        return rows + sorted(
            book.persons, key=lambda row: (row["account_id"], row["user_id"], row["kind"], row["scale"])
        )
    return rows + _cut_rows(book, by, as_of, rules)


def _cut(
    book: Book,
    by: str | None,
    account_id: str,
    answers: list[Answer],
    segments: Mapping[str, list[tuple[datetime, str, str | None]]],
    as_of: datetime,
    rules: SurveyRules,
) -> None:
    if not answers:
        return
    if by == "account":
        book.add(answers, account_id)
    elif by == "segment":
        book.add(answers, domain.segment_at(segments.get(account_id, []), as_of) or "unknown")
    elif by == "month":
        first, last = min(one.at for one in answers), max(one.at for one in answers)
        for name, start, end in months(first, last, rules.zone):
            book.add((one for one in answers if start <= one.at < end), name)
    elif by == "person":
        book.persons += [_person(account_id, one, answers) for one in latest_per_person(answers) if one.user_id]


def _person(account_id: str, latest: Answer, answers: list[Answer]) -> dict[str, Any]:
    given = sum((one.user_id, one.measure) == (latest.user_id, latest.measure) for one in answers)
    return {
        "scope": "person", "account_id": account_id, "user_id": latest.user_id, "kind": latest.measure.kind,
        "scale": latest.measure.scale, "score": latest.score, "answered_at": instant(latest.at),
        "event_id": latest.event_id, "answers": given,
    }  # fmt: skip


def _cut_rows(book: Book, by: str | None, as_of: datetime, rules: SurveyRules) -> list[dict[str, Any]]:
    rows = []
    for cut in sorted(book.cuts):
        name: dict[str, Any] = {"account_id": cut} if by == "account" else {str(by): cut}
        if by == "month":
            start = datetime.strptime(cut, "%Y-%m").replace(tzinfo=rules.zone)
            name |= {"complete": next(months(start, start, rules.zone))[2] <= as_of}
        rows += [_row(str(by), name, one.row()) for one in domain.figures(book.cuts[cut], rules, None) if one.n]
    return rows


def _row(scope: str, name: Mapping[str, Any], figure: Mapping[str, Any]) -> dict[str, Any]:
    """NPS under its own name, the others as `value`."""
    figure = {("nps" if key == "value" and figure["kind"] == "nps" else key): value for key, value in figure.items()}
    return {"scope": scope, **name, **figure}


def _one_of(options: Mapping[str, Any], name: str, allowed: Sequence[str]) -> str | None:
    value = options.get(name)
    if value is not None and value not in allowed:
        raise ValueError(f"{name} is {value!r}; it takes {', '.join(allowed)}")
    return value


def _rules() -> SurveyRules:
    return load_rules(config_dir()).model


EXPORTS = {"nps": export_nps}
