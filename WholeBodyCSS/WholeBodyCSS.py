"""WholeBodyCSS: segment the whole body in CT. Entry of the Slicer module; everything but the shell is elsewhere."""

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

from WholeBodyCSSLib import Dependencies
from WholeBodyCSSLib.EngineProcess import EngineProcess
from WholeBodyCSSLib.SceneBridge import SceneBridge
from WholeBodyCSSLib.SegmentLogic import SegmentLogic

POLL_INTERVAL_MS = 100


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
            "The starter model was trained on synthetic CT only: check every organ before you rely on it."
        )
        self.parent.acknowledgementText = _(
            "Weights derived from BodyParts3D, (c) The Database Center for Life Science, CC BY-SA 2.1 Japan."
        )


class WholeBodyCSSWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. A slot reads what the user chose, calls the logic and shows what came."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/WholeBodyCSS.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = WholeBodyCSSLogic()
        self.logic.segmenting.onProgress = self.onProgress
        self.logic.segmenting.onFinished = self.onFinished
        self.logic.segmenting.onFailed = self.onFailed
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_INTERVAL_MS)
        self.timer.connect("timeout()", self.onTimer)
        self.ui.segmentButton.connect("clicked(bool)", self.onSegment)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.showState)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneClosing)
        self.showState()

    def cleanup(self):
        self.timer.stop()
        self.removeObservers()
        self.logic.segmenting.close()

    def onSceneClosing(self, _caller, _event):
        self.timer.stop()
        self.logic.segmenting.close()
        self.showState()

    def onSegment(self, _checked=False):
        with slicer.util.tryWithErrorDisplay(_("The volume cannot be segmented.")):
            Dependencies.ensure(slicer, self.resourcePath("requirements.txt"))
            self.logic.segmenting.start(self.ui.inputSelector.currentNode())
            self.ui.statusLabel.text = _("Starting ...")
            self.timer.start()
        self.showState()

    def onCancel(self, _checked=False):
        self.ui.statusLabel.text = _("Cancelling ...")
        with slicer.util.tryWithErrorDisplay(_("The segmentation cannot be cancelled.")):
            self.logic.segmenting.cancel()

    def onTimer(self):
        self.logic.segmenting.poll()

    def onProgress(self, fraction, stage, remaining_s):
        self.ui.progressBar.value = int(100 * fraction)
        left = _(", about {seconds} s left").format(seconds=round(remaining_s)) if remaining_s is not None else ""
        self.ui.statusLabel.text = stage + left

    def onFinished(self, segmentationNode, warnings):
        count = segmentationNode.GetSegmentation().GetNumberOfSegments()
        self.onEnded("\n".join((_("Organs found: {count}").format(count=count), *warnings)))

    def onFailed(self, message):
        self.onEnded(message or _("Cancelled; the scene is unchanged."))
        if message:
            slicer.util.errorDisplay(message)

    def onEnded(self, message):
        self.timer.stop()
        self.ui.statusLabel.text = message
        self.showState()

    def showState(self, _node=None):
        running, volumeNode = self.logic.segmenting.isRunning, self.ui.inputSelector.currentNode()
        self.ui.segmentButton.enabled = volumeNode is not None and not running
        self.ui.segmentButton.toolTip = _("Segment every organ") if volumeNode else _("Choose a CT volume first")
        self.ui.cancelButton.enabled = running
        self.ui.inputSelector.enabled = not running
        self.ui.progressBar.visible = running
        if not running:
            self.ui.progressBar.value = 0


class WholeBodyCSSLogic(ScriptedLoadableModuleLogic):
    """Usable without the panel: ``logic.segmenting.start(volumeNode)``, then ``poll`` until it has ended."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.segmenting = SegmentLogic(EngineProcess(), SceneBridge())


class WholeBodyCSSTest(ScriptedLoadableModuleTest):
    """What the Reload and Test button runs: all that needs no torch. The worker's case is in Testing/Python."""

    def runTest(self):
        slicer.mrmlScene.Clear()
        self.test_theButtonNeedsAVolume()

    def test_theButtonNeedsAVolume(self):
        widget = slicer.modules.wholebodycss.widgetRepresentation().self()
        self.assertFalse(widget.ui.segmentButton.enabled)
        widget.ui.inputSelector.setCurrentNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
        self.assertTrue(widget.ui.segmentButton.enabled)
