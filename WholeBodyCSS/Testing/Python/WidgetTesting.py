"""What widget tests need, the same inside 3D Slicer and in the harness: only ``qt`` and ``slicer`` are used."""

import contextlib
import os
import re
import sys
import tempfile
import time
import traceback
import unittest
from pathlib import Path

import qt
import slicer

SETTINGS_GROUP = "WholeBodyCSS"
DEFAULT_WAIT_S = 10.0


class WidgetTestCase(unittest.TestCase):
    """An empty scene and default preferences before each case; no exception lost in a slot after it."""

    def setUp(self):
        self.swallowed = []
        """Tracebacks of exceptions that Qt or VTK has swallowed since the case began."""
        self._hook, sys.excepthook = sys.excepthook, self._remember
        self.addCleanup(self._checkNothingWasSwallowed)
        self._shown = []
        self.addCleanup(self._closeShown)
        self._keepPreferences()
        slicer.mrmlScene.Clear()
        slicer.app.processEvents()

    def openModule(self, moduleName="WholeBodyCSS"):
        """The module's panel object with what ``setup`` made, shown in a window of its own."""
        representation = slicer.util.getModule(moduleName).widgetRepresentation()
        self.show(representation)
        return representation.self()

    def needMainWindow(self):
        """Skip the case in a Slicer without main window: nothing selects modules or lays out views there."""
        if slicer.util.mainWindow() is None:
            self.skipTest("Slicer was started with --no-main-window; CTest runs this case with one")

    def show(self, widget, width=480, height=800):
        """Show a widget like Slicer's module panel does; it is hidden again when the case ends."""
        widget.resize(width, height)
        widget.show()
        self._shown.append(widget)
        slicer.app.processEvents()
        return widget

    def click(self, button):
        """Click a button that a user could click."""
        self.assertTrue(button.isVisible(), f"{button.name} cannot be seen, so nobody can click it")
        self.assertTrue(button.enabled, f"{button.name} is disabled, so nobody can click it")
        button.click()
        slicer.app.processEvents()

    def waitUntil(self, condition, what, timeout_s=DEFAULT_WAIT_S):
        """Let Slicer work until ``condition()`` holds; fail with ``what`` if it does not come about."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"waited {timeout_s:g} s in vain: {what}")
            slicer.app.processEvents()
            time.sleep(0.01)

    @contextlib.contextmanager
    def expectError(self, pattern):
        """Exactly one exception is raised in a slot, and its traceback ends in a line that matches ``pattern``."""
        before = len(self.swallowed)
        yield
        slicer.app.processEvents()
        raised = self.swallowed[before:]
        del self.swallowed[before:]
        self.assertEqual(len(raised), 1, f"expected one error like {pattern!r}, got {raised}")
        self.assertRegex(raised[0].strip().splitlines()[-1], re.compile(pattern))

    def screenshot(self, widget, name):
        """Write ``name.png`` into the folder WBCSS_SCREENSHOTS, or a temporary one; returns the path."""
        slicer.app.processEvents()
        folder = Path(os.environ.get("WBCSS_SCREENSHOTS") or Path(tempfile.gettempdir()) / "wbcss-screenshots")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        self.assertTrue(widget.grab().save(str(path)), f"{path} cannot be written")
        return path

    def _remember(self, kind, error, trace):
        self.swallowed.append("".join(traceback.format_exception(kind, error, trace)))

    def _checkNothingWasSwallowed(self):
        slicer.app.processEvents()
        sys.excepthook = self._hook
        self.assertEqual("\n".join(self.swallowed), "", "an exception was raised in a slot, an observer or a timer")

    def _closeShown(self):
        for widget in self._shown:
            widget.hide()

    def _keepPreferences(self):
        """The case starts from default preferences, and the user's are back when it has ended."""
        settings = qt.QSettings()
        keys = [key for key in settings.allKeys() if key.startswith(f"{SETTINGS_GROUP}/")]
        kept = {key: settings.value(key) for key in keys}
        settings.remove(SETTINGS_GROUP)

        def restore():
            settings.remove(SETTINGS_GROUP)
            for key, value in kept.items():
                settings.setValue(key, value)

        self.addCleanup(restore)
