"""The `hune` command: every subcommand is a module of its own, imported only when it is called."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass

import click

from shared.errors import PipelineError


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a subcommand is: `module` exposes it as `command`."""

    module: str
    help: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Run": {
        "demo": Entry("cli.demo", "show everything at work on an example company, in a home of its own"),
        "up": Entry("cli.up", "start Kafka, PostgreSQL and every service in the background"),
        "down": Entry("cli.down", "stop them; --purge deletes the data too"),
        "status": Entry("cli.status", "what runs, what is in flight, what became of every record"),
        "settle": Entry("cli.settle", "wait until everything accepted is applied and published"),
    },
    "Feed": {
        "send": Entry("cli.send", "events as NDJSON"),
        "import": Entry("cli.import_", "rows of a CSV as events of one type"),
        "keys": Entry("cli.keys", "keys for the gateway: create, list, revoke"),
        "poll": Entry("cli.poll", "tools that the gateway asks: how far each feed is"),
    },
    "Read": {
        "export": Entry("cli.export", "accounts, usage, scores, alerts, nps, … as of any time"),
        "score": Entry("cli.score", "an account's score and why"),
        "rehearse": Entry("cli.rehearse", "what other rules would have done"),
        "backtest": Entry("cli.backtest", "how well a model told churn in advance"),
        "roi": Entry("cli.roi", "what Customer Success returns on its cost"),
    },
    "Look after": {
        "quarantine": Entry("cli.quarantine", "records that could not be read: list, show, redrive"),
        "config": Entry("cli.config", "check or compare the configuration"),
        "topics": Entry("cli.topics", "create and list the Kafka topics"),
        "privacy": Entry("cli.privacy", "delete or suppress a person"),
        "vault": Entry("cli.vault", "the key of names and addresses: make, change"),
        "notify": Entry("cli.notify", "send a test message"),
        "db": Entry("cli.db", "tables and roles of the databases"),
    },
    "Develop": {
        "test": Entry("cli.test", "the test tiers, against real Kafka and PostgreSQL"),
        "bench": Entry("cli.bench", "throughput and latency on this machine"),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """Lists commands without importing them; those that this build lacks are left out."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if importlib.util.find_spec(entry.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name].module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        present = self.list_commands(ctx)
        for title, section in SECTIONS.items():
            rows = [(name, entry.help) for name, entry in section.items() if name in present]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """Hune: product usage, tickets, answers, revenue and calls in; scores, alerts and playbooks out."""


def main() -> None:
    """Run a subcommand; what the world gets wrong is one sentence and exit status 2."""
    try:
        group(prog_name="hune")
    except PipelineError as error:
        print(f"hune: {error}", file=sys.stderr)
        raise SystemExit(2) from error
