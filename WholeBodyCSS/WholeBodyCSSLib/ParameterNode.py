"""The run parameters of the module, typed and checked, kept in the scene so that they survive saving and loading.

An adapter over a vtkMRMLScriptedModuleNode: texts and node references there, typed attributes here. What a scene of
another version holds and this one cannot read counts as not set. Preferences of the machine are in ``Settings``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

from wbcss.errors import InputError, WbcssError
from wbcss.labels import parse_organ_name
from wbcss.protocol import Quality

from .Settings import QUALITIES

MODULE_NAME = "WholeBodyCSS"
NODE_CLASS = "vtkMRMLScriptedModuleNode"

_LOG = logging.getLogger(__name__)
_Value = TypeVar("_Value")


class Field(Generic[_Value]):
    """A parameter: reads and writes one text of the node. An unset one has its default.

    Args:
        name: Of the text in the node.
        default: Value of a node that was never written to.
        parse: Text to value. Raises WbcssError for a text that is none.
        text: Value to text; refuses what ``parse`` would refuse.
    """

    def __init__(
        self, name: str, default: _Value, parse: Callable[[str], _Value], text: Callable[[_Value], str]
    ) -> None:
        self._name = name
        self._default = default
        self._parse = parse
        self._text = text

    @overload
    def __get__(self, node: None, owner: type) -> Field[_Value]: ...

    @overload
    def __get__(self, node: ParameterNode, owner: type) -> _Value: ...

    def __get__(self, node: ParameterNode | None, owner: type) -> Field[_Value] | _Value:
        if node is None:
            return self
        text = node.mrmlNode.GetParameter(self._name)
        if not text:
            return self._default
        try:
            return self._parse(text)
        except WbcssError as error:
            _LOG.warning("parameter %s of the scene is passed over: %s", self._name, error)
            return self._default

    def __set__(self, node: ParameterNode, value: _Value) -> None:
        text = self._text(value)
        self._parse(text)
        if node.mrmlNode.GetParameter(self._name) != text:
            node.mrmlNode.SetParameter(self._name, text)


class NodeField:
    """A reference to a node of the scene. A removed node reads as None.

    Args:
        role: Of the reference.
        classes: Classes that the node may have.
    """

    def __init__(self, role: str, *classes: str) -> None:
        self._role = role
        self._classes = classes

    def __get__(self, node: ParameterNode, owner: type) -> Any:
        return node.mrmlNode.GetNodeReference(self._role)

    def __set__(self, node: ParameterNode, value: Any) -> None:
        if value is not None and not any(value.IsA(name) for name in self._classes):
            raise InputError(f"{self._role} must be a {' or '.join(self._classes)}, got a {value.GetClassName()}")
        nodeId = None if value is None else value.GetID()
        if node.mrmlNode.GetNodeReferenceID(self._role) != nodeId:
            node.mrmlNode.SetNodeReferenceID(self._role, nodeId)


def _parseBool(text: str) -> bool:
    if text not in ("true", "false"):
        raise InputError(f"a switch must be true or false, got {text!r}")
    return text == "true"


def _parseQuality(text: str) -> Quality:
    for quality in QUALITIES:
        if quality == text:
            return quality
    raise InputError(f"the quality must be one of {', '.join(QUALITIES)}, got {text!r}")


_ALL = "*"


def _parseOrgans(text: str) -> tuple[str, ...] | None:
    return None if text == _ALL else tuple(str(parse_organ_name(name)) for name in text.split(" ") if name)


def _organsText(organs: Sequence[str] | None) -> str:
    # The blank keeps an empty choice apart from one that was never made.
    return _ALL if organs is None else " ".join(organs) or " "


def _boolText(value: bool) -> str:
    return "true" if value else "false"


class ParameterNode:
    """What the user chose for the next run.

    Attributes:
        inputVolume: The volume or sequence to segment, or None.
        organs: Names of the ticked organs; None means all but those on request, also those published later.
        quality: How far tiles overlap.
        statistics: Put the table of organs into the scene.
        onlyToCheck: Show only the organs that a person should look at.
    """

    inputVolume = NodeField("inputVolume", "vtkMRMLScalarVolumeNode", "vtkMRMLSequenceNode")
    organs: Field[tuple[str, ...] | None] = Field("organs", None, _parseOrgans, _organsText)
    quality: Field[Quality] = Field("quality", "normal", _parseQuality, str)
    statistics: Field[bool] = Field("statistics", True, _parseBool, _boolText)
    onlyToCheck: Field[bool] = Field("onlyToCheck", False, _parseBool, _boolText)

    def __init__(self, mrmlNode: Any) -> None:
        self.mrmlNode = mrmlNode
        self._observer: int | None = None

    @classmethod
    def inScene(cls, scene: Any) -> ParameterNode:
        """The parameters of ``scene``, made if it has none yet. There is one set of them in a scene."""
        mrmlNode = scene.GetSingletonNode(MODULE_NAME, NODE_CLASS)
        if mrmlNode is None:
            mrmlNode = scene.CreateNodeByClass(NODE_CLASS)
            mrmlNode.UnRegister(None)  # else the node that was made for us would never be freed
            mrmlNode.SetSingletonTag(MODULE_NAME)
            mrmlNode.SetModuleName(MODULE_NAME)
            mrmlNode.SetName(MODULE_NAME)
            mrmlNode.SetHideFromEditors(True)
            mrmlNode = scene.AddNode(mrmlNode)
        return cls(mrmlNode)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Tell of several changes at once, at the end of the block."""
        wasModifying = self.mrmlNode.StartModify()
        try:
            yield
        finally:
            self.mrmlNode.EndModify(wasModifying)

    def observe(self, onChanged: Callable[[], None]) -> None:
        """Call ``onChanged`` after every change, whoever made it; instead of an earlier observer."""
        self.close()
        self._observer = self.mrmlNode.AddObserver("ModifiedEvent", lambda caller, event: onChanged())

    def close(self) -> None:
        """Stop observing."""
        if self._observer is not None:
            self.mrmlNode.RemoveObserver(self._observer)
            self._observer = None
