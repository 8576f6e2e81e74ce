"""`hune test`: the tiers in order, each with its time, stopping at the first that fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
TIERS = ("unit", "contract", "integration", "e2e", "chaos")
ALONE = ("containers",)  # needs Docker, so only when asked for
NO_TESTS = 5


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("tiers", nargs=-1, type=click.Choice((*TIERS, *ALONE)))
@click.option(
    "--tier", type=click.Choice(("quick", "release")), default="quick", show_default=True, help="How much chaos."
)
def command(tiers: tuple[str, ...], tier: str) -> None:
    """Run the test tiers (all but containers unless named) against real Kafka and PostgreSQL."""
    env = os.environ | {"HUNE_CHAOS_TIER": tier}
    done: list[str] = []
    for name in tiers or TIERS:
        click.secho(f"== {name}", bold=True)
        started = time.monotonic()
        folder = ROOT / "tests" / name
        code = (
            subprocess.call([sys.executable, "-m", "pytest", "-q", str(folder)], cwd=ROOT, env=env)
            if folder.is_dir()
            else NO_TESTS
        )
        seconds = time.monotonic() - started
        if code not in (0, NO_TESTS):
            click.echo("\n".join([*done, f"{name:<12} {seconds:6.1f} s  FAILED"]))
            sys.exit(code)
        done.append(f"{name:<12} {seconds:6.1f} s  {'passed' if code == 0 else 'no tests in this build'}")
    click.echo("\n".join(done))
