"""Voice: load → hear → save → emit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from services.voc import answers, domain, intake, store
from services.voc.analysis import analyse, rule_version
from services.voc.domain import Item, Rate, Relabel, Statement, Worth
from services.voc.settings import Rules
from services.voc.store import Kept
from shared import privacy, requests, topics
from shared.events.voc import FeatureRequestUpdated, ThemeLabel, VoiceItemRecorded
from shared.runtime.api import EVERYBODY, Batch, Signal
from shared.runtime.unit import UnitOfWork

RESULTS = topics.RESULTS["voc"]
RELABEL = "theme.relabel"
ANSWERED = ("voc.product_feedback", "voc.programme")
WHOLE_BOOK = "whole-book answers come from every partition: use `hune export themes`"
NO_BOARD = "advisory boards are not kept yet: no event tells of their members, terms or meetings"
CHANGES = {"said": "recorded", "corrected": "corrected", "retracted": "retracted"}

Key = tuple[str, str]
Fact = TypeVar("Fact", Statement, Relabel, Worth)


@dataclass(slots=True)
class Known:
    """What is known of the comments, wishes and revenues that a batch touches, as the batch goes on."""

    statements: dict[Key, list[Statement]] = field(default_factory=dict)
    relabels: dict[Key, list[Relabel]] = field(default_factory=dict)
    worths: dict[str, list[Worth]] = field(default_factory=dict)
    rates: list[Rate] = field(default_factory=list)
    wishes: dict[Key, set[Key]] = field(default_factory=dict)

    def hear(self, statement: Statement) -> None:
        key = statement.account_id, statement.item_id
        self.statements.setdefault(key, []).append(statement)
        if statement.wish is not None:
            self.wishes.setdefault((statement.account_id, statement.wish), set()).add(key)

    def label(self, relabel: Relabel) -> None:
        self.relabels.setdefault((relabel.account_id, relabel.item_id), []).append(relabel)

    def value(self, worth: Worth) -> None:
        self.worths.setdefault(worth.account_id, []).append(worth)


@dataclass(slots=True)
class Inbox:
    """A batch by what is to be done with it; `heard` keeps the order of what changes comments."""

    heard: list[tuple[Signal, Statement | Worth | Rate | None]] = field(default_factory=list)
    merges: list[tuple[str, str, datetime, str, int]] = field(default_factory=list)
    erased: list[tuple[str, str, datetime, int]] = field(default_factory=list)
    asked: list[Signal] = field(default_factory=list)

    @property
    def statements(self) -> list[Statement]:
        return [what for _, what in self.heard if isinstance(what, Statement)]


class Voice:
    """The handlers under one configuration."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.policy = rules.policy
        self.version = rule_version(rules.lexicon)

    async def on_signals(self, batch: Batch, unit: UnitOfWork) -> None:
        inbox = self._sort(batch, unit)
        if inbox.erased:
            await store.save_erased(unit.db, inbox.erased)
            for _, user_id, _, _ in inbox.erased:
                await privacy.forget_quarantined(unit.db, [unit.service], user_id)
        if inbox.merges:
            await store.save_merges(unit.db, inbox.merges)
        if inbox.heard:
            await self._hear(inbox, unit)
        if inbox.asked:
            await self._answer(inbox.asked, unit)

    async def tick(self, clocks: Mapping[int, datetime], limit: int, unit: UnitOfWork) -> int:
        """Read again what older rules have read; a person's labels stay."""
        stale = await store.list_stale(unit.db, clocks, self.version, limit)
        if not stale:
            return 0
        items = {(row.statement.account_id, row.statement.item_id) for row in stale}
        known = await self._known(items, (), unit)
        fresh = {_identity(row.statement): self._read(row.statement, frozenset()) for row in stale}
        for key in sorted(items):
            before = self._item(known, key)
            known.statements[key] = [fresh.get(_identity(one), one) for one in known.statements[key]]
            after = self._item(known, key)
            if after is not None and before is not None and _labels(before) != _labels(after):
                clock = next(clocks[row.partition] for row in stale if row.statement.item_id == key[1])
                event = self._event(after, "reread", (), clock, clock, baseline=True)
                cause = f"{self.version}:{key[1]}"
                unit.emit(RESULTS, event, account_id=key[0], cause=cause, kind="voice_item.recorded")
        await store.save_readings(unit.db, fresh.values())
        return len(stale)

    # -- hearing ----------------------------------------------------------------------------------

    def _sort(self, batch: Batch, unit: UnitOfWork) -> Inbox:
        inbox = Inbox()
        for signal in batch:
            if signal.type in intake.TELLERS:
                self._keep(signal, intake.statement_of(signal), inbox, unit)
            elif signal.type in intake.STATES_WORTH:
                self._keep(signal, intake.worth_of(signal), inbox, unit)
            elif signal.type == "fx.rate":
                inbox.heard.append((signal, intake.rate_of(signal)))
            elif signal.type == "account.merged":
                data = signal.data
                inbox.merges.append(
                    (data.merged_account_id, data.account_id, signal.occurred_at, signal.id, signal.partition)
                )
            elif signal.type == privacy.REQUESTED:
                if signal.data.regulation in privacy.ERASING:
                    person = (signal.account_id, signal.data.user_id, signal.occurred_at, signal.partition)
                    inbox.erased.append(person)
                else:
                    unit.ignore(signal, privacy.NOTHING_TO_ERASE)
            elif signal.type == "request.made":
                self._sort_request(signal, inbox)
            else:
                unit.ignore(signal, "holds no comment")
        return inbox

    def _keep(self, signal: Signal, found: Statement | Worth | intake.Nothing, inbox: Inbox, unit: UnitOfWork) -> None:
        if isinstance(found, intake.Nothing):
            unit.ignore(signal, found.reason)
        else:
            inbox.heard.append((signal, found))

    def _sort_request(self, signal: Signal, inbox: Inbox) -> None:
        if _demand(signal) == RELABEL:
            inbox.heard.append((signal, None))
        else:
            inbox.asked.append(signal)

    async def _hear(self, inbox: Inbox, unit: UnitOfWork) -> None:
        statements = inbox.statements
        items = {(one.account_id, one.item_id) for one in statements}
        items |= {key for signal, what in inbox.heard if what is None and (key := _relabelled(signal)) is not None}
        wishes = {(one.account_id, one.wish) for one in statements if one.wish is not None}
        known = await self._known(items, wishes, unit)
        accounts = {one.account_id for one in statements}
        erased = await store.load_erased(unit.db, accounts) if accounts else set[Key]()
        kept: list[Kept] = []
        relabels: list[tuple[Relabel, int]] = []
        worths: list[tuple[Worth, int]] = []
        rates: list[tuple[Rate, int]] = []
        for signal, what in inbox.heard:
            match what:
                case Statement():
                    read = self._read(what, erased)
                    kept.append(Kept(read, signal.partition))
                    self._tell(signal, read, known, unit)
                case Worth():
                    known.value(what)
                    worths.append((what, signal.partition))
                case Rate():
                    known.rates.append(what)
                    rates.append((what, signal.partition))
                case None:
                    relabel = self._relabel(signal, known, unit)
                    if relabel is not None:
                        relabels.append((relabel, signal.partition))
        if kept:
            await store.save_statements(unit.db, kept)
        if worths:
            await store.save_worths(unit.db, worths)
        if rates:
            await store.save_rates(unit.db, rates)
        if relabels:
            await store.save_relabels(unit.db, relabels)

    async def _known(self, items: Collection[Key], wishes: Collection[Key], unit: UnitOfWork) -> Known:
        known = Known()
        if not items:
            return known
        for statement in await store.load_touched(unit.db, items, wishes):
            known.hear(statement)
        for relabel in await store.load_relabels(unit.db, set(items) | set(known.statements)):
            known.label(relabel)
        if wishes:
            known.rates.extend(await store.list_rates(unit.db))
            for worth in await store.load_worths(unit.db, {account_id for account_id, _ in wishes}):
                known.value(worth)
        return known

    def _read(self, statement: Statement, erased: Collection[Key]) -> Statement:
        reading = None
        if statement.text is not None and statement.text.strip():
            reading = analyse(statement.text, statement.source, self.rules.lexicon, statement.given_language)
        user = statement.user_id
        gone = user is not None and ((statement.account_id, user) in erased or (EVERYBODY, user) in erased)
        if gone:
            return replace(statement, reading=reading, user_id=None, text=None if reading else statement.text)
        return replace(statement, reading=reading)

    def _item(self, known: Known, key: Key) -> Item | None:
        return domain.item_at(known.statements.get(key, ()), known.relabels.get(key, ()), None, self.policy)

    def _tell(self, signal: Signal, statement: Statement, known: Known, unit: UnitOfWork) -> None:
        """Publish what the statement changed, if anything."""
        key = statement.account_id, statement.item_id
        before = self._item(known, key)
        known.hear(statement)
        after = self._item(known, key)
        if after is not None and (before is None or replace(before, revision=after.revision) != after):
            change = CHANGES[statement.what] if before is None or statement.what != "said" else "corrected"
            self._publish(signal, after, change, unit)
        elif after is None and before is not None:
            self._publish(signal, before, "retracted", unit)
        else:
            return
        wish = (after or before).wish  # type: ignore[union-attr]  # one of the two is there
        if wish is not None:
            self._publish_wish(signal, wish, known, unit)

    def _publish(self, signal: Signal, item: Item, change: str, unit: UnitOfWork) -> None:
        event = self._event(
            item, change, (signal.id,), signal.occurred_at, unit.now(signal), baseline=unit.quiet(signal)
        )
        unit.emit(RESULTS, event, account_id=item.account_id, cause=signal.id, kind="voice_item.recorded")

    def _event(
        self, item: Item, change: str, causes: tuple[str, ...], at: datetime, now: datetime, *, baseline: bool
    ) -> VoiceItemRecorded:
        reading = item.reading
        return VoiceItemRecorded(
            account_id=item.account_id,
            cause_ids=causes,
            occurred_at=at,
            computed_at=now,
            config_hash=self.rules.digest,
            revision=item.revision,
            item_id=item.item_id,
            change=change,
            source=item.source,
            said_at=item.said_at,
            user_id=item.user_id,
            product_area=item.product_area,
            language=reading.language,
            kind=reading.kind,
            severity=item.severity,
            severity_given=item.severity_given,
            sentiment=reading.sentiment,
            mood=reading.label,
            themes=item.themes,
            rule_themes=tuple(
                ThemeLabel(
                    theme=one.theme, parent=one.theme.partition(".")[0], confidence=one.confidence,
                    sentiment=one.sentiment,
                )
                for one in reading.labels
            ),
            human_themes=item.human,
            unlabelled=None if item.themes else reading.unlabelled,
            score=item.score,
            mismatch=item.mismatch,
            quote=None if change == "retracted" else domain.quote_of(item.text, self.policy.quote_chars),
            rule_version=reading.rule,
            baseline=baseline,
        )  # fmt: skip

    def _publish_wish(self, signal: Signal, wish: str, known: Known, unit: UnitOfWork) -> None:
        account_id = signal.account_id
        items = [item for key in known.wishes[account_id, wish] if (item := self._item(known, key))]
        found = next((one for one in domain.wishes_of(items) if one.key == wish), None)
        if found is None:
            return
        now = unit.now(signal)
        revenue = domain.revenue_at(known.worths.get(account_id, ()), known.rates, now, self.policy)
        event = FeatureRequestUpdated(
            account_id=account_id,
            cause_ids=(signal.id,),
            occurred_at=signal.occurred_at,
            computed_at=now,
            config_hash=self.rules.digest,
            revision=found.votes,
            request_key=found.key,
            title=found.title,
            people=found.people,
            votes=found.votes,
            severity=found.severity,
            product_area=found.product_area,
            arr=revenue.arr,
            currency=self.policy.reporting_currency,
            arr_reason=revenue.reason,
            first_asked_at=found.first_at,
            last_asked_at=found.last_at,
            baseline=unit.quiet(signal),
        )
        unit.emit(RESULTS, event, account_id=account_id, cause=signal.id, kind=f"feature_request.updated:{wish}")

    # -- what people decide and ask -----------------------------------------------------------------

    def _relabel(self, signal: Signal, known: Known, unit: UnitOfWork) -> Relabel | None:
        try:
            key, themes = self._labels_asked(signal)
        except requests.Unusable as error:
            unit.decline(signal, str(error))
            return None
        item = self._item(known, key)
        if item is None:
            unit.decline(signal, f"account {key[0]!r} has no comment {key[1]!r}; its results name them as item_id")
            return None
        relabel = Relabel(*key, signal.id, signal.occurred_at, themes, signal.data.user_id)
        known.label(relabel)
        after = self._item(known, key)
        assert after is not None, "labels never make a comment go away"
        self._publish(signal, after, "relabelled", unit)
        answer: dict[str, Any] = {
            "account_id": key[0], "item_id": key[1], "themes": list(after.themes),
            "rule_themes": [label.theme for label in after.reading.labels],
        }  # fmt: skip
        unit.answer(signal, answer, unit.now(signal))
        return relabel

    def _labels_asked(self, signal: Signal) -> tuple[Key, tuple[str, ...]]:
        key = _relabelled(signal)
        if key is None:
            raise requests.Unusable(f"{RELABEL} needs account_id and parameter item_id")
        asked = signal.data.parameters.get("themes")
        if not isinstance(asked, list) or not all(isinstance(name, str) for name in asked):
            raise requests.Unusable(
                "parameter themes takes a list of names such as features.reporting, or an empty one"
            )
        found = []
        for name in asked:
            theme = self.rules.lexicon.theme(name)
            if theme is None:
                raise requests.Unusable(f"there is no theme {name!r}; there are {', '.join(self.policy.themes)}")
            found.append(theme.name)
        return key, tuple(dict.fromkeys(found))

    async def _answer(self, asked: Iterable[Signal], unit: UnitOfWork) -> None:
        wanted: list[tuple[Signal, str, datetime]] = []
        for signal in asked:
            demand, account_id = _demand(signal), requests.account_of(signal)
            if demand == "voc.advisory_board":
                unit.decline(signal, NO_BOARD)
            elif demand not in ANSWERED:
                unit.decline(signal, f"voc does not know {demand!r}; it answers {', '.join((*ANSWERED, RELABEL))}")
            elif account_id is None:
                unit.decline(signal, WHOLE_BOOK)
            else:
                try:
                    at = requests.time(signal.data.parameters, "as_of") or unit.now(signal)
                    wanted.append((signal, account_id, at))
                except requests.Unusable as error:
                    unit.decline(signal, str(error))
        if wanted:
            await self._answer_accounts(wanted, unit)

    async def _answer_accounts(self, wanted: Sequence[tuple[Signal, str, datetime]], unit: UnitOfWork) -> None:
        accounts = {account_id for _, account_id, _ in wanted}
        statements = _by_account(await store.load_statements(unit.db, accounts))
        relabels = _by_account(await store.load_all_relabels(unit.db, accounts))
        worths = _by_account(await store.load_worths(unit.db, accounts))
        rates = await store.list_rates(unit.db)
        for signal, account_id, at in wanted:
            items = domain.items_of(statements.get(account_id, ()), relabels.get(account_id, ()), at, self.policy)
            if _demand(signal) == "voc.programme":
                answer = answers.programme(account_id, items, at, self.policy)
            else:
                revenue = domain.revenue_at(worths.get(account_id, ()), rates, at, self.policy)
                answer = answers.product_feedback(account_id, items, revenue, at, self.policy)
            unit.answer(signal, answer | {"config_hash": self.rules.digest}, at)


def _demand(signal: Signal) -> str:
    return signal.demand or signal.data.demand or ""


def _relabelled(signal: Signal) -> Key | None:
    """(account, item) that a relabel names."""
    account_id, item_id = requests.account_of(signal), signal.data.parameters.get("item_id")
    return (account_id, item_id) if account_id and isinstance(item_id, str) and item_id else None


def _identity(one: Statement) -> tuple[Any, ...]:
    return one.account_id, one.item_id, one.order


def _labels(item: Item) -> tuple[Any, ...]:
    """What a newer rule may change, its own name aside."""
    return item.themes, replace(item.reading, rule=""), item.mismatch


def _by_account(facts: Iterable[Fact]) -> dict[str, list[Fact]]:
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.account_id, []).append(fact)
    return groups
