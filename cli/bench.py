"""`hune bench`: the benchmarks, on this machine."""

from __future__ import annotations

import subprocess
import sys

import click

from cli.test import ROOT


@click.command()
@click.option("--quick", is_flag=True, help="Some three minutes instead of twenty; coarser.")
@click.option("--peers", is_flag=True, help="Compare with others that work in batches, and exactly once, too.")
@click.option("--no-write", is_flag=True, help="Print only; leave docs/benchmarks as it is.")
@click.argument("names", nargs=-1)
def command(quick: bool, peers: bool, no_write: bool, names: tuple[str, ...]) -> None:
    """Measure throughput, latency, memory and cost per event against one message at a time, and write it down.

    NAMES choose some of router, health, memory, thin, latency, accounts, rescore, dedupe, gateway, peers, scaling,
    notify; without any it is all but the last three. The floors are printed beside the figures; nothing here fails
    because a machine is slow.
    """
    flags = [flag for flag, given in (("--quick", quick), ("--peers", peers), ("--no-write", no_write)) if given]
    sys.exit(subprocess.call([sys.executable, "-m", "tests.benchmarks", *flags, *names], cwd=ROOT))
