"""The traffic of a chaos run: seeded, reaching every worker, late, shuffled and with repeats.

Every own time lies before `base`, so that each figure as of a later T counts all of it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

Door = Literal["kafka", "batch", "request"]
EVENTS, REQUESTS = "cs.raw.events.v1", "cs.raw.requests.v1"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DUPLICATES = 0.20

# Comments and what they are about, by the shipped taxonomy.
WORDINGS: dict[str, tuple[str, ...]] = {
    "The invoice was charged twice": ("commercial.billing",),
    "Loading the page takes forever": ("reliability.speed",),
    "We need a webhook for Salesforce": ("features.integrations", "features.missing"),
    "Far too expensive": ("commercial.price",),
    "Il manque un tableau de bord": ("features.missing", "features.reporting"),
    "La formation était utile": ("service.training",),
    "Nous allons résilier": ("loyalty.leaving",),
    "L'application mobile": ("usability.mobile",),
    "Nothing to say": (),
}
WISHES = ("Dark mode", "Bulk edit of contacts", "Export en PDF", "Two-factor login")
DEMANDS = (
    "health.score", "health.indicators", "health.alerts", "feedback.survey", "feedback.analysis",
    "feedback.closed_loop", "qbr.review", "qbr.success_plan", "qbr.ebr", "ops.playbook", "ops.touchpoint",
    "ops.segmentation", "voc.programme", "voc.product_feedback", "voc.advisory_board", "no.such.demand",
)  # fmt: skip
TEXTS = ("What is the health score?", "Quel est le NPS de {account} ?", "bonjour", "prepare the QBR of {account}")
POISON = (b"{not json", b"[1, 2]", b"\xff\xfe", b'{"event": "without an id"}', b'{"id": "x", "timestamp": "soon"}')
FEATURES = ("import", "dashboard", "search", "share", "api", "mobile", None)


@dataclass(frozen=True, slots=True)
class Sending:
    """One record to send, or one message of a call; `identity` is what the oracle knows it by."""

    door: Door
    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    identity: str = ""


@dataclass
class Mix:
    """One round of traffic over a fixed set of accounts."""

    seed: int
    born: datetime
    base: datetime
    accounts: int
    round: int = 0
    random: random.Random = field(init=False)
    _n: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.seed}/{self.round}")

    def prelude(self) -> list[Sending]:
        """Who the accounts are, and which of them belong together; sent and settled before anything else."""
        return [
            self._event(
                "account.updated",
                self.born - 200 * DAY,
                account_id=name_of(k),
                name=f"Company {k}",
                **({"parent_id": name_of(k - 1)} if k % 10 == 1 else {}),
            )
            for k in range(self.accounts)
        ]

    def sendings(self, events: int) -> list[Sending]:
        """So many different events and a fifth of them again, in any order."""
        made: list[Sending] = []
        kinds = list(self._kinds())
        weights = [weight for weight, _ in kinds]
        while len(made) < events:
            for _, make in self.random.choices(kinds, weights, k=256):
                made.extend(make())
        made = made[:events]
        made += [self._again(one) for one in self.random.sample(made, round(len(made) * DUPLICATES))]
        made += [self._poison() for _ in range(max(2, events // 2_500))]
        self.random.shuffle(made)
        return made

    def _kinds(self) -> Iterator[tuple[float, Callable[[], list[Sending]]]]:
        yield 70, self._usage
        yield 4, self._usage_by_gateway
        yield 5, self._usage_of_linked
        yield 1, self._usage_without_time
        yield 0.3, self._usage_of_ghost
        yield 0.8, self._identify
        yield 3, self._ticket
        yield 0.6, self._ticket_by_link
        yield 0.3, self._link
        yield 4, self._survey
        yield 1.5, self._subscription
        yield 1.5, self._contact
        yield 1, self._feedback
        yield 1, self._wish
        yield 0.5, self._owner
        yield 0.5, self._invoice
        yield 1.5, self._request

    # -- use of the product -----------------------------------------------------------------------

    def _usage(self) -> list[Sending]:
        account, user = self._account_and_user()
        at = self._any_time()
        source = "crm" if self.random.random() < 0.05 else "hune"
        return [self._event("usage.tracked", at, source=source, account_id=account, user_id=user, **self._use())]

    def _usage_by_gateway(self) -> list[Sending]:
        """A burst of one user, as an SDK sends it."""
        account, user = self._account_and_user()
        made = []
        for _ in range(self.random.randint(1, 8)):
            use = self._use()
            feature = use.get("feature")
            call = {
                "type": "track", "messageId": self._id(), "userId": user, "event": use["event"],
                "timestamp": self._written(self._any_time(), plain=True), "context": {"groupId": account},
                "properties": {"feature": feature} if feature else {},
            }  # fmt: skip
            made.append(self._call(call))
        return made

    def _usage_of_linked(self) -> list[Sending]:
        """Of a user whose account only an identify tells."""
        return [self._event("usage.tracked", self._any_time(), user_id=self._linked()[1], **self._use())]

    def _usage_of_ghost(self) -> list[Sending]:
        """Of a user of whom nothing is ever told."""
        return [self._event("usage.tracked", self._any_time(), user_id=f"ghost-{self.random.randrange(9)}", event="x")]

    def _usage_without_time(self) -> list[Sending]:
        account, user = self._account_and_user()
        return [self._event("usage.tracked", None, account_id=account, user_id=user, **self._use())]

    def _identify(self) -> list[Sending]:
        account, user = self._linked()
        if self.random.random() < 0.3:
            at = self._written(self._old_time(), plain=True)
            call = {"type": "identify", "messageId": self._id(), "userId": user, "timestamp": at}
            return [self._call(call | {"context": {"groupId": account}, "traits": {"plan": "pro"}})]
        return [self._event("user.identified", self._old_time(), account_id=account, user_id=user)]

    def _use(self) -> dict[str, Any]:
        feature = self.random.choice(FEATURES)
        return {"event": self.random.choice(("opened", "saved"))} | ({"feature": feature} if feature else {})

    # -- everything else --------------------------------------------------------------------------

    def _ticket(self) -> list[Sending]:
        return self._ticket_of({"account_id": self._account()})

    def _ticket_by_link(self) -> list[Sending]:
        """A help desk that only knows its own organisations."""
        k = self.random.randrange(self.accounts)
        return self._ticket_of({"external_ids": {"zendesk": f"org-{k}"}})

    def _link(self) -> list[Sending]:
        k = self.random.randrange(self.accounts)
        at = self.born - 150 * DAY
        links = {"zendesk": f"org-{k}"}
        return [self._event("account.updated", at, account_id=name_of(k), external_ids=links)]

    def _ticket_of(self, who: dict[str, Any]) -> list[Sending]:
        ticket, times = f"t-{self._id()}", self._later_times(3)
        severity = self.random.choice(("p1", "p1", "p2", "p3", None))
        words: dict[str, Any] = {"text": self._words(), "language": None} if self.random.random() < 0.3 else {}
        about = who | {"ticket_id": ticket}
        if severity:
            words["severity"] = severity
        made = [self._event("ticket.opened", times[0], **about, **words)]
        if self.random.random() < 0.3:
            change = self.random.choice(({"severity": "p1"}, {"severity": "p3"}, {"status": "pending"}))
            made.append(self._event("ticket.updated", times[1], **about, **change))
        if self.random.random() < 0.6:
            made.append(self._event("ticket.solved", times[2], **about))
        return made

    def _survey(self) -> list[Sending]:
        account, kind = self._account(), self.random.choice(("nps", "nps", "nps", "csat"))
        times, fresh = self._times_of_one_age(3)
        # People who answer now are others than those who answered long ago.
        person = f"{account}-u{self.random.randrange(2) + (0 if fresh else 2)}" if self.random.random() < 0.9 else None
        answer = f"a-{self._id()}"
        said = {"account_id": account, "answer_id": answer}
        given: dict[str, Any] = {"kind": kind, "score": self.random.randint(0, 10) if kind == "nps" else 4}
        if person:
            given["user_id"] = person
        if self.random.random() < 0.4:
            given["comment"] = self._words()
        made = [self._event("survey.answered", times[0], **said, **given)]
        if self.random.random() < 0.15:
            change: dict[str, Any] = {"score": self.random.randint(0, 10) if kind == "nps" else 2}
            if self.random.random() < 0.3:
                change["comment"] = self._words()
            made.append(self._event("survey.corrected", times[1], **said, **change))
        if self.random.random() < 0.08:
            made.append(self._event("survey.retracted", times[2], **said))
        return made

    def _subscription(self) -> list[Sending]:
        mrr = self.random.choice((0, 90, 400, 450, 2_000, 4_000, 5_000, 9_000))
        at = self._before(self.born, HOUR, 100 * DAY)
        about = {"account_id": self._account(), "subscription_id": f"s-{self.random.randrange(2)}"}
        return [self._event("subscription.changed", at, mrr=str(mrr), **about)]

    def _contact(self) -> list[Sending]:
        about, at = {"account_id": self._account()}, self._any_time()
        note = {"note": self._words()} if self.random.random() < 0.3 else {}
        match self.random.randrange(3):
            case 0:
                about |= {"touchpoint_id": f"c-{self._id()}"}
                two_way = self.random.random() < 0.7
                made = self._event("touchpoint.logged", at, two_way=two_way, **about, **note)
            case 1:
                made = self._event("meeting.held", at, meeting_id=f"m-{self._id()}", kind="check_in", **about)
            case _:
                made = self._event("call.held", at, call_id=f"k-{self._id()}", text=self._words(), **about)
        return [made]

    def _feedback(self) -> list[Sending]:
        account, user = self._account_and_user()
        about = {"account_id": account, "user_id": user, "feedback_id": f"f-{self._id()}"}
        return [self._event("feedback.given", self._any_time(), text=self._words(), **about)]

    def _wish(self) -> list[Sending]:
        account, user = self._account_and_user()
        title = self.random.choice(WISHES)
        return [self._event("feature.requested", self._any_time(), account_id=account, user_id=user, title=title)]

    def _owner(self) -> list[Sending]:
        person = self.random.choice(("lea", "sam", "ana"))
        return [self._event("csm.changed", self._any_time(), account_id=self._account(), person_id=person)]

    def _invoice(self) -> list[Sending]:
        about, times = {"account_id": self._account(), "invoice_id": f"i-{self._id()}"}, self._later_times(2)
        made = [self._event("invoice.failed", times[0], **about)]
        return [*made, self._event("invoice.paid", times[1], **about)] if self.random.random() < 0.5 else made

    def _request(self) -> list[Sending]:
        id, account = f"q-{self._id()}", self._account() if self.random.random() < 0.95 else "nobody"
        body: dict[str, Any] = {"id": id}
        if self.random.random() < 0.15:
            body["text"] = self.random.choice(TEXTS).format(account=f"Company {self.random.randrange(self.accounts)}")
        else:
            body |= {"demand": self.random.choice(DEMANDS), "account_id": account}
        door: Door = "request" if self.random.random() < 0.5 else "kafka"
        key = str(body.get("account_id", id)).encode()
        return [Sending(door, REQUESTS, key, json.dumps(body).encode(), (), id)]

    def _poison(self) -> Sending:
        value = self.random.choice(POISON)
        return Sending("kafka", EVENTS, self._id().encode(), value)

    # -- how it is written ------------------------------------------------------------------------

    def _event(self, type_: str, at: datetime | None, *, source: str = "hune", **data: Any) -> Sending:
        id = self._id()
        key = str(data.get("user_id") or data.get("account_id") or id).encode()
        if source != "hune" or (at is not None and self.random.random() < 0.1):
            return self._cloud_event(type_, at, source, id, key, data)
        body: dict[str, Any] = {"id": id, **data}
        if type_ != "usage.tracked" or self.random.random() < 0.2:
            body["type"] = type_
        if at is not None:
            body["timestamp"] = self._written(at)
        return Sending("kafka", EVENTS, key, json.dumps(body).encode(), (), id)

    def _cloud_event(
        self, type_: str, at: datetime | None, source: str, id: str, key: bytes, data: dict[str, Any]
    ) -> Sending:
        assert at is not None
        wire, time = f"hune.{type_}.v1", self._written(at, plain=True)
        if self.random.random() < 0.3:
            body = {"specversion": "1.0", "type": wire, "id": id, "source": source, "time": time, "data": data}
            headers: tuple[tuple[str, bytes], ...] = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
            return Sending("kafka", EVENTS, key, json.dumps(body).encode(), headers, id)
        attributes = {"specversion": "1.0", "type": wire, "id": id, "source": source, "time": time}
        headers = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())
        return Sending("kafka", EVENTS, key, json.dumps(data).encode(), headers, id)

    def _call(self, call: dict[str, Any]) -> Sending:
        return Sending("batch", EVENTS, str(call["userId"]).encode(), json.dumps(call).encode(), (), call["messageId"])

    def _again(self, one: Sending) -> Sending:
        """The same once more; a call's repeat may come straight to Kafka, as a producer of the same events sends it."""
        if one.door == "request":
            return Sending("kafka", one.topic, one.key, one.value, one.headers, one.identity)
        if one.door == "batch" and b'"track"' in one.value and self.random.random() < 0.5:
            call = json.loads(one.value)
            body = {"id": call["messageId"], "user_id": call["userId"], "event": call["event"]}
            body |= {"timestamp": call["timestamp"], "account_id": call["context"]["groupId"], **call["properties"]}
            return Sending("kafka", one.topic, one.key, json.dumps(body).encode(), (), one.identity)
        return one

    def _written(self, at: datetime, *, plain: bool = False) -> str:
        if not plain and self.random.random() < 0.1:
            return (at + HOUR).replace(tzinfo=None).isoformat() + "+01:00"
        return at.isoformat().replace("+00:00", "Z")

    # -- who and when -----------------------------------------------------------------------------

    def _id(self) -> str:
        self._n += 1
        return f"{self.round}-{self._n:07d}"

    def _account(self) -> str:
        # A few accounts have most of the traffic.
        return name_of(min(self.random.randrange(self.accounts), self.random.randrange(self.accounts)))

    def _account_and_user(self) -> tuple[str, str]:
        account = self._account()
        return account, f"{account}-u{self.random.randrange(4)}"

    def _linked(self) -> tuple[str, str]:
        account = name_of(self.random.randrange(self.accounts))
        return account, f"{account}-x{self.random.randrange(2)}"

    def _words(self) -> str:
        return self.random.choice(tuple(WORDINGS))

    def _any_time(self) -> datetime:
        return self._fresh_time() if self.random.random() < 0.5 else self._old_time()

    def _fresh_time(self) -> datetime:
        return self._before(self.base, timedelta(minutes=5), 18 * HOUR)

    def _old_time(self) -> datetime:
        return self._before(self.base, 2 * DAY, 115 * DAY)

    def _before(self, end: datetime, least: timedelta, most: timedelta) -> datetime:
        span = int((most - least) / timedelta(milliseconds=1))
        return end - least - timedelta(milliseconds=self.random.randrange(span))

    def _times_of_one_age(self, n: int) -> tuple[list[datetime], bool]:
        fresh = self.random.random() < 0.5
        make = self._fresh_time if fresh else self._old_time
        return sorted(make() for _ in range(n)), fresh

    def _later_times(self, n: int) -> list[datetime]:
        return self._times_of_one_age(n)[0]


def name_of(k: int) -> str:
    return f"acct-{k:04d}"


def now() -> datetime:
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
