"""An alert of nobody's account, to try out how messages look and arrive."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.notify import wording
from services.notify.card import Card
from services.notify.episodes import Account, Change, Context, Episode, Remedy, Touch, Weighing
from services.notify.settings import Language


def card(now: datetime, language: Language) -> Card:
    context = Context(
        name="Sample & Co", owner="lea", segment="high", arr="60000", score=38, band="red", previous_score=72,
        previous_band="green", coverage=0.92, caps=(), notice_on=(now + timedelta(days=39)).date().isoformat(),
        touch=Touch(now - timedelta(days=51), "lea", "call"), contacts=(("grace", "champion"), ("ada", "billing")),
        rule="score_below: enter 40, leave 45",
        parts=(Weighing("Open tickets", "3", 19.5), Weighing("Active days", "40%", 16.0)),
        restore=(Remedy("Active days", "40%", "62%", 20.0, 48.0),), restored_score=45,
    )  # fmt: skip
    episode = Episode(
        alert_id="sample", account_id="sample-account", partition=0, service="health", rule="band_red", kind="risk",
        severity="high", title="Health is red: 38", why="Score 38. Open tickets 3, Active days 40% of usual",
        next_step="Call the main contact; agree the two causes that weigh most and a date to look again.",
        evidence={"ticket_id": "4711", "quote": "nothing works since Monday", "people": ["ada", "grace"]},
        opened_at=now, computed_at=now, cause_ids=("sample",), baseline=False, context=context,
    )  # fmt: skip
    change = Change(
        72, "green", 38, "red", "Fell 34 points", (("tickets", -18.0), ("usage", -16.0)), 0.92, ("sample",), now
    )
    account = Account(
        "sample-account", name="Sample & Co", score=38, band="red", segment="high", owner="lea", arr="60000",
        notice_on=(now + timedelta(days=39)).date().isoformat(), change=change,
        touch=Touch(now - timedelta(days=51), "lea", "call"),
    )  # fmt: skip
    return Card(episode, account, language, now)


def note(language: Language) -> str:
    return wording.text("sample", language)
