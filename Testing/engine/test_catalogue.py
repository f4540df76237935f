"""The organ table: complete, unambiguous, coded and colored."""

from __future__ import annotations

import colorsys
import csv
import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import fastjsonschema
import pytest
from pydicom.sr._concepts_dict import concepts

from wbcss.catalogue import FIRST_CUSTOM_LABEL, LEFT, RIGHT, Organ, catalogue, find, groups, search, suggest
from wbcss.errors import InputError, LabelSpaceError, SpecError
from wbcss.labels import OrganName
from wbcss.resources import resource_path
from wbcss.terminology import Code, Terminology, is_snomed_id

STRUCTURE = Code(scheme="SCT", value="123037004", meaning="Anatomical Structure")
UNPAIRED = {"lung_middle_lobe_right"}
"""Organs of one side without a twin; their type code itself says the side."""
ORGANS = tuple(catalogue().values())
VERTEBRAE = [f"C{i}" for i in range(1, 8)] + [f"T{i}" for i in range(1, 13)] + [f"L{i}" for i in range(1, 6)]


def _organ(name: str) -> Organ:
    return catalogue()[OrganName(name)]


def _twin(organ: Organ) -> Organ:
    other = {"left": "right", "right": "left"}[organ.side]
    return _organ("_".join(other if part == organ.side else part for part in organ.name.split("_")))


def _distance(a: Organ, b: Organ) -> float:
    return math.dist(a.color_rgb, b.color_rgb)


PAIRED = tuple(organ for organ in ORGANS if organ.side != "none" and organ.name not in UNPAIRED)


# ---- completeness and label values


def test_there_are_at_least_143_organs_in_label_order() -> None:
    labels = [organ.label for organ in ORGANS]
    assert len(labels) >= 143
    assert labels == sorted(set(labels))


def test_labels_1_to_117_are_taken_and_start_and_end_as_totalsegmentator_does() -> None:
    by_label = {organ.label: organ.name for organ in ORGANS}
    assert set(range(1, 118)) <= set(by_label)
    known = {1: "spleen", 5: "liver", 23: "kidney_cyst_left", 51: "heart", 92: "rib_left_1", 117: "costal_cartilages"}
    assert {label: by_label[label] for label in known} == known


@pytest.mark.data
def test_labels_1_to_117_are_the_totalsegmentator_classes(shared_data: Path) -> None:
    expected = json.loads((shared_data / "totalsegmentator" / "total_117_classes.json").read_text(encoding="utf-8"))
    assert {str(organ.label): organ.name for organ in ORGANS if organ.label <= 117} == expected


@pytest.mark.data
def test_every_organ_of_the_atlas_keeps_its_atlas_label(shared_data: Path) -> None:
    with (shared_data / "atlas" / "atlas_labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ours = {organ.name: organ.label for organ in ORGANS}
    atlas = {row["name"]: int(row["label"]) for row in rows if row["kind"] == "organ"}
    assert {name: ours[OrganName(name)] for name in atlas} == atlas
    tissues = {int(row["label"]) for row in rows if row["kind"] != "organ"}
    assert not tissues & set(ours.values())


def test_labels_stay_out_of_the_tissue_and_custom_ranges() -> None:
    assert all(not 200 <= organ.label < 300 and organ.label < FIRST_CUSTOM_LABEL for organ in ORGANS)


def test_the_seven_openkbp_organs_and_the_sarcoma_are_there() -> None:
    names = "brainstem spinal_cord parotid_gland_right parotid_gland_left esophagus larynx mandible"
    assert all(name in catalogue() for name in (*names.split(), "soft_tissue_sarcoma"))


def test_vertebrae_and_ribs_are_complete() -> None:
    assert all(f"vertebrae_{level}" in catalogue() for level in VERTEBRAE)
    assert all(f"rib_{side}_{i}" in catalogue() for side in ("left", "right") for i in range(1, 13))


# ---- sides


def test_names_say_their_side() -> None:
    for organ in ORGANS:
        parts = set(organ.name.split("_"))
        if organ.side != "none":
            assert organ.side in parts, organ.name


@pytest.mark.parametrize("organ", PAIRED, ids=lambda organ: organ.name)
def test_left_and_right_differ_in_their_modifier_only(organ: Organ) -> None:
    twin = _twin(organ)
    assert twin.side != organ.side
    assert (twin.type, twin.category, twin.group, twin.region, twin.exact) == (
        organ.type,
        organ.category,
        organ.group,
        organ.region,
        organ.exact,
    )
    own, other = (o.type_modifier or o.region_modifier for o in (organ, twin))
    assert {own, other} == {LEFT, RIGHT}
    assert own == (LEFT if organ.side == "left" else RIGHT)


def test_midline_organs_have_no_modifier() -> None:
    alone = [organ for organ in ORGANS if organ not in PAIRED]
    assert all(organ.type_modifier is None and organ.region_modifier is None for organ in alone)


# ---- codes


@pytest.mark.parametrize("organ", ORGANS, ids=lambda organ: organ.name)
def test_codes_are_snomed_ids_and_the_terminology_parses_back(organ: Organ) -> None:
    entry = Terminology.parse(organ.terminology)
    assert (entry.category, entry.type, entry.type_modifier) == (organ.category, organ.type, organ.type_modifier)
    assert (entry.region, entry.region_modifier) == (organ.region, organ.region_modifier)
    assert all(is_snomed_id(code.value) for code in (entry.category, entry.type))
    assert organ.category.value == ("49755003" if organ.group == "lesion" else "123037004")


def test_exactly_coded_organs_are_told_apart_by_their_codes() -> None:
    exact = [organ.terminology for organ in ORGANS if organ.exact]
    assert len(set(exact)) == len(exact)
    inexact = {organ.terminology for organ in ORGANS if not organ.exact}
    assert not inexact & set(exact)
    assert len(exact) >= 0.85 * len(ORGANS)


def test_one_code_has_one_meaning() -> None:
    meanings: dict[str, set[str]] = {}
    for organ in ORGANS:
        for code in (organ.category, organ.type, organ.type_modifier, organ.region, organ.region_modifier):
            if code is not None:
                meanings.setdefault(code.value, set()).add(code.meaning)
    assert {value: found for value, found in meanings.items() if len(found) > 1} == {}


def test_meanings_agree_with_the_dicom_dictionary() -> None:
    dicom: dict[str, set[str]] = {}
    for entries in concepts["SCT"].values():
        for value, (meaning, *_) in entries.items():
            dicom.setdefault(value, set()).update(_stems(meaning))
    known = {organ.type.value: organ.type.meaning for organ in ORGANS if organ.type.value in dicom}
    wrong = {value: meaning for value, meaning in known.items() if not _stems(meaning) & dicom[value]}
    assert wrong == {}
    assert len(known) > 0.7 * len({organ.type.value for organ in ORGANS})


def _stems(text: str) -> set[str]:
    """First letters of the telling words: "Testicular" and "Testis" are the same thing."""
    plain = {"of", "and", "left", "right", "structure", "(body", "structure)", "muscle", "bone", "artery", "vein"}
    words = text.lower().split()
    telling = [word for word in words if word not in plain] or words
    return {word[:4] for word in telling}


# ---- colors


def test_colors_are_unique_and_not_background_black() -> None:
    colors = [organ.color_rgb for organ in ORGANS]
    assert len(set(colors)) == len(colors)
    assert min(max(color) for color in colors) > 100


@pytest.mark.parametrize("organ", [o for o in PAIRED if o.side == "left"], ids=lambda organ: organ.name)
def test_left_and_right_share_a_hue_but_not_a_color(organ: Organ) -> None:
    twin = _twin(organ)
    hues = [colorsys.rgb_to_hsv(*(c / 255 for c in o.color_rgb))[0] for o in (organ, twin)]
    apart = abs(hues[0] - hues[1])
    assert min(apart, 1 - apart) < 0.06
    assert 6 < _distance(organ, twin) < 60


def test_neighboring_vertebrae_and_ribs_are_told_apart() -> None:
    spine = [_organ(f"vertebrae_{level}") for level in VERTEBRAE]
    left = [_organ(f"rib_left_{i}") for i in range(1, 13)]
    right = [_organ(f"rib_right_{i}") for i in range(1, 13)]
    for chain in (spine, left, right):
        assert min(_distance(a, b) for a, b in pairwise(chain)) > 60


@pytest.mark.parametrize(
    ("names", "strongest"),
    [(("aorta", "iliac_artery_left", "celiac_trunk"), 0), (("inferior_vena_cava", "iliac_vena_right"), 2)],
)
def test_arteries_are_red_and_veins_are_blue(names: tuple[str, ...], strongest: int) -> None:
    assert all(max(range(3), key=_organ(name).color_rgb.__getitem__) == strongest for name in names)


# ---- names and groups


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("kidney_left", "Left kidney"),
        ("vertebrae_L1", "Vertebra L1"),
        ("rib_left_3", "Left rib 3"),
        ("lung_upper_lobe_left", "Left upper lobe of lung"),
        ("lung_middle_lobe_right", "Right middle lobe of lung"),
        ("iliac_vena_right", "Right iliac vein"),
        ("heart_ventricle_left", "Left ventricle of heart"),
        ("portal_vein_and_splenic_vein", "Portal vein and splenic vein"),
        ("soft_tissue_sarcoma", "Soft tissue sarcoma"),
    ],
)
def test_display_names_read_like_english(name: str, shown: str) -> None:
    assert _organ(name).display_name == shown


def test_display_names_are_unique() -> None:
    shown = [organ.display_name for organ in ORGANS]
    assert len(set(shown)) == len(shown)
    assert not any("_" in text for text in shown)


def test_every_group_has_a_title_and_an_organ() -> None:
    assert {organ.group for organ in ORGANS} == set(groups())
    assert {"abdomen", "skeleton_spine", "cardiac", "lesion"} <= set(groups())


# ---- finding


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("livr", "liver"),
        ("Left Kidney", "kidney_left"),
        ("left kidny", "kidney_left"),
        ("kidney-right", "kidney_right"),
        ("vertebra_l1", "vertebrae_L1"),
        ("splen", "spleen"),
        ("oesophagus", "esophagus"),
    ],
)
def test_a_misspelt_name_suggests_the_right_one_first(typed: str, meant: str) -> None:
    assert suggest(typed)[0] == meant


def test_nothing_is_suggested_for_nonsense_and_only_from_the_given_names() -> None:
    assert suggest("qqqqxz") == ()
    assert suggest("livr", among=[OrganName("spleen")]) == ()
    assert len(suggest("rib_left_3", limit=2)) == 2


def test_find_keeps_the_order_asked_for() -> None:
    assert [organ.label for organ in find(["spleen", "liver", "kidney_left"])] == [1, 5, 3]


def test_find_lists_suggestions_for_every_unknown_name() -> None:
    with pytest.raises(InputError, match=r"unknown organ 'livr': did you mean liver.*unknown organ 'splen'.*spleen"):
        find(["livr", "aorta", "splen"])
    with pytest.raises(InputError, match=r"unknown organ 'qqqqxz': `wbcss organs` lists"):
        find(["qqqqxz"])


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("kidney left", "kidney_left"),
        ("collarbone", "clavicula_left"),
        ("hamstrings", "thigh_posterior_compartment_left"),
    ],
)
def test_search_looks_into_display_names_and_synonyms(text: str, first: str) -> None:
    assert search(text)[0].name == first


def test_search_needs_every_word_and_empty_text_finds_all() -> None:
    assert {organ.name for organ in search("lumb vert")} == {f"vertebrae_L{i}" for i in range(1, 6)}
    assert search("liver qqqq") == ()
    assert len(search("")) == len(ORGANS)


# ---- organs made by users


def _custom(**changes: object) -> Organ:
    values: dict[str, object] = {
        "name": OrganName("my_organ"), "label": FIRST_CUSTOM_LABEL, "side": "none", "group": "custom",
        "color_rgb": (1, 2, 3), "category": STRUCTURE, "type": _organ("liver").type,
    }  # fmt: skip
    return Organ(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("organ", [*ORGANS[:60:7], _custom(), _organ("kidney_cyst_left"), _organ("hip_left")])
def test_an_organ_survives_json(organ: Organ) -> None:
    assert Organ.from_json(json.loads(json.dumps(organ.to_json()))) == organ


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"name": "my organ"}, LabelSpaceError, "got 'my organ'"),
        ({"label": 0}, LabelSpaceError, "label value of 'my_organ' must be in 1..65535, got 0"),
        ({"label": 70000}, LabelSpaceError, "got 70000"),
        ({"label": True}, LabelSpaceError, "got True"),
        ({"side": "both"}, SpecError, "side of 'my_organ' must be left, right or none, got 'both'"),
        ({"group": "My group"}, SpecError, "group of 'my_organ' must hold only a-z, 0-9 and _, got 'My group'"),
        ({"color_rgb": (1, 2)}, SpecError, r"three whole numbers 0..255, got \(1, 2\)"),
        ({"color_rgb": (1, 2, 256)}, SpecError, r"three whole numbers 0..255, got \(1, 2, 256\)"),
        ({"color_rgb": (1, 2, 0.5)}, SpecError, r"got \(1, 2, 0.5\)"),
        ({"side": "left", "type_modifier": RIGHT}, SpecError, "side 'left' but its modifier says SCT 24028007 Right"),
        ({"region_modifier": LEFT}, SpecError, "side 'none' but its modifier says SCT 7771000 Left"),
    ],
)
def test_a_wrong_custom_organ_is_refused_with_its_value(
    changes: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        _custom(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": [1, 2, 3]}, "an organ has no field colour; its fields are name, label"),
        ({"name": 3}, "organ 3 cannot be read"),
        ({"color_rgb": 5}, "organ 'liver' cannot be read"),
        ({"type": "liver"}, "a code must be an object with scheme, value and meaning, got 'liver'"),
    ],
)
def test_json_that_is_no_organ_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Organ.from_json({**_organ("liver").to_json(), **changes})


def test_a_missing_field_is_named() -> None:
    values = _organ("liver").to_json()
    del values["group"], values["type"]
    with pytest.raises(SpecError, match="organ 'liver' lacks group, type"):
        Organ.from_json(values)


def test_an_organ_without_display_text_gets_one_from_its_name() -> None:
    assert _custom(name=OrganName("inner_node_left"), side="left").display_name == "Left inner node"
    assert replace(_organ("hip_left"), display="").display_name == "Left hip"


def test_every_organ_may_stand_in_a_task_card() -> None:
    schema = json.loads(resource_path("Schemas", "task_card.json").read_text(encoding="utf-8"))
    check = fastjsonschema.compile({"$ref": "#/definitions/organ", "definitions": schema["definitions"]})
    for organ in ORGANS:
        check(organ.to_json())
