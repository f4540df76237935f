"""``slicer.ScriptedLoadableModule`` and ``slicer.i18n``, written from their documented behavior."""

from __future__ import annotations

import logging
import types
import unittest
from pathlib import Path
from typing import Any

import slicer


class ScriptedLoadableModule:
    """Base of the class that a module file is named after."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__

    def resourcePath(self, filename: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        return slicer.app.moduleDocumentationUrl(docPage or self.moduleName)


class ScriptedLoadableModuleWidget:
    """Base of a module's panel; ``parent`` is the widget that Slicer made for it."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        if parent is None:
            import qt

            parent = slicer.qMRMLWidget()
            parent.setLayout(qt.QVBoxLayout())
            parent.setMRMLScene(slicer.mrmlScene)
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, filename: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """The panel adds its widgets after this."""

    def cleanup(self) -> None:
        """Called before the panel goes away."""

    def enter(self) -> None:
        """Called when the user opens the module."""

    def exit(self) -> None:
        """Called when the user leaves the module."""


class ScriptedLoadableModuleLogic:
    """Base of a module's logic, with the parameter node that the scene keeps."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        return self._node(self.moduleName) if self.isSingletonParameterNode else self._node("")

    def createParameterNode(self) -> Any:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node

    def _node(self, tag: str) -> Any:
        scene = slicer.mrmlScene
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")):
            node = scene.GetNthNodeByClass(index, "vtkMRMLScriptedModuleNode")
            if node.GetModuleName() == self.moduleName and (not tag or node.GetSingletonTag() == tag):
                return node
        node = scene.AddNode(self.createParameterNode())
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base of the class behind *Reload and Test*."""

    def __init__(self, methodName: str = "runTest") -> None:
        super().__init__(methodName)

    def delayDisplay(self, message: str, *_rest: Any, **_options: Any) -> None:
        logging.getLogger(__name__).info(message)
        slicer.app.processEvents()

    def runTest(self) -> None:
        for name in self._names():
            self.setUp()
            getattr(self, name)()
            self.tearDown()

    def _names(self) -> list[str]:
        return [name for name in dir(self) if name.startswith("test")]


def tr(text: str) -> str:
    """``slicer.i18n.tr``: English stays."""
    return text


def translate(_context: str, text: str) -> str:
    """``slicer.i18n.translate``: English stays."""
    return text


def make_modules() -> tuple[types.ModuleType, types.ModuleType]:
    """``slicer.ScriptedLoadableModule`` and ``slicer.i18n``."""
    base = types.ModuleType("slicer.ScriptedLoadableModule", __doc__)
    names = [
        "ScriptedLoadableModule",
        "ScriptedLoadableModuleWidget",
        "ScriptedLoadableModuleLogic",
        "ScriptedLoadableModuleTest",
    ]
    for name in names:
        setattr(base, name, globals()[name])
    base.__all__ = names
    i18n = types.ModuleType("slicer.i18n", __doc__)
    i18n.tr, i18n.translate = tr, translate
    return base, i18n
