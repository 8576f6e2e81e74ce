"""What the command line reads: exact figures at any T, from the facts alone, and alerts as they were told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from services.health import (
    book_reading,
    comparing,
    facts,
    guidance_reading,
    overrides,
    peers,
    scoring,
    shares,
    store,
    telling,
    usage,
    wording,
)
from services.health.adoption_reading import adoption_rows, time_to_value_rows
from services.health.alert_reading import export_alerts
from services.health.comparing import Comparison
from services.health.domain import Policy, shares_between
from services.health.facts import Facts, Key, Mark
from services.health.family_reading import CUTS, family_rows, scores_by_product, scores_by_user
from services.health.guidance_reading import export_recommendations
from services.health.policy import load_policy
from services.health.revenue_reading import export_revenue
from services.health.settings import read_model
from services.health.usage import Events, Usage, from_bytes, moment
from shared.db import Connection
from shared.errors import Misconfigured
from shared.times import instant

Row = dict[str, Any]

USAGE = f"""
    select account_id, string_agg(body, ''::bytea) as body
      from health_api.usage_v1 t
     where day <= $1 and ($2::text is null or account_id = $2) and {store.OF_THEN.format(at="$3::timestamptz")}
     group by account_id
"""
THINGS = f"""
    select account_id, kind, key, marks::text
      from health_api.things_v1 t
     where ($1::text is null or account_id = $1) and {store.OF_THEN.format(at="$2::timestamptz")}
"""
MERGES = "select merged_account_id, account_id from health_api.merges_v1 where merged_at <= $1"
SHOWN = """
    select told_at, score, band, why, config_hash
      from health_api.scores_v1
     where account_id = $1 and told_at <= $2
     order by told_at desc, n desc
     limit 1
"""
MODEL = "select model::text from health_api.models_v1 where config_hash = $1 limit 1"

_read_marks = msgspec.json.Decoder(tuple[Mark, ...]).decode


async def _load(dbs: Sequence[Connection], as_of: datetime, account_id: str | None = None) -> list[Facts]:
    """All facts of all accounts, or of one, by account."""
    things: dict[str, dict[Key, tuple[Mark, ...]]] = {}
    used: dict[str, tuple[Events, ...]] = {}
    for db in dbs:
        for account, kind, key, marks in await db.fetch(THINGS, account_id, as_of):
            known = things.setdefault(account, {})
            known[kind, key] = (*known.get((kind, key), ()), *_read_marks(marks))
        for account, body in await db.fetch(USAGE, as_of.astimezone(UTC).date(), account_id, as_of):
            used[account] = (*used.get(account, ()), from_bytes(body))
    heard_of = {account for account, known in things.items() if any(kind != "voice" for kind, _ in known)}
    breaks = await book_reading.breaks_at(dbs, as_of, load_policy().rules)
    return peers.with_each_other([
        Facts(account, things.get(account, {}), used.get(account, ()), breaks=breaks)
        for account in sorted({*heard_of, *used})
    ])  # fmt: skip


async def _pictures(dbs: Sequence[Connection], as_of: datetime) -> list[tuple[Facts, facts.Picture]]:
    """Accounts of which anything had happened by T."""
    shown = ((known, facts.picture(known, as_of)) for known in await _load(dbs, as_of))
    return [(known, now) for known, now in shown if now.latest_at is not None]


async def export_accounts(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """One row per account with what is known of it at T."""
    policy = _policy(options)
    rows = []
    for known, now in await _pictures(dbs, as_of):
        profile, score = now.profile, overrides.score_of(known, now, policy.model)
        rows.append(
            {
                "account_id": known.account_id,
                "name": profile.name,
                "segment": profile.segment,
                "stage": profile.stage,
                "plan": profile.plan,
                "parent_id": profile.parent_id,
                "owner": profile.owner,
                "arr": None if profile.arr is None else format(profile.arr, "f"),
                "notice_on": None if profile.notice_on is None else profile.notice_on.isoformat(),
                "timezone": now.zone.key,
                "score": score.score,
                "band": score.band,
                "open_tickets": sum(ticket.is_open for ticket in now.tickets),
                "first_seen_at": _first_seen(known, now),
                "last_seen_at": _utc(now.latest_at),
            }
        )
    return rows


def _first_seen(known: Facts, now: facts.Picture) -> str | None:
    told = [marks for (kind, _), marks in known.things.items() if kind != "voice"]
    times = [mark.at for marks in told for mark in marks if moment(mark.at) <= now.at]
    if now.usage.first_at is not None:
        times.append(now.usage.first_at)
    return _utc(min(times, default=None))


async def export_usage(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """Exact counts per account up to T, or with `by: month` active users over all accounts per UTC month."""
    known = await _load(dbs, as_of)
    by = options.get("by")
    if by == "month":
        return _by_month([events for one in known for events in one.usage], as_of)
    if by is not None:
        raise Misconfigured(f"usage cannot be cut by {by!r}; it takes --by month")
    rows = []
    for one in known:
        totals = usage.totals(Usage.until(one.usage, as_of), as_of)
        if totals is not None:
            rows.append(
                {
                    "account_id": one.account_id,
                    "events": totals.events,
                    "users": totals.users,
                    "features": totals.features,
                    "first_seen_at": _utc(totals.first_at),
                    "last_seen_at": _utc(totals.last_at),
                    "events_last_30d": totals.events_last_30d,
                    "events_prev_90d": totals.events_prev_90d,
                }
            )
    return rows


def _by_month(parts: list[Events], as_of: datetime) -> list[Row]:
    return [
        {
            "month": month.month,
            "mau": month.mau,
            "mean_dau": round(month.mean_dau, 6),
            "dau_mau": None if month.dau_mau is None else round(month.dau_mau, 6),
        }
        for month in usage.months(Usage.until(parts, as_of), as_of)
    ]


async def export_scores(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """The score of every account at T, computed anew from everything known by now; by product and user, too."""
    policy = _policy(options)
    match options.get("by"):
        case None:
            pass
        case "product":
            return await scores_by_product(dbs, await _load(dbs, as_of), as_of, policy, _rounded)
        case "user":
            return await scores_by_user(dbs, await _load(dbs, as_of), as_of, policy, _rounded)
        case other:
            raise Misconfigured(f"scores cannot be cut by {other!r}; they take --by {', '.join(CUTS)}")
    return [
        {
            "account_id": known.account_id,
            **_rounded(overrides.score_of(known, now, policy.model)),
            "config_hash": policy.digest,
            "as_of": _utc(usage.micros(as_of)),
        }
        for known, now in await _pictures(dbs, as_of)
    ]


def _rounded(score: scoring.Score) -> Row:
    return {
        "score": score.score,
        "band": score.band,
        "exact": _six(score.shown),
        "coverage": _six(score.coverage),
        "override": _override(score),
        "profile": score.profile,
        "profile_reason": score.because,
        "uncapped": _six(score.uncapped),
        "caps": [{"cap": name, "at": at} for name, at in score.caps],
        "parts": [
            {
                "measure": part.measure,
                "group": part.group,
                "value": _six(part.value),
                "points": _six(part.points),
                "weight": part.weight,
                "reason": part.reason,
                "as_of": None if part.as_of is None else _utc(usage.micros(part.as_of)),
            }
            for part in score.parts
        ],
    }


async def export_families(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """One row per account that has children: its score as a family's, at T."""
    became = {merged: into for db in dbs for merged, into in await db.fetch(MERGES, as_of)}
    return family_rows(await _pictures(dbs, as_of), _policy(options), became)


async def export_adoption(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """One row per UTC month and feature: who used it of those who used anything."""
    return await adoption_rows(dbs, await _load(dbs, as_of), as_of)


async def export_time_to_value(dbs: Sequence[Connection], as_of: datetime, options: Mapping[str, Any]) -> list[Row]:
    """How long customers take to their first value, those who are not there yet included."""
    return time_to_value_rows(await _load(dbs, as_of), as_of, options)


async def explain(
    dbs: Sequence[Connection],
    account_id: str,
    as_of: datetime,
    config: Path | None = None,
    since_days: int = 30,
    *,
    of_then: bool = False,
) -> Row:
    """The score of an account at T, what weighs on it, and what changed it in the days before.

    `of_then`: under the configuration by which it was last told until T; `shown` is what was told then, whatever
    is computed now. Raises Misconfigured when no event had named the account by then.
    """
    policy = load_policy(model=config)
    shown = await _shown(dbs, account_id, as_of)
    if of_then:
        policy = await _policy_of_then(dbs, account_id, shown, policy, as_of)
    book = await _load(dbs, as_of, None if policy.model.ranked else account_id)
    known = next((one for one in book if one.account_id == account_id), None)
    if known is None or facts.picture(known, as_of).latest_at is None:
        raise Misconfigured(
            f"account {account_id!r} is not known at {_utc(usage.micros(as_of))}; see: hune export accounts"
        )
    now = facts.picture(known, as_of)
    score = overrides.score_of(known, now, policy.model)
    back = as_of - timedelta(days=since_days)
    before = overrides.score_of(known, facts.picture(known, back), policy.model)
    why = shares_between(before, score, policy)
    language = policy.model.language
    answer = telling.score_fields(score, policy)
    recommended = await guidance_reading.open_ones(dbs, account_id, as_of)
    return {
        "account_id": account_id,
        "name": now.profile.name,
        "as_of": _utc(usage.micros(as_of)),
        "config_hash": policy.digest,
        **_rounded(score),
        "why": answer["why"],
        "next_step": await guidance_reading.next_step(dbs, account_id, as_of, recommended),
        "recommendations": recommended,
        "indicators": telling.indicators(score, policy),
        "change": {
            "since": _utc(usage.micros(back)),
            "score": before.score,
            "band": before.band,
            "exact": _six(before.shown),
            "shares": [
                {"cause": name, "kind": shares.kind_of(name), "points": _six(points)}
                for name, points in shares.largest_first(why)
            ],
            "why": overrides.why(before, score, language)
            or wording.why_changed(before, score, why, policy.model, language),
        },
        "shown": shown,
    }


def _override(score: scoring.Score) -> Row | None:
    """What a person said instead of the computed figures, which stand beside it."""
    said = score.overridden
    if said is None:
        return None
    computed = {"score": said.score, "band": said.band, "exact": _six(score.exact)}
    return {"by": said.by, "reason": said.reason, "until": instant(said.until), "computed": computed}


async def _shown(dbs: Sequence[Connection], account_id: str, as_of: datetime) -> Row | None:
    """What was told of an account last until T."""
    rows = [row for db in dbs if (row := await db.fetchrow(SHOWN, account_id, as_of)) is not None]
    if not rows:
        return None
    last = max(rows, key=lambda row: row["told_at"])
    return {**last, "told_at": _utc(usage.micros(last["told_at"]))}


async def _policy_of_then(
    dbs: Sequence[Connection], account_id: str, shown: Row | None, policy: Policy, as_of: datetime
) -> Policy:
    if shown is None:
        raise Misconfigured(f"no score of {account_id!r} had been told by {_utc(usage.micros(as_of))}")
    digest = shown["config_hash"]
    for db in dbs:
        text = await db.fetchval(MODEL, digest)
        if (model := read_model(text)) is not None:
            return Policy(model, policy.rules, digest)
    raise Misconfigured(f"configuration {digest} was not kept, or is of a kind that no longer is; give its --config")


async def compare(
    dbs: Sequence[Connection], as_of: datetime, against: Path, config: Path | None = None
) -> tuple[Policy, Policy, Comparison]:
    """The whole book at T under the installation's configuration (or `config`) and under another file."""
    ours, theirs = load_policy(model=config), load_policy(model=against)
    return ours, theirs, comparing.compare(await _pictures(dbs, as_of), ours.model, theirs.model)


def _policy(options: Mapping[str, Any]) -> Policy:
    return load_policy(model=options.get("config"))


def _six(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _utc(us: int | None) -> str | None:
    return None if us is None else moment(us).isoformat().replace("+00:00", "Z")


EXPORTS = {
    "families": export_families,
    "adoption": export_adoption,
    "time_to_value": export_time_to_value,
    "accounts": export_accounts,
    "usage": export_usage,
    "scores": export_scores,
    "alerts": export_alerts,
    "recommendations": export_recommendations,
    "revenue": export_revenue,
}
