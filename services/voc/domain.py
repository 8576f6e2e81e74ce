"""Voice's rules: comments as a fold over what was said, what they add up to, and what accounts wish for (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from services.voc.analysis import Reading
from services.voc.language import tokens_of

What = Literal["said", "corrected", "retracted"]
Mismatch = Literal["risk_behind_high_score", "complaint_behind_high_score", "praise_behind_low_score"]
DEFAULT_SCALE = {"nps": "0-10", "csat": "1-5", "ces": "1-7"}
UNLABELLED = "(unlabelled)"
SEVERITIES = ("p1", "p2", "p3", "p4")


@dataclass(frozen=True, slots=True)
class Policy:
    """The company's choices, from `config/voc.yaml`."""

    reporting_currency: str = "EUR"
    trend_days: int = 30
    quote_chars: int = 140
    high_score_from: float = 0.85
    low_score_to: float = 0.6
    praise_from: float = 0.35
    complaint_to: float = -0.35
    mid_from: Decimal = Decimal(5000)
    high_above: Decimal = Decimal(50000)
    risk_themes: frozenset[str] = frozenset()
    themes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing said about one comment; what is None says nothing.

    No words but a `reading`: the words were erased on a person's demand, what they were about still counts.
    """

    account_id: str
    item_id: str
    what: What
    at: datetime
    origin: str
    event_id: str
    source: str = "feedback"
    text: str | None = None
    title: str | None = None
    wish: str | None = None
    user_id: str | None = None
    product_area: str | None = None
    severity: str | None = None
    survey: str | None = None
    score: float | None = None
    scale: str | None = None
    given_language: str | None = None
    reading: Reading | None = None

    @property
    def order(self) -> tuple[datetime, str, str]:
        return self.at, self.origin, self.event_id


@dataclass(frozen=True, slots=True)
class Relabel:
    """A person's labels for a comment; no rule overwrites them."""

    account_id: str
    item_id: str
    request_id: str
    decided_at: datetime
    themes: tuple[str, ...]
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A comment as it stands at some time."""

    account_id: str
    item_id: str
    source: str
    said_at: datetime
    text: str | None
    title: str | None
    wish: str | None
    user_id: str | None
    product_area: str | None
    severity: str | None
    severity_given: bool
    score: float | None
    reading: Reading
    human: tuple[str, ...] | None
    mismatch: Mismatch | None
    revision: int

    @property
    def themes(self) -> tuple[str, ...]:
        return self.human if self.human is not None else tuple(label.theme for label in self.reading.labels)

    def sentiment_on(self, theme: str) -> float | None:
        """The mood of the clauses that name the theme, else of the whole comment."""
        found = next((label.sentiment for label in self.reading.labels if label.theme == theme), None)
        return self.reading.sentiment if found is None else found


def item_at(
    statements: Iterable[Statement], relabels: Iterable[Relabel], until: datetime | None, policy: Policy
) -> Item | None:
    """The comment as it stands at a time, whatever the order in which its statements arrived; None: there is none.

    A correction counts by its own time, but never before the comment it corrects; a retraction hides what was
    said up to its time.
    """
    known = sorted((one for one in statements if until is None or one.at <= until), key=lambda one: one.order)
    said = [one for one in known if one.what == "said"]
    if not said:
        return None
    first = said[0]
    words, gone, score, scale, survey = first, False, first.score, first.scale, first.survey
    fields = {"user_id": first.user_id, "product_area": first.product_area, "severity": first.severity}
    for one in known:
        if one is first:
            continue
        if one.what == "retracted":
            gone = True
            continue
        if one.what == "said":
            gone = False
            fields = {name: getattr(one, name) or value for name, value in fields.items()}
            scale, survey = one.scale or scale, one.survey or survey
        words = one if one.text is not None or one.reading is not None else words
        score = one.score if one.score is not None else score
    if gone or words.reading is None:
        return None
    chosen = [one for one in relabels if until is None or one.decided_at <= until]
    human = max(chosen, key=lambda one: (one.decided_at, one.request_id)).themes if chosen else None
    reading = words.reading
    themes = human if human is not None else tuple(label.theme for label in reading.labels)
    return Item(
        first.account_id, first.item_id, first.source, first.at, words.text, words.title or first.title,
        words.wish or first.wish, fields["user_id"], fields["product_area"],
        fields["severity"] or reading.severity, fields["severity"] is not None, score, reading, human,
        mismatch_of(share_of_scale(survey, score, scale), reading.sentiment, themes, policy), len(known) + len(chosen),
    )  # fmt: skip


def items_of(
    statements: Iterable[Statement], relabels: Iterable[Relabel], until: datetime | None, policy: Policy
) -> list[Item]:
    """Every comment that stands at a time, by account and item."""
    by_item: dict[tuple[str, str], list[Statement]] = {}
    for one in statements:
        by_item.setdefault((one.account_id, one.item_id), []).append(one)
    labels: dict[tuple[str, str], list[Relabel]] = {}
    for label in relabels:
        labels.setdefault((label.account_id, label.item_id), []).append(label)
    found = (item_at(by_item[key], labels.get(key, ()), until, policy) for key in sorted(by_item))
    return [item for item in found if item is not None]


def share_of_scale(survey: str | None, score: float | None, scale: str | None) -> float | None:
    """Where a score stands on its scale, 0 to 1; NPS counts from 0 whatever its scale; None when it does not fit."""
    if survey is None or score is None:
        return None
    low, _, high = (scale or DEFAULT_SCALE[survey]).partition("-")
    bottom, top = (0 if survey == "nps" else int(low)), int(high)
    if not int(low) <= score <= top or top <= bottom:
        return None
    return (score - bottom) / (top - bottom)


def mismatch_of(share: float | None, sentiment: float | None, themes: Iterable[str], policy: Policy) -> Mismatch | None:
    """Whether the words belie the score: a 9 that looks for alternatives, a 3 full of praise."""
    if share is None or sentiment is None:
        return None
    leaving = not policy.risk_themes.isdisjoint(themes)
    if share >= policy.high_score_from:
        if leaving:
            return "risk_behind_high_score"
        return "complaint_behind_high_score" if sentiment <= policy.complaint_to else None
    if share <= policy.low_score_to and sentiment >= policy.praise_from and not leaving:
        return "praise_behind_low_score"
    return None


# -- what an account is worth ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Worth:
    """The yearly revenue that one holding (`account`, or a subscription) brings from a time on; None clears it."""

    account_id: str
    holding: str
    at: datetime
    event_id: str
    amount: Decimal | None
    currency: str | None

    @property
    def order(self) -> tuple[datetime, str]:
        return self.at, self.event_id


@dataclass(frozen=True, slots=True)
class Rate:
    """One `currency` is `rate` of the reporting currency, in that year."""

    currency: str
    year: int
    at: datetime
    event_id: str
    rate: Decimal


@dataclass(frozen=True, slots=True)
class Revenue:
    """ARR in the reporting currency, or null and why."""

    arr: Decimal | None
    reason: str | None = None


UNKNOWN_REVENUE = Revenue(None, "no revenue of this account is known")
ACCOUNT = "account"


def revenue_at(facts: Iterable[Worth], rates: Iterable[Rate], at: datetime, policy: Policy) -> Revenue:
    """The latest known: the account's stated ARR, or the sum of its subscriptions (MRR x 12), whichever is newer."""
    latest: dict[str, Worth] = {}
    for fact in facts:
        if fact.at <= at and (fact.holding not in latest or latest[fact.holding].order < fact.order):
            latest[fact.holding] = fact
    stated = latest.pop(ACCOUNT, None)
    newest = max((fact.order for fact in latest.values()), default=None)
    if stated is not None and stated.amount is not None and (newest is None or stated.order > newest):
        return _converted([stated], rates, at, policy)
    if latest:
        return _converted([latest[holding] for holding in sorted(latest)], rates, at, policy)
    return UNKNOWN_REVENUE


def _converted(facts: Sequence[Worth], rates: Iterable[Rate], at: datetime, policy: Policy) -> Revenue:
    total, known = Decimal(0), list(rates)
    for fact in facts:
        if fact.amount is None or fact.amount == 0:
            continue
        rate = _rate(fact.currency, known, at, policy)
        if rate is None:
            return Revenue(None, f"no fx.rate of {fact.currency} is known")
        total += fact.amount * rate
    return Revenue(total)


def _rate(currency: str | None, rates: Iterable[Rate], at: datetime, policy: Policy) -> Decimal | None:
    if currency is None or currency == policy.reporting_currency:
        return Decimal(1)
    fitting = [rate for rate in rates if rate.currency == currency and rate.at <= at and rate.year <= at.year]
    return max(fitting, key=lambda rate: (rate.year, rate.at, rate.event_id)).rate if fitting else None


def segment_of(arr: Decimal | None, policy: Policy) -> str:
    if arr is None:
        return "unknown"
    return "high" if arr > policy.high_above else "mid" if arr >= policy.mid_from else "low"


# -- figures --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ThemeCount:
    """One theme over some comments; an account's ARR counts once, however often it speaks."""

    theme: str
    parent: str | None
    items: int
    accounts: int
    arr: Decimal | None
    accounts_without_arr: int
    sentiment: float | None
    last: int
    before: int

    @property
    def trend(self) -> int:
        return self.last - self.before

    @property
    def trend_ratio(self) -> float | None:
        return round((self.last - self.before) / self.before, 6) if self.before else None


def theme_counts(
    items: Iterable[Item], revenue: Mapping[str, Revenue], at: datetime, policy: Policy, level: str = "theme"
) -> list[ThemeCount]:
    """One row per theme that was named (or per parent), most accounts' ARR first, then `(unlabelled)`."""
    groups: dict[str, list[tuple[Item, float | None]]] = {}
    for item in items:
        if level == "parent":
            names = {theme.partition(".")[0] for theme in item.themes}
            moods = dict.fromkeys(names, item.reading.sentiment)
        else:
            moods = {theme: item.sentiment_on(theme) for theme in item.themes}
        for name, mood in (moods or {UNLABELLED: item.reading.sentiment}).items():
            groups.setdefault(name, []).append((item, mood))
    groups.setdefault(UNLABELLED, [])
    rows = [_count(name, found, revenue, at, policy, level) for name, found in groups.items()]
    return sorted(
        rows, key=lambda row: (row.theme == UNLABELLED, -(row.arr or 0), -row.accounts, -row.items, row.theme)
    )


def _count(
    name: str,
    found: Sequence[tuple[Item, float | None]],
    revenue: Mapping[str, Revenue],
    at: datetime,
    policy: Policy,
    level: str,
) -> ThemeCount:
    window = timedelta(days=policy.trend_days)
    accounts = sorted({item.account_id for item, _ in found})
    worths = [revenue.get(account_id, UNKNOWN_REVENUE).arr for account_id in accounts]
    moods = [mood for _, mood in found if mood is not None]
    return ThemeCount(
        theme=name,
        parent=name.partition(".")[0] if name != UNLABELLED and level == "theme" else None,
        items=len(found),
        accounts=len(accounts),
        arr=_known_sum(worths),
        accounts_without_arr=sum(worth is None for worth in worths),
        sentiment=mean(moods),
        last=sum(at - window < item.said_at <= at for item, _ in found),
        before=sum(at - 2 * window < item.said_at <= at - window for item, _ in found),
    )


def _known_sum(worths: Sequence[Decimal | None]) -> Decimal | None:
    """The sum of what is known; null when there are accounts and none is."""
    known = [worth for worth in worths if worth is not None]
    return sum(known, Decimal(0)) if known or not worths else None


def mean(values: Sequence[float]) -> float | None:
    """The mean to six places, summed in one order so that it never depends on who came first."""
    return round(sum(sorted(values)) / len(values), 6) + 0.0 if values else None


# -- feature requests -----------------------------------------------------------------------------

_POLITE = frozenset(
    (
        "a an the please pls kindly we i us you it is be to would could should can will like love want "
        "wish nice great add adding have having able ability possibility hi hello thanks thank un une le "
        "la les l d de des du au aux en svp s il vous plait te merci bonjour nous je on j aimerait "
        "aimerais aimerions voudrait voudrais voudrions souhaite souhaitons souhaiterions avoir ajouter "
        "ajout ajoutez pouvoir possibilite serait bien avons ai"
    ).split()
)
_PREFIX = re.compile(r"^\W*(?:feature request|demande d.[eé]volution)\W+", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")


def wish_key(title: str) -> str:
    """The same wish in other letters, plurals and pleasantries has the same key; the order of words counts."""
    tokens = [token for token in tokens_of(_PREFIX.sub("", title)) if _WORD.fullmatch(token)]
    kept = [token for token in tokens if token not in _POLITE] or tokens
    return "-".join(_singular(token) for token in kept)[:200] or title.strip().lower()[:200]


def _singular(token: str) -> str:
    if len(token) <= 3 or token.endswith(("ss", "us", "is")):
        return token
    if token.endswith("ies"):
        return token[:-3] + "y"
    return token[:-1] if token[-1] == "s" or token.endswith(("aux", "eux")) else token


@dataclass(frozen=True, slots=True)
class AccountWish:
    """One account's wish: all its people's votes in one."""

    account_id: str
    key: str
    title: str
    people: tuple[str, ...]
    votes: int
    severity: str | None
    product_area: str | None
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Wish:
    """One wish over all accounts; an account counts, and its ARR is added, once."""

    key: str
    title: str
    accounts: tuple[str, ...]
    people: int
    votes: int
    arr: Decimal | None
    accounts_without_arr: int
    segments: Mapping[str, int]
    severities: Mapping[str, int]
    severity: str | None
    product_areas: tuple[str, ...]
    first_at: datetime
    last_at: datetime

    @property
    def breadth(self) -> int:
        """How many kinds of account ask, of high, mid and low."""
        return sum(1 for segment, count in self.segments.items() if count and segment != "unknown")


def wishes_of(items: Iterable[Item]) -> list[AccountWish]:
    """The wishes of each account; a title asked for by several people of an account is one wish with several people."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        if item.wish is not None:
            groups.setdefault((item.account_id, item.wish), []).append(item)
    return [_account_wish(account, key, asked) for (account, key), asked in sorted(groups.items())]


def _account_wish(account_id: str, key: str, asked: Sequence[Item]) -> AccountWish:
    by_time = sorted(asked, key=lambda item: (item.said_at, item.item_id))
    first, last = by_time[0], by_time[-1]
    return AccountWish(
        account_id, key, first.title or key, tuple(sorted({item.user_id for item in asked if item.user_id})),
        len(asked), min((item.severity for item in asked if item.severity), default=None),
        next((item.product_area for item in reversed(by_time) if item.product_area), None), first.said_at, last.said_at,
    )  # fmt: skip


def all_wishes(wishes: Iterable[AccountWish], revenue: Mapping[str, Revenue], policy: Policy) -> list[Wish]:
    """Wishes over accounts, most ARR first."""
    groups: dict[str, list[AccountWish]] = {}
    for wish in wishes:
        groups.setdefault(wish.key, []).append(wish)
    rows = [_wish(key, asked, revenue, policy) for key, asked in groups.items()]
    return sorted(rows, key=lambda row: (-(row.arr or 0), -len(row.accounts), -row.people, row.key))


def _wish(key: str, asked: Sequence[AccountWish], revenue: Mapping[str, Revenue], policy: Policy) -> Wish:
    worths = [revenue.get(wish.account_id, UNKNOWN_REVENUE).arr for wish in asked]
    segments = [segment_of(worth, policy) for worth in worths]
    first = min(asked, key=lambda wish: (wish.first_at, wish.account_id))
    return Wish(
        key=key, title=first.title, accounts=tuple(sorted(wish.account_id for wish in asked)),
        people=sum(len(wish.people) for wish in asked), votes=sum(wish.votes for wish in asked),
        arr=_known_sum(worths),
        accounts_without_arr=sum(worth is None for worth in worths),
        segments={name: segments.count(name) for name in ("high", "mid", "low", "unknown")},
        severities={name: sum(wish.severity == name for wish in asked) for name in SEVERITIES},
        severity=min((wish.severity for wish in asked if wish.severity), default=None),
        product_areas=tuple(sorted({wish.product_area for wish in asked if wish.product_area})),
        first_at=first.first_at, last_at=max(wish.last_at for wish in asked),
    )  # fmt: skip


def quote_of(text: str | None, limit: int) -> str | None:
    """The beginning of the words on one line, cut between words."""
    if text is None or limit == 0:
        return None
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    return (line[:limit].rsplit(" ", 1)[0] or line[:limit]) + "…"


def merged(account_id: str, merges: Mapping[str, str]) -> str:
    """The customer an account has become by mergers, however many."""
    seen = {account_id}
    while account_id in merges and merges[account_id] not in seen:
        account_id = merges[account_id]
        seen.add(account_id)
    return account_id
