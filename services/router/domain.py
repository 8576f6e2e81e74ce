"""Whose event is it: memberships and links with their times, pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.router.merges import Merges, became

AMBIGUOUS = "ambiguous_account"
UNKNOWN_USER = "unknown_user"
UNKNOWN_ORGANISATION = "unknown_organisation"
NOBODY = "names_nobody"
BEHIND = "behind_a_parked_event"

FREE_MAIL = frozenset(
    """
    gmail.com googlemail.com outlook.com hotmail.com hotmail.fr live.com live.fr msn.com yahoo.com yahoo.fr
    yahoo.co.uk icloud.com me.com mac.com aol.com gmx.com gmx.de gmx.net web.de mail.com proton.me protonmail.com
    orange.fr wanadoo.fr free.fr sfr.fr laposte.net bbox.fr qq.com 163.com mail.ru yandex.ru zoho.com fastmail.com
    """.split()
)
"""Everybody's mail: such a domain names no company."""


@dataclass(frozen=True, slots=True)
class Membership:
    account_id: str
    valid_from: datetime
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """From `valid_from` on, the external id means this account; None: nobody."""

    account_id: str | None
    valid_from: datetime


@dataclass(frozen=True, slots=True)
class Resolved:
    account_id: str


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why an event has no account yet, and what would give it one."""

    reason: str
    waits_for: tuple[str, ...]


@dataclass(slots=True)
class IdentityBook:
    """What is known of the users and external ids of one batch; it learns as the batch goes on."""

    memberships: dict[str, dict[str, Membership]] = field(default_factory=dict)
    links: dict[tuple[str, str], list[Link]] = field(default_factory=dict)
    merges: Merges = field(default_factory=dict)

    def join(self, user_id: str, account_id: str, at: datetime) -> bool:
        """Note a membership; True when it is news."""
        known = self.memberships.setdefault(user_id, {})
        before = known.get(account_id)
        if before is None or (before.valid_to is not None and at >= before.valid_to):
            known[account_id] = Membership(account_id, at)
            return True
        if at < before.valid_from:
            known[account_id] = Membership(account_id, at, before.valid_to)
            return True
        return False

    def leave(self, user_id: str, account_id: str | None, at: datetime) -> list[Membership]:
        """End a membership (or all of the user's) and return what changed."""
        changed = []
        for known in list(self.memberships.get(user_id, {}).values()):
            if (
                (account_id is None or self._same(known.account_id, account_id, at))
                and known.valid_to is None
                and at >= known.valid_from
            ):
                ended = Membership(known.account_id, known.valid_from, at)
                self.memberships[user_id][known.account_id] = ended
                changed.append(ended)
        return changed

    def link(self, namespace: str, external_id: str, account_id: str, at: datetime) -> bool:
        """Note a link; True when it is news."""
        known = self.links.setdefault((namespace, external_id), [])
        if account_at(known, at) == account_id or any(link.valid_from == at for link in known):
            return False
        known.append(Link(account_id, at))
        known.sort(key=lambda link: link.valid_from)
        return True

    def meant(self, external: tuple[str, str], at: datetime) -> str | None:
        """The account that an external id means at a time."""
        account = account_at(self.links.get(external, ()), at)
        return None if account is None else became(account, at, self.merges)

    def _same(self, one: str, other: str, at: datetime) -> bool:
        return one == other or became(one, at, self.merges) == became(other, at, self.merges)

    def resolve(self, user_id: str | None, external: Sequence[tuple[str, str]], at: datetime) -> Resolved | Unresolved:
        """The account of an event that names none: the user's sole membership, then links, by the event's time."""
        accounts = {
            became(account, at, self.merges)
            for account in accounts_at(self.memberships.get(user_id or "", {}).values(), at)
        }
        if len(accounts) == 1:
            return Resolved(accounts.pop())
        for where in external:
            account = self.meant(where, at)
            if account is not None:
                return Resolved(account)
        waits_for = tuple(([f"user:{user_id}"] if user_id else []) + [f"{ns}:{external}" for ns, external in external])
        if len(accounts) > 1:
            return Unresolved(AMBIGUOUS, waits_for)
        if user_id:
            return Unresolved(UNKNOWN_USER, waits_for)
        return Unresolved(UNKNOWN_ORGANISATION if external else NOBODY, waits_for)


def accounts_at(memberships: Iterable[Membership], at: datetime) -> list[str]:
    """The accounts a user belongs to at a time; before the first membership began, the first one."""
    known = list(memberships)
    current = [m for m in known if m.valid_from <= at and (m.valid_to is None or at < m.valid_to)]
    if current:
        return sorted(m.account_id for m in current)
    later = [m for m in known if m.valid_from > at]
    if not later:
        return []
    first = min(m.valid_from for m in later)
    return sorted(m.account_id for m in later if m.valid_from == first)


def account_at(links: Sequence[Link], at: datetime) -> str | None:
    """The account an external id means at a time; before its first link, the first one."""
    if not links:
        return None
    ordered = sorted(links, key=lambda link: link.valid_from)
    past = [link for link in ordered if link.valid_from <= at]
    return (past[-1] if past else ordered[0]).account_id


def email_domain(email: object) -> str | None:
    """The company's domain in an address or in an opaque reference that keeps it; never a free mailer's."""
    if not isinstance(email, str) or "@" not in email:
        return None
    domain = email.rpartition("@")[2].strip().lower()
    return domain if "." in domain and domain not in FREE_MAIL else None


def external_ids(body: Mapping[str, object]) -> list[tuple[str, str]]:
    """(namespace, external id) pairs that a body carries: `external_ids`, then the e-mail's domain."""
    found: list[tuple[str, str]] = []
    named = body.get("external_ids")
    if isinstance(named, Mapping):
        found += [(str(ns), str(value)) for ns, value in sorted(named.items()) if isinstance(value, str | int)]
    traits = body.get("traits")
    for holder in (body, traits if isinstance(traits, Mapping) else {}):
        domain = email_domain(holder.get("email"))
        if domain:
            found.append(("email_domain", domain))
            break
    return found
