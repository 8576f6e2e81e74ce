"""What leaves the command line is canonical JSON, or CSV that nothing executes."""

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cli import output
from cli.support import nearest
from cli.times import TIME, loose_time


def test_json_lines_are_canonical() -> None:
    row = {
        "at": datetime(2024, 5, 1, 10, tzinfo=UTC), "day": date(2024, 5, 1), "mrr": Decimal("1200.50"),
        "share": 1 / 3, "nothing": None, "count": 3, "zero": -0.0, "name": "Zoé", "parts": (1, {"x": 2.0}),
    }  # fmt: skip
    assert output.json_line(row) == (
        '{"at":"2024-05-01T10:00:00Z","day":"2024-05-01","mrr":"1200.50","share":0.333333,"nothing":null,'
        '"count":3,"zero":0.0,"name":"Zoé","parts":[1,{"x":2.0}]}'
    )


@pytest.mark.parametrize("text", ["=1+1", "+33 1", "-x", "@SUM(A1)", "\tx", "\rx"])
def test_csv_puts_an_apostrophe_before_formulas(text: str) -> None:
    assert output.cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-5, -0.5, "-12.50", "0", 7])
def test_csv_leaves_numbers_as_numbers(value: object) -> None:
    assert output.cell(value) == value


def test_csv_has_every_column_and_rfc_4180_lines() -> None:
    text = output.csv_text([{"a": 1, "b": 'say "x", y'}, {"a": None, "c": [1, 2], "d": True}])
    assert text == 'a,b,c,d\r\n1,"say ""x"", y",,\r\n,,"[1,2]",true\r\n'


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=5))
def test_csv_cells_come_back_as_they_went(texts: list[str]) -> None:
    row = {f"column{number}": text for number, text in enumerate(texts)}
    read = list(csv.reader(io.StringIO(output.csv_text([row]), newline="")))
    assert read[1] == [output.guarded(text) for text in texts]
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in read[1])


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans() | st.none()))
def test_json_lines_read_back_the_same(row: dict[str, object]) -> None:
    assert json.loads(output.json_line(row)) == row


def test_table_aligns_columns() -> None:
    assert output.table([("A", "BB"), ("ccc", "d")]) == "A    BB\nccc  d"


@click.command()
@click.option("--as-of", type=TIME)
def show_time(as_of: datetime) -> None:
    click.echo(as_of.isoformat())


def test_option_takes_a_date_for_its_first_instant() -> None:
    assert CliRunner().invoke(show_time, ["--as-of", "2024-10-24"]).output == "2024-10-24T00:00:00+00:00\n"
    assert (
        CliRunner().invoke(show_time, ["--as-of", "2024-10-24T02:00:00+02:00"]).output == "2024-10-24T00:00:00+00:00\n"
    )


@pytest.mark.parametrize("text", ["yesterday", "2024-10-24T08:00:00", "2024-13-01"])
def test_wrong_time_names_the_option_and_the_fix(text: str) -> None:
    result = CliRunner().invoke(show_time, ["--as-of", text])
    assert result.exit_code == 2
    assert "--as-of" in result.output
    assert text in result.output


def test_times_in_files_may_lack_a_zone() -> None:
    ten = datetime(2024, 4, 3, 10, tzinfo=UTC)
    assert loose_time("2024-04-03 10:00:00") == ten
    assert loose_time(str(int(ten.timestamp()))) == loose_time(f"{int(ten.timestamp())}000") == ten
    with pytest.raises(ValueError, match="03/04/2024"):
        loose_time("03/04/2024")


def test_unknown_word_names_the_nearest() -> None:
    assert nearest("usge", ["usage", "scores"]) == "did you mean usage?"
    assert nearest("SCORES", ["usage", "scores"]) == "did you mean scores?"
    assert nearest("zzz", ["usage", "scores"]) == "there are: scores, usage"
