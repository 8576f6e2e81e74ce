"""What voice tells of comments moves scores at once where a measure listens, and makes no account known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from services.health import app, reading
from shared.events.voc import VoiceItemRecorded
from shared.runtime.api import Signal
from shared.runtime.unit import partition_for
from shared.times import instant
from tests.support.bench_worker import PARTITIONS, Runner, a_database, a_signal, day
from tests.unit.test_health_sentiment import SENTIMENT, UNSAID

pytestmark = pytest.mark.asyncio
ROOT = Path(__file__).parents[2]


@pytest_asyncio.fixture
async def health(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runner]:
    for path in (ROOT / "config").glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "health.yaml").write_text(yaml.safe_dump({"measures": {"mood": SENTIMENT}}))
    monkeypatch.setenv("HUNE_CONFIG_DIR", str(tmp_path))
    worker = app.build()
    runner = Runner(worker, await a_database(postgres, worker))
    yield runner
    await runner.db.close()


def heard(item: str, at: float, sentiment: float, account: str = "acme", **said: Any) -> Signal:
    when = instant(day(at))
    stamp = {"occurred_at": when, "computed_at": when, "said_at": when, "change": "recorded", "source": "ticket"}
    data = VoiceItemRecorded.model_validate(
        {"account_id": account, "item_id": item, "sentiment": sentiment, **stamp, **UNSAID, **said}
    )
    return Signal(
        "results", partition_for(account, PARTITIONS), 0, "voice_item.recorded", f"v{item}{at}", "hune.voc", account,
        data, day(at), day(at),
    )  # fmt: skip


async def test_comments_move_a_score_at_once_and_those_read_again_as_a_baseline(health: Runner) -> None:
    health.clock, health.live = day(10.5), True
    await health.handle([a_signal("ticket.opened", id="t", at=day(9), ticket_id="1", severity="p3")])
    (worse,) = (await health.handle([heard("a", 10.1, -0.8)])).of("health_score.changed")
    assert (worse["current"]["score"], worse["baseline"]) == (10, False)
    (part,) = worse["current"]["parts"]
    assert (part["measure"], part["value"]) == ("mood", -0.8)
    assert (await health.handle([heard("b", 10.2, 1.0, baseline=True)])).of("health_score.changed") == []
    (better,) = (await health.tick()).of("health_score.changed")
    assert (better["current"]["score"], better["baseline"]) == (55, True)
    assert sum(share["points"] for share in better["shares"]) == pytest.approx(45)
    (row,) = await reading.export_scores([health.db], day(10.5), {})
    assert (row["score"], row["exact"]) == (55, 55.0)
    (then,) = await reading.export_scores([health.db], day(10.15), {})
    assert then["exact"] == 10.0


async def test_an_account_that_only_voice_knows_is_none_until_it_is_named(health: Runner) -> None:
    health.clock, health.live = day(10.5), True
    said = await health.handle([heard("a", 10.1, -0.8)])
    assert said.events == []
    assert (await health.tick()).events == []
    assert await reading.export_accounts([health.db], day(10.5), {}) == []
    (first,) = (
        await health.handle([a_signal("ticket.opened", id="t", at=day(10.3), ticket_id="1", severity="p3")])
    ).of("health_score.changed")  # fmt: skip
    assert first["current"]["score"] == 10
    (row,) = await reading.export_accounts([health.db], day(10.5), {})
    assert row["first_seen_at"] == row["last_seen_at"] == instant(day(10.3))
