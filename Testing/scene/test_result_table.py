"""The table of a result without its widgets: rows, order, filter, reasons in words, CSV and back."""

from __future__ import annotations

import csv
import io

import pytest

from wbcss.errors import InputError
from wbcss.protocol import OrganItem, OrganRow
from WholeBodyCSSLib.ResultTable import (
    CSV_COLUMNS,
    ResultRow,
    ResultTable,
    csvText,
    merged,
    parseRows,
    reasonText,
    rowsOf,
)

LIVER = ResultRow(
    organ="liver",
    name="Liver",
    volume_ml=1500.25,
    mean_hu=58.5,
    sd_hu=14.0,
    confidence=0.93,
    center_ras_mm=(-40.0, 12.5, 1100.0),
)
KIDNEY = ResultRow(
    organ="kidney_left", name="Left kidney", volume_ml=160.0, confidence=0.5, reasons=("low_confidence", "new_reason")
)
COLON = ResultRow(organ="colon", name="Colon", volume_ml=600.0, mean_hu=-20.0, reasons=("touches_border",))


@pytest.fixture
def table() -> ResultTable:
    return ResultTable([LIVER, KIDNEY, COLON])


def shown(table: ResultTable) -> list[str]:
    return [row.organ for row in table.rows()]


def test_organs_without_voxels_are_not_in_the_table() -> None:
    organs = [
        OrganItem(name="liver", label=5, display_name="Liver", group="a", color_rgb=(1, 2, 3), terminology="", tasks=())
    ]
    measured = [
        OrganRow(organ="liver", label=5, voxels=3, volume_ml=2.0, mean_confidence=0.8, flags=("touches_border",)),
        OrganRow(organ="spleen", label=1, voxels=0, volume_ml=0.0),
    ]
    assert rowsOf(measured, organs) == (
        ResultRow(organ="liver", name="Liver", volume_ml=2.0, confidence=0.8, reasons=("touches_border",)),
    )


@pytest.mark.parametrize(
    ("column", "descending", "order"),
    [
        ("name", False, ["colon", "kidney_left", "liver"]),
        ("volume_ml", True, ["liver", "colon", "kidney_left"]),
        ("mean_hu", False, ["colon", "liver", "kidney_left"]),
        ("mean_hu", True, ["liver", "colon", "kidney_left"]),
        ("reasons", True, ["kidney_left", "colon", "liver"]),
    ],
)
def test_rows_are_sorted_and_the_unknown_comes_last(
    table: ResultTable, column: str, descending: bool, order: list[str]
) -> None:
    table.sort(column, descending)
    assert shown(table) == order


def test_a_column_that_is_none_is_refused(table: ResultTable) -> None:
    with pytest.raises(InputError, match=r"sorted by name, volume_ml, .*, got 'age'"):
        table.sort("age")


def test_only_what_a_person_should_look_at_can_be_shown(table: ResultTable) -> None:
    assert table.numToCheck == 2
    table.onlyToCheck = True
    assert shown(table) == ["kidney_left", "colon"]
    table.text = "KID left"
    assert shown(table) == ["kidney_left"]
    table.onlyToCheck, table.text = False, "li"
    assert shown(table) == ["liver"]


def test_added_organs_replace_their_rows_and_follow_the_others() -> None:
    larger = ResultRow(organ="liver", name="Liver", volume_ml=1600.0)
    assert merged([LIVER, COLON], [KIDNEY, larger]) == (larger, COLON, KIDNEY)


def test_a_reason_that_nobody_has_heard_of_is_readable_all_the_same() -> None:
    known = {"touches_border": "reaches the edge of the scan"}
    assert reasonText("touches_border", known) == "reaches the edge of the scan"
    assert reasonText("left_right_swapped", known) == "Left right swapped"


def test_the_csv_reads_back_whatever_its_names(table: ResultTable) -> None:
    odd = ResultRow(organ="odd", name='my "organ", new\tone', volume_ml=0.125, reasons=("a", "b"))
    rows = (*table.allRows, odd)
    lines = list(csv.DictReader(io.StringIO(csvText(rows))))
    assert tuple(lines[0]) == CSV_COLUMNS
    assert lines[1]["please_check"] == "low_confidence;new_reason"
    assert lines[1]["mean_hu"] == ""
    assert parseRows(lambda row, column: lines[row][column], len(lines)) == rows


def test_a_damaged_line_of_a_table_is_left_out() -> None:
    cells = {"organ": "liver", "volume_ml": "many"}
    assert parseRows(lambda row, column: cells.get(column, ""), 1) == ()
