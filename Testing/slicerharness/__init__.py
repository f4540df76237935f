"""Runs the Slicer module without Slicer: PythonQt, CTK and qMRML stand-ins on PySide6 over the real MRML scene.

``python -m slicerharness SCRIPT`` is to this package what ``Slicer --python-script SCRIPT`` is to the application.
"""

from __future__ import annotations

from .install import install, load_module
from .recorder import errors, recorded

__all__ = ["errors", "install", "load_module", "recorded"]
