"""`hune test`: the tiers in order, each with its time, stopping at the first that fails."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
TIERS = ("unit", "contract", "integration", "e2e", "sdks", "chaos")
CONTAINERS = "containers"  # needs Docker: without a name only where an engine answers or one is asked for
NO_TESTS = 5
UNTESTED = re.compile(r'<skipped [^>]*message="(NOT TESTED[^"]*)"')
SKIPPED = (
    "containers   NOT TESTED: no Docker engine answers. `./hune test containers` where one does; "
    "HUNE_TEST_CONTAINERS=FOLDER where scripts make one (docs/deploy.md)"
)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("tiers", nargs=-1, type=click.Choice((*TIERS, CONTAINERS)))
@click.option(
    "--tier", type=click.Choice(("quick", "release")), default="quick", show_default=True, help="How much chaos."
)
def command(tiers: tuple[str, ...], tier: str) -> None:
    """Run the test tiers against real Kafka and PostgreSQL; containers only where Docker answers, or when named.

    What cannot be tested here, such as vendors' SDKs where their packages cannot be had, is told at the end.
    """
    env = os.environ | {"HUNE_CHAOS_TIER": tier}
    done: list[str] = []
    untested: list[str] = []
    with_containers = bool(os.environ.get("HUNE_TEST_CONTAINERS")) or (not tiers and docker_answers())
    for name in tiers or (*TIERS, *((CONTAINERS,) if with_containers else ())):
        click.secho(f"== {name}", bold=True)
        started = time.monotonic()
        code, missed = run_tier(ROOT / "tests" / name, env)
        untested += [f"{name:<12} {why}" for why in missed]
        seconds = time.monotonic() - started
        if code not in (0, NO_TESTS):
            click.echo("\n".join([*done, f"{name:<12} {seconds:6.1f} s  FAILED"]))
            sys.exit(code)
        nothing = "NOT TESTED: no Docker engine" if name == CONTAINERS else "no tests in this build"
        done.append(f"{name:<12} {seconds:6.1f} s  {'passed' if code == 0 else nothing}")
    click.echo("\n".join(done))
    if not tiers and not with_containers:
        untested.append(SKIPPED)
    for line in untested:
        click.secho(line, fg="yellow", bold=True)


def run_tier(folder: Path, env: dict[str, str]) -> tuple[int, list[str]]:
    """pytest's exit status, and what the tests said that they could not test here."""
    if not folder.is_dir():
        return NO_TESTS, []
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-rs", f"--junit-xml={report}", str(folder)]
        code = subprocess.call(command, cwd=ROOT, env=env)
        found = UNTESTED.findall(report.read_text()) if report.exists() else []
    return code, [html.unescape(why) for why in dict.fromkeys(found)]


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "version"], capture_output=True, check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False
