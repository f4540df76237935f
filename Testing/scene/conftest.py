"""Fixtures of the Slicer room's tests."""

from __future__ import annotations

import types
from typing import Any

import pytest


@pytest.fixture
def slicer() -> Any:
    """The slicer package over a new scene, with what the room uses of the application."""
    import slicer  # only in the scene tier: the wheel is not everywhere
    import slicer.util

    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    segmentations = slicer.vtkSlicerSegmentationsModuleLogic()
    segmentations.SetMRMLScene(scene)
    segmentations.SetMRMLApplicationLogic(application)
    application.SetModuleLogic("Segmentations", segmentations)
    slicer.mrmlScene = scene
    slicer.modules = types.SimpleNamespace(segmentations=types.SimpleNamespace(logic=lambda: segmentations))
    return slicer
