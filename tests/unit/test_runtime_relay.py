"""What one outbox record becomes on Kafka."""

from __future__ import annotations

from typing import Any

from shared.runtime.relay import _append
from shared.runtime.wire import Outgoing, pack, unpack


class Builder:
    """Takes a few records, as Kafka's batches do."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def append(self, *, timestamp: int | None, key: bytes, value: bytes, headers: Any) -> object | None:
        if len(self.keys) == 2:
            return None
        self.keys.append(key)
        return self


class Producer:
    def create_batch(self) -> Builder:
        return Builder()


def appended(*records: Outgoing) -> dict[tuple[str, int], list[list[bytes]]]:
    batches: dict[tuple[str, int], list[Any]] = {}
    for record in records:
        _append(Producer(), batches, record, 0)
    return {place: [builder.keys for builder in builders] for place, builders in batches.items()}


def test_a_record_for_several_topics_reaches_each_of_them_once_and_in_order() -> None:
    both, one = ("health", "qbr"), ("health",)
    records = [
        Outgoing(topics[0], 3, key, b"{}", [], topics[1:])
        for key, topics in ((b"a", both), (b"b", one), (b"c", both), (b"d", both))
    ]
    assert appended(*records) == {
        ("health", 3): [[b"a", b"b"], [b"c", b"d"]],
        ("qbr", 3): [[b"a", b"c"], [b"d"]],
    }


def test_what_is_packed_comes_back_with_all_its_topics() -> None:
    records = [Outgoing("health", 1, b"k", b"{}", [("ce_id", b"1")], ("qbr", "ops"))]
    assert unpack(pack(records)) == records
