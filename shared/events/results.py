"""What the services decided: results, alerts and answers."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import AwareDatetime, JsonValue

from shared.events.base import Event, Identifier, Money, ResultEvent

Band = Literal["red", "amber", "green", "unknown"]
AlertKind = Literal["risk", "opportunity", "data"]
AlertSeverity = Literal["low", "medium", "high", "critical"]


class Part(Event):
    """One measure's say in a score; `points` null with a `reason` when it is not known."""

    measure: str
    group: str
    value: float | None
    points: float | None
    weight: float
    reason: str | None = None
    as_of: AwareDatetime | None = None


class CapOfScore(Event):
    """A cap that holds: the score is at most `at`."""

    cap: str
    at: float


class ScoreOverride(Event):
    """What a person said instead of the computed score, why and until when; `score`, `band`, `exact` were computed."""

    by: str
    reason: str
    until: AwareDatetime
    score: int | None
    band: Band
    exact: float | None


class Score(Event):
    """0 to 100, 100 = healthy; null below the coverage floor (band `unknown`).

    `profile` is whose weights and scales were used, `uncapped` the exact score before `caps`.
    """

    score: int | None
    band: Band
    exact: float | None
    coverage: float
    parts: tuple[Part, ...]
    profile: str = "default"
    profile_reason: str | None = None
    uncapped: float | None = None
    caps: tuple[CapOfScore, ...] = ()
    override: ScoreOverride | None = None


class ShareOfChange(Event):
    """What one cause contributed to a change, in points; the shares sum to the change.

    `kind`: a measure by its name, a cap, another profile or configuration, an override.
    """

    cause: str
    points: float
    kind: Literal["measure", "cap", "profile", "config", "override", "member"] = "measure"


class ChildScored(Event, type="health.child_scored"):
    """Internal: what a child account brings into its parent's score; `below` is everybody below the child.

    `left`: it has another parent now, or none.
    """

    child_id: Identifier
    points: float | None
    band: Band
    arr: Money | None
    below: tuple[str, ...] = ()
    baseline: bool = False
    left: bool = False


class DayOfPart(Event):
    """Use on a UTC day in one part of the book: accounts with any, and accounts per feature."""

    day: date
    active: int
    features: dict[str, int]


class HoursOfSource(Event):
    """When a source sent on a UTC day, in one part of the book: a bit per hour; `used`: use of the product.

    `live`: of these hours, those in which something came live, not of a run.
    """

    source: str
    used: bool
    day: date
    hours: int
    live: int = 0


class PartCounted(Event, type="health.part_counted"):
    """Internal: what a partition counted; up to `until` it is complete (null: more follows)."""

    part: int
    until: AwareDatetime | None
    days: tuple[DayOfPart, ...] = ()
    hours: tuple[HoursOfSource, ...] = ()


class BreakOfData(Event):
    """UTC days on which use of a feature, or all of a source's, did not arrive; `until` null: it lasts."""

    what: Literal["feature", "source"]
    name: str
    since: date
    until: date | None = None


class DataJudged(Event, type="health.data_judged"):
    """Internal, to every partition: where data broke on the way, over the whole book; news from the day `since` on."""

    breaks: tuple[BreakOfData, ...] = ()
    since: date | None = None


class FamilyScoreChanged(ResultEvent, type="family_score.changed"):
    """The score of an account with children moved, as it follows from theirs and its own.

    `shares`: what each member contributed to the change of the exact score.
    """

    account_id: Identifier
    previous_score: int | None
    previous_band: Band | None
    score: int | None
    band: Band
    exact: float | None
    by: Literal["mean", "arr_weighted", "share_in_band", "worst"]
    members: int
    scored: int
    reason: str | None = None
    shares: tuple[ShareOfChange, ...] = ()
    baseline: bool = False


class HealthScoreChanged(ResultEvent, type="health_score.changed"):
    """An account's health score moved by at least a point, or into another band.

    `shown_band` stays until it is left for good; the bands of the scores are plain.
    """

    account_id: Identifier
    previous: Score | None
    current: Score
    shares: tuple[ShareOfChange, ...]
    why: str
    shown_band: Band | None = None
    baseline: bool = False
    next_step: str | None = None
    """Of the most severe open alert, else the first recommendation."""


class ContextPart(Event):
    """What one measure costs the score: `lost` points more if it were perfect."""

    measure: str
    label: str
    value: str
    lost: float


class RestoreStep(Event):
    """What one measure must reach; `to_value` null where its points do not come from its value alone."""

    measure: str
    label: str
    value: str
    to_value: str | None
    points: float
    to_points: float


class LastTouch(Event):
    """The last contact that went both ways, and which of our people had it."""

    at: AwareDatetime
    by: str | None
    via: str | None


class ContextContact(Event):
    contact_id: str
    role: str


class AlertContext(Event):
    """What its reader should know of the account, as it stood when this was told.

    `restore` is the smallest change that lifts the score to `restored_score`, `restore_text` says it in words.
    """

    name: str | None
    owner: str | None
    segment: str | None
    arr: Money | None
    score: int | None
    band: Band
    previous_score: int | None
    previous_band: Band | None
    coverage: float
    caps: tuple[str, ...] = ()
    notice_on: str | None
    days_to_notice: int | None
    last_touch: LastTouch | None
    contacts: tuple[ContextContact, ...]
    rule: str
    parts: tuple[ContextPart, ...]
    restore: tuple[RestoreStep, ...]
    restored_score: int | None
    restore_text: str | None


class Alert(ResultEvent):
    """One episode of one rule for one account; all its events carry the same `alert_id`."""

    account_id: Identifier
    alert_id: Identifier
    service: str
    rule: str
    kind: AlertKind
    severity: AlertSeverity
    title: str
    why: str
    next_step: str | None = None
    evidence: dict[str, JsonValue] = {}


class AlertOpened(Alert, type="alert.opened"):
    """`baseline`: found by a first import or a replay; known, but no reason to wake anybody."""

    baseline: bool = False
    context: AlertContext | None = None


class AlertEscalated(Alert, type="alert.escalated"):
    """It became more severe: its cause grew, or nobody acknowledged it for too long."""

    previous_severity: AlertSeverity | None = None
    opened_at: AwareDatetime | None = None
    baseline: bool = False
    context: AlertContext | None = None


class AlertReminded(Alert, type="alert.reminded"):
    """Its snooze ended, and its cause is still there."""

    opened_at: AwareDatetime


class AlertResolved(Alert, type="alert.resolved"):
    """Its cause is gone, or a person (`by`) closed it. `baseline`: nobody was woken for it before."""

    opened_at: AwareDatetime
    baseline: bool = False
    by: str | None = None
    note: str | None = None


class AlertAction(ResultEvent):
    """What a person did about an alert."""

    account_id: Identifier
    alert_id: Identifier
    service: str
    rule: str
    by: str | None
    note: str | None = None


class AlertAcknowledged(AlertAction, type="alert.acknowledged"):
    """Somebody looks after it: it is no longer escalated."""


class AlertSnoozed(AlertAction, type="alert.snoozed"):
    """Nobody wants to hear of it `until` then, or (null) until it grows worse or is over."""

    until: AwareDatetime | None


class AlertRated(AlertAction, type="alert.rated"):
    """Whether it was of use, and what the reader made of it."""

    useful: bool
    verdict: Literal["acted", "noise", "early"] | None = None


class Recommendation(ResultEvent):
    """A feature that an account is entitled to and does not use; its events carry the same `recommendation_id`."""

    account_id: Identifier
    recommendation_id: Identifier
    feature: str


class RecommendationMade(Recommendation, type="recommendation.made"):
    """Of `peers` other green accounts of the segment that are entitled to it, `peers_using` use it.

    `share` is what of them, `share_low` its lower end at 95 %: recommendations come in its order. `baseline`: found by
    a first look, a run or a replay.
    """

    segment: str | None
    peers: int
    peers_using: int
    share: float
    share_low: float
    unused_days: int
    why: str
    next_step: str
    baseline: bool = False


class RecommendationDismissed(Recommendation, type="recommendation.dismissed"):
    """Somebody wants none of it: it is not made again before `until`."""

    made_at: AwareDatetime
    by: str | None
    note: str | None = None
    until: AwareDatetime


class RecommendationAdopted(Recommendation, type="recommendation.adopted"):
    """The feature was used on `days_used` days since it was recommended."""

    made_at: AwareDatetime
    days_used: int
    baseline: bool = False


class RecommendationWithdrawn(Recommendation, type="recommendation.withdrawn"):
    """It holds no longer, for the reason given."""

    made_at: AwareDatetime
    reason: Literal["not_entitled", "used_before", "peers_left", "expired", "switched_off", "merged"]
    baseline: bool = False


class FeatureCount(Event):
    """Of so many accounts that are entitled to a feature, so many use it."""

    entitled: int
    using: int


class FeaturesCounted(Event, type="health.features_counted"):
    """Internal: of a partition's green accounts, by segment ('': none) and feature, as of a day."""

    of_partition: int
    partitions: int
    day: date
    window_days: int
    segments: dict[str, dict[str, FeatureCount]]


class PeerValues(Event):
    """Values of a measure in order, of `n` accounts; each stands for n ÷ their number."""

    n: int
    values: tuple[float, ...]


class PeersCounted(Event, type="health.peers_counted"):
    """Internal: what a partition's accounts brought into a day's distributions, by measure and segment ('': all)."""

    of_partition: int
    partitions: int
    day: date
    model: str
    measures: dict[str, dict[str, PeerValues]]


class AccountState(Event, type="account.state"):
    """The latest known of an account, for whoever joins late (compacted)."""

    account_id: Identifier
    name: str | None
    score: int | None
    band: Band
    segment: str | None
    stage: str | None
    owner: str | None
    arr: Money | None
    notice_on: str | None
    as_of: AwareDatetime
    shown_band: Band | None = None
    parent_id: str | None = None
    merged_into: Identifier | None = None
    """The account that it became; this is then its last state."""


class PrivacyRecorded(ResultEvent, type="privacy.recorded"):
    """What was asked about a person and is in force; `person` is the SHA-256 of the user id."""

    person: Identifier
    suppressed: bool
    erased_to: AwareDatetime | None


class RequestAnswered(ResultEvent, type="request.answered"):
    """The answer to a request; `as_of` says how far the figures reach."""

    request_id: Identifier
    demand: str
    as_of: AwareDatetime | None
    answer: dict[str, JsonValue]


class RequestDeclined(ResultEvent, type="request.declined"):
    request_id: Identifier
    demand: str | None
    reason: str


class RequestUnclear(ResultEvent, type="request.unclear"):
    """Nobody could tell for sure what was meant: the nearest demands, best first."""

    request_id: Identifier
    confidence: float
    reason: str
    candidates: tuple[str, ...] = ()
