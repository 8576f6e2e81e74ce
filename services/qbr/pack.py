"""The review pack: what an account's quarter looked like, each figure with the events it rests on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.qbr.facts import (
    ONE_WAY,
    SATISFACTION,
    Fact,
    channel_of,
    field_at,
    hours,
    is_two_way,
    of_type,
    statement_of,
    tickets_of,
)
from services.qbr.periods import Period, before
from services.qbr.settings import Policy
from services.qbr.usage import EPOCH, MICROSECOND, Span, Usage
from shared.surveys import Answer, SurveyRules, all_answers, figure, is_unhappy, latest_per_person, months, tallies
from shared.times import instant

NO_USAGE = "no usage of this account is known"
NO_REVENUE = "revenue figures are not kept yet"
NO_CASES = "closed-loop cases are not kept yet; unhappy answers without a contact since are listed instead"
NO_SEATS = "no seats are known: neither account, contract nor subscription names them"
LISTED = 50


@dataclass(frozen=True, slots=True)
class Rules:
    policy: Policy
    surveys: SurveyRules


@dataclass(frozen=True, slots=True)
class Material:
    """What is known of an account; the pack cuts it at its own times.

    `usage` reaches back to the start of the period before; `used_before`: something was used before that.
    """

    facts: Sequence[Fact]
    usage: Usage
    used_before: bool


def build(material: Material, period: Period, at: datetime, rules: Rules) -> dict[str, Any]:
    """The pack of a period as known at `at`: the state at the period's end, with answers corrected up to `at`."""
    end = min(period.ends_at, at + MICROSECOND)
    known = [fact for fact in material.facts if fact.at <= at]
    facts = [fact for fact in known if fact.at < end]
    window = Window(period.starts_at, end)
    earlier = before(period, rules.policy.zone)
    previous = Window(earlier.starts_at, earlier.ends_at)
    return {
        "period": {
            "name": period.name,
            "starts_at": instant(period.starts_at),
            "ends_at": instant(period.ends_at),
            "as_of": instant(at),
            "complete": period.ends_at <= at,
            "compared_with": earlier.name,
        },
        "account": _account(facts),
        "usage": _usage(material, window, previous, rules),
        "adoption": _adoption(material, facts, window, previous, rules),
        "tickets": _tickets(facts, window),
        "satisfaction": _satisfaction(known, window, previous, rules.surveys),
        "touchpoints": _touchpoints(facts, window, end),
        "outcomes": _outcomes(facts, window),
        "open_loops": _open_loops(facts, rules.surveys),
        "revenue": {"value": None, "reason": NO_REVENUE},
    }


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to, not including, `end`."""

    start: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        return self.start <= at < self.end


def source_of(facts: Iterable[Fact]) -> dict[str, Any]:
    """How many events a figure rests on, and the first and last of them."""
    ordered = sorted({fact.order for fact in facts})
    if not ordered:
        return {"events": 0, "first": None, "last": None}
    (first_at, _, first), (last_at, _, last) = ordered[0], ordered[-1]
    return {
        "events": len(ordered),
        "first": {"event_id": first, "at": instant(first_at)},
        "last": {"event_id": last, "at": instant(last_at)},
    }


def _span(span: Span) -> dict[str, Any]:
    if span.first_at is None or span.last_at is None:
        return {"events": 0, "first": None, "last": None}
    return {
        "events": span.events,
        "first": {"event_id": span.first_id, "at": instant(span.first_at)},
        "last": {"event_id": span.last_id, "at": instant(span.last_at)},
    }


def _account(facts: Sequence[Fact]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, types in (("name", ("account.updated",)), ("plan", ("account.updated", "subscription.changed"))):
        fact = field_at(facts, name, *types)
        shown[name] = fact.data[name] if fact else None
    owners = [fact for fact in of_type(facts, "csm.changed") if fact.data.get("role", "csm") == "csm"]
    shown["csm"] = owners[-1].data.get("person_id") if owners else None
    for name in ("ends_on", "notice_on"):
        fact = field_at(facts, name, "contract.changed")
        shown[name] = fact.data[name] if fact else None
    notices = of_type(facts, "churn.notified")
    shown["notice_given"] = instant(notices[-1].at) if notices else None
    shown["source"] = source_of(
        of_type(facts, "account.updated", "subscription.changed", "csm.changed", "contract.changed", "churn.notified")
    )
    return shown


def _usage(material: Material, window: Window, previous: Window, rules: Rules) -> dict[str, Any]:
    usage = material.usage
    if not material.used_before and usage.events(EPOCH, window.end) == 0:
        return {"events": None, "users": None, "by_month": [], "reason": NO_USAGE}
    by_month = []
    for name, start, end in months(window.start, window.end - MICROSECOND, rules.policy.zone):
        part = Window(max(start, window.start), min(end, window.end))
        by_month.append(
            {
                "month": name,
                "complete": end <= window.end,
                "events": usage.events(part.start, part.end),
                "users": usage.users(part.start, part.end),
                "source": _span(usage.span(part.start, part.end)),
            }
        )
    events, users = usage.events(window.start, window.end), usage.users(window.start, window.end)
    events_before, users_before = (
        usage.events(previous.start, previous.end),
        usage.users(previous.start, previous.end),
    )
    return {
        "events": events,
        "users": users,
        "by_month": by_month,
        "period_before": {"events": events_before, "users": users_before},
        "change": {"events": change(events_before, events), "users": change(users_before, users)},
        "source": _span(usage.span(window.start, window.end)),
    }


def change(old: float, new: float) -> dict[str, Any]:
    """In %, of the old value; a period still running is compared as far as it has come."""
    if old == 0:
        return {"value": None, "reason": "nothing in the period before"}
    return {"value": round(100 * (new - old) / old, 6)}


def _adoption(
    material: Material, facts: Sequence[Fact], window: Window, previous: Window, rules: Rules
) -> dict[str, Any]:
    usage = material.usage
    now = usage.by_feature(window.start, window.end)
    then = usage.by_feature(previous.start, previous.end)
    users = usage.users(window.start, window.end)
    known = set(now) | set(then)
    ranked = sorted(now.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    return {
        "features_used": len(now),
        "breadth": _ratio(len(now), len(known), "no feature was used in this or the period before")
        | {"basis": "of the features used in this or the period before (no catalogue)"},
        "features": [
            {"feature": name, "events": events, "users": of_it, "share_of_users": _share(of_it, users)}
            for name, (events, of_it) in ranked[: rules.policy.top_features]
        ],
        "new": sorted(set(now) - set(then)),
        "no_longer_used": sorted(set(then) - set(now)),
        "licence_use": _licence_use(facts, users),
        "source": _span(usage.span(window.start, window.end)),
    }


def _licence_use(facts: Sequence[Fact], users: int) -> dict[str, Any]:
    fact = field_at(facts, "seats", "account.updated", "contract.changed", "subscription.changed")
    seats = fact.data["seats"] if fact else None
    if fact is None or seats is None:
        return {"value": None, "users": users, "seats": None, "reason": NO_SEATS}
    ratio = _ratio(users, seats, "no seat is licensed")
    return ratio | {"users": users, "seats": seats, "source": source_of([fact])}


def _ratio(part: int, whole: int, reason: str) -> dict[str, Any]:
    return {"value": None, "reason": reason} if whole == 0 else {"value": round(100 * part / whole, 6)}


def _share(part: int, whole: int) -> float | None:
    return None if whole == 0 else round(100 * part / whole, 6)


def _tickets(facts: Sequence[Fact], window: Window) -> dict[str, Any]:
    tickets = tickets_of(facts)
    opened = [one for one in tickets if one.opened is not None and window.holds(one.opened.at)]
    solved = [one for one in tickets if one.solved is not None and window.holds(one.solved.at)]
    waiting = [one for one in tickets if one.solved is None]
    severities = Counter(one.severity or "unknown" for one in opened)
    return {
        "opened": len(opened),
        "opened_by_severity": dict(sorted(severities.items())),
        "solved": len(solved),
        "open_at_end": len(waiting),
        "hours_to_solve": hours(one.hours_to_solve for one in solved),
        "source": source_of(
            fact for fact in of_type(facts, "ticket.opened", "ticket.updated", "ticket.solved") if window.holds(fact.at)
        ),
    }


def _satisfaction(facts: Sequence[Fact], window: Window, previous: Window, rules: SurveyRules) -> dict[str, Any]:
    said = of_type(facts, *SATISFACTION)
    answers = all_answers(map(statement_of, said), rules)
    now = _scores((one for one in answers if window.holds(one.at)), rules)
    return {
        "scores": now,
        "period_before": _scores((one for one in answers if previous.holds(one.at)), rules),
        "window": "latest answer per person within the period",
        "source": source_of(fact for fact in said if window.holds(fact.at)),
    } | ({} if now else {"reason": "nobody answered in the period"})


def _scores(answers: Iterable[Answer], rules: SurveyRules) -> list[dict[str, Any]]:
    counts = tallies(latest_per_person(answers))
    measures = sorted(counts, key=lambda measure: (measure.kind, measure.scale))
    return [figure(measure, counts[measure], rules).row() for measure in measures]


def _touchpoints(facts: Sequence[Fact], window: Window, end: datetime) -> dict[str, Any]:
    touches = sorted((fact for fact in facts if is_two_way(fact)), key=lambda fact: fact.order)
    inside = [fact for fact in touches if window.holds(fact.at)]
    sent = [
        fact for fact in of_type(facts, *ONE_WAY, "touchpoint.logged") if not is_two_way(fact) and window.holds(fact.at)
    ]
    last = touches[-1] if touches else None
    return {
        "two_way": len(inside),
        "by_channel": dict(sorted(Counter(channel_of(fact) for fact in inside).items())),
        "one_way": len(sent),
        "last_two_way": None
        if last is None
        else {"at": instant(last.at), "event_id": last.event_id, "channel": channel_of(last)},
        "days_since_two_way": None if last is None else (end - MICROSECOND - last.at) // timedelta(days=1),
        "source": source_of([*inside, *sent]),
    } | ({} if last else {"reason": "no contact in both directions is known"})


def _outcomes(facts: Sequence[Fact], window: Window) -> dict[str, Any]:
    verified = [fact for fact in of_type(facts, "outcome.verified") if window.holds(fact.at)]
    return {
        "verified": [
            {
                "objective": fact.data.get("objective"),
                "value": fact.data.get("value"),
                "unit": fact.data.get("unit"),
                "at": instant(fact.at),
            }
            for fact in verified
        ],
        "source": source_of(verified),
    }


def _open_loops(facts: Sequence[Fact], rules: SurveyRules) -> dict[str, Any]:
    """Tickets still open, and unhappy answers with no contact in both directions since."""
    waiting = [one for one in tickets_of(facts) if one.solved is None]
    touched = max((fact.at for fact in facts if is_two_way(fact)), default=None)
    answers = latest_per_person(all_answers(map(statement_of, of_type(facts, *SATISFACTION)), rules))
    unhappy = [one for one in answers if is_unhappy(one, rules) and (touched is None or one.at > touched)]
    unhappy.sort(key=lambda one: one.order)
    named = {one.event_id for one in unhappy}
    return {
        "tickets": [
            {
                "ticket_id": one.ticket_id,
                "severity": one.severity,
                "opened_at": instant(one.opened.at) if one.opened else None,
            }
            for one in waiting[:LISTED]
        ],
        "tickets_open": len(waiting),
        "unhappy_without_contact": [
            {
                "user_id": one.user_id,
                "kind": one.measure.kind,
                "score": one.score,
                "answered_at": instant(one.at),
                "event_id": one.event_id,
            }
            for one in unhappy[:LISTED]
        ],
        "unhappy": len(unhappy),
        "cases": {"value": None, "reason": NO_CASES},
        "source": source_of(
            [one.opened for one in waiting if one.opened]
            + [fact for fact in of_type(facts, "survey.answered") if fact.event_id in named]
        ),
    }
