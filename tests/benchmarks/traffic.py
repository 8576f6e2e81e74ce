"""What a book of customers sends: mostly use of the product, some tickets, answers and updates.

85 % usage, of accounts by zipf's law; 5 % tickets, 2 % survey answers and 8 % user and account updates, of all accounts
alike (a minute here stands for weeks: by zipf's law one account would have thousands of tickets a day). Bodies of some
380 bytes. The same seed gives the same traffic; ids never repeat between draws of one `Traffic`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np

from shared.events import wire_type_of
from shared.runtime.unit import partition_for
from shared.runtime.wire import Headers

FEATURES = ("dashboards", "reports", "export", "api", "alerts", "billing", "search", "import")
USERS_PER_ACCOUNT = 12
MOST_OPEN = 3
MEAN_BYTES = 382
USAGE = 0.85
_encode = msgspec.json.Encoder().encode


class Sent(NamedTuple):
    """A record for a raw topic, or (with headers) for a routed one."""

    partition: int
    key: bytes
    value: bytes
    headers: Headers = []


class Chosen(NamedTuple):
    """Whose event it will be, and by chance of what kind."""

    account_id: str
    chance: float


class Drawn(NamedTuple):
    """One event before it is written down."""

    id: str
    type: str
    account_id: str
    user_id: str
    at: datetime
    data: dict[str, Any]


def zipf(accounts: int, count: int, seed: int) -> np.ndarray:
    """`count` draws from accounts 0 … n-1, the k-th as likely as 1/(k+1)."""
    weights = 1.0 / np.arange(1, accounts + 1)
    return np.random.default_rng(seed).choice(accounts, size=count, p=weights / weights.sum())


class Traffic:
    """Draws events of one book; tickets that were opened are solved later."""

    def __init__(self, seed: int = 7, partitions: int = 12) -> None:
        self._random = random.Random(seed)
        self._seed, self._draws = seed, 0
        self._partitions = partitions
        self._serial = 0
        self._open: dict[str, deque[str]] = {}

    def book(self, accounts: int, count: int) -> list[Chosen]:
        """Whose events they are and of what kind, for a book of so many accounts."""
        run = self.next_run()
        chances = np.random.default_rng(self._seed + run).random(count)
        by_use = zipf(accounts, count, self._seed + run)
        alike = np.random.default_rng(self._seed + run + 1).integers(0, accounts, count)
        numbers = np.where(chances < USAGE, by_use, alike)
        return [Chosen(account(k), chance) for k, chance in zip(numbers.tolist(), chances.tolist(), strict=True)]

    def of(self, account_ids: Sequence[str]) -> list[Chosen]:
        """The mix for just these accounts, one event each."""
        chances = np.random.default_rng(self._seed + self.next_run()).random(len(account_ids))
        return [Chosen(name, chance) for name, chance in zip(account_ids, chances.tolist(), strict=True)]

    def everybody(self, accounts: int) -> Iterator[Sent]:
        """One use of the product by each user of each account: a day that has begun, with nobody new in it."""
        now = datetime.now(UTC).replace(microsecond=0)
        for number in range(accounts):
            for user in range(USERS_PER_ACCOUNT):
                yield self.as_raw(self._one(account(number), now, 0.0, user))

    def draw(self, chosen: Sequence[Chosen]) -> Iterator[Drawn]:
        """The events, all of the last minute."""
        now = datetime.now(UTC).replace(microsecond=0)
        for account_id, chance in chosen:
            yield self._one(account_id, now, chance)

    def raw(self, chosen: Sequence[Chosen]) -> Iterator[Sent]:
        """Plain JSON for `cs.raw.events`, keyed by user as a source would."""
        for event in self.draw(chosen):
            yield self.as_raw(event)

    def routed(self, chosen: Sequence[Chosen]) -> Iterator[Sent]:
        """The records that the router makes of them for health."""
        for event in self.draw(chosen):
            yield self.as_routed(event)

    def as_raw(self, event: Drawn) -> Sent:
        partition = partition_for(event.user_id, self._partitions)
        return Sent(partition, event.user_id.encode(), _body(event))

    def as_routed(self, event: Drawn) -> Sent:
        key, time = event.account_id.encode(), _text(event.at).encode()
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", event.id.encode()),
            ("ce_source", b"hune"),
            ("ce_type", wire_type_of(event.type).encode()),
            ("ce_time", time),
            ("ce_recordedtime", b"%d" % int(event.at.timestamp() * 1000)),
            ("content-type", b"application/json"),
            ("ce_owntime", time),
            ("ce_subject", key),
        ]
        return Sent(partition_for(event.account_id, self._partitions), key, _body(event), headers)

    def next_run(self) -> int:
        """A number that no other run of this traffic has."""
        self._draws += 1
        return self._draws

    def ticket(self, account_id: str, ticket_id: str, verb: str) -> Drawn:
        """A p1 ticket that is opened or solved now: both change what is told of the account."""
        self._serial += 1
        data = {"ticket_id": ticket_id, "severity": "p1", "subject": "Export fails for everybody"}
        return Drawn(
            f"b{self._seed}-{self._serial:09d}", f"ticket.{verb}", account_id, f"u_{account_id}_0",
            datetime.now(UTC), data,
        )  # fmt: skip

    def usage(self, account_id: str) -> Drawn:
        return self._one(account_id, datetime.now(UTC).replace(microsecond=0), 0.0)

    def _one(self, account_id: str, now: datetime, chance: float, user: int | None = None) -> Drawn:
        draw = self._random
        number = int(draw.random() * USERS_PER_ACCOUNT) if user is None else user
        user_id = f"u_{account_id}_{number}"
        at = now - timedelta(milliseconds=int(draw.random() * 60_000))
        self._serial += 1
        type_, data = self._content(chance, account_id)
        return Drawn(f"b{self._seed}-{self._serial:09d}", type_, account_id, user_id, at, data)

    def _content(self, chance: float, account_id: str) -> tuple[str, dict[str, Any]]:
        draw = self._random
        if chance < USAGE:
            feature = FEATURES[int(draw.random() * len(FEATURES))]
            properties = {"duration_ms": int(draw.random() * 5000), "plan": "enterprise", "theme": "dark"}
            return "usage.tracked", {"event": "feature_used", "feature": feature, "properties": properties}
        if chance < 0.90:
            return self._ticket(account_id)
        if chance < 0.92:
            data = {"kind": "nps", "score": draw.randrange(11), "comment": "Works well for our team, export is slow"}
            return "survey.answered", data
        if chance < 0.98:
            return "user.identified", {"traits": {"role": "admin", "title": "Head of Operations", "seats": 40}}
        return "account.updated", {"plan": "enterprise", "seats": draw.randrange(500), "country": "FR"}

    def _ticket(self, account_id: str) -> tuple[str, dict[str, Any]]:
        """The account's support desk: at most three tickets open, the oldest is solved next."""
        waiting = self._open.setdefault(account_id, deque())
        if len(waiting) == MOST_OPEN or (waiting and self._random.random() < 0.5):
            return "ticket.solved", {"ticket_id": waiting.popleft()}
        waiting.append(f"T{self._seed}-{self._serial}")
        severity = self._random.choice(("p1", "p2", "p3", "p3", "p4"))
        return "ticket.opened", {"ticket_id": waiting[-1], "severity": severity, "subject": "Cannot export the report"}


def account(number: int) -> str:
    return f"acct_{number:07d}"


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_CONTEXT = {"library": {"name": "analytics.js", "version": "4.2.1"}, "ip": "10.2.3.4", "locale": "en-GB", "pad": ""}


def _body(event: Drawn) -> bytes:
    body = {
        "id": event.id,
        "type": event.type,
        "account_id": event.account_id,
        "user_id": event.user_id,
        "timestamp": _text(event.at),
        **event.data,
        "context": _CONTEXT,
    }
    encoded = _encode(body)
    missing = MEAN_BYTES - len(encoded)
    return encoded if missing <= 0 else encoded.replace(b'"pad":""', b'"pad":"' + b"x" * missing + b'"')
