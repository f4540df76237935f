"""Cases of the harness alone: where it is stricter than Slicer. Run by test_harness.py in a process of their own."""

import tempfile
from pathlib import Path

import ctk
import qt
import slicer
from slicerharness import recorded
from WidgetTesting import WidgetTestCase

UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0">
 <class>Panel</class>
 <widget class="qMRMLWidget" name="Panel">
  <layout class="QVBoxLayout" name="column">
   <item><widget class="{widget}" name="chosen"/></item>
   <item><widget class="QPushButton" name="button"/></item>
  </layout>
 </widget>
 <connections>
  <connection>
   <sender>{sender}</sender><signal>{signal}</signal><receiver>{receiver}</receiver><slot>{slot}</slot>
  </connection>
 </connections>
</ui>
"""
SOUND = {
    "widget": "qMRMLNodeComboBox",
    "sender": "Panel",
    "signal": "mrmlSceneChanged(vtkMRMLScene*)",
    "receiver": "chosen",
    "slot": "setMRMLScene(vtkMRMLScene*)",
}


def load(**changes):
    """A panel of two widgets and one connection, with something changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Panel.ui"
        path.write_text(UI.format(**{**SOUND, **changes}), encoding="utf-8")
        return slicer.util.loadUI(str(path))


class HarnessCases(WidgetTestCase):
    def test_aConnectionOfTheLayoutIsCarriedOut(self):
        panel = load()
        chosen = slicer.util.childWidgetVariables(panel).chosen
        self.assertIsNone(chosen.mrmlScene())
        panel.setMRMLScene(slicer.mrmlScene)
        self.assertIs(chosen.mrmlScene(), slicer.mrmlScene)

    def test_aMissingConnectionLeavesTheSelectorWithoutScene(self):
        panel = load(receiver="button", slot="click()")
        panel.setMRMLScene(slicer.mrmlScene)
        self.assertIsNone(slicer.util.childWidgetVariables(panel).chosen.mrmlScene())

    def test_mistakesInALayoutAreNamed(self):
        for changes, message in (
            ({"widget": "qMRMLFooWidget"}, "no stand-in for qMRMLFooWidget"),
            ({"receiver": "chosne"}, "there is no chosne"),
            ({"slot": "setScene(vtkMRMLScene*)"}, "chosen has no such slot"),
            ({"signal": "mrmlSceneChanged(vtkMRMLNode*)"}, "no signal 'mrmlSceneChanged"),
        ):
            with self.subTest(message), self.assertRaisesRegex(RuntimeError, message):
                load(**changes)

    def test_aSignalThatDoesNotExistIsRefused(self):
        for widget, signature in (
            (qt.QPushButton(), "clickd(bool)"),
            (qt.QPushButton(), "clicked(int)"),
            (qt.QComboBox(), "currentIndexChanged(QString)"),
            (qt.QCheckBox(), "checkStateChanged(Qt::CheckState)"),
            (slicer.qMRMLNodeComboBox(), "currentNodeChanged()"),
            (slicer.qMRMLNodeComboBox(), "currentNodeIDChanged(vtkMRMLNode*)"),
            (ctk.ctkPathLineEdit(), "currentPathChanged()"),
            (qt.QTableWidget().horizontalHeader, "sectionClicked(bool)"),
        ):
            with self.subTest(signature), self.assertRaisesRegex(AttributeError, "has no signal"):
                (widget() if callable(widget) else widget).connect(signature, lambda: None)

    def test_theNamesOfCtkAreThoseOfItsStandIns(self):
        with self.assertRaisesRegex(AttributeError, "ctk.ctkFoo has no stand-in"):
            _ = ctk.ctkFoo

    def test_aStandInTakesNoNewAttributes(self):
        with self.assertRaisesRegex(AttributeError, "'noneEnable' does not exist on qMRMLNodeComboBox"):
            slicer.qMRMLNodeComboBox().noneEnable = True

    def test_aDialogThatWouldWaitForAPersonIsRefused(self):
        for ask in (
            lambda: qt.QFileDialog.getExistingDirectory(None, "Folder"),
            lambda: qt.QMessageBox.question(None, "Title", "Sure?"),
            lambda: qt.QDialog().exec_(),
        ):
            with self.assertRaisesRegex(RuntimeError, "would wait for a person"):
                ask()

    def test_thePreferencesOfTheUserAreFarAway(self):
        self.assertTrue(qt.QSettings().fileName().startswith(slicer.app.temporaryPath))

    def test_aPageForTheBrowserIsRememberedOnly(self):
        qt.QDesktopServices.openUrl(qt.QUrl("https://example.org/help"))
        self.assertEqual(recorded.opened_urls[-1], "https://example.org/help")
