"""The page in Slicer's application settings. Every change is kept at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer

from wbcss.resources import resource_path

from ..RegistryPlaces import RegistryPlaces
from ..Settings import Settings
from ..Translation import _

TITLE = "WholeBodyCSS"


class SettingsPanel:
    """Shows the preferences and writes them."""

    def __init__(self, uiLoader: Callable[[str], Any], settings: Settings, places: RegistryPlaces) -> None:
        self._settings, self._places = settings, places
        self._isFilling = False
        self.widget = ctk.ctkSettingsPanel()
        content = uiLoader(str(resource_path("UI", "SettingsPanel.ui")))
        qt.QVBoxLayout(self.widget).addWidget(content)
        self.ui = slicer.util.childWidgetVariables(content)
        for edit in (self.ui.registryFolderEdit, self.ui.caseFolderEdit):
            edit.filters = ctk.ctkPathLineEdit.Dirs
        for selector, choices in ((self.ui.deviceSelector, _devices()), (self.ui.qualitySelector, _qualities())):
            for value, words in choices.items():
                selector.addItem(words, value)
        self.refresh()
        self.ui.deviceSelector.connect("currentIndexChanged(int)", self._write)
        self.ui.qualitySelector.connect("currentIndexChanged(int)", self._write)
        self.ui.show3DCheckBox.connect("toggled(bool)", self._write)
        self.ui.keepWarmCheckBox.connect("toggled(bool)", self._write)
        self.ui.registryFolderEdit.connect("currentPathChanged(QString)", self._write)
        self.ui.caseFolderEdit.connect("currentPathChanged(QString)", self._write)

    def addToDialog(self) -> None:
        """Put the page into Slicer's dialog Application Settings."""
        slicer.app.settingsDialog().addPanel(TITLE, self.widget)

    def refresh(self) -> None:
        """Show what is kept now; another page may have changed it."""
        self._isFilling = True
        try:
            _choose(self.ui.deviceSelector, self._settings.device)
            _choose(self.ui.qualitySelector, self._settings.quality)
            self.ui.show3DCheckBox.checked = self._settings.show3D
            self.ui.keepWarmCheckBox.checked = self._settings.keepWorkerWarm
            self.ui.registryFolderEdit.currentPath = self._settings.registryFolder
            self.ui.caseFolderEdit.currentPath = self._settings.caseFolder
        finally:
            self._isFilling = False
        self._showHint()

    def _write(self, _value: object = None) -> None:
        if self._isFilling:
            return
        self._settings.device = str(_chosen(self.ui.deviceSelector))
        self._settings.quality = str(_chosen(self.ui.qualitySelector))
        self._settings.show3D = bool(self.ui.show3DCheckBox.checked)
        self._settings.keepWorkerWarm = bool(self.ui.keepWarmCheckBox.checked)
        self._settings.registryFolder = str(self.ui.registryFolderEdit.currentPath).strip()
        self._settings.caseFolder = str(self.ui.caseFolderEdit.currentPath).strip()
        self._showHint()

    def _showHint(self) -> None:
        text = _("Now: {path}") if self._places.hasOwn else _("Made when it is first needed: {path}")
        self.ui.registryFolderHint.text = text.format(path=self._places.own)


def _devices() -> dict[str, str]:
    return {"auto": _("Automatic"), "cpu": _("Processor"), "cuda": _("Graphics card (CUDA)")}


def _qualities() -> dict[str, str]:
    return {"fast": _("Fast"), "normal": _("Normal"), "best": _("Best")}


def _choose(selector: Any, value: str) -> None:
    """Select ``value``; one that is not offered, as ``cuda:1``, is added, so that it is not lost."""
    index = selector.findData(value)
    if index < 0:
        selector.addItem(value, value)
        index = selector.count - 1
    selector.setCurrentIndex(index)


def _chosen(selector: Any) -> Any:
    return selector.itemData(selector.currentIndex)
