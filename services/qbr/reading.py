"""What the command line reads of reviews: each as it stood at a time, and how many were held of those due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.qbr import domain, periods, store
from services.qbr.domain import Review
from services.qbr.settings import Policy, load_policy
from shared.db import Connection
from shared.settings import config_dir
from shared.times import instant

CUTS = ("quarter", "segment")


async def export_reviews(
    dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per review as decided up to `as_of` (of `quarter`, moved since `since`); with `by`, completion instead.

    Raises ValueError that names an option it cannot use.
    """
    policy: Policy = options.get("policy") or _policy()
    by = options.get("by")
    if by is not None and by not in CUTS:
        raise ValueError(f"by is {by!r}; it takes {', '.join(CUTS)}")
    quarter = periods.quarter_named(str(options["quarter"]), policy.zone) if options.get("quarter") else None
    since: datetime | None = options.get("since")
    found: list[tuple[Review, datetime, str | None]] = []
    for db in dbs:
        segments = await store.list_segments(db, as_of)
        for review, decided_at in await store.list_reviews(db, as_of):
            if since is not None and decided_at < since:
                continue
            if quarter is None or quarter.starts_at < review.due_at <= quarter.ends_at:
                segment = domain.segment_at(segments.get(review.account_id, []), as_of)
                found.append((review, decided_at, segment))
    if by is not None:
        return _completion(found, by, policy)
    found.sort(key=lambda entry: (entry[0].account_id, entry[0].due_at, entry[0].review_id))
    return [
        review.row() | {"segment": segment, "decided_at": instant(decided_at)} for review, decided_at, segment in found
    ]


def _completion(found: Sequence[tuple[Review, datetime, str | None]], by: str, policy: Policy) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[Review]] = {}
    quarters: dict[str, periods.Period] = {}
    for review, _, segment in found:
        if not review.planned:
            continue
        quarter = periods.period_of(review.due_at - periods.INSTANT, "quarter", policy.zone)
        quarters[quarter.name] = quarter
        key: tuple[str, ...] = (quarter.name,) if by == "quarter" else (quarter.name, segment or "unknown")
        groups.setdefault(key, []).append(review)
    rows = []
    for key in sorted(groups):
        name = {"scope": by, "quarter": key[0]} | ({"segment": key[1]} if by == "segment" else {})
        rows.append(name | domain.completion(groups[key], quarters[key[0]]).row(policy.target_completion))
    return rows


def _policy() -> Policy:
    return load_policy(config_dir()).model


EXPORTS = {"reviews": export_reviews}
