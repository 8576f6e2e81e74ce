"""Reviews: learn → decide → save → emit; packs on request and when a review comes up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from services.qbr import domain, periods, store
from services.qbr.domain import Account, Decision, NotPossible, Review, Wish
from services.qbr.facts import KEPT
from services.qbr.pack import Material, Rules, build
from services.qbr.periods import Period
from services.qbr.settings import Policy
from services.qbr.store import Recorded
from services.qbr.usage import drafts_of
from shared import privacy, requests, topics
from shared.config import Loaded
from shared.db import Connection
from shared.events import qbr as events
from shared.runtime.api import Batch, Signal
from shared.runtime.unit import UnitOfWork, partition_for
from shared.surveys import SurveyRules

RESULTS = topics.RESULTS["qbr"]
ACTIONS = ("review.schedule", "review.hold")
NOT_YET = {
    "qbr.success_plan": "success plans are not kept yet; qbr.review gives the account's figures of a quarter",
    "qbr.ebr": "the executive variant is not made yet; qbr.review gives the account's figures of a quarter",
    "plan.update": "success plans are not kept yet, so there is none to update",
}
PACKS_AT_ONCE = 50


@dataclass(slots=True)
class Inbox:
    """A batch by what is to be done with it; `moved`: accounts whose reviews may be decided anew."""

    used: list[tuple[str, int, datetime, str, str | None, str]] = field(default_factory=list)
    facts: list[tuple[Any, ...]] = field(default_factory=list)
    segments: list[tuple[Any, ...]] = field(default_factory=list)
    actions: list[Signal] = field(default_factory=list)
    asked: list[Signal] = field(default_factory=list)
    moved: dict[str, list[Signal]] = field(default_factory=dict)
    privacy: list[Signal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cause:
    """What a decision is recorded under: the account's partition and time, the event behind it; `baseline`: old news.

    `unseen`: ids of events of the batch that come after it, so that where a batch ends decides nothing.
    """

    partition: int
    at: datetime
    ids: tuple[str, ...] = ()
    baseline: bool = False
    unseen: frozenset[str] = frozenset()

    def sees(self, account: Account) -> Account:
        if not self.unseen:
            return account
        return replace(
            account,
            segments=[entry for entry in account.segments if entry[1] not in self.unseen],
            meetings=[one for one in account.meetings if one.event_id not in self.unseen],
        )


class Reviews:
    """The handlers under one configuration."""

    def __init__(self, policy: Loaded[Policy], surveys: Loaded[SurveyRules]) -> None:
        self.rules = Rules(policy.model, surveys.model)
        self.policy = policy.model
        self.digest = f"{policy.digest}-{surveys.digest}"

    async def on_signals(self, batch: Batch, unit: UnitOfWork) -> None:
        inbox = self._sort(batch, unit)
        if inbox.used:
            await store.save_usage(unit.db, drafts_of(inbox.used), unit.seq)
        if inbox.facts:
            await store.save_facts(unit.db, inbox.facts)
        if inbox.segments:
            await store.save_segments(unit.db, inbox.segments)
        if inbox.moved or inbox.actions:
            await self._decide(inbox, unit)
        if inbox.asked:
            await self._answer(inbox.asked, unit)
        await privacy.erase(unit, inbox.privacy, store.ERASE)

    async def tick(self, clocks: Mapping[int, datetime], limit: int, unit: UnitOfWork) -> int:
        """Decide the reviews of the accounts whose time has come."""
        due = await store.list_due(unit.db, clocks, limit)
        if due:
            causes = {
                account_id: [Cause(partition, clocks[partition], baseline=not unit.is_live(partition))]
                for account_id, partition in due.items()
            }
            accounts, numbers = await store.load_accounts(unit.db, due)
            await self._settle(accounts, numbers, causes, {}, unit)
        return len(due)

    def _sort(self, batch: Batch, unit: UnitOfWork) -> Inbox:
        inbox = Inbox()
        used = inbox.used.append
        for signal in batch:
            if signal.type == "usage.tracked":
                data = signal.data
                used(
                    (
                        signal.account_id, signal.partition, signal.occurred_at, signal.id, data.user_id,
                        data.feature or data.event,
                    )
                )  # fmt: skip
            elif signal.type in KEPT:
                inbox.facts.append(_fact(signal))
                if signal.type.startswith("meeting.") and signal.data.kind in domain.MEETINGS:
                    inbox.moved.setdefault(signal.account_id, []).append(signal)
            elif signal.type == "account.segmented":
                inbox.segments.append(_segment(signal))
                inbox.moved.setdefault(signal.account_id, []).append(signal)
            elif signal.type == "request.made":
                self._sort_request(signal, unit, inbox)
            elif signal.type == privacy.REQUESTED:
                inbox.privacy.append(signal)
            else:
                unit.ignore(signal, "says nothing to reviews")
        return inbox

    def _sort_request(self, signal: Signal, unit: UnitOfWork, inbox: Inbox) -> None:
        demand = _demand(signal)
        if demand in NOT_YET:
            unit.decline(signal, NOT_YET[demand])
        elif demand not in ("qbr.review", *ACTIONS):
            unit.decline(
                signal, f"reviews do not know {demand!r}; they answer qbr.review, review.schedule, review.hold"
            )
        elif requests.account_of(signal) is None:
            unit.decline(signal, f"{demand} is about one account: name account_id")
        else:
            (inbox.asked if demand == "qbr.review" else inbox.actions).append(signal)

    async def _decide(self, inbox: Inbox, unit: UnitOfWork) -> None:
        """Decide after each event; accounts whose clock is not known yet wait for the first tick."""
        wishes: dict[str, list[Signal]] = {}
        for signal in inbox.actions:
            wishes.setdefault(str(requests.account_of(signal)), []).append(signal)
        touched = {signal.account_id: signal.partition for signals in inbox.moved.values() for signal in signals}
        touched |= {account_id: signals[0].partition for account_id, signals in wishes.items()}
        waiting = {account_id: at for account_id, at in touched.items() if unit.clock(at) is None}
        if waiting:
            await store.save_due_now(unit.db, waiting)
        causes = {
            account_id: _causes(inbox.moved.get(account_id, []), unit) or _causes(wishes[account_id][:1], unit)
            for account_id in touched
            if account_id not in waiting or account_id in wishes
        }
        if causes:
            accounts, numbers = await store.load_accounts(unit.db, causes)
            await self._settle(accounts, numbers, causes, wishes, unit)

    async def _settle(
        self,
        accounts: Mapping[str, Account],
        numbers: dict[str, int],
        causes: Mapping[str, Sequence[Cause]],
        wishes: Mapping[str, Sequence[Signal]],
        unit: UnitOfWork,
    ) -> None:
        """Decide, carry out what people wish, record, publish, and set when to look again."""
        recorded: list[tuple[Recorded, Cause]] = []
        due: dict[str, datetime | None] = {}
        partitions: dict[str, int] = {}
        for account_id, account in accounts.items():
            reviews = {review.review_id: review for review in account.reviews}
            decided = self._by_cause(account, reviews, causes[account_id], unit)
            decided += self._by_wish(account, reviews, wishes.get(account_id, ()), unit)
            for decision, cause in decided:
                review_id = decision.review.review_id
                numbers[review_id] = numbers.get(review_id, 0) + 1
                recorded.append((Recorded(decision, numbers[review_id], cause.at, cause.partition), cause))
            partition = partition_for(account_id, unit.partitions)
            clock = unit.clock(partition)
            if clock is not None:
                partitions[account_id] = partition
                due[account_id] = domain.next_due(account, reviews.values(), clock, self.policy)
        if recorded:
            await store.save_decisions(unit.db, [one for one, _ in recorded])
            await self._publish(recorded, unit)
        if due:
            await store.save_due(unit.db, due, partitions)

    def _by_cause(
        self, account: Account, reviews: dict[str, Review], causes: Sequence[Cause], unit: UnitOfWork
    ) -> list[tuple[Decision, Cause]]:
        decided: list[tuple[Decision, Cause]] = []
        for cause in causes:
            if unit.clock(cause.partition) is None:
                continue
            seen = replace(cause.sees(account), reviews=list(reviews.values()))
            for decision in domain.decide(seen, cause.at, self.policy):
                reviews[decision.review.review_id] = decision.review
                decided.append((decision, cause))
        return decided

    def _by_wish(
        self, account: Account, reviews: dict[str, Review], wishes: Sequence[Signal], unit: UnitOfWork
    ) -> list[tuple[Decision, Cause]]:
        decided: list[tuple[Decision, Cause]] = []
        for signal in wishes:
            decision = self._carry_out(signal, replace(account, reviews=list(reviews.values())), unit)
            if decision is not None:
                reviews[decision.review.review_id] = decision.review
                decided.append((decision, Cause(signal.partition, unit.now(signal), (signal.id,))))
        return decided

    def _carry_out(self, signal: Signal, account: Account, unit: UnitOfWork) -> Decision | None:
        now = unit.now(signal)
        try:
            action = domain.schedule if _demand(signal) == "review.schedule" else domain.hold
            decision = action(account, _wish(signal), now, self.policy)
        except (NotPossible, requests.Unusable) as error:
            unit.decline(signal, str(error))
            return None
        unit.answer(signal, {"account_id": account.account_id, "review": decision.review.row()}, now)
        return decision

    async def _publish(self, recorded: Sequence[tuple[Recorded, Cause]], unit: UnitOfWork) -> None:
        packs = await self._packs(
            [
                (one.decision.review, domain.covered(one.decision.review, one.at, self.policy.zone), one.at)
                for one, _ in recorded
                if one.decision.what == "prepared"
            ],
            unit.db,
        )
        for one, cause in recorded:
            review = one.decision.review
            event = self._event(one, cause, packs.get(review.review_id))
            unit.emit(
                RESULTS,
                event,
                account_id=review.account_id,
                cause=review.review_id,
                kind=event.type_name,
                ordinal=one.n,
            )

    async def _packs(
        self, wanted: Sequence[tuple[Review, Period, datetime]], db: Connection
    ) -> dict[str, dict[str, Any]]:
        packs: dict[str, dict[str, Any]] = {}
        for start in range(0, len(wanted), PACKS_AT_ONCE):
            some = wanted[start : start + PACKS_AT_ONCE]
            asks = [(review.account_id, period, at) for review, period, at in some]
            for (review, _, _), made in zip(some, await self._build(asks, db), strict=True):
                packs[review.review_id] = made
        return packs

    async def _build(self, asks: Sequence[tuple[str, Period, datetime]], db: Connection) -> list[dict[str, Any]]:
        """Packs of several accounts in three queries."""
        account_ids = {account_id for account_id, _, _ in asks}
        first = min(periods.before(period, self.policy.zone).starts_at for _, period, _ in asks) - timedelta(days=1)
        last = max(period.ends_at for _, period, _ in asks)
        until = max(at for _, _, at in asks)
        facts = await store.load_facts(db, account_ids, until)
        usage, before = await store.load_usage(db, account_ids, first.date(), last.date(), until)
        return [
            build(Material(facts[account_id], usage[account_id], account_id in before), period, at, self.rules)
            for account_id, period, at in asks
        ]

    def _event(self, one: Recorded, cause: Cause, pack: dict[str, Any] | None) -> events.Review:
        decision, review = one.decision, one.decision.review
        common: dict[str, Any] = {
            "account_id": review.account_id,
            "cause_ids": cause.ids,
            "occurred_at": review.held_at if decision.what == "held" and review.held_at else cause.at,
            "computed_at": cause.at,
            "config_hash": self.digest,
            "review_id": review.review_id,
            "kind": review.kind,
            "period": review.period,
            "starts_at": review.starts_at,
            "due_at": review.due_at,
            "scheduled_for": review.scheduled_for,
            "meeting_id": review.meeting_id,
            "planned": review.planned,
            "baseline": cause.baseline,
        }
        if decision.what == "prepared":
            return events.ReviewPrepared(**common, pack=pack or {})
        if decision.what == "held":
            return events.ReviewHeld(**common, held_at=review.held_at, sponsor_attended=review.sponsor_attended)
        if decision.what == "missed":
            return events.ReviewMissed(**common, grace_days=self.policy.grace_days)
        if decision.what == "rescheduled":
            moved = {"previous_for": decision.previous_for, "reason": decision.reason, "times": review.rescheduled}
            return events.ReviewRescheduled(**common, **moved)
        return events.ReviewScheduled(**common)

    async def _answer(self, asked: Iterable[Signal], unit: UnitOfWork) -> None:
        asks: list[tuple[Signal, str, Period, datetime]] = []
        for signal in asked:
            try:
                asks.append((signal, str(requests.account_of(signal)), *self._question(signal, unit.now(signal))))
            except requests.Unusable as error:
                unit.decline(signal, str(error))
        if not asks:
            return
        packs = await self._build([(account_id, period, at) for _, account_id, period, at in asks], unit.db)
        accounts, _ = await store.load_accounts(unit.db, {account_id for _, account_id, _, _ in asks})
        for (signal, account_id, quarter, at), made in zip(asks, packs, strict=True):
            reviews = sorted(accounts[account_id].reviews, key=lambda review: (review.due_at, review.review_id))
            answer: dict[str, Any] = {
                "account_id": account_id,
                "quarter": quarter.name,
                "pack": made,
                "segment": domain.segment_at(accounts[account_id].segments, at),
                "reviews": [review.row() for review in reviews],
                "completion": domain.completion(reviews, quarter).row(self.policy.target_completion),
                "config_hash": self.digest,
            }
            unit.answer(signal, answer, at)

    def _question(self, signal: Signal, now: datetime) -> tuple[Period, datetime]:
        parameters = signal.data.parameters
        at = requests.time(parameters, "as_of") or now
        named = requests.text(parameters, "quarter")
        if named is None:
            return periods.period_of(at, "quarter", self.policy.zone), at
        try:
            quarter = periods.quarter_named(named, self.policy.zone)
        except ValueError as error:
            raise requests.Unusable(f"parameter {error}") from error
        if quarter.starts_at > at:
            raise requests.Unusable(f"quarter {quarter.name} has not begun; ask for one up to now")
        return quarter, at


def _causes(moved: Sequence[Signal], unit: UnitOfWork) -> list[Cause]:
    return [
        Cause(
            signal.partition,
            unit.now(signal),
            (signal.id,),
            baseline=unit.quiet(signal) or not unit.is_live(signal.partition),
            unseen=frozenset(later.id for later in moved[number + 1 :]),
        )
        for number, signal in enumerate(moved)
    ]


def _demand(signal: Signal) -> str:
    return str(signal.demand or signal.data.demand or "")


def _wish(signal: Signal) -> Wish:
    """What a person asks of a review. Raises Unusable."""
    given = signal.data.parameters
    scheduling = _demand(signal) == "review.schedule"
    return Wish(
        request_id=signal.id,
        review_id=requests.text(given, "review_id"),
        kind=requests.text(given, "kind", domain.MEETINGS),
        on=requests.time(given, "scheduled_for" if scheduling else "held_at"),
        sponsor_attended=None if scheduling else requests.flag(given, "sponsor_attended"),
    )


def _fact(signal: Signal) -> tuple[Any, ...]:
    subject, fields = KEPT[signal.type]
    data = signal.data.model_dump(mode="json", include=set(fields), exclude_unset=True)
    about = getattr(signal.data, subject) if subject else None
    return (
        signal.account_id, signal.type, about or signal.id, data, signal.occurred_at, signal.source, signal.id,
        signal.partition,
    )  # fmt: skip


def _segment(signal: Signal) -> tuple[Any, ...]:
    return (signal.account_id, signal.data.segment, signal.occurred_at, signal.id, signal.partition)
