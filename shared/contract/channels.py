"""Which events each topic carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from shared import topics
from shared.events import Event, InputEvent, feedback, known_types, merging, ops, qbr, results, voc
from shared.events.inputs import ClockSet, RequestMade
from shared.topics import Topic

ROUTING = Path(__file__).parents[2] / "config" / "routing.yaml"
PREFIX = "cs"
"""The published contract names topics under the default prefix."""

REPLIES = (results.RequestAnswered, results.RequestDeclined)
DECISIONS: Mapping[str, tuple[type[Event], ...]] = {
    "router": (results.RequestUnclear, *REPLIES, results.PrivacyRecorded),
    "health": (
        results.HealthScoreChanged, results.FamilyScoreChanged,
        results.AlertAcknowledged, results.AlertSnoozed, results.AlertRated,
        results.RecommendationMade, results.RecommendationDismissed, results.RecommendationAdopted,
        results.RecommendationWithdrawn, *REPLIES,
    ),
    "feedback": (feedback.SurveyScoreChanged, *REPLIES),
    "qbr": (
        qbr.ReviewScheduled, qbr.ReviewPrepared, qbr.ReviewRescheduled, qbr.ReviewHeld, qbr.ReviewMissed, *REPLIES,
    ),
    "ops": (ops.AccountSegmented, ops.AccountAssigned, ops.TouchpointDue, *REPLIES),
    "voc": (voc.VoiceItemRecorded, voc.FeatureRequestUpdated, *REPLIES),
}  # fmt: skip
REKEYED: Mapping[str, tuple[type[Event], ...]] = {
    "health": (
        results.ChildScored,
        results.PeersCounted,
        results.FeaturesCounted,
        results.PartCounted,
        results.DataJudged,
        merging.AccountFactsMoved,
    ),
    "feedback": (merging.AccountFactsMoved,),
    "qbr": (merging.AccountFactsMoved,),
    "ops": (ops.ParentStated, ops.RevenueStated, ops.RateStated, ops.GroupSegmented, merging.AccountFactsMoved),
}
EPISODES = (results.AlertOpened, results.AlertEscalated, results.AlertReminded, results.AlertResolved)


def routing(path: Path = ROUTING) -> dict[str, Any]:
    """The shipped routing table."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def inputs() -> list[type[InputEvent]]:
    """What customers' tools may tell, in the order of their names."""
    told = [model for model in known_types().values() if issubclass(model, InputEvent)]
    return sorted((one for one in told if one not in (ClockSet, RequestMade)), key=lambda one: one.type_name)


def carried(routes: Mapping[str, Any]) -> dict[Topic, tuple[type[Event], ...]]:
    """Topic → the events on it, under a routing table. Topics without events of the contract carry none."""
    told = inputs()
    domains: Mapping[str, Sequence[str]] = routes["events"]
    found: dict[Topic, tuple[type[Event], ...]] = {
        topics.RAW_EVENTS: (*told, ClockSet),
        topics.RAW_REQUESTS: (RequestMade,),
    }
    for worker, topic in topics.ROUTED.items():
        concerns = [one for one in told if worker in domains.get(one.type_name, ())]
        found[topic] = (*concerns, RequestMade, ClockSet)
    found |= {topic: DECISIONS[service] for service, topic in topics.RESULTS.items()}
    found |= {topics.ALERTS: EPISODES, topics.STATE_ACCOUNTS: (results.AccountState,)}
    found |= {topic: REKEYED[worker] for worker, topic in topics.INTERNAL.items()}
    return found | dict.fromkeys(topics.POSITIONS.values(), ())


def published_name(topic: Topic) -> str:
    """The topic's name in an installation with the default prefix."""
    return f"{PREFIX}.{topic.name.removeprefix(f'{topics.PREFIX}.')}"


def short(topic: Topic) -> str:
    """`raw.events` of `cs.raw.events.v1`."""
    return published_name(topic).removeprefix(f"{PREFIX}.").removesuffix(".v1")
