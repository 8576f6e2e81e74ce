"""Notify's SQL: what it knows of accounts and episodes, and the ledger of deliveries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.notify.domain import Root, Row, Told
from services.notify.episodes import Account, Change, Context, Episode, Said, Step, Touch
from shared.db import Connection, columns

NOW = "select now()"
LOAD_ACCOUNTS = "select account_id, state, change, touch, cover from notify.accounts where account_id = any($1::text[])"
FACETS = ("state", "change", "touch", "cover")
SAVE_FACET = """
    insert into notify.accounts as known (account_id, partition, {facet}, {facet}_at)
    select * from unnest($1::text[], $2::int[], $3::jsonb[], $4::timestamptz[])
    on conflict (account_id) do update set {facet} = excluded.{facet}, {facet}_at = excluded.{facet}_at
     where known.{facet}_at is null or known.{facet}_at <= excluded.{facet}_at
"""
EPISODE = """alert_id, account_id, partition, service, rule, kind, severity, title, why, next_step, evidence, opened_at,
             computed_at, cause_ids, baseline, state, version, resolved_at, acknowledged_by, snoozed, snoozed_until,
             history, context"""
LOAD_EPISODES = f"select {EPISODE} from notify.episodes where alert_id = any($1::text[])"
SAVE_EPISODES = f"""
    insert into notify.episodes ({EPISODE})
    select * from jsonb_populate_recordset(null::notify.episodes, $1::jsonb)
    on conflict (alert_id) do update
       set severity = excluded.severity, title = excluded.title, why = excluded.why, next_step = excluded.next_step,
           evidence = excluded.evidence, baseline = excluded.baseline, state = excluded.state,
           version = excluded.version, resolved_at = excluded.resolved_at, acknowledged_by = excluded.acknowledged_by,
           snoozed = excluded.snoozed, snoozed_until = excluded.snoozed_until, history = excluded.history,
           context = excluded.context
"""
SAVE_EARLY = """
    insert into notify.early (alert_id, event_id, partition, said)
    select * from unnest($1::text[], $2::text[], $3::int[], $4::jsonb[]) on conflict do nothing
"""
TAKE_EARLY = "delete from notify.early where alert_id = any($1::text[]) returning said"
NAMING = f"""
    select {EPISODE} from notify.episodes
     where exists (select from jsonb_path_query(jsonb_build_array(evidence, context -> 'contacts'),
                                                'strict $.** ? (@.type() == "string")') as found (word)
                    where encode(sha256(convert_to(word #>> '{{}}', 'UTF8')), 'hex') = $1)
"""
"""Episodes that name the person of whom only the SHA-256 is known."""
FORGET_EARLY = """
    delete from notify.early
     where exists (select from jsonb_path_query(said, 'strict $.** ? (@.type() == "string")') as found (word)
                    where encode(sha256(convert_to(word #>> '{}', 'UTF8')), 'hex') = $1)
"""
LIST_OPEN_RULES = """
    select account_id, rule from notify.episodes where account_id = any($1::text[]) and state = 'open' and not baseline
"""
HAS_LIVED = "select exists (select from notify.deliveries where mode <> 'cold' and reason is distinct from $1)"
LIST_TOLD = """
    select distinct alert_id, destination from notify.deliveries
     where alert_id = any($1::text[]) and what = 'open' and state in ('pending', 'sending', 'sent', 'unknown')
"""
ADD_DELIVERIES = """
    insert into notify.deliveries (delivery_id, destination, what, alert_id, account_id, version, partition, state,
                                   mode, reason, due_at)
    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::int[], $8::text[],
                         $9::text[], $10::text[], $11::timestamptz[])
    on conflict do nothing
"""
PUT_OFF_COLD = """
    update notify.deliveries set due_at = $2
     where destination = any($1::text[]) and mode = 'cold' and state = 'pending'
"""
HURRY = """
    update notify.deliveries set mode = 'single', due_at = least(due_at, $2)
     where alert_id = any($1::text[]) and what = 'open' and state = 'pending'
"""

# -- the sender's ----------------------------------------------------------------------------

LIST_READY = """
    select destination, extract(epoch from ready_at - now())::float8 as wait
      from (select destination, greatest(next_at, look_at, lease_until) as ready_at from notify.destinations
             where disabled_at is null) p
     where ready_at <= now() + $2::interval
       and exists (select from notify.deliveries d
                    where d.destination = p.destination and d.state in ('pending', 'sending', 'unknown'))
     order by ready_at limit $1
"""
"""Places with something unsettled, those that wait longest first; `wait` is above 0 until they may be spoken to."""
ADD_DESTINATION = "insert into notify.destinations (destination) values ($1) on conflict do nothing"
LOCK_DESTINATION = """
    select *, now() as now from notify.destinations
     where destination = $1 and next_at <= now() and (lease_until is null or lease_until <= now())
       and disabled_at is null
       for update skip locked
"""
LIST_UNSETTLED = """
    select delivery_id, seq, what, state, mode, due_at, created_at, attempts, attempted_at, reason, alert_id,
           account_id, version, thread_ts
      from notify.deliveries d
     where destination = $1 and state in ('pending', 'sending', 'unknown') and (due_at <= now() or state <> 'pending')
       and (what in ('open', 'digest')
            or not exists (select from notify.deliveries own
                            where own.alert_id = d.alert_id and own.destination = $1 and own.what = 'open'
                              and own.state = 'pending' and own.due_at > now()))
     order by seq limit $2
"""
"""What is due. What follows a message that is to come later waits for it, and must not crowd out the rest."""
NEXT_DUE = """
    select min(due_at) from notify.deliveries
     where destination = $1 and state in ('pending', 'sending', 'unknown') and due_at > now()
"""
LIST_UNSAID = """
    select alert_id from notify.deliveries
     where alert_id = any($2::text[]) and destination = $1 and what = 'open'
       and state in ('pending', 'sending', 'unknown')
"""
LOAD_TOLD = """
    select alert_id, max(ts) filter (where what = 'open') as ts, max(channel) filter (where what = 'open') as channel,
           max(thread_ts) filter (where what = 'open') as thread_ts, max(said_version) as version,
           max(said_version) filter (where what = 'open') as posted_version
      from notify.deliveries
     where destination = $1 and alert_id = any($2::text[]) and what in ('open', 'update') and state = 'sent'
     group by alert_id
"""
LOAD_ROOTS = """
    select distinct on (d.account_id) d.account_id, d.ts, e.severity, d.sent_at
      from notify.deliveries d join notify.episodes e using (alert_id)
     where d.destination = $1 and d.account_id = any($2::text[]) and d.what = 'open' and d.state = 'sent'
       and d.thread_ts is null and d.ts is not null and d.sent_at > now() - $3::interval
     order by d.account_id, d.sent_at desc
"""
COUNT_SENT = """
    select count(*) from notify.deliveries
     where destination = $1 and what = 'open' and state = 'sent' and sent_at > now() - interval '7 days'
"""
SUPPRESS = """
    update notify.deliveries d set state = 'suppressed', reason = s.reason
      from unnest($1::text[], $2::text[]) as s (delivery_id, reason)
     where d.delivery_id = s.delivery_id and d.state = 'pending'
"""
POSTPONE = """
    update notify.deliveries d set due_at = s.due_at, mode = s.mode
      from unnest($1::text[], $2::timestamptz[], $3::text[]) as s (delivery_id, due_at, mode)
     where d.delivery_id = s.delivery_id
"""
AGAIN = "update notify.deliveries set state = 'pending', reason = 'unclear' where delivery_id = any($1::text[])"
GATHER = """
    update notify.deliveries set state = 'suppressed', reason = 'in a digest', digest_id = $1
     where delivery_id = any($2::text[])
"""
ADD_DIGEST = """
    insert into notify.deliveries (delivery_id, destination, what, version, state, mode, due_at)
    values ($1, $2, 'digest', $3, 'pending', 'single', now())
"""
LIST_MEMBERS = f"""
    select {", ".join(f"e.{name.strip()}" for name in EPISODE.split(","))} from notify.deliveries d
      join notify.episodes e using (alert_id) where d.digest_id = $1
"""
BEGIN = """
    with begun as (
        update notify.deliveries
           set state = case when $3 then 'unknown' else 'sending' end, attempts = attempts + 1,
               attempted_at = case when $3 then attempted_at else now() end,
               said_version = case when $3 then said_version else $2 end, thread_ts = $4
         where delivery_id = $1)
    update notify.destinations set fence = fence + 1, lease_until = now() + $6::interval where destination = $5
    returning fence
"""
LEASE = """
    update notify.destinations set fence = fence + 1, lease_until = now() + $2::interval where destination = $1
    returning fence
"""
RELEASE = """
    update notify.destinations
       set lease_until = null, look_at = null, next_at = greatest(next_at, now() + $3::interval), failures = $4,
           reason = $5, channel = coalesce($6, channel),
           failing_since = case when $4 = 0 then null else coalesce(failing_since, now()) end,
           last_digest_at = case when $7 then now() else last_digest_at end
     where destination = $1 and fence = $2
    returning failing_since
"""
LOOK_AGAIN = "update notify.destinations set look_at = $2 where destination = $1"
LOOK_NOW = """
    insert into notify.destinations (destination) select unnest($1::text[])
    on conflict (destination) do update set look_at = null
"""
FINISH = """
    with released as (
        update notify.destinations
           set lease_until = null, look_at = null, next_at = greatest(next_at, now() + $3::interval), failures = $4,
               reason = $5, channel = coalesce($6, channel),
               failing_since = case when $4 = 0 then null else coalesce(failing_since, now()) end,
               last_digest_at = case when $7 then now() else last_digest_at end
         where destination = $1 and fence = $2
        returning failing_since)
    update notify.deliveries d
       set state = $9, reason = $10, sent_at = case when $9 = 'sent' then now() else sent_at end,
           channel = coalesce($6, d.channel), ts = coalesce($11, ts), found_later = found_later or $12, thread_ts = $13
      from released
     where d.delivery_id = $8
    returning extract(epoch from now() - d.created_at)::float8 as seconds, released.failing_since
"""
"""The outcome, in one statement: nothing is written once the fence has grown."""

PRUNE = (
    """
    delete from notify.deliveries where delivery_id in (
        select d.delivery_id from notify.deliveries d left join notify.episodes e using (alert_id)
         where d.state in ('sent', 'failed', 'suppressed') and d.created_at < now() - $1::interval
           and e.state is distinct from 'open'
           and d.seq < (select max(seq) from notify.deliveries where mode <> 'cold')
         limit 10000)
    """,
    """
    delete from notify.episodes e
     where e.state = 'resolved' and e.resolved_at < now() - $1::interval
       and not exists (select from notify.deliveries d where d.alert_id = e.alert_id)
    """,
    "delete from notify.early where heard_at < now() - $1::interval",
)
"""What is over and older than that; the newest row stays, as it tells that this is no first start."""

REDRIVE = """
    update notify.deliveries set state = 'pending', reason = null, due_at = now(), created_at = now()
     where destination = $1 and state = 'failed' returning delivery_id
"""
GO_ON = """
    update notify.destinations set next_at = now(), look_at = null, failures = 0, failing_since = null, reason = null,
           disabled_at = null
     where destination = $1
"""
COUNTS = "select destination, state, count(*) as n from notify.deliveries group by destination, state"
STANDING = """
    select destination, next_at, lease_until, failures, failing_since, reason, disabled_at from notify.destinations
     order by destination
"""

LIST_DISABLED = "select destination, disabled_at is not null as disabled from notify.destinations where fence > 0"
DISABLE = "update notify.destinations set disabled_at = now(), reason = $2 where destination = $1"

# -- scores written back ---------------------------------------------------------------------

SAVE_LINKS = """
    insert into notify.links as known (account_id, partition, namespace, external_id, said_at)
    select * from unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::timestamptz[])
    on conflict (account_id, namespace) do update set external_id = excluded.external_id, said_at = excluded.said_at
     where (known.said_at, known.external_id) < (excluded.said_at, excluded.external_id)
"""
MAP_AGAIN = """
    update notify.writes set state = 'pending', reason = null, due_at = now()
     where account_id = any($1::text[]) and state = 'unmapped'
"""
WANT = """
    insert into notify.writes as w (destination, account_id, partition, score, band, why, computed_at, due_at)
    select d.destination, a.account_id, a.partition, (a.change ->> 'after')::int, a.change ->> 'after_band',
           a.change ->> 'why', a.change_at, now() + d.wait
      from notify.accounts a, unnest($1::text[], $2::interval[]) as d (destination, wait)
     where a.change is not null and ($3::text[] is null or a.account_id = any($3))
     order by d.destination, a.account_id
    on conflict (destination, account_id) do update
       set score = excluded.score, band = excluded.band, why = excluded.why, computed_at = excluded.computed_at,
           version = w.version + 1, wanted_at = now(), alone = false,
           state = case when w.state = 'sending' then 'sending' else 'pending' end,
           reason = case when w.state in ('failed', 'unmapped') then null else w.reason end,
           due_at = case when w.state = 'pending' and not $4 then least(w.due_at, excluded.due_at)
                         else excluded.due_at end
     where w.computed_at <= excluded.computed_at
       and (w.score, w.band, w.why) is distinct from (excluded.score, excluded.band, excluded.why)
"""
_WRITES = """
    select w.account_id, w.score, w.band, w.why, w.computed_at, w.version, w.wanted_at, w.alone,
           (select l.external_id from notify.links l
             where l.account_id = w.account_id and l.namespace = $2
               and not exists (select from notify.links o
                                where o.namespace = l.namespace and o.external_id = l.external_id
                                  and (o.said_at, o.account_id) > (l.said_at, l.account_id))) as linked
      from notify.writes w
"""
LIST_WRITES = (
    _WRITES
    + """
     where w.destination = $1 and w.state in ('pending', 'sending', 'unknown') and w.due_at <= now()
     order by w.alone desc, w.due_at, w.account_id limit $3
"""
)
LIST_WAITING_WRITES = (
    _WRITES
    + """
     where w.destination = $1 and ($4::text is not null or w.state in ('pending', 'sending', 'unknown', 'unmapped'))
       and ($4 is null or w.account_id = $4)
     order by w.due_at, w.account_id limit $3
"""
)
UNMAP = """
    update notify.writes set state = 'unmapped', reason = $3
     where destination = $1 and account_id = any($2::text[])
"""
BEGIN_WRITES = """
    update notify.writes set state = 'sending', said_version = version, attempts = attempts + 1
     where destination = $1 and account_id = any($2::text[])
"""
FINISH_WRITES = """
    update notify.writes w
       set state = case when w.version > w.said_version then 'pending' else s.state end, reason = s.reason,
           alone = s.alone, sent_at = case when s.state = 'sent' then now() else w.sent_at end
      from unnest($2::text[], $3::text[], $4::text[], $5::bool[]) as s (account_id, state, reason, alone)
     where w.destination = $1 and w.account_id = s.account_id
"""
LATER = """
    update notify.writes set due_at = now() + $3::interval where destination = $1 and account_id = any($2::text[])
"""
WRITE_STATES = ("pending", "sending", "sent", "unknown", "failed", "unmapped")
COUNT_WRITES_OF = "select state, count(*) as n from notify.writes where destination = $1 group by state"
COUNT_WRITES = "select destination, state, count(*) as n from notify.writes group by destination, state"
REDRIVE_WRITES = """
    update notify.writes set state = 'pending', reason = null, due_at = now(), wanted_at = now(), alone = false
     where destination = $1 and state = 'failed' returning account_id
"""

NewRow = tuple[str, str, str, str | None, str | None, int, int, str, str, str | None, datetime]
"""The columns of ADD_DELIVERIES."""
Link = tuple[str, int, str, str, datetime]
"""Account, partition, namespace, external id (empty: none any more) and when it was said."""
Facet = tuple[str, int, Any, datetime]
"""Account, partition, what was said and when."""

_convert = msgspec.convert


async def now(db: Connection) -> datetime:
    moment: datetime = await db.fetchval(NOW)
    return moment


async def save_facets(db: Connection, facet: str, rows: Iterable[Facet]) -> None:
    latest: dict[str, Facet] = {}
    for row in rows:
        before = latest.get(row[0])
        if before is None or before[3] <= row[3]:
            latest[row[0]] = row
    if latest:
        await db.execute(SAVE_FACET.format(facet=facet), *columns([latest[name] for name in sorted(latest)], 4))


async def load_accounts(db: Connection, account_ids: Collection[str]) -> dict[str, Account]:
    rows = await db.fetch(LOAD_ACCOUNTS, sorted(account_ids))
    found = {row["account_id"]: _account(row) for row in rows}
    return {name: found.get(name) or Account(name) for name in account_ids}


def _account(row: Mapping[str, Any]) -> Account:
    state, cover = row["state"] or {}, row["cover"] or {}
    said = {
        name: state.get(name) for name in ("name", "score", "band", "segment", "stage", "owner", "arr", "notice_on")
    }
    said["band"] = state.get("shown_band") or said["band"]
    said["owner"] = said["owner"] or cover.get("csm")
    said["segment"] = said["segment"] or cover.get("segment")
    return Account(
        row["account_id"],
        **said,
        coverage_model=cover.get("coverage"),
        change=_convert(row["change"], Change) if row["change"] else None,
        touch=_convert(row["touch"], Touch) if row["touch"] else None,
    )


async def load_episodes(db: Connection, alert_ids: Collection[str]) -> dict[str, Episode]:
    return {row["alert_id"]: _episode(row) for row in await db.fetch(LOAD_EPISODES, sorted(alert_ids))}


def _episode(row: Mapping[str, Any]) -> Episode:
    fields = dict(row)
    fields["cause_ids"] = tuple(fields["cause_ids"])
    fields["history"] = tuple(_convert(step, Step) for step in fields["history"])
    fields["context"] = _convert(fields["context"], Context) if fields["context"] else None
    return Episode(**fields)


async def save_episodes(db: Connection, episodes: Iterable[Episode]) -> None:
    rows = [msgspec.to_builtins(episode) for episode in episodes]
    if rows:
        await db.execute(SAVE_EPISODES, rows)


async def save_early(db: Connection, said: Sequence[Said]) -> None:
    if said:
        rows = [(one.alert_id, one.event_id, one.partition, msgspec.to_builtins(one)) for one in said]
        await db.execute(SAVE_EARLY, *columns(rows, 4))


async def take_early(db: Connection, alert_ids: Collection[str]) -> list[Said]:
    """What was said of these alerts before they were known, in its own order."""
    found = [_convert(row["said"], Said) for row in await db.fetch(TAKE_EARLY, sorted(alert_ids))]
    return sorted(found, key=lambda said: (said.at, said.event_id))


async def list_naming(db: Connection, person: str) -> list[Episode]:
    return [_episode(row) for row in await db.fetch(NAMING, person)]


async def list_open_rules(db: Connection, account_ids: Collection[str]) -> list[tuple[str, str]]:
    return [(row["account_id"], row["rule"]) for row in await db.fetch(LIST_OPEN_RULES, sorted(account_ids))]


async def has_lived(db: Connection, baseline_reason: str) -> bool:
    """Whether anything but what was known from the start has been in the ledger."""
    return bool(await db.fetchval(HAS_LIVED, baseline_reason))


async def list_told(db: Connection, alert_ids: Collection[str]) -> dict[str, set[str]]:
    """Alert → where it was or will be told."""
    found: dict[str, set[str]] = {}
    for row in await db.fetch(LIST_TOLD, sorted(alert_ids)):
        found.setdefault(row["alert_id"], set()).add(row["destination"])
    return found


async def add_deliveries(db: Connection, rows: Sequence[NewRow]) -> None:
    if rows:
        await db.execute(ADD_DELIVERIES, *columns(rows, 11))


@dataclass(frozen=True, slots=True)
class Place:
    """A destination that was locked for one step."""

    destination: str
    now: datetime
    channel: str | None
    failures: int
    failing_since: datetime | None
    last_digest_at: datetime | None


async def lock_destination(db: Connection, destination: str) -> Place | None:
    """The place, locked until the transaction ends; None when somebody else speaks there, or it is not time yet."""
    row = await db.fetchrow(LOCK_DESTINATION, destination)
    if row is None:
        return None
    return Place(**{name: row[name] for name in Place.__slots__})


async def list_unsettled(db: Connection, destination: str, limit: int) -> list[Row]:
    return [Row(**dict(row)) for row in await db.fetch(LIST_UNSETTLED, destination, limit)]


async def list_unsaid(db: Connection, destination: str, alert_ids: Collection[str]) -> set[str]:
    """Alerts whose own message has still to be posted there, now or later."""
    return {row["alert_id"] for row in await db.fetch(LIST_UNSAID, destination, sorted(alert_ids))}


async def load_told(db: Connection, destination: str, alert_ids: Collection[str]) -> dict[str, Told]:
    rows = await db.fetch(LOAD_TOLD, destination, sorted(alert_ids))
    return {
        row["alert_id"]: Told(
            row["ts"] or "", row["channel"] or "", row["version"], row["posted_version"], row["thread_ts"]
        )
        for row in rows
        if row["posted_version"] is not None
    }


async def load_roots(db: Connection, destination: str, account_ids: Collection[str], within: Any) -> dict[str, Root]:
    rows = await db.fetch(LOAD_ROOTS, destination, sorted(account_ids), within)
    return {row["account_id"]: Root(row["ts"], row["severity"], row["sent_at"]) for row in rows}


REDRIVE_OUTREACH = """
    update notify.outreach set state = 'pending', reason = null, due_at = now(), created_at = now()
     where destination = $1 and state in ('failed', 'unknown') returning delivery_id
"""
"""What failed, and what may have arrived: a person decides that it goes out again."""


async def prune(db: Connection, age: timedelta) -> None:
    """Forget what is over for so long."""
    for statement in PRUNE:
        await db.execute(statement, age)


async def redrive(db: Connection, destination: str) -> int:
    """Open a place again and put what failed there before it; how many there are, one at least if it was disabled."""
    disabled = await db.fetchval("select disabled_at from notify.destinations where destination = $1", destination)
    await db.execute(GO_ON, destination)
    statements = (REDRIVE, REDRIVE_WRITES, REDRIVE_OUTREACH)
    failed = [row for one in statements for row in await db.fetch(one, destination)]
    return len(failed) or int(disabled is not None)


async def save_links(db: Connection, rows: Sequence[Link]) -> None:
    """Learn ids; accounts that waited for one are written."""
    latest = {(row[0], row[2]): row for row in sorted(rows, key=lambda row: (row[4], row[3]))}
    if latest:
        await db.execute(SAVE_LINKS, *columns([latest[key] for key in sorted(latest)], 5))
        await db.execute(MAP_AGAIN, sorted({row[0] for row in rows}))


async def want(
    db: Connection, waits: Mapping[str, timedelta], account_ids: Collection[str] | None, *, rest: bool
) -> None:
    """Write down the values that are wanted in each destination, after its wait; `rest`: since the last change."""
    if waits:
        some = None if account_ids is None else sorted(account_ids)
        await db.execute(WANT, list(waits), list(waits.values()), some, rest)


async def list_members(db: Connection, digest_id: str) -> list[Episode]:
    return [_episode(row) for row in await db.fetch(LIST_MEMBERS, digest_id)]
