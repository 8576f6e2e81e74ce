"""What voice decided: what each comment is about and how it sounds, and what accounts ask the product for."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime

from shared.events.base import Event, Identifier, Money, ResultEvent
from shared.events.inputs import Severity

VoiceSource = Literal["survey", "ticket", "call", "csm", "feedback", "request", "message", "meeting", "churn"]
VoiceKind = Literal["defect", "gap", "usability", "docs", "price", "service", "praise", "other"]
Mood = Literal["positive", "negative", "neutral", "mixed"]
MismatchKind = Literal["risk_behind_high_score", "complaint_behind_high_score", "praise_behind_low_score"]


class ThemeLabel(Event):
    """One theme of a comment, how sure (0 to 1), and the mood (-1 to 1) of the clauses that name it."""

    theme: str
    parent: str
    confidence: float
    sentiment: float


class VoiceItemRecorded(ResultEvent, type="voice_item.recorded"):
    """What is known of a comment after it was said, corrected, retracted, relabelled or read by newer rules.

    `themes` is what counts: a person's labels if there are any, else the rule's, which stay in `rule_themes`.
    `sentiment` is null in a language that has no lexicon; `unlabelled` says why there is no theme.
    `quote` is the beginning of the words; the whole comment stays in voice's own database.
    """

    account_id: Identifier
    item_id: str
    change: Literal["recorded", "corrected", "retracted", "relabelled", "reread"]
    source: VoiceSource
    said_at: AwareDatetime
    user_id: Identifier | None
    product_area: str | None
    language: str
    kind: VoiceKind
    severity: Severity | None
    severity_given: bool
    sentiment: float | None
    mood: Mood | None
    themes: tuple[str, ...]
    rule_themes: tuple[ThemeLabel, ...]
    human_themes: tuple[str, ...] | None
    unlabelled: str | None
    score: float | None
    mismatch: MismatchKind | None
    quote: str | None
    rule_version: str
    baseline: bool = False


class FeatureRequestUpdated(ResultEvent, type="feature_request.updated"):
    """An account's wish, all its people's votes in one; the same `request_key` in other accounts is the same wish."""

    account_id: Identifier
    request_key: str
    title: str
    people: tuple[str, ...]
    votes: int
    severity: Severity | None
    product_area: str | None
    arr: Money | None
    currency: str
    arr_reason: str | None
    first_asked_at: AwareDatetime
    last_asked_at: AwareDatetime
    baseline: bool = False
