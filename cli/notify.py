"""`hune notify`: send a sample, see how deliveries stand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import click

from cli import output
from cli.support import control_url, run
from shared import db
from shared.errors import Misconfigured


@click.group("notify")
def command() -> None:
    """Try out and look after the messages to people."""


@command.command("test")
@click.option("--channel", metavar="X", default="default", show_default=True,
              help="A channel, a write-back or an outreach of notify.yaml, `default`, or a Slack id.")  # fmt: skip
@click.option("--account", metavar="ID", help="Of a write-back: write this account's latest score.")
@click.option("--person", metavar="ID", help="Of an outreach: send it to this person, such as yourself.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent, and send nothing.")
def test(channel: str, account: str | None, person: str | None, dry_run: bool) -> None:
    """Send a sample alert to a channel, a score into a tool, or a message to a person, past routes and ledger."""
    from services.notify.settings import load_notify
    from shared.settings import config_dir

    rules = load_notify(config_dir()).model
    if channel in rules.outreach:
        if account is None or (person is None and not dry_run):
            raise click.UsageError(f"{channel} writes to people: name an --account, and a --person or --dry-run")
        click.echo(run(_reach_out(channel, account, person, dry_run)))
    elif person is not None:
        raise click.BadParameter(f"{channel!r} is no outreach of notify.yaml", param_hint="--person")
    elif channel in rules.write_back:
        if not dry_run and account is None:
            raise click.UsageError(f"{channel} writes into a tool of yours: name an --account, or take --dry-run")
        click.echo(run(_write(channel, account, dry_run)))
    elif account is not None:
        raise click.BadParameter(f"{channel!r} is no write-back of notify.yaml", param_hint="--account")
    elif dry_run:
        click.echo(_sample(channel))
    else:
        click.echo(f"sent to {run(_send(channel))}")


@command.command("status")
@click.option("--json", "json_", is_flag=True, help="One JSON object a line.")
def status(json_: bool) -> None:
    """Show each place with its deliveries by state, and why it waits."""
    rows = run(_standing())
    if json_:
        click.echo(output.ndjson(rows), nl=False)
    elif not rows:
        click.echo("nothing has been told yet, and nothing waits")
    else:
        lines: list[tuple[str, ...]] = [("DESTINATION", "DELIVERIES", "WAITS UNTIL", "BECAUSE")]
        lines += [(row["destination"], _counts(row), _until(row), row.get("reason") or "-") for row in rows]
        click.echo(output.table(lines))


@command.command("redrive")
@click.argument("destination")
def redrive(destination: str) -> None:
    """Try the failed deliveries of a DESTINATION again."""
    count = run(_redrive(destination))
    if not count:
        raise click.BadParameter(f"{destination!r} has no failed delivery; see `hune notify status`")
    click.echo(f"{count} to be tried again")


def _counts(row: dict[str, Any]) -> str:
    return ", ".join(f"{n} {state}" for state, n in sorted(row["deliveries"].items())) or "-"


def _until(row: dict[str, Any]) -> str:
    if row.get("disabled_at"):
        return "redriven"
    return row["next_at"] if row.get("reason") else "-"


async def _standing() -> list[dict[str, Any]]:
    from services.notify.reading import standing

    async with _control() as control:
        return await standing(control)


async def _redrive(destination: str) -> int:
    from services.notify.store import redrive

    async with _control() as control, control.transaction():
        return await redrive(control, destination)


@asynccontextmanager
async def _control() -> AsyncIterator[db.Connection]:
    from cli.home import open_stores

    async with open_stores(need_kafka=False) as stores:
        control = await db.connect(control_url(stores))
        try:
            yield control
        finally:
            await control.close()


def _sample(channel: str) -> str:
    """The sample as Slack would get it."""
    from services.notify import blocks, sample
    from services.notify.settings import Reach, load_notify
    from shared.settings import config_dir

    rules = load_notify(config_dir()).model
    setting = rules.channels.get(channel)
    card = sample.card(datetime.now(UTC), (setting.language if setting else None) or rules.language)
    message = blocks.of_card(card, Reach.from_env().console_url, sample.note(card.language))
    return json.dumps({"text": message.text, "blocks": message.blocks}, ensure_ascii=False, indent=2)


async def _write(name: str, account: str | None, dry_run: bool) -> str:
    """Write what waits, or one account's latest score; or only show the request.

    Raises Misconfigured with what the far end said.
    """
    from services.notify import store
    from services.notify.settings import Reach, load_notify, written_to
    from services.notify.writer import open_outlets, to_write
    from shared.settings import config_dir

    rules = load_notify(config_dir()).model
    outlets = open_outlets(rules, Reach.from_env())
    outlet, destination = outlets[written_to(name)], written_to(name)
    try:
        async with _control() as control:
            found = await control.fetch(
                store.LIST_WAITING_WRITES, destination, outlet.rules.linked_by, outlet.most, account
            )
        writes, lost = to_write(found, outlet.rules)
        if account is not None and not found:
            raise Misconfigured(f"account {account!r} has no score that is written into {name}")
        if not writes:
            without = f"; without an id of that tool: {', '.join(lost)}" if lost else ""
            if account is not None:
                raise Misconfigured(f"account {account!r} has no id of that tool")
            return f"nothing waits to be written into {name}{without}"
        if dry_run:
            shown = outlet.tool.call(writes, "TOKEN").shown()
            return json.dumps(shown | {"without_id": lost}, ensure_ascii=False, indent=2)
        written = await outlet.write(writes, rules.pace.timeout_seconds)
        outcome = written.of(writes[0])
        if outcome.what != "sent":
            raise Misconfigured(f"{name} did not take it: {outcome.reason}")
        return f"written into {name}"
    finally:
        for one in outlets.values():
            await one.session.close()


async def _reach_out(name: str, account_id: str, person: str | None, dry_run: bool) -> str:
    """Send an outreach's message as an account would get it, to a person of ours; or only show the requests.

    Raises Misconfigured with why it would not be sent, or what the far end said.
    """
    from services.notify import messenger, outreach, outreach_store, store
    from services.notify.settings import Reach, load_notify, reached_by
    from shared.ids import derived_id
    from shared.settings import config_dir

    rules = load_notify(config_dir()).model
    lines, now = messenger.open_lines(rules, Reach.from_env()), datetime.now(UTC)
    line = lines[reached_by(name)]
    facts = {"event": line.rules.when.event, "due_on": f"{now:%Y-%m-%d}"}
    try:
        async with _control() as control:
            account = (await store.load_accounts(control, {account_id}))[account_id]
            people = await outreach_store.list_people(control, account_id, reached_by(name))
        if person is not None:
            people = [outreach.Person(person, line.rules.to[0])]
        choice = outreach.chosen(people, line.rules, now)
        if isinstance(choice, str):
            raise Misconfigured(f"{name} would not be sent: {choice}")
        id = derived_id("notify", "sample", name, now.isoformat())
        message = messenger.worded(id, now, line.rules, facts, account, choice)
        if isinstance(message, str):
            raise Misconfigured(f"{name} would not be sent: {message}")
        if dry_run:
            contact = outreach.Contact("what the tool answers", "user")
            requests = [line.way.ask(message, "TOKEN"), line.way.call(message, contact, "TOKEN")]
            shown = {"contact_id": choice.person.contact_id, "requests": [one.shown() for one in requests if one]}
            return json.dumps(shown, ensure_ascii=False, indent=2)
        outcome = await line.send(message, rules.pace.timeout_seconds)
    finally:
        for one in lines.values():
            await one.session.close()
    if isinstance(outcome, outreach.Declined) or outcome.what != "sent":
        raise Misconfigured(f"{name} did not take it: {outcome.reason}")
    return f"sent by {name} to {person}"


async def _send(channel: str) -> str:
    """Post the sample.

    Raises Misconfigured with what the far end said.
    """
    from services.notify import app, blocks, sample
    from services.notify.settings import Reach, load_notify
    from services.notify.sinks import Letter
    from shared.ids import derived_id
    from shared.settings import config_dir

    rules, reach = load_notify(config_dir()).model, Reach.from_env()
    found = app.ways(rules, reach)
    places = {**found.places.channels, "default": found.places.default}
    place = places.get(channel) or (f"slack:{channel}" if reach.slack_token and channel[:1] in "CDGUW" else None)
    if place is None:
        known = ", ".join(sorted(name for name, where in places.items() if where))
        raise Misconfigured(
            f"channel {channel!r} leads nowhere; "
            + (f"there are: {known}" if known else "set HUNE_SLACK_BOT_TOKEN and HUNE_SLACK_CHANNEL")
        )
    now = datetime.now(UTC)
    setting = rules.channels.get(channel)
    card = sample.card(now, (setting.language if setting else None) or rules.language)
    kind, _, address = place.partition(":")
    letter = Letter(
        delivery_id=derived_id("notify", "sample", place, now.isoformat()),
        what="open",
        address=address,
        channel=None,
        message=blocks.of_card(card, reach.console_url, sample.note(card.language)),
        cards=(card,),
    )
    sinks = app.open_sinks(rules, reach, found)
    try:
        outcome = await sinks[kind].post(letter)
    finally:
        for sink in sinks.values():
            await sink.close()
    if outcome.what != "sent":
        raise Misconfigured(f"{place} did not take it: {outcome.reason}")
    return place
