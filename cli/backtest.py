"""`hune backtest`: how well a model told churn in advance; `hune backtest fit`: a model learnt from who left."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from cli import backtest_log, backtest_table, output
from cli.reading import AsOf
from cli.support import run
from cli.times import TIME
from services.health.facts import Facts
from services.health.tables import TableModel
from shared import config
from shared.times import instant

FILE = click.Path(path_type=Path, dir_okay=False)
FAR = click.IntRange(1, 3660)


@click.group("backtest", invoke_without_command=True)
@click.option("--log", "of_log", is_flag=True, help="Look back on the installation's own history.")
@click.option("--table", type=FILE, metavar="CSV", help="One row per customer instead; needs no installation.")
@click.option("--label", metavar="COL=VALUE", help="Which rows left, such as Churn=Yes.")
@click.option("--model", type=FILE, metavar="FILE", help="The model (default with --log: config/health.yaml).")
@click.option("--against", type=FILE, metavar="FILE", help="Another model to compare with, on the same rows.")
@click.option("--horizon", type=FAR, default=90, show_default=True, metavar="DAYS", help="How far a score should see.")
@click.option("--since", type=TIME, metavar="T", help="No cut-off before it (default: 60 days into the history).")
@click.option("--as-of", type=TIME, metavar="T", help="Where the history ends (default: the installation's clock).")
@click.option("--seen-on", metavar="COL", help="The column with the day that a row is of, for lead times.")
@click.option("--left-on", metavar="COL", help="The column with the day that a customer left or gave notice.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_context
def command(
    context: click.Context,
    of_log: bool,
    table: Path | None,
    label: str | None,
    model: Path | None,
    against: Path | None,
    horizon: int,
    since: datetime | None,
    as_of: datetime | None,
    seen_on: str | None,
    left_on: str | None,
    as_json: bool,
) -> None:
    """Hold scores against who left: month by month over the history (--log), or on a flat table (--table).

    The model of a table reads like config/health.yaml with measures of `kind: column`; see config/examples/telco.yaml.
    """
    if context.invoked_subcommand:
        return
    if of_log == (table is not None):
        raise click.UsageError("give --log or --table, or `hune backtest fit` to have a model proposed")
    if of_log:
        if label or seen_on or left_on:
            raise click.UsageError("--label, --seen-on and --left-on are of tables: events say who left, and when")
        book, when = run(_history(as_of))
        click.echo(f"as of {instant(when.at)} ({when.why}); scoring {len(book):,} accounts week by week", err=True)
        found = backtest_log.looked_back(book, when.at, horizon, model, against, since)
        click.echo(output.json_line(found) if as_json else backtest_log.described(found))
        return
    if table is None or label is None or model is None:
        raise click.UsageError("--table needs --label and --model")
    if (seen_on is None) != (left_on is None):
        raise click.UsageError("lead times need both --seen-on and --left-on")
    rows = backtest_table.read_table(table)
    other = config.load(against, TableModel) if against else None
    dates = (seen_on, left_on) if seen_on and left_on else None
    found = backtest_table.judged(rows, label, config.load(model, TableModel), other, dates)
    click.echo(output.json_line(found) if as_json else backtest_table.described(found))


async def _history(as_of: datetime | None) -> tuple[list[Facts], AsOf]:
    from cli.home import open_stores

    async with open_stores(need_kafka=False) as stores:
        return await backtest_log.history(stores, as_of)


@command.command("fit")
@click.option("--log", "of_log", is_flag=True, help="Learn from the installation's own history.")
@click.option("--table", type=FILE, metavar="CSV", help="One row per customer instead; needs no installation.")
@click.option("--label", metavar="COL=VALUE", help="Which rows left, such as Churn=Yes.")
@click.option("--model", type=FILE, metavar="FILE", help="With --log: whose measures (default: config/health.yaml).")
@click.option("--horizon", type=FAR, default=90, show_default=True, metavar="DAYS", help="How far a score should see.")
@click.option("--since", type=TIME, metavar="T", help="No cut-off before it (default: 60 days into the history).")
@click.option("--as-of", type=TIME, metavar="T", help="Where the history ends (default: the installation's clock).")
@click.option("--out", type=FILE, metavar="FILE", help="Where the model goes (default: stdout).")
@click.option("--against", type=FILE, metavar="FILE", help="A model written by hand to compare with.")
@click.option("--without", multiple=True, metavar="COL", help="Do not learn from this column; may be repeated.")
@click.option("--keep", multiple=True, metavar="COL", help="Learn from it although it looks unfit; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def fit(
    of_log: bool,
    table: Path | None,
    label: str | None,
    model: Path | None,
    horizon: int,
    since: datetime | None,
    as_of: datetime | None,
    out: Path | None,
    against: Path | None,
    without: tuple[str, ...],
    keep: tuple[str, ...],
    as_json: bool,
) -> None:
    """Propose a model: monotone steps and weights, learnt from who left.

    Every figure is of customers that the model behind it had not learnt from.
    """
    if of_log == (table is not None):
        raise click.UsageError("give --log or --table")
    if of_log:
        if label or keep or without:
            raise click.UsageError("--label, --keep and --without are of tables; with --log --model names the measures")
        book, when = run(_history(as_of))
        click.echo(f"as of {instant(when.at)} ({when.why}); scoring {len(book):,} accounts month by month", err=True)
        found, text = backtest_log.fitted(book, when.at, horizon, model, against, since)
    elif table is None or label is None:
        raise click.UsageError("--table needs --label")
    elif model:
        raise click.UsageError("--model is of --log; to compare with a model of tables give --against")
    else:
        rows = backtest_table.read_table(table)
        other = config.load(against, TableModel) if against else None
        found, text = backtest_table.fitted(rows, label, table.name, other, keep=keep, without=without)
    if out:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{out} cannot be written: {error.strerror}.") from error
        found["out"] = str(out)
    if as_json:
        click.echo(output.json_line(found))
    elif out:
        described = backtest_log.described if of_log else backtest_table.described
        click.echo(f"{described(found)}\n\n{backtest_table.columns(found)}\n\nwrote {out}")
    else:
        click.echo(text, nl=False)
