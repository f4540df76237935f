"""The panel's logic with the real worker and a tiny model: everything but MRML."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_scan import make_registry, tiny_volume

from wbcss.arrayfile import ArrayFile, read_array, write_array
from wbcss.organlist import organ_items
from wbcss.protocol import OrganItem
from wbcss.volume import LabelMap
from WholeBodyCSSLib.EngineProcess import EngineProcess
from WholeBodyCSSLib.SegmentLogic import Order, Outcome, SegmentLogic


class ArrayScene:
    """A scene in which volumes are the engine's own and organs are an array."""

    def __init__(self) -> None:
        self.labels: LabelMap | None = None
        self.organs: tuple[OrganItem, ...] = ()

    def writeVolume(self, volumeNode: Any, path: Path) -> ArrayFile:
        return write_array(path, volumeNode.voxels, volumeNode.affine)

    def showOrgans(
        self,
        labels: ArrayFile,
        organs: Sequence[OrganItem],
        volumeNode: Any,
        segmentationNode: Any = None,
        found: Collection[str] | None = None,
    ) -> Any:
        self.labels, self.organs = read_array(labels), tuple(organs)
        np.testing.assert_allclose(labels.affine_ras_mm, volumeNode.affine)
        return "segmentation"

    def placementNote(self, volumeNode: Any) -> str:
        return ""

    def isInScene(self, node: Any) -> bool:
        return True


@pytest.fixture
def process() -> Iterator[EngineProcess]:
    owner = EngineProcess()
    yield owner
    owner.stop(20.0)


@pytest.mark.slow
def test_a_click_ends_with_organs_in_the_scene(process: EngineProcess, tmp_path: Path) -> None:
    scene, volume = ArrayScene(), tiny_volume()
    registry = make_registry(tmp_path / "registry")
    logic = SegmentLogic(process, scene)
    ended: list[Any] = []
    stages: list[str] = []
    logic.onFinished = ended.append
    logic.onFailed = ended.append
    logic.onProgress = lambda fraction, stage, remaining_s: stages.append(stage)
    organs = organ_items(registry)
    logic.start(Order(volume=volume, organs=organs, registry=registry.root))
    deadline = time.monotonic() + 100
    while not ended and time.monotonic() < deadline:
        logic.poll()
        time.sleep(0.02)
    (outcome,) = ended
    assert isinstance(outcome, Outcome), outcome
    assert outcome.segmentationNode == "segmentation"
    assert stages
    assert scene.labels is not None
    assert scene.labels.shape == volume.shape
    assert set(np.unique(scene.labels).tolist()) - {0} <= {organ.label for organ in organs}
    assert {row.label for row in outcome.rows if row.voxels} == set(np.unique(scene.labels).tolist()) - {0}
