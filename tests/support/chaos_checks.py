"""The offline checker: complaints about topics and exports that do not say what the oracle says. Pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from tests.support import oracle
from tests.support.oracle import Book, Event, Raw, Step

Rows = Sequence[Mapping[str, Any]]
SHOWN = 5
FOLDED_RULES = ("p1_open", "detractor")
REPLIES = ("request.answered", "request.declined", "request.unclear")


def kind_of(record: Raw) -> str:
    return record.headers["ce_type"].decode().removeprefix("hune.").rpartition(".v")[0]


def data_of(record: Raw) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(record.value)
    return data


def few(what: str, found: Sequence[Any]) -> list[str]:
    """One complaint that counts them and shows some."""
    return [f"{len(found)} × {what}: {', '.join(map(str, found[:SHOWN]))}"] if found else []


# -- accepted and routed -------------------------------------------------------------------------


def all_accepted(book: Book, sent: set[str]) -> list[str]:
    """What was acknowledged lies in the log, and nothing else does."""
    there = {event.id for event in book.events} | set(book.requests)
    return few("accepted but not in the log", sorted(sent - there)) + few(
        "in the log but never sent", sorted(there - sent)
    )


Identity = tuple[str, str, str, int | None]


@dataclass
class Routed:
    """What lies in one domain's topic, as far as it is looked at."""

    domain: str
    records: int = 0
    found: Counter[Identity] = field(default_factory=Counter)
    rung: list[tuple[str, Event]] = field(default_factory=list)
    """What alerts may come of, in its order."""

    @classmethod
    def of(cls, domain: str, records: Iterable[Raw]) -> Routed:
        look = cls(domain)
        for record in records:
            look.take(record)
        return look

    def take(self, record: Raw) -> None:
        account, event = signal(record)
        if event.type == oracle.CLOCK:
            return
        self.records += 1
        if event.type.startswith(("ticket.", "survey.")):
            self.rung.append((account, event))
        self.found[account, *event.identity] += 1

    @property
    def repeats(self) -> int:
        return self.records - len(self.found)

    def as_told(self, book: Book) -> list[str]:
        """Every record of the log that concerns the domain is in its topic, as often as it is in the log."""
        expected = book.routed(self.domain)
        found = Counter({key: n for key, n in self.found.items() if key[2] not in book.requests})
        lost = sorted((expected - found).elements(), key=str)
        extra = sorted((found - expected).elements(), key=str)
        return few(f"lost on the way to {self.domain}", lost) + few(f"routed to {self.domain} too often", extra)


def signal(record: Raw) -> tuple[str, Event]:
    """A routed record as the oracle reads it: its account, and the event with the raw record's receipt."""
    event = oracle.read(record)
    assert event is not None, f"a routed record cannot be read: {record}"
    recorded = record.headers.get("ce_recordedtime")
    received = int(recorded) * 1000 if recorded else record.received
    own = record.headers.get("ce_owntime")
    event = replace(event, received=received, own=oracle.instant(own.decode()) if own else None)
    return record.headers["ce_subject"].decode(), event


# -- results -------------------------------------------------------------------------------------


def each_once(records: Iterable[Raw]) -> list[str]:
    """On every result topic each id comes once."""
    seen = Counter((record.topic, record.headers["ce_id"].decode()) for record in records)
    return few("results that came more than once", sorted(key for key, n in seen.items() if n > 1))


def chained(records: Iterable[Raw], kind: str, key: Sequence[str], before: str, after: str) -> list[str]:
    """Each `before` is the `after` told last under the same key, none the first time."""
    last: dict[tuple[Any, ...], Any] = {}
    broken = []
    for record in records:
        if kind_of(record) == kind:
            data = data_of(record)
            name = tuple(data[part] for part in key)
            if data[before] != last.get(name):
                broken.append((*name, record.headers["ce_id"].decode()))
            last[name] = data[after]
    return few(f"{kind} whose {before!r} is not the {after!r} before it", broken)


def last_told(records: Iterable[Raw], kind: str, key: Sequence[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = {}
    for record in records:
        if kind_of(record) == kind:
            data = data_of(record)
            found[tuple(data[part] for part in key)] = data
    return found


def scores_as_told(results: Sequence[Raw], states: Sequence[Raw], scores: Rows) -> list[str]:
    """The score told last, and the account's latest state, are the score as exported."""
    told = {
        name[0]: data["current"] for name, data in last_told(results, "health_score.changed", ["account_id"]).items()
    }
    stated = {name[0]: data for name, data in last_told(states, "account.state", ["account_id"]).items()}
    wrong = []
    for row in scores:
        expected = (row["score"], row["band"])
        for what, found in (("told", told), ("stated", stated)):
            last = found.get(row["account_id"])
            got = (last["score"], last["band"]) if last else None
            if got != expected:
                wrong.append(f"{row['account_id']} {what} {got}, exported {expected}")
    return few("scores", wrong)


def surveys_as_told(results: Sequence[Raw], book: Book, at: int) -> list[str]:
    """The NPS told last of each account is the oracle's."""
    told = last_told(results, "survey_score.changed", ["account_id", "kind"])
    expected = oracle.nps_by_account(book, at)
    wrong = []
    for account in sorted({name for name, kind in told if kind == "nps"} | set(expected)):
        current = told.get((account, "nps"), {}).get("current", {"n": 0})
        got = (current["n"], current.get("promoters"), current.get("detractors")) if current["n"] else None
        row = expected.get(account)
        if got != ((row["n"], row["promoters"], row["detractors"]) if row else None):
            wrong.append(f"{account} told {got}, expected {row}")
    return few("NPS of an account", wrong)


def segments_as_told(results: Sequence[Raw], book: Book, at: int) -> list[str]:
    told = last_told(results, "account.segmented", ["account_id"])
    expected = {name: row["tier"] for name, row in oracle.segments(book, at).items() if row["tier"]}
    got = {name[0]: data["segment"] for name, data in told.items()}
    return different("segments told last", got, expected)


def comments_as_told(results: Sequence[Raw], book: Book, at: int) -> list[str]:
    """Every comment that stands was recorded, and recorded once."""
    said = [data_of(record) for record in results if kind_of(record) == "voice_item.recorded"]
    told = {(data["account_id"], data["item_id"]) for data in said}
    recorded = Counter((data["account_id"], data["item_id"]) for data in said if data["change"] == "recorded")
    missing = sorted(set(oracle.comments(book, at)) - told)
    twice = sorted(key for key, n in recorded.items() if n > 1)
    return few("comments never told", missing) + few("comments recorded twice", twice)


def answered_once(results: Iterable[Raw], book: Book) -> list[str]:
    """Every request has one reply, whoever gives it."""
    replies = Counter(data_of(record)["request_id"] for record in results if kind_of(record) in REPLIES)
    silent = sorted(set(book.requests) - set(replies))
    twice = sorted(name for name, n in replies.items() if n > 1)
    return few("requests without a reply", silent) + few("requests with several replies", twice)


# -- alerts --------------------------------------------------------------------------------------


def alternating(alerts: Iterable[Raw]) -> list[str]:
    """An alert is opened once, resolved at most once and after that; no two of one rule and cause at a time."""
    opened: dict[str, tuple[str, str, str]] = {}
    resolved: set[str] = set()
    standing: dict[tuple[str, str, str], str] = {}
    wrong = []
    for record in alerts:
        data = data_of(record)
        name, thing = data["alert_id"], (data["account_id"], data["rule"], cause_of(data))
        if kind_of(record) == "alert.opened":
            if name in opened or thing in standing:
                wrong.append(f"{name} {thing} opened again")
            opened[name], standing[thing] = thing, name
        elif kind_of(record) == "alert.resolved":
            if name not in opened or name in resolved:
                wrong.append(f"{name} {thing} resolved without being open")
            resolved.add(name)
            standing.pop(opened.get(name, thing), None)
    return few("alerts out of order", wrong)


def cause_of(alert: Mapping[str, Any]) -> str:
    evidence = alert["evidence"]
    names = ("ticket_id", "answer_id", "invoice_id", "contact_id")
    return next((str(evidence[name]) for name in names if evidence.get(name)), "")


def alerts_as_ruled(alerts: Iterable[Raw], log: Sequence[tuple[str, Event]]) -> list[str]:
    """The episodes of two rules are those that the routed log tells, in its order and by the same events."""
    old = oracle.touched_by_old(log)
    expected, got = _by_cause(oracle.episodes(log)), _by_cause(_steps(alerts, old))
    return different("episodes", got, expected)


def _steps(alerts: Iterable[Raw], old: set[tuple[str, str]]) -> list[Step]:
    found = []
    for record in alerts:
        data = data_of(record)
        account, rule, cause = data["account_id"], data["rule"], cause_of(data)
        if rule in FOLDED_RULES and (account, cause) not in old:
            what = kind_of(record).removeprefix("alert.")
            found.append(Step(account, rule, cause, what, ",".join(data["cause_ids"])))
    return found


def _by_cause(steps: Iterable[Step]) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
    found: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for step in steps:
        found[step.account, step.rule, step.cause].append((step.what, step.event_id))
    return dict(found)


def open_as_ruled(rows: Rows, book: Book, at: int, flapping: Collection[tuple[str, str, str]]) -> list[str]:
    """The open episodes of two rules are those that hold at T, of old news too, but for what flaps."""
    got = {
        (row["account_id"], row["rule"], cause_of(row))
        for row in rows
        if row["rule"] in FOLDED_RULES and row["state"] == "open"
    }
    expected = oracle.open_alarms(book, at)
    missing, needless = expected - got - set(flapping), got - expected
    return few("alarms missing", sorted(missing)) + few("alarms open for nothing", sorted(needless))


# -- exports -------------------------------------------------------------------------------------


def different(what: str, got: Mapping[Any, Any], expected: Mapping[Any, Any]) -> list[str]:
    names = [name for name in sorted(set(got) | set(expected), key=str) if got.get(name) != expected.get(name)]
    wrong = [f"{name}: {got.get(name)} instead of {expected.get(name)}" for name in names]
    return few(f"{what} differ", wrong)


def exports_agree(
    exports: Mapping[str, Rows], book: Book, at: int, labels: Mapping[str, Iterable[str]],
    flapping: Collection[tuple[str, str, str]] = (),
) -> list[str]:  # fmt: skip
    """Every export that the oracle can count says what it says."""
    complaints = different("usage", _by(exports["usage"], "account_id"), _by(oracle.usage(book, at), "account_id"))
    complaints += different(
        "usage by month", _by(exports["usage by month"], "month"), _by(oracle.usage_by_month(book, at), "month")
    )
    complaints += different("accounts", *_same_fields(exports["accounts"], oracle.accounts(book, at)))
    overall = [row for row in exports["nps"] if row["scope"] == "all" and row["kind"] == "nps"]
    expected = oracle.nps_overall(book, at)
    complaints += different("nps", *_same_fields(overall, [expected] if expected else [], "scope"))
    complaints += different("segments", *_segments(exports["segments"], book, at))
    touches = {row["account_id"]: row["last_two_way_at"] for row in exports["touchpoints"] if row["last_two_way_at"]}
    complaints += different("contacts", touches, oracle.last_contact(book, at))
    words = {(row["account_id"], row["item_id"]): row["text"] for row in exports["verbatims"]}
    complaints += different("verbatims", words, oracle.comments(book, at))
    counts = {row["theme"]: row["items"] for row in exports["themes"]}
    complaints += different("themes", counts, dict(oracle.themes(book, at, labels)))
    asked = {row["title"]: {"accounts": row["accounts"], "votes": row["votes"]} for row in exports["feature_requests"]}
    complaints += different("feature requests", asked, oracle.wishes(book, at))
    complaints += open_as_ruled(exports["alerts"], book, at, flapping)
    return complaints


def _by(rows: Rows, name: str) -> dict[Any, dict[str, Any]]:
    return {row[name]: dict(row) for row in rows}


def _same_fields(got: Rows, expected: Rows, key: str = "account_id") -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The export's rows cut down to the fields that the oracle knows."""
    known = _by(expected, key)
    fields = set(next(iter(known.values()), {}))
    return {row[key]: {name: row[name] for name in row if name in fields} for row in got}, known


def _segments(rows: Rows, book: Book, at: int) -> tuple[dict[Any, Any], dict[Any, Any]]:
    expected = oracle.segments(book, at)
    got = {
        row["account_id"]: {
            name: Decimal(row[name]) if name in ("arr", "deciding_arr") and row[name] is not None else row[name]
            for name in next(iter(expected.values()), {})
        }
        for row in rows
    }
    return got, expected


# -- accounting ----------------------------------------------------------------------------------


def adds_up(accounting: Mapping[str, Mapping[str, Any]], book: Book, routed: Iterable[Routed]) -> list[str]:
    """What each service read is what lay before it, and every record of it became something."""
    complaints = [f"{name} does not add up: {dict(row)}" for name, row in accounting.items() if not row["balanced"]]
    router = accounting["router"]
    expected = {"read": book.records, "quarantined": book.unreadable, "parked": book.parked()}
    complaints += different("router's account", {name: router[name] for name in expected}, expected)
    for look in routed:
        row = accounting[look.domain]
        complaints += different(f"{look.domain}'s account", {"quarantined": row["quarantined"]}, {"quarantined": 0})
        told = {"read": look.records, "duplicate": look.repeats}
        if look.domain == "voc":  # the others read results too
            complaints += different(f"{look.domain}'s account", {name: row[name] for name in told}, told)
        elif row["read"] < look.records or row["duplicate"] < look.repeats:
            complaints.append(f"{look.domain}'s account: {row['read']} read, {row['duplicate']} repeats, not {told}")
    return complaints


def packs_agree(results: Iterable[Raw], asked: Mapping[str, str], book: Book, at: int) -> list[str]:
    """The review packs that were asked for count what the oracle counts; `asked`: request → account."""
    got = {}
    for record in results:
        data = data_of(record) if kind_of(record) == "request.answered" else {}
        account = asked.get(data.get("request_id", ""))
        if account is not None:
            pack = data["answer"]["pack"]
            got[account] = {
                "events": pack["usage"]["events"] or 0,
                "users": pack["usage"]["users"] or 0,
                "opened": pack["tickets"]["opened"],
                "open": pack["tickets"]["open_at_end"],
                "contacts": pack["touchpoints"]["two_way"],
            }
    expected = oracle.reviewed(book, at)
    return different("review packs", got, {account: expected[account] for account in asked.values()})
