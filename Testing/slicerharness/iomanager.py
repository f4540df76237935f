"""``slicer.app.coreIOManager()``: ``slicer.util.load...`` and ``save...`` through the real logics and storage nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

SUFFIXES = {
    "SegmentationFile": (".seg.nrrd", ".seg.nhdr"),
    "VolumeFile": (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm"),
    "ModelFile": (".vtk", ".vtp", ".stl", ".ply", ".obj"),
    "MarkupsFile": (".mrk.json", ".json", ".fcsv"),
    "TransformFile": (".h5", ".tfm"),
    "ColorTableFile": (".ctbl",),
    "TableFile": (".csv", ".tsv"),
    "SceneFile": (".mrml", ".mrb"),
}
LABELMAP, CENTERED, SINGLE_FILE = 1, 2, 16


class CoreIOManager:
    """Reads and writes what slicer-core can; other types raise."""

    def fileType(self, path: str) -> str:
        lower = path.lower()
        return next((kind for kind, ends in SUFFIXES.items() if lower.endswith(ends)), "NoFile")

    def loadNodes(self, kind: str, properties: dict[str, Any], nodes: Any, _messages: Any = None) -> bool:
        """Add the nodes of a file to the scene and to the collection ``nodes``."""
        path = Path(properties["fileName"])
        if not path.exists():
            return False
        if kind == "SceneFile":
            slicer.mrmlScene.SetURL(str(path))
            return bool(slicer.mrmlScene.Import())
        node = self._load(kind, str(path), properties.get("name") or path.name.split(".")[0], properties)
        if node is None:
            return False
        nodes.AddItem(node)
        return True

    def _load(self, kind: str, path: str, name: str, properties: dict[str, Any]) -> Any:
        modules = slicer.modules
        if kind == "VolumeFile":
            chosen = (("labelmap", LABELMAP), ("center", CENTERED), ("singleFile", SINGLE_FILE))
            options = sum(flag for key, flag in chosen if properties.get(key))
            return modules.volumes.logic().AddArchetypeVolume(path, name, options)
        if kind == "SegmentationFile":
            colors = slicer.mrmlScene.GetNodeByID(properties.get("colorNodeID") or "")
            return modules.segmentations.logic().LoadSegmentationFromFile(path, True, name, colors)
        if kind == "ModelFile":
            system = properties.get("coordinateSystem", slicer.vtkMRMLStorageNode.CoordinateSystemLPS)
            return modules.models.logic().AddModel(path, system)
        if kind == "MarkupsFile":
            return slicer.mrmlScene.GetNodeByID(modules.markups.logic().LoadMarkups(path, name) or "")
        if kind == "TransformFile":
            return modules.transforms.logic().AddTransform(path, slicer.mrmlScene)
        if kind == "ColorTableFile":
            return modules.colors.logic().LoadColorFile(path, name)
        if kind == "TableFile":
            return modules.tables.logic().AddTable(path, name)
        raise NotImplementedError(f"the harness reads {', '.join(SUFFIXES)}, got {kind}")

    def fileWriterFileType(self, node: Any) -> str:
        return str(node.GetClassName())

    def saveNodes(self, kind: str, properties: dict[str, Any], _messages: Any = None) -> bool:
        """Write a node, or the scene."""
        path = properties["fileName"]
        if kind == "SceneFile":
            if path.endswith(".mrb"):
                return bool(slicer.mrmlScene.WriteToMRB(path, None))
            slicer.mrmlScene.SetURL(path)
            return bool(slicer.mrmlScene.Commit(path))
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node is None:
            return False
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        if "useCompression" in properties:
            storage.SetUseCompression(int(properties["useCompression"]))
        return bool(storage.WriteData(node))
