"""Who hears what, and what is said next in one place: alone, in a thread, in a digest, later, or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from services.notify.episodes import Account, Episode, rank
from services.notify.settings import DEFAULT, OWNER, Notify, Route
from shared.team import Person, Team

WEEK = timedelta(days=7)
NOT_TOLD = "nobody is to be told: no route leads anywhere"
NO_SINK = "no sink configured"
BASELINE = "known from the start, or found by a replay"
OLD = "decided too long ago"

# -- who -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Places:
    """Where the names in routes lead: name → destination such as `slack:C0123`; persons need `reaches_people`."""

    channels: Mapping[str, str]
    default: str | None
    reaches_people: bool

    @property
    def any(self) -> bool:
        return bool(self.channels) or self.default is not None or self.reaches_people


def destinations(
    episode: Episode, account: Account, rules: Notify, team: Team, places: Places, now: datetime
) -> list[str]:
    """Where an episode is told: the first route that fits and reaches somebody counts, unless it goes on."""
    found: dict[str, None] = {}
    for route in rules.routes:
        if not fits(route, episode, account):
            continue
        reached = [place for name in route.to if (place := _place(name, account, team, places, now))]
        found |= dict.fromkeys(reached)
        if reached and not route.go_on:
            break
    return list(found)


def fits(route: Route, episode: Episode, account: Account) -> bool:
    return (
        rank(episode.severity) >= rank(route.severity_from)
        and (not route.kinds or episode.kind in route.kinds)
        and (not route.rules or episode.rule in route.rules)
        and (not route.services or episode.service in route.services)
        and (not route.owners or account.owner in route.owners)
        and (not route.segments or account.segment in route.segments)
    )


def _place(name: str, account: Account, team: Team, places: Places, now: datetime) -> str | None:
    if name == DEFAULT:
        return places.default
    if name != OWNER:
        return places.channels.get(name)
    if not places.reaches_people:
        return None
    person = present(account.owner, team, now)
    return f"slack:{person.slack_id}" if person is not None and person.slack_id else None


def present(person_id: str | None, team: Team, now: datetime) -> Person | None:
    """The person, or while they are away whoever stands in; the person again when nobody does."""
    first = person = team.person(person_id) if person_id else None
    asked: set[str] = set()
    while person is not None and person.is_away(now.astimezone(person.hours.zone).date()):
        asked.add(person.id)
        if person.backup is None or person.backup in asked:
            return first
        person = team.person(person.backup)
    return person


# -- when ------------------------------------------------------------------------------------


def quiet_until(now: datetime, rules: Notify, zone: ZoneInfo) -> datetime | None:
    """When the quiet hours that reign now are over; None outside them."""
    quiet = rules.quiet_hours
    if quiet is None:
        return None
    end = now
    for _ in range(8):  # an evening, then the days and nights of a weekend
        later = _end_of_night(end, quiet.start, quiet.end, zone)
        if later is None and quiet.weekends and end.astimezone(zone).weekday() >= 5:
            later = _at(end, time(0), zone, days=1)
        if later is None:
            break
        end = later
    return end if end > now else None


def _end_of_night(now: datetime, start: time, end: time, zone: ZoneInfo) -> datetime | None:
    clock = now.astimezone(zone).timetz().replace(tzinfo=None)
    if start < end:
        return _at(now, end, zone) if start <= clock < end else None
    if start == end:
        return None
    if clock >= start:
        return _at(now, end, zone, days=1)
    return _at(now, end, zone) if clock < end else None


def next_digest(now: datetime, rules: Notify, zone: ZoneInfo) -> datetime:
    """The next time of the daily digest on the reader's clock."""
    today = _at(now, rules.digest_at, zone)
    return today if today > now else _at(now, rules.digest_at, zone, days=1)


def _at(now: datetime, clock: time, zone: ZoneInfo, days: int = 0) -> datetime:
    day = now.astimezone(zone).date() + timedelta(days=days)
    return datetime.combine(day, clock, zone).astimezone(now.tzinfo)


# -- what next -------------------------------------------------------------------------------

Doing = Literal["open", "update", "thread", "digest"]
State = Literal["pending", "sending", "unknown"]
Mode = Literal["single", "daily", "cold"]


@dataclass(frozen=True, slots=True)
class Row:
    """One unsettled line of the ledger."""

    delivery_id: str
    seq: int
    what: Doing
    state: State
    mode: Mode
    due_at: datetime
    created_at: datetime
    attempts: int = 0
    attempted_at: datetime | None = None
    reason: str | None = None
    alert_id: str | None = None
    account_id: str | None = None
    version: int = 1
    thread_ts: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An episode's own message in this place: the version it shows, and the one it was posted at."""

    ts: str
    channel: str
    version: int
    posted_version: int
    thread_ts: str | None


@dataclass(frozen=True, slots=True)
class Root:
    """The latest message of an account that others can be put under."""

    ts: str
    severity: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """A place as it stands: what kind it is and what it was told."""

    zone: ZoneInfo
    is_person: bool = False
    is_machine: bool = False
    updates: bool = True
    looks_up: bool = True
    sent_this_week: int = 0
    last_digest_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """What to do now: say a row alone (in a thread, if named), or these rows as one digest, or look a row up."""

    what: Literal["say", "digest", "look_up"]
    row: Row | None = None
    rows: tuple[Row, ...] = ()
    thread_ts: str | None = None
    target: Told | None = None


@dataclass(slots=True)
class Plan:
    """Rows not to be told (with the reason), rows for later, the one thing to do, else when to look again."""

    suppress: list[tuple[Row, str]] = field(default_factory=list)
    later: list[tuple[Row, datetime, Mode]] = field(default_factory=list)
    again: list[Row] = field(default_factory=list)
    act: Act | None = None
    look_again_at: datetime | None = None

    def wait(self, until: datetime) -> None:
        self.look_again_at = until if self.look_again_at is None else min(self.look_again_at, until)


def plan(
    rows: Sequence[Row],
    episodes: Mapping[str, Episode],
    muted_by: Mapping[str, str],
    told: Mapping[str, Told],
    roots: Mapping[str, Root],
    standing: Standing,
    rules: Notify,
    now: datetime,
    unsaid: Collection[str] = (),
) -> Plan:
    """Decide what is said next in one place. `rows` are its unsettled ones in order; `muted_by`: alert → rule.

    `unsaid`: alerts whose own message is to come, though perhaps not among these rows.
    """
    found = Plan()
    unclear = [row for row in rows if row.state != "pending"]
    if unclear:
        _settle(unclear[0], standing, rules, now, found)
        return found
    unsaid = {*unsaid, *(row.alert_id for row in rows if row.what == "open" and row.alert_id)}
    newest = {row.alert_id: row.version for row in rows if row.what == "update"}
    singles: list[Row] = []
    gathered: list[Row] = []
    follow: list[tuple[Row, Told | None]] = []
    quiet = None if standing.is_machine else quiet_until(now, rules, standing.zone)
    for row in rows:
        episode = episodes.get(row.alert_id or "")
        if row.what == "digest":
            found.act = found.act or Act("digest", row)
        elif episode is None:
            found.suppress.append((row, "its episode is not known"))
        elif row.what == "open":
            _opening(row, episode, muted_by, standing, rules, now, quiet, found, singles, gathered)
        elif row.alert_id in unsaid:
            continue
        else:
            _following(row, episode, told.get(episode.alert_id), newest, standing, rules, now, quiet, found, follow)
    if found.act is None:
        found.act = _choose(singles, gathered, follow, episodes, roots, standing, rules, now, found)
    return found


def _settle(row: Row, standing: Standing, rules: Notify, now: datetime, found: Plan) -> None:
    """Nobody knows whether it was said: what can be repeated is, what was posted is looked up once it must show."""
    if row.what == "update":
        found.again.append(row)
        return
    ready = (row.attempted_at or now) + timedelta(seconds=rules.pace.settle_seconds)
    if ready > now:
        found.wait(ready)
    elif standing.looks_up:
        found.act = Act("look_up", row)
    else:
        found.again.append(row)


def _opening(
    row: Row, episode: Episode, muted_by: Mapping[str, str], standing: Standing, rules: Notify, now: datetime,
    quiet: datetime | None, found: Plan, singles: list[Row], gathered: list[Row],
) -> None:  # fmt: skip
    urgent = rank(episode.severity) >= rank(rules.urgent_from)
    if standing.is_machine:
        singles.append(row)
    elif not episode.is_open:
        found.suppress.append((row, "over before it was told"))
    elif episode.alert_id in muted_by:
        found.suppress.append((row, f"muted: {muted_by[episode.alert_id]} is open"))
    elif row.due_at > now:
        found.wait(row.due_at)
    elif episode.snoozed:  # once that is over, a reminder tells of it
        found.suppress.append((row, "snoozed before it was told"))
    elif quiet is not None and not urgent:
        found.later.append((row, quiet, row.mode))
    elif row.mode != "single":
        gathered.append(row)
    elif _over_budget(standing, rules, len(singles)) and not urgent:
        found.later.append((row, next_digest(now, rules, standing.zone), "daily"))
    else:
        singles.append(row)


def _over_budget(standing: Standing, rules: Notify, more: int) -> bool:
    budget = rules.weekly_budget
    return standing.is_person and budget is not None and standing.sent_this_week + more >= budget


def _following(
    row: Row, episode: Episode, told: Told | None, newest: Mapping[str | None, int], standing: Standing, rules: Notify,
    now: datetime, quiet: datetime | None, found: Plan, follow: list[tuple[Row, Told | None]],
) -> None:  # fmt: skip
    if row.what == "update" and not standing.updates:
        found.suppress.append((row, "nothing can be changed there"))
    elif told is None:
        found.suppress.append((row, "not told on its own"))
    elif row.version <= (told.version if row.what == "update" else told.posted_version):
        found.suppress.append((row, "said already"))
    elif row.what == "update" and row.version < newest[row.alert_id]:
        found.suppress.append((row, "a newer one follows"))
    elif row.due_at > now:
        found.wait(row.due_at)
    elif row.what == "thread" and quiet is not None and rank(episode.severity) < rank(rules.urgent_from):
        found.later.append((row, quiet, row.mode))
    else:
        follow.append((row, told))


def _choose(
    singles: Sequence[Row], gathered: Sequence[Row], follow: Sequence[tuple[Row, Told | None]],
    episodes: Mapping[str, Episode], roots: Mapping[str, Root], standing: Standing, rules: Notify, now: datetime,
    found: Plan,
) -> Act | None:  # fmt: skip
    if not standing.is_machine and len(singles) > rules.digest_over:
        pause = timedelta(minutes=rules.digest_every_minutes)
        if standing.last_digest_at is None or standing.last_digest_at + pause <= now:
            return Act("digest", rows=(*gathered, *singles))
        found.wait(standing.last_digest_at + pause)
        singles = [row for row in singles if _is_urgent(row, episodes, rules)]
    if len(gathered) > 1:
        return Act("digest", rows=tuple(gathered))
    ready = sorted([*((row, None) for row in (*singles, *gathered)), *follow], key=lambda entry: entry[0].seq)
    if not ready:
        return None
    row, told = ready[0]
    if told is not None:
        return Act("say", row, thread_ts=told.thread_ts or told.ts, target=told)
    return Act("say", row, thread_ts=_root(row, episodes, roots, standing, rules, now))


def _is_urgent(row: Row, episodes: Mapping[str, Episode], rules: Notify) -> bool:
    return rank(episodes[row.alert_id or ""].severity) >= rank(rules.urgent_from)


def _root(
    row: Row, episodes: Mapping[str, Episode], roots: Mapping[str, Root], standing: Standing, rules: Notify,
    now: datetime,
) -> str | None:  # fmt: skip
    """The account's message to put it under, unless this weighs more than what stands there."""
    root = roots.get(row.account_id or "")
    if root is None or not standing.updates or standing.is_machine:
        return None
    recent = now - root.at < timedelta(hours=rules.group_hours)
    heavier = rank(episodes[row.alert_id or ""].severity) > rank(root.severity)
    return root.ts if recent and not heavier else None


def muted(open_rules: Iterable[tuple[str, str]], waiting: Iterable[Episode], rules: Notify) -> dict[str, str]:
    """Alerts that another open episode of the same account says better: alert → its rule."""
    loud: dict[str, set[str]] = {}
    for account_id, rule in open_rules:
        loud.setdefault(account_id, set()).add(rule)
    found: dict[str, str] = {}
    for episode in waiting:
        for one in rules.inhibit:
            if episode.rule in one.mutes and one.rule in loud.get(episode.account_id, ()):
                found.setdefault(episode.alert_id, one.rule)
    return found
