"""`hune up`: the whole stack in the background."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable

import click

from cli.home import Home, RunState, main_home
from devstack import jars, processes
from devstack.stack import lock_holder
from shared.errors import Misconfigured

PATIENCE = 180.0
READY_PATIENCE = 60.0


@click.command()
def command() -> None:
    """Start Kafka, PostgreSQL and every service in the background and wait until they are ready."""
    home = main_home()
    started = time.monotonic()
    if home.is_running:
        state = home.state()
        if state is None or state.supervisor != lock_holder(home.path):
            raise Misconfigured(
                f"the home {home} is in use by process {lock_holder(home.path)}; try again when it has ended"
            )
        click.echo(f"Hune already runs in {home}.")
    else:
        line = Line()
        jars.ensure(lambda there, total, mb: line.show(f"fetching Kafka (once): {there} of {total} jars, {mb:.0f} MB"))
        supervisor = detach(home)
        state = asyncio.run(wait_until_serving(home, supervisor, line.show))
        waiting = asyncio.run(wait_until_ready(home, line.show))
        line.end()
        state = home.state() or state
        if waiting:
            click.echo(summary(home, state))
            raise Misconfigured(f"{', '.join(waiting)} not ready after {READY_PATIENCE:.0f} s; see {home.logs}")
        click.echo(f"Hune is up, ready in {time.monotonic() - started:.1f} s.")
    click.echo(summary(home, state))


def detach(home: Home) -> subprocess.Popen[bytes]:
    """Start the supervisor in a session of its own, so that it outlives this terminal."""
    from cli.supervisor import ROOT

    with processes.open_log(home.logs / "supervisor.log") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cli.supervisor", str(home.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
        )


async def wait_until_serving(home: Home, supervisor: subprocess.Popen[bytes], show: Callable[[str], None]) -> RunState:
    """Follow the supervisor until stores, tables and topics are there.

    Raises Misconfigured with its reason when it gives up.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        state = home.state()
        if state is not None and state.supervisor == supervisor.pid:
            if state.phase == "serving":
                return state
            if state.phase == "failed":
                raise Misconfigured(state.doing)
            show(state.doing)
        if supervisor.poll() is not None:
            state = home.state()
            reason = state.doing if state is not None and state.supervisor == supervisor.pid else ""
            raise Misconfigured(reason or processes.tail(home.logs / "supervisor.log", lines=1).partition("ERROR ")[2])
        await asyncio.sleep(0.05)
    raise Misconfigured(f"Hune did not start within {PATIENCE:.0f} s; see {home.logs / 'supervisor.log'}")


async def wait_until_ready(home: Home, show: Callable[[str], None]) -> list[str]:
    """Wait for every service; return the names of those that are not ready in time."""
    deadline = time.monotonic() + READY_PATIENCE
    while True:
        state = home.state()
        waiting = [service.name for service in state.services if not service.ready] if state is not None else []
        if not waiting or time.monotonic() > deadline:
            return waiting
        show(f"waiting for {', '.join(waiting)}")
        await asyncio.sleep(0.05)


def summary(home: Home, state: RunState) -> str:
    """Where everything is and what to do next."""
    services = ", ".join(service.name for service in state.services) or "none in this build"
    places = [
        ("gateway", state.gateway_url or "none in this build"),
        ("Kafka", state.kafka.address if state.kafka else "-"),
        ("PostgreSQL", without_password(state.postgres.address) if state.postgres else "-"),
        ("services", services),
        ("home", f"{home}  (logs in {home.logs})"),
    ]
    steps = [
        ("./hune send FILE", "events as NDJSON, one a line"),
        ("./hune export accounts --json", "what Hune knows"),
        ("./hune status", "what runs and what became of every record"),
        ("./hune down", "stop; your data stays"),
    ]
    lines = [f"  {name:<11} {place}" for name, place in places]
    return "\n".join([*lines, "Next:", *(f"  {step:<30} {what}" for step, what in steps)])


def without_password(url: str) -> str:
    return re.sub(r"(?<=:)[^:/@]+(?=@)", "…", url)


class Line:
    """One line of progress on stderr: redrawn on a terminal, a new line per change elsewhere."""

    def __init__(self) -> None:
        self._last = ""
        self._tty = sys.stderr.isatty()
        self._written = 0.0

    def show(self, text: str) -> None:
        what = text.split(":")[0]
        if text == self._last or not text:
            return
        if not self._tty and what == self._last.split(":")[0] and time.monotonic() - self._written < 3:
            return
        self._last, self._written = text, time.monotonic()
        sys.stderr.write(f"\r\x1b[K{text}" if self._tty else f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._tty and self._last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._last = ""
