"""Feedback: load → hear → save → emit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.feedback import domain, store
from services.feedback.domain import KINDS, Standing
from services.feedback.store import Shown, StatementRow
from shared import privacy, requests, topics
from shared.config import Loaded
from shared.db import Connection
from shared.events.feedback import SurveyFigure, SurveyScoreChanged
from shared.runtime.api import Batch, Signal
from shared.runtime.unit import UnitOfWork
from shared.surveys import Measure, Statement, SurveyRules, figure, misfit

RESULTS = topics.RESULTS["feedback"]
SAID = {"survey.answered": "answered", "survey.corrected": "corrected", "survey.retracted": "retracted"}
INVITED = {"survey.sent": "sent", "survey.bounced": "bounced", "survey.opted_out": "opted_out"}
NOT_YET = {
    "feedback.survey": "Hune does not send surveys yet; send them with your tool and its answers as survey.answered",
    "feedback.closed_loop": "closed-loop cases are not kept yet; feedback.analysis lists who is unhappy now",
}
NO_CASES = "closed-loop cases are not kept yet, so there is none to act on"
WHOLE_BOOK = "feedback.analysis answers for one account: name account_id; for the whole book use `hune export nps`"


@dataclass(slots=True)
class Inbox:
    """A batch by what is to be done with it."""

    said: list[tuple[Signal, StatementRow]] = field(default_factory=list)
    invited: list[tuple[Any, ...]] = field(default_factory=list)
    segments: list[tuple[Any, ...]] = field(default_factory=list)
    asked: list[Signal] = field(default_factory=list)
    privacy: list[Signal] = field(default_factory=list)


class Feedback:
    """The handlers under one configuration."""

    def __init__(self, config: Loaded[SurveyRules]) -> None:
        self.rules = config.model
        self.digest = config.digest

    async def on_signals(self, batch: Batch, unit: UnitOfWork) -> None:
        inbox = self._sort(batch, unit)
        if inbox.said:
            await self._hear(inbox.said, unit)
        if inbox.invited:
            await store.save_invitations(unit.db, inbox.invited)
        if inbox.segments:
            await store.save_segments(unit.db, inbox.segments)
        if inbox.asked:
            await self._reply(inbox.asked, unit)
        await privacy.erase(unit, inbox.privacy, store.ERASE)

    async def tick(self, clocks: Mapping[int, datetime], limit: int, unit: UnitOfWork) -> int:
        """Catch up with what was learnt before the clock was known, and show where each account stands."""
        due = await store.list_due(unit.db, clocks, limit)
        if due:
            standings = await store.load_statements(unit.db, due, self.rules)
            _, shown = await store.load_tallies(unit.db, due)
            for account_id, standing in standings.items():
                standing.recount()
                self._show_baseline(unit, account_id, standing, shown, clocks[due[account_id]])
            await store.save_tallies(unit.db, standings, shown, due)
            await store.save_caught_up(unit.db, due)
        return len(due)

    def _sort(self, batch: Batch, unit: UnitOfWork) -> Inbox:
        inbox = Inbox()
        for signal in batch:
            if signal.type in SAID:
                self._sort_statement(signal, unit, inbox)
            elif signal.type in INVITED:
                inbox.invited.append(_invitation(signal))
            elif signal.type == "account.segmented":
                inbox.segments.append(_segment(signal))
            elif signal.type == "request.made":
                inbox.asked.append(signal)
            elif signal.type == privacy.REQUESTED:
                inbox.privacy.append(signal)
            else:
                unit.ignore(signal, "says nothing about surveys")
        return inbox

    def _sort_statement(self, signal: Signal, unit: UnitOfWork, inbox: Inbox) -> None:
        row = _statement(signal, self.rules)
        one = row.statement
        if one.what == "answered":
            reason = misfit(str(one.kind), one.score or 0, one.scale, self.rules)
            if reason is not None:
                unit.reject(signal, reason)
                return
        elif one.what == "corrected" and one.score is None:
            unit.ignore(signal, "corrects the comment alone")
            return
        inbox.said.append((signal, row))

    async def _hear(self, said: Sequence[tuple[Signal, StatementRow]], unit: UnitOfWork) -> None:
        rows = [row for _, row in said]
        current = [row for signal, row in said if unit.clock(signal.partition) is not None]
        partitions = store.accounts_of(current)
        behind = await store.list_behind(unit.db, partitions) if current else set[str]()
        standings = {row.account_id: Standing(self.rules) for row in rows}
        standings |= await store.load_statements(unit.db, behind, self.rules) if behind else {}
        counts, shown = await store.load_tallies(unit.db, partitions) if current else ({}, {})
        for account_id in partitions:
            if account_id in behind:
                standings[account_id].recount()
            else:
                standings[account_id].counts = counts.get(account_id, {})
        needed = [
            row
            for row in rows
            if row.account_id not in behind and (row.account_id in partitions or row.statement.what == "corrected")
        ]
        if needed:
            await store.load_touched(unit.db, needed, standings)
        for account_id in sorted(behind):
            clock = unit.clock(partitions[account_id])
            assert clock is not None
            self._show_baseline(unit, account_id, standings[account_id], shown, clock)
        kept = self._apply(said, standings, shown, partitions, unit)
        await store.save_statements(unit.db, kept)
        await store.save_tallies(
            unit.db, {account_id: standings[account_id] for account_id in partitions}, shown, partitions
        )
        if behind:
            await store.save_caught_up(unit.db, behind)
        ahead = {row.account_id: row.partition for row in kept if row.account_id not in partitions}
        if ahead:
            await store.save_behind(unit.db, ahead)

    def _apply(
        self,
        said: Sequence[tuple[Signal, StatementRow]],
        standings: Mapping[str, Standing],
        shown: dict[tuple[str, Measure], Shown],
        current: Mapping[str, int],
        unit: UnitOfWork,
    ) -> list[StatementRow]:
        kept = []
        for signal, row in said:
            standing, one = standings[row.account_id], row.statement
            reason = standing.refusal(one) if one.what == "corrected" else None
            if reason is not None:
                unit.reject(signal, reason)
                continue
            kept.append(row)
            if row.account_id not in current:
                standing.remember(one)
                continue
            for measure in _in_order(standing.hear(one)):
                self._show(
                    unit, row.account_id, measure, standing, shown,
                    cause=signal.id, at=signal.occurred_at, now=unit.now(signal), baseline=unit.quiet(signal),
                )  # fmt: skip
        return kept

    def _show_baseline(
        self,
        unit: UnitOfWork,
        account_id: str,
        standing: Standing,
        shown: dict[tuple[str, Measure], Shown],
        clock: datetime,
    ) -> None:
        known = {measure for owner, measure in shown if owner == account_id}
        for measure in _in_order(known | set(standing.counts)):
            standing.counts.setdefault(measure, Counter())
            self._show(unit, account_id, measure, standing, shown, cause=None, at=clock, now=clock, baseline=True)

    def _show(
        self,
        unit: UnitOfWork,
        account_id: str,
        measure: Measure,
        standing: Standing,
        shown: dict[tuple[str, Measure], Shown],
        *,
        cause: str | None,
        at: datetime,
        now: datetime,
        baseline: bool,
    ) -> None:
        """Publish where a measure stands, unless that is what was published last."""
        last = shown.setdefault((account_id, measure), Shown())
        row = figure(measure, standing.counts.get(measure, {}), self.rules).row()
        if row == last.figure:
            return
        event = SurveyScoreChanged(
            account_id=account_id,
            cause_ids=() if cause is None else (cause,),
            occurred_at=at,
            computed_at=now,
            config_hash=self.digest,
            revision=last.revision + 1,
            kind=row["kind"],
            scale=measure.scale,
            previous=None if last.figure is None else SurveyFigure.model_validate(last.figure),
            current=SurveyFigure.model_validate(row),
            baseline=baseline,
        )
        unit.emit(
            RESULTS, event, account_id=account_id, cause=cause or f"{account_id}@{at.isoformat()}",
            kind=f"survey_score.changed:{measure.kind}:{measure.scale}", ordinal=last.revision + 1,
        )  # fmt: skip
        last.figure, last.revision = row, last.revision + 1

    async def _reply(self, asked: Iterable[Signal], unit: UnitOfWork) -> None:
        analyses: list[tuple[Signal, str, domain.Analysis]] = []
        for signal in asked:
            demand = signal.demand or signal.data.demand or ""
            if demand != "feedback.analysis":
                unit.decline(signal, NOT_YET.get(demand) or _refusal(demand))
                continue
            account_id = requests.account_of(signal)
            if account_id is None:
                unit.decline(signal, WHOLE_BOOK)
                continue
            try:
                analyses.append((signal, account_id, _ask(signal, unit.now(signal))))
            except requests.Unusable as error:
                unit.decline(signal, str(error))
        if analyses:
            await self._analyse(analyses, unit)

    async def _analyse(self, analyses: Sequence[tuple[Signal, str, domain.Analysis]], unit: UnitOfWork) -> None:
        for at in sorted({ask.at for _, _, ask in analyses}):
            asked = [one for one in analyses if one[2].at == at]
            standings = await _everything(unit.db, {account_id for _, account_id, _ in asked}, self.rules, at)
            for signal, account_id, ask in asked:
                answer = domain.analyse(standings[account_id], ask, self.rules)
                unit.answer(signal, {"account_id": account_id, **answer, "config_hash": self.digest}, at)


async def _everything(
    db: Connection, account_ids: set[str], rules: SurveyRules, at: datetime
) -> dict[str, list[Statement]]:
    standings = await store.load_statements(db, account_ids, rules, at)
    return {
        account_id: [one for group in standing.names.values() for one in group.values()]
        for account_id, standing in standings.items()
    }


def _ask(signal: Signal, now: datetime) -> domain.Analysis:
    parameters = signal.data.parameters
    at = requests.time(parameters, "as_of") or now
    return domain.Analysis(at, requests.time(parameters, "since"), requests.text(parameters, "kind", KINDS))


def _refusal(demand: str) -> str:
    if demand.startswith("case."):
        return NO_CASES
    return f"feedback does not know {demand!r}; it answers feedback.analysis"


def _in_order(measures: Iterable[Measure]) -> list[Measure]:
    return sorted(measures, key=lambda measure: (measure.kind, measure.scale))


def _statement(signal: Signal, rules: SurveyRules) -> StatementRow:
    data, what = signal.data, SAID[signal.type]
    answered = what == "answered"
    kind = data.kind if answered else None
    statement = Statement(
        name=data.answer_id or signal.id,
        what=what,  # type: ignore[arg-type]  # one of the three by SAID
        at=signal.occurred_at,
        source=signal.source,
        event_id=signal.id,
        named=data.answer_id is not None,
        user_id=data.user_id if answered else None,
        kind=kind,
        score=None if what == "retracted" else data.score,
        scale=(data.scale or rules.of(kind).default_scale) if kind else None,
    )
    beside = (data.survey_id, data.product_area) if answered else (None, None)
    return StatementRow(signal.account_id, signal.partition, statement, *beside)


def _invitation(signal: Signal) -> tuple[Any, ...]:
    data = signal.data
    return (
        signal.account_id, INVITED[signal.type], getattr(data, "survey_id", None), getattr(data, "kind", None),
        data.recipient_id or data.user_id, signal.occurred_at, signal.source, signal.id, signal.partition,
    )  # fmt: skip


def _segment(signal: Signal) -> tuple[Any, ...]:
    return (signal.account_id, signal.data.segment, signal.occurred_at, signal.id, signal.partition)
