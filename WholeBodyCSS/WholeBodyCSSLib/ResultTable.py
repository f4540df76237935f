"""The table of a result: what was measured of each organ, what to check, sorting, filtering, CSV. No Qt, no scene."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from wbcss.errors import InputError
from wbcss.protocol import OrganCheck, OrganItem, OrganRow

COLUMNS = ("name", "volume_ml", "mean_hu", "sd_hu", "confidence", "reasons")
"""Columns of the table as it is shown, and by which it can be sorted."""

CSV_COLUMNS = (
    "organ", "name", "volume_ml", "mean_hu", "sd_hu", "mean_confidence",
    "center_r_mm", "center_a_mm", "center_s_mm", "please_check", "reasons", "places_ras_mm",
)  # fmt: skip

Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One organ that was found.

    Attributes:
        organ: Name in the registry, which is also the id of its segment.
        name: To show to people.
        volume_ml: Milliliters.
        mean_hu: Mean density, None where there is none.
        sd_hu: Standard deviation of the density.
        confidence: Mean calibrated probability, in [0, 1].
        center_ras_mm: Mean place of its voxels in the world.
        checks: Why a person should look at it, and where; empty if nothing is odd.
    """

    organ: str
    name: str
    volume_ml: float
    mean_hu: float | None = None
    sd_hu: float | None = None
    confidence: float | None = None
    center_ras_mm: Point | None = None
    checks: tuple[OrganCheck, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """The flags of ``checks``, whatever they are."""
        return tuple(check.flag for check in self.checks)

    def placeOf(self, check: OrganCheck) -> Point | None:
        """Where to look because of ``check``: its own place, else the middle of the organ."""
        return check.place_ras_mm or self.center_ras_mm


def rowsOf(measured: Iterable[OrganRow], organs: Iterable[OrganItem]) -> tuple[ResultRow, ...]:
    """The rows of what the worker measured; organs without a voxel are left out."""
    names = {organ.name: organ.display_name for organ in organs}
    return tuple(
        ResultRow(
            organ=row.organ,
            name=names.get(row.organ, row.organ),
            volume_ml=row.volume_ml,
            mean_hu=row.mean_hu,
            sd_hu=row.sd_hu,
            confidence=row.mean_confidence,
            center_ras_mm=row.center_ras_mm,
            checks=row.checks or tuple(OrganCheck(flag=flag, reason="") for flag in row.flags),
        )
        for row in measured
        if row.voxels > 0
    )


class ResultTable:
    """Rows in the order and selection that the user asked for."""

    def __init__(self, rows: Sequence[ResultRow] = ()) -> None:
        self._rows = tuple(rows)
        self._column = ""
        self._descending = False
        self.onlyToCheck = False
        self.text = ""

    @property
    def allRows(self) -> tuple[ResultRow, ...]:
        """Every row, in the order of the labels."""
        return self._rows

    @property
    def numToCheck(self) -> int:
        """How many organs a person should look at."""
        return sum(bool(row.reasons) for row in self._rows)

    def setRows(self, rows: Sequence[ResultRow]) -> None:
        """Show another result; order and filter stay."""
        self._rows = tuple(rows)

    def sort(self, column: str, descending: bool = False) -> None:
        """Order by a column of ``COLUMNS``; what is not known comes last. Raises InputError for another column."""
        if column not in COLUMNS:
            raise InputError(f"a table can be sorted by {', '.join(COLUMNS)}, got {column!r}")
        self._column, self._descending = column, descending

    def rows(self) -> tuple[ResultRow, ...]:
        """What is to be shown, in its order."""
        wanted = self.text.lower().split()
        shown = [
            row
            for row in self._rows
            if (row.reasons or not self.onlyToCheck)
            and all(word in f"{row.name} {row.organ}".lower() for word in wanted)
        ]
        return tuple(self._sorted(shown))

    def _sorted(self, rows: list[ResultRow]) -> list[ResultRow]:
        if not self._column:
            return rows
        known = [row for row in rows if getattr(row, self._column) is not None]
        unknown = [row for row in rows if getattr(row, self._column) is None]
        return sorted(known, key=self._key, reverse=self._descending) + unknown

    def _key(self, row: ResultRow) -> Any:
        if self._column == "reasons":  # most reasons to look last, so that descending puts them first
            return len(row.reasons), row.reasons
        value = getattr(row, self._column)
        return value.lower() if isinstance(value, str) else value


def merged(old: Iterable[ResultRow], new: Iterable[ResultRow]) -> tuple[ResultRow, ...]:
    """The rows after organs were added: ``new`` ones replace those of the same organ, the others follow."""
    rows = {row.organ: row for row in old}
    rows.update({row.organ: row for row in new})
    return tuple(rows.values())


def csvText(rows: Iterable[ResultRow], *, delimiter: str = ",") -> str:
    """The rows as CSV with ``CSV_COLUMNS``; what is not known is empty.

    Flags, reasons and places ("R A S") are joined by ``;`` in the same order, as in the statistics of the engine.
    """
    table = io.StringIO()
    writer = csv.writer(table, delimiter=delimiter, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        numbers = (row.volume_ml, row.mean_hu, row.sd_hu, row.confidence, *(row.center_ras_mm or (None, None, None)))
        cells = ("" if number is None else f"{number:.3f}" for number in numbers)
        reasons = "; ".join(check.reason.replace(";", ",") for check in row.checks)
        places = ";".join(_placeText(check.place_ras_mm) for check in row.checks)
        writer.writerow((row.organ, row.name, *cells, ";".join(row.reasons), reasons, places))
    return table.getvalue()


def parseRows(cell: Callable[[int, str], str], numRows: int) -> tuple[ResultRow, ...]:
    """Rows back from the texts of a table with ``CSV_COLUMNS``; a row without organ or volume is left out.

    Args:
        cell: Gives the text in a row and a column.
        numRows: How many rows there are.
    """
    found = []
    for number in range(numRows):
        organ, volume = cell(number, "organ"), _number(cell(number, "volume_ml"))
        if not organ or volume is None:
            continue
        found.append(
            ResultRow(
                organ=organ,
                name=cell(number, "name") or organ,
                volume_ml=volume,
                mean_hu=_number(cell(number, "mean_hu")),
                sd_hu=_number(cell(number, "sd_hu")),
                confidence=_number(cell(number, "mean_confidence")),
                center_ras_mm=_point([cell(number, f"center_{axis}_mm") for axis in "ras"]),
                checks=_checks(*(cell(number, name) for name in ("please_check", "reasons", "places_ras_mm"))),
            )
        )
    return tuple(found)


def _checks(flags: str, reasons: str, places: str) -> tuple[OrganCheck, ...]:
    """The checks of three cells; tables of earlier versions have flags alone."""
    cells = zip_longest(*(cell.split(";") for cell in (flags, reasons, places)), fillvalue="")
    return tuple(
        OrganCheck(flag=flag, reason=reason.strip(), place_ras_mm=_point(place.split()))
        for flag, reason, place in cells
        if flag
    )


def _placeText(place: Point | None) -> str:
    return "" if place is None else " ".join(f"{mm:.3f}" for mm in place)


def _point(texts: Sequence[str]) -> Point | None:
    """Three numbers; None if there are not just three, or one of them is none."""
    numbers = [number for number in map(_number, texts) if number is not None]
    return (numbers[0], numbers[1], numbers[2]) if len(texts) == len(numbers) == 3 else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
