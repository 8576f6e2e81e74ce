"""What is told of an episode, as labelled lines, the same for Slack, e-mail and plain text; the unknown is left out."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from services.notify import wording
from services.notify.episodes import Account, Episode, Remedy, rank
from services.notify.settings import Language
from services.notify.text import one_line

SIGNS = {"critical": "🔴", "high": "🟠", "medium": "🟡", "low": "🔵"}
GOOD, OVER, ODD = "🟢", "✅", "⚪"
MOST_PARTS, MOST_LISTED, MOST_EVIDENCE, MOST_VALUE, MOST_TITLE = 3, 5, 12, 500, 150
WIDTH = 96
SAID_IN_WORDS = frozenset({
    "score", "band", "enter", "leave", "highest", "coverage", "ratio", "now", "usual", "days", "people_new",
    "people_before", "people_stopped", "users", "seats", "share", "mrr", "mrr_before", "change", "deadline",
    "days_left", "amount", "currency", "failed_at", "left_at", "opened_at", "severity", "role", "remaining",
    "last_seen_at",
})  # fmt: skip
"""Figures of an alert's evidence that its sentence has in words."""


@dataclass(frozen=True, slots=True)
class Card:
    """An episode with its account, in the reader's language; `today` is the reader's moment."""

    episode: Episode
    account: Account
    language: Language
    now: datetime
    zone: tzinfo = UTC

    @property
    def name(self) -> str:
        context = self.episode.context
        return self.account.name or (context and context.name) or self.account.account_id

    @property
    def sign(self) -> str:
        episode = self.episode
        if not episode.is_open:
            return OVER
        if episode.kind == "opportunity":
            return GOOD
        return SIGNS.get(episode.severity, ODD)

    @property
    def headline(self) -> str:
        return f"{self.sign} {one_line(self.name)} · {one_line(self.episode.title)}"

    @property
    def status(self) -> list[str]:
        """How the episode stands: its rule, its times, who took it."""
        episode, say = self.episode, self._say
        lines = [wording.word(episode.severity, self.language), say("rule", rule=self._rule())]
        lines.append(say("opened", at=self._moment(episode.opened_at)))
        if episode.acknowledged_by:
            lines.append(say("acknowledged", by=one_line(episode.acknowledged_by)))
        if episode.snoozed and episode.is_open:
            until = episode.snoozed_until
            lines.append(say("snoozed", at=self._moment(until)) if until else say("hushed"))
        if episode.resolved_at is not None:
            lines.append(say("resolved", at=self._moment(episode.resolved_at)))
        return lines

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Label and value of what is known of the account: what its results said last, else what the alert said."""
        account, context, language = self.account, self.episode.context, self.language
        arr, notice_on = account.arr or (context and context.arr), account.notice_on or (context and context.notice_on)
        found = [("score", self.score), ("arr", arr and wording.money(arr, language))]
        today = self.now.astimezone(self.zone).date()
        found.append(("notice", notice_on and wording.day_from(notice_on, today, language)))
        found += [("segment", account.segment or (context and context.segment)), ("stage", account.stage)]
        found += [("owner", account.owner or (context and context.owner)), ("touch", self._touch())]
        found += [("call", self._whom_to_call()), ("measured", self._measured())]
        return [(wording.word(name, language), one_line(value)) for name, value in found if value]

    @property
    def score(self) -> str | None:
        """`72 amber → 38 red` when the alert or its change of score said so, else the latest score."""
        change, account, context = self.account.change_for(self.episode), self.account, self.episode.context
        if change is not None and change.before is not None and change.after is not None:
            return f"{change.before} {self._band(change.before_band)} → {change.after} {self._band(change.after_band)}"
        if context is not None and context.score is not None:
            now = f"{context.score} {self._band(context.band)}"
            if context.previous_score is None or context.previous_score == context.score:
                return now
            return f"{context.previous_score} {self._band(context.previous_band)} → {now}"
        return f"{account.score} {self._band(account.band)}" if account.score is not None else None

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Label and words of what moved the score, what weighs on it, and the least that would lift it again."""
        score = self.episode.context.restored_score if self.episode.context else None
        found = [("moved", self.moved), ("weighs", self.weighs), ("restore", self.restore)]
        return [(self._say(name, score=score), value) for name, value in found if value]

    @property
    def weighs(self) -> str | None:
        """The measures that cost the score most, each with its value and the points it costs; then caps."""
        context, language = self.episode.context, self.language
        if context is None:
            return None
        said = [
            f"{one_line(part.label)} {one_line(part.value)} ({wording.points(-part.lost, language)})"
            for part in context.parts[:MOST_PARTS]
        ]
        said += [self._say("cap", cap=one_line(name.replace("_", " "))) for name in context.caps]
        return ", ".join(said) or None

    @property
    def restore(self) -> str | None:
        """The smallest change that ends the episode or lifts the band, and the score it would come to."""
        context = self.episode.context
        if context is None or not context.restore or context.restored_score is None or not self.episode.is_open:
            return None
        return ", ".join(map(self._step, context.restore))

    def _step(self, step: Remedy) -> str:
        label = one_line(step.label)
        if step.to_value is not None:
            return f"{label} {one_line(step.value)} → {one_line(step.to_value)}"
        return self._say("to_points", label=label, now=math.floor(step.points), to=math.ceil(step.to_points))

    @property
    def moved(self) -> str | None:
        """The biggest parts of the change that the episode came with."""
        change = self.account.change_for(self.episode)
        if change is None:
            return None
        biggest = sorted((share for share in change.shares if share[1]), key=lambda share: -abs(share[1]))[:MOST_PARTS]
        return ", ".join(f"{one_line(name)} {wording.points(value, self.language)}" for name, value in biggest) or None

    @property
    def evidence(self) -> list[str]:
        """What the rule saw, a line each; the quote as it was said."""
        return list(evidence_lines(self.episode.evidence, self.language))

    def _rule(self) -> str:
        context, name = self.episode.context, one_line(self.episode.rule)
        return f"{name} ({one_line(context.rule)})" if context is not None and context.rule else name

    def _whom_to_call(self) -> str | None:
        context = self.episode.context
        people = context.contacts if context is not None else ()
        return ", ".join(f"{id} ({wording.word(role, self.language)})" if role else id for id, role in people) or None

    def _touch(self) -> str | None:
        context = self.episode.context
        known = (self.account.touch, context.touch if context is not None else None)
        touch = max((one for one in known if one is not None), key=lambda one: one.at, default=None)
        if touch is None:
            return None
        said = f"{touch.at.astimezone(self.zone):%Y-%m-%d}"
        if touch.by:
            said = self._say("by", at=said, by=touch.by)
        return self._say("via", what=said, channel=touch.channel) if touch.channel else said

    def _measured(self) -> str | None:
        known = self.account.change_for(self.episode) or self.episode.context
        return wording.percent(known.coverage, self.language) if known is not None else None

    def _band(self, band: str | None) -> str:
        return wording.word(band or "unknown", self.language)

    def _moment(self, at: datetime) -> str:
        return wording.moment(at.astimezone(self.zone))

    def _say(self, name: str, **values: object) -> str:
        return wording.text(name, self.language, **values)


def of_rows(alert: Mapping[str, Any], account: Mapping[str, Any], now: datetime) -> Card:
    """The card of an alert as exports have it, with what there is of its account."""
    opened_at = datetime.fromisoformat(alert["opened_at"])
    over = alert["state"] != "open"
    ended = alert.get("resolved_at")
    episode = Episode(
        alert_id=alert.get("alert_id", ""), account_id=alert["account_id"], partition=0,
        service=alert.get("service", "health"), rule=alert["rule"], kind=alert["kind"], severity=alert["severity"],
        title=alert["title"], why=alert["why"], next_step=alert["next_step"], evidence=alert["evidence"] or {},
        opened_at=opened_at, computed_at=opened_at, cause_ids=(), baseline=False,
        state="resolved" if over else "open", resolved_at=datetime.fromisoformat(ended) if ended else None,
    )  # fmt: skip
    known = {name: account.get(name) for name in ("name", "score", "band", "segment", "owner", "arr", "notice_on")}
    return Card(episode, Account(alert["account_id"], **known), "en", now)


def evidence_lines(evidence: Mapping[str, Any], language: Language) -> Iterator[str]:
    """What the sentence does not say already: who, which ticket, what was said."""
    left = [(name, value) for name, value in evidence.items() if name not in SAID_IN_WORDS]
    for name, value in left[:MOST_EVIDENCE]:
        shown = _shown(name, value)
        if shown:
            yield wording.label(name, shown, language)


def _shown(name: str, value: Any) -> str:
    if value is None or value == "" or value == []:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(one_line(str(part), MOST_TITLE) for part in value[:MOST_LISTED]) + (
            ", …" if len(value) > MOST_LISTED else ""
        )
    shown = one_line(str(value), MOST_VALUE)
    return f"“{shown}”" if name == "quote" else shown


def plain(card: Card) -> str:
    """The card as plain text."""
    episode = card.episode
    lines = [card.headline, *_wrapped(one_line(episode.why))]
    facts = ", ".join(wording.label(name, value, card.language) for name, value in card.facts)
    lines += _wrapped(facts)
    for name, value in card.reasons:
        lines += _wrapped(wording.label(name, value, card.language))
    lines += _wrapped(", ".join(card.evidence))
    if episode.next_step and episode.is_open:
        lines += _wrapped(f"→ {one_line(episode.next_step)}")
    return "\n".join([*lines, f"   {', '.join(card.status)}"])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="   ", subsequent_indent="   ") if text else []


def digest_lines(cards: Sequence[Card]) -> list[str]:
    """A line per account, the worst first: severity, name, score, ARR and the titles."""
    by_account: dict[str, list[Card]] = {}
    for card in cards:
        by_account.setdefault(card.account.account_id, []).append(card)
    groups = [sorted(group, key=lambda card: -rank(card.episode.severity)) for group in by_account.values()]
    groups.sort(key=lambda group: (-rank(group[0].episode.severity), -_arr(group[0]), group[0].name))
    return [_digest_line(group) for group in groups]


def _digest_line(group: Sequence[Card]) -> str:
    worst = group[0]
    facts = [
        value
        for value in (worst.score, worst.account.arr and wording.money(worst.account.arr, worst.language))
        if value
    ]
    titles = list(dict.fromkeys(one_line(card.episode.title, MOST_TITLE) for card in group))
    shown = " · ".join(titles[:MOST_PARTS]) + (" · …" if len(titles) > MOST_PARTS else "")
    known = f" ({', '.join(facts)})" if facts else ""
    return f"{worst.sign} {one_line(worst.name, MOST_TITLE)}{known}: {shown}"


def digest_headline(cards: Sequence[Card], language: Language) -> str:
    accounts = len({card.account.account_id for card in cards})
    return wording.text(
        "digest", language, alerts=wording.count("alert", len(cards), language),
        accounts=wording.count("account", accounts, language),
    )  # fmt: skip


def _arr(card: Card) -> float:
    try:
        return float(card.account.arr or 0)
    except ValueError:
        return 0.0
