"""The data commands against real Kafka and PostgreSQL: nothing lost, nothing twice, and they say what they did."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import RequestTimedOutError
from click.testing import CliRunner

from cli import accounting, export, keys, quarantine, raw, send, settle, topics
from cli.import_ import import_file
from cli.offsets import Offsets
from cli.send import send_file
from cli.settle import SettleReport
from shared import db
from shared import topics as all_topics
from shared.errors import Transient
from shared.ids import partition_of
from shared.kafka import consumer_options
from shared.topics import RAW_EVENTS, RAW_REQUESTS
from tests.support.stack import ROOT, TestStores, running_stores

SETTLES_WITHIN = 60.0


@pytest.fixture(scope="module")
def stack() -> Iterator[TestStores]:
    """Stores of this module alone: `settle` looks at every service that has ever run in them."""
    with running_stores() as stores:
        yield stores


@pytest_asyncio.fixture(scope="module")
async def router(stack: TestStores) -> AsyncIterator[None]:
    """The router, as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services", "router", cwd=ROOT, env=stack.env, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def a_usage_event(user: str = "u1", at: str = "2024-05-01T10:00:00Z", **fields: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "account_id": "acme", "user_id": user, "event": "x", "timestamp": at, **fields}


def a_file(folder: Path, *lines: dict[str, Any] | bytes, name: str = "events.ndjson") -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path = folder / name
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


async def ends_of(stores: TestStores, topic: str) -> dict[TopicPartition, int]:
    async with Offsets(stores.bootstrap_servers) as offsets:
        ends = await offsets.written_ends((topic, partition) for partition in range(stores.partitions))
    return {TopicPartition(*place): end for place, end in ends.items()}


async def records_after(stores: TestStores, before: dict[TopicPartition, int]) -> list[ConsumerRecord[bytes, bytes]]:
    """Everything that came since, per partition in order."""
    (topic,) = {place.topic for place in before}
    ends = await ends_of(stores, topic)
    consumer = AIOKafkaConsumer(**consumer_options(stores.bootstrap_servers))
    await consumer.start()
    found: list[ConsumerRecord[bytes, bytes]] = []
    try:
        consumer.assign(list(before))
        for place, offset in before.items():
            consumer.seek(place, offset)
        while len(found) < sum(ends[place] - before[place] for place in before):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
    finally:
        await consumer.stop()
    return found


def of_clock(records: list[ConsumerRecord[bytes, bytes]]) -> list[ConsumerRecord[bytes, bytes]]:
    return [record for record in records if dict(record.headers).get("ce_type") == b"hune.clock.v1"]


async def test_lines_arrive_untouched_where_their_key_belongs(stack: TestStores, tmp_path: Path) -> None:
    odd = b'{ "user_id":"u2",  "id":"' + uuid.uuid4().hex.encode() + b'", "unknown": [1 , 2] }'
    lines = [json.dumps(a_usage_event(f"user-{n}")).encode() for n in range(20)]
    path = a_file(tmp_path, *lines, odd, b"not json")
    before = await ends_of(stack, RAW_EVENTS.name)
    summary = await send_file(stack, path)
    records = await records_after(stack, before)
    assert sorted(record.value for record in records) == sorted([*lines, odd, b"not json"])
    assert all(record.partition == partition_of(record.key, stack.partitions) for record in records if record.key)
    assert all(record.timestamp_type == 1 for record in records), "raw topics carry the broker's time"
    assert (summary.records, summary.bad_count) == (22, 1)
    assert summary.bad[0][0] == 22


async def test_requests_go_to_the_topic_of_requests(stack: TestStores, tmp_path: Path) -> None:
    before = await ends_of(stack, RAW_REQUESTS.name)
    request = {"id": str(uuid.uuid4()), "account_id": "acme", "demand": "health.score"}
    assert (await send_file(stack, a_file(tmp_path, request))).requests == 1
    (record,) = await records_after(stack, before)
    assert json.loads(record.value) == request
    assert record.key == b"acme"


async def test_run_ends_with_its_clock_in_every_partition(stack: TestStores, tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson.gz"
    events = [a_usage_event(at="2024-05-01T10:00:00Z"), a_usage_event(at="2024-06-01T12:00:00+02:00")]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, events)).encode()))
    before = await ends_of(stack, RAW_EVENTS.name)
    first = await send_file(stack, path, replay=True)
    again = await send_file(stack, path, replay=True)
    records = await records_after(stack, before)
    clocks = of_clock(records)
    assert first.run == again.run
    assert {dict(record.headers)["ce_run"] for record in records} == {str(first.run).encode()}
    assert {dict(record.headers)["ce_mode"] for record in records} == {b"replay"}
    assert sorted(clock.partition for clock in clocks) == sorted([*range(stack.partitions)] * 2)
    assert {clock.value for clock in clocks} == {b'{"run":"%s","at":"2024-06-01T10:00:00Z"}' % str(first.run).encode()}
    assert len({dict(clock.headers)["ce_id"] for clock in clocks}) == stack.partitions, "the same marks both times"


async def test_interrupted_send_goes_on_where_kafka_had_everything(
    stack: TestStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [a_usage_event(at=f"2024-05-01T10:00:{n:02}Z") for n in range(50)]
    path = a_file(tmp_path, *events)
    before = await ends_of(stack, RAW_EVENTS.name)
    monkeypatch.setattr(send, "CHUNK_LINES", 10)
    with monkeypatch.context() as patch:
        flush, flushes = raw.RawWriter.flush, []

        async def failing(self: raw.RawWriter) -> None:
            flushes.append(1)
            if len(flushes) == 4:
                raise Transient("Kafka is gone") from RequestTimedOutError()
            await flush(self)

        patch.setattr(raw.RawWriter, "flush", failing)
        with pytest.raises(Transient):
            await send_file(stack, path, replay=True)
    summary = await send_file(stack, path, replay=True)
    records = await records_after(stack, before)
    clocks = of_clock(records)
    assert summary.resumed_at == 30
    assert sorted(json.loads(r.value)["id"] for r in records if r not in clocks) == sorted(e["id"] for e in events)
    assert summary.at == datetime(2024, 5, 1, 10, 0, 49, tzinfo=UTC)


async def test_rate_holds_the_sender_back(stack: TestStores, tmp_path: Path) -> None:
    summary = await send_file(stack, a_file(tmp_path, *(a_usage_event() for _ in range(30))), rate=50)
    assert summary.seconds >= 0.55


async def test_sending_to_a_kafka_without_topics_names_the_command(
    stack: TestStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_topics, "RAW_EVENTS", all_topics.Topic("cs.none.v1", "", "", (), ()))
    with pytest.raises(Exception, match="hune topics apply"):
        await send_file(stack, a_file(tmp_path, a_usage_event()))


CSV = """customer,rating,said,when
acme,9,"great,
thanks",2024-05-01
acme,ten,,2024-05-01
beta,3,,
beta,3,,
"""


async def test_import_sends_good_rows_and_holds_bad_ones_by_line(stack: TestStores, tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text(CSV)
    maps = {"account_id": "customer", "score": "rating", "comment": "said", "timestamp": "when"}
    before = await ends_of(stack, RAW_EVENTS.name)
    summary = await import_file(stack, path, "survey.answered", maps, {"kind": "nps"})
    once = [json.loads(record.value) for record in await records_after(stack, before) if record.key]
    assert (summary.imported, summary.bad_count, summary.undated) == (3, 1, 2)
    assert len({event["id"] for event in once}) == 3, "equal rows are two events"
    assert {event["type"] for event in once} == {"survey.answered"}
    assert "great,\nthanks" in {event.get("comment") for event in once}

    held = [row for row in await quarantine.held(stack, "import") if row["topic"] == path.name]
    assert [(row["record_offset"], row["state"]) for row in held] == [(4, "held")]
    assert "line 4: score" in held[0]["error"]
    assert "acme,ten" in quarantine.described(await quarantine.load(stack, held[0]["id"]))

    before = await ends_of(stack, RAW_EVENTS.name)
    assert (await import_file(stack, path, "survey.answered", maps, {"kind": "nps"})).run == summary.run
    again = [json.loads(record.value) for record in await records_after(stack, before) if record.key]
    assert sorted(again, key=lambda e: e["id"]) == sorted(once, key=lambda e: e["id"]), "the same ids and times"
    assert len([row for row in await quarantine.held(stack, "import") if row["topic"] == path.name]) == 1


async def test_import_that_fits_nothing_sends_nothing(stack: TestStores, tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("a,b\n" + "acme,none\n" * 1000)
    before = await ends_of(stack, RAW_EVENTS.name)
    with pytest.raises(click.ClickException, match=r"nothing was sent.*line 2: score"):
        await import_file(stack, path, "survey.answered", {"account_id": "a", "score": "b"}, {"kind": "nps"})
    assert await ends_of(stack, RAW_EVENTS.name) == before


async def test_settle_that_runs_out_of_time_says_what_is_in_flight(stack: TestStores, tmp_path: Path) -> None:
    await send_file(stack, a_file(tmp_path, a_usage_event()))
    report = await settle.settle(stack, timeout=0)
    assert not report.settled
    assert any(line.startswith("router has") for line in report.flight.lines())


async def settled(stores: TestStores) -> SettleReport:
    report = await settle.settle(stores, SETTLES_WITHIN)
    assert report.settled, report.flight.lines()
    return report


async def test_settled_means_that_the_books_balance(stack: TestStores, router: None, tmp_path: Path) -> None:
    await send_file(stack, a_file(tmp_path, a_usage_event(), a_usage_event(), b"[]"), replay=True)
    await settled(stack)
    before = (await accounting.snapshot(stack))["accounting"]["router"]
    await send_file(stack, a_file(tmp_path, a_usage_event(), a_usage_event(), b"[]", b"{"), replay=True)
    await settled(stack)
    snapshot = await accounting.snapshot(stack)
    after = snapshot["accounting"]["router"]
    assert snapshot["in_flight"] == 0
    assert snapshot["lag"]["router"] == 0
    assert {name: after[name] - before[name] for name in ("read", "routed", "quarantined")} == {
        "read": 4, "routed": 2, "quarantined": 2,
    }  # fmt: skip
    assert after["balanced"]
    assert snapshot["quarantined"]["router"] >= 3


async def test_settle_is_quick_when_nothing_is_in_flight(stack: TestStores, router: None) -> None:
    await settled(stack)
    assert min([(await settled(stack)).seconds for _ in range(3)]) < 0.5


async def test_settle_ends_though_events_never_stop(stack: TestStores, router: None) -> None:
    async def keep_sending() -> None:
        async with raw.open_writer(stack.bootstrap_servers, stack.partitions) as writer:
            while True:
                for n in range(stack.partitions):
                    writer.add_to(RAW_EVENTS, n, b"u", json.dumps(a_usage_event()).encode(), raw.Run("r").headers)
                await writer.flush()

    before = sum((await ends_of(stack, RAW_EVENTS.name)).values())
    sending = asyncio.create_task(keep_sending())
    try:
        await settled(stack)
        at_rest = sum((await ends_of(stack, RAW_EVENTS.name)).values())
        assert not sending.done()
        assert at_rest > before
    finally:
        sending.cancel()
        await asyncio.wait([sending])


async def test_redrive_reads_again_and_says_what_became_of_it(stack: TestStores, router: None, tmp_path: Path) -> None:
    await send_file(stack, a_file(tmp_path, b'{"id": "broken"'), replay=True)
    await settled(stack)
    held = await quarantine.held(stack, "router")
    told: list[quarantine.Outcome] = []
    outcomes = await quarantine.redrive(stack, [held[-1]["id"]], on_outcome=told.append)
    assert [outcome.state for outcome in outcomes] == ["held"]
    assert told == outcomes
    assert (await quarantine.load(stack, held[-1]["id"]))["attempts"] == held[-1]["attempts"] + 1
    with pytest.raises(click.BadParameter, match="no quarantined record"):
        await quarantine.redrive(stack, ["router:none"])


async def test_export_reads_as_of_a_time_and_names_its_kinds(stack: TestStores) -> None:
    found = await export.rows(stack, "nps", datetime(2024, 6, 1, tzinfo=UTC))
    assert found
    with pytest.raises(click.BadParameter, match="nps"):
        await export.rows(stack, "npss")


def invoke(stores: TestStores, command: click.Command, *arguments: str) -> Any:
    """Run a command as a user does; in a thread, as it has an event loop of its own."""
    return CliRunner().invoke(command, list(arguments), env=stores.env)


async def test_keys_are_made_listed_and_revoked(stack: TestStores) -> None:
    name = f"ci-{uuid.uuid4().hex[:8]}"
    made = await asyncio.to_thread(invoke, stack, keys.command, "create", name, "--json")
    assert json.loads(made.stdout)["key"].startswith("hk_")
    listed = await asyncio.to_thread(invoke, stack, keys.command, "list", "--json")
    assert name in {json.loads(line)["name"] for line in listed.stdout.splitlines()}
    assert json.loads(made.stdout)["key"] not in listed.stdout
    assert (await asyncio.to_thread(invoke, stack, keys.command, "revoke", name)).exit_code == 0
    again = await asyncio.to_thread(invoke, stack, keys.command, "revoke", name)
    assert again.exit_code == 2
    assert "no live key" in again.output


async def test_topics_can_be_applied_again(stack: TestStores) -> None:
    result = await asyncio.to_thread(invoke, stack, topics.command, "apply")
    assert result.stdout == f"{len(all_topics.ALL)} topics are there, 0 of them new\n"


async def test_export_command_keeps_stdout_for_figures(stack: TestStores) -> None:
    result = await asyncio.to_thread(invoke, stack, export.command, "nps", "--as-of", "2024-06-01", "--json")
    assert all(json.loads(line) for line in result.stdout.splitlines())
    assert "as of 2024-06-01T00:00:00Z" in result.stderr
    wrong = await asyncio.to_thread(invoke, stack, export.command, "nps", "--by", "planet")
    assert wrong.exit_code == 2
    assert "planet" in wrong.output


async def test_databases_of_another_version_are_told_apart(stack: TestStores) -> None:
    control = await db.connect(stack.database_url)
    try:
        await control.execute(
            "insert into hune.partitions (service, partition) values ('from_the_future', 0) on conflict do nothing"
        )
        with pytest.raises(Exception, match="from_the_future"):
            await settle.settle(stack, 0)
    finally:
        await control.execute("delete from hune.partitions where service = 'from_the_future'")
        await control.close()
