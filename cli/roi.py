"""`hune roi`: what Customer Success returns on its cost, as a profit and as so many back for one."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.reading import AsOf, default_as_of
from cli.support import Stores, open_snapshots, run
from cli.times import TIME
from services.health import ratios, revenue_reading
from shared.times import instant

if TYPE_CHECKING:
    AmountType = click.ParamType[Decimal]
else:
    AmountType = click.ParamType

CAUTION = "attributed, not causal: nobody is compared with customers whom Customer Success left alone"


class Amount(AmountType):
    """An amount of money or a percentage, 0 or more."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"{value!r} is not an amount; write 250000 or 250000.50", param, ctx)
        if not amount.is_finite() or amount < 0:
            self.fail(f"{value} is not an amount of 0 or more", param, ctx)
        return amount


AMOUNT = Amount()


@click.command("roi")
@click.option("--saved", type=AMOUNT, help="Yearly revenue that would have been lost (default: from the book).")
@click.option("--expanded", type=AMOUNT, help="Yearly revenue won on top, with --saved.")
@click.option("--cost", type=AMOUNT, help="What Customer Success costs a year (default: config/revenue.yaml).")
@click.option("--margin", type=AMOUNT, metavar="PERCENT", help="Gross margin of that revenue (default: 100).")
@click.option("--as-of", type=TIME, metavar="T", help="The end of the year that is read from the book.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(
    saved: Decimal | None,
    expanded: Decimal | None,
    cost: Decimal | None,
    margin: Decimal | None,
    as_of: datetime | None,
    as_json: bool,
) -> None:
    """Show the return on Customer Success, in both forms.

    With --saved and --cost from these figures. Without --saved from the book of the last 365 days: twelve times the
    MRR of customers who had a risk alert that was resolved, and who pay still, and twelve times what customers
    pay more than a year ago.
    """
    if margin is not None and not 0 < margin <= 100:
        raise click.BadParameter("is a percentage above 0, at most 100", param_hint="--margin")
    if cost == 0:
        raise click.BadParameter("a cost of 0 has no return", param_hint="--cost")
    if saved is None:
        if expanded is not None:
            raise click.UsageError("--expanded goes with --saved; without both the book is read")
        found, when = run(_from_the_book(as_of, cost, margin))
        click.echo(f"as of {instant(when.at)} ({when.why})", err=True)
        given = found
    else:
        if cost is None:
            raise click.UsageError("--saved needs --cost")
        given = {
            "saved": saved,
            "expanded": expanded or Decimal(0),
            "margin_pct": margin or ratios.HUNDRED,
            "cost": cost,
            "currency": None,
        }
    row = figures(given)
    click.echo(output.json_line(row) if as_json else described(row))


async def _from_the_book(as_of: datetime | None, cost: Decimal | None, margin: Decimal | None) -> tuple[Any, AsOf]:
    from cli.home import open_stores

    async with open_stores(need_kafka=False) as stores:
        return await from_the_book(stores, as_of, cost, margin)


async def from_the_book(
    stores: Stores, as_of: datetime | None, cost: Decimal | None, margin: Decimal | None
) -> tuple[Any, AsOf]:
    """What the book says of the year up to a time."""
    async with open_snapshots(stores) as databases:
        when = AsOf(as_of, "as asked") if as_of else await default_as_of(databases)
        return await revenue_reading.read_return(databases, when.at, cost, margin), when


def figures(given: dict[str, Any]) -> dict[str, Any]:
    """What was given, and the return in both forms."""
    found = ratios.roi(given["saved"], given["cost"], given["expanded"], given["margin_pct"])
    return given | {
        "gain": found.gain.normalize(),
        "roi_pct": ratios.six(found.profit_pct),
        "ratio": ratios.six(found.ratio),
        "caution": CAUTION,
    }


def described(row: dict[str, Any]) -> str:
    """The return for reading, with the sum that it comes from."""
    unit = f" {row['currency']}" if row["currency"] else ""
    gain, cost = _grouped(row["gain"]), _grouped(row["cost"])
    parts = f"saved {_grouped(row['saved'])}, expanded {_grouped(row['expanded'])}"
    lines = [
        f"{row['roi_pct']:g} %      ({gain} − {cost}) ÷ {cost}{unit}",
        f"{row['ratio']:g} : 1    {gain} ÷ {cost}{unit}",
        f"gain {gain}{unit} = margin {_grouped(row['margin_pct'])} % × ({parts})",
    ]
    if "customers_saved" in row:
        low, high = row["target"]
        lines.append(f"{row['customers_saved']} customers were at risk, and pay; wanted: {low:f} to {high:f} : 1")
    return "\n".join((*lines, row["caution"]))


def _grouped(amount: Decimal) -> str:
    return f"{amount.normalize():,f}" if amount else "0"
