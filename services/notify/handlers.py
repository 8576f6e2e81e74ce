"""Learn what results say of accounts, follow episodes, and write into the ledger who is to hear of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec

from services.notify import domain, episodes, merging, store
from services.notify.calling import Calls, Known
from services.notify.domain import Places
from services.notify.episodes import Account, Change, Context, Episode, Remedy, Said, Touch, Weighing, What
from services.notify.settings import Notify, written_to
from services.notify.store import Facet, Link, NewRow
from shared import privacy
from shared.events.results import AlertContext
from shared.ids import derived_id
from shared.runtime.api import Batch, Signal
from shared.runtime.unit import UnitOfWork
from shared.team import Team

SERVICE = "notify"
NOWHERE = "none"
NO_USE = "needed for no message"
TELLING = ("opened", "escalated", "reminded")
"""After these somebody is to hear of an episode who has not been told of it on its own."""
SHARES = 8


class State(msgspec.Struct, frozen=True):
    """As much of an account's state as a message tells."""

    as_of: datetime
    name: str | None = None
    score: int | None = None
    band: str | None = None
    shown_band: str | None = None
    segment: str | None = None
    stage: str | None = None
    owner: str | None = None
    arr: str | None = None
    notice_on: str | None = None


class _Score(msgspec.Struct, frozen=True):
    score: int | None
    band: str
    coverage: float = 0.0


class _Share(msgspec.Struct, frozen=True):
    cause: str
    points: float


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """As much of a change of score as a message tells."""

    current: _Score
    previous: _Score | None
    why: str
    shown_band: str | None = None
    computed_at: datetime
    cause_ids: tuple[str, ...] = ()
    shares: tuple[_Share, ...] = ()


class Linked(msgspec.Struct, frozen=True):
    """The ids that an event about an account gives it in other tools."""

    external_ids: dict[str, str] = {}


class Answered(msgspec.Struct, frozen=True):
    """As much of an answer as says which demand it answers."""

    demand: str
    answer: msgspec.Raw = msgspec.Raw(b"{}")


class _Link(msgspec.Struct, frozen=True):
    namespace: str | None = None
    external_id: str | None = None


@dataclass(slots=True)
class Inbox:
    facets: dict[str, list[Facet]] = field(default_factory=lambda: {name: [] for name in store.FACETS})
    said: list[Said] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    merged: dict[str, str] = field(default_factory=dict)
    """Account → the one that it became part of."""
    scored: dict[str, bool] = field(default_factory=dict)
    """Account → whether its last change is told without hurry: of an import, a replay, or long ago."""
    erased: list[Signal] = field(default_factory=list)
    quiet: set[str] = field(default_factory=set)
    """Events that must not act outside."""


class Handlers:
    """The handlers under one configuration; `wake` tells the sender that there may be something to say."""

    def __init__(self, rules: Notify, team: Team, places: Places, wake: asyncio.Event | None = None) -> None:
        self.rules, self.team, self.places = rules, team, places
        self.wake = wake or asyncio.Event()

    async def on_signals(self, batch: Batch, unit: UnitOfWork) -> None:
        inbox, calls = Inbox(), Calls.of(self.rules)
        for signal in batch:
            called = calls.hear(signal, unit)
            if not _sort(signal, inbox, unit) and not called:
                unit.ignore(signal, NO_USE)
        for facet, rows in inbox.facets.items():
            await store.save_facets(unit.db, facet, rows)
        await store.save_links(unit.db, inbox.links)
        for rest in (False, True):
            some = [name for name, later in inbox.scored.items() if later is rest]
            if some:
                await store.want(unit.db, self._waits(rest), some, rest=rest)
        if inbox.said:
            await self._follow(inbox, unit)
        await calls.save(unit)
        for signal in inbox.erased:
            await self._forget(signal, unit)
        spoken_of = {link[0] for link in inbox.links} | calls.accounts_of_people
        await merging.move(unit.db, inbox.merged, spoken_of, unit.partitions)

    def _waits(self, rest: bool) -> dict[str, timedelta]:
        least = self.rules.cold_start_wait_seconds if rest else 0.0
        return {
            written_to(name): timedelta(seconds=max(least, one.every_seconds))
            for name, one in self.rules.write_back.items()
        }

    async def _follow(self, inbox: Inbox, unit: UnitOfWork) -> None:
        """Bring the episodes forward and add to the ledger what is to be told of them."""
        now = await store.now(unit.db)
        known = await store.load_episodes(unit.db, {said.alert_id for said in inbox.said})
        opening = {said.alert_id for said in inbox.said if said.what == "opened"} - known.keys()
        early = await store.take_early(unit.db, opening) if opening else []
        await store.save_early(
            unit.db, [said for said in inbox.said if said.alert_id not in known and said.alert_id not in opening]
        )
        news: list[tuple[Said, Episode]] = []
        for said in sorted([*early, *inbox.said], key=lambda said: said.what != "opened"):
            after = episodes.told(known.get(said.alert_id), said)
            if after is not None:
                known[said.alert_id] = after
                news.append((said, after))
        if not news:
            return
        await store.save_episodes(unit.db, {episode.alert_id: known[episode.alert_id] for _, episode in news}.values())
        accounts = await store.load_accounts(unit.db, {episode.account_id for _, episode in news})
        told = await store.list_told(unit.db, {episode.alert_id for _, episode in news})
        cold = any(episode.baseline for _, episode in news) and not await store.has_lived(unit.db, domain.BASELINE)
        rows: list[NewRow] = []
        hurry: list[str] = []
        for said, episode in news:
            rows += self._rows(said, episode, accounts[episode.account_id], told, now, inbox.quiet, cold)
            if said.what in ("escalated", "reminded"):
                hurry.append(episode.alert_id)
        await store.add_deliveries(unit.db, rows)
        await unit.db.execute(store.LOOK_NOW, sorted({row[1] for row in rows if row[7] == "pending"}))
        if cold:
            waits = {row[1] for row in rows if row[8] == "cold" and row[7] == "pending"}
            until = now + timedelta(seconds=self.rules.cold_start_wait_seconds)
            await unit.db.execute(store.PUT_OFF_COLD, sorted(waits), until)
        if hurry:
            await unit.db.execute(store.HURRY, hurry, now)
        unit.on_commit.append(self.wake.set)

    async def _forget(self, signal: Signal, unit: UnitOfWork) -> None:
        """Name a person no more, and say so where messages can be changed."""
        person, alias = signal.data.person, privacy.alias_of(next(iter(signal.data.cause_ids), signal.id))
        await unit.db.execute(store.FORGET_EARLY, person)
        blanked = [episodes.forgotten(one, person, alias) for one in await store.list_naming(unit.db, person)]
        if not blanked:
            return
        now = await store.now(unit.db)
        await store.save_episodes(unit.db, blanked)
        told = await store.list_told(unit.db, {episode.alert_id for episode in blanked})
        rows: list[NewRow] = []
        for episode in blanked:
            for place in sorted(told.get(episode.alert_id, ())):
                id = derived_id(SERVICE, place, episode.alert_id, episode.version, "update")
                rows.append((id, place, "update", episode.alert_id, episode.account_id, episode.version,
                             episode.partition, "pending", "single", None, now))  # fmt: skip
        await store.add_deliveries(unit.db, rows)
        await unit.db.execute(store.LOOK_NOW, sorted({row[1] for row in rows}))
        unit.on_commit.append(self.wake.set)

    def _rows(
        self, said: Said, episode: Episode, account: Account, told: dict[str, set[str]], now: datetime,
        quiet: set[str], cold: bool,
    ) -> list[NewRow]:  # fmt: skip
        here = told.setdefault(episode.alert_id, set())
        rows: list[NewRow] = []

        def add(place: str, what: str, reason: str | None = None, mode: str = "single", wait: float = 0.0) -> None:
            id = derived_id(SERVICE, place, episode.alert_id, episode.version, what)
            state = "suppressed" if reason else "pending"
            rows.append((id, place, what, episode.alert_id, episode.account_id, episode.version, episode.partition,
                         state, mode, reason, now + timedelta(seconds=wait)))  # fmt: skip

        if said.what in TELLING:
            silent = self._silence(said, episode, now, quiet, cold)
            if said.what == "opened" and (silent or not self.places.any):
                add(NOWHERE, "open", silent or (domain.BASELINE if episode.baseline else domain.NO_SINK))
                return rows
            if not silent:
                places = domain.destinations(episode, account, self.rules, self.team, self.places, now)
                if said.what == "opened" and not places:
                    add(NOWHERE, "open", domain.NOT_TOLD)
                mode, wait = ("cold", self.rules.cold_start_wait_seconds) if episode.baseline else ("single", None)
                for place in (place for place in places if place not in here):
                    wait_here = self.rules.group_wait_seconds if wait is None else wait
                    add(place, "open", mode=mode, wait=wait_here if said.what == "opened" else 0.0)
        if said.what != "opened":
            for place in sorted(here):
                add(place, "update")
                if said.what in ("escalated", "reminded", "resolved"):
                    add(place, "thread")
        here |= {row[1] for row in rows if row[7] == "pending"}
        return rows

    def _silence(self, said: Said, episode: Episode, now: datetime, quiet: set[str], cold: bool) -> str | None:
        """Why nobody is to be told at all."""
        if said.baseline or (said.what == "opened" and episode.baseline):
            return None if cold and said.what == "opened" else domain.BASELINE
        old = now - (said.computed_at or said.at) > timedelta(hours=self.rules.old_after_hours)
        return domain.OLD if old or said.event_id in quiet else None


def _sort(signal: Signal, inbox: Inbox, unit: UnitOfWork) -> bool:
    """Put the signal where it belongs; False when it says nothing here."""
    data: Any = signal.data
    where = (signal.account_id, signal.partition)
    match signal.type:
        case "alert.opened" | "alert.escalated" | "alert.reminded" | "alert.resolved":
            inbox.said.append(_said(signal))
            if unit.quiet(signal):
                inbox.quiet.add(signal.id)
        case "alert.acknowledged" | "alert.snoozed":
            inbox.said.append(_done(signal))
        case "privacy.recorded" if data.erased_to is not None:
            inbox.erased.append(signal)
        case "account.state":
            inbox.facets["state"].append((*where, msgspec.to_builtins(data), data.as_of))
        case "health_score.changed":
            inbox.facets["change"].append((*where, msgspec.to_builtins(_change(data)), data.computed_at))
            inbox.scored[signal.account_id] = unit.quiet(signal)
        case "account.merged":
            inbox.merged[data.merged_account_id] = data.account_id
        case "account.updated" if data.external_ids:
            said = data.external_ids.items()
            inbox.links += [(*where, namespace, id, signal.occurred_at) for namespace, id in said]
        case "request.answered" if data.demand in ("account.link", "account.split"):
            link = msgspec.json.decode(data.answer, type=_Link)
            if link.namespace and link.external_id:
                id = link.external_id if data.demand == "account.link" else ""
                inbox.links.append((*where, link.namespace, id, signal.occurred_at))
        case "touchpoint.due" if data.last_two_way_at is not None:
            touch = Touch(data.last_two_way_at, data.last_person_id, data.last_channel)
            inbox.facets["touch"].append((*where, msgspec.to_builtins(touch), data.last_two_way_at))
        case "account.segmented":
            cover = {"segment": data.segment, "coverage": data.coverage, "csm": data.csm}
            inbox.facets["cover"].append((*where, cover, data.computed_at))
        case _:
            return False
    return True


def _done(signal: Signal) -> Said:
    """What a person did about an alert."""
    return _heard(signal, until=getattr(signal.data, "until", None))


def _said(signal: Signal) -> Said:
    data: Any = signal.data
    return _heard(
        signal,
        service=data.service,
        rule=data.rule,
        kind=data.kind,
        severity=data.severity,
        title=data.title,
        why=data.why,
        next_step=data.next_step,
        evidence=data.evidence,
        baseline=getattr(data, "baseline", False),
        cause_ids=tuple(data.cause_ids),
        computed_at=data.computed_at,
        context=_context(getattr(data, "context", None)),
    )


def _context(said: AlertContext | None) -> Context | None:
    if said is None:
        return None
    touch = said.last_touch
    return Context(
        name=said.name,
        owner=said.owner,
        segment=said.segment,
        arr=None if said.arr is None else str(said.arr),
        score=said.score,
        band=said.band,
        previous_score=said.previous_score,
        previous_band=said.previous_band,
        coverage=said.coverage,
        caps=said.caps,
        notice_on=said.notice_on,
        touch=None if touch is None else Touch(touch.at, touch.by, touch.via),
        contacts=tuple((one.contact_id, one.role) for one in said.contacts),
        rule=said.rule,
        parts=tuple(Weighing(one.label, one.value, one.lost) for one in said.parts),
        restore=tuple(Remedy(one.label, one.value, one.to_value, one.points, one.to_points) for one in said.restore),
        restored_score=said.restored_score,
    )


def _heard(signal: Signal, **more: Any) -> Said:
    """What every word about an alert tells, and what this one tells besides."""
    data: Any = signal.data
    return Said(
        event_id=signal.id,
        what=cast(What, signal.type.removeprefix("alert.")),
        alert_id=data.alert_id,
        account_id=signal.account_id,
        partition=signal.partition,
        at=data.occurred_at,
        by=getattr(data, "by", None),
        **more,
    )


def _change(moved: Moved) -> Change:
    before = moved.previous
    return Change(
        before=before.score if before else None,
        before_band=before.band if before else None,
        after=moved.current.score,
        after_band=moved.shown_band or moved.current.band,
        why=moved.why,
        shares=tuple((share.cause, share.points) for share in moved.shares[:SHARES]),
        coverage=moved.current.coverage,
        cause_ids=tuple(moved.cause_ids),
        computed_at=moved.computed_at,
    )


def unread(body: bytes) -> None:
    """Results that no message needs pass by undecoded."""


def decoders(reads: Mapping[str, Any], needed: Collection[str]) -> dict[str, Any]:
    """Decoders of wire types: small ones where a message needs little, none where it needs nothing."""
    small = {
        "account.state": msgspec.json.Decoder(State).decode,
        "health_score.changed": msgspec.json.Decoder(Moved).decode,
        "account.updated": msgspec.json.Decoder(Linked).decode,
        "request.answered": msgspec.json.Decoder(Answered).decode,
        "contact.changed": msgspec.json.Decoder(Known).decode,
    }
    return {wire: small.get(model.type_name, unread) for wire, model in reads.items() if model.type_name not in needed}
