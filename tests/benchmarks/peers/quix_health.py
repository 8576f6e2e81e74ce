"""The health worker's simplest figures with Quix Streams, exactly once: state in RocksDB, its changelog on Kafka.

It runs in an environment of its own (quix-requirements.txt), and so imports nothing of ours but the meter. It keeps no
ids against repeats. Its commit interval and its other settings are its own.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import msgspec
from quixstreams import Application  # type: ignore[import-not-found]  # in its own environment only

from tests.benchmarks.peers.meter import Meter, options


class Event(msgspec.Struct):
    id: str
    type: str
    account_id: str
    timestamp: datetime
    user_id: str | None = None
    score: float | None = None


def main(given: dict[str, Any]) -> None:
    logging.getLogger("quixstreams").setLevel(logging.ERROR)
    meter = Meter(given["events"], given["warm"], patient=True)
    decode = msgspec.json.Decoder(Event).decode
    app = Application(
        broker_address=given["bootstrap_servers"], consumer_group=given["group"], auto_offset_reset="earliest",
        processing_guarantee="exactly-once", state_dir=given["state"], loglevel="ERROR",
        consumer_extra_config={"isolation.level": "read_committed"},
    )  # fmt: skip
    source = app.topic(given["topic"], value_deserializer="bytes", key_deserializer="bytes")
    results = app.topic(given["results"], value_serializer="bytes", key_serializer="bytes")

    def apply(body: bytes, state: Any) -> bytes:
        meter.begin()
        event = decode(body)
        kept = state.get("account") or {"events": 0, "open": 0, "answers": 0, "points": 0, "last": "", "days": {}}
        day, at = event.timestamp.date().isoformat(), event.timestamp.isoformat()
        kept["events"] += 1
        kept["open"] = max(0, kept["open"] + {"ticket.opened": 1, "ticket.solved": -1}.get(event.type, 0))
        if event.score is not None:
            kept["answers"] += 1
            kept["points"] += int(event.score)
        kept["last"] = max(kept["last"], at)
        if event.type == "usage.tracked":
            use = kept["days"].setdefault(day, {"events": 0, "users": []})
            use["events"] += 1
            if event.user_id and event.user_id not in use["users"]:
                use["users"].append(event.user_id)
        state.set("account", kept)
        score = float(kept["events"] - 10 * kept["open"] + kept["points"])
        meter.add(1)
        return msgspec.json.encode({"account_id": event.account_id, "score": score, "cause_id": event.id})

    app.dataframe(source).apply(apply, stateful=True).to_topic(results)
    app.run(count=given["warm"] + given["events"])  # to its end: the last checkpoint is committed
    meter.end()


if __name__ == "__main__":
    main(options())
