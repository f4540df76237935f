"""The real MRML scene of the slicer-core wheel with its module logics, slice nodes and layout node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import slicer
import vtk

SLICE_VIEWS = (("Red", "Axial", "R"), ("Yellow", "Sagittal", "Y"), ("Green", "Coronal", "G"))


def make() -> tuple[Any, Any, dict[str, Any]]:
    """A new scene, its application logic and the module logics by name. The order of the steps matters."""
    window = vtk.vtkOutputWindow()
    window.SetDisplayModeToAlwaysStdErr()
    vtk.vtkOutputWindow.SetInstance(window)
    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    application.GetColorLogic().SetMRMLScene(scene)
    application.GetColorLogic().AddDefaultColorNodes()
    application.SetSliceLogics(vtk.vtkCollection())
    application.SetViewLogics(vtk.vtkCollection())
    logics = {
        "Colors": slicer.vtkMRMLColorLogic(),
        "Volumes": slicer.vtkSlicerVolumesLogic(),
        "Terminologies": slicer.vtkSlicerTerminologiesModuleLogic(),
        "Segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
        "SubjectHierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic(),
        "Data": slicer.vtkSlicerDataModuleLogic(),
        "Models": slicer.vtkSlicerModelsLogic(),
        "Tables": slicer.vtkSlicerTablesLogic(),
        "Transforms": slicer.vtkSlicerTransformLogic(),
        "Markups": slicer.vtkSlicerMarkupsLogic(),
    }
    with _quiet():  # the wheel lacks the terminology files of the application, and says so at length
        for name, logic in logics.items():
            logic.SetMRMLScene(scene)
            logic.SetMRMLApplicationLogic(application)
            application.SetModuleLogic(name, logic)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    _add_views(scene)
    return scene, application, logics


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = vtk.vtkLogger.GetCurrentVerbosityCutoff()
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    vtk.vtkObject.GlobalWarningDisplayOff()
    yield
    vtk.vtkObject.GlobalWarningDisplayOn()
    vtk.vtkLogger.SetStderrVerbosity(verbosity)


def _add_views(scene: Any) -> None:
    """Nodes of the four-up layout. Singletons, so they outlive ``scene.Clear()`` as in the application."""
    scene.AddNewNodeByClass("vtkMRMLCrosshairNode").SetCrosshairName("default")
    for name, orientation, label in SLICE_VIEWS:
        view = _singleton(scene, "vtkMRMLSliceNode", name, name)
        view.SetLayoutLabel(label)
        view.SetOrientation(orientation)
        _singleton(scene, "vtkMRMLSliceCompositeNode", name, name)
    _singleton(scene, "vtkMRMLViewNode", "View1", "1")
    layout = slicer.vtkMRMLLayoutNode()
    layout.SetSingletonTag("vtkMRMLLayoutNode")
    scene.AddNode(layout)


def _singleton(scene: Any, kind: str, name: str, layout_name: str) -> Any:
    node = scene.CreateNodeByClass(kind)  # with the scene's defaults, among them the orientations
    node.UnRegister(None)
    node.SetName(name)
    node.SetLayoutName(layout_name)
    node.SetSingletonTag(layout_name)
    return scene.AddNode(node)
