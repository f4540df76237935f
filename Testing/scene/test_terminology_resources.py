"""The terminology files: made from the catalogue as it is, loaded once, and known to Slicer's own logic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import terminology_resource
from project_tree import MODULE

from wbcss.catalogue import catalogue
from wbcss.errors import RunError
from WholeBodyCSSLib.TerminologyResources import REGIONS, TYPES, TerminologyResources


class Terminologies:
    """Remembers what was loaded."""

    def __init__(self, answer: str = "context") -> None:
        self.loaded: list[str] = []
        self.answer = answer

    def LoadTerminologyFromFile(self, path: str) -> str:
        self.loaded.append(Path(path).name)
        return self.answer

    LoadRegionContextFromFile = LoadTerminologyFromFile


@pytest.mark.parametrize(
    ("name", "text"), [(TYPES, terminology_resource.types_json()), (REGIONS, terminology_resource.regions_json())]
)
def test_the_files_are_those_of_the_catalogue(name: str, text: str) -> None:
    found = (MODULE / "Resources" / name).read_text(encoding="utf-8")
    assert found == text, "run .venv/bin/python Testing/terminology_resource.py and commit what it writes"


def test_every_organ_is_found_by_its_codes() -> None:
    categories = json.loads(terminology_resource.types_json())["SegmentationCodes"]["Category"]
    known = set()
    for category in categories:
        for kind in category["Type"]:
            codes = (category["CodeValue"], kind["CodeValue"])
            known.add((*codes, None))
            known |= {(*codes, side["CodeValue"]) for side in kind.get("Modifier", ())}
    for organ in catalogue().values():
        side = None if organ.type_modifier is None else organ.type_modifier.value
        assert (organ.category.value, organ.type.value, side) in known, organ.name


def test_the_files_are_loaded_once() -> None:
    logic, resources = Terminologies(), TerminologyResources(MODULE / "Resources")
    resources.load(logic)
    resources.load(logic)
    assert logic.loaded == [TYPES, REGIONS]


def test_a_file_that_slicer_refuses_is_told() -> None:
    with pytest.raises(RunError, match=rf"the terminology file {TYPES} cannot be loaded; install the extension again"):
        TerminologyResources(MODULE / "Resources").load(Terminologies(answer=""))


@pytest.mark.scene
def test_slicer_knows_the_organs_afterwards(slicer: Any) -> None:
    import vtk

    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    TerminologyResources(MODULE / "Resources").load(logic)
    context = "Segmentation category and type - WholeBodyCSS"
    names = vtk.vtkStringArray()
    logic.GetLoadedTerminologyNames(names)
    assert context in [names.GetValue(n) for n in range(names.GetNumberOfValues())]
    category, kind = slicer.vtkSlicerTerminologyCategory(), slicer.vtkSlicerTerminologyType()
    assert logic.GetNthCategoryInTerminology(context, 0, category)
    assert category.GetCodeMeaning() == "Anatomical Structure"
    number = logic.GetNumberOfTypesInTerminologyCategory(context, category)
    expected = {organ.type.value for organ in catalogue().values() if organ.category.value == category.GetCodeValue()}
    found = set()
    for index in range(number):
        assert logic.GetNthTypeInTerminologyCategory(context, category, index, kind)
        found.add(kind.GetCodeValue())
    assert found == expected
    entry = slicer.vtkSlicerTerminologyEntry()
    assert logic.FindTypeInTerminologyBy3dSlicerLabel(context, "kidney_left", entry)
    assert entry.GetTypeObject().GetCodeMeaning() == "Kidney"
    assert entry.GetTypeModifierObject().GetCodeMeaning() == "Left"
