"""A row of a table becomes one event of the type, the same one whenever the table is imported."""

import io
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli import import_, mapping, parquet
from cli.mapping import BadRow, Rows, Table, pairs, plan

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
HEADER = ("customer", "rating", "said", "when", "ref")
SURVEY = {"account_id": "customer", "score": "rating", "comment": "said", "timestamp": "when"}


def rows_of(
    maps: dict[str, str], sets: dict[str, str], header: tuple[str, ...] = HEADER, as_: str = "survey.answered"
) -> Rows:
    return Rows(plan(as_, maps, sets, header), FIRST)


def a_table(text: str, delimiter: str = ",") -> Table:
    return Table(Path("t.csv"), io.BytesIO(text.encode("utf-8", "surrogateescape")), delimiter)


def test_row_becomes_an_event_with_the_models_types() -> None:
    rows = rows_of({**SURVEY, "id": "ref"}, {"kind": "nps", "scale": "0-10"})
    event = rows.event(("acme", "9.0", "great, thanks", "2024-05-01 10:00", "r1"))
    assert event.body == {
        "id": "r1", "type": "survey.answered", "timestamp": "2024-05-01T10:00:00Z", "account_id": "acme",
        "kind": "nps", "score": 9.0, "scale": "0-10", "comment": "great, thanks",
    }  # fmt: skip
    assert event.key == "acme"
    assert not event.is_undated


def test_money_keeps_its_digits_and_an_empty_cell_says_nothing() -> None:
    rows = rows_of(
        {"account_id": "a", "mrr": "m", "plan": "p"}, {"currency": "EUR"}, ("a", "m", "p"), "subscription.changed"
    )
    body = rows.event(("acme", "1200.50", "")).body
    assert (body["mrr"], body["currency"], "plan" in body) == ("1200.50", "EUR", False)


def test_booleans_dates_lists_and_parts_are_read_by_the_model() -> None:
    header = ("a", "ends", "renews")
    contract = rows_of({"account_id": "a", "ends_on": "ends", "auto_renew": "renews"}, {}, header, "contract.changed")
    body = contract.event(("acme", "2024-12-31", "Yes")).body
    assert (body["ends_on"], body["auto_renew"]) == ("2024-12-31", True)
    columns = ("a", "who", "tier", "zip", "crm")
    maps = {"account_id": "a", "traits.tier": "tier", "traits.zip": "zip", "external_ids.crm": "crm"}
    body = rows_of(maps, {}, columns, "account.updated").event(("acme", "", "3", "01234", "17")).body
    assert body["traits"] == {"tier": 3, "zip": "01234"}
    assert body["external_ids"] == {"crm": "17"}
    meeting = rows_of({"account_id": "a", "meeting_id": "m", "attendees": "w"}, {}, ("a", "m", "w"), "meeting.held")
    assert meeting.event(("acme", "m1", "ann; bob")).body["attendees"] == ["ann", "bob"]


def test_equal_rows_are_two_events_and_stay_the_same_two() -> None:
    row = ("acme", "9", "", "2024-05-01", "")
    other = ("beta", "3", "", "2024-05-01", "")
    once, again = rows_of(SURVEY, {"kind": "nps"}), rows_of(SURVEY, {"kind": "nps"})
    first = [once.event(cells).body["id"] for cells in (row, row, other)]
    second = [again.event(cells).body["id"] for cells in (other, row, row)]
    assert len(set(first)) == 3
    assert sorted(first) == sorted(second)


def test_order_of_columns_does_not_change_a_rows_id() -> None:
    turned = tuple(reversed(HEADER))
    cells = ("acme", "9", "x", "2024-05-01", "")
    ids = {
        rows_of(SURVEY, {"kind": "nps"}).event(cells).body["id"],
        rows_of(SURVEY, {"kind": "nps"}, turned).event(tuple(reversed(cells))).body["id"],
    }
    assert len(ids) == 1


def test_two_surveys_in_one_row_are_two_events() -> None:
    cells = ("acme", "9", "x", "2024-05-01", "")
    ids = {rows_of(SURVEY, {"kind": kind}).event(cells).body["id"] for kind in ("nps", "csat")}
    assert len(ids) == 2


def test_row_without_a_time_gets_that_of_the_first_import() -> None:
    event = rows_of(SURVEY, {"kind": "nps"}).event(("acme", "9", "x", "", ""))
    assert event.body["timestamp"] == "2025-01-01T00:00:00Z"
    assert event.is_undated


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("acme", "abc", "x", "2024-05-01", ""), "score"),
        (("acme", "", "x", "2024-05-01", ""), "score"),
        (("acme", "9", "x", "01/05/2024", ""), "timestamp"),
    ],
)
def test_bad_cell_names_its_field(cells: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadRow, match=said):
        rows_of(SURVEY, {"kind": "nps"}).event(cells)


@pytest.mark.parametrize(
    ("as_", "maps", "sets", "said"),
    [
        ("survey.answred", SURVEY, {"kind": "nps"}, "survey.answered"),
        ("clock", {}, {}, "there is no type"),
        ("survey.answered", {**SURVEY, "scor": "rating"}, {"kind": "nps"}, "did you mean score"),
        ("survey.answered", {**SURVEY, "language": "Ratng"}, {"kind": "nps"}, "did you mean rating"),
        ("survey.answered", SURVEY, {"kind": "npx"}, "kind='npx'.*nps"),
        ("survey.answered", SURVEY, {}, "needs kind"),
        ("survey.answered", SURVEY, {"kind": "nps", "score": "9"}, "--map and in --set"),
        ("survey.answered", {**SURVEY, "kind.x": "ref"}, {"kind": "nps"}, "no parts"),
        ("survey.answered", {"score": "rating"}, {"kind": "nps", "timestamp": "soon"}, "not a time"),
    ],
)
def test_wrong_mapping_is_refused_before_anything_is_sent(
    as_: str, maps: dict[str, str], sets: dict[str, str], said: str
) -> None:
    with pytest.raises(click.BadParameter, match=said):
        plan(as_, maps, sets, HEADER)


def test_without_a_map_columns_called_like_fields_are_taken() -> None:
    body = rows_of({}, {"kind": "nps"}, ("account_id", "score", "other")).event(("acme", "9", "x")).body
    assert body["account_id"] == "acme"
    assert body["score"] == 9
    assert "other" not in body


def test_pairs_take_lists_and_quoted_commas() -> None:
    assert pairs(["a=b,c=d", '"comment=so, so",e='], "--set") == {"a": "b", "c": "d", "comment": "so, so", "e": ""}
    with pytest.raises(click.BadParameter, match="twice"):
        pairs(["a=b", "a=c"], "--map")
    with pytest.raises(click.BadParameter, match="form"):
        pairs(["a"], "--map")


def test_table_reads_quoted_newlines_and_counts_lines() -> None:
    table = a_table('\ufeffa,b\r\n1,"two\nlines"\r\n\r\n3,"say ""hi"""\r\n')
    rows = list(table)
    assert table.header == ("a", "b")
    assert [(row.number, row.cells) for row in rows] == [(2, ("1", "two\nlines")), (5, ("3", 'say "hi"'))]


def test_bad_lines_are_named_and_the_rest_go_on() -> None:
    rows = list(a_table('a,b\n1,2\n1,2,3\n"x"y,2\n\udcff,2\n5,6\n'))
    assert [(row.number, row.cells is None) for row in rows] == [
        (2, False),
        (3, True),
        (4, True),
        (5, True),
        (6, False),
    ]
    assert "3 cells where the header has 2" in rows[1].fault
    assert rows[1].raw == "1,2,3"
    assert rows[3].fault == "not UTF-8"


def test_unclosed_quote_is_one_bad_row() -> None:
    *good, bad = list(a_table('a,b\n1,2\n3,"open\n4,5\n'))
    assert [row.cells for row in good] == [("1", "2")]
    assert bad.number == 3
    assert "broken CSV" in bad.fault


@pytest.mark.parametrize(
    ("text", "said"), [("a;b\n1;2\n", "--delimiter ';'"), ("\n", "no header"), ("\udcff,a\n", "UTF-8")]
)
def test_table_that_is_no_csv_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(click.ClickException, match=said):
        a_table(text)


def test_every_input_type_can_be_imported_but_the_clock() -> None:
    types = mapping.importable()
    assert {"usage.tracked", "survey.answered", "subscription.changed", "request.made"} <= set(types)
    assert "clock" not in types
    assert "alert.opened" not in types
    for model in types.values():
        assert {"id", "account_id", "user_id", "timestamp"} <= set(mapping.fields_of(model))


@pytest.mark.parametrize(
    ("name", "content", "args", "said"),
    [
        ("none.csv", None, (), "does not exist"),
        ("empty.csv", b"", (), "is empty"),
        ("t.parquet", b"PAR1", (), "Parquet"),
        ("t.csv", b"a,b\n1,2\n", ("--map", "account_id=c"), "no column 'c'"),
        ("t.csv", b"a,b\n1,2\n", ("--delimiter", ";;"), "not one character"),
    ],
)
def test_wrong_command_says_what_to_change(
    tmp_path: Path, name: str, content: bytes | None, args: tuple[str, ...], said: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = CliRunner().invoke(import_.command, [str(path), "--as", "usage.tracked", *args])
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output


def test_parquet_is_read_as_the_csv_it_would_be(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    path = tmp_path / "t.parquet"
    columns = {
        "id": ["a", "b", None],
        "at": [datetime(2026, 6, 1, 9, 30, tzinfo=UTC), None, None],
        "mrr": [Decimal("12.50"), Decimal("0.10"), None],
        "seats": [3, None, 1],
        "live": [True, False, None],
        "tags": [["x", "y"], [], None],
        "text": ['says "hi", twice\nover', "", None],
    }
    written.write_table(pyarrow.table(columns), path)
    with import_.opened(path) as source:
        table = mapping.Table(path, source.lines, source.delimiter or ";")
        rows = [row.cells for row in table]
        assert source.share == 0.99
    assert table.header == tuple(columns)
    assert rows == [
        ("a", "2026-06-01T09:30:00+00:00", "12.50", "3", "true", "x;y", 'says "hi", twice\nover'),
        ("b", "", "0.10", "", "false", "", ""),
        ("", "", "", "1", "", "", ""),
    ]


def test_without_pyarrow_a_parquet_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1....PAR1")
    with pytest.raises(click.ClickException, match=r"hune.parquet"):
        parquet.Lines(path)
