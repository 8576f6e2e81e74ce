"""Exports of several scores: per product, per user and their account, per parent and its children."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from services.health import facts, families, scoring
from services.health.domain import Policy
from services.health.facts import Facts, Picture
from services.health.families import FamilyScore, Member, Standing
from services.health.settings import Family
from services.health.store import OF_THEN, unsigned
from services.health.usage import Events
from shared.db import Connection
from shared.errors import Misconfigured

Row = dict[str, Any]
Rounded = Callable[[scoring.Score], Row]
ACTIONS = "select hash, word from health_api.words_v1 where kind = 'action'"
USERS = f"select account_id, hash, user_id from health_api.users_v1 t where {OF_THEN.format(at='$1::timestamptz')}"
CUTS = ("product", "user")


def family_rows(
    book: Sequence[tuple[Facts, Picture]], policy: Policy, became: Mapping[str, str] | None = None
) -> list[Row]:
    """One row per account that has children, as of the pictures' moment; `became`: merged account → surviving one.

    Raises Misconfigured when the configuration does not say how a parent's score follows.
    """
    rule = policy.model.family
    if rule is None:
        raise Misconfigured("config/health.yaml says nothing of family: add for example `family: {by: mean}`")
    accounts = [
        (_member(known.account_id, scoring.score_of(known, now, policy.model), now), _parent_of(now, became or {}))
        for known, now in book
    ]
    return [_row(one, rule, policy) for one in families.standings(accounts, rule, policy.model.bands)]


def _member(account_id: str, score: scoring.Score, now: Picture) -> Member:
    return Member(account_id, score.exact, score.band, now.profile.arr)


def _parent_of(now: Picture, became: Mapping[str, str]) -> str | None:
    """Nobody is their own parent."""
    parent_id = now.profile.parent_id
    while parent_id is not None and parent_id in became:  # the router lets no merges lead back
        parent_id = became[parent_id]
    return None if parent_id == now.account_id else parent_id


def _row(one: Standing, rule: Family, policy: Policy) -> Row:
    return {
        "account_id": one.account_id,
        "parent_id": one.parent_id,
        **_said(one.score),
        "own": _six(one.own.points),
        "by": rule.by,
        "children": list(one.children),
        "arr": None if one.arr is None else format(one.arr, "f"),
        "in_cycle": one.in_cycle,
        "config_hash": policy.digest,
    }


def _said(score: FamilyScore) -> Row:
    return {
        "score": score.score,
        "band": score.band,
        "exact": _six(score.points),
        "members": score.members,
        "scored": score.scored,
        "reason": score.reason,
    }


async def scores_by_product(
    dbs: Sequence[Connection], known: Sequence[Facts], as_of: datetime, policy: Policy, rounded: Rounded
) -> list[Row]:
    """One row per account and product: the score from that product's use alone, everything else being the same."""
    products: dict[str, set[int]] = {}
    for db in dbs:
        for signed, word in await db.fetch(ACTIONS):
            product = word.partition("\x1f")[2]
            if product:
                products.setdefault(product, set()).add(unsigned(signed))
    rows = []
    for product, hashes in sorted(products.items()):
        wanted = np.array(sorted(hashes), np.uint64)
        for one in known:
            part = _of_events(one, partial(_among, wanted))
            if part.usage:
                rows.append({"account_id": one.account_id, "product": product,
                             **rounded(scoring.score(part, as_of, policy.model)),
                             "config_hash": policy.digest})  # fmt: skip
    return sorted(rows, key=lambda row: (row["account_id"], row["product"]))


async def scores_by_user(
    dbs: Sequence[Connection], known: Sequence[Facts], as_of: datetime, policy: Policy, rounded: Rounded
) -> list[Row]:
    """One row per user: the score from their own use and answers; and one per account that adds them up (user null)."""
    rule = policy.model.family or Family()
    names: dict[str, list[tuple[int, str]]] = {}
    for db in dbs:
        for account_id, signed, user_id in await db.fetch(USERS, as_of):
            names.setdefault(account_id, []).append((unsigned(signed), user_id))
    rows = []
    for one in known:
        members = []
        for user, user_id in sorted(names.get(one.account_id, ()), key=lambda pair: pair[1]):
            part = _of_user(one, user, user_id)
            now = facts.picture(part, as_of)
            score = scoring.score_of(part, now, policy.model)
            if now.usage.last_at is None and not now.answers:
                continue
            members.append(Member(user_id, score.exact, score.band, None))
            rows.append({"account_id": one.account_id, "user_id": user_id, **rounded(score),
                         "config_hash": policy.digest})  # fmt: skip
        if members:
            nobody = Member(one.account_id, None, "unknown", None)
            by = rule.model_copy(update={"by": "mean"}) if rule.by == "arr_weighted" else rule  # users have no ARR
            said = _said(families.score_of(nobody, members, by, policy.model.bands))
            rows.append({"account_id": one.account_id, "user_id": None, **said, "by": by.by,
                         "config_hash": policy.digest})  # fmt: skip
    return rows


def _among(wanted: Any, events: Events) -> Any:
    return np.isin(events["action"], wanted)


def _of_user(known: Facts, user: int, user_id: str) -> Facts:
    mine = _of_events(known, lambda events: events["user"] == user)
    things = {
        key: marks
        for key, marks in known.things.items()
        if key[0] != "answer" or any(mark.data.get("person") == user_id for mark in marks)
    }
    return Facts(known.account_id, things, mine.usage, peers=known.peers)


def _of_events(known: Facts, keep: Callable[[Events], Any]) -> Facts:
    parts = (part[keep(part)] for part in known.usage)
    return Facts(known.account_id, known.things, tuple(part for part in parts if part.size), peers=known.peers)


def _six(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
