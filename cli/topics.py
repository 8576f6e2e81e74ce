"""`hune topics`: make the topics, and say what each holds."""

from __future__ import annotations

import click

from cli import output
from cli.support import control_url, load_installation, run
from shared import db, topics
from shared.kafka import apply_topics


@click.group("topics")
def command() -> None:
    """Make the topics of this installation, or list them."""


@command.command("apply")
def apply() -> None:
    """Create the topics that are missing; those that are there stay as they are."""
    created = run(_apply())
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


async def _apply() -> list[str]:
    from cli.home import open_stores

    async with open_stores(need_kafka=True) as stores:
        control = await db.connect(control_url(stores))
        try:
            installation = await load_installation(control)
        finally:
            await control.close()
        return await apply_topics(stores.bootstrap_servers, installation.partitions)
