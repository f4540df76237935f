"""WholeBodyCSS: segment the whole body in CT. Entry of the Slicer module; everything but the shell is elsewhere."""

import sys
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool):
    # The button Reload reads this file anew; without this the packages beside it would stay as they were.
    for _name in [name for name in sys.modules if name.split(".")[0] in ("WholeBodyCSSLib", "wbcss")]:
        del sys.modules[_name]

from WholeBodyCSSLib import Dependencies
from WholeBodyCSSLib.ModuleLogic import ModuleLogic
from WholeBodyCSSLib.Panels.ModulePages import ModulePages
from WholeBodyCSSLib.Panels.PackageDrop import WholeBodyCSSFileDialog  # noqa: F401 -- Slicer finds it by its name
from WholeBodyCSSLib.Panels.SampleDataSources import SampleDataSources
from WholeBodyCSSLib.Panels.SettingsPanel import SettingsPanel
from WholeBodyCSSLib.RegistryPlaces import RegistryPlaces
from WholeBodyCSSLib.Settings import Settings
from WholeBodyCSSLib.TerminologyResources import TerminologyResources


class WholeBodyCSS(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Whole-Body CT Segmentation (continual)")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The WholeBodyCSS developers"]
        self.parent.helpText = _(
            "Segments the organs of the whole body in CT on this computer; nothing is sent anywhere. "
            "Most organs were learned from synthetic CT only: check every organ before you rely on it."
        )
        self.parent.acknowledgementText = _(
            "Weights derived from BodyParts3D, (c) The Database Center for Life Science, CC BY-SA 2.1 Japan; organs of "
            "the head and neck learned from OpenKBP (MIT; Babier et al., Med Phys 48:5549, 2021)."
        )
        slicer.app.connect("startupCompleted()", self.onStarted)

    def onStarted(self):
        """Offer the sample scans and the page of preferences; nothing is drawn, loaded or installed."""
        self.samples = SampleDataSources()
        self.samples.register()
        if not slicer.app.commandOptions().noMainWindow:
            settings = Settings(qt.QSettings())
            self.settingsPanel = SettingsPanel(slicer.util.loadUI, settings, RegistryPlaces(settings))
            self.settingsPanel.addToDialog()


class WholeBodyCSSWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The shell: tells the pages what happens to the module and to the scene."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.pages = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/WholeBodyCSS.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        with slicer.util.tryWithErrorDisplay(_("The organs are missing from the choice of terminologies.")):
            resources = Path(self.resourcePath("UI/WholeBodyCSS.ui")).parents[1]
            TerminologyResources(resources).load(slicer.modules.terminologies.logic())
        self.logic = WholeBodyCSSLogic()
        self.pages = ModulePages(self.ui.pages, slicer.util.loadUI, self.logic, self.ensure)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneClosing)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneClosed)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneLoaded)

    def cleanup(self):
        self.removeObservers()
        if self.pages is not None:
            self.pages.cleanup()

    def enter(self):
        self.pages.enter()

    def exit(self):
        self.pages.exit()

    def onSceneClosing(self, _caller, _event):
        self.pages.onSceneClosing()

    def onSceneClosed(self, _caller, _event):
        self.pages.onSceneClosed()

    def onSceneLoaded(self, _caller, _event):
        self.pages.onSceneLoaded()

    def ensure(self):
        """Install what is missing, after asking. Raises RunError, or Cancelled if the user declined."""
        Dependencies.ensure(slicer, self.resourcePath("requirements.txt"), self.logic.settings)

    def importPackage(self, path):
        """Import a task package that was dropped onto Slicer."""
        self.pages.importPackages([Path(path)])


class WholeBodyCSSLogic(ScriptedLoadableModuleLogic, ModuleLogic):
    """Usable without the panel: ``segment(node)``, then ``queue.poll()`` while ``queue.isRunning``."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        ModuleLogic.__init__(self, Settings(qt.QSettings()))


class WholeBodyCSSTest(ScriptedLoadableModuleTest):
    """What the button Reload and Test runs: what needs no torch. All other cases are in Testing/Python."""

    def runTest(self):
        slicer.mrmlScene.Clear()
        self.test_theButtonNeedsAVolume()

    def test_theButtonNeedsAVolume(self):
        panel = slicer.modules.wholebodycss.widgetRepresentation().self().pages.segment
        panel.enter()
        self.assertFalse(panel.ui.segmentButton.enabled)
        panel.ui.inputSelector.setCurrentNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
        self.assertTrue(panel.ui.segmentButton.enabled)
