"""Build notify: the worker that follows alerts, and beside it the sender that tells of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from services.notify import messages
from services.notify.domain import Places
from services.notify.handlers import Handlers, decoders
from services.notify.settings import Notify, Reach, destination_of, load_notify
from services.notify.sinks import Sink
from shared import db
from shared.errors import Misconfigured
from shared.events import inputs, known_types, ops, results
from shared.runtime.api import Worker
from shared.settings import Settings, config_dir
from shared.team import Team, load_team
from shared.vault import keys as vault

POOL_SIZE = 6
NEEDED = {
    model.type_name
    for model in (
        results.AlertOpened, results.AlertEscalated, results.AlertReminded, results.AlertResolved,
        results.AlertAcknowledged, results.AlertSnoozed, results.PrivacyRecorded,
        ops.TouchpointDue, ops.AccountSegmented, inputs.AccountMerged,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ways:
    """Where routes lead, and the addresses of what needs one from the environment."""

    places: Places
    hooks: dict[str, str]
    endpoints: dict[str, tuple[str, str, str]]
    """Channel → variable, address and secret of an outgoing webhook."""


def ways(rules: Notify, reach: Reach) -> Ways:
    """Which of the configured channels can be reached.

    Raises Misconfigured that names the variable a channel needs.
    """
    found: dict[str, str] = {}
    hooks: dict[str, str] = {}
    endpoints: dict[str, tuple[str, str, str]] = {}
    for name, channel in rules.channels.items():
        reached = True
        if channel.slack is not None:
            reached = bool(reach.slack_token)
        elif channel.email is not None:
            reached = bool(reach.smtp_url)
        elif channel.incoming_webhook is not None:
            hooks[name] = _needed(name, channel.incoming_webhook, reach)
        elif channel.webhook is not None:
            secret = _needed(name, f"{channel.webhook}_SECRET", reach)
            endpoints[name] = (channel.webhook, _needed(name, channel.webhook, reach), secret)
        if reached:
            found[name] = destination_of(name, channel)
    default = None
    if reach.slack_token and reach.slack_channel:
        default = f"slack:{reach.slack_channel}"
    elif reach.slack_webhook:
        default = "hook:default"
        hooks["default"] = reach.slack_webhook
    return Ways(Places(found, default, bool(reach.slack_token)), hooks, endpoints)


def _needed(channel: str, variable: str, reach: Reach) -> str:
    value = reach.variable(variable)
    if not value:
        raise Misconfigured(f"notify.yaml: channel {channel} needs {variable}, which is not set")
    return value


def open_sinks(rules: Notify, reach: Reach, found: Ways) -> dict[str, Sink]:
    """The ways out there are; Slack's SDK is loaded only where it is used."""
    timeout = rules.pace.timeout_seconds
    sinks: dict[str, Sink] = {}
    if reach.slack_token or found.hooks:
        from services.notify.slack import SlackApp, SlackWebhook

        if reach.slack_token:
            sinks["slack"] = SlackApp(reach.slack_token, reach.slack_base_url, timeout)
        if found.hooks:
            sinks["hook"] = SlackWebhook(found.hooks, timeout)
    if reach.smtp_url:
        from services.notify.mail import Mail, server_of

        sinks["email"] = Mail(server_of(reach.smtp_url, reach.smtp_from), timeout)
    if found.endpoints:
        from services.notify.webhook import PublicResolver, Webhooks, endpoint_of

        private = reach.private_webhooks
        endpoints = {name: endpoint_of(*told, private=private) for name, told in found.endpoints.items()}
        sinks["webhook"] = Webhooks(endpoints, timeout, resolver=None if private else PublicResolver())
    return sinks


async def _send(rules: Notify, team: Team, reach: Reach, found: Ways, pool: db.Pool, wake: asyncio.Event) -> None:
    from services.notify.sender import Sender

    sinks = open_sinks(rules, reach, found)
    try:
        await Sender(rules, team, sinks, pool, console_url=reach.console_url, keys=vault.load(), wake=wake).run()
    finally:
        for sink in sinks.values():
            await sink.close()


async def _write(rules: Notify, reach: Reach, pool: db.Pool) -> None:
    from services.notify.writer import Writer, open_outlets

    outlets = open_outlets(rules, reach)
    try:
        await Writer(rules, outlets, pool).run()
    finally:
        for outlet in outlets.values():
            await outlet.session.close()


async def _call(rules: Notify, reach: Reach, pool: db.Pool) -> None:
    from services.notify.messenger import Messenger, open_lines

    lines = open_lines(rules, reach)
    try:
        await Messenger(rules, lines, pool).run()
    finally:
        for line in lines.values():
            await line.session.close()


def build() -> Worker:
    """Read the configuration and put the worker together.

    Raises Misconfigured with the variable, or with file, line and field.
    """
    folder = config_dir()
    rules, team, reach = load_notify(folder).model, load_team(folder).model, Reach.from_env()
    found, wake = ways(rules, reach), asyncio.Event()
    if rules.write_back:
        from services.notify.writer import check

        check(rules, reach)
    if rules.outreach:
        from services.notify import messenger

        messenger.check(rules, reach)
    handlers = Handlers(rules, team, found.places, wake)

    async def deliver(settings: Settings) -> None:
        if not (found.places.any or rules.write_back or rules.outreach):
            return
        pool = await db.create_pool(settings.database_url, POOL_SIZE, "notify-sender")
        try:
            async with asyncio.TaskGroup() as tasks:
                if found.places.any:
                    tasks.create_task(_send(rules, team, reach, found, pool, wake))
                if rules.write_back:
                    tasks.create_task(_write(rules, reach, pool))
                if rules.outreach:
                    tasks.create_task(_call(rules, reach, pool))
        finally:
            pool.terminate()

    return Worker(
        name="notify",
        reads=messages.READS,
        writes=messages.WRITES,
        handle=handlers.on_signals,
        migrations=Path(__file__).parent / "migrations",
        fast=decoders(known_types(), NEEDED),
        dedupe=False,  # an event that an episode's history has is not told again
        control_only=True,
        beside=deliver,
    )
