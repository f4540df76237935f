"""The table of a result without its widgets: rows, order, filter, reasons in words, CSV and back."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from wbcss.errors import InputError
from wbcss.protocol import OrganCheck, OrganItem, OrganRow
from WholeBodyCSSLib.ResultTable import (
    CSV_COLUMNS,
    ResultRow,
    ResultTable,
    csvText,
    merged,
    parseRows,
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
BORDER = OrganCheck(flag="touches_border", reason="reaches the edge", place_ras_mm=(1.5, -2.0, 1003.25))
UNSURE = OrganCheck(flag="low_confidence", reason="mean confidence 0.50, below 0.6", place_ras_mm=(-0.125, 0.0, 7.0))
NEW = OrganCheck(flag="new_reason", reason="")
KIDNEY = ResultRow(organ="kidney_left", name="Left kidney", volume_ml=160.0, confidence=0.5, checks=(NEW, UNSURE))
COLON = ResultRow(organ="colon", name="Colon", volume_ml=600.0, mean_hu=-20.0, checks=(BORDER,))


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
        OrganRow(
            organ="liver",
            label=5,
            voxels=3,
            volume_ml=2.0,
            mean_confidence=0.8,
            flags=("touches_border",),
            checks=(BORDER,),
        ),
        OrganRow(organ="spleen", label=1, voxels=0, volume_ml=0.0),
    ]
    assert rowsOf(measured, organs) == (
        ResultRow(organ="liver", name="Liver", volume_ml=2.0, confidence=0.8, checks=(BORDER,)),
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


def test_flags_without_more_are_reasons_too() -> None:
    (row,) = rowsOf([OrganRow(organ="liver", label=5, voxels=3, volume_ml=2.0, flags=("new_reason",))], [])
    assert (row.checks, row.reasons) == ((NEW,), ("new_reason",))


def test_a_reason_leads_to_its_place_or_else_to_the_organ() -> None:
    row = dataclasses.replace(LIVER, checks=(UNSURE, NEW))
    assert [row.placeOf(check) for check in row.checks] == [UNSURE.place_ras_mm, LIVER.center_ras_mm]
    assert COLON.placeOf(NEW) is None


def test_the_csv_reads_back_whatever_its_names(table: ResultTable) -> None:
    odd = ResultRow(organ="odd", name='my "organ", new\tone', volume_ml=0.125, checks=(NEW, NEW))
    rows = (*table.allRows, odd)
    lines = list(csv.DictReader(io.StringIO(csvText(rows))))
    assert tuple(lines[0]) == CSV_COLUMNS
    assert lines[1]["please_check"] == "new_reason;low_confidence"
    assert lines[1]["reasons"] == "; mean confidence 0.50, below 0.6"
    assert lines[1]["places_ras_mm"] == ";-0.125 0.000 7.000"
    assert lines[1]["mean_hu"] == ""
    assert parseRows(lambda row, column: lines[row][column], len(lines)) == rows


def test_a_reason_with_a_semicolon_stays_one() -> None:
    odd = OrganCheck(flag="several_pieces", reason="lies in 2 pieces; look at the second", place_ras_mm=(1.0, 2.0, 3.0))
    (line,) = csv.DictReader(io.StringIO(csvText([dataclasses.replace(LIVER, checks=(odd, BORDER))])))
    (row,) = parseRows(lambda row, column: line[column], 1)
    assert row.checks == (dataclasses.replace(odd, reason="lies in 2 pieces, look at the second"), BORDER)


def test_a_table_of_an_earlier_version_has_flags_alone() -> None:
    cells = {"organ": "liver", "volume_ml": "1", "please_check": "touches_border;low_confidence"}
    (row,) = parseRows(lambda row, column: cells.get(column, ""), 1)
    assert row.reasons == ("touches_border", "low_confidence")
    assert all(check.reason == "" and check.place_ras_mm is None for check in row.checks)


@pytest.mark.parametrize("place", ["1 2", "1 2 3 4", "1 two 3", "1 2 3 x"])
def test_a_damaged_place_is_none(place: str) -> None:
    cells = {"organ": "liver", "volume_ml": "1", "please_check": "touches_border", "places_ras_mm": place}
    (row,) = parseRows(lambda row, column: cells.get(column, ""), 1)
    assert [check.place_ras_mm for check in row.checks] == [None]


def test_a_damaged_line_of_a_table_is_left_out() -> None:
    cells = {"organ": "liver", "volume_ml": "many"}
    assert parseRows(lambda row, column: cells.get(column, ""), 1) == ()
