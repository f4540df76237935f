"""Label values: one organ each, for good."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_registry import make_organ

from wbcss.catalogue import FIRST_CUSTOM_LABEL
from wbcss.errors import LabelSpaceError, RegistryError
from wbcss.labels import MAX_LABEL, OrganName
from wbcss.ledger import allocate, catalogue_owners, check_claims, read_ledger, write_ledger

LIVER, CYST, STENT = OrganName("liver"), OrganName("x_cyst"), OrganName("x_stent")


def test_a_ledger_survives_the_trip_through_its_file(tmp_path: Path) -> None:
    owners = {10001: STENT, 5: LIVER}
    write_ledger(tmp_path, owners)
    assert read_ledger(tmp_path) == owners
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]


def test_no_ledger_means_no_values() -> None:
    assert read_ledger(Path("/nowhere")) == {}


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"format": "wbcss-labels", "format_version": 1, "labels": {"0": "liver"}}')
    with pytest.raises(RegistryError, match=r"labels\.json: labels must not contain \{'0'\} properties"):
        read_ledger(tmp_path)


def test_new_organs_get_the_next_free_values_and_known_ones_keep_theirs() -> None:
    owners = {5: LIVER, 10000: CYST, 10007: OrganName("retired_organ")}
    assert allocate([STENT, LIVER, CYST, OrganName("x_graft"), STENT], owners) == {
        "x_stent": 10008,
        "liver": 5,
        "x_cyst": 10000,
        "x_graft": 10009,
    }
    assert allocate([STENT], {5: LIVER}) == {"x_stent": FIRST_CUSTOM_LABEL}


def test_the_last_value_is_the_last() -> None:
    with pytest.raises(LabelSpaceError, match="no label value up to 65535 is free for organ 'x_stent'"):
        allocate([STENT], {MAX_LABEL: CYST})


def test_a_name_that_cannot_be_an_organ_gets_no_value() -> None:
    with pytest.raises(LabelSpaceError, match=r"an organ name must start with a letter .*, got '7th rib'"):
        allocate([OrganName("7th rib")], {})


def test_a_value_of_another_organ_is_refused() -> None:
    with pytest.raises(RegistryError, match="gives the label value 5 to 'x_stent', but here it belongs to 'liver'"):
        check_claims([make_organ("x_stent", 5)], {5: LIVER}, task="t")


def test_a_second_value_for_an_organ_is_refused() -> None:
    with pytest.raises(RegistryError, match="gives 'liver' the label value 77, but here this organ has the value 5"):
        check_claims([make_organ("liver", 77)], {5: LIVER}, task="t")


def test_catalogue_values_lie_below_the_custom_ones() -> None:
    owners = catalogue_owners()
    assert owners[5] == "liver"
    assert max(owners) < FIRST_CUSTOM_LABEL
