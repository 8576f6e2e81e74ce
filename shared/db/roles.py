"""Who may touch which tables: a role per service, which owns nothing and sees its own rows of what all share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from shared.db.migrate import migrations

PREFIX = "hune_"
CLI = "cli"
RUNTIME: Mapping[str, str] = {
    "partitions": "select, insert, update",
    "outbox": "select, insert, delete",
    "quarantine": "select, insert, update, delete",
    "seen": "select, insert, delete",
    "seen_cold": "select, insert, delete",
    "seen_undated": "select, insert",
}
"""Tables of the schema hune that hold rows of every service, told apart by their column `service`."""


VAULT: Mapping[str, Mapping[str, str]] = {
    "people": {"gateway": "select, insert", "notify": "select", "router": "select, insert, delete"},
    "contacts": {"gateway": "select, insert", "notify": "select", "router": "select, insert, delete"},
    "forgotten": {"gateway": "select", "router": "select, insert, update"},
    "vault": {"gateway": "select, insert"},
}
"""Tables of the contact vault: what each service that has to do with it may do."""

MADE = re.compile(r"create schema (?:if not exists )?(\w+)")


def role_of(service: str) -> str:
    return f"{PREFIX}{service}"


def statements(services: Sequence[str]) -> Iterator[str]:
    """SQL that makes the roles and says what they may do; run again it changes nothing, or what a new version needs.

    The roles log in with the password that somebody gives them; the tables belong to the role that migrates.
    """
    schemas = _schemas()
    for service in services:
        yield from _role(role_of(service))
        yield from _of_service(role_of(service), service, has_tables=service in schemas)
    if "router" in services:
        yield f"grant update (live_since) on hune.installation to {role_of('router')}"
    yield from _role(role_of(CLI))
    yield from _of_cli(role_of(CLI), sorted(schemas))
    for table in RUNTIME:
        yield f"alter table hune.{table} enable row level security"
        yield f"drop policy if exists own_rows on hune.{table}"
        mine = f"current_user in ('{PREFIX}' || service, '{role_of(CLI)}')"
        yield f"create policy own_rows on hune.{table} using ({mine})"


def _schemas() -> set[str]:
    """The services' schemas, and those of the views that are read from outside."""
    found = {migration.schema for migration in migrations()}
    for migration in migrations():
        found |= set(MADE.findall(migration.path.read_text()))
    return found - {"hune"}


def _role(role: str) -> Iterator[str]:
    yield (
        f"do $$ begin create role {role} login nosuperuser nocreatedb nocreaterole;"
        " exception when duplicate_object or unique_violation then null; end $$"
    )


def _of_service(role: str, service: str, *, has_tables: bool) -> Iterator[str]:
    yield f"grant usage on schema hune to {role}"
    yield f"grant select on hune.installation to {role}"
    for table, rights in RUNTIME.items():
        yield f"grant {rights} on hune.{table} to {role}"
    for table, services in VAULT.items():
        if service in services:
            yield f"grant {services[service]} on hune.{table} to {role}"
    if has_tables:
        yield f"grant usage on schema {service} to {role}"
        yield from _on_all(role, service, "select, insert, update, delete")


def _of_cli(role: str, schemas: Sequence[str]) -> Iterator[str]:
    """It reads everything, has records read again, and looks after the gateway's keys."""
    for schema in ("hune", *schemas):
        yield f"grant usage on schema {schema} to {role}"
        yield from _on_all(role, schema, "select")
    yield f"grant insert, update on hune.quarantine to {role}"
    yield f"grant insert, update on hune.people, hune.contacts, hune.vault to {role}"
    if "gateway" in schemas:
        yield f"grant insert, update on all tables in schema gateway to {role}"


def _on_all(role: str, schema: str, rights: str) -> Iterator[str]:
    yield f"grant {rights} on all tables in schema {schema} to {role}"
    yield f"grant usage on all sequences in schema {schema} to {role}"
    yield f"alter default privileges in schema {schema} grant {rights} on tables to {role}"
    yield f"alter default privileges in schema {schema} grant usage on sequences to {role}"
