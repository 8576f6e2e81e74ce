"""`hune vault`: the contact vault's key, and what references stand for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import click

from cli.support import Stores, control_url, open_databases, run
from shared import db
from shared.errors import Misconfigured
from shared.vault import keys as vault
from shared.vault import store
from shared.vault.keys import Keys
from shared.vault.sealing import Sealer, tokens_in

T = TypeVar("T")
GIVEN = (vault.VARIABLE, vault.FILE_VARIABLE)


def key_file(home: Path) -> Path:
    """Where a home keeps the vault's key."""
    return home / vault.FILE_NAME


def load_keys(home: Path, env: Mapping[str, str] = os.environ) -> Keys | None:
    """The keys of the environment, else the home's; None where there is no vault."""
    if any(env.get(name, "").strip() for name in GIVEN) or not key_file(home).exists():
        return vault.load(env)
    return vault.load({vault.FILE_VARIABLE: str(key_file(home))})


def sealer_of(stores: Stores, env: Mapping[str, str] = os.environ) -> Sealer | None:
    keys = load_keys(stores.home, env)
    return Sealer(keys, vault.fields(env)) if keys is not None else None


def named(stores: Stores, id: str) -> str:
    """An id as events have it: an e-mail address by its reference."""
    if "@" not in id:
        return id
    sealer = sealer_of(stores)
    return sealer.reference(id) if sealer is not None else id


async def revealed(stores: Stores, found: T) -> T:
    """The same with addresses and names for references, where this machine has the vault's key."""
    if not tokens_in(found):
        return found
    keys = load_keys(stores.home)
    if keys is None:
        return found
    control = await db.connect(control_url(stores))
    try:
        shown: T = await store.revealed(control, keys, found)
        return shown
    finally:
        await control.close()


@click.group("vault")
def command() -> None:
    """Look after the key of the contact vault."""


@command.command("key")
def key() -> None:
    """Write a new key to stdout, for HUNE_VAULT_KEY of an installation that has none yet."""
    click.echo(Keys.make().text)


@command.command("on")
def on() -> None:
    """Give the home a key, so that from the next start on names and addresses go into the vault."""
    from cli.home import find_home

    path = key_file(find_home().path)
    if path.exists():
        click.echo(f"the vault is on already: {path}")
        return
    vault.write(path, Keys.make())
    click.echo(f"made {path}: keep a copy apart from the database's; without it no contact can be read")
    click.echo("restart with `hune down` and `hune up`; docs/privacy.md tells what changes for persons known by e-mail")


@command.command("rotate")
def rotate() -> None:
    """Put a new key in the place of the one that closes the persons' keys; the services must be stopped."""
    changed = run(_rotate())
    click.echo(f"closed {changed:,} persons' keys anew; the old key opens nothing any more")


async def _rotate() -> int:
    from cli.home import find_home, open_stores, spool_of

    async with open_stores() as stores:
        path = key_file(stores.home)
        if any(os.environ.get(name, "").strip() for name in GIVEN) or not path.exists():
            raise Misconfigured(f"only a home's key can be changed, and there is no {path}; see docs/security.md")
        if find_home().is_running:
            raise Misconfigured("the services still use the key; stop them with `hune down`")
        if any(spool_of(stores.home).glob("contacts.*")):
            raise Misconfigured("contacts wait in the spool under the old key; start once more with `hune up` before")
        keys = Keys.from_text(path.read_text(), str(path)).changed()
        vault.write(path, keys)  # before anything needs it; both open what there is
        async with open_databases(stores) as databases:
            await store.check(databases[0], keys)
            changed = await store.rewrap(databases[0], keys)
        vault.write(path, keys.alone())
        return changed
