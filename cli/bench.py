"""`hune bench`: the benchmarks, on this machine."""

from __future__ import annotations

import subprocess
import sys

import click

from cli.test import ROOT


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--peers", is_flag=True, help="Compare with other ways to do the same.")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
def command(peers: bool, rest: tuple[str, ...]) -> None:
    """Measure throughput and latency on this machine and write them down."""
    options = ["--peers"] if peers else []
    sys.exit(subprocess.call([sys.executable, "-m", "tests.benchmarks", *options, *rest], cwd=ROOT))
