"""From HTTP and files to exports, alerts and answers, on a whole installation, with a worker killed on the way."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from shared import topics
from shared.kafka import consumer_options
from tests.support.stack import PARTITIONS, Installation, installation

NOW = datetime.now(UTC).replace(microsecond=0)
HISTORY_END = datetime(2026, 3, 31, 17, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def whole() -> Iterator[Installation]:
    with installation() as running:
        yield running


def status(whole: Installation) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(whole.hune("status", "--json").stdout)
    return found


def exported(whole: Installation, kind: str, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in whole.hune("export", kind, "--json", *options).stdout.splitlines()]


def stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def a_history() -> list[dict[str, Any]]:
    """Ninety days of use by two accounts, one of which stops, and a survey answer each."""
    events: list[dict[str, Any]] = []
    for day in range(90):
        at = HISTORY_END - timedelta(days=day, hours=3)
        for account, people in (("larch", 4), ("willow", 3)):
            if account == "willow" and day < 45:
                continue
            events += [
                {"id": f"{account}-{day}-{who}", "account_id": account, "user_id": f"{account}-{who}",
                 "event": "feature_used", "feature": f"f{who}", "timestamp": stamp(at)}
                for who in range(people)
            ]  # fmt: skip
    for account, score in (("larch", 10), ("willow", 3)):
        events.append(
            {"id": f"nps-{account}", "type": "survey.answered", "account_id": account, "user_id": f"{account}-0",
             "kind": "nps", "score": score, "comment": "Too expensive for us", "timestamp": stamp(HISTORY_END)}
        )  # fmt: skip
    return sorted(events, key=lambda event: event["timestamp"])


def expected_use(events: list[dict[str, Any]]) -> dict[str, tuple[int, int, int]]:
    """Account → (events, users, events of the last 30 days), counted the plain way."""
    figures = {}
    for account in ("larch", "willow"):
        mine = [event for event in events if event["account_id"] == account and "event" in event]
        recent = [event for event in mine if event["timestamp"] > stamp(HISTORY_END - timedelta(days=30))]
        figures[account] = (len(mine), len({event["user_id"] for event in mine}), len(recent))
    return figures


def test_a_history_gives_the_figures_at_its_end_and_wakes_nobody(whole: Installation, tmp_path: Path) -> None:
    events = a_history()
    file = tmp_path / "history.ndjson.gz"
    with gzip.open(file, "wt") as out:
        out.writelines(json.dumps(event) + "\n" for event in [*events, *events[::5]])
    whole.hune("send", str(file), "--replay")
    whole.hune("settle", "--timeout", "120")

    rows = {row["account_id"]: row for row in exported(whole, "usage")}
    figures = {name: (row["events"], row["users"], row["events_last_30d"]) for name, row in rows.items()}
    assert figures == expected_use(events)
    nps = exported(whole, "nps")[0]
    assert (nps["n"], nps["promoters"], nps["detractors"], nps["nps"]) == (2, 1, 1, 0)
    assert all(alert["baseline"] for alert in exported(whole, "alerts"))
    found = status(whole)
    assert found["clock"] == {"mode": "historical", "at": stamp(HISTORY_END)}
    assert found["accounting"]["health"]["duplicate"] == len(events[::5])
    assert all(account["balanced"] for account in found["accounting"].values())


def test_life_begins_at_the_door_and_an_alert_opens_though_health_is_killed(whole: Installation) -> None:
    key = json.loads(whole.hune("keys", "create", "e2e", "--json").stdout)["key"]
    found = status(whole)
    with httpx.Client(base_url=found["gateway"]["url"], auth=(key, ""), timeout=40) as door:
        group = {"userId": "ines", "groupId": "alder", "traits": {"name": "Alder & Fils"}, "messageId": "g-1"}
        assert door.post("/v1/group", json=group).status_code == 200
        health = next(service for service in found["services"] if service["name"] == "health")
        os.kill(health["pid"], signal.SIGKILL)
        for n in range(3):
            use = {"userId": "ines", "event": "Report Built", "messageId": f"t-{n}", "timestamp": stamp(NOW)}
            assert door.post("/v1/track", json=use).status_code == 200
            assert door.post("/v1/track", json=use).status_code == 200
    ticket = {"id": "p1", "type": "ticket.opened", "account_id": "alder", "ticket_id": "T-1", "severity": "p1",
              "subject": "Nothing works", "timestamp": stamp(NOW)}  # fmt: skip
    file = whole.home.path / "ticket.ndjson"
    file.write_text(json.dumps(ticket) + "\n")
    whole.hune("send", str(file))
    whole.hune("settle", "--timeout", "120")

    after = status(whole)
    restarted = next(service for service in after["services"] if service["name"] == "health")
    assert restarted["restarts"] >= 1, "the fault did not happen"
    assert after["clock"]["mode"] == "live"
    alder = {row["account_id"]: row for row in exported(whole, "usage")}["alder"]
    assert (alder["events"], alder["users"]) == (3, 1)
    opened = [alert for alert in exported(whole, "alerts") if alert["account_id"] == "alder"]
    assert [(alert["rule"], alert["baseline"]) for alert in opened] == [("p1_open", False)]
    on_topic = asyncio.run(read_all(after["kafka"]["bootstrap_servers"], topics.ALERTS.name))
    assert sum(record.key == b"alder" for record in on_topic) == 1
    assert max(Counter(dict(record.headers)["ce_id"] for record in on_topic).values()) == 1


def test_a_question_in_french_is_answered(whole: Installation) -> None:
    key = json.loads(whole.hune("keys", "create", "french", "--json").stdout)["key"]
    with httpx.Client(base_url=status(whole)["gateway"]["url"], auth=(key, ""), timeout=40) as door:
        asked = door.post("/v1/requests", json={"text": "Quelles sont les alertes ouvertes chez Alder & Fils ?"})
        assert asked.status_code == 202
        told = door.get(f"/v1/requests/{asked.json()['id']}?wait=20").json()
    assert (told["status"], told["demand"], told["account_id"]) == ("answered", "health.alerts", "alder")
    assert told["confidence"] >= 0.6
    assert "p1_open" in json.dumps(told["answer"])


def test_a_bad_record_is_kept_with_its_reason_and_the_next_one_counts(whole: Installation) -> None:
    file = whole.home.path / "bad.ndjson"
    good = {"id": "after-bad", "account_id": "alder", "user_id": "ines", "timestamp": stamp(NOW)}
    file.write_text('{"id": "bad", "account_id": 7}\n' + json.dumps(good) + "\n")
    whole.hune("send", str(file))
    whole.hune("settle", "--timeout", "120")
    listed = whole.hune("quarantine", "list").stdout
    assert "account_id" in listed
    assert {row["account_id"]: row for row in exported(whole, "usage")}["alder"]["events"] == 4


async def read_all(bootstrap_servers: str, topic: str) -> list[Any]:
    consumer = AIOKafkaConsumer(**consumer_options(bootstrap_servers))
    await consumer.start()
    try:
        parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        records: list[Any] = []
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                records += batch
        return records
    finally:
        await consumer.stop()
