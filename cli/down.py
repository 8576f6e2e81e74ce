"""`hune down`: stop what runs, and delete its data only when told to."""

from __future__ import annotations

import os
import signal
import time

import click

from cli.home import Home, demo_home, main_home
from devstack.stack import lock_holder, purge
from shared.errors import Misconfigured

PATIENCE = 60.0


@click.command()
@click.option("--purge", "with_data", is_flag=True, help="Delete the home's data too. There is no way back.")
def command(with_data: bool) -> None:
    """Stop every service, Kafka and PostgreSQL; the data stays."""
    home = main_home()
    if not home.is_running and demo_home().is_running:
        home = demo_home()
    if home.is_running:
        seconds = end(home)
        click.echo(f"Stopped in {seconds:.1f} s; the data stays in {home}." if not with_data else "Stopped.")
    else:
        click.echo(f"Nothing runs in {home}.")
    if with_data:
        purge(home.path)
        click.echo(f"Deleted the data in {home}.")


def end(home: Home) -> float:
    """Ask the supervisor to stop everything in order and wait until it has let go of the home."""
    started = time.monotonic()
    pid = lock_holder(home.path)
    try:
        os.kill(pid, signal.SIGTERM)
        while home.is_running:
            if time.monotonic() - started > PATIENCE:
                raise Misconfigured(
                    f"process {pid} did not stop within {PATIENCE:.0f} s; `kill -9 {pid}` ends it and its children"
                )
            time.sleep(0.05)
    except ProcessLookupError:
        pass  # it ended by itself meanwhile
    return time.monotonic() - started
