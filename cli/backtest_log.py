"""What a model would have told, week by week and month by month, over the history that an installation keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cli.backtest_table import difference_row, lines_of, proposal_row, report_row, verdict
from cli.reading import AsOf, default_as_of
from cli.support import Stores, open_snapshots
from services.health import backtest, fitting_log, hindsight, leaving, proposal
from services.health.backtest_reading import read_history
from services.health.facts import Facts
from services.health.hindsight import Hindsight, Leavings, Window
from services.health.policy import load_policy
from services.health.settings import Model
from shared import config
from shared.errors import Misconfigured
from shared.times import instant

WHAT = "account-months"


async def history(stores: Stores, as_of: datetime | None) -> tuple[list[Facts], AsOf]:
    """Everything that had happened by a time (default: the installation's)."""
    async with open_snapshots(stores) as databases:
        when = AsOf(as_of, "as asked") if as_of else await default_as_of(databases)
        return await read_history(databases, when.at), when


def looked_back(
    book: Sequence[Facts],
    end: datetime,
    horizon_days: int,
    model: Path | None,
    against: Path | None = None,
    since: datetime | None = None,
) -> dict[str, Any]:
    """What a model would have told of who left, and how another one compares.

    Raises Misconfigured when the history is too short, or too few left in it.
    """
    window = _window(book, end, horizon_days, since)
    left = {known.account_id: leaving.leavings(known) for known in book}
    found = _of_model(book, left, window, model)
    sample = hindsight.sample_of(found[1].months)
    row = {
        **_history_row(book, left, window),
        **found[0],
    }
    if against:
        other = _of_model(book, left, window, against)
        scores = [hindsight.scored_of(one.months).scores for one in (found[1], other[1])]
        row["against"] = other[0]
        row["difference"] = difference_row(backtest.difference(scores[0], scores[1], sample), sample)
    return row


def fitted(
    book: Sequence[Facts],
    end: datetime,
    horizon_days: int,
    model: Path | None,
    against: Path | None = None,
    since: datetime | None = None,
) -> tuple[dict[str, Any], str]:
    """The figures of a model proposed from the measures of another one, and the proposed model as YAML.

    Raises Misconfigured when the history is too short, or fewer than 50 accounts left or stayed in it.
    """
    window = _window(book, end, horizon_days, since)
    left = {known.account_id: leaving.leavings(known) for known in book}
    base = load_policy(model=model).model
    looks = hindsight.look_back(book, left, window, base, weekly=False).months
    found, proposed = fitting_log.propose({known.account_id: known for known in book}, looks, base)
    sample = hindsight.sample_of(looks)
    row = {**_history_row(book, left, window), **proposal_row(found, sample)}
    if against:
        policy = load_policy(model=against)
        other = hindsight.look_back(book, left, window, policy.model, weekly=False).months
        scored = hindsight.scored_of(other)
        report = backtest.report(sample, scored, hindsight.lead_of(other))
        row["against"] = {"model": str(against), "config_hash": policy.model.digest, **report_row(report, sample)}
        row["difference"] = difference_row(
            backtest.difference(100 * (1 - found.chances), scored.scores, sample), sample
        )
    text = proposal.as_yaml(found, f"--log --horizon {horizon_days} --as-of {instant(end)}", proposed)
    row["config_hash"] = config.parse(text, Model).model.digest
    return row, text


def _window(book: Sequence[Facts], end: datetime, horizon_days: int, since: datetime | None) -> Window:
    window = hindsight.window_of(book, end, timedelta(days=horizon_days), since)
    if window is None or not window.months():
        raise Misconfigured(
            f"the history up to {instant(end)} is too short: a first of a month is needed with {horizon_days} days "
            f"after it and {hindsight.WARM_UP_DAYS} days before it; give --horizon or --since"
        )
    return window


def _history_row(book: Sequence[Facts], left: Leavings, window: Window) -> dict[str, Any]:
    signs = Counter(sign for gone in left.values() for one in gone for sign in one.signs)
    return {
        "as_of": window.end,
        "horizon_days": window.horizon.days,
        "cutoffs": [f"{month:%Y-%m-%d}" for month in window.months()],
        "accounts": len(book),
        "left": sum(map(len, left.values())),
        "signs": dict(sorted(signs.items())),
    }


def _of_model(
    book: Sequence[Facts], left: Leavings, window: Window, path: Path | None
) -> tuple[dict[str, Any], Hindsight]:
    policy = load_policy(model=path)
    found = hindsight.look_back(book, left, window, policy.model)
    if not found.months:
        raise Misconfigured("no account was a customer at any cut-off")
    sample = hindsight.sample_of(found.months)
    report = backtest.report(sample, hindsight.scored_of(found.months), hindsight.lead_of(found.months))
    told = hindsight.alerts(found.weeks, left, window.horizon)
    row = {
        "model": str(path or "config/health.yaml"),
        "config_hash": policy.model.digest,
        "precision_at_5": told.precision,
        "recall_at_5": told.recall,
        "median_days_before_notice": told.median_days_before,
        "alerts": {
            "budget_per_csm_and_week": hindsight.BUDGET,
            "weeks": told.weeks,
            "csms": told.owners,
            "told": len(told.told),
            "came_true": sum(one.came_true for one in told.told),
            "per_csm_and_week": told.per_owner_and_week,
            "held_back": told.held_back,
            "left": told.leavings,
            "foretold": told.foretold,
        },
        **report_row(report, sample),
    }
    if not told.told:
        row["precision_at_5_reason"] = "nobody was red in any week"
    if told.median_days_before is None:
        row["median_days_before_notice_reason"] = "no leaving was foretold"
    return row, found


def described(found: Mapping[str, Any]) -> str:
    """The report for reading."""
    parts = [[_head(found)], *_parts(found)]
    if "against" in found:
        other = _parts(found["against"])
        parts += [[f"against {found['against']['model']}"], *other, [verdict(found["difference"])]]
    return "\n\n".join("\n".join(part) for part in parts)


def _parts(found: Mapping[str, Any]) -> list[list[str]]:
    return [*([_felt(found)] if "alerts" in found else []), lines_of(found, WHAT)]


def _felt(found: Mapping[str, Any]) -> list[str]:
    """What a team would have felt."""
    alerts, precision = found["alerts"], found["precision_at_5"]
    true = "none told" if precision is None else f"{alerts['told']:,} told, {precision:.1%} of them left in time"
    days = found["median_days_before_notice"]
    ahead = "" if days is None else f", {days:.0f} days before notice (median)"
    return [
        f"red accounts, at most {alerts['budget_per_csm_and_week']} alerts per CSM and week over {alerts['weeks']} "
        f"weeks and {alerts['csms']} CSMs: {true}",
        f"{alerts['foretold']} of {alerts['left']} who left had been told{ahead}; {alerts['held_back']} times a red "
        "account had to wait for a week with room",
    ]


def _head(found: Mapping[str, Any]) -> str:
    cuts = found["cutoffs"]
    signs = ", ".join(f"{count} by {sign}" for sign, count in found["signs"].items())
    return (
        f"{found['accounts']:,} accounts up to {instant(found['as_of'])}; {len(cuts)} cut-offs from {cuts[0]} to "
        f"{cuts[-1]}, {found['horizon_days']} days ahead; left: {found['left']} ({signs or 'nobody'})"
    )
