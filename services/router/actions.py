"""What a person asks to be changed in who is who: read from a request's parameters, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.router.domain import Link, Membership, account_at
from services.router.merges import AFTER
from shared import requests
from shared.requests import Unusable
from shared.times import instant

LINK, MERGE, SPLIT = DEMANDS = ("account.link", "account.merge", "account.split")


@dataclass(frozen=True, slots=True)
class LinkAsked:
    """From `valid_from` on the external id means the account."""

    namespace: str
    external_id: str
    account_id: str
    valid_from: datetime


@dataclass(frozen=True, slots=True)
class MergeAsked:
    merged_account_id: str
    account_id: str
    valid_from: datetime


@dataclass(frozen=True, slots=True)
class SplitAsked:
    """From `valid_from` on the external id, or the user, is no longer the account's."""

    account_id: str
    valid_from: datetime
    external: tuple[str, str] | None = None
    user_id: str | None = None


Asked = LinkAsked | MergeAsked | SplitAsked


def read(
    demand: str, account_id: str | None, parameters: Mapping[str, Any], asked_at: datetime, received_at: datetime
) -> Asked:
    """What is asked for.

    Raises Unusable that names what is missing or wrong.
    """
    if account_id is None:
        raise Unusable(f"{demand} is about one account: name account_id")
    at = requests.time(parameters, "valid_from") or asked_at
    if at > received_at + AFTER:
        raise Unusable(f"parameter valid_from is {instant(at)}, more than 24 hours ahead")
    if demand == MERGE:
        return MergeAsked(_needed(parameters, "merged_account_id", demand), account_id, at)
    if demand == LINK:
        return LinkAsked(
            _needed(parameters, "namespace", demand), _needed(parameters, "external_id", demand), account_id, at
        )
    user = requests.text(parameters, "member")
    if user is not None:
        return SplitAsked(account_id, at, user_id=user)
    if parameters.get("namespace") is None and parameters.get("external_id") is None:
        raise Unusable("account.split needs parameter member (a user id), or namespace and external_id (a link)")
    external = _needed(parameters, "namespace", demand), _needed(parameters, "external_id", demand)
    return SplitAsked(account_id, at, external=external)


def _needed(parameters: Mapping[str, Any], name: str, demand: str) -> str:
    value = requests.text(parameters, name)
    if value is None:
        raise Unusable(f"{demand} needs parameter {name}")
    return value


def linked(links: list[Link], asked: LinkAsked) -> bool:
    """Whether the link is news.

    Raises Unusable when another account has it from that very moment on.
    """
    for link in links:
        if link.valid_from == asked.valid_from and link.account_id != asked.account_id:
            what = f"account {link.account_id!r}" if link.account_id else "no account"
            raise Unusable(
                f"{asked.namespace} {asked.external_id!r} means {what} from {instant(asked.valid_from)} on already; "
                "give another valid_from"
            )
    return account_at(links, asked.valid_from) != asked.account_id


def split_link(links: list[Link], asked: SplitAsked, means: str | None) -> Link:
    """The end of a link; `means`: the account that the external id means at that moment, by merges too.

    Raises Unusable when there is nothing to end.
    """
    assert asked.external is not None
    namespace, external_id = asked.external
    begun = [link for link in links if link.valid_from <= asked.valid_from]
    if means != asked.account_id or not begun:
        raise Unusable(
            f"{namespace} {external_id!r} does not mean account {asked.account_id!r} at {instant(asked.valid_from)}"
        )
    if any(link.valid_from == asked.valid_from for link in begun):
        raise Unusable(f"the link begins at {instant(asked.valid_from)}; give a later valid_from")
    return Link(None, asked.valid_from)


def split_member(ended: list[Membership], asked: SplitAsked) -> None:
    """Raises Unusable when no membership ended."""
    if not ended:
        raise Unusable(
            f"user {asked.user_id!r} does not belong to account {asked.account_id!r} at {instant(asked.valid_from)}"
        )
