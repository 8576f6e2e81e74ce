"""What the business reviews came to: scheduled, prepared, rescheduled, held, missed."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, JsonValue

from shared.events.base import Identifier, ResultEvent

ReviewKind = Literal["qbr", "ebr", "check_in"]


class Review(ResultEvent):
    """One review of one account; `due_at` is the end of its period, or the later date that was agreed."""

    account_id: Identifier
    review_id: Identifier
    kind: ReviewKind
    period: str
    starts_at: AwareDatetime
    due_at: AwareDatetime
    scheduled_for: AwareDatetime | None
    meeting_id: Identifier | None
    planned: bool
    baseline: bool = False


class ReviewScheduled(Review, type="review.scheduled"):
    """It is due (`scheduled_for` null), or its date is agreed."""


class ReviewRescheduled(Review, type="review.rescheduled"):
    """The date moved, or fell through (`scheduled_for` null); the review is still to be held."""

    previous_for: AwareDatetime | None
    reason: Literal["moved", "cancelled", "no_show"]
    times: int


class ReviewPrepared(Review, type="review.prepared"):
    """The pack is ready; every figure in it names the events it rests on."""

    pack: dict[str, JsonValue]


class ReviewHeld(Review, type="review.held"):
    held_at: AwareDatetime
    sponsor_attended: bool | None


class ReviewMissed(Review, type="review.missed"):
    """Due, the days of grace over, and not held."""

    grace_days: int
