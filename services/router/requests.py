"""Requests: what is asked for and of which account, and the few that the router itself carries out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.router import actions, domain, store
from services.router.classifier import an_index, classify
from services.router.merges import Merge, refusal, survivor
from services.router.plan import Plan, hash_of
from services.router.reader import RawEvent
from services.router.sending import headers_of, place_of, told_of
from services.router.settings import Routing
from services.router.store import BEGINNING, OVERLAP, Understood
from shared import topics
from shared.events import ResultEvent, inputs, results
from shared.ids import derived_id
from shared.requests import Unusable
from shared.runtime.unit import UnitOfWork
from shared.runtime.wire import CLOCK_SOURCE, Outgoing, event_headers, rfc3339

DOUBT = 0.5
"""From this confidence on a text means some account, even if not clearly which."""


class Requests:
    """Sends requests to the service that answers them; it may remember what accounts are called."""

    def __init__(self, routing: Routing, outputs: Mapping[str, tuple[str, ...]]) -> None:
        self._routing, self._outputs = routing, outputs
        self._index = an_index(())
        self._indexed_to = BEGINNING

    async def handle(self, event: RawEvent, plan: Plan, unit: UnitOfWork) -> None:
        """Decided once per request: a repeat goes where the first one went, and is not answered here again."""
        hashed = hash_of(event)
        before = plan.understood.get(hashed)
        if before is None:
            plan.understood[hashed] = plan.asked[hashed] = await self._understand(event, plan, unit)
        elif before.demand is None:
            unit.count(event.partition, "unclear")
        else:
            self._forward_request(event, before.demand, before.account_id, before.confidence, unit)

    async def _understand(self, event: RawEvent, plan: Plan, unit: UnitOfWork) -> Understood:
        """Find what is asked for and about whom, then forward it, or say why not."""
        request = event.data
        assert isinstance(request, inputs.RequestMade)
        demand, account_id, confidence = request.demand, event.account_id, None
        if demand is None:
            if not request.text:
                return self._decline(event, None, "the request names no `demand` and holds no `text`", unit)
            await self._refresh_index(unit)
            read = classify(request.text, self._index, bar=self._routing.understanding_bar)
            confidence = read.confidence
            if read.demand is None:
                return self._unclear(event, read.confidence, "what is asked for is not clear", read.candidates, unit)
            torn = read.account_id is None and read.account_confidence >= DOUBT
            if account_id is None and torn:
                reason = "which account is meant is not clear"
                return self._unclear(event, read.account_confidence, reason, read.account_candidates, unit)
            demand, account_id = read.demand, account_id or read.account_id
        if demand not in self._routing.requests:
            names = ", ".join(sorted(self._routing.requests))
            return self._decline(event, demand, f"demand {demand!r} is not known; known: {names}", unit)
        if account_id is not None and not await unit.db.fetch(store.KNOWS_ACCOUNT, [account_id]):
            return self._unclear(event, 0.0, f"account {account_id!r} is not known", (demand,), unit)
        account_id = account_id and survivor(account_id, plan.book.merges)
        if self._routing.requests[demand] == "router":
            return await self._carry_out(event, demand, account_id, plan, unit)
        self._forward_request(event, demand, account_id, confidence, unit)
        return Understood(demand, account_id, confidence)

    def _forward_request(
        self, event: RawEvent, demand: str, account_id: str | None, confidence: float | None, unit: UnitOfWork
    ) -> None:
        domain_of = self._routing.requests.get(demand)
        if domain_of == "router":  # carried out when it came first
            unit.count(event.partition, "routed")
            return
        key = account_id or event.id
        encoded, to, subject = place_of(key, unit.partitions)
        headers = headers_of(event)
        headers.append(subject)
        headers.append(("ce_demand", demand.encode()))
        headers.append(("ce_confidence", f"{1.0 if confidence is None else confidence:.4f}".encode()))
        if domain_of is None:  # decided under an older routing table
            unit.count(event.partition, "unrouted")
            return
        topic = topics.ROUTED[domain_of].name
        unit.send(event.partition, Outgoing(topic, to, encoded, event.value, headers))
        unit.count(event.partition, "routed")

    async def _carry_out(
        self, event: RawEvent, demand: str, account_id: str | None, plan: Plan, unit: UnitOfWork
    ) -> Understood:
        """Change who is who as a person asks, and answer; or decline with the reason."""
        assert isinstance(event.data, inputs.RequestMade)
        try:
            asked = actions.read(demand, account_id, event.data.parameters, event.occurred_at, event.received_at)
            await self._know(asked, plan, unit)
            match asked:
                case actions.LinkAsked():
                    answer = self._do_link(asked, plan)
                case actions.MergeAsked():
                    answer = await self._do_merge(event, asked, plan, unit)
                case actions.SplitAsked():
                    answer = self._do_split(asked, plan)
        except Unusable as error:
            return self._decline(event, demand, str(error), unit)
        done = results.RequestAnswered(
            **(_reply_fields(event) | {"account_id": account_id}), demand=demand, as_of=event.received_at,
            answer={"account_id": account_id, "valid_from": rfc3339(asked.valid_from), **answer},
        )  # fmt: skip
        self._tell(event, done, unit)
        unit.count(event.partition, "routed")
        return Understood(demand, account_id, None)

    async def _know(self, asked: actions.Asked, plan: Plan, unit: UnitOfWork) -> None:
        """Load what the batch has not loaded of the link or the user asked about."""
        users = {asked.user_id} if isinstance(asked, actions.SplitAsked) and asked.user_id else set[str]()
        external = set[tuple[str, str]]()
        if isinstance(asked, actions.LinkAsked):
            external.add((asked.namespace, asked.external_id))
        elif isinstance(asked, actions.SplitAsked) and asked.external:
            external.add(asked.external)
        found = await store.load_identity(unit.db, users, external)
        for user, memberships in found.memberships.items():
            plan.book.memberships.setdefault(user, memberships)
        for where, links in found.links.items():
            plan.book.links.setdefault(where, links)

    def _do_link(self, asked: actions.LinkAsked, plan: Plan) -> dict[str, Any]:
        links = plan.book.links.setdefault((asked.namespace, asked.external_id), [])
        news = actions.linked(links, asked)
        if news:
            links.append(domain.Link(asked.account_id, asked.valid_from))
            plan.links.append((asked.namespace, asked.external_id, asked.account_id, asked.valid_from))
        return {"namespace": asked.namespace, "external_id": asked.external_id, "already": not news}

    async def _do_merge(
        self, event: RawEvent, asked: actions.MergeAsked, plan: Plan, unit: UnitOfWork
    ) -> dict[str, Any]:
        """Note the merge and tell it to the domains, as if a tool had told it."""
        merged, into = asked.merged_account_id, asked.account_id
        reason = refusal(merged, into, plan.book.merges)
        if reason is None and not await unit.db.fetch(store.KNOWS_ACCOUNT, [merged]):
            reason = f"account {merged!r} is not known"
        if reason is not None:
            raise Unusable(reason)
        before = plan.book.merges.get(merged)
        if before is None:
            plan.accept(merged, Merge(into, asked.valid_from, event.received_at))
            self._tell_merge(event, asked, unit)
        since = before.valid_from if before else asked.valid_from
        return {"merged_account_id": merged, "already": before is not None, "valid_from": rfc3339(since)}

    def _tell_merge(self, event: RawEvent, asked: actions.MergeAsked, unit: UnitOfWork) -> None:
        told = inputs.AccountMerged(account_id=asked.account_id, merged_account_id=asked.merged_account_id)
        value, own_time = told.model_dump_json().encode(), rfc3339(asked.valid_from).encode()
        id = derived_id("router", event.source, event.id, told.type_name)
        outputs = self._outputs.get(told.wire_type(), ())
        for account in told_of(told, unit.partitions) if outputs else ():
            key, to, _ = place_of(account, unit.partitions)
            headers = event_headers(
                told, id=id, source=CLOCK_SOURCE, subject=account, time=asked.valid_from,
                extra=[("ce_owntime", own_time), ("ce_recordedtime", b"%d" % event.received_ms)],
            )  # fmt: skip
            unit.send(event.partition, Outgoing(outputs[0], to, key, value, headers, outputs[1:]))

    def _do_split(self, asked: actions.SplitAsked, plan: Plan) -> dict[str, Any]:
        if asked.user_id is not None:
            ended = plan.book.leave(asked.user_id, asked.account_id, asked.valid_from)
            actions.split_member(ended, asked)
            for one in ended:
                plan.memberships[asked.user_id, one.account_id] = one
            return {"member": asked.user_id}
        assert asked.external is not None
        links = plan.book.links.setdefault(asked.external, [])
        links.append(actions.split_link(links, asked, plan.book.meant(asked.external, asked.valid_from)))
        plan.links.append((*asked.external, None, asked.valid_from))
        return {"namespace": asked.external[0], "external_id": asked.external[1]}

    def _unclear(
        self, event: RawEvent, confidence: float, reason: str, candidates: Iterable[str], unit: UnitOfWork
    ) -> Understood:
        answer = results.RequestUnclear(
            **_reply_fields(event), confidence=confidence, reason=reason, candidates=tuple(candidates)
        )
        return self._reply(event, answer, unit)

    def _decline(self, event: RawEvent, demand: str | None, reason: str, unit: UnitOfWork) -> Understood:
        return self._reply(event, results.RequestDeclined(**_reply_fields(event), demand=demand, reason=reason), unit)

    def _reply(self, event: RawEvent, answer: ResultEvent, unit: UnitOfWork) -> Understood:
        self._tell(event, answer, unit)
        unit.count(event.partition, "unclear")
        return Understood(None, None, None)

    def _tell(self, event: RawEvent, answer: ResultEvent, unit: UnitOfWork) -> None:
        unit.emit(
            topics.RESULTS["router"], answer, account_id=event.account_id or event.id, cause=event.id, kind="reply",
            partition=event.partition, extra=[("ce_correlationid", event.id.encode())],
        )  # fmt: skip

    async def _refresh_index(self, unit: UnitOfWork) -> None:
        rows = await unit.db.fetch(store.LIST_ACCOUNTS, self._indexed_to - OVERLAP)
        for row in rows:
            self._index.add(row["account_id"], row["name"])
            self._indexed_to = max(self._indexed_to, row["changed_at"])


def _reply_fields(event: RawEvent) -> dict[str, Any]:
    return {
        "account_id": event.account_id,
        "cause_ids": (event.id,),
        "occurred_at": event.occurred_at,
        "computed_at": event.received_at,
        "request_id": event.id,
    }
