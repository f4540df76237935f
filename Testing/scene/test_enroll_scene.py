"""Cases out of the scene: pairs of nodes, neutral names, and patients that stay on one side of the split."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_cases import AFFINE, hu, labels

from wbcss.catalogue import find
from wbcss.errors import GeometryError, InputError
from wbcss.io.reading import read_volume
from wbcss_training.annotation import read_case
from wbcss_training.cases import read_case_list
from WholeBodyCSSLib.EnrollScene import EnrollScene, SceneCase

LIVER, KIDNEY = find(["liver", "kidney_left"])


class Node:
    def __init__(self, name: str) -> None:
        self.name = name

    def GetName(self) -> str:
        return self.name


class Reader:
    """Every volume holds the tiny body; ``owners`` says whose it is."""

    def __init__(self, **owners: int) -> None:
        self.owners = owners

    def read(self, volumeNode: Any, segmentationNode: Any) -> SceneCase:
        if volumeNode.name == "empty":
            raise GeometryError("empty must hold voxels, got an empty volume; choose another one")
        drawn = labels().astype(np.uint16)
        values = np.where(drawn == 3, LIVER.label, np.where(drawn == 1, KIDNEY.label, 0)).astype(np.uint16)
        return SceneCase(
            voxels=hu(len(volumeNode.name)),
            affine=AFFINE,
            labels=values,
            organs=(LIVER, KIDNEY),
            numShared=12 if segmentationNode.name == "shared" else 0,
            owner=self.owners.get(volumeNode.name, 0),
        )


def exported(scene: EnrollScene, folder: Path) -> list[Path]:
    done: list[Path] = []
    scene.onDone = done.append
    scene.export(folder)
    give_up_s = time.monotonic() + 30
    while scene.isBusy:
        assert time.monotonic() < give_up_s
        scene.poll()
        time.sleep(0.005)
    return done


def scene_of(reader: Reader, *names: str, segmentation: str = "drawn") -> EnrollScene:
    scene = EnrollScene(reader)
    for name in names:
        scene.add(Node(name), Node(segmentation))
    return scene


def test_pairs_become_cases_that_the_back_end_reads(tmp_path: Path) -> None:
    scene = scene_of(Reader(), "Smith^John", "Doe^Jane ")
    (path,) = exported(scene, tmp_path / "cases")
    cases = read_case_list(path)
    assert [case.organs for case in cases] == [("kidney_left", "liver")] * 2
    volume, drawn = read_case(cases[0])
    np.testing.assert_array_equal(volume.voxels, hu(len("Smith^John")))
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert np.count_nonzero(drawn == LIVER.label) == np.count_nonzero(labels() == 3)
    assert [case.absent for case in cases] == ["unknown"] * 2


def test_no_name_of_a_node_reaches_a_file(tmp_path: Path) -> None:
    exported(scene_of(Reader(), "Smith^John", segmentation="Smith seg"), tmp_path / "cases")
    files = sorted((tmp_path / "cases").iterdir())
    assert [file.name for file in files] == ["case_0001.nrrd", "case_0001.seg.nrrd", "list.json"]
    assert not any(b"smith" in file.read_bytes().lower() for file in files)
    read_volume(files[0])


def test_volumes_of_one_patient_stay_together(tmp_path: Path) -> None:
    (path,) = exported(scene_of(Reader(a=7, b=7), "a", "b", "c"), tmp_path / "cases")
    patients = [case.patient for case in read_case_list(path)]
    assert patients[0] == patients[1] != patients[2]
    assert [set(entry) for entry in json.loads(path.read_text())["cases"]] == [{"patient", "labels", "image"}] * 3


def test_what_cannot_be_exported_ends_the_export_and_is_told(tmp_path: Path) -> None:
    scene = scene_of(Reader(), "a", "empty")
    assert exported(scene, tmp_path / "cases") == []
    assert scene.message == "empty must hold voxels, got an empty volume; choose another one"


def test_overlapping_segments_are_noted(tmp_path: Path) -> None:
    scene = scene_of(Reader(), "a", segmentation="shared")
    exported(scene, tmp_path / "cases")
    assert scene.notes == ("a  +  shared: 12 voxels belong to several segments; the last one takes them",)


def test_a_pair_needs_both_nodes_and_a_volume_counts_once(tmp_path: Path) -> None:
    scene = EnrollScene(Reader())
    with pytest.raises(InputError, match="add at least one case"):
        scene.export(tmp_path)
    with pytest.raises(InputError, match="choose a volume and a segmentation"):
        scene.add(Node("a"), None)
    volume = Node("a")
    scene.add(volume, Node("x"))
    with pytest.raises(InputError, match="a is one of the cases already"):
        scene.add(volume, Node("y"))
    scene.remove(0)
    assert scene.pairs == ()


def test_a_closing_scene_ends_the_export(tmp_path: Path) -> None:
    scene = scene_of(Reader(), "a", "b")
    scene.export(tmp_path / "cases")
    scene.poll()
    scene.clear()
    assert (scene.isBusy, scene.pairs) == (False, ())
