"""`hune topics`: make the topics, and say what each holds."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click
from aiokafka.errors import KafkaError

from cli import output
from cli.support import control_url, load_installation, run
from shared import db, topics
from shared.errors import Transient
from shared.kafka import apply_topics
from shared.settings import Settings

PAUSE_S = 0.5


@click.group("topics")
def command() -> None:
    """Make the topics of this installation, or list them."""


@command.command("apply")
@click.option("--replicas", type=click.IntRange(min=1), default=1, show_default=True, help="Copies of each new topic.")
@click.option("--wait", "patience", type=click.FloatRange(min=0), default=0.0, help="Seconds to wait for Kafka.")
def apply(replicas: int, patience: float) -> None:
    """Create the topics that are missing; those that are there stay as they are."""
    created = run(_apply(replicas, patience))
    for name in created:
        click.echo(f"created {name}")
    click.echo(f"{len(topics.ALL)} topics are there, {len(created)} of them new")


@command.command("list")
@click.option("--json", "json_", is_flag=True, help="One JSON object a line.")
def list_(json_: bool) -> None:
    """List every topic: what it holds, its key, who writes and reads it, how long it is kept."""
    if json_:
        rows = [
            {
                "name": topic.name,
                "holds": topic.holds,
                "key": topic.key,
                "written_by": topic.writers,
                "read_by": topic.readers,
                "kept": topic.kept,
            }
            for topic in topics.ALL
        ]
        click.echo(output.ndjson(rows), nl=False)
        return
    lines = [("TOPIC", "HOLDS", "KEY", "WRITTEN BY", "READ BY", "KEPT")]
    lines += [
        (topic.name, topic.holds, topic.key, ", ".join(topic.writers), ", ".join(topic.readers), topic.kept)
        for topic in topics.ALL
    ]
    click.echo(output.table(lines))


@command.command("acls")
@click.option("--prefix", default="hune-", show_default=True, help="What users are called, before the service's name.")
@click.option("--apply", "apply_", is_flag=True, help="Give the rights instead of printing them.")
@click.option("--json", "json_", is_flag=True, help="One JSON object a line.")
def acls_(prefix: str, apply_: bool, json_: bool) -> None:
    """What each service may do in Kafka: print it for kafka-acls.sh, or have it so."""
    from shared.acls import acls, apply_acls

    if apply_:
        servers = Settings.from_env().kafka_bootstrap_servers
        click.echo(f"{run(apply_acls(servers, prefix))} rights are there")
        return
    for acl in acls():
        if json_:
            click.echo(output.json_line({**asdict(acl), "principal": acl.principal(prefix)}))
        else:
            click.echo(acl.command(prefix))


async def _apply(replicas: int, patience: float) -> list[str]:
    from cli.home import open_stores

    async with open_stores(need_kafka=True) as stores:
        control = await db.connect(control_url(stores))
        try:
            installation = await load_installation(control)
        finally:
            await control.close()
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            try:
                return await apply_topics(stores.bootstrap_servers, installation.partitions, replicas)
            except KafkaError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise Transient(f"Kafka does not answer at {stores.bootstrap_servers}: {error}") from error
            await asyncio.sleep(PAUSE_S)
