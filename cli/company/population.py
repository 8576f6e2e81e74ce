"""Who the customers are: drawn from the seed alone, so that a name keeps its story whenever the demo runs."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import yaml

Course = Literal["steady", "growing", "fading", "dropped", "silent", "churned", "unhappy", "new", "unused"]
Tier = Literal["high", "mid", "low"]
HISTORY_DAYS = 548
TIERS: dict[Tier, int] = {"high": 21, "mid": 70}
GROUPS, SMALL_BUSINESSES, CONSUMERS = 4, 52, 40
SUBSIDIARIES = {"FR": "France", "GB": "UK", "US": "US", "DE": "Deutschland", "ES": "España", "NL": "Nederland"}
LANGUAGES = {"FR": "fr", "GB": "en", "US": "en", "DE": "de", "ES": "es", "NL": "nl"}
COUNTRIES = {"FR": 46, "GB": 15, "US": 15, "DE": 13, "ES": 6, "NL": 5}
CSMS = {"high": ("lea.marchand", "tom.whitfield", "sofia.brandt"), "mid": ("karim.benali", "hannah.pike")}
PLANS = {"high": "enterprise", "mid": "business", "low": "team", "b2c": "pocket"}
FEATURES = {
    "planner": ("planner.board", "planner.calendar", "planner.mobile", "planner.timesheet", "planner.templates",
                "planner.gantt", "planner.comments"),
    "insight": ("insight.dashboard", "insight.report", "insight.export", "insight.builder", "insight.alerts",
                "insight.forecast"),
    "flow": ("flow.approval", "flow.form", "flow.run", "flow.builder", "flow.api"),
    "pocket": ("pocket.list", "pocket.reminder", "pocket.widget", "pocket.share"),
}  # fmt: skip
SMALL = {
    "FR": ("Cabinet {} & {}", "{} & {} Architectes", "Étude {} {}", "Atelier {}-{}"),
    "GB": ("{} & {} Accounting", "{} {} Interiors", "{} & {} Surveyors"),
    "US": ("{} & {} Law", "{} {} Dental", "{} & {} Design"),
    "DE": ("{} & {} Steuerberatung", "Praxis {} {}", "{} + {} Architektur"),
    "ES": ("{} y {} Asesores", "Estudio {} {}"),
    "NL": ("{} & {} Advies", "Bureau {} {}"),
}


@dataclass(frozen=True, slots=True)
class Account:
    """A customer; `*_ago` are days before today, `arr` is euros a year at the start."""

    id: str
    name: str
    country: str
    model: Literal["b2b", "b2c"]
    tier: Tier
    products: tuple[str, ...]
    industry: str | None
    arr: int
    seats: int
    people: int
    starts_ago: int
    course: Course
    turn_ago: int = 0
    """When the course took its turn: the drop, the last use, the end."""
    csm: str | None = None
    parent_id: str | None = None
    renews_ago: int | None = None
    """How long ago (negative: to come) a term began; None: the anniversary of the start."""
    is_story: bool = False

    @property
    def language(self) -> str:
        return LANGUAGES[self.country]

    @property
    def words(self) -> str:
        """The language of the texts: French, else English."""
        return "fr" if self.country == "FR" else "en"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody at a customer's; `rank` orders who stops first when use declines (the highest)."""

    id: str
    name: str
    joins_ago: int
    weekdays: tuple[int, ...]
    features: tuple[str, ...]
    rank: float


def ardelune(suffix: str, **more: Any) -> Account:
    start = Account("", "", "FR", "b2b", "high", ("planner", "insight"), "energy", 30_000, 14, 9, 500, "steady")
    name = f"Ardelune {suffix}"
    return replace(start, id=slug(name), name=name, parent_id="groupe-ardelune", csm="lea.marchand", is_story=True,
                   **more)  # fmt: skip


def slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


STORIES = (
    Account("menuiserie-vallombre", "Menuiserie Vallombre", "FR", "b2b", "mid", ("planner",), "construction",
            12_000, 20, 19, 440, "growing", csm="karim.benali", is_story=True),
    Account("laboratoires-seranne", "Laboratoires Séranne", "FR", "b2b", "high", ("insight", "flow"), "healthcare",
            96_000, 40, 22, 540, "dropped", turn_ago=33, csm="lea.marchand", renews_ago=230, is_story=True),
    Account("harrowmere-freight", "Harrowmere Freight", "GB", "b2b", "mid", ("planner",), "logistics", 38_000, 25, 12,
            545, "silent", turn_ago=43, csm="hannah.pike", renews_ago=260, is_story=True),
    Account("cooperative-brisemont", "Coopérative Brisemont", "FR", "b2b", "mid", ("planner", "insight"), "food",
            46_000, 18, 10, 530, "steady", csm="karim.benali", renews_ago=245, is_story=True),
    Account("duinveste-techniek", "Duinveste Techniek", "NL", "b2b", "mid", ("planner",), "construction", 18_500, 14,
            11, 400, "steady", csm="hannah.pike", is_story=True),
    Account("falkenrode-logistik", "Falkenrode Logistik", "DE", "b2b", "high", ("planner", "flow"), "logistics",
            118_000, 60, 20, 545, "steady", csm="sofia.brandt", renews_ago=150, is_story=True),
    Account("juniper-wake-outfitters", "Juniper Wake Outfitters", "US", "b2b", "high", ("planner", "insight"), "retail",
            64_000, 30, 16, 420, "growing", csm="tom.whitfield", is_story=True),
    Account("groupe-ardelune", "Groupe Ardelune", "FR", "b2b", "high", ("insight",), "energy", 72_000, 24, 14, 547,
            "steady", csm="lea.marchand", is_story=True),
    ardelune("Bretagne", arr=24_000),
    ardelune("Deutschland", country="DE", arr=31_000),
    ardelune("UK", country="GB", arr=12_000, course="silent", turn_ago=34),
)  # fmt: skip


@lru_cache(maxsize=1)
def names() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "names.yaml").read_text(encoding="utf-8"))
    return loaded


@lru_cache(maxsize=4)
def population(seed: int) -> tuple[Account, ...]:
    """All customers, the stories' first."""
    rng = random.Random(f"{seed}/population")
    found = {account.id: account for account in STORIES}
    companies = _companies(rng)
    for tier, count in TIERS.items():
        for course in _courses(rng, tier, count):
            country, name = next(companies)
            account = _business(rng, tier, country, name, course)
            found[account.id] = account
    for _ in range(GROUPS):
        _group(rng, found, *next(companies))
    for course in _courses(rng, "low", SMALL_BUSINESSES):
        _add_new(found, partial(_small, rng, course))
    for course in _courses(rng, "b2c", CONSUMERS):
        _add_new(found, partial(_consumer, rng, course))
    return tuple(found.values())


def _add_new(found: dict[str, Account], draw: Callable[[], Account]) -> None:
    """Draw until the name is a new one."""
    while (account := draw()).id in found:
        pass
    found[account.id] = account


def users(account: Account, seed: int) -> tuple[User, ...]:
    """The people of a customer, in the order of their coming."""
    rng = random.Random(f"{seed}/{account.id}/users")
    offered = [feature for product in account.products for feature in FEATURES[product]]
    found: dict[str, User] = {}
    while len(found) < account.people:
        name = _person(rng, account.country) if account.model == "b2b" or found else account.name
        id_ = f"{slug(name).replace('-', '.')}@{account.id}"
        rank = (len(found) + 0.5) / account.people
        found.setdefault(id_, User(id_, name, _joins(rng, account, rank), _weekdays(rng, account),
                                   _features(rng, account, offered), rank))  # fmt: skip
    return tuple(found.values())


def contact_name(account: Account, seed: int, role: str) -> str:
    return _person(random.Random(f"{seed}/{account.id}/{role}"), account.country)


def _joins(rng: random.Random, account: Account, rank: float) -> int:
    """Founders at the start, others later; in growing accounts many of them lately."""
    if account.id == "menuiserie-vallombre":
        return account.starts_ago - round(300 * rank) if rank < 0.45 else rng.randint(30, 58)
    if account.course == "growing":
        return round(account.starts_ago * max(0.0, 1 - rank * 1.15)) if rank < 0.5 else rng.randint(25, 95)
    if rank < 0.7 or account.course == "new":
        return account.starts_ago - rng.randint(0, 12)
    return round(account.starts_ago * rng.uniform(0.3, 1.0))


def _weekdays(rng: random.Random, account: Account) -> tuple[int, ...]:
    if account.model == "b2c":
        return tuple(sorted(rng.sample(range(7), rng.choice((3, 3, 4)))))
    most = {"high": (1, 1, 1, 2), "mid": (1, 1, 1, 2), "low": (2, 2, 3)}[account.tier]
    count = most[rng.randrange(len(most))]
    return tuple(sorted(rng.sample(range(5), count)))


def _features(rng: random.Random, account: Account, offered: Sequence[str]) -> tuple[str, ...]:
    """What somebody uses, the favourite first; the first features of a product are the popular ones."""
    if account.id == "duinveste-techniek":
        return ("planner.mobile",) if rng.random() < 0.8 else ("planner.mobile", "planner.timesheet")
    weights = [1 / (1 + FEATURES[feature.partition(".")[0]].index(feature)) for feature in offered]
    count = min(len(offered), rng.randint(2, 4))
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        chosen[rng.choices(offered, weights)[0]] = None
    return tuple(chosen)


def _companies(rng: random.Random) -> Iterator[tuple[str, str]]:
    """(country, name) of companies, each invented name once."""
    taken = " ".join(account.name for account in STORIES)
    pool = [(country, name) for country, known in names()["companies"].items() for name in known["names"]
            if name not in taken]  # fmt: skip
    rng.shuffle(pool)
    return iter(pool)


def _small(rng: random.Random, course: Course) -> Account:
    country = _pick(rng, COUNTRIES)
    return _business(rng, "low", country, _small_name(rng, country), course)


def _business(rng: random.Random, tier: Tier, country: str, name: str, course: Course) -> Account:
    full = name if tier == "low" else rng.choice(names()["companies"][country]["patterns"]).format(name)
    arr, people, seats = _size(rng, tier)
    turn = _turn(rng, course)
    return Account(
        id=slug(full),
        name=full,
        country=country,
        model="b2b",
        tier=tier,
        products=_products(rng, tier),
        industry=rng.choice(names()["industries"]),
        arr=arr,
        seats=seats,
        people=people,
        starts_ago=_started(rng, course, turn),
        course=course,
        turn_ago=turn,
        csm=rng.choice(CSMS[tier]) if tier in CSMS else None,
    )


def _size(rng: random.Random, tier: str) -> tuple[int, int, int]:
    """ARR, people who use it, seats."""
    if tier == "high":
        people = rng.randint(10, 19)
        return round(rng.lognormvariate(11.35, 0.42) / 500) * 500 + 20_000, people, people + rng.randint(2, 20)
    if tier == "mid":
        people = rng.randint(3, 9)
        return (
            min(46_000, max(5_600, round(rng.lognormvariate(9.6, 0.55) / 100) * 100)),
            people,
            people + rng.randint(0, 8),
        )
    people = rng.randint(1, 4)
    return rng.choice((588, 948, 1_188, 1_788, 2_388, 2_988, 3_588, 4_188)), people, people + rng.randint(0, 2)


def _products(rng: random.Random, tier: str) -> tuple[str, ...]:
    count = {"high": rng.choice((2, 2, 3)), "mid": rng.choice((1, 1, 2)), "low": 1}[tier]
    chosen = ["planner"] if rng.random() < 0.65 else []
    rest = [product for product in ("planner", "insight", "flow") if product not in chosen]
    rng.shuffle(rest)
    return tuple([*chosen, *rest][:count])


COURSES: dict[str, dict[Course, int]] = {
    "high": {"steady": 50, "growing": 12, "fading": 18, "dropped": 3, "unhappy": 12, "silent": 2, "new": 3},
    "mid": {"steady": 43, "growing": 11, "fading": 23, "dropped": 4, "silent": 3, "unhappy": 10, "churned": 3,
            "new": 3},
    "low": {"steady": 46, "growing": 6, "fading": 26, "dropped": 6, "silent": 6, "churned": 8, "new": 4, "unused": 2},
    "b2c": {"steady": 50, "fading": 22, "dropped": 8, "silent": 10, "churned": 9, "new": 6},
}  # fmt: skip


def _courses(rng: random.Random, kind: str, count: int) -> list[Course]:
    """The courses of so many accounts in the shares of their kind, shuffled."""
    shares = COURSES[kind]
    total, cut, dealt = sum(shares.values()), 0, list[Course]()
    for course, share in shares.items():
        cut += share
        dealt += [course] * (round(count * cut / total) - len(dealt))
    rng.shuffle(dealt)
    return dealt


def _turn(rng: random.Random, course: Course) -> int:
    """How long ago the course took its turn."""
    match course:
        case "fading":
            return rng.randint(80, 130)
        case "dropped":
            return rng.randint(26, 45)
        case "silent":
            return rng.randint(24, 70)
        case "churned":
            return rng.choice((30, 50, 75, 100, 115, 160, 260))
    return 0


def _started(rng: random.Random, course: Course, turn: int) -> int:
    """Two of three were customers before the story begins."""
    if course == "new":
        return rng.randint(35, 85)
    if course == "unused":
        return rng.randint(5, 20)
    if rng.random() < 0.66:
        return HISTORY_DAYS - rng.randint(0, 8)
    return rng.randint(max(190, turn + 160), HISTORY_DAYS - 10)


def _group(rng: random.Random, found: dict[str, Account], country: str, name: str) -> None:
    """A parent and its subsidiaries."""
    parent = _business(rng, "high", country, name, "steady")
    parent = replace(parent, name=f"{name} Group", id=slug(f"{name} Group"))
    found[parent.id] = parent
    for number, abroad in enumerate(rng.sample(sorted(SUBSIDIARIES), rng.choice((2, 2, 3)))):
        label = f"{name} {SUBSIDIARIES[abroad]}"
        child = _business(rng, "mid", abroad, name, rng.choice(("steady", "steady", "growing", "fading")))
        found[slug(label)] = replace(child, id=slug(label), name=label, parent_id=parent.id, csm=parent.csm,
                                     arr=8_000 + 4_500 * number)  # fmt: skip


def _small_name(rng: random.Random, country: str) -> str:
    last = names()["people"][_tongue(country)]["last"]
    return rng.choice(SMALL[country]).format(*rng.sample(last, 2))


def _consumer(rng: random.Random, course: Course) -> Account:
    country = _pick(rng, COUNTRIES)
    name = _person(rng, country)
    people = rng.choice((1, 1, 2))
    arr = rng.choice((60, 96, 120, 180))
    return Account(slug(name), name, country, "b2c", "low", ("pocket",), None, arr, people, people,
                   _started(rng, course, (turn := _turn(rng, course))), course, turn)  # fmt: skip


def _person(rng: random.Random, country: str) -> str:
    known = names()["people"][_tongue(country)]
    return f"{rng.choice(known['first'])} {rng.choice(known['last'])}"


def _tongue(country: str) -> str:
    return "EN" if country in ("GB", "US") else country


def _pick(rng: random.Random, weights: Any) -> Any:
    return rng.choices(list(weights), list(weights.values()))[0]
