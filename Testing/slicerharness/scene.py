"""The real MRML scene of the slicer-core wheel with its module logics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import slicer
import vtk


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
    scene.AddNewNodeByClass("vtkMRMLCrosshairNode").SetCrosshairName("default")
    return scene, application, logics


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = vtk.vtkLogger.GetCurrentVerbosityCutoff()
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    vtk.vtkObject.GlobalWarningDisplayOff()
    yield
    vtk.vtkObject.GlobalWarningDisplayOn()
    vtk.vtkLogger.SetStderrVerbosity(verbosity)
