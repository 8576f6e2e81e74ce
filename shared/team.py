"""The team that looks after customers: people, pools, absences and dated assignments (`config/team.yaml`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.config import Loaded, load
from shared.events.base import Identifier
from shared.times import ZoneName

Role = Literal["csm", "am", "renewals", "onboarding", "manager"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
FILE = "team.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Hours(_Part):
    """When somebody works, on their own clock."""

    timezone: ZoneName = "UTC"
    days: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri")
    start: Annotated[time, Field(alias="from")] = time(9)
    end: Annotated[time, Field(alias="to")] = time(18)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


class Absence(_Part):
    """First and last day away."""

    start: Annotated[date, Field(alias="from")]
    end: Annotated[date, Field(alias="to")]

    @model_validator(mode="after")
    def _runs_forward(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"the absence ends on {self.end}, before it starts on {self.start}")
        return self


class Person(_Part):
    id: Identifier
    name: str
    roles: tuple[Role, ...] = ("csm",)
    slack_id: str | None = None
    languages: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    hours: Hours = Hours()
    capacity: Annotated[float, Field(gt=0, le=2)] = 1.0
    absences: tuple[Absence, ...] = ()
    backup: Identifier | None = None

    def is_away(self, day: date) -> bool:
        return any(absence.start <= day <= absence.end for absence in self.absences)


class Pool(_Part):
    """A shared team for accounts of some tiers, languages and products; empty means any language or product."""

    id: Identifier
    name: str
    members: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    tiers: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    products: tuple[str, ...] = ()


class WrittenAssignment(_Part):
    account_id: Identifier
    role: Role = "csm"
    person_id: Identifier | None
    start: Annotated[date, Field(alias="from")]


class Team(_Part):
    people: tuple[Person, ...] = ()
    pools: tuple[Pool, ...] = ()
    assignments: tuple[WrittenAssignment, ...] = ()

    @model_validator(mode="after")
    def _names_known_people(self) -> Self:
        ids = [person.id for person in self.people] + [pool.id for pool in self.pools]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: used as an id twice; people and pools need ids of their own")
        named = {person.backup for person in self.people if person.backup}
        named |= {member for pool in self.pools for member in pool.members}
        unknown = sorted(named - {person.id for person in self.people})
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: named as backup or member, but not among people")
        lost = sorted({one.person_id for one in self.assignments if one.person_id} - set(ids))
        if lost:
            raise ValueError(f"{', '.join(lost)}: assigned, but neither among people nor pools")
        return self

    def person(self, person_id: str) -> Person | None:
        return next((person for person in self.people if person.id == person_id), None)

    def pool(self, pool_id: str) -> Pool | None:
        return next((pool for pool in self.pools if pool.id == pool_id), None)

    def knows(self, person_id: str) -> bool:
        return self.person(person_id) is not None or self.pool(person_id) is not None


@dataclass(frozen=True, slots=True)
class Assignment:
    """From `at` on `person_id` has the role; None leaves it to the queue."""

    account_id: str
    role: str
    person_id: str | None
    at: datetime
    event_id: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Who answers now: `assigned` on paper, `acting` unless away, None for the queue, and why."""

    assigned: str | None
    acting: str | None
    reason: str


def assigned_at(assignments: Iterable[Assignment], role: str, at: datetime) -> Assignment | None:
    """The latest assignment to a role at a moment; of two at one instant, the greater event id."""
    past = [one for one in assignments if one.role == role and one.at <= at]
    return max(past, key=lambda one: (one.at, one.event_id), default=None)


def owner_at(assignments: Iterable[Assignment], role: str, at: datetime, team: Team) -> Owner:
    """Who has the role and who stands in: backups are followed until somebody is there."""
    current = assigned_at(assignments, role, at)
    if current is None or current.person_id is None:
        return Owner(None, None, f"no {role} is assigned")
    assigned, names = current.person_id, [current.person_id]
    person = team.person(assigned)
    while person is not None and person.is_away(at.astimezone(person.hours.zone).date()):
        if person.backup is None or person.backup in names:
            return Owner(assigned, None, f"{' and '.join(names)} away, no backup")
        names.append(person.backup)
        person = team.person(person.backup)
    if len(names) > 1:
        return Owner(assigned, names[-1], f"{' and '.join(names[:-1])} away, {names[-1]} stands in")
    return Owner(assigned, assigned, "assigned")


def pool_for(team: Team, tier: str, at: datetime, language: str | None, product: str | None) -> Pool | None:
    """The first pool that takes the tier, speaks the language, knows the product and has somebody there."""
    for pool in team.pools:
        fits = (
            tier in pool.tiers
            and (not pool.languages or language is None or language in pool.languages)
            and (not pool.products or product is None or product in pool.products)
        )
        if fits and any(_is_there(team, member, at) for member in pool.members):
            return pool
    return None


def written(team: Team) -> Mapping[str, Sequence[Assignment]]:
    """The assignments of the file by account, from the first instant (UTC) of their day on."""
    found: dict[str, list[Assignment]] = {}
    for one in team.assignments:
        at = datetime.combine(one.start, time(), ZoneInfo("UTC"))
        entry = Assignment(one.account_id, one.role, one.person_id, at, "")
        found.setdefault(one.account_id, []).append(entry)
    return found


def load_team(config_dir: Path) -> Loaded[Team]:
    """Read the team.

    Raises Misconfigured with file, line and field.
    """
    return load(config_dir / FILE, Team)


def _is_there(team: Team, person_id: str, at: datetime) -> bool:
    person = team.person(person_id)
    return person is not None and not person.is_away(at.astimezone(person.hours.zone).date())
