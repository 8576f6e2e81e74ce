"""`hune privacy`: have a person deleted or suppressed everywhere, and see what was asked."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Literal

import click

from cli import output
from cli.raw import SOURCE, open_writer
from cli.support import Stores, control_url, load_installation, open_databases, run
from cli.vault import named
from shared import db, topics
from shared.events.inputs import PrivacyRequested
from shared.runtime.wire import event_headers
from shared.times import instant
from shared.vault import store
from shared.vault.sealing import TOKEN

Regulation = Literal["suppress", "unsuppress", "delete", "suppress_with_delete"]
KNOWN = "select exists (select from router.memberships where user_id = $1)"
LOAD = "select user_id, suppressed, erased_to, requests, asked_at from router_api.privacy_v1 where user_id = $1"


@click.group("privacy")
def command() -> None:
    """Delete or suppress what is known of a person."""


@command.command("delete")
@click.argument("user")
@click.option("--suppress", is_flag=True, help="Take no more events of them, either.")
def delete(user: str, suppress: bool) -> None:
    """Erase the person whose user id or e-mail address is USER from every store; counts stay, names and words go."""
    _ask(user, "suppress_with_delete" if suppress else "delete")


@command.command("suppress")
@click.argument("user")
@click.option("--off", is_flag=True, help="Take their events again from now on.")
def suppress(user: str, off: bool) -> None:
    """Drop what comes of the person whose user id is USER from now on; what is known stays."""
    _ask(user, "unsuppress" if off else "suppress")


@command.command("status")
@click.argument("user")
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
def status(user: str, json_: bool) -> None:
    """Say what was asked about USER and carried out by the router; the services follow within a second."""
    row = run(_load(user))
    if json_:
        click.echo(output.json_line(row))
        return
    if not row["requests"]:
        click.echo(f"nothing was asked about {user}")
        return
    click.echo(f"{user}: {'suppressed' if row['suppressed'] else 'not suppressed'}")
    if row["erased_to"]:
        click.echo(f"erased: what happened up to {row['erased_to']} is forgotten and does not come back")
    click.echo(f"asked {row['requests']} times, last at {row['asked_at']}")


def _ask(user: str, regulation: Regulation) -> None:
    if not user.strip():
        raise click.BadParameter("the user id is empty", param_hint="USER")
    asked, others = run(_send(user, regulation))
    click.echo(f"asked to {regulation.replace('_', ' ')} {user}; `hune privacy status` tells when it is carried out")
    if len(asked) > 1:
        click.echo(f"asked the same of their other ids: {', '.join(id for id in asked if '@' not in id)}")
    if others:
        click.echo(
            f"the same e-mail address belongs to {', '.join(others)}, too: ask for them as well if it is one person"
        )


async def _send(user: str, regulation: Regulation) -> tuple[list[str], list[str]]:
    """Ask; gives the ids that were asked for and those that share an address with the person."""
    from cli.home import open_stores

    async with open_stores(need_kafka=True) as stores:
        control = await db.connect(control_url(stores))
        try:
            partitions = (await load_installation(control)).partitions
            users, others = await _ids_of(stores, control, user)
        finally:
            await control.close()
        async with open_writer(stores.bootstrap_servers, partitions) as writer:
            for id in users:
                asked = PrivacyRequested(user_id=id, regulation=regulation)
                now = datetime.now(UTC)
                headers = event_headers(asked, id=str(uuid.uuid4()), source=SOURCE, subject=id, time=now)
                writer.add(topics.RAW_EVENTS, id.encode(), asked.model_dump_json(exclude_unset=True).encode(), headers)
            await writer.flush()
    return users, others


async def _ids_of(stores: Stores, control: db.Connection, user: str) -> tuple[list[str], list[str]]:
    """Under which ids somebody is known. An address: every id that has it, and itself where it was one once.

    The other ids of an address that some id has are only told: several persons may share it.
    """
    reference = named(stores, user)
    if reference == user:
        others = {
            id for token in await store.addresses_of(control, user) for id in await store.persons_of(control, token)
        }
        return [user], sorted(others - {user})
    token = TOKEN.findall(reference)[0]
    users = {reference, *await store.persons_of(control, token)}
    if await control.fetchval(KNOWN, user):
        users.add(user)
    return sorted(users), []


async def _load(user: str) -> dict[str, Any]:
    from cli.home import open_stores

    async with open_stores() as stores, open_databases(stores) as databases:
        row = await databases[0].fetchrow(LOAD, named(stores, user))
        if row is None:
            row = await databases[0].fetchrow(LOAD, user)
    found: dict[str, Any] = dict(row or {"user_id": user, "suppressed": False, "erased_to": None, "requests": 0})
    times = {name: instant(found[name]) if found.get(name) else None for name in ("erased_to", "asked_at")}
    return {**found, **times, "user_id": user}
