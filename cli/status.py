"""`hune status`: processes, what is in flight, and what became of every record."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import asyncpg
import click
from aiokafka.errors import KafkaError

from cli.home import Home, OpenStores, RunState, StoreState, demo_home, find_home, main_home, open_stores
from cli.output import plain, table
from cli.up import without_password
from devstack.stack import given_urls, lock_holder
from shared.errors import PipelineError

FIGURES = ("in_flight", "clock", "accounting", "lag", "parked", "quarantined")
PATIENCE = 15.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def command(as_json: bool) -> None:
    """Show what runs, what is in flight and what became of every record. Exits with 1 when nothing runs."""
    found = asyncio.run(collect_given() if are_given() else collect(find_home()))
    click.echo(json.dumps(plain(found), indent=1, ensure_ascii=False) if as_json else describe(found))
    sys.exit(0 if found["running"] else 1)


def are_given() -> bool:
    """Whether the stores are somebody else's and nothing was ever started here: in a container, or from afar."""
    return bool(given_urls()) and not (main_home().exists or demo_home().exists)


async def collect_given() -> dict[str, Any]:
    """The same of given stores: whoever runs the services knows their processes."""
    urls, figures = given_urls(), await _figures()
    state = RunState("serving", 0, "", kafka=StoreState(os.environ.get("HUNE_KAFKA_BOOTSTRAP_SERVERS", "")),
                     postgres=StoreState(os.environ.get("HUNE_DATABASE_URL") or urls[0]))  # fmt: skip
    return (
        {"home": "none; given stores", "running": figures[1] is None}
        | _processes(state)
        | figures[0]
        | {"note": figures[1]}
    )


async def collect(home: Home) -> dict[str, Any]:
    """Everything `status --json` says; figures that cannot be read now are null and `note` says why."""
    state = home.state()
    running = state is not None and home.is_running and lock_holder(home.path) == state.supervisor
    figures, note = (await _figures()) if running else (dict.fromkeys(FIGURES), "not running; start it with `hune up`")
    return {"home": str(home), "running": running} | _processes(state if running else None) | figures | {"note": note}


def _processes(state: RunState | None) -> dict[str, Any]:
    kafka, postgres = (state.kafka, state.postgres) if state else (None, None)
    return {
        "services": [
            {"name": each.name, "pid": each.pid, "restarts": each.restarts, "ready": each.ready}
            for each in (state.services if state else ())
        ],
        "kafka": {
            "bootstrap_servers": kafka.address if kafka else None,
            "pid": kafka.pid if kafka else None,
            "restarts": kafka.restarts if kafka else 0,
        },
        "postgres": {
            "url": postgres.address if postgres else None,
            "pid": postgres.pid if postgres else None,
            "restarts": postgres.restarts if postgres else 0,
        },
        "gateway": {"url": state.gateway_url or None if state else None},
    }


async def _figures() -> tuple[dict[str, Any], str | None]:
    try:
        async with asyncio.timeout(PATIENCE), open_stores(need_kafka=True, quiet=True) as stores:
            return await _snapshot(stores), None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, KafkaError, PipelineError) as error:
        return dict.fromkeys(FIGURES), f"the figures cannot be read now: {error or type(error).__name__}"


async def _snapshot(stores: OpenStores) -> dict[str, Any]:
    from cli.accounting import snapshot

    found = await snapshot(stores)
    return {name: found.get(name) for name in FIGURES}


def describe(found: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [f"home       {found['home']}"]
    if not found["running"]:
        return "\n".join([*lines, str(found["note"])])
    clock = found["clock"] or {}
    lines += [
        f"gateway    {found['gateway']['url'] or '-'}",
        f"clock      {clock.get('mode', '-')} {clock.get('at') or ''}".rstrip(),
        f"in flight  {'-' if found['in_flight'] is None else found['in_flight']}",
        "",
        _process_table(found),
    ]
    if found["note"]:
        lines += ["", str(found["note"])]
    if found["accounting"]:
        lines += ["", accounting_table(found["accounting"])]
    waiting = [f"{name}: {_counts(found[name])}" for name in ("parked", "quarantined") if _total(found[name])]
    return "\n".join([*lines, *([""] if waiting else []), *waiting])


def _process_table(found: Mapping[str, Any]) -> str:
    rows = [("process", "pid", "restarts", "ready", "lag")]
    lag = found["lag"] or {}
    for each in found["services"]:
        ready = "yes" if each["ready"] else "no"
        rows.append(
            (each["name"], str(each["pid"] or "-"), str(each["restarts"]), ready, str(lag.get(each["name"], "")))
        )
    kafka, postgres = found["kafka"], found["postgres"]
    rows.append(("kafka", str(kafka["pid"] or "given"), str(kafka["restarts"]), kafka["bootstrap_servers"] or "-", ""))
    rows.append(
        (
            "postgres",
            str(postgres["pid"] or "given"),
            str(postgres["restarts"]),
            without_password(postgres["url"] or "-"),
            "",
        )
    )
    return table(rows)


def accounting_table(accounting: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [("records", "read", "became", "adds up")]
    for service, account in accounting.items():
        became = ", ".join(
            f"{n} {outcome}" for outcome, n in account.items()
            if isinstance(n, int) and not isinstance(n, bool) and n and outcome != "read"
        )  # fmt: skip
        rows.append((service, str(account["read"]), became or "-", "yes" if account.get("balanced") else "not yet"))
    return table(rows)


def _total(counts: Any) -> int:
    return sum(counts.values()) if isinstance(counts, Mapping) else int(counts or 0)


def _counts(counts: Any) -> str:
    if not isinstance(counts, Mapping):
        return str(counts)
    return ", ".join(f"{n} {name}" for name, n in counts.items() if n)
