"""Three annotated cases of a new organ: trained, proven, published, found in a fourth case, carried elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_cases
import tiny_enrollment
import widget_hosts

from wbcss.cli.main import main as wbcss
from wbcss.io.labelmap import read_labels
from wbcss.io.writing import write_volume
from wbcss.labels import TaskId
from wbcss.registry import Registry
from wbcss.volume import LabelMap

pytestmark = [pytest.mark.scene, pytest.mark.timeout(1800)]

SCRIPT = Path(__file__).with_name("wizard_in_slicer.py")
LUMP = 3
"""What the tiny label maps call the organ that is learned."""


def segmented(scan: Path, registry: Path, out: Path) -> LabelMap:
    options = ["--registry", str(registry), "--tasks", "lump", "--device", "cpu"]
    assert wbcss(["segment", str(scan), "-o", str(out), *options]) == 0
    return read_labels(out).labels


def dice(one: object, other: object) -> float:
    a, b = np.asarray(one, bool), np.asarray(other, bool)
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_an_organ_is_taught_published_found_and_carried_elsewhere(tmp_path: Path) -> None:
    registry = tiny_enrollment.registry_with_earlier_task(tmp_path / "registry")
    before = registry.fingerprint()
    shutil.copytree(registry.root, tmp_path / "elsewhere")
    package, told = tmp_path / "lump-1.wbtask", tmp_path / "told.json"
    done = widget_hosts.run_script(
        widget_hosts.HARNESS,
        SCRIPT,
        *map(str, (registry.root, tmp_path / "work", package, told)),
        timeout_s=1500,
    )
    assert done.returncode == 0, widget_hosts.tail(done)

    report = json.loads(told.read_text())["report"]
    assert (report["task"], report["published"]) == ("lump@1", True)
    assert (report["unchanged"], report["unchanged_organs"]) == (["spine@1"], 1)
    assert registry.verify() == []
    assert {name: sha256 for name, sha256 in registry.fingerprint().items() if name in before} == before
    card = registry.card(TaskId("lump"))
    organs = {organ.name: organ for organ in card.organs}
    assert set(organs) == {"lump", "kidney_left"}
    lump = organs["lump"]
    assert (lump.display_name, lump.label, lump.type.meaning) == ("Lump of the liver", 10000, "Mass")
    assert lump.region is not None
    assert lump.region.value == "10200004"
    assert (card.training_cases, card.license, card.limits) == (2, "CC0-1.0", "knows blocks only")

    fourth = tmp_path / "fourth.nii.gz"
    write_volume(fourth, tiny_cases.hu(7) + tiny_enrollment.CONTRAST[tiny_cases.labels()], tiny_cases.AFFINE)
    found = segmented(fourth, registry.root, tmp_path / "here.nii.gz")
    assert dice(found == lump.label, tiny_cases.labels() == LUMP) > 0.5

    shutil.rmtree(registry.root)
    elsewhere = Registry(tmp_path / "elsewhere")
    assert wbcss(["tasks", "import", str(package), "--registry", str(elsewhere.root)]) == 0
    again = segmented(fourth, elsewhere.root, tmp_path / "there.nii.gz")
    number = {organ.name: organ.label for organ in elsewhere.card(TaskId("lump")).organs}["lump"]
    np.testing.assert_array_equal(again == number, found == lump.label)
    private = [path for path in (tmp_path / "work").rglob("*") if "smith" in path.name.lower()]
    assert private == []
    assert b"mith" not in package.read_bytes()
