"""The table of a result: what was measured of each organ, what to check, sorting, filtering, CSV. No Qt, no scene."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wbcss.errors import InputError
from wbcss.protocol import OrganItem, OrganRow

COLUMNS = ("name", "volume_ml", "mean_hu", "sd_hu", "confidence", "reasons")
"""Columns of the table as it is shown, and by which it can be sorted."""

CSV_COLUMNS = (
    "organ", "name", "volume_ml", "mean_hu", "sd_hu", "mean_confidence",
    "center_r_mm", "center_a_mm", "center_s_mm", "please_check",
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
        reasons: Why a person should look at it: the flags of the engine, whatever they are. Empty if nothing is odd.
    """

    organ: str
    name: str
    volume_ml: float
    mean_hu: float | None = None
    sd_hu: float | None = None
    confidence: float | None = None
    center_ras_mm: Point | None = None
    reasons: tuple[str, ...] = ()


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
            reasons=row.flags,
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


def reasonText(flag: str, known: Mapping[str, str]) -> str:
    """A flag of the engine in words: those of ``known``, else the flag itself made readable."""
    words = flag.replace("_", " ").strip()
    return known.get(flag) or words[:1].upper() + words[1:]


def csvText(rows: Iterable[ResultRow], *, delimiter: str = ",") -> str:
    """The rows as CSV with ``CSV_COLUMNS``; what is not known is empty, several reasons are joined by ``;``."""
    table = io.StringIO()
    writer = csv.writer(table, delimiter=delimiter, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        numbers = (row.volume_ml, row.mean_hu, row.sd_hu, row.confidence, *(row.center_ras_mm or (None, None, None)))
        cells = ("" if number is None else f"{number:.3f}" for number in numbers)
        writer.writerow((row.organ, row.name, *cells, ";".join(row.reasons)))
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
        center = [_number(cell(number, f"center_{axis}_mm")) for axis in "ras"]
        r, a, s = center
        found.append(
            ResultRow(
                organ=organ,
                name=cell(number, "name") or organ,
                volume_ml=volume,
                mean_hu=_number(cell(number, "mean_hu")),
                sd_hu=_number(cell(number, "sd_hu")),
                confidence=_number(cell(number, "mean_confidence")),
                center_ras_mm=None if r is None or a is None or s is None else (r, a, s),
                reasons=tuple(filter(None, cell(number, "please_check").split(";"))),
            )
        )
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
