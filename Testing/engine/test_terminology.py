"""Coded concepts and terminology strings."""

from __future__ import annotations

import pytest

from wbcss.errors import SpecError
from wbcss.terminology import Code, Terminology, is_snomed_id

STRUCTURE = Code(scheme="SCT", value="123037004", meaning="Anatomical Structure")
KIDNEY = Code(scheme="SCT", value="64033007", meaning="Kidney")
LEFT = Code(scheme="SCT", value="7771000", meaning="Left")
CYST = Code(scheme="SCT", value="367643001", meaning="Cyst")

# The multiplication and permutation tables as printed in descriptions of Verhoeff's scheme.
VERHOEFF_PRODUCT = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
VERHOEFF_PERMUTATION = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def _valid_by_tables(text: str) -> bool:
    check = 0
    for position, digit in enumerate(reversed(text)):
        check = int(VERHOEFF_PRODUCT[check][int(VERHOEFF_PERMUTATION[position % 8][int(digit)])])
    return check == 0


def test_the_check_digit_agrees_with_the_printed_tables() -> None:
    numbers = [str(n) for n in range(100_000, 1_300_000, 977)]
    assert [is_snomed_id(n) for n in numbers] == [_valid_by_tables(n) for n in numbers]
    assert any(_valid_by_tables(n) for n in numbers)


def test_exactly_one_last_digit_is_valid_for_every_stem() -> None:
    assert [last for last in range(10) if is_snomed_id(f"1020000{last}")] == [4]


def test_every_mistyped_digit_and_every_swap_of_neighbors_is_found() -> None:
    good = "10200004"
    for place in range(len(good)):
        for digit in "0123456789":
            if digit != good[place]:
                assert not is_snomed_id(good[:place] + digit + good[place + 1 :])
        swapped = good[:place] + good[place : place + 2][::-1] + good[place + 2 :]
        assert swapped == good or not is_snomed_id(swapped)


@pytest.mark.parametrize("text", ["", "12345", "abcdef", "0200004", "1020000 4", "1" * 19, "102-0000", "64033007\n"])
def test_text_that_is_no_snomed_id_is_refused(text: str) -> None:
    assert not is_snomed_id(text)


def test_a_mistyped_snomed_code_names_the_value() -> None:
    with pytest.raises(SpecError, match="'64033008' \\(Kidney\\) is no SNOMED CT id"):
        Code(scheme="SCT", value="64033008", meaning="Kidney")


def test_codes_of_other_schemes_need_no_check_digit() -> None:
    assert Code(scheme="99LOCAL", value="A-12", meaning="My organ").value == "A-12"


@pytest.mark.parametrize(
    ("scheme", "value", "meaning", "message"),
    [
        ("", "1", "x", "the scheme of a code must be 1 to 16 characters.*got ''"),
        ("S" * 17, "1", "x", "the scheme of a code.*SSSS"),
        ("99X", " ", "x", "the value of a code must be 1 to 64 characters.*got ' '"),
        ("99X", "a^b", "x", "the value of a code.*got 'a\\^b'"),
        ("99X", "1", "left~right", "the meaning of a code.*got 'left~right'"),
        ("99X", "1", "a|b", "the meaning of a code.*got 'a\\|b'"),
        ("99X", "1", "m" * 65, "the meaning of a code must be 1 to 64"),
    ],
)
def test_code_parts_that_would_break_a_file_are_refused(scheme: str, value: str, meaning: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Code(scheme=scheme, value=value, meaning=meaning)


def test_a_code_survives_json() -> None:
    assert Code.from_json(KIDNEY.to_json()) == KIDNEY


@pytest.mark.parametrize("values", ["64033007", {"scheme": "SCT"}, None, {**KIDNEY.to_json(), "more": 1}])
def test_a_code_that_cannot_be_read_shows_what_came(values: object) -> None:
    with pytest.raises(SpecError, match="a code must be an object with scheme, value and meaning, got"):
        Code.from_json(values)


def test_a_terminology_entry_is_written_as_slicer_writes_it() -> None:
    entry = Terminology(category=STRUCTURE, type=KIDNEY, type_modifier=LEFT)
    assert str(entry) == (
        "Segmentation category and type - 3D Slicer General Anatomy list"
        "~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^7771000^Left"
        "~Anatomic codes - DICOM master list~^^~^^"
    )


@pytest.mark.parametrize(
    "entry",
    [
        Terminology(category=STRUCTURE, type=KIDNEY),
        Terminology(category=STRUCTURE, type=KIDNEY, type_modifier=LEFT),
        Terminology(category=STRUCTURE, type=CYST, region=KIDNEY, region_modifier=LEFT),
    ],
)
def test_a_terminology_entry_parses_back(entry: Terminology) -> None:
    assert Terminology.parse(str(entry)) == entry


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("liver", "a terminology entry must be context~category.*got 'liver'"),
        ("c~^^~^^~^^~a~^^~^^", "needs a category and a type, got 'c~\\^\\^"),
        ("c~SCT^123037004~^^~^^~a~^^~^^", "must be scheme\\^value\\^meaning, got 'SCT\\^123037004'"),
    ],
)
def test_text_that_is_no_terminology_entry_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Terminology.parse(text)
