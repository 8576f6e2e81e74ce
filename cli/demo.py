"""`hune demo`: everything at work in a home of its own, from nothing to five accounts to call today."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli import book
from cli.home import Home, OpenStores, demo_home
from cli.supervisor import Supervisor
from cli.up import Line, without_password
from devstack import jars
from devstack.kafka import knows_a_broker
from devstack.stack import given_urls, purge
from shared import db
from shared.errors import Misconfigured, PipelineError, Transient

READY_PATIENCE = 90.0
SETTLE_PATIENCE = 600.0
CHAOS_SECONDS = 20
LIVE_RATE = 2
SEED = 20_261
CHAOS_VICTIM = "health"


@click.command()
@click.option("--input", "input_", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Feed this NDJSON(.gz) instead of the example company.")  # fmt: skip
@click.option("--exit", "exit_", is_flag=True, help="End with a summary once everything is settled.")
@click.option(
    "--chaos", is_flag=True, help="Kill a worker and the broker while events flow; nothing is lost or doubled."
)
def command(input_: Path | None, exit_: bool, chaos: bool) -> None:
    """Show Hune at work on an example company, or on your own events, in a home of its own."""
    if input_ is None and importlib.util.find_spec("cli.company") is None:
        raise Misconfigured("this build has no example company; give a file of events: hune demo --input FILE")
    home = demo_home()
    if home.is_running:
        raise Misconfigured(f"a demo already runs in {home}; end it with Ctrl-C there or with `hune down`")
    sys.exit(asyncio.run(Demo(home, exit_, chaos).run(input_)))


class Steps:
    """Named progress with the seconds since the start: the running step is redrawn, finished ones stay."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._line = Line()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def show(self, text: str) -> None:
        self._line.show(f"  {text} ({self.elapsed:.0f} s)" if sys.stderr.isatty() else f"  {text}")

    def done(self, text: str) -> None:
        self._line.end()
        click.echo(f"{self.elapsed:6.1f} s  {text}", err=True)


class Demo:
    """One run of the demo."""

    def __init__(self, home: Home, exit_: bool, chaos: bool) -> None:
        self.home = home
        self.exit = exit_
        self.chaos = chaos
        self.steps = Steps()
        self.accounting_exact = True

    async def run(self, input_: Path | None) -> int:
        await refuse_used_databases(given_urls())
        purge(self.home.path)
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters comes back as an exception
        self.steps.done(f"home {self.home}, emptied")
        self._fetch_jars()
        supervisor = Supervisor(self.home, say=self.steps.show)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, supervisor.stop_requested.set)
        await supervisor.start()
        watching = asyncio.create_task(supervisor.watch())
        try:
            return await self._until_stopped(supervisor, input_)
        finally:
            supervisor.stop_requested.set()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            self.steps.show("stopping")
            await supervisor.stop()
            self.steps.done(f"stopped; the data stays in {self.home} until the next demo")

    async def _until_stopped(self, supervisor: Supervisor, input_: Path | None) -> int:
        """Feed and show, unless told to stop meanwhile; then stay up unless told to exit."""
        stop = asyncio.create_task(supervisor.stop_requested.wait())
        show = asyncio.create_task(self._feed_and_show(supervisor, input_))
        await asyncio.wait({stop, show}, return_when=asyncio.FIRST_COMPLETED)
        if not show.done():
            show.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await show
            return 130
        stop.cancel()
        code = show.result()
        if not self.exit:
            click.echo("\n" + NEXT.format(gateway=supervisor.state.gateway_url))
            await self._stay(supervisor, lively=input_ is None and code == 0)
        return code

    async def _stay(self, supervisor: Supervisor, lively: bool) -> None:
        """Stay up until told to stop; meanwhile alerts are shown, and the example company's day goes on, live."""
        doing = [asyncio.create_task(self._show_alerts(stores_of(supervisor, self.home)))]
        if lively:
            doing.append(asyncio.create_task(self._send_today(supervisor)))
        await supervisor.stop_requested.wait()
        for task in doing:
            task.cancel()
        await asyncio.gather(*doing, return_exceptions=True)

    async def _show_alerts(self, stores: OpenStores) -> None:
        from cli.ticker import alerts_from_now

        shown: set[str] = set()
        async for alert in alerts_from_now(stores.bootstrap_servers):
            opens = alert["state"] == "open"
            if opens or alert["alert_id"] in shown:
                shown.add(alert["alert_id"])
                self.steps.done("an alert" if opens else "an alert is over")
                click.echo(book.describe_alert(alert, {}, datetime.now(UTC)) + "\n")

    async def _send_today(self, supervisor: Supervisor) -> None:
        from cli.send import send_file

        path = await asyncio.to_thread(write_company, self.home, "live_events")
        try:
            await send_file(stores_of(supervisor, self.home), path, rate=LIVE_RATE)
            self.steps.done("today's events of the example company are in; what comes now is yours")
        except PipelineError as error:
            self.steps.done(f"today's events of the example company end here: {error}")

    def _fetch_jars(self) -> None:
        started = time.monotonic()
        fetched = 0.0

        def report(there: int, total: int, megabytes: float) -> None:
            nonlocal fetched
            fetched = megabytes
            rate = megabytes / max(time.monotonic() - started, 0.01)
            self.steps.show(f"fetching Kafka (once): {there} of {total} jars, {megabytes:.0f} MB, {rate:.1f} MB/s")

        jars.ensure(report)
        where = f"{fetched:.0f} MB fetched" if fetched else "from the cache"
        self.steps.done(f"Kafka's {len(jars.listed())} jars, {where}")

    async def _feed_and_show(self, supervisor: Supervisor, input_: Path | None) -> int:
        from cli.settle import settle

        late = await supervisor.until_ready(READY_PATIENCE)
        if late:
            raise Misconfigured(f"{', '.join(late)} not ready after {READY_PATIENCE:.0f} s; see {self.home.logs}")
        state, stores = supervisor.state, stores_of(supervisor, self.home)
        kafka, url = stores.bootstrap_servers, without_password(stores.database_url)
        self.steps.done(f"Kafka {kafka}, PostgreSQL {url}")
        self.steps.done(f"ready: {', '.join(service.name for service in state.services)}; gateway {state.gateway_url}")
        self.steps.show("writing the example company's history" if input_ is None else f"reading {input_.name}")
        path = input_ if input_ is not None else await asyncio.to_thread(write_company, self.home, "events")
        async with self._havoc(supervisor):
            sent = await self._send(stores, path)
        self.steps.show("waiting until everything is applied and published")
        report = await settle(stores, timeout=SETTLE_PATIENCE, at_rest=True)
        if not report.settled:
            self.steps.done(f"not settled after {report.seconds:.0f} s: {report.in_flight} in flight")
            return 1
        self.steps.done(f"settled: {sent:,} lines are in the scores")
        await self._tell(stores)
        return 0 if self.accounting_exact else 1

    async def _send(self, stores: OpenStores, path: Path) -> int:
        """Send the file as a run; with chaos slowly enough to be hurt, and again from where it broke."""
        from cli.send import send_file

        megabytes, lines = await asyncio.to_thread(measure, path)
        rate = max(200, lines // CHAOS_SECONDS) if self.chaos else None
        started = time.monotonic()

        def progress(lines: int, share: float) -> None:
            speed = share * megabytes / max(time.monotonic() - started, 0.01)
            self.steps.show(f"sending {path.name}: {share:.0%}, {lines:,} lines, {speed:.2g} MB/s")

        while True:
            try:
                summary = await send_file(stores, path, replay=True, rate=rate, progress=progress)
                break
            except Transient:
                if not self.chaos:
                    raise
                self.steps.show("sending goes on where Kafka had acknowledged everything")
                await asyncio.sleep(0.5)
        seconds = max(time.monotonic() - started, 0.01)
        sent = summary.records + summary.requests
        self.steps.done(f"sent {path.name}: {sent:,} lines, {megabytes:.1f} MB, {megabytes / seconds:.2g} MB/s")
        return sent

    @contextlib.asynccontextmanager
    async def _havoc(self, supervisor: Supervisor) -> AsyncIterator[None]:
        """With --chaos: kill a worker and the broker while the block runs."""
        if not self.chaos:
            yield
            return
        killing = asyncio.create_task(self._kill(supervisor))
        try:
            yield
            await killing
        finally:
            killing.cancel()

    async def _kill(self, supervisor: Supervisor) -> None:
        await asyncio.sleep(CHAOS_SECONDS / 5)
        state = supervisor.state
        worker = next((each for each in state.services if each.name == CHAOS_VICTIM), state.services[-1])
        await self._kill_and_wait(supervisor, worker.name, worker.pid)
        await asyncio.sleep(CHAOS_SECONDS / 5)
        await self._kill_and_wait(supervisor, "kafka", supervisor.state.kafka.pid if supervisor.state.kafka else None)

    async def _kill_and_wait(self, supervisor: Supervisor, name: str, pid: int | None) -> None:
        if pid is None:
            self.steps.done(f"{name} is not ours to kill")
            return
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        self.steps.done(f"kill -9 {pid}  ({name})")
        while True:
            now = await self._pid_once_ready(supervisor, name)
            if now not in (None, pid):
                break
            await asyncio.sleep(0.1)
        self.steps.done(f"{name} is back as {now} after {time.monotonic() - killed:.1f} s")

    async def _pid_once_ready(self, supervisor: Supervisor, name: str) -> int | None:
        state = supervisor.state
        if name == "kafka" and state.kafka is not None:
            host, _, port = state.kafka.address.rpartition(":")
            return state.kafka.pid if await asyncio.to_thread(knows_a_broker, host, int(port)) else None
        return next((each.pid for each in state.services if each.name == name and each.ready), None)

    async def _tell(self, stores: OpenStores) -> None:
        """The book, whom to call, an alert, an explanation, and what became of every record."""
        from cli.export import rows

        accounts = await rows(stores, "accounts")
        alerts = await rows(stores, "alerts")
        calls = book.to_call(accounts, alerts)
        click.echo("\nTHE BOOK BY BAND\n" + book.by_band(accounts))
        if calls:
            click.echo("\nTO CALL TODAY")
            for number, call in enumerate(calls, 1):
                why = call.why or await first_reason(stores, call.account_id)
                click.echo(book.describe_call(number, book.with_reason(call, why)))
        if shown := book.to_show(accounts, await rows(stores, "recommendations")):
            click.echo("\nTO SHOW THEM  (hune export recommendations)")
            click.echo("\n".join(book.describe_recommendation(one) for one in shown))
        alert = book.most_telling(alerts, accounts)
        if alert is not None:
            account = next((one for one in accounts if one["account_id"] == alert["account_id"]), {})
            click.echo("\nAN ALERT\n" + book.describe_alert(alert, account, datetime.now(UTC)))
        example = calls[0].account_id if calls else next((a["account_id"] for a in accounts if a["score"]), None)
        if example is not None:
            click.echo(f"\nWHY  (hune score {example} --explain)\n" + await explanation(stores, example))
        await self._account(stores)

    async def _account(self, stores: OpenStores) -> None:
        from cli.accounting import snapshot
        from cli.status import accounting_table

        accounting: Mapping[str, Mapping[str, Any]] = (await snapshot(stores))["accounting"]
        self.accounting_exact = all(account["balanced"] for account in accounting.values())
        click.echo("\nWHAT BECAME OF EVERY RECORD\n" + accounting_table(accounting))


async def refuse_used_databases(urls: Sequence[str]) -> None:
    """A demo in databases of yours must not mix an example company into your book."""
    for url in urls:
        connection = await db.connect(url)
        try:
            used = await connection.fetchval("select to_regclass('hune.installation')")
        finally:
            await connection.close()
        if used is not None:
            raise Misconfigured(
                "the database named in HUNE_DATABASE_URL holds a Hune already; "
                "unset it for a demo with a database of its own, or name an empty one"
            )


def stores_of(supervisor: Supervisor, home: Home) -> OpenStores:
    state = supervisor.state
    if state.kafka is None or state.postgres is None:
        raise Misconfigured(f"the stores of {home} are not running")
    return OpenStores(state.kafka.address, state.postgres.address, state.database_urls, home.path)


def write_company(home: Home, which: str) -> Path:
    """Write the example company's history (`events`) or day (`live_events`) to a file of the home, for sending."""
    company = importlib.import_module("cli.company")
    path = home.path / "data" / f"company-{which.replace('_', '-')}.ndjson"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for event in getattr(company, which)(SEED, datetime.now(UTC)):
            file.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")
    return path


def measure(path: Path) -> tuple[float, int]:
    """A file's size in MB as stored, and its lines."""
    import gzip

    def blocks() -> Iterator[bytes]:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            while block := file.read(1 << 20):
                yield block

    return path.stat().st_size / 1e6, sum(block.count(b"\n") for block in blocks())


async def first_reason(stores: OpenStores, account_id: str) -> str:
    from cli.score import explain

    found, _ = await explain(stores, account_id)
    why = found["why"]
    return why if isinstance(why, str) else " ".join(str(part) for part in why)


async def explanation(stores: OpenStores, account_id: str) -> str:
    from cli.score import described, explain

    found, _ = await explain(stores, account_id)
    return described(found, whole=True)


NEXT = """Hune stays up until Ctrl-C. In another terminal:
  ./hune status                            what runs and what became of every record
  ./hune export accounts --json            every account with its score and band
  ./hune score ACCOUNT --explain           why a score is what it is
  ./hune export alerts --json              what was told, when and why
  ./hune send FILE                         your own events as NDJSON
  gateway: {gateway}  (Segment-compatible; a key: ./hune keys create NAME --json)"""
