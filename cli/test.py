"""`hune test`: the tiers in order, each with its time, stopping at the first that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
TIERS = ("unit", "contract", "integration", "e2e", "chaos")
SDKS = "sdks"  # installs vendors' packages: only when named
CONTAINERS = "containers"  # needs Docker: without a name only where an engine answers or one is asked for
NO_TESTS = 5
SKIPPED = (
    "containers   NOT TESTED: no Docker engine answers. `./hune test containers` where one does; "
    "HUNE_TEST_CONTAINERS=FOLDER where scripts make one (docs/deploy.md)"
)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("tiers", nargs=-1, type=click.Choice((*TIERS, SDKS, CONTAINERS)))
@click.option(
    "--tier", type=click.Choice(("quick", "release")), default="quick", show_default=True, help="How much chaos."
)
def command(tiers: tuple[str, ...], tier: str) -> None:
    """Run the test tiers against real Kafka and PostgreSQL; containers only where Docker answers, or when named.

    The vendors' SDKs are installed and run only when `sdks` is named.
    """
    env = os.environ | {"HUNE_CHAOS_TIER": tier}
    done: list[str] = []
    with_containers = bool(os.environ.get("HUNE_TEST_CONTAINERS")) or (not tiers and docker_answers())
    for name in tiers or (*TIERS, *((CONTAINERS,) if with_containers else ())):
        click.secho(f"== {name}", bold=True)
        started = time.monotonic()
        folder = ROOT / "tests" / name
        code = (
            subprocess.call([sys.executable, "-m", "pytest", "-q", "-rs", str(folder)], cwd=ROOT, env=env)
            if folder.is_dir()
            else NO_TESTS
        )
        seconds = time.monotonic() - started
        if code not in (0, NO_TESTS):
            click.echo("\n".join([*done, f"{name:<12} {seconds:6.1f} s  FAILED"]))
            sys.exit(code)
        nothing = "NOT TESTED: no Docker engine" if name == CONTAINERS else "no tests in this build"
        done.append(f"{name:<12} {seconds:6.1f} s  {'passed' if code == 0 else nothing}")
    click.echo("\n".join(done))
    if not tiers and not with_containers:
        click.secho(SKIPPED, fg="yellow", bold=True)


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "version"], capture_output=True, check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False
