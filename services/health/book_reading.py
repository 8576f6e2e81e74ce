"""What the command line reads of the whole book's counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec

from services.health import incidents, tracking
from services.health.facts import Facts
from services.health.incidents import Hours
from services.health.rules import Rules
from services.health.store import unsigned
from services.health.tracking import Break, Day
from services.health.usage import Events, from_bytes, joined
from shared.db import Connection

HEARD = "select source, used, day, hours, live from health_api.heard_v1 where $1::date is null or day >= $1"
FEATURES = "select hash, word from health_api.words_v1 where kind = 'feature'"
PARTITIONS = "select distinct partition from health_api.accounts_v1"
COUNTED = "select partition, day, active, features::text from health_api.counted_v1 where day >= $1 and day < $2"
# Days that are not counted, or of which more came since, are counted here.
USE = """
    select missing.partition, u.body
      from unnest($1::int[], $2::date[], $3::date[]) as missing (partition, since, before)
      join health_api.accounts_v1 a on a.partition = missing.partition
      cross join lateral (
          select string_agg(body, ''::bytea) as body from health_api.usage_v1
           where account_id = a.account_id and day >= missing.since and day < missing.before and merged_from = ''
      ) u
     where u.body is not null
"""
Counts = tuple[Mapping[date, Day], Hours]

_read_features = msgspec.json.Decoder(dict[str, int]).decode


async def breaks_at(dbs: Sequence[Connection], as_of: datetime, rules: Rules) -> tuple[Break, ...]:
    """Where data broke on the way, by what happened up to T: the same whenever it is asked for."""
    if not rules.judges_data:
        return ()
    last = as_of.astimezone(UTC).date()
    first = last - timedelta(days=tracking.KEPT_DAYS)
    days: dict[date, Day] = {}
    for db in dbs:
        await _add_days(db, first, last, days)
    return incidents.breaks_at(days, await _hours(dbs, first), as_of, rules)


async def _add_days(db: Connection, first: date, before: date, days: dict[date, Day]) -> None:
    counted: dict[int, set[date]] = {}
    for partition, day, active, features in await db.fetch(COUNTED, first, before):
        days.setdefault(day, Day()).add(active, _read_features(features))
        counted.setdefault(partition, set()).add(day)
    span = [first + timedelta(days=n) for n in range((before - first).days)]
    missing = {
        partition: absent
        for (partition,) in await db.fetch(PARTITIONS)
        if (absent := [day for day in span if day not in counted.get(partition, ())])
    }
    if not missing:
        return
    ends = [absent[-1] + timedelta(days=1) for absent in missing.values()]
    use: dict[int, list[Events]] = {}
    for partition, body in await db.fetch(USE, list(missing), [absent[0] for absent in missing.values()], ends):
        use.setdefault(partition, []).append(from_bytes(body))
    names = await _features([db])
    for partition, parts in use.items():
        counts = tracking.count(parts)
        for day in missing[partition]:
            if day in counts:
                days.setdefault(day, Day()).add(*_named(counts[day], names))


async def count_book(dbs: Sequence[Connection], book: Sequence[Facts]) -> Counts:
    """Accounts per day and feature by everything that is known, and when sources sent."""
    names = await _features(dbs)
    counts = tracking.count(joined(one.usage) for one in book)
    return {day: Day(*_named(counted, names)) for day, counted in counts.items()}, await _hours(dbs, None)


def _named(counted: tuple[int, Mapping[int, int]], names: Mapping[int, str]) -> tuple[int, dict[str, int]]:
    active, features = counted
    return active, {names[feature]: n for feature, n in features.items() if feature in names}


async def _features(dbs: Sequence[Connection]) -> dict[int, str]:
    return {unsigned(row[0]): row[1] for db in dbs for row in await db.fetch(FEATURES)}


async def _hours(dbs: Sequence[Connection], since: date | None) -> Hours:
    hours: dict[tuple[str, bool], list[tuple[date, int, int]]] = {}
    for db in dbs:
        for source, used, day, mask, live in await db.fetch(HEARD, since):
            hours.setdefault((source, used), []).append((day, mask, live))
    return hours
