"""Names of datasets to organs: spellings that are clear, names that are not, and what the user decides himself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wbcss.catalogue import catalogue
from wbcss.errors import CaseError, LabelSpaceError
from wbcss.labels import OrganName
from wbcss_training.mapping import ALL_ORGANS, OrganChoice, map_names, organ_of, parse_choice

ORGANS = sorted(catalogue())
SIDED = [name for name, organ in catalogue().items() if organ.side != "none" and name.endswith(("_left", "_right"))]


def words_of(name: str) -> list[str]:
    return name.split("_")


@given(name=st.sampled_from(ORGANS), separator=st.sampled_from([" ", "-", "_", "  ", ". "]), upper=st.booleans())
def test_case_spaces_and_hyphens_do_not_matter(name: str, separator: str, upper: bool) -> None:
    words = [word.capitalize() if upper else word for word in words_of(name)]
    assert organ_of(separator.join(words)) == name


@given(name=st.sampled_from(SIDED), abbreviation=st.booleans(), first=st.booleans(), glued=st.booleans())
def test_the_side_may_stand_at_either_end_and_be_short(name: str, abbreviation: bool, first: bool, glued: bool) -> None:
    *words, side = words_of(name)
    side = side[0].upper() if abbreviation else side.capitalize()
    words = [word[0].upper() + word[1:] for word in words]
    assert organ_of(("" if glued else " ").join([side, *words] if first else [*words, side])) == name


@given(name=st.sampled_from(ORGANS))
def test_every_organ_is_found_by_what_people_read(name: str) -> None:
    assert organ_of(catalogue()[OrganName(name)].display_name) == name


@given(text=st.text(max_size=30))
def test_whatever_is_found_is_in_the_catalogue(text: str) -> None:
    assert organ_of(text) in {None, *catalogue()}


@pytest.mark.parametrize(
    ("name", "organ"),
    [
        ("RightParotid", "parotid_gland_right"),
        ("SpinalCord", "spinal_cord"),
        ("Oesophagus", "esophagus"),
        ("coeliac trunk", "celiac_trunk"),
        ("haematoma", "hematoma"),
        ("Liver tumour", "liver_tumor"),
        ("left kidney", "kidney_left"),
        ("Kidney_L", "kidney_left"),
        ("Kidneys left", "kidney_left"),
        ("Rt. Lung", "lung_right"),
        ("Left upper lobe of the lung", "lung_upper_lobe_left"),
        ("rib_left_05", "rib_left_5"),
        ("Vertebra L1", "vertebrae_L1"),
        ("Thyroid", "thyroid_gland"),
    ],
)
def test_common_spellings(name: str, organ: str) -> None:
    assert organ_of(name) == organ


@pytest.mark.parametrize("name", ["kidney", "ileum", "caudate", "heart muscle", "L", "left", "", "vertebrae L", "livr"])
def test_what_is_not_clear_is_left_to_the_user(name: str) -> None:
    assert organ_of(name) is None


def test_unknown_names_are_told_with_the_nearest_ones() -> None:
    with pytest.raises(CaseError) as told:
        map_names(["liver", "kidny left", "qqq", *"abcde"], ALL_ORGANS, source="list.json")
    text = str(told.value)
    assert text.startswith("list.json names 7 organ(s) that the catalogue lacks: 'kidny left' (near: kidney_left, ")
    assert "'qqq', 'a', 'b', 'c' and 2 more; choose with --organs NAME=ORGAN, or NAME=new:ORGAN" in text


def test_two_names_of_one_organ_are_refused() -> None:
    with pytest.raises(CaseError, match="may name an organ once, got 'liver' and 'LIVER' for liver"):
        map_names(["liver", "LIVER"], ALL_ORGANS, source="list.json")


def test_a_choice_takes_renames_and_declares() -> None:
    choice = parse_choice("liver, Gland=parotid_gland_left, GTV=new:my_tumor, left kidney")
    assert choice.new_organs == {"my_tumor"}
    names = ["Liver", "Gland", "GTV", "spleen", "who knows"]
    assert map_names(names, choice, source="x") == {"Liver": "liver", "Gland": "parotid_gland_left", "GTV": "my_tumor"}
    assert choice.wanted == {"liver", "parotid_gland_left", "my_tumor", "kidney_left"}


def test_all_takes_the_rest_too() -> None:
    choice = parse_choice("all,Gland=parotid_gland_left")
    assert map_names(["liver", "Gland"], choice, source="x") == {"liver": "liver", "Gland": "parotid_gland_left"}
    with pytest.raises(CaseError, match="'who knows'"):
        map_names(["who knows"], choice, source="x")


def test_a_rename_wins_over_the_name_itself() -> None:
    choice = OrganChoice(renames={"liver": OrganName("spleen")})
    assert map_names(["liver"], choice, source="x") == {"liver": "spleen"}


def test_a_chosen_organ_behind_a_misspelt_name_is_told() -> None:
    with pytest.raises(CaseError, match="x has no label called liver, but 'livr'; if they are one, choose livr=liver"):
        map_names(["livr", "spleen"], parse_choice("liver"), source="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "organs must be names separated by commas, each ORGAN or NAME=ORGAN, got ''"),
        ("liver,,spleen", "each ORGAN or NAME=ORGAN, got 'liver,,spleen'"),
        ("=liver", "each ORGAN or NAME=ORGAN, got '=liver'"),
        ("liver=", "each ORGAN or NAME=ORGAN, got 'liver='"),
        ("livr", r"the option organs names 1 organ\(s\) that the catalogue lacks: 'livr' \(near: liver\)"),
        ("liver,Liver", "each organ may be chosen once, got 'Liver' again"),
        ("a=liver,a=spleen", "each organ may be chosen once, got 'a=spleen' again"),
        ("new:liver", "a new organ must not be in the catalogue, got 'new:liver'; leave out 'new:'"),
    ],
)
def test_a_choice_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(CaseError, match=message):
        parse_choice(text)


def test_a_new_organ_needs_a_proper_name() -> None:
    with pytest.raises(LabelSpaceError, match=r"an organ name must start with a letter .* got '2nd tumor'"):
        parse_choice("new:2nd tumor")


def test_cases_may_call_one_organ_by_several_names() -> None:
    choice = parse_choice("liver,Livr=liver,Hepar=liver,a=new:lump,b=new:lump")
    assert choice.wanted == {"liver", "lump"}
    for name in ("Liver", "Livr", "Hepar"):
        assert map_names([name, "a"], choice, source="x") == {name: "liver", "a": "lump"}
    with pytest.raises(CaseError, match="x may name an organ once, got 'Livr' and 'Hepar' for liver"):
        map_names(["Livr", "Hepar"], choice, source="x")
