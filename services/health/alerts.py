"""Which episodes a picture of an account opens, and which of the open ones are over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from services.health import scoring, wording
from services.health.facts import Picture
from services.health.scoring import Score
from services.health.settings import (
    AnyRule,
    Detractor,
    Language,
    Model,
    PaymentFailed,
    Promoter,
    ScoreBelow,
    ScoreDrop,
    ScoreUnknown,
    Severity,
    Silent,
    SponsorLeft,
    TicketOpen,
    TicketStorm,
    UsageDip,
    UsageGrowth,
)
from services.health.usage import DAY_US, micros, moment

MOST_STOPPED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """An episode that holds: `cause` tells two episodes of one rule apart.

    `enters` tells whether it may open; else it only keeps an open one open. `people` are hashes of users.
    """

    rule: str
    cause: str
    enters: bool
    title: str
    why: str
    evidence: Mapping[str, Any]
    people: tuple[int, ...] = ()
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What a rule may look at: the picture, the score, and the whole-point scores shown lately (day, score)."""

    now: Picture
    score: Score
    shown: Sequence[tuple[date, int]]
    had_score: bool
    model: Model
    language: Language


def findings(name: str, rule: AnyRule, at: Situation) -> Iterator[Finding]:
    """What of a rule holds in a situation."""
    match rule:
        case ScoreBelow() | ScoreDrop() | ScoreUnknown():
            yield from _of_score(name, rule, at)
        case TicketOpen() | TicketStorm():
            yield from _of_tickets(name, rule, at)
        case Detractor() | Promoter():
            yield from _of_answers(name, rule, at)
        case UsageDip() | UsageGrowth():
            yield from _of_trend(name, rule, at)
        case Silent():
            yield from _of_silence(name, rule, at)
        case PaymentFailed():
            yield from _of_invoices(name, at)
        case SponsorLeft():
            yield from _of_contacts(name, rule, at)


def _finding(name: str, when: str, at: Situation, *, cause: str = "", enters: bool = True,
             evidence: Mapping[str, Any], people: Sequence[int] = (), **words: object) -> Finding:  # fmt: skip
    title = wording.text(f"{when}.title", at.language, **words)
    why = wording.text(f"{when}.why", at.language, **words)
    return Finding(name, cause, enters, title, why, evidence, tuple(people))


def _of_score(name: str, rule: ScoreBelow | ScoreDrop | ScoreUnknown, at: Situation) -> Iterator[Finding]:
    score = at.score.score
    if isinstance(rule, ScoreUnknown):
        if score is None:
            coverage = wording.percent(at.score.coverage, at.language)
            lost = wording.missing(at.score.parts, at.model, at.language)
            evidence = {"coverage": round(at.score.coverage, 6)}
            yield _finding(name, "score_unknown", at, enters=at.had_score, evidence=evidence,
                           coverage=coverage, missing=lost)  # fmt: skip
        return
    if score is None:
        if isinstance(rule, ScoreBelow):  # an open episode waits until there is a score again
            yield _finding(name, "score_below", at, enters=False, evidence={}, score=None, parts="")
        return
    parts = wording.weakest(at.score.parts, at.model, at.language)
    if isinstance(rule, ScoreBelow):
        if score < rule.leave:
            evidence = {"score": score, "enter": rule.enter, "leave": rule.leave}
            yield _finding(name, "score_below", at, enters=score < rule.enter, evidence=evidence,
                           score=score, parts=parts)  # fmt: skip
        return
    since = at.now.today - timedelta(days=rule.days)
    high = max((shown for day, shown in at.shown if day >= since), default=score)
    if high - score >= rule.points / 2:
        evidence = {"score": score, "highest": high, "days": rule.days}
        yield _finding(name, "score_drop", at, enters=high - score >= rule.points, evidence=evidence,
                       by=high - score, high=high, days=rule.days, score=score, parts=parts)  # fmt: skip


def _of_tickets(name: str, rule: TicketOpen | TicketStorm, at: Situation) -> Iterator[Finding]:
    now = at.now
    if isinstance(rule, TicketOpen):
        for ticket in now.tickets:
            if ticket.is_open and ticket.severity in rule.severities:
                since = moment(ticket.opened_at)
                evidence = {"ticket_id": ticket.id, "severity": ticket.severity, "opened_at": _utc(ticket.opened_at),
                            "subject": ticket.subject}  # fmt: skip
                yield _finding(name, "ticket_open", at, cause=ticket.id, evidence=evidence, ticket=ticket.id,
                               severity=ticket.severity.upper(), subject=ticket.subject or ticket.id,
                               since=f"{since:%Y-%m-%d %H:%M}")  # fmt: skip
        return
    after = micros(now.at) - rule.days * DAY_US
    recent = [ticket for ticket in now.tickets if ticket.opened_at > after]
    if len(recent) >= rule.leave:
        still = sum(ticket.is_open for ticket in recent)
        listed: dict[str, Any] = {"tickets": [ticket.id for ticket in recent][:20], "days": rule.days}
        yield _finding(name, "ticket_storm", at, enters=len(recent) >= rule.tickets, evidence=listed,
                       n=len(recent), days=rule.days, open=still)  # fmt: skip


def _of_answers(name: str, rule: Detractor | Promoter, at: Situation) -> Iterator[Finding]:
    after = micros(at.now.at) - rule.days * DAY_US
    for answer in at.now.latest_answers("nps"):
        holds = answer.score <= rule.score if isinstance(rule, Detractor) else answer.score >= rule.score
        if holds and answer.at > after:
            evidence = {"answer_id": answer.id, "score": answer.score, "user_id": answer.person, "quote": answer.quote,
                        "answered_at": _utc(answer.at)}  # fmt: skip
            yield _finding(name, rule.when, at, cause=answer.id, evidence=evidence,
                           score=wording.number(answer.score, at.language), day=_day(at, answer.at),
                           quote=f": “{answer.quote}”" if answer.quote else "")  # fmt: skip


def _of_trend(name: str, rule: UsageDip | UsageGrowth, at: Situation) -> Iterator[Finding]:
    ratio, _ = scoring.usual(at.now, rule.trend)
    if ratio is None:
        return
    dips = isinstance(rule, UsageDip)
    if not (ratio < rule.leave if dips else ratio > rule.leave):
        return
    newest, baseline = scoring.levels(at.now, rule.trend)
    if baseline < rule.trend.floor:
        return
    trend, of = rule.trend, wording.text(f"of.{rule.trend.of}", at.language)
    gone = at.now.usage.stopped(at.now.zone, at.now.today, trend.window_days, 1 + trend.baseline_windows)
    people = gone if dips else []
    evidence = {"ratio": round(ratio, 6), "now": newest, "usual": round(baseline, 6), "window_days": trend.window_days,
                "people_stopped": len(people)}  # fmt: skip
    enters = newest > 0 and ratio < rule.enter if dips else ratio > rule.enter  # no use at all is another rule's
    yield _finding(name, rule.when, at, enters=enters, evidence=evidence,
                   people=people[:MOST_STOPPED], of=of, ratio=wording.percent(ratio, at.language), n=newest,
                   days=trend.window_days, baseline=wording.number(baseline, at.language),
                   stopped=wording.text("stopped", at.language, n=len(people)) if people else "")  # fmt: skip


def _of_silence(name: str, rule: Silent, at: Situation) -> Iterator[Finding]:
    last = at.now.usage.last_at
    if last is None:
        return
    since = micros(at.now.at) - last
    if since >= rule.days * DAY_US:
        users = at.now.usage.between(last - rule.before_days * DAY_US, last)["user"].tolist()
        people = sorted({user for user in users if user})
        evidence = {"last_seen_at": _utc(last), "days": since // DAY_US, "people_stopped": len(people)}
        yield _finding(name, "silent", at, enters=since < (rule.days + rule.before_days) * DAY_US, evidence=evidence,
                       people=people[:MOST_STOPPED], n=since // DAY_US, day=_day(at, last))  # fmt: skip


def _of_invoices(name: str, at: Situation) -> Iterator[Finding]:
    for invoice in at.now.invoices:
        if invoice.is_unpaid and invoice.failed_at is not None:
            evidence = {"invoice_id": invoice.id, "amount": invoice.amount, "currency": invoice.currency,
                        "failed_at": _utc(invoice.failed_at)}  # fmt: skip
            amount = f" ({invoice.amount} {invoice.currency or ''})".replace(" )", ")") if invoice.amount else ""
            yield _finding(name, "payment_failed", at, cause=invoice.id, evidence=evidence, invoice=invoice.id,
                           amount=amount, day=_day(at, invoice.failed_at))  # fmt: skip


def _of_contacts(name: str, rule: SponsorLeft, at: Situation) -> Iterator[Finding]:
    after = micros(at.now.at) - rule.days * DAY_US
    people = [contact for contact in at.now.contacts if contact.role in ("champion", "sponsor")]
    remain = sum(contact.left_at is None for contact in people)
    for contact in people:
        if contact.left_at is not None and contact.left_at > after:
            evidence = {"contact_id": contact.id, "role": contact.role, "left_at": _utc(contact.left_at),
                        "remaining": remain}  # fmt: skip
            yield _finding(name, "sponsor_left", at, cause=contact.id, evidence=evidence, contact=contact.id,
                           role=contact.role, day=_day(at, contact.left_at), n=remain)  # fmt: skip


def _utc(us: int) -> str:
    return moment(us).isoformat().replace("+00:00", "Z")


def _day(at: Situation, us: int) -> str:
    return at.now.day_of(us).isoformat()
