"""Parameters, results, frames and edited labels in the real MRML scene of the slicer-core wheel."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wbcss.arrayfile import write_array
from wbcss.errors import GeometryError, InputError, LabelSpaceError
from wbcss.protocol import OrganCheck, OrganItem
from WholeBodyCSSLib.ParameterNode import ParameterNode
from WholeBodyCSSLib.ResultTable import ResultRow
from WholeBodyCSSLib.RunOptions import RunOptions

pytestmark = pytest.mark.scene

IDENTITY = np.eye(4)
SHAPE = (4, 5, 6)


@pytest.fixture
def slicer() -> Any:
    """The slicer package over a new scene, with what is used of the application."""
    import slicer  # only in this tier: the wheel is not everywhere
    import slicer.util

    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    scene.RegisterNodeClass(slicer.vtkMRMLSequenceBrowserNode())
    segmentations = slicer.vtkSlicerSegmentationsModuleLogic()  # makes segments fit to be copied
    segmentations.SetMRMLScene(scene)
    segmentations.SetMRMLApplicationLogic(application)
    slicer.mrmlScene = scene
    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    return slicer


@pytest.fixture
def results(slicer: Any) -> Any:
    from WholeBodyCSSLib.ResultScene import ResultScene

    return ResultScene()


def volume(slicer: Any, name: str = "ct", value: int = 0) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.full(SHAPE[::-1], value, np.int16))
    return node


def organ(name: str, label: int) -> OrganItem:
    return OrganItem(
        name=name, label=label, display_name=name, group="g", color_rgb=(255, 0, 51), terminology="", tasks=("t",)
    )


LIVER, SPLEEN = organ("liver", 5), organ("spleen", 1)


def result(tmp_path: Path, volumeNode: Any, onto: Any = None, **boxes: slice) -> Any:
    """A segmentation whose organs fill slabs along i."""
    from WholeBodyCSSLib.SceneBridge import SceneBridge

    known = {"liver": LIVER, "spleen": SPLEEN}
    labels = np.zeros(SHAPE, np.uint16, order="F")
    for name, slab in boxes.items():
        labels[slab] = known[name].label
    file = write_array(tmp_path / f"{len(list(tmp_path.iterdir()))}.npy", labels, IDENTITY)
    return SceneBridge().showOrgans(file, [known[name] for name in boxes], volumeNode, onto)


ROW = ResultRow(
    organ="liver",
    name="Liver",
    volume_ml=1.5,
    center_ras_mm=(1.0, 2.0, 3.0),
    checks=(OrganCheck(flag="touches_border", reason="reaches the edge", place_ras_mm=(4.0, 5.0, -6.5)),),
)


def saved_and_loaded(slicer: Any, folder: Path) -> Any:
    """The scene after a trip over the disk."""
    path = folder / "scene.mrml"
    slicer.mrmlScene.SetURL(str(path))
    assert slicer.mrmlScene.Commit(str(path))
    slicer.mrmlScene.Clear()
    assert ParameterNode.inScene(slicer.mrmlScene).organs is None
    slicer.mrmlScene.SetURL(str(path))
    assert slicer.mrmlScene.Import()
    return slicer.mrmlScene


def test_parameters_have_their_defaults_and_there_is_one_set_of_them(slicer: Any) -> None:
    parameters = ParameterNode.inScene(slicer.mrmlScene)
    defaults = RunOptions()
    assert (parameters.quality, parameters.statistics) == (defaults.quality, defaults.statistics)
    assert (parameters.inputVolume, parameters.organs, parameters.onlyToCheck) == (None, None, False)
    parameters.quality = "best"
    assert ParameterNode.inScene(slicer.mrmlScene).quality == "best"


def test_parameters_survive_saving_and_loading(slicer: Any, tmp_path: Path) -> None:
    parameters = ParameterNode.inScene(slicer.mrmlScene)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "患者 ct")
    parameters.inputVolume = transform
    parameters.organs = ("liver", "kidney_left")
    parameters.quality, parameters.statistics = "fast", False
    loaded = ParameterNode.inScene(saved_and_loaded(slicer, tmp_path))
    assert (loaded.organs, loaded.quality, loaded.statistics) == (("liver", "kidney_left"), "fast", False)
    assert loaded.inputVolume.GetName() == "患者 ct"


@pytest.mark.parametrize("organs", [None, (), ("liver",)])
def test_no_organ_is_another_choice_than_all_organs(slicer: Any, organs: tuple[str, ...] | None) -> None:
    parameters = ParameterNode.inScene(slicer.mrmlScene)
    parameters.organs = ("spleen",)
    parameters.organs = organs
    assert parameters.organs == organs


def test_values_that_make_no_sense_are_refused_and_change_nothing(slicer: Any) -> None:
    parameters = ParameterNode.inScene(slicer.mrmlScene)
    with pytest.raises(InputError, match="one of fast, normal, best, got 'superb'"):
        parameters.quality = "superb"  # type: ignore[assignment]
    with pytest.raises(LabelSpaceError, match="two"):
        parameters.organs = ("two-words",)
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    with pytest.raises(InputError, match=r"must be a vtkMRMLScalarVolumeNode or .*, got a vtkMRMLModelNode"):
        parameters.inputVolume = model
    assert (parameters.quality, parameters.organs, parameters.inputVolume) == ("normal", None, None)


def test_what_another_version_wrote_counts_as_not_set(slicer: Any, caplog: pytest.LogCaptureFixture) -> None:
    parameters = ParameterNode.inScene(slicer.mrmlScene)
    parameters.mrmlNode.SetParameter("quality", "ultra")
    with caplog.at_level(logging.WARNING):
        assert parameters.quality == "normal"
    assert "got 'ultra'" in caplog.text


def test_changes_are_told_whoever_made_them_and_together_if_they_belong_together(slicer: Any) -> None:
    parameters, told = ParameterNode.inScene(slicer.mrmlScene), []
    parameters.observe(lambda: told.append(parameters.quality))
    parameters.mrmlNode.SetParameter("quality", "best")
    parameters.quality = "best"
    assert told == ["best"], "the same value again is no change"
    with parameters.changing():
        parameters.quality, parameters.statistics = "fast", False
    assert told == ["best", "fast"]
    parameters.close()
    parameters.quality = "normal"
    assert told == ["best", "fast"]


def test_a_removed_volume_reads_as_none(slicer: Any) -> None:
    parameters = ParameterNode.inScene(slicer.mrmlScene)
    parameters.inputVolume = volume(slicer)
    slicer.mrmlScene.RemoveNode(parameters.inputVolume)
    assert parameters.inputVolume is None


def test_the_latest_result_of_each_volume_is_found_again(slicer: Any, results: Any, tmp_path: Path) -> None:
    first, second = volume(slicer, "first"), volume(slicer, "second")
    nodes = [result(tmp_path, node, liver=slice(0, 2)) for node in (first, first, second)]
    for node, source in zip(nodes, (first, first, second), strict=True):
        results.remember(node, source, [ROW], True)
    assert results.resultOf(first) is nodes[1]
    assert results.resultOf(second) is nodes[2]
    assert results.volumeOf(nodes[2]) is second
    slicer.mrmlScene.RemoveNode(nodes[1])
    assert results.resultOf(first) is nodes[0]
    assert results.resultOf(None) is None


@pytest.mark.parametrize("inTable", [True, False])
def test_rows_are_kept_while_their_segments_are_there(slicer: Any, results: Any, tmp_path: Path, inTable: bool) -> None:
    ct = volume(slicer)
    node = result(tmp_path, ct, liver=slice(0, 2), spleen=slice(2, 4))
    unknown = ResultRow(organ="spleen", name="Spleen", volume_ml=0.25)
    results.remember(node, ct, [ROW, unknown], inTable)
    assert results.rows(node) == (ROW, unknown)
    assert (slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1) == inTable
    node.GetSegmentation().RemoveSegment("spleen")
    assert results.rows(node) == (ROW,)
    results.remember(node, ct, [ROW], inTable)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == int(inTable)


def test_added_organs_leave_the_segments_that_are_there_alone(slicer: Any, results: Any, tmp_path: Path) -> None:
    ct = volume(slicer)
    node = result(tmp_path, ct, liver=slice(0, 2))
    before = node.GetSegmentation().GetSegment("liver")
    assert result(tmp_path, ct, node, spleen=slice(1, 4)) is node
    assert node.GetSegmentation().GetSegment("liver") is before
    assert results.organs(node) == {"liver", "spleen"}
    from WholeBodyCSSLib.LabelReader import readLabels

    kept = readLabels(node, ct, {"liver": 5})
    assert (kept == 5).sum() == 2 * 5 * 6


def test_an_eye_hides_and_shows_one_organ(slicer: Any, results: Any, tmp_path: Path) -> None:
    node = result(tmp_path, volume(slicer), liver=slice(0, 2), spleen=slice(2, 4))
    results.setVisible(node, ["liver"], False)
    assert [results.isVisible(node, name) for name in ("liver", "spleen")] == [False, True]
    assert results.color(node, "liver") == pytest.approx((1.0, 0.0, 0.2))


def test_a_jump_centers_every_slice_view(slicer: Any, results: Any) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    results.jumpTo((10.0, -20.0, 30.0))
    matrix = node.GetSliceToRAS()
    assert [matrix.GetElement(row, 3) for row in range(3)] == pytest.approx([10.0, -20.0, 30.0])


@pytest.mark.parametrize("isMarked", [False, True])
def test_a_jump_takes_the_crosshair_along_and_shows_it_if_asked(slicer: Any, results: Any, isMarked: bool) -> None:
    crosshair = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCrosshairMode(crosshair.NoCrosshair)
    results.jumpTo((10.0, -20.0, 30.0), isMarked=isMarked)
    assert crosshair.GetCrosshairRAS() == (10.0, -20.0, 30.0)
    assert crosshair.GetCrosshairMode() == (crosshair.ShowBasic if isMarked else crosshair.NoCrosshair)
    crosshair.SetCrosshairMode(crosshair.ShowHashmarks)  # as the user likes it
    results.jumpTo((0.0, 0.0, 0.0), isMarked=isMarked)
    assert crosshair.GetCrosshairMode() == crosshair.ShowHashmarks


def test_the_segment_editor_finds_organ_and_volume_ready(slicer: Any, results: Any, tmp_path: Path) -> None:
    ct = volume(slicer)
    node = result(tmp_path, ct, liver=slice(0, 2), spleen=slice(2, 4))
    results.remember(node, ct, [ROW], True)
    results.select(node, "spleen")  # without an editor there is nothing to select in
    results.prepareEditor(node, "liver")
    editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    assert editor.GetSegmentationNode() is node
    assert editor.GetSourceVolumeNode() is ct
    assert editor.GetSelectedSegmentID() == "liver"
    results.select(node, "spleen")
    assert editor.GetSelectedSegmentID() == "spleen"


def edited(slicer: Any, extent: tuple[int, ...], value: int = 1) -> Any:
    """A label map as the Segment Editor leaves it: cropped, with a value of its own."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*extent)
    image.AllocateScalars(2, 1)  # VTK_CHAR
    image.GetPointData().GetScalars().Fill(value)
    return image


def test_edited_organs_are_read_where_they_lie_now(slicer: Any, tmp_path: Path) -> None:
    from WholeBodyCSSLib.LabelReader import readLabels

    ct = volume(slicer)
    node = result(tmp_path, ct, liver=slice(0, 2), spleen=slice(2, 4))
    segment = slicer.vtkSegment()
    segment.SetLabelValue(1)
    segment.AddRepresentation("Binary labelmap", edited(slicer, (1, 1, 0, 4, 2, 9)))  # grows out of the volume
    node.GetSegmentation().AddSegment(segment, "cyst")
    found = readLabels(node, ct, {"liver": 5, "spleen": 1, "cyst": 30000, "not there": 7})
    expected = np.zeros(SHAPE, np.uint16)
    expected[0:2], expected[2:4] = 5, 1
    expected[1, 0:5, 2:6] = 30000
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(readLabels(node, ct, {"spleen": 1}), np.where(expected == 1, 1, 0))


def test_a_segmentation_on_another_grid_is_not_read(slicer: Any, tmp_path: Path) -> None:
    from WholeBodyCSSLib.LabelReader import readLabels

    ct = volume(slicer)
    node = result(tmp_path, ct, liver=slice(0, 2))
    ct.SetSpacing(2.0, 1.0, 1.0)
    with pytest.raises(GeometryError, match=r"must lie on the grid of ct, got one that differs by 1\.00 mm"):
        readLabels(node, ct, {"liver": 5})


def beating(slicer: Any, numFrames: int = 3) -> tuple[Any, Any]:
    """A sequence of volumes and its browser."""
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
    sequence.SetIndexName("time")
    for number in range(numFrames):
        frame = slicer.vtkMRMLScalarVolumeNode()
        frame.SetName("frame")
        slicer.util.updateVolumeFromArray(frame, np.full(SHAPE[::-1], 100 * number, np.int16))
        sequence.SetDataNodeAtValue(frame, str(10 * number))
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return sequence, browser


def test_frames_enter_the_scene_and_their_organs_play_along(slicer: Any, tmp_path: Path) -> None:
    from WholeBodyCSSLib.SequenceBridge import SequenceBridge

    bridge, (sequence, browser) = SequenceBridge(), beating(slicer)
    assert bridge.numFrames(sequence) == 3
    volumes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    for number in (0, 2):
        frame = bridge.openFrame(sequence, number)
        assert frame.GetHideFromEditors()
        assert slicer.util.arrayFromVolume(frame).max() == 100 * number
        assert not bridge.hasResult(sequence, number)
        bridge.keepFrame(sequence, number, result(tmp_path, frame, liver=slice(0, number + 1)))
        bridge.closeFrame(frame)
    kept = bridge.resultOf(sequence)
    assert [kept.GetNthIndexValue(n) for n in range(kept.GetNumberOfDataNodes())] == ["0", "20"]
    assert kept.GetDataNodeAtValue("20").GetSegmentation().GetSegmentIDs() == ("liver",)
    assert [bridge.hasResult(sequence, n) for n in range(3)] == [True, False, True]
    assert browser.IsSynchronizedSequenceNode(kept, True)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == volumes


def test_a_sequence_of_something_else_is_refused_by_frame(slicer: Any) -> None:
    from WholeBodyCSSLib.SequenceBridge import SequenceBridge

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "points")
    sequence.SetDataNodeAtValue(slicer.vtkMRMLModelNode(), "0")
    with pytest.raises(InputError, match="every frame of points must be a scalar volume, got vtkMRMLModelNode in"):
        SequenceBridge().numFrames(sequence)
